//! The S3 backend with the installed terraform and an S3 server (moto, which `scripts/setup.sh` installs).

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use uuid::Uuid;

use super::fixture::{Fixture, gate};
use crate::{process::orphans, terraform::state::backend::StateBackend, testing::Recorded};

/// A server with one bucket, `states`.
struct S3 {
    server: Child,
    port: u16,
}

impl Drop for S3 {
    fn drop(&mut self) {
        let _ended = self.server.kill();
        let _reaped = self.server.wait();
    }
}

fn program() -> PathBuf {
    let ours = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.tools/bin/moto_server");
    let on_path = || {
        let dirs = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&dirs).map(|dir| dir.join("moto_server")).find(|file| file.exists())
    };
    if ours.exists() { ours } else { on_path().expect("moto_server is missing: run scripts/setup.sh") }
}

impl S3 {
    async fn start() -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut command = Command::new(program());
        command
            .args(["-H", "127.0.0.1", "-p", &port.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let s3 = Self { server: command.spawn().unwrap(), port };
        let deadline = Instant::now() + Duration::from_secs(120);
        while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            assert!(Instant::now() < deadline, "the S3 server does not listen");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(s3.call("PUT", "/states", "").await.0, 200);
        s3
    }

    /// One request; answers the status and the body.
    async fn call(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nContent-Type: application/json\r\nAuthorization: AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=x\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            self.port,
            body.len()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    async fn fixture(&self) -> Fixture {
        let mut fixture = Fixture::new().await;
        let credentials = fixture.dir.path().join("credentials");
        fs::write(&credentials, "[default]\naws_access_key_id = test\naws_secret_access_key = test-test\n")
            .unwrap();
        let settings = json!({
            "bucket": "states", "region": "us-east-1", "use_path_style": true,
            "endpoints": {"s3": format!("http://127.0.0.1:{}", self.port)},
            "shared_credentials_files": [credentials],
            "skip_credentials_validation": true, "skip_requesting_account_id": true,
            "skip_metadata_api_check": true, "skip_region_validation": true,
        });
        fixture.config.state_backend = StateBackend::read(Some("s3"), Some(&settings.to_string())).unwrap();
        fixture
    }
}

const STATE: &str = "/states/tendril/gate.s.tfstate";
const LOCK: &str = "/states/tendril/gate.s.tfstate.tflock";

#[tokio::test]
async fn state_is_kept_in_the_bucket_and_its_lock_given_back() {
    let s3 = S3::start().await;
    let fixture = s3.fixture().await;
    for (id, add) in [(1, 1), (2, 0)] {
        fixture.run_as(Uuid::from_u128(id), gate(0)).await;
        assert_eq!(fixture.end()["status"], "SUCCESS", "{}", fixture.plane.recorded(Recorded::log));
        assert_eq!(fixture.end()["plan_summary"]["add"], add, "the second run finds what the first one made");
    }
    let (status, state) = s3.call("GET", STATE, "").await;
    assert!(status == 200 && state.contains("terraform_data"), "{status} {state}");
    assert_eq!(s3.call("GET", LOCK, "").await.0, 404);
    // Nothing has to be stored beside a remote state.
    assert_eq!(fs::read_dir(&fixture.config.state_dir).unwrap().count(), 0);
}

#[tokio::test]
async fn a_foreign_lock_is_refused_explained_and_removed_by_the_command_that_is_given() {
    let s3 = S3::start().await;
    let fixture = s3.fixture().await;
    let lock = json!({"ID": "abc-1", "Operation": "OperationTypeApply", "Info": "", "Who": "ann@laptop",
        "Version": "1.9.0", "Created": "2026-01-02T03:04:05.678901234Z", "Path": "states/tendril/gate.s.tfstate"});
    assert_eq!(s3.call("PUT", LOCK, &lock.to_string()).await.0, 200);
    let mut fixture = fixture;
    fixture.config.timing.lock_timeout = Duration::from_secs(1);
    fixture.run(gate(0)).await;
    assert_eq!(fixture.end()["error_code"], "STATE_LOCKED", "{}", fixture.plane.recorded(Recorded::log));
    let message = fixture.message();
    for part in
        ["locked by ann@laptop, for apply, since 2026-01-02T03:04:05Z", "terraform force-unlock abc-1"]
    {
        assert!(message.contains(part), "{message}");
    }
    assert_eq!(s3.call("GET", LOCK, "").await.0, 200, "it is still there");

    // The commands of the message.
    let folder = fixture.dir.path().join("by-hand");
    fs::create_dir(&folder).unwrap();
    let block = message.lines().map(str::trim).find(|line| line.starts_with("{\"terraform\"")).unwrap();
    fs::write(folder.join("backend.tf.json"), block).unwrap();
    for args in [&["init", "-input=false"] as &[&str], &["force-unlock", "-force", "abc-1"]] {
        let ran = Command::new("terraform").args(args).current_dir(&folder).output().unwrap();
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    }
    fixture.run_as(Uuid::from_u128(7), gate(0)).await;
    assert_eq!(fixture.end()["status"], "SUCCESS", "{}", fixture.message());
}

#[tokio::test]
async fn the_lock_in_the_bucket_of_an_own_dead_attempt_is_removed() {
    let s3 = S3::start().await;
    let fixture = s3.fixture().await;
    let kill = async {
        fixture.prints("(local-exec): started").await;
        orphans::kill(&fixture.data_dir());
    };
    tokio::join!(fixture.run(gate(600)), kill);
    assert!(fixture.message().contains("killed by a signal from outside"), "{}", fixture.message());
    assert_eq!(s3.call("GET", LOCK, "").await.0, 200, "terraform left its lock");
    fixture.run_as(Uuid::from_u128(7), gate(0)).await;
    assert_eq!(fixture.end()["status"], "SUCCESS", "{}", fixture.message());
    assert_eq!(s3.call("GET", LOCK, "").await.0, 404);
}
