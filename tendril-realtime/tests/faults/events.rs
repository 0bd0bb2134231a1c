use serde::Deserialize;
use serde_json::{Value, json};
use tendril_realtime::{BroadcastEvent, ChangeEvent, ChangeKind, ErrorKind, PostgresChanges, StreamExt as _};
use tendril_realtime_testkit::FakeServer;

use crate::{client, in_time, server};

#[derive(Debug, Deserialize, PartialEq)]
struct Page {
    id: i64,
    body: String,
}

#[derive(Debug, Deserialize)]
struct MaybeBody {
    id: i64,
    body: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Title {
    title: String,
}

/// An update of a row whose large `body` did not change: the server leaves it out of the record, and names it in `columns`.
fn update_without_body(server: &FakeServer) {
    server.change(&json!({
        "schema": "public", "table": "pages", "type": "UPDATE", "commit_timestamp": "2026-01-01T00:00:00.000Z",
        "columns": [{"name": "id", "type": "int8"}, {"name": "title", "type": "text"}, {"name": "body", "type": "text"}],
        "record": {"id": 1, "title": "new"}, "old_record": {"id": 1}, "errors": null,
    }));
}

#[tokio::test]
async fn an_update_without_an_unchanged_large_column_is_incomplete_where_the_type_needs_it() {
    let server = server().await;
    let client = client(&server);
    let pages = || PostgresChanges::on("public", "pages");
    let mut whole = client.channel("a").postgres_changes::<Page>(pages()).subscribe().await.unwrap();
    let mut maybe = client.channel("b").postgres_changes::<MaybeBody>(pages()).subscribe().await.unwrap();
    let mut title = client.channel("c").postgres_changes::<Title>(pages()).subscribe().await.unwrap();
    let mut raw = client.channel("d").postgres_changes::<Value>(pages()).subscribe().await.unwrap();
    update_without_body(&server);

    let event = in_time("the update", whole.next()).await.unwrap().unwrap();
    let ChangeEvent::Incomplete { kind: ChangeKind::Update, new, old, errors } = event else {
        panic!("{event:?}")
    };
    assert_eq!(new.json(), r#"{"id":1,"title":"new"}"#);
    assert_eq!((old.json(), errors.len()), (r#"{"id":1}"#, 0));
    assert!(!new.is_complete());
    // A missing column is not a null one.
    let event = in_time("the update", maybe.next()).await.unwrap().unwrap();
    assert!(matches!(event, ChangeEvent::Incomplete { .. }), "{event:?}");
    // A type that does not need the column gets its row.
    let event = in_time("the update", title.next()).await.unwrap().unwrap();
    assert!(matches!(&event, ChangeEvent::Update { new, .. } if new.title == "new"), "{event:?}");
    let event = in_time("the update", raw.next()).await.unwrap().unwrap();
    assert!(matches!(&event, ChangeEvent::Update { new, .. } if new.get("body").is_none()), "{event:?}");

    // The streams go on, and whole rows are read.
    server.update("public", "pages", json!({"id": 1, "body": "x"}), json!({"id": 1}));
    let event = in_time("the next one", maybe.next()).await.unwrap().unwrap();
    assert!(
        matches!(&event, ChangeEvent::Update { new, .. } if (new.id, new.body.as_deref()) == (1, Some("x"))),
        "{event:?}"
    );
}

#[tokio::test]
async fn a_row_of_another_type_comes_with_what_it_was_and_the_stream_goes_on() {
    let server = server().await;
    let client = client(&server);
    let mut pages = client
        .channel("a")
        .postgres_changes::<Page>(PostgresChanges::on("public", "pages"))
        .subscribe()
        .await
        .unwrap();
    server.insert("public", "pages", json!({"id": "not a number", "body": "s3cret"}));
    let event = in_time("the insert", pages.next()).await.unwrap().unwrap();
    let ChangeEvent::Undecodable { kind: ChangeKind::Insert, new, error, .. } = event else {
        panic!("{event:?}")
    };
    assert!(new.json().contains("not a number"));
    assert!(matches!(error.kind(), ErrorKind::Decode { .. }));
    assert!(!format!("{error:#}").contains("not a number"), "{error:#}");
    server.insert("public", "pages", json!({"id": 2, "body": "y"}));
    let event = in_time("the next one", pages.next()).await.unwrap().unwrap();
    assert_eq!(event.into_row(), Some(Page { id: 2, body: "y".to_owned() }));
}

#[tokio::test]
async fn what_came_is_delivered_or_counted_as_dropped() {
    let server = server().await;
    let client = client(&server);
    let mut room = client.channel("room").buffer_capacity(8, 1 << 20);
    let mut slow = room.on_any_broadcast();
    let room = room.join().await.unwrap();
    server.to_all("room", "broadcast", &json!({"event": 5, "payload": {}}));
    for number in 0..40 {
        server.broadcast("room", "m", &json!({"n": number}));
    }
    crate::until("all came", || client.stats().events_delivered == 41).await;
    let stats = client.stats();
    let mut taken = 0;
    let mut missed = 0;
    while let Ok(event) = tokio::time::timeout(std::time::Duration::from_millis(50), slow.next()).await {
        match event.unwrap().unwrap() {
            BroadcastEvent::Lagged(count) => missed += count,
            _ => taken += 1,
        }
    }
    assert_eq!(missed, stats.events_dropped);
    assert_eq!(taken + missed, stats.events_delivered);
    // An envelope that makes no sense is told.
    server.to_all("room", "broadcast", &json!({"event": 5, "payload": {}}));
    let event = in_time("the odd one", slow.next()).await.unwrap().unwrap();
    assert!(matches!(&event, BroadcastEvent::Malformed(text) if text.contains('5')), "{event:?}");
    // Nobody listens any more: nothing is delivered.
    drop(slow);
    let before = client.stats().events_delivered;
    server.broadcast("room", "m", &json!({}));
    room.with_timeout(std::time::Duration::from_secs(1)).broadcast("m", &json!({})).await.unwrap();
    crate::until("it came", || server.journal().pushes("room").len() == 1).await;
    assert_eq!(client.stats().events_delivered, before);
}

#[tokio::test]
async fn the_servers_own_words_can_be_listened_to() {
    let server = server().await;
    let client = client(&server);
    let mut room = client.channel("room");
    let mut system = room.on_system();
    let _rows = room.on_postgres_changes::<Value>(PostgresChanges::on("public", "pages")).unwrap();
    let _room = room.join().await.unwrap();
    let event = in_time("the announcement", system.next()).await.unwrap().unwrap();
    let tendril_realtime::SystemEvent::Message(message) = event else { panic!("{event:?}") };
    assert_eq!((message.extension.as_str(), message.status.as_str()), ("postgres_changes", "ok"));
    server.to_all("room", "system", &json!({"extension": "new", "status": "ok", "message": "hello"}));
    let event = in_time("the message", system.next()).await.unwrap().unwrap();
    assert!(matches!(event, tendril_realtime::SystemEvent::Message(message) if message.message == "hello"));
}

#[tokio::test]
async fn row_changes_that_a_trigger_broadcasts_are_typed() {
    let server = server().await;
    let client = client(&server);
    let mut room = client.channel("room").private(true);
    let mut changes = room.on_broadcast("UPDATE");
    let _room = room.join().await.unwrap();
    let payload = json!({
        "id": "6f", "operation": "UPDATE", "schema": "public", "table": "pages",
        "record": {"id": 1, "body": "b"}, "old_record": {"id": 1, "body": "a"},
    });
    server.database_broadcast("room", "UPDATE", &payload, "6f");
    let message = in_time("the change", changes.next()).await.unwrap().unwrap().into_message().unwrap();
    let change = message.read_change::<Page>().unwrap();
    assert_eq!((change.operation, change.table.as_str()), (ChangeKind::Update, "pages"));
    assert_eq!(change.record.unwrap().body, "b");
    assert_eq!(change.old_record.unwrap().body, "a");
}
