//! Where access tokens come from.

use std::{
    fmt,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::{FutureExt as _, future::Shared};

use crate::{
    error::{Error, ErrorKind, Retry},
    secret::AccessToken,
    telemetry::TARGET,
};

/// What [`TokenSource::token`] returns; `Box::pin(async move { … })` makes one.
pub type TokenFuture<'a> = Pin<Box<dyn Future<Output = Result<AccessToken, Error>> + Send + 'a>>;

/// Gives the access token to use now. It is asked before each connect, each join, each REST request and shortly before a
/// token's `exp`, so an implementation keeps what it has while that is good, and fetches otherwise.
///
/// A client never asks twice at the same time: whoever needs a token while one is being fetched gets that one. A fetch runs
/// on a task of its own and is never cut off, so a source may rotate a refresh token.
///
/// An [`AccessToken`] is a source that never changes, and so is any closure that returns a future:
///
/// ```
/// use tendril_realtime::{AccessToken, Client, Error};
///
/// async fn session() -> Result<String, std::io::Error> {
///     Ok("eyJhbGciOiJIUzI1NiJ9.e30.c2ln".to_owned())
/// }
///
/// let client = Client::builder("https://ref.supabase.co", "sb_publishable_…")
///     .token_source(|| async { AccessToken::new(session().await.map_err(Error::token)?) });
/// ```
///
/// A type of one's own can do more:
///
/// ```
/// use tendril_realtime::{AccessToken, Error, TokenFuture, TokenSource};
///
/// struct FromFile(std::path::PathBuf);
///
/// impl TokenSource for FromFile {
///     fn token(&self) -> TokenFuture<'_> {
///         Box::pin(async move {
///             let text = std::fs::read_to_string(&self.0).map_err(Error::token)?;
///             AccessToken::new(text)
///         })
///     }
/// }
/// ```
pub trait TokenSource: Send + Sync + 'static {
    /// The token to use now.
    fn token(&self) -> TokenFuture<'_>;

    /// Called when a server refused this token; the next [`token`](Self::token) should be another one.
    fn invalidate(&self, token: &AccessToken) {
        let _ = token;
    }

    /// Whether a later call can give another token. If not, a refusal of the token is final.
    fn can_refresh(&self) -> bool {
        true
    }
}

/// One token for the whole life of the client.
impl TokenSource for AccessToken {
    fn token(&self) -> TokenFuture<'_> {
        Box::pin(std::future::ready(Ok(self.clone())))
    }

    fn can_refresh(&self) -> bool {
        false
    }
}

/// The newest token that was sent; [`Client::refresh_auth`](crate::Client::refresh_auth) makes the client look at once.
///
/// ```
/// use tendril_realtime::{AccessToken, Client};
///
/// # fn run() -> Result<(), tendril_realtime::Error> {
/// let (signed_in, token) = tokio::sync::watch::channel(AccessToken::new("eyJhbGciOiJIUzI1NiJ9.e30.c2ln")?);
/// let client = Client::builder("https://ref.supabase.co", "sb_publishable_…").token_source(token).build()?;
/// signed_in.send_replace(AccessToken::new("eyJhbGciOiJIUzI1NiJ9.e30.bmV4dA")?);
/// client.refresh_auth();
/// # Ok(()) }
/// ```
impl TokenSource for tokio::sync::watch::Receiver<AccessToken> {
    fn token(&self) -> TokenFuture<'_> {
        Box::pin(std::future::ready(Ok(self.borrow().clone())))
    }
}

/// A closure that makes a future.
impl<F, Fut> TokenSource for F
where
    F: Fn() -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<AccessToken, Error>> + Send + 'static,
{
    fn token(&self) -> TokenFuture<'_> {
        // Called within the future, so that a closure that panics is caught with it.
        Box::pin(async move { self().await })
    }
}

impl Error {
    /// The error of a [`TokenSource`] that could not give a token now: it is asked again, after a growing pause. The source's
    /// text is shown: it must hold no secret. [`find_source`](Self::find_source) gives the source back as its own type.
    pub fn token(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::of_token_source(source.into(), Retry::Backoff)
    }

    /// The error of a [`TokenSource`] that will give no token any more: the user signed out, or the session was revoked.
    /// Streams, joins and requests that need a token end with it.
    ///
    /// ```
    /// use tendril_realtime::{Error, Retry};
    ///
    /// let error = Error::session_ended("signed out");
    /// assert_eq!(error.retry(), Retry::Never);
    /// ```
    pub fn session_ended(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::of_token_source(source.into(), Retry::Never)
    }

    pub(crate) fn of_token_source(source: Box<dyn std::error::Error + Send + Sync>, retry: Retry) -> Self {
        // The source stays reachable: callers look for a type of their own in it.
        Self::with_source(ErrorKind::Token { message: source.to_string(), retry }, source)
    }
}

/// How long before its end a token is renewed: a minute or a tenth of its life, whichever is more; half of a short life.
pub(crate) fn renewal_margin(life: Duration) -> Duration {
    Duration::from_secs(60).max(life / 10).min(life / 2)
}

/// The longest a caller waits for the source. The fetch itself goes on: the next caller gets its result.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// The token source of one client, for the websocket and for REST alike: at most one fetch at a time, on a task of its own.
#[derive(Clone)]
pub(crate) struct Tokens {
    source: Arc<dyn TokenSource>,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// The fetch that was started last.
    fetch: Option<Fetch>,
    /// A token was refused since that fetch began: its result may be the refused one.
    is_stale: bool,
}

type Fetch = Shared<Pin<Box<dyn Future<Output = Result<AccessToken, Arc<Error>>> + Send>>>;

impl Tokens {
    pub(crate) fn new(source: Arc<dyn TokenSource>) -> Self {
        Self { source, state: Arc::default() }
    }

    /// The token to use now. Needs a runtime. Dropping the future does not cut the fetch off.
    pub(crate) fn fetch(&self) -> impl Future<Output = Result<AccessToken, Error>> + Send + use<> {
        let fetch = self.join_or_start();
        async move {
            match tokio::time::timeout(LONGEST_WAIT, fetch).await {
                Ok(Ok(token)) => Ok(token),
                Ok(Err(error)) => Err(error.duplicate()),
                Err(_) => Err(Error::token("the token source did not answer within 30 s")),
            }
        }
    }

    fn join_or_start(&self) -> Fetch {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let running = state.fetch.clone().filter(|fetch| fetch.peek().is_none());
        match running {
            Some(fetch) if !state.is_stale => fetch,
            running => {
                let source = Arc::clone(&self.source);
                let task = tokio::spawn(async move {
                    // One at a time: two exchanges of one refresh token would lose the login.
                    if let Some(earlier) = running {
                        let _ = earlier.await;
                    }
                    source.token().await
                });
                let fetch = async move {
                    match task.await {
                        Ok(Ok(token)) => Ok(token),
                        Ok(Err(error)) if matches!(error.kind(), ErrorKind::Token { .. }) => Err(error),
                        // Whatever kind the source chose: to us it is a token that is not there now.
                        Ok(Err(error)) => {
                            let retry = match error.retry() {
                                Retry::After(pause) => Retry::After(pause),
                                _ => Retry::Backoff,
                            };
                            Err(Error::of_token_source(error.into(), retry))
                        }
                        Err(error) if error.is_panic() => Err(Error::token("the token source panicked")),
                        Err(_) => Err(Error::token("the runtime ended while a token was fetched")),
                    }
                    .map_err(Arc::new)
                };
                let fetch = fetch.boxed().shared();
                state.is_stale = false;
                state.fetch = Some(fetch.clone());
                fetch
            }
        }
    }

    /// A server refused this token. A source that panics harms nobody else.
    pub(crate) fn invalidate(&self, token: &AccessToken) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).is_stale = true;
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

    #[tokio::test]
    async fn a_token_refused_while_one_is_fetched_is_asked_for_again_and_never_at_the_same_time() {
        let source = Slow::new();
        let tokens = Tokens::new(Arc::new(source.clone()));
        let first = tokio::spawn(tokens.fetch());
        tokio::task::yield_now().await;
        tokens.invalidate(&AccessToken::new("t0").unwrap());
        let second = tokio::spawn(tokens.fetch());
        source.gate.add_permits(2);
        assert_eq!(first.await.unwrap().unwrap(), AccessToken::new("t1").unwrap());
        assert_eq!(second.await.unwrap().unwrap(), AccessToken::new("t2").unwrap());
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
