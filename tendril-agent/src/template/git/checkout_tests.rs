//! The real Git against servers that are no good. What it fetches from good ones is proved end to end, elsewhere.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::json;
use wiremock::{
    Mock, MockServer, ResponseTemplate,
    matchers::{any, path_regex},
};

use super::*;
use crate::{
    job::{Job, source::Source},
    process::{LocalRunner, StopReason, StopSignal},
    template::git::{GitSettings, Written, root},
};

const TOKEN: &str = "ghs_TheTokenThatNobodyMaySee";

struct Fixture {
    dir: tempfile::TempDir,
    server: MockServer,
    stop: StopSignal,
    secrets: Redactor,
}

/// How a fetch went: the failure, or that it was stopped.
type Went = Result<Checkout, Option<Failure>>;

impl Fixture {
    async fn new() -> Self {
        let (dir, server) = (tempfile::tempdir().unwrap(), MockServer::start().await);
        Self { dir, server, stop: StopSignal::default(), secrets: Redactor::default() }
    }

    async fn answering(answer: ResponseTemplate) -> Self {
        let fixture = Self::new().await;
        Mock::given(any()).respond_with(answer).mount(&fixture.server).await;
        fixture
    }

    fn settings(&self, token: Option<&str>) -> GitSettings {
        let host = self.server.address().to_string();
        let hosts = format!("{host},127.0.0.1:9,no-such-host.invalid");
        GitSettings::read(&Written { hosts: Some(&hosts), token, ..Written::default() }).unwrap()
    }

    async fn fetch(&self, git: &str, timeout: Duration, token: Option<&str>) -> Went {
        let settings = self.settings(token);
        let root = root(self.dir.path());
        let console =
            Console { settings: &settings, runner: &LocalRunner, stop: &self.stop, timeout, root: &root };
        let config = json!({"source": {"git": git, "ref": "v1", "path": "net"}});
        let Source::Git(source) = Source::parse(config.as_object().unwrap()).unwrap() else { panic!() };
        let job = Job {
            id: uuid::Uuid::nil(),
            attempt: 1,
            claim_token: uuid::Uuid::nil(),
            config: config.into(),
            state_key: None,
        };
        let workspace = Workspace::create(self.dir.path(), &job).unwrap();
        console.check_out(&source, &workspace, &self.secrets).await
    }

    async fn refusal(&self, token: Option<&str>) -> (ErrorCode, String) {
        let git = format!("{}/acme/infra", self.server.uri());
        refused(self.fetch(&git, Duration::from_secs(30), token).await)
    }
}

fn refused(went: Went) -> (ErrorCode, String) {
    let failure = went.unwrap_err().expect("it was not stopped");
    assert!(!failure.message.contains('\n') && !failure.message.contains(TOKEN), "{}", failure.message);
    (failure.code, failure.message)
}

/// Every file below a directory.
fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok).map(|entry| entry.path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

#[tokio::test]
async fn each_bad_answer_is_one_sentence() {
    for (status, token, part) in [
        (401, None, "requires a login"),
        (401, Some(TOKEN), "does not take the agent's token"),
        (403, Some(TOKEN), "is forbidden to the agent's token"),
        (404, Some(TOKEN), "was not found, or the agent's token may not see it"),
        (302, Some(TOKEN), "redirects to another address, which is not followed"),
    ] {
        let answer = ResponseTemplate::new(status)
            .insert_header("WWW-Authenticate", "Basic realm=\"git\"")
            .insert_header("Location", "http://127.0.0.1:9/elsewhere");
        let fixture = Fixture::answering(answer).await;
        let (code, output) = fixture.refusal(token).await;
        assert_eq!(code, ErrorCode::SourceInvalid, "{output}");
        assert!(output.contains(part), "{status}: {output}");
    }
    let fixture =
        Fixture::answering(ResponseTemplate::new(200).set_body_string("<html>Welcome</html>")).await;
    let (_, output) = fixture.refusal(None).await;
    assert!(output.contains("is no Git repository") || output.contains("no branch or tag"), "{output}");
}

#[tokio::test]
async fn a_server_that_is_away_or_busy_is_tried_again_and_then_said() {
    let fixture = Fixture::answering(ResponseTemplate::new(503)).await;
    let ((code, output), away, unknown, untrusted) = tokio::join!(
        fixture.refusal(None),
        fixture.fetch("http://127.0.0.1:9/acme/infra", Duration::from_secs(30), None),
        fixture.fetch("https://no-such-host.invalid/acme/infra", Duration::from_secs(30), None),
        async {
            let git = format!("https://{}/acme/infra", fixture.server.address());
            fixture.fetch(&git, Duration::from_secs(30), None).await
        },
    );
    assert!(code == ErrorCode::SourceUnavailable && output.contains("cannot serve now"), "{output}");
    let requests = fixture.server.received_requests().await.unwrap();
    assert!(requests.len() > PAUSES.len(), "it was tried again: {requests:?}");
    for went in [away, unknown] {
        let (code, output) = refused(went);
        assert!(code == ErrorCode::SourceUnavailable && output.contains("cannot be reached"), "{output}");
    }
    let (code, output) = refused(untrusted);
    assert!(code == ErrorCode::SourceInvalid && output.contains("cannot be trusted"), "{output}");
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_given_up_and_a_cancel_does_not_wait_for_it() {
    let hour = Duration::from_secs(3600);
    let fixture = Fixture::answering(ResponseTemplate::new(200).set_delay(hour)).await;
    let git = format!("{}/acme/infra", fixture.server.uri());
    let (code, output) = refused(fixture.fetch(&git, Duration::from_millis(300), None).await);
    assert!(code == ErrorCode::SourceUnavailable && output.contains("did not answer in 300ms"), "{output}");
    // On a busy machine git may end before it sends its first request.
    let before = fixture.server.received_requests().await.unwrap().len();
    let cancel = async {
        while fixture.server.received_requests().await.unwrap().len() == before {
            sleep(Duration::from_millis(5)).await;
        }
        fixture.stop.request(StopReason::Cancelled);
    };
    let (went, ()) = tokio::join!(fixture.fetch(&git, hour, None), cancel);
    assert_eq!(went, Err(None));
}

#[tokio::test]
async fn a_host_that_is_not_allowed_is_never_asked() {
    let fixture = Fixture::answering(ResponseTemplate::new(200)).await;
    let other = format!("http://localhost:{}/acme/infra", fixture.server.address().port());
    let (code, output) = refused(fixture.fetch(&other, Duration::from_secs(30), Some(TOKEN)).await);
    assert_eq!(code, ErrorCode::ConfigInvalid);
    assert!(
        output.contains("config_snapshot.source.git: localhost:") && output.contains("TENDRIL_GIT_HOSTS"),
        "{output}"
    );
    assert!(fixture.server.received_requests().await.unwrap().is_empty());
}

#[tokio::test]
async fn an_address_that_redirects_is_tried_with_git_at_its_end() {
    let fixture = Fixture::new().await;
    let elsewhere =
        ResponseTemplate::new(301).insert_header("Location", "http://127.0.0.1:9/acme/infra.git/info/refs");
    Mock::given(path_regex("^/acme/infra/")).respond_with(elsewhere).mount(&fixture.server).await;
    Mock::given(path_regex("^/acme/infra.git/"))
        .respond_with(ResponseTemplate::new(403))
        .mount(&fixture.server)
        .await;
    let (_, output) = fixture.refusal(None).await;
    assert!(output.contains("is forbidden"), "{output}");
}

#[tokio::test]
async fn a_token_is_given_once_it_is_asked_for_and_kept_in_no_file() {
    let answer = ResponseTemplate::new(401).insert_header("WWW-Authenticate", "Basic realm=\"git\"");
    let fixture = Fixture::answering(answer).await;
    fixture.refusal(Some(TOKEN)).await;
    let requests = fixture.server.received_requests().await.unwrap();
    let logins: Vec<bool> =
        requests.iter().map(|request| request.headers.contains_key("authorization")).collect();
    assert_eq!(logins, [false, true]);
    assert_eq!(fixture.secrets.redact(TOKEN), crate::redaction::MASK, "no log shows it");
    let stored = files(fixture.dir.path());
    assert!(stored.iter().any(|file| file.ends_with("git/askpass")), "{stored:?}");
    for file in stored {
        assert!(!String::from_utf8_lossy(&fs::read(&file).unwrap()).contains(TOKEN), "{}", file.display());
    }
}

#[test]
fn only_an_address_without_git_at_its_end_gets_it() {
    let longer = |address: &str| with_suffix(&address.parse().unwrap()).map(String::from);
    assert_eq!(longer("https://h.example/a/b/"), Some("https://h.example/a/b.git".to_owned()));
    assert_eq!(longer("https://h.example/a/b.git"), None);
    assert_eq!(longer("https://h.example/a/b.git/"), None);
}
