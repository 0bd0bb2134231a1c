//! UPDATE and DELETE without WHERE are refused over the API, also inside of functions, and nowhere else.

#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "a test may fail")]

#[path = "realtime/http.rs"]
mod http;

use serde_json::{Value, json};
use supabase_local::Stack;

const SCHEMA: &str = r#"
create table public.res (id int primary key, n int default 0);
create table public."odd "" name" (id int primary key);
grant all on all tables in schema public to anon;
create view public.seen as select * from public.res;
grant all on public.seen to anon;
create function public.run(statement text) returns void language plpgsql as $$ begin execute statement; end $$;
create function public.wipe() returns void language plpgsql as $$ begin
  delete
    from public.res;
end $$;
create function public.wipe_caught() returns text language plpgsql as $$ begin
  begin
    update public.res set n = 1;
  exception when others then return sqlstate || ' ' || sqlerrm;
  end;
  return 'done';
end $$;
create function public.wipe_sql() returns void language sql as $$ select 1; delete from public.res; $$;
create function public.wipe_atomic() returns void language sql begin atomic
  delete from public.res;
end;
create function public.keep_sql() returns void language sql as $$ update public.res set n = n + 1 where id > 0 $$;
create function public.wipe_in_trigger() returns trigger language plpgsql as $$ begin delete from public.res; return new; end $$;
create table public.trap (id int primary key);
grant all on public.trap to anon;
create trigger trap after insert on public.trap for each row execute function public.wipe_in_trigger();
"#;

struct Api {
    stack: Stack,
}

impl Api {
    async fn call(&self, function: &str, arguments: &Value) -> (u16, String) {
        self.post(&format!("rpc/{function}"), arguments).await
    }

    async fn post(&self, path: &str, body: &Value) -> (u16, String) {
        let headers = [("apikey", self.stack.anon_key()), ("content-type", "application/json")];
        let path = format!("/rest/v1/{path}");
        let answer =
            http::send(&self.stack, "POST", &path, &headers, body.to_string().as_bytes()).await.unwrap();
        (answer.status, answer.body)
    }

    async fn run(&self, statement: &str) -> (u16, String) {
        self.call("run", &json!({"statement": statement})).await
    }
}

async fn start() -> Api {
    let stack = Stack::builder().without_migrations().sql(SCHEMA).start().await.unwrap();
    Api { stack }
}

#[tokio::test]
async fn a_statement_in_a_function_needs_a_where_clause() {
    let api = start().await;
    for (statement, command) in [
        ("delete from public.res", "DELETE"),
        ("DELETE FROM public.res;", "DELETE"),
        ("update public.res set n = 2", "UPDATE"),
        ("update public.seen set n = 2", "UPDATE"),
        ("delete from public.res -- where id = 1", "DELETE"),
        ("delete /* where */ from public.res", "DELETE"),
        ("update public.res set n = length('where')", "UPDATE"),
        ("update public.res set n = (select 1 where true)", "UPDATE"),
        ("with gone as (delete from public.res returning id) select * from gone where id = 1", "DELETE"),
        ("with a as (select 1 where true) update public.res set n = 3", "UPDATE"),
        (r#"delete from public."odd "" name""#, "DELETE"),
        ("delete from public.res using public.trap", "DELETE"),
        ("delete from public.res returning $q$ where $q$", "DELETE"),
    ] {
        let (status, body) = api.run(statement).await;
        let expected = json!({
            "code": "21000", "details": null, "hint": null, "message": format!("{command} requires a WHERE clause"),
        });
        assert_eq!((status, serde_json::from_str::<Value>(&body).unwrap()), (400, expected), "{statement}");
    }
    for statement in [
        "delete from public.res where true",
        "delete from public.res\nWHERE id = 1",
        "update public.res set n = 2 where id in (select id from public.res)",
        "with a as (select 1) delete from public.res using a where true",
        "insert into public.res values (1) on conflict (id) do update set n = 5",
        "insert into public.res values (1) on conflict (id) do update set n = 5",
        "select * from public.res for update",
        "with a as (select * from public.res for update) select * from a",
        "delete from \"public\".\"res\"\nwhere \"id\" = 1",
        "truncate public.trap",
        r#"delete from public."odd "" name" where id = 1"#,
    ] {
        let (status, body) = api.run(statement).await;
        assert_eq!(status, 204, "{statement}: {body}");
    }
    api.stack.stop().await.unwrap();
}

#[tokio::test]
async fn functions_of_all_languages_and_triggers_are_looked_into() {
    let api = start().await;
    for name in ["wipe", "wipe_sql", "wipe_atomic"] {
        let (status, body) = api.call(name, &json!({})).await;
        assert_eq!(status, 400, "{name}: {body}");
        assert!(
            body.contains("\"21000\"") && body.contains("DELETE requires a WHERE clause"),
            "{name}: {body}"
        );
    }
    let (_, caught) = api.call("wipe_caught", &json!({})).await;
    assert_eq!(caught, "\"21000 UPDATE requires a WHERE clause\"");
    let (status, body) = api.call("keep_sql", &json!({})).await;
    assert_eq!(status, 204, "{body}");
    let (status, body) = api.post("trap", &json!({"id": 1})).await;
    assert_eq!(status, 400, "{body}");
    api.stack.stop().await.unwrap();
}

#[tokio::test]
async fn the_owner_may_write_all_rows_and_tables_made_later_are_guarded_too() {
    let api = start().await;
    let (owner, connection) =
        tokio_postgres::connect(&api.stack.admin_url(), tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    owner
        .batch_execute("select public.wipe(); delete from public.res; update public.res set n = 1")
        .await
        .unwrap();
    let later = "create table public.later (id int); grant all on public.later to anon; create table public.copied as select 1 as id; \
                 grant all on public.copied to anon";
    owner.batch_execute(later).await.unwrap();
    for table in ["later", "copied"] {
        let (status, body) = api.run(&format!("delete from public.{table}")).await;
        assert_eq!(status, 400, "{table}: {body}");
    }
    let (status, body) = api.run("create temp table short (id int); delete from short").await;
    assert_eq!(status, 400, "{body}");
    api.stack.stop().await.unwrap();
}
