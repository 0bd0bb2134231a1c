//! The state of a stack: where it is stored, who locks it, and a state that could not be stored.
//!
//! ```text
//! backend         which backend, and the place in it of each state key
//! identity        whether two agents store their states in the same place
//! creation_race   the first `init` of several states in one new database
//! lock            a lock that Terraform could not get, explained
//! lock_owner      which of this agent's attempts may have left a lock
//! lock_query      reads who holds a lock, where that takes no lock
//! state_dirs      the directories of all states: what waits there, and what is of no use any more
//! errored_state   state that Terraform could not write to its backend
//! state_dump      state that Terraform printed because it could store it nowhere
//! ```

pub(super) mod backend;
pub(super) mod creation_race;
pub(super) mod errored_state;
mod identity;
pub(super) mod lock;
pub(super) mod lock_owner;
pub(super) mod lock_query;
pub(crate) mod state_dirs;
pub(super) mod state_dump;

pub(crate) use self::{
    backend::{Kind, State, StateBackend},
    errored_state::ErroredState,
    lock_owner::LockOwner,
};
