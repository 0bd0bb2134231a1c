//! Where access tokens come from.

mod exchange;

use std::{future::Future, pin::Pin, time::Duration};

pub(crate) use self::exchange::Tokens;
use crate::{
    error::{Error, ErrorKind, Retry},
    secret::AccessToken,
};

/// What [`TokenSource::token`] returns; `Box::pin(async move { … })` makes one.
pub type TokenFuture<'a> = Pin<Box<dyn Future<Output = Result<AccessToken, Error>> + Send + 'a>>;

/// Gives the access token to use now. It is called before each connect, each join, each REST request and shortly before a
/// token's `exp`, so an implementation returns the one it has while that is valid, and fetches otherwise.
///
/// A client never makes two calls at the same time: calls that need a token while one is being fetched get that one. A fetch runs
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
    /// The error of a [`TokenSource`] that could not give a token now: it is called again, after a growing pause. The source's
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
