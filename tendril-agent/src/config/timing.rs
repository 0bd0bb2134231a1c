//! Every interval and grace period of the agent, and how the command line changes them.

use std::{ops::RangeInclusive, time::Duration};

use crate::{config::args::Cli, job::Timeouts};

/// The agent's clockwork. The defaults suit production; tests shorten them.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Mean time between heartbeats; each one is moved by up to 20 %.
    pub heartbeat: Duration,
    /// The first contact falls anywhere in this time after the start, so that a thousand agents that are restarted at once
    /// do not all come at once.
    pub startup_jitter: Duration,
    /// Age at which an open chunk of log lines is closed, and the least time between two uploads of a run.
    pub log_flush: Duration,
    /// From the beginning of a drain to the end of the process.
    pub shutdown_grace: Duration,
    /// First interrupt to second interrupt, while nothing is being changed.
    pub plan_cancel_grace: Duration,
    /// First interrupt to second interrupt, while resources are being changed.
    pub apply_cancel_grace: Duration,
    /// Second interrupt to SIGKILL of the process group.
    pub kill_grace: Duration,
    /// How long one command of Git may take.
    pub git: Duration,
    /// How long a command waits for a state lock that another one holds.
    pub lock_timeout: Duration,
    /// How long the estimate of a job's cost may take, with everything around it.
    pub cost: Duration,
    /// How long `terraform init` may take; zero: no limit. A deployment may set less, here and below.
    pub init_timeout: Duration,
    /// How long `terraform plan` may take; zero: no limit.
    pub plan_timeout: Duration,
    /// How long `terraform apply` may take; zero: no limit.
    pub apply_timeout: Duration,
    /// How long any of these may write nothing; zero: no limit.
    pub silence_timeout: Duration,
    /// How long a hook may take.
    pub hook: Duration,
    /// How long the last log lines and statuses may take to be stored once the agent must end.
    pub flush_deadline: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_secs(15),
            startup_jitter: Duration::from_secs(20),
            log_flush: Duration::from_millis(500),
            shutdown_grace: Duration::from_secs(600),
            plan_cancel_grace: Duration::from_secs(300),
            apply_cancel_grace: Duration::from_secs(1200),
            kill_grace: Duration::from_secs(15),
            git: Duration::from_secs(300),
            lock_timeout: Duration::from_secs(120),
            cost: Duration::from_secs(90),
            init_timeout: Duration::from_secs(30 * 60),
            plan_timeout: Duration::from_secs(2 * 3600),
            apply_timeout: Duration::from_secs(24 * 3600),
            silence_timeout: Duration::ZERO,
            hook: Duration::from_secs(300),
            flush_deadline: Duration::from_secs(20),
        }
    }
}

const fn seconds(range: RangeInclusive<u64>) -> RangeInclusive<Duration> {
    Duration::from_secs(*range.start())..=Duration::from_secs(*range.end())
}

impl Timing {
    /// How long the steps of a run may take at most.
    pub(crate) fn limits(&self) -> Timeouts {
        let limit = |time: Duration| (!time.is_zero()).then_some(time);
        Timeouts {
            init: limit(self.init_timeout),
            plan: limit(self.plan_timeout),
            apply: limit(self.apply_timeout),
            silence: limit(self.silence_timeout),
        }
    }

    /// The values of the command line, and defaults for the others. What is wrong is added to the problems, in a sentence each.
    pub(crate) fn read(cli: &Cli, problems: &mut Vec<String>) -> Self {
        let mut timing = Self::default();
        let settings = [
            ("--heartbeat / TENDRIL_HEARTBEAT", &cli.heartbeat, &mut timing.heartbeat),
            ("--git-timeout / TENDRIL_GIT_TIMEOUT", &cli.git_timeout, &mut timing.git),
            ("--lock-timeout / TENDRIL_LOCK_TIMEOUT", &cli.lock_timeout, &mut timing.lock_timeout),
            ("--shutdown-grace / TENDRIL_SHUTDOWN_GRACE", &cli.shutdown_grace, &mut timing.shutdown_grace),
            (
                "--plan-cancel-grace / TENDRIL_PLAN_CANCEL_GRACE",
                &cli.plan_cancel_grace,
                &mut timing.plan_cancel_grace,
            ),
            (
                "--apply-cancel-grace / TENDRIL_APPLY_CANCEL_GRACE",
                &cli.apply_cancel_grace,
                &mut timing.apply_cancel_grace,
            ),
            ("--startup-jitter / TENDRIL_STARTUP_JITTER", &cli.startup_jitter, &mut timing.startup_jitter),
            ("--cost-timeout / TENDRIL_COST_TIMEOUT", &cli.cost_timeout, &mut timing.cost),
            ("--init-timeout / TENDRIL_INIT_TIMEOUT", &cli.init_timeout, &mut timing.init_timeout),
            ("--plan-timeout / TENDRIL_PLAN_TIMEOUT", &cli.plan_timeout, &mut timing.plan_timeout),
            ("--apply-timeout / TENDRIL_APPLY_TIMEOUT", &cli.apply_timeout, &mut timing.apply_timeout),
            (
                "--silence-timeout / TENDRIL_SILENCE_TIMEOUT",
                &cli.silence_timeout,
                &mut timing.silence_timeout,
            ),
            ("--hook-timeout / TENDRIL_HOOK_TIMEOUT", &cli.hook_timeout, &mut timing.hook),
        ];
        for (name, value, into) in settings {
            let Some(text) = value.as_deref().map(str::trim).filter(|text| !text.is_empty()) else {
                continue;
            };
            match text.parse::<jiff::SignedDuration>().ok().and_then(|span| Duration::try_from(span).ok()) {
                Some(duration) => *into = duration,
                None => {
                    problems.push(format!("{name} is \"{text}\": write a time such as 90s, 10m or 1h30m"));
                }
            }
        }
        if !seconds(1..=20).contains(&timing.heartbeat) {
            problems.push(
                "--heartbeat / TENDRIL_HEARTBEAT must be from 1s to 20s: a job's lease lasts 60s".to_owned(),
            );
        }
        if !seconds(1..=90).contains(&timing.cost) {
            problems.push(
                "--cost-timeout / TENDRIL_COST_TIMEOUT must be from 1s to 90s: jobs wait for it".to_owned(),
            );
        }
        timing
    }
}
