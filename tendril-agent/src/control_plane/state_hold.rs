//! Reports to the database that this agent has the only copy of a stack's newest state: until it is stored, or the stack's owner
//! discards it, no other agent claims a deployment of that stack.

use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::json;
use tendril_realtime::{Error, Rest};

use crate::control_plane::revocation::is_revoked;

/// The longest that one request may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What the database answers to a hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hold {
    /// No other agent claims the stack.
    Held,
    /// The owner discarded this state: it must not be stored any more.
    Discarded,
    /// The database has no holds: it is of the contract before this agent's.
    Unknown,
}

#[derive(Deserialize)]
struct Answer {
    held: bool,
}

/// Holds a stack. `since`: when the state was made; what was discarded after it is discarded. Errors: the database could not be
/// asked, or refuses.
pub(crate) async fn hold(
    rest: &Rest,
    state_key: &str,
    agent: &str,
    reason: &str,
    since: Option<Timestamp>,
) -> Result<Hold, Error> {
    let arguments = json!({"state_key": state_key, "agent": agent, "reason": reason, "since": since});
    let request = rest.rpc("agent_hold_state", &arguments).timeout(TIMEOUT).idempotent(true);
    match request.value::<Answer>().await {
        Ok(Answer { held: true }) => Ok(Hold::Held),
        Ok(Answer { held: false }) => Ok(Hold::Discarded),
        Err(error) if is_unknown(&error) => Ok(Hold::Unknown),
        Err(error) => Err(error),
    }
}

/// Lets other agents claim the stack again: its state is stored. Errors: the database could not be reached, or refuses.
pub(crate) async fn release(rest: &Rest, state_key: &str, agent: &str) -> Result<(), Error> {
    let arguments = json!({"state_key": state_key, "agent": agent});
    let request = rest.rpc("agent_release_state", &arguments).timeout(TIMEOUT).idempotent(true);
    match request.value::<bool>().await {
        Ok(_) => Ok(()),
        // Nothing is claimed of a cluster that was revoked.
        Err(error) if is_unknown(&error) || is_revoked(&error) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Whether the database lacks the function, or has no such stack: no deployment of this state is left in it.
fn is_unknown(error: &Error) -> bool {
    error.postgrest().is_some_and(|api| api.code == "PGRST202" || api.code == "TD008")
}
