//! One fetch of a token for all who need it.

use std::{
    fmt,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use futures_util::{FutureExt as _, future::Shared};
use tokio::time::Instant;

use super::TokenSource;
use crate::{
    error::{Error, ErrorKind, Retry},
    secret::AccessToken,
    telemetry::TARGET,
};

/// The longest a caller waits for the source. The fetch itself continues: the next caller gets its result.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// The token source of one client, for the websocket and for REST alike: at most one fetch at a time, on a task of its own.
#[derive(Clone)]
pub(crate) struct Tokens {
    source: Arc<dyn TokenSource>,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// The fetch that was started last, and when it ended.
    fetch: Option<(Fetch, Arc<OnceLock<Instant>>)>,
    /// How many were started.
    fetches: u64,
    /// The token that was given last.
    given: Option<AccessToken>,
    /// The token that was refused while a fetch ran, and the number of that fetch: its result may be the refused one.
    refused: Option<(AccessToken, u64)>,
    /// The last token whose refusal the source was informed of.
    invalidated: Option<AccessToken>,
}

impl State {
    /// The fetch that runs, or that ended a short time ago and whose result had no caller left.
    fn running(&self) -> Option<&Fetch> {
        let (fetch, ended) = self.fetch.as_ref()?;
        let is_old = ended.get().is_some_and(|ended| ended.elapsed() > LONGEST_WAIT);
        Some(fetch).filter(|fetch| fetch.peek().is_none() && !is_old)
    }
}

type Fetch = Shared<Pin<Box<dyn Future<Output = Result<AccessToken, Arc<Error>>> + Send>>>;

impl Tokens {
    pub(crate) fn new(source: Arc<dyn TokenSource>) -> Self {
        Self { source, state: Arc::default() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The token to use now. Needs a runtime. Dropping the future does not cut the fetch off.
    pub(crate) fn fetch(&self) -> impl Future<Output = Result<AccessToken, Error>> + Send + use<> {
        let (tokens, (mut number, mut fetch)) = (self.clone(), self.join_or_start());
        async move {
            let fetched = async {
                loop {
                    match fetch.await {
                        // The source was called before it was informed of the refusal.
                        Ok(token) if tokens.was_refused(&token, number) => {
                            (number, fetch) = tokens.join_or_start();
                        }
                        answer => return answer,
                    }
                }
            };
            match tokio::time::timeout(LONGEST_WAIT, fetched).await {
                Ok(Ok(token)) => Ok(token),
                Ok(Err(error)) => Err(error.duplicate()),
                Err(_) => Err(Error::token("the token source did not answer within 30 s")),
            }
        }
    }

    /// The fetch that runs, or a new one: one at a time, for two exchanges of one refresh token would lose the login.
    fn join_or_start(&self) -> (u64, Fetch) {
        let mut state = self.lock();
        if let Some(running) = state.running() {
            return (state.fetches, running.clone());
        }
        let (tokens, ended) = (self.clone(), Arc::new(OnceLock::new()));
        let end = Arc::clone(&ended);
        let task = tokio::spawn(async move {
            let answer = tokens.source.token().await;
            if let Ok(token) = &answer {
                tokens.lock().given = Some(token.clone());
            }
            let _ = end.set(Instant::now());
            answer
        });
        let fetch = async move {
            match task.await {
                Ok(Ok(token)) => Ok(token),
                Ok(Err(error)) => Err(of_source(error)),
                Err(error) if error.is_panic() => Err(Error::token("the token source panicked")),
                Err(_) => Err(Error::token("the runtime ended while a token was fetched")),
            }
            .map_err(Arc::new)
        };
        let fetch = fetch.boxed().shared();
        state.fetch = Some((fetch.clone(), ended));
        state.fetches += 1;
        (state.fetches, fetch)
    }

    /// Whether this token, which that fetch brought, was refused while it ran.
    fn was_refused(&self, token: &AccessToken, number: u64) -> bool {
        self.lock().refused.as_ref().is_some_and(|(refused, at)| refused == token && number <= *at)
    }

    /// A server refused this token. A source that panics harms no other.
    ///
    /// Of many requests with one token each is refused, some of them when there is a new token already: the source is informed of what it
    /// gave last, and once before it is asked again.
    pub(crate) fn invalidate(&self, token: &AccessToken) {
        {
            let mut state = self.lock();
            let is_running = state.running().is_some();
            if is_running {
                state.refused = Some((token.clone(), state.fetches));
            }
            let is_replaced = state.given.as_ref().is_some_and(|given| given != token);
            if is_replaced || (is_running && state.invalidated.as_ref() == Some(token)) {
                return;
            }
            state.invalidated = Some(token.clone());
        }
        if catch_unwind(AssertUnwindSafe(|| self.source.invalidate(token))).is_err() {
            tracing::error!(target: TARGET, "TokenSource::invalidate panicked");
        }
    }

    /// Whether a later fetch can give another token.
    ///
    /// # Errors
    /// If the source panicked.
    pub(crate) fn can_refresh(&self) -> Result<bool, Error> {
        catch_unwind(AssertUnwindSafe(|| self.source.can_refresh()))
            .map_err(|_| Error::token("TokenSource::can_refresh panicked"))
    }
}

/// Whatever kind of error the source chose: to us it is a token that is not there now.
fn of_source(error: Error) -> Error {
    if matches!(error.kind(), ErrorKind::Token { .. }) {
        return error;
    }
    let retry = match error.retry() {
        Retry::After(pause) => Retry::After(pause),
        _ => Retry::Backoff,
    };
    Error::of_token_source(error.into(), retry)
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tokens(…)")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use tokio::sync::Semaphore;

    use super::*;
    use crate::token::TokenFuture;

    #[derive(Clone)]
    struct Slow {
        begun: Arc<AtomicU32>,
        ended: Arc<AtomicU32>,
        at_once: Arc<AtomicU32>,
        gate: Arc<Semaphore>,
    }

    impl Slow {
        fn new() -> Self {
            let number = || Arc::new(AtomicU32::new(0));
            Self { begun: number(), ended: number(), at_once: number(), gate: Arc::new(Semaphore::new(0)) }
        }
    }

    impl TokenSource for Slow {
        fn token(&self) -> TokenFuture<'_> {
            Box::pin(async move {
                let number = self.begun.fetch_add(1, Ordering::SeqCst) + 1;
                assert_eq!(self.at_once.fetch_add(1, Ordering::SeqCst), 0, "two exchanges at once");
                self.gate.acquire().await.unwrap().forget();
                self.at_once.fetch_sub(1, Ordering::SeqCst);
                self.ended.fetch_add(1, Ordering::SeqCst);
                AccessToken::new(format!("t{number}"))
            })
        }
    }

    #[tokio::test]
    async fn callers_that_come_and_go_share_one_exchange_that_runs_to_its_end() {
        let source = Slow::new();
        let tokens = Tokens::new(Arc::new(source.clone()));
        let callers: Vec<_> = (0..20).map(|_| tokio::spawn(tokens.fetch())).collect();
        tokio::task::yield_now().await;
        for caller in callers.iter().take(19) {
            caller.abort();
        }
        source.gate.add_permits(1);
        let last = callers.into_iter().next_back().unwrap().await.unwrap().unwrap();
        assert_eq!(last, AccessToken::new("t1").unwrap());
        assert_eq!((source.begun.load(Ordering::SeqCst), source.ended.load(Ordering::SeqCst)), (1, 1));
    }

    #[tokio::test]
    async fn an_exchange_whose_only_caller_went_away_is_finished_all_the_same() {
        let source = Slow::new();
        let tokens = Tokens::new(Arc::new(source.clone()));
        drop(tokens.fetch());
        source.gate.add_permits(1);
        while source.ended.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_that_nobody_waited_for_is_given_to_the_next_caller_and_not_hours_later() {
        let source = Slow::new();
        let tokens = Tokens::new(Arc::new(source.clone()));
        source.gate.add_permits(3);
        for (pause, name) in [(20, "t1"), (3600, "t3")] {
            drop(tokens.fetch());
            tokio::time::sleep(Duration::from_secs(pause)).await;
            assert_eq!(tokens.fetch().await.unwrap(), AccessToken::new(name).unwrap());
        }
    }

    #[tokio::test]
    async fn a_token_refused_while_one_is_fetched_is_asked_for_again_and_never_at_the_same_time() {
        let source = Slow::new();
        let tokens = Tokens::new(Arc::new(source.clone()));
        let first = tokio::spawn(tokens.fetch());
        tokio::task::yield_now().await;
        tokens.invalidate(&AccessToken::new("t1").unwrap());
        let second = tokio::spawn(tokens.fetch());
        source.gate.add_permits(2);
        // Earlier callers get the new one too.
        assert_eq!(first.await.unwrap().unwrap(), AccessToken::new("t2").unwrap());
        assert_eq!(second.await.unwrap().unwrap(), AccessToken::new("t2").unwrap());
    }

    #[tokio::test]
    async fn late_refusals_of_an_old_token_neither_reach_the_source_nor_cost_an_exchange() {
        /// Returns the same token until that one, whichever it is, was reported as refused.
        struct Careless(Mutex<Option<AccessToken>>, AtomicU32);
        impl TokenSource for Careless {
            fn token(&self) -> TokenFuture<'_> {
                Box::pin(async {
                    if let Some(token) = self.0.lock().unwrap().clone() {
                        return Ok(token);
                    }
                    tokio::task::yield_now().await;
                    let number = self.1.fetch_add(1, Ordering::SeqCst) + 1;
                    let token = AccessToken::new(format!("t{number}"))?;
                    *self.0.lock().unwrap() = Some(token.clone());
                    Ok(token)
                })
            }
            fn invalidate(&self, _: &AccessToken) {
                *self.0.lock().unwrap() = None;
            }
        }
        let source = Arc::new(Careless(Mutex::default(), AtomicU32::new(0)));
        let tokens = Tokens::new(Arc::clone(&source) as Arc<dyn TokenSource>);
        let first = tokens.fetch().await.unwrap();
        let requests = (0..50).map(|number| {
            let (tokens, first) = (tokens.clone(), first.clone());
            async move {
                // Their refusals come before, while and after the next token is fetched.
                for _ in 0..number {
                    tokio::task::yield_now().await;
                }
                tokens.invalidate(&first);
                tokens.fetch().await.unwrap()
            }
        });
        let fetched = futures_util::future::join_all(requests).await;
        assert!(fetched.iter().all(|token| *token == AccessToken::new("t2").unwrap()));
        assert_eq!(source.1.load(Ordering::SeqCst), 2);
        // The same token once more, refused once more.
        tokens.invalidate(&fetched[0]);
        assert_eq!(tokens.fetch().await.unwrap(), AccessToken::new("t3").unwrap());
    }

    #[tokio::test]
    async fn a_source_that_panics_anywhere_gives_an_error() {
        struct Panics;
        impl TokenSource for Panics {
            fn token(&self) -> TokenFuture<'_> {
                panic!("in token")
            }
            fn invalidate(&self, _: &AccessToken) {
                panic!("in invalidate")
            }
            fn can_refresh(&self) -> bool {
                panic!("in can_refresh")
            }
        }
        let tokens = Tokens::new(Arc::new(Panics));
        let error = tokens.fetch().await.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Token { .. }), "{error:?}");
        tokens.invalidate(&AccessToken::new("t").unwrap());
        assert!(matches!(tokens.can_refresh().unwrap_err().kind(), ErrorKind::Token { .. }));
    }
}
