//! A signed-in user's session: short access tokens, and the refresh token that gets the next one.

use std::{error::Error as StdError, fmt, future::Future, pin::Pin, sync::Arc};

use serde::Deserialize;

use crate::{
    error::Error,
    secret::{AccessToken, RefreshToken},
};

/// What a sign-in gives: an access token, and the refresh token that gets the next one. Each refresh token is good for one
/// exchange.
///
/// It is read from the answer of Supabase Auth, and from whatever an application stores: a JSON object with `access_token` and
/// `refresh_token`.
///
/// ```
/// use tendril_realtime::Session;
///
/// let answer = r#"{"access_token":"eyJhbGciOiJIUzI1NiJ9.e30.c2ln","refresh_token":"3f9c","token_type":"bearer","user":{}}"#;
/// let session: Session = serde_json::from_str(answer).unwrap();
/// assert_eq!(session.refresh_token().expose(), "3f9c");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Fields")]
pub struct Session {
    pub(crate) access_token: Option<AccessToken>,
    pub(crate) refresh_token: RefreshToken,
    /// Seconds that the access token is valid from now on, as the server sent with it.
    pub(crate) expires_in: Option<u64>,
}

/// As it comes, unchecked.
#[derive(Deserialize)]
struct Fields {
    access_token: Option<String>,
    refresh_token: String,
    expires_in: Option<u64>,
}

impl Session {
    /// A session of which only the refresh token is known: the first use exchanges it.
    pub fn new(refresh_token: RefreshToken) -> Self {
        Self { access_token: None, refresh_token, expires_in: None }
    }

    /// With the access token that came with it, which is used until shortly before its end.
    #[must_use]
    pub fn with_access_token(mut self, token: AccessToken) -> Self {
        self.access_token = Some(token);
        self
    }

    /// The access token, if one is known.
    pub fn access_token(&self) -> Option<&AccessToken> {
        self.access_token.as_ref()
    }

    /// The token that gets the next session.
    pub fn refresh_token(&self) -> &RefreshToken {
        &self.refresh_token
    }
}

impl TryFrom<Fields> for Session {
    type Error = Error;

    fn try_from(fields: Fields) -> Result<Self, Error> {
        Ok(Self {
            access_token: fields.access_token.map(AccessToken::new).transpose()?,
            refresh_token: RefreshToken::new(fields.refresh_token)?,
            expires_in: fields.expires_in,
        })
    }
}

/// Where access tokens come from for a signed-in user: a [`Session`], refreshed before its access token ends and when a server
/// refuses it. Given to [`ClientBuilder::session`](crate::ClientBuilder::session).
///
/// A refresh is a single exchange at a time, runs to its end, and is repeated where its answer was lost. A session that
/// the server has ended is final: what needs a token ends with [`ErrorKind::Token`](crate::ErrorKind::Token) and the advice
/// [`Retry::Never`](crate::Retry::Never).
///
/// ```no_run
/// use tendril_realtime::{Client, Session, SessionSource};
///
/// # async fn run(stored: &str) -> Result<(), Box<dyn std::error::Error>> {
/// let session: Session = serde_json::from_str(stored)?;
/// let source = SessionSource::new(session).on_refresh(|session: Session| async move {
///     let text = serde_json::json!({
///         "access_token": session.access_token().map(|token| token.expose()),
///         "refresh_token": session.refresh_token().expose(),
///     });
///     tokio::task::spawn_blocking(move || std::fs::write("session.json", text.to_string())).await?
/// });
/// let client = Client::builder("https://ref.supabase.co", "sb_publishable_…").session(source).build()?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct SessionSource {
    pub(crate) session: Session,
    pub(crate) store: Option<Store>,
}

/// Stores a new session. A failure is only logged.
pub(crate) type Store = Arc<dyn Fn(Session) -> Stored + Send + Sync>;
type Stored = Pin<Box<dyn Future<Output = Result<(), Box<dyn StdError + Send + Sync>>> + Send>>;

impl SessionSource {
    /// Begins with this session. One session belongs to one client (and its clones): two that refresh it
    /// take each other's refresh tokens away.
    pub fn new(session: Session) -> Self {
        Self { session, store: None }
    }

    /// Stores each new session before its access token is used, so that the next start of the program has the refresh token
    /// that is good then. A failure is logged, and the session is stored again before the next use; the client goes on
    /// with what it has in memory.
    #[must_use]
    #[doc(alias("onAuthStateChange", "TOKEN_REFRESHED"))]
    pub fn on_refresh<F, Fut, E>(mut self, store: F) -> Self
    where
        F: Fn(Session) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<Box<dyn StdError + Send + Sync>>,
    {
        self.store = Some(Arc::new(move |session| {
            let stored = store(session);
            Box::pin(async move { stored.await.map_err(Into::into) })
        }));
        self
    }
}

impl From<Session> for SessionSource {
    fn from(session: Session) -> Self {
        Self::new(session)
    }
}

impl fmt::Debug for SessionSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionSource").field("session", &self.session).finish_non_exhaustive()
    }
}
