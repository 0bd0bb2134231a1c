//! Frames, as bytes that are ready to be sent.

use serde_json::{Value, json};

/// The id of a channel's first binding.
pub(crate) const BINDING: u64 = 113_767_180;
/// Bytes of a row change in the array framing; the object framing is a little longer.
const EVENT_BYTES: usize = 665;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    V1,
    V2,
}

impl Version {
    pub(crate) fn message(
        self,
        join_ref: &Value,
        reference: &Value,
        topic: &Value,
        event: &str,
        payload: &Value,
    ) -> String {
        match self {
            Self::V2 => json!([join_ref, reference, topic, event, payload]).to_string(),
            Self::V1 => json!({"ref": reference, "event": event, "payload": payload, "topic": topic}).to_string(),
        }
    }
}

/// A websocket frame from a server: not masked.
pub(crate) fn encode(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![opcode];
    match payload.len() {
        length @ 0..126 => frame.push(length as u8),
        length @ 126..65536 => {
            frame.push(126);
            frame.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            frame.push(127);
            frame.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(payload);
    frame
}

/// The frame of an inserted row, in which only the row's number and its time change.
pub(crate) struct Event {
    frame: Vec<u8>,
    id: usize,
    sent: usize,
}

const ID_DIGITS: usize = 8;
const SENT_DIGITS: usize = 16;
/// Stands for the number, which has that many digits and no leading zero: see [`Event::frame`].
const ID: &str = "\"id\": 10000000";
const SENT: &str = "\"sent\": \"0000000000000000\"";

impl Event {
    pub(crate) fn new(version: Version, topic: &str) -> Self {
        let payload = |title: &str| {
            // Keys as PostgreSQL and the recorded frames order them: by length, then by name; with spaces inside rows.
            format!(
                concat!(
                    r#"{{"data":{{"table":"deployments","type":"INSERT","record":{{{id}, "phase": null, {sent}, "title": "{title}", "#,
                    r#""status": "QUEUED", "attempt": 1, "cluster_id": "c4871fb89", "created_at": "2026-11-23T14:34:27.253123+00:00"}},"#,
                    r#""columns":[{{"name": "id", "type": "int8"}}, {{"name": "cluster_id", "type": "text"}}, {{"name": "status", "type": "text"}}, "#,
                    r#"{{"name": "phase", "type": "text"}}, {{"name": "attempt", "type": "int4"}}, {{"name": "title", "type": "text"}}, "#,
                    r#"{{"name": "created_at", "type": "timestamptz"}}, {{"name": "sent", "type": "text"}}],"#,
                    r#""errors":null,"schema":"public","commit_timestamp":"2026-11-23T14:34:27.383Z"}},"ids":[{binding}]}}"#
                ),
                id = ID,
                sent = SENT,
                title = title,
                binding = BINDING,
            )
        };
        let array = |title: &str| format!(r#"[null,null,"{topic}","postgres_changes",{}]"#, payload(title));
        let title = "x".repeat(EVENT_BYTES.saturating_sub(array("").len()));
        let text = match version {
            Version::V2 => array(&title),
            Version::V1 => format!(
                r#"{{"ref":null,"event":"postgres_changes","payload":{},"topic":"{topic}"}}"#,
                payload(&title)
            ),
        };
        let frame = encode(0x81, text.as_bytes());
        let header = frame.len() - text.len();
        let place = |mark: &str, from_end: usize| {
            header + text.find(mark).expect("the mark is in the text") + mark.len() - from_end
        };
        let (id, sent) = (place(ID, ID_DIGITS), place(SENT, SENT_DIGITS + 1));
        Self { frame, id, sent }
    }

    /// The frame of row `id`, counted from 1 and sent as `10_000_000 + id`, with a time in nanoseconds or 0.
    pub(crate) fn frame(&mut self, id: u64, sent: u64) -> &[u8] {
        digits(&mut self.frame[self.id..self.id + ID_DIGITS], 10_000_000 + id);
        digits(&mut self.frame[self.sent..self.sent + SENT_DIGITS], sent);
        &self.frame
    }
}

fn digits(place: &mut [u8], mut number: u64) {
    for digit in place.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}
