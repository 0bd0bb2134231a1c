//! From a query to a `SELECT`: the table, its related tables, and what is wanted of each.

use std::collections::BTreeSet;

use super::error::RestError;
use super::filter::Logic;
use super::query::{OrderTerm, Query, Range};
use super::relation;
use super::schema::{Link, Name, Relationship, Schema, Table};
use super::select::{Embed, Item, path_label};
use super::sql::Sql;

/// The name of the statement's first part, whose rows are returned.
pub(super) const SOURCE: &str = "pgrst_source";

/// What is read of one table.
#[derive(Debug)]
pub(super) struct Plan<'a> {
    from: Origin<'a>,
    /// What is known of its columns; nothing of what a function returns.
    pub(super) table: Option<&'a Table>,
    items: &'a [Item],
    filters: Vec<&'a Logic>,
    order: Vec<&'a OrderTerm>,
    range: Range,
    pub(super) related: Vec<Related<'a>>,
}

/// Where rows come from.
#[derive(Debug)]
enum Origin<'a> {
    /// A table.
    Table(&'a Name),
    /// A table under another name, inside of a join.
    Alias(&'a Name, String),
    /// What the statement's first part wrote or called.
    Source,
}

/// A related table.
#[derive(Debug)]
pub(super) struct Related<'a> {
    /// What the query selects of it.
    pub(super) embed: &'a Embed,
    way: &'a Relationship,
    /// The name of its join.
    pub(super) alias: String,
    plan: Plan<'a>,
}

impl<'a> Plan<'a> {
    /// Reads a table.
    pub(super) fn table(schema: &'a Schema, table: &'a Table, query: &'a Query) -> Result<Self, RestError> {
        let mut aliases = 0;
        Self::build(schema, Origin::Table(&table.name), Some(table), &query.select, query, &[], &mut aliases)
    }

    /// Reads what the statement's first part gave: rows of `table`, if they are such.
    pub(super) fn source(
        schema: &'a Schema,
        table: Option<&'a Table>,
        query: &'a Query,
    ) -> Result<Self, RestError> {
        Self::build(schema, Origin::Source, table, &query.select, query, &[], &mut 0)
    }

    fn build(
        schema: &'a Schema,
        from: Origin<'a>,
        table: Option<&'a Table>,
        items: &'a [Item],
        query: &'a Query,
        path: &[String],
        aliases: &mut usize,
    ) -> Result<Self, RestError> {
        if items.contains(&Item::Aggregate) {
            return Err(RestError::bad_request("PGRST123", "Use of aggregate functions is not allowed"));
        }
        let mut related = Vec::new();
        for item in items {
            let Item::Embed(embed) = item else { continue };
            let Some(parent) = table else {
                return Err(RestError::bad_request("PGRST200", "Only rows of a table have related rows"));
            };
            let way = relation::find(schema, &parent.name, embed)?;
            if embed.spread && !way.link.is_to_one() {
                let error = RestError::bad_request("PGRST127", "Feature not implemented");
                return Err(error.details("A spread operation on many related rows is not implemented"));
            }
            *aliases += 1;
            let number = *aliases;
            let from = Origin::Alias(&way.to, format!("{}_{number}", way.to.name));
            let mut path = path.to_vec();
            path.push(embed.label().to_owned());
            let plan = Self::build(schema, from, schema.table(&way.to), &embed.items, query, &path, aliases)?;
            related.push(Related {
                embed,
                way,
                alias: format!("{}_{}_{number}", parent.name.name, embed.label()),
                plan,
            });
        }
        for label in query.mentioned().filter_map(|mentioned| mentioned.strip_prefix(path)?.first()) {
            if let Some(place) = related.iter().position(|related| related.embed.label() == label) {
                related[..=place].rotate_right(1);
            }
        }
        let at = |other: &Vec<String>| other.as_slice() == path;
        let plan = Self {
            from,
            table,
            items,
            filters: query.filters.iter().filter(|(to, _)| at(to)).map(|(_, logic)| logic).collect(),
            order: query.orders.iter().filter(|(to, _)| at(to)).flat_map(|(_, terms)| terms).collect(),
            range: query
                .ranges
                .iter()
                .find(|(to, _)| at(to))
                .map_or_else(Range::default, |(_, range)| *range),
            related,
        };
        plan.check_paths(query, path)?;
        Ok(plan)
    }

    /// Refuses parts of the query that are for a table which is not embedded here (PGRST108).
    fn check_paths(&self, query: &Query, path: &[String]) -> Result<(), RestError> {
        let paths =
            query.filters.iter().map(|(path, _)| path).chain(query.orders.iter().map(|(path, _)| path));
        for other in paths {
            let Some(below) = other.strip_prefix(path).and_then(|rest| rest.first()) else { continue };
            if !self.related.iter().any(|related| related.embed.label() == below) {
                let message = format!("'{below}' is not an embedded resource in this request");
                return Err(RestError::bad_request("PGRST108", message)
                    .hint(format!("Verify that '{below}' is included in the 'select' query parameter.")));
            }
        }
        Ok(())
    }

    /// Sets the page, for where it is not that of the query alone.
    pub(super) fn page(&mut self, range: Range) {
        self.range = range;
    }

    /// Leaves the filters to the caller: a write applies them itself.
    pub(super) fn without_filters(mut self) -> Self {
        self.filters.clear();
        self
    }

    /// The columns that a write must return so that this plan can read them; `None` means all.
    pub(super) fn needs(&self) -> Option<BTreeSet<String>> {
        if self.items.is_empty() || self.items.contains(&Item::All) {
            return None;
        }
        let mut names: BTreeSet<String> = self
            .order
            .iter()
            .filter(|term| term.relation.is_none())
            .map(|term| term.field.name.clone())
            .collect();
        for item in self.items {
            if let Item::Column { field, .. } = item {
                names.insert(field.name.clone());
            }
        }
        for related in &self.related {
            let (Link::ToOne { columns, .. }
            | Link::ToMany { columns }
            | Link::Through { near: columns, .. }) = &related.way.link;
            names.extend(columns.iter().map(|(here, _)| here.clone()));
        }
        Some(names)
    }

    /// Appends the whole `SELECT`.
    pub(super) fn select(&self, sql: &mut Sql, join: Option<(&str, &Relationship)>) {
        sql.push("SELECT ");
        self.columns(sql);
        self.body(sql, join);
        if !self.order.is_empty() {
            sql.push(" ORDER BY ").join(&self.order, ", ", |sql, term| self.order_term(sql, term));
        }
        if let Some(limit) = self.range.limit {
            sql.push(" LIMIT ").value(limit.to_string());
        }
        if self.range.offset > 0 {
            sql.push(" OFFSET ").value(self.range.offset.to_string());
        }
    }

    /// Appends a `SELECT` of as many rows as there are without the page.
    pub(super) fn select_for_count(&self, sql: &mut Sql) {
        sql.push("SELECT 1");
        self.body(sql, None);
    }

    fn columns(&self, sql: &mut Sql) {
        let related: Vec<&Related<'_>> =
            self.related.iter().filter(|related| !related.embed.items.is_empty()).collect();
        let columns: Vec<&Item> = self.items.iter().filter(|item| !matches!(item, Item::Embed(_))).collect();
        if columns.is_empty() && related.is_empty() {
            self.qualifier(sql);
            sql.push(".*");
            return;
        }
        sql.join(&columns, ", ", |sql, item| self.item(sql, item));
        if !columns.is_empty() && !related.is_empty() {
            sql.push(", ");
        }
        sql.join(related, ", ", |sql, related| related.column(sql));
    }

    fn item(&self, sql: &mut Sql, item: &Item) {
        let Item::Column { field, cast, alias } = item else {
            self.qualifier(sql);
            sql.push(".*");
            return;
        };
        if cast.is_some() {
            sql.push("CAST(");
        }
        self.field(sql, field);
        if let Some(cast) = cast {
            sql.push(" AS ").push(cast).push(")");
        }
        if let Some(name) = alias.as_deref().or_else(|| path_label(field)) {
            sql.push(" AS ").name(name);
        }
    }

    /// Appends `FROM`, the joins and `WHERE`.
    fn body(&self, sql: &mut Sql, join: Option<(&str, &Relationship)>) {
        sql.push(" FROM ");
        match &self.from {
            Origin::Table(name) => push_name(sql, name),
            Origin::Alias(name, alias) => {
                push_name(sql, name);
                sql.push(" AS ").name(alias);
            }
            Origin::Source => {
                sql.name(SOURCE);
            }
        }
        if let Some((_, Relationship { link: Link::Through { junction, .. }, .. })) = join {
            sql.push(", ");
            push_name(sql, junction);
        }
        for related in &self.related {
            related.join(sql, self);
        }
        if join.is_none() && self.filters.is_empty() {
            return;
        }
        sql.push(" WHERE ");
        if let Some((parent, way)) = join {
            self.join_conditions(sql, parent, way);
            if !self.filters.is_empty() {
                sql.push(" AND ");
            }
        }
        self.conditions(sql);
    }

    /// Appends the filters, joined by `AND`.
    pub(super) fn conditions(&self, sql: &mut Sql) {
        sql.join(&self.filters, " AND ", |sql, logic| self.logic(sql, logic));
    }

    /// Whether there are filters.
    pub(super) fn is_filtered(&self) -> bool {
        !self.filters.is_empty()
    }

    fn join_conditions(&self, sql: &mut Sql, parent: &str, way: &Relationship) {
        let junction_column = |sql: &mut Sql, junction: &Name, column: &str| {
            push_name(sql, junction);
            sql.push(".").name(column);
        };
        match &way.link {
            Link::ToOne { columns, .. } | Link::ToMany { columns } => {
                sql.join(columns, " AND ", |sql, (here, there)| {
                    self.column(sql, there);
                    sql.push(" = ").push(parent).push(".").name(here);
                });
            }
            Link::Through { junction, near, far, .. } => {
                sql.join(near, " AND ", |sql, (here, middle)| {
                    junction_column(sql, junction, middle);
                    sql.push(" = ").push(parent).push(".").name(here);
                });
                sql.push(" AND ").join(far, " AND ", |sql, (middle, there)| {
                    junction_column(sql, junction, middle);
                    sql.push(" = ");
                    self.column(sql, there);
                });
            }
        }
    }

    /// Appends a column, with the name of its table.
    pub(super) fn column(&self, sql: &mut Sql, name: &str) {
        self.qualifier(sql);
        if name == "*" {
            sql.push(".*")
        } else {
            sql.push(".").name(name)
        };
    }

    fn qualifier(&self, sql: &mut Sql) {
        match &self.from {
            Origin::Table(name) => push_name(sql, name),
            Origin::Alias(_, alias) => {
                sql.name(alias);
            }
            Origin::Source => {
                sql.name(SOURCE);
            }
        }
    }
}

impl Related<'_> {
    fn column(&self, sql: &mut Sql) {
        if self.embed.spread {
            sql.name(&self.alias).push(".*");
        } else if self.way.link.is_to_one() {
            sql.push("row_to_json(").name(&self.alias).push(".*)::jsonb AS ").name(self.embed.label());
        } else {
            sql.push("COALESCE(").name(&self.alias).push(".").name(&self.alias).push(", '[]') AS ");
            sql.name(self.embed.label());
        }
    }

    fn join(&self, sql: &mut Sql, parent: &Plan<'_>) {
        let mut qualifier = Sql::default();
        parent.qualifier(&mut qualifier);
        let join = Some((qualifier.text(), self.way));
        sql.push(if self.embed.inner { " INNER" } else { " LEFT" }).push(" JOIN LATERAL (");
        if self.way.link.is_to_one() {
            self.plan.select(sql, join);
            sql.push(") AS ").name(&self.alias).push(" ON TRUE");
            return;
        }
        sql.push("SELECT json_agg(").name(&self.alias).push(")::jsonb AS ").name(&self.alias).push(" FROM (");
        self.plan.select(sql, join);
        sql.push(") AS ").name(&self.alias).push(") AS ").name(&self.alias).push(" ON ");
        if self.embed.inner {
            sql.name(&self.alias).push(" IS NOT NULL")
        } else {
            sql.push("TRUE")
        };
    }
}

/// Appends a name with its schema.
pub(super) fn push_name(sql: &mut Sql, name: &Name) {
    sql.name(&name.schema).push(".").name(&name.name);
}
