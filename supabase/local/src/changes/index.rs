//! The subscriptions by table: made anew when channels come or go, and not for each change.

use std::collections::HashMap;
use std::sync::Arc;

use super::filter::Filter;
use super::principal::Principal;
use super::subscriber::Subscriber;
use super::subscription::Subscription;
use crate::replication::Operation;

/// The live channels, ordered for one look per change instead of one per channel.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// The oldest channel first.
    subscribers: Vec<Arc<Subscriber>>,
    /// For each subscriber, the number of its principal; equal principals have one number.
    principals: Vec<usize>,
    /// By the table's oid.
    tables: HashMap<u32, Interest>,
}

/// The subscriptions to a table.
#[derive(Debug, Default)]
pub(super) struct Interest {
    /// Each role once.
    pub(super) roles: Vec<String>,
    pub(super) groups: Vec<Group>,
}

/// The subscriptions to a table with the same event and the same filters.
#[derive(Debug)]
pub(super) struct Group {
    event: Option<Operation>,
    pub(super) filters: Vec<Filter>,
    /// In the order of the subscribers.
    pub(super) members: Vec<Member>,
}

/// One subscription of one subscriber.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Member {
    pub(super) subscriber: usize,
    subscription: usize,
}

impl Group {
    pub(super) fn wants(&self, operation: Operation) -> bool {
        self.event.is_none_or(|event| event == operation)
    }
}

impl Index {
    pub(super) fn new(subscribers: Vec<Arc<Subscriber>>) -> Self {
        let mut known: HashMap<&Principal, usize> = HashMap::new();
        let mut principals = Vec::with_capacity(subscribers.len());
        let mut tables: HashMap<u32, Interest> = HashMap::new();
        let mut places: HashMap<(u32, Option<Operation>, &[Filter]), usize> = HashMap::new();
        for (position, subscriber) in subscribers.iter().enumerate() {
            let next = known.len();
            principals.push(*known.entry(&subscriber.principal).or_insert(next));
            for (number, subscription) in subscriber.subscriptions.iter().enumerate() {
                for oid in subscription.tables.iter().copied() {
                    let Interest { roles, groups } = tables.entry(oid).or_default();
                    let place = *places
                        .entry((oid, subscription.event, subscription.filters.as_slice()))
                        .or_insert_with(|| {
                            let filters = subscription.filters.clone();
                            groups.push(Group { event: subscription.event, filters, members: Vec::new() });
                            groups.len() - 1
                        });
                    if let Some(group) = groups.get_mut(place) {
                        group.members.push(Member { subscriber: position, subscription: number });
                    }
                    if !roles.contains(&subscriber.principal.role) {
                        roles.push(subscriber.principal.role.clone());
                    }
                }
            }
        }
        drop((known, places));
        Self { subscribers, principals, tables }
    }

    /// The subscriptions to a table; `None` if there is none.
    pub(super) fn interest(&self, oid: u32) -> Option<&Interest> {
        self.tables.get(&oid)
    }

    pub(super) fn subscriber(&self, member: Member) -> &Subscriber {
        &self.subscribers[member.subscriber]
    }

    pub(super) fn subscription(&self, member: Member) -> &Subscription {
        &self.subscribers[member.subscriber].subscriptions[member.subscription]
    }

    /// The number of the member's principal.
    pub(super) fn principal(&self, member: Member) -> usize {
        self.principals[member.subscriber]
    }
}
