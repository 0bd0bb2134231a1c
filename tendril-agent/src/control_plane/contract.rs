//! The version of the contract between agents and the database: which one this agent was built for, and what it means that
//! the database holds another one.
//!
//! An agent works with the contract before its own and with the one after it: unknown values in a row are left alone
//! ([`known`]), and a column that the database does not have is not written (`final_status`).

use serde::{Deserialize as _, Deserializer, de::DeserializeOwned};
use serde_json::Value;

/// The contract that this agent was built for. `supabase/README.md` describes each version.
pub(crate) const CONTRACT: u32 = 3;
/// The first contract that has stacks: `state_key`, `queue_order`, and what comes with them.
pub(crate) const STACKS: u32 = 3;
/// Of a database that does not report it: everything before `contract_version()`.
pub(crate) const FIRST: u32 = 1;

/// What it means that a database holds this contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compatibility {
    /// The one that the agent was built for.
    Same,
    /// The one before: all works, except what came since.
    Older(u32),
    /// Older than that: not tested.
    TooOld(u32),
    /// A later one: all works that this agent knows.
    Newer(u32),
}

impl Compatibility {
    /// Of a database's answer.
    pub(crate) fn of(database: u32) -> Self {
        match database {
            CONTRACT => Self::Same,
            newer if newer > CONTRACT => Self::Newer(newer),
            older if older + 1 == CONTRACT => Self::Older(older),
            older => Self::TooOld(older),
        }
    }

    /// As a sentence; none if all is well.
    pub(crate) fn sentence(self) -> Option<String> {
        let versions = |database| {
            format!("the database holds contract {database}, and this agent was built for {CONTRACT}")
        };
        match self {
            Self::Same => None,
            Self::Older(database) => Some(format!(
                "{}: all works but what came since. Apply the newest supabase/migrations to the database",
                versions(database)
            )),
            Self::TooOld(database) => Some(format!(
                "{}: that is too old. Apply the newest supabase/migrations to the database, or run an older agent",
                versions(database)
            )),
            Self::Newer(database) => Some(format!(
                "{}: all works that this agent knows. Upgrade the agent when it suits you",
                versions(database)
            )),
        }
    }
}

/// Reads a value of which a newer database may have more: a value unknown to this agent becomes `None`.
pub(crate) fn known<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: DeserializeOwned,
{
    Ok(serde_json::from_value(Value::deserialize(deserializer)?).ok())
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::json;

    use super::*;
    use crate::job::{Phase, Status};

    #[test]
    fn an_agent_works_with_the_contract_before_its_own_and_with_any_later_one() {
        assert_eq!(Compatibility::of(CONTRACT).sentence(), None);
        let message = |database| Compatibility::of(database).sentence().unwrap();
        assert!(
            message(CONTRACT - 1).contains("all works but what came since. Apply"),
            "{}",
            message(CONTRACT - 1)
        );
        assert!(message(CONTRACT + 1).contains("Upgrade the agent when it suits you"));
        assert!(message(0).contains("too old"), "{}", message(0));
    }

    #[test]
    fn a_status_or_phase_of_a_later_contract_is_none_and_no_error() {
        #[derive(Deserialize)]
        struct Row {
            #[serde(deserialize_with = "known")]
            status: Option<Status>,
            #[serde(deserialize_with = "known")]
            phase: Option<Phase>,
        }
        let read = |row: Value| {
            let row: Row = serde_json::from_value(row).unwrap();
            (row.status, row.phase)
        };
        assert_eq!(read(json!({"status": "PAUSED", "phase": "VERIFY"})), (None, None));
        let usual = json!({"status": "QUEUED", "phase": "PLAN"});
        assert_eq!(read(usual), (Some(Status::Queued), Some(Phase::Plan)));
        assert_eq!(read(json!({"status": null, "phase": 7})), (None, None));
    }
}
