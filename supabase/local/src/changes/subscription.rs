//! A binding that the database has accepted, for the tables it names.

use std::collections::HashSet;
use std::sync::Arc;

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use super::binding::{Binding, Parameters};
use super::filter::{Filter, Operator};
use super::oracle::Oracle;
use super::principal::Principal;
use super::table::Table;
use crate::replication::Operation;

/// One accepted binding.
#[derive(Debug)]
pub(crate) struct Subscription {
    pub(crate) binding_id: u32,
    pub(super) event: Option<Operation>,
    /// The tables its patterns named when it was made.
    pub(super) tables: HashSet<u32>,
    pub(crate) filters: Vec<Filter>,
    /// Columns wanted besides the primary key, sorted; `None` means all.
    pub(crate) select: Option<Arc<[String]>>,
}

/// Checks all bindings of a channel against the database. All or none: one bad binding refuses the channel's whole
/// list.
///
/// # Errors
/// The text of the `system` message.
pub(crate) async fn accept(
    oracle: &Oracle,
    bindings: &[Binding],
    principal: &Principal,
) -> Result<Vec<Subscription>, String> {
    let parameters: Vec<(u32, Parameters)> =
        bindings.iter().map(|b| Ok((b.id(), b.parameters()?))).collect::<Result<_, String>>()?;
    let mut accepted = Vec::with_capacity(parameters.len());
    for (binding_id, parameters) in parameters {
        let tables = match tables(oracle, &parameters, principal).await {
            Ok(tables) => tables,
            Err(exception) => {
                return Err(format!(
                    "Unable to subscribe to changes with given parameters. An exception happened so please check your \
                     connect parameters: {}. Exception: {exception}",
                    parameters.shown()
                ));
            }
        };
        if tables.is_empty() {
            return Err(format!(
                "Unable to subscribe to changes with given parameters. Please check Realtime is enabled for the given \
                 connect parameters: {}",
                parameters.shown()
            ));
        }
        let Parameters { event, filters, select, .. } = parameters;
        let select = select.map(|mut columns| {
            columns.sort();
            columns.dedup();
            Arc::from(columns)
        });
        accepted.push(Subscription { binding_id, event, tables, filters, select });
    }
    Ok(accepted)
}

/// The published tables that the names or patterns mean, once filters and columns fit all of them.
async fn tables(
    oracle: &Oracle,
    parameters: &Parameters,
    principal: &Principal,
) -> Result<HashSet<u32>, Exception> {
    let client = oracle.client();
    let published = client
        .query(include_str!("published.sql"), &[&parameters.schema, &parameters.table])
        .await
        .map_err(Exception::from)?;
    let mut tables = HashSet::new();
    for row in published {
        let oid: u32 = row.get(0);
        let Some(table) = oracle.table(oid, &[&principal.role]).await? else { continue };
        for filter in &parameters.filters {
            check_filter(client, filter, &table, &principal.role).await?;
        }
        for column in parameters.select.iter().flatten() {
            if !table.may_select_named(&principal.role, column) {
                return Err(Exception::raised(&format!("invalid column for select {column}")));
            }
        }
        tables.insert(oid);
    }
    let role =
        client.query_opt("select 1 from pg_catalog.pg_roles where rolname = $1", &[&principal.role]).await?;
    if role.is_none() {
        return Err(Exception(format!(
            "ERROR 42704 (undefined_object) role \"{}\" does not exist",
            principal.role
        )));
    }
    Ok(tables)
}

async fn check_filter(client: &Client, filter: &Filter, table: &Table, role: &str) -> Result<(), Exception> {
    let column = table
        .column(&filter.column)
        .filter(|_| table.may_select_named(role, &filter.column))
        .ok_or_else(|| Exception::raised(&format!("invalid column for filter {}", filter.column)))?;
    let name = filter.operator.name();
    if filter.operator == Operator::Is {
        if !matches!(filter.value.as_str(), "null" | "true" | "false" | "unknown") {
            let words = "invalid value for is filter: must be null, true, false, or unknown";
            return Err(Exception::raised(words));
        }
    } else if let Some(value_type) = filter.value_type(&column.sql_type) {
        client.query(&format!("select $1::text::{value_type}"), &[&filter.value]).await?;
    } else if matches!(filter.operator, Operator::Match | Operator::Imatch) {
        client.query("select '' ~ $1::text", &[&filter.value]).await.map_err(|error| {
            let words = error.as_db_error().map_or_else(|| error.to_string(), |db| db.message().to_owned());
            Exception::raised(&format!("invalid regular expression for {name} filter: {words}"))
        })?;
    }
    // Whether the column's type has the operator at all.
    let condition =
        filter.condition(&format!("null::{}", column.sql_type), &column.sql_type, "$1::pg_catalog.text");
    client.prepare(&format!("select {condition}")).await?;
    Ok(())
}

/// A database error as the real server shows it.
struct Exception(String);

impl Exception {
    fn raised(words: &str) -> Self {
        Self(format!("ERROR P0001 (raise_exception) {words}"))
    }
}

impl std::fmt::Display for Exception {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<tokio_postgres::Error> for Exception {
    fn from(error: tokio_postgres::Error) -> Self {
        match error.as_db_error() {
            Some(db) => {
                Self(format!("ERROR {} ({}) {}", db.code().code(), condition_name(db.code()), db.message()))
            }
            None => Self(error.to_string()),
        }
    }
}

/// PostgreSQL's name of the error conditions a subscription can meet.
fn condition_name(code: &SqlState) -> &'static str {
    match code.code() {
        "22P02" => "invalid_text_representation",
        "22003" => "numeric_value_out_of_range",
        "22007" => "invalid_datetime_format",
        "22008" => "datetime_field_overflow",
        "42704" => "undefined_object",
        "42883" => "undefined_function",
        "42804" => "datatype_mismatch",
        "42846" => "cannot_coerce",
        _ => "error",
    }
}
