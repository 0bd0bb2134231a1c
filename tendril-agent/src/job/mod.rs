//! What a job is: its specification, its state and its result. No I/O, and no knowledge of who runs it.
//!
//! ```text
//! spec         what a deployment asks for, read from `config_snapshot`
//! source       where its template comes from
//! variables/   the JSON Schema of a template's variables
//! timeouts     how long its steps may take
//! version      versions of Terraform, and what is asked for
//! status       its status and its phase
//! result       how it ended, and what its row has about plan and cost
//! failure      why it failed: code and message
//! json         JSON whose numbers have all their digits
//! ```

mod failure;
mod json;
mod result;
pub(crate) mod source;
mod spec;
mod status;
mod timeouts;
mod variables;
mod version;

pub use self::version::Product;
pub(crate) use self::{
    failure::{ErrorCode, Failure},
    json::{ConfigSnapshot, Fields, Json, NotReadable},
    result::{Changes, CostStatus, Findings, JobResult, PlanDetails},
    spec::{Action, Job, JobSpec, job_span, state_key},
    status::{Phase, Status},
    timeouts::Timeouts,
    variables::Schema,
    version::{Constraints, Version, VersionRequest},
};
