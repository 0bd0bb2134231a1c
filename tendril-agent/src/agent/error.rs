//! Why an agent cannot start, or had to stop.

use std::io;

use tendril_realtime::Error;

/// Why an agent cannot start, or had to stop. Each message says what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AgentError {
    /// The library refused a setting.
    #[error("the connection to the control plane cannot be set up: {0}")]
    Client(#[source] Box<Error>),
    /// Another agent uses the work directory.
    #[error("the work directory {0} is in use by another agent: give each agent its own --work-dir")]
    WorkDirInUse(String),
    /// The work directory cannot be locked.
    #[error("the work directory {dir} cannot be used: {source}")]
    WorkDir {
        /// Which one.
        dir: String,
        /// Why.
        source: io::Error,
    },
    /// Runs are to be pods, and there is no way to a cluster.
    #[cfg(feature = "kubernetes")]
    #[error("{0}")]
    Kubernetes(String),
    /// Another agent has the Lease: that one is active now.
    #[cfg(feature = "kubernetes")]
    #[error("the Lease is lost: another agent is at work, and this one starts again to wait for its turn")]
    LeadershipLost,
    /// The health server cannot listen.
    #[error("--health-addr {addr} cannot be used ({source}): choose another address")]
    Health {
        /// Which one.
        addr: std::net::SocketAddr,
        /// Why.
        source: io::Error,
    },
}
