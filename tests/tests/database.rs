//! The rules of the database, tested in the database: every file of `supabase/tests` with pgTAP.
//!
//! They run on the local PostgreSQL also with `STACK=external`: there, `supabase test db` runs the same files.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test may fail")]

use std::{
    fs,
    path::{Path, PathBuf},
};

use supabase_local::{PgCron, Stack};
use tendril_tests::{repository, tap::Tap};
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.expect("the database");
    tokio::spawn(connection);
    client
}

/// A database with pgTAP in it, and a connection as the project's owner.
async fn database(stack: &Stack) -> Client {
    let admin = connect(&stack.admin_url()).await;
    let create = "create schema if not exists extensions;
        create extension if not exists pgtap with schema extensions;
        grant usage on schema extensions to postgres;";
    if let Err(error) = admin.batch_execute(create).await {
        let version: String =
            admin.query_one("show server_version_num", &[]).await.expect("a version").get(0);
        let major = version.parse::<u32>().expect("a number") / 10_000;
        panic!(
            "pgTAP is not installed ({error:?}). Run: make setup, or: apt-get install -y postgresql-{major}-pgtap"
        );
    }
    connect(&stack.database_url()).await
}

/// Runs one file; answers how many tests there were, and what is wrong.
async fn run(database: &Client, file: &Path) -> (usize, Vec<String>) {
    let script = fs::read_to_string(file).expect("a file of tests");
    let (mut rows, mut problems) = (Vec::new(), Vec::new());
    match database.simple_query(&script).await {
        Ok(messages) => {
            let cells = messages.iter().filter_map(|message| match message {
                SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
                _ => None,
            });
            rows.extend(cells);
        }
        // Rows before the error are lost with it: the error shows where it is.
        Err(error) => {
            let shown =
                error.as_db_error().map_or_else(|| error.to_string(), |error| describe(error, &script));
            return (0, vec![shown]);
        }
    }
    let tap = Tap::read(rows.iter().map(String::as_str));
    problems.extend(tap.problems());
    (tap.run, problems)
}

/// An SQL error with its line in the file.
fn describe(error: &tokio_postgres::error::DbError, script: &str) -> String {
    use tokio_postgres::error::ErrorPosition;
    let line = match error.position() {
        Some(ErrorPosition::Original(at)) => {
            script.chars().take(*at as usize).filter(|c| *c == '\n').count() + 1
        }
        _ => 0,
    };
    format!(
        "line {line}: {} {} ({})",
        error.code().code(),
        error.message(),
        error.where_().unwrap_or("no context")
    )
}

fn test_files() -> Vec<PathBuf> {
    let entries = fs::read_dir(repository("supabase/tests")).expect("supabase/tests");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("a file").path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "sql"));
    files.sort();
    assert!(files.len() >= 8, "the files are there: {files:?}");
    files
}

#[tokio::test]
async fn every_rule_of_the_database_holds() {
    let stack = Stack::builder().start().await.expect("the local stack");
    let mut report = Vec::new();
    for file in test_files() {
        // Each file is a transaction that is rolled back, and has a connection of its own.
        let (run, problems) = run(&database(&stack).await, &file).await;
        println!("{}: {run} tests", file.display());
        report.extend(problems.into_iter().map(|problem| format!("{}: {problem}", file.display())));
    }
    assert!(report.is_empty(), "{}", report.join("\n"));
}

#[tokio::test]
async fn every_rule_holds_where_agents_are_authenticated_users() {
    let stack = Stack::builder().start().await.expect("the local stack");
    let database = database(&stack).await;
    let switch =
        fs::read_to_string(repository("supabase/optional/agent_as_authenticated.sql")).expect("the switch");
    database.batch_execute(&switch).await.expect("the switch is applied");
    let file = repository("supabase/optional/agent_as_authenticated_test.sql");
    let (run, problems) = run(&database, &file).await;
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    assert!(run > 10, "{run} tests");
}

#[tokio::test]
async fn a_rule_that_is_broken_is_found() {
    let stack = Stack::builder().start().await.expect("the local stack");
    let database = database(&stack).await;
    database.batch_execute("grant delete on public.deployments to tendril_agent").await.expect("a hole");
    let (run, problems) = run(&database, &repository("supabase/tests/grants.sql")).await;
    assert!(run > 0 && !problems.is_empty(), "{run} tests, {problems:?}");
}

#[tokio::test]
async fn where_pg_cron_is_installed_the_reaper_runs_by_the_clock() {
    let stack = Stack::builder().pg_cron(PgCron::Required).start().await;
    let stack =
        stack.expect("a stack with pg_cron: run make setup, or apt-get install -y postgresql-15-cron");
    let database = connect(&stack.database_url()).await;
    let jobs = "select string_agg(jobname, ' ' order by jobname) from cron.job";
    let jobs: String = database.query_one(jobs, &[]).await.expect("the jobs").get(0);
    assert_eq!(jobs, "tendril_forget_runs tendril_prune tendril_reap_lost_agents");
    // A cluster whose only agent died, and no other sends heartbeats.
    let seed = "insert into auth.users (id, email) values ('00000000-0000-4000-8000-00000000000a', 'alice@tests.invalid');
        insert into public.clusters (id, user_id, name, status) values
            ('00000000-0000-4000-8000-0000000000c1', '00000000-0000-4000-8000-00000000000a', 'c1', 'ONLINE');
        insert into public.agents (cluster_id, name, version, last_seen_at) values
            ('00000000-0000-4000-8000-0000000000c1', 'dead', '1', now() - interval '131 seconds');";
    database.batch_execute(seed).await.expect("a dead agent");
    let look = "select status, (public.reaper_status() -> 'scheduled')::boolean from public.clusters";
    tendril_tests::until("the cluster is OFFLINE", async || {
        let row = database.query_one(look, &[]).await.expect("the cluster");
        let (status, scheduled): (String, bool) = (row.get(0), row.get(1));
        if status == "OFFLINE" && scheduled {
            Ok(())
        } else {
            Err(format!("{status}, scheduled: {scheduled}"))
        }
    })
    .await;
}
