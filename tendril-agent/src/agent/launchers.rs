//! Which launchers this process has, and the executors that an earlier process started with them.

use std::sync::Arc;

use crate::{
    agent::Agent,
    config::handed_secrets,
    launch::{
        Executor, InProcessLauncher, Launcher, LauncherKind,
        local::{ExecutorCommand, LocalLauncher},
    },
};
#[cfg(feature = "kubernetes")]
use crate::{
    agent::error::AgentError,
    launch::kubernetes::{Claims, Connection, KubernetesLauncher},
};

impl Agent {
    /// A process that is another program cannot start itself as an executor.
    pub(super) fn launcher_kind(&self) -> LauncherKind {
        if self.config.keeper.is_some() { self.config.launcher } else { LauncherKind::InProcess }
    }

    /// Of processes on this machine; none in a process that is another program.
    pub(super) fn local_launcher(&self) -> Option<Arc<dyn Launcher>> {
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

    pub(super) fn launcher(&self) -> Arc<dyn Launcher> {
        self.local_launcher()
            .filter(|_| self.launcher_kind() == LauncherKind::Local)
            .unwrap_or_else(|| Arc::new(InProcessLauncher::new(self.context(), self.leases.clone())))
    }

    /// Of pods; none where jobs do not run as pods.
    #[cfg(feature = "kubernetes")]
    pub(super) async fn pod_launcher(&self) -> Result<Option<Arc<dyn Launcher>>, AgentError> {
        let Some(settings) = &self.config.kubernetes else { return Ok(None) };
        let connection =
            Connection::open(settings.namespace.as_deref()).await.map_err(AgentError::Kubernetes)?;
        tracing::info!(namespace = connection.namespace, "runs are pods");
        if !self.session.has_key() {
            tracing::warn!(
                "the agent has a machine token (a JWT) and no API key: each run gets that token, which reaches every deployment of the cluster"
            );
        }
        Ok(Some(Arc::new(KubernetesLauncher::start(
            &connection,
            settings.clone(),
            Arc::new(self.origin()),
            Claims::new(self.client.rest().clone()),
            self.leases.clone(),
            self.predecessor.get().copied(),
        ))))
    }
}

/// The executors that an earlier dispatcher started. Where they cannot be found, none is started twice: each holds a lock.
pub(super) async fn find_executors(launcher: &dyn Launcher) -> Vec<Executor> {
    launcher.running().await.unwrap_or_else(|error| {
        tracing::error!(%error, "executors of an earlier run cannot be taken over");
        Vec::new()
    })
}

/// The executors in pods that an earlier dispatcher started. Asks until there is an answer: nobody else would notice their deaths.
#[cfg(feature = "kubernetes")]
pub(super) async fn find_pods(pods: Option<&dyn Launcher>) -> Vec<Executor> {
    let Some(pods) = pods else { return Vec::new() };
    loop {
        match pods.running().await {
            Ok(executors) => return executors,
            Err(error) => tracing::warn!(%error, "runs in pods cannot be taken over yet: trying again"),
        }
        tokio::time::sleep(std::time::Duration::from_secs(5)).await;
    }
}
