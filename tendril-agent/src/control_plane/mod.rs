//! Everything that talks to Supabase: machine token, claim, lease, heartbeat, progress and final status.

pub(crate) mod approval;
pub(crate) mod auth;
pub(crate) mod backoff;
pub(crate) mod broadcast;
pub(crate) mod changes;
pub(crate) mod claim;
pub(crate) mod contract;
pub(crate) mod final_status;
pub(crate) mod health;
pub(crate) mod heartbeat;
pub(crate) mod lease;
pub(crate) mod revocation;
pub(crate) mod state_hold;
