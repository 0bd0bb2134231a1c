//! The way to the server, which can be cut: connections are refused, and open ones end, as when the server is killed.

use std::{net::SocketAddr, sync::Mutex, time::Duration};

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep},
};

#[derive(Debug)]
pub(super) struct Gate {
    /// Where clients connect.
    pub(super) addr: SocketAddr,
    inner: SocketAddr,
    open: Mutex<Option<JoinHandle<()>>>,
    flow: watch::Sender<Flow>,
}

/// What becomes of bytes.
#[derive(Clone, Copy, Debug, Default)]
struct Flow {
    /// Nothing passes.
    is_stalled: bool,
    /// Connections of an earlier age never pass anything again.
    age: u64,
}

impl Gate {
    pub(super) async fn open(inner: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let addr = listener.local_addr().expect("its address");
        let gate = Self { addr, inner, open: Mutex::new(None), flow: watch::Sender::default() };
        gate.pass(listener);
        gate
    }

    /// Cuts every connection, and refuses new ones.
    pub(super) fn shut(&self) {
        if let Some(task) = self.open.lock().expect("a lock").take() {
            task.abort();
        }
    }

    /// Keeps every connection, and passes nothing.
    pub(super) fn stall(&self) {
        self.flow.send_modify(|flow| flow.is_stalled = true);
    }

    /// Keeps the connections that are open, and passes nothing on them any more.
    pub(super) fn strand(&self) {
        self.flow.send_modify(|flow| flow.age += 1);
    }

    /// Lets connections through again, at the same address.
    pub(super) async fn reopen(&self) {
        if self.flow.send_replace(Flow::default()).is_stalled {
            return;
        }
        let deadline = Instant::now() + Duration::from_secs(10);
        let listener = loop {
            match TcpListener::bind(self.addr).await {
                Ok(listener) => break listener,
                // The task that had it was told to end a moment ago.
                Err(error) => assert!(Instant::now() < deadline, "the same port: {error}"),
            }
            sleep(Duration::from_millis(10)).await;
        };
        self.pass(listener);
    }

    fn pass(&self, listener: TcpListener) {
        let (inner, flow) = (self.inner, self.flow.subscribe());
        let task = tokio::spawn(async move {
            // Ends with this task: every connection is cut then.
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((mut client, _)) = listener.accept().await {
                let mut flow = flow.clone();
                let age = flow.borrow().age;
                connections.spawn(async move {
                    let _no_delay = client.set_nodelay(true);
                    if let Ok(mut server) = TcpStream::connect(inner).await {
                        let _no_delay = server.set_nodelay(true);
                        tokio::select! {
                            _cut = copy_bidirectional(&mut client, &mut server) => return,
                            _ = flow.wait_for(|flow| flow.is_stalled || flow.age != age) => {}
                        }
                        // Neither end hears of it.
                        let _over = flow.wait_for(|flow| !flow.is_stalled && flow.age == 0).await;
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
