//! A PostgreSQL that is not the stack's: made by hand, with passwords, and with the settings of the test.

use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio_postgres::{Client, NoTls};

/// The password of its superuser.
pub(crate) const PASSWORD: &str = "pa ss/word";

/// A server whose superuser is `me`. It ends with the value.
pub(crate) struct Foreign {
    process: Child,
    pub(crate) port: u16,
    home: TempDir,
}

impl Foreign {
    /// A server as it should be, but for further settings.
    pub(crate) async fn start(settings: &[&str]) -> Self {
        let home = tempfile::tempdir().unwrap();
        let data = home.path().join("data");
        let password = home.path().join("password");
        std::fs::write(&password, PASSWORD).unwrap();
        for path in [home.path(), password.as_path()] {
            give(path);
        }
        let made = program("initdb")
            .args([
                "-U",
                "me",
                "-A",
                "scram-sha-256",
                "--no-sync",
                "-E",
                "UTF8",
                "--locale=C.UTF-8",
                "--pwfile",
            ])
            .arg(&password)
            .arg("-D")
            .arg(&data)
            .output()
            .expect("initdb runs");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let mut server = program("postgres");
        server.arg("-D").arg(&data).args(["-c", &format!("port={port}"), "-c", "listen_addresses=127.0.0.1"]);
        server.args(["-c", "fsync=off", "-c", "wal_level=logical"]);
        server.args(["-c", &format!("unix_socket_directories={}", home.path().display())]);
        for setting in settings {
            server.args(["-c", setting]);
        }
        let process = server.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("postgres runs");
        let mut foreign = Self { process, port, home };
        let deadline = Instant::now() + Duration::from_secs(60);
        while tokio_postgres::connect(&foreign.url("me", "postgres"), NoTls).await.is_err() {
            assert!(foreign.process.try_wait().unwrap().is_none(), "it ended");
            assert!(Instant::now() < deadline, "it does not answer");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        foreign
    }

    /// The URL of a database as a user; all have the same password.
    pub(crate) fn url(&self, user: &str, database: &str) -> String {
        format!("postgresql://{user}:pa%20ss%2Fword@127.0.0.1:{}/{database}", self.port)
    }

    /// The same over its Unix socket.
    pub(crate) fn socket_url(&self, user: &str, database: &str) -> String {
        let directory = self.home.path().to_str().unwrap().replace('/', "%2F");
        format!("postgresql://{user}:pa%20ss%2Fword@{directory}:{}/{database}", self.port)
    }

    /// A connection as a user.
    pub(crate) async fn connect(&self, user: &str, database: &str) -> Client {
        let (client, connection) = tokio_postgres::connect(&self.url(user, database), NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }

    /// Runs SQL as the superuser.
    pub(crate) async fn sql(&self, database: &str, script: &str) {
        self.connect("me", database).await.batch_execute(script).await.unwrap();
    }

    /// A number that the superuser queries.
    pub(crate) async fn count(&self, database: &str, query: &str) -> i64 {
        self.connect("me", database).await.query_one(query, &[]).await.unwrap().get(0)
    }

    /// Everything that could be changed by somebody who should change nothing.
    pub(crate) async fn contents(&self, database: &str) -> Vec<String> {
        let query = "
            select 'role ' || rolname || rolsuper || rolbypassrls from pg_roles
            union all select 'schema ' || nspname || coalesce(nspacl::text, '') from pg_namespace where nspname !~ '^pg_'
            union all select 'relation ' || oid::regclass || coalesce(relacl::text, '') from pg_class
                where relnamespace::regnamespace::text !~ '^(pg_|information_schema)'
            union all select 'trigger ' || tgname || tgrelid::regclass from pg_trigger
            union all select 'event trigger ' || evtname from pg_event_trigger
            union all select 'publication ' || pubname from pg_publication
            union all select 'slot ' || slot_name from pg_replication_slots
            order by 1";
        let rows = self.connect("me", database).await.query(query, &[]).await.unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        if let Some(pid) = i32::try_from(self.process.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::QUIT);
        }
        let _ = self.process.wait();
    }
}

/// A program of PostgreSQL, run as an account that it accepts.
fn program(name: &str) -> Command {
    let mut command = Command::new(directory().join(name));
    if let Some((uid, gid)) = account() {
        command.uid(uid).gid(gid);
    }
    command.env("TZ", "UTC").current_dir("/");
    command
}

fn give(path: &Path) {
    if let Some((uid, gid)) = account() {
        chown(path, Some(uid), Some(gid)).unwrap();
    }
}

/// PostgreSQL refuses root.
fn account() -> Option<(u32, u32)> {
    rustix::process::getuid().is_root().then_some((65534, 65534))
}

fn directory() -> PathBuf {
    if let Some(named) = std::env::var_os("TENDRIL_PG_BINDIR") {
        return named.into();
    }
    let installed = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut installed: Vec<PathBuf> = installed.map(|entry| entry.path().join("bin")).collect();
    installed.sort();
    let in_path = std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect::<Vec<_>>());
    installed.extend(in_path.into_iter().flatten());
    let has_both = |dir: &PathBuf| dir.join("initdb").is_file() && dir.join("postgres").is_file();
    installed.into_iter().rfind(has_both).expect("a PostgreSQL")
}
