//! The trait of the places where executors run, and its types.

use std::{fmt, io, process::ExitCode};

use futures_util::future::BoxFuture;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    launch::attempt_file::{AttemptFile, AttemptId},
    os::DiskPressure,
    process::{StopReason, StopSignal},
};

/// Runs executors somewhere: each takes one claimed attempt to its end, by itself.
///
/// An executor does not end with its dispatcher. Its input is an [`AttemptFile`], its result is an [`End`]. It
/// extends its lease, uploads its log and stores the deployment's result itself.
pub(crate) trait Launcher: fmt::Debug + Send + Sync {
    /// Starts the executor of an attempt. `token` is what is to be in the file that [`AttemptFile::token`] names, if it names
    /// a relative one.
    ///
    /// Idempotent for an [`AttemptId`]: an executor that runs is answered as [`Launched::Already`], whoever started it. Errors:
    /// it was not started, and may be tried again.
    fn launch(
        &self,
        attempt: AttemptFile,
        token: Option<SecretString>,
    ) -> BoxFuture<'_, Result<Launched, LaunchError>>;

    /// The executors that run, and those whose end was not reported yet: called once, when a dispatcher starts.
    fn running(&self) -> BoxFuture<'_, Result<Vec<Executor>, LaunchError>>;

    /// Sends a request to an executor. One that has ended is no error.
    fn ask(&self, id: AttemptId, request: Request) -> BoxFuture<'_, Result<(), LaunchError>>;

    /// Kills an executor. Its programs may still run.
    fn kill(&self, id: AttemptId) -> BoxFuture<'_, Result<(), LaunchError>>;

    /// Removes what is stored of an executor that has ended: [`running`](Self::running) does not return it any more, and its
    /// attempt may be launched again. Called once its end was handled.
    fn forget(&self, id: AttemptId) -> BoxFuture<'_, Result<(), LaunchError>>;

    /// Whether executors end with this process, so that it must wait for them or have them stop.
    fn end_with_dispatcher(&self) -> bool;
}

/// What became of a launch.
#[derive(Debug)]
pub(crate) enum Launched {
    /// The executor was started.
    Started(Executor),
    /// It runs already.
    Already(Executor),
}

impl Launched {
    pub(crate) fn executor(self) -> Executor {
        match self {
            Self::Started(executor) | Self::Already(executor) => executor,
        }
    }
}

/// An executor that runs, or has just ended.
pub(crate) struct Executor {
    /// Its attempt.
    pub(crate) id: AttemptId,
    /// The claim that it holds.
    pub(crate) claim_token: Uuid,
    /// The state that it works on: no other executor does at the same time.
    pub(crate) state_key: Option<String>,
    /// Version of its program, where it is known: it may be another one than the dispatcher's.
    pub(crate) version: Option<String>,
    /// Its end. Dropping it changes nothing for the executor.
    pub(crate) ended: BoxFuture<'static, End>,
}

impl fmt::Debug for Executor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Executor")
            .field("id", &self.id)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

/// How an executor ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum End {
    /// The final status is stored, or was refused because the claim is somebody else's. Nothing is left of the attempt.
    Stored,
    /// The plan waits for approval. The workspace is not removed.
    Waiting,
    /// The run is over, and its result is on disk because it could not be stored.
    Kept,
    /// The final status is stored, and the state that its backend did not take is kept elsewhere.
    StateKept,
    /// The final status is stored, and the backend has taken that state since.
    StateStored,
    /// The final status is stored, and that state is lost.
    StateLost,
    /// It ended in another way, which the sentence describes.
    Died(String),
}

impl End {
    /// The exit code of an executor that ends so.
    ///
    /// | code | |
    /// |---|---|
    /// | 0 | the final status is stored |
    /// | 10 | the plan waits for approval |
    /// | 11 | the result is on disk, and not stored in the database |
    /// | 12 | the final status is stored, and the state that its backend did not take is kept elsewhere |
    /// | 13 | the final status is stored, and the backend has taken that state since |
    /// | 14 | the final status is stored, and that state is lost |
    /// | 2 | the configuration or the attempt file must be fixed |
    /// | another | it crashed |
    pub(crate) const fn code(&self) -> u8 {
        match self {
            Self::Stored => 0,
            Self::Waiting => 10,
            Self::Kept => 11,
            Self::StateKept => 12,
            Self::StateStored => 13,
            Self::StateLost => 14,
            Self::Died(_) => 1,
        }
    }

    /// What an exit code means; none where a signal ended the process.
    pub(crate) fn of_code(code: Option<i32>) -> Self {
        match code {
            Some(0) => Self::Stored,
            Some(10) => Self::Waiting,
            Some(11) => Self::Kept,
            Some(12) => Self::StateKept,
            Some(13) => Self::StateStored,
            Some(14) => Self::StateLost,
            Some(2) => Self::Died(
                "the executor refused its configuration or its attempt file (exit code 2)".to_owned(),
            ),
            Some(code) => Self::Died(format!("the executor ended with exit code {code}")),
            None => Self::Died("the executor was killed by a signal".to_owned()),
        }
    }
}

impl From<End> for ExitCode {
    fn from(end: End) -> Self {
        Self::from(end.code())
    }
}

/// A request to an executor that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Request {
    /// Interrupt the run: the user cancelled. An executor that cannot be reached reads it with its next heartbeat.
    Cancel,
    /// Interrupt the run: the disk is full.
    DiskFull(DiskPressure),
    /// Interrupt the run: the agent stops.
    Stop,
    /// Shorten the time in which an interrupted run may end.
    Force,
    /// End now; what is not stored stays on disk.
    GiveUp,
}

impl Request {
    /// The request for an end for this reason; none where the executor notices the reason itself.
    pub(crate) const fn of(reason: StopReason) -> Option<Self> {
        match reason {
            StopReason::Cancelled => Some(Self::Cancel),
            StopReason::ShuttingDown => Some(Self::Stop),
            StopReason::DiskFull(pressure) => Some(Self::DiskFull(pressure)),
            StopReason::Fenced | StopReason::TimedOut(_) | StopReason::DirectoryRemoved => None,
        }
    }

    /// Passes it on to a run. [`Self::GiveUp`] is handled by the caller.
    pub(crate) fn pass_on(self, stop: &StopSignal) {
        match self {
            Self::Cancel => stop.request(StopReason::Cancelled),
            Self::Stop => stop.request(StopReason::ShuttingDown),
            Self::DiskFull(pressure) => stop.request(StopReason::DiskFull(pressure)),
            Self::Force => stop.force(),
            Self::GiveUp => {}
        }
    }
}

/// Why an executor could not be started, found or sent a request.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum LaunchError {
    /// It may work the next time.
    #[error("{context}: {source}")]
    Io {
        /// What was tried.
        context: String,
        /// Why it failed.
        source: io::Error,
    },
    /// Trying again cannot help: the sentence names what to fix.
    #[error("{0}")]
    Refused(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_its_exit_code() {
        for end in [End::Stored, End::Waiting, End::Kept, End::StateKept, End::StateStored, End::StateLost] {
            assert_eq!(End::of_code(Some(end.code().into())), end);
        }
        assert!(matches!(End::of_code(Some(101)), End::Died(how) if how.contains("101")));
        assert!(matches!(End::of_code(None), End::Died(how) if how.contains("signal")));
    }
}
