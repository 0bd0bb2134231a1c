//! The one port: every service under its path, behind the gateway's checks.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::auth::{self, Auth};
use crate::error::{ErrorKind, Result, StackError};
use crate::fault::{self, Faults, ReopeningListener};
use crate::functions::{self, Functions};
use crate::gateway;
use crate::http::Lenient;
use crate::keys::ProjectKeys;
use crate::realtime::{self, Realtime};
use crate::rest::Rest;

/// How long requests in flight may take once the stack stops.
const GRACE: Duration = Duration::from_secs(2);

/// The HTTP server of a stack.
#[derive(Debug)]
pub(crate) struct ApiServer {
    address: SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<io::Result<()>>,
}

/// What the services of a stack share.
#[derive(Debug, Clone)]
pub(crate) struct Services {
    pub(crate) rest: Rest,
    pub(crate) keys: Arc<ProjectKeys>,
    pub(crate) faults: Faults,
    pub(crate) realtime: Arc<Realtime>,
    pub(crate) auth: Arc<Auth>,
    pub(crate) functions: Arc<Functions>,
}

impl ApiServer {
    /// Listens on 127.0.0.1; port 0 means any free one.
    pub(crate) async fn start(port: u16, services: Services) -> Result<Self> {
        let failed = |error: io::Error| {
            let message = format!(
                "cannot listen on port {port}: {error}. Stop the program that has it, or choose another with --port \
                 (0: any)"
            );
            StackError::with_source(ErrorKind::PortTaken, message, error)
        };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let stop = services.realtime.stop.clone();
        services.functions.found_at(address);
        let listener = ReopeningListener::new(listener, services.faults.port()).map_err(failed)?;
        let routes = routes(services);
        let stopped = stop.clone().cancelled_owned();
        let task = tokio::spawn(async move {
            axum::serve(Lenient(listener), routes).with_graceful_shutdown(stopped).await
        });
        Ok(Self { address, stop, task })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes no more requests, and waits a little for those in flight.
    pub(crate) async fn stop(mut self) {
        self.stop.cancel();
        if timeout(GRACE, &mut self.task).await.is_err() {
            self.task.abort();
        }
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        self.stop.cancel();
        self.task.abort();
    }
}

fn routes(services: Services) -> Router {
    let Services { rest, keys, faults, realtime, auth, functions } = services;
    let require_key = from_fn_with_state(Arc::clone(&keys), gateway::require_key);
    Router::new()
        .merge(rest.router("/rest/v1").layer(require_key.clone()))
        .nest("/auth/v1", auth::router(auth).layer(require_key))
        .nest("/functions/v1", functions::router(functions))
        .merge(realtime::router(realtime))
        .layer(from_fn_with_state((faults, keys), fault::strike))
        .layer(from_fn(gateway::cors))
}
