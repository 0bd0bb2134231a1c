//! The SQL of conditions and orders: a plan's columns against the client's values.

use super::filter::{Filter, Logic, Test};
use super::grammar::{Field, JsonKey};
use super::plan::Plan;
use super::query::OrderTerm;
use super::sql::{Sql, array_literal};

impl Plan<'_> {
    /// Appends a filter or a group of them.
    pub(super) fn logic(&self, sql: &mut Sql, logic: &Logic) {
        match logic {
            Logic::One(filter) => self.filter(sql, filter),
            Logic::Group { negated, any, members } => {
                sql.push(if *negated { "NOT (" } else { "(" });
                sql.join(members, if *any { " OR " } else { " AND " }, |sql, member| self.logic(sql, member));
                sql.push(")");
            }
        }
    }

    fn filter(&self, sql: &mut Sql, filter: &Filter) {
        if filter.negated {
            sql.push("NOT ");
        }
        if let Test::Is("NULL" | "NOT NULL") = filter.test
            && let Some(related) =
                self.related.iter().find(|related| related.embed.label() == filter.field.name)
        {
            let distinct = matches!(filter.test, Test::Is("NOT NULL"));
            sql.name(&related.alias).push(if distinct {
                " IS DISTINCT FROM NULL"
            } else {
                " IS NOT DISTINCT FROM NULL"
            });
            return;
        }
        if let Test::Search { .. } = filter.test {
            self.search(sql, filter);
            return;
        }
        self.field(sql, &filter.field);
        match &filter.test {
            Test::Compare { operator, quantifier: None, value } => {
                sql.push(" ").push(operator).push(" ").value(value);
            }
            Test::Compare { operator, quantifier: Some(quantifier), value } => {
                sql.push(" ").push(operator).push(" ").push(quantifier).push("(").value(value).push(")");
            }
            Test::In(items) if items.len() == 1 && items[0].is_empty() => {
                sql.push(" = ANY('{}')");
            }
            Test::In(items) => {
                sql.push(" = ANY(").value(array_literal(items)).push(")");
            }
            Test::Is(what) => {
                sql.push(" IS ").push(what);
            }
            Test::Distinct(value) => {
                sql.push(" IS DISTINCT FROM ").value(value);
            }
            Test::Search { .. } => {}
        }
    }

    fn search(&self, sql: &mut Sql, filter: &Filter) {
        let Test::Search { function, language, words } = &filter.test else { return };
        let known = self.table.and_then(|table| table.column(&filter.field.name));
        let is_vector = known.is_none_or(|column| column.sql_type == "tsvector");
        let configuration = |sql: &mut Sql| {
            if let Some(language) = language {
                sql.value(language).push("::regconfig, ");
            }
        };
        if is_vector {
            self.field(sql, &filter.field);
        } else {
            sql.push("to_tsvector(");
            configuration(sql);
            self.field(sql, &filter.field);
            sql.push(")");
        }
        sql.push(" @@ ").push(function).push("(");
        configuration(sql);
        sql.value(words).push(")");
    }

    /// Appends a term of an order.
    pub(super) fn order_term(&self, sql: &mut Sql, term: &OrderTerm) {
        let related = term
            .relation
            .as_ref()
            .and_then(|relation| self.related.iter().find(|related| related.embed.label() == relation));
        match related {
            Some(related) => {
                sql.name(&related.alias).push(".").name(&term.field.name);
            }
            None => self.field(sql, &term.field),
        }
        sql.push(term.direction).push(term.nulls);
    }

    /// Appends a column, or a value inside of one.
    pub(super) fn field(&self, sql: &mut Sql, field: &Field) {
        let known = self.table.and_then(|table| table.column(&field.name));
        let convert = !field.path.is_empty()
            && known.is_some_and(|column| !matches!(column.sql_type.as_str(), "json" | "jsonb"));
        if convert {
            sql.push("to_jsonb(");
        }
        self.column(sql, &field.name);
        if convert {
            sql.push(")");
        }
        for step in &field.path {
            sql.push(if step.as_text { "->>" } else { "->" });
            match &step.key {
                JsonKey::Name(name) => sql.value(name),
                JsonKey::Index(index) => sql.value(index).push("::int"),
            };
        }
    }
}
