//! Private channels beyond what was recorded: permissions that change, members of presence alone, replayed messages.

use serde_json::{Value, json};
use supabase_local::Stack;

use crate::client::{Client, admin};
use crate::http::send;

const USER: &str = "11111111-1111-4111-8111-111111111111";

async fn join(client: &mut Client, stack: &Stack, reference: &str, topic: &str, config: Value) -> Value {
    let mut config = config;
    config["private"] = true.into();
    let payload = json!({"config": config, "access_token": stack.mint_user(USER)});
    client.send_json(json!([reference, reference, format!("realtime:{topic}"), "phx_join", payload])).await;
    client.receive_json().await[4].take()
}

async fn sql(stack: &Stack, script: &str) {
    admin(stack).await.batch_execute(script).await.unwrap();
}

fn broadcast(reference: &str, topic: &str) -> Value {
    let payload = json!({"type": "broadcast", "event": "e", "payload": {}});
    json!(["1", reference, format!("realtime:{topic}"), "broadcast", payload])
}

#[tokio::test]
async fn the_right_to_write_is_asked_once_for_each_token() {
    let stack = crate::stack().await;
    sql(
        &stack,
        "create table public.writers (id uuid); grant select on public.writers to authenticated; \
         create policy room_read on realtime.messages for select to authenticated using (true); \
         create policy room_write on realtime.messages for insert to authenticated \
         with check (auth.uid() in (select id from public.writers))",
    )
    .await;
    sql(&stack, &format!("insert into public.writers values ('{USER}')")).await;
    let mut client = Client::connect(&stack).await;
    let config = json!({"broadcast": {"ack": true}});
    assert_eq!(join(&mut client, &stack, "1", "room", config).await["status"], "ok");
    client.send_json(broadcast("2", "room")).await;
    assert_eq!(client.receive_json().await[4]["status"], "ok");
    sql(&stack, "delete from public.writers").await;
    client.send_json(broadcast("3", "room")).await;
    assert_eq!(client.receive_json().await[4]["status"], "ok", "the answer is remembered");
    let token = stack.mint(&json!({"role": "authenticated", "sub": USER, "exp": 4_102_444_800_u64}));
    client.send_json(json!(["1", "4", "realtime:room", "access_token", {"access_token": token}])).await;
    client.send_json(broadcast("5", "room")).await;
    assert!(client.fence().await.is_empty(), "no answer to those who may not write");
    stack.stop().await.unwrap();
}

#[tokio::test]
async fn who_may_read_presence_alone_is_a_member_that_hears_no_broadcast() {
    let stack = crate::stack().await;
    sql(
        &stack,
        "create policy lobby on realtime.messages for select to authenticated \
         using (realtime.topic() = 'lobby' and extension = 'presence')",
    )
    .await;
    let mut member = Client::connect(&stack).await;
    let refused = join(&mut member, &stack, "1", "lobby", json!({})).await;
    let reason = "Unauthorized: You do not have permissions to read from this Channel topic: lobby";
    assert_eq!(refused["response"]["reason"], reason, "presence was not requested");
    let config = json!({"presence": {"enabled": true, "key": "m"}});
    assert_eq!(join(&mut member, &stack, "2", "lobby", config.clone()).await["status"], "ok");
    assert_eq!(member.receive_json().await[3], "presence_state");
    // The service may do everything.
    let mut service = Client::connect(&stack).await;
    let mut config = config;
    config["private"] = true.into();
    config["broadcast"] = json!({"ack": true});
    let payload = json!({"config": config, "access_token": stack.service_role_key()});
    service.send_json(json!(["1", "1", "realtime:lobby", "phx_join", payload])).await;
    assert_eq!(service.receive_json().await[4]["status"], "ok");
    assert_eq!(service.receive_json().await[3], "presence_state");
    service.send_json(broadcast("2", "lobby")).await;
    assert_eq!(service.receive_json().await[4]["status"], "ok");
    let track = json!({"type": "presence", "event": "track", "payload": {"n": 1}});
    service.send_json(json!(["1", "3", "realtime:lobby", "presence", track])).await;
    assert_eq!(member.receive_json().await[3], "presence_diff", "and no broadcast before it");
    stack.stop().await.unwrap();
}

#[tokio::test]
async fn policies_may_read_the_headers_of_a_request() {
    let stack = crate::stack().await;
    sql(
        &stack,
        "create policy team on realtime.messages for insert to anon \
         with check (current_setting('request.headers')::json ->> 'x-team' = 'red')",
    )
    .await;
    let path = "/realtime/v1/api/broadcast/team/events/e?private=true";
    for (team, status) in [("red", 202), ("blue", 403)] {
        let headers = [("apikey", stack.anon_key()), ("Content-Type", "application/json"), ("X-Team", team)];
        assert_eq!(send(&stack, "POST", path, &headers, b"{}").await.unwrap().status, status, "{team}");
    }
    stack.stop().await.unwrap();
}

/// The message's row is written twice under one id, as if its live delivery came after the replay.
#[tokio::test]
async fn a_replayed_message_is_not_heard_again_live() {
    let stack = crate::stack().await;
    let id = "aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa";
    let message = |id: &str| {
        format!(
            "insert into realtime.messages (id, topic, extension, event, private, payload) \
             values ('{id}', 'private:rw', 'broadcast', 'e', true, '{{}}')"
        )
    };
    sql(&stack, &message(id)).await;
    let mut client = Client::connect(&stack).await;
    let config = json!({"broadcast": {"replay": {"since": 0}, "replication_ready": true}});
    assert_eq!(join(&mut client, &stack, "1", "private:rw", config).await["status"], "ok");
    let replayed = client.receive_json().await;
    assert_eq!(replayed[4]["meta"], json!({"id": id, "replayed": true}));
    assert_eq!(client.receive_json().await[4]["message"], "Replication connection established");
    let fresh = "bbbbbbbb-bbbb-4bbb-8bbb-bbbbbbbbbbbb";
    sql(&stack, &message(id)).await;
    sql(&stack, &message(fresh)).await;
    let received = client.receive().await.into_data();
    let text = String::from_utf8_lossy(&received).into_owned();
    assert!(text.contains(fresh) && !text.contains(id), "{text}");
    stack.stop().await.unwrap();
}

#[tokio::test]
async fn at_most_25_messages_are_replayed_and_they_are_the_newest() {
    let stack = crate::stack().await;
    let send = "select realtime.send(jsonb_build_object('n', $1::int), 'e', 'private:rw')";
    let database = admin(&stack).await;
    for number in 0..30 {
        database.execute(send, &[&number]).await.unwrap();
    }
    let mut client = Client::connect(&stack).await;
    let config = json!({"broadcast": {"replay": {"since": 0, "limit": 100}}});
    assert_eq!(join(&mut client, &stack, "1", "private:rw", config).await["status"], "ok");
    let numbers: Vec<Value> =
        client.fence().await.iter().map(|frame| frame[4]["payload"]["n"].clone()).collect();
    assert_eq!(numbers, (5..30).map(Value::from).collect::<Vec<_>>());
    stack.stop().await.unwrap();
}
