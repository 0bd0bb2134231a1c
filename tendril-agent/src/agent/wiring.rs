//! What the agent gives to the rooms that it wires.

use std::sync::{Arc, atomic::AtomicU32};

use crate::{
    agent::{Agent, error::AgentError},
    control_plane::{Heartbeat, contract::CONTRACT},
    dispatch::{Leave, Supervisor},
    execute::JobContext,
    launch::{Launcher, Origin},
    observability::{
        Panel,
        http::{self, Server},
        logging,
    },
    process::{Drain, LocalRunner},
};

impl Agent {
    pub(super) fn serve_health(&self) -> Result<Option<Server>, AgentError> {
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

    pub(super) fn heartbeat(&self) -> Heartbeat {
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

    pub(super) fn origin(&self) -> Origin {
        Origin {
            supabase_url: self.config.supabase_url.clone(),
            supabase_key: self.config.supabase_key.clone(),
            cluster_id: self.config.cluster_id,
            agent_name: self.config.agent_name.clone(),
            credential: self.config.credential.clone(),
            session: self.session.clone(),
            health: self.health.clone(),
            terraform: self.config.terraform.known(),
            infracost: self.config.infracost.found().clone(),
            slot_users: self.config.slot_users.clone(),
        }
    }

    pub(super) fn supervisor(&self, launcher: Arc<dyn Launcher>) -> Supervisor {
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

    pub(super) fn context(&self) -> JobContext {
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
