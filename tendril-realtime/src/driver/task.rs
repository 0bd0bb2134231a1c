//! The loop: connect, serve, wait, again.

use std::{
    collections::HashMap,
    future::pending,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{
    sync::{mpsc, oneshot, watch},
    task::yield_now,
    time::{Instant, sleep_until, timeout},
};

use tracing::Instrument as _;

use super::{
    Answers, Counters, Message, Phase, Setup, Status,
    clocks::Clocks,
    mailbox,
    token_question::{TokenAnswer, TokenQuestion},
};
use crate::{
    backoff::Backoff,
    error::{Error, ErrorKind, Retry},
    session::{Action, Command, Delivery, Renewal, Session, SubscriberId},
    socket::{Closed, Received, Socket},
    telemetry::{CONNECT_SPAN, CONNECTION_SPAN, TARGET},
    wire::{self, Outbound, close, event},
};

/// Messages taken from the socket before commands and timers get their turn.
const BATCH: usize = 64;
/// How long a goodbye may take.
const GOODBYE: Duration = Duration::from_secs(2);
/// How often the clocks are compared.
const LOOK_AT_CLOCKS: Duration = Duration::from_secs(5);
/// The pause after a refusal of what had worked before.
const AFTER_REFUSAL: Duration = Duration::from_secs(30);

/// The driver's ends of the handles' channels.
pub(super) struct Inbox {
    pub(super) control: mpsc::UnboundedReceiver<Message>,
    pub(super) pushes: mpsc::Receiver<Message>,
    pub(super) status: watch::Sender<Status>,
    pub(super) counters: Arc<Counters>,
}

/// Why serving a connection ended.
enum Exit {
    /// The connection is gone.
    Lost(Closed),
    /// The peer answers no more, or the machine slept: not worth a goodbye.
    Dead(&'static str),
    /// The user wants a new connection.
    Requested,
    /// Nobody wants a channel.
    Unwanted,
    /// The user, or the last handle, is gone.
    Shutdown(Option<oneshot::Sender<()>>),
}

/// Why the session ends a connection.
#[derive(Debug, Clone, Copy)]
enum Ending {
    /// The peer does not answer.
    Dead,
    /// The gateway's token for our key is over; a new connection gets a new one.
    KeyEnded,
}

struct Driver {
    setup: Setup,
    inbox: Inbox,
    session: Session,
    mailboxes: HashMap<SubscriberId, mailbox::Sender>,
    answers: Answers,
    /// The session's wishes, performed in order. Emptied after each message, its memory kept.
    actions: Vec<Action>,
    /// Those of them that need the socket.
    outgoing: Vec<Outbound>,
    /// Why the session wants this connection to end.
    ending: Option<Ending>,
    /// Mailboxes that got something since the last wake-up.
    touched: Vec<SubscriberId>,
    tokens: TokenQuestion,
    /// A connection proved to work at some time: what is refused later is no mistake in the settings.
    proved_once: bool,
    backoff: Backoff,
}

/// Runs until the last handle is gone.
pub(super) async fn run(setup: Setup, inbox: Inbox) {
    let tokens = TokenQuestion::new(setup.tokens.clone());
    let renewal = match (tokens.has_source(), tokens.can_refresh()) {
        (true, true) => Renewal::BySource,
        // The gateway turns such a key into a short token of its own, a new one for each connection.
        (false, _) if setup.key.is_opaque() => Renewal::ByRedial,
        _ => Renewal::Never,
    };
    let has_source = tokens.has_source();
    let unix_ms = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis();
    let unix_ms = u64::try_from(unix_ms).unwrap_or_default();
    let session = Session::new(setup.settings.clone(), has_source, renewal, now(), unix_ms);
    let backoff = Backoff::new(setup.reconnect_first, setup.reconnect_longest);
    let mut driver = Driver {
        setup,
        inbox,
        session,
        mailboxes: HashMap::new(),
        answers: HashMap::new(),
        actions: Vec::new(),
        outgoing: Vec::new(),
        ending: None,
        touched: Vec::new(),
        tokens,
        proved_once: false,
        backoff,
    };
    let done = driver.live().await;
    driver.say(|status| status.phase = Phase::Closed);
    driver.close_all();
    if let Some(done) = done {
        let _ = done.send(());
    }
}

impl Driver {
    async fn live(&mut self) -> Option<oneshot::Sender<()>> {
        loop {
            if !self.session.wants_connection(now()) {
                self.say(|status| status.phase = Phase::Idle);
                if let Some(Exit::Shutdown(done)) = self.wait_until(None).await {
                    return done;
                }
                continue;
            }
            let attempt = self.backoff.attempt();
            self.say(|status| status.phase = Phase::Connecting { attempt });
            let span = tracing::info_span!(target: TARGET, CONNECT_SPAN, attempt);
            let connected = self.connect().instrument(span).await;
            let pause = match connected {
                Err(Exit::Shutdown(done)) => return done,
                Err(_) => continue,
                Ok(Ok(socket)) => match self
                    .serve(socket)
                    .instrument(tracing::info_span!(target: TARGET, CONNECTION_SPAN))
                    .await
                {
                    Exit::Shutdown(done) => return done,
                    Exit::Unwanted | Exit::Requested => Duration::ZERO,
                    Exit::Lost(closed) => self.pause_after_close(&closed),
                    Exit::Dead(why) => {
                        self.note(Error::new(ErrorKind::ConnectionLost {
                            code: None,
                            reason: why.to_owned(),
                        }));
                        Duration::ZERO
                    }
                },
                Ok(Err(error)) => match self.pause_after_refusal(error) {
                    Some(pause) => pause,
                    None => continue,
                },
            };
            if pause.is_zero() {
                continue;
            }
            let next_try = Instant::now() + pause;
            let attempt = self.backoff.attempt();
            self.say(|status| status.phase = Phase::Waiting { attempt, next_try });
            if let Some(Exit::Shutdown(done)) = self.wait_until(Some(next_try)).await {
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

    /// Asks for a token, then dials. Commands are served meanwhile.
    async fn connect(&mut self) -> Result<Result<Socket, Error>, Exit> {
        if self.tokens.has_source() {
            self.tokens.ask();
            match self.token_answer().await? {
                Ok(token) => self.step(|session, now, out| session.on_token(Ok(token), now, out)),
                Err(error) => return Ok(Err(error)),
            }
        }
        let url = match self.setup.endpoint.websocket(&self.setup.key, self.setup.version) {
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
    async fn token_answer(&mut self) -> Result<TokenAnswer, Exit> {
        loop {
            let wake = self.session.wake().map(Instant::from_std);
            tokio::select! {
                answer = self.tokens.answer() => return Ok(answer),
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

    /// Serves an open connection until it ends.
    async fn serve(&mut self, mut socket: Socket) -> Exit {
        self.inbox.counters.connections.add(1);
        let since = Instant::now();
        tracing::info!(target: TARGET, "connected");
        self.say(|status| status.phase = Phase::Open { since });
        self.step(Session::on_open);
        let exit = self.exchange(&mut socket).await;
        if matches!(exit, Exit::Shutdown(_) | Exit::Unwanted | Exit::Requested) {
            let _ = timeout(GOODBYE, socket.close()).await;
        }
        if self.session.is_proved() {
            self.backoff.reset();
            self.proved_once = true;
        }
        self.step(Session::on_closed);
        // What was not sent is made anew for the next connection.
        self.outgoing.clear();
        self.ending = None;
        self.update_status();
        exit
    }

    async fn exchange(&mut self, socket: &mut Socket) -> Exit {
        let mut received = Vec::with_capacity(BATCH);
        let mut clocks = Clocks::new(now(), SystemTime::now());
        let mut wake = None;
        let mut stale = true;
        loop {
            if let Some(dead) = self.send_outgoing(socket) {
                return dead;
            }
            if stale {
                // A machine that wakes up should notice it soon, whatever the session waits for.
                let look = Instant::now() + LOOK_AT_CLOCKS;
                wake = Some(self.session.wake().map_or(look, |wake| look.min(Instant::from_std(wake))));
                self.update_status();
                stale = false;
            }
            tokio::select! {
                () = socket.receive(&mut received, BATCH) => {
                    let more_waits = received.len() >= BATCH;
                    if let Some(closed) = self.take_in(&mut received, &mut stale) {
                        return Exit::Lost(closed);
                    }
                    if more_waits {
                        // Readers on the same thread get their turn before their mailboxes are full.
                        yield_now().await;
                    }
                }
                message = self.inbox.control.recv() => {
                    if let Some(exit) = self.handle(message) {
                        // Leaves that were asked for go out before the goodbye.
                        self.send_outgoing(socket);
                        return exit;
                    }
                    stale = true;
                }
                // A peer that reads slowly makes the senders wait, not our memory grow.
                Some(message) = self.inbox.pushes.recv(), if !socket.is_congested() => {
                    self.handle(Some(message));
                    stale = true;
                }
                answer = self.tokens.answer() => {
                    self.step(|session, now, out| session.on_token(answer, now, out));
                    stale = true;
                }
                () = sleep_until_some(wake) => {
                    if clocks.slept(self.setup.settings.heartbeat_interval, now(), SystemTime::now()) {
                        return Exit::Dead("the machine was asleep");
                    }
                    self.step(Session::tick);
                    if !self.session.wants_connection(now()) {
                        return Exit::Unwanted;
                    }
                    stale = true;
                }
            }
        }
    }

    /// Feeds a batch to the session and fills the mailboxes; wakes each reader once.
    fn take_in(&mut self, received: &mut Vec<Received>, stale: &mut bool) -> Option<Closed> {
        let mut closed = None;
        let at = now();
        let mut bytes = 0;
        let frames = received.len() as u64;
        for item in received.drain(..) {
            let message = match item {
                Received::Text(text) => {
                    bytes += text.as_str().len();
                    wire::text::decode(&text)
                }
                Received::Binary(frame) => {
                    bytes += frame.len();
                    wire::binary::decode(&frame)
                }
                Received::Control => {
                    self.session.on_sign_of_life(at);
                    *stale = true;
                    continue;
                }
                Received::Closed(end) => {
                    closed = Some(end);
                    continue;
                }
            };
            match message {
                Ok(message) => {
                    *stale |=
                        !matches!(message.body, wire::Body::Change(_)) || self.session.is_heartbeat_open();
                    self.session.on_message(message, at, &mut self.actions);
                }
                Err(error) => {
                    self.inbox.counters.malformed_frames.add(1);
                    tracing::debug!(target: TARGET, %error, "a frame was passed over");
                    self.session.on_sign_of_life(at);
                    *stale = true;
                }
            }
            self.perform();
        }
        self.wake_readers();
        self.inbox.counters.frames_received.add(frames);
        self.inbox.counters.bytes_received.add(bytes as u64);
        closed
    }

    /// Performs what needs no socket; keeps the rest.
    fn perform(&mut self) {
        let mut actions = std::mem::take(&mut self.actions);
        for action in actions.drain(..) {
            match action {
                Action::Deliver(subscriber, delivery) => self.deliver(subscriber, delivery),
                Action::Send(message) => self.outgoing.push(message),
                Action::Drop => self.ending = Some(Ending::Dead),
                Action::Redial => self.ending = self.ending.or(Some(Ending::KeyEnded)),
                Action::Answer(request, answer) => {
                    if let Some(waiting) = self.answers.remove(&request) {
                        let _ = waiting.send(answer);
                    }
                }
                Action::AskForToken => self.tokens.ask(),
                Action::TokenRefused(token) => self.tokens.refused(token),
            }
        }
        self.actions = actions;
    }

    fn deliver(&mut self, subscriber: SubscriberId, delivery: Delivery) {
        let Some(mailbox) = self.mailboxes.get(&subscriber) else { return };
        if matches!(delivery, Delivery::Resync(_)) {
            self.inbox.counters.resyncs.add(1);
        }
        let ends = matches!(delivery, Delivery::End(_));
        let dropped = mailbox.put(delivery);
        self.inbox.counters.events_delivered.add(1);
        if dropped > 0 {
            self.inbox.counters.events_dropped.add(dropped);
        }
        if ends {
            // Dropping the sender wakes the reader.
            self.mailboxes.remove(&subscriber);
        } else if self.touched.last() != Some(&subscriber) {
            self.touched.push(subscriber);
        }
    }

    fn wake_readers(&mut self) {
        for subscriber in self.touched.drain(..) {
            if let Some(mailbox) = self.mailboxes.get(&subscriber) {
                mailbox.wake();
            }
        }
    }

    /// Puts the session's messages into the socket's outbox.
    fn send_outgoing(&mut self, socket: &mut Socket) -> Option<Exit> {
        let mut outgoing = std::mem::take(&mut self.outgoing);
        for message in outgoing.drain(..) {
            self.send(&message, socket);
        }
        self.outgoing = outgoing;
        self.ending.take().map(|ending| match ending {
            Ending::Dead => Exit::Dead("the server answers no more"),
            Ending::KeyEnded => {
                let detail = "the token that the gateway made of the key has ended".to_owned();
                Exit::Lost(Closed { code: None, detail: Some(detail) })
            }
        })
    }

    fn send(&self, message: &Outbound, socket: &mut Socket) {
        let bytes = match wire::text::encode(message, self.setup.version) {
            // A heartbeat behind megabytes would come too late.
            Some(text) if message.event == event::name::HEARTBEAT => socket.queue_first(text),
            Some(text) => socket.queue_text(text),
            // Checked when it was accepted.
            None => match wire::binary::encode(message) {
                Ok(Some(frame)) => socket.queue_binary(frame),
                Ok(None) | Err(_) => return,
            },
        };
        self.inbox.counters.frames_sent.add(1);
        self.inbox.counters.bytes_sent.add(bytes as u64);
    }

    /// Lets the session run, and performs what it wants.
    fn step(&mut self, run: impl FnOnce(&mut Session, std::time::Instant, &mut Vec<Action>)) {
        run(&mut self.session, now(), &mut self.actions);
        self.perform();
        self.wake_readers();
    }

    /// A message from a handle; `None` from the channel means that all handles are gone.
    fn handle(&mut self, message: Option<Message>) -> Option<Exit> {
        match message {
            Some(Message::Command { command, mailboxes, answer }) => {
                if matches!(command, Command::Leave { .. }) {
                    self.handle_pushes();
                }
                self.mailboxes.extend(mailboxes);
                self.answers.extend(answer);
                let leaving = matches!(command, Command::Leave { .. });
                self.step(|session, now, out| session.on_command(command, now, out));
                if leaving {
                    self.mailboxes.retain(|_, mailbox| !mailbox.is_abandoned());
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

    /// What was sent before a farewell goes before it, whichever queue it came by.
    fn handle_pushes(&mut self) {
        while let Ok(message) = self.inbox.pushes.try_recv() {
            self.handle(Some(message));
        }
    }

    /// How long to wait after a connection that was lost.
    fn pause_after_close(&mut self, closed: &Closed) -> Duration {
        let reason = closed.detail.clone().unwrap_or_else(|| close::describe(closed.code).to_owned());
        self.note(Error::new(ErrorKind::ConnectionLost { code: closed.code, reason }));
        let first = self.backoff.attempt() == 0;
        let pause = self.backoff.next_pause();
        let pause = match close::classify(closed.code) {
            // A little jitter: the whole fleet was closed in the same moment.
            close::CloseClass::Routine if first => pause.min(Duration::from_millis(500)),
            _ => pause,
        };
        let stay_away = self.session.stay_away_until().map(|until| until.saturating_duration_since(now()));
        pause.max(stay_away.unwrap_or_default())
    }

    /// How long to wait after an attempt that failed; `None` if there is nothing left to wait for.
    fn pause_after_refusal(&mut self, error: Error) -> Option<Duration> {
        let pause = self.backoff.next_pause();
        let pause = match error.retry() {
            // It worked before: a key that is being rotated, a gateway that starts, a project that is paused.
            Retry::Never
                if self.proved_once && matches!(error.kind(), ErrorKind::HandshakeRefused { .. }) =>
            {
                pause.max(AFTER_REFUSAL)
            }
            // The key itself is refused: no token of ours can mend that.
            Retry::Never | Retry::WithFreshToken if !matches!(error.kind(), ErrorKind::Token { .. }) => {
                self.step(|session, now, out| session.end_all(&error, now, out));
                self.note(error);
                return None;
            }
            Retry::After(least) => least + pause.min(least),
            _ => pause,
        };
        self.step(|session, _, out| session.trouble_all(&error, out));
        self.note(error);
        Some(pause)
    }

    /// Remembers why something ended, for the status.
    fn note(&self, error: Error) {
        tracing::warn!(target: TARGET, %error, "not connected");
        let error = Arc::new(error);
        self.say(|status| status.last_error = Some(error));
    }

    fn say(&self, change: impl FnOnce(&mut Status)) {
        self.inbox.status.send_modify(change);
    }

    fn update_status(&self) {
        let (channels, live) = self.session.channels();
        let round_trip = self.session.round_trip();
        self.inbox.status.send_if_modified(|status| {
            let before = (status.channels, status.live_channels, status.round_trip);
            (status.channels, status.live_channels) = (channels, live);
            status.round_trip = round_trip.or(status.round_trip);
            before != (status.channels, status.live_channels, status.round_trip)
        });
    }

    fn close_all(&mut self) {
        for (_, answer) in self.answers.drain() {
            let _ = answer.send(Err(Error::new(ErrorKind::Closed)));
        }
        for (_, mailbox) in self.mailboxes.drain() {
            mailbox.put(Delivery::End(Error::new(ErrorKind::Closed)));
        }
    }
}

fn now() -> std::time::Instant {
    // Tokio's clock, so that tests that pause time pause the session with it.
    Instant::now().into_std()
}

async fn sleep_until_some(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => pending().await,
    }
}
