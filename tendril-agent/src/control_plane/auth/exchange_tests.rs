use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::Value;
use uuid::Uuid;
use wiremock::{
    Mock, MockServer, ResponseTemplate,
    matchers::{body_partial_json, header, method, path},
};

use super::*;
use crate::control_plane::auth::{cluster_key::ClusterKey, credential::Claim};

fn text() -> String {
    format!("tdl_{}{}", "0".repeat(22), "a".repeat(43))
}

fn key() -> Exchangeable {
    Exchangeable::Key(ClusterKey::parse(&text()).unwrap())
}

fn token(cluster: Uuid) -> String {
    format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(json!({"cluster_id": cluster, "exp": 1}).to_string()))
}

async fn exchanged(answer: ResponseTemplate) -> (Result<Granted, Failure>, MockServer) {
    let server = MockServer::start().await;
    Mock::given(method("POST")).respond_with(answer).mount(&server).await;
    let exchange = Exchange::new(&server.uri(), &SecretString::from("sb_publishable_x"));
    (exchange.request(&key()).await, server)
}

async fn failure(status: u16, body: Value) -> Failure {
    let (result, _server) = exchanged(ResponseTemplate::new(status).set_body_json(body)).await;
    let failure = result.err().unwrap();
    assert!(!failure.to_string().contains("aaaa"), "{failure}");
    failure
}

#[tokio::test]
async fn a_good_key_is_shown_in_the_body_alone_and_gets_a_token() {
    let server = MockServer::start().await;
    let answer =
        json!({"access_token": token(Uuid::nil()), "expires_in": 900, "refresh_after": 630, "new": 1});
    Mock::given(method("POST"))
        .and(path("/functions/v1/agent-token"))
        .and(header("apikey", "sb_publishable_x"))
        .and(body_partial_json(json!({"key": text()})))
        .respond_with(ResponseTemplate::new(200).set_body_json(answer))
        .expect(1)
        .mount(&server)
        .await;
    let exchange = Exchange::new(&server.uri(), &SecretString::from("sb_publishable_x"));
    let granted = exchange.request(&key()).await.unwrap();
    // By the machine's clock it ended in 1970.
    assert_eq!((granted.life.as_secs(), granted.renew_after.as_secs()), (900, 630));
    let requests = server.received_requests().await.unwrap();
    let shown = |text: &str| text.contains(&self::text());
    assert!(!requests[0].headers.iter().any(|(_, value)| shown(value.to_str().unwrap())));
    assert!(!shown(requests[0].url.as_str()) && !format!("{exchange:?}").contains("sb_"));
}

#[tokio::test]
async fn each_answer_has_its_sentence_and_says_whether_it_is_a_refusal() {
    let output = |code: &str| json!({"code": code, "message": "because"});
    for (status, body, part, refusal) in [
        (401, output("invalid_key"), "opens no cluster", true),
        (403, output("cluster_revoked"), "this cluster was revoked", true),
        (404, output("NOT_FOUND"), "functions deploy agent-token", true),
        (500, output("misconfigured"), "lacks a setting (because)", true),
        (401, json!({"code": 401, "message": "Missing authorization header"}), "verify_jwt = false", true),
        (400, output("bad_request"), "is not that function", true),
        (200, json!({"access_token": "x"}), "is not that function", true),
        (200, json!({"access_token": token(Uuid::max()), "expires_in": 9}), "not of the key's cluster", true),
        (429, output("rate_limited"), "exchanged too often", false),
        (503, output("unavailable"), "tries again", false),
        (503, output("BOOT_ERROR"), "tries again", false),
        (500, json!("oops"), "tries again", false),
        (546, output("WORKER_LIMIT"), "tries again", false),
    ] {
        let failure = failure(status, body).await;
        let output = failure.to_string();
        assert!(output.contains(part), "{status}: {output}");
        assert_eq!(failure.is_refusal(), refusal, "{status}: {output}");
    }
}

#[tokio::test]
async fn a_server_that_names_a_time_is_waited_for_and_one_that_is_away_is_not_refusing() {
    for status in [429, 503, 500] {
        let answer = ResponseTemplate::new(status).insert_header("retry-after", "37");
        let failure = exchanged(answer).await.0.err().unwrap();
        assert_eq!(failure.retry_after(), Some(Duration::from_secs(37)), "{status}");
    }
    let exchange = Exchange::new("http://127.0.0.1:9", &SecretString::from("sb_publishable_x"));
    let failure = exchange.request(&key()).await.err().unwrap();
    assert!(matches!(failure, Failure::Unreachable(_)) && !failure.is_refusal(), "{failure}");
}

#[tokio::test]
async fn a_claim_is_exchanged_for_a_token_of_its_cluster_and_one_that_is_over_says_so() {
    let claim = Claim {
        cluster_id: Uuid::from_u128(7),
        deployment_id: Uuid::from_u128(8),
        token: Uuid::from_u128(9),
    };
    let exchange_with = async |answer: ResponseTemplate| {
        let server = MockServer::start().await;
        let body = json!({"deployment_id": claim.deployment_id, "claim_token": claim.token});
        let shown = Mock::given(method("POST")).and(body_partial_json(body)).respond_with(answer);
        shown.expect(1).mount(&server).await;
        Exchange::new(&server.uri(), &SecretString::from("sb_publishable_x"))
            .request(&Exchangeable::Claim(claim))
            .await
    };
    let granted = |cluster| {
        ResponseTemplate::new(200).set_body_json(json!({"access_token": token(cluster), "expires_in": 900}))
    };
    assert_eq!(exchange_with(granted(claim.cluster_id)).await.unwrap().life, Duration::from_secs(900));
    let other = exchange_with(granted(Uuid::nil())).await.err().unwrap();
    assert!(matches!(other, Failure::Unusable(_)), "{other}");
    let over = ResponseTemplate::new(401).set_body_json(json!({"code": "invalid_claim", "message": "no"}));
    let over = exchange_with(over).await.err().unwrap();
    assert_eq!(over, Failure::ClaimOver);
    assert!(over.is_refusal());
}
