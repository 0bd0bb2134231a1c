//! Every call against a scripted server: redirects, refused tokens, addresses, and what goes over the wire.

use std::{
    fmt::Write as _,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
};

use serde::{Serialize, Serializer};
use serde_json::{Value, json};
use wiremock::{
    Mock, MockServer, Request, ResponseTemplate,
    matchers::{any, header},
};

use super::{Count, Explain, QueryBuilder, Rest, RetryPolicy};
use crate::{
    error::{Error, ErrorKind},
    filter::col,
    secret::AccessToken,
    token::{TokenFuture, TokenSource},
};

type Call = Pin<Box<dyn Future<Output = Result<(), Error>> + Send>>;

fn rest(server: &MockServer) -> Rest {
    Rest::builder(server.uri(), "sb_secret_0123456789abcdef").build().unwrap()
}

fn done<T: Send + 'static>(call: impl Future<Output = Result<T, Error>> + Send + 'static) -> Call {
    Box::pin(async { call.await.map(drop) })
}

/// One of each kind.
fn calls(rest: &Rest) -> Vec<(&'static str, Call)> {
    let row = json!({"id": 1});
    let table = || rest.from("t");
    let function = rest.clone();
    vec![
        ("rows", done(table().rows::<Value>())),
        ("single", done(table().single::<Value>())),
        ("maybe_single", done(table().maybe_single::<Value>())),
        ("csv", done(table().csv())),
        ("head", done(table().head().execute())),
        ("explain", done(table().explain(Explain::default()))),
        ("insert", done(table().insert(&row).execute())),
        ("upsert", done(table().upsert(&row).rows::<Value>())),
        ("update", done(table().update(&row).eq("id", 1).execute())),
        ("delete", done(table().delete().eq("id", 1).execute())),
        ("rpc", done(rest.rpc("f", &row).value::<Value>())),
        ("rpc get", done(rest.rpc("f", &row).get().value::<Value>())),
        ("invoke", Box::pin(async move { function.invoke("f", &json!({})).await.map(drop) })),
    ]
}

#[tokio::test]
async fn a_redirect_is_an_error_that_names_its_target_and_carries_the_key_nowhere() {
    let elsewhere = MockServer::start().await;
    Mock::given(any()).respond_with(ResponseTemplate::new(200)).mount(&elsewhere).await;
    for status in [301, 302, 303, 307, 308] {
        let server = MockServer::start().await;
        let to = format!("{}/rest/v1/t?secret=x", elsewhere.uri());
        Mock::given(any())
            .respond_with(ResponseTemplate::new(status).insert_header("location", to))
            .mount(&server)
            .await;
        let rest = rest(&server);
        for (name, call) in calls(&rest) {
            let error = call.await.expect_err(name);
            assert_eq!(error.postgrest().unwrap().status, status, "{name}");
            assert_eq!(error.retry(), crate::Retry::Never, "{name}");
            let text = error.to_string();
            assert!(text.contains(&elsewhere.uri()) && !text.contains("secret"), "{name}: {text}");
        }
        assert_eq!(server.received_requests().await.unwrap().len(), calls(&rest).len(), "none is repeated");
    }
    assert_eq!(elsewhere.received_requests().await.unwrap().len(), 0);
}

/// Returns its token until that was reported as refused.
#[derive(Default)]
struct Caching {
    number: AtomicU32,
    refused: Mutex<Vec<String>>,
}

struct Shared(Arc<Caching>);

impl TokenSource for Shared {
    fn token(&self) -> TokenFuture<'_> {
        let token = format!("t{}", self.0.number.load(Ordering::SeqCst));
        Box::pin(async move { AccessToken::new(token) })
    }

    fn invalidate(&self, token: &AccessToken) {
        self.0.refused.lock().unwrap().push(token.expose().to_owned());
        self.0.number.fetch_add(1, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn a_401_of_whatever_form_makes_every_call_ask_for_another_token_once() {
    let forms = [
        json!({"code": "PGRST303", "message": "JWT expired", "details": null, "hint": null}),
        json!({"code": "PGRST301", "message": "JWT expired", "details": null, "hint": null}),
        json!({"code": "PGRST301", "message": "No suitable key or wrong key type", "details": null, "hint": null}),
        json!({"code": 401, "message": "Invalid JWT"}),
        json!({"msg": "Unauthorized"}),
        json!("a page of a gateway"),
    ];
    for form in forms {
        let server = MockServer::start().await;
        let refusal = ResponseTemplate::new(401).set_body_json(&form);
        Mock::given(header("authorization", "Bearer t0")).respond_with(refusal).mount(&server).await;
        let rows = |request: &Request| {
            let wants_one =
                request.headers.get("accept").is_some_and(|kind| kind.to_str().unwrap().contains("object"));
            ResponseTemplate::new(200).set_body_json(if wants_one { json!({}) } else { json!([]) })
        };
        Mock::given(header("authorization", "Bearer t1")).respond_with(rows).mount(&server).await;
        let plain = rest(&server);
        for (place, (name, _)) in calls(&plain).into_iter().enumerate() {
            let source = Arc::new(Caching::default());
            let rest = Rest::builder(server.uri(), "sb_secret_0123456789abcdef")
                .token_source(Shared(Arc::clone(&source)))
                .build()
                .unwrap();
            let (_, call) = calls(&rest).swap_remove(place);
            call.await.unwrap_or_else(|error| panic!("{name} {form}: {error}"));
            assert_eq!(*source.refused.lock().unwrap(), ["t0"], "{name} {form}");
        }
    }
}

#[tokio::test]
async fn a_refused_token_is_not_given_again_to_a_caller_that_repeats_by_itself() {
    let server = MockServer::start().await;
    Mock::given(any()).respond_with(ResponseTemplate::new(401)).mount(&server).await;
    let source = Arc::new(Caching::default());
    let rest = Rest::builder(server.uri(), "sb_secret_0123456789abcdef")
        .token_source(Shared(Arc::clone(&source)))
        .retries(RetryPolicy::NONE)
        .build()
        .unwrap();
    for attempt in 0..3 {
        rest.from("t").insert(&json!({})).execute().await.unwrap_err();
        let used = server.received_requests().await.unwrap();
        let bearer = used[attempt].headers.get("authorization").unwrap().to_str().unwrap().to_owned();
        assert_eq!(bearer, format!("Bearer t{attempt}"));
    }
}

struct Unserializable;

impl Serialize for Unserializable {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("no form"))
    }
}

#[tokio::test]
async fn a_value_that_is_no_json_is_the_callers_mistake() {
    let server = MockServer::start().await;
    let rest = rest(&server);
    let value = Unserializable;
    let errors = [
        rest.from("t").insert(&value).execute().await.unwrap_err(),
        rest.from("t").upsert(&value).execute().await.unwrap_err(),
        rest.from("t").update(&value).eq("id", 1).execute().await.unwrap_err(),
        rest.rpc("f", &value).execute().await.unwrap_err(),
        rest.rpc("f", &value).get().execute().await.unwrap_err(),
        rest.invoke("f", &value).await.unwrap_err(),
    ];
    for error in errors {
        assert!(matches!(error.kind(), ErrorKind::InvalidInput { .. }), "{error}");
    }
    assert_eq!(server.received_requests().await.unwrap().len(), 0);
}

#[tokio::test]
async fn an_address_that_no_server_takes_is_refused_and_414_is_final() {
    let server = MockServer::start().await;
    Mock::given(any()).respond_with(ResponseTemplate::new(414)).mount(&server).await;
    let rest = rest(&server);
    for (count, length) in [(100, 36), (100, 80), (100, 600), (100, 700), (2000, 36)] {
        let values = vec!["k".repeat(length); count];
        let error = rest.from("t").in_list("k", &values).rows::<Value>().await.unwrap_err();
        assert_eq!(error.retry(), crate::Retry::Never);
        let is_sent = count * (length + 9) < 64 * 1024;
        assert_eq!(error.postgrest().is_some(), is_sent, "{count} x {length}: {error}");
    }
}

/// The line and the headers of a request, as a server reads them.
async fn written(server: &MockServer, call: impl Future<Output = Result<(), Error>>) -> String {
    let _ = call.await;
    let request = server.received_requests().await.unwrap().pop().unwrap();
    let query = request.url.query_pairs().map(|(name, value)| format!("{name}={value}"));
    let mut text =
        format!("{} {} {}", request.method, request.url.path(), query.collect::<Vec<_>>().join("&"));
    for name in ["accept", "prefer", "accept-profile", "content-profile", "traceparent"] {
        if let Some(value) = request.headers.get(name) {
            write!(text, " {name}: {}", value.to_str().unwrap()).unwrap();
        }
    }
    text
}

#[tokio::test]
async fn every_method_is_written_as_the_recorded_requests_are() {
    let server = MockServer::start().await;
    Mock::given(any()).respond_with(ResponseTemplate::new(200)).mount(&server).await;
    let rest = rest(&server);
    let t = || rest.from("t");
    let row = json!({"a": 1});
    let rows = |request: QueryBuilder| done(request.rows::<Value>());
    let cases: Vec<(Call, &str)> = vec![
        (
            rows(
                t().select("id")
                    .select("name")
                    .order("a")
                    .order(col("b").desc().nulls_last())
                    .limit(5)
                    .limit(7),
            ),
            "GET /rest/v1/t select=id,name&order=a.asc,b.desc.nullslast&limit=7 accept: application/json",
        ),
        (
            rows(
                t().select("id,posts(id)")
                    .order(col("id").of("posts").desc())
                    .limit_of(["posts"], 2)
                    .offset_of(["posts", "x"], 1),
            ),
            "GET /rest/v1/t select=id,posts(id)&posts.order=id.desc&posts.limit=2&posts.x.offset=1 accept: application/json",
        ),
        (rows(t().range(10, 19)), "GET /rest/v1/t offset=10&limit=10 accept: application/json"),
        (
            done(t().count(Count::Exact).head().execute()),
            "HEAD /rest/v1/t  accept: application/json prefer: count=exact",
        ),
        (done(t().csv()), "GET /rest/v1/t  accept: text/csv"),
        (done(t().geojson::<Value>()), "GET /rest/v1/t  accept: application/geo+json"),
        (
            done(t().explain(Explain::default().analyze().verbose())),
            "GET /rest/v1/t  accept: application/vnd.pgrst.plan+text; for=\"application/json\"; options=analyze|verbose;",
        ),
        (rows(t().strip_nulls()), "GET /rest/v1/t  accept: application/vnd.pgrst.array+json;nulls=stripped"),
        (
            done(t().strip_nulls().single::<Value>()),
            "GET /rest/v1/t  accept: application/vnd.pgrst.object+json;nulls=stripped",
        ),
        (done(t().maybe_single::<Value>()), "GET /rest/v1/t limit=2 accept: application/json"),
        (done(t().limit(1).maybe_single::<Value>()), "GET /rest/v1/t limit=1 accept: application/json"),
        (
            done(t().insert(&row).rollback().execute()),
            "POST /rest/v1/t  accept: application/json prefer: return=minimal,tx=rollback",
        ),
        (
            done(t().upsert(&row).on_conflict(["a", "b,c"]).columns(["a"]).execute()),
            "POST /rest/v1/t on_conflict=a,\"b,c\"&columns=a accept: application/json prefer: resolution=merge-duplicates,return=minimal",
        ),
        (
            done(t().update(&row).match_([("a", 1), ("b", 2)]).maybe_single::<Value>()),
            "PATCH /rest/v1/t a=eq.1&b=eq.2 accept: application/vnd.pgrst.object+json prefer: return=representation",
        ),
        (
            done(t().delete().all_rows().execute()),
            "DELETE /rest/v1/t  accept: application/json prefer: return=minimal",
        ),
        (
            rows(t().header("traceparent", "00-a-b-01")),
            "GET /rest/v1/t  accept: application/json traceparent: 00-a-b-01",
        ),
        (
            rows(rest.schema("billing").from("t")),
            "GET /rest/v1/t  accept: application/json accept-profile: billing",
        ),
        (
            done(rest.schema("billing").from("t").delete().eq("id", 1).execute()),
            "DELETE /rest/v1/t id=eq.1 accept: application/json prefer: return=minimal content-profile: billing",
        ),
        (
            done(rest.schema("billing").rpc("f", &json!({"a": 1, "b": [1, 2]})).get().value::<Value>()),
            "GET /rest/v1/rpc/f a=1&b={\"1\",\"2\"} accept: application/json accept-profile: billing",
        ),
        (
            done(rest.rpc("f", &json!({"a": 1})).eq("x", 2).order("y").value::<Value>()),
            "POST /rest/v1/rpc/f x=eq.2&order=y.asc accept: application/json",
        ),
        (
            done(rest.rpc("f", &json!({})).head().count(Count::Planned).execute()),
            "HEAD /rest/v1/rpc/f  accept: application/json prefer: count=planned",
        ),
    ];
    for (call, text) in cases {
        assert_eq!(written(&server, call).await, text);
    }
}

#[tokio::test]
async fn a_method_that_cannot_work_is_refused_when_the_request_is_sent() {
    let server = MockServer::start().await;
    let rest = rest(&server);
    let t = || rest.from("t");
    let row = json!({"a": 1});
    for (call, what) in [
        (t().header("apikey", "x"), "a header of the client"),
        (t().header("Transfer-Encoding", "chunked"), "a header of the connection"),
        (t().header("a b", "x"), "no name"),
        (t().select("a\0b"), "a NUL character"),
        (t().select_columns(["a\0b"]), "a NUL character"),
        (t().order("a\0b"), "a NUL character"),
        (t().eq("a", "x\0y"), "a NUL character"),
        (t().in_list("a", ["x\0y"]), "a NUL character"),
        (rest.from("a\0b"), "a NUL character"),
        (rest.schema("a\0b").from("t"), "a NUL character"),
        (rest.rpc("f\0g", &row), "a NUL character"),
        (rest.rpc("f", &json!({"a": "x\0y"})).get(), "a NUL character"),
        (t().header("a", "x\ny"), "no value"),
        (t().range(5, 4), "no rows"),
        (t().get(), "no function"),
        (t().insert(&row).head(), "a write"),
        (rest.rpc("f", &row).insert(&row), "a function"),
        (rest.rpc("f", &json!({"limit": 1})).get(), "a reserved word"),
        (t().limit_of([""], 1), "no name"),
        (t().on_conflict(Vec::<&str>::new()), "no columns"),
    ] {
        let error = call.rows::<Value>().await.expect_err(what);
        assert!(matches!(error.kind(), ErrorKind::InvalidInput { .. }), "{what}: {error}");
    }
}

#[tokio::test]
async fn maybe_single_of_a_function_reads_a_set_of_rows_and_a_row_alike() {
    for (answer, expected) in [
        (json!([{"id": 1}]), Ok(Some(1))),
        (json!([]), Ok(None)),
        (json!({"id": 1}), Ok(Some(1))),
        (json!(null), Ok(None)),
        (json!([{"id": 1}, {"id": 2}]), Err("PGRST116")),
        (json!("text"), Err("Decode")),
    ] {
        let server = MockServer::start().await;
        Mock::given(any())
            .respond_with(ResponseTemplate::new(200).set_body_json(&answer))
            .mount(&server)
            .await;
        for by_get in [false, true] {
            let call = rest(&server).rpc("f", &json!({}));
            let call = if by_get { call.get() } else { call };
            let row = call.maybe_single::<Id>().await;
            let row = row.as_ref().map(|row| row.as_ref().map(|row| row.id)).map_err(Error::code);
            assert_eq!(row, expected, "{answer}");
        }
    }
}

#[derive(Debug, serde::Deserialize)]
struct Id {
    id: i64,
}
