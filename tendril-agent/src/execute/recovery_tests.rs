use std::{fs, path::Path, time::Instant};

use serde_json::json;
use uuid::Uuid;

use super::*;
use crate::{
    job::{Job, Phase},
    logs::SpoolRules,
    testing::{self, ControlPlane},
};

/// What an agent that was killed leaves: a claim, a log with an uploaded chunk and lines after it, and a torn record.
fn leave_behind(dir: &Path, phase: Phase) -> Workspace {
    let job = Job {
        id: Uuid::from_u128(1),
        attempt: 2,
        claim_token: Uuid::from_u128(3),
        config: crate::job::ConfigSnapshot::default(),
        state_key: None,
    };
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
    let config = testing::config(dir);
    for orphan in orphaned_attempts(&config.execute_settings()) {
        orphan.finalize(&config.execute_settings(), &plane.rest()).await;
    }
}

fn is_empty(dir: &Path) -> bool {
    fs::read_dir(dir.join("work")).unwrap().next().is_none()
}

#[tokio::test]
async fn lines_and_result_of_an_earlier_life_arrive() {
    let (dir, plane) = (tempfile::tempdir().unwrap(), ControlPlane::start().await);
    let workspace = leave_behind(dir.path(), Phase::Apply);
    FinalStatus::new(&JobResult::Success, None, None).save(&workspace.result_file()).unwrap();
    recover_all(dir.path(), &plane).await;
    plane.recorded(|recorded| {
        assert!(
            recorded.log().starts_with("uploaded\nonly on disk\nThe agent was restarted here"),
            "{}",
            recorded.log()
        );
        assert_eq!(recorded.logs.keys().copied().collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!(recorded.end()["status"], "SUCCESS");
        assert_eq!(recorded.end()["log_count"], 3);
        assert_eq!(recorded.end()["claim_token"], json!(Uuid::from_u128(3)));
    });
    assert!(is_empty(dir.path()));
}

#[tokio::test]
async fn a_run_that_was_cut_off_in_mid_apply_is_said_to_be_lost() {
    let (dir, plane) = (tempfile::tempdir().unwrap(), ControlPlane::start().await);
    leave_behind(dir.path(), Phase::Apply);
    recover_all(dir.path(), &plane).await;
    plane.recorded(|recorded| {
        assert_eq!(
            (&recorded.end()["status"], &recorded.end()["error_code"]),
            (&json!("FAILED"), &json!("AGENT_LOST"))
        );
        assert!(recorded.end()["error_message"].as_str().unwrap().contains("phase APPLY"));
    });
    assert!(is_empty(dir.path()));
}

#[tokio::test]
async fn a_run_that_was_cut_off_before_the_apply_is_left_to_the_queue() {
    let (dir, plane) = (tempfile::tempdir().unwrap(), ControlPlane::start().await);
    leave_behind(dir.path(), Phase::Claimed);
    recover_all(dir.path(), &plane).await;
    plane.recorded(|recorded| {
        assert!(recorded.patches.is_empty());
        assert!(recorded.log().contains("only on disk"));
    });
    assert!(is_empty(dir.path()));
}

#[tokio::test]
async fn a_result_that_is_refused_is_given_up() {
    let (dir, plane) = (tempfile::tempdir().unwrap(), ControlPlane::start().await);
    leave_behind(dir.path(), Phase::Apply);
    plane.answer_next("deployments", testing::refusal(400, "TD001"));
    recover_all(dir.path(), &plane).await;
    assert!(is_empty(dir.path()));
}

#[tokio::test]
async fn a_terraform_that_survived_its_agent_is_ended_politely_and_its_lock_remembered() {
    let (dir, plane) = (tempfile::tempdir().unwrap(), ControlPlane::start().await);
    let workspace = leave_behind(dir.path(), Phase::Apply);
    let config = testing::config(dir.path());
    let state = config.state_backend.of(&config.state_dir, "");
    let held = LockOwner::new(Uuid::from_u128(1), 2, &state, "OperationTypeApply", std::time::Duration::ZERO);
    held.save(&workspace.lock_owner_file()).unwrap();
    let mut survivor = std::process::Command::new("/bin/bash")
        .args(["-c", "trap 'touch interrupted; exit 1' INT; touch ready; while :; do sleep 0.02; done"])
        .env("TF_DATA_DIR", workspace.data_dir())
        .current_dir(dir.path())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + std::time::Duration::from_secs(10);
    while !dir.path().join("ready").exists() {
        assert!(Instant::now() < deadline);
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    // The test is the survivor's parent, as process 1 would be: it must not stay a zombie.
    let waited = std::thread::spawn(move || survivor.wait().unwrap());
    recover_all(dir.path(), &plane).await;
    assert_eq!(waited.join().unwrap().code(), Some(1));
    assert!(dir.path().join("interrupted").exists());
    plane.recorded(|recorded| {
        let message = recorded.end()["error_message"].as_str().unwrap();
        assert!(
            message.contains("Its Terraform was still running: it ended after one interrupt (SIGINT)."),
            "{message}"
        );
    });
    assert_eq!(state.stale_owners().len(), 1);
    assert!(is_empty(dir.path()));
}

#[tokio::test]
async fn one_directory_that_cannot_be_read_or_removed_hides_no_other() {
    let (dir, plane) = (tempfile::tempdir().unwrap(), ControlPlane::start().await);
    leave_behind(dir.path(), Phase::Claimed);
    let work = dir.path().join("work");
    for attempt in [1, 3] {
        // What looks like an attempt and cannot be removed as a directory, and one whose claim is no file.
        let attempt_dir = work.join(format!("{}.{attempt}", Uuid::from_u128(9)));
        if attempt == 1 {
            fs::write(attempt_dir, "").unwrap();
        } else {
            fs::create_dir_all(attempt_dir.join("claim.json")).unwrap();
        }
    }
    recover_all(dir.path(), &plane).await;
    assert!(plane.recorded(testing::Recorded::log).contains("only on disk"));
    assert!(!work.join(format!("{}.2", Uuid::from_u128(1))).exists());
}

#[tokio::test]
async fn an_attempt_whose_removal_was_cut_off_is_no_lost_run() {
    let (dir, plane) = (tempfile::tempdir().unwrap(), ControlPlane::start().await);
    let workspace = leave_behind(dir.path(), Phase::Apply);
    // As far as the removal came.
    fs::remove_file(workspace.claim_file()).unwrap();
    recover_all(dir.path(), &plane).await;
    plane.recorded(|recorded| {
        assert!(recorded.patches.is_empty() && recorded.logs.is_empty(), "{:?}", recorded.logs);
    });
    assert!(is_empty(dir.path()));
}
