//! One open connection: bytes go to the session, and the session's actions to the wire and the mailboxes.

use std::time::{Duration, SystemTime};

use tokio::{
    task::yield_now,
    time::{Instant, timeout},
};

use super::{
    Heartbeat, Phase,
    suspend::SuspendDetector,
    task::{Driver, Exit, ShutdownSignal, now, sleep_until_some, unix_ms},
    token_fetch::ServerClock,
};
use crate::{
    error::{Error, ErrorKind},
    session::{Action, Delivery, Session, SubscriberId},
    socket::{Closed, Opened, Received, Socket},
    telemetry::TARGET,
    wire::{self, Outbound, event},
};

/// Messages taken from the socket before commands and timers get their turn.
const BATCH: usize = 64;
/// How long the closing handshake may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// How often the clocks are compared.
const CHECK_CLOCKS: Duration = Duration::from_secs(5);

impl Driver {
    /// Serves an open connection until it ends.
    pub(super) async fn serve(&mut self, opened: Opened) -> Exit {
        let Opened { mut socket, server_time } = opened;
        if let Some(server_time) = server_time {
            let clock = ServerClock::measured(server_time, SystemTime::now());
            let changed = std::mem::replace(&mut self.tokens.server_clock, clock) != clock;
            if let (true, Some(token)) = (changed, self.tokens.last()) {
                // What was fetched for this connection was judged by our clock.
                self.step(|session, now, out| session.on_token(Ok(token), now, out));
            }
        }
        self.inbox.counters.connections.add(1);
        let since = Instant::now();
        tracing::info!(target: TARGET, "connected");
        self.proven_status = false;
        self.set_status(|status| status.phase = Phase::Connected { since });
        let unix_ms = unix_ms(self.tokens.server_clock.now());
        self.step(|session, now, out| {
            session.set_clock(now, unix_ms);
            session.on_open(now, out);
        });
        let exit = self.exchange(&mut socket).await;
        if matches!(exit, Exit::Shutdown(_) | Exit::Unwanted | Exit::Requested) {
            let _ = timeout(CLOSE_TIMEOUT, socket.close()).await;
        }
        if self.session.is_proved() {
            self.proved_once = true;
            // A server that takes connections and drops them proves nothing by the first second.
            if since.elapsed() >= self.setup.settings.stable_after {
                self.backoff.reset();
            }
        }
        self.inbox.heartbeat(Heartbeat::Disconnected);
        let error = Self::error_of(&exit);
        let reason = "the connection is closed".to_owned();
        let cause = error
            .as_ref()
            .map_or_else(|| Error::new(ErrorKind::ConnectionLost { code: None, reason }), Error::duplicate);
        self.step(|session, now, out| session.on_lost(&cause, now, out));
        if let Some(error) = error {
            self.record_error(error);
        }
        // What was not sent is made anew for the next connection.
        self.outgoing.clear();
        self.ending = None;
        self.update_status();
        exit
    }

    pub(super) async fn exchange(&mut self, socket: &mut Socket) -> Exit {
        let mut received = Vec::with_capacity(BATCH);
        let mut suspend = SuspendDetector::new(now(), SystemTime::now());
        let mut wake = None;
        let mut stale = true;
        loop {
            if let Some(dead) = self.send_outgoing(socket) {
                return dead;
            }
            if stale {
                // A machine that wakes up should notice it soon, whatever the session waits for.
                let look = Instant::now() + CHECK_CLOCKS;
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
                        // Leaves that were requested are sent before the close.
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
                answer = self.tokens.finished() => {
                    self.step(|session, now, out| session.on_token(answer, now, out));
                    stale = true;
                }
                () = sleep_until_some(wake) => {
                    if suspend.was_suspended(self.setup.settings.heartbeat_interval, now(), SystemTime::now()) {
                        return Exit::Dead("the machine was asleep");
                    }
                    self.step(Session::tick);
                    self.release_frames();
                    if !self.session.wants_connection(now()) {
                        return Exit::Unwanted;
                    }
                    stale = true;
                }
            }
        }
    }

    /// Feeds a batch to the session and fills the mailboxes; wakes each reader once.
    pub(super) fn take_in(&mut self, received: &mut Vec<Received>, stale: &mut bool) -> Option<Closed> {
        let mut closed = None;
        let at = now();
        let mut bytes = 0;
        let frames = received.len() as u64;
        for item in received.drain(..) {
            // Then any frame changes when to look at the heartbeat again.
            *stale |= self.session.is_heartbeat_open();
            let taken = match item {
                Received::Text(text) => {
                    bytes += text.as_str().len();
                    self.session.on_text(text, at, &mut self.actions)
                }
                Received::Binary(frame) => {
                    bytes += frame.len();
                    wire::binary::decode(&frame).map(|message| {
                        self.session.on_message(message, at, &mut self.actions);
                        false
                    })
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
            match taken {
                Ok(is_change) => *stale |= !is_change,
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
        if let (false, true) = (self.proven_status, self.session.is_proved()) {
            // The error of the last connection is history.
            self.proven_status = true;
            self.set_status(|status| status.last_error = None);
        }
        self.inbox.counters.frames_received.add(frames);
        self.inbox.counters.bytes_received.add(bytes as u64);
        closed
    }

    /// Performs the actions that need no socket; the others stay queued.
    pub(super) fn perform(&mut self) {
        let mut actions = std::mem::take(&mut self.actions);
        for action in actions.drain(..) {
            match action {
                Action::Deliver(subscriber, delivery) => self.deliver(subscriber, delivery),
                Action::Send(message) => self.outgoing.push(message),
                Action::Channel(handle, status) => {
                    if let Some(channel) = self.channels.get(&handle) {
                        channel.send_replace(status);
                    }
                }
                Action::PushDropped => self.inbox.counters.pushes_dropped.add(1),
                Action::HeartbeatAnswered(round_trip) => {
                    self.inbox.heartbeat(Heartbeat::Answered { round_trip });
                }
                Action::Drop => {
                    self.inbox.heartbeat(Heartbeat::TimedOut);
                    self.ending = Some(ShutdownSignal::Dead);
                }
                Action::Reconnect => self.ending = self.ending.or(Some(ShutdownSignal::KeyEnded)),
                Action::Answer(request, answer) => {
                    if let Some(waiting) = self.answers.remove(&request) {
                        let _ = waiting.send(answer);
                    }
                }
                Action::FetchToken => self.tokens.start(),
                Action::TokenRefused(token) => self.tokens.invalidate(&token),
            }
        }
        self.actions = actions;
    }

    pub(super) fn deliver(&mut self, subscriber: SubscriberId, delivery: Delivery) {
        let Some(mailbox) = self.mailboxes.get(&subscriber) else { return };
        if matches!(delivery, Delivery::Resync(_)) {
            self.inbox.counters.resyncs.add(1);
        }
        let ends = matches!(delivery, Delivery::End(_) | Delivery::Finish);
        let put = mailbox.put(delivery);
        self.delivered += u64::from(put.is_event);
        let dropped = put.dropped;
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

    /// Wakes each reader that got something, once.
    pub(super) fn wake_readers(&mut self) {
        let delivered = std::mem::take(&mut self.delivered);
        if delivered > 0 {
            self.inbox.counters.events_delivered.add(delivered);
        }
        for subscriber in self.touched.drain(..) {
            if let Some(mailbox) = self.mailboxes.get(&subscriber) {
                mailbox.wake();
            }
        }
    }

    /// Lets go of the buffers that waiting events share with others: a reader that does not read must not keep them.
    pub(super) fn release_frames(&self) {
        for mailbox in self.mailboxes.values() {
            mailbox.release_frames();
        }
    }

    /// Puts the session's messages into the socket's outbox.
    pub(super) fn send_outgoing(&mut self, socket: &mut Socket) -> Option<Exit> {
        let mut outgoing = std::mem::take(&mut self.outgoing);
        for message in outgoing.drain(..) {
            self.send(&message, socket);
        }
        self.outgoing = outgoing;
        self.ending.take().map(|ending| match ending {
            ShutdownSignal::Dead => Exit::Dead("heartbeat timeout"),
            ShutdownSignal::KeyEnded => {
                let detail = "the token that the gateway made of the key has ended".to_owned();
                Exit::Lost(Closed { code: None, detail: Some(detail) })
            }
        })
    }

    pub(super) fn send(&self, message: &Outbound, socket: &mut Socket) {
        let bytes = match wire::text::encode(message, self.setup.version) {
            // A heartbeat behind megabytes would come too late.
            Some(text) if message.event == event::name::HEARTBEAT => {
                self.inbox.heartbeat(Heartbeat::Sent);
                socket.queue_first(text)
            }
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
}
