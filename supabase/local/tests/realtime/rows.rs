//! Rows: exactness of the text, large transactions, visibility, a broken replication.

use serde_json::{Value, json};
use supabase_local::Stack;

use crate::client::{Client, admin};

const USER: &str = "11111111-1111-4111-8111-111111111111";

async fn subscriber(stack: &Stack, bindings: Value) -> Client {
    let mut client = Client::connect(stack).await;
    client.subscribe("rows", bindings, &stack.mint_user(USER)).await;
    client
}

/// The frame of the recording and ours, byte for byte but for the time and the binding's id.
#[tokio::test]
async fn a_row_of_all_types_is_spelled_as_recorded() {
    let text =
        include_str!("../../../../tendril-realtime/tests/recorded/2.0.0/pg_insert_update_delete_types.jsonl");
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let insert = lines.iter().find(|line| line["dir"] == "sql").unwrap()["text"].as_str().unwrap();
    let recorded =
        lines.iter().filter_map(|line| line["data"].as_str()).find(|data| data.contains("INSERT\",\"record"));
    let stack = crate::stack().await;
    let binding =
        json!([{"event": "*", "schema": "public", "table": "events", "filter": "cluster_id=eq.c4871fb89"}]);
    let mut client = subscriber(&stack, binding).await;
    admin(&stack).await.batch_execute(insert).await.unwrap();
    let received = client.receive().await;
    let body = |frame: &str| {
        let start = frame.find("\"postgres_changes\"").unwrap();
        let end = frame.find("\"commit_timestamp\"").unwrap();
        frame[start..end].to_owned()
    };
    assert_eq!(body(received.to_text().unwrap()), body(recorded.unwrap()));
    stack.stop().await.unwrap();
}

#[tokio::test]
async fn a_large_transaction_arrives_whole_and_in_order() {
    let stack = crate::stack().await;
    let mut client =
        subscriber(&stack, json!([{"event": "INSERT", "schema": "public", "table": "rls_rows"}])).await;
    let insert = format!(
        "insert into public.rls_rows (owner, body) select case when g % 2 = 0 then '{USER}'::uuid end, g::text \
         from generate_series(1, 3000) g"
    );
    admin(&stack).await.batch_execute(&insert).await.unwrap();
    for number in (2..=3000).step_by(2) {
        let frame = client.receive_json().await;
        assert_eq!(frame[4]["data"]["record"]["body"], number.to_string());
    }
    stack.stop().await.unwrap();
}

/// The log has a commit a moment before other sessions see it; the policy check must not be quicker.
#[tokio::test]
async fn no_row_is_lost_to_the_policy_check() {
    let stack = crate::stack().await;
    let mut client =
        subscriber(&stack, json!([{"event": "INSERT", "schema": "public", "table": "rls_rows"}])).await;
    let database = admin(&stack).await;
    let insert = database
        .prepare("insert into public.rls_rows (owner, body) values ($1::text::uuid, $2)")
        .await
        .unwrap();
    for number in 0..300 {
        database.execute(&insert, &[&USER, &number.to_string()]).await.unwrap();
    }
    for number in 0..300 {
        assert_eq!(client.receive_json().await[4]["data"]["record"]["body"], number.to_string());
    }
    stack.stop().await.unwrap();
}

#[tokio::test]
async fn the_feed_carries_on_after_its_connections_broke() {
    let stack = crate::stack().await;
    let mut client =
        subscriber(&stack, json!([{"event": "INSERT", "schema": "public", "table": "full_rows"}])).await;
    let database = admin(&stack).await;
    let slots = "select count(*) from pg_replication_slots where active and slot_name not like '%messages%'";
    let terminate = "select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid() \
                     and backend_type in ('walsender', 'client backend')";
    database.query(terminate, &[]).await.unwrap();
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(10);
    let mut body = String::new();
    // A new session needs a moment; a row made too early is lost, as with the real server.
    for number in 0.. {
        assert!(tokio::time::Instant::now() < deadline, "the feed is silent");
        database
            .execute("insert into public.full_rows (body) values ($1)", &[&number.to_string()])
            .await
            .unwrap();
        let received =
            tokio::time::timeout(std::time::Duration::from_millis(200), client.receive_json()).await;
        if let Ok(frame) = received {
            body = frame[4]["data"]["record"]["body"].as_str().unwrap().to_owned();
            break;
        }
    }
    assert!(!body.is_empty());
    assert_eq!(database.query_one(slots, &[]).await.unwrap().get::<_, i64>(0), 1);
    stack.stop().await.unwrap();
}

#[tokio::test]
async fn a_row_over_a_mebibyte_keeps_only_its_small_values() {
    let stack = crate::stack().await;
    let binding =
        json!([{"event": "*", "schema": "public", "table": "events", "filter": "cluster_id=eq.big"}]);
    let mut client = subscriber(&stack, binding).await;
    let database = admin(&stack).await;
    let insert =
        "insert into public.events (cluster_id, t, vc) values ('big', repeat('x', 1200000), 'short')";
    database.batch_execute(insert).await.unwrap();
    let data = client.receive_json().await[4]["data"].take();
    assert_eq!(data["errors"], json!(["Error 413: Payload Too Large"]));
    let mut record = data["record"].as_object().unwrap().clone();
    assert!(record.remove("id").is_some());
    assert_eq!(Value::from(record), json!({"vc": "short", "cluster_id": "big"}));
    stack.stop().await.unwrap();
}

#[tokio::test]
async fn an_untouched_large_value_is_absent_and_not_null() {
    let stack = crate::stack().await;
    let binding = json!([{"event": "*", "schema": "public", "table": "events"},
                         {"event": "*", "schema": "public", "table": "full_rows"}]);
    let mut client = subscriber(&stack, binding).await;
    let database = admin(&stack).await;
    let large = "(select string_agg(md5(g::text), '') from generate_series(1, 1000) g)";
    database.batch_execute(&format!("insert into public.events (t) values ({large})")).await.unwrap();
    database.batch_execute("update public.events set vc = 'new'").await.unwrap();
    database
        .batch_execute(&format!("insert into public.full_rows (body, n) values ({large}, 0)"))
        .await
        .unwrap();
    database.batch_execute("update public.full_rows set n = 1").await.unwrap();
    assert!(client.receive_json().await[4]["data"]["record"]["t"].is_string());
    let update = client.receive_json().await[4]["data"].take();
    assert_eq!((&update["record"]["vc"], update["record"].get("t")), (&json!("new"), None));
    assert!(update["record"]["d"].is_null() && update["record"].get("d").is_some());
    assert!(client.receive_json().await[4]["data"]["record"]["body"].is_string());
    let update = client.receive_json().await[4]["data"].take();
    assert!(update["record"]["body"].is_string(), "a full identity has it from the old row");
    stack.stop().await.unwrap();
}
