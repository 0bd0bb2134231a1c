//! Queries PostgreSQL for what only it can decide: a value as JSON, whether a row passes a filter, who may see it.
//!
//! One question covers all rows of a table in a transaction, so a large transaction costs few round trips. Names are
//! quoted identifiers, everything else is a bound parameter.

use std::collections::HashMap;
use std::fmt::Write as _;

use tokio::sync::Mutex;
use tokio::time::{Duration, sleep};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error, Statement};

use super::filter::Filter;
use super::principal::Principal;
use super::table::{Column, TABLE_SQL, Table};
use crate::database::Database;
use crate::error::Result as StackResult;
use crate::replication::{Cell, Relation, Tuple};

/// Statements that stay prepared; more than a test ever needs.
const KEPT_STATEMENTS: usize = 256;

/// Rows in one question.
const ROWS: usize = 500;

/// A connection of the superuser, and the statements prepared on it.
#[derive(Debug)]
pub(crate) struct Oracle {
    client: Client,
    statements: Mutex<HashMap<String, Statement>>,
}

/// A row as JSON, and which filters it passes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Image {
    /// Per column of the table; `None` where the row has no value (an untouched large one).
    pub(crate) values: Vec<Option<String>>,
    /// Per filter.
    pub(crate) passes: Vec<bool>,
}

impl Oracle {
    pub(crate) async fn connect(database: &Database) -> StackResult<Self> {
        let client = database.admin().await?;
        // Without a path, types print with their schema, and no policy or operator is found by accident.
        client.batch_execute("set search_path = ''; set timezone = 'UTC'").await?;
        Ok(Self { client, statements: Mutex::default() })
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// Waits until other sessions can see transactions: the log has a commit a moment before.
    pub(crate) async fn wait_visible(&self, xids: &[i64]) -> Result<(), Error> {
        let statement = self.prepare(include_str!("visible.sql")).await?;
        let mut pause = Duration::ZERO;
        while !self.client.query_one(&statement, &[&xids]).await?.get::<_, bool>(0) {
            sleep(pause).await;
            pause = (pause + Duration::from_micros(500)).min(Duration::from_millis(10));
        }
        Ok(())
    }

    /// What the catalog has about a table; `None` if it is gone.
    pub(crate) async fn table(&self, oid: u32, roles: &[&str]) -> Result<Option<Table>, Error> {
        let statement = self.prepare(TABLE_SQL).await?;
        let rows = self.client.query(&statement, &[&oid, &roles]).await?;
        Ok(Table::from_rows(&rows, roles))
    }

    /// The rows as JSON, and whether each passes each filter.
    pub(crate) async fn images(
        &self,
        relation: &Relation,
        table: &Table,
        rows: &[&Tuple],
        filters: &[&Filter],
    ) -> Result<Vec<Image>, Error> {
        let places = places(relation, table);
        let statement = self.prepare(&images_sql(table, &places, filters)).await?;
        let mut images = Vec::with_capacity(rows.len());
        for rows in rows.chunks(ROWS) {
            let columns: Vec<Vec<Option<&str>>> = places
                .iter()
                .map(|(cell, _)| rows.iter().map(|row| text(row.get(*cell))).collect())
                .collect();
            let parameters = columns
                .iter()
                .map(|column| column as &(dyn ToSql + Sync))
                .chain(filters.iter().map(|filter| &filter.value as &(dyn ToSql + Sync)));
            let answers = self.client.query(&statement, &parameters.collect::<Vec<_>>()).await?;
            for (row, answer) in rows.iter().zip(answers) {
                let found: Vec<Option<String>> = answer.get(0);
                let mut values = vec![None; table.columns.len()];
                for ((cell, column), json) in places.iter().zip(found) {
                    if row.get(*cell) != Some(&Cell::Unchanged) {
                        values[*column] = Some(json.unwrap_or_else(|| "null".to_owned()));
                    }
                }
                images.push(Image { values, passes: answer.get(1) });
            }
        }
        Ok(images)
    }

    /// Which of the rows a principal can select now, found by their primary key, under the policies of the table.
    pub(crate) async fn visible(
        &self,
        relation: &Relation,
        table: &Table,
        rows: &[&Tuple],
        principal: &Principal,
    ) -> Result<Vec<bool>, Error> {
        let key: Vec<(usize, &Column)> = places(relation, table)
            .into_iter()
            .map(|(cell, column)| (cell, &table.columns[column]))
            .filter(|(_, column)| column.is_key)
            .collect();
        let become_principal = self.prepare(include_str!("principal.sql")).await?;
        let statement = self.prepare(&visible_sql(relation, &key)).await?;
        let mut visible = Vec::with_capacity(rows.len());
        for rows in rows.chunks(ROWS) {
            let columns: Vec<Vec<Option<&str>>> =
                key.iter().map(|(cell, _)| rows.iter().map(|row| text(row.get(*cell))).collect()).collect();
            let parameters: Vec<&(dyn ToSql + Sync)> =
                columns.iter().map(|column| column as &(dyn ToSql + Sync)).collect();
            // Sent in one go; each statement waits for the one before in the server, not here.
            let identity: [&(dyn ToSql + Sync); 2] = [&principal.role, &principal.claims];
            let (begun, become_result, answers, ended) = tokio::join!(
                self.client.batch_execute("begin"),
                self.client.query(&become_principal, &identity),
                self.client.query(&statement, &parameters),
                self.client.batch_execute("rollback"),
            );
            begun?;
            become_result?;
            ended?;
            visible.extend(answers?.iter().map(|row| row.get::<_, bool>(0)));
        }
        Ok(visible)
    }

    /// A statement prepared once.
    async fn prepare(&self, sql: &str) -> Result<Statement, Error> {
        let mut statements = self.statements.lock().await;
        if let Some(statement) = statements.get(sql) {
            return Ok(statement.clone());
        }
        let statement = self.client.prepare(sql).await?;
        if statements.len() >= KEPT_STATEMENTS {
            statements.clear();
        }
        statements.insert(sql.to_owned(), statement.clone());
        Ok(statement)
    }
}

/// Where each cell of a row belongs: (position in the row, position in the table). They differ after DDL.
fn places(relation: &Relation, table: &Table) -> Vec<(usize, usize)> {
    let place = |name: &String| table.columns.iter().position(|column| column.name == *name);
    relation.columns.iter().enumerate().filter_map(|(cell, name)| Some((cell, place(name)?))).collect()
}

fn text(cell: Option<&Cell>) -> Option<&str> {
    match cell {
        Some(Cell::Text(text)) => Some(text),
        _ => None,
    }
}

fn images_sql(table: &Table, places: &[(usize, usize)], filters: &[&Filter]) -> String {
    let name_of = |column: &str| places.iter().position(|(_, place)| table.columns[*place].name == column);
    let json: Vec<String> = places
        .iter()
        .enumerate()
        .map(|(index, (_, place))| json_expression(&format!("r.c{index}"), &table.columns[*place]))
        .collect();
    let conditions: Vec<String> = filters
        .iter()
        .enumerate()
        .map(|(index, filter)| match (name_of(&filter.column), table.column(&filter.column)) {
            (Some(name), Some(column)) => {
                let value = format!("r.c{name}::{}", column.sql_type);
                let parameter = format!("${}::pg_catalog.text", places.len() + index + 1);
                filter.condition(&value, &column.sql_type, &parameter)
            }
            // The column was dropped meanwhile. The parameter is named so that its number is in use.
            _ => format!("(${}::pg_catalog.text is null and false)", places.len() + index + 1),
        })
        .collect();
    format!(
        "select array[{}]::pg_catalog.text[], array[{}]::pg_catalog.bool[] from {} order by r.n",
        json.join(", "),
        conditions.join(", "),
        rows_from(places.len()),
    )
}

fn visible_sql(relation: &Relation, key: &[(usize, &Column)]) -> String {
    let same: Vec<String> = key
        .iter()
        .enumerate()
        .map(|(index, (_, column))| format!("t.{} = r.c{index}::{}", quoted(&column.name), column.sql_type))
        .collect();
    format!(
        "select exists (select 1 from {}.{} t where {}) from {} order by r.n",
        quoted(&relation.schema),
        quoted(&relation.name),
        same.join(" and "),
        rows_from(key.len()),
    )
}

/// A row source `r` of text columns `c0`, `c1`, … out of that many array parameters, numbered by `n`.
fn rows_from(columns: usize) -> String {
    let mut sql = String::from("rows from (");
    for index in 0..columns {
        // Writing to a String cannot fail.
        let _ =
            write!(sql, "{}unnest(${}::pg_catalog.text[])", if index == 0 { "" } else { ", " }, index + 1);
    }
    sql.push_str(") with ordinality as r (");
    for index in 0..columns {
        let _ = write!(sql, "c{index}, ");
    }
    sql.push_str("n)");
    sql
}

/// A value as the JSON text that Realtime sends for its type; SQL NULL for null.
fn json_expression(value: &str, column: &Column) -> String {
    let typed = format!("{value}::{}", column.sql_type);
    match column.type_name.as_str() {
        // Bare hexadecimal digits, without `\x`.
        "bytea" => format!("to_jsonb(encode({typed}, 'hex'))::pg_catalog.text"),
        // JSON cannot represent them.
        "numeric" | "float4" | "float8" => {
            format!(
                "case when {value} not in ('NaN', 'Infinity', '-Infinity') then to_jsonb({typed})::pg_catalog.text end"
            )
        }
        _ => format!("to_jsonb({typed})::pg_catalog.text"),
    }
}

/// An identifier that is safe in SQL.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
