//! The session of a signed-in user: refreshed, rotated, stored, ended.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::Engine as _;
use serde_json::{Value, json};
use tendril_realtime::{
    AccessToken, Error, ErrorKind, RefreshToken, Rest, Retry, Session, SessionSource, StreamExt as _,
};
use tendril_realtime_testkit::{Event, FakeServer, HttpAnswer, HttpRequest};

use crate::{builder, in_time, jobs, server};

/// Supabase Auth as far as it exchanges refresh tokens: each is good once, and the access tokens live so long.
struct Auth {
    exchanges: AtomicU32,
    life: u64,
    good: Mutex<String>,
}

impl Auth {
    fn on(server: &FakeServer, life: u64) -> Arc<Self> {
        let auth = Arc::new(Self { exchanges: AtomicU32::new(0), life, good: Mutex::new("r0".to_owned()) });
        let answering = Arc::clone(&auth);
        server.on_http(move |request| answering.answer(request));
        auth
    }

    fn answer(&self, request: &HttpRequest) -> HttpAnswer {
        if !request.target.starts_with("/auth/v1/token?grant_type=refresh_token") {
            return HttpAnswer::new(200).json(&json!([]));
        }
        assert_eq!(request.header("apikey"), Some("anon-key"));
        let body: Value = serde_json::from_slice(&request.body).unwrap();
        let mut good = self.good.lock().unwrap();
        if body["refresh_token"] != good.as_str() {
            return HttpAnswer::new(400).json(&json!({
                "code": 400, "error_code": "refresh_token_already_used", "msg": "Invalid Refresh Token: Already Used",
            }));
        }
        let number = self.exchanges.fetch_add(1, Ordering::SeqCst) + 1;
        *good = format!("r{number}");
        HttpAnswer::new(200).json(&json!({
            "access_token": jwt(number, self.life), "refresh_token": *good, "expires_in": self.life, "token_type": "bearer",
            "user": {"id": "7"},
        }))
    }

    fn exchanges(&self) -> u32 {
        self.exchanges.load(Ordering::SeqCst)
    }
}

fn jwt(number: u32, life: u64) -> String {
    let exp = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() + life;
    let claims =
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(format!(r#"{{"exp":{exp},"n":{number}}}"#));
    format!("h.{claims}.s")
}

fn refresh_token(text: &str) -> Session {
    Session::new(RefreshToken::new(text).unwrap())
}

fn last_bearer(server: &FakeServer) -> Option<String> {
    server.journal().entries().iter().rev().find_map(|entry| match &entry.event {
        Event::Http(request) => request.header("authorization").map(str::to_owned),
        _ => None,
    })
}

#[tokio::test]
async fn a_refresh_token_is_exchanged_once_for_everybody_and_the_new_one_is_stored_first() {
    let server = server().await;
    let auth = Auth::on(&server, 3600);
    let stored = Arc::new(Mutex::new(Vec::new()));
    let store = Arc::clone(&stored);
    let source = SessionSource::new(refresh_token("r0")).on_refresh(move |session| {
        store.lock().unwrap().push(session.refresh_token().expose().to_owned());
        std::future::ready(Ok::<_, Error>(()))
    });
    let client = builder(&server).session(source).build().unwrap();
    let reads = (0..20).map(|_| {
        let client = client.clone();
        async move { client.from("t").rows::<Value>().await }
    });
    let (rows, room) = tokio::join!(futures_util::future::join_all(reads), client.channel("room").join());
    assert!(rows.iter().all(Result::is_ok), "{rows:?}");
    let _room = room.unwrap();
    assert_eq!(auth.exchanges(), 1);
    assert_eq!(*stored.lock().unwrap(), ["r1"]);
    assert!(last_bearer(&server).unwrap().starts_with("Bearer h."));
}

#[tokio::test]
async fn an_access_token_is_used_until_shortly_before_its_end_and_renewed_while_channels_stay_joined() {
    let server = server().await;
    let auth = Auth::on(&server, 6);
    let session = refresh_token("r0").with_access_token(AccessToken::new(jwt(0, 6)).unwrap());
    let client = builder(&server).session(session).build().unwrap();
    let _room = client.channel("room").join().await.unwrap();
    assert_eq!(auth.exchanges(), 0, "what the sign-in gave is good");
    server
        .wait_for(|journal| journal.count(|event| matches!(event, Event::Token { .. })) >= 2)
        .await
        .unwrap();
    assert_eq!((server.journal().joins("room"), server.journal().upgrades()), (1, 1));
    assert!(auth.exchanges() >= 2);
}

#[tokio::test]
async fn a_refused_access_token_is_exchanged_whatever_its_claims_say() {
    let server = server().await;
    let auth = Auth::on(&server, 3600);
    let refused = jwt(0, 3600);
    let answering = Arc::clone(&auth);
    let old = format!("Bearer {refused}");
    server.on_http(move |request| match request.header("authorization") {
        Some(bearer) if bearer == old => HttpAnswer::new(401).json(&json!({"msg": "Invalid JWT"})),
        _ => answering.answer(request),
    });
    let session = refresh_token("r0").with_access_token(AccessToken::new(refused).unwrap());
    let rest = Rest::builder(server.url(), "anon-key").no_proxy().session(session).build().unwrap();
    rest.from("t").insert(&json!({"a": 1})).execute().await.unwrap();
    assert_eq!(auth.exchanges(), 1);
}

#[tokio::test]
async fn a_session_that_the_server_ended_is_the_end_of_what_needs_it() {
    let server = server().await;
    let _auth = Auth::on(&server, 3600);
    let client = builder(&server).session(refresh_token("stolen")).build().unwrap();
    let error = in_time("the join", client.channel("room").join()).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Token { .. }), "{error:?}");
    assert_eq!(error.retry(), Retry::Never);
    let cause = error.find_source::<Error>().expect("the server's answer");
    assert_eq!(cause.code(), "refresh_token_already_used");
    assert!(!format!("{error:#}").contains("stolen"), "{error:#}");
    let error = client.from("t").rows::<Value>().await.unwrap_err();
    assert_eq!(error.retry(), Retry::Never);
    let asked = server.journal().count(|event| matches!(event, Event::Http(_)));
    assert_eq!(asked, 1, "it is not asked for again");
}

#[tokio::test]
async fn a_session_that_ends_while_channels_are_joined_ends_their_streams() {
    let server = server().await;
    let auth = Auth::on(&server, 6);
    let client = builder(&server).session(refresh_token("r0")).build().unwrap();
    let mut stream = client.channel("room").postgres_changes::<Value>(jobs()).subscribe().await.unwrap();
    "revoked".clone_into(&mut auth.good.lock().unwrap());
    let error = loop {
        match in_time("the end", stream.next()).await.expect("an end with a reason") {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert_eq!(error.retry(), Retry::Never);
    assert!(in_time("the end", stream.next()).await.is_none());
}

#[tokio::test]
async fn an_exchange_whose_answer_was_lost_or_late_is_repeated() {
    let server = server().await;
    let auth = Auth::on(&server, 3600);
    let answering = Arc::clone(&auth);
    let failures = AtomicU32::new(2);
    server.on_http(move |request| {
        let left = failures.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        if left.is_ok() { HttpAnswer::new(503) } else { answering.answer(request) }
    });
    let client = builder(&server).session(refresh_token("r0")).build().unwrap();
    client.from("t").rows::<Value>().await.unwrap();
    assert_eq!(auth.exchanges(), 1);
}

#[tokio::test]
async fn a_session_that_could_not_be_stored_is_used_and_stored_again() {
    let server = server().await;
    let auth = Auth::on(&server, 3600);
    let attempts = Arc::new(AtomicU32::new(0));
    let counting = Arc::clone(&attempts);
    let source = SessionSource::new(refresh_token("r0")).on_refresh(move |_| {
        let number = counting.fetch_add(1, Ordering::SeqCst);
        async move { if number == 0 { Err(std::io::Error::other("the disk is full")) } else { Ok(()) } }
    });
    let client = builder(&server).session(source).build().unwrap();
    for _ in 0..3 {
        client.from("t").rows::<Value>().await.unwrap();
    }
    assert_eq!((auth.exchanges(), attempts.load(Ordering::SeqCst)), (1, 2));
}

#[tokio::test]
async fn a_source_of_ones_own_can_say_that_the_session_has_ended() {
    #[derive(Debug, thiserror::Error)]
    #[error("signed out")]
    struct SignedOut(u32);
    let server = server().await;
    let client =
        builder(&server).token_source(|| async { Err(Error::session_ended(SignedOut(7))) }).build().unwrap();
    let error = in_time("the join", client.channel("room").join()).await.unwrap_err();
    assert_eq!(error.retry(), Retry::Never);
    assert_eq!(error.find_source::<SignedOut>().map(|cause| cause.0), Some(7));
    assert_eq!(server.journal().accepted(), 0);
}

#[tokio::test]
async fn heartbeats_are_reported_with_their_round_trip_also_under_traffic() {
    use tendril_realtime::Heartbeat;
    let server = server().await;
    let client = builder(&server)
        .heartbeat_interval(Duration::from_millis(50))
        .heartbeat_timeout(Duration::from_millis(400))
        .build()
        .unwrap();
    let mut heartbeats = client.heartbeats();
    let mut room = client.channel("room");
    let mut messages = room.on_any_broadcast();
    let room = room.join().await.unwrap();
    let chatter = async {
        loop {
            server.broadcast("room", "m", &json!({}));
            messages.next().await;
        }
    };
    let answered = async {
        assert_eq!(heartbeats.next().await, Some(Heartbeat::Sent));
        assert!(matches!(heartbeats.next().await, Some(Heartbeat::Answered { .. })));
    };
    tokio::select! {
        () = chatter => {}
        () = in_time("an answer under traffic", answered) => {}
    }
    let _silent = server
        .faults()
        .on(tendril_realtime_testkit::Point::Heartbeat, tendril_realtime_testkit::Answer::Silence);
    let seen = Arc::new(Mutex::new(Vec::new()));
    in_time("the end of the connection", async {
        while let Some(heartbeat) = heartbeats.next().await {
            seen.lock().unwrap().push(heartbeat);
            if heartbeat == Heartbeat::Disconnected {
                break;
            }
        }
    })
    .await;
    assert!(seen.lock().unwrap().contains(&Heartbeat::TimedOut), "{seen:?}");
    drop(room);
    client.shutdown().await;
    in_time("the end of the stream", async { while heartbeats.next().await.is_some() {} }).await;
    assert_eq!(client.heartbeats().next().await, None);
}

#[tokio::test]
async fn a_trace_goes_along_with_the_upgrade_rest_functions_and_broadcasts() {
    use tendril_realtime::TraceContext;
    const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let server = server().await;
    server.on_http(|_| HttpAnswer::new(200).json(&json!([])));
    let client = builder(&server)
        .trace_context(|| TraceContext::new(TRACE).ok()?.with_tracestate("vendor=1").ok())
        .build()
        .unwrap();
    let _room = client.channel("room").join().await.unwrap();
    client.from("t").rows::<Value>().await.unwrap();
    client.rest().invoke("greet", &json!({})).await.unwrap();
    client.broadcast_api().send("room", "m", &json!({}), false).await.unwrap();
    let own = TRACE.replace("b7ad6b7169203331", "00f067aa0ba902b7");
    client.from("own").header("traceparent", &own).rows::<Value>().await.unwrap();
    let journal = server.journal();
    let traced = |wanted: &str| {
        journal.count(|event| match event {
            Event::Http(request) => request.header("traceparent") == Some(wanted),
            Event::Upgraded { headers, .. } => {
                headers.iter().any(|(name, value)| name == "traceparent" && value == wanted)
            }
            _ => false,
        })
    };
    assert_eq!((traced(TRACE), traced(&own)), (4, 1), "{journal:?}");
    // A closure that panics costs nothing else.
    let client = builder(&server).trace_context(|| panic!("no tracer")).build().unwrap();
    let _room = client.channel("room").join().await.unwrap();
    client.from("t").rows::<Value>().await.unwrap();
}

#[tokio::test]
async fn a_life_without_bounds_is_a_life() {
    for life in
        [i64::MAX as u64 - 1_000_000, 9_000_000_000_000_000_000, u64::MAX / 2, u64::MAX - 10_000_000_000]
    {
        let server = server().await;
        let auth = Auth::on(&server, life);
        let client = builder(&server).session(refresh_token("r0")).build().unwrap();
        client.from("t").rows::<Value>().await.unwrap();
        in_time("the join", client.channel("room").join()).await.unwrap();
        assert_eq!(auth.exchanges(), 1, "{life}");
        // As it was stored by an earlier run.
        let stored = refresh_token("r1").with_access_token(AccessToken::new(jwt(1, life)).unwrap());
        let client = builder(&server).session(stored).build().unwrap();
        client.from("t").rows::<Value>().await.unwrap();
    }
}

#[tokio::test]
async fn a_pause_that_no_clock_can_count_neither_ends_the_client_nor_a_request() {
    for pause in [u64::MAX, u64::MAX / 2, 10_u64.pow(12)] {
        let server = server().await;
        server.on_http(move |_| HttpAnswer::new(503).header("retry-after", pause.to_string()));
        let client = builder(&server).session(refresh_token("r0")).build().unwrap();
        let (_rows, _ready) = client.channel("jobs").postgres_changes::<Value>(jobs()).start().unwrap();
        let mut status = client.status();
        let waits = status.wait_for(|status| matches!(status.phase, tendril_realtime::Phase::Backoff { .. }));
        let left = match in_time("the pause", waits).await.unwrap().phase {
            tendril_realtime::Phase::Backoff { retry_at, .. } => {
                retry_at.duration_since(tokio::time::Instant::now())
            }
            _ => unreachable!(),
        };
        assert!(left <= Duration::from_secs(2 * 3600), "{left:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(matches!(client.status().borrow().phase, tendril_realtime::Phase::Backoff { .. }));
        let rest = Rest::builder(server.url(), "anon-key").no_proxy();
        let patient =
            tendril_realtime::rest::RetryPolicy { longest_pause: Duration::MAX, ..Default::default() };
        let request = rest.retries(patient).build().unwrap();
        let asked = tokio::spawn(async move { request.from("t").rows::<Value>().await });
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(!asked.is_finished(), "it waits as long as it was told to");
        asked.abort();
    }
}
