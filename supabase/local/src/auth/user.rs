//! A row of `auth.users`.

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Error, Row};
use uuid::Uuid;

use super::error::AuthError;
use super::password;
use crate::link::Link;

/// The shortest password.
const SHORTEST: usize = 6;

/// What clients see of a user.
#[derive(Debug)]
pub(super) struct User {
    pub(super) id: Uuid,
    pub(super) role: String,
    pub(super) email: String,
    pub(super) app_metadata: Value,
    pub(super) metadata: Value,
    pub(super) is_anonymous: bool,
    created_at: String,
    updated_at: String,
}

const COLUMNS: &str = "id, coalesce(role, 'authenticated') as role, coalesce(email, '') as email, \
                       coalesce(raw_app_meta_data, '{}') as app_metadata, \
                       coalesce(raw_user_meta_data, '{}') as metadata, \
                       extract(epoch from created_at)::float8 as created_at, \
                       extract(epoch from updated_at)::float8 as updated_at, \
                       is_anonymous, coalesce(encrypted_password, '') as password";

/// A change of a user's data: at sign-up, by the user, or by an administrator. What is not given stays as it is.
#[derive(Debug, Default)]
pub(super) struct Change {
    email: Option<String>,
    password: Option<String>,
    /// The password's hash, once [`hashed`](Self::hashed).
    hash: Option<String>,
    /// Merged into the metadata that is there; a null takes a field away.
    metadata: Option<Value>,
    /// Like `metadata`. Only an administrator may set it.
    app_metadata: Option<Value>,
}

impl Change {
    /// Reads a request's body; the user's metadata is in the field `metadata`.
    pub(super) fn read(body: &Map<String, Value>, metadata: &str) -> Result<Self, AuthError> {
        let text = |name: &str| body.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
        let email = text("email").map(str::to_lowercase);
        let password = text("password").map(str::to_owned);
        if email.as_deref().is_some_and(|email| !email.contains('@')) {
            return Err(AuthError::NoEmail);
        }
        if password.as_deref().is_some_and(|password| password.chars().count() < SHORTEST) {
            return Err(AuthError::WeakPassword);
        }
        let metadata = body.get(metadata).filter(|data| data.is_object()).cloned();
        Ok(Self { email, password, hash: None, metadata, app_metadata: None })
    }

    /// Whether an address is given.
    pub(super) const fn has_email(&self) -> bool {
        self.email.is_some()
    }

    /// The same with what only an administrator may set.
    pub(super) fn by_admin(mut self, body: &Map<String, Value>) -> Self {
        self.app_metadata = body.get("app_metadata").filter(|data| data.is_object()).cloned();
        self
    }

    /// The same with the password's hash instead of the password.
    pub(super) async fn hashed(mut self) -> Result<Self, AuthError> {
        if let Some(password) = self.password.take() {
            self.hash = Some(password::hash(password).await?);
        }
        Ok(self)
    }
}

impl User {
    /// A new user, confirmed; an anonymous one where no address is given.
    pub(super) async fn create(link: &Link, change: &Change) -> Result<Self, AuthError> {
        let insert = format!(
            "insert into auth.users (aud, role, email, encrypted_password, email_confirmed_at, is_anonymous, \
             raw_app_meta_data, raw_user_meta_data) \
             select 'authenticated', 'authenticated', given.email, $2, case when given.email is not null then now() end, \
             given.email is null, case when given.email is null then '{{}}' else \
             '{{\"provider\": \"email\", \"providers\": [\"email\"]}}' end::jsonb || coalesce($4::jsonb, '{{}}'), \
             jsonb_strip_nulls(coalesce($3::jsonb, '{{}}')) from (select $1::text as email) as given returning {COLUMNS}"
        );
        let Change { email, hash, metadata, app_metadata, .. } = change;
        let row = link.client().await?.query_one(&insert, &[email, hash, metadata, app_metadata]).await;
        row.map(|row| Self::of(&row)).map_err(registered)
    }

    /// Changes a user; none if there is no such one. An anonymous user who is given an address is one no more.
    pub(super) async fn change(link: &Link, id: Uuid, change: &Change) -> Result<Option<Self>, AuthError> {
        let update = format!(
            "update auth.users set email = coalesce($2, email), encrypted_password = coalesce($3, encrypted_password), \
             email_confirmed_at = case when $2::text is null then email_confirmed_at else now() end, \
             is_anonymous = is_anonymous and $2::text is null, \
             raw_user_meta_data = jsonb_strip_nulls(coalesce(raw_user_meta_data, '{{}}') || coalesce($4::jsonb, '{{}}')), \
             raw_app_meta_data = jsonb_strip_nulls(coalesce(raw_app_meta_data, '{{}}') || coalesce($5::jsonb, '{{}}')), \
             updated_at = now() where id = $1 and deleted_at is null returning {COLUMNS}"
        );
        let Change { email, hash, metadata, app_metadata, .. } = change;
        let row = link.client().await?.query_opt(&update, &[&id, email, hash, metadata, app_metadata]).await;
        row.map(|row| row.map(|row| Self::of(&row))).map_err(registered)
    }

    /// A page of users, oldest first, and how many there are.
    pub(super) async fn list(link: &Link, page: i64, per_page: i64) -> Result<(Vec<Self>, i64), AuthError> {
        let client = link.client().await?;
        let select = format!(
            "select {COLUMNS} from auth.users where deleted_at is null order by created_at, id limit $1 offset $2"
        );
        let rows = client.query(&select, &[&per_page, &((page - 1) * per_page)]).await?;
        let count = "select count(*) from auth.users where deleted_at is null";
        let total = client.query_one(count, &[]).await?.get(0);
        Ok((rows.iter().map(Self::of).collect(), total))
    }

    /// Removes a user and what hangs on it; false if there is no such one.
    pub(super) async fn delete(link: &Link, id: Uuid) -> Result<bool, AuthError> {
        let delete = "delete from auth.users where id = $1";
        Ok(link.client().await?.execute(delete, &[&id]).await? > 0)
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
            is_anonymous: row.get("is_anonymous"),
            created_at: time("created_at"),
            updated_at: time("updated_at"),
        }
    }

    pub(super) fn to_json(&self) -> Value {
        let confirmed = (!self.is_anonymous).then_some(&self.created_at);
        json!({
            "id": self.id,
            "aud": "authenticated",
            "role": self.role,
            "email": self.email,
            "phone": "",
            "email_confirmed_at": confirmed,
            "confirmed_at": confirmed,
            "last_sign_in_at": self.updated_at,
            "app_metadata": self.app_metadata,
            "user_metadata": self.metadata,
            "identities": [],
            "created_at": self.created_at,
            "updated_at": self.updated_at,
            "is_anonymous": self.is_anonymous,
        })
    }
}

fn registered(error: Error) -> AuthError {
    if error.code() == Some(&SqlState::UNIQUE_VIOLATION) { AuthError::Registered } else { error.into() }
}
