//! Whatever infracost prints, the row stays small, exact and without secrets.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::redaction::MASK;

fn money(text: &str) -> Money {
    Money::parse(text).unwrap()
}

fn reading(resources: Vec<ResourceCost>) -> Reading {
    Reading {
        currency: "USD".to_owned(),
        monthly: Some(money("1")),
        hourly: None,
        usage_monthly: None,
        counts: Counts::new(u64::try_from(resources.len()).unwrap(), 0, 0, 0),
        resources,
        errors: Vec::new(),
    }
}

fn resource(name: impl Into<String>, monthly: &str) -> ResourceCost {
    ResourceCost { name: name.into(), r#type: "t".to_owned(), monthly: money(monthly) }
}

#[test]
fn the_dearest_twenty_are_listed() {
    let resources = (0..100).map(|n| resource(format!("r{n}"), &format!("{n}.5"))).collect();
    let cost = json!(Estimate::of(reading(resources), "x".to_owned(), &Redactor::default()).cost);
    let listed = cost["by_resource"].as_array().unwrap();
    assert_eq!(listed.len(), MOST_RESOURCES);
    assert_eq!(
        (&listed[0]["name"], &listed[1]["monthly"]),
        (&json!("r99"), &json!("98.5")),
        "by value, not by text"
    );
    assert_eq!(cost["resources"]["priced"], 100);
}

#[test]
fn a_secret_in_a_name_or_an_error_is_hidden_before_it_is_cut() {
    let redactor = Redactor::default();
    redactor.hide(["hunter2-hunter2".to_owned()]);
    let at_the_edge = format!("{}hunter2-hunter2", "x".repeat(LONGEST_NAME - 8));
    let mut reading =
        reading(vec![resource("aws_instance.a[\"hunter2-hunter2\"]", "2"), resource(at_the_edge, "1")]);
    let message = format!("{} hunter2-hunter2", "x".repeat(LONGEST_REASON - 30));
    reading.errors = vec![ProjectError { code: None, message: message.clone() }];
    let partial = Estimate::of(reading, "x".to_owned(), &redactor);
    let none = Estimate::unavailable(None, &message, &redactor);
    for text in [
        json!(partial.cost).to_string(),
        partial.annotation(),
        json!(none.cost).to_string(),
        none.annotation(),
    ] {
        assert!(!text.contains("hunter"), "{text}");
    }
    assert_eq!(json!(partial.cost)["by_resource"][0]["name"], format!("aws_instance.a[\"{MASK}\"]"));
}

proptest! {
    #[test]
    fn a_row_is_small_and_its_counts_agree(
        names in proptest::collection::vec(".{0,400}", 0..40),
        message in ".{0,2000}",
        counts in proptest::array::uniform3(0_u64..1000),
        monthly in proptest::option::of("[0-9]{1,20}(\\.[0-9]{1,20})?"),
    ) {
        let mut reading = reading(names.into_iter().map(|name| resource(name, "1")).collect());
        let priced = reading.counts.priced;
        reading.counts = Counts::new(priced, counts[0], counts[1], counts[2]);
        reading.monthly = monthly.as_deref().map(money);
        reading.errors = vec![ProjectError { code: Some(301), message }];
        let estimate = Estimate::of(reading, "infracost 0.10.45".to_owned(), &Redactor::default());
        let cost = json!(estimate.cost);
        prop_assert!(cost.to_string().len() < 64 * 1024);
        prop_assert!(!estimate.annotation().contains('\n'));
        prop_assert_ne!(estimate.status, CostStatus::Ok);
        if estimate.status == CostStatus::Partial {
            let shown = if priced > 0 { json!(monthly) } else { json!(null) };
            prop_assert_eq!(&cost["monthly"], &shown);
            let sum: u64 = ["priced", "unpriced", "unsupported", "free"]
                .map(|kind| cost["resources"][kind].as_u64().unwrap()).iter().sum();
            prop_assert_eq!(&cost["resources"]["detected"], &json!(sum));
        }
    }
}
