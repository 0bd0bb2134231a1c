//! Start, stop and kill: what a stack leaves behind, and its errors when it cannot start.

#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "a test may fail")]

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use supabase_local::{ErrorKind, PostgresOptions, PostgresServer, Stack};
use tokio_postgres::NoTls;

/// The stack as a process of its own, with what it printed.
struct Process {
    child: Child,
    database_url: String,
    printed: String,
    /// Stays open: a program whose output is not read ends.
    _out: BufReader<ChildStdout>,
}

impl Process {
    fn start(arguments: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_supabase-local"))
            .args(["--port", "0", "--db-port", "0", "--no-migrations"])
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program runs");
        let mut printed = String::new();
        let mut out = BufReader::new(child.stdout.take().expect("its output"));
        while !printed.contains("Secret key") {
            assert_ne!(out.read_line(&mut printed).expect("a line"), 0, "it ended early:\n{printed}");
        }
        let row =
            printed.lines().find(|line| line.trim_start().starts_with("DB URL")).expect("the database's URL");
        let database_url = row.split_once(": ").expect("a value").1.to_owned();
        Self { child, database_url, printed, _out: out }
    }

    fn port(&self) -> u16 {
        let (_, rest) = self.database_url.rsplit_once(':').expect("a port");
        rest.split('/').next().expect("a port").parse().expect("a number")
    }
}

/// Waits until something is so.
fn until(what: &str, so: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(15);
    while !so() {
        assert!(Instant::now() < deadline, "{what} did not happen");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn nobody_listens(port: u16) -> bool {
    std::net::TcpStream::connect(("127.0.0.1", port)).is_err()
}

/// The data directory of the server on a port, from its own command line.
fn data_directory(port: u16) -> Option<String> {
    std::fs::read_dir("/proc").ok()?.flatten().find_map(|process| {
        let line = std::fs::read(process.path().join("cmdline")).ok()?;
        let line = String::from_utf8_lossy(&line).into_owned();
        let arguments: Vec<&str> = line.split('\0').collect();
        let ours =
            arguments.contains(&format!("port={port}").as_str()) && arguments[0].ends_with("/postgres");
        let place = arguments.iter().position(|argument| *argument == "-D").filter(|_| ours)?;
        Some(arguments[place + 1].to_owned())
    })
}

#[test]
fn a_killed_stack_leaves_no_server_and_no_directory() {
    let mut stack = Process::start(&[]);
    let data = data_directory(stack.port()).expect("a running server");
    let home = Path::new(&data).parent().expect("its home").to_owned();
    assert!(home.exists());
    stack.child.kill().unwrap();
    stack.child.wait().unwrap();
    until("the server's end", || nobody_listens(stack.port()) && data_directory(stack.port()).is_none());
    until("the directory's end", || !home.exists());
}

#[test]
fn a_terminated_stack_ends_in_good_order() {
    let mut stack = Process::start(&[]);
    let pid = rustix::process::Pid::from_child(&stack.child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert!(stack.child.wait().unwrap().success());
    assert!(nobody_listens(stack.port()));
}

#[test]
fn the_program_prints_what_a_client_needs() {
    let mut stack = Process::start(&[]);
    for name in
        ["API URL", "DB URL", "JWT secret", "anon key", "service_role key", "Publishable key", "Secret key"]
    {
        assert!(stack.printed.contains(&format!("{name}: ")), "{name} is missing in\n{}", stack.printed);
    }
    stack.child.kill().unwrap();
    stack.child.wait().unwrap();
}

#[tokio::test]
async fn a_kept_directory_keeps_its_rows_even_through_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let kept = dir.path().join("kept");
    // The server's account must be able to pass through.
    std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let argument = kept.to_str().unwrap();
    let mut first = Process::start(&["--persist", argument]);
    let (client, connection) = tokio_postgres::connect(&first.database_url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client.batch_execute("create table kept (n int); insert into kept values (42)").await.unwrap();
    first.child.kill().unwrap();
    first.child.wait().unwrap();
    until("the server's end", || data_directory(first.port()).is_none());
    // As after a power cut: a pid file whose process is another program.
    std::fs::write(kept.join("data/postmaster.pid"), format!("{}\n", std::process::id())).unwrap();
    let mut second = Process::start(&["--persist", argument]);
    let (client, connection) = tokio_postgres::connect(&second.database_url, NoTls).await.unwrap();
    tokio::spawn(connection);
    let row = client.query_one("select n from kept", &[]).await.unwrap();
    assert_eq!(row.get::<_, i32>(0), 42);
    second.child.kill().unwrap();
    second.child.wait().unwrap();
    until("the server's end", || data_directory(second.port()).is_none());
}

#[tokio::test]
async fn a_dropped_stack_leaves_no_server() {
    let stack = Stack::builder().without_migrations().start().await.unwrap();
    let port = stack.postgres().unwrap().port();
    drop(stack);
    until("the server's end", || nobody_listens(port) && data_directory(port).is_none());
}

#[test]
fn without_postgresql_it_says_how_to_mend_that() {
    let output = Command::new(env!("CARGO_BIN_EXE_supabase-local"))
        .args(["--port", "0", "--db-port", "0"])
        .env("TENDRIL_PG_BINDIR", "/nonexistent")
        .output()
        .expect("the program runs");
    assert_eq!(output.status.code(), Some(1));
    let output = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.contains("TENDRIL_PG_BINDIR"), "{output}");
}

#[tokio::test]
async fn stacks_can_share_a_server_and_not_their_rows() {
    let server = PostgresServer::start(&PostgresOptions::default()).await.unwrap();
    let table = "create table public.t (n int)";
    let builder = || Stack::builder().shared_postgres(&server).sql(table);
    let (first, second) = tokio::try_join!(builder().start(), builder().start()).unwrap();
    assert_ne!(first.api_url(), second.api_url());
    let count = async |stack: &Stack, sql: &str| {
        let (client, connection) = tokio_postgres::connect(&stack.admin_url(), NoTls).await.unwrap();
        tokio::spawn(connection);
        client.batch_execute(sql).await.unwrap();
        client.query_one("select count(*) from public.t", &[]).await.unwrap().get::<_, i64>(0)
    };
    assert_eq!(count(&first, "insert into public.t values (1)").await, 1);
    assert_eq!(count(&second, "select 1").await, 0);
    first.stop().await.unwrap();
    second.stop().await.unwrap();
    server.stop().await.unwrap();
    assert!(nobody_listens(server.port()));
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    for builder in [Stack::builder().database_port(port), Stack::builder().port(port)] {
        let error = builder.without_migrations().start().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PortTaken);
        assert!(error.to_string().contains(&port.to_string()), "{error}");
    }
}

#[tokio::test]
async fn a_directory_that_cannot_be_written_is_named() {
    let error = Stack::builder().persist("/proc/nothing").start().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DataDirUnwritable);
    assert!(error.to_string().contains("/proc/nothing"), "{error}");
}

#[tokio::test]
async fn a_migration_that_fails_is_named_with_postgresqls_words() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("1_wrong.sql"), "create tabel x ()").unwrap();
    let error = Stack::builder().migrations(dir.path()).start().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Sql);
    let text = error.to_string();
    assert!(text.contains("1_wrong.sql") && text.contains("syntax error"), "{text}");
}

#[tokio::test]
async fn the_projects_own_migrations_apply_and_its_owner_is_no_superuser() {
    let stack = Stack::builder().start().await.unwrap();
    let (client, connection) = tokio_postgres::connect(&stack.database_url(), NoTls).await.unwrap();
    tokio::spawn(connection);
    let applied = "select count(*) from supabase_migrations.schema_migrations";
    assert!(client.query_one(applied, &[]).await.unwrap().get::<_, i64>(0) > 0);
    let role = "select rolsuper from pg_roles where rolname = current_user";
    assert!(!client.query_one(role, &[]).await.unwrap().get::<_, bool>(0));
    stack.stop().await.unwrap();
}
