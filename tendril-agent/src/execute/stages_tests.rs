//! Approval: the wait, the word, the restart in between, and everything that must not be applied.

use std::{fs, path::PathBuf, time::Duration};

use serde_json::{Value, json};
use tokio::time::Instant;
use uuid::Uuid;
use wiremock::ResponseTemplate;

use super::*;
use crate::{
    config::settings::Config,
    control_plane::lease::Leases,
    execute::{approval::Approvals, recovery::orphaned_attempts},
    process::runner::LocalRunner,
    redaction::redactor::Redactor,
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
            approvals: Approvals::default(),
            registry: crate::execute::registry::Registry::default(),
            secrets: Redactor::default(),
            drain: crate::process::drain::Drain::default(),
        }
    }

    fn job() -> Job {
        let config =
            json!({"template": "greeting", "stack": "s", "approval": true, "variables": {"name": "x"}});
        let config = config.into();
        Job { id: Uuid::from_u128(1), attempt: 1, claim_token: CLAIM, config, state_key: None }
    }

    async fn run(&self, context: &JobContext) {
        let job = Self::job();
        let lease = self.leases.hold(&job);
        context.run(job, &lease).await;
    }

    /// Waits until the row rests in APPROVAL; answers the digest that it shows.
    async fn rests(&self, context: &JobContext) -> String {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let last = self.plane.recorded(|recorded| recorded.patches.last().cloned().unwrap_or_default());
            if context.approvals.count() == 1 && last["phase"] == "APPROVAL" {
                assert_eq!(last["plan_summary"]["add"], 1, "the plan is shown with its digest: {last}");
                return last["plan_sha256"].as_str().unwrap().to_owned();
            }
            assert!(Instant::now() < deadline, "it never rested: {last}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Runs until the plan waits, and ends this life of the agent; answers the digest.
    async fn wait_and_stop(&self) -> String {
        let context = self.context();
        let stop = async {
            let plan = self.rests(&context).await;
            context.approvals.close();
            plan
        };
        let ((), plan) = tokio::join!(self.run(&context), stop);
        assert!(self.workspace().exists(), "the workspace is kept");
        assert!(self.plane.recorded(|recorded| recorded.end().get("status").is_none()), "it has no end yet");
        plan
    }

    /// The next run takes over; the row says this.
    async fn take_over(&self, approved: Option<&str>) {
        self.plane.row(json!({"id": "x", "config_snapshot": Self::job().config.parse().unwrap(), "approved_plan": approved}));
        let context = self.context();
        let mut left = orphaned_attempts(&self.config.execute_settings());
        let orphan = left.pop().expect("a orphan");
        let job = orphan.waiting_job(&context.rest).await.expect("it still waits");
        let lease = self.leases.hold(&job);
        let resumed = context.resume(job, &lease, orphan.workspace);
        tokio::pin!(resumed);
        loop {
            tokio::select! {
                () = &mut resumed => return,
                () = context.approvals.changed() => { context.approvals.admit_next(); }
            }
        }
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

/// Waits until an approved plan is in line for a place, and gives it one.
async fn admitted(context: &JobContext) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !context.approvals.admit_next() {
        assert!(Instant::now() < deadline, "nobody asks for a place");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn an_approved_plan_waits_for_a_place_and_can_be_cancelled_there() {
    let bench = Fixture::new().await;
    let context = bench.context();
    let approve = async {
        let plan = bench.rests(&context).await;
        assert!(!context.approvals.admit_next(), "nobody is approved yet");
        context.approvals.tell(CLAIM, plan);
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(context.approvals.count(), 1, "it goes on waiting, now for a place");
        bench.leases.cancel(CLAIM);
    };
    tokio::join!(bench.run(&context), approve);
    assert_eq!(bench.end()["error_message"], "Cancelled before apply began.");
    assert!(!bench.applied() && !context.approvals.admit_next());
}

#[tokio::test]
async fn a_plan_whose_row_was_never_told_of_it_is_shown_by_the_next_life() {
    let bench = Fixture::new().await;
    bench.wait_and_stop().await;
    let before = bench.plane.recorded(|recorded| recorded.patches.len());
    let shown = async {
        let deadline = Instant::now() + Duration::from_secs(30);
        let shows = |patch: &Value| {
            patch["phase"] == "APPROVAL"
                && patch["plan_sha256"].is_string()
                && patch["plan_summary"]["add"] == 1
        };
        while !bench.plane.recorded(|recorded| recorded.patches[before..].iter().any(shows)) {
            assert!(
                Instant::now() < deadline,
                "{:?}",
                bench.plane.recorded(|recorded| recorded.patches.clone())
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        bench.leases.cancel(CLAIM);
    };
    tokio::join!(bench.take_over(None), shown);
    assert_eq!(bench.end()["status"], "CANCELLED");
    assert_eq!(bench.end()["plan_summary"]["add"], 1);
}

#[tokio::test]
async fn a_plan_waits_for_the_word_about_exactly_itself() {
    let bench = Fixture::new().await;
    let context = bench.context();
    let approve = async {
        let plan = bench.rests(&context).await;
        context.approvals.tell(CLAIM, "0".repeat(64));
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(context.approvals.count(), 1, "another plan's approval is none");
        assert!(!bench.applied());
        context.approvals.tell(CLAIM, plan);
        admitted(&context).await;
    };
    tokio::join!(bench.run(&context), approve);
    assert_eq!(bench.end()["status"], "SUCCESS");
    assert!(bench.applied());
    assert_eq!(context.approvals.count(), 0);
    let log = bench.plane.recorded(testing::Recorded::log);
    assert!(log.contains("waits for approval") && log.contains("The plan is approved."), "{log}");
}

/// What `agent_approval` answers.
fn approval(phase: &str, seconds_left: Option<f64>, approved_plan: Option<&str>) -> ResponseTemplate {
    let answer = json!({"phase": phase, "seconds_left": seconds_left, "approved_plan": approved_plan});
    ResponseTemplate::new(200).set_body_json(answer)
}

#[tokio::test]
async fn a_plan_that_nobody_approves_in_time_ends_at_that_time() {
    let bench = Fixture::new().await;
    let context = bench.context();
    // The row is late, the plane is away for a moment, and then there is a little time left.
    bench.plane.answer_next("agent_approval", approval("PLAN", None, None));
    bench.plane.answer_next("agent_approval", testing::refusal(503, "PGRST001"));
    bench.plane.answer_next("agent_approval", approval("APPROVAL", Some(0.3), None));
    bench.plane.answer_next("agent_approval", approval("APPROVAL", Some(-0.01), None));
    bench.run(&context).await;
    let end = bench.end();
    assert_eq!((&end["status"], &end["error_code"]), (&json!("FAILED"), &json!("APPROVAL_EXPIRED")), "{end}");
    assert!(end["error_message"].as_str().unwrap().contains("Nobody approved the plan"), "{end}");
    assert!(!bench.applied() && !bench.workspace().exists());
    assert_eq!(context.approvals.count(), 0);
    let log = bench.plane.recorded(testing::Recorded::log);
    assert!(log.contains("Nobody approved the plan"), "{log}");
}

#[tokio::test]
async fn an_approval_of_the_last_moment_counts() {
    let bench = Fixture::new().await;
    let context = bench.context();
    bench.plane.answer_next("agent_approval", approval("APPROVAL", Some(0.5), None));
    let approve = async {
        let plan = bench.rests(&context).await;
        // No live row told of it.
        bench.plane.answer_next("agent_approval", approval("APPROVAL", Some(-0.1), Some(&plan)));
        admitted(&context).await;
    };
    tokio::join!(bench.run(&context), approve);
    assert_eq!(bench.end()["status"], "SUCCESS");
}

#[tokio::test]
async fn a_cancel_ends_the_wait() {
    let bench = Fixture::new().await;
    let context = bench.context();
    let cancel = async {
        bench.rests(&context).await;
        bench.leases.cancel(CLAIM);
        bench.leases.cancel(CLAIM);
    };
    tokio::join!(bench.run(&context), cancel);
    assert_eq!(bench.end()["status"], "CANCELLED");
    assert_eq!(bench.end()["error_message"], "Cancelled before apply began.");
    assert!(!bench.applied() && !bench.workspace().exists());
}

#[tokio::test]
async fn an_approval_survives_a_restart_of_the_agent() {
    let bench = Fixture::new().await;
    let plan = bench.wait_and_stop().await;
    bench.take_over(Some(&plan)).await;
    assert_eq!(bench.end()["status"], "SUCCESS", "{}", bench.plane.recorded(testing::Recorded::log));
    assert_eq!(bench.end()["outputs"], json!({"message": "hello x"}));
    assert!(bench.applied() && !bench.workspace().exists());
    bench.plane.recorded(|recorded| {
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
        let bench = Fixture::new().await;
        let plan = bench.wait_and_stop().await;
        let file = match change {
            "plan" => bench.workspace().join("run/data/tfplan"),
            "variables" => bench.workspace().join("run/module/zz_tendril.auto.tfvars.json"),
            _ => bench.dir.path().join("templates/greeting/main.tf"),
        };
        let mut content = fs::read(&file).unwrap();
        content.extend_from_slice(b"\n");
        fs::write(&file, content).unwrap();
        bench.take_over(Some(&plan)).await;
        assert_eq!(bench.end()["error_code"], "PLAN_CHANGED", "{change}");
        let message = bench.end()["error_message"].as_str().unwrap().to_owned();
        assert!(message.contains(part) && message.contains(&plan), "{message}");
        assert!(!bench.applied());
    }
}

#[tokio::test]
async fn a_job_that_was_given_to_another_agent_meanwhile_is_not_applied() {
    let bench = Fixture::new().await;
    bench.wait_and_stop().await;
    // The row answers no claim of ours.
    let orphan = orphaned_attempts(&bench.config.execute_settings()).pop().unwrap();
    let rest = bench.plane.rest();
    assert!(orphan.waiting_job(&rest).await.is_none());
    orphan.finalize(&bench.config.execute_settings(), &rest).await;
    assert!(!bench.applied() && !bench.workspace().exists());
}
