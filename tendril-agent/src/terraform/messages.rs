//! One line of Terraform's output, read: JSON lines become what a person would have seen, anything else passes as it is.

use std::borrow::Cow;

use serde::Deserialize;

use crate::{
    job::{Changes, Findings},
    logs::Interpreter,
    os::text::without_torn_line,
    process::Stream,
    terraform::{
        apply_progress::ApplyProgress,
        long_message::LongMessage,
        plain_errors::{MOST_ERRORS, PlainErrors},
    },
};

/// What one line of output means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message<'a> {
    /// The readable lines, joined by `\n`.
    pub(crate) text: Cow<'a, str>,
    /// The event that it reports.
    pub(crate) event: Option<MessageEvent>,
}

/// Facts that the agent collects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum MessageEvent {
    /// How many resources a plan would change.
    Changes(Changes),
    /// An apply is complete, and has changed so many.
    Complete(Changes),
    /// Terraform's own explanation of an error.
    Error(String),
    /// A resource was changed.
    Applied,
}

/// The fields of a JSON line that are read. `state` of an emergency dump, values of outputs and snippets are not among
/// them, and so cannot reach the log.
#[derive(Deserialize)]
struct Line<'a> {
    #[serde(rename = "@message", borrow)]
    message: Cow<'a, str>,
    #[serde(default, borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(default)]
    changes: Option<Summary>,
    #[serde(default)]
    diagnostic: Option<Diagnostic>,
}

#[derive(Deserialize)]
struct Summary {
    add: u64,
    change: u64,
    remove: u64,
    #[serde(default)]
    import: u64,
    /// What was done: `plan`, `apply` or `destroy`.
    #[serde(default)]
    operation: String,
}

/// Terraform's explanation of an error or a warning.
#[derive(Deserialize)]
struct Diagnostic {
    severity: String,
    summary: String,
    #[serde(default)]
    detail: String,
    #[serde(default)]
    address: Option<String>,
    #[serde(default)]
    range: Option<Range>,
}

#[derive(Deserialize)]
struct Range {
    filename: String,
    start: Position,
}

#[derive(Deserialize)]
struct Position {
    line: u64,
}

/// How Terraform begins each of its messages.
const MESSAGE_START: &str = "{\"@level\":";

/// Reads one line.
pub(crate) fn read(line: &str) -> Message<'_> {
    let parsed = line.starts_with('{').then(|| serde_json::from_str::<Line<'_>>(line).ok()).flatten();
    match parsed {
        // A message that was torn when Terraform was killed: which part of it is state is unknown.
        None if line.starts_with(MESSAGE_START) => Message {
            text: Cow::Borrowed("… (a message of Terraform that was cut off was left out)"),
            event: None,
        },
        None => Message { text: Cow::Borrowed(line), event: None },
        Some(Line { diagnostic: Some(diagnostic), .. }) => {
            let text = diagnostic.text();
            let event = (diagnostic.severity == "error").then(|| MessageEvent::Error(text.clone()));
            let label = if diagnostic.severity == "error" { "Error" } else { "Warning" };
            Message { text: Cow::Owned(format!("{label}: {text}")), event }
        }
        Some(line) => {
            let changes = line.changes.map(|Summary { add, change, remove, import, operation }| {
                let changes = Changes { add, change, remove, import, details: None };
                if matches!(&*operation, "apply" | "destroy") {
                    MessageEvent::Complete(changes)
                } else {
                    MessageEvent::Changes(changes)
                }
            });
            let applied = (line.kind == "apply_complete").then_some(MessageEvent::Applied);
            Message { text: line.message, event: changes.or(applied) }
        }
    }
}

impl Diagnostic {
    /// Summary, place and detail, as Terraform orders them.
    fn text(&self) -> String {
        let mut text = self.summary.clone();
        let file = self.range.as_ref().map(|range| format!("{}:{}", range.filename, range.start.line));
        let place = [
            self.address.clone().map(|address| format!("with {address}")),
            file.map(|file| format!("on {file}")),
        ];
        let place: Vec<String> = place.into_iter().flatten().collect();
        if !place.is_empty() {
            text.push_str("\n  ");
            text.push_str(&place.join(", "));
        }
        let detail = without_torn_output(&self.detail);
        let detail = detail.trim_end();
        if !detail.is_empty() {
            text.push('\n');
            text.push_str(detail);
        }
        text
    }
}

/// What `local-exec` puts before the end of a command's output, and how many bytes it stores of that
/// (`internal/builtin/provisioners/local-exec`, `maxBufSize`).
const OUTPUT: &str = ". Output: ";
const OUTPUT_LIMIT: usize = 8 * 1024;

/// Leaves out the line that Terraform has cut: the log has shown the whole of it, and the redactor does not recognize a part of a
/// secret.
fn without_torn_output(detail: &str) -> Cow<'_, str> {
    let after = |at: usize| at + OUTPUT.len();
    let is_cut = |at: &usize| detail.len() - after(*at) >= OUTPUT_LIMIT;
    let found = detail.match_indices(OUTPUT).map(|(at, _)| at).find(is_cut);
    let Some(at) = found.filter(|_| detail.starts_with("Error running command '")) else {
        return Cow::Borrowed(detail);
    };
    let (head, output) = detail.split_at(after(at));
    Cow::Owned(match without_torn_line(output) {
        "" => format!("{head}… (one long line, which the log has above)"),
        whole => format!("{head}…\n{whole}"),
    })
}

/// Reads Terraform's output for a job's log.
#[derive(Debug, Default)]
pub(crate) struct OutputReader {
    progress: ApplyProgress,
    plain_errors: PlainErrors,
    errors: Vec<String>,
    findings: Findings,
    /// The line of each stream that is too long to be read as a whole.
    long: [Option<LongLine>; 2],
}

/// A line that comes in fragments.
#[derive(Debug)]
enum LongLine {
    Text,
    /// Of a message only its text for people is read.
    Message(LongMessage),
}

/// How many errors of a program are quoted; the others are counted.
const QUOTED: usize = 5;

impl OutputReader {
    /// One that also collects how far an apply gets.
    pub(crate) fn collecting(progress: ApplyProgress) -> Self {
        Self { progress, ..Self::default() }
    }

    fn add_error(&mut self, error: String) {
        if self.errors.len() == MOST_ERRORS {
            self.findings.further_errors += 1;
        } else {
            self.errors.push(error);
        }
    }
}

impl Interpreter for OutputReader {
    fn may_pass(&self, stream: Stream, text: &str) -> bool {
        self.plain_errors.may_pass(stream, text)
    }

    fn read<'a>(&mut self, stream: Stream, line: &'a str) -> Cow<'a, str> {
        self.progress.read(line);
        let message = read(line);
        match message.event {
            Some(MessageEvent::Changes(changes)) => self.findings.changes = Some(changes),
            Some(MessageEvent::Complete(changes)) => {
                self.findings.changes = Some(changes);
                self.findings.is_complete = true;
            }
            Some(MessageEvent::Error(error)) => self.add_error(error),
            Some(MessageEvent::Applied) => self.findings.applied += 1,
            None => self.plain_errors.read(stream, &message.text),
        }
        message.text
    }

    fn read_fragment<'a>(
        &mut self,
        stream: Stream,
        fragment: &'a str,
        goes_on: bool,
    ) -> Option<Cow<'a, str>> {
        let place = &mut self.long[usize::from(stream == Stream::Stderr)];
        let line = place.take().unwrap_or_else(|| {
            if fragment.starts_with("{\"") {
                LongLine::Message(LongMessage::default())
            } else {
                LongLine::Text
            }
        });
        match line {
            LongLine::Text => {
                *place = goes_on.then_some(LongLine::Text);
                Some(Cow::Borrowed(fragment))
            }
            LongLine::Message(mut message) => {
                let output = message.push(fragment).map(Cow::Owned);
                if goes_on {
                    *place = Some(LongLine::Message(message));
                    return output;
                }
                if let Some(error) = message.error() {
                    self.add_error(error);
                }
                match (output, message.end()) {
                    (Some(output), Some(note)) => Some(Cow::Owned(format!("{output}\n{note}"))),
                    (output, note) => output.or(note.map(Cow::Borrowed)),
                }
            }
        }
    }

    fn is_plain_inside(&self, stream: Stream) -> bool {
        matches!(self.long[usize::from(stream == Stream::Stderr)], Some(LongLine::Text))
    }

    fn begin_inside(&mut self, stream: Stream) {
        self.long[usize::from(stream == Stream::Stderr)] = Some(LongLine::Text);
    }

    fn take_findings(&mut self) -> Findings {
        let plain = std::mem::take(&mut self.plain_errors);
        let mut errors = std::mem::take(&mut self.errors);
        let mut findings = std::mem::take(&mut self.findings);
        if errors.is_empty() {
            findings.further_errors += plain.further();
            errors = plain.into_errors();
        }
        findings.further_errors += errors.len().saturating_sub(QUOTED);
        errors.truncate(QUOTED);
        findings.error = (!errors.is_empty()).then(|| errors.join("\n\nError: "));
        findings
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CHANGES: &str = r#"{"@level":"info","@message":"Plan: 1 to add, 2 to change, 3 to destroy.","@module":"terraform.ui","@timestamp":"2026-11-23T16:19:46.488132Z","changes":{"add":1,"change":2,"import":4,"remove":3,"operation":"plan"},"type":"change_summary"}"#;
    const ERROR: &str = r#"{"@level":"error","@message":"Error: local-exec provisioner error","@module":"terraform.ui","@timestamp":"2026-11-23T16:19:46.919530Z","diagnostic":{"severity":"error","summary":"local-exec provisioner error","detail":"Error running command 'exit 3': exit status 3. Output: no\n","address":"terraform_data.b","range":{"filename":"bad.tf","start":{"line":2,"column":30,"byte":61},"end":{"line":2,"column":31,"byte":62}},"snippet":{"context":null,"code":"secret","start_line":2,"highlight_start_offset":29,"highlight_end_offset":30,"values":[]}},"type":"diagnostic"}"#;
    const DUMP: &str = r#"{"@level":"error","@message":"Emergency state dump","@module":"terraform.ui","type":"log","state":{"resources":["topsecret"]}}"#;

    #[test]
    fn a_change_summary_is_a_sentence_and_numbers() {
        let message = read(CHANGES);
        assert_eq!(message.text, "Plan: 1 to add, 2 to change, 3 to destroy.");
        assert_eq!(
            message.event,
            Some(MessageEvent::Changes(Changes { add: 1, change: 2, remove: 3, import: 4, details: None }))
        );
    }

    #[test]
    fn the_summary_of_an_apply_says_that_it_is_complete() {
        for (operation, is_complete) in [("plan", false), ("apply", true), ("destroy", true)] {
            let mut reader = OutputReader::collecting(ApplyProgress::default());
            let summary =
                CHANGES.replace("\"operation\":\"plan\"", &format!("\"operation\":\"{operation}\""));
            let _text = reader.read(Stream::Stdout, &summary);
            let findings = reader.take_findings();
            assert_eq!(
                (findings.is_complete, findings.changes.is_some()),
                (is_complete, true),
                "{operation}"
            );
        }
    }

    #[test]
    fn a_line_that_terraform_cut_apart_is_left_out() {
        let command = "Error running command 'echo . Output: x': exit status 1. Output: ";
        let lines = |count: usize| "a line with a secret\n".repeat(count);
        let whole = format!("{command}{}FATAL", lines(100));
        assert_eq!(without_torn_output(&whole), whole);
        let torn = format!("{command}ret\n{}FATAL", lines(400));
        let shown = without_torn_output(&torn);
        assert!(!shown.contains("ret\na line") || shown.contains("secret\na line"), "{shown}");
        assert!(
            !shown.contains(" ret") && shown.contains("…\na line") && shown.ends_with("FATAL"),
            "{shown}"
        );
        let one = format!("{command}{}", "x".repeat(OUTPUT_LIMIT));
        assert!(!without_torn_output(&one).contains("xx"));
        let other = format!("It failed. Output: {}", "x".repeat(OUTPUT_LIMIT));
        assert_eq!(without_torn_output(&other), other);
    }

    #[test]
    fn an_error_keeps_its_place_and_detail() {
        let expected = "local-exec provisioner error\n  with terraform_data.b, on bad.tf:2\nError running command 'exit 3': exit status 3. Output: no";
        let message = read(ERROR);
        assert_eq!(message.text, format!("Error: {expected}"));
        assert_eq!(message.event, Some(MessageEvent::Error(expected.to_owned())));
    }

    #[test]
    fn an_error_that_is_too_long_for_one_line_is_the_reason_all_the_same() {
        let message = format!("Error: Resource precondition failed: {} the end", "word ".repeat(20_000));
        let line = format!(r#"{{"@level":"error","@message":"{message}","type":"diagnostic"}}"#);
        let mut reader = OutputReader::default();
        let pieces: Vec<&str> =
            line.as_bytes().chunks(30_000).map(|piece| std::str::from_utf8(piece).unwrap()).collect();
        for (at, piece) in pieces.iter().enumerate() {
            let _text = reader.read_fragment(Stream::Stdout, piece, at + 1 < pieces.len());
        }
        let error = reader.take_findings().error.unwrap();
        assert!(error.starts_with("Resource precondition failed: word word"), "{error:.80}");
        assert!(error.len() < 10_000 && error.ends_with("was left out)"), "{}", error.len());
    }

    #[test]
    fn an_emergency_dump_keeps_the_state_to_itself() {
        assert_eq!(read(DUMP).text, "Emergency state dump");
    }

    #[test]
    fn a_message_that_was_cut_off_keeps_what_it_holds_to_itself() {
        for length in MESSAGE_START.len()..DUMP.len() {
            assert!(!read(&DUMP[..length]).text.contains("topsecret"), "{length}");
        }
    }

    proptest! {
        #[test]
        fn what_is_no_message_passes_as_it_is(line in "\\{?.{0,200}") {
            let message = read(&line);
            if serde_json::from_str::<serde_json::Value>(&line).is_err() && !line.starts_with(MESSAGE_START) {
                prop_assert_eq!(message.text.as_ref(), line.as_str());
                prop_assert_eq!(message.event, None);
            }
        }
    }
}
