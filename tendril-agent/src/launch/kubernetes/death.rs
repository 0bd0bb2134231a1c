//! The death of an executor: what happened, in a sentence and in a word.

use std::time::Duration;

use crate::{job::ErrorCode, telemetry};

/// What ended a run: the label of its metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DeathCause {
    Memory,
    Disk,
    Eviction,
    Preemption,
    Node,
    Deadline,
    /// Somebody deleted its Job or pod.
    Deleted,
    /// A signal, from whomever.
    Killed,
    NotStarted,
    /// The cluster does not take what it needs.
    Refused,
    /// It ended by itself, and badly.
    Exit,
    /// This agent had it ended.
    Agent,
    Unknown,
}

impl DeathCause {
    const fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Disk => "disk",
            Self::Eviction => "eviction",
            Self::Preemption => "preemption",
            Self::Node => "node",
            Self::Deadline => "deadline",
            Self::Deleted => "deleted",
            Self::Killed => "killed",
            Self::NotStarted => "not_started",
            Self::Refused => "refused",
            Self::Exit => "exit",
            Self::Agent => "agent",
            Self::Unknown => "unknown",
        }
    }
}

/// The death of an executor, or why it was asked to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Death {
    pub(crate) cause: DeathCause,
    /// What happened and what to do.
    pub(crate) sentence: String,
    /// The error code, where another attempt would end in the same way; none where it may go well.
    pub(crate) repeats_as: Option<ErrorCode>,
    /// Whether its container is known to have ended. On a node that does not answer it may run on.
    pub(crate) is_certain: bool,
}

impl Death {
    /// It may go well the next time.
    pub(super) fn lost(cause: DeathCause, sentence: impl Into<String>, is_certain: bool) -> Self {
        Self { cause, sentence: sentence.into(), repeats_as: None, is_certain }
    }

    /// It would end in the same way again.
    pub(super) fn fatal(cause: DeathCause, sentence: impl Into<String>, code: ErrorCode) -> Self {
        Self { repeats_as: Some(code), ..Self::lost(cause, sentence, true) }
    }

    /// Its Job or pod was deleted, and not by this agent.
    pub(super) fn deleted(what: &str, is_certain: bool) -> Self {
        let sentence = format!("The run's {what} was deleted by somebody else than the agent.");
        Self::lost(DeathCause::Deleted, sentence, is_certain)
    }

    /// The same, where the namespace is deleted with everything in it.
    pub(super) fn with_its_namespace(self, namespace: &str) -> Self {
        if self.cause != DeathCause::Deleted {
            return self;
        }
        let sentence = format!(
            "The namespace {namespace} is being deleted, and everything in it: the run's Job and pod too."
        );
        Self { sentence, ..self }
    }

    /// Its executor says that its plan waits for approval, and its row does not say so.
    pub(super) fn untrue_wait() -> Self {
        Self::lost(
            DeathCause::Exit,
            "The executor ended as if its plan waited for approval (exit code 10), and none is shown.",
            true,
        )
    }

    /// What it needs cannot be made.
    pub(super) fn refused(sentence: impl Into<String>) -> Self {
        Self::fatal(DeathCause::Refused, sentence, ErrorCode::Internal)
    }

    /// Its pod did not start in time.
    pub(super) fn not_started(limit: Duration, why: Option<&str>) -> Self {
        let why = why.unwrap_or("Nothing says why.");
        let sentence = format!("The run's pod did not start within {limit:?}. {why}");
        Self::fatal(DeathCause::NotStarted, sentence, ErrorCode::Internal)
    }

    /// Counts it.
    pub(super) fn count(&self) {
        metrics::counter!(telemetry::RUN_DEATHS, "cause" => self.cause.name()).increment(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_is_a_value_of_the_metric() {
        let series = telemetry::ALL.iter().find(|series| series.name == telemetry::RUN_DEATHS).unwrap();
        let (_, values) = series.label.unwrap();
        let causes = [
            DeathCause::Memory,
            DeathCause::Disk,
            DeathCause::Eviction,
            DeathCause::Preemption,
            DeathCause::Node,
            DeathCause::Deadline,
            DeathCause::Deleted,
            DeathCause::Killed,
            DeathCause::NotStarted,
            DeathCause::Refused,
            DeathCause::Exit,
            DeathCause::Agent,
            DeathCause::Unknown,
        ];
        assert_eq!(causes.map(DeathCause::name), values);
    }
}
