//! The task of one socket: reads frames, holds the joined channels, and ends.
//!
//! [`inbound`] handles what the client sends, [`joins`] its joins and tokens, [`outbound`] sends to it; a second task writes
//! ([`writer`]).

mod inbound;
mod joins;
mod outbound;
mod writer;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::{Message, WebSocket};
use futures_util::StreamExt as _;
use tokio::sync::{broadcast, mpsc};
use tokio::time::{Instant, sleep_until, timeout};

use super::channel::Channel;
use super::frame::Version;
use super::hub::Realtime;
use super::rooms::DeliverySender;
use super::users::UserSlot;
use crate::changes::{ChannelId, Mailbox};
use crate::fault::{Cut, SocketFault, Subject, Target};
use crate::jwt::{Claims, JwtError};
use writer::WriterCommand;

/// How long a closing handshake may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// What a socket was authorized with.
#[derive(Debug)]
pub(crate) struct Credentials {
    pub(crate) token: String,
    pub(crate) claims: Claims,
    /// JSON text: the `x-…` headers of the upgrade, which policies may read.
    pub(crate) headers: String,
}

/// The state of one socket.
struct Socket {
    realtime: Arc<Realtime>,
    version: Version,
    credentials: Credentials,
    channels: HashMap<String, Channel>,
    /// Taken with the first channel, as users are counted.
    slot: Option<UserSlot>,
    /// To the writing task.
    out: mpsc::UnboundedSender<WriterCommand>,
    /// Where the change feed writes to.
    mailbox: Mailbox,
    /// Where rooms send to.
    deliveries: DeliverySender,
    /// The channels whose wait for replication is over, and whether it runs.
    replication: mpsc::UnboundedSender<(ChannelId, bool)>,
}

/// Serves a socket until it ends.
pub(crate) async fn run(
    websocket: WebSocket,
    realtime: Arc<Realtime>,
    version: Version,
    credentials: Credentials,
) {
    let (sink, mut frames) = websocket.split();
    let (out, commands) = mpsc::unbounded_channel();
    let (mailbox, mut notices) = mpsc::unbounded_channel();
    let (delivery_sender, mut deliveries) = mpsc::unbounded_channel();
    let (replication, mut waits) = mpsc::unbounded_channel();
    let faults = &realtime.faults;
    let (mut socket_faults, mut stalled, mut changes) =
        (faults.socket_faults(), faults.stalled(), faults.changes());
    let mut writer = tokio::spawn(writer::write(sink, commands, faults.clone()));
    let idle = realtime.options.idle_timeout;
    let mut last_received = Instant::now();
    let mut socket = Socket {
        realtime: Arc::clone(&realtime),
        version,
        credentials,
        channels: HashMap::new(),
        slot: None,
        out,
        mailbox,
        deliveries: delivery_sender,
        replication,
    };
    let end = loop {
        let is_paused = *stalled.borrow_and_update();
        let expiry = Instant::now() + socket.next_expiry();
        tokio::select! {
            frame = frames.next(), if !is_paused => {
                last_received = Instant::now();
                match frame {
                    Some(Ok(Message::Text(text))) => socket.receive_text(text.as_str()).await,
                    Some(Ok(Message::Binary(bytes))) => socket.receive_binary(&bytes).await,
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                    // The library answers a close frame by itself while it is read.
                    Some(Ok(Message::Close(_))) => break None,
                    // The peer broke off, or sent what no websocket sends.
                    Some(Err(_)) | None => break Some(Cut::Abrupt),
                }
            }
            Some(notice) = notices.recv() => socket.pass_notice(notice),
            Some(delivery) = deliveries.recv() => socket.pass_delivery(&delivery),
            Some((channel, ready)) = waits.recv() => socket.pass_readiness(channel, ready),
            fault = socket_faults.recv() => match fault {
                Ok(fault) => if let Some(cut) = socket.apply(fault) { break Some(cut) },
                // Faults were missed; that ends no socket.
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => break Some(Cut::Abrupt),
            },
            // The writer was stopped, or the peer does not read any more.
            ended = &mut writer => break Some(ended.unwrap_or(Cut::Abrupt)),
            _ = stalled.changed() => {}
            _ = changes.changed() => {}
            () = sleep_until(expiry), if !is_paused => socket.expire(),
            () = sleep_until(last_received + idle), if !is_paused => break Some(Cut::Close(1000)),
            () = realtime.stop.cancelled() => break Some(Cut::Close(1012)),
        }
    };
    // Leaves all rooms and the change feed.
    socket.channels.clear();
    if let Some(cut @ Cut::Close(_)) = end {
        socket.end(cut);
    }
    drop(socket);
    if end != Some(Cut::Abrupt) {
        let closing = async {
            if end.is_some() && !writer.is_finished() {
                // It ends with the close frame; the peer answers that.
                let _ = (&mut writer).await;
            }
            while let Some(Ok(_)) = frames.next().await {}
        };
        let _ = timeout(CLOSE_TIMEOUT, closing).await;
    }
    writer.abort();
}

impl Socket {
    /// Applies a fault; how the socket ends, if it does.
    fn apply(&mut self, fault: SocketFault) -> Option<Cut> {
        match fault {
            SocketFault::Cut(cut, target) => self.is_matched(&target).then_some(cut),
            SocketFault::Expire(target) => {
                for topic in self.matched_topics(&target) {
                    self.end_by_token(&topic, JwtError::Expired { seconds_ago: 0 });
                }
                None
            }
            SocketFault::Crash(target) => {
                for topic in self.matched_topics(&target) {
                    if let Some(channel) = self.channels.remove(&topic) {
                        self.send(&channel.crashed());
                    }
                }
                None
            }
            SocketFault::Disconnect => {
                self.announce_disconnect();
                Some(Cut::Close(1012))
            }
        }
    }

    fn is_matched(&self, target: &Target) -> bool {
        let tokens = self.channels.values().map(|channel| &channel.pass.claims);
        target.fits(&Subject {
            claims: tokens.chain([&self.credentials.claims]).collect(),
            topics: self.channels.values().map(Channel::name).collect(),
            ..Subject::default()
        })
    }

    /// The topics of the channels that match.
    fn matched_topics(&self, target: &Target) -> Vec<String> {
        let meant = |channel: &&Channel| {
            target.fits(&Subject {
                claims: vec![&channel.pass.claims, &self.credentials.claims],
                topics: vec![channel.name()],
                ..Subject::default()
            })
        };
        self.channels.values().filter(meant).map(|channel| channel.topic.clone()).collect()
    }

    fn next_expiry(&self) -> Duration {
        self.channels.values().map(Channel::expires_in).min().unwrap_or(Duration::from_secs(300))
    }

    /// Ends the channels whose token has run out.
    fn expire(&mut self) {
        let now = self.realtime.keys.jwt().now();
        let expired = self
            .channels
            .values()
            .filter_map(|channel| Some((channel.topic.clone(), channel.pass.claims.check_at(now).err()?)));
        for (topic, error) in expired.collect::<Vec<_>>() {
            self.end_by_token(&topic, error);
        }
    }

    fn end_by_token(&mut self, topic: &str, error: JwtError) {
        if let Some(channel) = self.channels.get(topic) {
            self.send(&channel.token_refused(error));
            self.close(topic);
        }
    }

    /// Ends a channel with the reason.
    fn shut_down(&mut self, topic: &str, message: &str) {
        if let Some(channel) = self.channels.get(topic) {
            self.send(&channel.system("system", "error", message));
            self.close(topic);
        }
    }

    fn close(&mut self, topic: &str) {
        if let Some(channel) = self.channels.remove(topic) {
            self.send(&channel.closed());
        }
    }

    fn channel(&self, id: ChannelId) -> Option<&Channel> {
        self.channels.values().find(|channel| channel.id == id)
    }
}
