//! Messages that wait for a reply. Nothing waits without a deadline.

use std::{collections::BTreeMap, time::Instant};

use super::{RequestId, TopicId};

/// What a reply is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum PendingReply {
    Join(TopicId),
    /// The topic's full name; it may be joined again when the server has closed it.
    Leave(String, Option<RequestId>),
    Push(RequestId, TopicId),
    /// All who wanted to be tracked since the last time.
    Track(TopicId, Vec<RequestId>),
}

impl PendingReply {
    /// Users who wait for this.
    pub(super) fn requests(self) -> Vec<RequestId> {
        match self {
            Self::Push(request, _) => vec![request],
            Self::Track(_, requests) => requests,
            Self::Leave(_, request) => request.into_iter().collect(),
            Self::Join(_) => Vec::new(),
        }
    }
}

/// The refs that wait, each with its deadline.
#[derive(Debug, Default)]
pub(super) struct Pending {
    waiting: BTreeMap<String, (PendingReply, Instant)>,
}

impl Pending {
    pub(super) fn insert(&mut self, reference: String, awaited: PendingReply, deadline: Instant) {
        self.waiting.insert(reference, (awaited, deadline));
    }

    /// The reply came: late ones find nothing.
    pub(super) fn take(&mut self, reference: &str) -> Option<PendingReply> {
        self.waiting.remove(reference).map(|(awaited, _)| awaited)
    }

    /// Takes everything whose time is over.
    pub(super) fn take_expired(&mut self, now: Instant) -> Vec<PendingReply> {
        let mut expired = Vec::new();
        self.waiting.retain(|_, (awaited, deadline)| {
            let over = *deadline <= now;
            if over {
                expired.push(awaited.clone());
            }
            !over
        });
        expired
    }

    /// The connection is gone: nothing will be answered.
    pub(super) fn take_all(&mut self) -> Vec<PendingReply> {
        std::mem::take(&mut self.waiting).into_iter().map(|(_, (awaited, _))| awaited).collect()
    }

    pub(super) fn forget_topic(&mut self, topic: TopicId) -> Vec<PendingReply> {
        let mut forgotten = Vec::new();
        self.waiting.retain(|_, (awaited, _)| {
            let of_topic = matches!(awaited, PendingReply::Join(id) | PendingReply::Push(_, id) | PendingReply::Track(id, _) if *id == topic);
            if of_topic {
                forgotten.push(awaited.clone());
            }
            !of_topic
        });
        forgotten
    }

    pub(super) fn forget_join(&mut self, topic: TopicId) {
        self.waiting.retain(|_, (awaited, _)| !matches!(awaited, PendingReply::Join(id) if *id == topic));
    }

    pub(super) fn is_leaving(&self, topic: &str) -> bool {
        self.waiting
            .values()
            .any(|(awaited, _)| matches!(awaited, PendingReply::Leave(name, _) if name == topic))
    }

    /// The deadlines of the joins under way: how many, and the last one.
    pub(super) fn joins(&self) -> (usize, Option<Instant>) {
        let deadlines = self.waiting.values().filter(|(awaited, _)| matches!(awaited, PendingReply::Join(_)));
        deadlines.fold((0, None), |(count, last), (_, deadline)| (count + 1, last.max(Some(*deadline))))
    }

    pub(super) fn wake(&self) -> Option<Instant> {
        self.waiting.values().map(|(_, deadline)| *deadline).min()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }
}
