//! Who is signed in, where: profiles, the session of each, and tokens that renew themselves.
//!
//! ```text
//! profile        a project: URL, publishable key; which one is current
//! store          the session of a profile: a file of mode 0600 and its lock
//! private_file   files of mode 0600, written whole, and locks between processes
//! auth           Supabase Auth: sign in, renew, sign out
//! tokens         the access token to use now, renewed under the lock
//! ```

pub mod auth;
pub mod private_file;
pub mod profile;
pub mod store;
pub mod tokens;

use std::{
    fmt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};
use uuid::Uuid;
use zeroize::Zeroizing;

/// Of whom a session is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// The user's id.
    pub id: Uuid,
    /// The address that they sign in with.
    pub email: Option<String>,
}

/// A sign-in: an access token for about an hour, and a refresh token that is good once.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// The JWT of requests.
    #[serde(with = "secret_text")]
    pub access_token: Zeroizing<String>,
    /// Gives the next session, once.
    #[serde(with = "secret_text")]
    pub refresh_token: Zeroizing<String>,
    /// When it was received, in seconds since 1970 by this machine's clock.
    pub received_at: u64,
    /// When the access token ends, by the same clock.
    pub expires_at: u64,
    /// Who signed in.
    pub user: User,
}

impl Session {
    /// Whether the access token should be renewed at this time: a minute or a tenth of its life before its end, whichever is
    /// more, and a few seconds earlier than the client library requests another one.
    pub fn is_stale(&self, now: SystemTime) -> bool {
        const AHEAD_OF_LIBRARY: u64 = 3;
        let life = self.expires_at.saturating_sub(self.received_at);
        let lead = (life / 10).max(60).min(life / 2) + AHEAD_OF_LIBRARY.min(life / 4);
        seconds(now) + lead >= self.expires_at
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("user", &self.user)
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

/// A text that is wiped from memory when it is not needed any more, as JSON.
mod secret_text {
    use serde::{Deserialize as _, Deserializer, Serializer};
    use zeroize::Zeroizing;

    pub(super) fn serialize<S: Serializer>(
        text: &Zeroizing<String>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(text)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Zeroizing<String>, D::Error> {
        String::deserialize(deserializer).map(Zeroizing::new)
    }
}

/// Seconds since 1970.
pub(crate) fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(life: u64) -> Session {
        Session {
            access_token: "secret-a".to_owned().into(),
            refresh_token: "secret-r".to_owned().into(),
            received_at: 1000,
            expires_at: 1000 + life,
            user: User { id: Uuid::nil(), email: None },
        }
    }

    fn at(second: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(second)
    }

    #[test]
    fn a_session_is_renewed_before_its_token_ends() {
        let hour = session(3600);
        assert!(!hour.is_stale(at(1000)));
        assert!(!hour.is_stale(at(1000 + 3600 - 364)));
        assert!(hour.is_stale(at(1000 + 3600 - 363)));
        let short = session(8);
        assert!(!short.is_stale(at(1001)));
        assert!(short.is_stale(at(1002)));
        assert!(session(0).is_stale(at(1000)));
    }

    #[test]
    fn a_session_does_not_show_its_tokens() {
        assert!(!format!("{:?}", session(1)).contains("secret"));
    }
}
