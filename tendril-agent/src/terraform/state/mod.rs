//! The state of a stack: where it is stored, who locks it, and a state that could not be stored.

pub(crate) mod backend;
pub(crate) mod errored_state;
pub(crate) mod identity;
pub(crate) mod lock;
pub(crate) mod lock_owner;
pub(crate) mod lock_query;
pub(crate) mod state_dump;
