//! Versions of Terraform: the real terraform under several names, in a directory of versions.

use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf};

use rustix::process::Signal;
use serde_json::{Value, json};
use tendril_tests::{AgentSetup, Cluster, Deployment, Row, World};

/// A directory of versions, a template, and an agent that has both.
struct Stage {
    world: World,
    cluster: Cluster,
    dir: PathBuf,
}

impl Stage {
    async fn set() -> Self {
        let world = World::start().await;
        let cluster = world.cluster().await;
        let dir = world.path("versions");
        fs::create_dir_all(&dir).expect("a directory");
        let stage = Self { world, cluster, dir };
        stage.template("plain", "");
        stage
    }

    /// The real terraform, under another version; it writes down what it was asked for.
    fn version(&self, name: &str, version: &str) {
        let path = self.dir.join(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        let script = format!(
            "#!/bin/sh\ncase \"$1\" in version) echo '{{\"terraform_version\": \"{version}\"}}';;\n\
             *) echo \"$1\" >> \"{}\"; exec terraform \"$@\";; esac\n",
            self.calls(version).display()
        );
        fs::write(&path, script).expect("a program");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("a program");
    }

    fn calls(&self, version: &str) -> PathBuf {
        self.world.path(&format!("calls-{version}"))
    }

    /// The commands that this version ran.
    fn ran(&self, version: &str) -> Vec<String> {
        let calls = fs::read_to_string(self.calls(version)).unwrap_or_default();
        calls.lines().map(str::to_owned).collect()
    }

    fn template(&self, name: &str, terraform: &str) {
        let dir = self.world.path("templates").join(name);
        fs::create_dir_all(&dir).expect("a template");
        let main = format!(
            "terraform {{\n  {terraform}\n}}\nresource \"terraform_data\" \"a\" {{ input = 1 }}\noutput \"a\" {{ value = terraform_data.a.output }}\n"
        );
        fs::write(dir.join("main.tf"), main).expect("a template");
    }

    fn agent(&self) -> AgentSetup {
        let dir = self.dir.to_str().expect("a path");
        self.world
            .agent(&self.cluster)
            .templates(&self.world.path("templates"))
            .env("TENDRIL_TERRAFORM_DIR", dir)
    }

    async fn queue(&self, template: &str, stack: &str, version: Value) -> Deployment {
        self.cluster.queue(json!({"template": template, "stack": stack, "terraform_version": version})).await
    }

    async fn run(&self, template: &str, stack: &str, version: Value) -> (Row, String) {
        let job = self.queue(template, stack, version).await;
        let row = job.ended().await;
        (row, job.log().await.text())
    }

    async fn stack_version(&self, key: &str) -> Option<String> {
        let query = "select terraform_version from public.stacks where cluster_id = $1 and state_key = $2";
        self.world.database.query_one(query, &[&self.cluster.id, &key]).await.expect("the stack").get(0)
    }
}

/// What the installed terraform says it is.
fn installed() -> String {
    let said = std::process::Command::new("terraform")
        .args(["version", "-json"])
        .output()
        .expect("terraform")
        .stdout;
    let said: Value = serde_json::from_slice(&said).expect("a version");
    said["terraform_version"].as_str().expect("a version").to_owned()
}

fn refused(row: &Row, part: &str) {
    let message = row.error_message.clone().unwrap_or_default();
    assert_eq!(
        (row.status.as_str(), row.error_code.as_deref()),
        ("FAILED", Some("CONFIG_INVALID")),
        "{row:?}"
    );
    assert!(message.contains(part), "{message}");
}

#[tokio::test]
async fn a_deployment_runs_with_the_version_that_it_or_its_template_asks_for() {
    let stage = Stage::set().await;
    stage.version("1.9.8/terraform", "1.9.8");
    stage.version("terraform_1.10.5", "1.10.5");
    stage.template("old", "required_version = \"~> 1.9.0\"");
    stage.template("both", "required_version = \">= 1.9\"");
    let _agent = stage.agent().start();

    let (row, log) = stage.run("plain", "a", json!("1.9.8")).await;
    assert_eq!(
        (row.status.as_str(), row.terraform_version.as_deref()),
        ("SUCCESS", Some("terraform 1.9.8")),
        "{row:?} {log}"
    );
    assert!(
        log.contains("It is run with terraform 1.9.8 (config_snapshot.terraform_version: 1.9.8)."),
        "{log}"
    );
    assert_eq!(stage.ran("1.9.8"), ["init", "plan", "show", "apply", "output"]);
    assert_eq!(stage.stack_version("plain.a").await.as_deref(), Some("terraform 1.9.8"));

    let own = format!("terraform {}", installed());
    let (row, log) = stage.run("plain", "b", Value::Null).await;
    assert_eq!(
        (row.status.as_str(), row.terraform_version.as_deref()),
        ("SUCCESS", Some(own.as_str())),
        "{row:?} {log}"
    );

    // The real terraform says that the shim's version is another one, so this goes as far as its own check of the version.
    let (row, log) = stage.run("old", "a", Value::Null).await;
    assert_eq!(row.terraform_version.as_deref(), Some("terraform 1.9.8"), "{row:?} {log}");
    let (row, log) = stage.run("both", "a", json!("< 1.11")).await;
    assert_eq!(
        (row.status.as_str(), row.terraform_version.as_deref()),
        ("SUCCESS", Some("terraform 1.10.5")),
        "{row:?} {log}"
    );

    // One that is added while the agent runs is found.
    stage.version("1.10.6/terraform", "1.10.6");
    let (row, log) = stage.run("both", "b", json!("~> 1.10.5")).await;
    assert_eq!(
        (row.status.as_str(), row.terraform_version.as_deref()),
        ("SUCCESS", Some("terraform 1.10.6")),
        "{row:?} {log}"
    );
}

#[tokio::test]
async fn a_version_that_is_not_there_is_refused_with_what_is() {
    let stage = Stage::set().await;
    stage.version("1.9.8/terraform", "1.9.8");
    stage.version("1.99.7/terraform", "1.9.9");
    stage.template("new", "required_version = \">= 99\"");
    let _agent = stage.agent().start();
    let (row, _) = stage.run("plain", "a", json!("~> 3.1")).await;
    refused(
        &row,
        &format!(
            "config_snapshot.terraform_version is \"~> 3.1\", and this agent has terraform {}, ",
            installed()
        ),
    );
    refused(&row, "terraform 1.9.8: put the version into");
    assert_eq!(row.terraform_version, None);
    let (row, _) = stage.run("new", "a", Value::Null).await;
    refused(&row, "the template takes terraform of required_version \">= 99\"");
    let (row, _) = stage.run("new", "a", json!("1.9.8")).await;
    refused(
        &row,
        "config_snapshot.terraform_version is \"1.9.8\", the template has required_version \">= 99\"",
    );
    let (row, _) = stage.run("plain", "a", json!("1.99.7")).await;
    refused(&row, "it says that its version is \"1.9.9\"");
    let (row, log) = stage.run("plain", "a", json!(">= 1.9")).await;
    assert_eq!(row.status, "SUCCESS", "{row:?}");
    assert!(
        log.contains("A version of Terraform is left out. ") && log.contains("1.99.7/terraform: it says"),
        "{log}"
    );

    let mut doctor = stage.agent().doctor();
    let _ended = doctor.ended().await;
    let printed = doctor.output();
    assert!(printed.contains("WRONG terraform versions: programs that cannot be run"), "{printed}");
    assert!(printed.contains("1.99.7/terraform: it says that its version is \"1.9.9\""), "{printed}");
}

#[tokio::test]
async fn a_state_that_a_newer_version_wrote_is_refused_by_a_sentence() {
    let stage = Stage::set().await;
    stage.version("1.99.0/terraform", "1.99.0");
    let setup = stage.agent();
    let _agent = setup.start();
    let (row, _) = stage.run("plain", "a", json!("1.99.0")).await;
    assert_eq!(row.status, "SUCCESS", "{row:?}");
    // The state itself says the version of the real program; the database knows better.
    let (row, _) = stage.run("plain", "a", Value::Null).await;
    refused(
        &row,
        &format!(
            "The state plain.a was written by terraform 1.99.0, and this run would have terraform {}",
            installed()
        ),
    );
    refused(&row, "Ask for \">= 1.99.0\" in config_snapshot.terraform_version");
    assert_eq!(stage.run("plain", "a", json!(">= 1.99.0")).await.0.status, "SUCCESS");
    assert_eq!(
        stage.run("plain", "b", Value::Null).await.0.status,
        "SUCCESS",
        "another state is another matter"
    );

    // What a local state says itself counts too, also in a format that Terraform would call a locked state.
    let file = PathBuf::from(setup.cli.state_dir.expect("a directory")).join("plain.b/terraform.tfstate");
    let mut newer: Value = serde_json::from_slice(&fs::read(&file).expect("the state")).expect("a state");
    newer["version"] = 5.into();
    newer["terraform_version"] = "9.1.0".into();
    fs::write(&file, newer.to_string()).expect("a newer state");
    let (row, _) = stage.run("plain", "b", Value::Null).await;
    refused(&row, "The state plain.b was written by terraform 9.1.0");
}

#[tokio::test]
async fn a_plan_is_applied_with_the_version_that_made_it_or_not_at_all() {
    let stage = Stage::set().await;
    stage.version("1.9.8/terraform", "1.9.8");
    let setup = stage.agent();
    let mut agent = setup.start();
    let approved = async |stack: &str, before: &dyn Fn()| {
        let config =
            json!({"template": "plain", "stack": stack, "approval": true, "terraform_version": "~> 1.9.0"});
        let job = stage.cluster.queue(config).await;
        job.becomes("shows its plan", |row| row.phase.as_deref() == Some("APPROVAL")).await;
        before();
        job.approve(&job.plan().await).await;
        job.ended().await
    };
    let row = approved("a", &|| stage.version("1.9.9/terraform", "1.9.9")).await;
    assert_eq!(
        (row.status.as_str(), row.terraform_version.as_deref()),
        ("SUCCESS", Some("terraform 1.9.8")),
        "{row:?}"
    );
    assert!(stage.ran("1.9.9").is_empty());

    // Planned with 1.9.9, which is gone when the plan is approved.
    let row =
        approved("b", &|| fs::remove_file(stage.dir.join("1.9.9/terraform")).expect("it is removed")).await;
    assert_eq!((row.status.as_str(), row.error_code.as_deref()), ("FAILED", Some("PLAN_CHANGED")), "{row:?}");
    let message = row.error_message.expect("a sentence");
    assert!(
        message.contains("made with terraform 1.9.9, which this agent does not have any more"),
        "{message}"
    );
    assert!(!stage.ran("1.9.9").contains(&"apply".to_owned()));
    agent.signal(Signal::TERM);
    assert_eq!(agent.ended().await.code(), Some(0));
}
