//! Text frames: arrays `[join_ref, ref, topic, event, payload]` in version 2.0.0, objects in 1.0.0.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{Error as _, IgnoredAny, SeqAccess, Visitor},
};
use serde_json::value::RawValue;
use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::{
    Body, Change, Event, FrameError, Inbound, Outbound, Part, Payload, Slice, change::ChangeParts, ids::Ids,
    name::Name,
};
use crate::endpoint::ProtocolVersion;

/// A row change of which the driver reads the destination, and nothing else.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct RoutedChange {
    /// The place of the join ref in the change's frame, if it has one.
    join_ref: Option<Part>,
    topic: Part,
    pub(crate) ids: Ids,
    pub(crate) change: Change,
}

impl RoutedChange {
    pub(crate) fn join_ref(&self) -> Option<&str> {
        self.join_ref.map(|part| self.change.payload().text(part))
    }

    pub(crate) fn topic(&self) -> &str {
        self.change.payload().text(self.topic)
    }
}

/// Reads a text frame. Either version's shape is accepted, whatever was negotiated.
pub(crate) fn decode(frame: &Utf8Bytes) -> Result<Inbound, FrameError> {
    let text = frame.as_str();
    let envelope = if text.trim_ascii_start().starts_with('[') {
        serde_json::from_str::<ArrayEnvelope<'_>>(text).map(|array| array.0)
    } else {
        serde_json::from_str::<ObjectEnvelope<'_>>(text).map(Envelope::from)
    }
    .map_err(|error| FrameError::Json(error.to_string()))?;
    let event = Event::from_name(&envelope.event);
    let body = match envelope.payload {
        PayloadParts::Json(raw) => Body::Json(Slice::of(frame, raw.get())),
        PayloadParts::Change(payload) => {
            let parts = ChangeParts::of(payload.get());
            // One of an unknown type is for somebody all the same: its stream says that an event is missing.
            if parts.kind().is_none() && parts.ids.is_empty() {
                return Err(FrameError::Json("a row change without a known type".to_owned()));
            }
            Body::Change(parts.ids, Change::new(Slice::of(frame, payload.get())))
        }
    };
    Ok(Inbound {
        join_ref: envelope.join_ref.map(Cow::into_owned),
        reference: envelope.reference.map(Cow::into_owned),
        topic: Slice::of(frame, &envelope.topic),
        event,
        body,
    })
}

/// A row change in the form in which the server writes it, found by its two ends: `[null,null,"realtime:room",
/// "postgres_changes",{…,"ids":[7]}]`. Any other message, and any other form of this one, is given back. Whether the JSON between
/// the ends is sound shows when the row is read.
pub(crate) fn route(frame: Utf8Bytes) -> Result<RoutedChange, Utf8Bytes> {
    match ends_of_change(&frame) {
        Some((join_ref, topic, ids, payload)) => {
            Ok(RoutedChange { join_ref, topic, ids, change: Change::new(Slice::at(frame, payload)) })
        }
        None => Err(frame),
    }
}

fn ends_of_change(frame: &Utf8Bytes) -> Option<(Option<Part>, Part, Ids, Part)> {
    let text = frame.as_str();
    let (join_ref, rest) = skim_reference(text.strip_prefix('[')?)?;
    let (_, rest) = skim_reference(rest)?;
    let (topic, rest) = skim_string(rest)?;
    let payload = rest.strip_prefix("\"postgres_changes\",")?.strip_suffix(']')?;
    let ids = Ids::at_end_of(payload)?;
    let place = |piece: &str| Part::of(frame, piece);
    Some((join_ref.and_then(place), place(topic)?, ids, place(payload)?))
}

fn skim_reference(text: &str) -> Option<(Option<&str>, &str)> {
    match text.strip_prefix("null,") {
        Some(rest) => Some((None, rest)),
        None => skim_string(text).map(|(reference, rest)| (Some(reference), rest)),
    }
}

/// A string without escapes and the comma after it.
fn skim_string(text: &str) -> Option<(&str, &str)> {
    let (string, rest) = text.strip_prefix('"')?.split_once('"')?;
    (!string.contains('\\')).then_some((string, rest.strip_prefix(',')?))
}

/// Writes a message as a text frame. `None` if this version has no text for it (raw bytes).
pub(crate) fn encode(message: &Outbound, version: ProtocolVersion) -> Option<String> {
    let Payload::Json(payload) = &message.payload else { return None };
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let join_ref = message.join_ref.as_deref().map_or_else(|| "null".to_owned(), quoted);
    let (reference, topic) = (quoted(&message.reference), quoted(&message.topic));
    let event = message.event;
    Some(match version {
        ProtocolVersion::V2 => format!("[{join_ref},{reference},{topic},\"{event}\",{payload}]"),
        ProtocolVersion::V1 if message.join_ref.is_none() => {
            format!("{{\"topic\":{topic},\"event\":\"{event}\",\"payload\":{payload},\"ref\":{reference}}}")
        }
        ProtocolVersion::V1 => format!(
            "{{\"topic\":{topic},\"event\":\"{event}\",\"payload\":{payload},\"ref\":{reference},\"join_ref\":{join_ref}}}"
        ),
    })
}

struct Envelope<'a> {
    join_ref: Option<Cow<'a, str>>,
    reference: Option<Cow<'a, str>>,
    topic: Cow<'a, str>,
    event: Cow<'a, str>,
    payload: PayloadParts<'a>,
}

enum PayloadParts<'a> {
    Json(&'a RawValue),
    Change(&'a RawValue),
}

/// Version 2.
struct ArrayEnvelope<'a>(Envelope<'a>);

impl<'de: 'a, 'a> Deserialize<'de> for ArrayEnvelope<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Array;
        impl<'de> Visitor<'de> for Array {
            type Value = ArrayEnvelope<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array of join_ref, ref, topic, event and payload")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let short = || A::Error::custom("fewer than five elements");
                let join_ref = seq.next_element::<Reference<'de>>()?.ok_or_else(short)?.0;
                let reference = seq.next_element::<Reference<'de>>()?.ok_or_else(short)?.0;
                let topic = seq.next_element::<Name<'de>>()?.ok_or_else(short)?.0;
                let event = seq.next_element::<Name<'de>>()?.ok_or_else(short)?.0;
                let payload = if event == "postgres_changes" {
                    seq.next_element()?.map(PayloadParts::Change)
                } else {
                    seq.next_element()?.map(PayloadParts::Json)
                }
                .ok_or_else(short)?;
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(ArrayEnvelope(Envelope { join_ref, reference, topic, event, payload }))
            }
        }
        deserializer.deserialize_seq(Array)
    }
}

/// Version 1: keys in any order, no join ref.
#[derive(Deserialize)]
struct ObjectEnvelope<'a> {
    #[serde(borrow)]
    topic: Name<'a>,
    #[serde(borrow)]
    event: Name<'a>,
    #[serde(borrow)]
    payload: &'a RawValue,
    #[serde(borrow, rename = "ref", default)]
    reference: Reference<'a>,
    #[serde(borrow, default)]
    join_ref: Reference<'a>,
}

impl<'a> From<ObjectEnvelope<'a>> for Envelope<'a> {
    fn from(object: ObjectEnvelope<'a>) -> Self {
        let ObjectEnvelope { topic, event, payload, reference, join_ref } = object;
        let payload = if event.0 == "postgres_changes" {
            PayloadParts::Change(payload)
        } else {
            PayloadParts::Json(payload)
        };
        Self { join_ref: join_ref.0, reference: reference.0, topic: topic.0, event: event.0, payload }
    }
}

/// A ref: a string or null, or a number for peers that send numbers.
#[derive(Default)]
struct Reference<'a>(Option<Cow<'a, str>>);

impl<'de: 'a, 'a> Deserialize<'de> for Reference<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Reference<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a ref")
            }

            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(Reference(None))
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Reference(Some(Cow::Borrowed(text))))
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Reference(Some(Cow::Owned(text.to_owned()))))
            }

            fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
                Ok(Reference(Some(Cow::Owned(number.to_string()))))
            }

            fn visit_i64<E>(self, number: i64) -> Result<Self::Value, E> {
                Ok(Reference(Some(Cow::Owned(number.to_string()))))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Inbound {
        decode(&Utf8Bytes::from(text)).unwrap()
    }

    #[test]
    fn both_versions_of_a_reply_read_alike() {
        let array = read(r#"["1","2","realtime:room","phx_reply",{"status":"ok","response":{}}]"#);
        let object = read(
            r#"{"topic":"realtime:room","event":"phx_reply","payload":{"status":"ok","response":{}},"ref":"2"}"#,
        );
        assert_eq!(array.join_ref.as_deref(), Some("1"));
        assert_eq!(object.join_ref, None);
        assert_eq!((array.reference, array.topic, array.event, array.body), {
            (object.reference, object.topic, object.event, object.body)
        });
    }

    #[test]
    fn a_row_change_is_taken_apart_where_it_lies() {
        let text = r#"[null,null,"realtime:x","postgres_changes",{"data":{"table":"events","type":"UPDATE","record":{"id":1},"old_record":{"id":1},"columns":[{"name":"id","type":"int8"}],"errors":null,"schema":"public","commit_timestamp":"2026-11-23T14:34:27.383Z"},"ids":[113767180,7]}]"#;
        let Body::Change(ids, change) = read(text).body else { panic!("no change") };
        assert_eq!(*ids, [113_767_180, 7]);
        let change = change.parts();
        assert_eq!(change.record(), Some(r#"{"id":1}"#));
        assert_eq!(change.old_record(), Some(r#"{"id":1}"#));
        assert_eq!((change.schema().as_str(), change.table().as_str()), ("public", "events"));
        assert!(change.is_of(Some("public"), Some("events")));
        assert!(!change.is_of(Some("public"), Some("event_")));
        assert!(change.errors().is_empty());
    }

    #[test]
    fn a_change_is_routed_alike_whatever_its_form() {
        let data = r#"{"table":"t","type":"INSERT","record":{"id":1,"x":"},\"ids\":[9]}]"},"columns":[],"errors":null,"schema":"public"}"#;
        let quick = format!(r#"["4",null,"realtime:ü","postgres_changes",{{"data":{data},"ids":[7,8]}}]"#);
        let quick = route(Utf8Bytes::from(quick.as_str())).expect("the server's form");
        assert_eq!((quick.topic(), quick.join_ref()), ("realtime:ü", Some("4")));
        for other in [
            format!(r#" ["4",null,"realtime:ü","postgres_changes",{{"data":{data},"ids":[7,8]}}]"#),
            format!(r#"["4",null,"realtime:\u00fc","postgres_changes",{{"data":{data},"ids":[7,8]}}]"#),
            format!(r#"["4",null,"realtime:ü","postgres_changes",{{"data":{data},"ids":[7, 8]}}]"#),
            format!(r#"["4",null,"realtime:ü","postgres_changes",{{"ids":[7,8],"data":{data}}}]"#),
            format!(r#"["4", null,"realtime:ü","postgres_changes",{{"data":{data},"ids" : [7,8] }} ]"#),
        ] {
            assert!(route(Utf8Bytes::from(other.as_str())).is_err(), "{other}");
            let slow = read(&other);
            assert_eq!((slow.topic.as_str(), slow.join_ref.as_deref()), (quick.topic(), quick.join_ref()));
            let Body::Change(ids, change) = slow.body else { panic!("{other}") };
            assert_eq!(ids, quick.ids);
            let (slow, quick) = (change.parts(), quick.change.parts());
            assert_eq!((slow.record(), slow.kind()), (quick.record(), quick.kind()));
            assert!(slow.is_of(Some("public"), Some("t")) && quick.is_of(Some("public"), Some("t")));
        }
        // What only looks like the end of the server's form.
        for other in [
            r#"[null,null,"t","postgres_changes",{"data":{},"x":"\"ids\":[7]}]"#,
            r#"[null,null,"t","postgres_changes",{"a":"b,\"ids\":[7]}"]"#,
            r#"[null,null,"t","postgres_changes",{"a\",\"ids":[7]}]"#,
            r#"[null,null,"t","postgres_changes",{"ids":[[7]]}]"#,
            r#"[null,null,"t","postgres_changes",{"ids":[]}]"#,
            r#"[null,null,"t\"","postgres_changes",{"ids":[7]}]"#,
        ] {
            assert!(route(Utf8Bytes::from(other)).is_err(), "{other}");
        }
    }

    #[test]
    fn a_change_of_an_unknown_type_is_routed_in_both_versions() {
        for text in [
            r#"[null, null, "t", "postgres_changes", {"data":{"type":"TRUNCATE"},"ids":[7]}]"#,
            r#"{"topic":"t","event":"postgres_changes","payload":{"data":{"type":"TRUNCATE"},"ids":[7]},"ref":null}"#,
        ] {
            let Body::Change(ids, change) = read(text).body else { panic!("{text}") };
            assert_eq!((&*ids, change.parts().kind()), ([7].as_slice(), None));
        }
        let nobodys = r#"[null, null, "t", "postgres_changes", {"data":{"type":"TRUNCATE"}}]"#;
        assert!(decode(&Utf8Bytes::from(nobodys)).is_err());
    }

    #[test]
    fn malformed_frames_are_errors_and_not_panics() {
        for text in
            ["", "[", "[]", "{}", "null", "[null,null,1,2,3]", r#"["1","2","t","e"]"#, "\"text\"", "[[[["]
        {
            assert!(decode(&Utf8Bytes::from(text)).is_err(), "{text}");
        }
    }

    #[test]
    fn extra_elements_and_number_refs_are_tolerated() {
        let message = read(r#"[1,2,"t","system",{},"more"]"#);
        assert_eq!((message.join_ref.as_deref(), message.reference.as_deref()), (Some("1"), Some("2")));
    }

    #[test]
    fn messages_are_written_in_the_form_of_each_version() {
        let message = Outbound {
            join_ref: Some("1".to_owned()),
            reference: "2".to_owned(),
            topic: "realtime:a\"b".to_owned(),
            event: "phx_join",
            payload: Payload::Json(r#"{"config":{}}"#.to_owned()),
        };
        assert_eq!(
            encode(&message, ProtocolVersion::V2).unwrap(),
            r#"["1","2","realtime:a\"b","phx_join",{"config":{}}]"#
        );
        assert_eq!(
            encode(&message, ProtocolVersion::V1).unwrap(),
            r#"{"topic":"realtime:a\"b","event":"phx_join","payload":{"config":{}},"ref":"2","join_ref":"1"}"#
        );
    }
}
