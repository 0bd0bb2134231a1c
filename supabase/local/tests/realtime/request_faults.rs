//! Faults of HTTP requests, and of the port they come through.

use std::time::{Duration, Instant};

use serde_json::json;
use supabase_local::{RequestFault, Stack, Target};

use crate::client::{Client, admin, websocket_url};
use crate::http::{Answer, send};

const ROWS: &str = "/rest/v1/full_rows";

async fn insert(stack: &Stack, body: &str) -> Option<Answer> {
    let row = json!({"body": body}).to_string();
    let headers = [("apikey", stack.anon_key()), ("Content-Type", "application/json")];
    send(stack, "POST", ROWS, &headers, row.as_bytes()).await
}

async fn read(stack: &Stack) -> Option<Answer> {
    send(stack, "GET", &format!("{ROWS}?select=body"), &[("apikey", stack.anon_key())], b"").await
}

async fn count(stack: &Stack) -> i64 {
    admin(stack).await.query_one("select count(*) from public.full_rows", &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn a_storm_of_statuses_strikes_the_chosen_requests_and_passes() {
    let stack = crate::stack().await;
    let fault = RequestFault::Status { code: 429, retry_after: Some(Duration::from_secs(7)) };
    let storm = stack.faults().on_requests(fault, Target::all().method("POST").path(ROWS).times(2));
    for _ in 0..2 {
        let answer = insert(&stack, "refused").await.unwrap();
        assert_eq!((answer.status, answer.header("retry-after")), (429, Some("7")));
        assert_eq!(read(&stack).await.unwrap().status, 200);
    }
    assert_eq!(insert(&stack, "stored").await.unwrap().status, 201);
    assert_eq!((storm.struck(), count(&stack).await), (2, 1));
    storm.lift();
    stack.faults().on_requests(RequestFault::Status { code: 502, retry_after: None }, Target::all());
    let answer = read(&stack).await.unwrap();
    assert_eq!((answer.status, answer.header("retry-after")), (502, None));
    stack.faults().clear();
    assert_eq!(read(&stack).await.unwrap().status, 200);
    stack.stop().await.unwrap();
}

#[tokio::test]
async fn an_answer_is_lost_before_or_after_the_commit() {
    let stack = crate::stack().await;
    let before = stack.faults().on_requests(RequestFault::DropBefore, Target::all().path(ROWS));
    assert_eq!(insert(&stack, "never").await, None);
    assert_eq!(count(&stack).await, 0);
    before.lift();
    let after = stack.faults().on_requests(RequestFault::DropAfter, Target::all().path(ROWS));
    assert_eq!(insert(&stack, "done").await, None);
    assert_eq!(count(&stack).await, 1);
    after.lift();
    assert_eq!(read(&stack).await.unwrap().body, r#"[{"body":"done"}]"#);
    stack.stop().await.unwrap();
}

#[tokio::test]
async fn a_body_ends_in_the_middle() {
    let stack = crate::stack().await;
    insert(&stack, "whole").await.unwrap();
    let whole = read(&stack).await.unwrap().body;
    stack.faults().on_requests(RequestFault::Truncate, Target::all());
    let cut = read(&stack).await.unwrap();
    assert_eq!(cut.status, 200);
    assert_eq!(cut.header("content-length"), Some(whole.len().to_string().as_str()));
    assert_eq!(cut.body, whole[..whole.len() / 2]);
    stack.stop().await.unwrap();
}

#[tokio::test]
async fn an_answer_is_late_or_never_comes() {
    let stack = crate::stack().await;
    let late = Duration::from_millis(150);
    let delay = stack.faults().on_requests(RequestFault::Delay(late), Target::all());
    let started = Instant::now();
    assert_eq!(read(&stack).await.unwrap().status, 200);
    assert!(started.elapsed() >= late);
    delay.lift();
    let stall = stack.faults().on_requests(RequestFault::Stall, Target::all());
    let mut answer = Box::pin(read(&stack));
    assert!(tokio::time::timeout(Duration::from_millis(200), &mut answer).await.is_err());
    stall.lift();
    assert_eq!(answer.as_mut().await, None);
    drop(answer);
    stack.stop().await.unwrap();
}

#[tokio::test]
async fn a_token_chooses_the_requests() {
    let stack = crate::stack().await;
    let target = Target::all().role("authenticated").claim("sub", "11111111-1111-4111-8111-111111111111");
    stack.faults().on_requests(RequestFault::Status { code: 500, retry_after: None }, target);
    let status = async |user: &str| {
        let bearer = format!("Bearer {}", stack.mint_user(user));
        let headers = [("apikey", stack.anon_key()), ("Authorization", bearer.as_str())];
        send(&stack, "GET", ROWS, &headers, b"").await.unwrap().status
    };
    assert_eq!(status("11111111-1111-4111-8111-111111111111").await, 500);
    assert_eq!(status("22222222-2222-4222-8222-222222222222").await, 200);
    assert_eq!(read(&stack).await.unwrap().status, 200);
    stack.stop().await.unwrap();
}

#[tokio::test]
async fn an_upgrade_is_a_request_too() {
    let stack = crate::stack().await;
    let url = websocket_url(&stack, &format!("apikey={}&vsn=2.0.0", stack.anon_key()));
    let upgrades = Target::all().path("/realtime/v1/websocket");
    let refusal = RequestFault::Status { code: 503, retry_after: None };
    let refusal = stack.faults().on_requests(refusal, upgrades.clone());
    assert_eq!(Client::open(&url).await.err().expect("a refusal").status(), 503);
    assert_eq!(read(&stack).await.unwrap().status, 200);
    refusal.lift();
    let reset = stack.faults().on_requests(RequestFault::DropBefore, upgrades);
    let error = Client::dial(&url).await.err().expect("a broken connection");
    assert!(!matches!(error, tokio_tungstenite::tungstenite::Error::Http(_)), "{error}");
    reset.lift();
    assert!(Client::open(&url).await.is_ok());
    stack.stop().await.unwrap();
}

#[tokio::test]
async fn a_closed_port_refuses_connections_until_it_is_opened() {
    let stack = crate::stack().await;
    let address = stack.api_url().replace("http://", "");
    stack.faults().close_port(true);
    // The listener needs a moment to release the port.
    let refused = async {
        loop {
            match tokio::net::TcpStream::connect(&address).await {
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => break,
                _ => tokio::task::yield_now().await,
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), refused).await.expect("a refusal");
    stack.faults().close_port(false);
    let answered = async { while read(&stack).await.is_none_or(|answer| answer.status != 200) {} };
    tokio::time::timeout(Duration::from_secs(10), answered).await.expect("an answer");
    stack.stop().await.unwrap();
}

#[tokio::test]
async fn chance_strikes_a_share_and_a_seed_decides_whom() {
    let stack = crate::stack().await;
    let mut runs = Vec::new();
    for _ in 0..2 {
        let faults = stack.faults();
        faults.seed(42);
        // Rules have numbers, so the second run's is another; the share is what both have.
        let fault = RequestFault::Status { code: 500, retry_after: None };
        let storm = faults.on_requests(fault, Target::all().path(ROWS).chance(0.5));
        for _ in 0..40 {
            read(&stack).await.unwrap();
        }
        runs.push(storm.struck());
        storm.lift();
    }
    assert!(runs.iter().all(|struck| (8..=32).contains(struck)), "{runs:?}");
    stack.stop().await.unwrap();
}

#[tokio::test]
async fn a_wrong_clock_refuses_good_tokens() {
    let stack = crate::stack().await;
    let bearer = format!("Bearer {}", stack.mint_user("11111111-1111-4111-8111-111111111111"));
    let status = async || {
        let headers = [("apikey", stack.anon_key()), ("Authorization", bearer.as_str())];
        send(&stack, "GET", ROWS, &headers, b"").await.unwrap().status
    };
    assert_eq!(status().await, 200);
    for wrong in [7200, -7200] {
        stack.faults().skew_clock(wrong);
        assert_eq!(status().await, 401, "{wrong}");
    }
    stack.faults().skew_clock(0);
    assert_eq!(status().await, 200);
    stack.stop().await.unwrap();
}
