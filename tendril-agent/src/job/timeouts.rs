//! How long the steps of a deployment may take: what it requests, within what the agent allows.

use std::time::Duration;

use serde_json::{Map, Value};

/// The keys of `config_snapshot.timeouts`. How long it may wait in the queue is the database's business.
const KEYS: [&str; 5] = ["queue", "init", "plan", "apply", "silence"];
/// The most that may be requested: a week.
const MOST: u64 = 604_800;

/// Times; none: no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Timeouts {
    /// For `terraform init`.
    pub(crate) init: Option<Duration>,
    /// For `terraform plan`, with the time that it waits for the state's lock.
    pub(crate) plan: Option<Duration>,
    /// For `terraform apply` of the saved plan.
    pub(crate) apply: Option<Duration>,
    /// For any of these without a line of output, not counting Terraform's own "Still creating...".
    pub(crate) silence: Option<Duration>,
}

impl Timeouts {
    /// Reads `config_snapshot.timeouts`. Errors: what to write instead.
    pub(crate) fn parse(value: Option<&Value>) -> Result<Self, String> {
        let object = match value {
            None | Some(Value::Null) => return Ok(Self::default()),
            Some(Value::Object(object)) => object,
            Some(_) => {
                return Err(
                    "config_snapshot.timeouts must be an object of seconds, such as {\"apply\": 3600}"
                        .to_owned(),
                );
            }
        };
        if let Some(other) = object.keys().find(|key| !KEYS.contains(&key.as_str())) {
            return Err(format!(
                "config_snapshot.timeouts has the unknown key \"{other}\": it may have {}",
                KEYS.join(", ")
            ));
        }
        seconds(object, "queue")?;
        Ok(Self {
            init: seconds(object, "init")?,
            plan: seconds(object, "plan")?,
            apply: seconds(object, "apply")?,
            silence: seconds(object, "silence")?,
        })
    }

    /// The shorter one of each.
    pub(crate) fn within(self, caps: Self) -> Self {
        let shorter = |requested: Option<Duration>, cap: Option<Duration>| match (requested, cap) {
            (Some(requested), Some(cap)) => Some(requested.min(cap)),
            (requested, cap) => requested.or(cap),
        };
        Self {
            init: shorter(self.init, caps.init),
            plan: shorter(self.plan, caps.plan),
            apply: shorter(self.apply, caps.apply),
            silence: shorter(self.silence, caps.silence),
        }
    }
}

fn seconds(object: &Map<String, Value>, key: &str) -> Result<Option<Duration>, String> {
    match object.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => value
            .as_u64()
            .filter(|seconds| (1..=MOST).contains(seconds))
            .map(|seconds| Some(Duration::from_secs(seconds)))
            .ok_or_else(|| {
                format!("config_snapshot.timeouts.{key} must be a whole number of seconds from 1 to {MOST}")
            }),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_asked_for_is_kept_within_what_the_agent_allows() {
        let requested = Timeouts::parse(Some(&json!({"plan": 10, "apply": 7200, "queue": 5}))).unwrap();
        let caps = Timeouts {
            init: Some(Duration::from_secs(60)),
            apply: Some(Duration::from_secs(3600)),
            ..Timeouts::default()
        };
        let limits = requested.within(caps);
        let of = |limit: Option<Duration>| limit.map(|limit| limit.as_secs());
        assert_eq!(
            [limits.init, limits.plan, limits.apply, limits.silence].map(of),
            [Some(60), Some(10), Some(3600), None]
        );
    }

    #[test]
    fn a_timeout_that_is_none_is_refused_with_what_to_write() {
        for (value, part) in [
            (json!([]), "must be an object"),
            (json!({"plann": 1}), "unknown key \"plann\""),
            (json!({"plan": 0}), "config_snapshot.timeouts.plan must be a whole number"),
            (json!({"queue": -1}), "config_snapshot.timeouts.queue"),
            (json!({"apply": 1.5}), "from 1 to 604800"),
            (json!({"silence": "5m"}), "config_snapshot.timeouts.silence"),
            (json!({"init": 604_801}), "config_snapshot.timeouts.init"),
        ] {
            let problem = Timeouts::parse(Some(&value)).unwrap_err();
            assert!(problem.contains(part), "{problem}");
        }
    }
}
