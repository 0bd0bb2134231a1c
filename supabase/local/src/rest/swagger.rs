//! SQL types in `OpenAPI`'s words.

use serde_json::{Value, json};

/// `format`, `type` and `items` of an SQL type.
pub(super) fn typed(sql_type: &str) -> Value {
    let mut property = json!({"format": format_of(sql_type)});
    if let Some(kind) = swagger_type(sql_type) {
        property["type"] = kind.into();
        if kind == "array" {
            let element = sql_type.strip_suffix("[]").unwrap_or(sql_type);
            property["items"] = swagger_type(element).map_or_else(|| json!({}), |kind| json!({"type": kind}));
        }
    }
    property
}

/// `OpenAPI`'s format of an SQL type: the type itself but for integers, as PostgREST has it since 14.8.
pub(super) fn format_of(sql_type: &str) -> &str {
    match sql_type {
        "smallint" | "integer" => "int32",
        "bigint" => "int64",
        other => other,
    }
}

/// `OpenAPI`'s name for an SQL type; JSON has none.
pub(super) fn swagger_type(sql_type: &str) -> Option<&'static str> {
    match sql_type {
        "json" | "jsonb" => None,
        "boolean" => Some("boolean"),
        "smallint" | "integer" | "bigint" => Some("integer"),
        "numeric" | "real" | "double precision" => Some("number"),
        other if other.ends_with("[]") => Some("array"),
        _ => Some("string"),
    }
}

/// A default as JSON, where SQL and JSON agree about it.
pub(super) fn default(sql_type: &str, sql: &str) -> Option<Value> {
    if swagger_type(sql_type) != Some("string") {
        return serde_json::from_str(sql).ok();
    }
    let text = sql.strip_suffix(&format!("::{sql_type}")).map_or(sql, |literal| literal.trim_matches('\''));
    serde_json::from_str(&format!("\"{text}\"")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_numeric_type_has_its_format_and_its_type() {
        let cases = [
            ("smallint", "int32", "integer"),
            ("integer", "int32", "integer"),
            ("bigint", "int64", "integer"),
            ("numeric", "numeric", "number"),
            ("real", "real", "number"),
            ("double precision", "double precision", "number"),
        ];
        for (sql_type, format, kind) in cases {
            assert_eq!(typed(sql_type), json!({"format": format, "type": kind}));
        }
        assert_eq!(
            typed("smallint[]"),
            json!({"format": "smallint[]", "type": "array", "items": {"type": "integer"}})
        );
        assert_eq!(typed("jsonb"), json!({"format": "jsonb"}));
    }
}
