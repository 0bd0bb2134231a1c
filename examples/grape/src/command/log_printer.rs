//! Prints what becomes of a deployment: its log, its states and its end.

use serde_json::json;
use tendril_examples::{log::Chunk, screen::printable};

use crate::{
    control_plane::deployment::Deployment,
    failure::Result,
    output::{
        Output,
        style::Tone,
        time::{between, span},
    },
};

/// Prints what becomes of a deployment: lines for people, one JSON object a line for programs.
#[derive(Debug)]
pub(super) struct Printer {
    out: Output,
    timestamps: bool,
    state: String,
}

impl Printer {
    /// A printer that has printed nothing.
    pub(super) fn new(out: Output, timestamps: bool) -> Self {
        Self { out, timestamps, state: String::new() }
    }

    /// The lines of a chunk. In JSON each is an object, with its text as it is.
    pub(super) fn chunk(&mut self, chunk: &Chunk) -> Result<()> {
        for line in chunk.lines() {
            if self.out.is_json() {
                self.out.json_line(&json!({
                    "type": "log", "attempt": chunk.attempt, "seq": chunk.seq, "stream": chunk.stream, "time": chunk.ts, "line": line,
                }))?;
                continue;
            }
            let tone = match chunk.stream.as_str() {
                "stderr" => Tone::Attention,
                "agent" => Tone::Active,
                _ => Tone::Plain,
            };
            let text = self.out.style.paint(tone, printable(line));
            match chunk.ts.filter(|_| self.timestamps) {
                Some(time) => {
                    let time = self.out.style.paint(Tone::Dim, format_args!("{time:.3}"));
                    self.out.line(format_args!("{time} {text}"))?;
                }
                None => self.out.line(text)?,
            }
        }
        Ok(())
    }

    /// The state of a row, where it is new. People see it on stderr: the log alone is the answer.
    pub(super) fn status(&mut self, row: &Deployment) -> Result<()> {
        let state = format!("{} {}", row.status, row.phase.as_deref().unwrap_or_default());
        if self.state == state {
            return Ok(());
        }
        self.state = state;
        if self.out.is_json() {
            return self.out.json_line(&json!({
                "type": "status", "id": row.id, "status": row.status, "phase": row.phase, "attempt": row.attempt,
                "waits_for_approval": row.waits_for_approval(), "plan_sha256": row.plan_sha256, "plan_summary": row.plan_summary,
            }));
        }
        if row.status == "QUEUED" && row.attempt > 0 {
            self.out.note("The agent was lost; the deployment is queued again.");
        }
        if row.phase.as_deref() == Some("UNKNOWN") {
            self.out.note(
                self.out.notes.paint(Tone::Attention, "The agent is silent; what it does is not known."),
            );
        }
        Ok(())
    }

    /// How it ended, or where it was left.
    pub(super) fn end(&mut self, row: &Deployment) -> Result<()> {
        if self.out.is_json() {
            return self.out.json_line(&json!({ "type": "end", "deployment": row }));
        }
        let out = self.out;
        let took = row
            .finished_at
            .map(|end| format!(" after {}", span(between(row.created_at, end))))
            .unwrap_or_default();
        let code = row.reason().map_or_else(String::new, |code| format!(", {code}"));
        let state = if row.is_finished() { &row.status } else { row.state() };
        out.note(format_args!("{}{took}{code}", out.notes.paint(Tone::of_status(state), state)));
        for line in row.error_message.iter().flat_map(|message| message.lines()) {
            out.note(format_args!("  {}", printable(line)));
        }
        for (name, value) in row.outputs.iter().flatten() {
            out.note(format_args!("  {} = {}", printable(name), printable(&value.to_string())));
        }
        Ok(())
    }
}
