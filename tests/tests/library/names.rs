//! A name of a column, a table, a schema or a function is never syntax, whatever characters it has.

use std::{fmt::Write as _, time::Duration};

use futures_util::StreamExt as _;
use proptest::{prelude::*, strategy::ValueTree as _, test_runner::TestRunner};
use serde_json::{Map, Value, json};
use supabase_local::Stack;
use tendril_realtime::{
    ChangeEvent, Client, ErrorKind, PostgresChanges, Rest, col,
    rest::Count,
    watch::{Query, WatchEvent},
};
use tokio::time::timeout;
use tokio_postgres::Client as Database;

const TIMEOUT: Duration = Duration::from_secs(60);

/// What `PostgREST` and Realtime have a meaning for, and what their notations are made of.
const NAMES: &[&str] = &[
    "select",
    "order",
    "limit",
    "offset",
    "columns",
    "on_conflict",
    "or",
    "and",
    "not",
    "not.eq",
    "eq",
    "is",
    "in",
    "a.limit",
    "a.order",
    "a.or",
    "limit.a",
    "posts.title",
    "a,b",
    "a.asc",
    "a.desc.nullslast",
    "(a)",
    "or(a)",
    "a->b",
    "a->>b",
    "a::text",
    "a:b",
    "count()",
    "...a",
    "a!inner",
    "with space",
    "semi;colon",
    "a&b",
    "a=b",
    "a?b",
    "a#b",
    "a%b",
    "a%2Eb",
    "a+b",
    "a/b",
    "a\"b",
    "\"quoted\"",
    "a'b",
    "a\\b",
    "{a}",
    "[a]",
    "größe",
    "表",
    "🦀",
    "Upper",
    "9lives",
    "$dollar",
    "a-b",
    "-",
    ".",
    "..",
    "null",
    "true",
    "line\nbreak",
    "tab\there",
];

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

async fn stack(sql: &str) -> (Stack, Database, Client) {
    let stack = Stack::builder().without_migrations().sql(sql).start().await.expect("the local stack starts");
    let database = tendril_tests::connect(&stack.admin_url()).await;
    let client = Client::builder(stack.api_url(), stack.service_role_key()).build().expect("a client");
    (stack, database, client)
}

/// A table with a column of each name. Row 1 has 1 in all of them, row 2 has 2, row 3 has 3.
fn table(names: &[&str]) -> String {
    let columns: Vec<_> = names.iter().map(|name| format!("{} integer", quoted(name))).collect();
    let values = |number: i32| vec![number.to_string(); names.len() + 1].join(",");
    format!(
        "create table public.odd (id integer primary key, {});
         insert into public.odd values ({}), ({}), ({});
         grant all on public.odd to service_role;
         alter publication supabase_realtime add table public.odd;",
        columns.join(","),
        values(1),
        values(2),
        values(3)
    )
}

#[derive(serde::Deserialize, Debug, Clone, PartialEq)]
struct Id {
    id: i32,
}

async fn ids(request: tendril_realtime::rest::QueryBuilder) -> Vec<i32> {
    let rows: Vec<Id> = request.select("id").order("id").rows().await.expect("rows");
    rows.into_iter().map(|row| row.id).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_method_takes_a_column_name_for_a_name() {
    let (_stack, database, client) = stack(&table(NAMES)).await;
    let rest = client.rest();
    let odd = || rest.from("odd");
    for name in NAMES {
        assert_eq!(ids(odd().eq(*name, 2)).await, [2], "eq {name}");
        assert_eq!(ids(odd().neq(*name, 2)).await, [1, 3], "neq {name}");
        assert_eq!(ids(odd().gt(*name, 2)).await, [3], "gt {name}");
        assert_eq!(ids(odd().gte(*name, 2)).await, [2, 3], "gte {name}");
        assert_eq!(ids(odd().lt(*name, 2)).await, [1], "lt {name}");
        assert_eq!(ids(odd().lte(*name, 2)).await, [1, 2], "lte {name}");
        assert_eq!(ids(odd().in_list(*name, [1, 3])).await, [1, 3], "in {name}");
        assert_eq!(ids(odd().not_in(*name, [1, 3])).await, [2], "not in {name}");
        assert_eq!(ids(odd().is_null(*name)).await, [0; 0], "is null {name}");
        assert_eq!(ids(odd().is_distinct(*name, 2)).await, [1, 3], "is distinct {name}");
        assert_eq!(ids(odd().or([col(*name).eq(1), col(*name).eq(3)])).await, [1, 3], "or {name}");
        assert_eq!(ids(odd().not(col(*name).eq(1).or(col("id").eq(3)))).await, [2], "not or {name}");
        assert_eq!(ids(odd().filter((*name, "eq", 2))).await, [2], "filter {name}");
        assert_eq!(ids(odd().match_([(*name, 2), ("id", 2)])).await, [2], "match {name}");

        let rows: Vec<Map<String, Value>> =
            odd().select_columns([*name]).order(col(*name).desc()).limit(1).rows().await.expect("rows");
        assert_eq!(rows, [Map::from_iter([((*name).to_owned(), json!(3))])], "select and order {name}");

        let changed = odd().update(&json!({(*name): 20})).eq(*name, 2).max_affected(1);
        assert_eq!(changed.rows::<Id>().await.expect("an update").len(), 1, "update {name}");
        let changed = odd().update(&json!({(*name): 2})).eq(*name, 20).count(Count::Exact).execute().await;
        assert_eq!(changed.expect("an update").count(), Some(1), "update {name}");

        let inserted = odd().insert(&json!([{"id": 4, (*name): 4, "a.limit": 4}])).columns(["id", *name]);
        inserted.execute().await.unwrap_or_else(|error| panic!("insert {name}: {error}"));
        let deleted: Vec<Id> = odd().delete().eq(*name, 4).rows().await.expect("a delete");
        assert_eq!(deleted, [Id { id: 4 }], "delete {name}");
        let left = database.query_one("select count(*) from public.odd", &[]).await.expect("a count");
        assert_eq!(left.get::<_, i64>(0), 3, "after {name}");
    }
    for name in NAMES {
        let unique = format!("create unique index on public.odd ({})", quoted(name));
        database.batch_execute(&unique).await.expect("an index");
    }
    let cached = "notify pgrst, 'reload schema'";
    database.batch_execute(cached).await.expect("a notification");
    for name in NAMES {
        let again = odd().insert(&json!({"id": 9, (*name): 1})).on_conflict([*name]).ignore_duplicates();
        let rows: Vec<Id> = again.rows().await.unwrap_or_else(|error| panic!("on conflict {name}: {error}"));
        assert_eq!(rows, [], "on conflict {name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_and_row_changes_take_a_column_name_for_a_name() {
    let (_stack, database, client) = stack(&table(NAMES)).await;
    for name in NAMES {
        let query = Query::table("odd").select_columns(["id", *name]).eq(*name, 2);
        let mut watch = client.watch::<Map<String, Value>>(query).expect("a query");
        let mut first = Vec::new();
        loop {
            match timeout(TIMEOUT, watch.next()).await.expect("in time").expect("no end") {
                Ok(WatchEvent::InitApply(row)) => first.push(row),
                Ok(WatchEvent::InitDone) => break,
                Ok(WatchEvent::Interrupted(error)) => panic!("{name}: {error}"),
                Ok(_) => {}
                Err(error) => panic!("{name}: {error}"),
            }
        }
        let expected = Map::from_iter([("id".to_owned(), json!(2)), ((*name).to_owned(), json!(2))]);
        assert_eq!(first, [expected], "watch {name}");
    }
    let mut streams = Vec::new();
    for (place, name) in NAMES.iter().enumerate() {
        let changes = PostgresChanges::on("public", "odd").filter(col(*name).eq(7));
        let channel = client.channel(&format!("odd{place}")).postgres_changes::<Id>(changes);
        match timeout(TIMEOUT, channel.subscribe()).await.expect("in time") {
            Ok(stream) => streams.push((name, stream)),
            Err(error) => {
                assert!(matches!(error.kind(), ErrorKind::InvalidInput { .. }), "{name}: {error}");
                assert!(name.contains([',', '=']), "{name} is refused without need: {error}");
            }
        }
    }
    assert!(streams.len() > NAMES.len() / 2);
    let columns: Vec<_> = streams.iter().map(|(name, _)| quoted(name)).collect();
    let sevens = vec!["7"; columns.len()].join(",");
    let insert = format!("insert into public.odd (id, {}) values (7, {sevens})", columns.join(","));
    database.batch_execute(&format!("insert into public.odd (id) values (8); {insert}")).await.expect("rows");
    for (name, mut stream) in streams {
        loop {
            match timeout(TIMEOUT, stream.next()).await.expect(name).expect(name) {
                Ok(ChangeEvent::Insert(row)) => {
                    assert_eq!(row.id, 7, "{name}");
                    break;
                }
                other => println!("{name}: {other:?}"),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_schemas_and_functions_may_have_any_name() {
    let mut sql = String::new();
    for (place, name) in NAMES.iter().enumerate() {
        let name = quoted(name);
        write!(
            sql,
            "create table public.{name} (id integer primary key); insert into public.{name} values ({place});
             grant all on public.{name} to service_role;
             create function public.{name}() returns integer language sql as 'select {place}';\n"
        )
        .expect("a string");
    }
    let (_stack, _, client) = stack(&sql).await;
    let rest = client.rest();
    for (place, name) in NAMES.iter().enumerate() {
        let rows = rest.from(name).rows::<Id>().await;
        let value = rest.rpc(name, &json!({})).value::<i32>().await;
        if matches!(*name, "." | "..") {
            for error in [rows.expect_err(name), value.expect_err(name)] {
                assert!(matches!(error.kind(), ErrorKind::InvalidInput { .. }), "{name}: {error}");
            }
            continue;
        }
        let place = i32::try_from(place).expect("few names");
        assert_eq!(
            rows.unwrap_or_else(|error| panic!("table {name}: {error}")),
            [Id { id: place }],
            "{name}"
        );
        assert_eq!(value.unwrap_or_else(|error| panic!("function {name}: {error}")), place, "{name}");
    }
    for bad in ["", "a\0b", "*"] {
        // A table may be named `*`; a column may be too, but `PostgREST` has no syntax for it.
        assert!(rest.from("or").eq(bad, 1).rows::<Id>().await.is_err());
        assert!(client.watch::<Id>(Query::table("or").key([bad])).is_err());
    }
    for bad in ["", "a\0b"] {
        assert!(rest.from(bad).rows::<Id>().await.is_err());
        assert!(rest.rpc(bad, &json!({})).value::<i32>().await.is_err());
        assert!(rest.schema(bad).from("odd").rows::<Id>().await.is_err());
    }
    let error = rest.schema("a\r\nx: y").from("odd").rows::<Id>().await.expect_err("no header carries it");
    assert!(matches!(error.kind(), ErrorKind::InvalidInput { field: "schema", .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_without_a_filter_needs_to_say_that_every_row_is_meant() {
    let (_stack, database, client) = stack(&table(&["limit", "payload"])).await;
    let odd = || client.rest().from("odd");
    for request in [
        odd().delete(),
        odd().update(&json!({"payload": 0})),
        odd().delete().order("id").limit(1),
        odd().delete().eq(col("id").of("posts"), 1),
        odd().delete().select("id").max_affected(10),
    ] {
        let error = request.rows::<Id>().await.expect_err("no filter");
        assert!(matches!(error.kind(), ErrorKind::InvalidInput { field: "filter", .. }), "{error}");
        assert!(error.to_string().contains("all_rows"), "{error}");
    }
    let error = odd().delete().eq("limit", 1).eq("", 1).execute().await.expect_err("a name is empty");
    assert!(matches!(error.kind(), ErrorKind::InvalidInput { field: "column", .. }), "{error}");
    let left = database.query_one("select count(*) from public.odd", &[]).await.expect("a count");
    assert_eq!(left.get::<_, i64>(0), 3);
    let updated: Vec<Id> =
        odd().update(&json!({"payload": 0})).not_null("id").rows().await.expect("all rows have a key");
    assert_eq!(updated.len(), 3);
}

/// Names of whatever characters PostgreSQL allows, at most 63 bytes.
fn any_name() -> impl Strategy<Value = String> {
    let tricky = prop::sample::select(vec![
        ".", ",", "(", ")", "\"", "'", "\\", "->", "::", ":", "*", "!", "=", "&", "?", "#", "%", "+", " ",
        "\n", "{", "}", "or", "and", "not", "limit", "order", "select", "eq", "ä", "🦀", "a", "1", "_", "-",
        "/", "$", ";",
    ]);
    prop::collection::vec(tricky, 1..12)
        .prop_map(|parts| parts.concat())
        .prop_filter("63 bytes", |name| name.len() <= 63 && name != "id" && name != "*")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_a_column_is_called_a_filter_touches_its_rows_only() {
    let mut runner = TestRunner::default();
    let mut names: Vec<String> =
        (0..200).map(|_| any_name().new_tree(&mut runner).expect("a name").current()).collect();
    names.sort();
    names.dedup();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let (_stack, database, client) = stack(&table(&names)).await;
    let rest: &Rest = client.rest();
    for name in names {
        let odd = || rest.from("odd");
        assert_eq!(ids(odd().eq(name, 2)).await, [2], "{name:?}");
        assert_eq!(ids(odd().or([col(name).eq(1), col(name).gt(2)])).await, [1, 3], "{name:?}");
        let deleted: Vec<Id> = odd().delete().eq(name, 99).rows().await.expect(name);
        assert_eq!(deleted, [], "{name:?}");
    }
    let left = database.query_one("select count(*) from public.odd", &[]).await.expect("a count");
    assert_eq!(left.get::<_, i64>(0), 3);
}
