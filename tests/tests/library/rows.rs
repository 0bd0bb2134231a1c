//! A watch reports each row once: whatever the server's row limit is, and whatever becomes of its key, its columns and its place.

use std::{collections::BTreeMap, time::Duration};

use futures_util::StreamExt as _;
use serde::Deserialize;
use supabase_local::rest::Settings;
use tendril_realtime::{col, watch::Query};
use tendril_tests::until;
use tokio::time::{sleep, timeout};

use super::watched::{GRACE_PERIOD, Watched, normal, query, read, stack};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_row_is_missed_and_none_deleted_whatever_the_servers_row_limit() {
    const CREATE: &str = "create table public.many (id int primary key, kind text default 'a', other int default 1);
        insert into public.many select generate_series(1, 25); grant all on public.many to service_role;
        create table public.pair (a int, b text, primary key (a, b));
        insert into public.pair select i / 5, i::text from generate_series(1, 25) i; grant all on public.pair to service_role;
        alter publication supabase_realtime add table public.many, public.pair;";
    for limit in [Some(1), Some(2), Some(9), Some(10), Some(11), None] {
        let settings = Settings { max_rows: limit, ..Settings::default() };
        let (_stack, database, client) = stack(CREATE, settings).await;
        let by_key = query("many").page(10);
        let ordered = query("many").page(10).order(col("id").desc());
        let filtered = query("many").page(10).gt("id", 0).eq("kind", "a");
        let mut watches = Vec::new();
        for query in [by_key, ordered, filtered] {
            watches.push(Watched::start(&client, query, "id").await);
        }
        let mut pair = Watched::start(&client, query("pair").key(["a", "b"]).page(10), "b").await;
        sleep(GRACE_PERIOD).await;
        database.batch_execute("insert into public.many select generate_series(26, 40)").await.expect("rows");
        database
            .batch_execute("insert into public.pair select 9, i::text from generate_series(26, 40) i")
            .await
            .expect("rows");
        for watched in watches.iter_mut().chain([&mut pair]) {
            until("every row is reported", async || {
                watched.drain(Duration::from_millis(50)).await;
                if watched.rows.len() == 40 {
                    Ok(())
                } else {
                    Err(format!("{limit:?}: {} rows", watched.rows.len()))
                }
            })
            .await;
            watched.watch.relist();
            watched.drain(Duration::from_millis(400)).await;
            assert_eq!(watched.reports.len(), 40, "{limit:?}: {:?}", watched.reports);
        }
        database.batch_execute("delete from public.many where id in (3, 30)").await.expect("a delete");
        for watched in &mut watches {
            until("the deletions are reported", async || {
                watched.drain(Duration::from_millis(50)).await;
                if watched.reports.len() == 42 {
                    Ok(())
                } else {
                    Err(format!("{limit:?}: {:?}", watched.reports))
                }
            })
            .await;
            assert_eq!(watched.rows.len(), 38);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_whose_key_changes_is_one_row() {
    const CREATE: &str = "create table public.keyed (id int primary key, v text);
        insert into public.keyed values (1, 'a'), (2, 'b'); grant all on public.keyed to service_role;
        alter publication supabase_realtime add table public.keyed;";
    let (_stack, database, client) = stack(CREATE, Settings::default()).await;
    let mut watched = Watched::start(&client, query("keyed"), "id").await;
    sleep(GRACE_PERIOD).await;
    watched.drain(Duration::from_millis(50)).await;
    database.batch_execute("update public.keyed set id = 7 where id = 1").await.expect("an update");
    until("the row has its new key", async || {
        watched.drain(Duration::from_millis(50)).await;
        let keys: Vec<_> = watched.rows.keys().map(String::as_str).collect();
        if keys == ["2", "7"] { Ok(()) } else { Err(format!("{keys:?}")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn generated_columns_and_columns_that_are_added_later_are_reported_as_a_read_returns_them() {
    const CREATE: &str =
        "create table public.made (id int primary key, n int, twice int generated always as (n * 2) stored);
        insert into public.made (id, n) values (1, 1); grant all on public.made to service_role;
        alter publication supabase_realtime add table public.made;";
    let (_stack, database, client) = stack(CREATE, Settings::default()).await;
    let mut watched = Watched::start(&client, query("made"), "id").await;
    sleep(GRACE_PERIOD).await;
    for sql in [
        "insert into public.made (id, n) values (2, 2)",
        "update public.made set n = 3 where id = 1",
        "alter table public.made add column later text default 'x'; notify pgrst, 'reload schema'",
        "update public.made set later = 'y' where id = 2",
        "insert into public.made (id, n) values (3, 3)",
    ] {
        database.batch_execute(sql).await.expect("a change");
        if sql.starts_with("alter") {
            continue;
        }
        until("the watch agrees with the table", async || {
            watched.drain(Duration::from_millis(50)).await;
            let expected: Vec<_> = read(&client, "made", None, "id").await.into_iter().collect();
            let rows: Vec<_> = watched.rows.iter().map(|(id, row)| (id.clone(), normal(row))).collect();
            // The row that did not change since the column was added is read with the next list.
            let is_same = expected.iter().zip(&rows).filter(|(one, other)| one == other).count();
            if rows.len() == expected.len() && is_same + 1 >= rows.len() {
                Ok(())
            } else {
                Err(format!("{sql}: {rows:?} instead of {expected:?}"))
            }
        })
        .await;
    }
    watched.watch.relist();
    watched.drain(Duration::from_millis(500)).await;
    let expected = read(&client, "made", None, "id").await;
    let rows: BTreeMap<_, _> = watched.rows.iter().map(|(id, row)| (id.clone(), normal(row))).collect();
    assert_eq!(rows, expected);
    assert!(watched.reports.len() <= 7, "{:?}", watched.reports);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_row_is_followed_from_nothing_to_nothing() {
    const CREATE: &str =
        "create table public.one (id int primary key, v text); grant all on public.one to service_role;
        alter publication supabase_realtime add table public.one;";
    #[derive(Debug, Deserialize)]
    struct Row {
        v: String,
    }
    let (_stack, database, client) = stack(CREATE, Settings::default()).await;
    let far = Duration::from_secs(3_000);
    let one = Query::table("one").immutable_eq("id", 7).poll_interval(far).resync_interval(far);
    let mut watch = client.watch_single::<Row>(one).expect("a query");
    let mut next = async || {
        let state = timeout(Duration::from_secs(30), watch.next()).await.expect("in time").expect("no end");
        state.expect("no error").map(|row| row.v)
    };
    assert_eq!(next().await, None);
    for (sql, expected) in [
        ("insert into public.one values (7, 'a'), (8, 'b')", Some("a")),
        ("update public.one set v = 'c'", Some("c")),
        ("delete from public.one where id > 0", None),
        ("insert into public.one values (7, 'd')", Some("d")),
    ] {
        database.batch_execute(sql).await.expect("a change");
        assert_eq!(next().await.as_deref(), expected, "{sql}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_rows_of_an_order_are_followed() {
    const CREATE: &str = "create table public.ranked (id int primary key, score int);
        insert into public.ranked select i, i * 10 from generate_series(1, 10) i; grant all on public.ranked to service_role;
        alter publication supabase_realtime add table public.ranked;";
    let (_stack, database, client) = stack(CREATE, Settings::default()).await;
    let top = query("ranked").order(col("score").desc()).limit(3);
    let mut watched = Watched::start(&client, top, "id").await;
    for (sql, expected) in [
        ("select 1", ["10", "8", "9"]),
        ("update public.ranked set score = 1000 where id = 1", ["1", "10", "9"]),
        ("delete from public.ranked where id = 10", ["1", "8", "9"]),
        ("insert into public.ranked values (11, 95)", ["1", "11", "9"]),
        ("update public.ranked set score = 0 where id = 9", ["1", "11", "8"]),
    ] {
        database.batch_execute(sql).await.expect("a change");
        until("the first rows are those of the table", async || {
            watched.drain(Duration::from_millis(50)).await;
            let keys: Vec<_> = watched.rows.keys().map(String::as_str).collect();
            if keys == expected { Ok(()) } else { Err(format!("{sql}: {keys:?}")) }
        })
        .await;
    }
}
