//! What the messages about one table have in common: read once, and then only compared.
//!
//! Between two changes of a table nothing but the row, the time and the bindings differ. The names, the list of columns and the errors, more
//! than half of a usual message, are the same bytes. A message with the bytes of one that was read has the same content there.

use serde::{Deserialize, de::IgnoredAny};

use super::typed;
use crate::wire::{
    change::{ChangeKind, ChangeParts},
    ids::Length,
};

/// How many outlines a stream stores: one for each table and kind of change.
const REMEMBERED: usize = 16;
/// How many are made without one of them being of use.
const TRIES: u8 = 16;

const OLD_RECORD: &str = ",\"old_record\":";
const IDS: &str = "},\"ids\":[";

/// The outlines of the messages that a stream has received.
#[derive(Debug, Default)]
pub(super) struct Outlines {
    known: Vec<Outline>,
    /// Made since one was of use.
    tries: u8,
}

/// The text of a message around its values, as the server writes it: `{"data":{…,"type":"INSERT","record":`, the row,
/// `,"columns":[…],…,"commit_timestamp":"`, the time, `"},"ids":[7]}`, and before the end perhaps the old row.
#[derive(Debug)]
struct Outline {
    kind: ChangeKind,
    /// Up to the row; of a delete, which has none, up to the time.
    before: Box<str>,
    /// From the row to the time.
    between: Box<str>,
    /// How many columns the role may see.
    columns: usize,
}

/// The values of a change.
pub(super) struct Values<'a, T> {
    pub(super) kind: ChangeKind,
    /// The row and its JSON text, unless it was deleted.
    pub(super) row: Option<(T, &'a str)>,
    /// The JSON text of what is left of the row as it was.
    pub(super) old: Option<&'a str>,
}

impl Outlines {
    /// Reads a message of which the outline is known. `None` for any other, for a row of another type, and for a struct without all of its
    /// columns.
    pub(super) fn read<'de, T: Deserialize<'de>>(
        &mut self,
        payload: &'de str,
        is_struct: bool,
    ) -> Option<Values<'de, T>> {
        let values = self.known.iter().find_map(|outline| outline.read(payload, is_struct));
        if values.is_some() {
            self.tries = 0;
        }
        values
    }

    /// Stores the outline of a message that was read, and had no errors.
    pub(super) fn learn(&mut self, payload: &str, parts: &ChangeParts<'_>) {
        if self.tries >= TRIES {
            return;
        }
        self.tries += 1;
        let Some(outline) = Outline::of(payload, parts) else { return };
        // Its table has other columns now.
        self.known.retain(|known| known.before != outline.before);
        if self.known.len() >= REMEMBERED {
            self.known.remove(0);
        }
        self.known.push(outline);
    }
}

impl Outline {
    /// `None` if the message has another form.
    fn of(payload: &str, parts: &ChangeParts<'_>) -> Option<Self> {
        let kind = parts.kind()?;
        let place = |part: &str| (part.as_ptr() as usize).checked_sub(payload.as_ptr() as usize);
        let time = place(parts.commit_timestamp_json()?.strip_prefix('"')?)?;
        let (before, between) = match kind {
            ChangeKind::Delete => (payload.get(..time)?, ""),
            ChangeKind::Insert | ChangeKind::Update => {
                let row = place(parts.record()?)?;
                (payload.get(..row)?, payload.get(row + parts.record()?.len()..time)?)
            }
        };
        let columns = serde_json::from_str::<Length>(parts.columns()?).ok()?.0;
        let outline = Self { kind, before: before.into(), between: between.into(), columns };
        // Nothing that differs from message to message may be part of it.
        let values = outline.read::<IgnoredAny>(payload, false)?;
        let same_row = values.row.map(|(_, json)| json) == parts.record();
        (same_row && values.old == parts.old_record()).then_some(outline)
    }

    fn read<'de, T: Deserialize<'de>>(&self, payload: &'de str, is_struct: bool) -> Option<Values<'de, T>> {
        let rest = payload.strip_prefix(&*self.before)?;
        let (row, rest) = if self.kind == ChangeKind::Delete {
            (None, rest)
        } else {
            // An update may leave out large values that did not change.
            let row = typed::read(rest, is_struct && self.kind == ChangeKind::Update)?;
            if row.keys.is_some_and(|keys| keys < self.columns) {
                return None;
            }
            (Some((row.value, row.json)), row.rest.strip_prefix(&*self.between)?)
        };
        let (time, rest) = rest.split_once('"')?;
        if time.contains('\\') {
            return None;
        }
        let (old, rest) = match rest.strip_prefix(OLD_RECORD) {
            None => (None, rest),
            Some(rest) => {
                let old = typed::read::<IgnoredAny>(rest, false)?;
                (Some(old.json).filter(|json| *json != "null"), old.rest)
            }
        };
        // Where the bindings end the message was found by, or read with.
        let ids = rest.strip_prefix(IDS)?.strip_suffix("]}")?;
        let is_list = ids.bytes().all(|byte| byte.is_ascii_digit() || byte == b',');
        is_list.then_some(Values { kind: self.kind, row, old })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(kind: &str, row: &str, time: &str, old: &str) -> String {
        format!(
            r#"{{"data":{{"table":"t","type":"{kind}",{row}"columns":[{{"name":"id","type":"int8"}},{{"name":"x","type":"text"}}],"errors":null,"schema":"public","commit_timestamp":{time}{old}}},"ids":[7,8]}}"#
        )
    }

    fn learnt(payload: &str) -> Outlines {
        let mut outlines = Outlines::default();
        outlines.learn(payload, &ChangeParts::of(payload));
        outlines
    }

    const TIME: &str = r#""2026-11-23T14:34:27.383Z""#;

    #[test]
    fn a_message_of_a_known_outline_is_read_as_its_parts_are() {
        for (kind, row, old) in [
            ("INSERT", r#""record":{"id":1,"x":"a"},"#, ""),
            ("INSERT", r#""record":{"id": 2, "x": "},\"columns\":[ü"} ,"#, ""),
            ("UPDATE", r#""record":{"id":1,"x":null},"#, r#","old_record":{"id":1}"#),
            ("UPDATE", r#""record":{"id":1,"x":null},"#, r#","old_record":{"id":1,"x":"]},\"ids\":[7"}"#),
            ("UPDATE", r#""record":{"id":1,"x":null},"#, r#","old_record":null"#),
            ("DELETE", "", r#","old_record":{"id":1}"#),
        ] {
            let first = message(kind, row, TIME, old);
            let mut outlines = learnt(&first);
            assert_eq!(outlines.known.len(), 1, "{first}");
            let later = message(kind, row, r#""2027-01-01T00:00:00.000Z""#, old);
            let parts = ChangeParts::of(&later);
            let values = outlines.read::<serde_json::Value>(&later, false).expect(&later);
            assert_eq!(Some(values.kind), parts.kind());
            assert_eq!(values.row.as_ref().map(|(_, json)| *json), parts.record());
            assert_eq!(values.old, parts.old_record());
            let row = values.row.map(|(row, _)| row.to_string());
            assert_eq!(
                row,
                parts
                    .record()
                    .map(|json| serde_json::from_str::<serde_json::Value>(json).unwrap().to_string())
            );
        }
    }

    #[test]
    fn a_message_that_differs_around_its_values_is_of_another_outline() {
        let known = message("INSERT", r#""record":{"id":1},"#, TIME, "");
        for (from, to) in [
            (r#""table":"t""#, r#""table":"u""#),
            (r#""errors":null"#, r#""errors":["Error 413: Payload Too Large"]"#),
            (r#""schema":"public""#, r#""schema":"private""#),
            ("int8", "int4"),
            (TIME, "null"),
            (TIME, r#""\u0032""#),
            (r#""ids":[7,8]}"#, r#""ids":[7,"x"]}"#),
            (r#""ids":[7,8]}"#, r#""ids":[7,8]},"#),
            (r#"{"id":1}"#, r#"{"id":1"#),
            (r#"{"id":1}"#, r#"{"id":1}}"#),
        ] {
            let other = known.replace(from, to);
            assert_ne!(other, known);
            assert!(learnt(&known).read::<IgnoredAny>(&other, false).is_none(), "{other}");
        }
    }

    #[test]
    fn no_outline_is_made_of_a_message_in_which_a_value_lies_elsewhere() {
        for other in [
            r#"{"ids":[7],"data":{"table":"t","type":"INSERT","record":{"id":1},"columns":[],"errors":null,"schema":"public","commit_timestamp":"x"}}"#,
            r#"{"data":{"table":"t","type":"UPDATE","old_record":{"id":1},"record":{"id":1},"columns":[],"errors":null,"schema":"public","commit_timestamp":"x"},"ids":[7]}"#,
            r#"{"data":{"commit_timestamp":"x","table":"t","type":"INSERT","record":{"id":1},"columns":[],"errors":null,"schema":"public"},"ids":[7]}"#,
            r#"{"data":{"table":"t","type":"INSERT","record":{"id":1},"columns":[],"schema":"public","commit_timestamp":null},"ids":[7]}"#,
        ] {
            assert!(learnt(other).known.is_empty(), "{other}");
        }
    }

    #[test]
    fn a_struct_without_all_of_its_columns_is_not_read_by_an_outline() {
        #[derive(Deserialize)]
        struct Key {
            #[expect(dead_code, reason = "only read")]
            id: i64,
        }
        let whole = message("UPDATE", r#""record":{"id":1,"x":"a"},"#, TIME, "");
        let part = message("UPDATE", r#""record":{"id":1},"#, TIME, "");
        let mut outlines = learnt(&whole);
        assert!(outlines.read::<Key>(&whole, true).is_some());
        assert!(outlines.read::<Key>(&part, true).is_none());
    }

    /// Any row, whatever its texts look like.
    fn row() -> impl Strategy<Value = serde_json::Value> {
        let text = prop_oneof![
            ".*",
            r#"[\]\[}{"\\,:7 ]{0,12}"#,
            Just(r#"},"ids":[7]}"#.to_owned()),
            Just(r#","columns":[{"name": "id", "type": "int8"}]"#.to_owned()),
        ];
        let value = prop_oneof![
            text.clone().prop_map(serde_json::Value::from),
            any::<i64>().prop_map(serde_json::Value::from),
            Just(serde_json::Value::Null),
            prop::collection::vec(text.clone(), 0..3).prop_map(serde_json::Value::from),
        ];
        prop::collection::btree_map(text, value, 0..4).prop_map(|row| row.into_iter().collect())
    }

    proptest! {
        #[test]
        fn whatever_a_row_holds_it_is_read_as_its_parts_are(first in row(), later in row(), old in row()) {
            let shape = |kind: &str, row: &serde_json::Value, old: &serde_json::Value| match kind {
                "INSERT" => message(kind, &format!("\"record\":{row},"), TIME, ""),
                "DELETE" => message(kind, "", TIME, &format!(",\"old_record\":{old}")),
                _ => message(kind, &format!("\"record\":{row},"), TIME, &format!(",\"old_record\":{old}")),
            };
            for kind in ["INSERT", "UPDATE", "DELETE"] {
                let mut outlines = learnt(&shape(kind, &first, &first));
                let payload = shape(kind, &later, &old);
                let parts = ChangeParts::of(&payload);
                let values = outlines.read::<serde_json::Value>(&payload, false).expect("a known outline");
                prop_assert_eq!(values.row.as_ref().map(|(_, json)| *json), parts.record());
                prop_assert_eq!(values.old, parts.old_record());
                prop_assert_eq!(values.row.map(|(row, _)| row), (kind != "DELETE").then_some(later.clone()));
            }
        }
    }

    #[test]
    fn outlines_are_bounded_and_one_that_is_never_of_use_is_not_made_again_and_again() {
        let mut outlines = Outlines::default();
        for table in 0..100 {
            let payload = message("INSERT", r#""record":{},"#, TIME, "")
                .replace(r#""table":"t""#, &format!("\"table\":\"{table}\""));
            outlines.learn(&payload, &ChangeParts::of(&payload));
        }
        assert_eq!(outlines.known.len(), REMEMBERED);
        assert!(outlines.known.iter().any(|outline| outline.before.contains("\"0\"")));
    }
}
