//! The server as a test holds it.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::timeout,
};
use tokio_tungstenite::tungstenite::Message;

use crate::{
    channel::{self, Joined},
    connection::{self, Command},
    fault::Faults,
    frame::{Outbound, Version, binary_broadcast},
    http::{HttpAnswer, HttpRequest},
    journal::{Journal, NotInTime},
    shared::{Shared, system},
};

/// How long [`FakeServer::wait_for`] waits.
const IN_TIME: Duration = Duration::from_secs(10);

/// A scripted Supabase Realtime server on a free port of the loopback interface. It ends when it is dropped.
///
/// Its methods act at once and on everyone: on all connections, or on all who joined a topic. What must happen *when* a client
/// does something is said beforehand in [`faults`](Self::faults).
#[derive(Debug)]
pub struct FakeServer {
    shared: Arc<Shared>,
    address: SocketAddr,
    control: mpsc::UnboundedSender<Control>,
    task: JoinHandle<()>,
}

enum Control {
    Stop(oneshot::Sender<()>),
    Resume(oneshot::Sender<io::Result<()>>),
}

impl FakeServer {
    /// Starts it.
    ///
    /// # Errors
    /// If no port can be had.
    pub async fn start() -> io::Result<Self> {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0))).await
    }

    /// Starts it at this address.
    ///
    /// # Errors
    /// If the address cannot be had.
    pub async fn start_at(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared::default());
        let (control, inbox) = mpsc::unbounded_channel();
        let task = tokio::spawn(accept(listener, address, inbox, Arc::clone(&shared)));
        Ok(Self { shared, address, control, task })
    }

    /// The project's base URL, for [`Client::builder`](https://docs.rs/tendril-realtime).
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The fault plan.
    pub fn faults(&self) -> &Faults {
        &self.shared.faults
    }

    /// What happened so far.
    pub fn journal(&self) -> Journal {
        self.shared.journal.borrow().clone()
    }

    /// Waits until the journal satisfies this.
    ///
    /// # Errors
    /// [`NotInTime`] after 10 s.
    pub async fn wait_for(&self, is: impl Fn(&Journal) -> bool) -> Result<(), NotInTime> {
        let mut journal = self.shared.journal.subscribe();
        if timeout(IN_TIME, journal.wait_for(|journal| is(journal))).await.is_ok() {
            return Ok(());
        }
        let journal = self.journal();
        Err(NotInTime { waited: IN_TIME, entries: journal.entries.len(), last: journal.last() })
    }

    /// Answers HTTP requests that are neither upgrades nor broadcasts, such as those of `/rest/v1`. Without it they are 404.
    pub fn on_http(&self, handler: impl Fn(&HttpRequest) -> HttpAnswer + Send + Sync + 'static) {
        self.shared.lock().handler = Some(Arc::new(handler));
    }

    /// Sets the clock by which the server sends the time, in seconds ahead of this machine's.
    pub fn set_clock_ahead(&self, seconds: i64) {
        self.shared.lock().skew_seconds = seconds;
    }

    /// Sends a row that was inserted to the subscribers of this table. Returns to how many channels.
    pub fn insert(&self, schema: &str, table: &str, record: Value) -> usize {
        self.change(&channel::change("INSERT", schema, table, Some(record), None))
    }

    /// Sends the subscribers of this table the update of a row; `old` holds the columns of the replica identity.
    pub fn update(&self, schema: &str, table: &str, record: Value, old: Value) -> usize {
        self.change(&channel::change("UPDATE", schema, table, Some(record), Some(old)))
    }

    /// Sends the subscribers of this table the delete of a row; `old` holds the columns of the replica identity.
    pub fn delete(&self, schema: &str, table: &str, old: Value) -> usize {
        self.change(&channel::change("DELETE", schema, table, None, Some(old)))
    }

    /// Sends the subscribers a change whose `data` is given whole, for what [`insert`](Self::insert) and the like do not
    /// make: columns of other types, columns that are missing from the record, `errors`.
    pub fn change(&self, data: &Value) -> usize {
        let channels: Vec<Joined> = self.shared.lock().channels.clone();
        let mut reached = 0;
        for joined in channels {
            let ids = joined.ids_for(data);
            if !ids.is_empty() {
                reached += 1;
                let payload = json!({"ids": ids, "data": data});
                self.shared
                    .event(joined.connection, &Outbound::new(&joined.topic, "postgres_changes", payload));
            }
        }
        reached
    }

    /// Sends a broadcast to everyone on a channel (named without the `realtime:` prefix). Returns to how many.
    pub fn broadcast(&self, topic: &str, event: &str, payload: &Value) -> usize {
        let payload = json!({"type": "broadcast", "event": event, "payload": payload});
        self.to_all(topic, "broadcast", &payload)
    }

    /// Sends a broadcast as the database does: stored under an id, in binary framing where the client speaks version 2.
    pub fn database_broadcast(&self, topic: &str, event: &str, payload: &Value, id: &str) -> usize {
        let meta = json!({"id": id});
        let joined = self.shared.joined(topic);
        for channel in &joined {
            let message = match self.shared.version(channel.connection) {
                Some(Version::V2) => {
                    let payload = payload.to_string();
                    binary_broadcast(&channel.topic, event, &meta.to_string(), true, payload.as_bytes())
                }
                _ => Outbound::new(
                    &channel.topic,
                    "broadcast",
                    json!({"type": "broadcast", "event": event, "payload": payload, "meta": meta}),
                )
                .encode(Version::V1),
            };
            self.shared.event_message(channel.connection, &message);
        }
        joined.len()
    }

    /// Sends any message of a channel to everyone on it, such as a `system` message of one's own.
    pub fn to_all(&self, topic: &str, event: &str, payload: &Value) -> usize {
        let joined = self.shared.joined(topic);
        for channel in &joined {
            self.shared.event(channel.connection, &Outbound::new(&channel.topic, event, payload.clone()));
        }
        joined.len()
    }

    /// Sends this text frame on all connections, whatever it contains.
    pub fn send_text(&self, text: &str) {
        self.shared.command_all(|| Command::Send(Message::text(text)));
    }

    /// Sends this binary frame on all connections, whatever it contains.
    pub fn send_binary(&self, frame: &[u8]) {
        self.shared.command_all(|| Command::Send(Message::binary(frame.to_vec())));
    }

    /// Ends a channel by a crash (`phx_error`), for everyone on it.
    pub fn crash_channel(&self, topic: &str) {
        self.end_channel(topic, "phx_error", None);
    }

    /// Ends a channel, for everyone on it, with a `system` error that states why.
    pub fn end_channel_with(&self, topic: &str, message: &str) {
        self.end_channel(topic, "phx_close", Some(message));
    }

    fn end_channel(&self, topic: &str, event: &str, message: Option<&str>) {
        for joined in self.shared.joined(topic) {
            self.shared.end(&joined, event, message);
        }
    }

    /// A `system` error of `postgres_changes` on a channel that stays joined.
    pub fn fail_changes(&self, topic: &str, message: &str) {
        let payload = system(topic, "postgres_changes", "error", message);
        self.to_all(topic, "system", &payload);
    }

    /// Announces row changes anew, as after an interruption between the server and its database.
    pub fn announce_changes(&self, topic: &str) {
        let payload = system(topic, "postgres_changes", "ok", "Subscribed to PostgreSQL");
        self.to_all(topic, "system", &payload);
    }

    /// Ends all connections without a close frame.
    pub fn cut_connections(&self) {
        self.shared.command_all(|| Command::Cut);
    }

    /// Closes all connections with this code.
    pub fn close_connections(&self, code: u16) {
        self.shared.command_all(|| Command::Close(code));
    }

    /// Keeps all open connections and neither reads nor writes on them, until the next call.
    pub fn stall_connections(&self, stalled: bool) {
        self.shared.command_all(|| Command::Stall(stalled));
    }

    /// Ends all connections and refuses new ones, until [`resume`](Self::resume).
    pub async fn stop(&self) {
        let (done, stopped) = oneshot::channel();
        if self.control.send(Control::Stop(done)).is_ok() {
            let _ = stopped.await;
        }
        self.cut_connections();
    }

    /// Listens again, at the same address.
    ///
    /// # Errors
    /// If the address is taken by now.
    pub async fn resume(&self) -> io::Result<()> {
        let (done, resumed) = oneshot::channel();
        if self.control.send(Control::Resume(done)).is_err() {
            return Err(io::Error::other("the server ended"));
        }
        resumed.await.unwrap_or_else(|_| Err(io::Error::other("the server ended")))
    }

    /// How many connections are open as websockets.
    pub fn open_connections(&self) -> usize {
        self.shared.lock().connections.values().filter(|(_, version)| version.is_some()).count()
    }

    /// How many channels of this name are joined.
    pub fn joined(&self, topic: &str) -> usize {
        self.shared.joined(topic).len()
    }
}

impl Drop for FakeServer {
    fn drop(&mut self) {
        self.task.abort();
        self.cut_connections();
    }
}

async fn accept(
    listener: TcpListener,
    address: SocketAddr,
    mut inbox: mpsc::UnboundedReceiver<Control>,
    shared: Arc<Shared>,
) {
    let mut listener = Some(listener);
    loop {
        let accepted = async {
            match &listener {
                Some(listener) => listener.accept().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            accepted = accepted => {
                let Ok((stream, _)) = accepted else { continue };
                let _ = stream.set_nodelay(true);
                let (id, commands) = shared.new_connection();
                tokio::spawn(connection::serve(stream, id, commands, Arc::clone(&shared)));
            }
            control = inbox.recv() => match control {
                None => return,
                Some(Control::Stop(done)) => {
                    listener = None;
                    let _ = done.send(());
                }
                Some(Control::Resume(done)) => {
                    let bound = match listener {
                        Some(_) => Ok(()),
                        None => TcpListener::bind(address).await.map(|bound| listener = Some(bound)),
                    };
                    let _ = done.send(bound);
                }
            }
        }
    }
}
