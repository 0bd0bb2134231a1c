//! The life of the driver: connect, serve (see [`exchange`](super::exchange)), wait, again.

use std::{
    collections::{BTreeMap, HashMap},
    future::pending,
    hash::{BuildHasher as _, RandomState},
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{
    sync::{broadcast, mpsc, oneshot, watch},
    time::{Instant, sleep_until},
};
use tracing::Instrument as _;

use super::{
    Answers, Counters, Heartbeat, Message, Phase, Setup, Status, mailbox,
    token_fetch::{FetchedToken, TokenFetch},
};
use crate::{
    backoff::Backoff,
    error::{Error, ErrorKind, Retry},
    session::{Action, ChannelStatus, Command, Delivery, Renewal, Session, SubscriberId, TopicId},
    socket::{Closed, Opened},
    telemetry::{CONNECT_SPAN, CONNECTION_SPAN, TARGET},
    wire::{Outbound, close},
};

/// The pause after a refusal of what had worked before.
const AFTER_REFUSAL: Duration = Duration::from_secs(30);
/// The longest pause that somebody else may request: a `Retry-After` can be a year, or more than a clock can count.
const LONGEST_REQUESTED: Duration = Duration::from_secs(3600);

/// The driver's ends of the handles' channels.
pub(super) struct Inbox {
    pub(super) control: mpsc::UnboundedReceiver<Message>,
    pub(super) pushes: mpsc::Receiver<Message>,
    pub(super) status: watch::Sender<Status>,
    pub(super) counters: Arc<Counters>,
    pub(super) heartbeats: broadcast::Sender<Heartbeat>,
}

impl Inbox {
    /// Reports to the observers of the heartbeats.
    pub(super) fn heartbeat(&self, heartbeat: Heartbeat) {
        // There may be no observer.
        let _ = self.heartbeats.send(heartbeat);
    }
}

/// Why serving a connection ended.
pub(super) enum Exit {
    /// The connection is gone.
    Lost(Closed),
    /// The peer answers no longer, or the machine was suspended: not worth a closing handshake.
    Dead(&'static str),
    /// The user requested a new connection.
    Requested,
    /// No channel is in use.
    Unwanted,
    /// The user, or the last handle, is gone.
    Shutdown(Option<oneshot::Sender<()>>),
}

/// Why the session ends a connection.
#[derive(Debug, Clone, Copy)]
pub(super) enum ShutdownSignal {
    /// The peer does not answer.
    Dead,
    /// The gateway's token for our key is over; a new connection gets a new one.
    KeyEnded,
}

/// What the one task holds.
pub(super) struct Driver {
    pub(super) setup: Setup,
    pub(super) inbox: Inbox,
    pub(super) session: Session,
    pub(super) mailboxes: BTreeMap<SubscriberId, mailbox::Sender>,
    pub(super) channels: HashMap<TopicId, watch::Sender<ChannelStatus>>,
    pub(super) answers: Answers,
    /// The session's actions, performed in order. Emptied after each message; its memory is used again.
    pub(super) actions: Vec<Action>,
    /// Those of them that need the socket.
    pub(super) outgoing: Vec<Outbound>,
    /// Why the session ends this connection.
    pub(super) ending: Option<ShutdownSignal>,
    /// Mailboxes that got something since the last wake-up.
    pub(super) touched: Vec<SubscriberId>,
    /// Events put into mailboxes since then.
    pub(super) delivered: u64,
    pub(super) tokens: TokenFetch,
    /// A connection proved to work at some time: what is refused later is no mistake in the settings.
    pub(super) proved_once: bool,
    /// The status shows that this connection proved to work.
    pub(super) proven_status: bool,
    pub(super) backoff: Backoff,
}

/// Runs until the last handle is gone.
pub(super) async fn run(setup: Setup, inbox: Inbox) {
    let tokens = TokenFetch::new(setup.tokens.clone());
    let mut broken_source = None;
    let can_refresh = tokens.can_refresh().unwrap_or_else(|error| {
        broken_source = Some(error);
        false
    });
    let renewal = match (tokens.has_source(), can_refresh) {
        (true, true) => Renewal::BySource,
        // The gateway turns such a key into a short token of its own, a new one for each connection.
        (false, _) if setup.key.is_opaque() => Renewal::ByReconnect,
        _ => Renewal::Never,
    };
    let has_source = tokens.has_source();
    let unix_ms = unix_ms(SystemTime::now());
    let session = Session::new(setup.settings.clone(), has_source, renewal, now(), unix_ms);
    let backoff = Backoff::new(setup.initial_backoff, setup.max_backoff);
    let mut driver = Driver {
        setup,
        inbox,
        session,
        mailboxes: BTreeMap::new(),
        channels: HashMap::new(),
        answers: HashMap::new(),
        actions: Vec::new(),
        outgoing: Vec::new(),
        ending: None,
        touched: Vec::new(),
        delivered: 0,
        tokens,
        proved_once: false,
        proven_status: false,
        backoff,
    };
    if let Some(error) = broken_source {
        driver.record_error(error);
    }
    let done = driver.live().await;
    driver.close_all(&Error::new(ErrorKind::Closed));
    if let Some(done) = done {
        let _ = done.send(());
    }
}

impl Driver {
    async fn live(&mut self) -> Option<oneshot::Sender<()>> {
        loop {
            if !self.session.wants_connection(now()) {
                self.set_status(|status| status.phase = Phase::Idle);
                if let Some(Exit::Shutdown(done)) = self.wait_until(None).await {
                    return done;
                }
                continue;
            }
            let attempt = self.backoff.attempt();
            self.set_status(|status| status.phase = Phase::Connecting { attempt });
            let span = tracing::info_span!(target: TARGET, CONNECT_SPAN, attempt);
            let connected = self.connect().instrument(span).await;
            let pause = match connected {
                Err(Exit::Shutdown(done)) => return done,
                Err(_) => continue,
                Ok(Ok(opened)) => match self
                    .serve(opened)
                    .instrument(tracing::info_span!(target: TARGET, CONNECTION_SPAN))
                    .await
                {
                    Exit::Shutdown(done) => return done,
                    Exit::Unwanted | Exit::Requested => Duration::ZERO,
                    Exit::Lost(closed) => self.pause_after_close(&closed),
                    Exit::Dead(_) => self.backoff.next_pause(),
                },
                Ok(Err(error)) => match self.pause_after_refusal(error) {
                    Some(pause) => pause,
                    None => continue,
                },
            };
            if pause.is_zero() {
                continue;
            }
            let retry_at = Instant::now() + pause;
            let attempt = self.backoff.attempt();
            self.set_status(|status| status.phase = Phase::Backoff { attempt, retry_at });
            if let Some(Exit::Shutdown(done)) = self.wait_until(Some(retry_at)).await {
                return done;
            }
        }
    }

    /// Waits without a connection: for the time, for a command that changes something, or for the end.
    async fn wait_until(&mut self, time: Option<Instant>) -> Option<Exit> {
        let timer = async {
            match time {
                Some(time) => sleep_until(time).await,
                None => pending().await,
            }
        };
        tokio::pin!(timer);
        loop {
            let wake = self.session.wake().map(Instant::from_std);
            tokio::select! {
                () = &mut timer => return None,
                message = self.inbox.control.recv() => match self.handle(message) {
                    Some(Exit::Requested) => return None,
                    Some(exit) => return Some(exit),
                    None if time.is_none() => return None,
                    None => {}
                },
                Some(message) = self.inbox.pushes.recv() => { self.handle(Some(message)); }
                () = sleep_until_some(wake) => self.step(Session::tick),
            }
            if time.is_some() && !self.session.wants_connection(now()) {
                return None;
            }
        }
    }

    /// Requests a token, then dials. Commands are served meanwhile.
    async fn connect(&mut self) -> Result<Result<Opened, Error>, Exit> {
        if self.tokens.has_source() {
            self.tokens.start();
            match self.token_answer().await? {
                Ok(token) => self.step(|session, now, out| session.on_token(Ok(token), now, out)),
                Err(error) => return Ok(Err(error)),
            }
        }
        let url = match self.setup.endpoint.websocket(&self.setup.key, self.setup.version, &self.setup.query)
        {
            Ok(url) => url,
            Err(error) => return Ok(Err(error)),
        };
        let dialer = self.setup.dialer.clone();
        let dialling = dialer.dial(&url);
        tokio::pin!(dialling);
        loop {
            let wake = self.session.wake().map(Instant::from_std);
            tokio::select! {
                result = &mut dialling => return Ok(result),
                message = self.inbox.control.recv() => {
                    if let Some(exit) = self.handle(message) {
                        return Err(exit);
                    }
                }
                Some(message) = self.inbox.pushes.recv() => { self.handle(Some(message)); }
                () = sleep_until_some(wake) => self.step(Session::tick),
            }
        }
    }

    /// The answer of the token source; commands are served meanwhile.
    async fn token_answer(&mut self) -> Result<FetchedToken, Exit> {
        loop {
            let wake = self.session.wake().map(Instant::from_std);
            tokio::select! {
                answer = self.tokens.finished() => return Ok(answer),
                message = self.inbox.control.recv() => {
                    if let Some(exit) = self.handle(message) {
                        return Err(exit);
                    }
                }
                Some(message) = self.inbox.pushes.recv() => { self.handle(Some(message)); }
                () = sleep_until_some(wake) => self.step(Session::tick),
            }
        }
    }

    /// Lets the session run, and performs its actions.
    pub(super) fn step(&mut self, run: impl FnOnce(&mut Session, std::time::Instant, &mut Vec<Action>)) {
        run(&mut self.session, now(), &mut self.actions);
        self.perform();
        self.wake_readers();
    }

    /// A message from a handle; `None` from the channel means that all handles are gone.
    pub(super) fn handle(&mut self, message: Option<Message>) -> Option<Exit> {
        match message {
            Some(Message::Command { command, mailboxes, status, answer }) => {
                let leaving = matches!(command, Command::Leave { .. } | Command::Release { .. });
                if leaving {
                    self.handle_pushes();
                }
                self.mailboxes.extend(mailboxes);
                self.channels.extend(status);
                self.answers.extend(answer);
                self.step(|session, now, out| session.on_command(command, now, out));
                if leaving {
                    self.mailboxes.retain(|_, mailbox| !mailbox.is_abandoned());
                    self.channels.retain(|_, status| !status.is_closed());
                }
                self.update_status();
                None
            }
            Some(Message::ReconnectNow) => Some(Exit::Requested),
            Some(Message::Shutdown(done)) => {
                self.handle_pushes();
                Some(Exit::Shutdown(Some(done)))
            }
            None => Some(Exit::Shutdown(None)),
        }
    }

    /// What was sent before the end goes before it, whichever queue it came by.
    fn handle_pushes(&mut self) {
        while let Ok(message) = self.inbox.pushes.try_recv() {
            self.handle(Some(message));
        }
    }

    /// How long to wait after a connection that was lost.
    fn pause_after_close(&mut self, closed: &Closed) -> Duration {
        let first = self.backoff.attempt() == 0;
        let pause = self.backoff.next_pause();
        let pause = match close::classify(closed.code) {
            // A server that restarts closed its whole fleet in the same moment: it comes back over some seconds.
            close::CloseClass::Routine if first => spread(self.setup.initial_backoff, self.setup.max_backoff),
            _ => pause,
        };
        let stay_away = self.session.stay_away_until().map(|until| until.saturating_duration_since(now()));
        pause.max(stay_away.unwrap_or_default())
    }

    /// Why a connection is over, in an error's form; `None` if it need not be reported.
    pub(super) fn error_of(exit: &Exit) -> Option<Error> {
        let (code, reason) = match exit {
            Exit::Lost(closed) => (
                closed.code,
                closed.detail.clone().unwrap_or_else(|| close::describe(closed.code).to_owned()),
            ),
            Exit::Dead(why) => (None, (*why).to_owned()),
            Exit::Requested | Exit::Unwanted | Exit::Shutdown(_) => return None,
        };
        Some(Error::new(ErrorKind::ConnectionLost { code, reason }))
    }

    /// How long to wait after an attempt that failed; `None` if there is nothing left to wait for.
    fn pause_after_refusal(&mut self, error: Error) -> Option<Duration> {
        let pause = self.backoff.next_pause();
        let pause = match error.retry() {
            // It worked before: a key that is being rotated, a gateway that starts, a project that is paused.
            Retry::Never if self.proved_once && matches!(error.kind(), ErrorKind::Handshake { .. }) => {
                pause.max(AFTER_REFUSAL)
            }
            // The key itself is refused, or the session has ended: no token of ours can change that.
            Retry::Never | Retry::RefreshToken => {
                self.step(|session, now, out| session.end_all(&error, now, out));
                self.record_error(error);
                return None;
            }
            Retry::After(least) => {
                let least = least.min(LONGEST_REQUESTED);
                least + pause.min(least)
            }
            _ => pause,
        };
        self.step(|session, _, out| session.interrupt_all(&error, out));
        self.record_error(error);
        Some(pause)
    }

    /// Records why something ended, for the status.
    pub(super) fn record_error(&self, error: Error) {
        tracing::warn!(target: TARGET, error = format!("{error:#}"), "not connected");
        self.set_status(|status| status.last_error = Some(error));
    }

    pub(super) fn set_status(&self, change: impl FnOnce(&mut Status)) {
        self.inbox.status.send_modify(change);
    }

    pub(super) fn update_status(&self) {
        let (channels, live) = self.session.channels();
        let round_trip = self.session.round_trip();
        self.inbox.status.send_if_modified(|status| {
            let before = (status.channels, status.subscribed_channels, status.round_trip);
            (status.channels, status.subscribed_channels) = (channels, live);
            status.round_trip = round_trip.or(status.round_trip);
            before != (status.channels, status.subscribed_channels, status.round_trip)
        });
    }

    fn close_all(&mut self, error: &Error) {
        self.set_status(|status| status.phase = Phase::Closed);
        for (_, answer) in self.answers.drain() {
            let _ = answer.send(Err(error.duplicate()));
        }
        for (_, mailbox) in std::mem::take(&mut self.mailboxes) {
            mailbox.put(Delivery::End(error.duplicate()));
        }
        for (_, channel) in self.channels.drain() {
            channel.send_modify(|status| {
                if !status.is_final() {
                    *status = if *error.kind() == ErrorKind::Closed {
                        ChannelStatus::Left
                    } else {
                        ChannelStatus::Ended(error.duplicate())
                    };
                }
            });
        }
    }
}

/// A task that ends in another way than by its own end (a panic, a runtime that is shut down) is reported to all that wait.
impl Drop for Driver {
    fn drop(&mut self) {
        if self.inbox.status.borrow().phase == Phase::Closed {
            return;
        }
        let reason = "the client's own task ended unexpectedly".to_owned();
        let error = Error::new(ErrorKind::ConnectionLost { code: None, reason });
        let shown = error.duplicate();
        self.set_status(|status| status.last_error = Some(shown));
        self.close_all(&error);
    }
}

/// A pause of a fleet's member, drawn evenly: over five seconds, or ten times the initial backoff if that is less.
fn spread(initial: Duration, max: Duration) -> Duration {
    let bound = (initial * 10).min(max).min(Duration::from_secs(5));
    let drawn = RandomState::new().hash_one(std::time::Instant::now());
    bound.mul_f64(f64::from(u16::try_from(drawn & 0xffff).unwrap_or_default()) / f64::from(u16::MAX))
}

/// Milliseconds since 1970.
pub(super) fn unix_ms(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or_default()
}

pub(super) fn now() -> std::time::Instant {
    // Tokio's clock, so that tests that pause time pause the session with it.
    Instant::now().into_std()
}

pub(super) async fn sleep_until_some(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => pending().await,
    }
}
