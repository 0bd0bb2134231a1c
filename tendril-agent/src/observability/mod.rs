//! What an operator sees: probes, metrics and the agent's own log.

pub(crate) mod http;
pub(crate) mod logging;
pub(crate) mod status;
