//! The claims of a machine token. Only the servers can verify it; the agent reads it to give good advice early.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jiff::Timestamp;
use serde::Deserialize;
use uuid::Uuid;

/// The claims of a machine token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MachineToken {
    /// The database role that the servers will take.
    pub(crate) role: String,
    /// The cluster that this agent serves.
    pub(crate) cluster_id: Uuid,
    /// When it stops being accepted.
    pub(crate) expires_at: Timestamp,
}

/// The claims, before they are checked.
#[derive(Deserialize)]
struct Claims {
    role: Option<String>,
    cluster_id: Option<String>,
    exp: Option<f64>,
}

impl MachineToken {
    /// Reads a token, and refuses one that no server will take.
    pub(crate) fn parse(token: &str, now: Timestamp) -> Result<Self, String> {
        const ASK: &str = "ask for a new machine token, or for the API key, of this cluster";
        let claims = claims_of(token).ok_or_else(|| {
            if token.starts_with("sb_") {
                return "this is an API key of the project (sb_…), not of a cluster: give the cluster's own (tdl_…)".to_owned();
            }
            format!("the machine token is malformed, it is neither a JWT (header.payload.signature) nor an API key (tdl_…): {ASK}")
        })?;
        let role = claims.role.ok_or_else(|| format!("the machine token has no \"role\" claim: {ASK}"))?;
        if matches!(role.as_str(), "service_role" | "supabase_admin" | "postgres" | "anon") {
            return Err(format!(
                "the machine token has the role \"{role}\", which is no role for an agent: {ASK}, with the role tendril_agent"
            ));
        }
        let cluster_id = claims
            .cluster_id
            .ok_or_else(|| format!("the machine token has no \"cluster_id\" claim: {ASK}"))?;
        let cluster_id = Uuid::parse_str(&cluster_id)
            .map_err(|_| format!("the \"cluster_id\" of the machine token is not a UUID: {ASK}"))?;
        #[expect(clippy::cast_possible_truncation, reason = "whole seconds are all that is wanted")]
        let expires_at = claims
            .exp
            .and_then(|exp| Timestamp::from_second(exp as i64).ok())
            .ok_or_else(|| format!("the machine token has no \"exp\" claim that is a time: {ASK}"))?;
        if expires_at <= now {
            return Err(format!(
                "the machine token expired at {expires_at} (it is {} now; check the machine's clock): {ASK}",
                now.round(jiff::Unit::Second).unwrap_or(now)
            ));
        }
        Ok(Self { role, cluster_id, expires_at })
    }

    /// The cluster in the claims of any JWT, good or over.
    pub(super) fn cluster_of(token: &str) -> Option<Uuid> {
        Uuid::parse_str(&claims_of(token)?.cluster_id?).ok()
    }

    /// The `role` claim of any JWT.
    pub(crate) fn role_of(token: &str) -> Option<String> {
        claims_of(token)?.role
    }
}

fn claims_of(token: &str) -> Option<Claims> {
    let mut parts = token.split('.');
    let (Some(_header), Some(payload), Some(_signature), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return None;
    };
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn jwt(claims: &Value) -> String {
        format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims.to_string()))
    }

    fn now() -> Timestamp {
        Timestamp::from_second(1_800_000_000).unwrap()
    }

    fn refusal(claims: &Value) -> String {
        MachineToken::parse(&jwt(claims), now()).unwrap_err()
    }

    #[test]
    fn a_good_token_names_its_cluster() {
        let id = "11111111-2222-4333-8444-555555555555";
        let token = jwt(&json!({"role": "tendril_agent", "cluster_id": id, "exp": 1_800_000_060}));
        let token = MachineToken::parse(&token, now()).unwrap();
        assert_eq!(token.cluster_id.to_string(), id);
        assert_eq!(token.role, "tendril_agent");
    }

    #[test]
    fn each_refusal_says_what_is_wrong() {
        let id = "11111111-2222-4333-8444-555555555555";
        for (claims, part) in [
            (json!({"cluster_id": id, "exp": 1_900_000_000}), "no \"role\""),
            (json!({"role": "tendril_agent", "exp": 1_900_000_000}), "no \"cluster_id\""),
            (json!({"role": "tendril_agent", "cluster_id": "c1", "exp": 1_900_000_000}), "not a UUID"),
            (json!({"role": "tendril_agent", "cluster_id": id}), "no \"exp\""),
            (
                json!({"role": "tendril_agent", "cluster_id": id, "exp": 1_700_000_000}),
                "expired at 2023-11-14",
            ),
            (json!({"role": "service_role", "cluster_id": id, "exp": 1_900_000_000}), "\"service_role\""),
        ] {
            let message = refusal(&claims);
            assert!(message.contains(part), "{message}");
        }
        for text in ["", "abc", "a.b.c", "a.b", "a.b.c.d"] {
            let message = MachineToken::parse(text, now()).unwrap_err();
            assert!(message.contains("malformed"), "{message}");
        }
    }
}
