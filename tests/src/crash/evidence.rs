//! What a killed agent or executor left on its disk.

use std::{fs, path::Path};

use uuid::Uuid;

/// The status that is on an agent's disk as the end of the first attempt.
pub(super) fn stored_status(work_dir: &Path, deployment: Uuid) -> Option<String> {
    let end = fs::read(work_dir.join(format!("{deployment}.1/result.json"))).ok()?;
    let end: serde_json::Value = serde_json::from_slice(&end).ok()?;
    end["status"].as_str().map(str::to_owned)
}

/// The lines of the story that are on an agent's disk, with their attempts.
pub(super) fn spooled(work_dir: &Path, deployment: Uuid) -> Vec<(i32, u64)> {
    let mut found = Vec::new();
    for attempt in 1..=2 {
        let log = work_dir.join(format!("{deployment}.{attempt}/log"));
        for entry in fs::read_dir(log).into_iter().flatten().flatten() {
            // A dropped segment is emptied a moment after it was named so.
            if entry.file_name().to_string_lossy().contains(".gap-") {
                continue;
            }
            let text = fs::read(entry.path()).unwrap_or_default();
            let text = String::from_utf8_lossy(&text);
            // A record without its end was never written.
            let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
            let records = whole.lines().filter(|record| record.starts_with('o'));
            found.extend(
                records.filter_map(|record| Some((attempt, record.rsplit_once("line ")?.1.parse().ok()?))),
            );
        }
    }
    found
}
