//! 2.x: its documented output (see the README beside the fixtures), evaluated.

use serde_json::{Value, json};

use super::*;
use crate::{cost::estimate::Estimate, job::CostStatus, redaction::Redactor};

const PRICED: &str = include_str!("../../tests/fixtures/infracost/2/priced.json");

fn estimate(json: &str) -> (CostStatus, Value) {
    let estimate =
        Estimate::of(read(json.as_bytes()).unwrap(), "infracost 2.0.0".to_owned(), &Redactor::default());
    (estimate.status, json!(estimate.cost))
}

#[test]
fn what_has_a_price_is_ok_and_resources_are_added_up() {
    let (status, cost) = estimate(PRICED);
    assert_eq!(status, CostStatus::Ok);
    let expected = json!({
        "currency": "USD",
        "monthly": "42.17",
        "hourly": null,
        "usage_monthly": "1",
        "resources": {"detected": 4, "priced": 3, "unpriced": 0, "unsupported": 0, "free": 1},
        "by_resource": [
            {"name": "aws_instance.web", "type": "aws_instance", "monthly": "30.368"},
            {"name": "module.db.aws_db_instance.this", "type": "aws_db_instance", "monthly": "11.002"},
            {"name": "aws_ebs_volume.data", "type": "aws_ebs_volume", "monthly": "0.8"},
        ],
        "tool": "infracost 2.0.0",
    });
    assert_eq!(cost, expected);
}

#[test]
fn a_total_is_as_printed_and_a_sum_is_exact() {
    let mixed = include_str!("../../tests/fixtures/infracost/2/mixed.json");
    let (status, cost) = estimate(mixed);
    assert_eq!((status, &cost["monthly"]), (CostStatus::Partial, &json!("0.30000000000000004")));
    assert_eq!(cost["by_resource"][0]["monthly"], "0.3");
    assert_eq!(
        cost["resources"],
        json!({"detected": 4, "priced": 1, "unpriced": 1, "unsupported": 1, "free": 1})
    );
    let reason = cost["reason"].as_str().unwrap();
    assert!(reason.contains("failed to fetch module acme/vpc") && !reason.contains("region"), "{reason}");
}

#[test]
fn without_a_summary_or_a_currency_they_are_found_otherwise() {
    let mut early: Value = serde_json::from_str(PRICED).unwrap();
    early.as_object_mut().unwrap().remove("summary");
    early["currency"] = json!("");
    let (status, cost) = estimate(&early.to_string());
    assert_eq!(
        (status, &cost["monthly"], &cost["currency"]),
        (CostStatus::Ok, &json!("42.170"), &json!("USD"))
    );
}

#[test]
fn a_cost_of_nothing_is_not_taken_for_free() {
    let bucket = json!({"currency": "USD", "projects": [{"project_name": "main", "resources": [
        {"name": "aws_s3_bucket.a", "type": "aws_s3_bucket", "is_supported": true, "is_free": false,
         "cost_components": [{"name": "Storage", "unit": "GB", "price": "0.023", "total_monthly_cost": "0"}]}
    ]}], "summary": {"total_monthly_cost": "0"}});
    let (status, cost) = estimate(&bucket.to_string());
    assert_eq!((status, &cost["monthly"]), (CostStatus::Partial, &Value::Null));
}

#[test]
fn the_other_lines_output_is_not_taken_for_this_one() {
    assert!(read(include_bytes!("../../tests/fixtures/infracost/0.10/priced.json")).is_err());
    for garbage in ["", "{}", "[]", "Scan complete"] {
        assert!(read(garbage.as_bytes()).is_err(), "{garbage}");
    }
}
