//! The binary frames of version 2.0.0: a user's broadcast, as sent (kind 3) and as delivered (kind 4).
//!
//! First byte the kind, then one length byte per header field, then the fields, then the payload.

use bytes::Bytes;

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

/// What a binary broadcast carries to its receivers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BinaryBroadcast {
    pub(crate) event: String,
    /// Whether the payload is JSON text.
    pub(crate) json: bool,
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
        let broadcast = BinaryBroadcast { event, json: header[5] != 0, payload: frame.slice(position..) };
        Some(Self { join_ref, reference, topic, broadcast })
    }
}

impl BinaryBroadcast {
    /// The kind 4 frame for a receiver on `topic`; `None` if a name does not fit into its length byte.
    pub(crate) fn encode(&self, topic: &str) -> Option<Vec<u8>> {
        let mut frame =
            vec![DELIVERY, u8::try_from(topic.len()).ok()?, u8::try_from(self.event.len()).ok()?, 0];
        frame.push(if self.json { JSON } else { 0 });
        frame.extend_from_slice(topic.as_bytes());
        frame.extend_from_slice(self.event.as_bytes());
        frame.extend_from_slice(&self.payload);
        Some(frame)
    }

    /// The text payload for a receiver of version 1.0.0; `None` for what is not marked as JSON. The mark is believed, as
    /// the real server believes it, so a careless sender makes this invalid JSON.
    pub(crate) fn to_text(&self) -> Option<String> {
        let payload = std::str::from_utf8(&self.payload).ok().filter(|_| self.json)?;
        let event = serde_json::Value::from(self.event.as_str());
        Some(format!(r#"{{"event":{event},"payload":{payload},"type":"broadcast"}}"#))
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
    fn cut_and_foreign_frames_are_nothing() {
        let whole = push();
        for end in 0..whole.len() - 7 {
            assert_eq!(BinaryPush::decode(&Bytes::copy_from_slice(&whole[..end])), None, "cut at {end}");
        }
        assert_eq!(BinaryPush::decode(&Bytes::from_static(b"\x09\x01\x02\x03")), None);
    }
}
