//! Who the agent is: the machine token, where it comes from, and what it says.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::SystemTime,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use tendril_realtime::{AccessToken, Error, TokenFuture, TokenSource};
use uuid::Uuid;

use crate::{redact::Redactor, series};

/// Where the machine token comes from.
#[derive(Clone)]
pub enum Credential {
    /// Given once, at start.
    Inline(SecretString),
    /// A file that may be replaced while the agent runs.
    File(PathBuf),
}

impl Credential {
    /// One of the two, and not both.
    pub(crate) fn from_values(inline: Option<&str>, file: Option<&str>) -> Result<Self, String> {
        match (inline, file) {
            (Some(token), None) => Ok(Self::Inline(SecretString::from(token))),
            (None, Some(path)) => Ok(Self::File(PathBuf::from(path))),
            (None, None) => {
                Err("TENDRIL_AGENT_TOKEN or TENDRIL_AGENT_TOKEN_FILE (--agent-token-file) is not set: \
                                 give the machine token of this cluster"
                    .to_owned())
            }
            (Some(_), Some(_)) => {
                Err("TENDRIL_AGENT_TOKEN and TENDRIL_AGENT_TOKEN_FILE are both set: keep one of them"
                    .to_owned())
            }
        }
    }

    /// The token as it is now.
    pub(crate) fn read(&self) -> Result<SecretString, String> {
        match self {
            Self::Inline(token) => Ok(token.clone()),
            Self::File(path) => read_file(path),
        }
    }

    /// How to call it in a sentence.
    fn name(&self) -> String {
        match self {
            Self::Inline(_) => "TENDRIL_AGENT_TOKEN".to_owned(),
            Self::File(path) => format!("the token file {}", path.display()),
        }
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inline(_) => f.write_str("Inline([hidden])"),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
        }
    }
}

fn read_file(path: &Path) -> Result<SecretString, String> {
    let shown = path.display();
    let text = fs::read_to_string(path).map_err(|error| {
        format!("TENDRIL_AGENT_TOKEN_FILE (--agent-token-file) {shown} cannot be read ({error})")
    })?;
    let token = text.trim();
    if token.is_empty() {
        return Err(format!(
            "TENDRIL_AGENT_TOKEN_FILE (--agent-token-file) {shown} is empty: write the token into it"
        ));
    }
    Ok(SecretString::from(token))
}

/// Gives the library the machine token: as it was at start, or as the file holds it now.
#[derive(Debug)]
pub(crate) struct Session {
    credential: Credential,
    /// The token that was read last, and the file's stamp at that time.
    last: Mutex<Option<(Stamp, AccessToken)>>,
    /// What no log may show.
    hidden: Redactor,
}

/// What changes when a file is replaced. A mounted secret is replaced by moving a link; its target has another time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    modified: Option<SystemTime>,
    length: u64,
}

impl Session {
    /// Over a credential that was read once already. `hidden` learns every token that is read.
    pub(crate) fn new(credential: Credential, hidden: Redactor) -> Self {
        let session = Self { credential, last: Mutex::default(), hidden };
        // No job may run before its log knows the token; what is wrong with it is said when it is used.
        let _read_again = session.current();
        session
    }

    fn current(&self) -> Result<AccessToken, String> {
        let stamp = match &self.credential {
            Credential::Inline(_) => Stamp { modified: None, length: 0 },
            Credential::File(path) => stamp(path),
        };
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, token)) = last.as_ref().filter(|(seen, _)| *seen == stamp) {
            return Ok(token.clone());
        }
        let text = self.credential.read()?;
        self.hidden.hide([text.expose_secret().to_owned()]);
        let token = AccessToken::new(text.expose_secret()).map_err(|error| error.to_string())?;
        if last.replace((stamp, token.clone())).is_some() {
            metrics::counter!(series::TOKENS_READ).increment(1);
            tracing::info!("the token file has changed: the new token is used from now on");
        }
        Ok(token)
    }
}

impl TokenSource for Session {
    fn token(&self) -> TokenFuture<'_> {
        Box::pin(std::future::ready(self.current().map_err(Error::token)))
    }

    fn can_refresh(&self) -> bool {
        matches!(self.credential, Credential::File(_))
    }
}

/// A file that cannot be looked at has a stamp too; reading it then says why.
fn stamp(path: &Path) -> Stamp {
    let meta = fs::metadata(path).ok();
    let modified = meta.as_ref().and_then(|meta| meta.modified().ok());
    Stamp { modified, length: meta.map_or(0, |meta| meta.len()) }
}

/// What a machine token says about itself. Only the servers can verify it; the agent reads it to give good advice early.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MachineToken {
    /// The database role that the servers will take.
    pub(crate) role: String,
    /// The cluster that this agent serves.
    pub(crate) cluster_id: Uuid,
    /// When it stops being accepted.
    pub(crate) expires_at: Timestamp,
}

/// The claims, before they are checked.
#[derive(Deserialize)]
struct Claims {
    role: Option<String>,
    cluster_id: Option<String>,
    exp: Option<f64>,
}

impl MachineToken {
    /// Reads the credential and what the token says.
    pub(crate) fn read_from(credential: &Credential) -> Result<Self, String> {
        let token = credential.read()?;
        Self::parse(token.expose_secret(), Timestamp::now())
            .map_err(|problem| format!("{}: {problem}", credential.name()))
    }

    /// Reads a token, and refuses one that no server will take.
    pub(crate) fn parse(token: &str, now: Timestamp) -> Result<Self, String> {
        const ASK: &str = "ask for a new machine token of this cluster";
        let claims = claims_of(token).ok_or_else(|| {
            format!("the machine token is malformed, it is not a JWT (header.payload.signature): {ASK}")
        })?;
        let role = claims.role.ok_or_else(|| format!("the machine token has no \"role\" claim: {ASK}"))?;
        if matches!(role.as_str(), "service_role" | "supabase_admin" | "postgres" | "anon") {
            return Err(format!(
                "the machine token has the role \"{role}\", which is no role for an agent: {ASK}, with the role tendril_agent"
            ));
        }
        let cluster_id = claims
            .cluster_id
            .ok_or_else(|| format!("the machine token has no \"cluster_id\" claim: {ASK}"))?;
        let cluster_id = Uuid::parse_str(&cluster_id)
            .map_err(|_| format!("the \"cluster_id\" of the machine token is not a UUID: {ASK}"))?;
        #[expect(clippy::cast_possible_truncation, reason = "whole seconds are all that is wanted")]
        let expires_at = claims
            .exp
            .and_then(|exp| Timestamp::from_second(exp as i64).ok())
            .ok_or_else(|| format!("the machine token has no \"exp\" claim that is a time: {ASK}"))?;
        if expires_at <= now {
            return Err(format!(
                "the machine token expired at {expires_at} (it is {} now; check the machine's clock): {ASK}",
                now.round(jiff::Unit::Second).unwrap_or(now)
            ));
        }
        Ok(Self { role, cluster_id, expires_at })
    }

    /// The `role` claim of any JWT.
    pub(crate) fn role_of(token: &str) -> Option<String> {
        claims_of(token)?.role
    }
}

fn claims_of(token: &str) -> Option<Claims> {
    let mut parts = token.split('.');
    let (Some(_header), Some(payload), Some(_signature), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return None;
    };
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn jwt(claims: &Value) -> String {
        format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims.to_string()))
    }

    fn now() -> Timestamp {
        Timestamp::from_second(1_800_000_000).unwrap()
    }

    fn refusal(claims: &Value) -> String {
        MachineToken::parse(&jwt(claims), now()).unwrap_err()
    }

    #[test]
    fn a_good_token_names_its_cluster() {
        let id = "11111111-2222-4333-8444-555555555555";
        let token = jwt(&json!({"role": "tendril_agent", "cluster_id": id, "exp": 1_800_000_060}));
        let token = MachineToken::parse(&token, now()).unwrap();
        assert_eq!(token.cluster_id.to_string(), id);
        assert_eq!(token.role, "tendril_agent");
    }

    #[test]
    fn each_refusal_says_what_is_wrong() {
        let id = "11111111-2222-4333-8444-555555555555";
        for (claims, part) in [
            (json!({"cluster_id": id, "exp": 1_900_000_000}), "no \"role\""),
            (json!({"role": "tendril_agent", "exp": 1_900_000_000}), "no \"cluster_id\""),
            (json!({"role": "tendril_agent", "cluster_id": "c1", "exp": 1_900_000_000}), "not a UUID"),
            (json!({"role": "tendril_agent", "cluster_id": id}), "no \"exp\""),
            (
                json!({"role": "tendril_agent", "cluster_id": id, "exp": 1_700_000_000}),
                "expired at 2023-11-14",
            ),
            (json!({"role": "service_role", "cluster_id": id, "exp": 1_900_000_000}), "\"service_role\""),
        ] {
            let said = refusal(&claims);
            assert!(said.contains(part), "{said}");
        }
        for text in ["", "abc", "a.b.c", "a.b", "a.b.c.d"] {
            let said = MachineToken::parse(text, now()).unwrap_err();
            assert!(said.contains("malformed"), "{said}");
        }
    }

    #[test]
    fn a_credential_is_one_of_two_and_hides_itself() {
        assert!(Credential::from_values(None, None).unwrap_err().contains("not set"));
        assert!(Credential::from_values(Some("a"), Some("b")).unwrap_err().contains("both set"));
        let debug = format!("{:?}", Credential::from_values(Some("s3cret"), None).unwrap());
        assert!(!debug.contains("s3cret"), "{debug}");
    }

    #[test]
    fn a_token_file_is_read_as_it_is_now() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let credential = Credential::from_values(None, file.path().to_str()).unwrap();
        assert!(credential.read().unwrap_err().contains("is empty"));
        fs::write(file.path(), "one\n").unwrap();
        assert_eq!(credential.read().unwrap().expose_secret(), "one");
        fs::write(file.path(), "two\n").unwrap();
        assert_eq!(credential.read().unwrap().expose_secret(), "two");
    }

    #[tokio::test]
    async fn the_library_gets_the_new_token_once_the_file_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        fs::write(&path, "one").unwrap();
        let hidden = Redactor::default();
        let session = Session::new(Credential::File(path.clone()), hidden.clone());
        let one = session.token().await.unwrap();
        assert_eq!(session.token().await.unwrap(), one);
        fs::write(dir.path().join("new"), "three").unwrap();
        fs::rename(dir.path().join("new"), &path).unwrap();
        assert_ne!(session.token().await.unwrap(), one);
        let mask = crate::redact::MASK;
        assert_eq!(hidden.redact("one three"), format!("one {mask}"));
        fs::remove_file(&path).unwrap();
        assert!(session.token().await.unwrap_err().to_string().contains("cannot be read"));
    }
}
