//! Binary frames of version 2.0.0: a kind, one-byte lengths, the names, and the payload.
//!
//! | kind | name | direction | lengths |
//! |---|---|---|---|
//! | 0 | push | server | join ref, topic, event |
//! | 1 | reply | server | join ref, ref, topic, status |
//! | 2 | broadcast | server | topic, event |
//! | 3 | user broadcast push | client | join ref, ref, topic, event, metadata; then the encoding |
//! | 4 | user broadcast | server | topic, event, metadata; then the encoding |

use bytes::Bytes;
use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::{Body, BroadcastPayload, Event, FrameError, Inbound, Outbound, Payload, Slice, UserBroadcast};
use crate::error::Error;

const PUSH: u8 = 0;
const REPLY: u8 = 1;
const BROADCAST: u8 = 2;
const USER_BROADCAST_PUSH: u8 = 3;
const USER_BROADCAST: u8 = 4;

const RAW: u8 = 0;

/// Reads a binary frame from the server.
pub(crate) fn decode(frame: &Bytes) -> Result<Inbound, FrameError> {
    let mut reader = Reader { frame, at: 0 };
    let kind = reader.byte()?;
    match kind {
        PUSH => {
            let [join_ref, topic, event] = reader.lengths()?;
            let join_ref = reader.name(join_ref)?;
            let (topic, event) = (reader.name(topic)?, reader.name(event)?);
            Ok(inbound(Some(join_ref), None, topic, Event::from_name(&event), Body::Opaque(reader.rest())))
        }
        REPLY => {
            let [join_ref, reference, topic, status] = reader.lengths()?;
            let (join_ref, reference) = (reader.name(join_ref)?, reader.name(reference)?);
            let (topic, _status) = (reader.name(topic)?, reader.name(status)?);
            Ok(inbound(Some(join_ref), Some(reference), topic, Event::Reply, Body::Opaque(reader.rest())))
        }
        BROADCAST => {
            let [topic, event] = reader.lengths()?;
            let (topic, event) = (reader.name(topic)?, reader.name(event)?);
            Ok(inbound(None, None, topic, Event::from_name(&event), Body::Opaque(reader.rest())))
        }
        USER_BROADCAST => {
            let [topic, event, metadata] = reader.lengths()?;
            let encoding = reader.byte()?;
            let (topic, event) = (reader.name(topic)?, reader.name(event)?);
            let metadata = Some(reader.name(metadata)?).filter(|text| !text.is_empty());
            let payload = if encoding == RAW {
                BroadcastPayload::Binary(reader.rest())
            } else {
                let text = Utf8Bytes::try_from(reader.rest()).map_err(|_| FrameError::NotUtf8)?;
                BroadcastPayload::Json(Slice::whole(text))
            };
            let body = Body::UserBroadcast(Box::new(UserBroadcast { event, metadata, payload }));
            Ok(inbound(None, None, topic, Event::Broadcast, body))
        }
        other => Err(FrameError::UnknownKind(other)),
    }
}

/// Writes a broadcast of raw bytes (kind 3).
pub(crate) fn encode(message: &Outbound) -> Result<Option<Bytes>, Error> {
    let Payload::BinaryBroadcast { event, bytes } = &message.payload else { return Ok(None) };
    let join_ref = message.join_ref.as_deref().unwrap_or_default();
    let mut header = vec![USER_BROADCAST_PUSH];
    for (field, text) in [
        ("join ref", join_ref),
        ("ref", message.reference.as_str()),
        ("topic", message.topic.as_str()),
        ("event", event.as_str()),
    ] {
        header.push(name_length(field, text)?);
    }
    header.push(0); // The server drops a client's metadata (OBSERVED 28).
    header.push(RAW);
    let mut frame = Vec::with_capacity(header.len() + message.topic.len() + event.len() + bytes.len() + 16);
    frame.extend_from_slice(&header);
    for text in [join_ref, &message.reference, &message.topic, event] {
        frame.extend_from_slice(text.as_bytes());
    }
    frame.extend_from_slice(bytes);
    Ok(Some(Bytes::from(frame)))
}

/// The length byte of a header field: UTF-8 bytes, at most 255.
pub(crate) fn name_length(field: &'static str, text: &str) -> Result<u8, Error> {
    u8::try_from(text.len()).map_err(|_| {
        Error::invalid(field, format!("it is {} bytes long; a frame carries at most 255", text.len()))
    })
}

fn inbound(
    join_ref: Option<String>,
    reference: Option<String>,
    topic: String,
    event: Event,
    body: Body,
) -> Inbound {
    let join_ref = join_ref.filter(|text| !text.is_empty());
    Inbound { join_ref, reference, topic: Slice::from(topic), event, body }
}

struct Reader<'a> {
    frame: &'a Bytes,
    at: usize,
}

impl Reader<'_> {
    fn byte(&mut self) -> Result<u8, FrameError> {
        let byte = *self.frame.get(self.at).ok_or(FrameError::Truncated(self.frame.len()))?;
        self.at += 1;
        Ok(byte)
    }

    fn lengths<const N: usize>(&mut self) -> Result<[usize; N], FrameError> {
        let mut lengths = [0; N];
        for length in &mut lengths {
            *length = usize::from(self.byte()?);
        }
        Ok(lengths)
    }

    fn name(&mut self, length: usize) -> Result<String, FrameError> {
        let end = self.at + length;
        let bytes = self.frame.get(self.at..end).ok_or(FrameError::Truncated(self.frame.len()))?;
        self.at = end;
        String::from_utf8(bytes.to_vec()).map_err(|_| FrameError::NotUtf8)
    }

    fn rest(&self) -> Bytes {
        self.frame.slice(self.at.min(self.frame.len())..)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(hex: &str) -> Bytes {
        let hex: String = hex.chars().filter(char::is_ascii_hexdigit).collect();
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    }

    #[test]
    fn a_json_broadcast_in_binary_framing_is_read() {
        let frame = bytes("04 0d 06 00 01 7265616c74696d653a726f6f6d 637572736f72 7b2278223a317d");
        let message = decode(&frame).unwrap();
        assert_eq!(message.topic.as_str(), "realtime:room");
        assert_eq!(
            message.body,
            Body::UserBroadcast(Box::new(UserBroadcast {
                event: "cursor".to_owned(),
                metadata: None,
                payload: BroadcastPayload::Json(Slice::from(r#"{"x":1}"#.to_owned())),
            }))
        );
    }

    #[test]
    fn a_binary_broadcast_is_written_with_byte_lengths() {
        let message = Outbound {
            join_ref: Some("1".to_owned()),
            reference: "9".to_owned(),
            topic: "realtime:room".to_owned(),
            event: "broadcast",
            payload: Payload::BinaryBroadcast { event: "é".to_owned(), bytes: Bytes::from_static(&[1, 2]) },
        };
        let frame = encode(&message).unwrap().unwrap();
        assert_eq!(frame, bytes("03 01 01 0d 02 00 00 31 39 7265616c74696d653a726f6f6d c3a9 0102"));
        let long = Outbound {
            payload: Payload::BinaryBroadcast { event: "é".repeat(128), bytes: Bytes::new() },
            ..message
        };
        assert!(encode(&long).unwrap_err().to_string().contains("event"));
    }

    #[test]
    fn every_truncation_is_an_error_and_not_a_panic() {
        let frame = bytes("04 0d 03 02 00 7265616c74696d653a726f6f6d 696d67 7b7d dead");
        assert!(decode(&frame).is_ok());
        for length in 0..23 {
            assert!(decode(&frame.slice(..length)).is_err(), "{length}");
        }
        assert_eq!(decode(&bytes("09")), Err(FrameError::UnknownKind(9)));
    }
}
