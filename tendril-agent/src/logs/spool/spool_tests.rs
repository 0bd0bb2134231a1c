use std::fs;

use proptest::prelude::*;

use super::*;

const FLUSH: Duration = Duration::from_millis(500);
const RULES: SpoolRules = SpoolRules { flush_after: FLUSH, limit: u64::MAX };

fn spool() -> (tempfile::TempDir, std::path::PathBuf, LogSpool) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let (spool, _) = LogSpool::create(&path, RULES).unwrap();
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
    assert_eq!(spool.next_due(), Some(start + RULES.cut_after()));
    spool.cut_due(start + RULES.cut_after());
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
    let content = fs::read(path.join("1")).unwrap();
    let partial = path.with_file_name("partial");
    fs::create_dir(&partial).unwrap();
    let cut = content.windows(3).position(|record| record == b"co\n").unwrap();
    for length in 0..cut + 3 {
        fs::write(partial.join("1"), &content[..length]).unwrap();
        let mut reader = SpoolReader::open(&partial).unwrap();
        assert_eq!(reader.next_chunk().unwrap(), None);
        fs::write(partial.join("1"), &content).unwrap();
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

/// The segments that are on disk.
fn spool_files(dir: &Path) -> Vec<u64> {
    let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut numbers: Vec<u64> = names.filter_map(|name| name.parse().ok()).collect();
    numbers.sort_unstable();
    numbers
}

/// A spool that may hold `limit` bytes, with its reader.
fn small_spool(limit: u64) -> (tempfile::TempDir, std::path::PathBuf, LogSpool, SpoolReader) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let (spool, reader) = LogSpool::create(&path, SpoolRules { flush_after: FLUSH, limit }).unwrap();
    (dir, path, spool, reader)
}

/// Writes the lines `from` to `to`, as a program that is read in small portions.
fn count(spool: &mut LogSpool, from: u64, to: u64) {
    for number in from..=to {
        spool.append(Stream::Stdout, &format!("line {number}"), Instant::now());
        if number.is_multiple_of(10) {
            spool.flush();
        }
    }
    spool.flush();
}

/// Everything that can be read, and the numbers of its lines.
fn read_all(reader: &mut SpoolReader) -> (Vec<Chunk>, Vec<u64>) {
    let chunks: Vec<Chunk> = std::iter::from_fn(|| reader.next_chunk().unwrap()).collect();
    let lines = chunks.iter().flat_map(|chunk| chunk.text.lines());
    let numbers = lines.filter_map(|line| line.strip_prefix("line ")?.parse().ok()).collect();
    (chunks, numbers)
}

#[test]
fn what_is_stored_is_removed_and_the_numbers_go_on() {
    let (_dir, path, mut spool, mut reader) = small_spool(1 << 19);
    count(&mut spool, 1, 10_000);
    let (first, _) = read_all(&mut reader);
    assert!(spool_files(&path).len() > 2, "{:?}", spool_files(&path));
    reader.forget(reader.seq()).unwrap();
    assert_eq!(spool_files(&path).len(), 1);
    count(&mut spool, 10_001, 20_000);
    drop(spool);

    // The later run continues the numbers though the files are gone.
    let (spool, mut reader) = LogSpool::resume(&path, RULES).unwrap();
    spool.finish();
    let (rest, numbers) = read_all(&mut reader);
    assert!(rest[0].seq <= first.last().unwrap().seq + 1);
    assert!(rest.windows(2).all(|pair| pair[0].seq + 1 == pair[1].seq));
    assert_eq!(numbers.last(), Some(&20_000));
    assert!(numbers[0] <= 10_001);
}

#[test]
fn beyond_the_limit_head_and_tail_are_kept_with_one_marker() {
    let limit = 256 * 1024;
    let (_dir, path, mut spool, mut reader) = small_spool(limit);
    count(&mut spool, 1, 100_000);
    let on_disk: u64 =
        spool_files(&path).iter().map(|n| fs::metadata(path.join(n.to_string())).unwrap().len()).sum();
    assert!(on_disk <= limit + limit / 8, "{on_disk} bytes");
    spool.finish();
    let (chunks, numbers) = read_all(&mut reader);
    let markers: Vec<&Chunk> = chunks.iter().filter(|chunk| chunk.stream == Stream::Agent).collect();
    assert_eq!(markers.len(), 1, "{markers:?}");
    let missing: u64 = markers[0].text.split(' ').nth(1).unwrap().parse().unwrap();
    assert_eq!(missing + numbers.len() as u64, 100_000, "the marker counts what is missing");
    assert!(chunks.iter().zip(1..).all(|(chunk, seq)| chunk.seq == seq));
    let head = numbers.iter().zip(1..).take_while(|(number, place)| *number == place).count();
    assert!(head > numbers.len() / 4 && head < numbers.len() * 3 / 4, "{head} of {}", numbers.len());
    assert!(numbers[head..].windows(2).all(|pair| pair[0] + 1 == pair[1]));
    assert_eq!(numbers.last(), Some(&100_000));
}

#[test]
fn a_crash_beside_a_gap_moves_no_number() {
    let (_dir, path, mut spool, mut reader) = small_spool(256 * 1024);
    count(&mut spool, 1, 100_000);
    let (before, _) = read_all(&mut reader);
    count(&mut spool, 100_001, 160_000);
    drop((spool, reader));
    let (spool, mut reader) = LogSpool::resume(&path, SpoolRules { limit: 256 * 1024, ..RULES }).unwrap();
    spool.finish();
    let (after, _) = read_all(&mut reader);
    // What a reader has read it reads again under the same number.
    for (old, new) in before.iter().zip(&after) {
        assert_eq!(old.seq, new.seq);
        if old.stream != Stream::Agent {
            assert_eq!(old.text, new.text);
        }
    }
    assert!(after.iter().zip(1..).all(|(chunk, seq)| chunk.seq == seq));
}

#[test]
fn chunks_that_are_stored_are_passed_and_numbers_follow_even_lost_ones() {
    let (_dir, path, mut spool, mut reader) = small_spool(u64::MAX);
    for line in ["one", "two", "three"] {
        spool.append(Stream::Stdout, line, Instant::now());
        spool.cut_all(Instant::now());
    }
    spool.flush();
    assert!(reader.skip_to(2).unwrap());
    assert_eq!(reader.next_chunk().unwrap().unwrap().text, "three\n");
    drop((spool, reader));
    // The database has more than a power cut left on disk.
    let (mut spool, mut reader) = LogSpool::resume(&path, RULES).unwrap();
    assert!(!reader.skip_to(5).unwrap());
    spool.append(Stream::Agent, "after", Instant::now());
    spool.finish();
    assert_eq!(reader.next_chunk().unwrap().map(|chunk| chunk.seq), Some(6));
}

#[tokio::test]
async fn after_a_restart_the_first_new_chunk_is_told_at_once() {
    let (_dir, path, mut spool, _) = small_spool(u64::MAX);
    for line in ["one", "two", "three"] {
        spool.append(Stream::Stdout, line, Instant::now());
        spool.cut_all(Instant::now());
    }
    drop(spool);
    let (mut spool, mut reader) = LogSpool::resume(&path, RULES).unwrap();
    assert!(!reader.more().await);
    assert_eq!(std::iter::from_fn(|| reader.next_chunk().unwrap()).count(), 0, "nothing was flushed");
    spool.append(Stream::Stdout, "four", Instant::now());
    spool.cut_all(Instant::now());
    spool.flush();
    let more = tokio::time::timeout(Duration::from_secs(5), reader.more());
    assert_eq!(more.await, Ok(false), "it does not wait for as many chunks as there were before");
    assert_eq!(reader.next_chunk().unwrap().unwrap().text, "four\n");
}

#[test]
fn what_an_earlier_life_wrote_is_dropped_only_once_its_numbers_are_known_and_with_a_marker() {
    let (limit, whole) = (256 * 1024, 30_000);
    let (_dir, path, mut spool, mut reader) = small_spool(1 << 20);
    count(&mut spool, 1, whole);
    let (before, _) = read_all(&mut reader);
    drop((spool, reader));
    let (mut spool, mut reader) = LogSpool::resume(&path, SpoolRules { limit, ..RULES }).unwrap();
    count(&mut spool, whole + 1, whole + 20_000);
    // The database has the first five.
    assert!(reader.skip_to(5).unwrap());
    count(&mut spool, whole + 20_001, whole + 40_000);
    spool.finish();
    let (after, numbers) = read_all(&mut reader);
    assert_eq!((after[0].seq, &after[0].text), (6, &before[5].text));
    let recorded: usize = before[..5].iter().map(|chunk| chunk.text.lines().count()).sum();
    let missing: usize = after
        .iter()
        .filter(|chunk| chunk.stream == Stream::Agent)
        .map(|chunk| chunk.text.split(' ').nth(1).unwrap().parse::<usize>().unwrap())
        .sum();
    assert!(missing > 0);
    assert_eq!(recorded + numbers.len() + missing, usize::try_from(whole).unwrap() + 40_000);
}

/// What may happen to a spool.
#[derive(Clone, Debug)]
enum Step {
    Line(u8, String),
    Wait(u64),
    CutDue,
    Flush,
    /// The process is killed: what was not flushed is gone, and this many bytes of the file's end are torn off if they
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

#[tokio::test]
async fn a_reader_that_goes_on_in_a_later_life_is_told_of_each_new_cut() {
    let (_dir, path, mut spool) = spool();
    for line in 0..3 {
        spool.append(Stream::Agent, &format!("line {line}"), Instant::now());
        spool.cut_all(Instant::now());
    }
    spool.flush();
    drop(spool);
    let (mut spool, mut reader) = LogSpool::resume(&path, RULES).unwrap();
    assert!(reader.skip_to(3).unwrap() && reader.next_chunk().unwrap().is_none());
    for seq in 4..6 {
        spool.append(Stream::Agent, "more", Instant::now());
        spool.cut_all(Instant::now());
        spool.flush();
        let recorded = tokio::time::timeout(Duration::from_secs(5), reader.more()).await;
        assert_eq!(recorded, Ok(false), "there is more, and it is not the end");
        assert_eq!(reader.next_chunk().unwrap().map(|chunk| chunk.seq), Some(seq));
        assert!(reader.next_chunk().unwrap().is_none());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(120))]
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
                    let last = path.join(spool_files(&path).last().unwrap().to_string());
                    let mut content = fs::read(&last).unwrap();
                    content.extend_from_slice(&b"oa line that was torn"[..usize::from(torn).min(19)]);
                    fs::write(&last, &content).unwrap();
                    (spool, _) = LogSpool::resume(&path, RULES).unwrap();
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

/// A file system of one MiB; unmounted when dropped. None, with the reason on stderr, where none can be made.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount() -> Option<Self> {
        let disk = Self(tempfile::tempdir().unwrap());
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"])
            .arg(disk.0.path())
            .status();
        if mounted.is_ok_and(|status| status.success()) {
            return Some(disk);
        }
        eprintln!("only root can mount a file system: not tried");
        None
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _best_effort = std::process::Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[test]
fn a_full_disk_costs_the_lines_it_refuses_and_takes_more_once_there_is_room() {
    let Some(disk) = SmallDisk::mount() else { return };
    let path = disk.0.path().join("log");
    let rules = SpoolRules { flush_after: FLUSH, limit: 4 << 20 };
    let (mut spool, mut reader) = LogSpool::create(&path, rules).unwrap();
    count(&mut spool, 1, 200_000);
    // Not one block is left, and what is stored can go all the same.
    let (first, mut recorded) = read_all(&mut reader);
    assert!(recorded.len() > 50_000 && recorded.len() < 150_000, "{}", recorded.len());
    reader.forget(reader.seq()).unwrap();
    drop(spool.take_unsynced(Instant::now() + SYNC_AFTER));
    count(&mut spool, 200_001, 200_100);
    spool.finish();
    let (rest, more) = read_all(&mut reader);
    recorded.extend(more);
    let chunks: Vec<&Chunk> = first.iter().chain(&rest).collect();
    assert!(chunks.iter().zip(1..).all(|(chunk, seq)| chunk.seq == seq));
    assert!(recorded.is_sorted());
    assert_eq!(recorded.last(), Some(&200_100));
    let marked: Vec<u64> = chunks
        .iter()
        .filter(|chunk| chunk.stream == Stream::Agent)
        .map(|chunk| chunk.text.split(' ').nth(1).unwrap().parse().unwrap())
        .collect();
    assert_eq!(marked.len(), 1, "{marked:?}");
    assert_eq!(marked[0] + recorded.len() as u64, 200_100, "the marker counts what is missing");
}
