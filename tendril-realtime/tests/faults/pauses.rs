use std::time::Duration;

use tendril_realtime::{ChangeEvent, Client, Phase, StreamExt as _};
use tendril_realtime_testkit::{Answer, Event, Point};
use tokio::time::sleep;

use crate::{Job, builder, in_time, jobs, next, server};

/// Twelve attempts with pauses that double from 200 ms up to 30 s take longer than this; without growth they would not.
const WATCHED: Duration = Duration::from_secs(5);
/// The expected number of attempts in that time, with room for luck: 100 + 200 + 400 + 800 + 1600 + … ms on average.
const ATTEMPTS: usize = 12;

#[tokio::test]
async fn a_server_that_takes_joins_and_closes_is_not_stormed() {
    let server = server().await;
    let _flaps = server.faults().on(Point::Join, Answer::Close(1011));
    let client = flapping(&server);
    let (_stream, _ready) = client.channel("jobs").postgres_changes::<Job>(jobs()).start().unwrap();
    sleep(WATCHED).await;
    assert!(server.journal().upgrades() <= ATTEMPTS, "{} connects", server.journal().upgrades());
}

fn flapping(server: &tendril_realtime_testkit::FakeServer) -> Client {
    builder(server).reconnect_backoff(Duration::from_millis(200), Duration::from_secs(30)).build().unwrap()
}

#[tokio::test]
async fn a_channel_that_ends_after_each_accepted_join_is_not_joined_without_end() {
    for answer in [Answer::Crash, Answer::End("the database is away".to_owned())] {
        let server = server().await;
        let _ends = server.faults().on(Point::Join, answer);
        let client = flapping(&server);
        let (_stream, _ready) = client.channel("jobs").postgres_changes::<Job>(jobs()).start().unwrap();
        sleep(WATCHED).await;
        let joins = server.journal().joins("jobs");
        assert!((2..=ATTEMPTS).contains(&joins), "{joins} joins");
        assert_eq!(server.journal().upgrades(), 1, "the connection is not at fault");
    }
}

#[tokio::test]
async fn a_server_that_accepts_and_stays_silent_is_not_stormed_and_the_status_says_so() {
    let server = server().await;
    let _silent = server.faults().on(Point::Heartbeat, Answer::Silence);
    let _mute = server.faults().on(Point::Join, Answer::Silence);
    let client = builder(&server)
        .heartbeat_interval(Duration::from_millis(100))
        .heartbeat_timeout(Duration::from_millis(100))
        .join_timeout(Duration::from_millis(150))
        .reconnect_backoff(Duration::from_millis(200), Duration::from_secs(30))
        .build()
        .unwrap();
    let (_stream, _ready) = client.channel("jobs").postgres_changes::<Job>(jobs()).start().unwrap();
    let mut status = client.status();
    in_time("the pause shows", status.wait_for(|status| matches!(status.phase, Phase::Backoff { .. })))
        .await
        .unwrap();
    sleep(WATCHED).await;
    let upgrades = server.journal().upgrades();
    assert!((2..=ATTEMPTS).contains(&upgrades), "{upgrades} connects");
    // Each pause is drawn from a range that doubles with the attempt.
    let grown = status.wait_for(|status| matches!(status.phase, Phase::Backoff { attempt: 3.., .. }));
    in_time("the attempts are counted", grown).await.unwrap();
}

#[tokio::test]
async fn a_fleet_comes_back_over_seconds_after_a_restart() {
    let server = server().await;
    let mut clients = Vec::new();
    for _ in 0..40 {
        let client = Client::builder(server.url(), "anon-key").no_proxy().build().unwrap();
        let room = client.channel("room").join().await.unwrap();
        clients.push((client, room));
    }
    server.close_connections(1012);
    server.wait_for(|journal| journal.upgrades() == 80).await.unwrap();
    let back: Vec<_> = server
        .journal()
        .entries()
        .iter()
        .filter(|entry| matches!(entry.event, Event::Upgraded { .. }))
        .map(|entry| entry.at)
        .skip(40)
        .collect();
    let spread = back.last().unwrap().saturating_duration_since(*back.first().unwrap());
    assert!(spread > Duration::from_secs(2), "within {spread:?}");
}

#[tokio::test]
async fn the_documented_loop_outlives_a_restart_of_the_server() {
    let server = server().await;
    let client = builder(&server).build().unwrap();
    let mut stream = client.channel("jobs").postgres_changes::<Job>(jobs()).subscribe().await.unwrap();
    server.stop().await;
    let mut told = false;
    let resumed = async {
        sleep(Duration::from_millis(500)).await;
        server.resume().await.unwrap();
    };
    let looped = async {
        while let Some(event) = stream.next().await {
            // As in the front page: an `Err` means the end.
            match event.expect("no end") {
                ChangeEvent::Interrupted(error) => {
                    told = true;
                    assert!(format!("{error:#}").contains("refused"), "{error:#}");
                }
                ChangeEvent::Resync(_) => return,
                other => panic!("{other:?}"),
            }
        }
        panic!("the stream ended");
    };
    in_time("the resync", async { tokio::join!(resumed, looped) }).await;
    assert!(told, "the trouble is an event");
    server.insert("public", "jobs", serde_json::json!({"id": 1}));
    assert!(matches!(next(&mut stream).await, ChangeEvent::Insert(job) if job.id == 1));
    in_time("history is forgotten", async {
        client
            .status()
            .wait_for(|status| status.is_connected() && status.last_error.is_none())
            .await
            .map(drop)
    })
    .await
    .unwrap();
}
