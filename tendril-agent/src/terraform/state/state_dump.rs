//! What Terraform prints about its state while it runs: the whole state, where it can store it neither in its backend nor
//! in a file, and a lock that it could not give back. It stands in the bytes, before they become a log that may show neither.

use std::{
    io,
    sync::{Mutex, MutexGuard, PoisonError},
};

use futures_util::future::BoxFuture;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::backend::State;
use crate::{
    os::{
        blocking,
        files::{durable_dir, private_file},
    },
    process::{Sink, Stream, StreamJournal},
    template::Workspace,
};

/// How each of Terraform's messages begins.
const MESSAGE: &[u8] = b"{\"@level\":\"";
/// Its message then, where it contains the state.
const DUMP: &[u8] = b"\"@message\":\"Emergency state dump\"";
/// Its message where a lock is left.
const LOCK_LEFT: &[u8] = b"\"@message\":\"Error: Error releasing the state lock\"";
/// By then it has printed that.
const HEAD: usize = 96;

/// Passes on what a program writes, and listens. What it dumps is on disk before anything else is read.
pub(crate) struct StateDumpFilter<'a> {
    log: &'a dyn Sink,
    state: &'a State,
    workspace: &'a Workspace,
    parser: Mutex<DumpParser>,
}

#[derive(Default)]
struct DumpParser {
    line: Line,
    lock_left: bool,
    /// A state that nothing could take yet.
    homeless: Option<Vec<u8>>,
}

/// The line that has not ended yet.
#[derive(Default)]
struct Line {
    /// Its head; all of it, if it is a dump.
    text: Vec<u8>,
    kind: Kind,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Kind {
    #[default]
    Unknown,
    Dump,
    LockLeft,
    Other,
}

impl DumpParser {
    /// Takes bytes in any portions; answers the dumps that are complete with them.
    fn listen(&mut self, bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut parts = bytes.split(|byte| *byte == b'\n').peekable();
        let mut dumps = Vec::new();
        while let Some(part) = parts.next() {
            self.line.push(part);
            if parts.peek().is_some() {
                dumps.extend(self.end_line());
            }
        }
        dumps
    }

    fn end_line(&mut self) -> Option<Vec<u8>> {
        let Line { text, kind } = std::mem::take(&mut self.line);
        let kind = if kind == Kind::Unknown { Kind::of(&text) } else { kind };
        self.lock_left |= kind == Kind::LockLeft;
        (kind == Kind::Dump).then_some(text)
    }
}

impl Line {
    fn push(&mut self, mut part: &[u8]) {
        if self.kind == Kind::Unknown {
            let (head, rest) = part.split_at(part.len().min(HEAD - self.text.len()));
            self.text.extend_from_slice(head);
            if self.text.len() < HEAD {
                return;
            }
            (self.kind, part) = (Kind::of(&self.text), rest);
        }
        if self.kind == Kind::Dump {
            self.text.extend_from_slice(part);
        }
    }
}

impl Kind {
    fn of(head: &[u8]) -> Self {
        let contains = |message: &[u8]| head.windows(message.len()).any(|part| part == message);
        match head.starts_with(MESSAGE) {
            true if contains(DUMP) => Self::Dump,
            true if contains(LOCK_LEFT) => Self::LockLeft,
            _ => Self::Other,
        }
    }
}

impl<'a> StateDumpFilter<'a> {
    /// Listens for one program that works on this state.
    pub(crate) fn new(log: &'a dyn Sink, state: &'a State, workspace: &'a Workspace) -> Self {
        Self { log, state, workspace, parser: Mutex::default() }
    }

    /// Whether the program reported that it could not release its lock.
    pub(crate) fn lock_left(&self) -> bool {
        self.parser().lock_left
    }

    /// The program has ended: what could not be saved before may have room now. Errors: it cannot be saved.
    pub(crate) async fn finalize(&self) -> io::Result<()> {
        // A message that lacks nothing but its line's end.
        if let Some(dump) = { self.parser().end_line() } {
            self.save(&dump).await;
        }
        let Some(state) = ({ self.parser().homeless.take() }) else { return Ok(()) };
        let (place, workspace) = (self.state.clone(), self.workspace.clone());
        blocking(move || {
            workspace.free_space()?;
            save(&place, &workspace, &state)
        })
        .await
    }

    async fn listen(&self, stream: Stream, bytes: &[u8]) {
        if stream == Stream::Stdout {
            let dumps = self.parser().listen(bytes);
            for dump in dumps {
                self.save(&dump).await;
            }
        }
    }

    async fn save(&self, dump: &[u8]) {
        let Some(dump) = state_in(dump) else {
            tracing::error!("a state that Terraform printed was cut off and cannot be saved");
            return;
        };
        let (state, workspace, copy) = (self.state.clone(), self.workspace.clone(), dump.clone());
        if let Err(error) = blocking(move || save(&state, &workspace, &copy)).await {
            tracing::error!(%error, "a state that Terraform printed cannot be saved yet");
            self.parser().homeless = Some(dump);
        }
    }

    fn parser(&self) -> MutexGuard<'_, DumpParser> {
        // Nothing that holds the lock can leave it in halves.
        self.parser.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sink for StateDumpFilter<'_> {
    fn write(&self, stream: Stream, bytes: Vec<u8>) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.listen(stream, &bytes).await;
            self.log.write(stream, bytes).await;
        })
    }

    fn write_journaled(&self, stream: Stream, bytes: Vec<u8>, end: u64) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.listen(stream, &bytes).await;
            self.log.write_journaled(stream, bytes, end).await;
        })
    }

    fn journal(&self, stream: Stream) -> Option<&StreamJournal> {
        self.log.journal(stream)
    }
}

/// The state in a dump, byte by byte as it was written: a number that is read and written again may be another one.
fn state_in(dump: &[u8]) -> Option<Vec<u8>> {
    #[derive(Deserialize)]
    struct Dump<'a> {
        #[serde(borrow)]
        state: &'a RawValue,
    }
    let dump: Dump<'_> = serde_json::from_slice(dump).ok()?;
    Some(dump.state.get().as_bytes().to_vec())
}

/// Saves it where pending state is looked for, or at least in the workspace.
fn save(state: &State, workspace: &Workspace, dump: &[u8]) -> io::Result<()> {
    // Before it printed the state, Terraform gave up writing this file.
    workspace.drop_torn_state();
    let place = state.errored_state_path(&workspace.name());
    let beside = durable_dir(state.dir()).and_then(|()| private_file(&place, dump));
    beside.or_else(|error| {
        tracing::error!(place = %place.display(), %error, "a state cannot be saved in the state directory");
        private_file(&workspace.dumped_state(), dump)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As Terraform 1.11.4 prints it.
    const REAL: &str = concat!(
        r#"{"@level":"info","@message":"Emergency state dump","@module":"terraform.ui","@timestamp":"2026-11-25T15:06:03.597265Z","#,
        r#""state":{"version":4,"serial":1,"resources":[{"big":123456789012345678901234567890.10,"x":"x\u003c\u0026"}]},"type":"log"}"#
    );
    const STATE: &str = r#"{"version":4,"serial":1,"resources":[{"big":123456789012345678901234567890.10,"x":"x\u003c\u0026"}]}"#;
    const UNLOCK: &str = r#"{"@level":"error","@message":"Error: Error releasing the state lock","@module":"terraform.ui","type":"diagnostic"}"#;

    proptest! {
        #[test]
        fn a_dump_is_found_however_it_is_cut_and_is_kept_to_the_byte(
            before in "([ -~]{0,200}\n){0,3}", size in 1..400_usize, is_last in any::<bool>(),
        ) {
            let end = if is_last { "" } else { "\nmore\n" };
            let text = format!("{before}{REAL}{end}");
            let mut parser = DumpParser::default();
            let mut dumps: Vec<_> = text.as_bytes().chunks(size).flat_map(|part| parser.listen(part)).collect();
            dumps.extend(parser.end_line());
            prop_assert_eq!(dumps.len(), 1);
            prop_assert_eq!(state_in(&dumps[0]).unwrap(), STATE.as_bytes());
            prop_assert!(!parser.lock_left);
        }
    }

    #[test]
    fn only_terraforms_own_messages_count() {
        let mut parser = DumpParser::default();
        let output =
            r#"{"@level":"info","@message":"a.b: (local-exec): {\"@message\":\"Emergency state dump\"}"}"#;
        assert!(parser.listen(format!("{output}\nEmergency state dump\n{{}}\n").as_bytes()).is_empty());
        assert!(!parser.lock_left);
        assert!(parser.listen(format!("{UNLOCK}\n").as_bytes()).is_empty());
        assert!(parser.lock_left);
    }

    #[test]
    fn what_is_torn_is_no_state() {
        for length in 0..REAL.len() {
            assert_eq!(state_in(&REAL.as_bytes()[..length]), None, "{length}");
        }
    }
}
