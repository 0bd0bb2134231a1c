use std::{fs, path::Path, time::Instant};

use serde_json::json;
use uuid::Uuid;

use super::*;
use crate::{
    job::{Job, Phase},
    logs::SpoolRules,
    process::Stream,
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
        orphan.finalize(&config.execute_settings(), &plane.rest(), &Redactor::default()).await;
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

/// Gives a workspace what its template marks as sensitive, and a journal with what was read and not put into the log.
fn leave_unread(workspace: &Workspace, unread: &str) {
    workspace.make_dirs().unwrap();
    fs::write(workspace.variables_file(), json!({"password": "hunter2-hunter2"}).to_string()).unwrap();
    let declared = "variable \"password\" {\n  type = string\n  sensitive = true\n}\n";
    fs::write(workspace.module_dir().join("main.tf"), declared).unwrap();
    fs::create_dir(workspace.journal_dir()).unwrap();
    fs::write(workspace.journal_dir().join("stdout"), format!("uploaded\nonly on disk\n{unread}")).unwrap();
    // The log has the first two lines of it.
    let log = workspace.log_dir().join("1");
    let mut records = fs::read_to_string(&log).unwrap();
    records.truncate(records.rfind('\n').unwrap() + 1);
    fs::write(log, format!("{records}p0:2 0:0\n")).unwrap();
}

#[tokio::test]
async fn what_a_killed_executor_had_read_and_not_logged_arrives_redacted() {
    for phase in [Phase::Plan, Phase::Apply] {
        let (dir, plane) = (tempfile::tempdir().unwrap(), ControlPlane::start().await);
        let workspace = leave_behind(dir.path(), phase);
        leave_unread(&workspace, "in the journal: hunter2-hunter2\nthe last line has no end");
        recover_all(dir.path(), &plane).await;
        plane.recorded(|recorded| {
            let log = recorded.log();
            let lines: Vec<_> = log.lines().collect();
            assert_eq!(
                lines[..4],
                ["uploaded", "only on disk", "in the journal: [hidden]", "the last line has no end"]
            );
        });
        assert!(is_empty(dir.path()));
    }
}

#[tokio::test]
async fn what_a_program_writes_that_outlived_its_executor_and_keeper_arrives() {
    let (dir, plane) = (tempfile::tempdir().unwrap(), ControlPlane::start().await);
    let workspace = leave_behind(dir.path(), Phase::Apply);
    leave_unread(&workspace, "half a ");
    let (reader, writer) = std::io::pipe().unwrap();
    // As an executor gives it to its programs: it can read it as well.
    let both = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&writer)))
        .unwrap();
    let script = "trap 'echo interrupted; exit 1' INT; echo line; echo more; touch ready; while :; do sleep 0.02; done";
    let mut command = std::process::Command::new("/bin/bash");
    command
        .args(["-c", script])
        .env("TF_DATA_DIR", workspace.data_dir())
        .current_dir(dir.path())
        .stdout(both);
    let mut survivor = command.spawn().unwrap();
    drop((command, reader, writer));
    let deadline = Instant::now() + std::time::Duration::from_secs(10);
    while !dir.path().join("ready").exists() {
        assert!(Instant::now() < deadline);
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let waited = std::thread::spawn(move || survivor.wait().unwrap());
    recover_all(dir.path(), &plane).await;
    waited.join().unwrap();
    let log = plane.recorded(testing::Recorded::log);
    let lines: Vec<_> = log.lines().collect();
    assert_eq!(lines[..5], ["uploaded", "only on disk", "half a line", "more", "interrupted"], "{log}");
}

#[test]
fn what_an_attempt_is_known_by_survives_a_power_cut() {
    let dir = tempfile::tempdir().unwrap();
    let job = Job {
        id: Uuid::from_u128(1),
        attempt: 1,
        claim_token: Uuid::from_u128(3),
        config: crate::job::ConfigSnapshot::default(),
        state_key: None,
    };
    let workspace = Workspace::create(&dir.path().join("work"), &job).unwrap();
    ClaimRecord::new(&job, Phase::Claimed).save(&workspace.claim_file()).unwrap();
    let rules = SpoolRules { flush_after: std::time::Duration::ZERO, limit: u64::MAX };
    let _spool = LogSpool::create(&workspace.log_dir(), rules).unwrap();
    ClaimRecord::new(&job, Phase::Apply).save(&workspace.claim_file()).unwrap();
    // The exit code of an earlier try, before the next one.
    crate::os::files::private_file(&workspace.exit_file(), b"{\"code\":1}").unwrap();
    keeper::begin(&workspace.exit_file());
    FinalStatus::new(&JobResult::Success, None, None).save(&workspace.result_file()).unwrap();
    let lost = crate::os::files::power_cut::lost(dir.path());
    assert_eq!(lost, std::collections::BTreeMap::new());
    // A removal that was cut off is not taken for a whole attempt.
    let (root, claim) = (workspace.claim_file(), "claim.json".to_owned());
    workspace.remove().unwrap();
    let synced = crate::os::files::power_cut::syncs(root.parent().unwrap()).pop().unwrap();
    assert!(!synced.contains(&claim), "{synced:?}");
}
