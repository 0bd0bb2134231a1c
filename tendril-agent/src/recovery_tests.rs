use std::{fs, path::Path, time::Instant};

use serde_json::{Value, json};
use uuid::Uuid;

use super::*;
use crate::{
    bench::{self, ControlPlane},
    job::{Job, Phase},
    log_spool::SpoolRules,
};

/// What an agent that was killed leaves: a claim, a log with an uploaded chunk and lines after it, and a torn record.
fn leave_behind(dir: &Path, phase: Phase) -> Workspace {
    let job =
        Job { id: Uuid::from_u128(1), attempt: 2, claim_token: Uuid::from_u128(3), config: Value::Null };
    let workspace = Workspace::create(&dir.join("work"), &job).unwrap();
    ClaimRecord::new(&job, phase).save(&workspace.claim_file()).unwrap();
    let rules = SpoolRules { flush_after: std::time::Duration::ZERO, limit: u64::MAX };
    let (mut spool, _) = LogSpool::create(&workspace.log_dir(), rules).unwrap();
    spool.append(Stream::Stdout, "uploaded", Instant::now());
    spool.cut_all(Instant::now());
    spool.append(Stream::Stdout, "only on disk", Instant::now());
    spool.flush();
    let log = workspace.log_dir().join("1");
    let mut torn = fs::read(&log).unwrap();
    torn.extend_from_slice(b"o17323799");
    fs::write(&log, torn).unwrap();
    workspace
}

async fn recover_all(dir: &Path, plane: &ControlPlane) {
    let config = bench::config(dir);
    for leftover in leftovers(&config) {
        leftover.settle(&config, &plane.rest()).await;
    }
}

fn is_empty(dir: &Path) -> bool {
    fs::read_dir(dir.join("work")).unwrap().next().is_none()
}

#[tokio::test]
async fn lines_and_result_of_an_earlier_life_arrive() {
    let (dir, plane) = (tempfile::tempdir().unwrap(), ControlPlane::start().await);
    let workspace = leave_behind(dir.path(), Phase::Apply);
    FinalStatus::new(&Ending::Success, None, None).save(&workspace.ending_file()).unwrap();
    recover_all(dir.path(), &plane).await;
    plane.told(|told| {
        assert!(
            told.log().starts_with("uploaded\nonly on disk\nThe agent was restarted here"),
            "{}",
            told.log()
        );
        assert_eq!(told.logs.keys().copied().collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!(told.end()["status"], "SUCCESS");
        assert_eq!(told.end()["log_count"], 3);
        assert_eq!(told.end()["claim_token"], json!(Uuid::from_u128(3)));
    });
    assert!(is_empty(dir.path()));
}

#[tokio::test]
async fn a_run_that_was_cut_off_in_mid_apply_is_said_to_be_lost() {
    let (dir, plane) = (tempfile::tempdir().unwrap(), ControlPlane::start().await);
    leave_behind(dir.path(), Phase::Apply);
    recover_all(dir.path(), &plane).await;
    plane.told(|told| {
        assert_eq!(
            (&told.end()["status"], &told.end()["error_code"]),
            (&json!("FAILED"), &json!("AGENT_LOST"))
        );
        assert!(told.end()["error_message"].as_str().unwrap().contains("phase APPLY"));
    });
    assert!(is_empty(dir.path()));
}

#[tokio::test]
async fn a_run_that_was_cut_off_before_the_apply_is_left_to_the_queue() {
    let (dir, plane) = (tempfile::tempdir().unwrap(), ControlPlane::start().await);
    leave_behind(dir.path(), Phase::Claimed);
    recover_all(dir.path(), &plane).await;
    plane.told(|told| {
        assert!(told.patches.is_empty());
        assert!(told.log().contains("only on disk"));
    });
    assert!(is_empty(dir.path()));
}

#[tokio::test]
async fn a_result_that_is_refused_is_given_up() {
    let (dir, plane) = (tempfile::tempdir().unwrap(), ControlPlane::start().await);
    leave_behind(dir.path(), Phase::Apply);
    plane.answer_next("deployments", bench::refusal(400, "TD001"));
    recover_all(dir.path(), &plane).await;
    assert!(is_empty(dir.path()));
}
