//! Supabase Auth over HTTP: sign in with a password, renew, sign out.

use std::time::{Duration, SystemTime};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use reqwest::{Client, RequestBuilder, StatusCode};
use serde::Deserialize;
use serde_json::json;
use url::Url;
use zeroize::Zeroizing;

use super::{Session, User, profile::Profile, seconds};
use crate::failure::{Failure, FailureKind, Result};

/// How long one exchange may take.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The Auth interface of one project.
#[derive(Debug, Clone)]
pub struct Auth {
    http: Client,
    base: Url,
    key: String,
}

/// What Auth answers to a sign-in.
#[derive(Deserialize)]
struct Grant {
    access_token: String,
    refresh_token: String,
    #[serde(default = "an_hour")]
    expires_in: u64,
    user: User,
}

fn an_hour() -> u64 {
    3600
}

/// What Auth answers otherwise; a gateway before it has messages of its own.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Refusal {
    error_code: String,
    msg: String,
    message: String,
    error: String,
    error_description: String,
}

impl Refusal {
    fn details(&self) -> String {
        let details = [&self.msg, &self.error_description, &self.message, &self.error];
        details.into_iter().find(|text| !text.is_empty()).cloned().unwrap_or_default()
    }
}

impl Auth {
    /// Describes the project; nothing is sent.
    ///
    /// # Errors
    /// A URL that is none.
    pub fn new(profile: &Profile) -> Result<Self> {
        let base = project_url(&profile.url)?;
        let http = Client::builder()
            .user_agent(concat!("grape/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(Duration::from_secs(10))
            .timeout(TIMEOUT)
            .build()
            .map_err(|error| {
                Failure::new(FailureKind::Unexpected, "TLS cannot be set up on this machine").caused_by(error)
            })?;
        Ok(Self { http, base, key: profile.key.clone() })
    }

    /// Signs in.
    ///
    /// # Errors
    /// A wrong password, a wrong key, no network.
    pub async fn sign_in(&self, email: &str, password: &str) -> Result<Session> {
        let body = json!({ "email": email, "password": password });
        let request = self.http.post(self.at("token?grant_type=password")).json_body(&body);
        self.grant(request).await
    }

    /// The next session; the refresh token is used up.
    ///
    /// # Errors
    /// [`FailureKind::NotSignedIn`] when the session has ended; no network.
    pub async fn renew(&self, session: &Session) -> Result<Session> {
        let body = json!({ "refresh_token": *session.refresh_token });
        let request = self.http.post(self.at("token?grant_type=refresh_token")).json_body(&body);
        self.grant(request).await
    }

    /// Ends the session on the server.
    ///
    /// # Errors
    /// No network. A session that has ended already is no error.
    pub async fn sign_out(&self, session: &Session) -> Result<()> {
        let request = self.http.post(self.at("logout?scope=local")).bearer_auth(&*session.access_token);
        match self.send(request).await {
            Err(failure) if failure.kind() == FailureKind::NotSignedIn => Ok(()),
            other => other.map(drop),
        }
    }

    /// Whose token that is, as the server sees it.
    ///
    /// # Errors
    /// A token that is not accepted; no network.
    pub async fn user(&self, token: &str) -> Result<User> {
        let answer = self.send(self.http.get(self.at("user")).bearer_auth(token)).await?;
        serde_json::from_slice(&answer).map_err(unexpected)
    }

    async fn grant(&self, request: RequestBuilder) -> Result<Session> {
        let answer = self.send(request).await?;
        let grant: Grant = serde_json::from_slice(&answer).map_err(unexpected)?;
        let now = seconds(SystemTime::now());
        Ok(Session {
            access_token: grant.access_token.into(),
            refresh_token: grant.refresh_token.into(),
            received_at: now,
            expires_at: now.saturating_add(grant.expires_in),
            user: grant.user,
        })
    }

    async fn send(&self, request: RequestBuilder) -> Result<Zeroizing<Vec<u8>>> {
        let exchange = async {
            let answer = request.header("apikey", &self.key).send().await?;
            let status = answer.status();
            Ok((status, answer.bytes().await?))
        };
        let (status, body) = exchange.await.map_err(|error: reqwest::Error| self.unreachable(error))?;
        if status.is_success() {
            return Ok(Zeroizing::new(body.to_vec()));
        }
        Err(self.refused(status, &serde_json::from_slice(&body).unwrap_or_default()))
    }

    fn unreachable(&self, error: reqwest::Error) -> Failure {
        let host = self.base.host_str().unwrap_or_default();
        let error = error.without_url();
        let why = if error.is_timeout() { "it did not answer in time".to_owned() } else { innermost(&error) };
        Failure::new(FailureKind::Unreachable, format!("The project at {host} cannot be reached: {why}."))
            .next("Check the network, a proxy (HTTPS_PROXY), and the project's URL.")
            .caused_by(error)
    }

    fn refused(&self, status: StatusCode, refusal: &Refusal) -> Failure {
        let details = refusal.details();
        let host = self.base.host_str().unwrap_or_default();
        match (status.as_u16(), refusal.error_code.as_str()) {
            (_, "invalid_credentials") => {
                Failure::new(FailureKind::NotSignedIn, "The email address or the password is wrong.")
                    .next("Try again: `grape login`. A forgotten password is reset in the portal.")
            }
            (_, "email_not_confirmed") => {
                Failure::new(FailureKind::NotSignedIn, "The email address is not confirmed yet.")
                    .next("Open the link in the mail that you got, then `grape login`.")
            }
            (
                _,
                "refresh_token_not_found"
                | "refresh_token_already_used"
                | "session_not_found"
                | "session_expired"
                | "bad_jwt"
                | "user_not_found"
                | "no_authorization"
                | "user_banned",
            ) => Failure::new(FailureKind::NotSignedIn, "The session has ended.")
                .next("Sign in again: `grape login`."),
            (429, _) => Failure::new(FailureKind::Refused, "Too many attempts to sign in.")
                .next("Wait a minute, then try again."),
            (401, _) => Failure::new(
                FailureKind::NotSignedIn,
                format!("The project at {host} refuses the key: {details}"),
            )
            .next(
                "Copy the publishable key from the project's settings, and give it with `grape login --key`.",
            ),
            (404, _) => {
                Failure::new(FailureKind::NotFound, format!("There is no Supabase project at {host}."))
                    .next("The URL is the project's base, such as https://abcd.supabase.co.")
            }
            (500..=599, _) => Failure::new(
                FailureKind::Unreachable,
                format!("The project at {host} has a fault: HTTP {status} {details}"),
            )
            .next("A paused project is resumed in its dashboard. Otherwise try again in a minute."),
            _ => {
                Failure::new(FailureKind::Refused, format!("The project refuses it: HTTP {status} {details}"))
            }
        }
    }

    fn at(&self, path: &str) -> String {
        format!("{}/auth/v1/{path}", self.base.as_str().trim_end_matches('/'))
    }
}

/// A project's base URL, checked.
///
/// # Errors
/// A sentence with an example.
pub fn project_url(text: &str) -> Result<Url> {
    let wrong = |why: String| {
        Failure::new(FailureKind::Usage, format!("`{text}` is not the URL of a project: {why}."))
            .next("Write it as in the project's settings: https://abcd.supabase.co")
    };
    let url = Url::parse(text.trim()).map_err(|error| wrong(error.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) {
        return Err(wrong("it does not begin with https:// and a host".to_owned()));
    }
    if !url.username().is_empty() || url.password().is_some() {
        let failure = "The URL holds a user name or a password, which have no place there.";
        return Err(
            Failure::new(FailureKind::Usage, failure).next("Give the URL alone: https://abcd.supabase.co")
        );
    }
    Ok(url)
}

/// Refuses keys that must not leave a server.
///
/// # Errors
/// A sentence for people that does not repeat the key.
pub fn checked_key(key: &str) -> Result<String, String> {
    let key = key.trim();
    let role = || -> Option<String> {
        #[derive(Deserialize)]
        struct Claims {
            role: String,
        }
        let payload = key.split('.').nth(1)?;
        let json = URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).ok()?;
        serde_json::from_slice::<Claims>(&json).ok().map(|claims| claims.role)
    };
    if key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
        Err("the publishable key is empty, or has white space in it: copy it again, whole".to_owned())
    } else if key.starts_with("sb_secret_") || role().as_deref() == Some("service_role") {
        Err("that is a secret key, which must stay on servers: give the publishable (or anon) key, and roll the secret one"
            .to_owned())
    } else {
        Ok(key.to_owned())
    }
}

fn unexpected(error: serde_json::Error) -> Failure {
    // The answer holds tokens: its text is not repeated.
    Failure::new(
        FailureKind::Unexpected,
        "The answer of Auth cannot be read: this is not a Supabase project, or a newer one.",
    )
    .caused_by(error)
}

/// The cause at the end of the chain, which is the most specific.
fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}

/// `reqwest` is built without its JSON feature.
trait JsonBody {
    fn json_body(self, body: &serde_json::Value) -> Self;
}

impl JsonBody for RequestBuilder {
    fn json_body(self, body: &serde_json::Value) -> Self {
        self.header("content-type", "application/json").body(body.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_key_is_refused_and_not_repeated() {
        let service = format!("e30.{}.sig", "eyJyb2xlIjoic2VydmljZV9yb2xlIn0");
        for key in ["sb_secret_abc", &service] {
            let problem = checked_key(key).unwrap_err();
            assert!(problem.contains("secret key") && !problem.contains(key), "{problem}");
        }
        let anon = format!("e30.{}.sig", "eyJyb2xlIjoiYW5vbiJ9");
        assert_eq!(checked_key(&format!(" {anon}\n")), Ok(anon));
        assert!(checked_key("").is_err() && checked_key("a b").is_err());
        assert_eq!(checked_key("sb_publishable_x"), Ok("sb_publishable_x".to_owned()));
    }

    #[test]
    fn what_is_no_url_of_a_project_is_explained() {
        for text in ["", "abcd.supabase.co", "ftp://a", "postgres://a/b", "https://"] {
            assert_eq!(project_url(text).unwrap_err().kind(), FailureKind::Usage, "{text}");
        }
        let failure = project_url("https://me:s3cret@a.co").unwrap_err();
        assert!(!failure.to_string().contains("s3cret"));
        assert!(project_url("http://127.0.0.1:54321/").is_ok());
    }
}
