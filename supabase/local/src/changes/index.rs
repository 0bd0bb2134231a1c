//! Who wants what, by table: made anew when channels come or go, and not for each change.

use std::collections::HashMap;
use std::sync::Arc;

use super::audience::Audience;
use super::filter::Filter;
use super::listener::Listener;
use super::subscription::Subscription;
use crate::replication::Operation;

/// The live channels, ordered for one look per change instead of one per channel.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// The oldest channel first.
    audiences: Vec<Arc<Audience>>,
    /// For each audience, the number of its listener; equal listeners have one number.
    listeners: Vec<usize>,
    /// By the table's oid.
    tables: HashMap<u32, Interest>,
}

/// Who wants the rows of a table.
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
    /// In the order of the audiences.
    pub(super) members: Vec<Member>,
}

/// One subscription of one audience.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Member {
    pub(super) audience: usize,
    subscription: usize,
}

impl Group {
    pub(super) fn wants(&self, operation: Operation) -> bool {
        self.event.is_none_or(|event| event == operation)
    }
}

impl Index {
    pub(super) fn new(audiences: Vec<Arc<Audience>>) -> Self {
        let mut known: HashMap<&Listener, usize> = HashMap::new();
        let mut listeners = Vec::with_capacity(audiences.len());
        let mut tables: HashMap<u32, Interest> = HashMap::new();
        let mut places: HashMap<(u32, Option<Operation>, &[Filter]), usize> = HashMap::new();
        for (position, audience) in audiences.iter().enumerate() {
            let next = known.len();
            listeners.push(*known.entry(&audience.listener).or_insert(next));
            for (number, subscription) in audience.subscriptions.iter().enumerate() {
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
                        group.members.push(Member { audience: position, subscription: number });
                    }
                    if !roles.contains(&audience.listener.role) {
                        roles.push(audience.listener.role.clone());
                    }
                }
            }
        }
        drop((known, places));
        Self { audiences, listeners, tables }
    }

    /// Who wants the rows of a table; `None` if nobody does.
    pub(super) fn interest(&self, oid: u32) -> Option<&Interest> {
        self.tables.get(&oid)
    }

    pub(super) fn audience(&self, member: Member) -> &Audience {
        &self.audiences[member.audience]
    }

    pub(super) fn subscription(&self, member: Member) -> &Subscription {
        &self.audiences[member.audience].subscriptions[member.subscription]
    }

    /// The number of the member's listener.
    pub(super) fn listener(&self, member: Member) -> usize {
        self.listeners[member.audience]
    }
}
