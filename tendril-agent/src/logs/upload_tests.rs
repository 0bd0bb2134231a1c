use std::time::Instant as StdInstant;

use super::*;
use crate::{
    logs::spool::{LogSpool, SpoolRules},
    process::Stream,
    testing::{ControlPlane, refusal},
};

const INTERVAL: Duration = Duration::from_millis(50);

/// Spools these chunks, and uploads them.
async fn upload(plane: &ControlPlane, chunks: &[&str]) -> u64 {
    upload_with(plane, chunks, INTERVAL).await
}

async fn upload_with(plane: &ControlPlane, chunks: &[&str], interval: Duration) -> u64 {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let rules = SpoolRules { flush_after: interval, limit: u64::MAX };
    let (mut spool, reader) = LogSpool::create(&path, rules).unwrap();
    let sink = LogSink::new(plane.rest(), Uuid::nil(), 1, interval);
    let upload = tokio::spawn(sink.upload(reader));
    for chunk in chunks {
        spool.append(Stream::Stdout, chunk, StdInstant::now());
        spool.cut_all(StdInstant::now());
    }
    spool.finish();
    upload.await.unwrap().unwrap()
}

#[tokio::test]
async fn everything_is_stored_once_and_in_order() {
    let plane = ControlPlane::start().await;
    assert_eq!(upload(&plane, &["one", "two", "three"]).await, 3);
    plane.recorded(|recorded| {
        assert_eq!(recorded.log(), "one\ntwo\nthree\n");
        assert_eq!(recorded.logs.keys().copied().collect::<Vec<_>>(), [1, 2, 3]);
    });
}

#[tokio::test]
async fn an_empty_log_asks_nothing() {
    let plane = ControlPlane::start().await;
    assert_eq!(upload(&plane, &[]).await, 0);
    plane.recorded(|recorded| assert!(recorded.requests.is_empty()));
}

#[tokio::test]
async fn an_outage_delays_and_loses_nothing() {
    let plane = ControlPlane::start().await;
    plane.answer_next("deployment_logs", refusal(503, ""));
    plane.answer_next("deployment_logs", refusal(401, "PGRST301"));
    assert_eq!(upload(&plane, &["one", "two"]).await, 2);
    plane.recorded(|recorded| assert_eq!(recorded.log(), "one\ntwo\n"));
}

#[tokio::test]
async fn one_bad_chunk_is_replaced_by_a_note_and_the_others_arrive() {
    let plane = ControlPlane::start().await;
    plane.refuse_chunks_with("poison");
    assert_eq!(upload(&plane, &["one", "two poison", "three", "four"]).await, 4);
    plane.recorded(|recorded| {
        assert_eq!(
            recorded.log(),
            "one\n… 1 lines are missing here: the control plane refused them (22P05)\nthree\nfour\n"
        );
    });
}

#[tokio::test]
async fn what_is_not_surely_about_the_lines_costs_none() {
    let plane = ControlPlane::start().await;
    // A gateway that is starting, a schema cache that is behind, a conflict of another row.
    for (status, code) in [(404, ""), (404, "PGRST205"), (400, "PGRST204"), (409, "")] {
        plane.answer_next("deployment_logs", refusal(status, code));
    }
    let interval = Duration::from_millis(1);
    assert_eq!(upload_with(&plane, &["one", "two"], interval).await, 2);
    plane.recorded(|recorded| assert_eq!(recorded.log(), "one\ntwo\n"));
}

#[tokio::test]
async fn the_log_of_a_deployment_that_was_deleted_is_given_up_at_once() {
    let plane = ControlPlane::start().await;
    plane.answer_next("deployment_logs", refusal(409, "23503"));
    upload(&plane, &["one", "two", "three"]).await;
    plane.recorded(|recorded| assert!(recorded.requests.len() <= 2, "{:?}", recorded.requests));
}

#[tokio::test]
async fn a_request_that_is_too_large_is_split() {
    let plane = ControlPlane::start().await;
    plane.answer_next("deployment_logs", refusal(413, ""));
    assert_eq!(upload(&plane, &["one", "two", "three"]).await, 3);
    plane.recorded(|recorded| {
        assert_eq!(recorded.log(), "one\ntwo\nthree\n");
        assert!(recorded.requests.len() >= 2);
    });
}

#[tokio::test]
async fn requests_are_paced() {
    let plane = ControlPlane::start().await;
    plane.refuse_chunks_with("x");
    upload(&plane, &["ax", "bx", "cx", "dx"]).await;
    plane.recorded(|recorded| {
        let at: Vec<_> = recorded.requests.iter().map(|(at, _)| *at).collect();
        let (first, last) = (at[0], at[at.len() - 1]);
        // Two may come at once, and the first one takes longest to arrive.
        let fair = INTERVAL * u32::try_from(at.len() - 3).unwrap();
        assert!(last - first >= fair, "{} requests in {:?}", at.len(), last - first);
    });
}
