//! Each keyword, with values that fit and values that do not.

use serde_json::json;

use super::{names::REFUSED, *};

#[expect(clippy::needless_pass_by_value, reason = "the table has values")]
fn sentences(schema: Value, value: &Value) -> Vec<String> {
    let schema = Schema::parse(&schema.to_string()).unwrap();
    schema
        .problems("v", &value.clone().into())
        .into_iter()
        .map(|p| format!("{} {}", p.at, p.sentence))
        .collect()
}

#[test]
fn each_keyword_has_its_sentence() {
    for (schema, value, expected) in [
        (json!({"type": "string"}), json!(1), "\"v\" must be a string, and it is a number"),
        (
            json!({"type": ["string", "null"]}),
            json!(true),
            "\"v\" must be a string or null, and it is a boolean",
        ),
        (
            json!({"type": "integer"}),
            json!(1.5),
            "\"v\" must be an integer, and it is a number with a fraction",
        ),
        (json!({"enum": ["a", "b"]}), json!("c"), "\"v\" must be one of \"a\", \"b\""),
        (json!({"pattern": "^[a-z]+$"}), json!("A"), "\"v\" must match ^[a-z]+$"),
        (json!({"minimum": 1}), json!(0), "\"v\" must be at least 1"),
        (json!({"maximum": 9}), json!(10), "\"v\" must be at most 9"),
        (json!({"minLength": 2}), json!("é"), "\"v\" must have at least 2 characters, and has 1"),
        (json!({"maxItems": 1}), json!([1, 2]), "\"v\" must have at most 1 items, and has 2"),
        (
            json!({"items": {"type": "string"}}),
            json!(["a", 2]),
            "\"v[1]\" must be a string, and it is a number",
        ),
        (
            json!({"properties": {"a": {"type": "boolean"}}}),
            json!({"a": 1}),
            "\"v.a\" must be a boolean, and it is a number",
        ),
        (json!({"required": ["a"]}), json!({}), "\"v.a\" is missing"),
        (json!({"const": null}), json!(1), "\"v\" must be null"),
        (json!({"const": 1}), json!(2), "\"v\" must be 1"),
        (json!({"exclusiveMinimum": 0}), json!(0), "\"v\" must be more than 0"),
        (json!({"exclusiveMaximum": 5}), json!(5.0), "\"v\" must be less than 5"),
        (json!({"multipleOf": 0.1}), json!(0.25), "\"v\" must be a multiple of 0.1"),
        (json!({"uniqueItems": true}), json!([1, 2, 1.0]), "\"v\" must not have the same item twice"),
        (json!({"minProperties": 1}), json!({}), "\"v\" must have at least 1 properties, and has 0"),
        (json!({"format": "ipv4"}), json!("1.2.3"), "\"v\" must be an IPv4 address"),
        (json!({"format": "date-time"}), json!("today"), "\"v\" must be a time such as 2026-01-31T12:00:00Z"),
        (
            json!({"additionalProperties": {"type": "string"}}),
            json!({"k": 1}),
            "\"v.k\" must be a string, and it is a number",
        ),
    ] {
        assert_eq!(sentences(schema, &value), [expected]);
    }
}

#[test]
fn what_fits_is_silent() {
    for (schema, value) in [
        (json!({"type": "integer", "minimum": 1, "maximum": 3}), json!(2.0)),
        (json!({"type": "number"}), json!(2)),
        (json!({"type": "object"}), json!({"any": "name"})),
        (json!({"type": "array", "items": {"enum": [1, 2]}}), json!([1, 2, 1])),
        (json!({}), json!(null)),
        (json!({"multipleOf": 0.1, "enum": [0.3]}), json!(0.30)),
        (
            json!({"format": "email", "title": "x", "default": 1, "examples": [], "x-order": 3}),
            json!("a@b.example"),
        ),
    ] {
        assert_eq!(sentences(schema, &value), Vec::<String>::new());
    }
}

#[test]
fn every_keyword_that_would_constrain_a_value_is_enforced_or_refused() {
    for keyword in REFUSED {
        for schema in [json!({*keyword: {}}), json!({"properties": {"a": {"items": {*keyword: {}}}}})] {
            let error = Schema::parse(&schema.to_string()).unwrap_err().to_string();
            assert!(error.contains(keyword) && error.contains("not enforced"), "{error}");
        }
    }
    let error = Schema::parse(r#"{"format": "iri"}"#).unwrap_err().to_string();
    assert!(error.contains("iri") && error.contains("ipv4"), "{error}");
}

#[test]
fn numbers_are_compared_with_all_their_digits() {
    let schema = Schema::parse(r#"{"maximum": 9007199254740992}"#).unwrap();
    assert_eq!(schema.problems("v", &Json::Number("9007199254740993".to_owned())).len(), 1);
    let schema = Schema::parse(r#"{"type": "integer"}"#).unwrap();
    assert_eq!(schema.problems("v", &Json::Number("12345678901234567890123".to_owned())), []);
}

#[test]
fn a_number_of_a_billion_digits_is_never_written_out() {
    for keyword in ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"] {
        for number in ["1e1000000000", "-1e-1000000000", "1e99999999999999999999"] {
            let text = format!(r#"{{"{keyword}": {number}}}"#);
            let error = Schema::parse(&text).unwrap_err().to_string();
            assert!(error.contains("beyond what Terraform can hold"), "{text}: {error}");
        }
    }
    let schema = r#"{"enum": [1e1000000000], "const": 1e-1000000000}"#;
    let schema = Schema::parse(schema).unwrap();
    assert_eq!(schema.problems("v", &Json::Number("1".to_owned())).len(), 1);
}

#[test]
fn a_number_that_is_no_bound_may_be_any() {
    let schema = r#"{"default": 1e400, "examples": [-1e999, 1e-999], "x-order": 1e4000, "maximum": 12345678901234567890123}"#;
    let schema = Schema::parse(schema).unwrap();
    assert_eq!(schema.problems("v", &Json::Number("12345678901234567890124".to_owned())).len(), 1);
    assert_eq!(schema.problems("v", &Json::Number("12345678901234567890122".to_owned())), []);
}

#[test]
fn a_schema_of_any_depth_has_an_answer() {
    let deep = |levels: usize| format!("{}{{}}{}", r#"{"items":"#.repeat(levels), "}".repeat(levels));
    Schema::parse(&deep(100)).unwrap();
    let error = Schema::parse(&deep(10_000)).unwrap_err().to_string();
    assert!(error.contains("more than 120 levels deep"), "{error}");
}

#[test]
fn a_misspelled_keyword_is_refused_at_any_depth() {
    for schema in [
        json!({"minimun": 1}),
        json!({"properties": {"minimun": {"properties": {"a": {"items": {"minimun": 1}}}}}}),
        json!({"additionalProperties": {"minimun": 1}}),
    ] {
        let error = Schema::parse(&schema.to_string()).unwrap_err().to_string();
        assert!(
            error.contains("\"minimun\" is none of JSON Schema") && error.contains("\"minimum\""),
            "{error}"
        );
    }
    // The name of a variable is no keyword.
    Schema::parse(r#"{"properties": {"minimun": {}, "not": {}}, "default": {"minimun": 1}}"#).unwrap();
}

#[test]
fn a_bad_pattern_is_found_when_the_manifest_is_read() {
    assert!(Schema::parse(r#"{"pattern": "("}"#).is_err());
}

#[test]
fn formats_are_those_of_the_standard_and_nothing_that_a_parser_takes_beside_them() {
    for (format, fits, does_not) in [
        (
            "date-time",
            vec!["2026-01-31T12:00:00Z", "2026-01-31T12:00:00.123+01:00"],
            vec![
                "2026-01-31 12:00:00Z",
                "2026-01-31T12:00:00Z[Europe/Berlin]",
                "2026-01-31T12Z",
                "20260131T120000Z",
                "2026-01-31T12:00:00",
                "2026-02-30T12:00:00Z",
                "2026-01-31T12:00:00.Z",
                "2026-01-31T12:00:00+0100",
            ],
        ),
        (
            "uri",
            vec!["https://x.example/a?b#c"],
            vec![" https://x.example ", "https://x.example/a b", "https://x\n.example", "x"],
        ),
    ] {
        let said = |text: &str| sentences(json!({"format": format}), &json!(text)).len();
        for text in fits {
            assert_eq!(said(text), 0, "{format}: {text}");
        }
        for text in does_not {
            assert_eq!(said(text), 1, "{format}: {text}");
        }
    }
}

#[test]
fn a_type_that_is_none_is_named() {
    for (schema, part) in [
        (json!({"type": "int"}), "the type \"int\" is none"),
        (json!({"type": ["string", "nil"]}), "the type \"nil\" is none"),
        (json!({"type": []}), "is empty"),
        (json!({"type": 3}), "not a number"),
    ] {
        let error = Schema::parse(&schema.to_string()).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn what_is_no_schema_or_no_value_of_a_keyword_is_refused_and_not_left_unenforced() {
    for (schema, part) in [
        ("[]", "a schema is an object, and not an array"),
        (r#"{"items": [{"type": "string"}]}"#, "a schema is an object, and not an array"),
        (r#"{"items": []}"#, "a schema is an object, and not an array"),
        (r#"{"properties": {"a": ["string"]}}"#, "a schema is an object, and not an array"),
        (r#"{"properties": {"a": {"minimum": null}}}"#, "the keyword \"minimum\" is null"),
        (r#"{"properties": {"a": {"pattern": null}}}"#, "the keyword \"pattern\" is null"),
        (r#"{"items": {"enum": null}}"#, "the keyword \"enum\" is null"),
        (r#"{"items": null}"#, "the keyword \"items\" is null"),
        (r#"{"multipleOf": 0}"#, "\"multipleOf\" must be more than 0"),
        (r#"{"multipleOf": -0.5}"#, "\"multipleOf\" must be more than 0"),
    ] {
        let error = Schema::parse(schema).unwrap_err().to_string();
        assert!(error.contains(part), "{schema}: {error}");
    }
    for schema in [r#"{"const": null}"#, r#"{"default": null, "title": null}"#, r#"{"x-note": [null]}"#] {
        Schema::parse(schema).unwrap();
    }
}
