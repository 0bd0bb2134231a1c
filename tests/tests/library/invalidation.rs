//! A watch that follows broadcasts of a trigger instead of row changes: it misses no more, and reads no more than it must.

use std::{collections::BTreeMap, time::Duration};

use futures_util::StreamExt as _;
use supabase_local::{Cut, Injection, RequestFault, Stack, Target};
use tendril_realtime::{
    Client,
    watch::{Query, Watch, WatchEvent},
};
use tendril_tests::until;
use tokio::time::{Instant, timeout};
use tokio_postgres::Client as Database;

use crate::table::{Job, builder, insert};

const TIMEOUT: Duration = Duration::from_secs(60);

/// A table that is in no publication: row changes do not report it.
const SCHEMA: &str = "
    create table public.jobs (id bigint primary key, status text not null default 'QUEUED', note text);
    grant select, insert, update, delete on public.jobs to service_role;
    create function public.announce_job() returns trigger language plpgsql security definer set search_path = '' as $$
    begin
      perform realtime.send(jsonb_build_object('id', coalesce(new.id, old.id)), 'job', 'jobs');
      return null;
    end $$;
    create trigger announce_job after insert or update or delete on public.jobs
      for each row execute function public.announce_job();
    create function public.announce_jobs() returns trigger language plpgsql security definer set search_path = '' as $$
    begin
      perform realtime.broadcast_changes('jobs', 'job', tg_op, tg_table_name, tg_table_schema, new, old);
      return null;
    end $$;";

async fn stack() -> (Stack, Database) {
    let stack =
        Stack::builder().without_migrations().sql(SCHEMA).start().await.expect("the local stack starts");
    let database = tendril_tests::connect(&stack.admin_url()).await;
    (stack, database)
}

fn query() -> Query {
    // The polls are far away: what is reported in time is reported by an invalidation.
    Query::table("jobs")
        .invalidated_by_broadcast("jobs", "job")
        .poll_interval(Duration::from_secs(60))
        .resync_interval(Duration::from_secs(60))
}

async fn live(client: &Client, query: Query) -> Watch<Job> {
    let mut watch = client.watch::<Job>(query).expect("a good query");
    while !matches!(next(&mut watch).await, Ok(WatchEvent::InitDone)) {}
    until("broadcasts flow", async || {
        // Nothing is reported meanwhile; polling makes it go on.
        let _ = timeout(Duration::from_millis(1), watch.next()).await;
        if watch.is_live() { Ok(()) } else { Err("not live".to_owned()) }
    })
    .await;
    watch
}

async fn next(watch: &mut Watch<Job>) -> Result<WatchEvent<Job>, tendril_realtime::Error> {
    timeout(TIMEOUT, watch.next()).await.expect("an event in time").expect("a watch has no end")
}

/// Counts the requests for rows from now on, and does nothing to them.
fn reads(stack: &Stack) -> Injection {
    stack.faults().on_requests(RequestFault::Delay(Duration::ZERO), Target::all().path("/rest/v1/jobs"))
}

/// The next row that is reported.
async fn reported(watch: &mut Watch<Job>) -> (&'static str, i64, String) {
    loop {
        match next(watch).await {
            Ok(WatchEvent::Apply(job)) => return ("applied", job.id, job.status),
            Ok(WatchEvent::Delete(job)) => return ("deleted", job.id, job.status),
            Ok(_) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_invalidated_watch_reports_each_of_three_thousand_rows_once_while_the_connection_suffers() {
    let (stack, database) = stack().await;
    let client = builder(&stack)
        .heartbeat_interval(Duration::from_millis(400))
        .heartbeat_timeout(Duration::from_millis(400))
        .build()
        .unwrap();
    // The safety read is far away: what is reported is reported by invalidations, and by the lists after gaps.
    let query = query().poll_interval(Duration::from_millis(500)).resync_interval(Duration::from_secs(300));
    let mut watch = client.watch::<Job>(query).unwrap();

    let faults = stack.faults().clone();
    let writer = tokio::spawn(async move {
        for batch in 0..100 {
            insert(&database, batch * 30, (batch + 1) * 30).await;
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
        while reported.len() < 3_000 {
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
    let all_reported = timeout(TIMEOUT, everything).await;
    assert!(all_reported.is_ok(), "{} of 3000 rows were reported", reported.len());
    writer.await.unwrap();
    let twice: Vec<_> = reported.iter().filter(|(_, times)| **times > 1).collect();
    assert!(twice.is_empty(), "reported more than once: {twice:?}");
    assert!(client.stats().connections >= 5, "the connection did suffer: {:?}", client.stats());
}

#[tokio::test]
async fn an_invalidated_watch_follows_a_row_from_its_insert_to_its_end() {
    let (stack, database) = stack().await;
    let client = builder(&stack).build().unwrap();
    let mut watch = live(&client, query().eq("status", "QUEUED")).await;
    insert(&database, 1, 2).await;
    assert_eq!(reported(&mut watch).await, ("applied", 1, "QUEUED".to_owned()));
    let done = "update public.jobs set status = 'DONE' where id = 1";
    database.execute(done, &[]).await.unwrap();
    assert_eq!(reported(&mut watch).await, ("deleted", 1, "QUEUED".to_owned()));
    database.execute("update public.jobs set status = 'QUEUED' where id = 1", &[]).await.unwrap();
    assert_eq!(reported(&mut watch).await, ("applied", 1, "QUEUED".to_owned()));
    database.execute("delete from public.jobs where id = 1", &[]).await.unwrap();
    assert_eq!(reported(&mut watch).await, ("deleted", 1, "QUEUED".to_owned()));
}

#[tokio::test]
async fn the_payloads_of_broadcast_changes_and_payloads_without_a_key_are_understood() {
    let (stack, database) = stack().await;
    let client = builder(&stack).build().unwrap();
    let mut watch = live(&client, query()).await;
    let replace = "drop trigger announce_job on public.jobs;
        create trigger announce_jobs after insert or update or delete on public.jobs
          for each row execute function public.announce_jobs()";
    database.batch_execute(replace).await.unwrap();
    insert(&database, 1, 2).await;
    assert_eq!(reported(&mut watch).await.1, 1);
    database.execute("delete from public.jobs where id = 1", &[]).await.unwrap();
    assert_eq!(reported(&mut watch).await.0, "deleted");

    database.batch_execute("drop trigger announce_jobs on public.jobs").await.unwrap();
    insert(&database, 2, 4).await;
    database.execute("select realtime.send('{\"jobs\": 2}', 'job', 'jobs')", &[]).await.unwrap();
    let both = [reported(&mut watch).await.1, reported(&mut watch).await.1];
    assert_eq!(both, [2, 3]);
}

#[tokio::test]
async fn many_invalidations_at_once_are_few_reads() {
    let (stack, database) = stack().await;
    let client = builder(&stack).build().unwrap();
    let mut watch = live(&client, query()).await;
    let (reads, began) = (reads(&stack), Instant::now());
    insert(&database, 0, 450).await;
    for _ in 0..450 {
        reported(&mut watch).await;
    }
    // Ten new rows are read at once, and twenty in each second; the others come together, with pauses that grow from 50 to 400 ms.
    let at_most = 16 + 26 * (1 + began.elapsed().as_secs());
    assert!(
        reads.struck() <= at_most,
        "{} requests for 450 invalidations, at most {at_most}",
        reads.struck()
    );
}

#[tokio::test]
async fn an_invalidation_that_is_ahead_of_its_row_is_read_again() {
    let (stack, database) = stack().await;
    let client = builder(&stack).build().unwrap();
    let mut watch = live(&client, query()).await;
    database.batch_execute("alter table public.jobs disable trigger all").await.unwrap();
    let reads = reads(&stack);
    database.execute("select realtime.send('{\"id\": 7}', 'job', 'jobs')", &[]).await.unwrap();
    until("the row is read", async || if reads.struck() > 0 { Ok(()) } else { Err(String::new()) }).await;
    // As if it were read from a replica that is a little behind: nothing else reports this row.
    insert(&database, 7, 8).await;
    assert_eq!(reported(&mut watch).await.1, 7);
}

#[tokio::test]
async fn a_channel_that_is_refused_is_reported_and_the_watch_polls() {
    let (stack, database) = stack().await;
    let client = Client::builder(stack.api_url(), stack.anon_key()).build().unwrap();
    database.batch_execute("grant select on public.jobs to anon").await.unwrap();
    let query = query().poll_interval(Duration::from_millis(300)).resync_interval(Duration::from_secs(60));
    let mut watch = client.watch::<Job>(query).unwrap();
    let refusal = loop {
        if let Ok(WatchEvent::Interrupted(error)) = next(&mut watch).await {
            break error;
        }
    };
    assert_eq!(refusal.code(), "Unauthorized", "{refusal}");
    assert!(!watch.is_live());
    insert(&database, 1, 2).await;
    assert_eq!(reported(&mut watch).await.1, 1);
}

#[tokio::test]
async fn a_watch_reads_again_when_it_is_asked_to() {
    let (stack, database) = stack().await;
    let client = builder(&stack).build().unwrap();
    let mut watch = live(&client, query()).await;
    database.batch_execute("alter table public.jobs disable trigger all").await.unwrap();
    insert(&database, 1, 2).await;
    watch.relist();
    assert_eq!(reported(&mut watch).await.1, 1);
}
