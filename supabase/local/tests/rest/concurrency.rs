//! Many requests at once, and requests that are given up.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use supabase_local::rest::Settings;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::service::{Place, Service};

const JOBS: &str = "
create table jobs (id int primary key, status text, token text);
grant all on jobs to anon;
insert into jobs select n, 'QUEUED', null from generate_series(1, 20) n;
create function slow(s float) returns void language sql as 'select pg_sleep(s)';
";

#[tokio::test(flavor = "multi_thread")]
async fn of_many_conditional_updates_of_a_row_one_wins() {
    let place = Place::prepare("claims").await;
    place.sql(JOBS).await;
    let service = Arc::new(Service::start(&place, Settings::default()).await);
    let mut claims = JoinSet::new();
    for claimant in 0..5 {
        for job in 1..=20 {
            let service = Arc::clone(&service);
            claims.spawn(async move {
                let path = format!("/jobs?id=eq.{job}&status=eq.QUEUED&select=id,token");
                let body = format!(r#"{{"status": "PROCESSING", "token": "{claimant}"}}"#);
                service.request("PATCH", &path, "Prefer: return=representation", &body).await.json()
            });
        }
    }
    let answers = claims.join_all().await;
    let won = answers.iter().filter(|answer| answer.as_array().is_some_and(|rows| rows.len() == 1)).count();
    let lost = answers.iter().filter(|answer| **answer == json!([])).count();
    assert_eq!((won, lost), (20, 80));
    place.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_given_up_leaves_its_connection_clean() {
    let place = Place::prepare("given_up").await;
    place.sql(JOBS).await;
    let service = Service::with_pool(place.config("authenticator"), Settings::default(), 1).await;
    assert_eq!(service.get("/jobs?limit=1").await.status, 200);
    // The object form is checked before the commit, so the transaction is open while the call is given up.
    let accept = "Accept: application/vnd.pgrst.object+json";
    tokio::select! {
        _ = service.request("POST", "/rpc/slow", accept, r#"{"s": 30}"#) => panic!("the call was not slow"),
        () = place.until_busy() => {}
    }
    let body = r#"{"status": "DONE"}"#;
    let next = service.request("PATCH", "/jobs?id=eq.1", "Prefer: return=minimal", body).await;
    assert_eq!(next.status, 204, "{}", next.body);
    assert_eq!(service.get("/jobs?id=eq.1&select=status").await.json(), json!([{"status": "DONE"}]));
    place.remove().await;
}

/// Far below what a client waits for an answer.
const SOON: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread")]
async fn inserts_are_answered_while_others_are_given_up_and_the_schema_is_read_anew() {
    let place = Place::prepare("stampede").await;
    place.sql(JOBS).await;
    place.sql("create table lines (id bigint generated always as identity, text text); grant all on lines to anon;").await;
    let service = Arc::new(Service::with_pool(place.config("authenticator"), Settings::default(), 4).await);
    let until = Instant::now() + Duration::from_secs(5);
    let mut crowd = JoinSet::new();
    // Clients that are killed in the middle of a request: while it waits for a connection, while it is in a transaction.
    for client in 0..16_u64 {
        let service = Arc::clone(&service);
        crowd.spawn(async move {
            let (mut answered, mut slowest) = (0_u64, Duration::ZERO);
            while Instant::now() < until {
                let time_limit = Duration::from_millis(answered * 7 % 40 + client);
                let accept = "Accept: application/vnd.pgrst.object+json";
                let slow = service.request("POST", "/rpc/slow", accept, r#"{"s": 0.02}"#);
                let _given_up = timeout(time_limit, slow).await;
                let began = Instant::now();
                let insert = service.request("POST", "/lines", "Prefer: return=minimal", r#"{"text": "x"}"#);
                let inserted = timeout(SOON, insert).await.expect("an answer");
                // Where no connection is free for a second, that is an answer too.
                assert!([201, 504].contains(&inserted.status), "{}", inserted.body);
                slowest = slowest.max(began.elapsed());
                answered += 1;
            }
            (answered, slowest)
        });
    }
    while Instant::now() < until {
        place.sql("notify pgrst, 'reload schema'").await;
        sleep(Duration::from_millis(20)).await;
    }
    let answers = crowd.join_all().await;
    let (all, slowest) = answers
        .iter()
        .fold((0, Duration::ZERO), |(all, slowest), (answered, took)| (all + answered, slowest.max(*took)));
    println!("{all} inserts, the slowest took {slowest:?}");
    assert!(all > 16 && slowest < SOON, "{all} inserts, the slowest took {slowest:?}");
    place.remove().await;
}
