//! Where access tokens come from.

use std::{future::Future, pin::Pin};

use crate::{
    error::{Error, ErrorKind},
    secret::AccessToken,
};

/// What [`TokenSource::token`] returns; `Box::pin(async move { … })` makes one.
pub type TokenFuture<'a> = Pin<Box<dyn Future<Output = Result<AccessToken, Error>> + Send + 'a>>;

/// Gives the access token to use now. It is asked before each connect, each join, each REST request and shortly before a
/// token's `exp`, so an implementation keeps what it has while that is good, and fetches otherwise.
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

    /// Told that a server refused this token as expired; the next [`token`](Self::token) should be another one.
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

impl Error {
    /// The error of a [`TokenSource`] that could not give a token. The source's text is shown: it must hold no secret.
    pub fn token(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        let source = source.into();
        Self::with_source(ErrorKind::Token { message: source.to_string() }, source)
    }
}
