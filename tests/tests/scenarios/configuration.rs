//! Errors of the agent's configuration are reported at the start, all of them, and without a secret.

use std::process::Stdio;

use tendril_tests::{World, fixtures, program};
use tokio::process::Command;

async fn start(variables: &[(&str, &str)]) -> (Option<i32>, String) {
    let mut command = Command::new(program::agent());
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .envs(variables.iter().copied());
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await.expect("the agent's program");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[tokio::test]
async fn a_missing_configuration_is_answered_with_every_problem_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().to_str().unwrap();
    let templates = fixtures("templates");
    let (code, message) = start(&[
        ("TENDRIL_WORK_DIR", dir),
        ("TENDRIL_STATE_DIR", dir),
        ("TENDRIL_TEMPLATES_DIR", templates.to_str().unwrap()),
    ])
    .await;
    assert_eq!(code, Some(2), "{message}");
    for part in ["3 things must be fixed", "SUPABASE_URL", "SUPABASE_PUBLISHABLE_KEY", "TENDRIL_AGENT_TOKEN"]
    {
        assert!(message.contains(part), "{part}: {message}");
    }
}

#[tokio::test]
async fn a_malformed_configuration_is_answered_without_its_secrets() {
    let (code, message) = start(&[
        ("SUPABASE_URL", "https://user:hunter2@project.invalid"),
        ("SUPABASE_PUBLISHABLE_KEY", "sb_secret_hunter3"),
        ("TENDRIL_AGENT_TOKEN", "hunter4.hunter5"),
        ("TENDRIL_WORK_DIR", "/proc/no/work"),
        ("TENDRIL_STATE_DIR", "/proc/no/state"),
        ("TENDRIL_TEMPLATES_DIR", "/no/such/templates"),
        ("TENDRIL_CONCURRENCY", "many"),
        ("TENDRIL_TERRAFORM", "/no/such/terraform"),
        ("TENDRIL_HEALTH_ADDR", "here"),
        ("TENDRIL_LOG_FORMAT", "yaml"),
        ("TENDRIL_SHUTDOWN_GRACE", "a while"),
    ])
    .await;
    assert_eq!(code, Some(2), "{message}");
    for part in [
        "SUPABASE_URL",
        "SUPABASE_PUBLISHABLE_KEY",
        "the machine token is malformed",
        "--work-dir /proc/no/work cannot be created",
        "--state-dir /proc/no/state cannot be created",
        "the templates directory /no/such/templates does not exist",
        "TENDRIL_CONCURRENCY is \"many\"",
        "\"/no/such/terraform\" is not an executable program",
        "TENDRIL_HEALTH_ADDR is \"here\"",
        "TENDRIL_LOG_FORMAT is \"yaml\"",
        "TENDRIL_SHUTDOWN_GRACE is \"a while\"",
    ] {
        assert!(message.contains(part), "{part}: {message}");
    }
    assert!(!message.contains("hunter"), "{message}");
}

#[tokio::test]
async fn a_templates_directory_that_is_missing_is_said_at_the_start() {
    let world = World::start().await;
    let cluster = world.cluster().await;
    let mut agent = world.agent(&cluster).templates(&world.path("nowhere")).start();
    assert_eq!(agent.ended().await.code(), Some(2));
    let message = agent.output();
    assert!(message.contains("nowhere does not exist"), "{message}");
    assert!(message.contains("TENDRIL_TEMPLATES_DIR"), "{message}");
    assert_eq!(cluster.status().await, "PENDING", "it sent nothing to the control plane");
}
