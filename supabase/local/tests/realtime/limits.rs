//! Limits that are averages over time, by the clock. `recorded` plays what a real server did.

use std::time::Duration;

use serde_json::json;
use supabase_local::RealtimeOptions;
use tokio::time::{Instant, sleep_until};

use crate::client::{Client, End, websocket_url};
use crate::http::send;

const TICK: Duration = Duration::from_millis(200);

fn options() -> RealtimeOptions {
    let mut options = RealtimeOptions::default();
    options.rate_tick = TICK;
    options
}

#[tokio::test]
async fn too_many_broadcasts_close_the_channel_that_hears_them() {
    let mut options = options();
    options.max_events_per_second = Some(5);
    let stack = crate::stack_with(options).await;
    let (mut sender, mut listener) = (Client::connect(&stack).await, Client::connect(&stack).await);
    let config = json!({"config": {"broadcast": {"ack": true}}});
    for client in [&mut sender, &mut listener] {
        client.send_json(json!(["1", "1", "realtime:ev", "phx_join", config])).await;
        assert_eq!(client.receive_json().await[4]["status"], "ok");
    }
    let message =
        json!(["1", "2", "realtime:ev", "broadcast", {"type": "broadcast", "event": "e", "payload": {}}]);
    let deadline = Instant::now() + Duration::from_secs(10);
    let system = loop {
        assert!(Instant::now() < deadline, "the limit was never noticed");
        sender.send_json(message.clone()).await;
        // The sender gets no error.
        assert_eq!(sender.receive_json().await[4]["status"], "ok");
        let received = listener.receive_json().await;
        if received[3] == "system" {
            break received;
        }
    };
    let payload = json!({"message": "Too many messages per second", "status": "error", "extension": "system",
        "channel": "ev"});
    assert_eq!(system, json!(["1", null, "realtime:ev", "system", payload]));
    assert_eq!(listener.receive_json().await, json!(["1", "1", "realtime:ev", "phx_close", {}]));
    let body = br#"{"messages":[{"topic":"ev","event":"r","payload":{}}]}"#;
    let headers = [("apikey", stack.anon_key()), ("Content-Type", "application/json")];
    let answer = send(&stack, "POST", "/realtime/v1/api/broadcast", &headers, body).await.unwrap();
    assert_eq!(
        (answer.status, answer.body.as_str()),
        (429, r#"{"message":"You have exceeded your rate limit"}"#)
    );
    listener.send_json(json!(["3", "3", "realtime:ev", "phx_join", config])).await;
    assert_eq!(listener.receive_json().await[4]["status"], "ok");
    stack.stop().await.unwrap();
}

#[tokio::test]
async fn too_many_joins_close_the_socket_and_refuse_new_ones() {
    let mut options = options();
    options.max_joins_per_second = Some(2);
    let stack = crate::stack_with(options).await;
    let mut client = Client::connect(&stack).await;
    let deadline = Instant::now() + Duration::from_secs(10);
    let refusal = loop {
        assert!(Instant::now() < deadline, "the limit was never noticed");
        client.send_json(json!(["1", "1", "realtime:j", "phx_join", {"config": {}}])).await;
        let answer = client.receive_json().await;
        if answer[4]["status"] == "error" {
            break answer;
        }
    };
    assert_eq!(refusal[4]["response"]["reason"], "ClientJoinRateLimitReached: Too many joins per second");
    assert_eq!(client.end().await, End::Closed(1001));
    let url = websocket_url(&stack, &format!("apikey={}&vsn=2.0.0", stack.anon_key()));
    let refused = Client::open(&url).await.err().expect("a refusal");
    assert_eq!(refused.status(), 429);
    assert_eq!(refused.body().as_deref(), Some(br#"{"error":"Too many joins per second"}"#.as_slice()));
    // Twelve ticks later all is forgotten.
    sleep_until(Instant::now() + 13 * TICK).await;
    assert!(Client::open(&url).await.is_ok());
    stack.stop().await.unwrap();
}

#[tokio::test]
async fn too_many_presence_calls_of_all_close_a_channel() {
    let mut options = options();
    options.max_presence_per_second = Some(2);
    options.max_presence_calls = usize::MAX;
    let stack = crate::stack_with(options).await;
    let mut client = Client::connect(&stack).await;
    client.send_json(json!(["1", "1", "realtime:p", "phx_join", {"config": {}}])).await;
    client.receive_json().await;
    let track =
        json!(["1", "2", "realtime:p", "presence", {"type": "presence", "event": "track", "payload": {}}]);
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        assert!(Instant::now() < deadline, "the limit was never noticed");
        client.send_json(track.clone()).await;
        let received = client.receive_json().await;
        if received[3] == "system" {
            assert_eq!(received[4]["message"], "Too many presence messages per second");
            break;
        }
    }
    stack.stop().await.unwrap();
}
