//! `tendril-agent execute`: one claimed attempt, in a process of its own session, to its end.
//!
//! It extends its lease, uploads its log and stores its result by itself, and does not end with its dispatcher. The
//! dispatcher's requests are in `orders.json`, and SIGWINCH signals a new one. SIGTERM ends it as it would the agent: within
//! `--shutdown-grace`, with an interrupt first; a second and a third one shorten that.

use std::{
    path::Path,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use secrecy::ExposeSecret as _;
use tendril_realtime::Client;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::Notify,
    time::sleep,
};
use tracing::Instrument as _;

#[cfg(feature = "kubernetes")]
use crate::launch::kubernetes::{StateStore, end_message, ended_pods, state_handover, surplus_pod};
use crate::{
    config::{Cli, Config, handed_secrets},
    control_plane::{
        Health, Heartbeat, Lease, Leases,
        auth::{Exchange, Session},
        contract::CONTRACT,
    },
    dispatch::{Shutdown, ShutdownPlan},
    execute::{ExecuteSettings, JobContext, Registry, RunEnd, removed},
    launch::{
        AttemptFile, End, Request,
        local::{Entry, Tally, Totals},
    },
    process::{
        Drain, LocalRunner, StopReason, StopSignal,
        cgroup::Cgroup,
        run_user::OWN_PROGRAM,
        zombies::{adopt_orphans, reap_orphans},
    },
    terraform::StepTiming,
};

/// The configuration or the attempt file must be fixed.
const BAD_CONFIG: u8 = 2;
/// How many threads may wait for the disk.
const BLOCKING_THREADS: usize = 16;
/// Between two looks whether something was counted.
const METRICS: Duration = Duration::from_secs(2);
/// After so long a silence the database gives up a run whose apply had begun.
const LONGEST_LEASE: Duration = Duration::from_secs(600);

/// Runs the attempt of this file; answers the process's exit code, which is that of [`End`].
pub(crate) fn execute(cli: &Cli, attempt_file: &Path) -> ExitCode {
    // It must not end with the terminal or the session of its dispatcher. One that was started by hand leads a session already.
    let _leads_one = rustix::process::setsid();
    let attempt = match AttemptFile::load(attempt_file) {
        Ok(attempt) => attempt,
        Err(error) => {
            eprintln!("the attempt file {} cannot be used: {error}", attempt_file.display());
            return ExitCode::from(BAD_CONFIG);
        }
    };
    let mut cli = cli.clone();
    if let Err(error) = handed_secrets::take(&mut cli) {
        eprintln!("the secrets of this executor cannot be read: {error}");
        return ExitCode::from(BAD_CONFIG);
    }
    let mut config = match Config::for_executor(&cli, &attempt) {
        Ok(config) => config,
        Err(problems) => {
            eprintln!("{problems}");
            return ExitCode::from(BAD_CONFIG);
        }
    };
    config.keeper = Some(OWN_PROGRAM.into());
    config.install_log();
    let entry = Entry::of(attempt_file);
    let lock = match entry.lock() {
        Ok(Some(lock)) => Some(lock),
        Ok(None) => {
            tracing::error!("another executor runs this attempt");
            return ExitCode::FAILURE;
        }
        // Where the attempt file is mounted to be read only, somebody else sees to it that there is one executor.
        Err(error) => {
            tracing::debug!(%error, "the executor's lock cannot be taken");
            None
        }
    };
    if let Some(group) = Cgroup::of(&attempt.id().to_string())
        && let Err(error) = group.enter()
    {
        tracing::debug!(%error, "this run has no control group of its own");
    }
    let tally = Tally::install();
    let end = run(config, &attempt, &entry, &tally);
    #[cfg(feature = "kubernetes")]
    end_message::write(&end, &tally.totals());
    if let Err(error) = entry.store_metrics(&tally.totals()) {
        tracing::debug!(%error, "what the executor counted cannot be written");
    }
    if let Err(error) = entry.store_end(&end) {
        tracing::debug!(%error, "how the executor ended cannot be written");
    }
    drop(lock);
    if let End::Died(how) = &end {
        tracing::error!("{how}");
    }
    end.into()
}

fn run(config: Config, attempt: &AttemptFile, entry: &Entry, tally: &Tally) -> End {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_keep_alive(Duration::from_secs(2))
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return End::Died(format!("the executor's runtime cannot be started: {error}")),
    };
    let end = runtime.block_on(run_attempt(config, attempt, entry, tally));
    // A thread that still waits for the disk must not hold the process.
    runtime.shutdown_timeout(Duration::from_secs(1));
    end
}

async fn run_attempt(config: Config, attempt: &AttemptFile, entry: &Entry, tally: &Tally) -> End {
    #[cfg(feature = "kubernetes")]
    if surplus_pod::is_surplus(attempt, |name| std::env::var(name).ok()) {
        surplus_pod::wait_for_end().await;
        return End::Stored;
    }
    let health = Health::default();
    config.secrets.hide(config.git.secrets());
    config.secrets.hide([attempt.claim_token.to_string()]);
    let session = Session::new(
        config.credential.clone(),
        config.cluster_id,
        Exchange::new(config.supabase_url.as_str(), &config.supabase_key),
        config.secrets.clone(),
        health.clone(),
    );
    let client = Client::builder(config.supabase_url.as_str(), config.supabase_key.expose_secret())
        .token_source(session.clone())
        .build();
    let client = match client {
        Ok(client) => client,
        Err(error) => {
            return End::Died(format!("the connection to the control plane cannot be set up: {error}"));
        }
    };
    if let Err(error) = adopt_orphans(true) {
        tracing::warn!(%error, "processes that leave their job cannot be found by their descent");
    }
    let context = JobContext {
        settings: Arc::new(settings(&config)),
        rest: client.rest().clone(),
        runner: Arc::new(LocalRunner),
        registry: Registry::writing(entry.phase_file()),
        secrets: config.secrets.clone(),
        drain: Drain::default(),
    };
    #[cfg(feature = "kubernetes")]
    if attempt.stores_state {
        return state_handover::push(&context, attempt).await;
    }
    let leases = Leases::default();
    let job = attempt.job();
    let span = job.span();
    let lease = leases.hold(&job);
    let heartbeat = Heartbeat {
        rest: client.rest().clone(),
        leases: leases.clone(),
        health,
        agent_name: config.agent_name.clone(),
        state_store: config.state_store(),
        contract: Arc::new(AtomicU32::new(CONTRACT)),
        period: config.timing.heartbeat,
        spread: Duration::ZERO,
    };
    let hands_over = AtomicBool::new(false);
    let (stop, give_up, shutdown) = (lease.stop.clone(), Notify::new(), Shutdown::new());
    if let Err(error) = shutdown.on_signals() {
        return End::Died(format!("signals cannot be handled: {error}"));
    }
    let beside = async {
        tokio::join!(
            heartbeat.keep_claims(),
            session.clone().renew(|| ()),
            async {
                if let Err(error) = reap_orphans().await {
                    tracing::error!(%error, "orphans cannot be waited for");
                }
            },
            follow_orders(entry, &stop, &give_up),
            show_metrics(entry, tally),
            end_within_grace(&config, &shutdown, &stop, &give_up),
            end_without_directory(&config, entry, &stop, &give_up),
        )
    };
    let end = tokio::select! {
        end = run_to_end(&context, &lease, attempt, &hands_over).instrument(span.clone()) => end,
        () = give_up.notified() => { if hands_over.load(Ordering::Relaxed) {
            tracing::error!(parent: &span, "the time of this pod is over: the state that its backend did not take is lost with it");
            End::StateLost
        } else {
            tracing::warn!(parent: &span, "the result is not stored yet; it is kept on disk");
            End::Kept
        } }
        _never = beside.instrument(span.clone()) => End::Died("what the executor does beside its run broke off".to_owned()),
    };
    client.shutdown().await;
    end
}

/// What an attempt is run with here.
fn settings(config: &Config) -> ExecuteSettings {
    #[cfg(feature = "kubernetes")]
    let is_pod = StateStore::from_env(|name| std::env::var(name).ok()).is_some();
    #[cfg(not(feature = "kubernetes"))]
    let is_pod = false;
    ExecuteSettings { is_pod, ..config.execute_settings() }
}

/// `hands_over` is set once all that is left to do is to get a state out of this pod.
async fn run_to_end(
    context: &JobContext,
    lease: &Lease,
    attempt: &AttemptFile,
    hands_over: &AtomicBool,
) -> End {
    #[cfg(feature = "kubernetes")]
    if let Err(error) = ended_pods::note(context, attempt).await {
        tracing::warn!(%error, "locks of pods that have ended are not recognised");
    }
    #[cfg(feature = "kubernetes")]
    if let Err(error) = waiting_plan::restore(context, attempt).await {
        tracing::error!(%error, "the plan that waited for approval cannot be laid out");
    }
    let end = context.run(attempt.job(), lease, attempt.start).await;
    #[cfg(feature = "kubernetes")]
    let end = match end {
        RunEnd::Waiting => waiting_plan::keep(context, attempt).await,
        RunEnd::Stored => end,
    };
    #[cfg(feature = "kubernetes")]
    if end == RunEnd::Stored
        && let Some(mut store) = StateStore::from_env(|name| std::env::var(name).ok())
        && let Some(file) = state_handover::left(context, attempt).await
    {
        hands_over.store(true, Ordering::Relaxed);
        return state_handover::hand_over(context, attempt, &mut store, file).await;
    }
    #[cfg(not(feature = "kubernetes"))]
    let _never = hands_over;
    match end {
        RunEnd::Stored => End::Stored,
        RunEnd::Waiting => End::Waiting,
    }
}

/// A plan that waits for approval outlives its pod.
#[cfg(feature = "kubernetes")]
mod waiting_plan {
    use std::{io, path::Path};

    use crate::{
        control_plane::{FinalStatus, Reporter},
        execute::{JobContext, RunEnd, Start},
        job::{ErrorCode, Failure, JobResult},
        launch::{
            AttemptFile,
            kubernetes::{PLAN_DIR, PlanStore, plan_store},
        },
    };

    /// Restores the plan that the pod before this one stored.
    pub(super) async fn restore(context: &JobContext, attempt: &AttemptFile) -> io::Result<()> {
        if attempt.start == Start::Approval {
            let workspace = context.settings.work_dir.join(attempt.id().to_string());
            if plan_store::restore(Path::new(&plan_store::dir(PLAN_DIR)), workspace).await? {
                tracing::info!("the plan that was approved is laid out");
            }
        }
        Ok(())
    }

    /// Stores the plan where this is a pod; a plan that cannot be stored cannot wait for approval.
    pub(super) async fn keep(context: &JobContext, attempt: &AttemptFile) -> RunEnd {
        let Some(store) = PlanStore::from_env(|name| std::env::var(name).ok()) else {
            return RunEnd::Waiting;
        };
        let workspace = context.settings.work_dir.join(attempt.id().to_string());
        let Err(sentence) = store.keep(attempt.id(), &workspace).await else { return RunEnd::Waiting };
        tracing::error!("{sentence}");
        let end =
            FinalStatus::new(&JobResult::Failed(Failure::new(ErrorCode::Internal, sentence)), None, None);
        let reporter = Reporter::new(context.rest.clone(), attempt.deployment_id, attempt.claim_token);
        let _written = reporter.finish(&end).await;
        RunEnd::Stored
    }
}

/// Writes what was counted for the dispatcher, whenever it has changed, for ever.
async fn show_metrics(entry: &Entry, tally: &Tally) {
    let mut written = Totals::default();
    loop {
        sleep(METRICS).await;
        let totals = tally.totals();
        if totals == written {
            continue;
        }
        match entry.store_metrics(&totals) {
            Ok(()) => written = totals,
            // Where the attempt file is mounted to be read only, nobody reads it.
            Err(error) => tracing::debug!(%error, "what the executor counts cannot be written"),
        }
    }
}

/// Does what the dispatcher asks for, for ever.
async fn follow_orders(entry: &Entry, stop: &StopSignal, give_up: &Notify) {
    let mut asked = match signal(SignalKind::window_change()) {
        Ok(asked) => asked,
        Err(error) => {
            tracing::error!(%error, "the dispatcher cannot ask for anything");
            return std::future::pending().await;
        }
    };
    loop {
        match entry.orders() {
            Ok(orders) => {
                for request in orders.requests() {
                    request.pass_on(stop);
                    if *request == Request::GiveUp {
                        give_up.notify_one();
                    }
                }
            }
            Err(error) => tracing::error!(%error, "what the dispatcher asks for cannot be read"),
        }
        if asked.recv().await.is_none() {
            return std::future::pending().await;
        }
    }
}

/// Ends the run when the executor's own directory is removed: nobody can ask it for anything any more, and another one may be started. What
/// cannot be stored then is stored nowhere; after the longest lease the database has given the run up.
async fn end_without_directory(config: &Config, entry: &Entry, stop: &StopSignal, give_up: &Notify) {
    removed(entry.dir()).await;
    tracing::error!("the directory of this executor was removed: its run is ended gracefully");
    stop.request(StopReason::DirectoryRemoved);
    let StepTiming { apply_cancel_grace, kill_grace, .. } = config.terraform_settings().timing;
    sleep(apply_cancel_grace + kill_grace + LONGEST_LEASE).await;
    give_up.notify_one();
    std::future::pending::<()>().await;
}

/// Ends the run as SIGTERM to the agent would; waits for ever, if there is no SIGTERM.
async fn end_within_grace(config: &Config, shutdown: &Shutdown, stop: &StopSignal, give_up: &Notify) {
    shutdown.draining().await;
    let ShutdownPlan { finish, interrupt, kill, flush_deadline } =
        ShutdownPlan::of(&config.shutdown_timing());
    tokio::select! {
        () = sleep(finish) => {}
        () = shutdown.interrupting() => {}
    }
    stop.request(StopReason::ShuttingDown);
    tokio::select! {
        () = sleep(interrupt) => {}
        () = shutdown.forced() => {}
    }
    stop.force();
    sleep(kill + flush_deadline).await;
    give_up.notify_one();
    std::future::pending::<()>().await;
}
