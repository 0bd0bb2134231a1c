//! Asking the user's token source: one fetch at a time, see [`Tokens`]. A source that blocks, panics or never answers harms
//! nothing but itself.

use std::{
    future::{Future, pending},
    pin::Pin,
    time::{Duration, SystemTime},
};

use crate::{error::Error, secret::AccessToken, token::Tokens};

/// A token, and how long it is valid from now on.
pub(super) type FetchedToken = Result<(AccessToken, Option<Duration>), Error>;

type Fetch = Pin<Box<dyn Future<Output = Result<AccessToken, Error>> + Send>>;

/// The source, and the fetch that is awaited.
pub(super) struct TokenFetch {
    tokens: Option<Tokens>,
    /// The last token that was fetched.
    last: Option<AccessToken>,
    open: Option<Fetch>,
    /// What a server's clock is ahead of ours: an `exp` is the server's time.
    pub(super) server_clock: ServerClock,
}

/// The difference between a server's clock and ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum ServerClock {
    #[default]
    Same,
    Ahead(Duration),
    Behind(Duration),
}

/// A `Date` has whole seconds, and took its time to get here.
const BLUR: Duration = Duration::from_millis(1500);

impl ServerClock {
    /// From what both clocks said at one moment.
    pub(super) fn measured(server: SystemTime, ours: SystemTime) -> Self {
        // In the middle of the second that the header names.
        let server = server + Duration::from_millis(500);
        match server.duration_since(ours) {
            Ok(ahead) if ahead > BLUR => Self::Ahead(ahead),
            Err(behind) if behind.duration() > BLUR => Self::Behind(behind.duration()),
            _ => Self::Same,
        }
    }

    /// The server's time now.
    pub(super) fn now(self) -> SystemTime {
        let ours = SystemTime::now();
        match self {
            Self::Same => ours,
            Self::Ahead(by) => ours + by,
            Self::Behind(by) => ours.checked_sub(by).unwrap_or(SystemTime::UNIX_EPOCH),
        }
    }
}

impl TokenFetch {
    pub(super) fn new(tokens: Option<Tokens>) -> Self {
        Self { tokens, last: None, open: None, server_clock: ServerClock::Same }
    }

    pub(super) fn has_source(&self) -> bool {
        self.tokens.is_some()
    }

    pub(super) fn can_refresh(&self) -> Result<bool, Error> {
        self.tokens.as_ref().map_or(Ok(false), Tokens::can_refresh)
    }

    /// Starts a fetch, unless one is awaited already.
    pub(super) fn start(&mut self) {
        if let (None, Some(tokens)) = (&self.open, &self.tokens) {
            self.open = Some(Box::pin(tokens.fetch()));
        }
    }

    /// The result of the fetch that is awaited; never, if there is none. Cancel safe.
    pub(super) async fn finished(&mut self) -> FetchedToken {
        let Some(open) = &mut self.open else { return pending().await };
        let answer = open.await;
        self.open = None;
        answer.map(|token| {
            self.last = Some(token.clone());
            let life = self.life_of(&token);
            (token, life)
        })
    }

    /// The last token, and how long it is still valid by the server's clock.
    pub(super) fn last(&self) -> Option<(AccessToken, Option<Duration>)> {
        self.last.clone().map(|token| {
            let life = self.life_of(&token);
            (token, life)
        })
    }

    fn life_of(&self, token: &AccessToken) -> Option<Duration> {
        let end = token.expires_at()?;
        Some(end.duration_since(self.server_clock.now()).unwrap_or_default())
    }

    /// Reports to the source that a server refused this token.
    pub(super) fn invalidate(&self, token: &AccessToken) {
        if let Some(tokens) = &self.tokens {
            tokens.invalidate(token);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_difference_that_a_date_can_show_counts() {
        let ours = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        assert_eq!(ServerClock::measured(ours, ours), ServerClock::Same);
        assert_eq!(ServerClock::measured(ours - Duration::from_secs(1), ours), ServerClock::Same);
        let hour = Duration::from_secs(3600);
        assert!(matches!(ServerClock::measured(ours + hour, ours), ServerClock::Ahead(by) if by >= hour));
        assert!(matches!(ServerClock::measured(ours - hour, ours), ServerClock::Behind(by) if by < hour));
    }
}
