//! The binary frames of version 2.0.0: a user's broadcast, as sent (kind 3) and as delivered (kind 4).
//!
//! First byte the kind, then one length byte per header field, then the fields, then the payload.

use bytes::Bytes;
use serde_json::Value;

const PUSH: u8 = 3;
const DELIVERY: u8 = 4;
const JSON: u8 = 1;

/// A broadcast a client pushed in binary. Its metadata is dropped, as the real server drops it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BinaryPush {
    pub(crate) join_ref: String,
    pub(crate) reference: String,
    pub(crate) topic: String,
    pub(crate) broadcast: BinaryBroadcast,
}

/// What receivers get of a binary broadcast.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BinaryBroadcast {
    pub(crate) event: String,
    /// Whether the payload is JSON text.
    pub(crate) json: bool,
    /// Of the message's row, if it has one.
    pub(crate) id: Option<String>,
    /// Whether it was stored and is replayed.
    pub(crate) replayed: bool,
    pub(crate) payload: Bytes,
}

impl BinaryPush {
    /// Reads a kind 3 frame; `None` for anything else.
    pub(crate) fn decode(frame: &Bytes) -> Option<Self> {
        let (kind, header) = (frame.first()?, frame.get(1..7)?);
        if *kind != PUSH {
            return None;
        }
        let mut position = 7;
        let mut field = |length: u8| {
            let bytes = frame.get(position..position + usize::from(length))?;
            position += usize::from(length);
            Some(bytes)
        };
        let text = |bytes: Option<&[u8]>| String::from_utf8(bytes?.to_vec()).ok();
        let join_ref = text(field(header[0]))?;
        let reference = text(field(header[1]))?;
        let topic = text(field(header[2]))?;
        let event = text(field(header[3]))?;
        field(header[4])?;
        let (json, payload) = (header[5] != 0, frame.slice(position..));
        let broadcast = BinaryBroadcast { event, json, id: None, replayed: false, payload };
        Some(Self { join_ref, reference, topic, broadcast })
    }
}

impl BinaryBroadcast {
    /// JSON text: what is known of the message beside itself. Empty if nothing is.
    fn meta(&self) -> String {
        let Some(id) = &self.id else { return String::new() };
        let id = Value::from(id.as_str());
        if self.replayed { format!(r#"{{"id":{id},"replayed":true}}"#) } else { format!(r#"{{"id":{id}}}"#) }
    }

    /// The kind 4 frame for a receiver on `topic`; `None` if a name does not fit into its length byte.
    pub(crate) fn encode(&self, topic: &str) -> Option<Vec<u8>> {
        let meta = self.meta();
        let mut frame = vec![DELIVERY];
        for field in [topic, &self.event, &meta] {
            frame.push(u8::try_from(field.len()).ok()?);
        }
        frame.push(if self.json { JSON } else { 0 });
        for field in [topic, &self.event, &meta] {
            frame.extend_from_slice(field.as_bytes());
        }
        frame.extend_from_slice(&self.payload);
        Some(frame)
    }

    /// The text payload for a receiver of version 1.0.0; `None` for what is not marked as JSON. The mark is believed, as
    /// the real server does not check it, so a careless sender makes this invalid JSON.
    pub(crate) fn to_text(&self) -> Option<String> {
        let payload = std::str::from_utf8(&self.payload).ok().filter(|_| self.json)?;
        let event = Value::from(self.event.as_str());
        let meta = self.meta();
        let meta = if meta.is_empty() { meta } else { format!(r#""meta":{meta},"#) };
        Some(format!(r#"{{"event":{event},{meta}"payload":{payload},"type":"broadcast"}}"#))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push() -> Vec<u8> {
        let mut frame = vec![3, 1, 1, 13, 6, 0, 1];
        frame.extend(b"17realtime:roomcursor{\"x\":1}");
        frame
    }

    #[test]
    fn a_push_becomes_a_delivery() {
        let push = BinaryPush::decode(&push().into()).unwrap();
        assert_eq!((push.join_ref.as_str(), push.reference.as_str()), ("1", "7"));
        let mut expected = vec![4, 13, 6, 0, 1];
        expected.extend(b"realtime:roomcursor{\"x\":1}");
        assert_eq!(push.broadcast.encode(&push.topic), Some(expected));
        assert_eq!(
            push.broadcast.to_text().unwrap(),
            r#"{"event":"cursor","payload":{"x":1},"type":"broadcast"}"#
        );
    }

    #[test]
    fn a_message_of_the_database_tells_its_id() {
        let (event, id) = ("e".to_owned(), Some("i".to_owned()));
        let message =
            BinaryBroadcast { event, json: true, id, replayed: true, payload: Bytes::from_static(b"1") };
        let meta = r#"{"id":"i","replayed":true}"#;
        let mut expected = vec![4, 1, 1, 26, 1];
        expected.extend(format!("te{meta}1").into_bytes());
        assert_eq!(message.encode("t"), Some(expected));
        let text = format!(r#"{{"event":"e","meta":{meta},"payload":1,"type":"broadcast"}}"#);
        assert_eq!(message.to_text(), Some(text));
    }

    #[test]
    fn cut_and_foreign_frames_are_nothing() {
        let whole = push();
        for end in 0..whole.len() - 7 {
            assert_eq!(BinaryPush::decode(&Bytes::copy_from_slice(&whole[..end])), None, "cut at {end}");
        }
        assert_eq!(BinaryPush::decode(&Bytes::from_static(b"\x09\x01\x02\x03")), None);
    }
}
