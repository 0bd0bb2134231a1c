//! What the database offers: tables, functions, and how tables refer to each other.

use std::collections::HashMap;

use http::StatusCode;
use serde::Deserialize;

use super::error::RestError;
use super::hint::closest;

/// Schema and name of a table or function.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Deserialize)]
pub(super) struct Name {
    /// The schema.
    pub(super) schema: String,
    /// The name in it.
    pub(super) name: String,
}

impl Name {
    /// A name from its parts.
    pub(super) fn new(schema: &str, name: &str) -> Self {
        Self { schema: schema.into(), name: name.into() }
    }
}

/// The catalog as it was when it was last read.
#[derive(Debug, Default)]
pub(super) struct Schema {
    /// Tables and views.
    pub(super) tables: HashMap<Name, Table>,
    /// Functions by name; overloads share one.
    pub(super) functions: HashMap<Name, Vec<Function>>,
    /// Each foreign key, seen from both of its sides, and each pair of them through a junction table.
    pub(super) relationships: Vec<Relationship>,
    /// Settings of roles (`alter role … set …`), which hold for requests of that role.
    pub(super) role_settings: HashMap<String, Vec<(String, String)>>,
}

/// A table or view.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Table {
    /// Its name.
    #[serde(flatten)]
    pub(super) name: Name,
    /// Columns in order.
    pub(super) columns: Vec<Column>,
    /// Columns of the primary key, in order.
    pub(super) primary_key: Vec<String>,
}

impl Table {
    /// A column by name.
    pub(super) fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }
}

/// A column.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Column {
    /// Its name.
    pub(super) name: String,
    /// Its type as SQL.
    #[serde(rename = "type")]
    pub(super) sql_type: String,
    /// Its default as SQL; an identity's is its sequence's next value.
    pub(super) default: Option<String>,
}

/// A function.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Function {
    /// Its name.
    #[serde(flatten)]
    pub(super) name: Name,
    /// Its input parameters, in order.
    pub(super) parameters: Vec<Parameter>,
    /// Whether it may write.
    pub(super) volatile: bool,
    /// What comes out.
    pub(super) returns: Returns,
    /// Whether many of it come out.
    pub(super) set: bool,
    /// The table whose rows it returns, if it returns such.
    pub(super) table: Option<Name>,
}

/// What a function gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Returns {
    /// Nothing.
    Void,
    /// A value.
    Scalar,
    /// A row.
    Composite,
}

/// An input parameter of a function.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Parameter {
    /// Its name; empty if it has none.
    pub(super) name: String,
    /// Its type as SQL.
    #[serde(rename = "type")]
    pub(super) sql_type: String,
    /// Whether it may be left out.
    pub(super) optional: bool,
    /// Whether it takes the rest of the arguments.
    pub(super) variadic: bool,
}

/// A way from one table to another.
#[derive(Debug, Clone)]
pub(super) struct Relationship {
    /// Where it starts.
    pub(super) from: Name,
    /// Where it ends.
    pub(super) to: Name,
    /// Name of the foreign key; of a way through a junction, that of the junction table.
    pub(super) constraint: String,
    /// Pairs of equal columns, and how many rows are at the end.
    pub(super) link: Link,
}

/// How the rows at both ends of a relationship belong together.
#[derive(Debug, Clone)]
pub(super) enum Link {
    /// At most one row at the end; `unique` if at most one at the start too.
    ToOne {
        /// Columns here and there.
        columns: Vec<(String, String)>,
        /// One to one.
        unique: bool,
    },
    /// Any number of rows at the end.
    ToMany {
        /// Columns here and there.
        columns: Vec<(String, String)>,
    },
    /// Any number on both sides.
    Through {
        /// The junction table.
        junction: Name,
        /// Columns of the start and of the junction.
        near: Vec<(String, String)>,
        /// Columns of the junction and of the end.
        far: Vec<(String, String)>,
        /// The two foreign keys, with their columns in the junction.
        constraints: [String; 2],
    },
}

impl Link {
    /// Whether at most one row is at the end.
    pub(super) fn is_to_one(&self) -> bool {
        matches!(self, Self::ToOne { .. })
    }
}

impl Schema {
    /// A table by name.
    pub(super) fn table(&self, name: &Name) -> Option<&Table> {
        self.tables.get(name)
    }

    /// The table that a request is for.
    ///
    /// # Errors
    /// PGRST205, with the nearest name as a hint.
    pub(super) fn expect_table(&self, name: &Name) -> Result<&Table, RestError> {
        self.table(name).ok_or_else(|| {
            let Name { schema, name } = name;
            let others =
                self.tables.keys().filter(|other| other.schema == *schema).map(|other| other.name.as_str());
            let message = format!("Could not find the table '{schema}.{name}' in the schema cache");
            RestError::new(StatusCode::NOT_FOUND, "PGRST205", message).hint(
                closest(others, name, 0.75)
                    .map(|near| format!("Perhaps you meant the table '{schema}.{near}'")),
            )
        })
    }

    /// The overloads of a function.
    pub(super) fn overloads(&self, name: &Name) -> &[Function] {
        self.functions.get(name).map_or(&[], Vec::as_slice)
    }
}
