//! What programs build on: auto traits, settings that are seldom used, and the names that a project chooses.

use std::time::{Duration, UNIX_EPOCH};

use serde_json::{Value, json};
use tendril_realtime::{
    AccessToken, ApiKey, Broadcast, BroadcastEvent, BroadcastStream, ChangeEvent, ChangeStream, Channel,
    ChannelBuilder, Client, ClientBuilder, Column, Error, Filter, HeartbeatStream, Phase, PostgresChanges,
    PresenceStream, RawRow, RefreshToken, Rest, Row, Session, SessionSource, Status, StreamExt as _,
    SystemStream, TraceContext, rest,
    watch::{Query, SingleWatch, Store, Watch, WatchEvent},
};
use tendril_realtime_testkit::{Answer, Event, HttpAnswer, Point};
use tokio::time::Instant;

use crate::{builder, client, in_time, server, until};

#[test]
fn what_users_hold_may_go_from_thread_to_thread() {
    fn everywhere<T: Send + Sync + 'static>() {}
    fn stream<T: Send + Sync + Unpin + 'static>() {}
    everywhere::<Client>();
    everywhere::<ClientBuilder>();
    everywhere::<Channel>();
    everywhere::<ChannelBuilder>();
    everywhere::<Rest>();
    everywhere::<rest::QueryBuilder>();
    everywhere::<rest::Response>();
    everywhere::<(Error, Status, AccessToken, ApiKey, RefreshToken, Session, SessionSource, TraceContext)>();
    everywhere::<(Column, Filter, PostgresChanges, Query)>();
    everywhere::<(Row<String>, RawRow, Broadcast, BroadcastEvent, ChangeEvent<String>, WatchEvent<String>)>();
    // Also of rows that are no more than `Send`.
    stream::<ChangeStream<std::cell::Cell<u8>>>();
    stream::<Watch<std::cell::Cell<u8>>>();
    stream::<SingleWatch<std::cell::Cell<u8>>>();
    stream::<(BroadcastStream, PresenceStream, SystemStream, HeartbeatStream)>();
    everywhere::<Store<String>>();
}

#[test]
fn futures_may_be_spawned() {
    fn spawnable(_: impl Send) {}
    let client = Client::new("http://127.0.0.1:1", "anon-key").unwrap();
    spawnable(client.channel("room").join());
    spawnable(
        client.channel("room").postgres_changes::<Value>(PostgresChanges::on("public", "t")).subscribe(),
    );
    spawnable(client.from("t").rows::<Value>());
    spawnable(client.rest().invoke("f", &json!({})));
    spawnable(client.broadcast_api().send("room", "m", &json!({}), false));
    spawnable(client.shutdown());
}

#[tokio::test]
async fn reconnect_now_waits_out_no_pause_which_the_status_shows() {
    let server = server().await;
    let refuses = server.faults().on(Point::Upgrade, Answer::Cut);
    let client = Client::builder(server.url(), "anon-key")
        .no_proxy()
        .reconnect_backoff(Duration::from_secs(600), Duration::from_secs(600))
        .build()
        .unwrap();
    let mut status = client.status();
    let joining = tokio::spawn(client.channel("room").join());
    let phase = in_time("a pause", status.wait_for(|status| matches!(status.phase, Phase::Backoff { .. })))
        .await
        .unwrap()
        .phase;
    let Phase::Backoff { attempt, retry_at } = phase else { panic!("{phase:?}") };
    assert_eq!(attempt, 1);
    assert!(retry_at > Instant::now());
    refuses.lift();
    client.reconnect_now();
    let room = in_time("the join", joining).await.unwrap().unwrap();
    // A connection that is open is opened anew.
    client.reconnect_now();
    until("a second connection", || server.journal().upgrades() >= 2 && server.joined("room") == 1).await;
    assert_eq!(room.name(), "room");
}

#[tokio::test]
async fn a_replay_that_is_as_long_as_it_may_be_says_that_there_may_be_more() {
    let server = server().await;
    let client = client(&server);
    let mut room = client.channel("room").private(true).replay(UNIX_EPOCH, Some(2));
    let mut messages = room.on_broadcast("m");
    let _room = room.join().await.unwrap();
    for id in ["1", "2"] {
        let meta = json!({"id": id, "replayed": true});
        let payload = json!({"event": "m", "type": "broadcast", "payload": {}, "meta": meta});
        server.to_all("room", "broadcast", &payload);
    }
    let mut seen = Vec::new();
    while seen.len() < 3 {
        seen.push(match in_time("an event", messages.next()).await.unwrap().unwrap() {
            BroadcastEvent::Message(message) => message.id().unwrap().to_owned(),
            BroadcastEvent::Truncated => "truncated".to_owned(),
            other => panic!("{other:?}"),
        });
    }
    assert!(seen.contains(&"truncated".to_owned()), "{seen:?}");
}

#[tokio::test]
async fn a_schema_is_named_to_rest_functions_and_row_changes_alike() {
    let server = server().await;
    server.on_http(|request| {
        let reads = request.method == "GET";
        let header = request.header(if reads { "accept-profile" } else { "content-profile" });
        if header == Some("bil\"ling") {
            HttpAnswer::new(200).header("content-range", "*/*").json(&json!([]))
        } else {
            HttpAnswer::new(404).json(&json!({"code": "PGRST205", "message": "another schema"}))
        }
    });
    let client = client(&server);
    let billing = client.rest().schema("bil\"ling");
    billing.from("t").rows::<Value>().await.unwrap();
    billing.from("t").insert(&json!({"a": 1})).execute().await.unwrap();
    billing.from("t").delete().eq("a", 1).execute().await.unwrap();
    billing.rpc("f", &json!({})).execute().await.unwrap();
    billing.rpc("f", &json!({})).get().execute().await.unwrap();
    assert!(client.from("t").rows::<Value>().await.is_err(), "the handle itself is as it was");
    let mut watch = client.watch::<Value>(Query::table("t").schema("bil\"ling")).unwrap();
    let first = in_time("the list", watch.next()).await.unwrap().unwrap();
    assert!(matches!(first, WatchEvent::Init), "{first:?}");
    server
        .wait_for(|journal| {
            journal.count(|event| {
                matches!(event, Event::Join { payload, .. }
                    if payload["config"]["postgres_changes"][0]["schema"] == "bil\"ling")
            }) == 1
        })
        .await
        .unwrap();
}

#[tokio::test]
async fn preferences_go_over_the_wire_as_postgrest_reads_them() {
    let server = server().await;
    server.on_http(|_| HttpAnswer::new(201).header("location", "/t?id=eq.7"));
    let client = client(&server);
    let inserted = client.from("t").insert(&json!({"a": 1})).strict().headers_only().execute().await.unwrap();
    assert_eq!(inserted.location(), Some("/t?id=eq.7"));
    let journal = server.journal();
    let preferred = journal.entries().iter().find_map(|entry| match &entry.event {
        Event::Http(request) => request.header("prefer").map(str::to_owned),
        _ => None,
    });
    let preferred = preferred.unwrap();
    for wanted in ["return=headers-only", "handling=strict"] {
        assert!(preferred.contains(wanted), "{preferred}");
    }
}

#[tokio::test]
async fn a_connection_without_channels_is_kept_for_as_long_as_the_client_says() {
    let server = server().await;
    let client = builder(&server).idle_timeout(Duration::from_millis(50)).build().unwrap();
    let room = client.channel("room").join().await.unwrap();
    room.leave().await.unwrap();
    until("the connection is closed", || server.open_connections() == 0).await;
    assert_eq!(client.status().borrow().phase, Phase::Idle);
    client.channel("room").join().await.unwrap();
    assert_eq!(server.journal().upgrades(), 2);
}

#[tokio::test]
async fn a_watch_survives_what_passes_and_ends_with_its_session() {
    let server = server().await;
    let down = server.faults().on(Point::Http("/rest/v1/t".to_owned()), Answer::Http(HttpAnswer::new(503)));
    // A list goes on until a page is empty.
    server.on_http(|request| {
        let first = !request.target.contains("gt.");
        HttpAnswer::new(200).json(&if first { json!([{"id": 1}]) } else { json!([]) })
    });
    let (sender, receiver) = tokio::sync::watch::channel(true);
    let client =
        builder(&server)
            .rest_retries(rest::RetryPolicy::NONE)
            .token_source(move || {
                let signed_in = *receiver.borrow();
                async move {
                    if signed_in { AccessToken::new("t") } else { Err(Error::session_ended("signed out")) }
                }
            })
            .build()
            .unwrap();
    let query =
        Query::table("t").poll_interval(Duration::from_millis(50)).resync_interval(Duration::from_millis(50));
    let mut watch = client.watch::<Value>(query.clone()).unwrap();
    let mut single = client.watch_single::<Value>(query).unwrap();
    let mut interrupted = false;
    let row = async {
        loop {
            match watch.next().await.expect("it goes on").expect("no end") {
                WatchEvent::Interrupted(_) => {
                    interrupted = true;
                    down.lift();
                }
                WatchEvent::InitApply(row) => return row,
                _ => {}
            }
        }
    };
    assert_eq!(in_time("the row", row).await, json!({"id": 1}));
    assert!(interrupted);
    assert_eq!(in_time("the row", single.next()).await.unwrap().unwrap(), Some(json!({"id": 1})));
    sender.send_replace(false);
    let end = async {
        loop {
            if let Err(error) = watch.next().await.expect("an end with a reason") {
                return error;
            }
        }
    };
    let error = in_time("the end", end).await;
    assert_eq!(error.retry(), tendril_realtime::Retry::Never);
    assert!(in_time("the end", watch.next()).await.is_none());
    let end = async { while single.next().await.is_some_and(|state| state.is_ok()) {} };
    in_time("the end", end).await;
}
