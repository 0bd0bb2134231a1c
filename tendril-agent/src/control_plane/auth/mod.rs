//! The machine token: read from a setting or exchanged for the cluster's key, and renewed before it expires.

pub(crate) mod cluster_key;
pub(crate) mod credential;
pub(crate) mod exchange;
pub(crate) mod machine_token;
pub(crate) mod renewal;
pub(crate) mod session;
