//! Faults of single frames.

use std::time::Duration;

use serde_json::{Value, json};
use supabase_local::{Cut, FrameFault, Stack, Target};

use crate::client::{Client, End, admin};

async fn insert(stack: &Stack, body: &str) {
    let insert = format!("insert into public.full_rows (body) values ('{body}')");
    admin(stack).await.batch_execute(&insert).await.unwrap();
}

fn bindings() -> Value {
    json!([{"event": "INSERT", "schema": "public", "table": "full_rows"}])
}

async fn subscriber(stack: &Stack, name: &str) -> Client {
    let mut client = Client::connect(stack).await;
    let token = stack.mint_user("11111111-1111-4111-8111-111111111111");
    client.subscribe(name, bindings(), &token).await;
    client
}

#[tokio::test]
async fn rows_of_one_channel_are_lost_without_a_word_and_then_flow_again() {
    let stack = crate::stack().await;
    let mut unlucky = subscriber(&stack, "unlucky").await;
    let mut lucky = subscriber(&stack, "lucky").await;
    let rows = Target::all().event("postgres_changes").topic("unlucky");
    let loss = stack.faults().on_frames(FrameFault::Withhold, rows);
    insert(&stack, "lost").await;
    assert_eq!(lucky.receive_json().await[4]["data"]["record"]["body"], "lost");
    while loss.struck() == 0 {
        tokio::task::yield_now().await;
    }
    loss.lift();
    insert(&stack, "received").await;
    assert_eq!(unlucky.receive_json().await[4]["data"]["record"]["body"], "received");
    stack.stop().await.unwrap();
}

#[tokio::test]
async fn the_verdict_on_a_subscription_is_withheld_or_repeated() {
    let stack = crate::stack().await;
    let mut client = Client::connect(&stack).await;
    let join = |reference: &str| json!([reference, reference, "realtime:a", "phx_join", {"config": {"postgres_changes": bindings()}}]);
    let systems = Target::all().event("system").times(1);
    let withheld = stack.faults().on_frames(FrameFault::Withhold, systems.clone());
    client.send_json(join("1")).await;
    assert_eq!(client.receive_json().await[4]["status"], "ok");
    while withheld.struck() == 0 {
        tokio::task::yield_now().await;
    }
    assert!(client.fence().await.is_empty());
    stack.faults().on_frames(FrameFault::Duplicate, systems);
    client.send_json(join("2")).await;
    assert_eq!(client.receive_json().await[4]["status"], "ok");
    assert_eq!(client.receive_json().await[3], "phx_close");
    for _ in 0..2 {
        let system = client.receive_json().await;
        assert_eq!((&system[0], &system[4]["message"]), (&json!("2"), &json!("Subscribed to PostgreSQL")));
    }
    assert!(client.fence().await.is_empty());
    stack.stop().await.unwrap();
}

#[tokio::test]
async fn a_frame_is_late_and_those_after_it_are_no_earlier() {
    let stack = crate::stack().await;
    let mut client = Client::connect(&stack).await;
    let late = Duration::from_millis(150);
    let replies = Target::all().event("phx_reply").topic("a").times(1);
    stack.faults().on_frames(FrameFault::Delay(late), replies);
    let started = std::time::Instant::now();
    client.send_json(json!(["1", "1", "realtime:a", "phx_join", {"config": {}}])).await;
    let before = client.fence().await;
    assert!(started.elapsed() >= late);
    assert_eq!(before[0][4]["status"], "ok");
    stack.stop().await.unwrap();
}

#[tokio::test]
async fn a_socket_is_half_open_until_the_fault_is_lifted() {
    let stack = crate::stack().await;
    let mut client = Client::connect(&stack).await;
    let stall = stack.faults().on_frames(FrameFault::Stall, Target::all().after(1));
    client.send_json(json!([null, "1", "phoenix", "heartbeat", {}])).await;
    client.send_json(json!([null, "2", "phoenix", "heartbeat", {}])).await;
    assert_eq!(client.receive_json().await[1], "1");
    let silence = tokio::time::timeout(Duration::from_millis(200), client.receive()).await;
    assert!(silence.is_err(), "{silence:?}");
    stall.lift();
    assert_eq!(client.receive_json().await[1], "2");
    stack.stop().await.unwrap();
}

#[tokio::test]
async fn a_socket_ends_after_so_many_frames() {
    let stack = crate::stack().await;
    for (cut, end) in [(Cut::Close(1011), End::Closed(1011)), (Cut::Abrupt, End::Broken)] {
        let mut client = Client::connect(&stack).await;
        let fault = stack.faults().on_frames(FrameFault::Cut(cut), Target::all().after(2).times(1));
        for reference in ["1", "2", "3"] {
            client.send_json(json!([null, reference, "phoenix", "heartbeat", {}])).await;
        }
        for reference in ["1", "2"] {
            assert_eq!(client.receive_json().await[1], reference);
        }
        assert_eq!(client.end().await, end);
        assert_eq!(fault.struck(), 1);
        fault.lift();
    }
    stack.stop().await.unwrap();
}
