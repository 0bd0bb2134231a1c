//! `--db-url` of the program.

use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

use crate::foreign::Foreign;

/// Runs the program where nothing else of it runs.
fn run(place: &TempDir, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_supabase-local"))
        .args(arguments)
        .env("TMPDIR", place.path())
        .current_dir(place.path())
        .output()
        .expect("the program runs")
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[tokio::test]
async fn it_is_started_shown_and_stopped_and_never_emptied() {
    let (foreign, place) = (Foreign::start(&[]).await, tempfile::tempdir().unwrap());
    let url = foreign.url("me", "postgres");
    let start = ["start", "--detach", "--port", "0", "--no-migrations", "--db-url", &url];
    let started = run(&place, &start);
    assert!(started.status.success(), "{}", text(&started));
    let status = run(&place, &["status", "--output", "json"]);
    let status: Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!(status["SUPABASE_DB_URL"], url);
    foreign.sql("postgres", "create table public.mine (n int); insert into public.mine values (1)").await;
    let reset = run(&place, &["reset"]);
    assert!(!reset.status.success() && text(&reset).contains("did not make"), "{}", text(&reset));
    let stopped = run(&place, &["stop"]);
    assert!(stopped.status.success(), "{}", text(&stopped));
    assert_eq!(foreign.count("postgres", "select count(*) from public.mine").await, 1);
}

#[tokio::test]
async fn a_killed_one_leaves_the_database_to_the_next() {
    let (foreign, place) = (Foreign::start(&[]).await, tempfile::tempdir().unwrap());
    let url = foreign.url("me", "postgres");
    let start = ["start", "--detach", "--port", "0", "--no-migrations", "--db-url", &url];
    assert!(run(&place, &start).status.success());
    let uid = rustix::process::getuid().as_raw();
    let running = place.path().join(format!("supabase-local-running-{uid}"));
    let record = std::fs::read_dir(running).unwrap().flatten().next().unwrap().path();
    let pid: i32 = record.file_stem().unwrap().to_str().unwrap().parse().unwrap();
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    let again = run(&place, &start);
    assert!(again.status.success(), "{}", text(&again));
    // Only the second is known.
    assert!(run(&place, &["stop"]).status.success());
    assert_eq!(foreign.count("postgres", "select count(*) from auth.users").await, 0);
}

#[test]
fn what_goes_with_a_server_of_its_own_does_not_go_with_it() {
    let place = tempfile::tempdir().unwrap();
    for other in [["--persist", "kept"].as_slice(), &["--no-pg-cron"], &["--db-port", "5"]] {
        let arguments = [["start", "--db-url", "postgresql://u@h/d"].as_slice(), other].concat();
        let output = run(&place, &arguments);
        assert!(
            !output.status.success() && text(&output).contains("cannot be used with"),
            "{}",
            text(&output)
        );
    }
    let output = run(&place, &["start", "--port", "0", "--db-url", "nonsense:hunter2"]);
    assert!(!output.status.success());
    assert!(text(&output).contains("postgresql://user:password@") && !text(&output).contains("hunter2"));
}
