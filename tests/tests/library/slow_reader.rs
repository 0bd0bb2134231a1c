//! A reader that does not read harms no other.

use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use tendril_realtime::{ChangeEvent, PostgresChanges, col};

use crate::table::{Job, builder, insert, stack};

/// How long the reader sleeps; `TENDRIL_SLEEP_SECONDS=120` for the long run.
fn seconds() -> i64 {
    std::env::var("TENDRIL_SLEEP_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(8)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_sleeps_delays_no_heartbeat_and_no_other_channel_and_learns_what_it_missed() {
    let (stack, database) = stack().await;
    let client = builder(&stack)
        .heartbeat_interval(Duration::from_millis(500))
        .heartbeat_timeout(Duration::from_millis(1500))
        .build()
        .unwrap();
    let all = PostgresChanges::on("public", "jobs");
    let mut sleeper = client
        .channel("sleeper")
        .buffer_capacity(500, 1 << 20)
        .postgres_changes::<Job>(all)
        .subscribe()
        .await
        .unwrap();
    let hundredth = PostgresChanges::on("public", "jobs").filter(col("status").eq("URGENT"));
    let mut other = client.channel("other").postgres_changes::<Job>(hundredth).subscribe().await.unwrap();

    let mut slowest = Duration::ZERO;
    // A thousand events a second: the rate matters, not the wait.
    let mut pace = tokio::time::interval(Duration::from_secs(1));
    for second in 0..seconds() {
        pace.tick().await;
        insert(&database, second * 1000, (second + 1) * 1000).await;
        let sent = Instant::now();
        database
            .execute("insert into public.jobs (id, status) values ($1, 'URGENT')", &[&(1_000_000 + second)])
            .await
            .unwrap();
        let event = tokio::time::timeout(Duration::from_secs(20), other.next())
            .await
            .expect("the other channel lives");
        assert!(matches!(event.unwrap().unwrap(), ChangeEvent::Insert(job) if job.status == "URGENT"));
        slowest = slowest.max(sent.elapsed());
    }
    let status = client.status().borrow().clone();
    assert!(status.round_trip.expect("heartbeats were answered") < Duration::from_secs(1));
    // A heartbeat that is not answered within its 1.5 s would have cost the connection.
    assert_eq!(client.stats().connections, 1, "the connection was never lost");
    assert!(client.stats().events_dropped > 0);

    let mut ids = Vec::new();
    let mut missed = 0;
    let last = 1_000_000 + seconds() - 1;
    while ids.last() != Some(&last) {
        match sleeper.next().await.unwrap().unwrap() {
            ChangeEvent::Lagged(count) => missed += count,
            ChangeEvent::Insert(job) => ids.push(job.id),
            other => panic!("{other:?}"),
        }
    }
    assert!(ids.len() <= 500);
    let sent = usize::try_from(seconds() * 1001).unwrap();
    assert_eq!(usize::try_from(missed).unwrap() + ids.len(), sent, "what was not read was counted");
    println!("slowest event of the other channel: {slowest:?}");
}
