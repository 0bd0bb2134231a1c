//! A Git server on this machine: the real `git http-backend` behind HTTP with a login, and repositories to push into.
//!
//! It records its requests and the size of its answers, and can be set to stop in the middle of an answer, or to send
//! everybody elsewhere.

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Request, State},
    http::{HeaderMap, Response, StatusCode},
};
use futures_util::{StreamExt as _, stream};
use tokio::{io::AsyncWriteExt as _, net::TcpListener, process::Command, task::JoinHandle};

use crate::wait::until;

/// Largest request: far above what a client sends.
const LARGEST: usize = 16 * 1024 * 1024;

/// A running server. Dropping it ends it.
#[derive(Debug)]
pub struct GitServer {
    addr: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    root: PathBuf,
    state: Mutex<ServerState>,
}

/// What it shall do, and what it saw.
#[derive(Debug, Default)]
struct ServerState {
    /// The login that it takes; none: everybody may read.
    token: Option<String>,
    /// Stop in the middle of every pack.
    stalls: bool,
    /// Send everybody there.
    elsewhere: Option<String>,
    seen: Vec<Seen>,
}

/// A request that was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Path and query.
    pub path: String,
    /// The `Authorization` header.
    pub login: Option<String>,
    /// The status of the answer.
    pub status: u16,
    /// Whether objects were requested, and how many bytes the answer had.
    pub pack: Option<usize>,
}

impl GitServer {
    /// Serves the repositories below a directory, which is made.
    pub async fn start(root: &Path) -> Self {
        fs::create_dir_all(root).expect("a directory for repositories");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let addr = listener.local_addr().expect("its address");
        let shared = Arc::new(Shared { root: root.to_path_buf(), state: Mutex::default() });
        let router = Router::new().fallback(answer).with_state(Arc::clone(&shared));
        let task = tokio::spawn(async move { axum::serve(listener, router).await.expect("it serves") });
        Self { addr, shared, task }
    }

    /// Its host and port, as `TENDRIL_GIT_HOSTS` takes it.
    pub fn host(&self) -> String {
        self.addr.to_string()
    }

    /// The address of a repository.
    pub fn url(&self, name: &str) -> String {
        format!("http://{}/{name}.git", self.addr)
    }

    /// A new, empty repository.
    pub async fn repository(&self, name: &str) -> Repository {
        Repository::init(&self.shared.root, name).await
    }

    /// From now on this token is wanted.
    pub fn want_token(&self, token: &str) {
        self.state().token = Some(token.to_owned());
    }

    /// Whether it stops in the middle of every pack from now on.
    pub fn stall(&self, stalls: bool) {
        self.state().stalls = stalls;
    }

    /// From now on everybody is sent there, with the same path.
    pub fn redirect(&self, to: &str) {
        self.state().elsewhere = Some(to.to_owned());
    }

    /// Its requests since the last call.
    pub fn seen(&self) -> Vec<Seen> {
        std::mem::take(&mut self.state().seen)
    }

    /// Waits until it has stopped in the middle of a pack.
    pub async fn stalled(&self) {
        until("the server stops in the middle of a pack", async || {
            let seen = self.state().seen.clone();
            if seen.iter().any(|seen| seen.pack.is_some()) { Ok(()) } else { Err(format!("{seen:?}")) }
        })
        .await;
    }

    fn state(&self) -> MutexGuard<'_, ServerState> {
        self.shared.state()
    }
}

impl Drop for GitServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, ServerState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An answer that does not come from Git.
    fn refusal(&self, path: &str, login: Option<&str>) -> Option<Response<Body>> {
        let state = self.state();
        if let Some(to) = &state.elsewhere {
            let there = Response::builder().status(StatusCode::MOVED_PERMANENTLY);
            return Some(there.header("Location", format!("{to}{path}")).body(Body::empty()).unwrap());
        }
        let token = state.token.as_ref()?;
        let password = login.and_then(|login| login.strip_prefix("Basic ")).map(decoded).unwrap_or_default();
        if password
            .split_once(':')
            .is_some_and(|(user, password)| user == "x-access-token" && password == token)
        {
            return None;
        }
        let refused = Response::builder().status(StatusCode::UNAUTHORIZED);
        Some(refused.header("WWW-Authenticate", "Basic realm=\"git\"").body(Body::empty()).unwrap())
    }
}

async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path_and_query().map(ToString::to_string).unwrap_or_default();
    let login = parts.headers.get("authorization").and_then(|login| login.to_str().ok()).map(str::to_owned);
    let mut seen = Seen { path: path.clone(), login, status: 0, pack: None };
    if let Some(refusal) = shared.refusal(&path, seen.login.as_deref()) {
        seen.status = refusal.status().as_u16();
        shared.state().seen.push(seen);
        return refusal;
    }
    let body = axum::body::to_bytes(body, LARGEST).await.expect("a request");
    let (status, headers, answer) =
        http_backend(&shared.root, parts.method.as_str(), &parts.uri, &parts.headers, &body).await;
    let is_pack = parts.uri.path().ends_with("/git-upload-pack") && contains(&answer, b"PACK");
    let stalls = is_pack && shared.state().stalls;
    seen.status = status;
    seen.pack = is_pack.then_some(answer.len());
    shared.state().seen.push(seen);
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(name, value);
    }
    let body = if stalls {
        let half = answer.slice(..answer.len() / 2);
        let rest = stream::pending::<Result<Bytes, std::convert::Infallible>>();
        Body::from_stream(stream::iter([Ok(half)]).chain(rest))
    } else {
        Body::from(answer)
    };
    response.body(body).expect("an answer")
}

/// Runs the real program, as a web server would (RFC 3875).
async fn http_backend(
    root: &Path,
    method: &str,
    uri: &axum::http::Uri,
    headers: &HeaderMap,
    body: &Bytes,
) -> (u16, BTreeMap<String, String>, Bytes) {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut child = Command::new("git")
        .arg("http-backend")
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_PROJECT_ROOT", root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("REQUEST_METHOD", method)
        .env("PATH_INFO", uri.path())
        .env("QUERY_STRING", uri.query().unwrap_or_default())
        .env("CONTENT_TYPE", header("content-type"))
        .env("CONTENT_LENGTH", body.len().to_string())
        .env("HTTP_CONTENT_ENCODING", header("content-encoding"))
        .env("GIT_PROTOCOL", header("git-protocol"))
        .env("REMOTE_ADDR", "127.0.0.1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        // What it complains of is in its answers.
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("git http-backend");
    let mut stdin = child.stdin.take().expect("its stdin");
    let body = body.clone();
    // Where it answers before it has read everything, the rest is read and dropped.
    let write = tokio::spawn(async move { stdin.write_all(&body).await });
    let output = child.wait_with_output().await.expect("its answer");
    drop(write.await);
    let end = output.stdout.windows(4).position(|bytes| bytes == b"\r\n\r\n").expect("headers");
    let text = String::from_utf8_lossy(&output.stdout[..end]).into_owned();
    let mut headers: BTreeMap<String, String> = text
        .lines()
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let status = headers.remove("Status").and_then(|status| status.split(' ').next()?.parse().ok());
    (status.unwrap_or(200), headers, Bytes::from(output.stdout).slice(end + 4..))
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// Base64, as a login is written.
fn decoded(text: &str) -> String {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    STANDARD.decode(text).ok().and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default()
}

/// A repository, and the folder from which it is pushed into.
#[derive(Debug, Clone)]
pub struct Repository {
    bare: PathBuf,
    tree: PathBuf,
}

impl Repository {
    async fn init(root: &Path, name: &str) -> Self {
        let new = Self { bare: root.join(format!("{name}.git")), tree: root.join(format!(".{name}")) };
        for dir in [&new.bare, &new.tree] {
            fs::create_dir_all(dir).expect("a directory");
        }
        git(&new.bare, &["init", "--quiet", "--bare", "--initial-branch=main"]).await;
        git(&new.bare, &["config", "uploadpack.allowFilter", "true"]).await;
        git(&new.tree, &["init", "--quiet", "--initial-branch=main"]).await;
        let bare = new.bare.to_str().expect("a path").to_owned();
        git(&new.tree, &["remote", "add", "origin", &bare]).await;
        new
    }

    /// The folder whose files the next commit has.
    pub fn tree(&self) -> &Path {
        &self.tree
    }

    /// Writes a file for the next commit.
    pub fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        let file = self.tree.join(path);
        fs::create_dir_all(file.parent().expect("a folder")).expect("a folder");
        fs::write(file, content).expect("a file");
    }

    /// Commits everything and pushes it; answers the commit's id.
    pub async fn commit(&self) -> String {
        self.run(&["add", "--all"]).await;
        self.run(&["commit", "--quiet", "--allow-empty", "--message", "a change"]).await;
        let branch = self.run(&["branch", "--show-current"]).await;
        self.run(&["push", "--quiet", "--force", "origin", &format!("HEAD:refs/heads/{branch}")]).await;
        self.run(&["rev-parse", "HEAD"]).await
    }

    /// Runs Git in the folder; returns its output.
    pub async fn run(&self, args: &[&str]) -> String {
        git(&self.tree, args).await
    }
}

async fn git(dir: &Path, args: &[&str]) -> String {
    let output = Command::new("git")
        .args(args)
        .current_dir(dir)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .envs([("GIT_CONFIG_NOSYSTEM", "1"), ("GIT_CONFIG_GLOBAL", "/dev/null"), ("HOME", "/nonexistent")])
        .envs([("GIT_AUTHOR_NAME", "a"), ("GIT_AUTHOR_EMAIL", "a@tests.invalid")])
        .envs([("GIT_COMMITTER_NAME", "a"), ("GIT_COMMITTER_EMAIL", "a@tests.invalid")])
        .stdin(Stdio::null())
        .output()
        .await
        .expect("git");
    let printed = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    assert!(output.status.success(), "git {args:?}: {printed}{}", String::from_utf8_lossy(&output.stderr));
    printed
}
