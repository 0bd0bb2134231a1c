//! The end of the agent: SIGTERM or SIGINT begins the drain, a second one hastens it.

use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// The order to end. Clones share it; a library user gives it with [`drain`](Self::drain), the process with signals.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    drain: CancellationToken,
    hasten: CancellationToken,
}

impl Shutdown {
    /// An order that nobody has given yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Claims nothing more, lets running jobs end within the grace, then stops.
    pub fn drain(&self) {
        self.drain.cancel();
    }

    /// Interrupts running jobs now, and cuts patience short.
    pub fn hasten(&self) {
        self.drain.cancel();
        self.hasten.cancel();
    }

    /// Whether the drain has begun.
    pub fn is_draining(&self) -> bool {
        self.drain.is_cancelled()
    }

    /// Waits for the drain.
    pub async fn draining(&self) {
        self.drain.cancelled().await;
    }

    /// Waits for the haste.
    pub async fn hastened(&self) {
        self.hasten.cancelled().await;
    }

    /// Drains on the first SIGTERM or SIGINT of the process, hastens on the second.
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
                if shutdown.is_draining() {
                    tracing::warn!("asked to stop a second time: running jobs are interrupted now");
                    shutdown.hasten();
                } else {
                    tracing::info!("asked to stop: no new jobs, running ones may end");
                    shutdown.drain();
                }
            }
        });
        Ok(())
    }
}
