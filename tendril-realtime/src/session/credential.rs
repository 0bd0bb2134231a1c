//! The session's access token: its value, when to request another, and when one was refused.

use std::time::{Duration, Instant};

use crate::{secret::AccessToken, token::renewal_margin};

/// A token fetched this recently is good for a join; fetching again for each join of a wave would give the same one.
const FRESH_FOR: Duration = Duration::from_secs(1);
/// The shortest time between two questions for a renewal.
const ASK_AGAIN: Duration = Duration::from_secs(5);

/// A token with less to live is over, whatever its source thinks.
const SHORTEST_LIFE: Duration = Duration::from_secs(2);

/// Where the session stands with its token source.
#[derive(Debug)]
pub(super) struct Credential {
    /// Whether there is a source at all; without one the API key is used.
    has_source: bool,
    can_refresh: bool,
    token: Option<AccessToken>,
    fetched_at: Option<Instant>,
    /// A question is under way.
    fetching: bool,
    refresh_at: Option<Instant>,
}

impl Credential {
    pub(super) fn new(has_source: bool, can_refresh: bool) -> Self {
        Self { has_source, can_refresh, token: None, fetched_at: None, fetching: false, refresh_at: None }
    }

    pub(super) fn token(&self) -> Option<&AccessToken> {
        self.token.as_ref()
    }

    /// Whether a join may go out with what we have.
    pub(super) fn is_fresh(&self, now: Instant) -> bool {
        !self.has_source || self.fetched_at.is_some_and(|at| now.saturating_duration_since(at) <= FRESH_FOR)
    }

    /// Begins a question to the source; `false` if one is under way already.
    pub(super) fn begin_fetch(&mut self) -> bool {
        let ask = self.has_source && !self.fetching;
        self.fetching |= ask;
        ask
    }

    /// Whether a question is under way.
    pub(super) fn is_fetching(&self) -> bool {
        self.fetching
    }

    /// Whether the token should be renewed now.
    pub(super) fn is_refresh_due(&self, now: Instant) -> bool {
        !self.fetching && self.refresh_at.is_some_and(|at| now >= at)
    }

    /// The source answered. `life` is how long the token is valid from now on. Returns whether it is another token than before.
    pub(super) fn on_token(&mut self, token: AccessToken, life: Option<Duration>, now: Instant) -> bool {
        self.fetching = false;
        self.fetched_at = Some(now);
        let changed = self.token.as_ref() != Some(&token);
        self.token = Some(token);
        self.refresh_at = life.filter(|_| self.can_refresh).map(|life| {
            let due = now + life.saturating_sub(renewal_margin(life));
            // A source that gives the same token again, or one that seems to be over already (a clock that is wrong), must
            // not be called in a loop.
            let timeout = if life < SHORTEST_LIFE { ASK_AGAIN } else { ASK_AGAIN.min(life / 2) };
            due.max(now + timeout)
        });
        changed
    }

    /// The source failed; it is called again when a token is needed, at the earliest at `again`.
    pub(super) fn on_failure(&mut self, again: Instant) {
        self.fetching = false;
        if self.refresh_at.is_some() {
            self.refresh_at = Some(again);
        }
    }

    /// The server called the token expired: whatever we knew of it is stale.
    pub(super) fn on_refused(&mut self) {
        self.fetched_at = None;
    }

    pub(super) fn wake(&self) -> Option<Instant> {
        self.refresh_at.filter(|_| !self.fetching)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(text: &str) -> AccessToken {
        AccessToken::new(text).unwrap()
    }

    #[test]
    fn a_token_is_renewed_well_before_its_end() {
        let now = Instant::now();
        for (life, renewed_after) in [(3600, 3240), (300, 240), (60, 30)] {
            let mut credential = Credential::new(true, true);
            assert!(credential.on_token(token("a"), Some(Duration::from_secs(life)), now));
            assert_eq!(credential.wake(), Some(now + Duration::from_secs(renewed_after)));
        }
    }

    #[test]
    fn a_source_that_gives_the_same_token_is_not_asked_in_a_loop() {
        let now = Instant::now();
        let mut credential = Credential::new(true, true);
        credential.on_token(token("a"), Some(Duration::from_secs(60)), now);
        let later = now + Duration::from_secs(40);
        assert!(credential.is_refresh_due(later));
        assert!(credential.begin_fetch());
        assert!(!credential.begin_fetch(), "one question at a time");
        assert!(!credential.on_token(token("a"), Some(Duration::from_secs(20)), later));
        assert_eq!(credential.wake(), Some(later + Duration::from_secs(10)));
    }

    #[test]
    fn a_source_whose_tokens_are_always_over_is_not_asked_in_a_loop() {
        let now = Instant::now();
        let mut credential = Credential::new(true, true);
        for number in 0..3 {
            credential.on_token(token(&format!("t{number}")), Some(Duration::ZERO), now);
            assert_eq!(credential.wake(), Some(now + ASK_AGAIN));
        }
    }

    #[test]
    fn without_a_source_every_join_may_go() {
        let credential = Credential::new(false, false);
        assert!(credential.is_fresh(Instant::now()));
    }
}
