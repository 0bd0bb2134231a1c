use serde_json::{Value, json};
use wiremock::ResponseTemplate;

use super::*;
use crate::testing::{ControlPlane, refusal};

fn row(status: &str, claim_token: &Value) -> Value {
    json!({"status": status, "claim_token": claim_token, "attempt": 2, "config_snapshot": {"template": "hello"}})
}

#[tokio::test]
async fn no_row_means_that_somebody_else_won() {
    let plane = ControlPlane::start().await;
    plane.answer_next("deployments", ResponseTemplate::new(200).set_body_json(json!([])));
    assert!(matches!(claim(&plane.rest(), Uuid::nil(), "a", &Drain::default()).await, Ok(Claim::Lost)));
}

#[tokio::test]
async fn a_lost_answer_is_looked_up_and_somebody_elses_claim_is_not_ours() {
    let plane = ControlPlane::start().await;
    plane.answer_next("deployments", refusal(503, ""));
    plane.row(row("PROCESSING", &json!(Uuid::new_v4())));
    assert!(matches!(claim(&plane.rest(), Uuid::nil(), "a", &Drain::default()).await, Ok(Claim::Lost)));
}

#[tokio::test]
async fn a_claim_that_was_not_carried_out_may_be_tried_again() {
    let plane = ControlPlane::start().await;
    plane.answer_next("deployments", refusal(503, ""));
    plane.row(row("QUEUED", &Value::Null));
    assert!(claim(&plane.rest(), Uuid::nil(), "a", &Drain::default()).await.is_err());
}

#[tokio::test]
async fn a_lost_answer_to_a_claim_that_was_carried_out_is_a_win() {
    let plane = ControlPlane::start().await;
    // The answer is cut off, so that the client cannot know; the row then shows the token that it sent.
    let cut_answer = ResponseTemplate::new(200).set_body_string("[{\"status\":");
    plane.answer_next("deployments", cut_answer);
    plane.answer_next("deployments", refusal(500, ""));
    let (rest, drain) = (plane.rest(), Drain::default());
    let claiming = claim(&rest, Uuid::from_u128(9), "a", &drain);
    tokio::pin!(claiming);
    let token = tokio::select! {
        _ = &mut claiming => panic!("it cannot know yet"),
        token = plane.claim_token() => token,
    };
    plane.row(row("PROCESSING", &token));
    match claiming.await {
        Ok(Claim::Won(job)) => assert_eq!((job.id, job.attempt), (Uuid::from_u128(9), 2)),
        other => panic!("{other:?}"),
    }
}

/// How many claims of a row were sent.
fn claims(plane: &ControlPlane) -> usize {
    plane.recorded(|recorded| recorded.patches.len())
}

#[tokio::test]
async fn once_the_drain_has_begun_no_row_is_asked_for() {
    let (plane, drain) = (ControlPlane::start().await, Drain::default());
    drain.begin();
    assert!(matches!(claim(&plane.rest(), Uuid::nil(), "a", &drain).await, Ok(Claim::Lost)));
    assert_eq!(claims(&plane), 0);
}

#[tokio::test]
async fn a_claim_on_its_way_when_the_drain_begins_is_not_repeated_and_not_forgotten() {
    for won in [false, true] {
        let (plane, drain) = (ControlPlane::start().await, Drain::default());
        // The transport would repeat the request, and again.
        let busy = || refusal(429, "").insert_header("retry-after", "1");
        plane.answer_next("deployments", busy());
        let rest = plane.repeating_rest();
        let claiming = claim(&rest, Uuid::from_u128(9), "a", &drain);
        tokio::pin!(claiming);
        let token = tokio::select! {
            outcome = &mut claiming => panic!("it is read again later: {outcome:?}"),
            token = plane.claim_token() => token,
        };
        drain.begin();
        plane.row(if won { row("PROCESSING", &token) } else { row("QUEUED", &Value::Null) });
        let outcome = claiming.await;
        assert_eq!(matches!(outcome, Ok(Claim::Won(_))), won, "{outcome:?}");
        assert_eq!(claims(&plane), 0, "the one that was refused was the last");
    }
}
