use std::fs;

use proptest::prelude::*;

use super::*;

const FLUSH: Duration = Duration::from_millis(500);

fn spool() -> (tempfile::TempDir, std::path::PathBuf, LogSpool) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let (spool, _) = LogSpool::create(&path, FLUSH).unwrap();
    (dir, path, spool)
}

fn chunks(path: &Path) -> Vec<Chunk> {
    let mut reader = SpoolReader::open(path).unwrap();
    std::iter::from_fn(|| reader.next_chunk().unwrap()).collect()
}

fn texts(path: &Path) -> Vec<(u64, Stream, String)> {
    chunks(path).into_iter().map(|chunk| (chunk.seq, chunk.stream, chunk.text)).collect()
}

#[test]
fn the_first_lines_are_cut_at_once_and_later_ones_are_gathered() {
    let (_dir, path, mut spool) = spool();
    let start = Instant::now();
    spool.append(Stream::Stdout, "one", start);
    assert_eq!(spool.next_due(), Some(start));
    spool.cut_due(start);
    let soon = start + Duration::from_millis(10);
    spool.append(Stream::Stdout, "two", soon);
    spool.cut_due(soon);
    spool.append(Stream::Stdout, "three", soon);
    assert_eq!(spool.next_due(), Some(start + FLUSH));
    spool.cut_due(start + FLUSH);
    spool.flush();
    let expected = [(1, Stream::Stdout, "one\n".to_owned()), (2, Stream::Stdout, "two\nthree\n".to_owned())];
    assert_eq!(texts(&path), expected);
}

#[test]
fn chunks_are_in_the_order_of_their_first_lines() {
    let (_dir, path, mut spool) = spool();
    let start = Instant::now();
    let at = |ms| start + Duration::from_millis(ms);
    spool.append(Stream::Agent, "first", at(0));
    spool.append(Stream::Stdout, "second", at(1));
    spool.append(Stream::Stderr, "third", at(2));
    let long = "x".repeat(CHUNK_LIMIT - 5);
    spool.append(Stream::Stdout, &long, at(3));
    spool.finish();
    let order: Vec<_> = texts(&path).into_iter().map(|(seq, stream, _)| (seq, stream)).collect();
    assert_eq!(order, [(1, Stream::Agent), (2, Stream::Stdout), (3, Stream::Stderr), (4, Stream::Stdout)]);
}

#[test]
fn a_remark_of_the_agent_stands_where_it_was_said() {
    let (_dir, path, mut spool) = spool();
    let now = Instant::now();
    for (stream, line) in [
        (Stream::Stdout, "before"),
        (Stream::Agent, "heading"),
        (Stream::Agent, "of two lines"),
        (Stream::Stdout, "after"),
        (Stream::Stderr, "too"),
    ] {
        spool.append(stream, line, now);
    }
    spool.finish();
    let text: Vec<String> = texts(&path).into_iter().map(|(_, _, text)| text).collect();
    assert_eq!(text, ["before\n", "heading\nof two lines\n", "after\n", "too\n"]);
}

#[test]
fn a_reader_waits_for_a_record_that_is_being_written() {
    let (_dir, path, mut spool) = spool();
    spool.append(Stream::Stdout, "whole", Instant::now());
    spool.cut_all(Instant::now());
    spool.flush();
    let content = fs::read(&path).unwrap();
    let partial = path.with_file_name("partial");
    for length in 0..content.len() {
        fs::write(&partial, &content[..length]).unwrap();
        let mut reader = SpoolReader::open(&partial).unwrap();
        assert_eq!(reader.next_chunk().unwrap(), None);
        fs::write(&partial, &content).unwrap();
        assert_eq!(reader.next_chunk().unwrap().unwrap().text, "whole\n");
    }
}

#[test]
fn a_line_longer_than_a_chunk_is_kept_in_parts() {
    let (_dir, path, mut spool) = spool();
    let line = "é".repeat(CHUNK_LIMIT);
    spool.append(Stream::Stdout, &line, Instant::now());
    spool.finish();
    let parts = chunks(&path);
    assert!(parts.iter().all(|chunk| chunk.text.len() <= CHUNK_LIMIT));
    assert_eq!(parts.iter().map(|chunk| chunk.text.trim_end()).collect::<String>(), line);
}

#[test]
fn a_chunk_is_a_row() {
    let chunk = Chunk {
        seq: 7,
        stream: Stream::Stderr,
        text: "a\n".to_owned(),
        ts: Timestamp::from_millisecond(1_732_379_999_123).unwrap(),
    };
    let expected = serde_json::json!({"seq": 7, "stream": "stderr", "log_chunk": "a\n", "ts": "2024-11-23T16:39:59.123Z"});
    assert_eq!(serde_json::to_value(chunk).unwrap(), expected);
}

/// What may happen to a spool.
#[derive(Clone, Debug)]
enum Step {
    Line(u8, String),
    Wait(u64),
    CutDue,
    Flush,
    /// The process dies: what was not flushed is gone, and this many bytes of the file's end are torn off if they
    /// belong to its last record.
    Crash(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => (0..3_u8, "[ -~é]{0,30}").prop_map(|(stream, line)| Step::Line(stream, line)),
        1 => (0..3_u8, Just("x".repeat(9000))).prop_map(|(stream, line)| Step::Line(stream, line)),
        2 => (0..800_u64).prop_map(Step::Wait),
        2 => Just(Step::CutDue),
        2 => Just(Step::Flush),
        1 => (0..20_u8).prop_map(Step::Crash),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn no_flushed_line_is_lost_doubled_or_moved_by_crashes(steps in proptest::collection::vec(step(), 0..60)) {
        let (_dir, path, mut spool) = spool();
        let mut now = Instant::now();
        let (mut pending, mut flushed): (Vec<(Stream, String)>, [Vec<String>; 3]) = Default::default();
        // Chunks that a reader has seen are uploaded, and must stay what they are for ever.
        let mut uploaded: Vec<Chunk> = Vec::new();
        for step in steps {
            match step {
                Step::Line(stream, line) => {
                    let stream = STREAMS[usize::from(stream)];
                    spool.append(stream, &line, now);
                    pending.push((stream, line));
                }
                Step::Wait(ms) => now += Duration::from_millis(ms),
                Step::CutDue => spool.cut_due(now),
                Step::Flush => {
                    spool.flush();
                    pending.drain(..).for_each(|(stream, line)| flushed[stream as usize].push(line));
                    uploaded = chunks(&path);
                }
                Step::Crash(torn) => {
                    drop(spool);
                    pending.clear();
                    let mut content = fs::read(&path).unwrap();
                    content.extend_from_slice(&b"o1732379999123 torn"[..usize::from(torn).min(19)]);
                    fs::write(&path, &content).unwrap();
                    (spool, _) = LogSpool::resume(&path, FLUSH).unwrap();
                    let now_read = chunks(&path);
                    prop_assert_eq!(&now_read[..uploaded.len()], &uploaded[..]);
                    uploaded = now_read;
                }
            }
        }
        spool.finish();
        pending.drain(..).for_each(|(stream, line)| flushed[stream as usize].push(line));
        let all = chunks(&path);
        prop_assert_eq!(&all[..uploaded.len()], &uploaded[..]);
        prop_assert!(all.iter().zip(1..).all(|(chunk, seq)| chunk.seq == seq));
        prop_assert!(all.iter().all(|chunk| chunk.text.len() <= CHUNK_LIMIT && chunk.text.ends_with('\n')));
        for stream in STREAMS {
            let text: String = all.iter().filter(|chunk| chunk.stream == stream).map(|chunk| chunk.text.as_str()).collect();
            let expected: String = flushed[stream as usize].iter().flat_map(|line| [line.as_str(), "\n"]).collect();
            prop_assert_eq!(text, expected);
        }
    }
}
