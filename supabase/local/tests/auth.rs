//! Sign-up, sign-in, renewal and sign-out, as a client of Supabase does them.

#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "a test may fail")]

use serde_json::{Value, json};
use supabase_local::Stack;

#[path = "realtime/http.rs"]
mod http;

use http::send;

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
    let answer = send(stack, method, path, &headers, body.to_string().as_bytes()).await.expect("an answer");
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
    assert_eq!(
        code(
            call(&stack, "POST", signup, None, &json!({"email": "nowhere", "password": "correct horse"}))
                .await
        ),
        refused(400, "validation_failed")
    );
    let wrong = refused(400, "invalid_credentials");
    assert_eq!(code(sign_in(&stack, "ada@example.com", "battery staple").await), wrong);
    assert_eq!(code(sign_in(&stack, "nobody@example.com", "correct horse").await), wrong);
    let user = "/auth/v1/user";
    let bad = call(&stack, "GET", user, Some("nonsense"), &json!({})).await;
    assert_eq!(code(bad), refused(403, "bad_jwt"));
    let no_subject = call(&stack, "GET", user, None, &json!({})).await;
    assert_eq!(code(no_subject), refused(403, "bad_jwt"));
    let foreign = stack.mint_user("99999999-9999-4999-8999-999999999999");
    let unknown = call(&stack, "GET", user, Some(&foreign), &json!({})).await;
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

#[tokio::test]
async fn a_user_changes_address_password_and_metadata() {
    let stack = stack().await;
    let session = sign_up(&stack, "ada@example.com").await;
    let token = session["access_token"].as_str().unwrap();
    let change = json!({"email": "Ada@lovelace.example", "password": "analytical", "data": {"name": null, "born": 1815}});
    let (status, user) = call(&stack, "PUT", "/auth/v1/user", Some(token), &change).await;
    assert_eq!(status, 200, "{user}");
    assert_eq!(user["email"], "ada@lovelace.example");
    assert_eq!(user["user_metadata"], json!({"born": 1815}));
    assert_eq!(sign_in(&stack, "ada@lovelace.example", "analytical").await.0, 200);
    assert_eq!(sign_in(&stack, "ada@lovelace.example", "correct horse").await.0, 400);
    sign_up(&stack, "bob@example.com").await;
    let of_bob = json!({"email": "bob@example.com"});
    let (status, refusal) = call(&stack, "PUT", "/auth/v1/user", Some(token), &of_bob).await;
    assert_eq!((status, &refusal["error_code"]), (422, &json!("user_already_exists")));
    stack.stop().await.unwrap();
}

#[tokio::test]
async fn an_anonymous_user_may_become_somebody() {
    let stack = stack().await;
    let (status, session) =
        call(&stack, "POST", "/auth/v1/signup", None, &json!({"data": {"theme": "dark"}})).await;
    assert_eq!(status, 200, "{session}");
    assert_eq!(session["user"]["is_anonymous"], true);
    let token = session["access_token"].as_str().unwrap();
    let (status, _) = call(&stack, "POST", "/rest/v1/notes", Some(token), &json!({"body": "mine"})).await;
    assert_eq!(status, 201);
    let change = json!({"email": "ada@example.com", "password": "correct horse"});
    let (_, user) = call(&stack, "PUT", "/auth/v1/user", Some(token), &change).await;
    assert_eq!((&user["is_anonymous"], &user["id"]), (&json!(false), &session["user"]["id"]));
    assert_eq!(sign_in(&stack, "ada@example.com", "correct horse").await.0, 200);
    stack.stop().await.unwrap();
}

#[tokio::test]
async fn an_administrator_makes_lists_changes_and_removes_users_and_nobody_else_does() {
    let stack = stack().await;
    let service = stack.keys().service_role().to_owned();
    let users = "/auth/v1/admin/users";
    let ada = json!({"email": "ada@example.com", "password": "correct horse", "app_metadata": {"team": "a"}});
    let (status, made) = call(&stack, "POST", users, Some(&service), &ada).await;
    assert_eq!((status, &made["app_metadata"]["team"]), (200, &json!("a")), "{made}");
    let (_, listed) = call(&stack, "GET", users, Some(&service), &json!({})).await;
    assert_eq!(listed["users"].as_array().unwrap().len(), 1);
    let one = format!("{users}/{}", made["id"].as_str().unwrap());
    let (_, changed) =
        call(&stack, "PUT", &one, Some(&service), &json!({"app_metadata": {"team": "b"}})).await;
    assert_eq!(changed["app_metadata"]["team"], "b");
    assert_eq!(changed["app_metadata"]["provider"], "email");
    let (_, session) = sign_in(&stack, "ada@example.com", "correct horse").await;
    for (method, path) in [("GET", users), ("POST", users), ("DELETE", one.as_str())] {
        for token in [session["access_token"].as_str().unwrap(), stack.anon_key()] {
            let (status, refusal) = call(&stack, method, path, Some(token), &ada).await;
            assert_eq!((status, &refusal["error_code"]), (403, &json!("not_admin")));
        }
    }
    assert_eq!(call(&stack, "DELETE", &one, Some(&service), &json!({})).await, (200, json!({})));
    assert_eq!(call(&stack, "GET", &one, Some(&service), &json!({})).await.1["error_code"], "user_not_found");
    stack.stop().await.unwrap();
}

#[tokio::test]
async fn what_is_not_here_is_said() {
    let stack = stack().await;
    let (status, refusal) = call(&stack, "POST", "/auth/v1/otp", None, &json!({"email": "a@b.c"})).await;
    assert_eq!((status, &refusal["error_code"]), (404, &json!("not_found")));
    assert!(refusal["msg"].as_str().unwrap().contains("supabase-local has no /otp"), "{refusal}");
    stack.stop().await.unwrap();
}
