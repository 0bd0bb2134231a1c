//! For tests: a control plane that records its requests, over real HTTP.
//!
//! It stores log rows as the database does (idempotently), and can be set to answer the next requests otherwise. What the
//! real database does with these requests is proved end to end, elsewhere.

use std::{
    collections::{BTreeMap, VecDeque},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Instant,
};

use serde_json::{Value, json};
use tendril_realtime::{Rest, rest::RetryPolicy};
use wiremock::{Match, Mock, MockServer, Request, Respond, ResponseTemplate};

use crate::{
    config::{Config, Timing, preflight},
    control_plane::auth::Credential,
    cost::infracost::Infracost,
    observability::logging::LogFormat,
    template::git::GitSettings,
    terraform::{TerraformDir, state::StateBackend},
};

/// See the module.
pub(crate) struct ControlPlane {
    server: MockServer,
    recorded: Arc<Mutex<Recorded>>,
}

/// What it recorded so far.
#[derive(Default)]
pub(crate) struct Recorded {
    /// `deployment_logs`: text by `seq`.
    pub(crate) logs: BTreeMap<u64, String>,
    /// Bodies of each PATCH on `deployments`.
    pub(crate) patches: Vec<Value>,
    /// When each request came, and for which path.
    pub(crate) requests: Vec<(Instant, String)>,
    /// Answers to give before the usual ones, by the last part of the path.
    answers: VecDeque<(&'static str, ResponseTemplate)>,
    /// Chunks that hold this are refused.
    poison: Option<&'static str>,
    /// The last claim token that was sent.
    claim_token: Value,
    /// The row that a GET or a winning PATCH answers.
    row: Option<Value>,
}

struct Responder(Arc<Mutex<Recorded>>);

impl Match for Responder {
    fn matches(&self, _: &Request) -> bool {
        true
    }
}

impl Respond for Responder {
    fn respond(&self, request: &Request) -> ResponseTemplate {
        let mut recorded = self.0.lock().unwrap();
        let path = request.url.path().rsplit('/').next().unwrap_or_default().to_owned();
        recorded.requests.push((Instant::now(), path.clone()));
        let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
        if body["claim_token"].is_string() {
            recorded.claim_token = body["claim_token"].clone();
        }
        if let Some(place) = recorded.answers.iter().position(|(wanted, _)| *wanted == path) {
            return recorded.answers.remove(place).unwrap().1;
        }
        match (request.method.as_str(), path.as_str()) {
            ("POST", "deployment_logs") => recorded.store(&body),
            ("GET", "deployment_logs") => {
                let last = recorded.logs.keys().max().map(|seq| json!({"seq": seq}));
                ResponseTemplate::new(200).set_body_json(Value::from_iter(last))
            }
            ("PATCH", "deployments") => {
                recorded.patches.push(body);
                let row = recorded.row.clone().unwrap_or_else(|| json!({"id": "x"}));
                ResponseTemplate::new(200).set_body_json(json!([row]))
            }
            ("GET", "deployments") => {
                ResponseTemplate::new(200).set_body_json(Value::from_iter(recorded.row.clone()))
            }
            _ => ResponseTemplate::new(404),
        }
    }
}

impl Recorded {
    fn store(&mut self, rows: &Value) -> ResponseTemplate {
        let rows = rows.as_array().unwrap();
        let text = |row: &Value| row["log_chunk"].as_str().unwrap().to_owned();
        if self.poison.is_some_and(|poison| rows.iter().any(|row| text(row).contains(poison))) {
            return refusal(400, "22P05");
        }
        for row in rows {
            self.logs.entry(row["seq"].as_u64().unwrap()).or_insert_with(|| text(row));
        }
        ResponseTemplate::new(201)
    }

    /// The whole log.
    pub(crate) fn log(&self) -> String {
        self.logs.values().map(String::as_str).collect()
    }

    /// The final status: the last PATCH.
    pub(crate) fn end(&self) -> &Value {
        self.patches.last().unwrap()
    }
}

/// An error answer as PostgREST gives it.
pub(crate) fn refusal(status: u16, code: &str) -> ResponseTemplate {
    let body = json!({"code": code, "message": "no", "details": null, "hint": null});
    ResponseTemplate::new(status).set_body_json(body)
}

impl ControlPlane {
    pub(crate) async fn start() -> Self {
        let recorded = Arc::new(Mutex::new(Recorded::default()));
        let server = MockServer::start().await;
        let responder = |recorded: &Arc<Mutex<Recorded>>| Responder(Arc::clone(recorded));
        Mock::given(responder(&recorded)).respond_with(responder(&recorded)).mount(&server).await;
        Self { server, recorded }
    }

    /// A client of it that leaves repetitions to its callers.
    pub(crate) fn rest(&self) -> Rest {
        Rest::builder(self.server.uri(), "key").retries(RetryPolicy::NONE).build().unwrap()
    }

    /// A client of it that repeats by itself, as the agent's own does.
    pub(crate) fn repeating_rest(&self) -> Rest {
        Rest::builder(self.server.uri(), "key").build().unwrap()
    }

    /// Answers the next request whose path ends so with this.
    pub(crate) fn answer_next(&self, path: &'static str, answer: ResponseTemplate) {
        self.recorded.lock().unwrap().answers.push_back((path, answer));
    }

    /// Refuses chunks that hold this text.
    pub(crate) fn refuse_chunks_with(&self, poison: &'static str) {
        self.recorded.lock().unwrap().poison = Some(poison);
    }

    /// The row of `deployments`.
    pub(crate) fn row(&self, row: Value) {
        self.recorded.lock().unwrap().row = Some(row);
    }

    /// Waits for the token of a claim.
    pub(crate) async fn claim_token(&self) -> Value {
        loop {
            let token = self.recorded(|recorded| recorded.claim_token.clone());
            if token.is_string() {
                return token;
            }
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
    }

    /// Reads what it recorded.
    pub(crate) fn recorded<T>(&self, look: impl FnOnce(&Recorded) -> T) -> T {
        look(&self.recorded.lock().unwrap())
    }
}

/// A configuration over temporary directories, with the installed terraform and short intervals.
pub(crate) fn config(dir: &Path) -> Config {
    let under = |name: &str| -> PathBuf {
        let path = dir.join(name);
        std::fs::create_dir_all(&path).unwrap();
        path
    };
    Config {
        supabase_url: "http://localhost".parse().unwrap(),
        supabase_key: "key".to_owned().into(),
        credential: Credential::Inline("the-machine-token".to_owned().into()),
        cluster_id: uuid::Uuid::nil(),
        agent_name: "fixture".to_owned(),
        templates_dir: Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/templates"),
        git: GitSettings::default(),
        work_dir: under("work"),
        state_dir: under("state"),
        hook_dir: None,
        #[cfg(feature = "kubernetes")]
        kubernetes: None,
        concurrency: 2,
        intake: crate::dispatch::intake::Intake::PostgresChanges,
        spool_limit: u64::MAX,
        work_limit: u64::MAX,
        state_backend: StateBackend::local(),
        terraform: preflight::terraform(None, &TerraformDir::default(), None)
            .unwrap()
            .caching(under("plugins")),
        terraform_dir: TerraformDir::default(),
        infracost: Infracost::missing(),
        health_addr: None,
        log_format: LogFormat::Human,
        log_filter: "warn".to_owned(),
        timing: Timing {
            log_flush: std::time::Duration::from_millis(50),
            startup_jitter: std::time::Duration::ZERO,
            ..Timing::default()
        },
        keeper: None,
        slot_users: None,
        no_slot_users: None,
        slot_uids: crate::config::slot_uids::SlotUids::Off,
        launcher: crate::launch::LauncherKind::InProcess,
        on_stop: crate::launch::OnStop::Drain,
        handed_secrets: std::sync::Arc::default(),
        secrets: crate::redaction::Redactor::default(),
    }
}
