//! A row of `auth.users`.

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Error, Row};
use uuid::Uuid;

use super::error::AuthError;
use crate::link::Link;

/// What clients see of a user.
#[derive(Debug)]
pub(super) struct User {
    pub(super) id: Uuid,
    pub(super) role: String,
    pub(super) email: String,
    pub(super) app_metadata: Value,
    pub(super) metadata: Value,
    created_at: String,
    updated_at: String,
}

const COLUMNS: &str = "id, coalesce(role, 'authenticated') as role, coalesce(email, '') as email, \
                       coalesce(raw_app_meta_data, '{}') as app_metadata, \
                       coalesce(raw_user_meta_data, '{}') as metadata, \
                       extract(epoch from created_at)::float8 as created_at, \
                       extract(epoch from updated_at)::float8 as updated_at, \
                       coalesce(encrypted_password, '') as password";

impl User {
    /// A new user, confirmed.
    pub(super) async fn create(
        link: &Link,
        email: &str,
        hash: &str,
        metadata: &Value,
    ) -> Result<Self, AuthError> {
        let insert = format!(
            "insert into auth.users (aud, role, email, encrypted_password, email_confirmed_at, raw_app_meta_data, \
             raw_user_meta_data) values ('authenticated', 'authenticated', $1, $2, now(), \
             '{{\"provider\": \"email\", \"providers\": [\"email\"]}}', $3) returning {COLUMNS}"
        );
        let row = link.client().await?.query_one(&insert, &[&email, &hash, metadata]).await;
        row.map(|row| Self::of(&row)).map_err(registered)
    }

    /// A user and the hash of the password.
    pub(super) async fn by_email(link: &Link, email: &str) -> Result<Option<(Self, String)>, AuthError> {
        let select = format!(
            "select {COLUMNS} from auth.users where lower(email) = $1 and not is_sso_user and deleted_at is null"
        );
        let row = link.client().await?.query_opt(&select, &[&email]).await?;
        Ok(row.map(|row| (Self::of(&row), row.get("password"))))
    }

    pub(super) async fn by_id(link: &Link, id: Uuid) -> Result<Option<Self>, AuthError> {
        let select = format!("select {COLUMNS} from auth.users where id = $1 and deleted_at is null");
        Ok(link.client().await?.query_opt(&select, &[&id]).await?.map(|row| Self::of(&row)))
    }

    fn of(row: &Row) -> Self {
        let time = |name: &str| {
            let seconds: f64 = row.get::<_, Option<f64>>(name).unwrap_or_default();
            #[allow(clippy::cast_possible_truncation, reason = "milliseconds of our age fit")]
            let time = Timestamp::from_millisecond((seconds * 1000.0) as i64);
            time.unwrap_or_default().to_string()
        };
        Self {
            id: row.get("id"),
            role: row.get("role"),
            email: row.get("email"),
            app_metadata: row.get("app_metadata"),
            metadata: row.get("metadata"),
            created_at: time("created_at"),
            updated_at: time("updated_at"),
        }
    }

    pub(super) fn to_json(&self) -> Value {
        json!({
            "id": self.id,
            "aud": "authenticated",
            "role": self.role,
            "email": self.email,
            "phone": "",
            "email_confirmed_at": self.created_at,
            "confirmed_at": self.created_at,
            "last_sign_in_at": self.updated_at,
            "app_metadata": self.app_metadata,
            "user_metadata": self.metadata,
            "identities": [],
            "created_at": self.created_at,
            "updated_at": self.updated_at,
            "is_anonymous": false,
        })
    }
}

fn registered(error: Error) -> AuthError {
    if error.code() == Some(&SqlState::UNIQUE_VIOLATION) { AuthError::Registered } else { error.into() }
}
