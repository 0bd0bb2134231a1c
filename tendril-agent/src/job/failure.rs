//! Why a job failed: the code and the message for its user.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::os::text::char_floor;

/// `deployments.error_code`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum ErrorCode {
    /// The agent vanished while it held the job.
    AgentLost,
    /// The agent was stopped, and the job did not end within the grace period.
    AgentStopped,
    /// The plan was not approved in the time that the deployment gives for it.
    ApprovalExpired,
    /// The user cancelled.
    Cancelled,
    /// Terraform ended with an error; the message is its own first diagnostic.
    TerraformFailed,
    /// `config_snapshot` cannot be carried out; the message explains what to fix.
    ConfigInvalid,
    /// The agent has no template of that name.
    TemplateNotFound,
    /// The template's repository cannot be reached now: the same deployment may work later.
    SourceUnavailable,
    /// The template's repository, or the requested part of it, does not exist or cannot be fetched; the message explains what to fix.
    SourceInvalid,
    /// Another one holds the state's lock; the message says who, and what to do.
    StateLocked,
    /// State of an earlier run could not be written to the backend yet; the message says where it is.
    StateNotStored,
    /// What was planned is not what would be applied.
    PlanChanged,
    /// It wrote more to the agent's disk than there is room for; the message says how much, and which setting decides.
    DiskFull,
    /// It took longer than it may; the message says what, and which setting decides.
    TimedOut,
    /// A hook of the agent refused; its output is the reason.
    PolicyDenied,
    /// The agent's own fault, or its machine's.
    Internal,
}

/// Longest `error_message`, in bytes.
const MESSAGE_LIMIT: usize = 8 * 1024;
/// How much of a longer one is stored from its beginning.
const MESSAGE_HEAD: usize = 2 * 1024;
/// What replaces the middle.
const MESSAGE_CUT: &str = "\n… (shortened: the log has all of it)\n";

/// Why a job failed: the code and the message for its user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// The class.
    pub(crate) code: ErrorCode,
    /// What happened and what to do, at most 8 KiB.
    pub(crate) message: String,
}

impl Failure {
    /// A failure with its sentence. Of one that is longer than 8 KiB the middle is left out: what happened is at the
    /// beginning, and the last output of a program at the end.
    pub(crate) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        let mut message = message.into();
        if message.len() > MESSAGE_LIMIT {
            let head = char_floor(&message, MESSAGE_HEAD);
            let tail = message.len() - (MESSAGE_LIMIT - head - MESSAGE_CUT.len());
            let tail =
                (tail..message.len()).find(|at| message.is_char_boundary(*at)).unwrap_or(message.len());
            message.replace_range(head..tail, MESSAGE_CUT);
        }
        Self { code, message }
    }

    /// A fault of this agent or its machine.
    pub(crate) fn internal(what: &str, source: &dyn fmt::Display) -> Self {
        Self::new(ErrorCode::Internal, format!("{what}: {source}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_long_message_the_middle_is_left_out() {
        for lines in [1, 100, 800, 813, 814, 815, 1000, 20_000] {
            let text = (0..lines).map(|n| format!("line {n:04}é")).collect::<Vec<_>>().join("\n") + "\n";
            let message =
                Failure::new(ErrorCode::Internal, format!("first\n{text}FATAL: the reason")).message;
            assert!(
                message.len() <= MESSAGE_LIMIT && message.len() >= MESSAGE_LIMIT.min(text.len()) - 8,
                "{}",
                message.len()
            );
            assert!(message.starts_with("first\n") && message.ends_with("FATAL: the reason"), "{message}");
            assert_eq!(message.contains("(shortened"), text.len() + 23 > MESSAGE_LIMIT, "{lines}");
        }
    }
}
