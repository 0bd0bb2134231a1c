//! The two languages of text frames: version 1.0.0 (objects) and 2.0.0 (arrays).

use serde_json::Value;

/// The protocol version of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    /// `{"topic", "event", "payload", "ref"}`; the server never sends `join_ref`.
    V1,
    /// `[join_ref, ref, topic, event, payload]`, and binary frames.
    V2,
}

impl Version {
    /// The language of a `vsn` parameter: 1.0.x or 2.0.x, and the first if there is none.
    pub(crate) fn negotiate(vsn: Option<&str>) -> Option<Self> {
        let Some(vsn) = vsn else { return Some(Self::V1) };
        let patch = |rest: &str| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit());
        match (vsn.strip_prefix("1.0."), vsn.strip_prefix("2.0.")) {
            (Some(rest), _) if patch(rest) => Some(Self::V1),
            (_, Some(rest)) if patch(rest) => Some(Self::V2),
            _ => None,
        }
    }
}

/// A frame from a client. Refs keep their JSON type, and a topic may be anything: both are echoed.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Incoming {
    pub(crate) join_ref: Value,
    pub(crate) reference: Value,
    pub(crate) topic: Value,
    pub(crate) event: Value,
    pub(crate) payload: Value,
}

impl Incoming {
    /// Reads a frame; `None` if it is not one. Elements beyond the fifth, and unknown keys, are ignored.
    pub(crate) fn decode(version: Version, text: &str) -> Option<Self> {
        match (version, serde_json::from_str(text).ok()?) {
            (Version::V1, Value::Object(mut object)) => {
                let mut take = |key: &str| object.remove(key);
                Some(Self {
                    topic: take("topic")?,
                    event: take("event")?,
                    payload: take("payload")?,
                    reference: take("ref")?,
                    join_ref: take("join_ref").unwrap_or_default(),
                })
            }
            (Version::V2, Value::Array(elements)) => {
                let mut elements = elements.into_iter();
                Some(Self {
                    join_ref: elements.next()?,
                    reference: elements.next()?,
                    topic: elements.next()?,
                    event: elements.next()?,
                    payload: elements.next()?,
                })
            }
            _ => None,
        }
    }
}

/// A frame to a client.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Outgoing {
    pub(crate) join_ref: Value,
    pub(crate) reference: Value,
    pub(crate) topic: Value,
    pub(crate) event: &'static str,
    /// JSON text.
    pub(crate) payload: String,
}

impl Outgoing {
    /// The answer to a push.
    pub(crate) fn reply(
        join_ref: Value,
        reference: Value,
        topic: Value,
        status: &str,
        response: &str,
    ) -> Self {
        let payload = format!(r#"{{"status":"{status}","response":{response}}}"#);
        Self { join_ref, reference, topic, event: "phx_reply", payload }
    }

    /// An error answer with a reason.
    pub(crate) fn refusal(join_ref: Value, reference: Value, topic: Value, reason: &str) -> Self {
        let response = format!(r#"{{"reason":{}}}"#, Value::from(reason));
        Self::reply(join_ref, reference, topic, "error", &response)
    }

    pub(crate) fn encode(&self, version: Version) -> String {
        let Self { join_ref, reference, topic, event, payload } = self;
        match version {
            Version::V1 => {
                format!(r#"{{"ref":{reference},"event":"{event}","payload":{payload},"topic":{topic}}}"#)
            }
            Version::V2 => format!(r#"[{join_ref},{reference},{topic},"{event}",{payload}]"#),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_missing_version_is_the_first_and_others_are_refused() {
        assert_eq!(Version::negotiate(None), Some(Version::V1));
        assert_eq!(Version::negotiate(Some("2.0.0")), Some(Version::V2));
        for vsn in ["3.0.0", "1.1.0", "2", "", "1.0.x"] {
            assert_eq!(Version::negotiate(Some(vsn)), None, "{vsn}");
        }
    }

    #[test]
    fn what_is_no_frame_is_nothing() {
        for text in
            ["not json", "", "42", "null", "{}", "[]", r#"[null,"1","realtime:ok"]"#, r#"{"topic":"a"}"#]
        {
            assert_eq!(Incoming::decode(Version::V2, text), None, "{text}");
            assert_eq!(Incoming::decode(Version::V1, text), None, "{text}");
        }
    }

    #[test]
    fn refs_keep_their_type_and_extra_elements_are_ignored() {
        let frame = Incoming::decode(Version::V2, r#" [null,7,"phoenix","heartbeat",{},"extra"] "#).unwrap();
        assert_eq!((frame.reference, frame.topic), (json!(7), json!("phoenix")));
    }

    #[test]
    fn each_version_has_its_own_order() {
        let reply = Outgoing::reply(json!("1"), json!("2"), json!("realtime:a"), "ok", "{}");
        let payload = r#"{"status":"ok","response":{}}"#;
        assert_eq!(reply.encode(Version::V2), format!(r#"["1","2","realtime:a","phx_reply",{payload}]"#));
        assert_eq!(
            reply.encode(Version::V1),
            format!(r#"{{"ref":"2","event":"phx_reply","payload":{payload},"topic":"realtime:a"}}"#)
        );
    }
}
