//! How far each change of an apply got, from Terraform's machine-readable output.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde::Deserialize;
use serde_json::{Value, json};

/// Collects what the log's reader sees, until it is taken to be reported. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct ApplyProgress {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// Nothing is collected before the apply.
    is_on: bool,
    /// Addresses of which the first end is only half of the change.
    replaced: HashSet<String>,
    /// The last report of each address that was not taken yet.
    waiting: BTreeMap<String, Value>,
    /// When each change began.
    started: HashMap<String, String>,
}

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(rename = "@timestamp", default)]
    timestamp: Option<String>,
    hook: Hook,
}

#[derive(Deserialize)]
struct Hook {
    resource: Resource,
    #[serde(default)]
    elapsed_seconds: Option<f64>,
}

#[derive(Deserialize)]
struct Resource {
    addr: String,
}

impl ApplyProgress {
    /// The apply of a plan begins, which replaces these addresses.
    pub(crate) fn begin(&self, replaced: impl IntoIterator<Item = String>) {
        let mut state = self.state();
        state.is_on = true;
        state.replaced = replaced.into_iter().collect();
    }

    /// Reads one line of output.
    pub(crate) fn read(&self, line: &str) {
        // Most lines are none of these, and need not be parsed twice.
        if !line.contains("\"type\":\"apply_") || !self.state().is_on {
            return;
        }
        let Ok(Line { kind, timestamp, hook }) = serde_json::from_str::<Line<'_>>(line) else { return };
        let address = hook.resource.addr;
        let mut state = self.state();
        let report = match kind {
            "apply_start" => {
                let started = timestamp.unwrap_or_default();
                let started = state.started.entry(address.clone()).or_insert(started).clone();
                json!({"address": address, "status": "RUNNING", "started_at": started})
            }
            "apply_complete" if state.replaced.remove(&address) => return,
            "apply_complete" | "apply_errored" => json!({
                "address": address,
                "status": if kind == "apply_complete" { "DONE" } else { "FAILED" },
                "started_at": state.started.get(&address),
                "seconds": hook.elapsed_seconds,
            }),
            _ => return,
        };
        state.waiting.insert(address, report);
    }

    /// What is to be reported.
    pub(crate) fn take(&self) -> Vec<Value> {
        mem::take(&mut self.state().waiting).into_values().collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing that holds the lock can leave it in halves.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(kind: &str, address: &str) -> String {
        format!(
            r#"{{"@level":"info","@message":"x","@timestamp":"2026-01-01T00:00:00Z","hook":{{"resource":{{"addr":"{address}"}},"action":"create","elapsed_seconds":1.5}},"type":"{kind}"}}"#
        )
    }

    #[test]
    fn changes_run_and_end() {
        let progress = ApplyProgress::default();
        progress.read(&line("apply_start", "a.b"));
        assert!(progress.take().is_empty(), "the apply has not begun");
        progress.begin([]);
        progress.read(&line("apply_start", "a.b"));
        progress.read(&line("apply_progress", "a.b"));
        progress.read(&line("apply_start", "c.d"));
        progress.read(&line("apply_errored", "c.d"));
        let reports = progress.take();
        assert_eq!(
            reports[0],
            json!({"address": "a.b", "status": "RUNNING", "started_at": "2026-01-01T00:00:00Z"})
        );
        assert_eq!(reports[1]["status"], "FAILED");
        progress.read(&line("apply_complete", "a.b"));
        let done = progress.take();
        assert_eq!((&done[0]["status"], &done[0]["seconds"]), (&json!("DONE"), &json!(1.5)));
        assert!(progress.take().is_empty());
    }

    #[test]
    fn a_replacement_is_done_when_both_halves_are() {
        let progress = ApplyProgress::default();
        progress.begin(["a.b".to_owned()]);
        for kind in ["apply_start", "apply_complete", "apply_start"] {
            progress.read(&line(kind, "a.b"));
        }
        assert_eq!(progress.take()[0]["status"], "RUNNING");
        progress.read(&line("apply_complete", "a.b"));
        assert_eq!(progress.take()[0]["status"], "DONE");
    }

    #[test]
    fn what_is_no_report_is_none() {
        let progress = ApplyProgress::default();
        progress.begin([]);
        for text in ["\"type\":\"apply_start\"", "{\"type\":\"apply_start\"}", "", "plain"] {
            progress.read(text);
        }
        assert!(progress.take().is_empty());
    }
}
