//! Keys of several columns, of types whose equality is not that of their texts, with values that look like syntax.

use std::time::Duration;

use supabase_local::rest::Settings;
use tendril_realtime::{Client, col};
use tendril_tests::until;
use tokio::time::sleep;

use super::{
    types::without_blanks,
    watched::{GRACE_PERIOD, Watched, normal, query, read, stack},
};

const CREATE: &str = "
    create table public.pairs (a extensions.citext, \"b,(b)\" float8, c text, tag text unique, n int not null default 0,
        primary key (a, \"b,(b)\", c));
    grant all on public.pairs to service_role;
    alter publication supabase_realtime add table public.pairs;";

const KEY: [&str; 3] = ["a", "b,(b)", "c"];

async fn agrees(client: &Client, watched: &mut Watched, after: &str) {
    let expected: Vec<String> = read(client, "pairs", None, "tag").await.into_values().collect();
    until("the watch agrees with the table", async || {
        watched.drain(Duration::from_millis(50)).await;
        let rows: Vec<String> = watched.rows.values().map(|row| normal(row)).collect();
        if without_blanks(&rows) == without_blanks(&expected) {
            Ok(())
        } else {
            Err(format!("after {after}: {rows:?} instead of {expected:?}"))
        }
    })
    .await;
    // A list has nothing to correct.
    let before = watched.reports.len();
    watched.watch.relist();
    watched.drain(Duration::from_millis(300)).await;
    assert_eq!(watched.reports[before..], [], "after {after}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_with_a_key_of_several_odd_columns_are_told_apart() {
    let (_stack, database, client) = stack(CREATE, Settings::default()).await;
    let mut watched = Watched::start(&client, query("pairs").key(KEY), "tag").await;
    sleep(GRACE_PERIOD).await;
    for sql in [
        "insert into public.pairs values ('Ann', 'NaN', 'x,\"y\"(z)', 't1'), ('ann2', 'Infinity', '', 't2'), ('B', '-0', 'null', 't3'),
             ('c', 0.1, 'a\\b', 't4'), ('d', 1e300, '{1,2}', 't5'), ('e', -1, 'ü🦀', 't6'), ('F', 5, E'line\\nbreak', 't7'),
             ('', 0, '%2C', 't8'), ('*', 1, '*', 't9')",
        "update public.pairs set n = n + 1",
        // The same key by its equality, spelled differently.
        "update public.pairs set a = upper(a) where tag in ('t1', 't4')",
        "update public.pairs set c = c || '!' where tag in ('t2', 't5', 't8')",
        "update public.pairs set \"b,(b)\" = 'NaN' where tag in ('t3', 't6')",
        "delete from public.pairs where a = 'ann'; delete from public.pairs where tag = 't7'",
    ] {
        database.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        agrees(&client, &mut watched, sql).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_of_one_such_row_and_two_watches_of_the_same_rows_agree() {
    let (_stack, database, client) = stack(CREATE, Settings::default()).await;
    let filter = col("b,(b)").eq(f64::NAN).and(col("c").eq("x,\"y\"(z)"));
    let mut some = Watched::start(&client, query("pairs").key(KEY).filter(filter.clone()), "tag").await;
    let mut twin = Watched::start(&client, query("pairs").key(KEY).filter(filter.clone()), "tag").await;
    let store = client.store::<serde_json::Value>(query("pairs").key(KEY).filter(filter)).expect("a store");
    sleep(GRACE_PERIOD).await;
    database
        .batch_execute(
            "insert into public.pairs values ('Ann', 'NaN', 'x,\"y\"(z)', 't1'), ('Bob', 'NaN', 'x,\"y\"(z)', 't2'),
                 ('Ann', 0, 'x,\"y\"(z)', 't3'), ('Ann', 'NaN', 'x', 't4');
             update public.pairs set n = 1; delete from public.pairs where a = 'BOB'",
        )
        .await
        .expect("changes");
    for watched in [&mut some, &mut twin] {
        until("the one row of the filter", async || {
            watched.drain(Duration::from_millis(50)).await;
            let rows: Vec<&str> = watched.rows.keys().map(String::as_str).collect();
            if rows == ["\"t1\""] { Ok(()) } else { Err(format!("{rows:?}")) }
        })
        .await;
    }
    until("the store holds it too", async || {
        let rows = store.state();
        if rows.len() == 1 && rows[0]["tag"] == "t1" && rows[0]["n"] == 1 {
            Ok(())
        } else {
            Err(format!("{rows:?}"))
        }
    })
    .await;
}
