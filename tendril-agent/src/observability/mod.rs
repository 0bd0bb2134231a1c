//! What an operator sees of the agent: probes, metrics, status, and the agent's own log.
//!
//! It shows the state of `dispatch`, `execute` and `control_plane`, and changes nothing.
//!
//! ```text
//! http      `/healthz`, `/readyz`, `/status` and `/metrics`
//! status    what `/status` shows and `/metrics` measures
//! logging   the agent's own log, and its metrics recorder
//! ```

pub(crate) mod http;
pub(crate) mod logging;
mod status;

pub(crate) use self::status::{Facts, Panel};
