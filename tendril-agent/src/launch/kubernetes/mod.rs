//! Executors as pods of Kubernetes Jobs.
//!
//! ```text
//! settings         how runs become pods
//! account_map      which stacks have which service account and limits
//! yaml             files with the types of Kubernetes in them
//! names            what the objects of a run are called
//! connection       the way to the API server
//! preflight        what `doctor` asks the cluster
//! election         which of several dispatchers is at work
//! launcher         all of the following together
//!
//! manifest         the Job and the Secret of a run: pure
//! pod_defaults     what a run's pod has where nothing else is said
//! creation         the start of a run
//! waiting          a run that the cluster does not take now
//! adoption         runs of an earlier dispatcher
//! late_ends        ends that no dispatcher saw
//! surplus_pod      a second pod of a run: it does nothing
//!
//! observer         two watches, and what was seen last of each run
//! view             a Job and a pod in a few words
//! death            what ended a run, in a sentence and in a word
//! verdict          what that means, in sentences: pure
//! following        what is said of a run, and its end
//! end_message      what a run counted
//! claims           what the control plane knows of the runs
//! outcome          what is written of a run whose executor died or was stopped
//! namespace        whether it is being deleted
//! ended_pods       what a dead pod leaves: its lock on the state
//!
//! plan_store       where a plan waits between two pods
//! plan_archive     what is kept of it
//! plan_access      what a run needs to keep it
//!
//! state_store      where a state goes that its backend does not take
//! state_parts      how it is cut
//! state_handover   the pod that has it, and the pod that stores it
//! held_manifest    their Jobs: pure
//! held_states      what the dispatcher does for them
//! state_guard      nothing is planned before
//! tries            when it is tried again
//! ```
//!
//! Behind the feature `kubernetes`, which is on unless the program is built with `--no-default-features`. Its scenarios are in
//! `tests/tests/kubernetes`, on a stand-in for the API server (`tests/src/kubernetes`) that is held to recordings of a real one.

mod account_map;
mod adoption;
mod claims;
mod connection;
mod creation;
mod death;
mod election;
pub(crate) mod end_message;
pub(crate) mod ended_pods;
mod following;
mod held_manifest;
mod held_states;
mod late_ends;
mod launcher;
mod manifest;
mod names;
mod namespace;
mod observer;
mod outcome;
pub(crate) mod plan_access;
mod plan_archive;
pub(crate) mod plan_store;
mod pod_defaults;
pub(crate) mod preflight;
pub(crate) mod settings;
mod state_guard;
pub(crate) mod state_handover;
mod state_parts;
mod state_store;
pub(crate) mod surplus_pod;
mod tries;
mod verdict;
mod view;
mod waiting;
mod yaml;

pub(crate) use self::{
    account_map::{AccountMap, is_dns_name},
    claims::Claims,
    connection::Connection,
    election::{Election, Leadership},
    launcher::KubernetesLauncher,
    names::PLAN_DIR,
    plan_store::PlanStore,
    settings::KubernetesSettings,
    state_store::StateStore,
};
