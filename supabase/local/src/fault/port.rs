//! The port itself: it can be closed, so that connections are refused as if no server ran.

use std::net::SocketAddr;
use std::time::Duration;

use axum::serve::Listener;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::debug;

/// Pause before a port that another process took meanwhile is tried again.
const RETRY: Duration = Duration::from_millis(20);

/// Whether connections are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Port {
    Open,
    /// Until then, or until it is opened again.
    Closed(Option<Instant>),
}

impl Port {
    pub(crate) fn is_closed(self) -> bool {
        match self {
            Self::Open => false,
            Self::Closed(until) => until.is_none_or(|until| Instant::now() < until),
        }
    }
}

/// A listener that releases its port while it is closed.
#[derive(Debug)]
pub(crate) struct ReopeningListener {
    address: SocketAddr,
    listener: Option<TcpListener>,
    port: watch::Receiver<Port>,
}

impl ReopeningListener {
    pub(crate) fn new(listener: TcpListener, port: watch::Receiver<Port>) -> std::io::Result<Self> {
        Ok(Self { address: listener.local_addr()?, listener: Some(listener), port })
    }

    /// Waits until the port is open, without holding it meanwhile.
    async fn wait_open(&mut self) {
        loop {
            let port = *self.port.borrow_and_update();
            if !port.is_closed() {
                return;
            }
            self.listener = None;
            let Port::Closed(until) = port else { return };
            let reopened = async {
                match until {
                    Some(until) => sleep_until(until).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = reopened => {}
                // The plan ended with its stack: the port is never opened again.
                changed = self.port.changed() => if changed.is_err() { std::future::pending::<()>().await },
            }
        }
    }
}

impl Listener for ReopeningListener {
    type Io = TcpStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (TcpStream, SocketAddr) {
        loop {
            self.wait_open().await;
            let listener = match self.listener.take() {
                Some(listener) => listener,
                None => match TcpListener::bind(self.address).await {
                    Ok(listener) => listener,
                    Err(error) => {
                        debug!(%error, "the port cannot be opened again yet");
                        sleep(RETRY).await;
                        continue;
                    }
                },
            };
            let listener = self.listener.insert(listener);
            tokio::select! {
                (stream, address) = listener.accept() => {
                    // Small frames must not wait for the acknowledgement of the one before.
                    if let Err(error) = stream.set_nodelay(true) {
                        debug!(%error, "a connection will be slow");
                    }
                    return (stream, address);
                }
                Ok(()) = self.port.changed() => {}
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        Ok(self.address)
    }
}
