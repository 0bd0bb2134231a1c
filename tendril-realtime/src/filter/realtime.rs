//! A filter as Realtime reads it: conditions joined by AND, separated by commas.

use super::{
    Expression, Filter,
    condition::{Condition, Operator},
    literal::quoted,
    operand::Operand,
};
use crate::error::Error;

/// The server takes no longer lists.
const LONGEST_LIST: usize = 100;

impl Filter {
    /// The text of `filter` in a subscription to row changes.
    pub(crate) fn realtime(&self) -> Result<String, Error> {
        self.check()?;
        let mut segments = Vec::new();
        segments_of(self.expression(), &mut segments)?;
        Ok(segments.join(","))
    }
}

fn segments_of(expression: &Expression, segments: &mut Vec<String>) -> Result<(), Error> {
    match expression {
        Expression::One(condition) => {
            segments.push(segment(condition)?);
            Ok(())
        }
        Expression::All(members) => members.iter().try_for_each(|member| segments_of(member, segments)),
        Expression::Any(_) | Expression::Not(_) => Err(Error::invalid(
            "filter",
            "Realtime joins conditions by AND only: no OR, and NOT of one condition at a time",
        )),
    }
}

fn segment(condition: &Condition) -> Result<String, Error> {
    let Condition { column, negated, operator, operand } = condition;
    let name = column.plain_name().ok_or_else(|| {
        Error::invalid(
            "filter",
            format!("Realtime filters by columns of the table itself, not by `{column}`"),
        )
    })?;
    // A column ends at the first `=`, and there is no quoting for it.
    if name.trim() != name || name.contains(['=', ',']) {
        return Err(Error::invalid(
            "filter",
            format!(
                "invalid column name for a Realtime filter: `{name}` (no `=`, no `,`, no blanks around it)"
            ),
        ));
    }
    let value = match (operator, operand) {
        (
            Operator::Eq
            | Operator::Neq
            | Operator::Gt
            | Operator::Gte
            | Operator::Lt
            | Operator::Lte
            | Operator::Like
            | Operator::Ilike
            | Operator::Regex
            | Operator::Iregex
            | Operator::IsDistinct,
            Operand::Text(value),
        ) => value_text(value),
        (Operator::Is, Operand::Text(word)) if word != "not_null" => word.clone(),
        (Operator::In, Operand::List(values)) => list(values)?,
        // For an operator that the caller names, the caller writes the value in its syntax.
        (Operator::Named(_), Operand::Text(value)) => value.clone(),
        _ => {
            return Err(Error::invalid("filter", format!("Realtime has no operator `{}`", operator.name())));
        }
    };
    let not = if *negated { "not." } else { "" };
    Ok(format!("{name}={not}{}.{value}", operator.name()))
}

fn list(values: &[String]) -> Result<String, Error> {
    if values.is_empty() {
        return Err(Error::invalid("filter", "`in` needs at least one value"));
    }
    if values.len() > LONGEST_LIST {
        let count = values.len();
        return Err(Error::invalid(
            "filter",
            format!("`in` takes at most {LONGEST_LIST} values, not {count}"),
        ));
    }
    let items: Vec<_> = values.iter().map(|value| item_text(value)).collect();
    Ok(format!("({})", items.join(",")))
}

/// Values are taken literally up to the next top-level comma; what would end or change them is put in quotes.
fn value_text(value: &str) -> String {
    let plain = !value.contains([',', '(', ')', '"', '\\']) && value.trim() == value && !value.is_empty();
    if plain { value.to_owned() } else { quoted(value) }
}

/// An item of a list becomes one of an array literal, where braces and an unquoted NULL have a meaning too.
fn item_text(value: &str) -> String {
    if value.contains(['{', '}']) || value.eq_ignore_ascii_case("null") {
        quoted(value)
    } else {
        value_text(value)
    }
}

#[cfg(test)]
mod tests {
    use super::super::col;

    #[test]
    fn every_operator_is_written_as_the_server_reads_it() {
        for (filter, text) in [
            (col("t").eq("abc"), "t=eq.abc"),
            (col("t").neq("abc"), "t=neq.abc"),
            (col("i4").lt(5), "i4=lt.5"),
            (col("i4").lte(5), "i4=lte.5"),
            (col("i4").gt(5), "i4=gt.5"),
            (col("i4").gte(5), "i4=gte.5"),
            (col("i4").in_list([1, 2, 5]), "i4=in.(1,2,5)"),
            (col("i4").not_in([1]), "i4=not.in.(1)"),
            (col("t").in_list(["abc", "d,e"]), "t=in.(abc,\"d,e\")"),
            (col("t").in_list(["null", "{a}"]), "t=in.(\"null\",\"{a}\")"),
            (col("t").like("ab%"), "t=like.ab%"),
            (col("t").ilike("AB%"), "t=ilike.AB%"),
            (col("t").is_null(), "t=is.null"),
            (col("t").not_null(), "t=not.is.null"),
            (col("t").regex("^a.c$"), "t=match.^a.c$"),
            (col("t").iregex("^A"), "t=imatch.^A"),
            (col("t").is_distinct("abc"), "t=isdistinct.abc"),
            (!col("t").eq("abc"), "t=not.eq.abc"),
            (col("i4").gt(0).and(col("i4").lt(10)), "i4=gt.0,i4=lt.10"),
            (col("limit").eq(1), "limit=eq.1"),
            (col("a.b c").eq(1), "a.b c=eq.1"),
        ] {
            assert_eq!(filter.realtime().unwrap(), text);
        }
    }

    #[test]
    fn what_would_end_a_value_is_quoted() {
        for (value, text) in [
            ("a,b", r#"t=eq."a,b""#),
            (" a", r#"t=eq." a""#),
            (r#"say "hi""#, r#"t=eq."say \"hi\"""#),
            (r"a\b", r#"t=eq."a\\b""#),
            ("(x)", r#"t=eq."(x)""#),
        ] {
            assert_eq!(col("t").eq(value).realtime().unwrap(), text);
        }
    }

    #[test]
    fn what_the_server_would_misread_or_does_not_know_is_refused() {
        for filter in [
            col("").eq(1),
            col("a=b").eq(1),
            col("a,b").eq(1),
            col(" a").eq(1),
            col("a").in_list(Vec::<i32>::new()),
            col("a").in_list(0..101),
            col("a").is("maybe"),
            col("a").key("b").eq(1),
            col("a").of("b").eq(1),
            col("a").contains([1]),
            col("a").text_search("x"),
            col("a").eq(1).or(col("b").eq(2)),
            !(col("a").eq(1).and(col("b").eq(2))),
        ] {
            assert!(filter.realtime().is_err(), "{filter:?}");
        }
    }
}
