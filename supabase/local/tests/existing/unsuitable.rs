//! Databases that cannot be used: one error lists everything that is wrong and what to do, and nothing was changed.

use supabase_local::{ErrorKind, Stack, StackError};

use crate::foreign::Foreign;
use crate::start;

/// The error of a start that must leave everything as it was.
async fn refused(foreign: &Foreign, user: &str, database: &str) -> StackError {
    let before = foreign.contents(database).await;
    let error = start(foreign.url(user, database)).await.unwrap_err();
    assert_eq!(foreign.contents(database).await, before, "nothing was changed");
    assert!(!format!("{error} {error:?}").contains("pa ss"), "{error:?}");
    error
}

#[tokio::test]
async fn a_server_that_cannot_replicate_is_named_with_its_settings() {
    let foreign = Foreign::start(&["wal_level=replica", "max_wal_senders=1"]).await;
    let error = refused(&foreign, "me", "postgres").await;
    assert_eq!(error.kind(), ErrorKind::DatabaseUnsuitable);
    let text = error.to_string();
    for parts in
        ["wal_level is replica", "alter system set wal_level = logical", "max_wal_senders", "restart"]
    {
        assert!(text.contains(parts), "{parts} in {text}");
    }
}

#[tokio::test]
async fn who_is_no_superuser_cannot_make_a_supabase_database() {
    let foreign = Foreign::start(&[]).await;
    foreign.sql("postgres", "create role app login createdb createrole password 'pa ss/word'").await;
    let text = refused(&foreign, "app", "postgres").await.to_string();
    for parts in ["user app is no superuser", "anon, authenticated, service_role, authenticator, postgres"] {
        assert!(text.contains(parts), "{parts} in {text}");
    }
}

#[tokio::test]
async fn a_schema_of_the_same_name_is_not_touched() {
    let foreign = Foreign::start(&[]).await;
    foreign.sql("postgres", "create schema auth; create table auth.users (mine int)").await;
    let text = refused(&foreign, "me", "postgres").await.to_string();
    assert!(text.contains("schema auth") && text.contains("no Supabase database"), "{text}");
    // Both, and nothing in them.
    foreign.sql("postgres", "create schema realtime").await;
    let text = refused(&foreign, "me", "postgres").await.to_string();
    for parts in ["role anon", "table auth.sessions", "table realtime.messages", "function auth.uid()"] {
        assert!(text.contains(parts), "{parts} in {text}");
    }
}

#[tokio::test]
async fn a_preparation_that_fails_midway_leaves_nothing() {
    let foreign = Foreign::start(&[]).await;
    let obstacle = "create function public.f() returns event_trigger language plpgsql as 'begin end';
                    create event trigger safeupdate_watch on sql_drop execute function public.f();
                    create event trigger pgrst_drop_watch on sql_drop execute function public.f()";
    foreign.sql("postgres", obstacle).await;
    let error = refused(&foreign, "me", "postgres").await;
    assert_eq!(error.kind(), ErrorKind::Sql);
    assert!(error.to_string().contains("pgrst_drop_watch"), "{error}");
}

#[tokio::test]
async fn roles_that_see_too_much_or_too_little_are_refused() {
    let foreign = Foreign::start(&[]).await;
    let roles = "create role anon nologin bypassrls; create role authenticated superuser; create role service_role nologin";
    foreign.sql("postgres", roles).await;
    let text = refused(&foreign, "me", "postgres").await.to_string();
    for role in
        ["role anon may see every row", "role authenticated may see every row", "role service_role is bound"]
    {
        assert!(text.contains(role), "{role} in {text}");
    }
}

#[tokio::test]
async fn another_encoding_is_refused() {
    let foreign = Foreign::start(&[]).await;
    foreign.sql("postgres", "create database old encoding 'LATIN1' template template0 locale 'C'").await;
    let text = refused(&foreign, "me", "old").await.to_string();
    assert!(text.contains("its encoding is LATIN1"), "{text}");
}

#[tokio::test]
async fn who_cannot_connect_is_told_where_and_as_whom() {
    let foreign = Foreign::start(&[]).await;
    let url = foreign.url("me", "postgres");
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let cases = [
        (url.replace("pa%20ss", "hunter2"), vec!["password authentication failed", "as me"]),
        (url.replace("/postgres", "/nowhere"), vec!["database \"nowhere\" does not exist", "nowhere"]),
        (url.replace(&foreign.port.to_string(), &closed.to_string()), vec!["refused", "127.0.0.1:"]),
        (url.replace("127.0.0.1", "no-such-host.invalid"), vec!["no-such-host.invalid"]),
    ];
    for (url, parts) in cases {
        let error = Stack::builder().existing_database(&url).without_migrations().start().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Database, "{error}");
        let text = format!("{error} {error:?}");
        for part in parts {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert!(!text.contains("hunter2") && !text.contains("pa ss") && !text.contains("pa%20ss"), "{text}");
    }
    let error = Stack::builder().existing_database("mysql://x").start().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DatabaseUrl);
}
