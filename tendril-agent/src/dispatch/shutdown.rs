//! The end of the agent: SIGTERM or SIGINT begins the drain, a second one interrupts running jobs, a third forces their end.

use std::{io, time::Duration};

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// How long the parts of an end may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ShutdownTiming {
    /// From the beginning of a drain to the end of the process.
    pub(crate) grace: Duration,
    /// How long the last log lines and statuses may take to be stored.
    pub(crate) flush_deadline: Duration,
    /// First interrupt to second interrupt, at most.
    pub(crate) cancel_grace: Duration,
    /// Second interrupt to SIGKILL.
    pub(crate) kill_grace: Duration,
}

/// How the time from SIGTERM to SIGKILL is spent: the orchestrator gives so much and no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ShutdownPlan {
    /// Running jobs may end by themselves.
    pub(crate) finish: Duration,
    /// They were interrupted, and stop gracefully; then they are interrupted again.
    pub(crate) interrupt: Duration,
    /// From the second interrupt to the kill.
    pub(crate) kill: Duration,
    /// The last lines and statuses are stored.
    pub(crate) flush_deadline: Duration,
}

impl ShutdownPlan {
    /// Fits everything into the grace: what the end needs comes first, then a third for the interrupt, the rest is the
    /// jobs'.
    pub(crate) fn of(timing: &ShutdownTiming) -> Self {
        let grace = timing.grace;
        let flush_deadline = timing.flush_deadline.min(grace / 4);
        let kill = timing.kill_grace.min(grace / 4);
        let left = grace.saturating_sub(flush_deadline + kill);
        let interrupt = (left / 3).min(timing.cancel_grace);
        Self { finish: left.saturating_sub(interrupt), interrupt, kill, flush_deadline }
    }
}

/// The order to end. Clones share it; a library user gives it with [`drain`](Self::drain), the process with signals.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    drain: CancellationToken,
    interrupt: CancellationToken,
    force: CancellationToken,
}

impl Shutdown {
    /// A shutdown that was not requested yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Claims nothing more, lets running jobs end within the grace, then stops.
    pub fn drain(&self) {
        self.drain.cancel();
    }

    /// Interrupts running jobs now; they have their time to stop gracefully.
    pub fn interrupt(&self) {
        self.drain.cancel();
        self.interrupt.cancel();
    }

    /// Interrupts running jobs now, and cuts that time short too.
    pub fn force(&self) {
        self.interrupt();
        self.force.cancel();
    }

    /// Whether the drain has begun.
    pub fn is_draining(&self) -> bool {
        self.drain.is_cancelled()
    }

    /// Waits for the drain.
    pub async fn draining(&self) {
        self.drain.cancelled().await;
    }

    /// Whether running jobs are interrupted.
    pub fn is_interrupting(&self) -> bool {
        self.interrupt.is_cancelled()
    }

    /// Waits for the order to interrupt.
    pub async fn interrupting(&self) {
        self.interrupt.cancelled().await;
    }

    /// Waits for the haste.
    pub async fn forced(&self) {
        self.force.cancelled().await;
    }

    /// Drains on the first SIGTERM or SIGINT of the process, interrupts on the second, hastens on the third.
    ///
    /// Must be called inside a runtime. Errors: the handlers cannot be installed.
    pub fn on_signals(&self) -> io::Result<()> {
        let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let shutdown = self.clone();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = term.recv() => {}
                    _ = int.recv() => {}
                }
                if shutdown.is_interrupting() {
                    tracing::warn!(
                        "asked to stop a third time: what still runs is interrupted again, and killed"
                    );
                    shutdown.force();
                } else if shutdown.is_draining() {
                    tracing::warn!("asked to stop a second time: running jobs are interrupted now");
                    shutdown.interrupt();
                } else {
                    tracing::info!("asked to stop: no new jobs, running ones may end");
                    shutdown.drain();
                }
            }
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usual_timing() -> ShutdownTiming {
        ShutdownTiming {
            grace: Duration::from_secs(600),
            flush_deadline: Duration::from_secs(20),
            cancel_grace: Duration::from_secs(1200),
            kill_grace: Duration::from_secs(15),
        }
    }

    #[test]
    fn the_ladder_fits_into_any_grace() {
        for seconds in [0, 1, 7, 30, 90, 600, 7200] {
            let timing = ShutdownTiming { grace: Duration::from_secs(seconds), ..usual_timing() };
            let ShutdownPlan { finish, interrupt, kill, flush_deadline } = ShutdownPlan::of(&timing);
            assert!(finish + interrupt + kill + flush_deadline <= timing.grace, "{seconds}");
            assert!(seconds < 60 || interrupt >= Duration::from_secs(8), "{seconds}: {interrupt:?}");
        }
        let usual = ShutdownPlan::of(&usual_timing());
        assert_eq!((usual.flush_deadline, usual.kill), (Duration::from_secs(20), Duration::from_secs(15)));
        assert!(
            usual.finish > Duration::from_secs(370) && usual.interrupt > Duration::from_secs(180),
            "{usual:?}"
        );
    }
}
