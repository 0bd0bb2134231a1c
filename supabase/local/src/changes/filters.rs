//! The filters of a table's subscriptions: each distinct one is evaluated once, and many equalities on one column with one look-up.

use std::collections::HashMap;

use uuid::Uuid;

use super::filter::{Filter, Operator};
use super::index::{Group, Interest};
use super::oracle::Image;
use super::table::Table;
use crate::replication::{Identity, Operation, RowChange};

/// How the filters of all groups are decided.
pub(super) struct Filters<'a> {
    /// What the database evaluates for each row, in this order.
    pub(super) queried: Vec<&'a Filter>,
    /// Groups with one plain equality: by column and by the JSON of the value that passes.
    equal: HashMap<usize, HashMap<String, Vec<usize>>>,
    /// All other groups: their tests.
    tested: Vec<(usize, Vec<Test>)>,
}

/// One filter of a group.
struct Test {
    /// The column's place in the table; none if it was dropped.
    column: Option<usize>,
    how: How,
}

/// How a filter is decided.
enum How {
    /// It passes a value that JSON writes like this, or, if negated, any other.
    Equal { json: String, negated: bool },
    /// In [`Image::passes`] at this place.
    Queried(usize),
}

impl<'a> Filters<'a> {
    pub(super) fn new(interest: &'a Interest, table: &Table) -> Self {
        let mut filters = Self { queried: Vec::new(), equal: HashMap::new(), tested: Vec::new() };
        let mut known: HashMap<&'a Filter, usize> = HashMap::new();
        for (number, group) in interest.groups.iter().enumerate() {
            let tests: Vec<Test> =
                group.filters.iter().map(|filter| filters.test(filter, table, &mut known)).collect();
            match tests.as_slice() {
                [Test { column: Some(column), how: How::Equal { json, negated: false } }] => {
                    let values = filters.equal.entry(*column).or_default();
                    values.entry(json.clone()).or_default().push(number);
                }
                _ => filters.tested.push((number, tests)),
            }
        }
        filters
    }

    fn test(&mut self, filter: &'a Filter, table: &Table, known: &mut HashMap<&'a Filter, usize>) -> Test {
        let column = table.columns.iter().position(|column| column.name == filter.column);
        let how = match plain_equality(filter, table) {
            Some(json) => How::Equal { json, negated: filter.negated },
            None => How::Queried(*known.entry(filter).or_insert_with(|| {
                self.queried.push(filter);
                self.queried.len() - 1
            })),
        };
        Test { column, how }
    }

    /// The groups that a change passes: on the new row, for DELETE on the old one.
    pub(super) fn passing(
        &self,
        groups: &[Group],
        table: &Table,
        change: &RowChange,
        image: Option<&Image>,
    ) -> Vec<usize> {
        let Some(image) = image else { return Vec::new() };
        // A key-only old row has nothing of the other columns, not even whether they are null.
        let only_key = change.operation == Operation::Delete && change.relation.identity == Identity::Partial;
        let known = |column: usize| {
            image.values[column].as_deref().filter(|_| !only_key || table.columns[column].is_key)
        };
        let passes = |test: &Test| {
            let Some(value) = test.column.and_then(known) else { return false };
            match &test.how {
                How::Queried(place) => image.passes[*place],
                // NULL passes nothing, also no negation.
                How::Equal { json, negated } => value != "null" && (value == json) != *negated,
            }
        };
        let equal = self.equal.iter().filter_map(|(column, values)| values.get(known(*column)?)).flatten();
        let tested =
            self.tested.iter().filter(|(_, tests)| tests.iter().all(passes)).map(|(number, _)| number);
        equal.chain(tested).copied().filter(|number| groups[*number].wants(change.operation)).collect()
    }
}

/// The JSON of the one value that a filter lets through, where that is certain without the database: an integer or a UUID. Many sockets
/// have such a filter each, and the database would evaluate each of them for each row.
fn plain_equality(filter: &Filter, table: &Table) -> Option<String> {
    let value = Some(&filter.value).filter(|_| filter.operator == Operator::Eq)?;
    match table.column(&filter.column)?.type_name.as_str() {
        "int2" | "int4" | "int8" => value.parse::<i64>().ok().map(|n| n.to_string()).filter(|n| n == value),
        "uuid" if value.len() == 36 => Uuid::try_parse(value).ok().map(|uuid| format!("\"{uuid}\"")),
        _ => None,
    }
}
