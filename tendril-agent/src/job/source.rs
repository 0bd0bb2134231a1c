//! Where a template comes from: a folder of the agent, or one in a Git repository.
//!
//! Everything here is text that a user wrote and that becomes part of a command: what passes is an address, a reference and a
//! path that Git cannot take for an option, a local file or a program to run.

use std::{fmt, net::IpAddr};

use serde::Deserialize;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};
use url::{Host, Url};

use crate::job::variables::kind_of;

/// Longest address of a repository, in bytes.
const ADDRESS_LIMIT: usize = 2048;
/// Longest path of a folder in a repository, in bytes.
const PATH_LIMIT: usize = 1024;
/// Longest reference, in bytes.
const REFERENCE_LIMIT: usize = 255;
/// What the keys of sources begin with.
const KEY_PREFIX: &str = "git-";
/// How many hexadecimal digits of a digest end them.
const KEY_DIGITS: usize = 16;
/// How much of the folder's own name they hold.
const KEY_NAME: usize = 40;

/// Where a template comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// A folder of the agent's templates directory, by its name.
    BuiltIn(String),
    /// A folder in a Git repository.
    Git(GitSource),
}

impl Source {
    /// Reads `template` and `source` of a `config_snapshot`; a refusal explains which field to fix and how.
    pub(crate) fn parse(config: &Map<String, Value>) -> Result<Self, String> {
        let given = |field: &str| config.get(field).filter(|value| !value.is_null());
        match (given("template"), given("source")) {
            (Some(_), Some(_)) => Err(
                "config_snapshot has both a template and a source: name one of the agent's templates, or a Git repository"
                    .to_owned(),
            ),
            (None, None) => Err(
                "config_snapshot.template is missing: name the template to run, or a Git repository in config_snapshot.source"
                    .to_owned(),
            ),
            (Some(Value::String(name)), None) if is_template_name(name) => Ok(Self::BuiltIn(name.clone())),
            (Some(Value::String(name)), None) => Err(format!(
                "config_snapshot.template {name:?} is not a template name: use a-z, 0-9, _ and -, and begin with a letter or digit (no paths)"
            )),
            (Some(other), None) => {
                Err(format!("config_snapshot.template must be a string, and it is {}", kind_of(other)))
            }
            (None, Some(source)) => GitSource::parse(source).map(Self::Git),
        }
    }

    /// What the names of its states begin with; nothing where the fields name no template that can be.
    pub(crate) fn key_in(config: &Value) -> String {
        let source = config.as_object().and_then(|config| Self::parse(config).ok());
        source.map(|source| source.key()).unwrap_or_default()
    }

    /// What the names of its states begin with. No two origins have one key, and none holds a dot.
    pub(crate) fn key(&self) -> String {
        match self {
            Self::BuiltIn(name) => name.clone(),
            Self::Git(source) => source.key(),
        }
    }
}

/// A name of a carried template: one path segment, and no key of a source.
pub(crate) fn is_template_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        && name.len() <= 63
        && name.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-'))
        && !is_source_key(name)
}

fn is_source_key(name: &str) -> bool {
    let digits =
        name.strip_prefix(KEY_PREFIX).and_then(|rest| rest.rsplit_once('-')).map(|(_, digits)| digits);
    digits.is_some_and(|digits| digits.len() == KEY_DIGITS && is_hexadecimal(digits))
}

fn is_hexadecimal(text: &str) -> bool {
    text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// A folder in a Git repository, at a branch, a tag or a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GitSource {
    repository: Url,
    reference: Option<String>,
    /// Segments joined by `/`; empty for the root.
    path: String,
}

/// `config_snapshot.source`, unread.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    git: String,
    r#ref: Option<String>,
    path: Option<String>,
}

impl GitSource {
    fn parse(value: &Value) -> Result<Self, String> {
        let fields = Fields::deserialize(value).map_err(|error| {
            format!("config_snapshot.source cannot be read ({error}): it is an object with git, and ref and path if need be")
        })?;
        Ok(Self {
            repository: address(&fields.git)?,
            reference: fields.r#ref.map(reference).transpose()?,
            path: fields.path.as_deref().map_or(Ok(String::new()), folder)?,
        })
    }

    /// The repository's address; without credentials.
    pub(crate) const fn repository(&self) -> &Url {
        &self.repository
    }

    /// The branch, tag or commit that was requested.
    pub(crate) fn reference(&self) -> Option<&str> {
        self.reference.as_deref()
    }

    /// The commit that was requested, if it was one.
    pub(crate) fn commit(&self) -> Option<&str> {
        self.reference().filter(|reference| is_commit(reference))
    }

    /// The folder inside the repository; empty for its root.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// The repository, however its address was written: host and path.
    pub(crate) fn repository_name(&self) -> String {
        let url = &self.repository;
        let port = url.port().map_or_else(String::new, |port| format!(":{port}"));
        format!("{}{port}{}", url.host_str().unwrap_or_default(), without_suffix(url.path()))
    }

    /// Of repository and folder alone: a newer branch, tag or commit works on the same state.
    fn key(&self) -> String {
        let repository = self.repository_name();
        let whole = format!("{repository}#{}", self.path);
        let last = if self.path.is_empty() { &repository } else { &self.path };
        let last = last.rsplit('/').next().unwrap_or_default();
        format!("{KEY_PREFIX}{}-{}", readable(last, KEY_NAME), digest(&whole))
    }
}

impl fmt::Display for GitSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.repository)?;
        if !self.path.is_empty() {
            write!(f, ", folder {}", self.path)?;
        }
        match &self.reference {
            Some(reference) => write!(f, ", at {reference}"),
            None => write!(f, ", at its default branch"),
        }
    }
}

/// The end of a digest, as keys hold it.
pub(crate) fn digest(text: &str) -> String {
    let mut digits = format!("{:x}", Sha256::digest(text));
    digits.truncate(KEY_DIGITS);
    digits
}

/// A name that any file system and any backend takes: small letters, digits, `_` and `-`, at most so many.
pub(crate) fn readable(name: &str, most: usize) -> String {
    let plain = |c: char| {
        let small = c.to_ascii_lowercase();
        if small.is_ascii_alphanumeric() || small == '_' { small } else { '-' }
    };
    name.chars().map(plain).take(most).collect()
}

/// Whether this is the full id of a commit.
pub(crate) fn is_commit(text: &str) -> bool {
    text.len() == 40 && is_hexadecimal(text)
}

fn without_suffix(path: &str) -> &str {
    let path = path.trim_end_matches('/');
    path.strip_suffix(".git").unwrap_or(path)
}

/// An address of `https://`, or of `http://` on this machine. What it means is decided by this parser alone: what Git gets is
/// written again from it.
fn address(text: &str) -> Result<Url, String> {
    // The text itself is not repeated: it may hold a password.
    let wrong = |why: &str| {
        Err(format!(
            "config_snapshot.source.git {why}: write an address such as https://github.com/acme/infrastructure.git"
        ))
    };
    if text.len() > ADDRESS_LIMIT {
        return wrong("is longer than 2048 characters");
    }
    let Ok(url) = Url::parse(text) else { return wrong("is not an address") };
    match url.scheme() {
        "https" => {}
        "http" if is_loopback(&url) => {}
        "http" => return wrong("begins with http://, where anybody on the way could change the template"),
        "ssh" => return wrong("begins with ssh://, and this agent has no SSH keys"),
        _ => return wrong("does not begin with https://"),
    }
    if !url.username().is_empty() || url.password().is_some() {
        return wrong("holds a user name or password, and the agent has its own (TENDRIL_GIT_TOKEN_FILE)");
    }
    if url.query().is_some() || url.fragment().is_some() {
        return wrong("has a part behind ? or #, and branch and folder belong into ref and path");
    }
    if matches!(without_suffix(url.path()), "" | "/") {
        return wrong("names no repository");
    }
    if !is_plain(url.path()) {
        return wrong("holds characters that no repository's address needs");
    }
    Ok(url)
}

/// Letters, digits, and few others; of what is encoded neither controls nor separators.
fn is_plain(path: &str) -> bool {
    let mut bytes = path.bytes();
    while let Some(byte) = bytes.next() {
        let plain = match byte {
            b'%' => {
                let pair =
                    [bytes.next(), bytes.next()].map(|digit| digit.and_then(|b| char::from(b).to_digit(16)));
                let [Some(high), Some(low)] = pair else { return false };
                !matches!(16 * high + low, 0..=0x1f | 0x2f | 0x5c | 0x7f)
            }
            _ => byte.is_ascii_alphanumeric() || b"/._~+@-".contains(&byte),
        };
        if !plain {
            return false;
        }
    }
    true
}

/// Whether an address leads to this machine.
pub(crate) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(ip)) => IpAddr::V4(ip).is_loopback(),
        Some(Host::Ipv6(ip)) => IpAddr::V6(ip).is_loopback(),
        None => false,
    }
}

/// A branch, a tag, or a full commit; by Git's own rules for names (`git check-ref-format`).
fn reference(text: String) -> Result<String, String> {
    let plain = |c: char| !c.is_control() && !" ~^:?*[\\".contains(c);
    let segment = |segment: &str| {
        !segment.is_empty() && !segment.starts_with('.') && segment.strip_suffix(".lock").is_none()
    };
    // What begins with a dash would be an option.
    let holds = !text.starts_with('-')
        && text != "@"
        && !text.ends_with('.')
        && text.len() <= REFERENCE_LIMIT
        && text.chars().all(plain)
        && !text.contains("..")
        && !text.contains("@{")
        && text.split('/').all(segment);
    if holds {
        return Ok(text);
    }
    Err(format!(
        "config_snapshot.source.ref {text:?} is not a branch, a tag or a full commit: Git takes no blanks, none of ~ ^ : ? * [ \\, no \"..\", \"//\", \"@{{\" or \".lock\", and no dot or dash at the beginning"
    ))
}

/// A folder inside the repository.
fn folder(text: &str) -> Result<String, String> {
    let wrong = |why: &str| {
        Err(format!(
            "config_snapshot.source.path {text:?} {why}: write a folder inside the repository, such as network/vpc"
        ))
    };
    if text.len() > PATH_LIMIT {
        return Err("config_snapshot.source.path is longer than 1024 bytes".to_owned());
    }
    if text.starts_with('/') {
        return wrong("begins with /");
    }
    if text.chars().any(char::is_control) {
        return wrong("holds a control character");
    }
    let segments: Vec<&str> = text.split('/').filter(|segment| !matches!(*segment, "" | ".")).collect();
    if segments.contains(&"..") {
        return wrong("leads out of the repository");
    }
    Ok(segments.join("/"))
}

#[cfg(test)]
#[path = "source_tests.rs"]
mod tests;
