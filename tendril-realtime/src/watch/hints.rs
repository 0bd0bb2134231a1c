//! Hints that wait to be looked into: what may have changed, and when it is read.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;

use super::record::{Key, Record};

/// The least time between two looks: hints that come within it are looked into together. The first after a silence is
/// looked into at once.
const PAUSE: Duration = Duration::from_millis(50);
/// A hint can be ahead of what it tells of: a commit is sent to replicas, and to Realtime, a little before it can be read,
/// and a read replica is behind. One whose look brought no news is looked into once more, after this time.
const SECOND_LOOK: Duration = Duration::from_millis(500);
/// With more rows than this to look at, the table is read instead.
const ROWS: usize = 200;

/// Where something may have changed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    Row(Key),
    /// Anywhere in the table.
    Table,
}

/// Something to look into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Look {
    due: Instant,
    /// Whether it is worth another look if this one brings no news.
    twice: bool,
}

/// What waits to be looked into.
#[derive(Debug, Default)]
pub(super) struct Hints {
    waiting: BTreeMap<Place, Look>,
    looked_at: Option<Instant>,
}

impl Place {
    /// What a broadcast tells of: the row whose key is in its payload, or in the `record` or `old_record` of it, which is
    /// how `realtime.broadcast_changes` writes them. Otherwise the whole table.
    pub(super) fn told_by(payload: Option<&str>, message_id: Option<&str>, key: &[String]) -> Self {
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

impl Hints {
    /// Something may have changed there. `twice`: what changed may not be to be read yet.
    pub(super) fn add(&mut self, place: Place, twice: bool, now: Instant) {
        let due = self.looked_at.map_or(now, |looked_at| now.max(looked_at + PAUSE));
        self.put(place, Look { due, twice });
        if self.waiting.len() > ROWS {
            let twice = self.waiting.values().any(|look| look.twice);
            self.waiting.clear();
            self.put(Place::Table, Look { due, twice });
        }
    }

    /// A look brought no news, and is worth another one.
    pub(super) fn look_again(&mut self, place: Place, now: Instant) {
        self.put(place, Look { due: now + SECOND_LOOK, twice: false });
    }

    /// One look serves all hints of a place: it is as soon, and worth as much, as the best of them.
    fn put(&mut self, place: Place, look: Look) {
        let waiting = self.waiting.entry(place).or_insert(look);
        *waiting = Look { due: waiting.due.min(look.due), twice: waiting.twice || look.twice };
    }

    /// When to look next.
    pub(super) fn due(&self) -> Option<Instant> {
        self.waiting.values().map(|look| look.due).min()
    }

    /// Takes what is to be looked into now, each place with whether it is worth a second look. The table contains its rows.
    pub(super) fn take(&mut self, now: Instant) -> Vec<(Place, bool)> {
        let mut due: Vec<(Place, bool)> = Vec::new();
        self.waiting.retain(|place, look| {
            let waits = look.due > now;
            if !waits {
                due.push((place.clone(), look.twice));
            }
            waits
        });
        if !due.is_empty() {
            self.looked_at = Some(now);
        }
        if due.iter().any(|(place, _)| *place == Place::Table) {
            let twice = due.iter().any(|(_, twice)| *twice);
            return vec![(Place::Table, twice)];
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn row(number: u64) -> Place {
        Place::Row(Key::new(vec![number.to_string()]))
    }

    fn told_by(payload: &str, message_id: Option<&str>) -> Place {
        Place::told_by(Some(payload), message_id, &["id".to_owned()])
    }

    #[test]
    fn a_payload_names_its_row_in_each_of_the_ways_that_databases_write() {
        assert_eq!(told_by(r#"{"id": 7, "status": "QUEUED"}"#, Some("m")), row(7));
        assert_eq!(told_by(r#"{"id": "m", "record": {"id": 7}, "old_record": null}"#, Some("m")), row(7));
        assert_eq!(told_by(r#"{"id": "m", "record": null, "old_record": {"id": 7}}"#, Some("m")), row(7));
        let pair = ["a".to_owned(), "b".to_owned()];
        let key = Key::new(vec!["1".to_owned(), "x".to_owned()]);
        assert_eq!(Place::told_by(Some(r#"{"a":1,"b":"x"}"#), None, &pair), Place::Row(key));
    }

    #[test]
    fn a_payload_without_a_key_tells_of_the_table() {
        assert_eq!(told_by(r#"{"id": "m", "jobs": 3}"#, Some("m")), Place::Table, "that is the message's id");
        for payload in [r#"{"jobs": 3}"#, r#"{"id": null}"#, "[]", "7", ""] {
            assert_eq!(told_by(payload, Some("m")), Place::Table, "{payload}");
        }
        assert_eq!(Place::told_by(None, None, &["id".to_owned()]), Place::Table, "bytes");
    }

    #[test]
    fn the_first_hint_is_looked_into_at_once_and_those_that_follow_together() {
        let (mut hints, now) = (Hints::default(), Instant::now());
        hints.add(row(1), true, now);
        assert_eq!(hints.take(now), [(row(1), true)]);
        for number in [2, 3, 2, 1] {
            hints.add(row(number), number == 3, now + Duration::from_millis(number));
        }
        assert!(hints.take(now + PAUSE / 2).is_empty(), "not yet");
        assert_eq!(hints.due(), Some(now + PAUSE));
        assert_eq!(hints.take(now + PAUSE), [(row(1), false), (row(2), false), (row(3), true)]);
        assert_eq!(hints.due(), None);
    }

    #[test]
    fn a_new_hint_does_not_wait_for_the_second_look() {
        let (mut hints, now) = (Hints::default(), Instant::now());
        hints.add(row(1), true, now);
        hints.take(now);
        hints.look_again(row(1), now);
        assert_eq!(hints.due(), Some(now + SECOND_LOOK));
        hints.add(row(1), true, now);
        assert_eq!(hints.take(now + PAUSE), [(row(1), true)]);
        assert_eq!(hints.due(), None);
    }

    proptest! {
        /// Whatever comes when: each hinted place is looked at after its hint and soon, looks keep their distance, and what
        /// waits is bounded.
        #[test]
        fn no_hint_is_forgotten(steps in prop::collection::vec((0_u64..300, any::<bool>(), 0_u64..150), 1..600)) {
            let mut hints = Hints::default();
            let mut now = Instant::now();
            let mut owed: BTreeSet<Place> = BTreeSet::new();
            let mut last_look: Option<Instant> = None;
            for (number, is_row, pass) in steps {
                let place = if is_row { row(number) } else { Place::Table };
                hints.add(place.clone(), true, now);
                owed.insert(place);
                now += Duration::from_millis(pass);
                while let Some(due) = hints.due().filter(|due| *due <= now) {
                    prop_assert!(last_look.is_none_or(|last| due.duration_since(last) >= PAUSE));
                    last_look = Some(due);
                    for (place, twice) in hints.take(due) {
                        prop_assert!(twice);
                        match place {
                            Place::Table => owed.clear(),
                            Place::Row(key) => { owed.remove(&Place::Row(key)); }
                        }
                    }
                }
                prop_assert!(hints.waiting.len() <= ROWS + 1);
                prop_assert!(owed.is_empty() || hints.due().is_some_and(|due| due <= now + PAUSE));
            }
            for (place, _) in hints.take(now + PAUSE) {
                match place {
                    Place::Table => owed.clear(),
                    Place::Row(key) => { owed.remove(&Place::Row(key)); }
                }
            }
            prop_assert!(owed.is_empty(), "{owed:?}");
        }
    }
}
