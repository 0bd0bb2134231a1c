//! A watch misses nothing, whatever the connection does.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use futures_util::StreamExt as _;
use supabase_local::Cut;
use tendril_realtime::{
    ChangeEvent, PostgresChanges,
    watch::{Query, WatchEvent},
};
use tokio::time::timeout;

use crate::table::{Job, builder, insert, stack};

const TIMEOUT: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_tells_each_of_ten_thousand_rows_once_while_the_connection_suffers() {
    let (stack, database) = stack().await;
    let client = builder(&stack)
        .heartbeat_interval(Duration::from_millis(400))
        .heartbeat_timeout(Duration::from_millis(400))
        .build()
        .unwrap();
    let query = Query::table("jobs")
        .poll_interval(Duration::from_millis(500))
        .resync_interval(Duration::from_secs(5));
    let mut watch = client.watch::<Job>(query).unwrap();

    let faults = stack.faults().clone();
    let writer = tokio::spawn(async move {
        for batch in 0..100 {
            insert(&database, batch * 100, (batch + 1) * 100).await;
            match batch {
                10 | 50 => faults.cut_sockets(Cut::Abrupt),
                20 | 60 => faults.cut_sockets(Cut::Close(1012)),
                // Half open: everything is accepted, nothing answered.
                30 => faults.stall_sockets(true),
                40 => faults.stall_sockets(false),
                70 => faults.refuse_realtime(true),
                80 => faults.refuse_realtime(false),
                85 => faults.expire_tokens(),
                90 => faults.restart(Duration::from_millis(300)),
                _ => {}
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });

    let mut reported: BTreeMap<i64, u32> = BTreeMap::new();
    let everything = async {
        while reported.len() < 10_000 {
            match watch.next().await.expect("a watch has no end") {
                Ok(WatchEvent::Apply(job) | WatchEvent::InitApply(job)) => {
                    *reported.entry(job.id).or_default() += 1;
                }
                Ok(WatchEvent::Delete(job)) => panic!("{job:?} was never deleted"),
                // Failures that pass are events.
                Ok(_) => {}
                Err(error) => panic!("{error}"),
            }
        }
    };
    timeout(TIMEOUT, everything).await.expect("every row is reported");
    writer.await.unwrap();
    let twice: Vec<_> = reported.iter().filter(|(_, times)| **times > 1).collect();
    assert!(twice.is_empty(), "reported more than once: {twice:?}");
    assert!(client.stats().connections >= 5, "the connection did suffer: {:?}", client.stats());
}

#[tokio::test]
async fn a_row_that_leaves_the_query_is_deleted_from_the_watch_and_one_that_enters_is_applied() {
    let (stack, database) = stack().await;
    let client = builder(&stack).build().unwrap();
    let mut watch = client.watch::<Job>(Query::table("jobs").eq("status", "QUEUED")).unwrap();
    insert(&database, 1, 3).await;
    let mut seen = BTreeSet::new();
    while seen.len() < 2 {
        if let Ok(WatchEvent::InitApply(job) | WatchEvent::Apply(job)) = next(&mut watch).await {
            seen.insert(job.id);
        }
    }
    database.execute("update public.jobs set status = 'DONE' where id = 1", &[]).await.unwrap();
    assert_eq!(reported(&mut watch).await, ("deleted", 1));
    database.execute("delete from public.jobs where id = 2", &[]).await.unwrap();
    assert_eq!(reported(&mut watch).await, ("deleted", 2));
    database.execute("update public.jobs set status = 'QUEUED' where id = 1", &[]).await.unwrap();
    assert_eq!(reported(&mut watch).await, ("applied", 1));
}

#[tokio::test]
async fn without_realtime_a_watch_polls_and_says_why() {
    let (stack, database) = stack().await;
    stack.faults().refuse_realtime(true);
    let client = builder(&stack).build().unwrap();
    let query = Query::table("jobs")
        .poll_interval(Duration::from_millis(300))
        .resync_interval(Duration::from_secs(60));
    let mut watch = client.watch::<Job>(query).unwrap();
    while !matches!(next(&mut watch).await, Ok(WatchEvent::InitDone)) {}
    insert(&database, 7, 8).await;
    let mut complaint = None;
    let row = loop {
        match next(&mut watch).await {
            Ok(WatchEvent::Apply(job)) => break job,
            Ok(WatchEvent::Interrupted(error)) => complaint = Some(error),
            Ok(_) => {}
            Err(error) => panic!("{error}"),
        }
    };
    assert_eq!(row.id, 7);
    assert_eq!(complaint.expect("the refusal is reported").code(), "Handshake");
}

#[tokio::test]
async fn rows_that_the_server_loses_without_a_word_are_found_by_the_safety_read() {
    let (stack, database) = stack().await;
    let client = builder(&stack).build().unwrap();
    let query =
        Query::table("jobs").poll_interval(Duration::from_secs(60)).resync_interval(Duration::from_secs(3));
    let mut watch = client.watch::<Job>(query).unwrap();
    while !matches!(next(&mut watch).await, Ok(WatchEvent::InitDone)) {}
    insert(&database, 1, 2).await;
    assert_eq!(reported(&mut watch).await, ("applied", 1));
    let everything = supabase_local::Target::all().event("postgres_changes");
    let lost = stack.faults().on_frames(supabase_local::FrameFault::Withhold, everything);
    insert(&database, 2, 3).await;
    assert_eq!(reported(&mut watch).await, ("applied", 2));
    assert!(lost.struck() > 0, "the event was withheld");
}

#[tokio::test]
async fn a_change_stream_marks_the_gap_of_a_reconnect_before_the_first_row_after_it() {
    let (stack, database) = stack().await;
    let client = builder(&stack).build().unwrap();
    let changes = PostgresChanges::on("public", "jobs");
    let mut stream = client.channel("jobs").postgres_changes::<Job>(changes).subscribe().await.unwrap();
    insert(&database, 1, 2).await;
    assert!(matches!(stream.next().await.unwrap().unwrap(), ChangeEvent::Insert(job) if job.id == 1));
    stack.faults().cut_sockets(Cut::Abrupt);
    let mut status = client.status();
    status.wait_for(|status| !status.is_connected()).await.unwrap();
    insert(&database, 2, 3).await;
    assert!(matches!(timeout(TIMEOUT, stream.next()).await.unwrap(), Some(Ok(ChangeEvent::Resync(_)))));
    insert(&database, 3, 4).await;
    loop {
        match timeout(TIMEOUT, stream.next()).await.unwrap().unwrap().unwrap() {
            ChangeEvent::Insert(job) if job.id == 3 => break,
            ChangeEvent::Resync(_) | ChangeEvent::Insert(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_store_holds_the_rows_as_they_are_now() {
    let (stack, database) = stack().await;
    insert(&database, 1, 4).await;
    let client = builder(&stack).build().unwrap();
    let mut store = client.store::<Job>(Query::table("jobs")).unwrap();
    timeout(TIMEOUT, store.ready()).await.unwrap();
    assert_eq!(store.state().len(), 3);
    database.execute("update public.jobs set status = 'DONE' where id = 2", &[]).await.unwrap();
    while store.get(2).unwrap().status != "DONE" {
        assert!(timeout(TIMEOUT, store.changed()).await.unwrap());
    }
    database.execute("delete from public.jobs where id = 1", &[]).await.unwrap();
    while store.get(1).is_some() {
        assert!(timeout(TIMEOUT, store.changed()).await.unwrap());
    }
}

async fn next(
    watch: &mut tendril_realtime::watch::Watch<Job>,
) -> Result<WatchEvent<Job>, tendril_realtime::Error> {
    timeout(TIMEOUT, watch.next()).await.expect("an event in time").expect("a watch has no end")
}

async fn reported(watch: &mut tendril_realtime::watch::Watch<Job>) -> (&'static str, i64) {
    loop {
        match next(watch).await {
            Ok(WatchEvent::Apply(job)) => return ("applied", job.id),
            Ok(WatchEvent::Delete(job)) => return ("deleted", job.id),
            Ok(_) => {}
            Err(error) => panic!("{error}"),
        }
    }
}
