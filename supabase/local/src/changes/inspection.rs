//! The changed rows of one table in one transaction: which audience hears of which row, and in which view.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use tokio_postgres::Error;
use tracing::warn;
use uuid::Uuid;

use super::audience::{Audience, Notice};
use super::filter::{Filter, Operator};
use super::listener::Listener;
use super::oracle::{Image, Oracle};
use super::record::{Change, OldColumns, View};
use super::subscription::Subscription;
use super::table::Table;
use crate::replication::{Cell, Identity, Operation, RowChange, Tuple};

/// The largest row that is sent whole, in bytes of its text.
const MAX_ROW: usize = 1_048_576;

/// What the database said about the rows.
pub(super) struct Inspection<'a> {
    changes: &'a [&'a RowChange],
    audiences: &'a [Arc<Audience>],
    table: Table,
    /// Where the answer about each distinct filter is found.
    filters: HashMap<&'a Filter, Answer>,
    /// Per change.
    rows: Vec<Row>,
    /// Per listener and change: whether policies let the new row through. Without row level security: nobody is here.
    visible: HashMap<&'a Listener, Vec<bool>>,
}

/// Where the answer about a filter is found.
enum Answer {
    /// It passes a value that JSON writes like this, unless it is negated.
    Equal(String),
    /// In [`Image::passes`] at this place.
    Asked(usize),
}

/// The images of one change.
struct Row {
    new: Option<Image>,
    old: Option<Image>,
    too_large: bool,
}

impl<'a> Inspection<'a> {
    /// Asks the database about the rows; `None` if nobody wants them, or the table is gone.
    pub(super) async fn of(
        oracle: &Oracle,
        changes: &'a [&'a RowChange],
        audiences: &'a [Arc<Audience>],
    ) -> Result<Option<Self>, Error> {
        let wants = |subscription: &&Subscription| {
            changes.iter().any(|change| subscription.wants(&change.relation, change.operation))
        };
        let interested = audiences.iter().filter(|audience| audience.subscriptions.iter().any(|s| wants(&s)));
        let mut roles: Vec<&str> = interested.map(|audience| audience.listener.role.as_str()).collect();
        roles.sort_unstable();
        roles.dedup();
        let Some(first) = changes.first().filter(|_| !roles.is_empty()) else { return Ok(None) };
        let Some(table) = oracle.table(first.relation.oid, &roles).await? else {
            return Ok(None);
        };
        let mut filters: HashMap<&Filter, Answer> = HashMap::new();
        let mut asked: Vec<&Filter> = Vec::new();
        let subscriptions = audiences.iter().flat_map(|audience| &audience.subscriptions);
        for filter in subscriptions.filter(wants).flat_map(|subscription| &subscription.filters) {
            filters.entry(filter).or_insert_with(|| {
                plain_equality(filter, &table).map_or_else(
                    || {
                        asked.push(filter);
                        Answer::Asked(asked.len() - 1)
                    },
                    Answer::Equal,
                )
            });
        }
        let rows = rows(oracle, &table, changes, &asked).await?;
        let mut inspection = Self { changes, audiences, table, filters, rows, visible: HashMap::new() };
        if inspection.table.row_security {
            inspection.look_through_policies(oracle).await?;
        }
        Ok(Some(inspection))
    }

    /// Asks once per distinct listener who would otherwise hear of a row.
    async fn look_through_policies(&mut self, oracle: &Oracle) -> Result<(), Error> {
        let rows: Vec<(usize, &Tuple)> = self
            .changes
            .iter()
            .enumerate()
            .filter_map(|(index, change)| Some((index, change.new.as_ref()?)))
            .collect();
        let tuples: Vec<&Tuple> = rows.iter().map(|(_, tuple)| *tuple).collect();
        for audience in self.audiences {
            let listener = &audience.listener;
            let hears = |row: &(usize, &Tuple)| audience.subscriptions.iter().any(|s| self.passes(s, row.0));
            let known = self.visible.contains_key(listener);
            if known || self.refusal(&listener.role).is_some() || !rows.iter().any(hears) {
                continue;
            }
            let mut visible = vec![false; self.changes.len()];
            match oracle.visible(&self.changes[0].relation, &self.table, &tuples, listener).await {
                Ok(answers) => rows.iter().zip(answers).for_each(|((index, _), sees)| visible[*index] = sees),
                // A policy that raises an error lets nothing through.
                Err(error) if error.as_db_error().is_some() => warn!(%error, "a policy failed"),
                Err(error) => return Err(error),
            }
            self.visible.insert(listener, visible);
        }
        Ok(())
    }

    /// Who hears of a change: positions of audiences, and what each is told.
    pub(super) fn notices(&self, row: usize, committed_at: i64) -> Vec<(usize, Notice)> {
        let operation = self.changes[row].operation;
        let change = self.change(row, committed_at);
        // Many channels share a role and its view; the text is made once.
        let mut texts: HashMap<(&str, Option<&[String]>), Arc<str>> = HashMap::new();
        let mut notices = Vec::new();
        for (position, audience) in self.audiences.iter().enumerate() {
            let (channel, role) = (audience.channel, audience.listener.role.as_str());
            let wanting =
                audience.subscriptions.iter().filter(|s| s.wants(&self.changes[row].relation, operation));
            let changed = |data, ids| Notice::Changed { channel, operation: operation.name(), data, ids };
            if let Some(error) = self.refusal(role).filter(|_| operation != Operation::Delete) {
                let mut ids: Vec<u32> = wanting.map(|subscription| subscription.binding_id).collect();
                ids.reverse();
                if !ids.is_empty() {
                    notices.push((position, changed(change.refusal(error).into(), ids)));
                }
                continue;
            }
            // One message for each set of columns; all columns first.
            let mut by_view: BTreeMap<Option<&[String]>, Vec<u32>> = BTreeMap::new();
            for subscription in wanting.filter(|s| self.passes(s, row) && self.sees(&audience.listener, row))
            {
                by_view.entry(subscription.select.as_deref()).or_default().push(subscription.binding_id);
            }
            for (select, mut ids) in by_view {
                ids.reverse();
                let data = texts
                    .entry((role, select))
                    .or_insert_with(|| change.data(&View::new(&self.table, role, select)).into());
                notices.push((position, changed(Arc::clone(data), ids)));
            }
        }
        notices
    }

    /// Why a role is told nothing about rows of this table but that they changed.
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

    /// Policies hold back rows, but not the news that a row is gone.
    fn sees(&self, listener: &Listener, row: usize) -> bool {
        !self.table.row_security
            || self.changes[row].operation == Operation::Delete
            || self.visible.get(listener).is_some_and(|visible| visible[row])
    }

    /// Whether a change is of the wanted kind and passes all filters: on the new row, for DELETE on the old one.
    fn passes(&self, subscription: &Subscription, row: usize) -> bool {
        let change = self.changes[row];
        let image =
            if change.operation == Operation::Delete { &self.rows[row].old } else { &self.rows[row].new };
        let Some(image) = image.as_ref().filter(|_| subscription.wants(&change.relation, change.operation))
        else {
            return false;
        };
        // A key-only old row knows nothing of the other columns, not even whether they are null.
        let only_key = change.operation == Operation::Delete && change.relation.identity == Identity::Partial;
        subscription.filters.iter().all(|filter| {
            let position = self.table.columns.iter().position(|column| column.name == filter.column);
            let known = position.is_some_and(|position| {
                image.values[position].is_some() && (!only_key || self.table.columns[position].is_key)
            });
            known
                && match self.filters.get(filter) {
                    None => false,
                    Some(Answer::Asked(index)) => image.passes[*index],
                    // NULL passes nothing, also no negation.
                    Some(Answer::Equal(json)) => position
                        .and_then(|position| image.values[position].as_ref())
                        .is_some_and(|value| value != "null" && (value == json) != filter.negated),
                }
        })
    }

    fn change(&self, row: usize, committed_at: i64) -> Change<'_> {
        let RowChange { relation, operation, .. } = self.changes[row];
        let Row { new, old, too_large } = &self.rows[row];
        let full = relation.identity == Identity::Full;
        let old = match operation {
            Operation::Insert => None,
            // An update that kept the key has no old row: its key is the new one's.
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

/// The JSON of the one value that a filter lets through, where that is certain without the database: an integer or a UUID. Many sockets
/// have such a filter each, and the database would look at each of them for each row.
fn plain_equality(filter: &Filter, table: &Table) -> Option<String> {
    let value = Some(&filter.value).filter(|_| filter.operator == Operator::Eq)?;
    match table.column(&filter.column)?.type_name.as_str() {
        "int2" | "int4" | "int8" => value.parse::<i64>().ok().map(|n| n.to_string()).filter(|n| n == value),
        "uuid" if value.len() == 36 => Uuid::try_parse(value).ok().map(|uuid| format!("\"{uuid}\"")),
        _ => None,
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
