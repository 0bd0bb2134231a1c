//! The machine token that the agent holds: how long it is good, when it is to be exchanged for the next one, and why that did
//! not work. Time is an argument.

use std::time::{Duration, Instant};

use tendril_realtime::AccessToken;

use super::exchange::{Failure, Granted};
use crate::control_plane::backoff::Backoff;

/// The least time between two exchanges that worked: a server that refuses fresh tokens (a clock that is wrong, a signing key
/// that it does not know) must not get requests in a loop.
const LEAST_GAP: Duration = Duration::from_secs(5);
/// The pause after a failed exchange is drawn from zero to a limit that doubles, from the first to the second.
const PAUSES: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(60));
/// How far the moment of the renewal is moved in either direction, as a share of the token's life: agents that were started
/// together do not stay together.
const SPREAD: f64 = 0.1;

/// See the module.
#[derive(Debug)]
pub(super) struct Holding {
    token: Option<AccessToken>,
    /// Until when the token is good; none: its end is the servers' affair.
    good_until: Option<Instant>,
    /// From when on an exchange may be tried; none: there is no key.
    next: Option<Instant>,
    /// Why the last exchange did not work; none after one that did.
    failure: Option<Failure>,
    backoff: Backoff,
    /// When the last token was granted.
    granted: Option<Instant>,
}

/// What to do when a token is requested.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Give this one.
    Use(AccessToken),
    /// Exchange the key first.
    Exchange,
    /// There is none, and it is too early to try again.
    Fail(Failure),
    /// There is nothing at all.
    Nothing,
}

impl Default for Holding {
    fn default() -> Self {
        let backoff = Backoff::new(PAUSES.0, PAUSES.1);
        Self { token: None, good_until: None, next: None, failure: None, backoff, granted: None }
    }
}

impl Holding {
    pub(super) fn step(&self, now: Instant) -> Step {
        let token = || self.token.clone().map_or(Step::Nothing, Step::Use);
        match &self.failure {
            _ if self.token.is_some() && !self.is_over(now) => token(),
            _ if self.is_due(now) => Step::Exchange,
            Some(failure) => Step::Fail(failure.clone()),
            None => token(),
        }
    }

    /// Whether the token is known to be good no longer.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.good_until.is_some_and(|end| end <= now)
    }

    /// Whether the key is to be exchanged now.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.next.is_some_and(|next| next <= now)
    }

    /// When it is to be exchanged next.
    pub(super) fn next(&self) -> Option<Instant> {
        self.next
    }

    /// The token as it is, good or over.
    pub(super) fn token(&self) -> Option<&AccessToken> {
        self.token.as_ref()
    }

    /// Why the last exchange did not work.
    pub(super) fn failure(&self) -> Option<&Failure> {
        self.failure.as_ref()
    }

    /// Until when the token is good.
    pub(super) fn good_until(&self) -> Option<Instant> {
        self.good_until
    }

    /// There is a key, or another one than before. The token of the former one stays in use until this one has got its own.
    pub(super) fn key_changed(&mut self, now: Instant) {
        self.backoff.reset();
        (self.next, self.failure, self.granted) = (Some(now), None, None);
    }

    /// There is a token instead of a key.
    pub(super) fn given(&mut self, token: AccessToken, good_until: Option<Instant>) {
        *self = Self { token: Some(token), good_until, ..Self::default() };
    }

    /// An exchange that began at `sent` succeeded.
    pub(super) fn granted(&mut self, granted: Granted, sent: Instant, now: Instant) {
        let Granted { token, life, renew_after, .. } = granted;
        let earliest = renew_after.saturating_sub(life.mul_f64(SPREAD));
        self.next = Some(sent + earliest + life.mul_f64(2.0 * SPREAD * fastrand::f64()));
        self.good_until = Some(sent + life);
        (self.token, self.failure, self.granted) = (Some(token), None, Some(now));
        self.backoff.reset();
    }

    /// An exchange did not work.
    pub(super) fn failed(&mut self, failure: Failure, now: Instant) {
        self.next = Some(now + self.backoff.next(failure.retry_after()));
        self.failure = Some(failure);
    }

    /// A server called this token expired.
    pub(super) fn refused(&mut self, token: &AccessToken, now: Instant) {
        let Some(next) = self.next.filter(|_| self.token.as_ref() == Some(token)) else { return };
        self.good_until = Some(now);
        // After a failure its own pause counts.
        if self.failure.is_none() {
            let soonest = self.granted.map_or(now, |granted| granted + LEAST_GAP).max(now);
            self.next = Some(next.min(soonest));
        }
    }
}

#[cfg(test)]
mod tests {
    use secrecy::SecretString;

    use super::*;

    const LIFE: Duration = Duration::from_secs(900);

    fn token(text: &str) -> AccessToken {
        AccessToken::new(text).unwrap()
    }

    fn grant(text: &str) -> Granted {
        Granted {
            token: token(text),
            text: SecretString::from(text),
            life: LIFE,
            renew_after: LIFE.mul_f64(0.7),
        }
    }

    fn holding(now: Instant) -> Holding {
        let mut holding = Holding::default();
        holding.key_changed(now);
        assert_eq!(holding.step(now), Step::Exchange);
        holding.granted(grant("a"), now, now);
        holding
    }

    #[test]
    fn a_token_is_renewed_at_seventy_percent_of_its_life_and_not_by_all_agents_at_once() {
        let now = Instant::now();
        let shares: Vec<f64> =
            (0..500).map(|_| (holding(now).next().unwrap() - now).as_secs_f64() / 900.0).collect();
        assert!(shares.iter().all(|share| (0.6..=0.8).contains(share)), "{shares:?}");
        let mean = shares.iter().sum::<f64>() / 500.0;
        assert!((0.68..0.72).contains(&mean), "{mean}");
        assert!(shares.iter().any(|share| *share < 0.63) && shares.iter().any(|share| *share > 0.77));
    }

    #[test]
    fn the_old_token_is_used_until_a_new_one_is_there() {
        let now = Instant::now();
        let mut holding = holding(now);
        let due = now + LIFE.mul_f64(0.8);
        assert!(holding.is_due(due));
        assert_eq!(holding.step(due), Step::Use(token("a")));
        holding.failed(Failure::Unreachable("x".to_owned()), due);
        assert_eq!(holding.step(due), Step::Use(token("a")), "it is good for a fifth of its life");
        holding.key_changed(due);
        assert_eq!(holding.step(due), Step::Use(token("a")), "another key changes nothing yet");
        assert!(holding.is_due(due), "and is exchanged at once");
        holding.failed(Failure::WrongKey, due);
        assert_eq!(holding.step(due), Step::Use(token("a")));
        assert_eq!(holding.failure(), Some(&Failure::WrongKey));
        // Over: now it is missed.
        holding.failed(Failure::Limited { wait: Some(Duration::from_secs(100)) }, now + LIFE);
        let failed = Step::Fail(Failure::Limited { wait: Some(Duration::from_secs(100)) });
        assert_eq!(holding.step(now + LIFE), failed);
        assert_eq!(holding.step(now + LIFE + Duration::from_secs(99)), failed);
        assert_eq!(holding.step(now + LIFE + Duration::from_secs(102)), Step::Exchange);
        holding.granted(grant("b"), now + 2 * LIFE, now + 2 * LIFE);
        assert_eq!((holding.step(now + 2 * LIFE), holding.failure()), (Step::Use(token("b")), None));
    }

    #[test]
    fn failures_are_spread_grow_and_end_with_a_success_or_another_key() {
        let now = Instant::now();
        let mut longest = Duration::ZERO;
        for _ in 0..200 {
            let mut holding = holding(now);
            for tries in 0..10 {
                holding.failed(Failure::Unreachable("x".to_owned()), now);
                let pause = holding.next().unwrap() - now;
                assert!(
                    pause <= Duration::from_secs(2 * 2_u64.pow(tries)).min(PAUSES.1),
                    "{tries}: {pause:?}"
                );
                longest = longest.max(pause);
            }
            holding.key_changed(now);
            holding.failed(Failure::WrongKey, now);
            assert!(holding.next().unwrap() - now <= PAUSES.0);
        }
        assert!(longest > Duration::from_secs(50), "{longest:?}");
    }

    #[test]
    fn a_token_that_a_server_refuses_is_replaced_but_never_in_a_loop() {
        let now = Instant::now();
        let mut holding = holding(now);
        holding.refused(&token("another"), now);
        assert_eq!(holding.step(now), Step::Use(token("a")));
        holding.refused(&token("a"), now);
        assert_eq!(holding.step(now), Step::Use(token("a")), "it was granted this moment");
        assert_eq!(holding.step(now + LEAST_GAP), Step::Exchange);
        holding.failed(Failure::Limited { wait: Some(Duration::from_secs(60)) }, now + LEAST_GAP);
        holding.refused(&token("a"), now + LEAST_GAP);
        assert!(!holding.is_due(now + Duration::from_secs(60)), "the server's retry_after counts");
        let mut given = Holding::default();
        given.given(token("jwt"), None);
        given.refused(&token("jwt"), now);
        assert_eq!(given.step(now), Step::Use(token("jwt")), "there is no key to exchange");
    }
}
