//! Which Git hosts the agent may fetch from, and how it shows itself there.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
};

use secrecy::{ExposeSecret, SecretString};
use url::Url;

use super::allow_list::{Allowed, hosts};
use crate::os::program::find;

/// The first Git that takes its settings from the environment.
const OLDEST: (u32, u32) = (2, 31);
/// The user name that GitHub, GitLab and Gitea take beside a token.
const USER: &str = "x-access-token";
/// The default for the size of a repository on disk.
const LIMIT: u64 = 1024 * 1024 * 1024;

/// Everything about Git that is configured; made once, never changed. Without hosts nothing is ever fetched.
#[derive(Clone)]
pub struct GitSettings {
    /// The program; none where no host is allowed.
    program: Option<PathBuf>,
    version: String,
    hosts: Vec<Allowed>,
    token: Option<Token>,
    /// To which of them the token is shown; none: to all.
    token_for: Vec<Allowed>,
    user: String,
    /// What one repository's mirror, and one checkout of it, may take on disk, in bytes.
    pub(super) limit: u64,
}

impl Default for GitSettings {
    fn default() -> Self {
        let (version, user) = (String::new(), USER.to_owned());
        Self {
            program: None,
            version,
            hosts: Vec::new(),
            token: None,
            token_for: Vec::new(),
            user,
            limit: LIMIT,
        }
    }
}

/// Where the token comes from.
#[derive(Clone)]
enum Token {
    Inline(SecretString),
    /// May be replaced while the agent runs: it is read for every fetch.
    File(PathBuf),
}

/// The settings as they were written.
#[derive(Default)]
pub(crate) struct Written<'a> {
    pub(crate) hosts: Option<&'a str>,
    pub(crate) token: Option<&'a str>,
    pub(crate) token_file: Option<&'a str>,
    pub(crate) token_for: Option<&'a str>,
    pub(crate) user: Option<&'a str>,
    pub(crate) limit: Option<u64>,
}

impl GitSettings {
    /// Reads them, and finds the program where a host is allowed. Errors: every problem, and how to fix it.
    pub(crate) fn read(written: &Written<'_>) -> Result<Self, Vec<String>> {
        let mut problems = Vec::new();
        let mut take = |problem: String| problems.push(problem);
        let token_for =
            hosts("--git-token-for / TENDRIL_GIT_TOKEN_FOR", written.token_for.unwrap_or_default())
                .map_err(&mut take)
                .unwrap_or_default();
        let hosts = hosts("--git-hosts / TENDRIL_GIT_HOSTS", written.hosts.unwrap_or_default())
            .map_err(&mut take)
            .unwrap_or_default();
        let token = token(written.token, written.token_file).map_err(&mut take).unwrap_or_default();
        let user = user(written.user).map_err(&mut take).unwrap_or_default();
        let (program, version) = if hosts.is_empty() {
            (None, String::new())
        } else {
            program()
                .map_err(&mut take)
                .map_or((None, String::new()), |(path, version)| (Some(path), version))
        };
        if problems.is_empty() {
            Ok(Self {
                program,
                version,
                hosts,
                token,
                token_for,
                user,
                limit: written.limit.unwrap_or(LIMIT),
            })
        } else {
            Err(problems)
        }
    }

    /// Whether anything may be fetched at all.
    pub(crate) const fn is_on(&self) -> bool {
        !self.hosts.is_empty()
    }

    /// Refuses an address whose host is not on the list; the message names the setting.
    pub(crate) fn allow(&self, repository: &Url) -> Result<(), String> {
        let fix = "--git-hosts / TENDRIL_GIT_HOSTS";
        if self.hosts.iter().any(|allowed| allowed.fits(repository)) {
            return Ok(());
        }
        let host = repository.host_str().unwrap_or_default();
        let port = repository.port().map_or_else(String::new, |port| format!(":{port}"));
        if self.hosts.is_empty() {
            return Err(format!(
                "this agent takes no templates from Git: name one of its own in config_snapshot.template, or add {host}{port} to {fix} of the agent"
            ));
        }
        let known: Vec<String> = self.hosts.iter().map(ToString::to_string).collect();
        Err(format!(
            "{host}{port}{} is none of the hosts that this agent takes templates from ({}): add it to {fix} of the agent",
            if self.hosts.iter().any(|allowed| !allowed.path.is_empty()) { repository.path() } else { "" },
            known.join(", ")
        ))
    }

    /// The program.
    pub(super) fn program(&self) -> io::Result<&Path> {
        self.program.as_deref().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }

    /// The user name that goes with the token.
    pub(super) fn user(&self) -> &str {
        &self.user
    }

    /// The token for a repository as it is now, if there is one. Errors: a sentence.
    pub(super) fn token_for(&self, repository: &Url) -> Result<Option<SecretString>, String> {
        let is_for =
            self.token_for.is_empty() || self.token_for.iter().any(|allowed| allowed.fits(repository));
        if is_for { self.token() } else { Ok(None) }
    }

    /// The token as it is now, if there is one. Errors: a sentence.
    pub(super) fn token(&self) -> Result<Option<SecretString>, String> {
        self.token.as_ref().map(Token::read).transpose()
    }

    /// What no log may show.
    pub(crate) fn secrets(&self) -> Vec<String> {
        let token = self.token().ok().flatten();
        token.map(|token| token.expose_secret().to_owned()).into_iter().collect()
    }

    /// Tries the program and the token once more. Errors: what to fix.
    pub(crate) fn examine(&self) -> Result<(), String> {
        self.token()?;
        program().map(drop)
    }
}

impl fmt::Debug for GitSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hosts: Vec<String> = self.hosts.iter().map(ToString::to_string).collect();
        f.debug_struct("GitSettings")
            .field("program", &self.program)
            .field("version", &self.version)
            .field("hosts", &hosts)
            .field("token", &self.token.as_ref().map(|_| "[hidden]"))
            .field("token_for", &self.token_for)
            .field("user", &self.user)
            .field("limit", &self.limit)
            .finish()
    }
}

impl Token {
    fn read(&self) -> Result<SecretString, String> {
        let (text, name) = match self {
            Self::Inline(token) => (token.expose_secret().to_owned(), "TENDRIL_GIT_TOKEN".to_owned()),
            Self::File(path) => {
                let name = format!("TENDRIL_GIT_TOKEN_FILE (--git-token-file) {}", path.display());
                let text =
                    fs::read_to_string(path).map_err(|error| format!("{name} cannot be read ({error})"))?;
                (text, name)
            }
        };
        let token = text.trim();
        if token.is_empty() || !token.chars().all(|c| c.is_ascii_graphic()) {
            return Err(format!("{name} holds no token: write it there, without spaces and in one line"));
        }
        Ok(SecretString::from(token))
    }
}

fn token(inline: Option<&str>, file: Option<&str>) -> Result<Option<Token>, String> {
    let token = match (inline, file) {
        (None, None) => return Ok(None),
        (Some(_), Some(_)) => {
            return Err(
                "TENDRIL_GIT_TOKEN and TENDRIL_GIT_TOKEN_FILE are both set: remove one of them".to_owned()
            );
        }
        (Some(token), None) => Token::Inline(SecretString::from(token)),
        (None, Some(file)) => Token::File(PathBuf::from(file)),
    };
    token.read()?;
    Ok(Some(token))
}

fn user(written: Option<&str>) -> Result<String, String> {
    let user = written.unwrap_or(USER);
    if user.chars().all(|c| c.is_ascii_graphic() && c != ':') {
        return Ok(user.to_owned());
    }
    Err(format!("--git-user / TENDRIL_GIT_USER is {user:?}: write a user name without spaces and colons"))
}

/// Finds the program and reads its version.
fn program() -> Result<(PathBuf, String), String> {
    let fix = "install git 2.31 or newer, or leave --git-hosts / TENDRIL_GIT_HOSTS empty";
    let path = find("git")
        .ok_or_else(|| format!("git is not on PATH, and templates are to be fetched with it: {fix}"))?;
    let version =
        git_version(&path).map_err(|why| format!("{} does not run ({why}): {fix}", path.display()))?;
    let mut numbers = version.split('.').map_while(|part| part.parse::<u32>().ok());
    match (numbers.next(), numbers.next()) {
        (Some(major), Some(minor)) if (major, minor) >= OLDEST => Ok((path, version)),
        _ => Err(format!("{} is git {version}: {fix}", path.display())),
    }
}

/// `2.39.5` of `git version 2.39.5`. Errors: the program does not print it.
pub(crate) fn git_version(path: &std::path::Path) -> Result<String, String> {
    let output = std::process::Command::new(path)
        .arg("--version")
        .env_clear()
        .stdin(std::process::Stdio::null())
        .output();
    let output = output.map_err(|error| error.to_string())?;
    let message = String::from_utf8_lossy(&output.stdout);
    match message.trim().strip_prefix("git version ") {
        Some(version) if output.status.success() => Ok(version.to_owned()),
        _ => Err(format!("\"--version\" ended with {} and no version", output.status)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(hosts: &str) -> GitSettings {
        GitSettings::read(&Written { hosts: Some(hosts), ..Written::default() }).unwrap()
    }

    fn refusal(hosts: &str, address: &str) -> Option<String> {
        settings(hosts).allow(&address.parse().unwrap()).err()
    }

    #[test]
    fn only_listed_hosts_are_allowed() {
        let list = " GitHub.com, git.example.org:8443 ,127.0.0.1:3000,[::1]:3000,";
        for (address, allowed) in [
            ("https://github.com/a/b", true),
            ("https://github.com:443/a/b", true),
            ("https://github.com:8443/a/b", false),
            ("https://github.com.evil.example/a", false),
            ("https://evil-github.com/a", false),
            ("https://sub.github.com/a", false),
            ("http://github.com/a", false),
            ("https://git.example.org:8443/a", true),
            ("https://git.example.org/a", false),
            ("http://127.0.0.1:3000/a", true),
            ("http://127.0.0.1:3001/a", false),
            ("http://[::1]:3000/a", true),
        ] {
            assert_eq!(refusal(list, address).is_none(), allowed, "{address}");
        }
    }

    #[test]
    fn an_entry_may_name_an_owner_or_a_repository() {
        let list = "github.com/acme/*, git.example.org:8443/Group/sub/one, github.com/solo/Infra.git";
        for (address, allowed) in [
            ("https://github.com/acme/infra", true),
            ("https://github.com/Acme/infra.git", true),
            ("https://github.com/acme/a/b", true),
            ("https://github.com/acme", false),
            ("https://github.com/acme-evil/infra", false),
            ("https://github.com/other/acme/infra", false),
            ("https://github.com/acme/../other/infra", false),
            ("https://github.com/acme/%2e%2e/other", false),
            ("https://github.com/acme//infra", false),
            ("https://git.example.org:8443/group/sub/one.git/", true),
            ("https://git.example.org:8443/group/sub/two", false),
            ("https://github.com/solo/infra", true),
            ("https://github.com/solo/infra.git", true),
            ("https://github.com/solo/infra.git.git", false),
            ("https://git.example.org:8443/group/sub/one/more", false),
        ] {
            assert_eq!(refusal(list, address).is_none(), allowed, "{address}");
        }
        let refused = refusal(list, "https://github.com/other/x").unwrap();
        assert!(
            refused.contains("github.com/other/x is none of") && refused.contains("github.com/acme/*"),
            "{refused}"
        );
    }

    #[test]
    fn the_token_is_shown_to_its_own_entry_only() {
        let written = Written {
            hosts: Some("github.com"),
            token: Some("s3cret"),
            token_for: Some("github.com/acme/*"),
            ..Written::default()
        };
        let settings = GitSettings::read(&written).unwrap();
        let token = |address: &str| settings.token_for(&address.parse().unwrap()).unwrap().is_some();
        assert!(token("https://github.com/acme/a") && !token("https://github.com/other/a"));
        let settings = GitSettings::read(&Written { token_for: None, ..written }).unwrap();
        assert!(settings.token_for(&"https://github.com/other/a".parse().unwrap()).unwrap().is_some());
    }

    #[test]
    fn a_refused_host_is_told_which_setting_to_set() {
        let off = refusal("", "https://github.com/a").unwrap();
        assert!(
            off.contains("takes no templates from Git")
                && off.contains("add github.com to --git-hosts / TENDRIL_GIT_HOSTS"),
            "{off}"
        );
        let other = refusal("github.com", "https://git.example.org:99/a").unwrap();
        assert!(
            other.starts_with("git.example.org:99 is none of the hosts") && other.contains("(github.com)"),
            "{other}"
        );
    }

    #[test]
    fn every_problem_is_listed_and_none_shows_the_token() {
        for host in [
            "https://github.com",
            "github.com/ac*",
            "github.com/",
            "github.com//a",
            "github.com/../a",
            "user@github.com",
            "*",
            "a b",
            "host:port",
            "-x/",
        ] {
            let written = Written {
                hosts: Some(host),
                token: Some("s3cret"),
                token_file: Some("/f"),
                token_for: None,
                user: Some("a:b"),
                limit: None,
            };
            let message = GitSettings::read(&written).unwrap_err();
            assert_eq!(message.len(), 3, "{host}: {message:?}");
            assert!(!message.concat().contains("s3cret"), "{message:?}");
        }
    }

    #[test]
    fn a_token_file_is_read_whenever_it_is_used() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let written =
            || Written { hosts: Some("h.example"), token_file: file.path().to_str(), ..Written::default() };
        assert!(GitSettings::read(&written()).unwrap_err()[0].contains("holds no token"));
        fs::write(file.path(), "one\n").unwrap();
        let settings = GitSettings::read(&written()).unwrap();
        assert_eq!(settings.secrets(), ["one"]);
        fs::write(file.path(), "two\n").unwrap();
        assert_eq!(settings.token().unwrap().unwrap().expose_secret(), "two");
        settings.examine().unwrap();
        assert!(!format!("{settings:?}").contains("two"));
        fs::remove_file(file.path()).unwrap();
        assert!(settings.token().unwrap_err().contains("cannot be read"));
        fs::write(file.path(), "").unwrap();
    }
}
