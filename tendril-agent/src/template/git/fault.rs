//! What can go wrong between a repository and a folder of files, and the one sentence that a user reads of it.

use std::{io, time::Duration};

use crate::{
    job::{ErrorCode, Failure, source::GitSource},
    os::text::whole_words,
};

/// Why a template could not be fetched.
#[derive(Debug)]
pub(super) enum Fault {
    /// A stop was requested.
    Stopped,
    /// The program cannot be started.
    NoProgram(io::Error),
    /// The setting of the token cannot be used; a sentence.
    Token(String),
    /// No server answers; Git's message.
    Unreachable(String),
    /// The server is there and cannot serve now.
    Overloaded(String),
    /// One command took longer than it may.
    TimedOut(Duration),
    /// The server's certificate, or the way to it, is not to be trusted.
    Tls(String),
    /// The server requires a login, and there is none.
    LoginWanted,
    /// The server does not take the login.
    LoginRefused,
    /// The server accepts the login and refuses access.
    Forbidden,
    /// No repository, or none that the login may see.
    NoRepository,
    /// Something else answers there.
    NotGit,
    /// The server redirects.
    Redirected,
    /// Neither a branch nor a tag.
    NoReference,
    /// A branch and a tag, with different commits.
    TwoReferences,
    /// No commit of that id.
    NoCommit,
    /// A repository without a commit.
    Empty,
    /// No such folder in that commit.
    NoFolder,
    /// A file, or another repository, is where the folder should be.
    NotAFolder,
    /// A folder without a Terraform file.
    NoTemplate,
    /// It takes more room than it may, in bytes.
    TooLarge(u64),
    /// The agent's own disk.
    DiskGuard(io::Error),
    /// Git prints something else: the mirror may be broken.
    Broken(String),
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::DiskGuard(error)
    }
}

/// From the line that was found.
type Meaning = fn(String) -> Fault;

/// Messages of Git and libcurl in the C locale, in the order in which they are looked for.
const MESSAGES: &[(&[&str], Meaning)] = &[
    (&["No space left on device", "Disk quota exceeded"], |line| Fault::DiskGuard(io::Error::other(line))),
    (&["Authentication failed for", "returned error: 401"], |_| Fault::LoginRefused),
    (&["could not read Username", "could not read Password"], |_| Fault::LoginWanted),
    (&["returned error: 403"], |_| Fault::Forbidden),
    (
        &[
            "returned error: 301",
            "returned error: 302",
            "returned error: 303",
            "returned error: 307",
            "returned error: 308",
        ],
        |_| Fault::Redirected,
    ),
    (&["returned error: 404", "returned error: 410", "' not found", "Repository not found"], |_| {
        Fault::NoRepository
    }),
    (&["returned error: 429", "returned error: 5"], Fault::Overloaded),
    (&["SSL", "certificate", "gnutls", "TLS"], Fault::Tls),
    (&["not our ref", "unadvertised object", "couldn't find remote ref"], |_| Fault::NoCommit),
    (&["is this a git repository?", "invalid server response"], |_| Fault::NotGit),
    (
        &[
            "Could not resolve",
            "Failed to connect",
            "Couldn't connect",
            "Connection refused",
            "Connection reset",
            "Connection timed out",
            "Network is unreachable",
            "Empty reply from server",
            "Recv failure",
            "Send failure",
            "Proxy CONNECT aborted",
            "CONNECT tunnel failed",
            "RPC failed",
            "early EOF",
            "the remote end hung up",
            "unexpected disconnect",
            "transfer closed",
            "Operation too slow",
        ],
        Fault::Unreachable,
    ),
];

impl Fault {
    /// The stderr of a command that failed, classified.
    pub(super) fn read(stderr: &str) -> Self {
        for (parts, fault) in MESSAGES {
            let fits = |line: &&str| parts.iter().any(|part| line.contains(part));
            if let Some(line) = stderr.lines().find(fits) {
                return fault(short(line));
            }
        }
        let last = stderr.lines().rfind(|line| line.starts_with("fatal: ") || line.starts_with("error: "));
        Self::Broken(short(last.unwrap_or("git prints nothing")))
    }

    /// Whether the same may succeed in a moment.
    pub(super) const fn may_pass(&self) -> bool {
        matches!(self, Self::Unreachable(_) | Self::Overloaded(_))
    }

    /// Whether another mirror may help: this one is broken, or full of what is not needed any more.
    pub(super) const fn is_the_mirrors(&self) -> bool {
        matches!(self, Self::Broken(_) | Self::TooLarge(_))
    }

    /// As a message for the job's user; none for a job that was stopped.
    pub(super) fn explain(self, source: &GitSource) -> Option<Failure> {
        let repository = source.repository();
        let reference = source.reference().unwrap_or("its default branch");
        let path = source.path();
        let unavailable = |text: String| Failure::new(ErrorCode::SourceUnavailable, text);
        let invalid = |text: String| Failure::new(ErrorCode::SourceInvalid, text);
        let again = "queue the deployment again";
        Some(match self {
            Self::Stopped => return None,
            Self::NoProgram(error) => unavailable(format!(
                "git cannot be started ({error}): install it where the agent runs, then {again}"
            )),
            Self::Token(sentence) => unavailable(format!("{sentence}; then {again}")),
            Self::Unreachable(line) => unavailable(format!(
                "{repository} cannot be reached ({line}): check the name server, egress rules (NetworkPolicy, firewall) and HTTPS_PROXY of the agent, then {again}"
            )),
            Self::Overloaded(line) => {
                unavailable(format!("{repository} cannot serve now ({line}): {again} later"))
            }
            Self::TimedOut(limit) => unavailable(format!(
                "{repository} did not answer in {limit:?}: {again}, or raise --git-timeout / TENDRIL_GIT_TIMEOUT of the agent"
            )),
            Self::Tls(line) => invalid(format!(
                "the connection to {repository} cannot be trusted ({line}): give the agent your certificate authority in SSL_CERT_FILE"
            )),
            Self::LoginWanted => invalid(format!(
                "{repository} requires a login, or does not exist: give the agent a token for it (--git-token-file / TENDRIL_GIT_TOKEN_FILE)"
            )),
            Self::LoginRefused => invalid(format!(
                "{repository} does not take the agent's token: put one that may read the repository into TENDRIL_GIT_TOKEN_FILE (and its user into TENDRIL_GIT_USER where the host wants another than x-access-token)"
            )),
            Self::Forbidden => invalid(format!(
                "{repository} is forbidden to the agent's token: give that token the right to read the repository"
            )),
            Self::NoRepository => invalid(format!(
                "{repository} was not found, or the agent's token may not see it: check config_snapshot.source.git and the token's rights"
            )),
            Self::NotGit => invalid(format!(
                "what answers at {repository} is no Git repository: check config_snapshot.source.git"
            )),
            Self::Redirected => invalid(format!(
                "{repository} redirects to another address, which is not followed: write the repository's present address into config_snapshot.source.git"
            )),
            Self::NoReference => invalid(format!(
                "{repository} has no branch or tag \"{reference}\": check config_snapshot.source.ref (a commit is written in full, with 40 digits)"
            )),
            Self::TwoReferences => invalid(format!(
                "{repository} has a branch and a tag \"{reference}\", of different commits: write refs/heads/{reference} or refs/tags/{reference} into config_snapshot.source.ref"
            )),
            Self::NoCommit => {
                invalid(format!("{repository} has no commit {reference}: check config_snapshot.source.ref"))
            }
            Self::Empty => invalid(format!("{repository} is empty: push the template into it")),
            Self::NoFolder => invalid(format!(
                "{repository} has no folder \"{path}\" at {reference}: check config_snapshot.source.path and ref"
            )),
            Self::NotAFolder => invalid(format!(
                "\"{path}\" in {repository} at {reference} is not a folder: name the folder with the .tf files in config_snapshot.source.path"
            )),
            Self::NoTemplate => {
                let folder =
                    if path.is_empty() { "the root".to_owned() } else { format!("the folder \"{path}\"") };
                invalid(format!(
                    "{folder} of {repository} at {reference} has no .tf files: name the folder that has them in config_snapshot.source.path"
                ))
            }
            Self::TooLarge(limit) => invalid(format!(
                "{repository} is too large, it takes more than {} MiB: take a smaller one, or raise --git-limit / TENDRIL_GIT_LIMIT of the agent",
                limit / (1024 * 1024)
            )),
            Self::DiskGuard(error) => {
                Failure::internal("the agent's work directory cannot take the template", &error)
            }
            Self::Broken(line) => {
                unavailable(format!("the template cannot be fetched from {repository} ({line}): {again}"))
            }
        })
    }
}

/// A line as it fits into a sentence.
fn short(line: &str) -> String {
    let line = line.trim_start_matches("fatal: ").trim_start_matches("error: ").trim();
    whole_words(line, 300).to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::job::source::Source;

    fn source() -> GitSource {
        let config = json!({"source": {"git": "https://h.example/a", "ref": "v1", "path": "net"}});
        match Source::parse(config.as_object().unwrap()).unwrap() {
            Source::Git(source) => source,
            Source::BuiltIn(name) => panic!("{name}"),
        }
    }

    #[test]
    fn what_git_says_is_understood() {
        use ErrorCode::{Internal, SourceInvalid, SourceUnavailable};
        for (output, code, part) in [
            (
                "fatal: unable to access 'https://h.example/a/': Could not resolve host: h.example",
                SourceUnavailable,
                "cannot be reached",
            ),
            (
                "fatal: unable to access 'https://h.example/a/': Failed to connect to h.example port 443 after 0 ms: Couldn't connect to server",
                SourceUnavailable,
                "cannot be reached",
            ),
            (
                "error: RPC failed; curl 18 transfer closed with outstanding read data remaining\nfatal: early EOF",
                SourceUnavailable,
                "cannot be reached",
            ),
            (
                "fatal: unable to access 'https://h.example/a/': The requested URL returned error: 503",
                SourceUnavailable,
                "cannot serve now",
            ),
            (
                "fatal: unable to access 'https://h.example/a/': The requested URL returned error: 429",
                SourceUnavailable,
                "later",
            ),
            (
                "fatal: unable to access 'https://h.example/a/': server certificate verification failed. CAfile: none CRLfile: none",
                SourceInvalid,
                "cannot be trusted",
            ),
            (
                "fatal: unable to access 'https://h.example/a/': SSL certificate problem: self-signed certificate",
                SourceInvalid,
                "SSL_CERT_FILE",
            ),
            (
                "fatal: could not read Username for 'https://h.example': terminal prompts disabled",
                SourceInvalid,
                "requires a login",
            ),
            (
                "fatal: Authentication failed for 'https://h.example/a/'",
                SourceInvalid,
                "does not take the agent's token",
            ),
            (
                "fatal: unable to access 'https://h.example/a/': The requested URL returned error: 403",
                SourceInvalid,
                "is forbidden to",
            ),
            (
                "remote: Repository not found.\nfatal: repository 'https://h.example/a/' not found",
                SourceInvalid,
                "was not found",
            ),
            (
                "fatal: https://h.example/a/info/refs not valid: is this a git repository?",
                SourceInvalid,
                "is no Git repository",
            ),
            (
                "fatal: unable to access 'https://h.example/a/': The requested URL returned error: 301",
                SourceInvalid,
                "redirects to another address",
            ),
            ("fatal: remote error: upload-pack: not our ref 0123", SourceInvalid, "has no commit v1"),
            ("fatal: write error: No space left on device", Internal, "work directory cannot take"),
            ("fatal: packfile x cannot be accessed", SourceUnavailable, "(packfile x cannot be accessed)"),
            ("", SourceUnavailable, "git prints nothing"),
        ] {
            let failure = Fault::read(output).explain(&source()).unwrap();
            assert_eq!(failure.code, code, "{output}");
            assert!(failure.message.contains(part), "{output}: {}", failure.message);
        }
    }

    #[test]
    fn each_fault_is_one_sentence_that_says_what_to_do() {
        for (fault, part) in [
            (Fault::NoProgram(io::Error::from(io::ErrorKind::NotFound)), "install it where the agent runs"),
            (Fault::TimedOut(Duration::from_secs(300)), "did not answer in 300s"),
            (Fault::NoReference, "no branch or tag \"v1\""),
            (Fault::TwoReferences, "write refs/heads/v1 or refs/tags/v1"),
            (Fault::Empty, "push the template"),
            (Fault::NoFolder, "no folder \"net\" at v1"),
            (Fault::NotAFolder, "is not a folder"),
            (Fault::NoTemplate, "has no .tf files"),
            (Fault::TooLarge(1 << 30), "more than 1024 MiB"),
        ] {
            let message = fault.explain(&source()).unwrap().message;
            assert!(message.contains(part) && message.contains(": ") && !message.contains('\n'), "{message}");
        }
        assert_eq!(Fault::Stopped.explain(&source()), None);
    }
}
