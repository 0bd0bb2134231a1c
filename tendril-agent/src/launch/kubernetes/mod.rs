//! Executors as pods of Kubernetes Jobs.
//!
//! ```text
//! settings      how runs become pods        account_map   which stacks have which service account and limits
//! manifest      the Job and the Secret of a run: pure
//! connection    the way to the API server   election      which of several dispatchers is at work
//! observer      two watches, and what was seen last of each run     view   a Job and a pod in a few words
//! verdict       what that means, in sentences: pure
//! claims        what the control plane knows of the runs            settle     what becomes of one whose executor died
//! plan_store    where a plan waits between two pods         parcel        what is kept of it
//! creation      the start of a run            following     what is said of it, and its end        adoption      runs of an earlier dispatcher
//! launcher      all of it together          preflight     what `doctor` asks the cluster
//! ```
//!
//! All of it is behind the feature `kubernetes`, which is off: no run has been a pod yet, and there is no chart and no guide for it.
//! The scenarios are in `tests/tests/kubernetes`, on a stand-in for the API server (`tests/src/kubernetes`); they compile with the
//! feature `kubernetes` of the tests' crate:
//!
//! ```text
//! cargo nextest run --workspace --features tendril-tests/kubernetes -E 'binary(kubernetes)'
//! ```

pub(crate) mod account_map;
mod adoption;
pub(crate) mod claims;
pub(crate) mod connection;
mod creation;
pub(crate) mod election;
mod following;
pub(crate) mod launcher;
pub(crate) mod manifest;
mod observer;
mod parcel;
pub(crate) mod plan_store;
pub(crate) mod preflight;
pub(crate) mod settings;
mod settle;
mod verdict;
mod view;
