//! The task of one socket: reads frames, keeps the joined channels, and ends.
//!
//! [`hear`] is what the client says and what is done about it, [`admit`] its joins and tokens, [`tell`] what it is told;
//! a second task writes ([`writer`]).

mod admit;
mod hear;
mod tell;
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
use super::rooms::Ear;
use super::users::Seat;
use crate::changes::{ChannelId, Mailbox};
use crate::fault::{Blow, Cut, Sight, Target};
use crate::jwt::{Claims, JwtError};
use writer::Parcel;

/// How long a closing handshake may take.
const FAREWELL: Duration = Duration::from_secs(1);

/// What a socket was let in with.
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
    seat: Option<Seat>,
    /// To the writing task.
    out: mpsc::UnboundedSender<Parcel>,
    /// Where the change feed writes to.
    mailbox: Mailbox,
    /// Where rooms speak to.
    ear: Ear,
    /// Where channels are named whose wait for replication is over, and whether it was in vain.
    patience: mpsc::UnboundedSender<(ChannelId, bool)>,
}

/// Serves a socket until it ends.
pub(crate) async fn run(
    websocket: WebSocket,
    realtime: Arc<Realtime>,
    version: Version,
    credentials: Credentials,
) {
    let (sink, mut frames) = websocket.split();
    let (out, parcels) = mpsc::unbounded_channel();
    let (mailbox, mut notices) = mpsc::unbounded_channel();
    let (ear, mut deliveries) = mpsc::unbounded_channel();
    let (patience, mut waits) = mpsc::unbounded_channel();
    let faults = &realtime.faults;
    let (mut blows, mut stalled, mut changes) = (faults.blows(), faults.stalled(), faults.changes());
    let mut writer = tokio::spawn(writer::write(sink, parcels, faults.clone()));
    let idle = realtime.options.idle_timeout;
    let mut last_heard = Instant::now();
    let mut socket = Socket {
        realtime: Arc::clone(&realtime),
        version,
        credentials,
        channels: HashMap::new(),
        seat: None,
        out,
        mailbox,
        ear,
        patience,
    };
    let end = loop {
        let deaf = *stalled.borrow_and_update();
        let expiry = Instant::now() + socket.next_expiry();
        tokio::select! {
            frame = frames.next(), if !deaf => {
                last_heard = Instant::now();
                match frame {
                    Some(Ok(Message::Text(text))) => socket.hear_text(text.as_str()).await,
                    Some(Ok(Message::Binary(bytes))) => socket.hear_binary(&bytes).await,
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                    // The library answers a goodbye by itself when it is read on.
                    Some(Ok(Message::Close(_))) => break None,
                    // The peer broke off, or sent what no websocket sends.
                    Some(Err(_)) | None => break Some(Cut::Abrupt),
                }
            }
            Some(notice) = notices.recv() => socket.pass_notice(notice),
            Some(delivery) = deliveries.recv() => socket.pass_delivery(&delivery),
            Some((channel, ready)) = waits.recv() => socket.pass_readiness(channel, ready),
            blow = blows.recv() => match blow {
                Ok(blow) => if let Some(cut) = socket.suffer(blow) { break Some(cut) },
                // Blows were missed or cannot come any more; neither ends a socket.
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => break Some(Cut::Abrupt),
            },
            // The writer was told to end, or the peer does not take any more.
            ended = &mut writer => break Some(ended.unwrap_or(Cut::Abrupt)),
            _ = stalled.changed() => {}
            _ = changes.changed() => {}
            () = sleep_until(expiry), if !deaf => socket.expire(),
            () = sleep_until(last_heard + idle), if !deaf => break Some(Cut::Close(1000)),
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
        let farewell = async {
            if end.is_some() && !writer.is_finished() {
                // It ends with the close frame; the peer answers that.
                let _ = (&mut writer).await;
            }
            while let Some(Ok(_)) = frames.next().await {}
        };
        let _ = timeout(FAREWELL, farewell).await;
    }
    writer.abort();
}

impl Socket {
    /// Lets a fault strike; how the socket ends, if it does.
    fn suffer(&mut self, blow: Blow) -> Option<Cut> {
        match blow {
            Blow::Cut(cut, target) => self.is_meant(&target).then_some(cut),
            Blow::Expire(target) => {
                for topic in self.struck(&target) {
                    self.end_by_token(&topic, JwtError::Expired { seconds_ago: 0 });
                }
                None
            }
            Blow::Crash(target) => {
                for topic in self.struck(&target) {
                    if let Some(channel) = self.channels.remove(&topic) {
                        self.send(&channel.crashed());
                    }
                }
                None
            }
            Blow::Disconnect => {
                self.announce_disconnect();
                Some(Cut::Close(1012))
            }
        }
    }

    fn is_meant(&self, target: &Target) -> bool {
        let tokens = self.channels.values().map(|channel| &channel.pass.claims);
        target.fits(&Sight {
            claims: tokens.chain([&self.credentials.claims]).collect(),
            topics: self.channels.values().map(Channel::name).collect(),
            ..Sight::default()
        })
    }

    /// The topics of the channels that are meant.
    fn struck(&self, target: &Target) -> Vec<String> {
        let meant = |channel: &&Channel| {
            target.fits(&Sight {
                claims: vec![&channel.pass.claims, &self.credentials.claims],
                topics: vec![channel.name()],
                ..Sight::default()
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

    /// Ends a channel and says why.
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
