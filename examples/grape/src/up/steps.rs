//! The steps as they are shown: which one, how long, how it went.

use std::{
    io::IsTerminal as _,
    time::{Duration, Instant},
};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde_json::json;
use tendril_examples::screen::printable;

use crate::{
    failure::{Failure, Result},
    output::{Output, style::Tone, time::span},
};

/// All steps: on a terminal a line each, the running one with what it does; lines on stderr where there is none; JSON lines on
/// stdout for programs.
#[derive(Debug)]
pub(super) struct Steps {
    out: Output,
    lines: Option<MultiProgress>,
}

/// How a step went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Went {
    /// Something was done.
    Done,
    /// It was so already.
    Unchanged,
}

/// A step that runs.
#[derive(Debug)]
pub(super) struct Step<'a> {
    steps: &'a Steps,
    name: String,
    bar: ProgressBar,
    began: Instant,
}

impl Steps {
    pub(super) fn new(out: Output) -> Self {
        let terminal = !out.is_json() && std::io::stderr().is_terminal();
        Self { out, lines: terminal.then(MultiProgress::new) }
    }

    /// Begins a step.
    pub(super) fn begin(&self, name: impl Into<String>) -> Step<'_> {
        let name = name.into();
        let bar = match &self.lines {
            Some(lines) => {
                let bar = lines.add(ProgressBar::new_spinner());
                let template = if self.out.notes.coloured {
                    "{spinner:.cyan} {prefix:.bold} {elapsed:.dim} {wide_msg:.dim}"
                } else {
                    "{spinner} {prefix} {elapsed} {wide_msg}"
                };
                if let Ok(style) = ProgressStyle::with_template(template) {
                    bar.set_style(style);
                }
                bar.set_prefix(name.clone());
                bar.enable_steady_tick(Duration::from_millis(120));
                bar
            }
            None => ProgressBar::hidden(),
        };
        self.emit(&name, "started", None, None);
        Step { steps: self, name, bar, began: Instant::now() }
    }

    fn emit(&self, name: &str, state: &str, seconds: Option<f64>, failure: Option<&Failure>) {
        if self.out.is_json() {
            let line = json!({ "type": "step", "step": name, "state": state, "seconds": seconds, "message": failure.map(ToString::to_string) });
            let _ = self.out.json_line(&line);
        } else if self.lines.is_none() {
            let after = seconds
                .map_or_else(String::new, |seconds| format!(" ({})", span(Duration::from_secs_f64(seconds))));
            eprintln!("grape: {name}: {state}{after}");
        }
    }
}

impl Step<'_> {
    /// What it does now.
    pub(super) fn note(&self, text: &str) {
        let text = text.trim();
        if !text.is_empty() {
            self.bar.set_message(printable(text));
        }
    }

    /// Lets a question have the terminal.
    pub(super) async fn pause<T>(&self, question: impl Future<Output = T>) -> T {
        let Some(lines) = &self.steps.lines else { return question.await };
        self.bar.disable_steady_tick();
        let _ = lines.clear();
        let answer = question.await;
        self.bar.enable_steady_tick(Duration::from_millis(120));
        answer
    }

    /// Runs its work, and shows how it went.
    pub(super) async fn run(self, work: impl AsyncFnOnce(&Self) -> Result<Went>) -> Result<Went> {
        let outcome = work(&self).await;
        let took = self.began.elapsed();
        let (mark, tone, state) = match &outcome {
            Ok(Went::Done) => ("✓", Tone::Good, "done"),
            Ok(Went::Unchanged) => ("✓", Tone::Dim, "unchanged"),
            Err(_) => ("✗", Tone::Bad, "failed"),
        };
        if self.steps.lines.is_some() {
            let style = self.steps.out.notes;
            let how = match &outcome {
                Ok(Went::Unchanged) => "as it was".to_owned(),
                _ => span(took),
            };
            if let Ok(plain) = ProgressStyle::with_template("{msg}") {
                self.bar.set_style(plain);
            }
            let line = format!(
                "{} {} {}",
                style.paint(tone, mark),
                style.paint(Tone::Bold, &self.name),
                style.paint(Tone::Dim, how)
            );
            self.bar.finish_with_message(line);
        }
        self.steps.emit(&self.name, state, Some(took.as_secs_f64()), outcome.as_ref().err());
        outcome
    }
}
