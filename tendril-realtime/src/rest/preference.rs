//! The `Prefer` header. A server honours the first of repeated preferences, so there is exactly one header.

use std::fmt::Write as _;

/// How the number of matching rows is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Count {
    /// Counts them all: exact and slow.
    Exact,
    /// The planner's guess.
    Planned,
    /// Exact up to the server's row limit, a guess beyond.
    Estimated,
}

/// What comes back from a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Return {
    Minimal,
    HeadersOnly,
    Representation,
}

/// What to do with rows that exist already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Resolution {
    Ignore,
    Merge,
}

/// Every preference of one request.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Preferences {
    pub(super) returning: Option<Return>,
    pub(super) resolution: Option<Resolution>,
    pub(super) missing_default: bool,
    pub(super) count: Option<Count>,
    pub(super) max_affected: Option<u64>,
    /// Unknown preferences are an error instead of being passed over.
    pub(super) strict: bool,
    /// Everything is taken back at the end.
    pub(super) rollback: bool,
}

impl Preferences {
    /// The header's value; `None` where there is nothing to prefer.
    pub(super) fn header(&self) -> Option<String> {
        let mut value = String::new();
        let mut push = |text: &str| {
            if !value.is_empty() {
                value.push(',');
            }
            value.push_str(text);
        };
        match self.resolution {
            Some(Resolution::Ignore) => push("resolution=ignore-duplicates"),
            Some(Resolution::Merge) => push("resolution=merge-duplicates"),
            None => {}
        }
        if self.missing_default {
            push("missing=default");
        }
        match self.returning {
            Some(Return::Minimal) => push("return=minimal"),
            Some(Return::HeadersOnly) => push("return=headers-only"),
            Some(Return::Representation) => push("return=representation"),
            None => {}
        }
        match self.count {
            Some(Count::Exact) => push("count=exact"),
            Some(Count::Planned) => push("count=planned"),
            Some(Count::Estimated) => push("count=estimated"),
            None => {}
        }
        if self.rollback {
            push("tx=rollback");
        }
        if self.strict || self.max_affected.is_some() {
            // Without strict handling the server ignores a limit.
            push("handling=strict");
        }
        if let Some(most) = self.max_affected {
            let mut limit = String::new();
            let _ = write!(limit, "max-affected={most}");
            push(&limit);
        }
        (!value.is_empty()).then_some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_preferences_share_one_header() {
        let preferences = Preferences {
            returning: Some(Return::Minimal),
            resolution: Some(Resolution::Ignore),
            missing_default: true,
            count: Some(Count::Exact),
            max_affected: Some(1),
            strict: false,
            rollback: true,
        };
        assert_eq!(
            preferences.header().unwrap(),
            "resolution=ignore-duplicates,missing=default,return=minimal,count=exact,tx=rollback,handling=strict,max-affected=1"
        );
        assert_eq!(Preferences::default().header(), None);
    }
}
