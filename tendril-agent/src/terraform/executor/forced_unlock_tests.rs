//! The upper stages of the escalation with the installed terraform, and what it leaves there: its state server stops answering.

use std::{
    fs,
    time::{Duration, Instant},
};

use serde_json::json;
use uuid::Uuid;

use super::fixture::{Fixture, StateServer, gate};
use crate::{process::orphans, testing::Recorded};

/// Cancels once a request hangs.
async fn cancel_when_hanging(fixture: &Fixture, server: &StateServer) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while server.stored(|stored| stored.hanging) == 0 {
        assert!(Instant::now() < deadline, "{}", fixture.plane.recorded(Recorded::log));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    fixture.leases.cancel(Uuid::from_u128(2));
}

/// The lock is still there, and the next run of this agent takes it for what it is.
async fn the_lock_is_left_and_removed_by_the_next_run(fixture: &Fixture, server: &StateServer) {
    let lock = server.stored(|stored| stored.lock.clone()).expect("terraform left its lock");
    assert_eq!(lock["Operation"], "OperationTypeApply");
    server.stored(|stored| stored.stalls = None);
    fixture.run_as(Uuid::from_u128(7), gate(0)).await;
    let log = fixture.plane.recorded(Recorded::log);
    assert_eq!(fixture.end()["status"], "SUCCESS", "{log}");
    assert_eq!(server.stored(|stored| stored.lock.clone()), None);
}

#[tokio::test]
async fn a_terraform_that_is_killed_while_it_stores_its_state_leaves_a_lock_that_is_known() {
    let server = StateServer::start().await;
    let mut fixture = Fixture::with_state(&server).await;
    fixture.config.timing.apply_cancel_grace = Duration::from_millis(300);
    // Terraform takes five seconds to give up after the second interrupt.
    fixture.config.timing.kill_grace = Duration::from_millis(500);
    server.stored(|stored| stored.stalls = Some(("POST", 1)));
    tokio::join!(fixture.run(gate(0)), cancel_when_hanging(&fixture, &server));
    assert!(
        fixture.message().starts_with(
            "Cancelled during apply: it did not end after two interrupts and was killed (SIGKILL). What it changed"
        ),
        "{}",
        fixture.message()
    );
    the_lock_is_left_and_removed_by_the_next_run(&fixture, &server).await;
}

#[tokio::test]
async fn a_terraform_that_hears_no_interrupt_is_killed() {
    let server = StateServer::start().await;
    let mut fixture = Fixture::with_state(&server).await;
    fixture.config.timing.plan_cancel_grace = Duration::from_millis(300);
    fixture.config.timing.kill_grace = Duration::from_millis(300);
    // Plan and apply gave their locks back; `output` reads the state, and is deaf while it does.
    server.stored(|stored| stored.stalls = Some(("GET", 2)));
    tokio::join!(fixture.run(gate(0)), cancel_when_hanging(&fixture, &server));
    assert_eq!(
        fixture.message(),
        "Cancelled during output: it did not end after two interrupts and was killed (SIGKILL). The apply was complete before that."
    );
    let state = fixture.config.state_backend.of(&fixture.config.state_dir, "gate.s");
    assert!(state.stale_owners().is_empty(), "it held no lock");
    assert_eq!(server.stored(|stored| stored.lock.clone()), None);
}

#[tokio::test]
async fn a_provisioner_that_is_deaf_is_ended_by_terraform_and_the_state_is_stored() {
    let server = StateServer::start().await;
    let fixture = Fixture::with_state(&server).await;
    let cancel = async {
        fixture.prints("(local-exec): deaf").await;
        fixture.leases.cancel(Uuid::from_u128(2));
    };
    let config = json!({"template": "deaf", "stack": "s", "variables": {}});
    tokio::join!(fixture.run(config), cancel);
    assert_eq!(fixture.message(), "Cancelled during apply: it ended after one interrupt (SIGINT).");
    assert_eq!(server.stored(|stored| stored.lock.clone()), None);
    assert!(orphans::of(&fixture.data_dir()).is_empty(), "nobody is left");
    assert!(fs::read_dir(&fixture.config.work_dir).unwrap().next().is_none());
}
