//! What the catalog has about a table: columns, key, row level security, and what a role may select.

use std::collections::HashMap;

use tokio_postgres::Row;

/// Reads a table (oid) from the catalog, and what some roles (names) may select of it.
pub(crate) const TABLE_SQL: &str = include_str!("table.sql");

/// A table's columns and what each role of interest may see of them.
#[derive(Debug)]
pub(crate) struct Table {
    /// In the order of the table.
    pub(crate) columns: Vec<Column>,
    /// Whether row level security is enabled.
    pub(crate) row_security: bool,
    /// Per role of interest, one flag for each column.
    selectable: HashMap<String, Vec<bool>>,
}

/// One column.
#[derive(Debug)]
pub(crate) struct Column {
    pub(crate) name: String,
    /// As `pg_type` calls it: `int8`, `_text`, an enum's or domain's name.
    pub(crate) type_name: String,
    /// As SQL spells it, with its schema where needed: `bigint`, `text[]`, `public.mood`.
    pub(crate) sql_type: String,
    /// Whether it is part of the primary key.
    pub(crate) is_key: bool,
}

impl Table {
    /// Makes sense of the rows that [`TABLE_SQL`] gives; `None` if the table is gone. Roles that do not exist may select
    /// nothing.
    pub(crate) fn from_rows(rows: &[Row], roles: &[&str]) -> Option<Self> {
        let row_security = rows.first()?.get("row_security");
        let mut table =
            Self { columns: Vec::with_capacity(rows.len()), row_security, selectable: HashMap::new() };
        for row in rows {
            let flags: Vec<bool> = row.get("selectable");
            for (role, flag) in roles.iter().zip(flags) {
                table.selectable.entry((*role).to_owned()).or_default().push(flag);
            }
            table.columns.push(Column {
                name: row.get("name"),
                type_name: row.get("type_name"),
                sql_type: row.get("sql_type"),
                is_key: row.get("is_key"),
            });
        }
        Some(table)
    }

    /// The column of a name.
    pub(crate) fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// The columns of the primary key.
    pub(crate) fn key(&self) -> impl Iterator<Item = &Column> {
        self.columns.iter().filter(|column| column.is_key)
    }

    /// Whether a role may select a column, by the column's position.
    pub(crate) fn may_select(&self, role: &str, column: usize) -> bool {
        self.selectable.get(role).and_then(|flags| flags.get(column)).copied().unwrap_or(false)
    }

    /// Whether a role may select a column, by name.
    pub(crate) fn may_select_named(&self, role: &str, name: &str) -> bool {
        let position = self.columns.iter().position(|column| column.name == name);
        position.is_some_and(|position| self.may_select(role, position))
    }
}
