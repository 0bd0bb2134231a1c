use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use secrecy::SecretString;
use serde_json::json;
use wiremock::{Mock, MockServer, Request, ResponseTemplate, matchers::method};

use super::*;
use crate::redaction::MASK;

const CLUSTER: Uuid = Uuid::nil();

/// A key of [`CLUSTER`], with this digit as its secret.
fn key(digit: char) -> String {
    format!("tdl_{}{}", "0".repeat(22), digit.to_string().repeat(43))
}

/// A JWT of a cluster; `number` makes it unique.
fn jwt(cluster: Uuid, number: usize) -> String {
    let claims =
        json!({"role": "tendril_agent", "cluster_id": cluster, "exp": 4_000_000_000_u64, "jti": number});
    format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims.to_string()))
}

/// A function that grants a new token of that life to every key but `z…`, and the number of its requests.
async fn function(life: u64) -> (MockServer, Arc<AtomicUsize>) {
    let (server, requests) = (MockServer::start().await, Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&requests);
    let answer = move |request: &Request| {
        let number = count.fetch_add(1, Ordering::SeqCst);
        if String::from_utf8_lossy(&request.body).contains("zzz") {
            return ResponseTemplate::new(401).set_body_json(json!({"code": "invalid_key", "message": "no"}));
        }
        let body = json!({"access_token": jwt(CLUSTER, number), "expires_in": life});
        ResponseTemplate::new(200).set_body_json(body).set_delay(Duration::from_millis(50))
    };
    Mock::given(method("POST")).respond_with(answer).mount(&server).await;
    (server, requests)
}

struct Fixture {
    session: Session,
    hidden: Redactor,
    health: Health,
}

fn fixture(credential: Credential, project: &str) -> Fixture {
    let (hidden, health) = (Redactor::default(), Health::default());
    let exchange = Exchange::new(project, &SecretString::from("sb_publishable_x"));
    let session = Session::new(credential, CLUSTER, exchange, hidden.clone(), health.clone());
    health.record_heartbeat();
    Fixture { session, hidden, health }
}

/// A token file that is replaced as an orchestrator does it.
struct TokenFile(tempfile::TempDir);

impl TokenFile {
    fn new(text: &str) -> Self {
        let file = Self(tempfile::tempdir().unwrap());
        file.put(text);
        file
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("token")
    }

    fn put(&self, text: &str) {
        let new = self.0.path().join("new");
        fs::write(&new, text).unwrap();
        fs::rename(Path::new(&new), self.path()).unwrap();
    }

    fn credential(&self) -> Credential {
        Credential::File(self.path())
    }
}

#[tokio::test]
async fn the_library_gets_the_new_token_once_the_file_is_replaced() {
    let file = TokenFile::new(&jwt(CLUSTER, 1));
    let Fixture { session, hidden, health } = fixture(file.credential(), "http://127.0.0.1:9");
    let one = session.token().await.unwrap();
    assert_eq!(session.token().await.unwrap(), one);
    file.put(&jwt(CLUSTER, 234));
    let two = session.token().await.unwrap();
    assert_ne!(two, one);
    assert_eq!(
        hidden.redact(&format!("{} {}", jwt(CLUSTER, 1), jwt(CLUSTER, 234))),
        format!("{MASK} {MASK}")
    );

    let stranger = Uuid::max();
    for (wrong, part) in [
        (jwt(stranger, 3), format!("is now of cluster {stranger}, and this agent serves {CLUSTER}")),
        (key('a')[..50].to_owned(), "cut off".to_owned()),
        (String::new(), "is empty".to_owned()),
    ] {
        file.put(&wrong);
        assert_eq!(session.token().await.unwrap(), two, "the last good one stays");
        let why = health.ready().unwrap_err();
        assert!(why.contains(&part), "{why}");
    }
    fs::remove_file(file.path()).unwrap();
    assert_eq!(session.token().await.unwrap(), two);
    assert!(health.ready().unwrap_err().contains("cannot be read"));
    file.put(&jwt(CLUSTER, 4));
    assert_ne!(session.token().await.unwrap(), two);
    assert_eq!(health.ready(), Ok(()));
}

#[tokio::test]
async fn who_asks_at_once_shares_one_exchange_and_later_ones_need_none() {
    let (server, requests) = function(900).await;
    let Fixture { session, hidden, .. } = fixture(Credential::Inline(key('a').into()), &server.uri());
    assert!(session.can_refresh(), "a key gives another token at any time");
    let tokens = futures_util::future::join_all((0..20).map(|_| session.token())).await;
    let first = tokens[0].as_ref().unwrap();
    assert!(tokens.iter().all(|token| token.as_ref().unwrap() == first));
    assert_eq!(session.token().await.unwrap(), *first);
    assert_eq!(requests.load(Ordering::SeqCst), 1);
    let both = format!("{} {}", key('a'), jwt(CLUSTER, 0));
    assert_eq!(hidden.redact(&both), format!("{MASK} {MASK}"));
    let shown = format!("{session:?}");
    assert!(!shown.contains("aaa") && !shown.contains("eyJ") && !shown.contains("sb_"), "{shown}");
}

#[tokio::test]
async fn a_new_key_is_exchanged_and_a_wrong_one_leaves_the_token_and_says_so() {
    let (server, requests) = function(900).await;
    let file = TokenFile::new(&key('a'));
    let Fixture { session, health, .. } = fixture(file.credential(), &server.uri());
    let old = session.token().await.unwrap();
    file.put(&format!("{}\n", key('z')));
    assert_eq!(session.token().await.unwrap(), old);
    session.inner.exchange().await;
    assert_eq!(session.token().await.unwrap(), old, "it is good for some minutes");
    assert!(health.ready().unwrap_err().contains("opens no cluster"));
    file.put(&key('b'));
    assert_eq!(session.token().await.unwrap(), old, "until the new one is there");
    session.inner.exchange().await;
    assert_ne!(session.token().await.unwrap(), old);
    assert_eq!((health.ready(), requests.load(Ordering::SeqCst)), (Ok(()), 3));
    session.inner.exchange().await;
    assert_eq!(requests.load(Ordering::SeqCst), 3, "nothing is due");
}

#[tokio::test]
async fn without_any_token_a_failure_is_said_to_all_and_not_repeated_for_each() {
    let (server, requests) = function(900).await;
    let Fixture { session, .. } = fixture(Credential::Inline(key('z').into()), &server.uri());
    let errors = futures_util::future::join_all((0..20).map(|_| session.token())).await;
    for error in errors {
        let error = error.unwrap_err();
        assert!(is_refusal(&error) && error.to_string().contains("opens no cluster"), "{error}");
    }
    // The pause is drawn from zero to seconds: a few may have come after it, twenty may not.
    assert!(requests.load(Ordering::SeqCst) < 10, "{requests:?}");
}

#[tokio::test]
async fn a_token_is_renewed_before_its_end_and_whoever_has_to_know_is_told() {
    let (server, requests) = function(2).await;
    let Fixture { session, .. } = fixture(Credential::Inline(key('a').into()), &server.uri());
    let mut seen = vec![session.token().await.unwrap()];
    let (renewed, mut renewals) = tokio::sync::mpsc::unbounded_channel();
    let keeper = tokio::spawn(session.clone().renew(move || renewed.send(()).unwrap()));
    while requests.load(Ordering::SeqCst) < 3 {
        tokio::time::timeout(Duration::from_secs(20), renewals.recv()).await.unwrap().unwrap();
        let token = session.token().await.unwrap();
        if seen.last() != Some(&token) {
            seen.push(token);
        }
    }
    assert!(seen.len() >= 3, "{}", seen.len());
    keeper.abort();
}

#[tokio::test]
async fn what_an_error_page_repeats_of_the_key_is_hidden() {
    let server = MockServer::start().await;
    let page = format!("cannot handle {{\"key\": \"{}\"}}", key('a'));
    Mock::given(method("POST"))
        .respond_with(ResponseTemplate::new(502).set_body_string(page))
        .mount(&server)
        .await;
    let Fixture { session, .. } = fixture(Credential::Inline(key('a').into()), &server.uri());
    let error = session.token().await.unwrap_err().to_string();
    assert!(error.contains("502") && error.contains(MASK) && !error.contains("aaa"), "{error}");
}
