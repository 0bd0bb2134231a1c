//! A job: its request, its state, and how it may end.

use serde_json::{Map, Value};
use tracing::Span;
use uuid::Uuid;

use crate::job::{
    failure::{ErrorCode, Failure},
    json::{ConfigSnapshot, Fields, Json, not_exact},
    source::Source,
    timeouts::Timeouts,
    variables::kind_of,
    version::VersionRequest,
};

/// A deployment that this agent holds: the claim was won.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    /// `deployments.id`.
    pub(crate) id: Uuid,
    /// 1 for the first try; the database counts.
    pub(crate) attempt: i32,
    /// Made by this agent for this claim; every write carries it, and the database refuses another one.
    pub(crate) claim_token: Uuid,
    /// `deployments.config_snapshot`, unread.
    pub(crate) config: ConfigSnapshot,
    /// `deployments.state_key`; none in a database of the contract before this agent's, which does not compute it.
    pub(crate) state_key: Option<String>,
}

/// See [`Job::span`].
pub(crate) fn job_span(id: Uuid, attempt: i32) -> Span {
    tracing::error_span!("job", deployment = %id, attempt)
}

impl Job {
    /// The name of this attempt, and of its directory.
    pub(crate) fn attempt_name(&self) -> String {
        format!("{}.{}", self.id, self.attempt)
    }

    /// What every line of the agent's own log is marked with that this job causes, whatever the log's level.
    pub(crate) fn span(&self) -> Span {
        job_span(self.id, self.attempt)
    }

    /// The state that it works on; none where `config_snapshot` names none that can be.
    pub(crate) fn state_key(&self) -> Option<String> {
        if self.state_key.is_some() {
            return self.state_key.clone();
        }
        let spec = JobSpec::parse(&self.config).ok()?;
        Some(state_key(&spec.source.key(), spec.stack.as_deref(), self.id))
    }
}

/// What Terraform is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Show what would change.
    Plan,
    /// Change it.
    Apply,
    /// Remove everything.
    Destroy,
}

/// `config_snapshot`, read.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct JobSpec {
    /// Where the template comes from.
    pub(crate) source: Source,
    /// Name of the state; two jobs of one stack never run at the same time.
    pub(crate) stack: Option<String>,
    /// What to do.
    pub(crate) action: Action,
    /// Whether the plan is applied only once a person approved it.
    pub(crate) approval: bool,
    /// Input variables; checked against the template later.
    pub(crate) variables: Fields,
    /// How long its steps may take.
    pub(crate) timeouts: Timeouts,
    /// Which Terraform it wants; none: what its template requires, and the agent has.
    pub(crate) terraform_version: Option<VersionRequest>,
}

impl JobSpec {
    /// Reads `config_snapshot`; a refusal explains which field to fix and how.
    pub(crate) fn parse(config: &ConfigSnapshot) -> Result<Self, Failure> {
        let invalid = |message: String| Failure::new(ErrorCode::ConfigInvalid, message);
        let config =
            config.parse().map_err(|why| invalid(format!("config_snapshot cannot be read: {why}")))?;
        let Json::Object(mut fields) = config else {
            let is = config.to_value().map_or("a number", |value| kind_of(&value));
            return Err(invalid(format!("config_snapshot must be a JSON object, and it is {is}")));
        };
        let variables = fields.remove("variables").unwrap_or_default();
        let mut object = Map::new();
        for (name, field) in fields {
            let value = field.to_value();
            let value =
                value.map_err(|error| invalid(format!("config_snapshot.{name} cannot be read: {error}")))?;
            object.insert(name, value);
        }
        for key in object.keys() {
            match key.as_str() {
                "template" | "source" | "stack" | "action" | "approval" | "timeouts" | "approval_expires"
                | "terraform_version" => {}
                other => {
                    return Err(invalid(format!(
                        "config_snapshot has the unknown field \"{other}\": it may have template or source, stack, action, approval, approval_expires, terraform_version, timeouts and variables"
                    )));
                }
            }
        }
        let text = |field: &str| match object.get(field) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.as_str())),
            Some(other) => Err(invalid(format!(
                "config_snapshot.{field} must be a string, and it is {}",
                kind_of(other)
            ))),
        };
        let source = Source::parse(&object).map_err(invalid)?;
        let stack = text("stack")?.map(str::to_owned);
        if let Some(stack) = stack.as_deref().filter(|stack| !is_stack_name(stack)) {
            return Err(invalid(format!(
                "config_snapshot.stack {stack:?} is not a stack name: use up to 63 letters, digits, dots, _ and -, and begin with a letter or digit"
            )));
        }
        let action = match text("action")? {
            None | Some("apply") => Action::Apply,
            Some("plan") => Action::Plan,
            Some("destroy") => Action::Destroy,
            Some(other) => {
                return Err(invalid(format!(
                    "config_snapshot.action is {other:?}: it must be \"plan\", \"apply\" or \"destroy\""
                )));
            }
        };
        if action == Action::Destroy && stack.is_none() {
            return Err(invalid(
                "config_snapshot.action is \"destroy\" and there is no config_snapshot.stack: name the stack whose resources are to be destroyed"
                    .to_owned(),
            ));
        }
        let approval = match object.get("approval") {
            None | Some(Value::Null) => false,
            Some(Value::Bool(approval)) => *approval,
            Some(other) => {
                return Err(invalid(format!(
                    "config_snapshot.approval must be true or false, and it is {}",
                    kind_of(other)
                )));
            }
        };
        let timeouts = Timeouts::parse(object.get("timeouts")).map_err(invalid)?;
        let read_version = |text: &str| {
            VersionRequest::parse(text).ok_or_else(|| {
                invalid(format!(
                    "config_snapshot.terraform_version {text:?} is no version: write one such as \"1.11.4\", constraints such as \"~> 1.11\" or \">= 1.9, < 2.0\", or one of them behind \"tofu \""
                ))
            })
        };
        let terraform_version = text("terraform_version")?.map(read_version).transpose()?;
        let variables = match variables {
            Json::Null => Fields::new(),
            Json::Object(variables) => variables,
            other => {
                return Err(invalid(format!(
                    "config_snapshot.variables must be an object of name and value, and it is {}",
                    other.kind()
                )));
            }
        };
        for (name, value) in &variables {
            let numbers = value.leaves().into_iter().filter_map(|leaf| match leaf {
                Json::Number(number) => not_exact(number),
                _ => None,
            });
            if let Some(why) = numbers.into_iter().next() {
                return Err(invalid(format!(
                    "config_snapshot.variables.{name} {why}: write it as a string, or shorter"
                )));
            }
        }
        Ok(Self { source, stack, action, approval, variables, timeouts, terraform_version })
    }
}

/// The name of the state that a deployment works on: its template and stack, or itself where it names no stack.
///
/// The template is part of it because a plan of another template on the same state would destroy everything in it. No
/// key of a template's source holds a dot, so no two pairs have one key.
pub(crate) fn state_key(source: &str, stack: Option<&str>, id: Uuid) -> String {
    stack.map_or_else(|| id.to_string(), |stack| format!("{source}.{stack}"))
}

fn is_stack_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.len() <= 63
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::job::{
        source::is_template_name,
        status::{Phase, Status},
    };

    #[test]
    fn an_order_has_defaults() {
        let spec = JobSpec::parse(&json!({"template": "hello"}).into()).unwrap();
        assert_eq!(spec.action, Action::Apply);
        assert_eq!(spec.stack, None);
        assert!(spec.variables.is_empty());
    }

    #[test]
    fn each_refusal_names_the_field() {
        for (config, part) in [
            (json!([]), "must be a JSON object"),
            (json!({}), "config_snapshot.template is missing"),
            (json!({"template": 3}), "config_snapshot.template must be a string, and it is a number"),
            (json!({"template": "../etc"}), "\"../etc\" is not a template name"),
            (json!({"template": "/etc"}), "no paths"),
            (json!({"template": "Hello"}), "is not a template name"),
            (json!({"template": "a", "stack": "../up"}), "config_snapshot.stack"),
            (json!({"template": "a", "action": "explode"}), "\"plan\", \"apply\" or \"destroy\""),
            (json!({"template": "a", "action": "destroy"}), "name the stack"),
            (json!({"template": "a", "variables": [1]}), "config_snapshot.variables must be an object"),
            (json!({"template": "a", "approval": "yes"}), "config_snapshot.approval must be true or false"),
            (json!({"template": "a", "varibles": {}}), "unknown field \"varibles\""),
            (
                json!({"template": "a", "terraform_version": 1.11}),
                "terraform_version must be a string, and it is a number",
            ),
            (
                json!({"template": "a", "terraform_version": "latest"}),
                "terraform_version \"latest\" is no version",
            ),
            (json!({"template": "a", "terraform_version": "../1.9.0"}), "is no version"),
        ] {
            let failure = JobSpec::parse(&config.into()).unwrap_err();
            assert_eq!(failure.code, ErrorCode::ConfigInvalid);
            assert!(failure.message.contains(part), "{}", failure.message);
        }
    }

    #[test]
    fn names_in_the_database_are_those_of_serde() {
        for status in [Status::Queued, Status::Processing, Status::Success, Status::Failed, Status::Cancelled]
        {
            assert_eq!(json!(status), json!(status.as_str()));
        }
        assert_eq!(json!(ErrorCode::TemplateNotFound), json!("TEMPLATE_NOT_FOUND"));
        for phase in [
            Phase::Claimed,
            Phase::Workspace,
            Phase::Cost,
            Phase::Init,
            Phase::Plan,
            Phase::Apply,
            Phase::Report,
        ] {
            assert_eq!(json!(phase), json!(phase.as_str()));
        }
    }

    proptest! {
        #[test]
        fn a_name_that_passes_is_one_path_segment(name in ".{0,70}") {
            if is_template_name(&name) || is_stack_name(&name) {
                let mut parts = std::path::Path::new(&name).components();
                prop_assert!(matches!(parts.next(), Some(std::path::Component::Normal(_))));
                prop_assert_eq!(parts.next(), None);
            }
        }
    }
}
