//! One channel: what is subscribed to (the same over reconnects), and how far its current incarnation has come.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use super::{
    Action, ChannelStatus, Delivery, RequestId, ResyncReason, SubscriberId, TopicId, presence::Tracking,
};
use crate::{
    backoff::Backoff,
    error::Error,
    secret::AccessToken,
    wire::{Change, Payload, join::JoinConfig},
};

/// What a subscriber of a topic receives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Interest {
    /// Row changes of the binding at this place of the join's list.
    Changes(usize),
    /// All broadcasts; the stream picks its event.
    Broadcast,
    /// Presence states and diffs.
    Presence,
    /// `system` messages.
    System,
}

/// Someone who listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Subscriber {
    pub(crate) id: SubscriberId,
    pub(crate) interest: Interest,
}

/// How far the current incarnation has come. Each variant's text states what may happen next.
#[derive(Debug)]
pub(super) enum Phase {
    /// To be joined as soon as the connection is open, its turn has come, and this time is over.
    Waiting { not_before: Instant },
    /// The join is sent. Its reply, or its deadline in [`Pending`](super::pending::Pending), comes next.
    Joining { join_ref: String },
    /// The reply was ok, but the rows do not flow yet: the `system` message, or this deadline, comes next.
    Subscribing { join_ref: String, deadline: Instant, awaits: ReadyConditions },
    /// Everything that was requested flows.
    Live { join_ref: String },
}

/// What an accepted join still waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ReadyConditions {
    /// "Subscribed to `PostgreSQL`": row changes flow.
    pub(super) rows: bool,
    /// "Replication connection established": broadcasts of the database flow.
    pub(super) replication: bool,
}

impl ReadyConditions {
    pub(super) fn nothing(self) -> bool {
        !self.rows && !self.replication
    }
}

/// A message of the user's that waits for the channel to be joined.
#[derive(Debug)]
pub(super) struct QueuedPush {
    pub(super) request: Option<RequestId>,
    pub(super) event: &'static str,
    pub(super) payload: Payload,
    pub(super) deadline: Instant,
}

/// Desired state and progress of one channel.
#[derive(Debug)]
pub(super) struct Topic {
    pub(super) id: TopicId,
    /// Who holds it: the first handle, whose id is the topic's, and others of the same name; each with its subscribers.
    pub(super) handles: BTreeMap<TopicId, Vec<SubscriberId>>,
    /// With the `realtime:` prefix.
    pub(super) name: String,
    pub(super) config: JoinConfig,
    pub(super) subscribers: Vec<Subscriber>,
    pub(super) phase: Phase,
    /// The ids that the last accepted join gave to the bindings, in their order.
    pub(super) binding_ids: Vec<u64>,
    /// Waiting for everything to flow for the first time.
    pub(super) awaiting_ready: Vec<(RequestId, TopicId)>,
    /// Since when everything flows, without an interruption.
    live_since: Option<Instant>,
    /// Everything flowed at some time: from then on, an interruption is a gap.
    pub(super) was_live: bool,
    /// Set at each interruption after that; delivered before the next change, and when the rows flow again.
    pub(super) gap: Option<ResyncReason>,
    /// The join was accepted at some time: from then on, broadcasts may be missed.
    pub(super) was_joined: bool,
    /// Set at each interruption after that; delivered with the next accepted join.
    pub(super) message_gap: Option<ResyncReason>,
    /// The mark of the last accepted join, where messages of the database were to flow a little later: delivered once more
    /// when they do, for those of the meantime are lost too.
    pub(super) replication_gap: Option<ResyncReason>,
    /// The token this incarnation runs on.
    pub(super) token: Option<AccessToken>,
    /// A token was pushed: the server will announce its new subscription.
    pub(super) token_pushed: bool,
    /// Why the server announced to close this channel; the `phx_close` follows.
    pub(super) ending: Option<Error>,
    /// Pauses between failed joins; start afresh after everything flowed for a while.
    pub(super) backoff: Backoff,
    pub(super) queue: VecDeque<QueuedPush>,
    /// What is tracked of us.
    pub(super) tracking: Tracking,
}

impl Topic {
    pub(super) fn new(
        id: TopicId,
        name: String,
        config: JoinConfig,
        subscribers: Vec<Subscriber>,
        now: Instant,
    ) -> Self {
        let own = subscribers.iter().map(|subscriber| subscriber.id).collect();
        Self {
            id,
            handles: BTreeMap::from([(id, own)]),
            name,
            config,
            subscribers,
            phase: Phase::Waiting { not_before: now },
            binding_ids: Vec::new(),
            awaiting_ready: Vec::new(),
            live_since: None,
            was_live: false,
            gap: None,
            was_joined: false,
            message_gap: None,
            replication_gap: None,
            token: None,
            token_pushed: false,
            ending: None,
            backoff: Backoff::new(Duration::from_millis(500), Duration::from_secs(30)),
            queue: VecDeque::new(),
            tracking: Tracking::default(),
        }
    }

    /// Without the `realtime:` prefix, as users write it.
    pub(super) fn sub_topic(&self) -> &str {
        self.name.strip_prefix(crate::wire::TOPIC_PREFIX).unwrap_or(&self.name)
    }

    /// The ref that names the current incarnation, once its join is sent.
    pub(super) fn join_ref(&self) -> Option<&str> {
        match &self.phase {
            Phase::Waiting { .. } => None,
            Phase::Joining { join_ref } | Phase::Subscribing { join_ref, .. } | Phase::Live { join_ref } => {
                Some(join_ref)
            }
        }
    }

    /// Whether the server has accepted the join.
    pub(super) fn is_joined(&self) -> bool {
        matches!(self.phase, Phase::Subscribing { .. } | Phase::Live { .. })
    }

    /// Whether a message with this join ref is for the current incarnation. One without is (OBSERVED 9).
    pub(super) fn is_current(&self, join_ref: Option<&str>) -> bool {
        match (join_ref, self.join_ref()) {
            (None, current) => current.is_some(),
            (Some(of_message), Some(current)) => of_message == current,
            (Some(_), None) => false,
        }
    }

    /// Everything flows from now on.
    pub(super) fn flows(&mut self, now: Instant) {
        self.live_since.get_or_insert(now);
        self.was_live = true;
    }

    /// An incarnation is over. If it lived long enough, the pauses before the next one start afresh: one that ends as soon
    /// as it began must not be repeated without end at full speed.
    pub(super) fn reset_backoff_if_stable(&mut self, now: Instant, stable_after: Duration) {
        let lived = self.live_since.take().map(|since| now.saturating_duration_since(since));
        if lived.is_some_and(|lived| lived >= stable_after) {
            self.backoff.reset();
        }
    }

    /// Where it stands, for those who hold it.
    pub(super) fn status(&self) -> ChannelStatus {
        match self.phase {
            Phase::Waiting { .. } | Phase::Joining { .. } => ChannelStatus::Joining,
            Phase::Subscribing { .. } => ChannelStatus::Subscribing,
            Phase::Live { .. } => ChannelStatus::Subscribed,
        }
    }

    /// Reports to all holders.
    pub(super) fn announce(&self, status: &ChannelStatus, out: &mut Vec<Action>) {
        out.extend(self.handles.keys().map(|handle| Action::Channel(*handle, status.clone())));
    }

    /// Back to waiting; what is lost from now on is a gap, if anything ever flowed.
    pub(super) fn interrupt(&mut self, reason: ResyncReason, not_before: Instant) {
        self.phase = Phase::Waiting { not_before };
        self.ending = None;
        self.token_pushed = false;
        if self.was_live {
            self.gap = Some(reason);
        }
        if self.was_joined {
            self.message_gap = Some(reason);
        }
    }

    /// Subscribers whose binding has one of these ids. The list may repeat an id, and identical bindings share one.
    pub(super) fn subscribers_of<'a>(&'a self, ids: &'a [u64]) -> impl Iterator<Item = SubscriberId> + 'a {
        self.subscribers.iter().filter_map(move |subscriber| match subscriber.interest {
            Interest::Changes(place) => {
                self.binding_ids.get(place).filter(|id| ids.contains(id)).map(|_| subscriber.id)
            }
            Interest::Broadcast | Interest::Presence | Interest::System => None,
        })
    }

    /// A row change of the current incarnation, to those whose bindings it is for.
    pub(super) fn deliver(&mut self, ids: &[u64], change: Change, out: &mut Vec<Action>) {
        // Rows may flow before the subscription is announced; those after a gap still come after its mark.
        if let Some(Delivery::Resync(reason)) = self.take_gap() {
            for subscriber in self.change_subscribers() {
                out.push(Action::Deliver(subscriber, Delivery::Resync(reason)));
            }
        }
        let mut subscribers = self.subscribers_of(ids);
        let Some(first) = subscribers.next() else { return };
        for other in subscribers {
            out.push(Action::Deliver(other, Delivery::Change(change.clone())));
        }
        out.push(Action::Deliver(first, Delivery::Change(change)));
    }

    /// Everyone who listens to row changes.
    pub(super) fn change_subscribers(&self) -> impl Iterator<Item = SubscriberId> + '_ {
        self.subscribers_to(|interest| matches!(interest, Interest::Changes(_)))
    }

    pub(super) fn subscribers_to<'a>(
        &'a self,
        wanted: impl Fn(Interest) -> bool + 'a,
    ) -> impl Iterator<Item = SubscriberId> + 'a {
        self.subscribers
            .iter()
            .filter(move |subscriber| wanted(subscriber.interest))
            .map(|subscriber| subscriber.id)
    }

    /// The mark to deliver before anything that comes after a gap.
    pub(super) fn take_gap(&mut self) -> Option<Delivery> {
        self.gap.take().map(Delivery::Resync)
    }

    /// When this topic needs a tick of its own.
    pub(super) fn wake(&self) -> Option<Instant> {
        let own = match &self.phase {
            Phase::Subscribing { deadline, .. } => Some(*deadline),
            Phase::Waiting { .. } | Phase::Joining { .. } | Phase::Live { .. } => None,
        };
        let queued = self.queue.iter().map(|push| push.deadline).min();
        [own, queued, self.tracking.wake(self.is_joined())].into_iter().flatten().min()
    }
}
