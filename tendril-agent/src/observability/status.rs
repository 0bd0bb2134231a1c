//! What `/status` shows and `/metrics` measures.

use std::path::PathBuf;

use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    control_plane::{
        Health, Readiness,
        contract::{CONTRACT, Compatibility},
    },
    cost::infracost::Infracost,
    dispatch::{Approvals, DiskGuard, intake::Intake},
    execute::Registry,
    telemetry,
    terraform::TerraformSettings,
};

/// What does not change while the agent runs.
#[derive(Clone)]
pub(crate) struct Facts {
    pub(crate) agent_name: String,
    pub(crate) cluster_id: Uuid,
    pub(crate) terraform: TerraformSettings,
    pub(crate) infracost: Infracost,
    pub(crate) concurrency: usize,
    pub(crate) intake: Intake,
    pub(crate) work_limit: u64,
}

/// Everything that `/status` shows and `/metrics` measures at a request.
#[derive(Clone)]
pub(crate) struct Panel {
    pub(crate) facts: Facts,
    pub(crate) health: Health,
    pub(crate) registry: Registry,
    pub(crate) approvals: Approvals,
    pub(crate) disk: DiskGuard,
}

impl Panel {
    /// `/status`. Nothing in it is secret.
    pub(super) fn status(&self) -> Value {
        let facts = &self.facts;
        let ready = self.health.ready();
        let state = self.health.state();
        json!({
            "agent": facts.agent_name,
            "version": env!("CARGO_PKG_VERSION"),
            "cluster_id": facts.cluster_id,
            "contract": {
                "agent": CONTRACT,
                "database": state.contract,
                "note": state.contract.and_then(|database| Compatibility::of(database).sentence()),
            },
            "terraform": {"program": facts.terraform.program.name(), "version": facts.terraform.program.version()},
            "infracost": facts.infracost.found().to_string(),
            "cost_estimates_unavailable_because": facts.infracost.complaint(),
            "state_backend": facts.terraform.backend.kind().name(),
            "uptime_seconds": state.started.elapsed().as_secs(),
            "ready": ready.is_ok(),
            "not_ready_because": ready.err(),
            "token": {
                "by": state.access.by,
                "seconds_left": state.access.left().map(|left| left.as_secs()),
                "problem": state.access.problem,
            },
            "reaper_missing": state.reaper_missing,
            "last_heartbeat_seconds_ago": state.last_heartbeat.map(|last_heartbeat| last_heartbeat.elapsed().as_secs()),
            "concurrency": facts.concurrency,
            "intake": {"setting": facts.intake.name(), "way": state.way, "live": state.is_live},
            "jobs_queued": state.queued,
            "jobs": self.registry.to_json(),
            "jobs_waiting_for_approval": self.approvals.count(),
            "work_dir": {"bytes": self.disk.used(), "limit": facts.work_limit, "full": self.disk.is_full()},
            "errored_states": self.pending(),
        })
    }

    /// Sets the gauges that are true at this moment only.
    pub(super) fn measure(&self) {
        let ready = self.health.ready().is_ok();
        let pending = self.pending().len();
        let state = self.health.state();
        let set = |name: &'static str, value: f64| metrics::gauge!(name).set(value);
        set(telemetry::READY, f64::from(u8::from(ready)));
        set(telemetry::DRAINING, f64::from(u8::from(state.readiness == Readiness::Draining)));
        set(telemetry::STANDING_BY, f64::from(u8::from(state.readiness.is_standing_by())));
        set(telemetry::LOOP_AGE, state.pulse.elapsed().as_secs_f64());
        set(telemetry::UPTIME, state.started.elapsed().as_secs_f64());
        set(telemetry::HEARTBEAT_AGE, state.last_heartbeat.unwrap_or(state.started).elapsed().as_secs_f64());
        set(telemetry::INTAKE_LIVE, f64::from(u8::from(state.is_live)));
        set(telemetry::TOKEN_LEFT, state.access.left().unwrap_or_default().as_secs_f64());
        set(telemetry::JOBS_QUEUED, count(state.queued));
        set(telemetry::JOBS_WAITING, count(self.approvals.count()));
        set(telemetry::ERRORED_STATES, count(pending));
        set(telemetry::MEMORY, memory().unwrap_or_default());
        set(telemetry::DESCRIPTORS, count(std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)));
    }

    /// Where states are that could not be written to their backend.
    fn pending(&self) -> Vec<PathBuf> {
        self.disk.errored_state_files()
    }
}

#[expect(clippy::cast_precision_loss, reason = "no agent counts to 2^53")]
fn count(number: usize) -> f64 {
    number as f64
}

/// Resident memory of this process, in bytes.
fn memory() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024.0)
}
