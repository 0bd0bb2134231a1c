//! Event names and reply statuses.

/// The event of an inbound message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    Reply,
    Error,
    Close,
    System,
    PostgresChanges,
    Broadcast,
    PresenceState,
    PresenceDiff,
    /// Anything newer than this crate: passed over, not an error.
    Other(String),
}

impl Event {
    pub(crate) fn from_name(name: &str) -> Self {
        match name {
            "phx_reply" => Self::Reply,
            "phx_error" => Self::Error,
            "phx_close" => Self::Close,
            "system" => Self::System,
            "postgres_changes" => Self::PostgresChanges,
            "broadcast" => Self::Broadcast,
            "presence_state" => Self::PresenceState,
            "presence_diff" => Self::PresenceDiff,
            other => Self::Other(other.to_owned()),
        }
    }
}

/// Names of outbound events.
pub(crate) mod name {
    pub(crate) const JOIN: &str = "phx_join";
    pub(crate) const LEAVE: &str = "phx_leave";
    pub(crate) const HEARTBEAT: &str = "heartbeat";
    pub(crate) const ACCESS_TOKEN: &str = "access_token";
    pub(crate) const BROADCAST: &str = "broadcast";
    pub(crate) const PRESENCE: &str = "presence";
}

/// The payload of a `phx_reply`: `{"status":"ok"|"error","response":…}`.
#[derive(Debug, serde::Deserialize)]
pub(crate) struct Reply<'a> {
    pub(crate) status: &'a str,
    /// An object, or a bare string (`"payload_size_exceeded"`, OBSERVED 30).
    #[serde(borrow)]
    pub(crate) response: Option<&'a serde_json::value::RawValue>,
}

impl Reply<'_> {
    pub(crate) fn is_ok(&self) -> bool {
        self.status == "ok"
    }

    /// The sentence of an error reply: its `reason`, the bare string, or nothing (`{}` is a possible answer, OBSERVED 36).
    pub(crate) fn reason(&self) -> String {
        #[derive(serde::Deserialize)]
        struct Reason {
            reason: serde_json::Value,
        }
        let Some(response) = self.response.map(serde_json::value::RawValue::get) else {
            return String::new();
        };
        if let Ok(text) = serde_json::from_str::<String>(response) {
            return text;
        }
        serde_json::from_str::<Reason>(response).map(|found| words(&found.reason)).unwrap_or_default()
    }
}

/// The payload of a `system` message: `{"extension","status","message","channel"?}`. There is no machine-readable code.
#[derive(Debug, serde::Deserialize)]
pub(crate) struct System {
    #[serde(default)]
    pub(crate) extension: String,
    #[serde(default)]
    pub(crate) status: String,
    #[serde(default)]
    pub(crate) message: serde_json::Value,
}

impl System {
    pub(crate) fn is_ok(&self) -> bool {
        self.status == "ok"
    }

    pub(crate) fn text(&self) -> String {
        words(&self.message)
    }
}

/// What is nearly always a sentence, as text whatever it is.
fn words(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::String(text) => text.clone(),
        serde_json::Value::Null => String::new(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_of_a_refusal_is_found_in_all_its_shapes() {
        for (json, reason) in [
            (r#"{"status":"error","response":{"reason":"Unauthorized: no"}}"#, "Unauthorized: no"),
            (r#"{"status":"error","response":"payload_size_exceeded"}"#, "payload_size_exceeded"),
            (r#"{"status":"error","response":{"reason":{"filter":["no"]}}}"#, r#"{"filter":["no"]}"#),
            (r#"{"status":"error","response":{"reason":null}}"#, ""),
            (r#"{"status":"error","response":{}}"#, ""),
            (r#"{"status":"error"}"#, ""),
        ] {
            let reply: Reply<'_> = serde_json::from_str(json).unwrap();
            assert!(!reply.is_ok());
            assert_eq!(reply.reason(), reason);
        }
    }
}
