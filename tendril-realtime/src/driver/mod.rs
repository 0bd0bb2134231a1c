//! The one task that owns the socket: it moves bytes between socket and session, and performs the session's actions.

mod counters;
mod exchange;
mod heartbeats;
mod mailbox;
mod phase;
mod suspend;
mod task;
mod token_fetch;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::sync::{broadcast, mpsc, oneshot, watch};

pub(crate) use self::{
    counters::Counters,
    mailbox::{Capacity, Gauge, Item, Receiver, Sender, mailbox},
};
pub use self::{
    counters::Stats,
    heartbeats::{Heartbeat, HeartbeatStream},
    phase::{Phase, Status},
};
use crate::{
    endpoint::{Endpoint, ProtocolVersion},
    error::{Error, ErrorKind},
    secret::ApiKey,
    session::{ChannelStatus, Command, Interest, RequestId, Settings, Subscriber, SubscriberId, TopicId},
    socket::Dialer,
    token::Tokens,
    wire::{Slice, join::JoinConfig},
};

/// Messages of users that wait for the driver.
const PUSHES_AT_ONCE: usize = 256;

/// The settings of a driver.
pub(crate) struct Setup {
    pub(crate) endpoint: Endpoint,
    pub(crate) key: ApiKey,
    pub(crate) version: ProtocolVersion,
    pub(crate) tokens: Option<Tokens>,
    pub(crate) dialer: Dialer,
    pub(crate) settings: Settings,
    /// Appended to the websocket address.
    pub(crate) query: Vec<(String, String)>,
    pub(crate) initial_backoff: Duration,
    pub(crate) max_backoff: Duration,
}

/// From the handles to the driver.
#[expect(clippy::large_enum_variant, reason = "nearly all are commands, and moved once")]
enum Message {
    /// For the session, with mailboxes to fill, a status to keep and an answer to give.
    Command {
        command: Command,
        mailboxes: Vec<(SubscriberId, Sender)>,
        status: Option<(TopicId, watch::Sender<ChannelStatus>)>,
        answer: Option<Answer>,
    },
    /// Do not wait out the pause before the next attempt; drop a connection that is open.
    ReconnectNow,
    /// Leave everything and close.
    Shutdown(oneshot::Sender<()>),
}

type Answer = (RequestId, oneshot::Sender<Result<Slice, Error>>);

/// A handle on the driver. The task starts with the first channel and ends when the last handle is dropped.
#[derive(Clone)]
pub(crate) struct Handle {
    inner: Arc<Inner>,
}

struct Inner {
    setup: Mutex<Option<Setup>>,
    parts: Mutex<Option<task::Inbox>>,
    /// Opens, leaves, shutdown: few, and must not wait behind pushes.
    control: mpsc::UnboundedSender<Message>,
    pushes: mpsc::Sender<Message>,
    status: watch::Receiver<Status>,
    counters: Arc<Counters>,
    /// The driver has the strong end: the streams end with it.
    heartbeats: broadcast::WeakSender<Heartbeat>,
    next_id: AtomicU64,
    /// The channels that have a holder.
    channels: Mutex<Vec<Weak<ChannelGuard>>>,
}

/// A joined channel, or one that is to be joined. When the last clone goes, the channel is left.
#[derive(Debug, Clone)]
pub(crate) struct ChannelHandle(Arc<ChannelGuard>);

struct ChannelGuard {
    topic: TopicId,
    name: String,
    traits: ChannelTraits,
    status: watch::Receiver<ChannelStatus>,
    handle: Handle,
}

/// How a channel was opened, for the calls on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ChannelTraits {
    pub(crate) private: bool,
    pub(crate) ack: bool,
    pub(crate) version: ProtocolVersion,
}

/// What [`Handle::open`] gives: the handle, and the signal that everything flows.
pub(crate) struct ChannelParts {
    pub(crate) handle: ChannelHandle,
    pub(crate) ready: Ready,
}

/// Resolves when everything that was asked for flows, or when it never will.
pub(crate) type Ready = oneshot::Receiver<Result<Slice, Error>>;

impl Handle {
    pub(crate) fn new(setup: Setup) -> Self {
        let (control, control_inbox) = mpsc::unbounded_channel();
        let (pushes, push_inbox) = mpsc::channel(PUSHES_AT_ONCE);
        let (status_sender, status) = watch::channel(Status::default());
        let counters = Arc::new(Counters::default());
        let inbox = task::Inbox {
            control: control_inbox,
            pushes: push_inbox,
            status: status_sender,
            counters: Arc::clone(&counters),
            heartbeats: broadcast::Sender::new(heartbeats::KEPT),
        };
        let heartbeats = inbox.heartbeats.downgrade();
        let inner = Inner {
            setup: Mutex::new(Some(setup)),
            parts: Mutex::new(Some(inbox)),
            control,
            pushes,
            status,
            counters,
            heartbeats,
            next_id: AtomicU64::new(1),
            channels: Mutex::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    pub(crate) fn status(&self) -> watch::Receiver<Status> {
        self.inner.status.clone()
    }

    pub(crate) fn heartbeats(&self) -> broadcast::Receiver<Heartbeat> {
        let sender = self.inner.heartbeats.upgrade();
        // Without a driver there are none any more: the other end is dropped here.
        sender.unwrap_or_else(|| broadcast::Sender::new(1)).subscribe()
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.inner.counters
    }

    fn next_id(&self) -> u64 {
        self.inner.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// Starts the task if it does not run yet: building a client does no I/O and needs no runtime.
    fn start(&self) -> Result<(), Error> {
        let mut setup = self.inner.setup.lock().unwrap_or_else(PoisonError::into_inner);
        if setup.is_none() {
            return Ok(());
        }
        let runtime = current_runtime()?;
        let parts = self.inner.parts.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let (Some(setup), Some(inbox)) = (setup.take(), parts) {
            runtime.spawn(task::run(setup, inbox));
        }
        Ok(())
    }

    /// Joins a channel and keeps it joined, filling these mailboxes. Does not wait.
    pub(crate) fn open(
        &self,
        name: String,
        config: JoinConfig,
        version: ProtocolVersion,
        senders: Vec<(Interest, Sender)>,
    ) -> Result<ChannelParts, Error> {
        self.start()?;
        let topic = TopicId(self.next_id());
        let (mut mailboxes, mut subscribers) = (Vec::new(), Vec::new());
        for (interest, sender) in senders {
            let id = SubscriberId(self.next_id());
            mailboxes.push((id, sender));
            subscribers.push(Subscriber { id, interest });
        }
        let request = RequestId(self.next_id());
        let (answer, ready) = oneshot::channel();
        let (status_sender, status) = watch::channel(ChannelStatus::Joining);
        let traits = ChannelTraits { private: config.private, ack: config.broadcast.ack, version };
        let command = Command::Open { topic, name: name.clone(), config, subscribers, ready: request };
        // If the driver is gone, the dropped senders show it.
        let _ = self.inner.control.send(Message::Command {
            command,
            mailboxes,
            status: Some((topic, status_sender)),
            answer: Some((request, answer)),
        });
        let guard = Arc::new(ChannelGuard { topic, name, traits, status, handle: self.clone() });
        self.remember(&guard);
        Ok(ChannelParts { handle: ChannelHandle(guard), ready })
    }

    fn remember(&self, guard: &Arc<ChannelGuard>) {
        let mut channels = self.inner.channels.lock().unwrap_or_else(PoisonError::into_inner);
        channels.retain(|known| known.strong_count() > 0);
        channels.push(Arc::downgrade(guard));
    }

    /// The channels that have a holder and have not ended.
    pub(crate) fn channels(&self) -> Vec<ChannelHandle> {
        let known: Vec<_> = self
            .inner
            .channels
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .map(Weak::upgrade)
            .collect();
        let held = known.into_iter().flatten().map(ChannelHandle);
        held.filter(|channel| !channel.status().borrow().is_final()).collect()
    }

    /// Sends a command that the session answers.
    async fn request(&self, make: impl FnOnce(RequestId) -> Command) -> Result<Slice, Error> {
        let request = RequestId(self.next_id());
        let (answer, answered) = oneshot::channel();
        let message = Message::Command {
            command: make(request),
            mailboxes: Vec::new(),
            status: None,
            answer: Some((request, answer)),
        };
        self.inner.pushes.send(message).await.map_err(|_| Error::new(ErrorKind::Closed))?;
        answered.await.unwrap_or_else(|_| Err(Error::new(ErrorKind::Closed)))
    }

    /// Sends a command without an answer.
    async fn send(&self, command: Command) -> Result<(), Error> {
        let message = Message::Command { command, mailboxes: Vec::new(), status: None, answer: None };
        self.inner.pushes.send(message).await.map_err(|_| Error::new(ErrorKind::Closed))
    }

    /// Sends a command without an answer, which must not wait.
    fn control(&self, command: Command) {
        let message = Message::Command { command, mailboxes: Vec::new(), status: None, answer: None };
        let _ = self.inner.control.send(message);
    }

    pub(crate) fn refresh_auth(&self) {
        self.control(Command::RefreshToken);
    }

    pub(crate) fn reconnect_now(&self) {
        let _ = self.inner.control.send(Message::ReconnectNow);
    }

    /// Leaves all channels and closes the connection.
    pub(crate) async fn shutdown(&self) {
        let never_started = self.inner.setup.lock().unwrap_or_else(PoisonError::into_inner).take().is_some();
        if never_started {
            // Without its ends, every later call returns that the client is closed.
            drop(self.inner.parts.lock().unwrap_or_else(PoisonError::into_inner).take());
            return;
        }
        let (done, finished) = oneshot::channel();
        if self.inner.control.send(Message::Shutdown(done)).is_ok() {
            let _ = finished.await;
        }
    }
}

impl ChannelHandle {
    pub(crate) fn name(&self) -> &str {
        &self.0.name
    }

    pub(crate) fn traits(&self) -> ChannelTraits {
        self.0.traits
    }

    pub(crate) fn status(&self) -> watch::Receiver<ChannelStatus> {
        self.0.status.clone()
    }

    /// Why nothing can be sent any more, if so.
    fn final_error(&self) -> Option<Error> {
        match &*self.0.status.borrow() {
            ChannelStatus::Ended(error) => Some(error.duplicate()),
            ChannelStatus::Left => Some(Error::new(ErrorKind::Closed)),
            _ => None,
        }
    }

    /// Why it does not flow, for those that waited for it.
    pub(crate) fn last_error(&self) -> Option<Error> {
        match &*self.0.status.borrow() {
            ChannelStatus::Interrupted(error) | ChannelStatus::Ended(error) => Some(error.duplicate()),
            _ => self.0.handle.inner.status.borrow().last_error.clone(),
        }
    }

    /// Sends an event on the channel, and awaits the server's answer if there is one to await.
    pub(crate) async fn push(
        &self,
        event: &'static str,
        payload: crate::wire::Payload,
        timeout: Duration,
        answered: bool,
    ) -> Result<(), Error> {
        if let Some(error) = self.final_error() {
            return Err(error);
        }
        let topic = self.0.topic;
        if answered {
            let make = |request| Command::Push { topic, request: Some(request), event, payload, timeout };
            self.0.handle.request(make).await.map(drop)
        } else {
            self.0.handle.send(Command::Push { topic, request: None, event, payload, timeout }).await
        }
    }

    /// Leaves the channel and awaits the server's answer.
    pub(crate) async fn leave(&self) -> Result<(), Error> {
        let topic = self.0.topic;
        let released =
            self.0.handle.request(|request| Command::Release { topic, request: Some(request), cause: None });
        match released.await {
            // A client that is closed has left everything.
            Err(error) if *error.kind() == ErrorKind::Closed => Ok(()),
            other => other.map(drop),
        }
    }

    /// Leaves the channel because of this error; its streams end with it. Does not wait.
    pub(crate) fn give_up(&self, cause: Error) {
        self.0.handle.control(Command::Release { topic: self.0.topic, request: None, cause: Some(cause) });
    }

    /// Joins the channel anew.
    pub(crate) fn rejoin(&self) {
        self.0.handle.control(Command::Rejoin { topic: self.0.topic });
    }

    /// Tracks a presence payload (JSON text of an object), or stops tracking.
    pub(crate) async fn track(&self, payload: Option<String>, timeout: Duration) -> Result<(), Error> {
        let topic = self.0.topic;
        self.0.handle.request(|request| Command::Track { topic, request, payload, timeout }).await.map(drop)
    }
}

impl Drop for ChannelGuard {
    fn drop(&mut self) {
        self.handle.control(Command::Leave { topic: self.topic });
    }
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handle").field("status", &*self.inner.status.borrow()).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for ChannelGuard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ChannelGuard({:?}, {:?})", self.name, &*self.status.borrow())
    }
}

/// The runtime of the caller.
///
/// # Errors
/// [`InvalidInput`](ErrorKind::InvalidInput) outside of a runtime.
pub(crate) fn current_runtime() -> Result<tokio::runtime::Handle, Error> {
    tokio::runtime::Handle::try_current()
        .map_err(|_| Error::invalid("runtime", "this must be called within a tokio runtime"))
}

/// The answers that are waited for.
type Answers = HashMap<RequestId, oneshot::Sender<Result<Slice, Error>>>;
