//! The agent as a program: what starts, in which order, and how it ends.
//!
//! This file wires the rooms below it and starts their tasks. `main_loop` takes on jobs, `drain` ends them, `wiring` and `launchers`
//! make what the rooms need from the settings.

mod background;
mod disk_watch;
mod drain;
mod error;
mod launchers;
#[cfg(feature = "kubernetes")]
mod leadership;
mod main_loop;
mod wiring;
mod work_dir;

#[cfg(feature = "kubernetes")]
use std::sync::OnceLock;
use std::{collections::BTreeSet, sync::Arc};

use secrecy::ExposeSecret;
use tendril_realtime::Client;
use tokio::task::spawn_blocking;

pub use self::error::AgentError;
use self::{background::Background, launchers::find_executors, work_dir::lock};
#[cfg(feature = "kubernetes")]
use self::{launchers::find_pods, leadership::lost};
use crate::{
    config::Config,
    control_plane::{
        ClaimRecord, Health, Heartbeat, Leases,
        auth::{Exchange, Session},
    },
    dispatch::{Approvals, DiskGuard, Scheduler, Shutdown},
    execute::{OrphanedAttempt, Registry, orphaned_attempts},
    launch::{AttemptId, LauncherKind, local},
    os::blocking,
    process::zombies::{adopt_orphans, adopt_orphans_of_executors, reap_orphans},
    redaction::Redactor,
    template::remove_set_aside,
    terraform::pending_push,
};

/// An agent that has not started yet.
#[derive(Debug)]
pub struct Agent {
    config: Arc<Config>,
    client: Client,
    session: Session,
    /// The claims that this process's heartbeat extends.
    leases: Leases,
    /// Every claim of this agent.
    watched: Leases,
    health: Health,
    approvals: Approvals,
    registry: Registry,
    disk: DiskGuard,
    secrets: Redactor,
    /// When the dispatcher before this one was at work last, in seconds since 1970.
    #[cfg(feature = "kubernetes")]
    predecessor: OnceLock<i64>,
}

impl Agent {
    /// Puts an agent together; nothing is sent yet. Errors: [`AgentError::Client`].
    pub fn new(config: Config) -> Result<Self, AgentError> {
        let secrets = config.secrets.clone();
        if let Some(complaint) = config.infracost.complaint() {
            tracing::warn!("there will be no cost estimates: {complaint}");
        }
        secrets.hide(config.git.secrets());
        let health = Health::default();
        // Keys and tokens are added when they are read or exchanged.
        let session = Session::new(
            config.credential.clone(),
            config.cluster_id,
            Exchange::new(config.supabase_url.as_str(), &config.supabase_key),
            secrets.clone(),
            health.clone(),
        );
        let client = Client::builder(config.supabase_url.as_str(), config.supabase_key.expose_secret())
            .token_source(session.clone())
            .build()
            .map_err(|error| AgentError::Client(Box::new(error)))?;
        Ok(Self {
            config: Arc::new(config),
            client,
            session,
            leases: Leases::default(),
            watched: Leases::default(),
            health,
            approvals: Approvals::default(),
            registry: Registry::default(),
            disk: DiskGuard::default(),
            secrets,
            #[cfg(feature = "kubernetes")]
            predecessor: OnceLock::new(),
        })
    }

    /// Whether it can be given work; stays valid while the agent runs.
    pub fn health(&self) -> Health {
        self.health.clone()
    }

    /// Runs until a stop is requested, and every job has ended. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// What prevents a start: settings, its directories, its health address. A control plane that cannot be reached, or refuses the
    /// agent, does not: until it is accepted the agent is not ready, and does what can be done without the control plane.
    pub async fn run(self, shutdown: Shutdown) -> Result<(), AgentError> {
        let _only_one = lock(&self.config.work_dir)?;
        let _server = self.serve_health()?;
        // In the process of another program, children that the agent has not started are that program's business.
        let is_own_process = self.config.keeper.is_some() || rustix::process::getpid().is_init();
        let _reaper = is_own_process.then(|| {
            let adopted = match self.launcher_kind() {
                LauncherKind::InProcess => adopt_orphans(true),
                LauncherKind::Local => adopt_orphans_of_executors(
                    &self.config.work_dir,
                    self.config.work_dir.join(local::EXECUTORS),
                ),
                // Its client starts programs for its credentials: they are nobody's strays.
                #[cfg(feature = "kubernetes")]
                LauncherKind::Kubernetes => adopt_orphans(false),
            };
            if let Err(error) = adopted {
                tracing::warn!(%error, "processes that leave their job cannot be found by their descent");
            }
            Background(tokio::spawn(async {
                if let Err(error) = reap_orphans().await {
                    tracing::error!(%error, "orphans cannot be waited for");
                }
            }))
        });
        let _threads = Background(tokio::spawn(self.health.clone().watch_threads()));
        let work_dir = self.config.work_dir.clone();
        let _tidying = Background(tokio::spawn(async move {
            let _broken = spawn_blocking(move || remove_set_aside(&work_dir)).await;
        }));
        let heartbeat = self.heartbeat();
        #[cfg(feature = "kubernetes")]
        let mut leadership = tokio::select! {
            leadership = self.lead() => leadership?,
            () = shutdown.draining() => return Ok(()),
            never = self.pulse() => match never {},
        };
        #[cfg(not(feature = "kubernetes"))]
        self.take_over(&heartbeat, &shutdown).await?;
        #[cfg(feature = "kubernetes")]
        {
            let mut stopped = None;
            let work = self.take_over(&heartbeat, &shutdown);
            tokio::pin!(work);
            let ended = loop {
                tokio::select! {
                    ended = &mut work => break ended,
                    () = lost(leadership.as_mut()) => return Err(AgentError::LeadershipLost),
                    // From then on runs end unseen.
                    () = shutdown.draining(), if stopped.is_none() => stopped = Some(std::time::SystemTime::now()),
                }
            };
            // Also where it could not start: another one may.
            if let Some(leadership) = leadership {
                leadership.release(stopped).await;
            }
            ended?;
        }
        tracing::info!("stopped");
        Ok(())
    }

    /// Takes over what an earlier run left, and works until a stop is requested and every job has ended.
    async fn take_over(&self, heartbeat: &Heartbeat, shutdown: &Shutdown) -> Result<(), AgentError> {
        let (launcher, local) = (self.launcher(), self.local_launcher());
        #[cfg(feature = "kubernetes")]
        let (launcher, pods) = match self.pod_launcher().await? {
            Some(pods) => (Arc::clone(&pods), Some(pods)),
            None => (launcher, None),
        };
        // Also where jobs run elsewhere now: an earlier start may have started them.
        let executors = match &local {
            Some(local) => find_executors(&**local).await,
            None => Vec::new(),
        };
        #[cfg(feature = "kubernetes")]
        let in_pods = tokio::select! {
            in_pods = find_pods(pods.as_deref()) => in_pods,
            () = shutdown.draining() => return Ok(()),
            never = self.pulse() => match never {},
        };
        let (mut orphaned_attempts, pushes) = self.find_orphaned().await;
        orphaned_attempts.retain(|orphan| {
            let ClaimRecord { deployment_id, attempt, .. } = orphan.claim;
            let id = AttemptId { deployment_id, attempt };
            executors.iter().all(|executor| executor.id != id) && !local::is_alive(&self.config.work_dir, id)
        });
        // The first beat lets the database look for lost jobs: what waits for approval here is not lost.
        let held = orphaned_attempts.iter().map(|orphan| orphan.hold(&self.leases)).collect::<Vec<_>>();
        let client = self.client.clone();
        // Pushes a new token to the socket's channels: nothing is joined again.
        let _renewal = Background(tokio::spawn(self.session.clone().renew(move || client.refresh_auth())));
        let _measuring = Background(tokio::spawn(self.watch_disk()));
        let mut scheduler = Scheduler::new(self.supervisor(launcher), self.config.concurrency);
        if let Some(local) = local {
            for executor in executors {
                scheduler.adopt(executor, Arc::clone(&local));
            }
        }
        #[cfg(feature = "kubernetes")]
        if let Some(pods) = pods {
            for executor in in_pods {
                scheduler.adopt(executor, Arc::clone(&pods));
            }
        }
        // Terraform that runs, and states that are not stored, do not wait for the control plane.
        for (orphan, lease) in orphaned_attempts.into_iter().zip(held) {
            scheduler.resume_attempt(orphan, lease);
        }
        for key in pushes {
            scheduler.push_errored_state(key);
        }
        self.serve(scheduler, heartbeat, shutdown).await?;
        self.client.shutdown().await;
        Ok(())
    }

    /// What a previous run left: attempts, and the keys of states that are not stored.
    async fn find_orphaned(&self) -> (Vec<OrphanedAttempt>, BTreeSet<String>) {
        let settings = self.config.execute_settings();
        let found = tokio::select! {
            found = blocking(move || Ok((orphaned_attempts(&settings), pending_push::keys(&settings.terraform)))) => found,
            never = self.pulse() => match never {},
        };
        found.unwrap_or_else(|error| {
            tracing::error!(%error, "the search for what a previous run left broke off");
            Default::default()
        })
    }
}
