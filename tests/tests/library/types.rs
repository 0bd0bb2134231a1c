//! A watch reports rows as they are, whatever the types of their columns and their key.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    time::Duration,
};

use serde::Deserialize;
use serde_json::value::RawValue;
use supabase_local::rest::Settings;
use tendril_realtime::{Filter, col};
use tendril_tests::until;
use tokio::time::sleep;

use super::watched::{GRACE_PERIOD, Watched, normal, query, read, stack, value};

#[derive(Debug, Deserialize)]
struct Recorded {
    r#type: String,
    literal: String,
}

/// The recorded values, by type.
fn recorded() -> BTreeMap<String, Vec<String>> {
    let text = include_str!("../../../tendril-realtime/tests/recorded/types/types.json");
    let values: Vec<Recorded> = serde_json::from_str(text).expect("the recording");
    let mut types: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for Recorded { r#type, literal } in values {
        let sql = match r#type.as_str() {
            own @ ("mood" | "addr" | "posint") => format!("t_types.{own}"),
            "mood_array" => "t_types.mood[]".to_owned(),
            other => other.to_owned(),
        };
        types.entry(sql).or_default().push(literal);
    }
    types.insert("t_types.code".to_owned(), vec!["'a'".to_owned(), "'ab'".to_owned(), "'abc'".to_owned()]);
    types.insert("float4".to_owned(), vec!["1234567".to_owned(), "0.00001".to_owned()]);
    types
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_of_each_type_is_reported_once_and_as_a_read_returns_it() {
    let types = recorded();
    let mut create = String::new();
    let names: Vec<String> = (0..types.len()).map(|number| format!("type_{number}")).collect();
    for (name, sql) in names.iter().zip(types.keys()) {
        write!(
            create,
            "set search_path = public, extensions, pg_catalog;
             create table public.{name} (id int primary key, v {sql}); grant all on public.{name} to service_role;
             alter publication supabase_realtime add table public.{name};"
        )
        .expect("a string");
    }
    let (_stack, database, client) = stack(&create, Settings::default()).await;
    let mut watches = Vec::new();
    for name in &names {
        watches.push(Watched::start(&client, query(name), "id").await);
    }
    sleep(GRACE_PERIOD).await;
    for ((name, sql), values) in names.iter().zip(types.keys()).zip(types.values()) {
        for (id, literal) in values.iter().enumerate() {
            let insert = format!("insert into public.{name} values ({id}, ({literal})::{sql})");
            database.batch_execute(&insert).await.unwrap_or_else(|error| panic!("{insert}: {error:?}"));
        }
    }
    for ((name, sql), watched) in names.iter().zip(types.keys()).zip(&mut watches) {
        let expected = read(&client, name, None, "id").await;
        until("every row is reported", async || {
            watched.drain(Duration::from_millis(50)).await;
            if watched.rows.len() == expected.len() {
                Ok(())
            } else {
                Err(format!("{sql}: {:?}", watched.rows))
            }
        })
        .await;
    }
    // Nothing changes any more: neither an update to the same values nor a list may report anything again.
    for ((name, sql), watched) in names.iter().zip(types.keys()).zip(&mut watches) {
        database.batch_execute(&format!("update public.{name} set id = id")).await.expect("an update");
        watched.watch.relist();
        watched.drain(Duration::from_millis(400)).await;
        let expected = read(&client, name, None, "id").await;
        let reported: Vec<String> = watched.reports.iter().map(|(_, row)| normal(row)).collect();
        assert!(watched.reports.iter().all(|(is_row, _)| *is_row), "{sql}: {:?}", watched.reports);
        let mut sorted = reported.clone();
        sorted.sort();
        let mut rows: Vec<String> = expected.into_values().collect();
        rows.sort();
        assert_eq!(without_blanks(&sorted), without_blanks(&rows), "{sql}");
    }
}

/// The servers write `jsonb` with other blanks between its parts.
pub(super) fn without_blanks(rows: &[String]) -> Vec<String> {
    rows.iter().map(|row| row.replace(": ", ":").replace(", ", ",")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_of_each_type_names_its_row() {
    let types = recorded();
    let (_stack, database, client) = stack("", Settings::default()).await;
    let mut tables = Vec::new();
    for (number, (sql, values)) in types.iter().enumerate() {
        let name = format!("key_{number}");
        let create = format!(
            "create table public.{name} (v {sql} primary key, n int); grant all on public.{name} to service_role;
             alter publication supabase_realtime add table public.{name};"
        );
        // A key has no NULL, and a JSON null looks like one.
        let values: BTreeSet<&String> =
            values.iter().filter(|literal| !matches!(literal.as_str(), "null" | "'null'")).collect();
        // Types without an order are no keys.
        if database.batch_execute(&create).await.is_ok() {
            tables.push((name, sql, values));
        }
    }
    assert!(tables.len() > 40, "{} types are keys", tables.len());
    database.batch_execute("notify pgrst, 'reload schema'").await.expect("a notification");
    let first = &tables.last().expect("a table").0;
    until("the tables are known", async || {
        client.rest().from(first).rows::<Box<RawValue>>().await.map(drop).map_err(|error| error.to_string())
    })
    .await;
    let mut watches = Vec::new();
    for (name, ..) in &tables {
        watches.push(Watched::start(&client, query(name).key(["v"]), "v").await);
    }
    sleep(GRACE_PERIOD).await;
    for (name, sql, values) in &tables {
        let mut script = String::new();
        for (n, literal) in values.iter().enumerate() {
            writeln!(
                script,
                "insert into public.{name} values (({literal})::{sql}, {n}) on conflict do nothing;"
            )
            .expect("a string");
        }
        // Every row is updated, and the first one deleted.
        writeln!(script, "update public.{name} set n = n + 100; delete from public.{name} where n = 100;")
            .expect("a string");
        database.batch_execute(&script).await.unwrap_or_else(|error| panic!("{script}: {error:?}"));
    }
    for ((name, sql, _), watched) in tables.iter().zip(&mut watches) {
        let expected: Vec<String> = read(&client, name, None, "v").await.into_values().collect();
        until("the watch agrees with the table", async || {
            watched.drain(Duration::from_millis(50)).await;
            let rows: Vec<String> = watched.rows.values().map(|row| normal(row)).collect();
            if without_blanks(&rows) == without_blanks(&expected) {
                Ok(())
            } else {
                Err(format!("{sql}: {rows:?} instead of {expected:?}"))
            }
        })
        .await;
        // Once more, by a list: it has nothing to correct.
        let before = watched.reports.len();
        watched.watch.relist();
        watched.drain(Duration::from_millis(300)).await;
        assert_eq!(watched.reports[before..], [], "{sql}");
    }
}

/// Values that are equal though they are spelled differently, and values that are not, in columns of many types.
const SPELLED: &str = "
    create table public.spelled (id int primary key, touched int not null default 0,
        email extensions.citext, code char(5), ip inet, mac macaddr, bytes bytea, doc jsonb, amount numeric, at timestamptz,
        word text, name text collate public.any_case, uid uuid, yes boolean, small int2, day date, span interval, ratio float8,
        mood t_types.mood, flag bit(3), list int[], area int4range);
    grant all on public.spelled to service_role;
    alter publication supabase_realtime add table public.spelled;";

const FIRST: &str = "'bob@example.com', 'ab', 'fe80::1', 'aa:bb:cc:dd:ee:ff', '\\xdeadbeef', '{\"a\": 1}', 1.50,
    '2026-01-01T00:00:00Z', 'QUEUED', 'Queued', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', true, 5, '2026-01-01', '1 day', 'NaN', 'happy',
    B'101', '{1,2}', '[1,5)'";
const SECOND: &str = "'ann@example.com', 'cd', '10.0.0.1', '00:00:00:00:00:01', '\\x01', '{\"b\": 1}', 2, '2027-01-01T00:00:00Z',
    'DONE', 'Done', 'b0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', false, 6, '2027-01-01', '2 days', 1.5, 'sad', B'010', '{3}', '[7,9)'";

fn filters() -> Vec<Filter> {
    let spellings: [(&str, &[&str]); 20] = [
        ("email", &["bob@example.com", "Bob@Example.com"]),
        ("code", &["ab", "ab   ", "a"]),
        ("ip", &["fe80::1", "FE80::1", "fe80:0::1"]),
        ("mac", &["aa:bb:cc:dd:ee:ff", "AA-BB-CC-DD-EE-FF"]),
        ("bytes", &["\\xdeadbeef", "\\xDEADBEEF"]),
        ("doc", &["{\"a\": 1}", "{\"a\":1}"]),
        ("amount", &["1.5", "1.50", "15e-1"]),
        ("at", &["2026-01-01T00:00:00+00:00", "2026-01-01 01:00:00+01"]),
        ("word", &["QUEUED", "queued"]),
        ("name", &["QUEUED", "queued"]),
        ("uid", &["a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "{A0EEBC999C0B4EF8BB6D6BB9BD380A11}"]),
        ("yes", &["true", "yes", "t"]),
        ("small", &["5", "+5", "05"]),
        ("day", &["2026-01-01", "20260101"]),
        ("span", &["1 day", "24 hours"]),
        ("ratio", &["NaN", "1.5"]),
        ("mood", &["happy", "sad"]),
        ("flag", &["101", "1"]),
        ("list", &["{1,2}", "{1, 2}"]),
        ("area", &["[1,5)", "[1,4]"]),
    ];
    let mut filters = Vec::new();
    for (column, values) in spellings {
        for value in values.iter().filter(|value| column != "flag" || value.len() == 3) {
            filters.push(col(column).eq(value));
            filters.push(col(column).neq(value));
            filters.push(!col(column).eq(value));
        }
        filters.push(col(column).is_null());
        // `in` is ANY of an array, and there are no arrays of arrays.
        if column != "flag" && column != "list" {
            filters.push(col(column).in_list(values));
            filters.push(col(column).not_in(values));
        }
    }
    filters.extend([
        col("small").gt(5),
        col("small").lte(5),
        col("word").like("QU%"),
        col("word").ilike("qu*"),
        col("word").regex("^Q"),
        col("list").contains([1]),
        col("area").overlaps("[4,5)"),
        col("doc").contains(serde_json::json!({"a": 1})),
        col("small").is_distinct(5),
        col("small").eq(5).or(col("word").eq("DONE")),
        !(col("small").eq(5).and(col("word").eq("QUEUED"))),
        col("doc").key("a").text().eq(1),
    ]);
    filters
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_agrees_with_the_server_on_equality_whatever_the_type_and_the_spelling() {
    let (_stack, database, client) = stack(SPELLED, Settings::default()).await;
    let filters = filters();
    assert!(filters.len() > 150);
    for some in filters.chunks(60) {
        let start = format!(
            "truncate public.spelled; insert into public.spelled values (1, 0, {FIRST}), (2, 0, {SECOND});
             insert into public.spelled (id) values (3);"
        );
        database.batch_execute(&start).await.expect("rows");
        let mut watches = Vec::new();
        for filter in some {
            watches.push(Watched::start(&client, query("spelled").filter(filter.clone()), "id").await);
        }
        sleep(GRACE_PERIOD).await;
        let mut steps = Vec::new();
        steps.push("update public.spelled set touched = touched + 1".to_owned());
        steps.push(format!("insert into public.spelled values (4, 0, {FIRST}), (5, 0, {SECOND})"));
        steps.push("update public.spelled set (email, code, ip, word, name, amount, small, yes, mood, ratio) =
                    ('BOB@example.com', 'ab', 'fe80::1', 'queued', 'QUEUED', 1.5, 5, true, 'happy', 'NaN') where id in (2, 3)".to_owned());
        steps.push("delete from public.spelled where id = 4".to_owned());
        for step in steps {
            database.batch_execute(&step).await.unwrap_or_else(|error| panic!("{step}: {error:?}"));
            for (filter, watched) in some.iter().zip(&mut watches) {
                let before = watched.rows.clone();
                let from = watched.reports.len();
                let expected = read(&client, "spelled", Some(filter), "id").await;
                until("the watch agrees with the server", async || {
                    watched.drain(Duration::from_millis(10)).await;
                    let rows: BTreeMap<String, String> =
                        watched.rows.iter().map(|(id, row)| (id.clone(), normal(row))).collect();
                    if rows == expected {
                        Ok(())
                    } else {
                        Err(format!("{filter:?}: {rows:?} instead of {expected:?}"))
                    }
                })
                .await;
                // Each row that changed was reported once, and no row was deleted that is still there.
                for id in before.keys().chain(expected.keys()).collect::<BTreeSet<_>>() {
                    let of_row = watched.reports[from..].iter().filter(|(_, row)| {
                        let row = RawValue::from_string(row.clone()).expect("JSON");
                        value(&row, "id") == *id
                    });
                    let of_row: Vec<_> = of_row.collect();
                    assert!(of_row.len() <= 1, "{filter:?} {step}: {of_row:?}");
                }
            }
        }
    }
}
