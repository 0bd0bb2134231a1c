//! Many requests at once, and requests that are given up.

use std::sync::Arc;

use serde_json::json;
use supabase_local::rest::Settings;
use tokio::task::JoinSet;

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
    // The object form is looked at before the commit, so the transaction is open while the call is given up.
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
