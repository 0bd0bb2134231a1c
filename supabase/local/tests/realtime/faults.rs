//! The fault plan does what it says.

use std::time::Duration;

use serde_json::json;
use supabase_local::Cut;

use crate::client::{Client, End, admin, websocket_url};

#[tokio::test]
async fn open_sockets_are_cut_with_or_without_a_close_frame() {
    let stack = crate::stack().await;
    for (cut, end) in [(Cut::Close(1012), End::Closed(1012)), (Cut::Abrupt, End::Broken)] {
        let mut client = Client::connect(&stack).await;
        client.fence().await;
        stack.faults().cut_sockets(cut);
        assert_eq!(client.end().await, end);
    }
    stack.stop().await.unwrap();
}

#[tokio::test]
async fn a_stack_that_stops_closes_its_sockets_with_1012() {
    let stack = crate::stack().await;
    let mut client = Client::connect(&stack).await;
    client.fence().await;
    let (end, stopped) = tokio::join!(client.end(), stack.stop());
    stopped.unwrap();
    assert_eq!(end, End::Closed(1012));
}

#[tokio::test]
async fn refused_upgrades_are_answered_503_and_open_sockets_stay() {
    let stack = crate::stack().await;
    let mut open = Client::connect(&stack).await;
    stack.faults().refuse_realtime(true);
    let url = websocket_url(&stack, &format!("apikey={}&vsn=2.0.0", stack.anon_key()));
    assert_eq!(Client::open(&url).await.err().expect("a refusal").status(), 503);
    assert!(open.fence().await.is_empty());
    stack.faults().refuse_realtime(false);
    assert!(Client::open(&url).await.is_ok());
    stack.stop().await.unwrap();
}

#[tokio::test]
async fn a_stalled_socket_says_nothing_and_then_everything() {
    let stack = crate::stack().await;
    let token = stack.mint_user("11111111-1111-4111-8111-111111111111");
    let mut client = Client::connect(&stack).await;
    client
        .subscribe("s", json!([{"event": "INSERT", "schema": "public", "table": "full_rows"}]), &token)
        .await;
    stack.faults().stall_sockets(true);
    admin(&stack).await.batch_execute("insert into public.full_rows (body) values ('late')").await.unwrap();
    let silence = tokio::time::timeout(Duration::from_millis(300), client.hear()).await;
    assert!(silence.is_err(), "{silence:?}");
    stack.faults().stall_sockets(false);
    assert_eq!(client.hear_json().await[4]["data"]["record"]["body"], "late");
    stack.stop().await.unwrap();
}

#[tokio::test]
async fn expired_tokens_end_channels_and_leave_the_socket() {
    let stack = crate::stack().await;
    let mut client = Client::connect(&stack).await;
    client.say(json!(["1", "1", "realtime:a", "phx_join", {"config": {}}])).await;
    client.hear_json().await;
    stack.faults().expire_tokens();
    let system = client.hear_json().await;
    assert_eq!(system[4]["message"], "Token has expired 0 seconds ago");
    assert_eq!(client.hear_json().await, json!(["1", "1", "realtime:a", "phx_close", {}]));
    assert!(client.fence().await.is_empty());
    stack.stop().await.unwrap();
}
