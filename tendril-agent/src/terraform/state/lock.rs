//! A state lock that Terraform could not get: who holds it, since when, and whether it may be removed.

use jiff::{Timestamp, civil::DateTime, tz::TimeZone};
use serde::Deserialize;

use super::backend::{Kind, State};

/// How Terraform's error begins.
const SUMMARY: &str = "Error acquiring the state lock";

/// What is known about a lock; every field may be unknown.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Lock {
    /// The argument of `force-unlock`.
    #[serde(default, rename = "ID")]
    pub(crate) id: Option<String>,
    /// `OperationTypePlan`, `OperationTypeApply`, …
    #[serde(default)]
    pub(crate) operation: Option<String>,
    /// `user@host`.
    #[serde(default)]
    pub(crate) who: Option<String>,
    /// Terraform's version.
    #[serde(default)]
    pub(crate) version: Option<String>,
    /// When it was taken, by the owner's clock.
    #[serde(default)]
    pub(crate) created: Option<Timestamp>,
}

impl Lock {
    /// Reads Terraform's error, if it is one about the lock that it wanted itself: what a template's own programs print of locks
    /// is in the detail of another error.
    ///
    /// The backends `http` and `pg` show under "Lock Info" the lock that was requested, and not the one that is held (seen
    /// in Terraform 1.11): of those, only the ID in the message itself is taken.
    pub(crate) fn read(error: &str, kind: Kind) -> Option<Self> {
        if !error.starts_with(SUMMARY) || !is_held(error, kind) {
            return None;
        }
        let field = |name: &str| {
            let line = error.lines().find_map(|line| line.trim_start().strip_prefix(name))?;
            Some(line.trim().to_owned()).filter(|value| !value.is_empty())
        };
        Some(match kind {
            Kind::Pg => Self::default(),
            Kind::Http => {
                let words = words(error);
                let id =
                    words.split("already locked: ID=").nth(1).and_then(|rest| rest.split_whitespace().next());
                Self { id: id.map(str::to_owned), ..Self::default() }
            }
            Kind::Local | Kind::S3 | Kind::Kubernetes => Self {
                id: field("ID:"),
                operation: field("Operation:"),
                who: field("Who:"),
                version: field("Version:"),
                created: field("Created:").and_then(|text| time(&text)),
            },
        })
    }

    /// The host of `who`.
    pub(crate) fn host(&self) -> Option<&str> {
        self.who.as_deref()?.rsplit_once('@').map(|(_, host)| host)
    }

    /// Reads what a command about the state itself prints for people. No program of a template prints there.
    pub(crate) fn read_printed(text: &str, kind: Kind) -> Option<Self> {
        let at = text.find(&format!("Error: {SUMMARY}"))?;
        Self::read(&text[at + "Error: ".len()..], kind)
    }

    /// Why the run cannot go on, and what to do: for the deployment's user. `suspects` is a sentence about who may have left
    /// a lock whose owner is unknown, or empty.
    pub(crate) fn explain(&self, state: &State, ours: &str, suspects: &str, now: Timestamp) -> String {
        let who = self.who.as_deref().unwrap_or("an unknown owner");
        let operation = self.operation.as_deref().map_or_else(String::new, |operation| {
            format!(", for {}", operation.trim_start_matches("OperationType").to_lowercase())
        });
        let since =
            self.created.map_or_else(String::new, |then| format!(", since {then:.0} ({})", age(then, now)));
        let version =
            self.version.as_ref().map_or_else(String::new, |version| format!(", with version {version}"));
        let whose = match (&self.who, self.host().and_then(run_of_pod)) {
            (_, Some((pod, deployment, attempt))) => format!(
                "It was taken by the pod {pod}, which ran attempt {attempt} of deployment {deployment}. Whether that pod has ended is not known here, so the lock was not removed: if the cluster has no such pod any more, nobody uses it."
            ),
            (Some(who), _) if who == ours => {
                "It was taken on this agent's own host, but by no attempt of this agent that is known to be dead: it may be in use, and was not removed.".to_owned()
            }
            (Some(_), _) => "It is not this agent's lock, and was not removed.".to_owned(),
            (None, _) => format!("The backend does not show whose it is: it was not removed.{suspects}"),
        };
        let (key, kind) = (state.key(), state.kind());
        format!(
            "The state {key} ({}) is locked by {who}{operation}{since}{version}.\n{whose}\n{}",
            kind.name(),
            self.way_out(state)
        )
    }

    fn way_out(&self, state: &State) -> String {
        if state.kind().lock_ends_with_its_process() {
            return "This lock goes away with the process (or connection) that holds it: wait for it, or end it; then queue the deployment again.".to_owned();
        }
        let command = format!("terraform force-unlock {}", self.id.as_deref().unwrap_or("<lock ID>"));
        format!(
            "If nobody works on this state any more, remove the lock and queue the deployment again: {command}\nTo do so, {}",
            state.by_hand(&command)
        )
    }
}

/// A host that is the pod of a run, `tendril-<deployment>-<attempt>-…`: its name, deployment and attempt.
fn run_of_pod(host: &str) -> Option<(&str, &str, &str)> {
    const UUID: usize = 36;
    let rest = host.strip_prefix("tendril-")?;
    let (deployment, rest) = (rest.get(..UUID)?, rest.get(UUID..)?.strip_prefix('-')?);
    let (attempt, _) = rest.split_once('-')?;
    uuid::Uuid::parse_str(deployment).ok()?;
    attempt.parse::<u32>().ok()?;
    Some((host, deployment, attempt))
}

/// Whether somebody has the lock. Terraform calls every failure to take one so: a backend that is away, a missing right, a state
/// that it cannot read.
fn is_held(error: &str, kind: Kind) -> bool {
    let said = words(error).to_lowercase();
    let says = |parts: &[&str]| parts.iter().any(|part| said.contains(part));
    match kind {
        // These show the lock that was asked for, whatever the error is.
        Kind::Pg | Kind::Http => says(&["already locked"]),
        Kind::Local => says(&["lock info:", "temporarily unavailable"]),
        Kind::S3 => says(&["lock info:", "preconditionfailed", "conditionalcheckfailed"]),
        Kind::Kubernetes => says(&["lock info:", "already locked"]),
    }
}

/// In one line: a command that writes for people breaks lines anywhere.
pub(super) fn words(error: &str) -> String {
    error.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// As Go prints a time: `2026-11-23 17:19:23.666824349 +0000 UTC`.
fn time(text: &str) -> Option<Timestamp> {
    let civil: DateTime = text.strip_suffix(" +0000 UTC")?.parse().ok()?;
    TimeZone::UTC.to_timestamp(civil).ok()
}

fn age(then: Timestamp, now: Timestamp) -> String {
    let seconds = now.duration_since(then).as_secs();
    match seconds {
        ..0 => "in the future: the clocks differ".to_owned(),
        0..120 => format!("{seconds} seconds ago"),
        120..7200 => format!("{} minutes ago", seconds / 60),
        7200..172_800 => format!("{} hours ago", seconds / 3600),
        _ => format!("{} days ago", seconds / 86400),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::json;

    use super::*;
    use crate::terraform::state::backend::StateBackend;

    const S3: &str = "Error acquiring the state lock\nError message: operation error S3: PutObject, PreconditionFailed\nLock Info:\n  ID:        f1f03eb4-31d9-3097-f0e0-7c643bda5952\n  Path:      b/tendril/k.tfstate\n  Operation: OperationTypeApply\n  Who:       nonroot@agent-0\n  Version:   1.11.4\n  Created:   2026-11-23 17:19:23.666824349 +0000 UTC\n  Info:      \n\n\nTerraform acquires a state lock to protect the state from being written";
    const HTTP: &str = "Error acquiring the state lock\nError message: HTTP remote state already locked: ID=abc-1\nLock Info:\n  ID:        f1f03eb4\n  Who:       root@me\n  Created:   2026-11-23 17:19:23.666824349 +0000 UTC\n";

    const PG: &str = "Error acquiring the state lock\nError message: Workspace is already locked: default\nLock Info:\n  ID:        f1f03eb4\n";

    fn now() -> Timestamp {
        "2026-11-23T20:19:24Z".parse().unwrap()
    }

    fn state(kind: &str) -> State {
        let config = json!({"bucket": "b", "address": "https://s.example"}).to_string();
        StateBackend::read(Some(kind), Some(&config)).unwrap().of(Path::new("/state"), "k")
    }

    #[test]
    fn the_holder_is_read_and_explained_with_the_exact_command() {
        let lock = Lock::read(S3, Kind::S3).unwrap();
        assert_eq!(lock.who.as_deref(), Some("nonroot@agent-0"));
        let text = lock.explain(&state("s3"), "nonroot@agent-1", "", now());
        for part in [
            "The state k (s3) is locked by nonroot@agent-0, for apply, since 2026-11-23T17:19:23Z (3 hours ago), with version 1.11.4.",
            "It is not this agent's lock",
            "terraform force-unlock f1f03eb4-31d9-3097-f0e0-7c643bda5952",
            r#"{"terraform":{"backend":{"s3":{"address":"https://s.example","bucket":"b","key":"tendril/k.tfstate","use_lockfile":true}}}}"#,
        ] {
            assert!(text.contains(part), "{part} is missing in:\n{text}");
        }
        assert!(lock.explain(&state("s3"), "nonroot@agent-0", "", now()).contains("this agent's own host"));
    }

    #[test]
    fn the_pod_of_a_run_is_named_with_its_deployment() {
        let who = "tendril@tendril-0b6c7f6e-0000-4000-8000-000000000001-2-x7k2p".to_owned();
        let lock = Lock { who: Some(who), ..Lock::read(S3, Kind::S3).unwrap() };
        let text = lock.explain(&state("s3"), "tendril@another", "", now());
        for part in [
            "the pod tendril-0b6c7f6e-0000-4000-8000-000000000001-2-x7k2p",
            "attempt 2 of deployment 0b6c7f6e-0000-4000-8000-000000000001",
            "terraform force-unlock",
        ] {
            assert!(text.contains(part), "{part} is missing in:\n{text}");
        }
        for other in
            ["tendril-agent-0", "tendril-x-2-y", "laptop", "tendril-0b6c7f6e-0000-4000-8000-000000000001"]
        {
            assert_eq!(run_of_pod(other), None, "{other}");
        }
    }

    #[test]
    fn what_an_http_or_pg_backend_shows_as_the_holder_is_not_believed() {
        let lock = Lock::read(HTTP, Kind::Http).unwrap();
        assert_eq!(lock, Lock { id: Some("abc-1".to_owned()), ..Lock::default() });
        assert!(lock.explain(&state("http"), "root@me", "", now()).contains("terraform force-unlock abc-1"));
        let broken = HTTP.replace("already locked: ", "already locked:\n");
        assert_eq!(
            Lock::read(&broken, Kind::Http).unwrap().id.as_deref(),
            Some("abc-1"),
            "by its line's end"
        );
        let lock = Lock::read(PG, Kind::Pg).unwrap();
        assert_eq!(lock, Lock::default());
        let text = lock.explain(&state("pg"), "root@me", "", now());
        assert!(text.contains("goes away with the process") && !text.contains("force-unlock"), "{text}");
    }

    #[test]
    fn another_error_is_not_about_the_lock() {
        assert_eq!(Lock::read("Invalid reference\n  ID: 3", Kind::S3), None);
        let of_a_template = format!(
            "local-exec provisioner error\nError running command 'x': exit status 1. Output: Error: {S3}"
        );
        assert_eq!(Lock::read(&of_a_template, Kind::S3), None);
        let printed = Lock::read_printed(&format!("Warning: old\n\nError: {HTTP}"), Kind::Http).unwrap();
        assert_eq!(printed.id.as_deref(), Some("abc-1"));
        assert_eq!(Lock::read_printed("Error: Invalid reference", Kind::Http), None);
    }

    #[test]
    fn a_lock_that_cannot_be_taken_is_not_taken_for_a_held_one() {
        for (kind, message) in [
            (
                Kind::Local,
                "Unsupported state file format: The state file uses format\nversion 5, which is not supported by Terraform 1.11.4.",
            ),
            (Kind::Local, "open /state/k/terraform.tfstate: permission denied"),
            (
                Kind::S3,
                "operation error S3: PutObject, https response error StatusCode: 403, api error AccessDenied: no",
            ),
            (Kind::Http, "Unexpected HTTP response code 500"),
            (Kind::Pg, "pq: permission denied for function\nLock Info:\n  ID:        f1f03eb4"),
        ] {
            let error = format!(
                "Error acquiring the state lock\nError message: {message}\n\nTerraform acquires a state lock to protect"
            );
            assert_eq!(Lock::read(&error, kind), None, "{error}");
        }
    }
}
