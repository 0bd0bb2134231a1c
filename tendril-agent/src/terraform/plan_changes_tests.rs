use super::*;

fn planned(plan: &Value) -> PlannedChanges {
    read(plan.to_string().as_bytes(), &Redactor::default()).unwrap()
}

fn change(actions: &[&str], more: &Value) -> Value {
    let mut change = json!({"actions": actions, "before": null, "after": null});
    change.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({"address": "aws_instance.web", "type": "aws_instance", "provider_name": "registry.terraform.io/hashicorp/aws", "change": change})
}

fn attributes_of(actions: &[&str], more: &Value) -> Vec<Value> {
    let rows = planned(&json!({"resource_changes": [change(actions, more)]})).rows;
    rows[0]["attributes"].as_array().unwrap().clone()
}

#[test]
fn each_action_has_its_word_and_what_does_not_change_has_no_row() {
    for (actions, action) in [
        (&["create"][..], "create"),
        (&["update"], "update"),
        (&["delete"], "delete"),
        (&["delete", "create"], "replace"),
        (&["create", "delete"], "replace"),
        (&["read"], "read"),
        (&["forget"], "forget"),
    ] {
        let rows = planned(&json!({"resource_changes": [change(actions, &json!({}))]})).rows;
        assert_eq!(rows[0]["action"], action);
        assert_eq!((&rows[0]["position"], &rows[0]["drift"]), (&json!(1), &json!(false)));
    }
    assert!(planned(&json!({"resource_changes": [change(&["no-op"], &json!({}))]})).rows.is_empty());
    let imported =
        planned(&json!({"resource_changes": [change(&["no-op"], &json!({"importing": {"id": "i"}}))]}));
    assert_eq!(imported.rows[0]["action"], "import");
    let mut moved = change(&["no-op"], &json!({}));
    moved["previous_address"] = json!("aws_instance.old");
    let moved = planned(&json!({"resource_changes": [moved]}));
    assert_eq!((&moved.rows[0]["action"], moved.details.r#move), (&json!("move"), 1));
}

#[test]
fn what_drifted_is_told_apart_and_counted_apart() {
    let plan = json!({
        "resource_changes": [change(&["update"], &json!({"before": {"a": 1}, "after": {"a": 2}}))],
        "resource_drift": [change(&["update"], &json!({"before": {"a": 0}, "after": {"a": 1}}))],
    });
    let planned = planned(&plan);
    assert_eq!(planned.rows.iter().map(|row| row["drift"].clone()).collect::<Vec<_>>(), [false, true]);
    assert_eq!(planned.details.drift, 1);
}

#[test]
fn only_leaves_that_change_are_listed_with_their_paths() {
    let before =
        json!({"id": "i", "tags": {"Name": "a", "Team": "x"}, "ports": [80, 443], "same": {"deep": [1]}});
    let after =
        json!({"id": "i", "tags": {"Name": "b", "Team": "x"}, "ports": [80, 8443], "same": {"deep": [1]}});
    assert_eq!(
        attributes_of(&["update"], &json!({"before": before, "after": after, "replace_paths": [["tags"]]})),
        [
            json!({"path": "ports[1]", "before": 443, "after": 8443}),
            json!({"path": "tags.Name", "before": "a", "after": "b", "requires_replace": true}),
        ]
    );
}

#[test]
fn sensitive_values_are_left_out_by_terraforms_own_marks() {
    let found = attributes_of(
        &["update"],
        &json!({
            "before": {"password": "old", "list": ["x", "secret"], "map": {"k": "v"}},
            "after": {"password": "new", "list": ["y", "geheim"], "map": {"k": "w"}},
            "before_sensitive": {"password": true, "list": [false, true]},
            "after_sensitive": {"password": true, "list": [false, true], "map": true},
        }),
    );
    let text = Value::Array(found).to_string();
    for secret in ["old", "new", "secret", "geheim", "\"v\"", "\"w\""] {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
    assert_eq!(text.matches("\"sensitive\":true").count(), 3, "{text}");
    // The whole resource.
    let found = attributes_of(&["create"], &json!({"after": {"a": "secret"}, "after_sensitive": true}));
    assert_eq!(found, [json!({"path": "", "sensitive": true})]);
}

#[test]
fn secrets_are_masked_by_value_too() {
    let redactor = Redactor::default();
    redactor.hide(["hunter2-hunter2".to_owned()]);
    let plan = json!({"resource_changes": [change(&["create"], &json!({"after": {"script": "echo hunter2-hunter2"}}))]});
    let rows = read(plan.to_string().as_bytes(), &redactor).unwrap().rows;
    assert!(!rows[0].to_string().contains("hunter2"), "{}", rows[0]);
}

#[test]
fn a_secret_is_masked_wherever_it_lies_in_a_value_and_whatever_its_type() {
    let redactor = Redactor::default();
    redactor.hide(["s3cr3t-0123456789-abcdefghij".to_owned(), "12345678901".to_owned()]);
    for at in [0, VALUE - 40, VALUE - 27, VALUE - 10, VALUE - 5, VALUE - 1, VALUE, VALUE + 100] {
        let text = format!("{}s3cr3t-0123456789-abcdefghij{}", "-".repeat(at), "-".repeat(VALUE));
        let more = json!({"after": {
            "text": text, "list": {"of": [text]}, "number": 12_345_678_901_u64, &*text: 1,
            "deep": {"12345678901": {"12345678901": [12_345_678_901_u64]}},
        }});
        let plan = json!({"resource_changes": [change(&["create"], &more)]});
        let row = read(plan.to_string().as_bytes(), &redactor).unwrap().rows[0].to_string();
        for part in ["s3cr", "12345", "abcdefghij"] {
            assert!(!row.contains(part), "{at}: {part} in {row}");
        }
    }
}

#[test]
fn every_digit_of_a_number_is_shown_and_compared() {
    let plan = r#"{"resource_changes":[{"address":"a.b","change":{"actions":["update"],
        "before":{"n":12345678901234567890123,"m":0.1,"small":7,"huge":1e400},
        "after":{"n":12345678901234567890124,"m":0.10000000000000000001,"small":8,"huge":1e401}}}]}"#;
    let rows = read(plan.as_bytes(), &Redactor::default()).unwrap().rows;
    assert_eq!(
        rows[0]["attributes"],
        json!([
            {"path": "huge", "before": "1e400", "after": "1e401"},
            {"path": "m", "before": 0.1, "after": "0.10000000000000000001"},
            {"path": "n", "before": "12345678901234567890123", "after": "12345678901234567890124"},
            {"path": "small", "before": 7, "after": 8},
        ])
    );
}

#[test]
fn a_value_that_cannot_be_read_does_not_hide_the_other_rows() {
    let deep = format!("{}{}", "[".repeat(5000), "]".repeat(5000));
    let plan = format!(
        r#"{{"resource_changes":[{{"address":"a.deep","change":{{"actions":["create"],"after":{{"v":{deep}}}}}}},
            {{"address":"a.flat","change":{{"actions":["create"],"after":{{"v":1}}}}}}]}}"#
    );
    let rows = read(plan.as_bytes(), &Redactor::default()).unwrap().rows;
    assert_eq!(rows.len(), 2);
    assert_eq!(rows[0]["attributes"][0]["truncated"], true);
    assert_eq!(rows[1]["attributes"], json!([{"path": "v", "before": null, "after": 1}]));
}

#[test]
fn what_is_known_after_apply_is_marked() {
    let found = attributes_of(
        &["create"],
        &json!({"after": {"name": "n"}, "after_unknown": {"id": true, "tags": {"a": true}, "name": false}}),
    );
    assert_eq!(
        found,
        [
            json!({"path": "id", "before": null, "unknown": true}),
            json!({"path": "name", "before": null, "after": "n"}),
            json!({"path": "tags.a", "before": null, "unknown": true}),
        ]
    );
}

#[test]
fn long_values_and_many_attributes_are_cut_and_say_so() {
    let found = attributes_of(
        &["create"],
        &json!({"after": {"text": "ä".repeat(4000), "zero": "a\u{0}b", "huge": 1e300}}),
    );
    let text = found.iter().find(|entry| entry["path"] == "text").unwrap();
    assert_eq!(text["truncated"], true);
    assert!(text["after"].as_str().unwrap().len() <= VALUE + 3);
    assert!(!Value::Array(found.clone()).to_string().contains("\\u0000"));
    assert!(found.iter().find(|entry| entry["path"] == "huge").unwrap()["after"].is_string());

    let many: Map<String, Value> = (0..2000).map(|n| (format!("key{n}"), json!("x".repeat(100)))).collect();
    let found = attributes_of(&["create"], &json!({"after": many}));
    let omitted = found.last().unwrap()["omitted"].as_u64().unwrap();
    assert_eq!(usize::try_from(omitted).unwrap() + found.len() - 1, 2000);
    assert!(Value::Array(found).to_string().len() < 12 * 1024);
}

#[test]
fn after_five_thousand_rows_comes_one_marker() {
    let all: Vec<Value> = (0..6000).map(|_| change(&["create"], &json!({}))).collect();
    let rows = planned(&json!({"resource_changes": all})).rows;
    assert_eq!(rows.len(), ROWS + 1);
    assert_eq!(rows[ROWS]["action"], "truncated");
    assert_eq!(rows[ROWS]["attributes"], json!({"omitted": 1000}));
}

#[test]
fn what_is_no_plan_is_an_error() {
    assert!(read(b"the stand-in does not know: show", &Redactor::default()).is_err());
    assert!(read(b"{}", &Redactor::default()).unwrap().rows.is_empty());
}
