//! One claimed attempt, from its start to its stored result.

pub(crate) mod approval;
pub(crate) mod attempt;
pub(crate) mod changes;
pub(crate) mod held_state;
pub(crate) mod hooks;
pub(crate) mod recovery;
pub(crate) mod registry;
pub(crate) mod settings;
pub(crate) mod stages;
