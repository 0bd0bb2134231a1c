//! Decodes `pgoutput`, protocol version 1: PostgreSQL's description of changed rows.
//!
//! Values arrive as text in the format of the type's output function. A relation is described before its first row
//! and again whenever it changes.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::{Buf as _, Bytes};

/// A table as it was when its rows were written.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Relation {
    pub(crate) oid: u32,
    pub(crate) schema: String,
    pub(crate) name: String,
    pub(crate) identity: Identity,
    /// Names in the order of the cells of a [`Tuple`].
    pub(crate) columns: Vec<String>,
}

/// Which old values an UPDATE or DELETE brings along.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Identity {
    /// The primary key, an index, or nothing.
    Partial,
    /// Every column.
    Full,
}

/// One row, in the order of the relation's columns.
pub(crate) type Tuple = Vec<Cell>;

/// One value of a row.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Cell {
    /// SQL NULL; also each column outside the key in a key-only old row.
    Null,
    /// A large value stored out of line that the UPDATE did not touch: it is not in the log.
    Unchanged,
    /// The value's text.
    Text(String),
}

/// What happened to a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Operation {
    Insert,
    Update,
    Delete,
}

impl Operation {
    /// Its name in messages.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Insert => "INSERT",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
        }
    }
}

/// One changed row.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct RowChange {
    pub(crate) relation: Arc<Relation>,
    pub(crate) operation: Operation,
    /// The row after an INSERT or UPDATE.
    pub(crate) new: Option<Tuple>,
    /// The row before a DELETE, or before an UPDATE that changed the key or has a full identity.
    pub(crate) old: Option<Tuple>,
}

/// The bytes do not follow the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a pgoutput message is cut short or of an unknown shape")]
pub(crate) struct Malformed;

impl From<bytes::TryGetError> for Malformed {
    fn from(_: bytes::TryGetError) -> Self {
        Self
    }
}

/// Stores the relations of one replication session.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    relations: HashMap<u32, Arc<Relation>>,
}

impl Decoder {
    /// Decodes one message; `None` for those without a row (relations, types, truncates, origins).
    pub(crate) fn decode(&mut self, mut message: Bytes) -> Result<Option<RowChange>, Malformed> {
        let operation = match message.try_get_u8()? {
            b'R' => {
                let relation = relation(&mut message)?;
                self.relations.insert(relation.oid, Arc::new(relation));
                return Ok(None);
            }
            b'I' => Operation::Insert,
            b'U' => Operation::Update,
            b'D' => Operation::Delete,
            _ => return Ok(None),
        };
        let oid = message.try_get_u32()?;
        let relation = self.relations.get(&oid).cloned().ok_or(Malformed)?;
        let (mut new, mut old) = (None, None);
        while message.has_remaining() {
            match message.try_get_u8()? {
                b'N' => new = Some(tuple(&mut message)?),
                b'K' | b'O' => old = Some(tuple(&mut message)?),
                _ => return Err(Malformed),
            }
        }
        Ok(Some(RowChange { relation, operation, new, old }))
    }
}

fn relation(message: &mut Bytes) -> Result<Relation, Malformed> {
    let oid = message.try_get_u32()?;
    let schema = string(message)?;
    let name = string(message)?;
    let identity = if message.try_get_u8()? == b'f' { Identity::Full } else { Identity::Partial };
    let columns = (0..message.try_get_u16()?)
        .map(|_| {
            let _part_of_key = message.try_get_u8()?;
            let name = string(message)?;
            let _type_oid = message.try_get_u32()?;
            let _modifier = message.try_get_u32()?;
            Ok(name)
        })
        .collect::<Result<_, Malformed>>()?;
    Ok(Relation { oid, schema, name, identity, columns })
}

fn tuple(message: &mut Bytes) -> Result<Tuple, Malformed> {
    (0..message.try_get_u16()?)
        .map(|_| match message.try_get_u8()? {
            b'n' => Ok(Cell::Null),
            b'u' => Ok(Cell::Unchanged),
            b't' => {
                let length = message.try_get_u32()? as usize;
                if message.remaining() < length {
                    return Err(Malformed);
                }
                let text = message.split_to(length);
                Ok(Cell::Text(String::from_utf8(text.into()).map_err(|_| Malformed)?))
            }
            _ => Err(Malformed),
        })
        .collect()
}

/// A string that ends with a zero byte.
fn string(message: &mut Bytes) -> Result<String, Malformed> {
    let end = message.iter().position(|byte| *byte == 0).ok_or(Malformed)?;
    let text = message.split_to(end);
    message.advance(1);
    String::from_utf8(text.into()).map_err(|_| Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn relation_message() -> Vec<u8> {
        let mut message = b"R\0\0\0\x07public\0rows\0d\0\x02".to_vec();
        message.extend(b"\x01id\0\0\0\0\x14\xff\xff\xff\xff");
        message.extend(b"\x00body\0\0\0\0\x19\xff\xff\xff\xff");
        message
    }

    #[test]
    fn a_row_is_decoded_with_its_relation() {
        let mut decoder = Decoder::default();
        assert_eq!(decoder.decode(relation_message().into()), Ok(None));
        let insert = Bytes::from_static(b"I\0\0\0\x07N\0\x02t\0\0\0\x0242n");
        let change = decoder.decode(insert).unwrap().unwrap();
        assert_eq!(change.operation, Operation::Insert);
        assert_eq!(change.relation.columns, ["id", "body"]);
        assert_eq!(change.new, Some(vec![Cell::Text("42".into()), Cell::Null]));
        assert_eq!(change.old, None);
    }

    #[test]
    fn an_update_may_bring_the_old_key_and_leave_out_large_values() {
        let mut decoder = Decoder::default();
        decoder.decode(relation_message().into()).unwrap();
        let update = Bytes::from_static(b"U\0\0\0\x07K\0\x02t\0\0\0\x011nN\0\x02t\0\0\0\x012u");
        let change = decoder.decode(update).unwrap().unwrap();
        assert_eq!(change.old, Some(vec![Cell::Text("1".into()), Cell::Null]));
        assert_eq!(change.new, Some(vec![Cell::Text("2".into()), Cell::Unchanged]));
    }

    #[test]
    fn every_cut_of_a_message_is_an_error_and_no_panic() {
        let mut decoder = Decoder::default();
        let whole = relation_message();
        for end in 0..whole.len() {
            assert!(decoder.decode(Bytes::copy_from_slice(&whole[..end])).is_err(), "cut at {end}");
        }
        decoder.decode(whole.into()).unwrap();
        let insert = b"I\0\0\0\x07N\0\x02t\0\0\0\x0242n";
        for end in 6..insert.len() {
            assert!(decoder.decode(Bytes::copy_from_slice(&insert[..end])).is_err(), "cut at {end}");
        }
    }
}
