//! The program as a development tool: start, status, stop, reset, and what a killed one leaves to the next.

#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "a test may fail")]

use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// A machine of its own, as far as the program sees: what runs is written down under the temporary directory.
struct Machine {
    temporary: TempDir,
}

impl Machine {
    fn new() -> Self {
        let temporary = tempfile::tempdir().unwrap();
        // The account that PostgreSQL runs as must be able to pass through.
        std::fs::set_permissions(temporary.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .unwrap();
        Self { temporary }
    }

    fn run(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_supabase-local"))
            .args(arguments)
            .env("TMPDIR", self.temporary.path())
            .current_dir(self.temporary.path())
            .output()
            .expect("the program runs")
    }

    fn good(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {errors}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn bad(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(!output.status.success(), "{arguments:?} succeeds");
        String::from_utf8(output.stderr).unwrap()
    }

    fn start(&self, more: &[&str]) -> Value {
        let start = ["start", "--detach", "--port", "0", "--db-port", "0", "--no-migrations"];
        self.good(&[&start[..], more].concat());
        self.status()
    }

    fn status(&self) -> Value {
        serde_json::from_str(&self.good(&["status", "--output", "json"])).unwrap()
    }

    async fn sql(&self, script: &str) {
        let url = self.status()["SUPABASE_DB_URL"].as_str().unwrap().to_owned();
        let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        client.batch_execute(script).await.unwrap();
    }

    /// The directories of databases.
    fn homes(&self) -> usize {
        let entries = std::fs::read_dir(self.temporary.path()).unwrap().flatten();
        let is_home = |path: &Path| path.join("postgres.log").exists();
        entries.filter(|entry| is_home(&entry.path())).count()
    }
}

/// The processes whose arguments mention a text.
fn processes(text: &str) -> Vec<i32> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let pid = |entry: std::fs::DirEntry| {
        let line = std::fs::read(entry.path().join("cmdline")).ok()?;
        let line = String::from_utf8_lossy(&line).into_owned();
        line.contains(text).then(|| entry.file_name().to_str()?.parse().ok())?
    };
    entries.filter_map(pid).collect()
}

#[tokio::test]
async fn a_stack_is_started_shown_emptied_and_stopped() {
    let machine = Machine::new();
    let began = Instant::now();
    let first = machine.start(&[]);
    println!("the first start took {:?}", began.elapsed());
    let text = machine.good(&["status"]);
    assert!(text.contains("API URL: http://127.0.0.1:"), "{text}");
    let env = machine.good(&["status", "-o", "env"]);
    assert!(env.contains(&format!("SUPABASE_URL={}", first["SUPABASE_URL"])), "{env}");
    machine.sql("create table public.t (n int)").await;
    machine.good(&["reset"]);
    let second = machine.status();
    assert_eq!(first, second, "the same ports and keys");
    machine.sql("create table public.t (n int)").await;
    machine.good(&["stop"]);
    assert!(machine.bad(&["status"]).contains("supabase-local start"));
    assert!(machine.bad(&["stop"]).contains("no stack runs"));
    assert_eq!(machine.homes(), 0, "nothing is left");
}

#[tokio::test]
async fn a_start_uses_the_project_here_or_above_and_no_other() {
    let machine = Machine::new();
    let empty = machine.good(&["start", "--detach", "--port", "0", "--db-port", "0"]);
    assert!(empty.contains("No directory supabase"), "{empty}");
    machine.sql("do $$ begin assert to_regclass('public.deployments') is null; end $$; create table public.clusters (n int)").await;
    machine.good(&["stop"]);

    let migrations = machine.temporary.path().join("supabase/migrations");
    std::fs::create_dir_all(&migrations).unwrap();
    std::fs::write(migrations.join("20260101000000_mine.sql"), "create table public.mine (n int);").unwrap();
    let own = machine.good(&["start", "--detach", "--port", "0", "--db-port", "0"]);
    assert!(own.contains("The project is "), "{own}");
    machine.sql("insert into public.mine values (1)").await;
    machine.good(&["stop"]);

    std::fs::write(migrations.parent().unwrap().join("seed.sql"), "insert into public.mine values (2);")
        .unwrap();
    machine.good(&["start", "--detach", "--port", "0", "--db-port", "0"]);
    machine.sql("do $$ begin assert (select sum(n) = 2 from public.mine); end $$").await;
    machine.good(&["stop"]);
}

#[tokio::test]
async fn a_prepared_stack_is_ready_within_three_seconds() {
    let machine = Machine::new();
    machine.start(&[]);
    machine.good(&["stop"]);
    let once = || {
        let began = Instant::now();
        machine.start(&[]);
        let took = began.elapsed();
        machine.good(&["stop"]);
        took
    };
    // Each start, however busy the machine is: `.config/nextest.toml` runs this test alone.
    let slowest = (0..3).map(|_| once()).max().unwrap();
    println!("the slowest of three starts took {slowest:?}");
    assert!(slowest < Duration::from_secs(3), "it took {slowest:?}");
}

#[tokio::test]
async fn a_kept_database_outlives_a_stop_and_not_a_reset() {
    let machine = Machine::new();
    let dir = machine.temporary.path().join("kept");
    let keep = ["--persist", dir.to_str().unwrap()];
    machine.start(&keep);
    machine.sql("create table public.kept (n int)").await;
    machine.good(&["stop"]);
    machine.start(&keep);
    machine.sql("insert into public.kept values (1)").await;
    machine.good(&["reset"]);
    machine.sql("create table public.kept (n int)").await;
    machine.good(&["stop"]);
}

#[tokio::test]
async fn two_stacks_are_told_apart_by_their_ports() {
    let machine = Machine::new();
    let first = machine.start(&[]);
    machine.good(&["start", "--detach", "--port", "0", "--db-port", "0", "--no-migrations"]);
    let which = machine.bad(&["status"]);
    assert!(which.contains("--port"), "{which}");
    let port = first["SUPABASE_URL"].as_str().unwrap().rsplit(':').next().unwrap().to_owned();
    machine.good(&["stop", "--port", &port]);
    machine.good(&["stop"]);
}

#[tokio::test]
async fn what_a_killed_stack_leaves_is_cleaned_up_by_the_next_start() {
    let machine = Machine::new();
    machine.start(&[]);
    // The program, its supervisor and with it the last who knew: only PostgreSQL is left.
    let home = std::fs::read_dir(machine.temporary.path())
        .unwrap()
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.join("postgres.log").exists())
        .unwrap();
    let supervisors: Vec<i32> = processes(home.to_str().unwrap())
        .into_iter()
        .filter(|pid| {
            std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "sh")
        })
        .collect();
    assert!(!supervisors.is_empty());
    let running = machine
        .temporary
        .path()
        .join(format!("supabase-local-running-{}", rustix::process::getuid().as_raw()));
    let record = std::fs::read_dir(running).unwrap().flatten().next().unwrap();
    let program: i32 = record.path().file_stem().unwrap().to_str().unwrap().parse().unwrap();
    for pid in supervisors.into_iter().chain([program]) {
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
    machine.start(&[]);
    assert!(!home.exists(), "its directory is gone");
    assert_eq!(machine.homes(), 1);
    assert!(processes(home.to_str().unwrap()).is_empty(), "its server is gone");
    machine.good(&["stop"]);
}

#[tokio::test]
async fn a_start_in_the_background_that_fails_says_why() {
    let machine = Machine::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let output = machine.bad(&["start", "--detach", "--port", &port, "--db-port", "0", "--no-migrations"]);
    assert!(output.contains(&format!("port {port}")), "{output}");
}

#[test]
fn the_supabase_directory_above_the_current_one_is_the_projects() {
    let machine = Machine::new();
    let project = machine.temporary.path().join("app/supabase/migrations");
    std::fs::create_dir_all(&project).unwrap();
    std::fs::write(project.join("1_wrong.sql"), "create tabel x ()").unwrap();
    let inside = machine.temporary.path().join("app/src");
    std::fs::create_dir_all(&inside).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_supabase-local"))
        .args(["--port", "0", "--db-port", "0"])
        .env("TMPDIR", machine.temporary.path())
        .current_dir(inside)
        .output()
        .unwrap();
    let output = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.contains("1_wrong.sql"), "{output}");
}
