//! Everything that talks to Supabase for a job: its claim, its lease, its progress and its final status; and for the agent: its
//! token and its heartbeat.
//!
//! `dispatch` claims and follows the queue with it, `execute` reports with it. It talks to Supabase alone, over the client of
//! `tendril-realtime`, and knows nothing of Terraform.
//!
//! ```text
//! auth/          the machine token: read or exchanged, renewed before it expires
//! contract       the version of the contract between agents and the database
//! backoff        pauses between tries
//! claim          wins a queued deployment, or learns that another agent did
//! lease          the claims that this agent holds, and their state in the database
//! heartbeat      one request that sets the cluster online and extends the leases
//! health         whether the agent can be given work, and what it is doing
//! broadcast      the request for broadcasts of deployments
//! approval       whether a plan is approved
//! changes        the planned changes as rows
//! claim_record   what a later run must know about a claim
//! final_status   the end of a job, and who writes to its row
//! progress       what the row shows while the job runs
//! stack          which program wrote a stack's state
//! state_hold     reports to the database that only this agent has a stack's newest state
//! revocation     what follows when the cluster was revoked
//! ```

mod approval;
pub(crate) mod auth;
mod backoff;
mod broadcast;
mod changes;
mod claim;
mod claim_record;
pub(crate) mod contract;
mod final_status;
mod health;
mod heartbeat;
mod lease;
mod progress;
pub(crate) mod revocation;
mod stack;
pub(crate) mod state_hold;

pub use self::health::Health;
pub(crate) use self::{
    approval::{ApprovalState, approval_state},
    backoff::{Backoff, around, pause_after},
    broadcast::{BroadcastSubscription, SubscriptionState},
    changes::{AppliedState, ChangeReporter},
    claim::{Claim, claim},
    claim_record::ClaimRecord,
    final_status::{FinalStatus, Reporter, Written},
    health::{HeartbeatReport, PULSE, Readiness},
    heartbeat::{Heartbeat, NO_REAPER, StateStore, advice},
    lease::{Lease, Leases},
    progress::ProgressBoard,
    stack::stack_version,
};
