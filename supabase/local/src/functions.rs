//! Edge Functions: `supabase/functions/<name>/index.ts`, each run by Deno in its own process from its first request until the
//! stack ends. Only [`crate::server`] calls them; they call the stack's own services over HTTP.

mod deno;
mod rules;
mod worker;

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use axum::extract::{Path as UrlPath, Request, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::any;
use axum::{Json, Router};
use http::{Method, StatusCode};
use serde_json::json;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::error;

use self::rules::Rules;
use self::worker::Worker;
use crate::error::Result;
use crate::gateway;
use crate::keys::ProjectKeys;

/// All functions of a project.
#[derive(Debug)]
pub(crate) struct Functions {
    /// Where they are, one folder each.
    dir: Option<PathBuf>,
    rules: Rules,
    environment: BTreeMap<String, String>,
    keys: Arc<ProjectKeys>,
    /// The stack's own address; known once it listens.
    address: OnceLock<SocketAddr>,
    /// The processes by the names of their functions. Locked while one starts: a request meanwhile waits for it.
    workers: Mutex<HashMap<String, Arc<Worker>>>,
    /// Ends them all.
    stop: CancellationToken,
    /// The tasks that own the processes.
    tasks: TaskTracker,
}

impl Functions {
    /// The functions of a directory; nothing is started yet.
    ///
    /// # Errors
    /// [`crate::ErrorKind::File`]: the `config.toml` beside it cannot be read.
    pub(crate) fn new(
        dir: Option<PathBuf>,
        environment: BTreeMap<String, String>,
        keys: Arc<ProjectKeys>,
        stop: CancellationToken,
    ) -> Result<Self> {
        let rules = match dir.as_deref().and_then(Path::parent) {
            Some(project) => Rules::read(&project.join("config.toml"))?,
            None => Rules::default(),
        };
        let (address, workers, tasks) = (OnceLock::new(), Mutex::default(), TaskTracker::new());
        Ok(Self { dir, rules, environment, keys, address, workers, stop, tasks })
    }

    /// Sets where the stack listens; the functions get this address.
    pub(crate) fn found_at(&self, address: SocketAddr) {
        // A stack listens once.
        let _first = self.address.set(address);
    }

    /// Waits until all processes have ended, after the stack was stopped.
    pub(crate) async fn ended(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// The file of a function that is there and enabled.
    fn entry(&self, name: &str) -> Option<PathBuf> {
        let is_name = name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'));
        let entry = self.dir.as_ref()?.join(name).join("index.ts");
        (is_name && self.rules.is_enabled(name) && entry.is_file()).then_some(entry)
    }

    /// The process of a function; it is started if it does not run.
    async fn worker(&self, name: &str, entry: &Path) -> Result<Arc<Worker>, Refusal> {
        let mut workers = self.workers.lock().await;
        if let Some(worker) = workers.get(name).filter(|worker| worker.is_running()) {
            return Ok(Arc::clone(worker));
        }
        let deno = deno::find().map_err(|message| {
            error!("{message}");
            Refusal(StatusCode::SERVICE_UNAVAILABLE, "NO_DENO", message)
        })?;
        let mut environment = self.environment.clone();
        if let Some(address) = self.address.get() {
            environment.insert("SUPABASE_URL".to_owned(), format!("http://{address}"));
        }
        let started = Worker::start(&deno, name, entry, &environment, &self.stop, &self.tasks).await;
        let worker = Arc::new(started.map_err(|output| {
            error!(function = name, "the function did not start: {output}");
            let message = "Function failed to start (please check logs)".to_owned();
            Refusal(StatusCode::SERVICE_UNAVAILABLE, "BOOT_ERROR", message)
        })?);
        workers.insert(name.to_owned(), Arc::clone(&worker));
        Ok(worker)
    }

    /// What the gateway answers for a function that requires a JWT.
    fn check_jwt(&self, name: &str, request: &Request) -> Result<(), &'static str> {
        if !self.rules.verifies_jwt(name) || request.method() == Method::OPTIONS {
            return Ok(());
        }
        let token = gateway::bearer(request.headers()).ok_or("Missing authorization header")?;
        self.keys.jwt().verify(token).map(drop).map_err(|_| "Invalid JWT")
    }
}

/// What a hosted project gives its functions, and the secrets of this one. The address is added when it is known.
pub(crate) fn environment(
    keys: &ProjectKeys,
    database_url: &str,
    secrets: BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    let given = [
        ("SUPABASE_ANON_KEY", keys.anon().to_owned()),
        ("SUPABASE_SERVICE_ROLE_KEY", keys.service_role().to_owned()),
        ("SUPABASE_PUBLISHABLE_KEYS", json!({"default": keys.publishable()}).to_string()),
        ("SUPABASE_SECRET_KEYS", json!({"default": keys.secret()}).to_string()),
        ("SUPABASE_DB_URL", database_url.to_owned()),
        // Not from Supabase: the project's own function signs with it.
        ("TENDRIL_JWT_SECRET", keys.jwt().expose().to_owned()),
    ];
    let mut all: BTreeMap<String, String> =
        given.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    all.extend(secrets);
    all
}

/// An answer of the stack where a function should have given one.
#[derive(Debug)]
struct Refusal(StatusCode, &'static str, String);

impl From<Refusal> for Response {
    fn from(Refusal(status, code, message): Refusal) -> Self {
        (status, Json(json!({"code": code, "message": message}))).into_response()
    }
}

/// `/<name>` and everything below it.
pub(crate) fn router(functions: Arc<Functions>) -> Router {
    Router::new().route("/{name}", any(serve)).route("/{name}/{*path}", any(serve)).with_state(functions)
}

async fn serve(
    State(functions): State<Arc<Functions>>,
    UrlPath(parts): UrlPath<HashMap<String, String>>,
    request: Request,
) -> Response {
    let name = parts.get("name").map_or("", String::as_str);
    let Some(entry) = functions.entry(name) else {
        let message = "Requested function was not found".to_owned();
        return Refusal(StatusCode::NOT_FOUND, "NOT_FOUND", message).into();
    };
    if let Err(message) = functions.check_jwt(name, &request) {
        return (StatusCode::UNAUTHORIZED, Json(json!({"code": 401, "message": message}))).into_response();
    }
    let worker = match functions.worker(name, &entry).await {
        Ok(worker) => worker,
        Err(refusal) => return refusal.into(),
    };
    worker.answer(request).await.unwrap_or_else(|error| {
        error!(function = name, %error, "the function gave no answer");
        let message = "Function exited due to an error (please check logs)".to_owned();
        Refusal(StatusCode::INTERNAL_SERVER_ERROR, "WORKER_ERROR", message).into()
    })
}
