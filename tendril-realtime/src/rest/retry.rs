//! Which failures may be repeated, and when.

use std::time::Duration;

use crate::{
    backoff::Backoff,
    error::{Error, ErrorKind, Retry},
};

/// How often and how patiently a request is repeated. A request is repeated only where that can help *and* does no harm:
/// a write whose outcome is unknown is never sent twice unless it is idempotent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Attempts altogether; 1 means no repetition.
    pub attempts: u32,
    /// The first pause is drawn from zero to twice this.
    pub first_pause: Duration,
    /// No pause is longer, and if the server sends a longer one (`Retry-After`) its error is returned.
    pub longest_pause: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { attempts: 3, first_pause: Duration::from_millis(200), longest_pause: Duration::from_secs(10) }
    }
}

impl RetryPolicy {
    /// One attempt only, for callers with a loop of their own.
    pub const NONE: Self =
        Self { attempts: 1, first_pause: Duration::from_millis(1), longest_pause: Duration::from_millis(1) };

    pub(super) fn backoff(&self) -> Backoff {
        Backoff::new(self.first_pause, self.longest_pause)
    }
}

/// What to do after an attempt failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    GiveUp,
    FreshToken,
    Pause(Option<Duration>),
}

/// The one place that decides. `idempotent`: a second execution would do no harm.
pub(super) fn next(error: &Error, idempotent: bool, longest: Duration) -> Next {
    let status = error.postgrest().map(|api| api.status);
    // Whoever answers, and with whatever code: the token was not accepted, and nothing was executed.
    if status == Some(401) {
        return Next::FreshToken;
    }
    // After an answer that means that nothing was executed, any request may be repeated.
    let not_executed = match error.kind() {
        ErrorKind::Connect { .. } => true,
        ErrorKind::Postgrest(api) => {
            api.status == 429 || matches!(api.code.as_str(), "PGRST002" | "PGRST003" | "40001" | "40P01")
        }
        _ => false,
    };
    if !idempotent && !not_executed {
        return Next::GiveUp;
    }
    match error.retry() {
        Retry::Never => Next::GiveUp,
        Retry::RefreshToken => Next::FreshToken,
        Retry::Backoff => Next::Pause(None),
        Retry::After(pause) if pause > longest => Next::GiveUp,
        Retry::After(pause) => Next::Pause(Some(pause)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::PostgrestError;

    const LONGEST: Duration = Duration::from_secs(10);

    fn api(status: u16, code: &str, retry_after: Option<u64>) -> Error {
        Error::new(ErrorKind::Postgrest(PostgrestError {
            status,
            code: code.to_owned(),
            retry_after: retry_after.map(Duration::from_secs),
            ..PostgrestError::default()
        }))
    }

    #[test]
    fn a_write_with_an_unknown_outcome_is_not_repeated() {
        let lost = Error::new(ErrorKind::Timeout { waiting_for: "the answer" });
        assert_eq!(next(&lost, false, LONGEST), Next::GiveUp);
        assert_eq!(next(&lost, true, LONGEST), Next::Pause(None));
        assert_eq!(next(&api(503, "", None), false, LONGEST), Next::GiveUp);
        assert_eq!(next(&api(500, "57014", None), false, LONGEST), Next::GiveUp);
    }

    #[test]
    fn what_was_not_executed_is_repeated_whatever_it_was() {
        let refused = Error::new(ErrorKind::Connect { step: "tcp" });
        assert_eq!(next(&refused, false, LONGEST), Next::Pause(None));
        assert_eq!(next(&api(429, "", Some(3)), false, LONGEST), Next::Pause(Some(Duration::from_secs(3))));
        for code in ["PGRST303", "PGRST301", "PGRST302", "", "42501"] {
            assert_eq!(next(&api(401, code, None), false, LONGEST), Next::FreshToken, "{code}");
        }
        assert_eq!(next(&api(504, "PGRST003", None), false, LONGEST), Next::Pause(None));
    }

    #[test]
    fn a_server_that_asks_for_a_long_pause_is_not_pestered() {
        assert_eq!(next(&api(429, "", Some(3600)), true, LONGEST), Next::GiveUp);
    }

    #[test]
    fn a_mistake_is_not_repeated() {
        for (status, code) in
            [(400, "PGRST102"), (403, "42501"), (409, "23505"), (404, "PGRST205"), (414, ""), (307, "")]
        {
            assert_eq!(next(&api(status, code, None), true, LONGEST), Next::GiveUp, "{code}");
        }
    }
}
