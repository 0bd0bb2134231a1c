//! A state server over HTTP, as Terraform's backend `http` wants it: with locks that stay until somebody gives them back.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
};

use axum::{
    Json, Router,
    body::Bytes,
    extract::State,
    http::{Method, StatusCode, Uri},
    response::{IntoResponse as _, Response},
};
use serde_json::Value;
use tokio::{net::TcpListener, task::JoinHandle};

/// Below it is the lock of each state, which can be read there.
const LOCKS: &str = "/locks";

/// One state.
#[derive(Debug, Default)]
struct Stored {
    state: Option<Bytes>,
    lock: Option<Value>,
}

#[derive(Clone, Debug, Default)]
struct States(Arc<Mutex<BTreeMap<String, Stored>>>, Arc<AtomicBool>);

/// A server that runs until it is dropped.
#[derive(Debug)]
pub struct StateServer {
    url: String,
    states: States,
    serving: JoinHandle<()>,
}

impl StateServer {
    /// Starts it on a free port.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("its address"));
        let states = States::default();
        let router = Router::new().fallback(handle).with_state(states.clone());
        let serving = tokio::spawn(async move { axum::serve(listener, router).await.expect("a server") });
        Self { url, states, serving }
    }

    /// `TENDRIL_STATE_CONFIG` for it.
    pub fn config(&self) -> String {
        let (states, locks) = (format!("{}/{{key}}", self.url), format!("{}{LOCKS}/{{key}}", self.url));
        serde_json::json!({"address": states, "lock_address": locks, "unlock_address": locks, "retry_max": 0})
            .to_string()
    }

    /// Whether it refuses what it is to store: 503. What it has can be read.
    pub fn refuse(&self, refuses: bool) {
        self.states.1.store(refuses, Ordering::Relaxed);
    }

    /// A state that it has.
    pub fn state(&self, key: &str) -> Option<Value> {
        serde_json::from_slice(self.states.all().get(&path(key))?.state.as_ref()?).ok()
    }

    /// The lock on a state.
    pub fn lock(&self, key: &str) -> Option<Value> {
        self.states.all().get(&path(key))?.lock.clone()
    }

    /// Puts a lock on a state.
    pub fn set_lock(&self, key: &str, lock: Value) {
        self.states.all().entry(path(key)).or_default().lock = Some(lock);
    }
}

/// Where the agent keeps a state on a server.
fn path(key: &str) -> String {
    format!("/tendril-{key}")
}

impl Drop for StateServer {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl States {
    fn all(&self) -> MutexGuard<'_, BTreeMap<String, Stored>> {
        self.0.lock().expect("nobody panics while holding it")
    }
}

async fn handle(State(states): State<States>, method: Method, uri: Uri, body: Bytes) -> Response {
    if method == Method::POST && states.1.load(Ordering::Relaxed) {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    let mut states = states.all();
    let of_lock = uri.path().strip_prefix(LOCKS);
    let stored = states.entry(of_lock.unwrap_or(uri.path()).to_owned()).or_default();
    match method.as_str() {
        "GET" if of_lock.is_some() => match &stored.lock {
            Some(lock) => Json(lock).into_response(),
            None => StatusCode::NOT_FOUND.into_response(),
        },
        "GET" => match &stored.state {
            Some(state) => state.clone().into_response(),
            None => StatusCode::NOT_FOUND.into_response(),
        },
        "POST" => {
            stored.state = Some(body);
            StatusCode::OK.into_response()
        }
        "LOCK" => {
            if let Some(lock) = &stored.lock {
                return (StatusCode::LOCKED, Json(lock)).into_response();
            }
            stored.lock = serde_json::from_slice(&body).ok();
            StatusCode::OK.into_response()
        }
        "UNLOCK" => {
            stored.lock = None;
            StatusCode::OK.into_response()
        }
        _ => StatusCode::METHOD_NOT_ALLOWED.into_response(),
    }
}
