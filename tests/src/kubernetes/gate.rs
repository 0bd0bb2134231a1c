//! The way to the server, which can be cut: connections are refused, and open ones end, as when the server is killed.

use std::{net::SocketAddr, sync::Mutex};

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

#[derive(Debug)]
pub(super) struct Gate {
    /// Where clients connect.
    pub(super) addr: SocketAddr,
    inner: SocketAddr,
    open: Mutex<Option<JoinHandle<()>>>,
}

impl Gate {
    pub(super) async fn open(inner: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let addr = listener.local_addr().expect("its address");
        let gate = Self { addr, inner, open: Mutex::new(None) };
        gate.pass(listener);
        gate
    }

    /// Cuts every connection, and refuses new ones.
    pub(super) fn shut(&self) {
        if let Some(task) = self.open.lock().expect("a lock").take() {
            task.abort();
        }
    }

    /// Lets connections through again, at the same address.
    pub(super) async fn reopen(&self) {
        let listener = TcpListener::bind(self.addr).await.expect("the same port");
        self.pass(listener);
    }

    fn pass(&self, listener: TcpListener) {
        let inner = self.inner;
        let task = tokio::spawn(async move {
            // Ends with this task: every connection is cut then.
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((mut client, _)) = listener.accept().await {
                connections.spawn(async move {
                    let _no_delay = client.set_nodelay(true);
                    if let Ok(mut server) = TcpStream::connect(inner).await {
                        let _no_delay = server.set_nodelay(true);
                        let _cut = copy_bidirectional(&mut client, &mut server).await;
                    }
                });
                while connections.try_join_next().is_some() {}
            }
        });
        *self.open.lock().expect("a lock") = Some(task);
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.shut();
    }
}
