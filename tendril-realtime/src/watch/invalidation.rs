//! What may have changed and is to be read again, and when.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;

use super::record::{Key, Record};

/// The least time between two reads: invalidations that come within it are read together. The first after a silence is
/// read at once.
const SHORTEST_PAUSE: Duration = Duration::from_millis(50);
/// While invalidations come all the time, the pause between reads doubles up to this, for single rows and for the table.
const LONGEST_PAUSE: [Duration; 2] = [Duration::from_millis(400), Duration::from_secs(2)];
/// The pause after a read is so many times as long as the read took, so that a watch spends little of the server's time.
const COST: u32 = 10;
/// No read costs a longer pause.
const LONGEST_COST: Duration = Duration::from_secs(30);
/// A broadcast can be ahead of the change it announces: a commit is sent to replicas, and to Realtime, a little before it can be read,
/// and a read replica is behind. If the read after a broadcast shows no change, it is repeated: of a new row that was read at once
/// after the second of these times and then after the first, of anything else after the first only.
const REPEATED_AFTER: [Duration; 2] = [Duration::from_millis(500), Duration::from_millis(10)];
/// So many unknown rows are read at once in a row, however long ago the last read was, and one more in each
/// [`PROMPT_INTERVAL`]: a new row must not wait because an old one was read a moment before.
const PROMPT: u32 = 10;
const PROMPT_INTERVAL: Duration = Duration::from_millis(50);
/// With more rows than this to read, the table is read instead.
const ROWS: usize = 200;

/// Where something may have changed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Target {
    Row(Key),
    /// Anywhere in the table.
    Table,
}

/// A read that is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Refetch {
    due: Instant,
    /// How often it is repeated while it shows no change.
    repeats: u8,
    /// Whether it is of a new row, and keeps no distance from other reads.
    prompt: bool,
}

/// What waits to be read again.
#[derive(Debug, Default)]
pub(super) struct Invalidations {
    waiting: BTreeMap<Target, Refetch>,
    /// When the last read began, and how long the next one waits after that.
    last: Option<(Instant, Duration)>,
    /// When all [`PROMPT`] reads are to be had again (the theoretical arrival time of the generic cell rate algorithm).
    prompts_full: Option<Instant>,
}

impl Target {
    /// What a broadcast names: the row whose key is in its payload, or in the `record` or `old_record` of it, which is
    /// how `realtime.broadcast_changes` writes them. Otherwise the whole table.
    pub(super) fn of_broadcast(payload: Option<&str>, message_id: Option<&str>, key: &[String]) -> Self {
        let Some(payload) = payload.and_then(Record::parse) else { return Self::Table };
        let inner = |name: &str| Record::parse(payload.column(name)?.get())?.key(key);
        // The database gives a payload without an `id` the message's own.
        let is_the_messages = |column: &String| {
            column == "id" && message_id.is_some() && payload.text_of("id").as_deref() == message_id
        };
        let own = || payload.key(key).filter(|_| !key.iter().any(is_the_messages));
        inner("record").or_else(|| inner("old_record")).or_else(own).map_or(Self::Table, Self::Row)
    }
}

impl Invalidations {
    /// Something may have changed there. `twice`: the change may not be visible yet.
    pub(super) fn add(&mut self, target: Target, twice: bool, now: Instant) {
        let due = self.last.map_or(now, |(began, pause)| now.max(began + pause));
        self.put(target, Refetch { due, repeats: u8::from(twice), prompt: false });
        if self.waiting.len() > ROWS {
            let repeats = self.waiting.values().map(|refetch| refetch.repeats.min(1)).max().unwrap_or(0);
            self.waiting.clear();
            self.put(Target::Table, Refetch { due, repeats, prompt: false });
        }
    }

    /// The same, of a row that the watch does not have: it is read at once, unless many come or reads are dear.
    pub(super) fn add_new(&mut self, target: Target, twice: bool, now: Instant) {
        if self.is_prompt(now) {
            self.put(target, Refetch { due: now, repeats: 2 * u8::from(twice), prompt: true });
        } else {
            self.add(target, twice, now);
        }
    }

    fn is_prompt(&mut self, now: Instant) -> bool {
        let [rows, _] = LONGEST_PAUSE;
        if self.waiting.len() >= ROWS || self.last.is_some_and(|(_, pause)| pause > rows) {
            return false;
        }
        let full = self.prompts_full.map_or(now, |full| full.max(now)) + PROMPT_INTERVAL;
        let is_free = full <= now + PROMPT_INTERVAL * PROMPT;
        if is_free {
            self.prompts_full = Some(full);
        }
        is_free
    }

    /// A read showed no change, and is to be repeated so many times.
    pub(super) fn repeat(&mut self, target: Target, repeats: u8, now: Instant) {
        if let Some(left) = repeats.checked_sub(1) {
            let after = REPEATED_AFTER[usize::from(left).min(REPEATED_AFTER.len() - 1)];
            self.put(target, Refetch { due: now + after, repeats: left, prompt: left > 0 });
        }
    }

    /// One read serves all invalidations of a target: it is as soon, and repeated as surely, as the strictest of them requires.
    fn put(&mut self, target: Target, refetch: Refetch) {
        let waiting = self.waiting.entry(target).or_insert(refetch);
        *waiting = Refetch {
            due: waiting.due.min(refetch.due),
            repeats: waiting.repeats.max(refetch.repeats),
            prompt: waiting.prompt || refetch.prompt,
        };
    }

    /// When to read next.
    pub(super) fn due(&self) -> Option<Instant> {
        self.waiting.values().map(|refetch| refetch.due).min()
    }

    /// Takes what is to be read now, each target with how often the read is repeated while it shows no change. The table contains
    /// its rows.
    pub(super) fn take(&mut self, now: Instant) -> Vec<(Target, u8)> {
        let mut due: Vec<(Target, u8)> = Vec::new();
        let mut all_prompt = true;
        self.waiting.retain(|target, refetch| {
            let waits = refetch.due > now;
            if !waits {
                due.push((target.clone(), refetch.repeats));
                all_prompt &= refetch.prompt;
            }
            waits
        });
        if due.is_empty() || all_prompt && self.last.is_some() {
            // Prompt reads are beside the distance that others keep.
            return due;
        }
        let is_table = due.iter().any(|(target, _)| *target == Target::Table);
        let longest = LONGEST_PAUSE[usize::from(is_table)];
        let pause = match self.last {
            // The read before was not long ago: invalidations come all the time.
            Some((began, pause)) if now < began + pause * 2 => (pause * 2).min(longest.max(pause)),
            _ => SHORTEST_PAUSE,
        };
        self.last = Some((now, pause));
        if is_table {
            let repeats = due.iter().map(|(_, repeats)| *repeats).max().unwrap_or(0);
            return vec![(Target::Table, repeats.min(1))];
        }
        due
    }

    /// The reads that were [taken](Self::take) last took this long.
    pub(super) fn cost(&mut self, took: Duration) {
        if let Some((_, pause)) = &mut self.last {
            *pause = (*pause).max((took * COST).min(LONGEST_COST));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn row(number: u64) -> Target {
        Target::Row(Key::new(vec![number.to_string()]))
    }

    fn named_by(payload: &str, message_id: Option<&str>) -> Target {
        Target::of_broadcast(Some(payload), message_id, &["id".to_owned()])
    }

    #[test]
    fn a_payload_names_its_row_in_each_of_the_ways_that_databases_write() {
        assert_eq!(named_by(r#"{"id": 7, "status": "QUEUED"}"#, Some("m")), row(7));
        assert_eq!(named_by(r#"{"id": "m", "record": {"id": 7}, "old_record": null}"#, Some("m")), row(7));
        assert_eq!(named_by(r#"{"id": "m", "record": null, "old_record": {"id": 7}}"#, Some("m")), row(7));
        let pair = ["a".to_owned(), "b".to_owned()];
        let key = Key::new(vec!["1".to_owned(), "x".to_owned()]);
        assert_eq!(Target::of_broadcast(Some(r#"{"a":1,"b":"x"}"#), None, &pair), Target::Row(key));
    }

    #[test]
    fn a_payload_without_a_key_names_the_table() {
        assert_eq!(
            named_by(r#"{"id": "m", "jobs": 3}"#, Some("m")),
            Target::Table,
            "that is the message's id"
        );
        for payload in [r#"{"jobs": 3}"#, r#"{"id": null}"#, "[]", "7", ""] {
            assert_eq!(named_by(payload, Some("m")), Target::Table, "{payload}");
        }
        assert_eq!(Target::of_broadcast(None, None, &["id".to_owned()]), Target::Table, "bytes");
    }

    #[test]
    fn the_first_invalidation_is_read_at_once_and_those_that_follow_together() {
        let (mut invalidations, now) = (Invalidations::default(), Instant::now());
        invalidations.add(row(1), true, now);
        assert_eq!(invalidations.take(now), [(row(1), 1)]);
        for number in [2, 3, 2, 1] {
            invalidations.add(row(number), number == 3, now + Duration::from_millis(number));
        }
        assert!(invalidations.take(now + SHORTEST_PAUSE / 2).is_empty(), "not yet");
        assert_eq!(invalidations.due(), Some(now + SHORTEST_PAUSE));
        assert_eq!(invalidations.take(now + SHORTEST_PAUSE), [(row(1), 0), (row(2), 0), (row(3), 1)]);
        assert_eq!(invalidations.due(), None);
    }

    #[test]
    fn a_row_that_nobody_knew_of_does_not_wait_for_the_distance_between_reads() {
        let (mut invalidations, now) = (Invalidations::default(), Instant::now());
        invalidations.add(row(1), true, now);
        invalidations.take(now);
        let later = now + SHORTEST_PAUSE / 2;
        invalidations.add(row(1), true, later);
        invalidations.add_new(row(2), true, later);
        assert_eq!(invalidations.take(later), [(row(2), 2)]);
        assert_eq!(invalidations.due(), Some(now + SHORTEST_PAUSE), "the known one waits for its pause");
        assert_eq!(invalidations.take(now + SHORTEST_PAUSE), [(row(1), 1)]);
    }

    #[test]
    fn a_new_row_that_is_not_there_yet_is_read_again_at_once_and_then_once_more() {
        let (mut invalidations, now) = (Invalidations::default(), Instant::now());
        invalidations.add_new(row(1), true, now);
        let mut reads = Vec::new();
        while let Some(due) = invalidations.due() {
            for (target, repeats) in invalidations.take(due) {
                invalidations.repeat(target, repeats, due);
            }
            reads.push(due - now);
        }
        assert_eq!(reads, [0, 10, 510].map(Duration::from_millis));
    }

    #[test]
    fn twenty_new_rows_a_second_are_each_read_at_once() {
        let (mut invalidations, start) = (Invalidations::default(), Instant::now());
        for number in 0..200 {
            let now = start + PROMPT_INTERVAL * number;
            invalidations.add_new(row(number.into()), false, now);
            invalidations.add(row(1_000), false, now);
            assert!(invalidations.take(now).contains(&(row(number.into()), 0)), "{number}");
        }
    }

    #[test]
    fn many_new_rows_are_read_together_and_so_are_new_rows_while_reads_are_dear() {
        let (mut invalidations, now) = (Invalidations::default(), Instant::now());
        invalidations.add(row(0), true, now);
        invalidations.take(now);
        let mut prompt = 0;
        for number in 1..=500 {
            invalidations.add_new(row(number), true, now);
            prompt += invalidations.take(now).len();
        }
        assert_eq!(prompt, usize::try_from(PROMPT).unwrap());
        assert!(invalidations.waiting.len() <= ROWS, "what waits is bounded");
        let now = now + PROMPT_INTERVAL * PROMPT;
        invalidations.take(now);
        invalidations.cost(Duration::from_secs(1));
        invalidations.add_new(row(900), true, now);
        assert!(invalidations.take(now).is_empty(), "a read takes a second: the server is busy");
    }

    #[test]
    fn a_new_invalidation_does_not_wait_for_the_second_read() {
        let (mut invalidations, now) = (Invalidations::default(), Instant::now());
        invalidations.add(row(1), true, now);
        invalidations.take(now);
        invalidations.repeat(row(1), 1, now);
        assert_eq!(invalidations.due(), Some(now + REPEATED_AFTER[0]));
        invalidations.add(row(1), true, now);
        assert_eq!(invalidations.take(now + SHORTEST_PAUSE), [(row(1), 1)]);
        assert_eq!(invalidations.due(), None);
    }

    #[test]
    fn under_constant_invalidation_the_pauses_grow_and_with_the_cost_of_a_read_too() {
        let reads_in_ten_seconds = |target: &Target, took: Duration| {
            let (mut invalidations, start) = (Invalidations::default(), Instant::now());
            let mut reads = 0;
            for step in 0..1_000 {
                let now = start + Duration::from_millis(10) * step;
                invalidations.add(target.clone(), false, now);
                if !invalidations.take(now).is_empty() {
                    invalidations.cost(took);
                    reads += 1;
                }
            }
            reads
        };
        let cheap = Duration::from_millis(1);
        assert!((7..=12).contains(&reads_in_ten_seconds(&Target::Table, cheap)));
        assert!((20..=40).contains(&reads_in_ten_seconds(&row(1), cheap)));
        assert!(reads_in_ten_seconds(&Target::Table, Duration::from_millis(500)) <= 3);
        assert!(reads_in_ten_seconds(&row(1), Duration::from_millis(500)) <= 3);
    }

    #[test]
    fn after_a_silence_the_pauses_are_short_again() {
        let (mut invalidations, mut now) = (Invalidations::default(), Instant::now());
        for _ in 0..10 {
            invalidations.add(Target::Table, false, now);
            now = invalidations.due().unwrap();
            invalidations.take(now);
        }
        now += Duration::from_secs(10);
        invalidations.add(Target::Table, false, now);
        assert_eq!(invalidations.due(), Some(now));
        invalidations.take(now);
        invalidations.add(Target::Table, false, now);
        assert_eq!(invalidations.due(), Some(now + SHORTEST_PAUSE));
    }

    proptest! {
        /// Whatever comes when: each invalidated target is read after that and soon, reads keep their distance, and what
        /// waits is bounded.
        #[test]
        fn no_invalidation_is_forgotten(steps in prop::collection::vec((0_u64..300, any::<bool>(), 0_u64..150), 1..600)) {
            let longest = LONGEST_PAUSE[1];
            let mut invalidations = Invalidations::default();
            let mut now = Instant::now();
            let mut owed: BTreeSet<Target> = BTreeSet::new();
            let mut last_read: Option<Instant> = None;
            let mark_read = |owed: &mut BTreeSet<Target>, taken: Vec<(Target, u8)>| {
                for (target, _) in taken {
                    match target {
                        Target::Table => owed.clear(),
                        row @ Target::Row(_) => { owed.remove(&row); }
                    }
                }
            };
            for (number, is_row, pass) in steps {
                let target = if is_row { row(number) } else { Target::Table };
                invalidations.add(target.clone(), true, now);
                owed.insert(target);
                now += Duration::from_millis(pass);
                while let Some(due) = invalidations.due().filter(|due| *due <= now) {
                    prop_assert!(last_read.is_none_or(|last| due.duration_since(last) >= SHORTEST_PAUSE));
                    last_read = Some(due);
                    let taken = invalidations.take(due);
                    prop_assert!(taken.iter().all(|(_, repeats)| *repeats == 1));
                    mark_read(&mut owed, taken);
                }
                prop_assert!(invalidations.waiting.len() <= ROWS + 1);
                prop_assert!(owed.is_empty() || invalidations.due().is_some_and(|due| due <= now + longest));
            }
            mark_read(&mut owed, invalidations.take(now + longest));
            prop_assert!(owed.is_empty(), "{owed:?}");
        }
    }
}
