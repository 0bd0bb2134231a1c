//! The `Prefer` header: what a client prefers, and what the answer reports as applied.

use http::header::HeaderName;
use http::{HeaderMap, StatusCode};

use super::error::RestError;

/// The request's header.
const PREFER: HeaderName = HeaderName::from_static("prefer");

/// Every preference that takes no free value.
const FIXED: [&str; 14] = [
    "resolution=merge-duplicates",
    "resolution=ignore-duplicates",
    "missing=default",
    "missing=null",
    "return=representation",
    "return=minimal",
    "return=headers-only",
    "count=exact",
    "count=planned",
    "count=estimated",
    "tx=commit",
    "tx=rollback",
    "handling=strict",
    "handling=lenient",
];

/// The order in which applied preferences are reported.
const REPORTED: [&str; 8] =
    ["resolution", "missing", "return", "count", "tx", "handling", "timezone", "max-affected"];

/// What a request prefers; of two values for one name the first counts.
#[derive(Debug, Default)]
pub(super) struct Prefer {
    known: Vec<(String, String)>,
    unknown: Vec<String>,
}

/// What to send back of the rows that were written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Return {
    /// Nothing.
    Minimal,
    /// Where the new row is.
    HeadersOnly,
    /// The rows.
    Representation,
}

/// How rows are counted beyond the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Count {
    /// By counting.
    Exact,
    /// By the planner's guess.
    Planned,
    /// By counting up to the row limit, by the planner's guess beyond it.
    Estimated,
}

/// What an insert does about a row that exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Resolution {
    /// Update it.
    Merge,
    /// Leave it.
    Ignore,
}

impl Prefer {
    /// Reads all `Prefer` headers. With `handling=strict` an unknown preference is an error.
    pub(super) fn read(headers: &HeaderMap, transaction_override: bool) -> Result<Self, RestError> {
        let mut prefer = Self::default();
        let values = headers.get_all(PREFER).iter().filter_map(|value| value.to_str().ok());
        for preference in values.flat_map(|value| value.split(',')).map(str::trim).filter(|p| !p.is_empty()) {
            let (name, value) = preference.split_once('=').unwrap_or((preference, ""));
            let free = name == "timezone" || (name == "max-affected" && value.parse::<u64>().is_ok());
            if !free && !FIXED.contains(&preference) {
                prefer.unknown.push(preference.into());
            } else if prefer.get(name).is_none() && (name != "tx" || transaction_override) {
                prefer.known.push((name.into(), value.into()));
            }
        }
        if prefer.strict() && !prefer.unknown.is_empty() {
            let message = "Invalid preferences given with handling=strict";
            let error = RestError::new(StatusCode::BAD_REQUEST, "PGRST122", message);
            return Err(error.details(format!("Invalid preferences: {}", prefer.unknown.join(", "))));
        }
        Ok(prefer)
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.known.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// What to return of written rows.
    pub(super) fn returns(&self) -> Return {
        match self.get("return") {
            Some("representation") => Return::Representation,
            Some("headers-only") => Return::HeadersOnly,
            _ => Return::Minimal,
        }
    }

    /// How to count, if at all.
    pub(super) fn count(&self) -> Option<Count> {
        match self.get("count")? {
            "exact" => Some(Count::Exact),
            "planned" => Some(Count::Planned),
            _ => Some(Count::Estimated),
        }
    }

    /// What to do about duplicates, if anything.
    pub(super) fn resolution(&self) -> Option<Resolution> {
        match self.get("resolution")? {
            "merge-duplicates" => Some(Resolution::Merge),
            _ => Some(Resolution::Ignore),
        }
    }

    /// Whether keys missing in the body take the column's default.
    pub(super) fn defaults(&self) -> bool {
        self.get("missing") == Some("default")
    }

    /// Whether the transaction is to be undone.
    pub(super) fn rollback(&self) -> bool {
        self.get("tx") == Some("rollback")
    }

    fn strict(&self) -> bool {
        self.get("handling") == Some("strict")
    }

    /// The time zone to render timestamps in.
    pub(super) fn timezone(&self) -> Option<&str> {
        self.get("timezone")
    }

    /// Most rows a write may touch; only binding with `handling=strict`.
    pub(super) fn max_affected(&self) -> Option<i64> {
        self.get("max-affected").filter(|_| self.strict())?.parse().ok()
    }

    /// The value of `Preference-Applied`, of those names that mean something for the kind of request.
    pub(super) fn applied(&self, meaningful: &[&str]) -> Option<String> {
        let applied: Vec<String> = REPORTED
            .iter()
            .filter(|name| meaningful.contains(name) && (**name != "max-affected" || self.strict()))
            .filter_map(|name| self.get(name).map(|value| format!("{name}={value}")))
            .collect();
        (!applied.is_empty()).then(|| applied.join(", "))
    }
}
