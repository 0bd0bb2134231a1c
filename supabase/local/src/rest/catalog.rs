//! Reads the catalog of the database into a [`Schema`].

use std::collections::HashMap;

use deadpool_postgres::Pool;
use postgres_types::{ToSql, Type};
use serde::Deserialize;

use super::error::RestError;
use super::schema::{Function, Link, Name, Relationship, Schema, Table};
use super::sql::{Text, array_literal};

/// The one statement that reads everything.
const QUERY: &str = include_str!("catalog.sql");

/// What the statement gives.
#[derive(Deserialize)]
struct Catalog {
    tables: Vec<Table>,
    foreign_keys: Vec<ForeignKey>,
    functions: Vec<Function>,
    role_settings: Vec<RoleSetting>,
}

/// A foreign key.
#[derive(Deserialize)]
struct ForeignKey {
    constraint: String,
    from: Name,
    to: Name,
    columns: Vec<String>,
    foreign_columns: Vec<String>,
    /// Its columns are a key of their own, so the other side sees at most one row.
    unique: bool,
    /// Its columns are part of the primary key, as those of a junction table are.
    in_primary_key: bool,
}

/// A setting of a role.
#[derive(Deserialize)]
struct RoleSetting {
    role: String,
    name: String,
    value: String,
}

/// Reads the catalog.
///
/// # Errors
/// PGRST002, whatever the cause; the cause is logged.
pub(super) async fn load(pool: &Pool, schemas: &[String]) -> Result<Schema, RestError> {
    let unavailable = |cause: &dyn std::fmt::Display| {
        tracing::warn!(%cause, "the schema of the database cannot be read");
        RestError::no_schema()
    };
    let client = pool.get().await.map_err(|error| unavailable(&error))?;
    let exposed = Text::new(array_literal(schemas));
    let values: [(&(dyn ToSql + Sync), Type); 1] = [(&exposed, Type::UNKNOWN)];
    // With an empty search path every type and every default comes out with its schema, so that they mean
    // the same in each transaction.
    let (begun, row, ended) = tokio::join!(
        biased;
        client.batch_execute("begin read only; set local search_path = ''"),
        client.query_typed_one(QUERY, &values),
        client.batch_execute("commit"),
    );
    begun.map_err(|error| unavailable(&error))?;
    let row = row.map_err(|error| unavailable(&error))?;
    ended.map_err(|error| unavailable(&error))?;
    let text: &str = row.try_get(0).map_err(|error| unavailable(&error))?;
    serde_json::from_str::<Catalog>(text).map(Into::into).map_err(|error| unavailable(&error))
}

impl From<Catalog> for Schema {
    fn from(catalog: Catalog) -> Self {
        let mut schema = Self { relationships: relationships(&catalog.foreign_keys), ..Self::default() };
        schema.tables = catalog.tables.into_iter().map(|table| (table.name.clone(), table)).collect();
        for function in catalog.functions {
            schema.functions.entry(function.name.clone()).or_default().push(function);
        }
        let mut settings: HashMap<String, Vec<(String, String)>> = HashMap::new();
        for setting in catalog.role_settings {
            settings.entry(setting.role).or_default().push((setting.name, setting.value));
        }
        schema.role_settings = settings;
        schema
    }
}

/// Both directions of each foreign key, and the ways through junction tables.
fn relationships(keys: &[ForeignKey]) -> Vec<Relationship> {
    let mut all = Vec::new();
    for key in keys {
        let there = pairs(&key.columns, &key.foreign_columns);
        let back = pairs(&key.foreign_columns, &key.columns);
        let forward = Link::ToOne { columns: there, unique: key.unique };
        let backward = if key.unique {
            Link::ToOne { columns: back, unique: true }
        } else {
            Link::ToMany { columns: back }
        };
        all.push(relationship(&key.from, &key.to, &key.constraint, forward));
        all.push(relationship(&key.to, &key.from, &key.constraint, backward));
    }
    for near in keys.iter().filter(|key| key.in_primary_key) {
        let other = |far: &&ForeignKey| {
            far.in_primary_key && far.from == near.from && far.constraint != near.constraint
        };
        for far in keys.iter().filter(other) {
            let link = Link::Through {
                junction: near.from.clone(),
                near: pairs(&near.foreign_columns, &near.columns),
                far: pairs(&far.columns, &far.foreign_columns),
                constraints: [described(near), described(far)],
            };
            all.push(relationship(&near.to, &far.to, &near.from.name, link));
        }
    }
    all
}

fn relationship(from: &Name, to: &Name, constraint: &str, link: Link) -> Relationship {
    Relationship { from: from.clone(), to: to.clone(), constraint: constraint.into(), link }
}

fn pairs(here: &[String], there: &[String]) -> Vec<(String, String)> {
    here.iter().cloned().zip(there.iter().cloned()).collect()
}

/// A foreign key with its columns, as ambiguity errors show it.
fn described(key: &ForeignKey) -> String {
    format!("{}({})", key.constraint, key.columns.join(", "))
}
