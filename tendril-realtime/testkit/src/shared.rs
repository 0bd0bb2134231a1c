//! What connections and the test share: who is connected, who joined what, and what happened.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio_tungstenite::tungstenite::Message;

use crate::{
    channel::{self, Joined, Presences},
    connection::Command,
    fault::{Answer, Faults, Point},
    frame::{Outbound, Version},
    http::{HttpAnswer, HttpRequest},
    journal::{Entry, Event, Journal},
};

pub(crate) type Handler = Arc<dyn Fn(&HttpRequest) -> HttpAnswer + Send + Sync>;

/// See the module.
#[derive(Default)]
pub(crate) struct Shared {
    pub(crate) faults: Faults,
    pub(crate) journal: watch::Sender<Journal>,
    state: Mutex<State>,
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) connections: BTreeMap<u64, (mpsc::UnboundedSender<Command>, Option<Version>)>,
    next_connection: u64,
    next_id: u64,
    pub(crate) channels: Vec<Joined>,
    presences: BTreeMap<String, Presences>,
    pub(crate) handler: Option<Handler>,
    /// Added to the clock of this machine where the server sends the time; negative if it is behind.
    pub(crate) skew_seconds: i64,
}

/// The payload of a `system` message.
pub(crate) fn system(topic: &str, extension: &str, status: &str, message: &str) -> Value {
    json!({"extension": extension, "status": status, "message": message, "channel": topic})
}

impl Shared {
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn new_connection(&self) -> (u64, mpsc::UnboundedReceiver<Command>) {
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

    pub(crate) fn version(&self, connection: u64) -> Option<Version> {
        self.lock().connections.get(&connection).and_then(|(_, version)| *version)
    }

    pub(crate) fn command(&self, connection: u64, command: Command) {
        if let Some((commands, _)) = self.lock().connections.get(&connection) {
            let _ = commands.send(command);
        }
    }

    pub(crate) fn command_all(&self, command: impl Fn() -> Command) {
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

    /// A device tracks a state, or nothing any more.
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
