//! Joins and tokens: who may join which channel.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::time::{sleep, timeout};

use super::Socket;
use crate::fault::Cut;
use crate::jwt::JwtError;
use crate::realtime::binary::BinaryBroadcast;
use crate::realtime::channel::{Channel, PREFIX, Pass};
use crate::realtime::frame::{Incoming, Outgoing};
use crate::realtime::hub::NO_DATABASE;
use crate::realtime::join::Join;
use crate::realtime::messages;
use crate::realtime::permission::{self, Grants, Requester};

const TOO_MANY_JOINS: &str = "ClientJoinRateLimitReached: Too many joins per second";

impl Socket {
    pub(super) async fn join(&mut self, topic: String, frame: Incoming) {
        match self.admit(&topic, &frame.payload).await {
            Ok((join, pass, replay)) => self.enter(&topic, frame, join, pass, &replay),
            Err(reason) => {
                // As in the real server, nothing else is read from this socket meanwhile.
                sleep(self.realtime.options.join_error_delay).await;
                self.send(&Outgoing::refusal(frame.join_ref, frame.reference, frame.topic, &reason));
                self.close(&topic);
                if reason == TOO_MANY_JOINS {
                    self.end(Cut::Close(1001));
                }
            }
        }
    }

    fn enter(&mut self, topic: &str, frame: Incoming, join: Join, pass: Pass, replay: &[BinaryBroadcast]) {
        let refs = (frame.join_ref, frame.reference.clone());
        let (mut channel, state) =
            Channel::enter(&self.realtime, topic.to_owned(), refs, join, pass, self.deliveries.clone());
        channel.replayed = replay.iter().filter_map(|message| message.id.clone()).collect();
        if self.slot.is_none() {
            self.slot = Some(self.realtime.users.slot());
        }
        self.realtime.feed.start(&self.realtime.rooms);
        let old = self.channels.insert(topic.to_owned(), channel);
        let Some(channel) = self.channels.get(topic) else { return };
        // The new channel's answer comes before the old one's end.
        self.send(&channel.joined(frame.reference));
        if channel.join.presence && channel.receives_presence() {
            self.send(&channel.push("presence_state", state));
        }
        channel.subscribe(&self.mailbox, Duration::ZERO);
        if let Some(old) = old {
            self.send(&old.closed());
        }
        for message in replay {
            self.pass_replayed(channel, message);
        }
        if channel.join.broadcast.replication_ready {
            self.await_replication(channel);
        }
    }

    /// The join, its authorization, and the messages to replay; or the reason of its refusal.
    async fn admit(
        &self,
        topic: &str,
        payload: &Value,
    ) -> Result<(Join, Pass, Vec<BinaryBroadcast>), String> {
        let name = topic.strip_prefix(PREFIX).unwrap_or_default();
        let join = Join::parse(name, payload)?;
        self.check_limits(topic, &join)?;
        let keys = &self.realtime.keys;
        let (token, claims) = match &join.token {
            Some(token) => (token.clone(), keys.jwt().decode(token)),
            None => (self.credentials.token.clone(), Ok(self.credentials.claims.clone())),
        };
        let now = keys.jwt().now();
        let claims = claims.and_then(|claims| claims.check_at(now).map(|()| claims)).map_err(join_refusal)?;
        let mut read = Grants::ALL;
        let mut replay = Vec::new();
        if join.private {
            let requester = Requester { claims: &claims, headers: &self.credentials.headers, topic: name };
            read = self.may_read(&requester, join.presence).await.map_err(|refusal| match refusal {
                Some(refusal) => format!("Unauthorized: {refusal}"),
                None => format!("UnableToConnectToProject: {NO_DATABASE}"),
            })?;
            if let Some(wanted) = join.replay.as_ref().filter(|_| read.broadcast) {
                let lost = |_| "UnableToReplayMessages: Realtime was unable to replay messages".to_owned();
                replay = messages::replay(&self.realtime.link, name, wanted).await.map_err(lost)?;
            }
        }
        Ok((join, Pass { token, claims, read }, replay))
    }

    fn check_limits(&self, topic: &str, join: &Join) -> Result<(), String> {
        let realtime = &self.realtime;
        if realtime.options.private_only && !join.private {
            return Err("PrivateOnly: This project only allows private channels".to_owned());
        }
        if self.slot.is_none() && realtime.users.are_full() {
            return Err("ConnectionRateLimitReached: Too many connected users".to_owned());
        }
        if realtime.joins.is_over() {
            return Err(TOO_MANY_JOINS.to_owned());
        }
        realtime.joins.add(1);
        if self.channels.len() >= realtime.options.max_channels && !self.channels.contains_key(topic) {
            return Err("ChannelRateLimitReached: Too many channels".to_owned());
        }
        Ok(())
    }

    /// What the policies let the requester receive; a refusal's text if it is nothing, none if they could not be evaluated.
    /// Presence is sent only to those who requested it.
    async fn may_read(&self, requester: &Requester<'_>, presence: bool) -> Result<Grants, Option<String>> {
        let mut read = permission::read(&self.realtime.link, requester).await.map_err(|_| None)?;
        read.presence &= presence;
        if read.any() {
            return Ok(read);
        }
        let topic = requester.topic;
        Err(Some(format!("You do not have permissions to read from this Channel topic: {topic}")))
    }

    /// What the channel may send. Checked once for each token.
    pub(super) async fn may_write(&mut self, topic: &str) -> Grants {
        let Some(channel) = self.channels.get_mut(topic) else { return Grants::default() };
        if let Some(grants) = channel.write {
            return grants;
        }
        let requester = channel.requester(&self.credentials.headers);
        match permission::write(&self.realtime.link, &requester).await {
            Ok(grants) => {
                channel.write = Some(grants);
                grants
            }
            // Without an answer nothing is allowed, and the next message checks again.
            Err(_) => Grants::default(),
        }
    }

    /// A token pushed to a channel. No answer if it is good; the end of the channel if it is not.
    pub(super) async fn renew(&mut self, topic: &str, payload: &Value) {
        let Some(token) = payload.get("access_token").and_then(Value::as_str) else { return };
        let Some(channel) = self.channels.get(topic) else { return };
        if token.starts_with("sb_") || token == channel.pass.token {
            return;
        }
        let claims = match self.realtime.keys.jwt().verify(token) {
            Ok(claims) => claims,
            Err(error) => return self.end_by_token(topic, error),
        };
        let mut read = Grants::ALL;
        if channel.join.private {
            let requester =
                Requester { claims: &claims, headers: &self.credentials.headers, topic: channel.name() };
            read = match self.may_read(&requester, channel.join.presence).await {
                Ok(read) => read,
                Err(refusal) => {
                    return self.shut_down(topic, refusal.as_deref().unwrap_or(NO_DATABASE));
                }
            };
        }
        let Some(channel) = self.channels.get_mut(topic) else { return };
        channel.pass = Pass { token: token.to_owned(), claims, read };
        if channel.join.private {
            channel.write = None;
        }
        channel.subscribe(&self.mailbox, self.realtime.options.resubscribe_delay);
    }

    /// Notifies the socket when messages of the database arrive, or do not for too long.
    fn await_replication(&self, channel: &Channel) {
        let (feed, replication) = (Arc::clone(&self.realtime.feed), self.replication.clone());
        let (id, longest) = (channel.id, self.realtime.options.replication_timeout);
        tokio::spawn(async move {
            let ready = timeout(longest, feed.wait_ready()).await.is_ok();
            // The socket may be gone.
            let _ = replication.send((id, ready));
        });
    }
}

/// The reason of a join refused for its token.
fn join_refusal(error: JwtError) -> String {
    let code = match error {
        JwtError::Malformed => "MalformedJWT",
        JwtError::Signature => "JwtSignatureError",
        JwtError::Signer => "JwtSignerError",
        JwtError::MissingClaims | JwtError::Expired { .. } => "InvalidJWTToken",
    };
    format!("{code}: {error}")
}
