//! What a token may do on a private channel: decided by the policies on `realtime.messages`, as in the real server.
//!
//! A row of each extension is inserted, or looked for, as the token's role, with the settings that policies read; then
//! everything is rolled back.

use tokio_postgres::{Error, Transaction};
use uuid::Uuid;

use crate::error::StackError;
use crate::jwt::Claims;
use crate::link::Link;

/// What policies allow in one direction, reading or writing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Grants {
    pub(crate) broadcast: bool,
    pub(crate) presence: bool,
}

impl Grants {
    /// What everybody has on public channels.
    pub(crate) const ALL: Self = Self { broadcast: true, presence: true };

    pub(crate) fn any(self) -> bool {
        self.broadcast || self.presence
    }
}

/// Whose permissions are checked, and on which channel.
#[derive(Debug)]
pub(crate) struct Requester<'a> {
    pub(crate) claims: &'a Claims,
    /// JSON text: the `x-…` headers of the request.
    pub(crate) headers: &'a str,
    /// Without `realtime:`.
    pub(crate) topic: &'a str,
}

const READ_PROBES: &str = "insert into realtime.messages (topic, extension) \
                           values ($1, 'broadcast'), ($1, 'presence') returning id";

const BECOME: &str = "select set_config('role', $1, true), set_config('realtime.topic', $2, true), \
                      set_config('request.jwt.claims', $3, true), set_config('request.headers', $4, true)";

const VISIBLE: &str = "select extension from realtime.messages where id = any($1)";

const WRITE_PROBE: &str = "insert into realtime.messages (topic, extension) values ($1, $2)";

/// What the requester may receive.
///
/// # Errors
/// If there is no connection. What goes wrong within the database is a refusal.
pub(crate) async fn read(link: &Link, requester: &Requester<'_>) -> Result<Grants, StackError> {
    let mut client = link.client().await?;
    let transaction = client.transaction().await?;
    let grants = probe_read(&transaction, requester).await.unwrap_or_default();
    transaction.rollback().await?;
    Ok(grants)
}

/// What the requester may send.
///
/// # Errors
/// As [`read`].
pub(crate) async fn write(link: &Link, requester: &Requester<'_>) -> Result<Grants, StackError> {
    let mut client = link.client().await?;
    let mut transaction = client.transaction().await?;
    let grants = probe_write(&mut transaction, requester).await.unwrap_or_default();
    transaction.rollback().await?;
    Ok(grants)
}

async fn probe_read(transaction: &Transaction<'_>, requester: &Requester<'_>) -> Result<Grants, Error> {
    let rows = transaction.query(READ_PROBES, &[&requester.topic]).await?;
    let ids: Vec<Uuid> = rows.iter().map(|row| row.get(0)).collect();
    become_requester(transaction, requester).await?;
    let mut grants = Grants::default();
    for row in transaction.query(VISIBLE, &[&ids]).await? {
        match row.get(0) {
            "broadcast" => grants.broadcast = true,
            _ => grants.presence = true,
        }
    }
    Ok(grants)
}

async fn probe_write(transaction: &mut Transaction<'_>, requester: &Requester<'_>) -> Result<Grants, Error> {
    become_requester(transaction, requester).await?;
    let mut granted = [false; 2];
    for (granted, extension) in granted.iter_mut().zip(["broadcast", "presence"]) {
        let savepoint = transaction.savepoint("probe").await?;
        *granted = savepoint.execute(WRITE_PROBE, &[&requester.topic, &extension]).await.is_ok();
        savepoint.rollback().await?;
    }
    Ok(Grants { broadcast: granted[0], presence: granted[1] })
}

async fn become_requester(transaction: &Transaction<'_>, requester: &Requester<'_>) -> Result<(), Error> {
    let role = requester.claims.role().unwrap_or_default();
    let claims = requester.claims.to_json();
    transaction.execute(BECOME, &[&role, &requester.topic, &claims, &requester.headers]).await.map(|_| ())
}
