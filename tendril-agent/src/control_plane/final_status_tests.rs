use wiremock::ResponseTemplate;

use super::*;
use crate::testing::ControlPlane;

fn lacks(column: &str) -> ResponseTemplate {
    let message = format!("Could not find the '{column}' column of 'deployments' in the schema cache");
    let body = json!({"code": "PGRST204", "message": message, "details": null, "hint": null});
    ResponseTemplate::new(400).set_body_json(body)
}

#[tokio::test]
async fn columns_that_an_older_database_lacks_are_left_out_and_the_rest_is_stored() {
    let plane = ControlPlane::start().await;
    plane.answer_next("deployments", lacks("newer"));
    plane.answer_next("deployments", lacks("newest"));
    let reporter = Reporter::new(plane.rest(), Uuid::nil(), Uuid::from_u128(5));
    let body = json!({"phase": "PLAN", "newer": 1, "newest": {"a": 2}});
    assert_eq!(reporter.write(serde_json::from_value(body).unwrap()).await.unwrap(), Written::Stored);
    let stored = plane.recorded(|recorded| recorded.patches.clone());
    assert_eq!(stored, [json!({"phase": "PLAN", "claim_token": Uuid::from_u128(5)})]);
}

#[tokio::test]
async fn what_no_text_can_hold_is_replaced() {
    let plane = ControlPlane::start().await;
    let reporter = Reporter::new(plane.rest(), Uuid::nil(), Uuid::from_u128(5));
    let end = FinalStatus {
        status: Status::Failed,
        error_code: Some(ErrorCode::TerraformFailed),
        error_message: Some("before\0after".to_owned()),
        plan_summary: None,
        cost: None,
        cost_status: None,
        outputs: Some(json!({"a\0b": ["\0", {"c": "\0d"}]}).into()),
        template_commit: None,
        applied: false,
        terraform_version: None,
        log_count: Some(1),
    };
    assert_eq!(reporter.finish(&end).await, Written::Stored);
    let stored = plane.recorded(|recorded| recorded.patches.clone());
    assert_eq!(stored[0]["error_message"], "before\u{fffd}after");
    assert_eq!(stored[0]["outputs"], json!({"a\u{fffd}b": ["\u{fffd}", {"c": "\u{fffd}d"}]}));
}

#[tokio::test]
async fn an_end_that_is_refused_for_its_content_is_stored_with_less_of_it() {
    let refused = |status, code| {
        let body = json!({"code": code, "message": "no", "details": null, "hint": null});
        ResponseTemplate::new(status).set_body_json(body)
    };
    let plane = ControlPlane::start().await;
    plane.answer_next("deployments", refused(413, ""));
    plane.answer_next("deployments", refused(413, ""));
    plane.answer_next("deployments", refused(400, "22P05"));
    plane.answer_next("deployments", refused(400, "23514"));
    let reporter = Reporter::new(plane.rest(), Uuid::nil(), Uuid::from_u128(5));
    let end = FinalStatus {
        status: Status::Failed,
        error_code: Some(ErrorCode::TerraformFailed),
        error_message: Some("long".to_owned()),
        plan_summary: Some(json!({"add": 1})),
        cost: Some(json!({"monthly": "1"})),
        cost_status: Some(CostStatus::Ok),
        outputs: Some(json!({"a": 1}).into()),
        template_commit: None,
        applied: true,
        terraform_version: None,
        log_count: Some(1),
    };
    assert_eq!(reporter.finish(&end).await, Written::Stored);
    let stored = plane.recorded(|recorded| recorded.patches.clone());
    let wanted = json!({
        "claim_token": Uuid::from_u128(5), "status": "FAILED", "error_code": "TERRAFORM_FAILED",
        "error_message": UNSTORABLE, "applied": true, "log_count": 1,
    });
    assert_eq!(stored, [wanted]);
}

#[tokio::test]
async fn a_write_is_not_made_without_what_it_is_about() {
    for column in ["status", "claim_token", "of_nothing_that_was_sent"] {
        let plane = ControlPlane::start().await;
        plane.answer_next("deployments", lacks(column));
        let reporter = Reporter::new(plane.rest(), Uuid::nil(), Uuid::from_u128(5));
        let error = reporter.write([("status".to_owned(), Json::of(&"FAILED"))].into()).await.unwrap_err();
        assert_eq!(error.postgrest().unwrap().code, "PGRST204");
        assert_eq!(plane.recorded(|recorded| recorded.patches.len()), 0);
    }
}
