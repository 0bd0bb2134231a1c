//! What a power cut leaves of a spool: names and contents that were synced.

use std::{collections::BTreeMap, os::unix::fs::MetadataExt as _};

use super::*;
use crate::os::files::power_cut;

const RULES: SpoolRules = SpoolRules { flush_after: Duration::from_millis(500), limit: 1 << 18 };

fn fill(spool: &mut LogSpool, segments: u64) {
    let size = RULES.limit / 16;
    for number in 0..segments * size / 100 {
        spool.append(Stream::Stdout, &format!("{number:<99}"), Instant::now());
        spool.flush_much();
        if number % 50 == 0 {
            spool.flush();
        }
    }
    spool.cut_all(Instant::now());
    spool.flush();
}

#[test]
fn a_power_cut_leaves_the_first_segment_and_where_its_numbers_begin() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let _spool = LogSpool::create(&path, RULES).unwrap();
    assert_eq!(power_cut::lost(dir.path()), BTreeMap::new());
    assert_eq!(power_cut::syncs(&path).pop().unwrap().len(), 2, "a segment and the checkpoint");
}

#[test]
fn numbers_are_on_disk_before_the_segments_go_that_they_stand_for() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let (mut spool, mut reader) = LogSpool::create(&path, RULES).unwrap();
    fill(&mut spool, 4);
    while reader.next_chunk().unwrap().is_some() {}
    reader.forget(reader.seq()).unwrap();
    let last = power_cut::syncs(&path).pop().unwrap();
    let is_new = |name: &String| name.starts_with("checkpoint-") && name != "checkpoint-1-0";
    assert!(last.iter().any(is_new), "{last:?}");
    assert!(last.contains("1") && last.contains("2"), "they were removed before: {last:?}");
    assert!(!path.join("1").exists() && !path.join("2").exists());
}

#[test]
fn what_grows_is_synced_with_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let (mut spool, _reader) = LogSpool::create(&path, RULES).unwrap();
    fill(&mut spool, 3);
    let files = spool.take_unsynced(Instant::now() + SYNC_AFTER);
    let inodes: Vec<u64> = files.iter().map(|file| file.metadata().unwrap().ino()).collect();
    for entry in std::fs::read_dir(&path).unwrap().map(Result::unwrap) {
        let data = entry.metadata().unwrap();
        assert!(data.len() == 0 || inodes.contains(&data.ino()), "{:?} is not synced", entry.path());
    }
    assert!(inodes.contains(&std::fs::metadata(&path).unwrap().ino()), "the new names are not synced");
}
