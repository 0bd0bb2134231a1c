//! Whether the cluster of this agent was revoked, or deleted. Both are final: nothing of this agent is stored any more, so that results
//! and logs stay on disk, without further tries.

use std::{io, time::Duration};

use serde_json::Value;
use tendril_realtime::{Error, Rest};

use crate::control_plane::auth::session::{Failure, failure};

/// The longest that the question may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Whether an error means that.
pub(crate) fn is_revoked(error: &Error) -> bool {
    failure(error) == Some(&Failure::ClusterRevoked)
        || error.postgrest().is_some_and(|api| matches!(api.code.as_str(), "TD003" | "TD004"))
}

/// Reads it from the database: an agent sees its cluster until that is revoked. What else it reads is empty then, and what it writes is refused
/// or reaches no row. Errors: there is no answer now.
pub(crate) async fn revoked(rest: &Rest) -> Result<bool, Error> {
    let own = rest.from("clusters").select("id").limit(1).timeout(TIMEOUT);
    match own.rows::<Value>().await {
        Ok(rows) => Ok(rows.is_empty()),
        Err(error) if is_revoked(&error) => Ok(true),
        Err(error) => Err(error),
    }
}

/// Why a log is not uploaded to its end.
pub(crate) fn stays_on_disk() -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, "the cluster was revoked: the log stays on disk")
}

/// Whether that is why.
pub(crate) fn is_kept_on_disk(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied && error.get_ref().is_some()
}
