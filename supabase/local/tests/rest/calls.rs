//! Calls of functions, and what a function can read and answer.

use serde_json::json;
use supabase_local::rest::Settings;

use crate::service::{Place, Service};

const FUNCTIONS: &str = r#"
create function beat(version text, tokens uuid[] default '{}') returns jsonb language sql volatile as
  $$ select jsonb_build_object('version', version, 'count', cardinality(tokens)) $$;
create function pick(a int) returns text language sql as $$ select 'int ' || a $$;
create function pick(a int, b int) returns text language sql as $$ select 'ints ' || a || b $$;
create function total(variadic numbers int[]) returns int language sql as $$ select sum(n)::int from unnest(numbers) n $$;
create function names() returns setof text language sql as $$ values ('x'), ('y') $$;
create function first_item() returns items language sql stable as $$ select * from items order by id limit 1 $$;
create function pair() returns table (left_side int, right_side text) language sql as $$ select 1, 'one' $$;
create function whole(jsonb) returns jsonb language sql as $$ select $1->'any' $$;
create function context() returns json language sql stable as $$
  select json_build_object(
    'role', current_user, 'method', current_setting('request.method'), 'path', current_setting('request.path'),
    'header', current_setting('request.headers')::json->>'x-test', 'cookie', current_setting('request.cookies')::json->>'c',
    'read_only', current_setting('transaction_read_only'), 'zone', current_setting('timezone'))
$$;
create function writes() returns void language sql as $$ insert into items (code) values ('written') $$;
create function teapot() returns text language plpgsql as $$ begin
  perform set_config('response.status', '418', true);
  perform set_config('response.headers', '[{"X-Pot": "tea"}, {"Cache-Control": "no-store"}]', true);
  return 'short';
end $$;
grant execute on all functions in schema public to anon;
insert into items (code) values ('first');
"#;

#[tokio::test(flavor = "multi_thread")]
async fn functions_are_called_with_what_they_take() {
    let place = Place::prepare("calls").await;
    place.sql(FUNCTIONS).await;
    let service = Service::start(&place, Settings::default()).await;
    let tokens = r#"{"version": "1", "tokens": ["11111111-1111-1111-1111-111111111111"]}"#;
    for (method, path, body, expected) in [
        ("POST", "/rpc/beat", tokens, json!({"version": "1", "count": 1})),
        ("POST", "/rpc/beat", r#"{"version": "1"}"#, json!({"version": "1", "count": 0})),
        ("POST", "/rpc/pick", r#"{"a": 1}"#, json!("int 1")),
        ("GET", "/rpc/pick?a=1&b=2", "", json!("ints 12")),
        ("GET", "/rpc/total?numbers=1&numbers=2", "", json!(3)),
        ("POST", "/rpc/total", r#"{"numbers": [1, 2, 3]}"#, json!(6)),
        ("POST", "/rpc/names", "", json!(["x", "y"])),
        ("GET", "/rpc/first_item?select=id,code", "", json!({"id": 1, "code": "first"})),
        ("GET", "/rpc/pair", "", json!([{"left_side": 1, "right_side": "one"}])),
        ("GET", "/rpc/pair?left_side=eq.2", "", json!([])),
        ("POST", "/rpc/whole", r#"{"any": [2]}"#, json!([2])),
    ] {
        let answer = service.request(method, path, "", body).await;
        assert_eq!(
            (answer.status, answer.json()),
            (200, expected),
            "{method} {path} {body}: {}",
            answer.body
        );
    }
    place.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_sees_the_request_and_shapes_the_answer() {
    let place = Place::prepare("context").await;
    place.sql(FUNCTIONS).await;
    let service = Service::start(&place, Settings::default()).await;
    let headers = "X-Test: yes\r\nCookie: c=1; d=2\r\nPrefer: timezone=Europe/Berlin";
    let seen = service.request("GET", "/rpc/context", headers, "").await;
    let expected = json!({
        "role": "anon", "method": "GET", "path": "/rpc/context", "header": "yes", "cookie": "1", "read_only": "on",
        "zone": "Europe/Berlin"
    });
    assert_eq!(seen.json(), expected);
    let refused = service.get("/rpc/writes").await;
    assert_eq!((refused.status, &refused.json()["code"]), (405, &json!("25006")));
    let teapot = service.request("POST", "/rpc/teapot", "", "{}").await;
    assert_eq!(
        (teapot.status, teapot.header("x-pot"), teapot.header("cache-control")),
        (418, Some("tea"), Some("no-store"))
    );
    place.remove().await;
}
