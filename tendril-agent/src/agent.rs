//! The wiring: what starts, in which order, and how it ends.

use std::{
    collections::BTreeSet,
    convert::Infallible,
    fs::File,
    io,
    path::Path,
    sync::{Arc, atomic::AtomicU32},
    time::Duration,
};

use rustix::fs::{FlockOperation, flock};
use secrecy::ExposeSecret;
use tendril_realtime::{Client, Error};
use tokio::{
    task::{JoinHandle, spawn_blocking},
    time::{interval, sleep, timeout},
};

use crate::{
    config::settings::Config,
    control_plane::{
        auth::session::{Exchange, Session},
        contract::{CONTRACT, STACKS},
        health::{Health, PULSE},
        heartbeat::{Heartbeat, StateStore},
        lease::Leases,
    },
    dispatch::{
        catalogue::publish_templates,
        disk_guard::DiskGuard,
        feed::{Feed, until},
        queue::{Queue, QueueNews},
        scheduler::{Ended, Scheduler},
        shutdown::{Shutdown, ShutdownPlan},
    },
    execute::{
        approval::Approvals,
        attempt::JobContext,
        recovery::{OrphanedAttempt, orphaned_attempts},
        registry::Registry,
    },
    observability::{
        http::{self, Server},
        logging,
        status::Panel,
    },
    os::blocking::blocking,
    process::{
        drain::Drain,
        runner::LocalRunner,
        zombies::{adopt_orphans, reap_orphans},
    },
    redaction::redactor::Redactor,
    template::{git, workspace::remove_set_aside},
    terraform::state::pending_push,
};

/// Between two looks at the disk. A program can write a good deal in that time, and space is kept for it.
const MEASURE_AFTER: Duration = Duration::from_secs(1);

/// Why an agent cannot start, or had to stop. Each sentence says what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AgentError {
    /// The library refused a setting.
    #[error("the connection to the control plane cannot be set up: {0}")]
    Client(#[source] Box<Error>),
    /// Another agent uses the work directory.
    #[error("the work directory {0} is in use by another agent: give each agent its own --work-dir")]
    WorkDirInUse(String),
    /// The work directory cannot be locked.
    #[error("the work directory {dir} cannot be used: {source}")]
    WorkDir {
        /// Which one.
        dir: String,
        /// Why.
        source: io::Error,
    },
    /// The health server cannot listen.
    #[error("--health-addr {addr} cannot be used ({source}): choose another address")]
    Health {
        /// Which one.
        addr: std::net::SocketAddr,
        /// Why.
        source: io::Error,
    },
}

/// An agent that has not started yet.
#[derive(Debug)]
pub struct Agent {
    config: Arc<Config>,
    client: Client,
    session: Session,
    leases: Leases,
    health: Health,
    approvals: Approvals,
    registry: Registry,
    disk: DiskGuard,
    secrets: Redactor,
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
            health,
            approvals: Approvals::default(),
            registry: Registry::default(),
            disk: DiskGuard::default(),
            secrets,
        })
    }

    /// Whether it can be given work; stays valid while the agent runs.
    pub fn health(&self) -> Health {
        self.health.clone()
    }

    /// Runs until a stop is requested, and every job has ended. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// What keeps it from starting: settings, its directories, its health address. A control plane that is away, or refuses it, does not:
    /// it is not ready until that accepts it, and does meanwhile what can be done without.
    pub async fn run(self, shutdown: Shutdown) -> Result<(), AgentError> {
        let _only_one = lock(&self.config.work_dir)?;
        let _server = self.serve_health()?;
        // In the process of another program, children that the agent has not started are that program's business.
        let is_own_process = self.config.keeper.is_some() || rustix::process::getpid().is_init();
        let _reaper = is_own_process.then(|| {
            if let Err(error) = adopt_orphans() {
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
        let (orphaned_attempts, pushes) = self.find_orphaned().await;
        // The first beat lets the database look for lost jobs: what waits for approval here is not lost.
        let held = orphaned_attempts.iter().map(|orphan| orphan.hold(&self.leases)).collect::<Vec<_>>();
        let client = self.client.clone();
        // Pushes a new token to the socket's channels: nothing is joined anew.
        let _keeping = Background(tokio::spawn(self.session.clone().keep(move || client.refresh_auth())));
        let _measuring = Background(tokio::spawn(self.watch_disk()));
        let mut scheduler = Scheduler::new(self.context(), self.leases.clone(), self.config.concurrency);
        // Terraform that runs, and states that are not stored, do not wait for the control plane.
        for (orphan, lease) in orphaned_attempts.into_iter().zip(held) {
            scheduler.resume_attempt(orphan, lease);
        }
        for key in pushes {
            scheduler.push_errored_state(key);
        }
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
            self.work(&mut scheduler, &mut feed, &shutdown).await;
            self.end(scheduler, &shutdown).await;
            drop(feed);
            heartbeat.deregister().await;
        } else {
            self.end(scheduler, &shutdown).await;
        }
        self.client.shutdown().await;
        tracing::info!("stopped");
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
                    // Known here before the database's own word of it arrives.
                    Ended::Job(id) => queue.remove(id),
                    Ended::Waits(row) => queue.put(row),
                    Ended::OutOfTurn(row) => queue.defer(row),
                    Ended::Other => {}
                },
                () = until(queue.due()) => {}
                news = feed.next() => match news {
                    QueueNews::Restart => queue = Queue::default(),
                    QueueNews::Waits(row) => queue.put(row),
                    QueueNews::Gone(id) => queue.remove(id),
                    QueueNews::Runs(row) => queue.runs(row),
                    QueueNews::Cancel(row, claim_token) => {
                        queue.runs(row);
                        self.leases.cancel(claim_token);
                    }
                    QueueNews::Approved(row, claim_token, plan) => {
                        queue.runs(row);
                        self.approvals.tell(claim_token, plan);
                    }
                },
                approved = self.leases.approved() => {
                    for (claim_token, plan) in approved {
                        self.approvals.tell(claim_token, plan);
                    }
                }
                () = self.approvals.changed() => {}
            }
            scheduler.admit_approved();
            if !self.disk.is_full() && !self.health.is_revoked() {
                scheduler.start_next(&mut queue);
            }
        }
    }

    /// Shows for ever that the loop runs, where there is no other one that would.
    async fn pulse(&self) -> Infallible {
        loop {
            self.health.pulse(0);
            sleep(PULSE).await;
        }
    }

    /// Measures the work directory for ever, on a thread that may wait for the disk; has a job make room where there is none.
    fn watch_disk(&self) -> impl Future<Output = ()> + 'static {
        let (disk, config, leases) = (self.disk.clone(), Arc::clone(&self.config), self.leases.clone());
        async move {
            loop {
                let (disk, config) = (disk.clone(), Arc::clone(&config));
                let plugins = config.terraform.plugin_cache().map(Path::to_path_buf);
                let measure = move || {
                    let settings = config.terraform_settings();
                    disk.look_for_errored_states(|| pending_push::places(&settings));
                    let mirrors = |wanted| git::sweep(&config.work_dir, wanted);
                    disk.measure(&config.work_dir, plugins.as_deref(), config.work_limit, mirrors)
                };
                match spawn_blocking(measure).await {
                    Ok(Some((attempt, pressure))) => leases.evict(&attempt, pressure),
                    Ok(None) => {}
                    Err(error) => tracing::error!(%error, "the work directory cannot be measured"),
                }
                sleep(if leases.is_empty() { PULSE } else { MEASURE_AFTER }).await;
            }
        }
    }

    /// Lets the jobs end: by themselves within the grace, then politely interrupted, at last cut short.
    async fn drain(&self, scheduler: &mut Scheduler, shutdown: &Shutdown) {
        self.approvals.close();
        scheduler.drain();
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
        tracing::warn!("running jobs are interrupted; they have {interrupt:?} to stop in good order");
        scheduler.interrupt();
        tokio::select! {
            () = scheduler.all_finished() => return,
            () = sleep(interrupt) => {}
            () = shutdown.forced() => {}
        }
        scheduler.force();
        if timeout(kill + flush_deadline, scheduler.all_finished()).await.is_err() {
            tracing::warn!("some results are not stored yet; they are kept on disk for the next start");
        }
    }

    fn serve_health(&self) -> Result<Option<Server>, AgentError> {
        let Some(addr) = self.config.health_addr else { return Ok(None) };
        let panel = Panel {
            facts: self.config.facts(),
            health: self.health.clone(),
            registry: self.registry.clone(),
            approvals: self.approvals.clone(),
            disk: self.disk.clone(),
        };
        let server = http::start(addr, panel, logging::install_metrics());
        server.map(Some).map_err(|source| AgentError::Health { addr, source })
    }

    fn state_store(&self) -> Option<StateStore> {
        let backend = &self.config.state_backend;
        match backend.fingerprint(&self.config.state_dir, |name| std::env::var(name).ok()) {
            Ok(fingerprint) => Some(StateStore { backend: backend.kind().name(), fingerprint }),
            Err(error) => {
                tracing::error!(%error, "the state directory has no identity: other agents of the cluster are not compared with this one");
                None
            }
        }
    }

    fn heartbeat(&self) -> Heartbeat {
        Heartbeat {
            rest: self.client.rest().clone(),
            leases: self.leases.clone(),
            health: self.health.clone(),
            agent_name: self.config.agent_name.clone(),
            state_store: self.state_store(),
            contract: Arc::new(AtomicU32::new(CONTRACT)),
            period: self.config.timing.heartbeat,
            spread: self.config.timing.startup_jitter,
        }
    }

    fn context(&self) -> JobContext {
        JobContext {
            settings: Arc::new(self.config.execute_settings()),
            rest: self.client.rest().clone(),
            runner: Arc::new(LocalRunner),
            approvals: self.approvals.clone(),
            registry: self.registry.clone(),
            secrets: self.secrets.clone(),
            drain: Drain::default(),
        }
    }
}

/// A task that ends with whoever holds this.
#[derive(Debug)]
struct Background(JoinHandle<()>);

impl Drop for Background {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Keeps a second agent out of the work directory, where it would take running jobs for orphaned attempts.
fn lock(work_dir: &Path) -> Result<File, AgentError> {
    let dir = work_dir.display().to_string();
    let file = match File::create(work_dir.join(".lock")) {
        Ok(file) => file,
        Err(source) => return Err(AgentError::WorkDir { dir, source }),
    };
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(error) if error == rustix::io::Errno::WOULDBLOCK => Err(AgentError::WorkDirInUse(dir)),
        Err(error) => Err(AgentError::WorkDir { dir, source: error.into() }),
    }
}
