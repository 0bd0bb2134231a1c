//! Edge Functions on the stack, run by the real Deno (`scripts/tool.sh deno`): who gets through to them, what they see, and when
//! they end.

#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "a test may fail")]

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use supabase_local::{RequestFault, Stack, StackBuilder, Target};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Answers with the request and its environment; ends its process on request.
const MIRROR: &str = r"
Deno.serve(async (request) => {
  const { pathname, search } = new URL(request.url)
  if (pathname === '/mirror/exit') Deno.exit(3)
  const names = ['SUPABASE_URL', 'SUPABASE_ANON_KEY', 'SUPABASE_SERVICE_ROLE_KEY', 'SUPABASE_SECRET_KEYS', 'MINE', 'CARGO_MANIFEST_DIR']
  const env = Object.fromEntries(names.map((name) => [name, Deno.env.get(name) ?? null]))
  const body = await request.text()
  const seen = { method: request.method, path: pathname + search, mine: request.headers.get('x-mine'), body, env, pid: Deno.pid }
  return Response.json(seen, { status: 201, headers: { 'x-answer': 'yes' } })
})
";

/// A project with a mirror that is open, one that is guarded, one that is off, and one that cannot start.
fn project() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, source) in
        [("mirror", MIRROR), ("guarded", MIRROR), ("off", MIRROR), ("broken", "throw new Error('no luck')")]
    {
        let folder = dir.path().join("functions").join(name);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("index.ts"), source).unwrap();
    }
    let rules = "[functions.mirror]\nverify_jwt = false\n[functions.off]\nenabled = false\n";
    fs::write(dir.path().join("config.toml"), rules).unwrap();
    dir
}

fn builder(project: &TempDir) -> StackBuilder {
    Stack::builder()
        .without_migrations()
        .functions(project.path().join("functions"))
        .function_secret("MINE", "a secret of mine")
}

/// One request, written by hand so that exactly these headers go out: status, head, body.
async fn send(url: &str, request: &str, headers: &[(&str, &str)], body: &str) -> (u16, String, Value) {
    let address = url.replace("http://", "");
    let mut socket = TcpStream::connect(&address).await.unwrap();
    let length = body.len();
    let mut text =
        format!("{request} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {length}\r\n");
    for (name, value) in headers {
        text.push_str(&[name, ": ", value, "\r\n"].concat());
    }
    socket.write_all(format!("{text}\r\n{body}").as_bytes()).await.unwrap();
    let mut answer = String::new();
    let time_limit = Duration::from_secs(60);
    timeout(time_limit, socket.read_to_string(&mut answer)).await.expect("an answer").unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    // Chunked, where the length was not known: one JSON document among lines of hexadecimal digits.
    let body = body.lines().find_map(|line| serde_json::from_str(line).ok().filter(Value::is_object));
    (status, head.to_lowercase(), body.unwrap_or_default())
}

/// Waits until a process is gone.
async fn until_gone(pid: &Value) {
    let process = format!("/proc/{pid}");
    let deadline = Instant::now() + Duration::from_secs(15);
    while Path::new(&process).exists() {
        assert!(Instant::now() < deadline, "process {pid} is still there");
        // The runtime has to run meanwhile: what was dropped is ended there.
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_function_sees_the_request_and_what_a_project_gives_it_and_nothing_else() {
    let project = project();
    let stack = builder(&project).start().await.unwrap();
    let headers = [("x-mine", "header")];
    let (status, head, seen) =
        send(&stack.api_url(), "PUT /functions/v1/mirror/a%20b?c=d", &headers, "text").await;
    assert_eq!(status, 201);
    assert!(head.contains("x-answer: yes") && head.contains("access-control-allow-origin: *"), "{head}");
    assert_eq!((&seen["method"], &seen["path"]), (&json!("PUT"), &json!("/mirror/a%20b?c=d")));
    assert_eq!((&seen["mine"], &seen["body"]), (&json!("header"), &json!("text")));
    let env = &seen["env"];
    assert_eq!(env["SUPABASE_URL"], json!(stack.api_url()));
    assert_eq!(env["SUPABASE_ANON_KEY"], json!(stack.anon_key()));
    assert_eq!(env["SUPABASE_SERVICE_ROLE_KEY"], json!(stack.service_role_key()));
    let secret = json!({"default": stack.keys().secret()}).to_string();
    assert_eq!((&env["SUPABASE_SECRET_KEYS"], &env["MINE"]), (&json!(secret), &json!("a secret of mine")));
    assert_eq!(env["CARGO_MANIFEST_DIR"], Value::Null, "nothing of the stack's own environment");
    let (_, _, again) = send(&stack.api_url(), "GET /functions/v1/mirror", &[], "").await;
    assert_eq!(again["pid"], seen["pid"], "one process for all requests");
    stack.stop().await.unwrap();
    until_gone(&seen["pid"]).await;
}

#[tokio::test]
async fn the_gateway_refuses_what_config_toml_says() {
    let project = project();
    let stack = builder(&project).start().await.unwrap();
    let bearer = |token: &str| format!("Bearer {token}");
    let user = bearer(&stack.mint_user("11111111-1111-4111-8111-111111111111"));
    let anon = bearer(stack.anon_key());
    for good in [&user, &anon] {
        let (status, ..) =
            send(&stack.api_url(), "POST /functions/v1/guarded", &[("authorization", good)], "").await;
        assert_eq!(status, 201);
    }
    let foreign_secret = supabase_local::JwtSecret::new("another secret with at least thirty-two characters");
    for wrong in [
        bearer(stack.keys().publishable()),
        bearer(&foreign_secret.user_token("11111111-1111-4111-8111-111111111111", Duration::from_secs(60))),
        bearer(&stack.mint(&json!({"role": "authenticated", "exp": 1_700_000_000}))),
    ] {
        let (status, _, body) =
            send(&stack.api_url(), "POST /functions/v1/guarded", &[("authorization", &wrong)], "").await;
        assert_eq!((status, body), (401, json!({"code": 401, "message": "Invalid JWT"})));
    }
    let key = [("apikey", stack.anon_key())];
    let (status, _, body) = send(&stack.api_url(), "POST /functions/v1/guarded", &key, "").await;
    assert_eq!((status, body), (401, json!({"code": 401, "message": "Missing authorization header"})));
    for name in ["off", "none", "..%2Fmirror"] {
        let (status, _, body) =
            send(&stack.api_url(), &format!("POST /functions/v1/{name}"), &[("authorization", &anon)], "")
                .await;
        assert_eq!((status, &body["code"]), (404, &json!("NOT_FOUND")), "{name}");
    }
    let (status, _, body) =
        send(&stack.api_url(), "POST /functions/v1/broken", &[("authorization", &anon)], "").await;
    assert_eq!((status, &body["code"]), (503, &json!("BOOT_ERROR")));
    stack.stop().await.unwrap();
}

#[tokio::test]
async fn a_function_that_ended_is_started_again_and_faults_strike_before_it() {
    let project = project();
    let stack = builder(&project).start().await.unwrap();
    let (_, _, first) = send(&stack.api_url(), "GET /functions/v1/mirror", &[], "").await;
    let (status, _, body) = send(&stack.api_url(), "GET /functions/v1/mirror/exit", &[], "").await;
    assert_eq!((status, &body["code"]), (500, &json!("WORKER_ERROR")));
    until_gone(&first["pid"]).await;
    let deadline = Instant::now() + Duration::from_secs(15);
    let second = loop {
        let (status, _, second) = send(&stack.api_url(), "GET /functions/v1/mirror", &[], "").await;
        if status == 201 {
            break second;
        }
        assert!(Instant::now() < deadline, "it was not started again");
    };
    assert_ne!(first["pid"], second["pid"]);
    let fault = RequestFault::Status { code: 429, retry_after: Some(Duration::from_secs(7)) };
    let limited = stack.faults().on_requests(fault, Target::all().path("/functions/v1/mirror"));
    let (status, head, _) = send(&stack.api_url(), "GET /functions/v1/mirror", &[], "").await;
    assert!(status == 429 && head.contains("retry-after: 7"), "{head}");
    assert_eq!(limited.struck(), 1);
    drop(stack);
    until_gone(&second["pid"]).await;
}

#[tokio::test]
async fn the_projects_own_function_works_as_it_is_deployed() {
    let stack = Stack::builder().start().await.unwrap();
    let key = json!({"key": format!("tdl_{}", "0".repeat(65))}).to_string();
    let (status, _, body) = send(&stack.api_url(), "POST /functions/v1/agent-token", &[], &key).await;
    assert_eq!((status, &body["code"]), (401, &json!("invalid_key")), "{body}");
    stack.stop().await.unwrap();
}

/// The stack as a process of its own, its URL, and its output: a program whose output nobody takes ends.
fn process(deno: Option<&str>) -> (Child, String, BufReader<ChildStdout>) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_supabase-local"));
    command.args(["--port", "0", "--db-port", "0"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.envs(deno.map(|deno| ("TENDRIL_DENO", deno)));
    let mut child = command.spawn().expect("the program runs");
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut printed = String::new();
    while !printed.contains("Secret key") {
        assert_ne!(out.read_line(&mut printed).expect("a line"), 0, "it ended early:\n{printed}");
    }
    let url = printed.lines().find_map(|line| line.trim_start().strip_prefix("API URL: "));
    let url = url.expect("its URL").to_owned();
    (child, url, out)
}

#[tokio::test]
async fn a_killed_stack_leaves_no_function() {
    let (mut stack, url, _out) = process(None);
    let key = json!({"key": "x"}).to_string();
    let (status, ..) = send(&url, "POST /functions/v1/agent-token", &[], &key).await;
    assert_eq!(status, 401);
    let mine = |pid: &str| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(1)).map(str::to_owned)
    };
    let is_child = |pid: &str| {
        let parent = mine(pid).unwrap_or_default();
        mine(&parent) == Some(stack.id().to_string())
            && fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.starts_with("deno"))
    };
    let deno = fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .find(|pid| is_child(pid));
    let deno: u32 = deno.expect("a Deno of this stack").parse().unwrap();
    stack.kill().unwrap();
    stack.wait().unwrap();
    until_gone(&json!(deno)).await;
}

#[tokio::test]
async fn without_deno_it_says_how_to_get_it() {
    let (mut stack, url, _out) = process(Some("/nonexistent/deno"));
    let (status, _, body) = send(&url, "POST /functions/v1/agent-token", &[], "{}").await;
    assert_eq!((status, &body["code"]), (503, &json!("NO_DENO")));
    assert!(body["message"].as_str().unwrap().contains("scripts/tool.sh deno"), "{body}");
    stack.kill().unwrap();
    let output = stack.wait_with_output().unwrap();
    let output = String::from_utf8_lossy(&output.stderr);
    assert!(output.contains("scripts/tool.sh deno"), "{output}");
}
