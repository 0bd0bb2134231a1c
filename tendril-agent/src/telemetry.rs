//! Every metric of the agent: its name, its kind, its meaning. `/metrics` shows them from the start, so that an alert never
//! waits for a series to exist; `METRICS.md` is this table for people.

use metrics::{describe_counter, describe_gauge, describe_histogram};

/// How a metric behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// A distribution, in seconds.
    Histogram,
}

/// A metric.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Series {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    /// The label and its values, if it has one.
    pub(crate) label: Option<(&'static str, &'static [&'static str])>,
    pub(crate) help: &'static str,
}

macro_rules! series {
    ($($constant:ident = $name:literal, $kind:ident, $label:expr, $help:literal;)*) => {
        $(#[doc = $help] pub(crate) const $constant: &str = concat!("tendril_agent_", $name);)*
        /// All of them.
        pub(crate) const ALL: &[Series] = &[
            $(Series { name: $constant, kind: Kind::$kind, label: $label, help: $help },)*
        ];
    };
}

const STATUSES: &[&str] = &["SUCCESS", "FAILED", "CANCELLED"];
const STEPS: &[&str] = &["init", "plan", "apply", "output"];
const STAGES: &[&str] = &["interrupted", "interrupted_twice", "killed"];
const ESTIMATES: &[&str] = &["OK", "PARTIAL", "UNAVAILABLE"];
const FETCHED: &[&str] = &["fetched", "cached", "failed", "stopped"];
const DEATHS: &[&str] = &[
    "memory",
    "disk",
    "eviction",
    "preemption",
    "node",
    "deadline",
    "deleted",
    "killed",
    "not_started",
    "refused",
    "exit",
    "agent",
    "unknown",
];
const BEATS: &[&str] = &["ok", "failed", "refused"];

series! {
    READY = "ready", Gauge, None, "1 while the agent can be given work";
    DRAINING = "draining", Gauge, None, "1 once the agent was asked to stop";
    STANDING_BY = "standing_by", Gauge, None, "1 while another agent holds the Lease, and this one waits for it";
    LOOP_AGE = "loop_age_seconds", Gauge, None, "Time since the main loop last showed that it runs";
    UPTIME = "uptime_seconds", Gauge, None, "Time since the start";
    HEARTBEAT_AGE = "heartbeat_age_seconds", Gauge, None, "Time since the control plane last answered a heartbeat; since the start, before the first";
    HEARTBEATS = "heartbeats_total", Counter, Some(("result", BEATS)), "Heartbeats, by result: refused ones were understood and denied, such as for a bad token";
    JOBS_MOVED = "jobs_of_lost_agents_total", Counter, None, "Jobs of lost agents that this agent's heartbeats requeued or ended";
    INTAKE_LIVE = "intake_live", Gauge, None, "1 while jobs arrive as live events, 0 while they are found by polling";
    TOKENS_READ = "token_changes_total", Counter, None, "How often the token file held a new token or key";
    EXCHANGES = "key_exchanges_total", Counter, Some(("result", BEATS)), "Exchanges of the API key for a machine token, by result: refused ones need a fix";
    TOKEN_LEFT = "token_left_seconds", Gauge, None, "Time until the machine token ends; 0 once it has, or where its end is not known";
    JOBS_QUEUED = "jobs_queued", Gauge, None, "Jobs of this cluster that wait, as this agent sees them";
    JOBS_CLAIMED = "jobs_claimed_total", Counter, None, "Jobs this agent claimed";
    CLAIMS_LOST = "claims_lost_total", Counter, None, "Claims that another agent won";
    CLAIMS_FAILED = "claims_failed_total", Counter, None, "Claims that failed, and are tried again";
    JOBS_RUNNING = "jobs_running", Gauge, None, "Jobs running now";
    JOBS_WAITING = "jobs_waiting_for_approval", Gauge, None, "Jobs whose plan waits for approval";
    JOBS_ENDED = "jobs_ended_total", Counter, Some(("status", STATUSES)), "Jobs ended, by status";
    RUN_DEATHS = "run_deaths_total", Counter, Some(("cause", DEATHS)), "Runs in pods that died, or were ended from outside, by cause";
    JOB_SECONDS = "job_seconds", Histogram, None, "Time from a job's first stage to its last";
    STEP_SECONDS = "step_seconds", Histogram, Some(("step", STEPS)), "Run time of Terraform, by step";
    STEPS_FAILED = "steps_failed_total", Counter, Some(("step", STEPS)), "Steps that ended in an error of Terraform, by step";
    STEPS_STOPPED = "steps_stopped_total", Counter, Some(("stage", STAGES)), "Steps that were stopped early, by the stage that ended them";
    COST_ESTIMATES = "cost_estimates_total", Counter, Some(("result", ESTIMATES)), "Estimates of what jobs will cost, by result";
    COST_SECONDS = "cost_seconds", Histogram, None, "Time that an estimate of the cost took";
    FETCHES = "source_fetches_total", Counter, Some(("result", FETCHED)), "Templates from Git, by result; `cached` ones were in the mirror already";
    FETCH_SECONDS = "source_fetch_seconds", Histogram, None, "Time from a template's address in Git to its files";
    MIRRORS_RECREATED = "source_mirrors_recreated_total", Counter, None, "Mirrors of Git repositories that were broken or too large, and were created again";
    LOCK_CONFLICTS = "state_lock_conflicts_total", Counter, None, "Jobs that failed because another owner holds the state's lock";
    LOCKS_REMOVED = "state_locks_removed_total", Counter, None, "State locks of own dead attempts that were removed";
    ERRORED_STATES = "errored_states", Gauge, None, "States that could not be written to their backend and are saved on the volume";
    KEPT_STATES = "kept_states", Gauge, None, "States that runs in pods could not write to their backend and that are kept in the cluster until they are stored";
    ERRORED_STATES_STORED = "errored_states_stored_total", Counter, None, "Errored states that the backend took later";
    ERRORED_STATES_REFUSED = "errored_states_refused_total", Counter, None, "Errored states that the backend refused again";
    ORPHANED_ATTEMPTS = "orphaned_attempts_total", Counter, None, "Attempts of previous runs that were found at the start";
    ORPHANS_ENDED = "orphans_ended_total", Counter, None, "Attempts whose Terraform had survived the agent and was ended";
    ZOMBIES_REAPED = "zombies_reaped_total", Counter, None, "Orphans that this agent waited for as process 1";
    CHUNKS_STORED = "log_chunks_stored_total", Counter, None, "Chunks of log lines stored";
    CHUNKS_REFUSED = "log_chunks_refused_total", Counter, None, "Chunks that the control plane refused and a note replaced";
    LOG_REQUESTS = "log_requests_total", Counter, None, "Requests that stored chunks of log lines";
    WORK_BYTES = "work_dir_bytes", Gauge, None, "Disk use of the work directory, with the provider cache";
    WORK_LIMIT = "work_dir_limit_bytes", Gauge, None, "Disk use of the work directory above which no job is claimed, and the one that takes most of it is stopped";
    DISK_FREE = "work_dir_free_bytes", Gauge, None, "Free space where the work directory is";
    DISK_FREE_INODES = "work_dir_free_inodes", Gauge, None, "Files for which there is room where the work directory is; 1.8e19 where that has no limit";
    MEMORY = "memory_bytes", Gauge, None, "Resident memory of the agent itself, without Terraform";
    DESCRIPTORS = "open_descriptors", Gauge, None, "Open file descriptors of the agent";
}

/// Describes all of them to the recorder, and shows each with 0.
pub(crate) fn describe() {
    for Series { name, kind, label, help } in ALL {
        let (label, values) = label.unwrap_or(("", &[""]));
        match kind {
            Kind::Counter => describe_counter!(*name, *help),
            Kind::Gauge => describe_gauge!(*name, *help),
            Kind::Histogram => describe_histogram!(*name, *help),
        }
        for value in values {
            match (kind, label) {
                (Kind::Counter, "") => metrics::counter!(*name).increment(0),
                (Kind::Counter, label) => metrics::counter!(*name, label => *value).increment(0),
                (Kind::Gauge, _) => metrics::gauge!(*name).set(0.0),
                // A distribution of nothing would show a false zero.
                (Kind::Histogram, _) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_enough_and_each_is_documented() {
        assert!(ALL.len() >= 25, "{}", ALL.len());
        let guide = include_str!("../METRICS.md");
        for Series { name, kind, label, help } in ALL {
            let label =
                label.map_or_else(String::new, |(label, values)| format!("{label}: {}", values.join(", ")));
            let kind = format!("{kind:?}").to_lowercase();
            let line = format!("| `{name}` | {kind} | {label} | {help} |");
            assert!(guide.contains(&line), "METRICS.md lacks this line:\n{line}");
        }
        let lines = guide.lines().filter(|line| line.starts_with("| `tendril_agent_")).count();
        assert_eq!(lines, ALL.len(), "METRICS.md has lines of metrics that are gone");
    }
}
