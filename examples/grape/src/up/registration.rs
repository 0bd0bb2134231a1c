//! The cluster's row, its key, and the agent's first heartbeat.

use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use tendril_realtime::{Retry, watch::WatchEvent};
use tokio::time::{interval, timeout};

use super::{
    Up,
    kubernetes::Kubernetes,
    steps::{Step, Went},
    stopped,
};
use crate::{
    control_plane::cluster::{self, Cluster, KeyChange},
    failure::{Failure, FailureKind, Result},
    output::time::span,
};

/// How often the pods are checked while the agent is waited for.
const POLL_INTERVAL: Duration = Duration::from_secs(5);

impl Up<'_> {
    /// The row in `clusters`.
    pub(super) async fn cluster(&mut self) -> Result<Cluster> {
        let (context, options, project) = (self.context, self.options, &self.project);
        let (known, mut found) = (self.record.cluster, None);
        let begun = self.steps.begin(format!("cluster {}", options.name));
        begun
            .run(async |step: &Step<'_>| {
                if let Some(row) = cluster::by_name(project, &options.name).await? {
                    if known.is_none() && row.status == "ONLINE" {
                        let question = format!(
                            "You have a cluster {} already, and it is ONLINE. Install a further agent of it?",
                            row.name
                        );
                        step.pause(context.confirm(question, options.yes)).await?;
                    }
                    found = Some(row);
                    return Ok(Went::Unchanged);
                }
                found = Some(cluster::create(project, &options.name).await?);
                Ok(Went::Done)
            })
            .await?;
        let row = found.ok_or_else(|| Failure::new(FailureKind::Unexpected, "The cluster is not there."))?;
        self.record.cluster = Some(row.id);
        self.journal.write(&self.record)?;
        Ok(row)
    }

    /// The key, in a Secret. A key is shown once: where the Secret does not have it, another is made.
    pub(super) async fn key(&mut self, kubernetes: &Kubernetes, cluster: &Cluster) -> Result<()> {
        let begun = self.steps.begin("key (Secret)");
        let (project, journal, record) = (&self.project, &self.journal, &mut self.record);
        begun
            .run(async |step: &Step<'_>| {
                if kubernetes.has_key(project, cluster.id).await? {
                    return Ok(Went::Unchanged);
                }
                let change = match cluster::keys(project, cluster.id).await?.current {
                    None => KeyChange::Create,
                    Some(_) => KeyChange::Rotate,
                };
                if change == KeyChange::Rotate {
                    step.note("there was a key before: a second one is created");
                    record.rotating = true;
                    journal.write(record)?;
                }
                let key = cluster::new_key(project, cluster.id, change).await?;
                kubernetes.write_key(project, cluster.id, &key).await?;
                Ok(Went::Done)
            })
            .await
            .map(drop)
    }

    /// Waits for the agent's first heartbeat.
    pub(super) async fn online(&mut self, kubernetes: &Kubernetes, cluster: &Cluster) -> Result<Cluster> {
        let poll = (Duration::from_secs(2), Duration::from_secs(10));
        let mut rows = self
            .project
            .client
            .watch::<Cluster>(Cluster::query_one(cluster.id).poll_interval(poll.0).resync_interval(poll.1))?;
        let (time_limit, start) = (self.options.timeout, Instant::now());
        let (interrupt, mut online) = (&mut self.interrupt, None);
        let begun = self.steps.begin("agent ONLINE");
        begun
            .run(async |step: &Step<'_>| {
                let mut look = interval(POLL_INTERVAL);
                let wait = async {
                    loop {
                        tokio::select! {
                            Some(event) = rows.next() => match event {
                                Ok(WatchEvent::Interrupted(error) | WatchEvent::Undecodable { error, .. }) | Err(error) => {
                                    if error.retry() == Retry::Never {
                                        return Err(Failure::from(error));
                                    }
                                    step.note(&error.to_string());
                                }
                                Ok(event) => if let Some(row) = event.applied()
                                    && row.status == "ONLINE" { return Ok(row) },
                            },
                            _ = look.tick() => step.note(&kubernetes.pods().await?),
                            _ = interrupt.recv() => return Err(stopped()),
                        }
                    }
                };
                let Ok(row) = timeout(time_limit, wait).await else {
                    let waited = span(start.elapsed());
                    let text = format!("The agent did not come online within {waited}.\n{}", kubernetes.evidence().await);
                    return Err(Failure::new(FailureKind::StepFailed, text.trim_end()).next(advice(kubernetes)));
                };
                online = Some(row?);
                Ok(Went::Done)
            })
            .await?;
        self.go_on()?;
        online.ok_or_else(|| Failure::new(FailureKind::Unexpected, "The cluster is not there."))
    }

    /// Where an earlier key was replaced, the old one ends once the agent uses the new one.
    pub(super) async fn promote(&mut self, cluster: &Cluster) -> Result<()> {
        if !self.record.rotating {
            return Ok(());
        }
        let begun = self.steps.begin("old key");
        let project = &self.project;
        begun
            .run(async |_: &Step<'_>| {
                let next = cluster::keys(project, cluster.id).await?.next;
                match next {
                    None => Ok(Went::Unchanged),
                    // Not used yet: the cluster was online by an agent with the old key. The next `up` looks again.
                    Some(key) if key.last_used_at.is_none() => Ok(Went::Unchanged),
                    Some(_) => cluster::promote_key(project, cluster.id, false).await.map(|()| Went::Done),
                }
            })
            .await?;
        if cluster::keys(&self.project, cluster.id).await?.next.is_none() {
            self.record.rotating = false;
            self.journal.write(&self.record)?;
        } else {
            self.context.out.note("The agent does not use the new key yet: `grape cluster show` shows when, then `grape cluster promote`.");
        }
        Ok(())
    }
}

fn advice(kubernetes: &Kubernetes) -> String {
    let place = format!("--context {} --namespace {}", kubernetes.context, kubernetes.namespace);
    let release = &kubernetes.release;
    format!(
        "kubectl {place} describe pod {release}-0\nkubectl {place} logs {release}-0\nkubectl {place} exec {release}-0 -- env TENDRIL_HEALTH_ADDR= tendril-agent doctor\nThen repeat the command: it continues where it stopped."
    )
}
