//! 0.10: its documented output (see the README beside the fixtures), evaluated.

use serde_json::{Value, json};

use super::*;
use crate::{cost::estimate::Estimate, job::CostStatus, redaction::Redactor};

fn estimate(json: &str) -> (CostStatus, Value, String) {
    let estimate =
        Estimate::of(read(json.as_bytes()).unwrap(), "infracost 0.10.45".to_owned(), &Redactor::default());
    (estimate.status, json!(estimate.cost), estimate.annotation())
}

#[test]
fn what_has_a_price_is_ok_and_every_digit_is_kept() {
    let (status, cost, annotation) =
        estimate(include_str!("../../tests/fixtures/infracost/0.10/priced.json"));
    assert_eq!(status, CostStatus::Ok);
    let expected = json!({
        "currency": "USD",
        "monthly": "42.17",
        "hourly": "0.0577671232876712288",
        "usage_monthly": "0",
        "resources": {"detected": 4, "priced": 3, "unpriced": 0, "unsupported": 0, "free": 1},
        "by_resource": [
            {"name": "aws_instance.web", "type": "aws_instance", "monthly": "30.368"},
            {"name": "module.db.aws_db_instance.this", "type": "aws_db_instance", "monthly": "11.002"},
            {"name": "aws_ebs_volume.data", "type": "aws_ebs_volume", "monthly": "0.8"},
        ],
        "tool": "infracost 0.10.45",
    });
    assert_eq!(cost, expected);
    assert_eq!(annotation, "Estimated cost: 42.17 USD a month (3 of 3 resources priced, 1 free).");
}

#[test]
fn what_is_not_in_the_total_makes_it_partial() {
    let (status, cost, annotation) = estimate(include_str!("../../tests/fixtures/infracost/0.10/mixed.json"));
    assert_eq!(status, CostStatus::Partial);
    assert_eq!(cost["monthly"], "742.640000000000000000000000001234");
    assert_eq!(cost["usage_monthly"], "1.5");
    // Without a price: one depends on use (null), of another no price was found.
    assert_eq!(
        cost["resources"],
        json!({"detected": 7, "priced": 2, "unpriced": 2, "unsupported": 1, "free": 2})
    );
    assert_eq!(
        cost["reason"],
        "2 resources without a price, or whose cost depends on their use; 1 resource of a type that infracost does not know"
    );
    let begin = "Estimated cost: 742.640000000000000000000000001234 USD a month (2 of 5 resources priced, 2 free). Not in it: 2 resources";
    assert!(annotation.starts_with(begin), "{annotation}");
}

#[test]
fn null_is_not_nothing() {
    let (status, cost, annotation) =
        estimate(include_str!("../../tests/fixtures/infracost/0.10/by-use.json"));
    assert_eq!(
        (status, &cost["monthly"], &cost["by_resource"]),
        (CostStatus::Partial, &Value::Null, &json!([]))
    );
    assert!(cost.as_object().unwrap().contains_key("monthly"), "it is there, and not known");
    assert!(
        annotation.starts_with("Estimated cost: unknown (0 of 1 resources priced, 1 free)."),
        "{annotation}"
    );
}

#[test]
fn a_total_over_nothing_is_not_known_where_something_may_cost() {
    let only_unsupported = json!({
        "version": "0.2", "currency": "EUR", "totalMonthlyCost": "0", "totalHourlyCost": "0",
        "projects": [{"breakdown": {"resources": []}}], "summary": {"totalUnsupportedResources": 1},
    });
    let (status, cost, _) = estimate(&only_unsupported.to_string());
    assert_eq!(
        (status, &cost["monthly"], &cost["hourly"]),
        (CostStatus::Partial, &Value::Null, &Value::Null)
    );
    let nothing = json!({"version": "0.2", "currency": "EUR", "totalMonthlyCost": "0", "projects": []});
    let (status, cost, annotation) = estimate(&nothing.to_string());
    assert_eq!((status, &cost["monthly"]), (CostStatus::Ok, &json!("0")));
    assert_eq!(annotation, "Estimated cost: 0 EUR a month (nothing that has a price).");
}

#[test]
fn an_errored_project_is_found_in_its_metadata() {
    let (status, cost, _) = estimate(include_str!("../../tests/fixtures/infracost/0.10/errored.json"));
    assert_eq!((status, &cost["monthly"]), (CostStatus::Partial, &json!("30.368")));
    assert!(cost["reason"].as_str().unwrap().contains("Failed to lookup module"), "{cost}");
}

#[test]
fn nothing_but_errors_is_no_estimate() {
    let (status, cost, annotation) = estimate(include_str!("../../tests/fixtures/infracost/0.10/quota.json"));
    assert_eq!(status, CostStatus::Unavailable);
    let reason =
        "infracost's quota of this key is used up: You have exceeded your run quota of 1000 runs this month";
    assert_eq!(cost, json!({"tool": "infracost 0.10.45", "reason": reason}));
    assert_eq!(annotation, format!("No cost estimate: {reason}."));
}

#[test]
fn the_other_lines_output_is_not_taken_for_this_one() {
    assert!(read(include_bytes!("../../tests/fixtures/infracost/2/priced.json")).is_err());
    for garbage in ["", "{}", "[]", "Project: main", "{\"version\": \"0.2\"}"] {
        assert!(read(garbage.as_bytes()).is_err(), "{garbage}");
    }
}
