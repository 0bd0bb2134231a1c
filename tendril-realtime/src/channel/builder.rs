//! What a channel subscribes to, chosen before the join.

use std::{
    marker::PhantomData,
    sync::{Arc, OnceLock},
    time::{Duration, SystemTime},
};

use serde::de::DeserializeOwned;
use tokio::time;

use super::{Channel, changes::PostgresChanges};
use crate::{
    driver::{Capacity, ChannelHandle, ChannelParts, Handle, Ready, Sender, mailbox},
    endpoint::ProtocolVersion,
    error::{Error, ErrorKind},
    session::Interest,
    stream::{
        Subscription, broadcast::BroadcastStream, changes::ChangeStream, presence::PresenceStream,
        system::SystemStream,
    },
    wire::{
        TOPIC_PREFIX, channel_name,
        join::{JoinConfig, Replay},
    },
};

/// The server gives no more stored messages than this.
const REPLAYED_AT_MOST: u8 = 25;

/// A channel that is being described. Streams are made first and the channel is joined last, so that nothing is missed.
///
/// ```no_run
/// # use tendril_realtime::{PostgresChanges, Client, Error};
/// # #[derive(serde::Deserialize)] struct Todo { id: i64 }
/// # async fn run(client: Client) -> Result<(), Error> {
/// let mut room = client.channel("room");
/// let mut todos = room.on_postgres_changes::<Todo>(PostgresChanges::on("public", "todos"))?;
/// let mut cursors = room.on_broadcast("cursor");
/// let room = room.join().await?;
/// # Ok(()) }
/// ```
#[derive(Debug)]
#[must_use = "a channel is not joined until `join` or `subscribe`"]
pub struct ChannelBuilder {
    handle: Handle,
    name: String,
    config: JoinConfig,
    subscribers: Vec<(Interest, Sender)>,
    opened: Arc<OnceLock<ChannelHandle>>,
    capacity: Capacity,
    timeout: Duration,
    version: ProtocolVersion,
    /// How many stored messages a join requests; known to the streams when the channel is opened.
    replay_limit: Arc<OnceLock<u8>>,
}

/// A channel with one subscription to row changes: see [`ChannelBuilder::postgres_changes`].
#[derive(Debug)]
#[must_use = "nothing is subscribed until `subscribe`"]
pub struct PostgresChangesBuilder<T> {
    channel: ChannelBuilder,
    changes: PostgresChanges,
    rows: PhantomData<fn() -> T>,
}

impl ChannelBuilder {
    pub(crate) fn new(handle: Handle, name: &str, timeout: Duration, version: ProtocolVersion) -> Self {
        let name = channel_name(name).to_owned();
        Self {
            handle,
            name,
            config: JoinConfig::default(),
            subscribers: Vec::new(),
            opened: Arc::new(OnceLock::new()),
            capacity: Capacity::default(),
            timeout,
            version,
            replay_limit: Arc::new(OnceLock::new()),
        }
    }

    /// A private channel: joined only if the policies on `realtime.messages` allow it. Public and private channels of one
    /// name are different rooms.
    #[doc(alias = "RealtimeChannelOptions")]
    pub fn private(mut self, private: bool) -> Self {
        self.config.private = private;
        self
    }

    /// Whether the server acknowledges each broadcast of ours: accepted, not delivered.
    pub fn ack(mut self, ack: bool) -> Self {
        self.config.broadcast.ack = ack;
        self
    }

    /// Whether our own broadcasts come back to us.
    #[doc(alias("self", "self_broadcast"))]
    pub fn receive_own(mut self, own: bool) -> Self {
        self.config.broadcast.own = own;
        self
    }

    /// Requests stored messages since this time, 25 at most. Only private channels, and only messages that
    /// came from the database. After a reconnect, what was missed meanwhile is requested; messages received before are not
    /// repeated, and [`BroadcastEvent::Truncated`](crate::BroadcastEvent::Truncated) marks where there may have been more.
    pub fn replay(mut self, since: SystemTime, limit: Option<u8>) -> Self {
        let since = since.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis();
        let since = u64::try_from(since).unwrap_or(u64::MAX);
        self.config.broadcast.replay = Some(Replay { since, limit });
        self
    }

    /// Counts the channel as joined only when messages from the database flow too.
    pub fn replication_ready(mut self, ready: bool) -> Self {
        self.config.broadcast.replication_ready = ready;
        self
    }

    /// Takes part in presence under this key. Several devices may share a key; without one the server makes a new one for each
    /// join.
    pub fn presence_key(mut self, key: impl Into<String>) -> Self {
        self.config.presence.enabled = true;
        self.config.presence.key = key.into();
        self
    }

    /// How far the reader of a stream made from here on may fall behind before the oldest events are dropped: so many events,
    /// and so many bytes. Default: 4096 events, 16 MiB.
    pub fn buffer_capacity(mut self, events: usize, bytes: usize) -> Self {
        self.capacity = Capacity { events: events.max(1), bytes: bytes.max(1) };
        self
    }

    /// Only row changes of one table: `subscribe` comes next.
    pub fn postgres_changes<T: DeserializeOwned>(
        self,
        changes: PostgresChanges,
    ) -> PostgresChangesBuilder<T> {
        PostgresChangesBuilder { channel: self, changes, rows: PhantomData }
    }

    /// One stream of row changes, beside others on the same channel.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) for what the server would misread.
    #[doc(alias = "on")]
    pub fn on_postgres_changes<T: DeserializeOwned>(
        &mut self,
        changes: PostgresChanges,
    ) -> Result<ChangeStream<T>, Error> {
        let (schema, table) = changes.exact_names();
        let place = self.config.bindings.len();
        self.config.bindings.push(changes.into_binding()?);
        Ok(ChangeStream::new(self.subscription(Interest::Changes(place)), schema, table))
    }

    /// A stream of the broadcasts with this event name.
    #[doc(alias = "on")]
    pub fn on_broadcast(&mut self, event: &str) -> BroadcastStream {
        self.broadcast_stream(Some(event.to_owned()))
    }

    /// A stream of all broadcasts, whatever their event name.
    pub fn on_any_broadcast(&mut self) -> BroadcastStream {
        self.broadcast_stream(None)
    }

    fn broadcast_stream(&mut self, event: Option<String>) -> BroadcastStream {
        let replay_limit = Arc::clone(&self.replay_limit);
        BroadcastStream::new(self.subscription(Interest::Broadcast), event, replay_limit)
    }

    /// A stream of the server's `system` messages about this channel: what it subscribed, and why it ends.
    #[doc(alias("on", "system"))]
    pub fn on_system(&mut self) -> SystemStream {
        SystemStream::new(self.subscription(Interest::System))
    }

    /// Who is there. What they track is any JSON object. Enables presence for the channel.
    #[doc(alias("on", "presence"))]
    pub fn on_presence(&mut self) -> PresenceStream {
        self.on_presence_of()
    }

    /// Who is there, and what they track as a type: `on_presence_of::<User>()`. Enables presence for the channel.
    pub fn on_presence_of<T: DeserializeOwned + Clone>(&mut self) -> PresenceStream<T> {
        self.config.presence.enabled = true;
        PresenceStream::new(self.subscription(Interest::Presence))
    }

    fn subscription(&mut self, interest: Interest) -> Subscription {
        let (sender, receiver) = mailbox(self.capacity);
        self.subscribers.push((interest, sender));
        Subscription::new(receiver, Arc::clone(&self.opened))
    }

    /// Refuses what the server would misread.
    fn check(&self) -> Result<(), Error> {
        if self.name.trim().is_empty() {
            return Err(Error::invalid("topic", "it is empty"));
        }
        if self.name.len() > 255 - TOPIC_PREFIX.len() {
            let most = 255 - TOPIC_PREFIX.len();
            let length = self.name.len();
            return Err(Error::invalid(
                "topic",
                format!("it is {length} bytes long; a frame carries at most {most}"),
            ));
        }
        match &self.config.broadcast.replay {
            Some(_) if !self.config.private => Err(Error::invalid(
                "replay",
                "only private channels have stored messages; call private(true)",
            )),
            Some(Replay { limit: Some(limit), .. }) if !(1..=REPLAYED_AT_MOST).contains(limit) => {
                Err(Error::invalid(
                    "replay",
                    format!("the server gives 1 to {REPLAYED_AT_MOST} messages, not {limit}"),
                ))
            }
            _ => Ok(()),
        }
    }

    /// Joins, without waiting for it.
    pub(crate) fn open(self) -> Result<(Channel, Ready), Error> {
        self.check()?;
        if let Some(replay) = self.config.broadcast.replay {
            let _ = self.replay_limit.set(replay.limit.unwrap_or(REPLAYED_AT_MOST));
        }
        let ChannelParts { handle, ready } =
            self.handle.open(self.name, self.config, self.version, self.subscribers)?;
        let _ = self.opened.set(handle.clone());
        Ok((Channel::new(handle), ready))
    }

    /// Joins the channel and keeps it joined until the last handle and stream of it is dropped, or it is
    /// [left](Channel::leave). Resolves when everything that was asked for really flows: the join is accepted, and row changes
    /// are announced.
    ///
    /// A second join of a name that this client holds shares the channel. What it subscribes to beyond the first (another table,
    /// presence) makes the client join anew, which the other streams receive as
    /// [`Resync`](crate::ChangeEvent::Resync); other settings are an error.
    ///
    /// # Errors
    /// The server's error where trying again cannot help; [`Timeout`](ErrorKind::Timeout) after the client's subscribe
    /// timeout, with the last failure as its source. A join that failed, or whose future was dropped, has left the channel: its
    /// streams end with the error, and the name is free.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the channel.
    #[doc(alias = "subscribe")]
    pub async fn join(self) -> Result<Channel, Error> {
        let timeout = self.timeout;
        let (channel, ready) = self.open()?;
        let attempt = Attempt(Some(channel));
        match flowing(ready, timeout, attempt.channel()).await {
            Ok(()) => attempt.succeeded(),
            Err(error) => {
                attempt.failed(&error);
                Err(error)
            }
        }
    }
}

/// A join under way. However it ends, unless it succeeds, the channel is left: streams alone would keep it.
struct Attempt(Option<Channel>);

impl Attempt {
    fn channel(&self) -> Option<&Channel> {
        self.0.as_ref()
    }

    fn succeeded(mut self) -> Result<Channel, Error> {
        self.0.take().ok_or_else(|| Error::new(ErrorKind::Closed))
    }

    fn failed(mut self, error: &Error) {
        if let Some(channel) = self.0.take() {
            channel.give_up(error.duplicate());
        }
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if let Some(channel) = self.0.take() {
            channel.give_up(Error::new(ErrorKind::Closed));
        }
    }
}

impl<T: DeserializeOwned> PostgresChangesBuilder<T> {
    /// Subscribes, and resolves when rows really flow: at that moment, read the table once, and nothing is missed.
    ///
    /// # Errors
    /// As [`ChannelBuilder::join`].
    pub async fn subscribe(self) -> Result<ChangeStream<T>, Error> {
        let timeout = self.channel.timeout;
        let (stream, channel, ready) = self.open()?;
        let attempt = Attempt(Some(channel));
        match flowing(ready, timeout, attempt.channel()).await {
            Ok(()) => attempt.succeeded().map(|_| stream),
            Err(error) => {
                attempt.failed(&error);
                Err(error)
            }
        }
    }

    /// Subscribes without waiting; must be called within a runtime. The stream reports failures from the first attempt on;
    /// the future resolves when rows flow, however long that takes, or when they never will.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) for what the server would misread, and outside of a runtime.
    pub fn start(
        self,
    ) -> Result<(ChangeStream<T>, impl Future<Output = Result<(), Error>> + Send + use<T>), Error> {
        let (stream, _, ready) = self.open()?;
        let ready =
            async move { ready.await.unwrap_or_else(|_| Err(Error::new(ErrorKind::Closed))).map(drop) };
        Ok((stream, ready))
    }

    fn open(mut self) -> Result<(ChangeStream<T>, Channel, Ready), Error> {
        let stream = self.channel.on_postgres_changes(self.changes)?;
        let (channel, ready) = self.channel.open()?;
        Ok((stream, channel, ready))
    }
}

async fn flowing(ready: Ready, timeout: Duration, channel: Option<&Channel>) -> Result<(), Error> {
    match time::timeout(timeout, ready).await {
        Ok(Ok(answer)) => answer.map(drop),
        Ok(Err(_)) => Err(Error::new(ErrorKind::Closed)),
        Err(_) => {
            let kind = ErrorKind::Timeout { waiting_for: "the channel to be joined and rows to flow" };
            // Time ran out, but the attempts had reasons: the last one is more precise.
            Err(match channel.and_then(Channel::last_error) {
                Some(cause) => Error::with_source(kind, cause),
                None => Error::new(kind),
            })
        }
    }
}
