//! The stage that estimates what a deployment will cost, before anything is planned.
//!
//! It comes after the workspace, because infracost reads the template and its variables; and before `init`, because it needs
//! nothing of Terraform: so its cost is in the row by the time a person approves, and infracost can neither
//! see nor change what Terraform downloads. It never fails a job: what goes wrong is the reason of an estimate that is
//! unavailable. It never holds one up for longer than its time limit.

use std::{
    io,
    time::{Duration, Instant},
};

use tokio::time::{sleep, timeout};

pub(crate) use super::estimate::Estimate;
use super::{breakdown, estimate::Reading, scan};
use crate::{
    cost::{
        infracost::{Found, Line, Program, cost_dir::CostDir},
        settings::CostSettings,
    },
    logs::StdoutCapture,
    os::blocking,
    process::{Command, GracePeriod, Runner, StopReason, StopSignal},
    telemetry,
    template::Workspace,
    terraform::Log,
};

/// Longest part of the time limit in which the program may end early.
const GRACE: Duration = Duration::from_secs(2);
/// Most of an estimate that is read, in bytes.
const LARGEST: u64 = 16 * 1024 * 1024;

/// Estimates for one attempt.
pub(crate) struct Estimator<'a> {
    pub(crate) settings: &'a CostSettings,
    pub(crate) runner: &'a dyn Runner,
    pub(crate) workspace: &'a Workspace,
    pub(crate) log: &'a Log,
    /// The job's order to end.
    pub(crate) stop: &'a StopSignal,
}

impl Estimator<'_> {
    /// An estimate, or why there is none; nothing, if a stop is requested.
    pub(crate) async fn estimate(&self) -> Option<Estimate> {
        let estimate = match self.settings.infracost.found() {
            Found::Program(program) => {
                let estimate = self.with(program).await;
                if self.stop.requested().is_some() {
                    return None;
                }
                self.log.writer.annotate(estimate.annotation()).await;
                estimate
            }
            // It is in the row; the log of every job need not have it.
            other => Estimate::unavailable(None, &other.to_string(), &self.log.redactor),
        };
        metrics::counter!(telemetry::COST_ESTIMATES, "result" => estimate.status.as_str()).increment(1);
        Some(estimate)
    }

    async fn with(&self, program: &Program) -> Estimate {
        let started = Instant::now();
        let limit = self.settings.time_limit;
        let cost_dir = CostDir::new(self.workspace, &self.settings.work_dir);
        let read = match timeout(limit, self.read(program, &cost_dir)).await {
            Ok(read) => read,
            Err(_elapsed) => {
                // What it may have explained is not a later step's.
                self.log.writer.findings().await;
                Err(too_long(limit))
            }
        };
        let cleared = cost_dir.clone();
        if let Err(error) = blocking(move || cleared.clear()).await {
            tracing::warn!(%error, "what an estimate left cannot be removed; it is removed with the attempt");
        }
        metrics::histogram!(telemetry::COST_SECONDS).record(started.elapsed().as_secs_f64());
        let (tool, redactor) = (program.to_string(), &self.log.redactor);
        match read {
            Ok(reading) => Estimate::of(reading, tool, redactor),
            Err(why) => Estimate::unavailable(Some(tool), &why, redactor),
        }
    }

    /// Runs the program and reads what it found. Errors: a sentence that says why that is impossible.
    async fn read(&self, program: &Program, cost_dir: &CostDir) -> Result<Reading, String> {
        let limit = self.settings.time_limit;
        let grace = GRACE.min(limit / 4);
        let deadline = Instant::now() + limit.saturating_sub(grace);
        let grace_period = GracePeriod { graceful: grace / 2, forced: grace / 4 };
        let unusable = |error: io::Error| format!("the agent's work directory cannot be used ({error})");
        let laid_out = cost_dir.clone();
        blocking(move || laid_out.lay_out()).await.map_err(unusable)?;
        // A key file may have been replaced: its new key is hidden before anything can print it.
        self.log.redactor.hide(self.settings.infracost.secrets());
        let module = self.workspace.module_dir();
        let command = self.settings.infracost.command(program, module, cost_dir, grace_period)?;
        let _lock = tokio::select! {
            lock = cost_dir.lock(program.line()) => lock.map_err(unusable)?,
            () = self.stop.wait() => return Err("the job was stopped".to_owned()),
        };
        let printed = self.run(command, deadline).await?;
        let (line, cost_dir) = (program.line(), cost_dir.clone());
        let read = blocking(move || {
            cost_dir.keep_prices();
            match line {
                Line::Zero => Ok(breakdown::read(&cost_dir.read_estimate(LARGEST)?)?),
                Line::Two => Ok(scan::read(&printed)?),
            }
        });
        read.await.map_err(|error| {
            format!("{program} ended well, and what it wrote cannot be read ({error}); if it was replaced by another version, restart the agent")
        })
    }

    /// Runs it to its end, or to its early end at `deadline`; answers what it printed. Its warnings go to the job's log.
    async fn run(&self, command: Command, deadline: Instant) -> Result<Vec<u8>, String> {
        let capture = StdoutCapture::new(self.log.writer.clone());
        let (stop, mut late) = (StopSignal::default(), false);
        let ran = {
            let running = self.runner.run(command, &capture, &stop);
            tokio::pin!(running);
            tokio::select! {
                ran = &mut running => ran,
                cause = self.early_end(deadline) => {
                    late = cause == EarlyEnd::Deadline;
                    stop.request(StopReason::Cancelled);
                    // The time limit of the whole stage ends this too, and then what is left of the program.
                    running.await
                }
            }
        };
        // What it explained is the reason of this estimate, and must not become that of a later step of Terraform.
        let message = self.log.writer.findings().await;
        if late {
            return Err(too_long(self.settings.time_limit));
        }
        let exit = ran.map_err(|error| format!("infracost cannot be started ({error})"))?;
        match exit.code {
            Some(0) => {
                capture.into_captured().map_err(|_| format!("its output is larger than {LARGEST} bytes"))
            }
            Some(code) => Err(message
                .error
                .unwrap_or_else(|| format!("infracost ended with exit code {code}; see the log"))),
            None => Err("infracost was killed by a signal".to_owned()),
        }
    }

    async fn early_end(&self, deadline: Instant) -> EarlyEnd {
        tokio::select! {
            () = self.stop.wait() => EarlyEnd::Stopped,
            () = sleep(deadline.saturating_duration_since(Instant::now())) => EarlyEnd::Deadline,
        }
    }
}

/// Why a program must end early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EarlyEnd {
    Stopped,
    Deadline,
}

fn too_long(limit: Duration) -> String {
    format!("infracost took longer than {limit:?}")
}
