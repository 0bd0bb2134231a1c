//! Names of what a run is made of: labels, annotations, variables, files and volumes.

use crate::launch::attempt_file::AttemptId;

/// Every object of this launcher has it.
pub(crate) const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "tendril-agent");
/// The cluster of the deployment, as the control plane names it: agents of several clusters may share a namespace.
pub(crate) const CLUSTER: &str = "tendril.dev/cluster";
/// `deployments.id`.
pub(crate) const DEPLOYMENT: &str = "tendril.dev/deployment";
/// `deployments.attempt`.
pub(crate) const ATTEMPT: &str = "tendril.dev/attempt";
/// Part of a run: before the approval, or after it.
pub(crate) const PART: &str = "tendril.dev/part";
/// SHA-256 of the claim, so that a Job of the same name can be told from this claim's.
pub(crate) const CLAIM: &str = "tendril.dev/claim";
/// The stack, for people.
pub(crate) const STACK: &str = "tendril.dev/stack";

/// Where the Secret of the run is mounted.
pub(crate) const ATTEMPT_DIR: &str = "/var/run/tendril";
/// Its volume.
pub(crate) const ATTEMPT_VOLUME: &str = "tendril-attempt";
/// Names of its files.
pub(crate) const ATTEMPT_FILE: &str = "attempt.json";
pub(crate) const TOKEN_FILE: &str = "token";
pub(crate) const PLAN_ACCESS_FILE: &str = "plan-access.json";
/// The only place where a run can write, but for `/tmp`.
pub(crate) const HOME: &str = "/var/lib/tendril";

/// Variable of a run's container: the file of what the pod's status shows of its end, and that file.
pub(crate) const END_MESSAGE_VARIABLE: &str = "TENDRIL_END_MESSAGE";
pub(crate) const END_MESSAGE: &str = "/dev/termination-log";

/// Variable of a run's container: the pod that it is in.
pub(crate) const POD_UID_VARIABLE: &str = "TENDRIL_POD_UID";

/// Variables of a run's container; the launcher sets them where a plan may wait.
pub(crate) const STORE_VARIABLE: &str = "TENDRIL_PLAN_STORE";
pub(crate) const JOB_UID_VARIABLE: &str = "TENDRIL_JOB_UID";
/// Name of the Secret of its plan, and the file with which the run may create it.
pub(crate) const PLAN_SECRET_VARIABLE: &str = "TENDRIL_PLAN_SECRET";
pub(crate) const PLAN_ACCESS_VARIABLE: &str = "TENDRIL_PLAN_ACCESS";
/// Where the plan of a run is mounted that goes on.
pub(crate) const DIR_VARIABLE: &str = "TENDRIL_PLAN_DIR";
/// The value that means a Secret; another one is a directory.
pub(crate) const IN_SECRET: &str = "secret";
/// Where the plan is mounted that goes on.
pub(crate) const PLAN_DIR: &str = "/var/run/tendril-plan";
/// Its file there, and its key in the Secret.
pub(crate) const PLAN_FILE: &str = "plan";

/// Variables of a run's container: where a state goes that its backend does not take. [`IN_SECRET`], or a directory.
pub(crate) const STATE_STORE_VARIABLE: &str = "TENDRIL_STATE_STORE";
/// What the names of its Secrets begin with, and the file with which the run may create them, once it has asked.
pub(crate) const STATE_SECRET_VARIABLE: &str = "TENDRIL_STATE_SECRET";
pub(crate) const STATE_ACCESS_VARIABLE: &str = "TENDRIL_STATE_ACCESS";
/// Where such a state is mounted.
pub(crate) const STATE_DIR: &str = "/var/run/tendril-state";
/// Where the right to create its Secrets is mounted, and the name of that volume.
pub(crate) const LATE_DIR: &str = "/var/run/tendril-late";
pub(crate) const LATE_VOLUME: &str = "tendril-late";
/// The volume of plans and states.
pub(crate) const KEPT_VOLUME: &str = "tendril-plan";

/// Which part of a run a Job is: a plan that waits for approval ends its pod, and goes on in another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// From the beginning, to the end or the approval.
    First,
    /// From the approval to the end.
    Approved,
    /// No run, and no pod: what a state that its backend did not take is kept in belongs to it, and what stores it is made from it.
    State,
    /// Stores such a state.
    Push,
}

impl Part {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Approved => "approved",
            Self::State => "state",
            Self::Push => "push",
        }
    }

    pub(crate) fn parse(name: &str) -> Option<Self> {
        let all = [Self::First, Self::Approved, Self::State, Self::Push];
        all.into_iter().find(|part| part.name() == name)
    }

    /// Whether it is a run of a deployment.
    pub(crate) const fn is_run(self) -> bool {
        matches!(self, Self::First | Self::Approved)
    }
}

/// Which attempt a Job of this name runs; none, if it is no run.
pub(crate) fn attempt_of(job: &str) -> Option<AttemptId> {
    let rest = job.strip_prefix("tendril-")?;
    let (deployment, rest) = rest.split_at_checked(36)?;
    let attempt = rest.strip_prefix('-')?;
    let attempt = attempt.strip_suffix("-go").unwrap_or(attempt);
    let deployment_id = deployment.parse().ok()?;
    Some(AttemptId { deployment_id, attempt: attempt.parse().ok()? })
}

/// Name of the Job of a run: `tendril-<deployment>-<attempt>`, at most 63 letters. One attempt has one name,
/// so that what is created twice is refused by the server.
pub(crate) fn name(id: AttemptId, part: Part) -> String {
    let AttemptId { deployment_id, attempt } = id;
    match part {
        Part::First => format!("tendril-{deployment_id}-{attempt}"),
        Part::Approved => format!("tendril-{deployment_id}-{attempt}-go"),
        Part::State => format!("tendril-{deployment_id}-{attempt}-state"),
        // Each try has a number of its own behind it.
        Part::Push => format!("tendril-{deployment_id}-{attempt}-push"),
    }
}
