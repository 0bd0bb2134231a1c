//! A filter as `PostgREST` reads it: parameters of a query string.

use super::{
    Expression, Filter, condition::Condition, condition::Operator, literal::quoted, operand::Operand,
};
use crate::error::Error;

impl Filter {
    /// The parameters, names and values not yet encoded for a URL.
    pub(crate) fn parameters(&self) -> Result<Vec<(String, String)>, Error> {
        self.check()?;
        let mut parameters = Vec::new();
        parameters_of(self.expression(), &mut parameters)?;
        Ok(parameters)
    }
}

fn parameters_of(expression: &Expression, parameters: &mut Vec<(String, String)>) -> Result<(), Error> {
    match expression {
        Expression::One(condition) => {
            let Condition { column, operator, operand, .. } = condition;
            let value = match (operator, operand) {
                (Operator::In, Operand::List(values)) => list(values),
                (_, operand) => operand.to_text(),
            };
            parameters.push((column.to_string(), format!("{}.{value}", name(condition))));
        }
        Expression::All(members) => {
            members.iter().try_for_each(|member| parameters_of(member, parameters))?;
        }
        Expression::Any(_) | Expression::Not(_) => {
            let (negated, group) = match expression {
                Expression::Not(inner) => (true, &**inner),
                group => (false, group),
            };
            let prefix = common_prefix(group)?;
            let (name, members) = match group {
                Expression::Any(members) => ("or", members),
                Expression::All(members) => ("and", members),
                // A negated comparison has its own NOT.
                inner => return parameters_of(inner, parameters),
            };
            let not = if negated { "not." } else { "" };
            parameters.push((format!("{prefix}{not}{name}"), in_parentheses(members)));
        }
    }
    Ok(())
}

/// Within a group, all columns are of one table: the group is put on that table.
fn common_prefix(group: &Expression) -> Result<String, Error> {
    let mut prefixes: Vec<String> =
        group.conditions().iter().map(|condition| condition.column.prefix()).collect();
    prefixes.dedup();
    match &prefixes[..] {
        [prefix] => Ok(prefix.clone()),
        _ => Err(Error::invalid("filter", "a group of filters needs columns of one table")),
    }
}

fn in_parentheses(members: &[Expression]) -> String {
    let members: Vec<_> = members.iter().map(member).collect();
    format!("({})", members.join(","))
}

fn member(expression: &Expression) -> String {
    match expression {
        Expression::One(condition) => {
            let Condition { column, operator, operand, .. } = condition;
            let value = match (operator, operand) {
                (Operator::In, Operand::List(values)) => list(values),
                (Operator::Is, operand) => operand.to_text(),
                // For an operator that the caller names, the caller writes the value in its syntax.
                (Operator::Named(name), Operand::Text(text)) if matches!(name.as_str(), "in" | "is") => {
                    text.clone()
                }
                (_, operand) => quoted(&operand.to_text()),
            };
            format!("{}.{}.{value}", column.local(), name(condition))
        }
        Expression::Not(inner) => format!("not.{}", member(inner)),
        Expression::All(members) => format!("and{}", in_parentheses(members)),
        Expression::Any(members) => format!("or{}", in_parentheses(members)),
    }
}

fn name(condition: &Condition) -> String {
    let not = if condition.negated { "not." } else { "" };
    format!("{not}{}", condition.operator.name())
}

fn list(values: &[String]) -> String {
    let values: Vec<_> = values.iter().map(|value| quoted(value)).collect();
    format!("({})", values.join(","))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::{TextSearch, col};
    use super::*;

    fn written(filter: impl Into<Filter>) -> String {
        let parameters = filter.into().parameters().unwrap();
        let pairs: Vec<_> = parameters.iter().map(|(name, value)| format!("{name}={value}")).collect();
        pairs.join("&")
    }

    #[test]
    fn every_operator_is_written_as_the_server_reads_it() {
        for (filter, text) in [
            (col("a").eq(1), "a=eq.1"),
            (col("a").neq("x"), "a=neq.x"),
            (col("a").gt(1), "a=gt.1"),
            (col("a").gte(1), "a=gte.1"),
            (col("a").lt(1), "a=lt.1"),
            (col("a").lte(1), "a=lte.1"),
            (col("a").like("a%"), "a=like.a%"),
            (col("a").ilike("a*"), "a=ilike.a*"),
            (col("a").like_any(["a*", "b,c"]), r#"a=like(any).{"a*","b,c"}"#),
            (col("a").like_all(["a*"]), r#"a=like(all).{"a*"}"#),
            (col("a").ilike_any(["a*"]), r#"a=ilike(any).{"a*"}"#),
            (col("a").ilike_all(["a*"]), r#"a=ilike(all).{"a*"}"#),
            (col("a").regex("^a"), "a=match.^a"),
            (col("a").iregex("^a"), "a=imatch.^a"),
            (col("a").is_null(), "a=is.null"),
            (col("a").not_null(), "a=not.is.null"),
            (col("a").is(true), "a=is.true"),
            (col("a").is_distinct(5), "a=isdistinct.5"),
            (col("a").in_list(["x", "y,z"]), r#"a=in.("x","y,z")"#),
            (col("a").in_list(Vec::<i32>::new()), "a=in.()"),
            (col("a").not_in([1, 2]), r#"a=not.in.("1","2")"#),
            (col("a").contains(["x", "y,z"]), r#"a=cs.{"x","y,z"}"#),
            (col("a").contains(json!({"k": 1})), r#"a=cs.{"k":1}"#),
            (col("a").contained_by([1, 2]), r#"a=cd.{"1","2"}"#),
            (col("a").overlaps("[1,5)"), "a=ov.[1,5)"),
            (col("a").range_lt("[1,5)"), "a=sl.[1,5)"),
            (col("a").range_gt("[1,5)"), "a=sr.[1,5)"),
            (col("a").range_gte("[1,5)"), "a=nxl.[1,5)"),
            (col("a").range_lte("[1,5)"), "a=nxr.[1,5)"),
            (col("a").range_adjacent("[1,5)"), "a=adj.[1,5)"),
            (col("a").text_search("fat & cat"), "a=fts.fat & cat"),
            (col("a").text_search(TextSearch::plain("x").config("english")), "a=plfts(english).x"),
            (col("a").text_search(TextSearch::phrase("x")), "a=phfts.x"),
            (col("a").text_search(TextSearch::websearch("x")), "a=wfts.x"),
            (col("a").op("not.cs", "{1}"), "a=not.cs.{1}"),
            (col("a").op("eq(any)", "{1}"), "a=eq(any).{1}"),
            (("a", "gt", 5).into(), "a=gt.5"),
            (!col("a").eq(1), "a=not.eq.1"),
            (!!col("a").eq(1), "a=eq.1"),
            (col("id").key("k").index(-1).text().eq("x"), r#"id->"k"->>-1=eq.x"#),
            (col("t").of("posts").of("users").eq(1), "users.posts.t=eq.1"),
        ] {
            assert_eq!(written(filter), text);
        }
    }

    #[test]
    fn groups_keep_their_logic() {
        let (a, b, c) = (|| col("a").eq(1), || col("limit").eq("x,y"), || col("c").in_list([1]));
        assert_eq!(written(a().and(b())), r#"a=eq.1&"limit"=eq.x,y"#);
        assert_eq!(written(a().or(b()).or(c())), r#"or=(a.eq."1","limit".eq."x,y",c.in.("1"))"#);
        assert_eq!(written(!(a().and(b()))), r#"not.and=(a.eq."1","limit".eq."x,y")"#);
        assert_eq!(written(!(a().or(b()))), r#"not.or=(a.eq."1","limit".eq."x,y")"#);
        assert_eq!(written(!!(a().or(b()))), r#"or=(a.eq."1","limit".eq."x,y")"#);
        assert_eq!(written(a().or((!b()).and(c()))), r#"or=(a.eq."1",and("limit".not.eq."x,y",c.in.("1")))"#);
        assert_eq!(written(a().or(!(b().and(c())))), r#"or=(a.eq."1",not.and("limit".eq."x,y",c.in.("1")))"#);
        assert_eq!(written(a().or(col("c").is_null())), r#"or=(a.eq."1",c.is.null)"#);
        let embedded = col("a").of("posts").eq(1).or(col("b").of("posts").eq(2));
        assert_eq!(written(embedded), r#"posts.or=(a.eq."1",b.eq."2")"#);
    }

    #[test]
    fn what_the_server_would_misread_is_refused() {
        for filter in [
            col("a").is("maybe"),
            col("a").op("eq.x&b", 1),
            col("a").op("", 1),
            col("a").op("in.(1)", 1),
            col("a").op("eq(any", 1),
            col("a").eq("a\0b"),
            col("").eq(1),
            col("a").text_search(TextSearch::plain("x").config("a).eq")),
            Filter::any(Vec::<Filter>::new()),
            Filter::all(Vec::<Filter>::new()),
            col("a").eq(1).or(col("b").of("posts").eq(1)),
        ] {
            assert!(filter.parameters().is_err(), "{filter:?}");
        }
    }
}
