use std::time::Duration;

use serde_json::json;
use tendril_realtime::{BroadcastEvent, StreamExt as _};
use tendril_realtime_testkit::FakeServer;

use crate::{client, server, until};

/// Resident memory of this process, in MiB.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096 / (1 << 20)
}

/// Small messages for a reader that sleeps, between large ones for a reader that reads.
async fn memory_of_a_sleeper(send_small: impl Fn(&FakeServer, u32)) -> u64 {
    let server = server().await;
    let client = client(&server);
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

#[tokio::test]
async fn a_few_bytes_that_wait_do_not_keep_the_buffers_they_came_in() {
    let binary = memory_of_a_sleeper(|server, number| {
        server.database_broadcast("sleeper", "s", &json!({"n": number}), &number.to_string());
    })
    .await;
    let text = memory_of_a_sleeper(|server, number| {
        server.broadcast("sleeper", "s", &json!({"n": number}));
    })
    .await;
    // 200 pinned buffers of 400 kB would be 80 MiB.
    assert!(binary < 30, "binary broadcasts keep {binary} MiB");
    assert!(text < 30, "text broadcasts keep {text} MiB");
}
