//! The SQL of writes: rows out of a JSON text into a table.

use std::collections::BTreeSet;

use super::payload::Payload;
use super::plan::{Plan, push_name};
use super::prefer::Resolution;
use super::schema::{Column, Name, Table};
use super::sql::{Sql, literal};

/// Columns to return: none, all, or these.
#[derive(Debug)]
pub(super) enum Returning {
    /// Nothing but the fact that there was a row; needs no privilege to read.
    Nothing,
    /// Every column.
    All,
    /// Some columns.
    Some(BTreeSet<String>),
}

impl Returning {
    /// What a plan needs to read.
    pub(super) fn for_plan(plan: &Plan<'_>) -> Self {
        plan.needs().map_or(Self::All, Self::Some)
    }

    fn columns(&self, sql: &mut Sql, table: &Name) {
        match self {
            Self::All => {
                push_name(sql, table);
                sql.push(".*");
            }
            Self::Some(names) if !names.is_empty() => {
                sql.join(names, ", ", |sql, name| {
                    push_name(sql, table);
                    sql.push(".").name(name);
                });
            }
            Self::Nothing | Self::Some(_) => {
                sql.push("1");
            }
        }
    }
}

/// What an insert writes, and what it does about rows that exist.
#[derive(Debug)]
pub(super) struct Insert<'a> {
    /// The table.
    pub(super) table: &'a Table,
    /// The columns that are set.
    pub(super) columns: &'a [&'a Column],
    /// The rows.
    pub(super) payload: &'a Payload,
    /// Whether missing keys take the column's default.
    pub(super) defaults: bool,
    /// The columns whose equality makes a duplicate, and what then.
    pub(super) on_conflict: Option<(Resolution, &'a [String])>,
    /// Values that the key of the row must have, in a `PUT`.
    pub(super) key: &'a [(String, String)],
}

impl Insert<'_> {
    /// Appends the statement.
    pub(super) fn push(&self, sql: &mut Sql, returning: &Returning) {
        sql.push("INSERT INTO ");
        push_name(sql, &self.table.name);
        if !self.columns.is_empty() {
            sql.push("(")
                .join(self.columns, ", ", |sql, column| {
                    sql.name(&column.name);
                })
                .push(")");
        }
        sql.push(" SELECT ");
        sql.join(self.columns, ", ", |sql, column| {
            sql.push("pgrst_body.").name(&column.name);
        });
        self.source().push(sql);
        let conflict = self.on_conflict.filter(|(_, key)| !key.is_empty());
        let merges = matches!(conflict, Some((Resolution::Merge, _)));
        if merges || !self.key.is_empty() {
            sql.push(" WHERE ").push(&counter("+", "0"));
            for (name, value) in self.key {
                sql.push(" AND pgrst_body.").name(name).push(" = ").value(value);
            }
        }
        if let Some((_, key)) = conflict {
            sql.push(" ON CONFLICT(")
                .join(key, ", ", |sql, name| {
                    sql.name(name);
                })
                .push(")");
            if merges && !self.columns.is_empty() {
                sql.push(" DO UPDATE SET ").join(self.columns, ", ", |sql, column| {
                    sql.name(&column.name).push(" = EXCLUDED.").name(&column.name);
                });
                sql.push(" WHERE ").push(&counter("-", "-1"));
            } else {
                sql.push(" DO NOTHING");
            }
        }
        sql.push(" RETURNING ");
        returning.columns(sql, &self.table.name);
    }

    fn source(&self) -> Source<'_> {
        Source { columns: self.columns, payload: self.payload, defaults: self.defaults, first: false }
    }
}

/// What an update sets, and where.
#[derive(Debug)]
pub(super) struct Update<'a> {
    /// The table.
    pub(super) table: &'a Table,
    /// The columns that are set.
    pub(super) columns: &'a [&'a Column],
    /// The values.
    pub(super) payload: &'a Payload,
    /// Whether missing keys take the column's default.
    pub(super) defaults: bool,
    /// Whose filters select the rows.
    pub(super) filters: &'a Plan<'a>,
}

impl Update<'_> {
    /// Appends the statement. One that sets nothing selects nothing.
    pub(super) fn push(&self, sql: &mut Sql, returning: &Returning) {
        if self.columns.is_empty() {
            sql.push("SELECT ");
            returning.columns(sql, &self.table.name);
            sql.push(" FROM ");
            push_name(sql, &self.table.name);
            sql.push(" WHERE false");
            return;
        }
        sql.push("UPDATE ");
        push_name(sql, &self.table.name);
        sql.push(" SET ").join(self.columns, ", ", |sql, column| {
            sql.name(&column.name).push(" = pgrst_body.").name(&column.name);
        });
        Source { columns: self.columns, payload: self.payload, defaults: self.defaults, first: true }
            .push(sql);
        filtered(sql, self.filters);
        sql.push(" RETURNING ");
        returning.columns(sql, &self.table.name);
    }
}

/// Appends a `DELETE` of the rows that the plan's filters select.
pub(super) fn delete(sql: &mut Sql, table: &Table, filters: &Plan<'_>, returning: &Returning) {
    sql.push("DELETE FROM ");
    push_name(sql, &table.name);
    filtered(sql, filters);
    sql.push(" RETURNING ");
    returning.columns(sql, &table.name);
}

fn filtered(sql: &mut Sql, plan: &Plan<'_>) {
    if plan.is_filtered() {
        sql.push(" WHERE ");
        plan.conditions(sql);
    }
}

/// Counts the rows that an upsert added: up for each that is tried, down for each that is there. Always true.
fn counter(step: &str, never: &str) -> String {
    format!(
        "set_config('pgrst.inserted', (coalesce(nullif(current_setting('pgrst.inserted', true), '')::int, 0) {step} \
         1)::text, true) <> '{never}'"
    )
}

/// Rows out of the body.
struct Source<'a> {
    columns: &'a [&'a Column],
    payload: &'a Payload,
    defaults: bool,
    /// Only the first row counts.
    first: bool,
}

impl Source<'_> {
    /// Appends ` FROM …` whose last part is `pgrst_body`.
    fn push(&self, sql: &mut Sql) {
        let json = if self.defaults { "jsonb" } else { "json" };
        sql.push(" FROM (SELECT ")
            .value(&self.payload.json)
            .push("::")
            .push(json)
            .push(" AS json_data) pgrst_payload, ");
        let mut value = "pgrst_payload.json_data";
        if self.defaults {
            self.push_defaults(sql);
            value = "pgrst_json_defs.val";
        }
        sql.push("LATERAL (SELECT ")
            .join(self.columns, ", ", |sql, column| {
                sql.name(&column.name);
            })
            .push(" FROM ");
        match (self.columns.is_empty(), self.payload.is_object) {
            // Rows without a column: one for an empty object, one for each empty object of an array.
            (true, true) => sql.push("(values (1)) _"),
            (true, false) => sql.push(json).push("_array_elements(").push(value).push(") _"),
            (false, is_object) => {
                sql.push(json)
                    .push(if is_object { "_to_record(" } else { "_to_recordset(" })
                    .push(value)
                    .push(") AS _(");
                sql.join(self.columns, ", ", |sql, column| {
                    sql.name(&column.name).push(" ").push(&column.sql_type);
                });
                sql.push(")")
            }
        };
        sql.push(if self.first { " LIMIT 1) pgrst_body" } else { ") pgrst_body" });
    }

    /// Appends the body with the columns' defaults beneath each object.
    fn push_defaults(&self, sql: &mut Sql) {
        let with_default = |column: &&Column| {
            column.default.as_ref().map(|default| format!("{}, {default}", literal(&column.name)))
        };
        let defaults: Vec<String> = self.columns.iter().filter_map(with_default).collect();
        let defaults = format!("jsonb_build_object({})", defaults.join(", "));
        if self.payload.is_object {
            sql.push(&format!(
                "LATERAL (SELECT {defaults} || pgrst_payload.json_data AS val) pgrst_json_defs, "
            ));
        } else {
            sql.push(&format!(
                "LATERAL (SELECT jsonb_agg({defaults} || elem) AS val FROM \
                 jsonb_array_elements(pgrst_payload.json_data) elem) pgrst_json_defs, "
            ));
        }
    }
}
