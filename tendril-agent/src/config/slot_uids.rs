//! `--slot-uid-base`: which IDs the users of runs have.

use crate::process::run_user::MOST;

pub(crate) const SETTING: &str = "--slot-uid-base / TENDRIL_SLOT_UID_BASE";

/// What is configured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum SlotUids {
    /// Users of their own where the agent is root, with the usual IDs.
    #[default]
    Usual,
    /// Runs are the agent's user's.
    Off,
    /// Users of their own, with these IDs.
    From(u32),
}

impl SlotUids {
    /// Reads `--slot-uid-base`.
    pub(crate) fn read(text: Option<&str>) -> Result<Self, String> {
        match text {
            None => Ok(Self::Usual),
            Some("off") => Ok(Self::Off),
            Some(text) => match text.parse::<u32>() {
                Ok(base) if base >= 1000 && base.checked_add(MOST + 1).is_some() => Ok(Self::From(base)),
                _ => Err(format!(
                    "{SETTING} is \"{text}\": write the first of {MOST} IDs that no user has, 1000 or more, or \"off\""
                )),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_a_number_or_off() {
        assert_eq!(SlotUids::read(None), Ok(SlotUids::Usual));
        assert_eq!(SlotUids::read(Some("off")), Ok(SlotUids::Off));
        assert_eq!(SlotUids::read(Some("81000")), Ok(SlotUids::From(81_000)));
        for text in ["0", "999", "-1", "on", "4294967295", "70000-80000"] {
            let problem = SlotUids::read(Some(text)).unwrap_err();
            assert!(problem.contains("--slot-uid-base") && problem.contains(text), "{problem}");
        }
    }
}
