//! How the running jobs end when the agent stops.

use std::time::Duration;

use tokio::time::{sleep, timeout};

use crate::{
    agent::Agent,
    dispatch::{Scheduler, Shutdown, ShutdownPlan},
    launch::OnStop,
};

/// How long executors may take to end after they were sent a request to give up.
const GIVE_UP: Duration = Duration::from_secs(2);

impl Agent {
    /// Lets the jobs end: by themselves within the grace period, then after an interrupt, at last by force.
    pub(super) async fn drain(&self, scheduler: &mut Scheduler, shutdown: &Shutdown) {
        self.approvals.close();
        scheduler.drain();
        if self.config.on_stop == OnStop::Detach && !scheduler.ends_with_its_executors() {
            scheduler.detach();
            tracing::info!("running jobs go on without this process; the next start takes them over");
            if timeout(self.config.timing.shutdown_grace, scheduler.all_finished()).await.is_err() {
                tracing::warn!(
                    "what an earlier run left is not stored yet; it stays on disk for the next start"
                );
            }
            return;
        }
        let ShutdownPlan { finish, interrupt, kill, flush_deadline } =
            ShutdownPlan::of(&self.config.shutdown_timing());
        if !scheduler.is_idle() {
            tracing::info!("waiting up to {finish:?} for running jobs");
        }
        tokio::select! {
            () = scheduler.all_finished() => return,
            () = sleep(finish) => {}
            () = shutdown.interrupting() => {}
        }
        tracing::warn!("running jobs are interrupted; they have {interrupt:?} to stop gracefully");
        scheduler.interrupt();
        tokio::select! {
            () = scheduler.all_finished() => return,
            () = sleep(interrupt) => {}
            () = shutdown.forced() => {}
        }
        scheduler.force();
        if timeout(kill + flush_deadline, scheduler.all_finished()).await.is_err() {
            tracing::warn!("some results are not stored yet; they stay on disk for the next start");
            scheduler.give_up();
            let _late = timeout(GIVE_UP, scheduler.all_finished()).await;
        }
    }
}
