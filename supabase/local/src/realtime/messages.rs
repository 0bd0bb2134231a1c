//! The table `realtime.messages`: broadcasts from the database, stored for replay.

use tokio_postgres::Row;
use uuid::Uuid;

use super::binary::BinaryBroadcast;
use super::join::Replay;
use super::rooms::RoomName;
use crate::error::StackError;
use crate::link::Link;
use crate::replication::{Cell, Operation, RowChange};

const REPLAY: &str = include_str!("replay.sql");

/// The room of a row that was just inserted, and the message for it; `None` for what is no broadcast.
pub(crate) fn inserted(change: &RowChange) -> Option<(RoomName, BinaryBroadcast)> {
    let row = change.new.as_ref().filter(|_| change.operation == Operation::Insert)?;
    let text = |name: &str| {
        let position = change.relation.columns.iter().position(|column| column == name)?;
        match row.get(position)? {
            Cell::Text(text) => Some(text.as_str()),
            Cell::Null | Cell::Unchanged => None,
        }
    };
    if text("extension")? != "broadcast" {
        return None;
    }
    let (json, payload) = match (text("payload"), text("binary_payload")) {
        (Some(json), _) => (true, json.as_bytes().to_vec()),
        (None, Some(hex)) => (false, bytes_of(hex)?),
        (None, None) => return None,
    };
    let room = (format!("realtime:{}", text("topic")?), text("private") == Some("t"));
    let event = text("event").unwrap_or_default().to_owned();
    let id = Some(text("id")?.to_owned());
    Some((room, BinaryBroadcast { event, json, id, replayed: false, payload: payload.into() }))
}

/// The newest private broadcasts of a topic (without `realtime:`) within what was requested, the oldest first.
///
/// # Errors
/// If the database does not answer.
pub(crate) async fn replay(
    link: &Link,
    topic: &str,
    wanted: &Replay,
) -> Result<Vec<BinaryBroadcast>, StackError> {
    let client = link.client().await?;
    let rows = client.query(REPLAY, &[&topic, &wanted.since, &wanted.limit]).await?;
    Ok(rows.iter().map(stored).collect())
}

fn stored(row: &Row) -> BinaryBroadcast {
    // As text, because its numbers may be larger than ours.
    let json: Option<String> = row.get("payload");
    let bytes: Option<Vec<u8>> = row.get("binary_payload");
    let id: Uuid = row.get("id");
    BinaryBroadcast {
        event: row.get::<_, Option<String>>("event").unwrap_or_default(),
        json: json.is_some(),
        id: Some(id.to_string()),
        replayed: true,
        payload: json.map_or_else(|| bytes.unwrap_or_default(), String::into_bytes).into(),
    }
}

/// The bytes of a `bytea` in PostgreSQL's hexadecimal form, `\x00ff`.
fn bytes_of(text: &str) -> Option<Vec<u8>> {
    let digits = text.strip_prefix("\\x")?.as_bytes();
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    digits.chunks(2).map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bytea_is_read_from_its_digits() {
        assert_eq!(bytes_of("\\x00ff10"), Some(vec![0, 255, 16]));
        assert_eq!(bytes_of("\\x"), Some(vec![]));
        assert_eq!(bytes_of("00ff"), None);
        assert_eq!(bytes_of("\\x0g"), None);
    }
}
