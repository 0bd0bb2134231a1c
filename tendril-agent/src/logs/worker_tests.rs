use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::{
    logs::spool::{Chunk, SpoolReader, SpoolRules},
    terraform::OutputReader,
};

fn chunks(path: &Path) -> Vec<Chunk> {
    let mut reader = SpoolReader::open(path).unwrap();
    std::iter::from_fn(|| reader.next_chunk().unwrap()).collect()
}

/// Output of every kind: plain, coloured, secret, JSON, an error, bytes that are no text.
const KINDS: [&[u8]; 12] = [
    b"plain",
    b"\n",
    b"\n",
    b"hunter2-hunter2",
    b"hunt",
    b"er2-hunter2",
    b"\x1b[31mred\x1b[0m",
    b"1%\r2%",
    b"{\"@level\":\"info\",\"@message\":\"said hunter2-\\u0068unter2\\nand more\"}",
    b"Error: no",
    b"\xff\0",
    "é\ttab".as_bytes(),
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn many_lines_at_once_are_treated_as_they_are_byte_by_byte(
        kinds in proptest::collection::vec(0..KINDS.len(), 0..30),
        cut in 0..200_usize,
    ) {
        let bytes: Vec<u8> = kinds.iter().flat_map(|kind| KINDS[*kind]).copied().collect();
        let (first, second) = bytes.split_at(cut.min(bytes.len()));
        let recorded = |portions: &mut dyn Iterator<Item = &[u8]>| {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("log");
            let rules = SpoolRules { flush_after: Duration::from_secs(9), limit: u64::MAX };
            let (spool, _reader) = LogSpool::create(&path, rules).unwrap();
            let redactor = Redactor::default();
            redactor.hide(["hunter2-hunter2".to_owned()]);
            let mut worker = LogWorker::new(spool, None, redactor, Box::new(OutputReader::default()));
            portions.for_each(|portion| worker.bytes(Stream::Stdout, portion, None));
            let (answer, mut findings) = oneshot::channel();
            worker.take(Entry::Ended(answer));
            worker.answer();
            worker.spool.finish();
            let text: String = chunks(&path).into_iter().map(|chunk| chunk.text).collect();
            (text, findings.try_recv().unwrap())
        };
        let at_once = recorded(&mut [first, second].into_iter());
        prop_assert!(!at_once.0.contains("hunter2-hunter2"), "{}", at_once.0);
        prop_assert_eq!(at_once, recorded(&mut bytes.chunks(1)));
    }
}

/// Processes that read a program's output from its journal, one after the other: each is killed.
struct Lives {
    dir: tempfile::TempDir,
    secret: &'static str,
    /// The one that lives.
    worker: LogWorker,
    /// How much the program wrote.
    written: u64,
}

const RULES: SpoolRules = SpoolRules { flush_after: Duration::from_secs(9), limit: u64::MAX };

fn worker(spool: LogSpool, journal: Journal, secret: &str) -> LogWorker {
    let redactor = Redactor::default();
    redactor.hide([secret.to_owned()]);
    LogWorker::new(spool, Some(Arc::new(journal)), redactor, Box::new(OutputReader::default()))
}

impl Lives {
    fn begin(secret: &'static str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::create(&dir.path().join("journal")).unwrap();
        std::fs::create_dir(dir.path().join("journal")).unwrap();
        let (spool, _) = LogSpool::create(&dir.path().join("log"), RULES).unwrap();
        Self { dir, secret, worker: worker(spool, journal, secret), written: 0 }
    }

    /// The program writes; the bytes are in the journal, and the process reads them if it lives for so long.
    fn write(&mut self, bytes: &[u8], is_read: bool) {
        let file = self.dir.path().join("journal/stdout");
        let mut file = std::fs::OpenOptions::new().append(true).create(true).open(file).unwrap();
        std::io::Write::write_all(&mut file, bytes).unwrap();
        self.written += bytes.len() as u64;
        if is_read {
            self.worker.bytes(Stream::Stdout, bytes, Some(self.written));
        }
    }

    /// It is killed when it has written a part of what it had for the spool, of 255 parts; another one goes on.
    fn kill(&mut self, part: u8) {
        let log = self.dir.path().join("log");
        let last = || {
            let names = std::fs::read_dir(&log).unwrap().map(|entry| entry.unwrap().file_name());
            names.filter_map(|name| name.to_str()?.parse::<u64>().ok()).max().unwrap()
        };
        let segment = log.join(last().to_string());
        let size = || std::fs::metadata(&segment).unwrap().len();
        let before = size();
        self.worker.spool.flush();
        let torn = before + (size() - before) * u64::from(part) / 255;
        std::fs::OpenOptions::new().write(true).open(&segment).unwrap().set_len(torn).unwrap();
        let (spool, _) = LogSpool::resume(&log, RULES).unwrap();
        let journal = Journal::resume(&self.dir.path().join("journal"), spool.offsets());
        self.worker = worker(spool, journal, self.secret);
        let journal = self.worker.journal.clone().unwrap();
        while let Some(portion) = journal.of(Stream::Stdout).unwrap().rest().unwrap() {
            self.worker.bytes(Stream::Stdout, &portion.bytes, portion.end);
        }
    }

    fn text(self) -> String {
        self.worker.finish();
        chunks(&self.dir.path().join("log")).into_iter().map(|chunk| chunk.text).collect()
    }
}

/// What may happen to a process that reads.
#[derive(Clone, Debug)]
enum Event {
    /// A portion of so many bytes comes.
    Portion(usize),
    /// It writes what it has into the spool.
    Flush,
    /// It gives out what waits for the rest of a secret.
    Due,
    /// It is killed; of the portion before, it may have read nothing.
    Kill(u8, bool),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => (1..400_usize).prop_map(Event::Portion),
        2 => Just(Event::Flush),
        1 => Just(Event::Due),
        3 => (any::<u8>(), any::<bool>()).prop_map(|(part, is_read)| Event::Kill(part, is_read)),
    ]
}

/// Plays the events over a text; what is left of it comes last.
fn play(secret: &'static str, mut text: &[u8], events: &[Event]) -> String {
    let mut lives = Lives::begin(secret);
    for event in events {
        match event {
            Event::Portion(size) => {
                let (portion, rest) = text.split_at((*size).min(text.len()));
                lives.write(portion, true);
                text = rest;
            }
            Event::Flush => lives.worker.spool.flush(),
            Event::Due => lives.worker.give_due(Instant::now() + Duration::from_secs(1)),
            Event::Kill(part, is_read) => {
                if !is_read {
                    let (portion, rest) = text.split_at(100.min(text.len()));
                    lives.write(portion, false);
                    text = rest;
                }
                lives.kill(*part);
            }
        }
    }
    lives.write(text, true);
    lives.text()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn processes_that_are_killed_anywhere_lose_and_double_no_line(
        kinds in proptest::collection::vec(0..KINDS.len(), 0..400),
        events in proptest::collection::vec(event(), 0..40),
    ) {
        let mut text = Vec::new();
        for (number, kind) in kinds.iter().enumerate() {
            text.extend_from_slice(KINDS[*kind]);
            text.extend_from_slice(format!(" {number}\n").repeat(number % 2).as_bytes());
        }
        let whole = play("no such secret", &text, &[]);
        // Nothing waits, so that a kill changes nothing.
        prop_assert_eq!(play("no such secret", &text, &events), whole);
        let (lines, shown) = (play("hunter2-hunter2", &text, &[]), play("hunter2-hunter2", &text, &events));
        let number = |line: &str| line.rsplit_once(' ').and_then(|(_, number)| number.parse::<u32>().ok());
        prop_assert_eq!(
            shown.lines().map(number).collect::<Vec<_>>(),
            lines.lines().map(number).collect::<Vec<_>>()
        );
    }
}

#[test]
fn a_line_of_many_mebibytes_goes_on_where_its_reader_was_killed() {
    let mut expected = String::new();
    let mut lives = Lives::begin("hunter2-hunter2");
    for number in 0..600 {
        let part = format!("{number:<10}").repeat(1000);
        lives.write(part.as_bytes(), number % 7 != 0);
        expected.push_str(&part);
        if number % 7 == 0 {
            lives.kill(u8::try_from(number % 256).unwrap());
        }
    }
    lives.write(b"end\nafter\n", true);
    let [from, _] = lives.worker.spool.positions().unwrap();
    assert!(from.offset > 4_000_000, "it would be read again from its beginning: {from:?}");
    let text = lives.text();
    assert!(text.ends_with("end\nafter\n"));
    assert_eq!(text.replace('\n', ""), format!("{expected}endafter"));
}

#[test]
fn a_message_whose_reader_is_killed_in_its_middle_shows_nothing_of_a_state() {
    let state = "topsecret".repeat(200_000);
    let line = format!(
        "{{\"@level\":\"info\",\"@message\":\"Emergency state dump\",\"state\":\"{state}\"}}\nafter\n"
    );
    for kills in [1, 3] {
        let mut lives = Lives::begin("hunter2-hunter2");
        lives.write(b"before\n", true);
        for (number, part) in line.as_bytes().chunks(60_000).enumerate() {
            lives.write(part, true);
            if number % (30 / kills) == 29 / kills {
                lives.kill(255);
            }
        }
        assert_eq!(lives.text(), "before\nEmergency state dump\nafter\n");
    }
}

#[test]
fn what_a_full_disk_kept_out_of_the_journal_doubles_and_moves_nothing() {
    let mut lives = Lives::begin("hunter2-hunter2");
    lives.write(b"one\ntwo\nthr", true);
    // As it comes where the journal takes nothing.
    lives.worker.bytes(Stream::Stdout, b"ee\nfour\nfi", None);
    lives.worker.spool.flush();
    lives.write(b"ve\nsix\n", true);
    lives.kill(255);
    lives.write(b"seven\n", true);
    lives.kill(0);
    lives.write(b"eight\n", true);
    assert_eq!(lives.text(), "one\ntwo\nthree\nfour\nfive\nsix\nseven\neight\n");
}

#[test]
fn the_output_of_another_program_is_read_from_its_beginning() {
    let mut lives = Lives::begin("hunter2-hunter2");
    lives.write(b"Error: of the first\nwithout end", true);
    let (answer, _) = oneshot::channel();
    lives.worker.take(Entry::Ended(answer));
    lives.write(b"of the second\n", true);
    lives.kill(255);
    lives.write(b"more\n", true);
    let findings = lives.worker.interpreter.take_findings();
    assert_eq!(findings.error, None);
    assert_eq!(lives.text(), "Error: of the first\nwithout end\nof the second\nmore\n");
}

#[test]
fn what_a_step_said_is_known_to_a_later_process() {
    let mut lives = Lives::begin("hunter2-hunter2");
    lives.write(b"Error: the cause\n\nof all\n", true);
    lives.kill(255);
    lives.write(b"and more\n", true);
    let findings = lives.worker.interpreter.take_findings();
    assert_eq!(findings.error.as_deref(), Some("the cause\n\nof all\nand more"));
    assert_eq!(lives.text(), "Error: the cause\n\nof all\nand more\n");
}
