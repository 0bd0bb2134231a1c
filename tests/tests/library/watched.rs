//! A watch on the local stack, and everything that it reported.

use std::{collections::BTreeMap, time::Duration};

use futures_util::StreamExt as _;
use serde_json::value::RawValue;
use supabase_local::{Stack, rest::Settings};
use tendril_realtime::{
    Client, Filter,
    watch::{Query, Watch, WatchEvent},
};
use tokio::time::timeout;
use tokio_postgres::Client as Database;

/// Longer than events are taken for older than a list.
pub(super) const GRACE_PERIOD: Duration = Duration::from_millis(2_500);

const PREPARE: &str = "
    create extension citext schema extensions; create extension hstore schema extensions;
    create extension ltree schema extensions;
    create schema t_types;
    create type t_types.mood as enum ('sad', 'happy', 'so, \"so\"');
    create type t_types.addr as (street text, nr int);
    create domain t_types.posint as int check (value > 0);
    create domain t_types.code as char(3);
    create collation public.any_case (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
    grant usage on schema t_types to service_role;";

pub(super) async fn stack(sql: &str, settings: Settings) -> (Stack, Database, Client) {
    let stack = Stack::builder().without_migrations().sql(PREPARE).sql(sql).rest(settings).start().await;
    let stack = stack.expect("the local stack starts");
    let database = tendril_tests::connect(&stack.admin_url()).await;
    database.batch_execute("set search_path = public, extensions, pg_catalog").await.expect("a search path");
    let client = Client::builder(stack.api_url(), stack.service_role_key()).build().expect("a client");
    (stack, database, client)
}

/// No poll helps: what is reported is reported because of an event.
pub(super) fn query(table: &str) -> Query {
    let far = Duration::from_secs(3_000);
    Query::table(table).poll_interval(far).resync_interval(far)
}

/// A watch, and everything that it reported.
pub(super) struct Watched {
    pub(super) watch: Watch<Box<RawValue>>,
    key: &'static str,
    pub(super) rows: BTreeMap<String, String>,
    /// Each report: `true` for a row, `false` for a deletion, with its JSON.
    pub(super) reports: Vec<(bool, String)>,
}

impl Watched {
    /// Live, and past the time in which events may be older than the list.
    pub(super) async fn start(client: &Client, query: Query, key: &'static str) -> Self {
        let watch = client.watch(query).expect("a query");
        let mut watched = Self { watch, key, rows: BTreeMap::new(), reports: Vec::new() };
        while !watched.watch.is_live() {
            watched.drain(Duration::from_millis(20)).await;
        }
        watched
    }

    /// Reads until nothing came for this long.
    pub(super) async fn drain(&mut self, silence: Duration) {
        while let Ok(event) = timeout(silence, self.watch.next()).await {
            match event.expect("a watch has no end") {
                Ok(WatchEvent::InitApply(row) | WatchEvent::Apply(row)) => {
                    self.rows.insert(value(&row, self.key), row.get().to_owned());
                    self.reports.push((true, row.get().to_owned()));
                }
                Ok(WatchEvent::Delete(row)) => {
                    self.rows.remove(&value(&row, self.key));
                    self.reports.push((false, row.get().to_owned()));
                }
                Ok(WatchEvent::Interrupted(error) | WatchEvent::Undecodable { error, .. }) | Err(error) => {
                    panic!("{error}")
                }
                Ok(_) => {}
            }
        }
    }
}

/// A column's JSON.
pub(super) fn value(row: &RawValue, column: &str) -> String {
    let columns: BTreeMap<String, Box<RawValue>> = serde_json::from_str(row.get()).expect("an object");
    columns[column].get().to_owned()
}

/// The rows as a read returns them, by the JSON of this column, without white space between their parts.
pub(super) async fn read(
    client: &Client,
    table: &str,
    filter: Option<&Filter>,
    key: &str,
) -> BTreeMap<String, String> {
    let mut request = client.rest().from(table).select("*");
    if let Some(filter) = filter {
        request = request.filter(filter.clone());
    }
    let rows: Vec<Box<RawValue>> = request.rows().await.expect("rows");
    rows.iter().map(|row| (value(row, key), normal(row.get()))).collect()
}

/// With the columns in one order, each as it was written.
pub(super) fn normal(json: &str) -> String {
    let columns: BTreeMap<String, Box<RawValue>> = serde_json::from_str(json).expect("an object");
    serde_json::to_string(&columns).expect("JSON")
}
