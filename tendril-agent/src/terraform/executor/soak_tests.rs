//! Many jobs in a row, with failures, crashes, cancels and processes that run away: nothing is left of them.

use std::{fs, path::Path};

use rustix::process::getpid;
use serde_json::json;
use uuid::Uuid;

use super::fixture::Fixture;
use crate::{execute::Start, job::Job};

/// As many as `make verify` and the nightly workflow run with `TENDRIL_RACE=full`.
const MANY: u128 = 200;
const FEW: u128 = 40;
const CANARY: &str = "canary-3f9b1c";

/// Processes that have this directory in their environment, and children of this process that were not waited for.
fn left(dir: &Path) -> Vec<String> {
    let (mark, me) = (dir.to_str().unwrap().as_bytes().to_vec(), getpid().as_raw_nonzero().to_string());
    let mut left = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().filter_map(Result::ok) {
        let pid = entry.file_name().to_string_lossy().into_owned();
        let environ = fs::read(entry.path().join("environ")).unwrap_or_default();
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let zombie = stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with(&format!("Z {me} ")));
        if pid != me && (zombie || environ.windows(mark.len()).any(|part| part == mark)) {
            left.push(stat);
        }
    }
    left
}

/// Files below a directory that hold the canary.
fn leaks(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            found.extend(leaks(&path));
        } else if String::from_utf8_lossy(&fs::read(&path).unwrap()).contains(CANARY) {
            found.push(path.display().to_string());
        }
    }
    found
}

fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

#[tokio::test]
async fn many_jobs_leave_no_process_directory_descriptor_or_credential() {
    let mut fixture = Fixture::with_providers().await;
    fixture.config.timing.log_flush = std::time::Duration::from_millis(1);
    // Nothing here may wait for minutes, whatever goes wrong.
    fixture.config.timing.apply_cancel_grace = std::time::Duration::from_secs(10);
    fixture.config.timing.kill_grace = std::time::Duration::from_secs(2);
    let context = fixture.context();
    let mut before = 0;
    let jobs = if std::env::var("TENDRIL_RACE").is_ok_and(|size| size == "full") { MANY } else { FEW };
    for number in 0..jobs {
        let mode = ["quick", "fail", "crash", "leak", "polite"][usize::try_from(number % 5).unwrap()];
        let variables = json!({"mode": mode, "scratch": fixture.scratch(), "password": CANARY});
        let config = json!({"template": "providers", "stack": "s", "variables": variables});
        let (id, claim_token) = (Uuid::from_u128(number + 1), Uuid::from_u128(number + 1000));
        let job = Job { id, attempt: 1, claim_token, config: config.into(), state_key: None };
        let lease = fixture.leases.hold(&job);
        let cancel = async {
            while mode == "polite" && !fixture.scratch().join("lock").exists() {
                tokio::time::sleep(std::time::Duration::from_millis(2)).await;
            }
            if mode == "polite" {
                fixture.leases.cancel(claim_token);
            } else {
                std::future::pending::<()>().await;
            }
        };
        let run = context.run(job, &lease, Start::Workspace);
        tokio::pin!(run);
        tokio::select! {
            _ended = &mut run => {}
            () = cancel => drop(run.await),
        }
        let wanted = match mode {
            "quick" | "leak" => "SUCCESS",
            "polite" => "CANCELLED",
            _ => "FAILED",
        };
        assert_eq!(fixture.end()["status"], wanted, "{number} {mode}: {}", fixture.end());
        if mode == "polite" {
            fs::remove_file(fixture.scratch().join("finish")).unwrap();
        }
        if number == 9 {
            // By now everything that is opened once has been.
            before = descriptors();
        }
    }
    assert_eq!(left(fixture.dir.path()), Vec::<String>::new());
    assert!(descriptors() <= before + 2, "{before} descriptors became {}", descriptors());
    assert_eq!(fs::read_dir(&fixture.config.work_dir).unwrap().count(), 0);
    assert_eq!(leaks(fixture.dir.path()), Vec::<String>::new());
    assert_eq!(fixture.leases.tokens(), Vec::<Uuid>::new());
}
