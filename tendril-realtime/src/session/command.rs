//! From the handles to the session: what users want of their channels.

use std::time::{Duration, Instant};

use super::{
    Action, Delivery, RequestId, Session, Subscriber, TopicId,
    pending::PendingReply,
    topic::{QueuedPush, Topic},
};
use crate::{
    error::{Error, ErrorKind},
    wire::{Outbound, Payload, TOPIC_PREFIX, event::name, join::JoinConfig},
};

/// From the handles to the session.
#[derive(Debug)]
pub(crate) enum Command {
    /// Join this channel and keep it joined. `ready` is answered when everything flows, or when it never will.
    Open { topic: TopicId, name: String, config: JoinConfig, subscribers: Vec<Subscriber>, ready: RequestId },
    /// Nobody wants the channel any more.
    Leave { topic: TopicId },
    /// Send this on the channel, as soon as it is joined. With a `request`, the server's reply is awaited.
    Push {
        topic: TopicId,
        request: Option<RequestId>,
        event: &'static str,
        payload: Payload,
        timeout: Duration,
    },
    /// Track this presence payload, now and after each join; `None` stops it.
    Track { topic: TopicId, request: RequestId, payload: Option<String>, timeout: Duration },
    /// Ask the token source now.
    RefreshToken,
}

impl Session {
    pub(crate) fn on_command(&mut self, command: Command, now: Instant, out: &mut Vec<Action>) {
        match command {
            Command::Open { topic, name, config, subscribers, ready } => {
                let name = format!("{TOPIC_PREFIX}{name}");
                let refusal = if self.names.contains_key(&name) {
                    Some(Error::invalid(
                        "topic",
                        "this client has a channel of that name already: a socket holds each topic once; share the handle, or drop it first",
                    ))
                } else if self.topics.len() >= self.settings.channels_at_most {
                    let most = self.settings.channels_at_most;
                    Some(Error::invalid(
                        "topic",
                        format!(
                            "this client has {most} channels, the most a socket may hold; drop one, or use a second client"
                        ),
                    ))
                } else {
                    None
                };
                if let Some(error) = refusal {
                    for subscriber in subscribers {
                        out.push(Action::Deliver(subscriber.id, Delivery::End(error.duplicate())));
                    }
                    out.push(Action::Answer(ready, Err(error)));
                    return;
                }
                let mut entry = Topic::new(topic, name.clone(), config, subscribers, now);
                entry.awaiting_ready.push(ready);
                self.names.insert(name, topic);
                self.topics.insert(topic, entry);
                self.idle_since = None;
            }
            Command::Leave { topic } => self.leave(topic, now, out),
            Command::Push { topic, request, event, payload, timeout } => {
                self.push(topic, QueuedPush { request, event, payload, deadline: now + timeout }, now, out);
            }
            Command::Track { topic, request, payload, timeout } => match self.topics.get_mut(&topic) {
                Some(entry) => entry.tracking.want(payload, request, now + timeout),
                None => out.push(Action::Answer(request, Err(Error::new(ErrorKind::Closed)))),
            },
            Command::RefreshToken => self.fetch_token(out),
        }
        self.tick(now, out);
    }

    pub(super) fn leave(&mut self, id: TopicId, now: Instant, out: &mut Vec<Action>) {
        let Some(topic) = self.remove(id, now, out) else { return };
        if let (Some(join_ref), true) = (topic.join_ref().map(str::to_owned), self.connection.is_some()) {
            let reference = self.fresh_ref();
            let deadline = now + self.settings.join_timeout;
            self.pending.insert(reference.clone(), PendingReply::Leave(topic.name.clone()), deadline);
            out.push(Action::Send(Outbound {
                join_ref: Some(join_ref),
                reference,
                topic: topic.name,
                event: name::LEAVE,
                payload: Payload::Json("{}".to_owned()),
            }));
        }
    }

    /// Takes a topic out of everything; whoever still waits on it is told that it is closed.
    pub(super) fn remove(&mut self, id: TopicId, now: Instant, out: &mut Vec<Action>) -> Option<Topic> {
        let mut topic = self.topics.remove(&id)?;
        self.names.remove(&topic.name);
        let waiting =
            topic.awaiting_ready.drain(..).chain(topic.queue.drain(..).filter_map(|push| push.request));
        for request in waiting.chain(topic.tracking.take_waiting()) {
            out.push(Action::Answer(request, Err(Error::new(ErrorKind::Closed))));
        }
        for awaited in self.pending.forget_topic(id) {
            for request in awaited.requests() {
                out.push(Action::Answer(request, Err(Error::new(ErrorKind::Closed))));
            }
        }
        if self.topics.is_empty() {
            self.idle_since = Some(now);
        }
        Some(topic)
    }

    /// Ends a topic for good: all who listen or wait are told why.
    pub(super) fn end(&mut self, id: TopicId, error: &Error, now: Instant, out: &mut Vec<Action>) {
        let Some(topic) = self.topics.get_mut(&id) else { return };
        for subscriber in &topic.subscribers {
            out.push(Action::Deliver(subscriber.id, Delivery::End(error.duplicate())));
        }
        for request in topic.awaiting_ready.drain(..) {
            out.push(Action::Answer(request, Err(error.duplicate())));
        }
        // The server may still hold the channel: a bad binding leaves it joined (OBSERVED 12).
        self.leave(id, now, out);
    }

    /// Sends it now if the channel is joined, and as soon as it is otherwise.
    pub(super) fn push(&mut self, id: TopicId, push: QueuedPush, now: Instant, out: &mut Vec<Action>) {
        let request = push.request;
        let queued_at_most = self.settings.queued_pushes;
        let refusal = match self.topics.get_mut(&id) {
            None => Some(Error::new(ErrorKind::Closed)),
            Some(topic) if topic.queue.len() >= queued_at_most => Some(Error::new(ErrorKind::PushRejected {
                message: format!("{queued_at_most} messages already wait for the channel to be joined"),
            })),
            Some(topic) => {
                topic.queue.push_back(push);
                None
            }
        };
        match (refusal, request) {
            (Some(error), Some(request)) => out.push(Action::Answer(request, Err(error))),
            (Some(_), None) => {}
            (None, _) => self.flush(id, now, out),
        }
    }

    /// Sends what waited for the channel to be joined.
    pub(super) fn flush(&mut self, id: TopicId, now: Instant, out: &mut Vec<Action>) {
        if self.connection.is_none() {
            return;
        }
        while let Some((topic, push)) =
            self.topics.get_mut(&id).filter(|topic| topic.is_joined()).and_then(|topic| {
                let push = topic.queue.pop_front()?;
                Some((topic, push))
            })
        {
            let (join_ref, name) = (topic.join_ref().map(str::to_owned), topic.name.clone());
            if push.deadline <= now {
                if let Some(request) = push.request {
                    let waiting_for = "the channel to be joined";
                    out.push(Action::Answer(request, Err(Error::new(ErrorKind::Timeout { waiting_for }))));
                }
                continue;
            }
            let reference = self.fresh_ref();
            if let Some(request) = push.request {
                self.pending.insert(reference.clone(), PendingReply::Push(request, id), push.deadline);
            }
            out.push(Action::Send(Outbound {
                join_ref,
                reference,
                topic: name,
                event: push.event,
                payload: push.payload,
            }));
        }
    }
}
