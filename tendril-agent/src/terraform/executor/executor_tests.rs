//! Steps with the installed terraform and a state server over HTTP, and the escalation with a terraform that forks providers.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use serde_json::json;
use uuid::Uuid;

use super::fixture::{Fixture, StateServer, gate};
use crate::{
    config::preflight,
    execute::Start,
    job::Job,
    process::orphans,
    terraform::{
        TerraformDir,
        state::{lock::Lock, lock_query},
    },
    testing,
};

#[tokio::test]
async fn state_is_stored_in_the_backend_of_the_agents_settings() {
    let server = StateServer::start().await;
    let fixture = Fixture::with_state(&server).await;
    fixture.run(gate(0)).await;
    assert_eq!(fixture.end()["status"], "SUCCESS", "{}", fixture.plane.recorded(testing::Recorded::log));
    let state = server.stored(|stored| stored.state.clone()).unwrap();
    assert!(String::from_utf8(state).unwrap().contains("terraform_data"));
    assert_eq!(server.stored(|stored| stored.lock.clone()), None);
    assert!(!fixture.config.state_dir.join("gate.s/terraform.tfstate").exists());
}

#[tokio::test]
async fn a_foreign_lock_is_explained_and_left() {
    let server = StateServer::start().await;
    let fixture = Fixture::with_state(&server).await;
    let lock = json!({"ID": "abc-1", "Operation": "OperationTypeApply", "Info": "", "Who": "ann@laptop",
        "Version": "1.9.0", "Created": "2026-01-02T03:04:05.678901234Z", "Path": ""});
    server.stored(|stored| stored.lock = Some(lock.clone()));
    fixture.run(gate(0)).await;
    assert_eq!(
        (&fixture.end()["status"], &fixture.end()["error_code"]),
        (&json!("FAILED"), &json!("STATE_LOCKED"))
    );
    for part in [
        "The state gate.s (http) is locked by ann@laptop, for apply, since 2026-01-02T03:04:05Z (",
        "It is not this agent's lock",
        "terraform force-unlock abc-1",
    ] {
        assert!(fixture.message().contains(part), "{}", fixture.message());
    }
    assert_eq!(server.stored(|stored| stored.lock.clone()), Some(lock), "it is still there");
}

#[tokio::test]
async fn the_lock_of_an_own_dead_attempt_is_removed() {
    let server = StateServer::start().await;
    let fixture = Fixture::with_state(&server).await;
    let kill = async {
        fixture.prints("(local-exec): started").await;
        orphans::kill(&fixture.data_dir());
    };
    tokio::join!(fixture.run(gate(600)), kill);
    assert!(fixture.message().contains("killed by a signal from outside"), "{}", fixture.message());
    let lock = server.stored(|stored| stored.lock.clone()).expect("terraform left its lock");
    assert_eq!(lock["Operation"], "OperationTypeApply");

    fixture.run_as(Uuid::from_u128(7), gate(0)).await;
    assert_eq!(fixture.end()["status"], "SUCCESS", "{}", fixture.plane.recorded(testing::Recorded::log));
    assert_eq!(server.stored(|stored| stored.lock.clone()), None);

    // The same lock again has no holder that is known to be dead: the note was valid once.
    server.stored(|stored| stored.lock = Some(lock));
    fixture.run_as(Uuid::from_u128(8), gate(0)).await;
    assert_eq!(fixture.end()["error_code"], "STATE_LOCKED");
    assert!(fixture.message().contains("this agent's own host"), "{}", fixture.message());
}

#[tokio::test]
async fn a_lock_that_terraform_left_after_two_interrupts_is_removed() {
    let server = StateServer::start().await;
    let mut fixture = Fixture::with_state(&server).await;
    fixture.config.timing.apply_cancel_grace = Duration::from_secs(2);
    server.stored(|stored| stored.stalls_writes = true);
    let cancel = async {
        let deadline = Instant::now() + Duration::from_secs(30);
        while server.stored(|stored| stored.writes) == 0 {
            assert!(Instant::now() < deadline, "terraform never stored its state");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        fixture.leases.cancel(Uuid::from_u128(2));
    };
    tokio::join!(fixture.run(gate(0)), cancel);
    // The second stage, with the real program: it leaves at once, with an exit code of its own, and keeps its lock.
    let message = fixture.message();
    assert!(
        message.starts_with("Cancelled during apply: it ended after a second interrupt (SIGINT)."),
        "{message}"
    );
    assert!(message.contains("A lock that it left is removed"), "{message}");
    let lock = server.stored(|stored| stored.lock.clone()).expect("terraform left its lock");
    assert_eq!(lock["Operation"], "OperationTypeApply");

    server.stored(|stored| stored.stalls_writes = false);
    fixture.run_as(Uuid::from_u128(7), gate(0)).await;
    assert_eq!(fixture.end()["status"], "SUCCESS", "{}", fixture.message());
    assert_eq!(server.stored(|stored| stored.lock.clone()), None);
}

#[tokio::test]
async fn a_step_that_fails_gracefully_leaves_no_note_behind() {
    let server = StateServer::start().await;
    let fixture = Fixture::with_state(&server).await;
    fixture.run(json!({"template": "broken", "stack": "s"})).await;
    assert_eq!(fixture.end()["error_code"], "TERRAFORM_FAILED", "{}", fixture.message());
    let state = fixture.config.state_backend.of(&fixture.config.state_dir, "broken.s");
    assert_eq!((state.stale_owners().len(), server.stored(|stored| stored.lock.clone())), (0, None));
}

#[tokio::test]
async fn a_query_about_a_lock_never_fails_a_terraform_that_does_not_wait_for_locks() {
    let server = StateServer::start().await;
    for describes_locks in [true, false] {
        let mut fixture = Fixture::with_state(&server).await;
        if !describes_locks {
            fixture.config.state_backend = server.backend_with(&json!({}));
        }
        fixture.config.timing.lock_timeout = Duration::ZERO;
        let state = fixture.config.state_backend.of(&fixture.config.state_dir, "gate.s");
        let reported = Lock { id: Some("abc-1".to_owned()), ..Lock::default() };
        let mut queries = 0;
        let query = async {
            loop {
                let lock = lock_query::described(&state, reported.clone()).await;
                assert_eq!(lock, reported, "the lock of another owner is not this one");
                queries += 1;
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let plans = async {
            for number in 1..=2 {
                fixture.run_as(Uuid::from_u128(number), gate(0)).await;
                assert_eq!(fixture.end()["status"], "SUCCESS", "{}", fixture.message());
            }
        };
        tokio::select! {
            () = plans => {}
            () = query => {}
        }
        assert!(queries > 0);
        let foreign = json!({"ID": "abc-1", "Operation": "OperationTypeApply", "Who": "ann@laptop", "Created": "2026-01-02T03:04:05Z"});
        server.stored(|stored| stored.lock = Some(foreign.clone()));
        let lock = lock_query::described(&state, reported.clone()).await;
        assert_eq!(lock.who.as_deref(), describes_locks.then_some("ann@laptop"));
        assert_eq!(server.stored(|stored| stored.lock.take()), Some(foreign), "it is still there");
    }
}

#[tokio::test]
async fn where_a_lock_cannot_be_read_the_message_names_the_dead_attempt_that_may_have_left_it() {
    let server = StateServer::start().await;
    let mut fixture = Fixture::with_state(&server).await;
    fixture.config.state_backend = server.backend_with(&json!({}));
    let kill = async {
        fixture.prints("(local-exec): started").await;
        orphans::kill(&fixture.data_dir());
    };
    tokio::join!(fixture.run(gate(600)), kill);
    let lock = server.stored(|stored| stored.lock.clone()).expect("terraform left its lock");
    fixture.run_as(Uuid::from_u128(7), gate(0)).await;
    assert_eq!(fixture.end()["error_code"], "STATE_LOCKED");
    for part in [
        format!("A step of attempt 1 of deployment {} that began at", Uuid::from_u128(1)),
        format!("terraform force-unlock {}", lock["ID"].as_str().expect("its ID")),
    ] {
        assert!(fixture.message().contains(&part), "{part} is missing in:\n{}", fixture.message());
    }
    assert_eq!(server.stored(|stored| stored.lock.clone()), Some(lock), "it is still there");
}

#[tokio::test]
async fn eight_jobs_on_a_cold_provider_cache_fill_it_once() {
    let mut fixture = Fixture::new().await;
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/terraform-with-a-touchy-cache");
    let cache = fixture.dir.path().join("plugins");
    fixture.config.terraform = preflight::terraform(program.to_str(), &TerraformDir::default(), None)
        .unwrap()
        .caching(cache.clone());
    let context = fixture.context();
    let job = async |number: u128| {
        let (id, claim_token) = (Uuid::from_u128(number), Uuid::from_u128(number + 100));
        let config = json!({"template": "gate", "stack": format!("s{number}"), "variables": {}});
        let job = Job { id, attempt: 1, claim_token, config: config.into(), state_key: None };
        let lease = fixture.leases.hold(&job);
        context.run(job, &lease, Start::Workspace).await;
    };
    futures_util::future::join_all((1..=8).map(job)).await;
    let ends = fixture.plane.recorded(|recorded| {
        recorded
            .patches
            .iter()
            .filter_map(|patch| patch["status"].as_str().map(str::to_owned))
            .collect::<Vec<_>>()
    });
    assert_eq!(ends, ["SUCCESS"; 8], "{}", fixture.plane.recorded(testing::Recorded::log));
    assert_eq!(fs::read_to_string(cache.join("downloads")).unwrap(), "downloaded\n");
}

/// Cancels in mid-apply; answers the message.
async fn cancelled(fixture: &Fixture, mode: &str) -> String {
    let config = json!({"template": "providers", "stack": "s", "variables": {"mode": mode, "scratch": fixture.scratch()}});
    let cancel = async {
        fixture.prints("ready").await;
        fixture.leases.cancel(Uuid::from_u128(2));
    };
    tokio::join!(fixture.run(config), cancel);
    assert_eq!(fixture.end()["status"], "CANCELLED");
    assert_eq!(fixture.note("casualties"), "", "no provider may die of SIGTERM");
    for pid in fixture.note("pids").lines() {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        assert!(stat.is_empty() || stat.contains(") Z "), "process {pid} is left: {stat}");
    }
    fixture.message()
}

#[tokio::test]
async fn one_interrupt_lets_the_providers_finish_and_the_state_be_saved() {
    let fixture = Fixture::with_providers().await;
    let message = cancelled(&fixture, "polite").await;
    assert_eq!(message, "Cancelled during apply: it ended after one interrupt (SIGINT).");
    assert_eq!(
        (fixture.note("changes").as_str(), fixture.note("state").as_str()),
        ("changed\nchanged\n", "saved\n")
    );
    assert!(!fixture.scratch().join("lock").exists());
    assert!(!fixture.plane.recorded(testing::Recorded::log).contains("interrupt 2"));
}

#[tokio::test]
async fn a_second_interrupt_comes_after_the_grace_period_and_is_reported() {
    let mut fixture = Fixture::with_providers().await;
    fixture.config.timing.apply_cancel_grace = Duration::from_millis(300);
    let message = cancelled(&fixture, "slow").await;
    assert!(
        message.starts_with(
            "Cancelled during apply: it ended after a second interrupt (SIGINT). What it changed"
        ),
        "{message}"
    );
    assert!(!fixture.scratch().join("lock").exists());
}

#[tokio::test]
async fn what_ignores_interrupts_is_killed_with_its_whole_group_and_that_is_reported() {
    let mut fixture = Fixture::with_providers().await;
    fixture.config.timing.apply_cancel_grace = Duration::from_millis(200);
    fixture.config.timing.kill_grace = Duration::from_millis(200);
    let message = cancelled(&fixture, "deaf").await;
    assert!(
        message.starts_with(
            "Cancelled during apply: it did not end after two interrupts and was killed (SIGKILL). What"
        ),
        "{message}"
    );
    let state = fixture.config.state_backend.of(&fixture.config.state_dir, "providers.s");
    assert_eq!(state.stale_owners().len(), 1, "the lock that it left can be recognised");
}

#[tokio::test]
async fn each_time_limit_ends_a_step_gracefully_and_is_named() {
    for (timeouts, template, part) in [
        (
            json!({"apply": 1}),
            "gate",
            "terraform apply took longer than its limit of 1 s (config_snapshot.timeouts.apply",
        ),
        (json!({"silence": 1}), "gate", "there was no output for 1 s (config_snapshot.timeouts.silence"),
        (json!({"init": 1}), "late", "terraform init took longer than its limit of 1 s"),
        (json!({"plan": 1}), "late", "terraform plan took longer than its limit of 1 s"),
    ] {
        let mut fixture = Fixture::new().await;
        if template == "late" {
            // A program that takes its time for each step, and ends when it is interrupted.
            let program = fixture.dir.path().join("terraform");
            let script = "#!/bin/bash\ncase $1 in version) echo '{\"terraform_version\":\"1.11.4\"}'; exit;; init) [ \"$SLOW\" = init ] || exit 0;; esac\ntrap 'exit 1' INT\nfor i in {1..600}; do sleep 0.05; done\n";
            let script = script
                .replace("\"$SLOW\" = init", if timeouts.get("init").is_some() { "1 = 1" } else { "1 = 2" });
            fs::write(&program, script).unwrap();
            fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
            fixture.config.terraform =
                preflight::terraform(program.to_str(), &TerraformDir::default(), None).unwrap();
        }
        let begun = Instant::now();
        fixture.run(json!({"template": "gate", "stack": "s", "variables": {"seconds": 600}, "timeouts": timeouts})).await;
        assert_eq!(fixture.end()["error_code"], "TIMED_OUT", "{}", fixture.message());
        assert!(
            fixture.message().contains(part) && fixture.message().contains("after one interrupt"),
            "{}",
            fixture.message()
        );
        assert!(begun.elapsed() < Duration::from_secs(60));
    }
}

#[tokio::test]
async fn a_limit_of_the_agent_holds_whatever_a_deployment_requests() {
    let mut fixture = Fixture::new().await;
    fixture.config.timing.apply_timeout = Duration::from_secs(1);
    fixture
        .run(json!({"template": "gate", "variables": {"seconds": 600}, "timeouts": {"apply": 3600}}))
        .await;
    assert_eq!(fixture.end()["error_code"], "TIMED_OUT", "{}", fixture.message());
}

/// Installs a hook.
fn hook(fixture: &mut Fixture, name: &str, script: &str) {
    let dir = fixture.dir.path().join("hooks");
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join(name), format!("#!/bin/bash\n{script}\n")).unwrap();
    fs::set_permissions(dir.join(name), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    fixture.config.hook_dir = Some(dir);
}

#[tokio::test]
async fn hooks_run_in_their_places_and_the_one_after_the_plan_sees_it() {
    let mut fixture = Fixture::new().await;
    for name in ["pre-init", "pre-plan", "post-apply", "on-failure"] {
        hook(&mut fixture, name, "echo \"I am $TENDRIL_HOOK of $TENDRIL_TEMPLATE/$TENDRIL_STACK\"");
    }
    hook(
        &mut fixture,
        "post-plan",
        "python3 -c 'import json,os; p=json.load(open(os.environ[\"TENDRIL_PLAN_JSON\"])); print(\"planned\", p[\"resource_changes\"][0][\"address\"], oct(os.stat(os.environ[\"TENDRIL_PLAN_JSON\"]).st_mode & 0o777))'",
    );
    fixture.run(gate(0)).await;
    let log = fixture.plane.recorded(testing::Recorded::log);
    assert_eq!(fixture.end()["status"], "SUCCESS", "{log}");
    let places = [
        "I am pre-init of gate/s",
        "I am pre-plan",
        "planned terraform_data.gate 0o600",
        "Apply complete",
        "I am post-apply",
    ];
    let at = places.map(|part| log.find(part).unwrap_or_else(|| panic!("{part} is missing in {log}")));
    assert!(at.is_sorted(), "{log}");
    assert!(!log.contains("I am on-failure"), "{log}");
}

#[tokio::test]
async fn a_hook_that_refuses_forbids_the_apply_with_its_own_message_and_no_secret() {
    for (name, script, part) in [
        ("post-plan", "echo 'no public buckets, correct-horse'; exit 1", "no public buckets, [hidden]"),
        ("pre-plan", "exit 3", "it ended with exit code 3 and no output"),
        ("pre-init", "sleep 600", "it did not end within 1 s"),
        ("post-plan", "env | grep -c SUPABASE_ ; env | grep TENDRIL_AGENT; exit 1", "0"),
    ] {
        let mut fixture = Fixture::new().await;
        fixture.config.timing.hook = Duration::from_secs(1);
        hook(&mut fixture, name, script);
        hook(&mut fixture, "on-failure", "echo \"failed with $TENDRIL_ERROR_CODE\"");
        fixture.run(json!({"template": "greeting", "stack": "s", "variables": {"name": "x", "password": "correct-horse"}})).await;
        let log = fixture.plane.recorded(testing::Recorded::log);
        assert_eq!(fixture.end()["error_code"], "POLICY_DENIED", "{log}");
        assert!(
            fixture.message().contains(&format!("The hook {name} of this agent refused")),
            "{}",
            fixture.message()
        );
        assert!(fixture.message().contains(part), "{}", fixture.message());
        assert!(!log.contains("Apply complete") && log.contains("failed with POLICY_DENIED"), "{log}");
    }
}
