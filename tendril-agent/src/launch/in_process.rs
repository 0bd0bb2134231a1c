//! Executors as tasks of this process: where the agent is a library in another program, or is configured so. They end
//! with the process; what they leave is taken up by its next run.

use std::{
    collections::HashMap,
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
};

use futures_util::{FutureExt as _, future::BoxFuture};
use secrecy::SecretString;
use tokio::{sync::watch, task::AbortHandle};
use tracing::Instrument as _;
use uuid::Uuid;

use crate::{
    control_plane::Leases,
    execute::{JobContext, RunEnd},
    launch::{
        attempt_file::{AttemptFile, AttemptId},
        launcher::{End, Executor, LaunchError, Launched, Launcher, Request},
    },
    process::StopSignal,
};

/// Runs attempts in tasks. Dropping it ends them.
pub(crate) struct InProcessLauncher {
    context: JobContext,
    /// The claims that this process's heartbeat extends.
    leases: Leases,
    tasks: Mutex<HashMap<AttemptId, Task>>,
}

struct Task {
    claim_token: Uuid,
    state_key: Option<String>,
    stop: StopSignal,
    abort: AbortHandle,
    /// Its end.
    end: watch::Sender<Option<End>>,
}

impl InProcessLauncher {
    pub(crate) fn new(context: JobContext, leases: Leases) -> Self {
        Self { context, leases, tasks: Mutex::default() }
    }

    fn start(&self, attempt: &AttemptFile) -> Launched {
        let id = attempt.id();
        let mut tasks = self.tasks();
        if let Some(task) = tasks.get(&id) {
            return Launched::Already(task.executor(id));
        }
        let (job, start) = (attempt.job(), attempt.start);
        let lease = self.leases.hold(&job);
        let (claim_token, state_key) = (job.claim_token, job.state_key.clone());
        let (stop, context, span) = (lease.stop.clone(), self.context.clone(), job.span());
        let run = async move {
            match context.run(job, &lease, start).await {
                RunEnd::Stored => End::Stored,
                RunEnd::Waiting => End::Waiting,
            }
        };
        let end = watch::Sender::new(None);
        let said = end.clone();
        let run = std::panic::AssertUnwindSafe(run.instrument(span)).catch_unwind();
        let abort = tokio::spawn(async move {
            let end = run.await.unwrap_or_else(|_| End::Died("the run's task broke off".to_owned()));
            said.send_replace(Some(end));
        })
        .abort_handle();
        let task = Task { claim_token, state_key, stop, abort, end };
        let executor = task.executor(id);
        tasks.insert(id, task);
        Launched::Started(executor)
    }

    /// Ends a task's run at once, with this end.
    fn end(&self, id: AttemptId, end: End) {
        if let Some(task) = self.tasks().get(&id) {
            task.abort.abort();
            task.end.send_if_modified(|said| said.is_none() && said.replace(end).is_none());
        }
    }

    fn tasks(&self) -> MutexGuard<'_, HashMap<AttemptId, Task>> {
        // Nothing that holds the lock can leave the map in halves.
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Task {
    fn executor(&self, id: AttemptId) -> Executor {
        let mut end = self.end.subscribe();
        let ended = async move {
            match end.wait_for(Option::is_some).await.map(|end| end.clone()) {
                Ok(Some(end)) => end,
                // It was dropped with the launcher.
                _ => End::Died("the agent ended".to_owned()),
            }
        };
        Executor {
            id,
            claim_token: self.claim_token,
            state_key: self.state_key.clone(),
            version: None,
            ended: ended.boxed(),
        }
    }
}

impl Launcher for InProcessLauncher {
    fn launch(
        &self,
        attempt: AttemptFile,
        _token: Option<SecretString>,
    ) -> BoxFuture<'_, Result<Launched, LaunchError>> {
        async move { Ok(self.start(&attempt)) }.boxed()
    }

    fn running(&self) -> BoxFuture<'_, Result<Vec<Executor>, LaunchError>> {
        async move { Ok(self.tasks().iter().map(|(id, task)| task.executor(*id)).collect()) }.boxed()
    }

    fn ask(&self, id: AttemptId, request: Request) -> BoxFuture<'_, Result<(), LaunchError>> {
        if request == Request::GiveUp {
            self.end(id, End::Kept);
        } else if let Some(task) = self.tasks().get(&id) {
            request.pass_on(&task.stop);
        }
        async { Ok(()) }.boxed()
    }

    fn kill(&self, id: AttemptId) -> BoxFuture<'_, Result<(), LaunchError>> {
        self.end(id, End::Died("the run's task was ended".to_owned()));
        async { Ok(()) }.boxed()
    }

    fn forget(&self, id: AttemptId) -> BoxFuture<'_, Result<(), LaunchError>> {
        self.tasks().remove(&id);
        async { Ok(()) }.boxed()
    }

    fn end_with_dispatcher(&self) -> bool {
        true
    }
}

impl Drop for InProcessLauncher {
    fn drop(&mut self) {
        self.tasks().values().for_each(|task| task.abort.abort());
    }
}

impl fmt::Debug for InProcessLauncher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InProcessLauncher").finish_non_exhaustive()
    }
}
