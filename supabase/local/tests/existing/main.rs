//! A stack on an existing database: what it needs, its errors, and that nothing of the database is lost.

#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "a test may fail")]

mod foreign;
#[path = "../realtime/http.rs"]
mod http;
mod program;
mod rights;
mod unsuitable;

use foreign::Foreign;
use futures_util::{SinkExt as _, StreamExt as _};
use http::send;
use serde_json::{Value, json};
use supabase_local::{Stack, StackError};
use tokio_tungstenite::tungstenite::Message;

const USER: &str = "11111111-1111-4111-8111-111111111111";

const MIGRATION: &str = "
    create table public.notes (id bigint generated always as identity primary key, owner uuid default auth.uid(), body text);
    alter table public.notes enable row level security;
    create policy own on public.notes to authenticated using (owner = (select auth.uid()));
    grant all on public.notes to authenticated;
    alter publication supabase_realtime add table public.notes;
    create function public.forget() returns void language sql as 'delete from public.notes';
";

/// A directory with the one migration.
fn migrations() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("20260101000000_notes.sql"), MIGRATION).unwrap();
    dir
}

/// A stack on a database, with the migration.
async fn start(url: String) -> Result<Stack, StackError> {
    Stack::builder().existing_database(url).migrations(migrations().path()).start().await
}

/// A REST request of the user: the status and the body.
async fn rest(stack: &Stack, method: &str, path: &str, body: Value) -> (u16, String) {
    let token = format!("Bearer {}", stack.mint_user(USER));
    let headers = [
        ("apikey", stack.anon_key()),
        ("Authorization", &token),
        ("Content-Type", "application/json"),
        ("Prefer", "return=representation"),
    ];
    let path = format!("/rest/v1/{path}");
    let answer = send(stack, method, &path, &headers, body.to_string().as_bytes()).await.unwrap();
    (answer.status, answer.body)
}

/// Writes a row, reads it and receives its change, all as the user.
async fn works(stack: &Stack, body: &str) {
    let (ws, anon) = (stack.api_url().replacen("http", "ws", 1), stack.anon_key());
    let url = format!("{ws}/realtime/v1/websocket?apikey={anon}&vsn=2.0.0");
    let (mut socket, _) = tokio_tungstenite::connect_async(url).await.unwrap();
    let bindings = json!([{"event": "INSERT", "schema": "public", "table": "notes"}]);
    let join = json!({"config": {"postgres_changes": bindings}, "access_token": stack.mint_user(USER)});
    socket.send(Message::text(json!(["1", "1", "realtime:n", "phx_join", join]).to_string())).await.unwrap();
    let mut receive = async |text: &str| {
        let time_limit = std::time::Duration::from_secs(20);
        let received = async {
            loop {
                let frame = socket.next().await.unwrap().unwrap().into_text().unwrap();
                if frame.contains(text) {
                    break;
                }
            }
        };
        tokio::time::timeout(time_limit, received).await.unwrap_or_else(|_| panic!("{text} never came"));
    };
    receive("Subscribed to PostgreSQL").await;
    let (status, answer) = rest(stack, "POST", "notes", json!({"body": body})).await;
    assert_eq!(status, 201, "{answer}");
    receive(body).await;
    let (status, answer) =
        rest(stack, "GET", &format!("notes?body=eq.{body}&select=body"), Value::Null).await;
    assert_eq!((status, answer), (200, json!([{"body": body}]).to_string()));
    // Nobody else sees it.
    let anonymous = send(stack, "GET", "/rest/v1/notes", &[("apikey", anon)], b"").await.unwrap();
    assert_eq!(anonymous.status, 401, "{}", anonymous.body);
    let (status, answer) = rest(stack, "DELETE", "notes", Value::Null).await;
    assert_eq!(status, 400, "{answer}");
}

/// An account, from its making to a token.
async fn signs_up(stack: &Stack, email: &str) {
    let headers = [("apikey", stack.anon_key()), ("Content-Type", "application/json")];
    let body = json!({"email": email, "password": "secret-enough"}).to_string();
    let answer = send(stack, "POST", "/auth/v1/signup", &headers, body.as_bytes()).await.unwrap();
    let (status, text) = (answer.status, answer.body);
    assert_eq!(status, 200, "{text}");
    assert!(text.contains("access_token"), "{text}");
}

#[tokio::test]
async fn an_ordinary_database_becomes_one_of_supabase_and_keeps_what_it_had() {
    let foreign = Foreign::start(&[]).await;
    let theirs =
        "create table public.theirs (n int); insert into public.theirs select generate_series(1, 1000);
                  create role anon nologin; create schema extensions";
    foreign.sql("postgres", theirs).await;
    let stack = start(foreign.url("me", "postgres")).await.unwrap();
    assert_eq!(stack.database_url(), foreign.url("me", "postgres"));
    assert!(stack.postgres().is_none());
    works(&stack, "first").await;
    signs_up(&stack, "me@example.com").await;
    // Also inside of functions, on tables that came later.
    let (status, answer) = rest(&stack, "POST", "rpc/forget", json!({})).await;
    assert_eq!((status, answer.contains("DELETE requires a WHERE clause")), (400, true), "{answer}");
    stack.stop().await.unwrap();
    assert_eq!(foreign.count("postgres", "select count(*) from public.theirs").await, 1000);
    assert_eq!(foreign.count("postgres", "select count(*) from public.notes").await, 1);
    let triggers = "select count(*) from pg_trigger where tgrelid = 'public.theirs'::regclass";
    assert_eq!(foreign.count("postgres", triggers).await, 0);
    assert_eq!(foreign.count("postgres", "select count(*) from pg_replication_slots").await, 0);
    // Again, twice at a time, and nothing is applied twice.
    let before = foreign.contents("postgres").await;
    let url = foreign.url("me", "postgres");
    let (one, other) = tokio::try_join!(start(url.clone()), start(url)).unwrap();
    works(&one, "second").await;
    works(&other, "third").await;
    signs_up(&other, "other@example.com").await;
    one.stop().await.unwrap();
    works(&other, "fourth").await;
    other.stop().await.unwrap();
    assert_eq!(foreign.contents("postgres").await, before);
}

#[tokio::test]
async fn two_databases_of_a_server_are_apart_and_a_unix_socket_is_a_way_in() {
    let foreign = Foreign::start(&[]).await;
    foreign.sql("postgres", "create database one").await;
    foreign.sql("postgres", "create database \"T w o\"").await;
    let one = start(foreign.socket_url("me", "one")).await.unwrap();
    let two = start(foreign.url("me", "T%20w%20o")).await.unwrap();
    works(&one, "only-one").await;
    works(&two, "only-two").await;
    let (_, answer) = rest(&two, "GET", "notes?select=body", Value::Null).await;
    assert_eq!(answer, json!([{"body": "only-two"}]).to_string());
    one.stop().await.unwrap();
    two.stop().await.unwrap();
}

#[tokio::test]
async fn a_stack_without_migrations_or_with_a_new_one_leaves_the_rows_there() {
    let foreign = Foreign::start(&[]).await;
    let url = foreign.url("me", "postgres");
    let bare = Stack::builder().existing_database(&url).without_migrations().start().await.unwrap();
    bare.stop().await.unwrap();
    let stack = start(url.clone()).await.unwrap();
    works(&stack, "kept").await;
    stack.stop().await.unwrap();
    let dir = migrations();
    std::fs::write(dir.path().join("20260102000000_more.sql"), "create table public.more (n int)").unwrap();
    let builder = || Stack::builder().existing_database(&url).migrations(dir.path());
    builder().start().await.unwrap().stop().await.unwrap();
    assert_eq!(foreign.count("postgres", "select count(*) from public.notes").await, 1);
    assert_eq!(foreign.count("postgres", "select count(*) from public.more").await, 0);
    // One that fails is named, and undone.
    std::fs::write(dir.path().join("20260103000000_wrong.sql"), "create table public.w (n int); select 1/0")
        .unwrap();
    let error = builder().start().await.unwrap_err().to_string();
    assert!(error.contains("20260103000000_wrong.sql") && error.contains("division by zero"), "{error}");
    assert_eq!(foreign.count("postgres", "select count(*) from pg_tables where tablename = 'w'").await, 0);
    let down = bare_error(&url).await;
    assert!(down.contains("not taken down"), "{down}");
}

/// The answer of `refuse_database` on a database that belongs to another program.
async fn bare_error(url: &str) -> String {
    let stack = Stack::builder().existing_database(url).without_migrations().start().await.unwrap();
    let error = stack.refuse_database(true).await.unwrap_err().to_string();
    stack.stop().await.unwrap();
    error
}
