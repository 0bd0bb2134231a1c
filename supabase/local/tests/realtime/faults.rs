//! Each fault of the plan has its effect.

use std::time::Duration;

use serde_json::json;
use supabase_local::{Cut, Target};

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
    let silence = tokio::time::timeout(Duration::from_millis(300), client.receive()).await;
    assert!(silence.is_err(), "{silence:?}");
    stack.faults().stall_sockets(false);
    assert_eq!(client.receive_json().await[4]["data"]["record"]["body"], "late");
    stack.stop().await.unwrap();
}

#[tokio::test]
async fn expired_tokens_end_channels_and_leave_the_socket() {
    let stack = crate::stack().await;
    let mut client = Client::connect(&stack).await;
    client.send_json(json!(["1", "1", "realtime:a", "phx_join", {"config": {}}])).await;
    client.receive_json().await;
    stack.faults().expire_tokens();
    let system = client.receive_json().await;
    assert_eq!(system[4]["message"], "Token has expired 0 seconds ago");
    assert_eq!(client.receive_json().await, json!(["1", "1", "realtime:a", "phx_close", {}]));
    assert!(client.fence().await.is_empty());
    stack.stop().await.unwrap();
}

#[tokio::test]
async fn a_target_chooses_sockets_and_channels_by_their_tokens_and_topics() {
    let stack = crate::stack().await;
    let mut agents = Vec::new();
    for cluster in ["c1", "c2"] {
        let mut client = Client::connect(&stack).await;
        let payload = json!({"config": {}, "access_token": stack.mint_machine(cluster)});
        client.send_json(json!(["1", "1", format!("realtime:{cluster}"), "phx_join", payload])).await;
        client.send_json(json!(["2", "2", "realtime:other", "phx_join", {"config": {}}])).await;
        client.fence().await;
        agents.push(client);
    }
    stack.faults().expire(Target::all().claim("cluster_id", "c1").topic("c1"));
    assert_eq!(agents[0].receive_json().await[4]["message"], "Token has expired 0 seconds ago");
    assert_eq!(agents[0].receive_json().await, json!(["1", "1", "realtime:c1", "phx_close", {}]));
    assert!(agents[0].fence().await.is_empty() && agents[1].fence().await.is_empty());
    stack.faults().cut(Cut::Close(1001), Target::all().claim("cluster_id", "c2"));
    assert_eq!(agents[1].end().await, End::Closed(1001));
    assert!(agents[0].fence().await.is_empty());
    stack.faults().cut(Cut::Abrupt, Target::all().topic("other"));
    assert_eq!(agents[0].end().await, End::Broken);
    stack.stop().await.unwrap();
}

#[tokio::test]
async fn a_restart_closes_all_refuses_connections_and_ends() {
    let stack = crate::stack().await;
    let mut client = Client::connect(&stack).await;
    client.fence().await;
    stack.faults().restart(Duration::from_millis(300));
    assert_eq!(client.end().await, End::Closed(1012));
    let url = websocket_url(&stack, &format!("apikey={}&vsn=2.0.0", stack.anon_key()));
    let began = std::time::Instant::now();
    let mut refusals = 0;
    let mut client = loop {
        match Client::dial(&url).await {
            Ok(client) => break client,
            Err(_) => refusals += 1,
        }
        assert!(began.elapsed() < Duration::from_secs(10), "the server never came back");
    };
    assert!(refusals > 0, "connections were never refused");
    assert!(client.fence().await.is_empty());
    stack.stop().await.unwrap();
}

#[tokio::test]
async fn a_wrong_clock_makes_good_tokens_expire() {
    let stack = crate::stack().await;
    let mut client = Client::connect(&stack).await;
    let token = stack.mint_user("11111111-1111-4111-8111-111111111111");
    let join = |reference: &str| json!([reference, reference, "realtime:a", "phx_join", {"config": {}, "access_token": token}]);
    client.send_json(join("1")).await;
    assert_eq!(client.receive_json().await[4]["status"], "ok");
    stack.faults().skew_clock(7200);
    let system = client.receive_json().await;
    assert!(system[4]["message"].as_str().unwrap().starts_with("Token has expired 36"), "{system}");
    assert_eq!(client.receive_json().await[3], "phx_close");
    client.send_json(join("2")).await;
    let refusal = client.receive_json().await;
    let reason = refusal[4]["response"]["reason"].as_str().unwrap();
    assert!(reason.starts_with("InvalidJWTToken: Token has expired"), "{reason}");
    stack.faults().clear();
    client.send_json(join("3")).await;
    assert_eq!(client.receive_json().await[4]["status"], "ok");
    stack.stop().await.unwrap();
}
