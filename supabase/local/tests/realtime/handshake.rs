//! The upgrade request and its refusals.

use std::time::Duration;

use supabase_local::RealtimeOptions;

use crate::client::{Client, End, websocket_url};

#[tokio::test]
async fn each_bad_key_is_refused_with_its_own_words() {
    let stack = crate::stack().await;
    let secret = stack.jwt_secret();
    let cases = [
        ("vsn=2.0.0".to_owned(), 401, r#"{"error":"API key is missing"}"#),
        ("apikey=nonsense&vsn=2.0.0".to_owned(), 401, r#"{"error":"The token provided is not a valid JWT"}"#),
        ("apikey=sb_publishable_abc".to_owned(), 401, r#"{"error":"The token provided is not a valid JWT"}"#),
        (
            format!("apikey={}", supabase_local::JwtSecret::new("other").project_key("anon")),
            401,
            r#"{"error":"Failed to validate JWT signature"}"#,
        ),
        (
            format!("apikey={}", secret.sign(&serde_json::json!({"role": "anon", "exp": 1}))),
            401,
            r#"{"error":"Token has expired"}"#,
        ),
        (
            format!("apikey={}", secret.sign(&serde_json::json!({"exp": 4_102_444_800_u64}))),
            401,
            r#"{"error":"Fields `role` and `exp` are required in JWT"}"#,
        ),
        (format!("apikey={}&vsn=3.0.0", stack.anon_key()), 403, ""),
        (format!("apikey={}&vsn=1.1.0", stack.anon_key()), 403, ""),
    ];
    for (query, status, body) in cases {
        let refusal = Client::open(&websocket_url(&stack, &query)).await.err().expect("a refusal");
        assert_eq!(refusal.status().as_u16(), status, "{query}");
        let text = String::from_utf8(refusal.body().clone().unwrap_or_default()).unwrap();
        assert_eq!(text, body, "{query}");
    }
    stack.stop().await.unwrap();
}

#[tokio::test]
async fn an_opaque_key_stands_for_its_role() {
    let stack = crate::stack().await;
    for key in [stack.keys().publishable(), stack.keys().secret()] {
        let url = websocket_url(&stack, &format!("apikey={key}&vsn=2.0.0"));
        let mut client = Client::open(&url).await.expect("the socket opens");
        assert_eq!(client.fence().await, Vec::<serde_json::Value>::new());
    }
    stack.stop().await.unwrap();
}

#[tokio::test]
async fn a_silent_socket_is_closed_with_1000() {
    let mut options = RealtimeOptions::default();
    options.idle_timeout = Duration::from_millis(200);
    let stack = crate::stack_with(options).await;
    let mut client = Client::connect(&stack).await;
    assert_eq!(client.end().await, End::Closed(1000));
    stack.stop().await.unwrap();
}

#[tokio::test]
async fn a_frame_over_five_megabytes_ends_the_socket() {
    let stack = crate::stack().await;
    let mut client = Client::connect(&stack).await;
    client.send_unchecked("x".repeat(5_000_001)).await;
    assert_eq!(client.end().await, End::Broken);
    stack.stop().await.unwrap();
}

/// What makes a client with one bad channel miss the heartbeats of all others.
#[tokio::test]
async fn a_socket_is_deaf_while_a_refused_join_waits() {
    let mut options = RealtimeOptions::default();
    options.join_error_delay = Duration::from_millis(300);
    let stack = crate::stack_with(options).await;
    let mut client = Client::connect(&stack).await;
    let started = std::time::Instant::now();
    client.send_json(serde_json::json!(["1", "1", "realtime:", "phx_join", {"config": {}}])).await;
    let before = client.fence().await;
    assert!(started.elapsed() >= Duration::from_millis(300));
    assert_eq!(before[0][4]["response"]["reason"], "TopicNameRequired: You must provide a topic name");
    stack.stop().await.unwrap();
}
