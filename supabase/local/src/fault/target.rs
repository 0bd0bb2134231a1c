//! Which requests and frames a fault strikes, and how often.

use serde_json::Value;

use crate::jwt::Claims;

/// Everything, until it is narrowed; all conditions must hold. A condition on what the thing at hand does not have (the
/// topic of a REST request, the path of a frame) never holds.
///
/// ```
/// use supabase_local::Target;
///
/// // Every fifth heartbeat of an agent, and only the first ten of them.
/// let claims = Target::all().method("POST").path("/rest/v1/rpc/agent_heartbeat").claim("cluster_id", "c1");
/// let some = claims.chance(0.2).times(10);
/// ```
#[derive(Debug, Clone, Default)]
pub struct Target {
    method: Option<String>,
    path: Option<String>,
    claims: Vec<(String, Value)>,
    topic: Option<String>,
    event: Option<String>,
    /// How many are spared before the first is struck.
    pub(super) spared: u64,
    /// How many are struck at most.
    pub(super) times: Option<u64>,
    /// Of those that are left, which share is struck.
    pub(super) chance: Option<f64>,
}

impl Target {
    /// Everything.
    pub fn all() -> Self {
        Self::default()
    }

    /// Requests of this method.
    #[must_use]
    pub fn method(mut self, method: impl Into<String>) -> Self {
        self.method = Some(method.into());
        self
    }

    /// Requests whose path begins so: `/rest/v1/deployments`, `/realtime/v1/websocket`, `/auth/v1`.
    #[must_use]
    pub fn path(mut self, beginning: impl Into<String>) -> Self {
        self.path = Some(beginning.into());
        self
    }

    /// The senders with a token of this role. A frame has the tokens of its channel and of its socket; one of them must fit.
    #[must_use]
    pub fn role(self, role: impl Into<String>) -> Self {
        self.claim("role", role.into())
    }

    /// The senders with a token that has this claim, such as the `cluster_id` of an agent.
    #[must_use]
    pub fn claim(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.claims.push((name.into(), value.into()));
        self
    }

    /// Frames of this topic, and sockets that have joined it. Without the prefix `realtime:`.
    #[must_use]
    pub fn topic(mut self, name: impl Into<String>) -> Self {
        self.topic = Some(name.into());
        self
    }

    /// Frames of this event: `system`, `postgres_changes`, `phx_reply`, `presence_diff`, `broadcast`, …
    #[must_use]
    pub fn event(mut self, event: impl Into<String>) -> Self {
        self.event = Some(event.into());
        self
    }

    /// Spares the first so many.
    #[must_use]
    pub fn after(mut self, count: u64) -> Self {
        self.spared = count;
        self
    }

    /// Strikes at most so many.
    #[must_use]
    pub fn times(mut self, count: u64) -> Self {
        self.times = Some(count);
        self
    }

    /// Strikes this share (0 to 1) of them by chance. Which ones is decided by [`Faults::seed`](crate::Faults::seed).
    #[must_use]
    pub fn chance(mut self, share: f64) -> Self {
        self.chance = Some(share);
        self
    }

    /// Whether the conditions hold, the counts apart.
    pub(crate) fn fits(&self, subject: &Subject<'_>) -> bool {
        let same = |wanted: &Option<String>, seen: Option<&str>| {
            wanted.as_deref().is_none_or(|wanted| seen == Some(wanted))
        };
        let claimed = |claims: &Claims| {
            self.claims.iter().all(|(name, value)| claims.get(name).is_some_and(|claim| claim == value))
        };
        same(&self.method, subject.method)
            && self
                .path
                .as_deref()
                .is_none_or(|beginning| subject.path.is_some_and(|path| path.starts_with(beginning)))
            && (self.claims.is_empty() || subject.claims.iter().any(|claims| claimed(claims)))
            && self.topic.as_deref().is_none_or(|topic| subject.topics.contains(&topic))
            && same(&self.event, subject.event)
    }
}

/// What a target's conditions are compared with: a request, a frame or a socket.
#[derive(Debug, Default)]
pub(crate) struct Subject<'a> {
    pub(crate) method: Option<&'a str>,
    pub(crate) path: Option<&'a str>,
    pub(crate) claims: Vec<&'a Claims>,
    /// Without `realtime:`.
    pub(crate) topics: Vec<&'a str>,
    pub(crate) event: Option<&'a str>,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::jwt::JwtSecret;

    #[test]
    fn all_conditions_must_hold_and_missing_things_fail_them() {
        let secret = JwtSecret::default();
        let claims =
            secret.decode(&secret.sign(&json!({"role": "tendril_agent", "cluster_id": "c1"}))).unwrap();
        let request = Subject {
            method: Some("PATCH"),
            path: Some("/rest/v1/deployments"),
            claims: vec![&claims],
            ..Subject::default()
        };
        assert!(Target::all().fits(&request));
        assert!(Target::all().method("PATCH").path("/rest/").role("tendril_agent").fits(&request));
        assert!(Target::all().claim("cluster_id", "c1").fits(&request));
        assert!(!Target::all().claim("cluster_id", "c2").fits(&request));
        assert!(!Target::all().method("PATCH").path("/auth/").fits(&request));
        assert!(!Target::all().topic("room").fits(&request));
        assert!(!Target::all().event("system").fits(&request));
    }
}
