use std::time::Duration;

use serde_json::json;
use tendril_realtime::{BroadcastEvent, ChangeEvent, PostgresChanges, ProtocolVersion, StreamExt as _};
use tendril_realtime_testkit::FakeServer;

use crate::{Job, builder, server, until};

/// Resident memory of this process, in MiB.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096 / (1 << 20)
}

/// Small messages for a reader that sleeps, between large ones for a reader that reads.
async fn memory_of_a_sleeper(version: ProtocolVersion, send_small: impl Fn(&FakeServer, u32)) -> u64 {
    let server = server().await;
    let client = builder(&server).protocol_version(version).build().unwrap();
    let mut sleeper = client.channel("sleeper").private(true);
    let mut sleeping = sleeper.on_any_broadcast();
    let _sleeper = sleeper.join().await.unwrap();
    let mut reader = client.channel("reader").private(true);
    let mut reading = reader.on_any_broadcast();
    let _reader = reader.join().await.unwrap();
    let large = json!({"x": "x".repeat(400_000)});
    let before = resident();
    for number in 0..200 {
        send_small(&server, number);
        server.database_broadcast("reader", "large", &large, &format!("l{number}"));
        // In step, so that what is measured is what waits, and not the server's own queue.
        let event = crate::in_time("the large one", reading.next()).await.unwrap().unwrap();
        assert!(matches!(event, BroadcastEvent::Message(_)), "{event:?}");
    }
    until("all came", || client.stats().events_delivered >= 400).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    let after = resident();
    let first = crate::in_time("the first small one", sleeping.next()).await.unwrap().unwrap();
    assert!(matches!(first, BroadcastEvent::Message(_)), "nothing was dropped: {first:?}");
    after.saturating_sub(before)
}

/// The same with row changes.
async fn memory_of_a_sleeper_of_rows(version: ProtocolVersion) -> u64 {
    let server = server().await;
    let client = builder(&server).protocol_version(version).build().unwrap();
    let table =
        |name: &str| client.channel(name).postgres_changes::<Job>(PostgresChanges::on("public", name));
    let mut sleeping = table("small").subscribe().await.unwrap();
    let mut reading = table("large").subscribe().await.unwrap();
    let large = "x".repeat(400_000);
    let before = resident();
    for id in 0..200 {
        server.insert("public", "small", json!({"id": id}));
        server.insert("public", "large", json!({"id": id, "x": large}));
        assert!(matches!(crate::next(&mut reading).await, ChangeEvent::Insert(_)));
    }
    until("all came", || client.stats().events_delivered >= 400).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    let after = resident();
    for id in 0..200 {
        let event = crate::next(&mut sleeping).await;
        assert!(matches!(&event, ChangeEvent::Insert(row) if row.id == id), "nothing was dropped: {event:?}");
    }
    after.saturating_sub(before)
}

#[tokio::test]
async fn a_few_bytes_that_wait_do_not_keep_the_buffers_they_came_in() {
    for version in [ProtocolVersion::V1, ProtocolVersion::V2] {
        // With version 2 in binary framing.
        let stored = memory_of_a_sleeper(version, |server, number| {
            server.database_broadcast("sleeper", "s", &json!({"n": number}), &number.to_string());
        });
        let text = memory_of_a_sleeper(version, |server, number| {
            server.broadcast("sleeper", "s", &json!({"n": number}));
        });
        // 200 pinned buffers of 400 kB would be 80 MiB.
        for (what, memory) in [
            ("stored broadcasts", stored.await),
            ("broadcasts", text.await),
            ("rows", memory_of_a_sleeper_of_rows(version).await),
        ] {
            assert!(memory < 30, "{what} keep {memory} MiB with {version:?}");
        }
    }
}
