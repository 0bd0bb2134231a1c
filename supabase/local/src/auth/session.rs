//! A sign-in, and the tokens that prove it.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::{SecureRandom as _, SystemRandom};
use serde_json::{Value, json};
use uuid::Uuid;

use super::error::AuthError;
use super::user::User;
use crate::jwt::JwtSecret;
use crate::link::Link;

/// How long an access token is valid, in seconds.
const LIFE: i64 = 3600;

/// An open session and the token that renews it next.
pub(super) struct Session {
    id: Uuid,
    refresh_token: String,
}

/// What a refresh token was good for.
pub(super) struct Spent {
    pub(super) user: Uuid,
    pub(super) session: Uuid,
}

impl Session {
    /// Begins a session of a user, or continues one.
    pub(super) async fn open(link: &Link, user: &User, session: Option<Uuid>) -> Result<Self, AuthError> {
        let mut random = [0; 18];
        let no_luck = |_| AuthError::Internal("no random numbers".to_owned());
        SystemRandom::new().fill(&mut random).map_err(no_luck)?;
        let refresh_token = URL_SAFE_NO_PAD.encode(random);
        let id = session.unwrap_or_else(Uuid::new_v4);
        let mut client = link.client().await?;
        let transaction = client.transaction().await?;
        let begin = "insert into auth.sessions (id, user_id) values ($1, $2) on conflict (id) do update set \
                     updated_at = now()";
        transaction.execute(begin, &[&id, &user.id]).await?;
        let keep =
            "insert into auth.refresh_tokens (token, user_id, session_id) values ($1, $2::uuid::text, $3)";
        transaction.execute(keep, &[&refresh_token, &user.id, &id]).await?;
        let note = "update auth.users set last_sign_in_at = now() where id = $1";
        transaction.execute(note, &[&user.id]).await?;
        transaction.commit().await?;
        Ok(Self { id, refresh_token })
    }

    /// The answer to a sign-in.
    pub(super) fn to_json(&self, user: &User, secret: &JwtSecret) -> Value {
        let now = secret.now();
        let token = secret.sign(&json!({
            "iss": "supabase-demo",
            "sub": user.id,
            "aud": "authenticated",
            "exp": now + LIFE,
            "iat": now,
            "email": user.email,
            "phone": "",
            "app_metadata": user.app_metadata,
            "user_metadata": user.metadata,
            "role": user.role,
            "aal": "aal1",
            "amr": [{ "method": if user.is_anonymous { "anonymous" } else { "password" }, "timestamp": now }],
            "session_id": self.id,
            "is_anonymous": user.is_anonymous,
        }));
        json!({
            "access_token": token,
            "token_type": "bearer",
            "expires_in": LIFE,
            "expires_at": now + LIFE,
            "refresh_token": self.refresh_token,
            "user": user.to_json(),
        })
    }
}

/// Uses up a refresh token; none if it is unknown or was used before.
pub(super) async fn spend(link: &Link, token: &str) -> Result<Option<Spent>, AuthError> {
    let update = "update auth.refresh_tokens set revoked = true, updated_at = now() \
                  where token = $1 and not revoked returning user_id::uuid, session_id";
    let row = link.client().await?.query_opt(update, &[&token]).await?;
    Ok(row.map(|row| Spent { user: row.get(0), session: row.get(1) }))
}

pub(super) async fn is_open(link: &Link, session: Uuid) -> Result<bool, AuthError> {
    let exists = "select exists (select 1 from auth.sessions where id = $1)";
    Ok(link.client().await?.query_one(exists, &[&session]).await?.get(0))
}

/// Ends this session (`local`), the user's others (`others`) or all of them (`global`).
pub(super) async fn end(link: &Link, user: Uuid, session: Uuid, scope: &str) -> Result<(), AuthError> {
    let delete = "delete from auth.sessions where user_id = $1 and case $3 \
                  when 'local' then id = $2 when 'others' then id <> $2 else true end";
    link.client().await?.execute(delete, &[&user, &session, &scope]).await?;
    Ok(())
}
