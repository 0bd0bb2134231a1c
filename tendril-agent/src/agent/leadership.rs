//! The Lease that lets one agent of several be at work.

use crate::{
    agent::{Agent, error::AgentError},
    launch::kubernetes::{Connection, Election, Leadership},
};

impl Agent {
    /// Waits until this agent is the active one, where a Lease decides that.
    pub(super) async fn lead(&self) -> Result<Option<Leadership>, AgentError> {
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
        if let Some(predecessor) = leadership.predecessor() {
            let _is_first = self.predecessor.set(predecessor);
        }
        self.health.stands_by(false);
        Ok(Some(leadership))
    }
}

/// Waits until the Lease is lost; for ever, where there is none.
pub(super) async fn lost(leadership: Option<&mut Leadership>) {
    match leadership {
        Some(leadership) => leadership.keep().await,
        None => std::future::pending().await,
    }
}
