//! Sign-up, sign-in, renewal and sign-out, as a client of Supabase does them.

#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "a test may fail")]

use serde_json::{Value, json};
use supabase_local::Stack;

#[path = "realtime/http.rs"]
mod http;

use http::ask;

async fn stack() -> Stack {
    let sql = "create table public.notes (owner uuid default auth.uid(), body text); \
               alter table public.notes enable row level security; \
               grant select, insert on public.notes to authenticated; \
               create policy own on public.notes to authenticated using (owner = auth.uid())";
    Stack::builder().without_migrations().sql(sql).start().await.expect("the stack starts")
}

/// The status and the body of an answer.
async fn call(stack: &Stack, method: &str, path: &str, bearer: Option<&str>, body: &Value) -> (u16, Value) {
    let bearer = bearer.map(|token| format!("Bearer {token}"));
    let mut headers = vec![("apikey", stack.anon_key()), ("Content-Type", "application/json")];
    headers.extend(bearer.as_deref().map(|bearer| ("Authorization", bearer)));
    let answer = ask(stack, method, path, &headers, body.to_string().as_bytes()).await.expect("an answer");
    let media = answer.header("content-type").unwrap_or("application/json");
    assert!(media.starts_with("application/json"), "{media}");
    (answer.status, serde_json::from_str(&answer.body).unwrap_or_default())
}

async fn sign_up(stack: &Stack, email: &str) -> Value {
    let body = json!({"email": email, "password": "correct horse", "data": {"name": "A"}});
    let (status, session) = call(stack, "POST", "/auth/v1/signup", None, &body).await;
    assert_eq!(status, 200, "{session}");
    session
}

async fn sign_in(stack: &Stack, email: &str, password: &str) -> (u16, Value) {
    let body = json!({"email": email, "password": password});
    call(stack, "POST", "/auth/v1/token?grant_type=password", None, &body).await
}

#[tokio::test]
async fn a_user_signs_up_signs_in_and_works_under_policies() {
    let stack = stack().await;
    let signed_up = sign_up(&stack, "Ada@example.com").await;
    assert_eq!(signed_up["user"]["email"], "ada@example.com");
    assert_eq!(signed_up["user"]["user_metadata"], json!({"name": "A"}));
    let (status, session) = sign_in(&stack, "ada@EXAMPLE.com", "correct horse").await;
    assert_eq!((status, &session["token_type"]), (200, &json!("bearer")));
    let token = session["access_token"].as_str().unwrap();
    let (status, user) = call(&stack, "GET", "/auth/v1/user", Some(token), &json!({})).await;
    assert_eq!((status, &user["id"]), (200, &signed_up["user"]["id"]));
    let (status, _) = call(&stack, "POST", "/rest/v1/notes", Some(token), &json!({"body": "mine"})).await;
    assert_eq!(status, 201);
    let other = sign_up(&stack, "bob@example.com").await;
    for (token, seen) in [(token, 1), (other["access_token"].as_str().unwrap(), 0)] {
        let (_, rows) = call(&stack, "GET", "/rest/v1/notes", Some(token), &json!({})).await;
        assert_eq!(rows.as_array().unwrap().len(), seen);
    }
    stack.stop().await.unwrap();
}

#[tokio::test]
async fn each_refusal_has_its_code() {
    let stack = stack().await;
    sign_up(&stack, "ada@example.com").await;
    let code = |answer: (u16, Value)| (answer.0, answer.1["error_code"].as_str().unwrap().to_owned());
    let refused = |status: u16, code: &str| (status, code.to_owned());
    let again = json!({"email": "ADA@example.com", "password": "correct horse"});
    let short = json!({"email": "b@example.com", "password": "12345"});
    let signup = "/auth/v1/signup";
    assert_eq!(code(call(&stack, "POST", signup, None, &again).await), refused(422, "user_already_exists"));
    assert_eq!(code(call(&stack, "POST", signup, None, &short).await), refused(422, "weak_password"));
    assert_eq!(code(call(&stack, "POST", signup, None, &json!({})).await), refused(400, "validation_failed"));
    let wrong = refused(400, "invalid_credentials");
    assert_eq!(code(sign_in(&stack, "ada@example.com", "battery staple").await), wrong);
    assert_eq!(code(sign_in(&stack, "nobody@example.com", "correct horse").await), wrong);
    let user = "/auth/v1/user";
    let bad = call(&stack, "GET", user, Some("nonsense"), &json!({})).await;
    assert_eq!(code(bad), refused(403, "bad_jwt"));
    let no_subject = call(&stack, "GET", user, None, &json!({})).await;
    assert_eq!(code(no_subject), refused(403, "bad_jwt"));
    let stranger = stack.mint_user("99999999-9999-4999-8999-999999999999");
    let unknown = call(&stack, "GET", user, Some(&stranger), &json!({})).await;
    assert_eq!(code(unknown), refused(403, "user_not_found"));
    stack.stop().await.unwrap();
}

#[tokio::test]
async fn a_refresh_token_is_good_once_and_a_sign_out_ends_the_session() {
    let stack = stack().await;
    let session = sign_up(&stack, "ada@example.com").await;
    let renew = async |token: &Value| {
        let body = json!({"refresh_token": token});
        call(&stack, "POST", "/auth/v1/token?grant_type=refresh_token", None, &body).await
    };
    let (status, renewed) = renew(&session["refresh_token"]).await;
    assert_eq!(status, 200, "{renewed}");
    assert_ne!(renewed["refresh_token"], session["refresh_token"]);
    assert_eq!(renew(&session["refresh_token"]).await.1["error_code"], "refresh_token_not_found");
    let token = renewed["access_token"].as_str().unwrap();
    let (status, _) = call(&stack, "POST", "/auth/v1/logout?scope=local", Some(token), &json!({})).await;
    assert_eq!(status, 204);
    let (status, refusal) = call(&stack, "GET", "/auth/v1/user", Some(token), &json!({})).await;
    assert_eq!((status, &refusal["error_code"]), (403, &json!("session_not_found")));
    assert_eq!(renew(&renewed["refresh_token"]).await.0, 400);
    stack.stop().await.unwrap();
}
