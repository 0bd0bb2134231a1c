//! Broadcasts and presence between clients, and what becomes of them when the connection suffers.

use std::time::{Duration, UNIX_EPOCH};

use futures_util::StreamExt as _;
use serde_json::json;
use supabase_local::{Cut, Stack};
use tendril_realtime::{
    AccessToken, Broadcast, BroadcastEvent, BroadcastMessage, BroadcastStream, Client, Error, PresenceEvent,
    PresenceStream,
};
use tendril_tests::connect;
use tokio::time::timeout;

const TIMEOUT: Duration = Duration::from_secs(30);

/// Users may read and write `rw:…`, and only read `ro:…`.
const POLICIES: &str = "
    create policy readers on realtime.messages for select to authenticated
      using (realtime.topic() like 'rw:%' or realtime.topic() like 'ro:%');
    create policy writers on realtime.messages for insert to authenticated with check (realtime.topic() like 'rw:%');";

async fn stack() -> Stack {
    Stack::builder().without_migrations().sql(POLICIES).start().await.expect("the local stack starts")
}

fn client(stack: &Stack) -> Client {
    Client::builder(stack.api_url(), stack.anon_key())
        .reconnect_backoff(Duration::from_millis(50), Duration::from_millis(200))
        .build()
        .unwrap()
}

fn user(stack: &Stack, number: u8) -> Client {
    let token = stack.mint_user(&format!("00000000-0000-4000-8000-00000000000{number}"));
    Client::builder(stack.api_url(), stack.anon_key())
        .token_source(AccessToken::new(token).unwrap())
        .reconnect_backoff(Duration::from_millis(50), Duration::from_millis(200))
        .build()
        .unwrap()
}

async fn received(stream: &mut BroadcastStream) -> Broadcast {
    loop {
        let next = timeout(TIMEOUT, stream.next()).await.expect("a message in time");
        if let Ok(BroadcastEvent::Message(message)) = next.expect("the stream goes on") {
            return message;
        }
    }
}

#[tokio::test]
async fn messages_of_every_kind_and_way_are_heard() {
    let stack = stack().await;
    let listener = client(&stack);
    let mut room = listener.channel("room");
    let mut all = room.on_any_broadcast();
    let mut only_b = room.on_broadcast("b");
    let _room = room.join().await.unwrap();
    let speaker = client(&stack);
    let room = speaker.channel("room").ack(true).join().await.unwrap();

    room.broadcast("a", &json!({"n": 1})).await.unwrap();
    room.broadcast_bytes("b", vec![0, 255, 16]).await.unwrap();
    let http = speaker.broadcast_api();
    http.send("room", "c", &json!({"n": 3}), false).await.unwrap();
    http.send_bytes("room", "d", vec![7], false).await.unwrap();
    http.send_batch(&[BroadcastMessage::new("room", "e", json!({"n": 5})).id("mine")]).await.unwrap();

    assert_eq!(received(&mut all).await.json(), Some(r#"{"n":1}"#));
    assert_eq!(received(&mut all).await.bytes().unwrap().as_ref(), [0, 255, 16]);
    assert_eq!(received(&mut all).await.read::<serde_json::Value>().unwrap(), json!({"n": 3}));
    assert_eq!(received(&mut all).await.bytes().unwrap().as_ref(), [7]);
    let last = received(&mut all).await;
    assert_eq!((last.event(), last.id()), ("e", Some("mine")));
    assert_eq!(received(&mut only_b).await.event(), "b", "the other stream receives its event only");
}

#[tokio::test]
async fn what_the_server_would_misread_is_refused_here() {
    let stack = stack().await;
    let client = client(&stack);
    let named = |error: Error| match error.kind() {
        tendril_realtime::ErrorKind::InvalidInput { field, .. } => *field,
        other => panic!("{other:?}"),
    };
    assert_eq!(named(client.channel("").join().await.unwrap_err()), "topic");
    assert_eq!(named(client.channel("realtime:").join().await.unwrap_err()), "topic");
    assert_eq!(named(client.channel(&"x".repeat(300)).join().await.unwrap_err()), "topic");
    assert_eq!(named(client.channel("x").replay(UNIX_EPOCH, None).join().await.unwrap_err()), "replay");
    let room = client.channel("room").join().await.unwrap();
    assert_eq!(named(room.broadcast("a", "text").await.unwrap_err()), "payload");
    assert_eq!(named(room.broadcast(&"e".repeat(256), &json!({})).await.unwrap_err()), "event");
    assert_eq!(named(room.track(&json!([1])).await.unwrap_err()), "state");
    let twice = client.channel("room").receive_own(true).join().await.unwrap_err();
    assert_eq!(named(twice), "topic", "a topic is on a socket once, with one set of settings");
    client.channel("room").join().await.expect("with the same settings it is shared");
    drop(room);
    let other = client.channel("room").receive_own(true).join();
    timeout(TIMEOUT, other).await.expect("in time").expect("it is free again");
}

#[tokio::test]
async fn a_private_channel_lets_in_whom_the_policies_let_in() {
    let stack = stack().await;
    let nobody = client(&stack);
    let error = nobody.channel("rw:a").private(true).join().await.unwrap_err();
    assert_eq!(error.code(), "Unauthorized");

    let (one, two) = (user(&stack, 1), user(&stack, 2));
    let mut room = two.channel("rw:a").private(true);
    let mut messages = room.on_any_broadcast();
    let _hearing = room.join().await.unwrap();
    let speaking = one.channel("rw:a").private(true).ack(true).join().await.unwrap();
    speaking.broadcast("hello", &json!({})).await.unwrap();
    assert_eq!(received(&mut messages).await.event(), "hello");

    // Reading only: the server answers nothing at all, and the sender is reported that.
    let reading = one.channel("ro:a").private(true).ack(true).join().await.unwrap();
    let error = reading.broadcast("hello", &json!({})).await.unwrap_err();
    assert_eq!(error.code(), "Timeout");
}

#[tokio::test]
async fn messages_of_the_database_that_were_missed_come_once_after_a_reconnect() {
    let stack = stack().await;
    let database = connect(&stack.admin_url()).await;
    let send = async |number: i32| {
        let sql = "select realtime.send(jsonb_build_object('n', $1::int), 'db', 'rw:feed', true)";
        database.execute(sql, &[&number]).await.expect("a message of the database");
    };
    let client = user(&stack, 1);
    let mut room = client.channel("rw:feed").private(true).replication_ready(true).replay(UNIX_EPOCH, None);
    let mut messages = room.on_any_broadcast();
    let _room = room.join().await.unwrap();
    send(1).await;
    send(2).await;
    let number = |message: &Broadcast| message.read::<serde_json::Value>().unwrap()["n"].as_i64().unwrap();
    assert_eq!(number(&received(&mut messages).await), 1);
    assert_eq!(number(&received(&mut messages).await), 2);

    stack.faults().refuse_realtime(true);
    stack.faults().cut_sockets(Cut::Abrupt);
    client.status().wait_for(|status| !status.is_connected()).await.unwrap();
    send(3).await;
    stack.faults().refuse_realtime(false);
    let missed = received(&mut messages).await;
    assert_eq!(number(&missed), 3, "what was received before is not repeated");
    assert!(missed.is_replayed());
    client.status().wait_for(|status| status.subscribed_channels == 1).await.unwrap();
    send(4).await;
    assert_eq!(number(&received(&mut messages).await), 4);
}

async fn presence(stream: &mut PresenceStream, what: impl Fn(&PresenceStream, &PresenceEvent) -> bool) {
    let seen = async {
        loop {
            let event = stream.next().await.expect("the stream goes on");
            if event.as_ref().is_ok_and(|event| what(stream, event)) {
                return;
            }
        }
    };
    timeout(TIMEOUT, seen).await.expect("presence in time");
}

#[tokio::test]
async fn whoever_is_there_is_seen_and_seen_again_after_a_reconnect() {
    let stack = stack().await;
    let (host, guest) = (client(&stack), client(&stack));
    let mut room = host.channel("lobby").presence_key("host");
    let mut people = room.on_presence();
    let _room = room.join().await.unwrap();
    let visit = guest.channel("lobby").presence_key("guest").join().await.unwrap();
    visit.track(&json!({"mood": "late"})).await.unwrap();
    presence(&mut people, |stream, event| {
        matches!(event, PresenceEvent::Sync) && stream.state().contains_key("guest")
    })
    .await;
    assert_eq!(people.state()["guest"][0].state["mood"], "late");

    stack.faults().cut_sockets(Cut::Abrupt);
    presence(&mut people, |_, event| matches!(event, PresenceEvent::Reset)).await;
    presence(&mut people, |stream, event| {
        matches!(event, PresenceEvent::Sync) && stream.state().contains_key("guest")
    })
    .await;
    drop(visit);
    presence(&mut people, |stream, _| !stream.state().contains_key("guest")).await;
}

#[tokio::test]
async fn more_states_than_the_server_allows_do_not_close_the_channel_and_the_last_one_wins() {
    let stack = stack().await;
    let client = client(&stack);
    let mut room = client.channel("lobby").presence_key("me");
    let mut people = room.on_presence();
    let room = room.join().await.unwrap();
    for number in 0..5 {
        room.track(&json!({"n": number})).await.unwrap();
    }
    // The sixth within 30 s would close the channel: it waits, and the calls that wait with it get the answer of the last.
    let sixth = timeout(Duration::from_secs(2), room.track(&json!({"n": 5}))).await;
    assert!(sixth.is_err(), "it is held back");
    presence(&mut people, |stream, _| stream.state().get("me").is_some_and(|metas| metas[0].state["n"] == 4))
        .await;
    assert!(client.status().borrow().subscribed_channels == 1, "the channel lives");
}

#[tokio::test]
async fn a_client_that_never_opened_a_channel_shuts_down_at_once() {
    let stack = stack().await;
    let client = client(&stack);
    timeout(Duration::from_secs(5), client.shutdown()).await.expect("it shuts down");
    let error = client.channel("late").join().await.unwrap_err();
    assert_eq!(error.code(), "Closed");
}

#[tokio::test]
async fn what_was_sent_goes_out_before_the_channel_is_left() {
    let stack = stack().await;
    let listener = client(&stack);
    let mut room = listener.channel("room");
    let mut messages = room.on_any_broadcast();
    let _room = room.join().await.unwrap();
    let speaker = client(&stack);
    for number in 0..20 {
        let room = speaker.channel(&format!("other-{number}")).join().await.unwrap();
        drop(room);
        let room = timeout(TIMEOUT, async {
            loop {
                // The topic is free as soon as the server has released it.
                if let Ok(room) = speaker.channel("room").join().await {
                    return room;
                }
            }
        });
        let room = room.await.unwrap();
        room.broadcast("farewell", &json!({"n": number})).await.unwrap();
        drop(room);
        assert_eq!(received(&mut messages).await.read::<serde_json::Value>().unwrap()["n"], number);
    }
}
