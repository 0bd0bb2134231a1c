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

#[cfg(feature = "kubernetes")]
use crate::launch::kubernetes::{
    claims::Claims,
    connection::Connection,
    election::{Election, Leadership},
    launcher::KubernetesLauncher,
};
use crate::{
    config::{handed_secrets, settings::Config},
    control_plane::{
        auth::session::{Exchange, Session},
        contract::{CONTRACT, STACKS},
        final_status::ClaimRecord,
        health::{Health, PULSE},
        heartbeat::Heartbeat,
        lease::Leases,
    },
    dispatch::{
        approvals::Approvals,
        catalogue::publish_templates,
        disk_guard::DiskGuard,
        feed::{Feed, until},
        queue::{Queue, QueueNews},
        scheduler::{Ended, Scheduler},
        shutdown::{Shutdown, ShutdownPlan},
        supervisor::{Leave, Supervisor},
    },
    execute::{
        attempt::JobContext,
        recovery::{OrphanedAttempt, orphaned_attempts},
        registry::Registry,
    },
    launch::{
        attempt_file::AttemptId,
        in_process::InProcessLauncher,
        kind::{LauncherKind, OnStop},
        launcher::{Executor, Launcher},
        local::{self, ExecutorCommand, LocalLauncher},
        origin::Origin,
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

/// How long executors may take to end that were told to give up.
const GIVE_UP: Duration = Duration::from_secs(2);

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
    /// Runs are to be pods, and there is no way to a cluster.
    #[cfg(feature = "kubernetes")]
    #[error("{0}")]
    Kubernetes(String),
    /// Another agent has the Lease: it is at work now.
    #[cfg(feature = "kubernetes")]
    #[error("the Lease is lost: another agent is at work, and this one starts again to wait for its turn")]
    LeadershipLost,
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
    /// The claims that this process's heartbeat extends.
    leases: Leases,
    /// Every claim of this agent.
    watched: Leases,
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
            watched: Leases::default(),
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
            if let Err(error) = adopt_orphans(self.launcher_kind() == LauncherKind::InProcess) {
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
            () = shutdown.draining() => {
                if let Some(leadership) = leadership {
                    leadership.release().await;
                }
                return Ok(());
            }
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
        // Pushes a new token to the socket's channels: nothing is joined anew.
        let _keeping = Background(tokio::spawn(self.session.clone().keep(move || client.refresh_auth())));
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
        #[cfg(not(feature = "kubernetes"))]
        self.serve(scheduler, &heartbeat, &shutdown).await?;
        #[cfg(feature = "kubernetes")]
        tokio::select! {
            served = self.serve(scheduler, &heartbeat, &shutdown) => served?,
            () = lost(leadership.as_mut()) => return Err(AgentError::LeadershipLost),
        }
        self.client.shutdown().await;
        #[cfg(feature = "kubernetes")]
        if let Some(leadership) = leadership {
            leadership.release().await;
        }
        tracing::info!("stopped");
        Ok(())
    }

    /// Works from the first answer of the control plane to the end of the last job.
    async fn serve(
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
                        self.watched.cancel(claim_token);
                    }
                    QueueNews::Approved(row, claim_token, plan) => {
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
    async fn pulse(&self) -> Infallible {
        loop {
            self.health.pulse(0);
            sleep(PULSE).await;
        }
    }

    /// Measures the work directory for ever, on a thread that may wait for the disk; has a job make room where there is none.
    fn watch_disk(&self) -> impl Future<Output = ()> + 'static {
        let (disk, config, leases) = (self.disk.clone(), Arc::clone(&self.config), self.watched.clone());
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
        if self.config.on_stop == OnStop::Detach && !scheduler.ends_with_its_executors() {
            scheduler.detach();
            tracing::info!("running jobs go on without this process; the next start takes them over");
            if timeout(self.config.timing.shutdown_grace, scheduler.all_finished()).await.is_err() {
                tracing::warn!(
                    "what an earlier run left is not stored yet; it is kept on disk for the next start"
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
            scheduler.give_up();
            let _late = timeout(GIVE_UP, scheduler.all_finished()).await;
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

    fn heartbeat(&self) -> Heartbeat {
        Heartbeat {
            rest: self.client.rest().clone(),
            leases: self.leases.clone(),
            health: self.health.clone(),
            agent_name: self.config.agent_name.clone(),
            state_store: self.config.state_store(),
            contract: Arc::new(AtomicU32::new(CONTRACT)),
            period: self.config.timing.heartbeat,
            spread: self.config.timing.startup_jitter,
        }
    }

    /// A process that is another program cannot start itself as an executor.
    fn launcher_kind(&self) -> LauncherKind {
        if self.config.keeper.is_some() { self.config.launcher } else { LauncherKind::InProcess }
    }

    /// Of processes on this machine; none in a process that is another program.
    fn local_launcher(&self) -> Option<Arc<dyn Launcher>> {
        let program = self.config.keeper.as_ref()?;
        let handed = Arc::clone(&self.config.handed_secrets);
        let how = ExecutorCommand {
            program: program.clone(),
            args: handed_secrets::without_secrets(std::env::args_os().skip(1)),
            without: [&handed_secrets::VARIABLES[..], &["TENDRIL_AGENT_TOKEN_FILE"]].concat(),
            mark: handed_secrets::MARK,
            input: Box::new(move || handed.as_input()),
        };
        Some(Arc::new(LocalLauncher::new(&self.config.work_dir, how, self.registry.clone())))
    }

    fn launcher(&self) -> Arc<dyn Launcher> {
        self.local_launcher()
            .filter(|_| self.launcher_kind() == LauncherKind::Local)
            .unwrap_or_else(|| Arc::new(InProcessLauncher::new(self.context(), self.leases.clone())))
    }

    /// Of pods; none where jobs do not run as pods.
    #[cfg(feature = "kubernetes")]
    async fn pod_launcher(&self) -> Result<Option<Arc<dyn Launcher>>, AgentError> {
        let Some(settings) = &self.config.kubernetes else { return Ok(None) };
        let connection =
            Connection::open(settings.namespace.as_deref()).await.map_err(AgentError::Kubernetes)?;
        tracing::info!(namespace = connection.namespace, "runs are pods");
        Ok(Some(Arc::new(KubernetesLauncher::start(
            &connection,
            settings.clone(),
            Arc::new(self.origin()),
            Claims::new(self.client.rest().clone()),
            self.leases.clone(),
        ))))
    }

    /// Waits until this agent is the one that is at work, where a Lease decides that.
    #[cfg(feature = "kubernetes")]
    async fn lead(&self) -> Result<Option<Leadership>, AgentError> {
        let Some(settings) = &self.config.kubernetes else { return Ok(None) };
        let Some(lease) = settings.lease.clone() else { return Ok(None) };
        let connection =
            Connection::open(settings.namespace.as_deref()).await.map_err(AgentError::Kubernetes)?;
        let election = Election::new(
            kube::Api::namespaced(connection.client, &connection.namespace),
            lease,
            self.config.agent_name.clone(),
        );
        self.health.stands_by(true);
        let leadership = election.win().await;
        self.health.stands_by(false);
        Ok(Some(leadership))
    }

    fn origin(&self) -> Origin {
        Origin {
            supabase_url: self.config.supabase_url.clone(),
            supabase_key: self.config.supabase_key.clone(),
            cluster_id: self.config.cluster_id,
            agent_name: self.config.agent_name.clone(),
            credential: self.config.credential.clone(),
            session: self.session.clone(),
            health: self.health.clone(),
            terraform: self.config.terraform.known(),
        }
    }

    fn supervisor(&self, launcher: Arc<dyn Launcher>) -> Supervisor {
        Supervisor {
            context: self.context(),
            launcher,
            origin: Arc::new(self.origin()),
            approvals: self.approvals.clone(),
            leases: self.leases.clone(),
            watched: self.watched.clone(),
            leave: Leave::default(),
        }
    }

    fn context(&self) -> JobContext {
        JobContext {
            settings: Arc::new(self.config.execute_settings()),
            rest: self.client.rest().clone(),
            runner: Arc::new(LocalRunner),
            registry: self.registry.clone(),
            secrets: self.secrets.clone(),
            drain: Drain::default(),
        }
    }
}

/// The executors that an earlier dispatcher started. Where they cannot be found, none is started twice: each holds a lock.
async fn find_executors(launcher: &dyn Launcher) -> Vec<Executor> {
    launcher.running().await.unwrap_or_else(|error| {
        tracing::error!(%error, "executors of an earlier run cannot be taken over");
        Vec::new()
    })
}

/// The executors in pods that an earlier dispatcher started.
#[cfg(feature = "kubernetes")]
async fn find_pods(pods: Option<&dyn Launcher>) -> Vec<Executor> {
    match pods {
        Some(pods) => find_executors(pods).await,
        None => Vec::new(),
    }
}

/// Waits until the Lease is lost; for ever, where there is none.
#[cfg(feature = "kubernetes")]
async fn lost(leadership: Option<&mut Leadership>) {
    match leadership {
        Some(leadership) => leadership.keep().await,
        None => std::future::pending().await,
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
