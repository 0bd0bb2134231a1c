//! Takes on jobs from the first answer of the control plane to the stop.

use std::convert::Infallible;

use tokio::time::{interval, sleep};

use crate::{
    agent::{Agent, background::Background, error::AgentError},
    control_plane::{Heartbeat, PULSE, contract::STACKS},
    dispatch::{Ended, Feed, Queue, QueueEvent, Scheduler, Shutdown, publish_templates, until},
};

impl Agent {
    /// Works from the first answer of the control plane to the end of the last job.
    pub(super) async fn serve(
        &self,
        mut scheduler: Scheduler,
        heartbeat: &Heartbeat,
        shutdown: &Shutdown,
    ) -> Result<(), AgentError> {
        let is_accepted = tokio::select! {
            () = heartbeat.first() => true,
            () = shutdown.draining() => false,
            never = self.recover(&mut scheduler) => match never {},
        };
        if is_accepted {
            tracing::info!(cluster = %self.config.cluster_id, "the cluster is online");
            let _beating = Background(tokio::spawn(heartbeat.clone().run()));
            let _publishing = Background(tokio::spawn(publish_templates(
                self.client.rest().clone(),
                self.config.templates_dir.clone(),
            )));
            let has_stacks = self.health.contract().is_none_or(|contract| contract >= STACKS);
            let heartbeats = self.health.heartbeats();
            let mut feed =
                Feed::open(&self.client, self.config.cluster_id, self.config.intake, has_stacks, heartbeats)
                    .map_err(AgentError::Client)?;
            self.work(&mut scheduler, &mut feed, shutdown).await;
            self.end(scheduler, shutdown).await;
            drop(feed);
            heartbeat.deregister().await;
        } else {
            self.end(scheduler, shutdown).await;
        }
        Ok(())
    }

    /// Lets the jobs end.
    async fn end(&self, mut scheduler: Scheduler, shutdown: &Shutdown) {
        self.health.draining();
        tokio::select! {
            () = self.drain(&mut scheduler, shutdown) => {}
            never = self.pulse() => match never {},
        }
    }

    /// Takes care for ever of what a previous run left, while there is no work yet.
    async fn recover(&self, scheduler: &mut Scheduler) -> Infallible {
        let mut pulse = interval(PULSE);
        loop {
            tokio::select! {
                _ = pulse.tick() => self.health.pulse(0),
                _ = scheduler.next_finished() => {}
            }
        }
    }

    /// Takes on jobs until the drain begins.
    async fn work(&self, scheduler: &mut Scheduler, feed: &mut Feed, shutdown: &Shutdown) {
        let mut queue = Queue::default();
        let mut pulse = interval(PULSE);
        loop {
            tokio::select! {
                biased;
                () = shutdown.draining() => return,
                _ = pulse.tick() => {
                    self.health.pulse(queue.len());
                    feed.observe(queue.len());
                    self.health.intake(feed.way().name(), feed.is_live());
                }
                ended = scheduler.next_finished() => match ended {
                    // Known here before the database announces it.
                    Ended::Job(id) => queue.ended(id),
                    Ended::Waits(row) => queue.put(row),
                    Ended::OutOfTurn(row) => queue.defer(row),
                    Ended::Other => {}
                },
                () = until(queue.due()) => {}
                event = feed.next() => match event {
                    QueueEvent::Restart => queue = Queue::default(),
                    QueueEvent::Waits(row) => queue.put(row),
                    QueueEvent::Gone(id) => queue.remove(id),
                    QueueEvent::Runs(row) => queue.runs(row),
                    QueueEvent::Cancel(row, claim_token) => {
                        queue.runs(row);
                        self.watched.cancel(claim_token);
                    }
                    QueueEvent::Approved(row, claim_token, plan) => {
                        queue.runs(row);
                        self.leases.approve(claim_token, plan);
                    }
                },
                () = self.approvals.changed() => {}
            }
            scheduler.admit_approved();
            if !self.disk.is_full() && !self.health.is_revoked() {
                scheduler.start_next(&mut queue);
            }
        }
    }

    /// Shows for ever that the loop runs, where there is no other one that would.
    pub(super) async fn pulse(&self) -> Infallible {
        loop {
            self.health.pulse(0);
            sleep(PULSE).await;
        }
    }
}
