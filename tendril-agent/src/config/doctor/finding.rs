//! What one check found, and how it is shown.

use std::fmt;

use crate::redaction::Redactor;

/// What one check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What was tried.
    pub check: &'static str,
    /// Nothing, if it is well; otherwise the cause and how to fix it.
    pub problem: Option<String>,
    /// What is worth knowing although it is well.
    pub note: Option<String>,
    /// What works and is dangerous all the same.
    pub warning: Option<String>,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let (None, Some(warning)) = (&self.problem, &self.warning) {
            return write!(f, "WARN  {}: {}", self.check, warning.replace('\n', "\n      "));
        }
        match (&self.problem, &self.note) {
            (None, None) => write!(f, "ok    {}", self.check),
            (None, Some(note)) => write!(f, "ok    {}: {note}", self.check),
            (Some(problem), _) => write!(f, "WRONG {}: {}", self.check, problem.replace('\n', "\n      ")),
        }
    }
}

impl Finding {
    /// It is well, or the cause and how to fix it.
    pub(super) fn new(check: &'static str, result: Result<(), String>) -> Self {
        Self { check, problem: result.err(), note: None, warning: None }
    }

    /// It is well, and this is worth knowing.
    pub(super) fn noted(check: &'static str, note: Option<String>) -> Self {
        Self { check, problem: None, note, warning: None }
    }

    /// What is quoted may hold what no log may show.
    pub(super) fn hide(&mut self, secrets: &Redactor) {
        for text in self.problem.iter_mut().chain(&mut self.note).chain(&mut self.warning) {
            *text = secrets.redact(text).into_owned();
        }
    }
}
