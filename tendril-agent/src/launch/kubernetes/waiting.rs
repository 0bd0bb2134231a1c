//! A run that the cluster does not take now: its row says why, and it is tried again until it is taken, cancelled, or too late.

use std::time::Duration;

use kube::core::Status;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::{
    control_plane::Lease,
    launch::{
        attempt_file::AttemptId,
        kubernetes::{
            launcher::{KubernetesLauncher, failure},
            namespace::is_leaving,
            verdict::{capital, sentence},
        },
        launcher::LaunchError,
    },
};

/// The longest pause between two requests that are refused for now.
const LONGEST: Duration = Duration::from_secs(10);
/// The first pause: a run may have ended just now.
const FIRST: Duration = Duration::from_secs(1);
/// How long a refusal for want of a right is not believed: a server that has just started refuses what it allows otherwise.
const BELIEVED_AFTER: Duration = Duration::from_secs(30);

/// The wait of one run.
pub(super) struct Waiting<'a> {
    launcher: &'a KubernetesLauncher,
    id: AttemptId,
    claim_token: Uuid,
    lease: &'a Lease,
    begun: Instant,
    pause: Duration,
    /// What its row says.
    said: Option<String>,
}

impl<'a> Waiting<'a> {
    pub(super) fn new(
        launcher: &'a KubernetesLauncher,
        id: AttemptId,
        claim_token: Uuid,
        lease: &'a Lease,
    ) -> Self {
        Self { launcher, id, claim_token, lease, begun: Instant::now(), pause: FIRST, said: None }
    }

    /// Waits where this error may pass by itself; answers whether to try again. Otherwise the run was cancelled meanwhile, and its row
    /// says so. Errors: it does not pass, or has not in time.
    pub(super) async fn after(&mut self, context: &str, error: kube::Error) -> Result<bool, LaunchError> {
        let waited = self.begun.elapsed();
        let passes = passing(&error);
        let is_new_refusal = is_forbidden(&error) && !stays(&error) && waited < BELIEVED_AFTER;
        if passes.is_none() && !is_new_refusal {
            return Err(failure(context, error));
        }
        // A quota is free when other runs have ended, which takes as long as they take.
        let is_patient = matches!(passes, Some(Passing::Quota(_)));
        if !is_patient && waited >= self.launcher.inner.settings.start_deadline {
            return Err(LaunchError::Refused(format!(
                "{} within {:?}: {error}",
                capital(context),
                self.launcher.inner.settings.start_deadline
            )));
        }
        if let Some(passes) = passes {
            self.say(Some(passes.sentence())).await;
        }
        let pause = if is_new_refusal { BELIEVED_AFTER / 6 } else { self.pause };
        self.pause = (self.pause * 2).min(LONGEST);
        tokio::select! {
            () = sleep(pause) => return Ok(true),
            () = self.launcher.inner.observer.freed(), if is_patient => return Ok(true),
            () = self.lease.stop.wait() => {}
            () = self.launcher.asked_to_end(self.id) => {}
        }
        self.launcher.cancelled(self.id, self.claim_token).await;
        Ok(false)
    }

    /// It was taken.
    pub(super) async fn is_over(&mut self) {
        self.say(None).await;
    }

    async fn say(&mut self, sentence: Option<String>) {
        if sentence != self.said {
            self.launcher.inner.claims.say(self.id, self.claim_token, sentence.as_deref()).await;
            self.said = sentence;
        }
    }
}

/// What passes by itself.
enum Passing {
    /// Other runs end, and then there is room.
    Quota(String),
    /// A webhook that does not answer.
    Webhook(String),
    /// The API server itself.
    Server(String),
}

impl Passing {
    fn sentence(&self) -> String {
        match self {
            Self::Quota(why) => {
                format!("The namespace's quota is used up, so the run waits: {}", sentence(why))
            }
            Self::Webhook(why) => {
                format!(
                    "The cluster's admission webhook does not answer, so the run waits: {}",
                    sentence(why)
                )
            }
            Self::Server(why) => {
                format!("The Kubernetes API does not answer, so the run waits: {}", sentence(why))
            }
        }
    }
}

/// Whether an error passes by itself; none, if it is an answer that stays.
fn passing(error: &kube::Error) -> Option<Passing> {
    let status: &Status = match error {
        kube::Error::Api(status) => status,
        kube::Error::HyperError(_) | kube::Error::Service(_) | kube::Error::ReadEvents(_) => {
            return Some(Passing::Server(reasons(error)));
        }
        _ => return None,
    };
    let message = &status.message;
    if message.contains("exceeded quota") {
        let why = message.split_once("is forbidden: ").map_or(message.as_str(), |(_, why)| why);
        return Some(Passing::Quota(why.to_owned()));
    }
    if status.reason == "InternalError" && message.contains("webhook") {
        return Some(Passing::Webhook(message.clone()));
    }
    // A Job of this name is being deleted.
    let leaves = status.reason == "AlreadyExists";
    (leaves || status.code == 429 || status.code >= 500).then(|| Passing::Server(message.clone()))
}

/// Whether a quota on the number of Jobs is used up.
pub(super) fn is_full_of_jobs(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status)
        if status.message.contains("exceeded quota") && status.message.contains("jobs.batch"))
}

/// Whether a refusal is one that no server takes back.
fn stays(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if is_leaving(status))
}

fn is_forbidden(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 403)
}

/// An error and what caused it: what `kube` says by itself is only that a request failed.
fn reasons(error: &kube::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(next) = cause {
        let next_text = next.to_string();
        if !text.contains(&next_text) {
            text = format!("{text}: {next_text}");
        }
        cause = next.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: u16, reason: &str, message: &str) -> kube::Error {
        let status =
            Status { code, reason: reason.to_owned(), message: message.to_owned(), ..Status::default() };
        kube::Error::Api(status.into())
    }

    fn said(error: &kube::Error) -> Option<String> {
        passing(error).map(|passing| passing.sentence())
    }

    #[test]
    fn what_passes_by_itself_is_said_and_what_stays_is_not_waited_for() {
        let quota = refused(
            403,
            "Forbidden",
            "jobs.batch \"run\" is forbidden: exceeded quota: jobs, requested: count/jobs.batch=1, used: count/jobs.batch=5, limited: count/jobs.batch=5",
        );
        assert!(is_full_of_jobs(&quota));
        let text = said(&quota).unwrap();
        assert!(
            text.starts_with("The namespace's quota is used up, so the run waits: exceeded quota: jobs,"),
            "{text}"
        );
        let webhook = refused(500, "InternalError", "Internal error occurred: failed calling webhook \"a\"");
        assert!(said(&webhook).unwrap().contains("webhook does not answer"));
        for busy in [
            refused(429, "TooManyRequests", "Too many requests"),
            refused(504, "Timeout", "timeout"),
            refused(409, "AlreadyExists", "object is being deleted"),
        ] {
            assert!(said(&busy).is_some_and(|text| text.contains("API does not answer")), "{busy}");
        }
        for stays in [
            refused(403, "Forbidden", "jobs.batch is forbidden: User cannot create resource \"jobs\""),
            refused(422, "Invalid", "Job.batch \"run\" is invalid"),
            refused(404, "NotFound", "namespaces \"none\" not found"),
        ] {
            assert_eq!(said(&stays), None, "{stays}");
        }
    }
}
