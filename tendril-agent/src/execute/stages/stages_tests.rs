//! Approval: the wait, the decision, the restart in between, and everything that must not be applied.

use std::{fs, path::PathBuf, sync::Arc, time::SystemTime};

use serde_json::{Value, json};
use uuid::Uuid;
use wiremock::ResponseTemplate;

use super::*;
use crate::{
    config::Config,
    control_plane::Leases,
    execute::{
        attempt::{RunEnd, Start},
        recovery::{claimed_job, orphaned_attempts},
    },
    process::LocalRunner,
    redaction::Redactor,
    testing::{self, ControlPlane},
};

const CLAIM: Uuid = Uuid::from_u128(2);

struct Fixture {
    dir: tempfile::TempDir,
    plane: ControlPlane,
    leases: Leases,
    config: Config,
}

impl Fixture {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config = testing::config(dir.path());
        // A copy, so that a test can change a template.
        let (from, templates) =
            (config.templates_dir.join("greeting"), dir.path().join("templates/greeting"));
        fs::create_dir_all(&templates).unwrap();
        for name in ["main.tf", "template.json"] {
            fs::copy(from.join(name), templates.join(name)).unwrap();
        }
        config.templates_dir = dir.path().join("templates");
        Self { dir, plane: ControlPlane::start().await, leases: Leases::default(), config }
    }

    /// One life of an agent.
    fn context(&self) -> JobContext {
        JobContext {
            settings: Arc::new(self.config.execute_settings()),
            rest: self.plane.rest(),
            runner: Arc::new(LocalRunner),
            registry: crate::execute::registry::Registry::default(),
            secrets: Redactor::default(),
            drain: crate::process::Drain::default(),
        }
    }

    fn job() -> Job {
        let config =
            json!({"template": "greeting", "stack": "s", "approval": true, "variables": {"name": "x"}});
        let config = config.into();
        Job { id: Uuid::from_u128(1), attempt: 1, claim_token: CLAIM, config, state_key: None }
    }

    async fn run(&self) -> RunEnd {
        let job = Self::job();
        let lease = self.leases.hold(&job);
        self.context().run(job, &lease, Start::Workspace).await
    }

    /// Runs until the plan waits; answers the digest that the row shows.
    async fn wait_and_stop(&self) -> String {
        self.plane.row(json!({"id": "x", "status": "PROCESSING"}));
        assert_eq!(self.run().await, RunEnd::Waiting);
        assert!(self.workspace().exists(), "the workspace stays");
        let patches = self.plane.recorded(|recorded| recorded.patches.clone());
        let last = patches.last().unwrap();
        assert!(last.get("status").is_none(), "it has no end yet: {last}");
        assert_eq!((&last["phase"], &last["plan_summary"]["add"]), (&json!("APPROVAL"), &json!(1)), "{last}");
        last["plan_sha256"].as_str().unwrap().to_owned()
    }

    /// Another executor continues with what the row has.
    async fn take_over(&self, row: Value) -> RunEnd {
        let mut shown = json!({"id": "x", "status": "PROCESSING", "config_snapshot": Self::job().config.parse().unwrap()});
        shown.as_object_mut().unwrap().extend(row.as_object().unwrap().clone());
        self.plane.row(shown);
        let context = self.context();
        let orphan = orphaned_attempts(&self.config.execute_settings()).pop().expect("an orphan");
        let start = orphan.goes_on_at().expect("it can go on");
        let job = claimed_job(&context.rest, &orphan.claim).await.expect("it still waits");
        let lease = self.leases.hold(&job);
        context.run(job, &lease, start).await
    }

    async fn approved(&self, plan: &str) -> RunEnd {
        self.take_over(json!({"approved_plan": plan})).await
    }

    /// Changes the claim's record on disk.
    fn rewrite_claim(&self, change: impl FnOnce(&mut ClaimRecord)) {
        let file = self.workspace().join("claim.json");
        let mut record = ClaimRecord::load(&file).unwrap();
        change(&mut record);
        record.save(&file).unwrap();
    }

    fn workspace(&self) -> PathBuf {
        self.config.work_dir.join(format!("{}.1", Uuid::from_u128(1)))
    }

    fn applied(&self) -> bool {
        self.config.state_dir.join("greeting.s/terraform.tfstate").exists()
    }

    fn end(&self) -> Value {
        self.plane.recorded(|recorded| recorded.end().clone())
    }
}

#[tokio::test]
async fn a_plan_whose_row_was_never_told_of_it_is_shown_by_the_next_executor() {
    let fixture = Fixture::new().await;
    let plan = fixture.wait_and_stop().await;
    fixture.rewrite_claim(|record| record.waits = false);
    let before = fixture.plane.recorded(|recorded| recorded.patches.len());
    assert_eq!(fixture.take_over(json!({})).await, RunEnd::Waiting);
    fixture.plane.recorded(|recorded| {
        let shows = |patch: &Value| {
            patch["phase"] == "APPROVAL" && patch["plan_sha256"] == plan && patch["plan_summary"]["add"] == 1
        };
        assert!(recorded.patches[before..].iter().any(shows), "{:?}", recorded.patches);
    });
    let orphan = orphaned_attempts(&fixture.config.execute_settings()).pop().unwrap();
    assert!(orphan.waits(), "and needs no executor from here on");
    assert_eq!(
        fixture.take_over(json!({"cancel_requested_at": "2026-01-01T00:00:00Z"})).await,
        RunEnd::Stored
    );
    assert_eq!(fixture.end()["status"], "CANCELLED");
    assert_eq!(fixture.end()["plan_summary"]["add"], 1);
}

#[tokio::test]
async fn a_plan_waits_for_the_approval_of_exactly_itself() {
    let fixture = Fixture::new().await;
    let plan = fixture.wait_and_stop().await;
    assert_eq!(fixture.approved(&"0".repeat(64)).await, RunEnd::Waiting, "another plan's approval is none");
    assert!(!fixture.applied());
    assert_eq!(fixture.approved(&plan).await, RunEnd::Stored);
    assert_eq!(fixture.end()["status"], "SUCCESS");
    assert!(fixture.applied());
    let log = fixture.plane.recorded(testing::Recorded::log);
    assert!(log.contains("waits for approval") && log.contains("The plan is approved."), "{log}");
}

/// What `agent_approval` answers.
fn approval(phase: &str, seconds_left: Option<f64>, approved_plan: Option<&str>) -> ResponseTemplate {
    let answer = json!({"phase": phase, "seconds_left": seconds_left, "approved_plan": approved_plan});
    ResponseTemplate::new(200).set_body_json(answer)
}

#[tokio::test]
async fn a_plan_that_nobody_approves_in_time_ends_at_that_time() {
    let fixture = Fixture::new().await;
    // The row is late, the plane is away for a moment, and then there is a little time left.
    fixture.plane.answer_next("agent_approval", approval("PLAN", None, None));
    fixture.plane.answer_next("agent_approval", testing::refusal(503, "PGRST001"));
    fixture.plane.answer_next("agent_approval", approval("APPROVAL", Some(0.3), None));
    fixture.wait_and_stop().await;
    let orphan = orphaned_attempts(&fixture.config.execute_settings()).pop().unwrap();
    let left = orphan.claim.expires_at.unwrap().duration_since(SystemTime::now()).unwrap_or_default();
    assert!(orphan.waits() && left.as_secs_f64() < 0.4, "{left:?}");
    fixture.plane.answer_next("agent_approval", approval("APPROVAL", Some(-0.01), None));
    assert_eq!(fixture.take_over(json!({})).await, RunEnd::Stored);
    let end = fixture.end();
    assert_eq!((&end["status"], &end["error_code"]), (&json!("FAILED"), &json!("APPROVAL_EXPIRED")), "{end}");
    assert!(end["error_message"].as_str().unwrap().contains("Nobody approved the plan"), "{end}");
    assert!(!fixture.applied() && !fixture.workspace().exists());
    let log = fixture.plane.recorded(testing::Recorded::log);
    assert!(log.contains("Nobody approved the plan"), "{log}");
}

#[tokio::test]
async fn an_approval_of_the_last_moment_counts() {
    let fixture = Fixture::new().await;
    fixture.plane.answer_next("agent_approval", approval("APPROVAL", Some(0.5), None));
    let plan = fixture.wait_and_stop().await;
    // No live row announced it.
    fixture.plane.answer_next("agent_approval", approval("APPROVAL", Some(-0.1), Some(&plan)));
    assert_eq!(fixture.take_over(json!({})).await, RunEnd::Stored);
    assert_eq!(fixture.end()["status"], "SUCCESS");
}

#[tokio::test]
async fn a_cancel_ends_the_wait() {
    let fixture = Fixture::new().await;
    fixture.wait_and_stop().await;
    fixture.leases.cancel(CLAIM);
    assert_eq!(fixture.take_over(json!({})).await, RunEnd::Stored);
    assert_eq!(fixture.end()["status"], "CANCELLED");
    assert_eq!(fixture.end()["error_message"], "Cancelled before apply began.");
    assert!(!fixture.applied() && !fixture.workspace().exists());
}

#[tokio::test]
async fn an_apply_that_was_entered_and_never_began_is_begun_by_the_next_executor() {
    let fixture = Fixture::new().await;
    fixture.wait_and_stop().await;
    fixture.rewrite_claim(|record| (record.phase, record.marks_begin) = (Phase::Apply, true));
    assert_eq!(fixture.take_over(json!({})).await, RunEnd::Stored);
    assert_eq!(fixture.end()["status"], "SUCCESS", "{}", fixture.plane.recorded(testing::Recorded::log));
    assert_eq!(fixture.plane.recorded(|recorded| recorded.log().matches("terraform plan").count()), 1);
    assert!(fixture.applied());
}

#[tokio::test]
async fn an_apply_that_may_have_begun_is_not_begun_again() {
    for (mark, by_this_version) in [(true, true), (false, false)] {
        let fixture = Fixture::new().await;
        fixture.wait_and_stop().await;
        fixture.rewrite_claim(|record| (record.phase, record.marks_begin) = (Phase::Apply, by_this_version));
        if mark {
            fs::write(fixture.workspace().join("exit.begun"), "").unwrap();
        }
        let orphan = orphaned_attempts(&fixture.config.execute_settings()).pop().unwrap();
        assert_eq!(orphan.goes_on_at(), None);
        orphan
            .finalize(&fixture.config.execute_settings(), &fixture.plane.rest(), &Redactor::default())
            .await;
        assert_eq!(fixture.end()["error_code"], "AGENT_LOST");
        assert!(!fixture.applied());
    }
}

#[tokio::test]
async fn an_approval_survives_a_restart_of_the_agent() {
    let fixture = Fixture::new().await;
    let plan = fixture.wait_and_stop().await;
    fixture.approved(&plan).await;
    assert_eq!(fixture.end()["status"], "SUCCESS", "{}", fixture.plane.recorded(testing::Recorded::log));
    assert_eq!(fixture.end()["outputs"], json!({"message": "hello x"}));
    assert!(fixture.applied() && !fixture.workspace().exists());
    fixture.plane.recorded(|recorded| {
        let log = recorded.log();
        assert_eq!(log.matches("terraform plan").count(), 1, "it is planned once: {log}");
        assert_eq!(
            recorded.logs.keys().copied().collect::<Vec<_>>(),
            (1..=recorded.logs.len() as u64).collect::<Vec<_>>()
        );
    });
}

#[tokio::test]
async fn what_changed_since_the_plan_is_refused() {
    for (change, part) in [
        ("plan", "the saved plan changed"),
        ("variables", "the template's files or variables"),
        ("template", "the template changed"),
    ] {
        let fixture = Fixture::new().await;
        let plan = fixture.wait_and_stop().await;
        let file = match change {
            "plan" => fixture.workspace().join("run/data/tfplan"),
            "variables" => fixture.workspace().join("run/module/zz_tendril.auto.tfvars.json"),
            _ => fixture.dir.path().join("templates/greeting/main.tf"),
        };
        let mut content = fs::read(&file).unwrap();
        content.extend_from_slice(b"\n");
        fs::write(&file, content).unwrap();
        fixture.approved(&plan).await;
        assert_eq!(fixture.end()["error_code"], "PLAN_CHANGED", "{change}");
        let message = fixture.end()["error_message"].as_str().unwrap().to_owned();
        assert!(message.contains(part) && message.contains(&plan), "{message}");
        assert!(!fixture.applied());
    }
}

#[tokio::test]
async fn a_job_that_was_given_to_another_agent_meanwhile_is_not_applied() {
    let fixture = Fixture::new().await;
    fixture.wait_and_stop().await;
    // The row answers no claim of ours.
    fixture.plane.answer_next("deployments", ResponseTemplate::new(200).set_body_json(json!([])));
    let orphan = orphaned_attempts(&fixture.config.execute_settings()).pop().unwrap();
    let rest = fixture.plane.rest();
    assert!(claimed_job(&rest, &orphan.claim).await.is_none());
    orphan.discard(&fixture.config.execute_settings()).await;
    assert!(!fixture.applied() && !fixture.workspace().exists());
}
