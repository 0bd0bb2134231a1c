//! The access token to use now: from the environment, or of a session that is renewed under a lock.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use tendril_realtime::{AccessToken, TokenFuture, TokenSource};
use tokio::task::spawn_blocking;

use super::{Session, auth::Auth, store::SessionStore};
use crate::failure::{Failure, FailureKind, Result};

/// Renews a session when its access token comes near its end, or was refused.
///
/// A refresh token is good once. So a process that renews holds the lock of the file, reads the file again (another process may have
/// renewed meanwhile), and writes the new session before it releases the lock.
#[derive(Debug, Clone)]
pub struct SessionTokens(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    auth: Auth,
    store: SessionStore,
    /// Read by every request; written after each renewal. Also serializes the renewals of this process.
    session: tokio::sync::Mutex<Session>,
    /// The token that a server refused last.
    refused: Mutex<Option<AccessToken>>,
}

impl SessionTokens {
    /// The tokens of the session that is in the store.
    ///
    /// # Errors
    /// [`FailureKind::NotSignedIn`] when there is none.
    pub fn open(auth: Auth, store: SessionStore) -> Result<Self> {
        let session = store.load()?.ok_or_else(nobody)?;
        let session = tokio::sync::Mutex::new(session);
        Ok(Self(Arc::new(Inner { auth, store, session, refused: Mutex::default() })))
    }

    /// A session whose access token is good now.
    ///
    /// # Errors
    /// [`FailureKind::NotSignedIn`] when the session has ended; what the network can do.
    pub async fn session(&self) -> Result<Session> {
        let inner = &*self.0;
        let mut session = inner.session.lock().await;
        if inner.is_good(&session)? {
            return Ok(session.clone());
        }
        let store = inner.store.clone();
        let lock = spawn_blocking(move || store.lock()).await.map_err(|error| {
            Failure::new(FailureKind::Unexpected, "The lock of the session cannot be taken.").caused_by(error)
        })??;
        // Another process may have renewed it, or signed out, while this one waited.
        let stored = inner.store.load()?.ok_or_else(nobody)?;
        if inner.is_good(&stored)? {
            *session = stored.clone();
            return Ok(stored);
        }
        let room = inner.store.reserve()?;
        let renewed = inner.auth.renew(&stored).await?;
        // First on disk: from here on the old refresh token is worth nothing.
        room.save(&renewed)?;
        drop(lock);
        *session = renewed.clone();
        Ok(renewed)
    }
}

impl Inner {
    fn is_good(&self, session: &Session) -> Result<bool> {
        if session.is_stale(SystemTime::now()) {
            return Ok(false);
        }
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(match &*refused {
            Some(refused) => *refused != AccessToken::new(&*session.access_token)?,
            None => true,
        })
    }
}

impl TokenSource for SessionTokens {
    fn token(&self) -> TokenFuture<'_> {
        Box::pin(async move {
            let session = self.session().await.map_err(Failure::into_token_error)?;
            AccessToken::new(&*session.access_token)
        })
    }

    fn invalidate(&self, token: &AccessToken) {
        *self.0.refused.lock().unwrap_or_else(PoisonError::into_inner) = Some(token.clone());
    }
}

fn nobody() -> Failure {
    Failure::new(FailureKind::NotSignedIn, "Nobody is signed in.").next("Sign in: `grape login`.")
}
