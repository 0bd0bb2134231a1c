//! The payload of `phx_join`. `config` is always there, and absent options are left out: a `null` makes a binding invalid,
//! and a `replay` key on a public channel, even a null one, is refused.

use serde::Serialize;

use crate::secret::AccessToken;

/// Which changes a binding receives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize)]
#[non_exhaustive]
pub enum PostgresEvent {
    /// Inserts, updates and deletes.
    #[default]
    #[serde(rename = "*")]
    All,
    /// Inserts only.
    #[serde(rename = "INSERT")]
    Insert,
    /// Updates only.
    #[serde(rename = "UPDATE")]
    Update,
    /// Deletes only.
    #[serde(rename = "DELETE")]
    Delete,
}

/// One subscription to row changes. Bindings are distinguished by their place in the list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Binding {
    pub(crate) event: PostgresEvent,
    pub(crate) schema: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) table: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) filter: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) select: Vec<String>,
}

/// Everything a channel requests when it joins. The same over reconnects.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct JoinConfig {
    pub(crate) private: bool,
    pub(crate) broadcast: BroadcastConfig,
    pub(crate) presence: PresenceConfig,
    pub(crate) bindings: Vec<Binding>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub(crate) struct BroadcastConfig {
    pub(crate) ack: bool,
    #[serde(rename = "self")]
    pub(crate) own: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) replay: Option<Replay>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) replication_ready: bool,
}

/// Which stored messages to receive again after joining.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Replay {
    /// Unix time in milliseconds.
    pub(crate) since: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) limit: Option<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub(crate) struct PresenceConfig {
    pub(crate) key: String,
    pub(crate) enabled: bool,
}

impl JoinConfig {
    /// The payload as JSON text.
    pub(crate) fn payload(&self, token: Option<&AccessToken>) -> String {
        #[derive(Serialize)]
        struct Join<'a> {
            config: Config<'a>,
            #[serde(skip_serializing_if = "Option::is_none")]
            access_token: Option<&'a str>,
        }
        #[derive(Serialize)]
        struct Config<'a> {
            broadcast: &'a BroadcastConfig,
            presence: &'a PresenceConfig,
            postgres_changes: &'a [Binding],
            private: bool,
        }
        let config = Config {
            broadcast: &self.broadcast,
            presence: &self.presence,
            postgres_changes: &self.bindings,
            private: self.private,
        };
        // Strings, numbers and lists only: this cannot fail.
        serde_json::to_string(&Join { config, access_token: token.map(AccessToken::expose) })
            .unwrap_or_default()
    }
}

/// The `response` of an accepted join: the bindings as the server numbered them, in the order of the request.
#[derive(Debug, Default, serde::Deserialize)]
pub(crate) struct Accepted {
    #[serde(default)]
    pub(crate) postgres_changes: Vec<AcceptedBinding>,
}

#[derive(Debug, serde::Deserialize)]
pub(crate) struct AcceptedBinding {
    pub(crate) id: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_options_are_left_out_of_a_join() {
        let mut config = JoinConfig::default();
        config.bindings.push(Binding {
            event: PostgresEvent::Insert,
            schema: "public".to_owned(),
            table: Some("events".to_owned()),
            filter: None,
            select: Vec::new(),
        });
        assert_eq!(
            config.payload(None),
            r#"{"config":{"broadcast":{"ack":false,"self":false},"presence":{"key":"","enabled":false},"postgres_changes":[{"event":"INSERT","schema":"public","table":"events"}],"private":false}}"#
        );
        let token = AccessToken::new("a.b.c").unwrap();
        assert!(config.payload(Some(&token)).ends_with(r#""access_token":"a.b.c"}"#));
    }
}
