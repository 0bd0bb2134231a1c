//! Whole attempts, with the installed terraform.

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};
use uuid::Uuid;

use super::*;
use crate::{
    control_plane::Leases,
    process::LocalRunner,
    redaction::Redactor,
    testing::{self, ControlPlane},
};

struct Fixture {
    dir: tempfile::TempDir,
    plane: ControlPlane,
    leases: Leases,
}

impl Fixture {
    async fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            plane: ControlPlane::start().await,
            leases: Leases::default(),
        }
    }

    fn context(&self) -> JobContext {
        let secrets = Redactor::default();
        secrets.hide(["the-machine-token".to_owned()]);
        JobContext {
            settings: Arc::new(testing::config(self.dir.path()).execute_settings()),
            rest: self.plane.rest(),
            runner: Arc::new(LocalRunner),
            registry: crate::execute::registry::Registry::default(),
            secrets,
            drain: crate::process::Drain::default(),
        }
    }

    async fn run(&self, config: Value) {
        let job = Job {
            id: Uuid::from_u128(1),
            attempt: 1,
            claim_token: Uuid::from_u128(2),
            config: config.into(),
            state_key: None,
        };
        let lease = self.leases.hold(&job);
        self.context().run(job, &lease, Start::Workspace).await;
    }

    /// Waits until the log holds this.
    async fn logged(&self, text: &str) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !self.plane.recorded(|recorded| recorded.log().contains(text)) {
            assert!(
                Instant::now() < deadline,
                "never logged {text}: {}",
                self.plane.recorded(testing::Recorded::log)
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn is_clean(&self) -> bool {
        std::fs::read_dir(self.dir.path().join("work")).unwrap().next().is_none()
    }
}

#[tokio::test]
async fn an_apply_ends_with_outputs_counts_and_every_line_and_shows_no_secret() {
    let fixture = Fixture::new().await;
    let variables = json!({"name": "world", "password": "correct-horse"});
    fixture.run(json!({"template": "greeting", "stack": "prod", "variables": variables})).await;
    fixture.plane.recorded(|recorded| {
        let (end, log) = (recorded.end(), recorded.log());
        assert_eq!(end["status"], "SUCCESS", "{log}");
        assert_eq!(end["outputs"], json!({"message": "hello world"}));
        assert_eq!(end["plan_summary"], json!({"add": 1, "change": 0, "remove": 0, "import": 0}));
        assert_eq!(end["log_count"], json!(recorded.logs.len()));
        assert!(recorded.patches.iter().all(|patch| patch["claim_token"] == json!(Uuid::from_u128(2))));
        assert!(recorded.patches.iter().any(|patch| patch["phase"] == "APPLY"));
        assert!(log.contains("hello world, your password is [hidden]"), "{log}");
        assert!(log.contains("(local-exec): 0\n"), "terraform saw a variable of the agent: {log}");
        assert!(log.contains("Apply complete! Resources: 1 added"), "{log}");
        let everything = format!("{log}{:?}", recorded.patches);
        assert!(!everything.contains("correct-horse"), "{everything}");
    });
    assert!(fixture.is_clean());
    assert!(fixture.dir.path().join("state/greeting.prod/terraform.tfstate").exists());
}

#[tokio::test]
async fn a_failing_template_ends_with_terraforms_own_diagnostic() {
    let fixture = Fixture::new().await;
    fixture.run(json!({"template": "broken"})).await;
    fixture.plane.recorded(|recorded| {
        let end = recorded.end();
        assert_eq!((&end["status"], &end["error_code"]), (&json!("FAILED"), &json!("TERRAFORM_FAILED")));
        let message = end["error_message"].as_str().unwrap();
        assert!(
            message.starts_with("local-exec provisioner error\n  with terraform_data.broken, on main.tf:3\n"),
            "{message}"
        );
        assert!(message.contains("exit status 3. Output: about to fail"), "{message}");
    });
    assert!(fixture.is_clean());
}

#[tokio::test]
async fn what_cannot_be_carried_out_says_what_to_fix_and_starts_nothing() {
    for (config, code, part) in [
        (
            json!({"template": "nope"}),
            "TEMPLATE_NOT_FOUND",
            "it has broken, deaf, gate, greeting, providers, slow",
        ),
        (json!({"template": "../templates"}), "CONFIG_INVALID", "no paths"),
        (json!({"template": "greeting"}), "CONFIG_INVALID", "variable \"name\": is missing"),
        (
            json!({"template": "greeting", "variables": {"name": 7}}),
            "CONFIG_INVALID",
            "\"name\": must be a string",
        ),
        (
            json!({"template": "greeting", "variables": {"name": "x", "nmae": 7}}),
            "CONFIG_INVALID",
            "\"nmae\": is unknown",
        ),
    ] {
        let fixture = Fixture::new().await;
        fixture.run(config).await;
        fixture.plane.recorded(|recorded| {
            let end = recorded.end();
            assert_eq!((&end["status"], &end["error_code"]), (&json!("FAILED"), &json!(code)));
            assert!(end["error_message"].as_str().unwrap().contains(part), "{end}");
            assert!(!recorded.log().contains("terraform init"));
        });
        assert!(fixture.is_clean());
    }
}

#[tokio::test]
async fn a_plan_changes_nothing() {
    let fixture = Fixture::new().await;
    fixture
        .run(json!({"template": "greeting", "stack": "prod", "action": "plan", "variables": {"name": "x"}}))
        .await;
    fixture.plane.recorded(|recorded| {
        assert_eq!(recorded.end()["status"], "SUCCESS");
        assert_eq!(recorded.end()["plan_summary"]["add"], 1);
        assert!(recorded.end().get("outputs").is_none());
        assert!(recorded.patches.iter().all(|patch| patch["phase"] != "APPLY"));
    });
    assert!(!fixture.dir.path().join("state/greeting.prod/terraform.tfstate").exists());
}

#[tokio::test]
async fn a_destroy_removes_what_an_apply_made() {
    let fixture = Fixture::new().await;
    for action in ["apply", "destroy"] {
        fixture
            .run(json!({"template": "greeting", "stack": "s", "action": action, "variables": {"name": "x"}}))
            .await;
    }
    fixture.plane.recorded(|recorded| {
        assert_eq!(recorded.end()["status"], "SUCCESS");
        assert_eq!(recorded.end()["plan_summary"], json!({"add": 0, "change": 0, "remove": 1, "import": 0}));
        assert!(recorded.patches.iter().any(|patch| patch["phase"] == "DESTROY"));
    });
}

#[tokio::test]
async fn a_cancel_in_mid_apply_interrupts_once_and_ends_cancelled() {
    let fixture = Fixture::new().await;
    let cancel = async {
        fixture.logged("(local-exec): started").await;
        fixture.leases.cancel(Uuid::from_u128(2));
    };
    tokio::join!(fixture.run(json!({"template": "slow", "stack": "s"})), cancel);
    fixture.plane.recorded(|recorded| {
        assert_eq!(recorded.end()["status"], "CANCELLED");
        let message = "Cancelled during apply: it ended after one interrupt (SIGINT).";
        assert_eq!(recorded.end()["error_message"], message);
    });
    let state = fixture.dir.path().join("state/slow.s");
    assert!(!state.join(".terraform.tfstate.lock.info").exists(), "the state lock is left");
    assert!(std::fs::read_to_string(state.join("terraform.tfstate")).unwrap().contains("terraform_data"));
}

#[tokio::test]
async fn a_claim_that_is_lost_before_the_apply_prevents_it() {
    let fixture = Fixture::new().await;
    fixture.plane.answer_next("deployments", testing::refusal(400, "TD001"));
    fixture.run(json!({"template": "greeting", "stack": "s", "variables": {"name": "x"}})).await;
    fixture.plane.recorded(|recorded| {
        assert!(!recorded.log().contains("Apply complete"), "{}", recorded.log());
        assert_eq!(recorded.end()["error_code"], "AGENT_LOST");
    });
    assert!(!fixture.dir.path().join("state/greeting.s/terraform.tfstate").exists());
}

#[tokio::test]
async fn the_final_status_waits_for_a_control_plane_that_is_away() {
    let fixture = Fixture::new().await;
    for _ in 0..3 {
        fixture.plane.answer_next("deployments", testing::refusal(502, ""));
        fixture.plane.answer_next("deployment_logs", testing::refusal(502, ""));
    }
    fixture.run(json!({"template": "nope"})).await;
    fixture.plane.recorded(|recorded| {
        assert_eq!(recorded.end()["error_code"], "TEMPLATE_NOT_FOUND");
        assert_eq!(recorded.end()["log_count"], json!(recorded.logs.len()));
    });
}
