use std::time::Duration;

use serde_json::json;
use tendril_realtime::{ChannelStatus, ErrorKind, Retry, StreamExt as _};
use tendril_realtime_testkit::{Answer, Point};

use crate::{Job, builder, client, in_time, jobs, server, until};

#[tokio::test]
async fn every_call_on_a_channel_that_ended_gives_its_final_error() {
    type End = fn(&tendril_realtime_testkit::FakeServer);
    let ends: [(&str, End); 2] = [
        ("a right that was revoked", |server| {
            server.end_channel_with(
                "room",
                "You do not have permissions to read from this Channel topic: room",
            );
        }),
        ("a token that will never do", |server| {
            server.end_channel_with("room", "The token provided is not a valid JWT")
        }),
    ];
    for (what, end) in ends {
        for ack in [false, true] {
            let server = server().await;
            let client = client(&server);
            let room = client.channel("room").ack(ack).join().await.unwrap();
            room.broadcast("m", &json!({"n": 1})).await.unwrap();
            end(&server);
            let mut status = room.status();
            in_time(what, status.wait_for(ChannelStatus::is_final)).await.unwrap();
            let ChannelStatus::Ended(reason) = room.status().borrow().clone() else { panic!("{what}") };
            for error in [
                room.broadcast("m", &json!({})).await.unwrap_err(),
                room.broadcast_bytes("m", vec![1]).await.unwrap_err(),
                room.track(&json!({})).await.unwrap_err(),
                room.untrack().await.unwrap_err(),
            ] {
                assert_eq!(error.code(), reason.code(), "{what}: {error:?}");
                assert_eq!(error.retry(), Retry::Never);
            }
            assert_eq!(server.journal().pushes("room").len(), 1, "nothing was sent after the end");
        }
    }
}

#[tokio::test]
async fn a_join_that_timed_out_left_the_channel_and_the_name_is_free() {
    for answer in [Answer::Silence, Answer::NeverSubscribed] {
        let server = server().await;
        let silent = server.faults().on(Point::Join, answer);
        let client = builder(&server).subscribe_timeout(Duration::from_millis(200)).build().unwrap();
        let mut room = client.channel("room");
        // The documented pattern: streams are made first, and live on.
        let mut messages = room.on_any_broadcast();
        let mut rows = room.on_postgres_changes::<Job>(jobs()).unwrap();
        let error = room.join().await.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Timeout { .. }), "{error:?}");
        silent.lift();
        let ended = in_time("the end", messages.next()).await.unwrap().unwrap_err();
        assert!(matches!(ended.kind(), ErrorKind::Timeout { .. }), "{ended:?}");
        assert!(in_time("the end", rows.next()).await.unwrap().is_err());
        assert!(in_time("nothing more", messages.next()).await.is_none());
        in_time("the second join", client.channel("room").join()).await.unwrap();
        assert_eq!(client.channels().len(), 0, "dropped at once");
    }
}

#[tokio::test]
async fn a_join_whose_future_was_dropped_left_the_channel_and_the_name_is_free() {
    let server = server().await;
    let silent = server.faults().on(Point::Join, Answer::Silence);
    let client = client(&server);
    let mut room = client.channel("room").private(true);
    let mut messages = room.on_any_broadcast();
    tokio::select! {
        joined = room.join() => panic!("{joined:?}"),
        () = until("the join went out", || server.journal().joins("room") == 1) => {}
    }
    silent.lift();
    assert!(in_time("the end", messages.next()).await.is_none_or(|last| last.is_err()));
    // Even with other settings.
    let room = in_time("the second join", client.channel("room").join()).await.unwrap();
    assert!(!room.is_private());
}

#[tokio::test]
async fn a_refused_join_frees_the_name_too() {
    let server = server().await;
    let refuses = server
        .faults()
        .on(Point::Join, Answer::Refuse("Unauthorized: You do not have permissions".to_owned()));
    let client = client(&server);
    let mut room = client.channel("room").private(true);
    let _messages = room.on_any_broadcast();
    assert_eq!(room.join().await.unwrap_err().code(), "Unauthorized");
    refuses.lift();
    in_time("the second join", client.channel("room").private(true).join()).await.unwrap();
}

#[tokio::test]
async fn leave_is_confirmed_and_ends_the_streams_without_an_error() {
    let server = server().await;
    let client = client(&server);
    let mut room = client.channel("room");
    let mut messages = room.on_any_broadcast();
    let room = room.join().await.unwrap();
    let names: Vec<String> = client.channels().iter().map(|channel| channel.name().to_owned()).collect();
    assert_eq!(names, ["room"]);
    room.leave().await.unwrap();
    assert_eq!(server.joined("room"), 0);
    assert!(in_time("the end", messages.next()).await.is_none());
    assert!(matches!(*room.status().borrow(), ChannelStatus::Left));
    assert_eq!(*room.broadcast("m", &json!({})).await.unwrap_err().kind(), ErrorKind::Closed);
    assert!(client.channels().is_empty());
    room.leave().await.unwrap();
    client.channel("room").join().await.unwrap();
}

#[tokio::test]
async fn leave_says_when_the_server_does_not_confirm_it() {
    let server = server().await;
    let _silent = server.faults().on(Point::Leave, Answer::Silence);
    let client = builder(&server).join_timeout(Duration::from_millis(200)).build().unwrap();
    let room = client.channel("room").join().await.unwrap();
    let error = room.leave().await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Timeout { .. }), "{error:?}");
}

#[tokio::test]
async fn leave_while_the_connection_is_down_needs_no_server() {
    let server = server().await;
    let client = client(&server);
    let room = client.channel("room").join().await.unwrap();
    server.stop().await;
    until("the loss is noticed", || !client.status().borrow().is_connected()).await;
    in_time("the leave", room.leave()).await.unwrap();
}

#[tokio::test]
async fn a_second_handle_on_a_topic_shares_the_channel() {
    let server = server().await;
    let client = client(&server);
    let first = client.channel("room").join().await.unwrap();
    let mut again = client.channel("room");
    let mut messages = again.on_broadcast("m");
    let second = again.join().await.unwrap();
    assert_eq!(server.journal().joins("room"), 1);
    server.broadcast("room", "m", &json!({"n": 1}));
    assert!(in_time("the message", messages.next()).await.unwrap().unwrap().into_message().is_some());
    first.leave().await.unwrap();
    assert_eq!(server.joined("room"), 1, "the second one holds it");
    second.broadcast("m", &json!({})).await.unwrap();
    second.leave().await.unwrap();
    assert_eq!(server.joined("room"), 0);
}

#[tokio::test]
async fn a_second_handle_that_wants_more_makes_a_new_join_and_one_with_other_settings_is_refused() {
    let server = server().await;
    let client = client(&server);
    let _first = client.channel("room").join().await.unwrap();
    let mut more = client.channel("room");
    let mut rows = more.on_postgres_changes::<Job>(jobs()).unwrap();
    let _more = in_time("the wider join", more.join()).await.unwrap();
    server.insert("public", "jobs", json!({"id": 1}));
    while !matches!(crate::next(&mut rows).await, tendril_realtime::ChangeEvent::Insert(_)) {}
    let error = client.channel("room").private(true).join().await.unwrap_err();
    assert!(error.to_string().contains("private"), "{error}");
    assert_eq!(server.joined("room"), 1, "the others live on");
}

#[tokio::test]
async fn the_status_of_a_channel_follows_what_happens_to_it() {
    let server = server().await;
    let client = client(&server);
    let room = client.channel("room").join().await.unwrap();
    assert!(room.status().borrow().is_subscribed());
    server.stop().await;
    let mut status = room.status();
    in_time("the interruption", status.wait_for(|status| matches!(status, ChannelStatus::Interrupted(_))))
        .await
        .unwrap();
    server.resume().await.unwrap();
    in_time("it is back", status.wait_for(ChannelStatus::is_subscribed)).await.unwrap();
    client.shutdown().await;
    in_time("the end", status.wait_for(ChannelStatus::is_final)).await.unwrap();
}

#[tokio::test]
async fn every_setting_of_time_takes_the_longest_duration_and_the_shortest() {
    let server = server().await;
    for time in [Duration::MAX, Duration::from_secs(u64::MAX / 2)] {
        let client = builder(&server)
            .heartbeat_interval(Duration::from_millis(50))
            .heartbeat_timeout(time)
            .connect_timeout(time)
            .join_timeout(time)
            .subscribe_timeout(time)
            .rest_timeout(time)
            .reconnect_backoff(time, time)
            .build()
            .unwrap();
        let room =
            in_time("the join", client.channel("room").ack(true).join()).await.unwrap().with_timeout(time);
        let heartbeats =
            server.journal().count(|event| matches!(event, tendril_realtime_testkit::Event::Heartbeat));
        server
            .wait_for(|journal| {
                journal.count(|event| matches!(event, tendril_realtime_testkit::Event::Heartbeat))
                    > heartbeats
            })
            .await
            .unwrap();
        in_time("the broadcast", room.broadcast("m", &json!({}))).await.unwrap();
        in_time("the leave", room.leave()).await.unwrap();
    }
    for time in [Duration::ZERO, Duration::from_nanos(1)] {
        // With such a limit a join may never succeed.
        let patient = || builder(&server).subscribe_timeout(Duration::from_secs(1));
        for (name, setting) in [
            ("heartbeat_timeout", patient().heartbeat_timeout(time)),
            ("connect_timeout", patient().connect_timeout(time)),
            ("join_timeout", patient().join_timeout(time)),
            ("subscribe_timeout", builder(&server).subscribe_timeout(time)),
        ] {
            match setting.build() {
                Err(error) => assert!(error.to_string().contains(name), "{error}"),
                Ok(client) => assert!(
                    in_time(name, client.channel("room").join()).await.is_err() || time > Duration::ZERO
                ),
            }
        }
    }
}

#[test]
fn a_runtime_that_ends_under_a_client_shows_in_the_status() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (client, room, mut messages) = runtime.block_on(async {
        let server = server().await;
        let client = client(&server);
        let mut room = client.channel("room");
        let messages = room.on_any_broadcast();
        (client, room.join().await.unwrap(), messages)
    });
    runtime.shutdown_timeout(Duration::from_secs(5));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        assert_eq!(client.status().borrow().phase, tendril_realtime::Phase::Closed);
        assert!(client.status().borrow().last_error.is_some());
        assert!(in_time("the end", messages.next()).await.unwrap().is_err());
        assert!(room.broadcast("m", &json!({})).await.is_err());
    });
}
