//! State that Terraform could not store: saved, named, and stored later, with the installed terraform.

use std::{fs, path::PathBuf, time::Duration};

use serde_json::{Value, json};
use uuid::Uuid;

use super::fixture::{Fixture, StateServer, gate};
use crate::{
    execute::orphaned_attempts,
    process::{Drain, LocalRunner},
    redaction::Redactor,
    terraform::pending_push,
    testing,
};

/// Where the state is saved that the first job could not store.
fn pending(fixture: &Fixture) -> PathBuf {
    fixture.config.state_dir.join(format!("gate.s/errored-{}.1.tfstate", Uuid::from_u128(1)))
}

#[tokio::test]
async fn a_state_that_terraform_can_only_print_is_kept_and_stored_later() {
    for state_dir_is_usable in [true, false] {
        let server = StateServer::start().await;
        let mut fixture = Fixture::with_state(&server).await;
        fixture.config.templates_dir = fixture.dir.path().join("templates");
        let template = fixture.config.templates_dir.join("dumps");
        fs::create_dir_all(&template).unwrap();
        // Where there is a directory, Terraform cannot make its file.
        let dumps = r#"resource "terraform_data" "dumps" {
            input = "12345678901234567890"
            provisioner "local-exec" { command = "mkdir errored.tfstate; sleep 1" }
        }"#;
        fs::write(template.join("main.tf"), dumps).unwrap();
        server.stored(|stored| stored.refuses_writes = true);
        let state = fixture.config.state_backend.of(&fixture.config.state_dir, "dumps.s");
        let spec = json!({"template": "dumps", "stack": "s"});
        let spoil = async {
            let started = async {
                fixture.prints("dumps: Creating...").await;
                let _none = fs::remove_dir_all(state.dir());
                fs::write(state.dir(), "").unwrap();
            };
            if !state_dir_is_usable {
                started.await;
            }
        };
        tokio::join!(fixture.run(spec.clone()), spoil);
        let log = fixture.plane.recorded(testing::Recorded::log);
        assert!(log.contains("Emergency state dump") && !log.contains("lineage"), "{log}");
        let name = format!("{}.1", Uuid::from_u128(1));
        let place = if state_dir_is_usable {
            state.errored_state_path(&name)
        } else {
            fixture.config.work_dir.join(name).join("errored.tfstate")
        };
        assert!(fixture.message().contains(place.to_str().unwrap()), "{}", fixture.message());
        let stored: Value = serde_json::from_slice(&fs::read(&place).unwrap()).unwrap();
        assert_eq!(stored["resources"][0]["name"], "dumps");

        if !state_dir_is_usable {
            fs::remove_file(state.dir()).unwrap();
        }
        server.stored(|stored| stored.refuses_writes = false);
        fixture.run_as(Uuid::from_u128(7), spec).await;
        assert_eq!(
            fixture.end()["plan_summary"],
            json!({"add": 0, "change": 0, "remove": 0, "import": 0}),
            "it is known"
        );
        assert!(!place.exists());
    }
}

#[tokio::test]
async fn state_that_the_backend_refuses_is_kept_named_and_stored_later() {
    let server = StateServer::start().await;
    let fixture = Fixture::with_state(&server).await;
    server.stored(|stored| stored.refuses_writes = true);
    fixture.run(gate(0)).await;
    assert_eq!(fixture.end()["status"], "FAILED");
    assert!(fixture.message().contains(pending(&fixture).to_str().unwrap()), "{}", fixture.message());
    assert!(fs::read_to_string(pending(&fixture)).unwrap().contains("terraform_data"));

    // Still refused: nothing is planned, the file stays.
    fixture.run_as(Uuid::from_u128(7), gate(0)).await;
    assert_eq!(fixture.end()["error_code"], "STATE_NOT_STORED", "{}", fixture.message());
    assert!(fixture.message().contains(&format!("terraform state push {}", pending(&fixture).display())));
    assert!(pending(&fixture).exists());

    // At the next start the server takes it.
    server.stored(|stored| stored.refuses_writes = false);
    assert_eq!(
        pending_push::keys(&fixture.config.terraform_settings()).into_iter().collect::<Vec<_>>(),
        ["gate.s"]
    );
    let state = fixture.config.state_backend.of(&fixture.config.state_dir, "gate.s");
    pending_push::push(&fixture.config.terraform_settings(), &LocalRunner, &state, &Drain::default()).await;
    assert!(!pending(&fixture).exists());
    assert!(
        String::from_utf8(server.stored(|stored| stored.state.clone()).unwrap())
            .unwrap()
            .contains("terraform_data")
    );
    fixture.run_as(Uuid::from_u128(8), gate(0)).await;
    assert_eq!(
        fixture.end()["plan_summary"],
        json!({"add": 0, "change": 0, "remove": 0, "import": 0}),
        "it is known"
    );
}

#[tokio::test]
async fn state_that_can_be_kept_nowhere_else_stays_in_its_workspace_until_it_is_stored() {
    let server = StateServer::start().await;
    let fixture = Fixture::with_state(&server).await;
    server.stored(|stored| stored.refuses_writes = true);
    let state = fixture.config.state_backend.of(&fixture.config.state_dir, "gate.s");
    let spoil = async {
        fixture.prints("(local-exec): started").await;
        // Nothing can be made below a file.
        let _none = fs::remove_dir_all(state.dir());
        fs::write(state.dir(), "").unwrap();
    };
    tokio::join!(fixture.run(gate(1)), spoil);
    assert_eq!(
        (&fixture.end()["status"], &fixture.end()["error_code"]),
        (&json!("FAILED"), &json!("STATE_NOT_STORED")),
        "{}",
        fixture.message()
    );
    let errored =
        fixture.config.work_dir.join(format!("{}.1/run/module/errored.tfstate", Uuid::from_u128(1)));
    assert!(fixture.message().contains(errored.to_str().unwrap()), "{}", fixture.message());
    assert!(fs::read_to_string(&errored).unwrap().contains("terraform_data"));

    // The next run finds it, and has nowhere to put it either.
    let finalize = async || {
        for orphan in orphaned_attempts(&fixture.config.execute_settings()) {
            orphan
                .finalize(&fixture.config.execute_settings(), &fixture.plane.rest(), &Redactor::default())
                .await;
        }
    };
    finalize().await;
    assert!(errored.exists());

    // Room is made: the next run of that state takes it in and stores it, before it plans.
    fs::remove_file(state.dir()).unwrap();
    server.stored(|stored| stored.refuses_writes = false);
    fixture.run_as(Uuid::from_u128(7), gate(1)).await;
    assert_eq!(fixture.end()["status"], "SUCCESS", "{}", fixture.plane.recorded(testing::Recorded::log));
    assert_eq!(
        fixture.end()["plan_summary"],
        json!({"add": 0, "change": 0, "remove": 0, "import": 0}),
        "it is known"
    );
    assert!(!errored.exists() && state.pending().unwrap().is_empty());
    finalize().await;
    assert_eq!(orphaned_attempts(&fixture.config.execute_settings()).len(), 0);
}

#[tokio::test]
async fn the_lock_of_a_push_that_was_killed_with_its_agent_is_removed_at_the_next_start() {
    let server = StateServer::start().await;
    let fixture = Fixture::with_state(&server).await;
    fixture.run(gate(0)).await;
    let state = fixture.config.state_backend.of(&fixture.config.state_dir, "gate.s");
    fs::create_dir_all(state.dir()).unwrap();
    fs::write(pending(&fixture), server.stored(|stored| stored.state.clone()).unwrap()).unwrap();
    // The agent is killed while its push waits for the server.
    server.stored(|stored| stored.stalls_writes = true);
    let mut newer: Value = serde_json::from_slice(&fs::read(pending(&fixture)).unwrap()).unwrap();
    newer["serial"] = json!(newer["serial"].as_u64().unwrap() + 1);
    fs::write(pending(&fixture), newer.to_string()).unwrap();
    let drain = Drain::default();
    let settings = fixture.config.terraform_settings();
    tokio::select! {
        () = pending_push::push(&settings, &LocalRunner, &state, &drain) => panic!("it cannot end"),
        () = async {
            while server.stored(|stored| stored.writes) == 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        } => {}
    }
    let lock = server.stored(|stored| stored.lock.clone()).expect("the push left its lock");
    assert_eq!(lock["Operation"], "state-push");

    server.stored(|stored| stored.stalls_writes = false);
    assert_eq!(pending_push::keys(&fixture.config.terraform_settings()).len(), 1);
    pending_push::push(&fixture.config.terraform_settings(), &LocalRunner, &state, &Drain::default()).await;
    assert!(!pending(&fixture).exists());
    assert_eq!(server.stored(|stored| stored.lock.clone()), None);
    let stored: Value =
        serde_json::from_slice(&server.stored(|stored| stored.state.clone()).unwrap()).unwrap();
    assert_eq!(stored["lineage"], newer["lineage"]);
    assert!(stored["serial"].as_u64() >= newer["serial"].as_u64(), "{stored}");
    let left: Vec<_> = fs::read_dir(&fixture.config.work_dir).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn rescued_state_of_another_lineage_is_never_pushed_over_the_newer_one() {
    let server = StateServer::start().await;
    let fixture = Fixture::with_state(&server).await;
    fixture.run(gate(0)).await;
    let before = server.stored(|stored| stored.state.clone()).unwrap();
    let mut foreign: Value = serde_json::from_slice(&before).unwrap();
    (foreign["lineage"], foreign["serial"]) = (json!(Uuid::from_u128(9)), json!(99));
    fs::create_dir_all(pending(&fixture).parent().unwrap()).unwrap();
    fs::write(pending(&fixture), foreign.to_string()).unwrap();
    let state = fixture.config.state_backend.of(&fixture.config.state_dir, "gate.s");
    pending_push::push(&fixture.config.terraform_settings(), &LocalRunner, &state, &Drain::default()).await;
    fixture.run_as(Uuid::from_u128(7), gate(0)).await;
    assert_eq!(fixture.end()["error_code"], "STATE_NOT_STORED");
    assert!(fixture.message().contains("unrelated state with lineage"), "{}", fixture.message());
    assert!(pending(&fixture).exists());
    assert_eq!(server.stored(|stored| stored.state.clone()).unwrap(), before);
}
