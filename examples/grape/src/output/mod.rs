//! What a command shows: tables and sentences for people, JSON for programs.

pub mod progress;
pub mod style;
pub mod table;
pub mod time;

use std::{
    fmt::Display,
    io::{self, IsTerminal as _, Write as _},
};

use clap::ValueEnum;
use serde::Serialize;
use tendril_examples::screen::printable;

use self::style::{Style, Tone};
use crate::failure::{Failure, Result};

/// In which form a command answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Format {
    /// Tables and sentences.
    #[default]
    Text,
    /// One JSON document; one JSON object per line with `logs -f`, `watch`, `deploy` and `up`.
    Json,
}

/// Where a command's answer goes: stdout for the answer, stderr for what happens on the way.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    /// The form of the answer.
    pub format: Format,
    /// How text is coloured on stdout.
    pub style: Style,
    /// How text is coloured on stderr.
    pub notes: Style,
}

impl Output {
    /// For JSON.
    pub fn is_json(&self) -> bool {
        self.format == Format::Json
    }

    /// Whether a prompt is possible: there is a terminal, and the answer is not for a program.
    pub fn can_ask(&self) -> bool {
        !self.is_json() && io::stdin().is_terminal() && io::stderr().is_terminal()
    }

    /// One JSON document.
    ///
    /// # Errors
    /// If the reader is gone.
    pub fn json(&self, value: &impl Serialize) -> Result<()> {
        let text = serde_json::to_string_pretty(value).map_err(io::Error::from)?;
        line(text)
    }

    /// One JSON object on one line.
    ///
    /// # Errors
    /// If the reader is gone.
    pub fn json_line(&self, value: &impl Serialize) -> Result<()> {
        let text = serde_json::to_string(value).map_err(io::Error::from)?;
        line(text)
    }

    /// A line of the answer.
    ///
    /// # Errors
    /// If the reader is gone.
    pub fn line(&self, text: impl Display) -> Result<()> {
        line(text)
    }

    /// What happens on the way: on stderr, and not where a program reads the answer.
    pub fn note(&self, text: impl Display) {
        if !self.is_json() {
            eprintln!("{text}");
        }
    }

    /// Prints what went wrong and what to do, on stderr.
    pub fn failure(&self, failure: &Failure) {
        if failure.is_shown() {
            return;
        }
        if self.is_json() {
            eprintln!("{}", failure.to_json());
            return;
        }
        // What a failure repeats comes from servers, programs and files.
        let text = failure.to_string().lines().map(printable).collect::<Vec<_>>().join("\n");
        eprintln!("{} {text}", self.notes.paint(Tone::Bad, "grape:"));
        if let Some(next) = failure.next_step() {
            for (at, step) in next.lines().enumerate() {
                let mark = if at == 0 { "→" } else { " " };
                eprintln!("     {} {}", self.notes.paint(Tone::Dim, mark), printable(step));
            }
        }
    }
}

fn line(text: impl Display) -> Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).map_err(Failure::from)
}
