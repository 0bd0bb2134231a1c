//! For tests: a state server, and an agent's context beside it.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use uuid::Uuid;
use wiremock::{Match, Mock, MockServer, Request, Respond, ResponseTemplate};

use crate::{
    config::{Config, preflight},
    control_plane::Leases,
    execute::{JobContext, Start},
    job::Job,
    process::LocalRunner,
    terraform::{TerraformDir, state::backend::StateBackend},
    testing::{self, ControlPlane},
};

/// Below it is the lock of each state, which can be read there.
const LOCKS: &str = "/locks";

/// A state server as terraform's `http` backend expects it.
pub(super) struct StateServer {
    server: MockServer,
    stored: Arc<Mutex<Stored>>,
}

#[derive(Default)]
pub(super) struct Stored {
    pub(super) state: Option<Vec<u8>>,
    pub(super) lock: Option<Value>,
    /// Answers writes with 500.
    pub(super) refuses_writes: bool,
    /// Answers no write in time.
    pub(super) stalls_writes: bool,
    /// How many writes there were.
    pub(super) writes: usize,
    /// Takes no notice of this method from the moment on when the lock was given back so many times.
    pub(super) stalls: Option<(&'static str, usize)>,
    unlocked: usize,
    /// Requests that hang.
    pub(super) hanging: usize,
}

struct Responder(Arc<Mutex<Stored>>);

impl Match for Responder {
    fn matches(&self, _: &Request) -> bool {
        true
    }
}

impl Respond for Responder {
    fn respond(&self, request: &Request) -> ResponseTemplate {
        let mut stored = self.0.lock().unwrap();
        let method = request.method.as_str();
        if stored.stalls.is_some_and(|(stalled, after)| method == stalled && stored.unlocked >= after) {
            stored.hanging += 1;
            return ResponseTemplate::new(200).set_delay(Duration::from_secs(600));
        }
        match method {
            "GET" if request.url.path().starts_with(LOCKS) => match &stored.lock {
                Some(lock) => ResponseTemplate::new(200).set_body_json(lock),
                None => ResponseTemplate::new(404),
            },
            "GET" => match &stored.state {
                Some(state) => ResponseTemplate::new(200).set_body_bytes(state.clone()),
                None => ResponseTemplate::new(404),
            },
            "POST" if stored.stalls_writes => {
                stored.writes += 1;
                ResponseTemplate::new(500).set_delay(Duration::from_secs(600))
            }
            "POST" if stored.refuses_writes => ResponseTemplate::new(500),
            "POST" => {
                stored.state = Some(request.body.clone());
                ResponseTemplate::new(200)
            }
            "LOCK" => {
                if let Some(lock) = &stored.lock {
                    return ResponseTemplate::new(423).set_body_json(lock);
                }
                stored.lock = serde_json::from_slice(&request.body).ok();
                ResponseTemplate::new(200)
            }
            "UNLOCK" => {
                stored.unlocked += 1;
                stored.lock = None;
                ResponseTemplate::new(200)
            }
            _ => ResponseTemplate::new(405),
        }
    }
}

impl StateServer {
    pub(super) async fn start() -> Self {
        let stored = Arc::new(Mutex::new(Stored::default()));
        let server = MockServer::start().await;
        Mock::given(Responder(Arc::clone(&stored)))
            .respond_with(Responder(Arc::clone(&stored)))
            .mount(&server)
            .await;
        Self { server, stored }
    }

    fn backend(&self) -> StateBackend {
        let locks = format!("{}{LOCKS}", self.server.uri());
        self.backend_with(&json!({"lock_address": locks, "unlock_address": locks}))
    }

    /// With these settings of locks: by default they are taken and given back where the state is.
    pub(super) fn backend_with(&self, locks: &Value) -> StateBackend {
        let mut settings = locks.clone();
        (settings["address"], settings["retry_max"]) = (json!(self.server.uri()), json!(0));
        StateBackend::read(Some("http"), Some(&settings.to_string())).unwrap()
    }

    pub(super) fn stored<T>(&self, change: impl FnOnce(&mut Stored) -> T) -> T {
        change(&mut self.stored.lock().unwrap())
    }
}

pub(super) struct Fixture {
    pub(super) dir: tempfile::TempDir,
    pub(super) plane: ControlPlane,
    pub(super) leases: Leases,
    pub(super) config: Config,
}

impl Fixture {
    pub(super) async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config = testing::config(dir.path());
        config.timing.lock_timeout = Duration::from_secs(1);
        Self { dir, plane: ControlPlane::start().await, leases: Leases::default(), config }
    }

    pub(super) async fn with_state(server: &StateServer) -> Self {
        let mut fixture = Self::new().await;
        fixture.config.state_backend = server.backend();
        fixture
    }

    pub(super) async fn with_providers() -> Self {
        let mut fixture = Self::new().await;
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/terraform-with-providers");
        fixture.config.terraform =
            preflight::terraform(program.to_str(), &TerraformDir::default(), None).unwrap();
        fs::create_dir(fixture.scratch()).unwrap();
        fixture
    }

    pub(super) fn scratch(&self) -> PathBuf {
        self.dir.path().join("scratch")
    }

    pub(super) fn note(&self, name: &str) -> String {
        fs::read_to_string(self.scratch().join(name)).unwrap_or_default()
    }

    /// An agent's context over this fixture.
    pub(super) fn context(&self) -> JobContext {
        JobContext {
            settings: Arc::new(self.config.execute_settings()),
            rest: self.plane.rest(),
            runner: Arc::new(LocalRunner),
            registry: crate::execute::Registry::default(),
            secrets: crate::redaction::Redactor::default(),
            drain: crate::process::Drain::default(),
        }
    }

    pub(super) async fn run(&self, config: Value) {
        self.run_as(Uuid::from_u128(1), config).await;
    }

    pub(super) async fn run_as(&self, id: Uuid, config: Value) {
        let config = config.into();
        let job = Job { id, attempt: 1, claim_token: Uuid::from_u128(2), config, state_key: None };
        let lease = self.leases.hold(&job);
        self.context().run(job, &lease, Start::Workspace).await;
    }

    pub(super) fn data_dir(&self) -> PathBuf {
        self.config.work_dir.join(format!("{}.1/run/data", Uuid::from_u128(1)))
    }

    /// Waits until the log holds this.
    pub(super) async fn prints(&self, text: &str) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !self.plane.recorded(|recorded| recorded.log().contains(text)) {
            assert!(
                Instant::now() < deadline,
                "never printed {text}: {}",
                self.plane.recorded(testing::Recorded::log)
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub(super) fn end(&self) -> Value {
        self.plane.recorded(|recorded| recorded.end().clone())
    }

    pub(super) fn message(&self) -> String {
        self.end()["error_message"].as_str().unwrap_or_default().to_owned()
    }
}

pub(super) fn gate(seconds: u32) -> Value {
    json!({"template": "gate", "stack": "s", "variables": {"seconds": seconds}})
}
