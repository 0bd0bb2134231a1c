//! Programs with mistakes: without a runtime, two of everything, odd names, odd types, crowds.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use futures_util::future::join_all;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::{Value, json};
use tendril_realtime::{
    AccessToken, BroadcastEvent, ChangeEvent, Client, ErrorKind, StreamExt as _,
    watch::{Query, Watch},
};
use tendril_realtime_testkit::HttpAnswer;

use crate::{Job, builder, client, in_time, jobs, next, server};

#[test]
fn outside_of_a_runtime_what_needs_one_is_an_error_and_the_client_is_as_good_as_before() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let server = runtime.block_on(server());
    let client = client(&server);
    let refused = [
        client.channel("room").postgres_changes::<Job>(jobs()).start().err().unwrap(),
        client.store::<Job>(Query::table("jobs")).err().unwrap(),
    ];
    for error in refused {
        assert!(matches!(error.kind(), ErrorKind::InvalidInput { field: "runtime", .. }), "{error}");
    }
    let watch: Watch<Job> = client.watch(Query::table("jobs")).unwrap();
    drop(watch);
    client.reconnect_now();
    client.refresh_auth();
    runtime.block_on(async { in_time("the join", client.channel("room").join()).await }).unwrap();
}

#[tokio::test]
async fn two_of_everything_are_as_good_as_one() {
    let server = server().await;
    let (one, two) = (client(&server), client(&server));
    let other_handle = one.clone();
    let mut streams = Vec::new();
    for client in [&one, &other_handle, &two, &two] {
        let mut room = client.channel("room");
        let pair =
            [room.on_postgres_changes::<Job>(jobs()).unwrap(), room.on_postgres_changes(jobs()).unwrap()];
        let room = in_time("the join", room.join()).await.unwrap();
        streams.extend(pair.map(|stream| (room.clone(), stream)));
    }
    server.insert("public", "jobs", json!({"id": 1}));
    for (_, stream) in &mut streams {
        // The second join of a client widened the channel, which the first may receive as a gap.
        let job = loop {
            match next(stream).await {
                ChangeEvent::Insert(job) => break job,
                event => assert!(event.is_gap(), "{event:?}"),
            }
        };
        assert_eq!(job.id, 1);
    }
    let leaving: Vec<_> = streams.iter().flat_map(|(room, _)| [room.leave(), room.leave()]).collect();
    for left in in_time("all have left", join_all(leaving)).await {
        left.unwrap();
    }
    assert_eq!(server.joined("room"), 0);
    for (_, stream) in &mut streams {
        while let Some(event) = in_time("the end", stream.next()).await {
            event.unwrap();
        }
    }
    let (again, meanwhile) = in_time("the join", async {
        tokio::join!(one.channel("room").join(), other_handle.channel("room").join())
    })
    .await;
    again.unwrap().broadcast("m", &json!({})).await.unwrap();
    meanwhile.unwrap().broadcast("m", &json!({})).await.unwrap();
    in_time("both ends", async { tokio::join!(one.shutdown(), other_handle.shutdown(), two.shutdown()) })
        .await;
    in_time("the end of the end", one.shutdown()).await;
    let error = in_time("a late join", one.channel("room").join()).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Closed);
}

#[tokio::test]
async fn a_topic_and_an_event_may_have_any_name() {
    let server = server().await;
    let (sender, receiver) = (client(&server), client(&server));
    let long = "ü".repeat(120);
    for name in [
        "a\0b",
        "\0",
        "a b",
        "\"",
        "a\"b",
        "\\",
        "a\\\"",
        "'",
        ",",
        "a,b",
        ".",
        "..",
        "(a)",
        "[a]",
        "{a}",
        "%",
        "%2F",
        "100%",
        "a/b",
        "?a=b",
        "#",
        "&",
        "+",
        "realtime",
        "phoenix",
        "null",
        "größe",
        "表",
        "🦀",
        "e\u{301}",
        "\u{202e}abc",
        "\u{feff}",
        "line\nbreak",
        "tab\t",
        "\u{7f}",
        "a\u{2028}b",
        "*",
        "a:b",
        ":",
        long.as_str(),
    ] {
        let mut room = receiver.channel(name);
        let mut messages = room.on_broadcast(name);
        let room = in_time(name, room.join()).await.unwrap();
        let ours = in_time(name, sender.channel(name).ack(true).join()).await.unwrap();
        in_time(name, ours.broadcast(name, &json!({"name": name}))).await.unwrap();
        in_time(name, ours.broadcast_bytes(name, name.as_bytes().to_vec())).await.unwrap();
        for _ in 0..2 {
            let event = in_time(name, messages.next()).await.unwrap().unwrap();
            let BroadcastEvent::Message(message) = event else { panic!("{name:?}: {event:?}") };
            assert_eq!(message.event(), name);
            match (message.json(), message.bytes()) {
                (Some(json), _) => {
                    assert_eq!(serde_json::from_str::<Value>(json).unwrap(), json!({"name": name}));
                }
                (None, bytes) => assert_eq!(bytes.map(|bytes| &bytes[..]), Some(name.as_bytes())),
            }
        }
        room.leave().await.unwrap();
        ours.leave().await.unwrap();
    }
    for name in ["", " ", "realtime:"] {
        let error = receiver.channel(name).join().await.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::InvalidInput { .. }), "{name:?}: {error}");
    }
}

/// Each change comes twice: the second one has the outline of the first.
async fn rows_of<T: DeserializeOwned + std::fmt::Debug>() -> String {
    let server = server().await;
    let client = client(&server);
    let mut rows = client.channel("jobs").postgres_changes::<T>(jobs()).subscribe().await.unwrap();
    let mut seen = Vec::new();
    for _ in 0..2 {
        server.insert("public", "jobs", json!({"id": 1, "title": "a\"b", "tags": ["x"], "done": null}));
        server.update("public", "jobs", json!({"id": 1, "title": "c"}), json!({"id": 1}));
        server.delete("public", "jobs", json!({"id": 1}));
        let mut events = Vec::new();
        for _ in 0..3 {
            events.push(format!("{:?}", in_time("a row", rows.next()).await.unwrap().unwrap()));
        }
        seen.push(events.join("\n"));
    }
    assert_eq!(seen[0], seen[1]);
    seen.remove(0)
}

#[tokio::test]
async fn rows_of_any_type_are_read_alike_the_first_time_and_later() {
    #[derive(Debug, serde::Deserialize)]
    #[expect(dead_code, reason = "only shown")]
    struct Flat {
        id: i64,
        #[serde(flatten)]
        rest: BTreeMap<String, Value>,
    }
    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only shown")]
    struct Strict {
        id: i64,
    }
    #[derive(Debug, serde::Deserialize)]
    #[serde(untagged)]
    #[expect(dead_code, reason = "only shown")]
    enum Either {
        Text { title: String },
        Number(i64),
    }
    #[derive(Debug, serde::Deserialize)]
    struct Unit;
    assert_eq!(rows_of::<Value>().await.matches("Undecodable").count(), 0);
    assert_eq!(rows_of::<IgnoredAny>().await.matches("Undecodable").count(), 0);
    assert_eq!(rows_of::<BTreeMap<String, Value>>().await.matches("Undecodable").count(), 0);
    assert_eq!(rows_of::<Option<Job>>().await.matches("Undecodable").count(), 0);
    assert_eq!(rows_of::<Box<serde_json::value::RawValue>>().await.matches("Undecodable").count(), 0);
    assert_eq!(rows_of::<Flat>().await.matches("Undecodable").count(), 0);
    assert_eq!(rows_of::<Either>().await.matches("Undecodable").count(), 0);
    for wrong in
        [rows_of::<Strict>().await, rows_of::<Unit>().await, rows_of::<()>().await, rows_of::<i64>().await]
    {
        assert_eq!(wrong.matches("Insert(").count(), 0, "{wrong}");
        assert_eq!(wrong.matches("Delete {").count(), 1, "of which nothing is read: {wrong}");
    }
}

fn token(number: u32, life: Duration) -> Result<AccessToken, tendril_realtime::Error> {
    let exp = (SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + life).as_secs_f64();
    AccessToken::new(format!("h.{}.{number}", URL_SAFE_NO_PAD.encode(format!(r#"{{"exp":{exp:.0}}}"#))))
}

#[tokio::test]
async fn tokens_that_end_as_soon_as_they_come_make_no_storm() {
    let server = server().await;
    let asked = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&asked);
    let client = builder(&server)
        .token_source(move || {
            let number = count.fetch_add(1, Ordering::SeqCst);
            async move { token(number, Duration::from_secs(1)) }
        })
        .build()
        .unwrap();
    let mut rows = client.channel("jobs").postgres_changes::<Job>(jobs()).subscribe().await.unwrap();
    let before = asked.load(Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(6)).await;
    let fetched = asked.load(Ordering::SeqCst) - before;
    assert!((1..=3).contains(&fetched), "{fetched} fetches in 6 s");
    assert_eq!((server.journal().upgrades(), server.journal().joins("jobs")), (1, 1));
    server.insert("public", "jobs", json!({"id": 1}));
    while !matches!(next(&mut rows).await, ChangeEvent::Insert(_)) {}
}

#[tokio::test]
async fn a_crowd_of_refused_requests_of_which_half_are_dropped_costs_one_exchange() {
    let server = server().await;
    let refused = AtomicU32::new(0);
    server.on_http(move |request| {
        if request.header("authorization").is_some_and(|bearer| bearer.ends_with(".1")) {
            return HttpAnswer::new(200).json(&json!([]));
        }
        // With different bodies, as of gateway, PostgREST and function.
        let body = match refused.fetch_add(1, Ordering::SeqCst) % 3 {
            0 => json!({"code": "PGRST303", "message": "JWT expired"}),
            1 => json!({"message": "no"}),
            _ => json!(null),
        };
        HttpAnswer::new(401).json(&body)
    });
    let exchanges = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&exchanges);
    let current = Arc::new(std::sync::Mutex::new(None));
    /// Drops what it has when it is refused, whichever token that was.
    struct Careless(Arc<AtomicU32>, Arc<std::sync::Mutex<Option<AccessToken>>>);
    impl tendril_realtime::TokenSource for Careless {
        fn token(&self) -> tendril_realtime::TokenFuture<'_> {
            Box::pin(async {
                if let Some(token) = self.1.lock().unwrap().clone() {
                    return Ok(token);
                }
                let number = self.0.fetch_add(1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(50)).await;
                let token = token(number, Duration::from_secs(3600))?;
                *self.1.lock().unwrap() = Some(token.clone());
                Ok(token)
            })
        }
        fn invalidate(&self, _: &AccessToken) {
            *self.1.lock().unwrap() = None;
        }
    }
    let client: Client = builder(&server).token_source(Careless(count, current)).build().unwrap();
    let rest = client.rest().clone();
    let requests = (0..60_u64).map(|number| {
        let rest = rest.clone();
        async move {
            tokio::time::sleep(Duration::from_millis(number % 40)).await;
            let request = rest.from("t").rows::<Value>();
            if number % 2 == 0 {
                return tokio::time::timeout(Duration::from_millis(number), request).await.ok();
            }
            Some(request.await)
        }
    });
    let answers = in_time("all answers", join_all(requests)).await;
    for answer in answers.into_iter().flatten() {
        answer.unwrap();
    }
    assert_eq!(exchanges.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_first_list_with_a_row_without_a_key_is_none_and_the_next_one_is_the_first() {
    let server = server().await;
    let reads = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&reads);
    server.on_http(move |_| {
        let second = if count.fetch_add(1, Ordering::SeqCst) < 2 { Value::Null } else { json!(2) };
        HttpAnswer::new(200).header("content-range", "0-1/2").json(&json!([{"id": 1}, {"id": second}]))
    });
    let client = client(&server);
    let query = || Query::table("jobs").poll_interval(Duration::from_millis(100));
    let store = client.store::<Job>(query().resync_interval(Duration::from_millis(100))).unwrap();
    in_time("the first whole list", store.ready()).await;
    assert_eq!(store.state().len(), 2);
}

#[tokio::test]
async fn a_row_with_another_key_is_followed_where_its_event_is_too_large() {
    let server = server().await;
    let id = Arc::new(AtomicU32::new(1));
    let current = Arc::clone(&id);
    server.on_http(move |request| {
        let id = current.load(Ordering::SeqCst);
        let rows = match request.query("id") {
            Some(filter) if filter != format!("eq.{id}") => json!([]),
            _ => json!([{"id": id}]),
        };
        let total = rows.as_array().map_or(0, Vec::len);
        HttpAnswer::new(200).header("content-range", format!("*/{total}")).json(&rows)
    });
    let client = client(&server);
    let far = Duration::from_secs(3_000);
    let query = Query::table("jobs").poll_interval(far).resync_interval(far);
    let store = client.store::<Job>(query).unwrap();
    in_time("the first list", store.ready()).await;
    in_time("the subscription", async {
        while server.journal().joins("watch:jobs:1") == 0 && server.journal().accepted() == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    id.store(2, Ordering::SeqCst);
    server.change(&json!({
        "schema": "public", "table": "jobs", "type": "UPDATE", "commit_timestamp": "2026-01-01T00:00:00.000Z",
        "columns": [{"name": "id", "type": "int8"}, {"name": "body", "type": "text"}],
        "record": {"id": 2}, "old_record": {"id": 1}, "errors": ["Error 413: Payload Too Large"],
    }));
    in_time("the new row", async {
        while store.get(2).is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(store.get(1).is_none(), "{:?}", store.state());
}
