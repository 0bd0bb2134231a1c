use std::time::{Duration, Instant};

use serde_json::json;
use tendril_realtime::{Channel, Client, ErrorKind, Retry, StreamExt as _};
use tendril_realtime_testkit::{Answer, Point};

use crate::{client, in_time, server};

#[tokio::test]
async fn each_handle_has_its_own_time_limit_for_acknowledgements() {
    let server = server().await;
    let _mute = server.faults().on(Point::Push, Answer::Silence);
    let client = client(&server);
    let room = client.channel("room").ack(true).join().await.unwrap();
    let start = Instant::now();
    let error = room.with_timeout(Duration::from_millis(100)).broadcast("m", &json!({})).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Timeout { .. }), "{error:?}");
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn a_message_without_acknowledgement_that_is_given_up_is_counted() {
    let server = server().await;
    let client = client(&server);
    let room = client.channel("room").join().await.unwrap();
    server.stop().await;
    crate::until("the loss is noticed", || !client.status().borrow().is_connected()).await;
    room.with_timeout(Duration::from_millis(50)).broadcast("m", &json!({})).await.unwrap();
    crate::until("it is counted", || client.stats().pushes_dropped == 1).await;
}

#[tokio::test]
async fn a_message_that_may_wait_for_long_holds_up_none_behind_it() {
    let server = server().await;
    let client = client(&server);
    let room = client.channel("room").ack(true).join().await.unwrap();
    server.stop().await;
    crate::until("the loss is noticed", || !client.status().borrow().is_connected()).await;
    let (patient, hasty) = (room.with_timeout(Duration::MAX), room.with_timeout(Duration::from_millis(50)));
    let message = json!({});
    let first_ended = in_time("the second message", async {
        tokio::select! {
            biased;
            answer = patient.broadcast("m", &message) => format!("the first: {answer:?}"),
            answer = hasty.broadcast("m", &message) => format!("the second: {answer:?}"),
        }
    })
    .await;
    assert!(first_ended.starts_with("the second: Err") && first_ended.contains("Timeout"), "{first_ended}");
}

#[tokio::test]
async fn a_value_that_cannot_be_serialised_is_invalid_input_in_every_call() {
    struct Fails;
    impl serde::Serialize for Fails {
        fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(serde::ser::Error::custom("cannot"))
        }
    }
    let server = server().await;
    let client = client(&server);
    let room = client.channel("room").join().await.unwrap();
    for error in [
        room.broadcast("m", &Fails).await.unwrap_err(),
        room.track(&Fails).await.unwrap_err(),
        client.broadcast_api().send("room", "m", &Fails, false).await.unwrap_err(),
    ] {
        assert!(matches!(error.kind(), ErrorKind::InvalidInput { .. }), "{error:?}");
        assert_eq!(error.retry(), Retry::Never);
    }
}

#[tokio::test]
async fn a_topic_has_one_name_however_it_is_sent_to() {
    let server = server().await;
    for topic in [
        "room",
        "a/b ü:c?d#e%20",
        "x\\y",
        "tenant:7",
        "\"quoted\"",
        "{}",
        "a,b",
        "a\tb",
        "a\nb",
        "a\rb\u{7f}",
        " a ",
        "..",
        ".",
        "realtime:prefixed",
    ] {
        let (listener, sender) = (client(&server), client(&server));
        let mut room = listener.channel(topic);
        let mut messages = room.on_any_broadcast();
        let _room = room.join().await.unwrap();
        let speaking = sender.channel(topic).join().await.unwrap();
        speaking.broadcast("socket", &json!({})).await.unwrap();
        let message = tendril_realtime::BroadcastMessage::new(topic, "batch", json!({}));
        sender.broadcast_api().send_batch(&[message]).await.unwrap();
        let mut expected = vec!["batch", "socket"];
        match sender.broadcast_api().send(topic, "single", &json!({}), false).await {
            Ok(()) => expected.push("single"),
            // Reported, not lost.
            Err(error) => {
                assert!(matches!(error.kind(), ErrorKind::InvalidInput { .. }), "{topic}: {error:?}")
            }
        }
        let mut heard = Vec::new();
        while heard.len() < expected.len() {
            let event = in_time(topic, messages.next()).await.unwrap().unwrap();
            heard.extend(event.into_message().map(|message| message.event().to_owned()));
        }
        heard.sort();
        expected.sort_unstable();
        assert_eq!(heard, expected, "{topic}");
    }
}

#[test]
fn what_users_hold_can_be_sent_and_shared_between_tasks() {
    fn both<T: Send + Sync + 'static>() {}
    fn send<T: Send + 'static>() {}
    both::<Client>();
    both::<Channel>();
    both::<tendril_realtime::Error>();
    both::<tendril_realtime::Rest>();
    both::<tendril_realtime::BroadcastApi>();
    both::<tendril_realtime::Status>();
    both::<tendril_realtime::ChannelStatus>();
    both::<tendril_realtime::RawRow>();
    both::<tendril_realtime::Row<String>>();
    both::<tendril_realtime::Broadcast>();
    both::<tendril_realtime::AccessToken>();
    both::<tendril_realtime::ApiKey>();
    send::<tendril_realtime::ChangeStream<String>>();
    send::<tendril_realtime::BroadcastStream>();
    send::<tendril_realtime::PresenceStream>();
    send::<tendril_realtime::SystemStream>();
    fn future<F: Future + Send>(_: &F) {}
    let client = Client::builder("https://ref.supabase.co", "anon").build().unwrap();
    future(&client.channel("x").join());
    future(&client.channel("x").postgres_changes::<String>(crate::jobs()).subscribe());
}
