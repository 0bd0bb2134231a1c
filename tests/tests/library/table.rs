//! A published table and someone who writes to it.

use serde::Deserialize;
use supabase_local::Stack;
use tendril_realtime::{Client, ClientBuilder};
use tendril_tests::connect;
use tokio_postgres::Client as Database;

/// What the tests' table holds.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Job {
    pub(crate) id: i64,
    pub(crate) status: String,
}

const SCHEMA: &str = "
    create table public.jobs (id bigint primary key, status text not null default 'QUEUED', note text);
    grant select, insert, update, delete on public.jobs to anon, authenticated, service_role;
    alter publication supabase_realtime add table public.jobs;";

/// A stack with the table, and a connection to its database.
pub(crate) async fn stack() -> (Stack, Database) {
    let stack =
        Stack::builder().without_migrations().sql(SCHEMA).start().await.expect("the local stack starts");
    let database = connect(&stack.admin_url()).await;
    (stack, database)
}

/// A client of the stack; pauses are short, so that tests are.
pub(crate) fn builder(stack: &Stack) -> ClientBuilder {
    Client::builder(stack.api_url(), stack.service_role_key())
        .reconnect_backoff(std::time::Duration::from_millis(50), std::time::Duration::from_millis(500))
}

/// Inserts rows `from..to` in one statement.
pub(crate) async fn insert(database: &Database, from: i64, to: i64) {
    database
        .execute(
            "insert into public.jobs (id) select generate_series($1::bigint, $2::bigint - 1)",
            &[&from, &to],
        )
        .await
        .expect("rows");
}
