//! Changed rows of one table: which subscriber receives which row, and in which view.
//!
//! Filters are evaluated once for each distinct one, policies once for each distinct principal that would otherwise receive a row,
//! as the real server groups them.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use futures_util::future::join_all;
use tokio_postgres::Error;
use tracing::warn;

use super::filter::Filter;
use super::filters::Filters;
use super::index::{Index, Interest, Member};
use super::oracle::{Image, Oracle};
use super::record::{Change, OldColumns, View};
use super::subscriber::{Mailbox, Notice};
use super::table::Table;
use crate::replication::{Cell, Identity, Operation, RowChange, Tuple};

/// Principals whose policies are evaluated at the same time.
const AT_ONCE: usize = 64;

/// The largest row that is sent whole, in bytes of its text.
const MAX_ROW: usize = 1_048_576;

/// What the database answered about the rows.
pub(super) struct Inspection<'a> {
    changes: Vec<&'a RowChange>,
    index: &'a Index,
    interest: &'a Interest,
    table: Table,
    /// Per change.
    rows: Vec<Row>,
    /// Per change: the groups of subscriptions whose event and filters it passes, in their order.
    passing: Vec<Vec<usize>>,
    /// Per principal, by number, and change: whether policies let the new row through. Without row level security it is empty.
    visible: HashMap<usize, Vec<bool>>,
}

/// The images of one change.
struct Row {
    new: Option<Image>,
    old: Option<Image>,
    too_large: bool,
}

impl<'a> Inspection<'a> {
    /// Queries the database about the rows; `None` if no subscription matches, or the table is gone.
    pub(super) async fn of(
        oracle: &Oracle,
        changes: Vec<&'a RowChange>,
        index: &'a Index,
    ) -> Result<Option<Self>, Error> {
        let Some(first) = changes.first() else { return Ok(None) };
        let Some(interest) = index.interest(first.relation.oid) else { return Ok(None) };
        if !interest.groups.iter().any(|group| changes.iter().any(|change| group.wants(change.operation))) {
            return Ok(None);
        }
        let roles: Vec<&str> = interest.roles.iter().map(String::as_str).collect();
        let Some(table) = oracle.table(first.relation.oid, &roles).await? else { return Ok(None) };
        let filters = Filters::new(interest, &table);
        let rows = rows(oracle, &table, &changes, &filters.queried).await?;
        let passing = changes.iter().zip(&rows).map(|(change, row)| {
            let image = if change.operation == Operation::Delete { &row.old } else { &row.new };
            filters.passing(&interest.groups, &table, change, image.as_ref())
        });
        let passing = passing.collect();
        let mut inspection = Self { changes, index, interest, table, rows, passing, visible: HashMap::new() };
        if inspection.table.row_security {
            inspection.look_through_policies(oracle).await?;
        }
        Ok(Some(inspection))
    }

    /// Evaluates policies once per distinct principal that would otherwise receive a row, for those rows.
    async fn look_through_policies(&mut self, oracle: &Oracle) -> Result<(), Error> {
        let mut wanted: BTreeMap<usize, (Member, Vec<usize>)> = BTreeMap::new();
        for (row, groups) in self.passing.iter().enumerate() {
            if self.changes[row].new.is_none() {
                continue;
            }
            for member in groups.iter().flat_map(|group| &self.interest.groups[*group].members) {
                let (_, rows) =
                    wanted.entry(self.index.principal(*member)).or_insert_with(|| (*member, Vec::new()));
                if rows.last() != Some(&row) {
                    rows.push(row);
                }
            }
        }
        let wanted: Vec<(usize, Member, Vec<usize>)> = wanted
            .into_iter()
            .map(|(principal, (member, rows))| (principal, member, rows))
            .filter(|(_, member, _)| self.refusal(&self.index.subscriber(*member).principal.role).is_none())
            .collect();
        for some in wanted.chunks(AT_ONCE) {
            let questions = some.iter().map(async |(_, member, rows)| {
                let tuples: Vec<&Tuple> =
                    rows.iter().filter_map(|row| self.changes[*row].new.as_ref()).collect();
                let principal = &self.index.subscriber(*member).principal;
                oracle.visible(&self.changes[0].relation, &self.table, &tuples, principal).await
            });
            for ((principal, _, rows), answer) in some.iter().zip(join_all(questions).await) {
                let mut visible = vec![false; self.changes.len()];
                match answer {
                    Ok(answers) => rows.iter().zip(answers).for_each(|(row, sees)| visible[*row] = sees),
                    // A policy that raises an error lets nothing through.
                    Err(error) if error.as_db_error().is_some() => warn!(%error, "a policy failed"),
                    Err(error) => return Err(error),
                }
                self.visible.insert(*principal, visible);
            }
        }
        Ok(())
    }

    /// Who receives a change, and in which form; the oldest channel first.
    pub(super) fn notices(&self, row: usize, committed_at: i64) -> Vec<(&'a Mailbox, Notice)> {
        let operation = self.changes[row].operation;
        let change = self.change(row, committed_at);
        // Many channels share a role and its view; the text is made once.
        let mut texts: HashMap<(&str, Option<&[String]>), Arc<str>> = HashMap::new();
        let mut notices = Vec::new();
        for members in self.members(row).chunk_by(|one, other| one.subscriber == other.subscriber) {
            let subscriber = self.index.subscriber(members[0]);
            let (channel, role) = (subscriber.channel, subscriber.principal.role.as_str());
            let changed = |data, ids| Notice::Changed { channel, operation: operation.name(), data, ids };
            if let Some(error) = self.refusal(role).filter(|_| operation != Operation::Delete) {
                let ids = members.iter().rev().map(|member| self.index.subscription(*member).binding_id);
                notices.push((&subscriber.mailbox, changed(change.refusal(error).into(), ids.collect())));
                continue;
            }
            if !self.sees(self.index.principal(members[0]), row) {
                continue;
            }
            // One message for each set of columns; all columns first.
            let mut by_view: BTreeMap<Option<&[String]>, Vec<u32>> = BTreeMap::new();
            for subscription in members.iter().rev().map(|member| self.index.subscription(*member)) {
                by_view.entry(subscription.select.as_deref()).or_default().push(subscription.binding_id);
            }
            for (select, ids) in by_view {
                let data = texts
                    .entry((role, select))
                    .or_insert_with(|| change.data(&View::new(&self.table, role, select)).into());
                notices.push((&subscriber.mailbox, changed(Arc::clone(data), ids)));
            }
        }
        notices
    }

    /// The subscriptions that receive a change, as far as filters decide; of refused roles, all that subscribe to it. In the order of their
    /// subscribers.
    fn members(&self, row: usize) -> Vec<Member> {
        let operation = self.changes[row].operation;
        let refused = |member: &&Member| {
            operation != Operation::Delete
                && self.refusal(&self.index.subscriber(**member).principal.role).is_some()
        };
        let passing = self.passing[row].iter().flat_map(|group| &self.interest.groups[*group].members);
        let mut members: Vec<Member> = passing.filter(|member| !refused(member)).copied().collect();
        if self.interest.roles.iter().any(|role| self.refusal(role).is_some()) {
            let wanting = self.interest.groups.iter().filter(|group| group.wants(operation));
            members.extend(wanting.flat_map(|group| &group.members).filter(refused));
        }
        members.sort_unstable();
        members
    }

    /// Why a role receives nothing of this table's rows but the fact that they changed.
    fn refusal(&self, role: &str) -> Option<&'static str> {
        let mut key = self.table.key().peekable();
        if key.peek().is_none() {
            Some("Error 400: Bad Request, no primary key")
        } else if !key.all(|column| self.table.may_select_named(role, &column.name)) {
            Some("Error 401: Unauthorized")
        } else {
            None
        }
    }

    /// Policies hold back rows, but not the fact that a row was deleted.
    fn sees(&self, principal: usize, row: usize) -> bool {
        !self.table.row_security
            || self.changes[row].operation == Operation::Delete
            || self.visible.get(&principal).is_some_and(|visible| visible[row])
    }

    fn change(&self, row: usize, committed_at: i64) -> Change<'_> {
        let RowChange { relation, operation, .. } = self.changes[row];
        let Row { new, old, too_large } = &self.rows[row];
        let full = relation.identity == Identity::Full;
        let old = match operation {
            Operation::Insert => None,
            // An update that did not change the key has no old row: its key is the new one's.
            Operation::Update => old
                .as_ref()
                .or(new.as_ref())
                .map(|image| (image, if full { OldColumns::All } else { OldColumns::Key })),
            // The deleted row cannot be checked against policies any more, so it shrinks to its key.
            Operation::Delete => old.as_ref().map(|image| {
                (image, if full && !self.table.row_security { OldColumns::All } else { OldColumns::Key })
            }),
        };
        Change {
            relation,
            table: &self.table,
            operation: *operation,
            committed_at,
            new: new.as_ref(),
            old,
            too_large: *too_large,
        }
    }
}

/// Has the database render all rows, old and new, in one go.
async fn rows(
    oracle: &Oracle,
    table: &Table,
    changes: &[&RowChange],
    filters: &[&Filter],
) -> Result<Vec<Row>, Error> {
    let new: Vec<Option<Cow<'_, Tuple>>> = changes.iter().map(|change| complete(change)).collect();
    let tuples =
        changes.iter().zip(&new).flat_map(|(change, new)| new.as_deref().into_iter().chain(&change.old));
    let tuples: Vec<&Tuple> = tuples.collect();
    let mut images = oracle.images(&changes[0].relation, table, &tuples, filters).await?.into_iter();
    let rows = changes.iter().map(|change| Row {
        new: change.new.as_ref().and_then(|_| images.next()),
        old: change.old.as_ref().and_then(|_| images.next()),
        too_large: size(change.new.as_ref()) + size(change.old.as_ref()) > MAX_ROW,
    });
    Ok(rows.collect())
}

/// The new row, with untouched large values taken from the old row where that has them.
fn complete(change: &RowChange) -> Option<Cow<'_, Tuple>> {
    let new = change.new.as_ref()?;
    let Some(old) = change.old.as_ref().filter(|_| change.relation.identity == Identity::Full) else {
        return Some(Cow::Borrowed(new));
    };
    let cells = new.iter().zip(old).map(|(new, old)| if *new == Cell::Unchanged { old } else { new });
    Some(Cow::Owned(cells.cloned().collect()))
}

/// Bytes of a row's text.
fn size(row: Option<&Tuple>) -> usize {
    let cell = |cell: &Cell| match cell {
        Cell::Text(text) => text.len(),
        Cell::Null | Cell::Unchanged => 0,
    };
    row.into_iter().flatten().map(cell).sum()
}
