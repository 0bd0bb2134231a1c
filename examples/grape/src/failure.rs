//! What went wrong, what to do next, and the exit code that scripts see.

use std::{error::Error as StdError, fmt, io, process::ExitCode, sync::Arc};

use serde_json::{Value, json};
use tendril_realtime::{Error, ErrorKind};

/// The classes of failure. Each has an exit code of its own; the table in README.md and in the man page is this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FailureKind {
    /// The server or this machine did something unexpected.
    Unexpected,
    /// The command line is wrong, or lacks what it needs here.
    Usage,
    /// There is no session, the password is wrong, or the session has ended.
    NotSignedIn,
    /// The project does not answer.
    Unreachable,
    /// There is no such cluster, deployment, template or profile.
    NotFound,
    /// The control plane refuses it, in this state or to this user.
    Refused,
    /// A variable is unknown, missing, or of another type.
    InvalidVariable,
    /// A program that is needed is not installed.
    ToolMissing,
    /// `kubectl` has no such context, or the Kubernetes cluster does not answer.
    NoKubernetes,
    /// There are no AWS credentials, or they are not accepted.
    NoCloudCredentials,
    /// A step of `up` or `down` failed.
    StepFailed,
    /// The deployment ended as `FAILED`.
    DeploymentFailed,
    /// The deployment ended as `CANCELLED`.
    DeploymentCancelled,
    /// The plan waits for approval, which is what was waited for.
    WaitsForApproval,
    /// What was waited for did not happen in time.
    TimedOut,
    /// Ctrl-C.
    Interrupted,
}

impl FailureKind {
    /// All of them, in the order of their exit codes.
    pub const ALL: [Self; 16] = [
        Self::Unexpected,
        Self::Usage,
        Self::NotSignedIn,
        Self::Unreachable,
        Self::NotFound,
        Self::Refused,
        Self::InvalidVariable,
        Self::ToolMissing,
        Self::NoKubernetes,
        Self::NoCloudCredentials,
        Self::StepFailed,
        Self::DeploymentFailed,
        Self::DeploymentCancelled,
        Self::WaitsForApproval,
        Self::TimedOut,
        Self::Interrupted,
    ];

    /// What the process ends with.
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Unexpected => 1,
            Self::Usage => 2,
            Self::NotSignedIn => 3,
            Self::Unreachable => 4,
            Self::NotFound => 5,
            Self::Refused => 6,
            Self::InvalidVariable => 7,
            Self::ToolMissing => 8,
            Self::NoKubernetes => 9,
            Self::NoCloudCredentials => 10,
            Self::StepFailed => 11,
            Self::DeploymentFailed => 20,
            Self::DeploymentCancelled => 21,
            Self::WaitsForApproval => 22,
            Self::TimedOut => 23,
            Self::Interrupted => 130,
        }
    }

    /// One line for the table of exit codes.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Unexpected => "the server or this machine did something unexpected",
            Self::Usage => "the command line is wrong, or needs an answer that only a terminal can give",
            Self::NotSignedIn => "not signed in: wrong password, or the session has ended",
            Self::Unreachable => "the project does not answer",
            Self::NotFound => "no such cluster, deployment, template, stack or profile",
            Self::Refused => "the control plane refuses it, in this state or to this user",
            Self::InvalidVariable => "a variable is unknown, missing, or of another type",
            Self::ToolMissing => "terraform, kubectl, helm or aws is not installed",
            Self::NoKubernetes => "no such context, or the Kubernetes cluster does not answer",
            Self::NoCloudCredentials => "no AWS credentials, or they are not accepted",
            Self::StepFailed => "a step of up or down failed",
            Self::DeploymentFailed => "the deployment ended as FAILED",
            Self::DeploymentCancelled => "the deployment ended as CANCELLED",
            Self::WaitsForApproval => "the plan waits for approval (with --until approval)",
            Self::TimedOut => "it did not happen in time (with --timeout)",
            Self::Interrupted => "interrupted with Ctrl-C; what runs continues",
        }
    }

    /// The name in JSON output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unexpected => "Unexpected",
            Self::Usage => "Usage",
            Self::NotSignedIn => "NotSignedIn",
            Self::Unreachable => "Unreachable",
            Self::NotFound => "NotFound",
            Self::Refused => "Refused",
            Self::InvalidVariable => "InvalidVariable",
            Self::ToolMissing => "ToolMissing",
            Self::NoKubernetes => "NoKubernetes",
            Self::NoCloudCredentials => "NoCloudCredentials",
            Self::StepFailed => "StepFailed",
            Self::DeploymentFailed => "DeploymentFailed",
            Self::DeploymentCancelled => "DeploymentCancelled",
            Self::WaitsForApproval => "WaitsForApproval",
            Self::TimedOut => "TimedOut",
            Self::Interrupted => "Interrupted",
        }
    }
}

/// A failure of a command: its kind, a sentence, the next step, and what caused it.
#[derive(Debug, Clone)]
pub struct Failure {
    kind: FailureKind,
    message: String,
    next: Option<String>,
    source: Option<Arc<dyn StdError + Send + Sync>>,
    /// The output has shown the end of the deployment already: nothing more is printed.
    shown: bool,
}

impl Failure {
    /// A failure with its sentence.
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), next: None, source: None, shown: false }
    }

    /// What to do about it.
    #[must_use]
    pub fn next(mut self, step: impl Into<String>) -> Self {
        self.next = Some(step.into());
        self
    }

    /// What caused it.
    #[must_use]
    pub fn caused_by(mut self, source: impl StdError + Send + Sync + 'static) -> Self {
        self.source = Some(Arc::new(source));
        self
    }

    /// Sets the exit code and prints nothing more: for an end that the output has shown.
    #[must_use]
    pub fn shown(mut self) -> Self {
        self.shown = true;
        self
    }

    /// Its class.
    pub fn kind(&self) -> FailureKind {
        self.kind
    }

    /// The next step, where there is one.
    pub fn next_step(&self) -> Option<&str> {
        self.next.as_deref()
    }

    /// Whether the output has shown it already.
    pub fn is_shown(&self) -> bool {
        self.shown
    }

    /// What the process ends with.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.kind.exit_code())
    }

    /// For scripts.
    pub fn to_json(&self) -> Value {
        json!({ "error": {
            "kind": self.kind.name(),
            "message": self.message,
            "next": self.next,
            "exit_code": self.kind.exit_code(),
        } })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl StdError for Failure {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_ref().map(|source| source.as_ref() as _)
    }
}

impl Failure {
    /// As an error of a token source; [`Failure::from`] gives it back. Who is not signed in will not be by waiting.
    pub(crate) fn into_token_error(self) -> Error {
        if self.kind == FailureKind::NotSignedIn { Error::session_ended(self) } else { Error::token(self) }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error.kind() {
            ErrorKind::Connect { .. } | ErrorKind::ConnectionLost { .. } | ErrorKind::Timeout { .. } => {
                Self::new(FailureKind::Unreachable, format!("{error:#}"))
                    .next("Check the network and the project's URL: `grape whoami` shows it.")
            }
            ErrorKind::Token { .. } => error.find_source::<Self>().cloned().unwrap_or_else(|| {
                Self::new(FailureKind::NotSignedIn, error.to_string()).next("Sign in: `grape login`.")
            }),
            ErrorKind::InvalidInput { .. } => Self::new(FailureKind::Usage, error.to_string()),
            ErrorKind::Postgrest(api) => refused(api.status, &api.code, &api.message, api.hint.as_deref()),
            _ => Self::new(FailureKind::Unexpected, format!("{error:#}")),
        }
        .caused_by(error)
    }
}

/// An error answer of the REST interface, by its code.
fn refused(status: u16, code: &str, message: &str, hint: Option<&str>) -> Failure {
    let text =
        if code.is_empty() { format!("HTTP {status}: {message}") } else { format!("{message} ({code})") };
    let failure = match (status, code) {
        (401, _) => {
            Failure::new(FailureKind::NotSignedIn, format!("The project refuses the access token: {text}"))
                .next("Sign in again: `grape login`. In a script, give a fresh token in GRAPE_TOKEN.")
        }
        (_, "42501") => Failure::new(FailureKind::Refused, format!("You have no right to do that: {text}"))
            .next("It belongs to another user, or you may not change it: `grape whoami` shows who you are."),
        (_, "TD008" | "PGRST116") => {
            Failure::new(FailureKind::NotFound, text).next("`grape clusters` lists what is yours.")
        }
        (_, code) if code.starts_with("TD") => Failure::new(FailureKind::Refused, text),
        (_, "PGRST202" | "PGRST205" | "42P01" | "42703") => Failure::new(
            FailureKind::Refused,
            format!("The project's database has no such table, column or function: {text}"),
        )
        .next("Apply the project's migrations: `supabase db push`."),
        (_, "23505") => Failure::new(FailureKind::Refused, text),
        (_, code) if code.starts_with("22") || code.starts_with("23") => {
            Failure::new(FailureKind::Refused, format!("The database refuses the value: {text}"))
        }
        (502..=504, _) => Failure::new(FailureKind::Unreachable, text)
            .next("The project is down or paused: check its dashboard."),
        _ => Failure::new(FailureKind::Unexpected, text),
    };
    match hint {
        Some(hint) => failure.next(hint.to_owned()),
        None => failure,
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::new(FailureKind::Unexpected, error.to_string()).caused_by(error)
    }
}

/// The result of a command.
pub type Result<T, E = Failure> = std::result::Result<T, E>;

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn each_kind_of_failure_has_its_own_exit_code_and_name() {
        let codes: HashSet<_> = FailureKind::ALL.iter().map(|kind| kind.exit_code()).collect();
        let names: HashSet<_> = FailureKind::ALL.iter().map(|kind| kind.name()).collect();
        assert_eq!((codes.len(), names.len()), (FailureKind::ALL.len(), FailureKind::ALL.len()));
        assert!(!codes.contains(&0));
    }

    #[test]
    fn a_failure_of_the_token_source_keeps_its_kind_and_next_step() {
        let ended = Failure::new(FailureKind::NotSignedIn, "The session has ended.").next("Sign in.");
        let failure = Failure::from(ended.into_token_error());
        assert_eq!(failure.kind(), FailureKind::NotSignedIn);
        assert_eq!(failure.to_string(), "The session has ended.");
        assert_eq!(failure.next_step(), Some("Sign in."));
    }

    #[test]
    fn codes_of_the_database_are_told_apart() {
        assert_eq!(refused(401, "PGRST303", "JWT expired", None).kind(), FailureKind::NotSignedIn);
        assert_eq!(refused(400, "TD005", "not that plan", None).kind(), FailureKind::Refused);
        assert_eq!(refused(400, "TD008", "no cluster", None).kind(), FailureKind::NotFound);
        assert_eq!(refused(503, "", "down", None).kind(), FailureKind::Unreachable);
        assert_eq!(refused(400, "TD007", "no", Some("rotate")).next_step(), Some("rotate"));
    }
}
