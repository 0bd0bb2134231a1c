//! The server as a test holds it.

use std::{
    collections::BTreeMap,
    fmt, io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
    time::timeout,
};
use tokio_tungstenite::tungstenite::Message;

use crate::{
    channel::{self, Joined, Presences},
    connection::{self, Command},
    fault::{Answer, Faults, Point},
    frame::{Outbound, Version, binary_broadcast},
    http::{HttpAnswer, HttpRequest},
    journal::{Entry, Event, Journal, NotInTime},
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

type Handler = Arc<dyn Fn(&HttpRequest) -> HttpAnswer + Send + Sync>;

/// What connections and the test share.
pub(crate) struct Shared {
    pub(crate) faults: Faults,
    pub(crate) journal: watch::Sender<Journal>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    connections: BTreeMap<u64, (mpsc::UnboundedSender<Command>, Option<Version>)>,
    next_connection: u64,
    next_id: u64,
    channels: Vec<Joined>,
    presences: BTreeMap<String, Presences>,
    handler: Option<Handler>,
    /// Added to the clock of this machine where the server says the time; negative if it is behind.
    skew_seconds: i64,
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
        let shared = Arc::new(Shared {
            faults: Faults::default(),
            journal: watch::Sender::new(Journal::default()),
            state: Mutex::default(),
        });
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

    /// Sets the clock by which the server says the time, in seconds ahead of this machine's.
    pub fn set_clock_ahead(&self, seconds: i64) {
        self.shared.lock().skew_seconds = seconds;
    }

    /// Sends a row that was inserted to the subscribers of this table. Returns to how many channels.
    pub fn insert(&self, schema: &str, table: &str, record: Value) -> usize {
        self.change(&channel::change("INSERT", schema, table, Some(record), None))
    }

    /// Tells the subscribers of this table that a row was updated; `old` is what the replica identity keeps.
    pub fn update(&self, schema: &str, table: &str, record: Value, old: Value) -> usize {
        self.change(&channel::change("UPDATE", schema, table, Some(record), Some(old)))
    }

    /// Tells the subscribers of this table that a row was deleted; `old` is what the replica identity keeps.
    pub fn delete(&self, schema: &str, table: &str, old: Value) -> usize {
        self.change(&channel::change("DELETE", schema, table, None, Some(old)))
    }

    /// Tells the subscribers of a change whose `data` is given whole, for what [`insert`](Self::insert) and the like do not
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

    /// Sends this text frame on all connections, whatever it says.
    pub fn send_text(&self, text: &str) {
        self.shared.command_all(|| Command::Send(Message::text(text)));
    }

    /// Sends this binary frame on all connections, whatever it says.
    pub fn send_binary(&self, frame: &[u8]) {
        self.shared.command_all(|| Command::Send(Message::binary(frame.to_vec())));
    }

    /// Ends a channel by a crash (`phx_error`), for everyone on it.
    pub fn crash_channel(&self, topic: &str) {
        self.end_channel(topic, "phx_error", None);
    }

    /// Ends a channel, for everyone on it, with a `system` error that says why.
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

/// The payload of a `system` message.
pub(crate) fn system(topic: &str, extension: &str, status: &str, message: &str) -> Value {
    json!({"extension": extension, "status": status, "message": message, "channel": topic})
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn new_connection(&self) -> (u64, mpsc::UnboundedReceiver<Command>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let mut state = self.lock();
        state.next_connection += 1;
        let id = state.next_connection;
        state.connections.insert(id, (sender, None));
        drop(state);
        self.note(id, Event::Accepted);
        (id, receiver)
    }

    pub(crate) fn upgraded(&self, connection: u64, version: Version) {
        if let Some((_, known)) = self.lock().connections.get_mut(&connection) {
            *known = Some(version);
        }
    }

    pub(crate) fn ended(&self, connection: u64) {
        let channels: Vec<Joined> = {
            let mut state = self.lock();
            state.connections.remove(&connection);
            state.channels.extract_if(.., |joined| joined.connection == connection).collect()
        };
        for joined in channels {
            self.untrack(&joined);
        }
        self.note(connection, Event::Closed);
    }

    pub(crate) fn note(&self, connection: u64, event: Event) {
        self.journal
            .send_modify(|journal| journal.entries.push(Entry { at: Instant::now(), connection, event }));
    }

    pub(crate) fn now(&self) -> SystemTime {
        let skew = self.lock().skew_seconds;
        let by = Duration::from_secs(skew.unsigned_abs());
        if skew < 0 { SystemTime::now() - by } else { SystemTime::now() + by }
    }

    pub(crate) fn handler(&self) -> Option<Handler> {
        self.lock().handler.clone()
    }

    fn version(&self, connection: u64) -> Option<Version> {
        self.lock().connections.get(&connection).and_then(|(_, version)| *version)
    }

    pub(crate) fn command(&self, connection: u64, command: Command) {
        if let Some((commands, _)) = self.lock().connections.get(&connection) {
            let _ = commands.send(command);
        }
    }

    fn command_all(&self, command: impl Fn() -> Command) {
        for (commands, _) in self.lock().connections.values() {
            let _ = commands.send(command());
        }
    }

    pub(crate) fn send(&self, connection: u64, message: &Outbound) {
        if let Some(version) = self.version(connection) {
            self.command(connection, Command::Send(message.encode(version)));
        }
    }

    /// Sends what [`Point::Event`] may strike.
    pub(crate) fn event(&self, connection: u64, message: &Outbound) {
        if let Some(version) = self.version(connection) {
            self.event_message(connection, &message.encode(version));
        }
    }

    pub(crate) fn event_message(&self, connection: u64, message: &Message) {
        let send = || self.command(connection, Command::Send(message.clone()));
        match self.faults.strike(|point| *point == Point::Event) {
            None => send(),
            Some(Answer::Silence) => {}
            Some(Answer::Cut) => self.command(connection, Command::Cut),
            Some(Answer::Close(code)) => {
                send();
                self.command(connection, Command::Close(code));
            }
            Some(Answer::Duplicate) => {
                send();
                send();
            }
            Some(Answer::Delay(pause)) => {
                self.command(connection, Command::SendLater(pause, message.clone()));
            }
            Some(_) => send(),
        }
    }

    /// Everyone on a channel.
    pub(crate) fn joined(&self, topic: &str) -> Vec<Joined> {
        let full = format!("realtime:{topic}");
        self.lock().channels.iter().filter(|joined| joined.topic == full).cloned().collect()
    }

    pub(crate) fn channel(&self, connection: u64, topic: &str) -> Option<Joined> {
        self.lock()
            .channels
            .iter()
            .find(|joined| joined.connection == connection && joined.topic == topic)
            .cloned()
    }

    /// Registers a join; gives the channel, and the one of the same name that it replaces.
    pub(crate) fn join(
        &self,
        connection: u64,
        topic: &str,
        join_ref: Option<&str>,
        payload: &Value,
    ) -> (Joined, Option<Joined>) {
        let mut state = self.lock();
        let mut next_id = state.next_id;
        let joined = Joined::new(connection, topic, join_ref, payload, &mut next_id);
        state.next_id = next_id;
        let old = state
            .channels
            .iter()
            .position(|known| known.connection == connection && known.topic == topic)
            .map(|at| state.channels.remove(at));
        state.channels.push(joined.clone());
        (joined, old)
    }

    /// Takes a channel of a connection away.
    pub(crate) fn remove(&self, connection: u64, topic: &str) -> Option<Joined> {
        let mut state = self.lock();
        let at =
            state.channels.iter().position(|known| known.connection == connection && known.topic == topic)?;
        let joined = state.channels.remove(at);
        drop(state);
        self.untrack(&joined);
        Some(joined)
    }

    /// The server ends a channel: a reason, if there is one, and then the end.
    pub(crate) fn end(&self, joined: &Joined, event: &str, message: Option<&str>) {
        let join_ref = joined.join_ref.as_deref();
        if let Some(message) = message {
            let payload = system(joined.sub_topic(), "system", "error", message);
            self.send(joined.connection, &Outbound::new(&joined.topic, "system", payload).of(join_ref));
        }
        self.remove(joined.connection, &joined.topic);
        let last = Outbound::new(&joined.topic, event, json!({})).of(join_ref).answering(join_ref);
        self.send(joined.connection, &last);
    }

    pub(crate) fn presence_state(&self, topic: &str) -> Value {
        self.lock().presences.get(topic).map_or_else(|| json!({}), channel::presence)
    }

    /// A device says what it tracks, or that it tracks nothing any more.
    pub(crate) fn track(&self, joined: &Joined, state: Option<Value>) {
        let (mut joins, mut leaves) = (Presences::new(), Presences::new());
        {
            let mut all = self.lock();
            all.next_id += 1;
            let number = all.next_id;
            let entries = all.presences.entry(joined.topic.clone()).or_default();
            let metas = entries.entry(joined.presence_key.clone()).or_default();
            if let Some(at) = metas.iter().position(|meta| meta.connection == joined.connection) {
                leaves.insert(joined.presence_key.clone(), vec![metas.remove(at)]);
            }
            if let Some(mut state) = state {
                state["phx_ref"] = json!(channel::reference(number));
                let meta = channel::Meta { connection: joined.connection, state };
                metas.push(meta.clone());
                joins.insert(joined.presence_key.clone(), vec![meta]);
            }
            entries.retain(|_, metas| !metas.is_empty());
        }
        if joins.is_empty() && leaves.is_empty() {
            return;
        }
        let diff = json!({"joins": channel::presence(&joins), "leaves": channel::presence(&leaves)});
        for other in self.joined(joined.sub_topic()) {
            self.event(other.connection, &Outbound::new(&other.topic, "presence_diff", diff.clone()));
        }
    }

    fn untrack(&self, joined: &Joined) {
        self.track(joined, None);
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("faults", &self.faults).finish_non_exhaustive()
    }
}
