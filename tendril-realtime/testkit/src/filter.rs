//! Row filters of a binding. What the kit cannot evaluate is refused like a filter that a real server refuses.

use serde_json::Value;

const OPERATORS: &[&str] = &["eq", "neq", "lt", "lte", "gt", "gte", "in", "is"];

/// Why a filter is refused, if it is.
pub(crate) fn refusal(filter: &str) -> Option<String> {
    conditions(filter)
        .err()
        .map(|part| format!("the test kit evaluates {}, not `{part}`", OPERATORS.join(", ")))
}

/// Whether a row fulfils a filter in the server's notation.
pub(crate) fn matches(filter: &str, row: &Value) -> bool {
    conditions(filter)
        .is_ok_and(|all| all.iter().all(|(column, operator, value)| holds(&row[*column], operator, value)))
}

fn holds(cell: &Value, operator: &str, value: &str) -> bool {
    let text = match cell {
        Value::Null => return operator == "is" && value == "null",
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let value = value.trim_matches('"');
    let order = match (text.parse::<f64>(), value.parse::<f64>()) {
        (Ok(left), Ok(right)) => left.partial_cmp(&right),
        _ => Some(text.as_str().cmp(value)),
    };
    match operator {
        "eq" | "is" => text == value || order.is_some_and(std::cmp::Ordering::is_eq),
        "neq" => text != value,
        "lt" => order.is_some_and(std::cmp::Ordering::is_lt),
        "lte" => order.is_some_and(std::cmp::Ordering::is_le),
        "gt" => order.is_some_and(std::cmp::Ordering::is_gt),
        "gte" => order.is_some_and(std::cmp::Ordering::is_ge),
        "in" => value
            .trim_start_matches('(')
            .trim_end_matches(')')
            .split(',')
            .any(|item| item.trim_matches('"') == text),
        _ => false,
    }
}

/// Column, operator, value of each condition; the first part that cannot be evaluated.
fn conditions(filter: &str) -> Result<Vec<(&str, &str, &str)>, &str> {
    split(filter)
        .into_iter()
        .map(|part| {
            let (column, rest) = part.split_once('=').ok_or(part)?;
            let (operator, value) = rest.split_once('.').ok_or(part)?;
            OPERATORS.contains(&operator).then_some((column, operator, value)).ok_or(part)
        })
        .collect()
}

/// By commas outside of parentheses and quotes.
fn split(filter: &str) -> Vec<&str> {
    let (mut depth, mut quoted, mut start, mut parts) = (0_usize, false, 0, Vec::new());
    for (at, character) in filter.char_indices() {
        match character {
            '"' => quoted = !quoted,
            '(' if !quoted => depth += 1,
            ')' if !quoted => depth = depth.saturating_sub(1),
            ',' if !quoted && depth == 0 => {
                parts.push(&filter[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&filter[start..]);
    parts.retain(|part| !part.is_empty());
    parts
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn conditions_are_joined_by_and() {
        let row = json!({"id": 7, "status": "QUEUED", "note": null});
        assert!(matches("id=gt.5,status=in.(QUEUED,DONE)", &row));
        assert!(!matches("id=gt.5,status=eq.DONE", &row));
        assert!(matches("note=is.null", &row));
        assert!(!matches("note=eq.x", &row));
    }

    #[test]
    fn what_is_not_evaluated_is_refused_and_not_ignored() {
        assert!(refusal("title=like.a%").unwrap().contains("like"));
        assert!(refusal("id=eq.1").is_none());
    }
}
