//! What lenient servers let pass: paths, methods, raw characters, zero bytes, writes of all rows.

use serde_json::json;
use supabase_local::rest::Settings;

use crate::service::{Place, Service};

const TABLES: &str = r"
create table jobs (id int primary key, name text, payload jsonb default '{}');
create table logs (id int primary key, job_id int references jobs, stuff text, a text);
create table notes (id int primary key, job_id int references jobs, title text);
insert into jobs values (1, 'a', '{}'), (2, 'ab', '{}'), (3, null, '{}');
insert into logs values (10, 1, 's', 't'), (11, 1, 'u', 'v');
insert into notes values (20, 1, 'n');
grant all on jobs, logs, notes to anon;
create function echo(v text) returns text language sql immutable as $$ select v $$;
create function echoes(variadic v text[]) returns text language sql immutable as $$ select v[1] $$;
create function refuse(code text, message text) returns void language plpgsql as
  $$ begin raise exception using errcode = code, message = message; end $$;
grant execute on all functions in schema public to anon;
";

/// A request and what answers it.
type Case<'a> = (&'a str, &'a str, u16, &'a str);

async fn check(service: &Service, cases: &[Case<'_>]) {
    for (method, path, status, code) in cases {
        let answer = service.request(method, path, "", "").await;
        assert_eq!(answer.status, *status, "{method} {path}: {}", answer.body);
        if !code.is_empty() {
            assert_eq!(answer.json()["code"], *code, "{method} {path}: {}", answer.body);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_target_takes_its_own_methods_and_paths_count_to_the_last_slash() {
    let place = Place::prepare("targets").await;
    place.sql(TABLES).await;
    let service = Service::start(&place, Settings::default()).await;
    for root in ["", "/"] {
        for method in ["GET", "HEAD", "OPTIONS"] {
            check(&service, &[(method, root, 200, "")]).await;
        }
        for method in ["POST", "PUT", "PATCH", "DELETE", "FOO"] {
            check(&service, &[(method, root, 405, "PGRST117")]).await;
        }
    }
    check(
        &service,
        &[
            ("FOO", "/jobs", 405, "PGRST117"),
            ("PUT", "/rpc/echo", 405, "PGRST101"),
            ("DELETE", "/rpc/echo", 405, "PGRST101"),
            ("FOO", "/rpc/echo", 405, "PGRST101"),
            ("GET", "//x00", 404, "PGRST125"),
            ("GET", "//jobs", 404, "PGRST125"),
            ("GET", "/jobs/", 404, "PGRST125"),
            ("DELETE", "/jobs/", 404, "PGRST125"),
            ("GET", "/jobs/1", 404, "PGRST125"),
            ("GET", "//", 404, "PGRST125"),
            ("GET", "/rpc", 404, "PGRST205"),
            ("GET", "/rpc/", 404, "PGRST202"),
            ("GET", "/rpc/echo/", 404, "PGRST125"),
            ("GET", "/rpc//echo", 404, "PGRST125"),
        ],
    )
    .await;
    let document = service.get("/").await;
    assert_eq!(document.header("content-type"), Some("application/openapi+json; charset=utf-8"));
    assert!(document.json()["paths"]["/jobs"]["post"].is_object(), "{}", document.body);
    assert!(document.json()["paths"]["/nogrant"].is_null(), "a table of others is not shown");
    let csv = service.request("GET", "/", "Accept: text/csv", "").await;
    assert_eq!((csv.status, &csv.json()["code"]), (406, &json!("PGRST107")));
    place.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn any_character_but_a_space_may_stand_in_a_query_string() {
    let place = Place::prepare("raw").await;
    place.sql(TABLES).await;
    let service = Service::start(&place, Settings::default()).await;
    for byte in 0x21..=0x7e_u8 {
        let character = char::from(byte);
        // `&` ends the parameter, `%` begins a code, `+` is a space.
        let expected = match character {
            '&' | '%' => continue,
            '+' => "x y".to_owned(),
            other => format!("x{other}y"),
        };
        let answer = service.get(&format!("/rpc/echo?v=x{character}y")).await;
        assert_eq!((answer.status, answer.json()), (200, json!(expected)), "{character}");
    }
    let answer = service.get("/jobs?select=payload->>a&id=eq.1").await;
    assert_eq!((answer.status, answer.json()), (200, json!([{"a": null}])), "{}", answer.body);
    place.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn values_end_at_a_zero_byte() {
    let place = Place::prepare("nul").await;
    place.sql(TABLES).await;
    let service = Service::start(&place, Settings::default()).await;
    for (path, expected) in [
        ("/jobs?select=id&name=eq.a%00b", json!([{"id": 1}])),
        ("/jobs?select=id&name=eq.a%00", json!([{"id": 1}])),
        ("/jobs?select=id&name=eq.%00a", json!([])),
        ("/jobs?select=id&name=like.a%00b*", json!([{"id": 1}])),
        ("/jobs?select=id&or=(name.eq.a%00b,id.eq.9)", json!([{"id": 1}])),
        ("/jobs?select=id&and=(name.eq.\"ab%00c\")", json!([{"id": 2}])),
        ("/jobs?select=id&name=isdistinct.a%00b&id=lt.3", json!([{"id": 2}])),
        ("/rpc/echo?v=a%00b", json!("a")),
        ("/rpc/echo?v=%00", json!("")),
    ] {
        let answer = service.get(path).await;
        assert_eq!((answer.status, answer.json()), (200, expected), "{path}: {}", answer.body);
    }
    // One value holds a whole list; cut short it is no array.
    check(
        &service,
        &[("GET", "/jobs?name=in.(a%00b,c)", 400, "22P02"), ("GET", "/rpc/echoes?v=a%00b", 400, "22021")],
    )
    .await;
    place.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_words_beside_a_status_are_postgrests() {
    let place = Place::prepare("reasons").await;
    place.sql(TABLES).await;
    let service = Service::start(&place, Settings::default()).await;
    for (code, message, status, reason) in [
        ("PT409", "custom 1", 409, "custom 1"),
        ("PT418", "short and stout", 418, "short and stout"),
        ("PT999", "two\\nlines", 999, "two lines"),
        ("P0001", "plain", 400, "Bad Request"),
    ] {
        let body = format!(r#"{{"code": "{code}", "message": "{message}"}}"#);
        let answer = service.request("POST", "/rpc/refuse", "", &body).await;
        assert_eq!((answer.status, answer.reason.as_str()), (status, reason), "{code}");
    }
    let beyond = service.request("GET", "/jobs?offset=9", "Prefer: count=exact", "").await;
    assert_eq!((beyond.status, beyond.reason.as_str()), (416, "Requested Range Not Satisfiable"));
    place.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_related_table_that_is_filtered_or_ordered_comes_first() {
    let place = Place::prepare("key_order").await;
    place.sql(TABLES).await;
    let service = Service::start(&place, Settings::default()).await;
    let notes = r#""notes":[{"id": 20}]"#;
    let logs = |ids: [u32; 2]| format!(r#""logs":[{{"id": {}}}, {{"id": {}}}]"#, ids[0], ids[1]);
    for (query, expected) in [
        ("select=notes(id),id,logs(id)", [notes.to_owned(), logs([10, 11])]),
        ("select=id,notes(id),logs(id)&logs.order=id.desc", [logs([11, 10]), notes.to_owned()]),
        ("select=id,notes(id),logs(id)&logs.id=gt.1", [logs([10, 11]), notes.to_owned()]),
        ("select=id,notes(id),logs(id)&logs.or=(id.gt.1)", [logs([10, 11]), notes.to_owned()]),
        ("select=id,notes(id),logs(id)&logs.limit=5", [logs([10, 11]), notes.to_owned()]),
        // Orders are applied after filters, the last of several first.
        ("select=id,notes(id),logs(id)&logs.id=gt.1&notes.order=id", [notes.to_owned(), logs([10, 11])]),
        ("select=id,notes(id),logs(id)&logs.order=id&notes.order=id", [logs([10, 11]), notes.to_owned()]),
    ] {
        let answer = service.get(&format!("/jobs?{query}&id=eq.1")).await;
        assert_eq!(answer.body, format!(r#"[{{"id":1,{}}}]"#, expected.join(",")), "{query}");
    }
    let keys = service.get("/jobs?select=logs(stuff,id,a)&id=eq.1&logs.order=id&logs.limit=1").await;
    assert_eq!(keys.body, r#"[{"logs":[{"a": "t", "id": 10, "stuff": "s"}]}]"#);
    place.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_of_all_rows_are_refused_unless_the_server_is_told_otherwise() {
    let place = Place::prepare("all_rows").await;
    place.sql(TABLES).await;
    let service = Service::start(&place, Settings::default()).await;
    for query in ["", "?select=id", "?order=id", "?limit=1", "?columns=name", "?on_conflict=id"] {
        for (method, body, message) in [
            ("DELETE", "", "DELETE requires a WHERE clause"),
            ("PATCH", r#"{"name": "x"}"#, "UPDATE requires a WHERE clause"),
        ] {
            let answer = service.request(method, &format!("/logs{query}"), "", body).await;
            let expected = json!({"code": "21000", "details": null, "hint": null, "message": message});
            if query == "?columns=name" && method == "PATCH" {
                assert_eq!(answer.json()["code"], "PGRST204", "{}", answer.body);
            } else if method == "PATCH" && !query.contains("columns") {
                let body = r#"{"a": "x"}"#;
                let answer = service.request(method, &format!("/logs{query}"), "", body).await;
                assert_eq!((answer.status, answer.json()), (400, expected), "{method} {query}");
            } else {
                assert_eq!((answer.status, answer.json()), (400, expected), "{method} {query}");
            }
        }
    }
    // Nothing is set, so nothing is updated.
    check(&service, &[("DELETE", "/logs?id=eq.99", 204, "")]).await;
    let empty = service.request("PATCH", "/logs", "", "{}").await;
    assert_eq!(empty.status, 204, "{}", empty.body);
    let lenient = Service::start(&place, Settings { safe_update: false, ..Settings::default() }).await;
    check(&lenient, &[("DELETE", "/logs", 204, "")]).await;
    place.remove().await;
}
