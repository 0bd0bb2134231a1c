//! What stands before the services: the key check, the keys' swap, browsers' questions, the outage switch.

#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "a test may fail")]

use std::time::Duration;

use supabase_local::Stack;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

const TABLE: &str = "create table public.t (n int); grant select on public.t to service_role; \
                     insert into public.t values (1)";

async fn stack() -> Stack {
    Stack::builder().without_migrations().sql(TABLE).start().await.expect("the stack starts")
}

/// One request, written by hand so that exactly these headers go out; the whole answer as text.
async fn send(stack: &Stack, method: &str, path: &str, headers: &[(&str, &str)]) -> String {
    let address = stack.api_url().replace("http://", "");
    let mut socket = TcpStream::connect(&address).await.unwrap();
    let mut request = format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n");
    for (name, value) in headers {
        request.push_str(&[name, ": ", value, "\r\n"].concat());
    }
    request.push_str("\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    timeout(Duration::from_secs(15), socket.read_to_string(&mut answer)).await.expect("an answer").unwrap();
    answer
}

#[tokio::test]
async fn a_request_without_a_project_key_is_refused() {
    let stack = stack().await;
    let user = stack.mint_user("11111111-1111-4111-8111-111111111111");
    let none = send(&stack, "GET", "/rest/v1/t", &[]).await;
    assert!(
        none.starts_with("HTTP/1.1 401") && none.ends_with(r#"{"message":"No API key found in request","hint":"No `apikey` request header or url param was found."}"#),
        "{none}"
    );
    for wrong in ["nonsense", "sb_secret_other", user.as_str()] {
        let refused = send(&stack, "GET", "/rest/v1/t", &[("apikey", wrong)]).await;
        assert!(refused.starts_with("HTTP/1.1 401"), "{refused}");
    }
    stack.stop().await.unwrap();
}

#[tokio::test]
async fn the_key_is_the_bearer_where_no_other_is_given() {
    let stack = stack().await;
    let keys = stack.keys();
    let bearer_secret = format!("Bearer {}", keys.secret());
    let bearer_service = format!("Bearer {}", keys.service_role());
    let as_service: [&[(&str, &str)]; 4] = [
        &[("apikey", keys.service_role())],
        &[("apikey", keys.secret())],
        &[("apikey", keys.secret()), ("Authorization", &bearer_secret)],
        &[("apikey", keys.anon()), ("Authorization", &bearer_service)],
    ];
    for headers in as_service {
        let answer = send(&stack, "GET", "/rest/v1/t", headers).await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains(r#"[{"n":1}]"#), "{answer}");
    }
    let anon = send(&stack, "GET", "/rest/v1/t", &[("apikey", keys.publishable())]).await;
    assert!(anon.contains("42501"), "{anon}");
    let query = send(&stack, "GET", &format!("/rest/v1/t?apikey={}", keys.service_role()), &[]).await;
    assert!(!query.starts_with("HTTP/1.1 401"), "{query}");
    stack.stop().await.unwrap();
}

#[tokio::test]
async fn a_browser_may_ask_from_anywhere() {
    let stack = stack().await;
    let question = [
        ("Origin", "http://a.example"),
        ("Access-Control-Request-Method", "POST"),
        ("Access-Control-Request-Headers", "apikey,x-mine"),
    ];
    let preflight = send(&stack, "OPTIONS", "/rest/v1/t", &question).await.to_lowercase();
    assert!(preflight.starts_with("http/1.1 200"), "{preflight}");
    assert!(preflight.contains("access-control-allow-origin: *"), "{preflight}");
    assert!(preflight.contains("access-control-allow-headers: apikey,x-mine"), "{preflight}");
    let refusal = send(&stack, "GET", "/rest/v1/t", &[("Origin", "http://a.example")]).await.to_lowercase();
    assert!(refusal.contains("access-control-allow-origin: *"), "{refusal}");
    stack.stop().await.unwrap();
}

#[tokio::test]
async fn an_outage_of_rest_is_503_and_ends() {
    let stack = stack().await;
    let headers = [("apikey", stack.service_role_key())];
    stack.faults().refuse_rest(true);
    assert!(send(&stack, "GET", "/rest/v1/t", &headers).await.starts_with("HTTP/1.1 503"));
    stack.faults().refuse_rest(false);
    assert!(send(&stack, "GET", "/rest/v1/t", &headers).await.starts_with("HTTP/1.1 200"));
    stack.stop().await.unwrap();
}
