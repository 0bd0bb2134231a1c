//! How each type is written, by Realtime and by PostgREST: held to 165 values of 65 types that the real servers wrote.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Deserialize;
use serde_json::{Value, json};
use supabase_local::Stack;

use crate::client::{Client, admin, websocket_url};
use crate::http::send;

/// Types that the recording made, and the extensions it had.
const PREPARE: &str = "
    create extension citext schema extensions; create extension hstore schema extensions;
    create extension ltree schema extensions;
    create schema t_types;
    create type t_types.mood as enum ('sad', 'happy', 'so, \"so\"');
    create type t_types.addr as (street text, nr int);
    create domain t_types.posint as int check (value > 0);
    grant usage on schema t_types to anon, authenticated;
";

/// One value as it was inserted, and what the two servers made of it.
#[derive(Debug, Deserialize)]
struct Recorded {
    r#type: String,
    literal: String,
    realtime_column_type: String,
    realtime_record: String,
    postgrest_row: String,
}

impl Recorded {
    fn sql_type(&self) -> String {
        match self.r#type.as_str() {
            own @ ("mood" | "addr" | "posint") => format!("t_types.{own}"),
            "mood_array" => "t_types.mood[]".to_owned(),
            other => other.to_owned(),
        }
    }
}

fn recorded() -> Vec<Recorded> {
    serde_json::from_str(include_str!("../recorded/types/types.json")).unwrap()
}

/// The tables, one for each type and named after its position, with the rows' inserts.
fn tables(values: &[Recorded]) -> (BTreeMap<String, usize>, String, String) {
    let mut numbers = BTreeMap::new();
    let (mut create, mut insert) = (String::new(), String::new());
    for value in values {
        let next = numbers.len();
        let number = *numbers.entry(value.r#type.clone()).or_insert_with(|| {
            let sql_type = value.sql_type();
            writeln!(create, "create table public.type_{next} (id int generated always as identity primary key, v {sql_type});")
                .unwrap();
            writeln!(create, "grant select on public.type_{next} to anon;").unwrap();
            writeln!(create, "alter publication supabase_realtime add table public.type_{next};").unwrap();
            next
        });
        writeln!(insert, "insert into public.type_{number} (v) values ({});", value.literal).unwrap();
    }
    (numbers, create, insert)
}

async fn subscriber(stack: &Stack, version: &str) -> Client {
    let url = websocket_url(stack, &format!("apikey={}&vsn={version}", stack.anon_key()));
    let mut client = Client::open(&url).await.expect("the socket opens");
    let payload = json!({"config": {"postgres_changes": [{"event": "INSERT", "schema": "public"}]}});
    if version == "2.0.0" {
        client.send_json(json!(["1", "1", "realtime:types", "phx_join", payload])).await;
    } else {
        client
            .send_json(
                json!({"topic": "realtime:types", "event": "phx_join", "payload": payload, "ref": "1"}),
            )
            .await;
    }
    while !client.receive().await.to_text().unwrap().contains("Subscribed to PostgreSQL") {}
    client
}

#[tokio::test]
async fn each_type_is_written_as_the_real_servers_write_it() {
    let values = recorded();
    let (numbers, create, insert) = tables(&values);
    let stack = Stack::builder().without_migrations().sql(PREPARE).sql(create).start().await.unwrap();
    let mut listeners = Vec::new();
    for version in ["1.0.0", "2.0.0"] {
        listeners.push((version, subscriber(&stack, version).await));
    }
    let database = admin(&stack).await;
    database.batch_execute("set search_path = public, extensions, pg_catalog").await.unwrap();
    database.batch_execute(&insert).await.unwrap();

    let mut differences = String::new();
    for (version, client) in &mut listeners {
        for value in &values {
            let received = client.receive().await;
            let text = received.to_text().unwrap();
            let frame: Value = serde_json::from_str(text).unwrap();
            let data = if frame.is_array() { &frame[4]["data"] } else { &frame["payload"]["data"] };
            let table = format!("type_{}", numbers[&value.r#type]);
            assert_eq!(data["table"], table.as_str(), "{version}: {value:?}: {text}");
            // The bytes, as numbers lose digits on the way through most parsers of JSON.
            let record = text.split_once("\"record\":").unwrap().1.split_once(",\"columns\":").unwrap().0;
            if record != value.realtime_record {
                writeln!(
                    differences,
                    "Realtime {version} {} {}: {record}, recorded {}",
                    value.r#type, value.literal, value.realtime_record
                )
                .unwrap();
            }
            if data["columns"][1]["type"] != value.realtime_column_type.as_str() {
                writeln!(
                    differences,
                    "Realtime {version} {}: column type {}",
                    value.r#type, data["columns"][1]["type"]
                )
                .unwrap();
            }
        }
    }
    let mut ids = BTreeMap::<usize, u32>::new();
    for value in &values {
        let number = numbers[&value.r#type];
        let id = ids.entry(number).or_default();
        *id += 1;
        let path = format!("/rest/v1/type_{number}?id=eq.{id}&select=id,v");
        let answer = send(&stack, "GET", &path, &[("apikey", stack.anon_key())], b"").await.unwrap();
        if answer.body != value.postgrest_row {
            writeln!(
                differences,
                "REST {} {}: {}, recorded {}",
                value.r#type, value.literal, answer.body, value.postgrest_row
            )
            .unwrap();
        }
    }
    assert!(differences.is_empty(), "{differences}");
    stack.stop().await.unwrap();
}
