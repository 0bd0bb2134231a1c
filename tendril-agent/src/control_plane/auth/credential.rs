//! The one secret that the agent was given, and where it is stored.

use std::{
    fmt, fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::SystemTime,
};

use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use uuid::Uuid;

use super::{cluster_key::ClusterKey, machine_token::MachineToken};

/// Where the agent's secret comes from: the API key of its cluster, or a machine token.
#[derive(Clone)]
pub enum Credential {
    /// Given once, at start.
    Inline(SecretString),
    /// A file that may be replaced while the agent runs.
    File(PathBuf),
    /// The claim of one deployment: of an executor, whose token reaches that deployment only.
    Claim(Claim),
}

/// What is exchanged for the token of one deployment.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// The cluster of the deployment.
    pub(crate) cluster_id: Uuid,
    pub(crate) deployment_id: Uuid,
    /// `deployments.claim_token`.
    pub(crate) token: Uuid,
}

/// What a credential holds, read and checked as far as that goes without a server.
pub(super) enum Held {
    /// To be exchanged for machine tokens.
    Exchanged(Exchangeable),
    /// To be used as it is.
    Token(SecretString, MachineToken),
}

/// What changes when a file is replaced. A mounted secret is replaced by moving a link; its target has another time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    modified: Option<SystemTime>,
    /// Keys are all of one length, and some file systems count time in seconds.
    inode: Option<u64>,
    length: u64,
}

impl Held {
    /// The cluster that it is of.
    pub(super) fn cluster_id(&self) -> Uuid {
        match self {
            Self::Exchanged(shown) => shown.cluster_id(),
            Self::Token(_, claims) => claims.cluster_id,
        }
    }
}

impl Credential {
    /// One of the two, and not both.
    pub(crate) fn from_values(inline: Option<&str>, file: Option<&str>) -> Result<Self, String> {
        match (inline, file) {
            (Some(token), None) => Ok(Self::Inline(SecretString::from(token))),
            (None, Some(path)) => Ok(Self::File(PathBuf::from(path))),
            (None, None) => {
                Err("TENDRIL_AGENT_TOKEN or TENDRIL_AGENT_TOKEN_FILE (--agent-token-file) is not set: \
                                 give the API key (tdl_…) or a machine token of this cluster"
                    .to_owned())
            }
            (Some(_), Some(_)) => {
                Err("TENDRIL_AGENT_TOKEN and TENDRIL_AGENT_TOKEN_FILE are both set: remove one of them"
                    .to_owned())
            }
        }
    }

    /// The cluster that it is of. Errors: it cannot be read, or no server would take it.
    pub(crate) fn cluster_id(&self) -> Result<Uuid, String> {
        Ok(self.held_in(&self.read()?)?.cluster_id())
    }

    /// What its text is. Errors: a sentence about the mistake in it.
    pub(super) fn held_in(&self, text: &SecretString) -> Result<Held, String> {
        let held = if let Self::Claim(claim) = self {
            Ok(Held::Exchanged(Exchangeable::Claim(*claim)))
        } else if ClusterKey::is_meant(text.expose_secret()) {
            ClusterKey::parse(text.expose_secret()).map(|key| Held::Exchanged(Exchangeable::Key(key)))
        } else {
            MachineToken::parse(text.expose_secret(), Timestamp::now())
                .map(|claims| Held::Token(text.clone(), claims))
        };
        held.map_err(|problem| format!("{}: {problem}", self.name()))
    }

    /// Its text as it is now.
    pub(super) fn read(&self) -> Result<SecretString, String> {
        match self {
            Self::Inline(token) => Ok(token.clone()),
            Self::File(path) => read_file(path),
            Self::Claim(claim) => Ok(SecretString::from(claim.token.to_string())),
        }
    }

    /// A file without readable metadata has a stamp too; reading it then gives the error.
    pub(super) fn stamp(&self) -> Stamp {
        let meta = match self {
            Self::Inline(_) | Self::Claim(_) => None,
            Self::File(path) => fs::metadata(path).ok(),
        };
        let modified = meta.as_ref().and_then(|meta| meta.modified().ok());
        let inode = meta.as_ref().map(MetadataExt::ino);
        Stamp { modified, inode, length: meta.map_or(0, |meta| meta.len()) }
    }

    /// How to call it in a sentence.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Inline(_) => "TENDRIL_AGENT_TOKEN".to_owned(),
            Self::File(path) => format!("the token file {}", path.display()),
            Self::Claim(claim) => format!("the claim of deployment {}", claim.deployment_id),
        }
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inline(_) => f.write_str("Inline([hidden])"),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Claim(claim) => claim.fmt(f),
        }
    }
}

impl fmt::Debug for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Claim").field("deployment_id", &self.deployment_id).finish_non_exhaustive()
    }
}

/// What is exchanged for a machine token.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Exchangeable {
    /// The key of a cluster, for a token of the cluster.
    Key(ClusterKey),
    /// A claim, for a token of its deployment.
    Claim(Claim),
}

impl Exchangeable {
    /// The cluster that its tokens are of.
    pub(super) const fn cluster_id(&self) -> Uuid {
        match self {
            Self::Key(key) => key.cluster_id(),
            Self::Claim(claim) => claim.cluster_id,
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
            "TENDRIL_AGENT_TOKEN_FILE (--agent-token-file) {shown} is empty: write the API key into it"
        ));
    }
    Ok(SecretString::from(token))
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn a_key_and_a_token_name_their_cluster_and_a_mistake_names_its_place() {
        let id = |text: &str| Credential::Inline(SecretString::from(text)).cluster_id();
        let key = format!("tdl_{}{}", "0".repeat(22), "a".repeat(43));
        assert_eq!(id(&key).unwrap(), Uuid::nil());
        let problem = id(&key[..60]).unwrap_err();
        assert!(problem.starts_with("TENDRIL_AGENT_TOKEN: the API key has 60 characters"), "{problem}");
        assert!(id("quatsch").unwrap_err().contains("the machine token is malformed"));
    }
}
