//! The agent's own log and its metrics' names.

use std::io::IsTerminal;

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;

/// Form of the agent's own log on stderr.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One readable line per event.
    Human,
    /// One JSON object per event.
    Json,
}

/// Jobs claimed (counter).
pub(crate) const JOBS_CLAIMED: &str = "tendril_agent_jobs_claimed_total";
/// Claims that another agent won (counter).
pub(crate) const CLAIMS_LOST: &str = "tendril_agent_claims_lost_total";
/// Jobs ended, by `status` (counter).
pub(crate) const JOBS_ENDED: &str = "tendril_agent_jobs_ended_total";
/// Jobs running now (gauge).
pub(crate) const JOBS_RUNNING: &str = "tendril_agent_jobs_running";
/// Rescued states that the backend refused (counter).
pub(crate) const RESCUES_REFUSED: &str = "tendril_agent_rescued_states_refused_total";
/// Heartbeats, by `result` ok or failed (counter).
pub(crate) const HEARTBEATS: &str = "tendril_agent_heartbeats_total";
/// Chunks of log lines stored (counter).
pub(crate) const CHUNKS_STORED: &str = "tendril_agent_log_chunks_stored_total";
/// Chunks the control plane refused and that were replaced by a note (counter).
pub(crate) const CHUNKS_REFUSED: &str = "tendril_agent_log_chunks_refused_total";
/// Requests that stored chunks (counter).
pub(crate) const LOG_REQUESTS: &str = "tendril_agent_log_requests_total";

/// Installs the process's subscriber. A filter that cannot be read falls back to `info`; a second call changes nothing.
pub fn install_log(format: LogFormat, filter: &str) {
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    // Only a test harness can have installed one before, and its choice stands.
    let _installed = match format {
        LogFormat::Human => builder.with_target(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
}

/// Installs the process's recorder. `None` when there is one already.
pub(crate) fn install_metrics() -> Option<PrometheusHandle> {
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder).ok()?;
    describe();
    Some(handle)
}

fn describe() {
    use metrics::{describe_counter, describe_gauge};
    describe_counter!(JOBS_CLAIMED, "Jobs this agent claimed");
    describe_counter!(CLAIMS_LOST, "Claims that another agent won");
    describe_counter!(JOBS_ENDED, "Jobs ended, by status");
    describe_gauge!(JOBS_RUNNING, "Jobs running now");
    describe_counter!(HEARTBEATS, "Heartbeats, by result");
    describe_counter!(CHUNKS_STORED, "Chunks of log lines stored");
    describe_counter!(CHUNKS_REFUSED, "Chunks that the control plane refused and a note replaced");
    describe_counter!(LOG_REQUESTS, "Requests that stored chunks of log lines");
}
