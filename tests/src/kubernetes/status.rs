//! What the API server answers when it refuses: a `Status` object.

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

use super::store::Kind;

/// A refusal, as the server words it.
#[derive(Clone, Debug)]
pub(super) struct Refusal {
    code: u16,
    reason: &'static str,
    message: String,
    details: Option<Value>,
    /// A token with which a list can be continued all the same.
    go_on: Option<String>,
    /// Seconds, in the header `Retry-After`.
    retry_after: Option<u32>,
}

impl Refusal {
    fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into(), details: None, go_on: None, retry_after: None }
    }

    fn with_details(mut self, details: Value) -> Self {
        self.details = Some(details);
        self
    }

    pub(super) fn unauthorized() -> Self {
        Self::new(401, "Unauthorized", "Unauthorized")
    }

    pub(super) fn not_found(kind: Kind, name: &str) -> Self {
        Self::new(404, "NotFound", format!("{} \"{name}\" not found", kind.qualified()))
            .with_details(details(name, kind))
    }

    /// A resource that is not one of [`Kind`].
    pub(super) fn missing(plural: &str, name: &str) -> Self {
        Self::new(404, "NotFound", format!("{plural} \"{name}\" not found"))
            .with_details(json!({"name": name, "kind": plural}))
    }

    pub(super) fn no_such_path() -> Self {
        Self::new(404, "NotFound", "the server could not find the requested resource").with_details(json!({}))
    }

    pub(super) fn already_exists(kind: Kind, name: &str, leaves: bool) -> Self {
        let prefix = if leaves { "object is being deleted: " } else { "" };
        Self::new(409, "AlreadyExists", format!("{prefix}{} \"{name}\" already exists", kind.qualified()))
            .with_details(details(name, kind))
    }

    /// The object has another `resourceVersion` than the one that was sent.
    pub(super) fn outdated(kind: Kind, name: &str) -> Self {
        let message = format!(
            "Operation cannot be fulfilled on {} \"{name}\": the object has been modified; please apply your changes to the latest version and try again",
            kind.qualified()
        );
        Self::new(409, "Conflict", message).with_details(details(name, kind))
    }

    /// A precondition of a deletion does not hold: its field, what was sent and what is there.
    pub(super) fn precondition(kind: Kind, name: &str, field: &str, sent: &str, there: &str) -> Self {
        let what = if field == "UID" { "deleted and then recreated" } else { "modified" };
        let message = format!(
            "Operation cannot be fulfilled on {} \"{name}\": the {field} in the precondition ({sent}) does not match the {field} in record ({there}). The object might have been {what}",
            kind.type_name()
        );
        Self::new(409, "Conflict", message).with_details(type_details(name, kind))
    }

    /// `causes` are (field, reason, message).
    pub(super) fn invalid(kind: Kind, name: &str, causes: &[(String, &'static str, String)]) -> Self {
        // As recorded: the registry of Leases names the resource.
        let (shown, details) = match kind {
            Kind::Lease => (kind.qualified(), details(name, kind)),
            kind => (kind.type_name(), type_details(name, kind)),
        };
        Self::invalid_type(&shown, details, name, causes)
    }

    /// As [`invalid`](Self::invalid), for the options of a request: `ListOptions`, `DeleteOptions`.
    pub(super) fn invalid_options(options: &str, causes: &[(String, &'static str, String)]) -> Self {
        let details = json!({"group": "meta.k8s.io", "kind": options});
        Self::invalid_type(&format!("{options}.meta.k8s.io"), details, "", causes)
    }

    /// As [`invalid`](Self::invalid), for a `TokenRequest`.
    pub(super) fn invalid_token_request(causes: &[(String, &'static str, String)]) -> Self {
        let details = json!({"group": "authentication.k8s.io", "kind": "TokenRequest"});
        Self::invalid_type("TokenRequest.authentication.k8s.io", details, "", causes)
    }

    fn invalid_type(
        shown: &str,
        mut details: Value,
        name: &str,
        causes: &[(String, &'static str, String)],
    ) -> Self {
        let sentences: Vec<String> =
            causes.iter().map(|(field, _, message)| format!("{field}: {message}")).collect();
        // As recorded: what is said twice stands in the message once.
        let mut sentences = sentences;
        sentences.dedup();
        let all =
            if sentences.len() == 1 { sentences.concat() } else { format!("[{}]", sentences.join(", ")) };
        let list = causes
            .iter()
            .map(|(field, reason, message)| json!({"reason": reason, "message": message, "field": field}));
        details["causes"] = Value::Array(list.collect());
        Self::new(422, "Invalid", format!("{shown} \"{name}\" is invalid: {all}")).with_details(details)
    }

    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    pub(super) fn unsupported_media_type() -> Self {
        let message = "the body of the request was in an unknown format - accepted media types include: application/json, application/yaml, application/vnd.kubernetes.protobuf";
        Self::new(415, "UnsupportedMediaType", message)
    }

    /// `who` may not do it: RBAC.
    pub(super) fn no_right(
        who: &str,
        verb: &str,
        resource: &str,
        group: &str,
        name: &str,
        place: &str,
    ) -> Self {
        let plural = resource.split('/').next().unwrap_or_default();
        let qualified = if group.is_empty() { plural.to_owned() } else { format!("{plural}.{group}") };
        let named = if name.is_empty() { String::new() } else { format!(" \"{name}\"") };
        let message = format!(
            "{qualified}{named} is forbidden: User \"{who}\" cannot {verb} resource \"{resource}\" in API group \"{group}\" {place}"
        );
        let mut details = json!({"kind": plural});
        if !name.is_empty() {
            details["name"] = name.into();
        }
        if !group.is_empty() {
            details["group"] = group.into();
        }
        Self::new(403, "Forbidden", message).with_details(details)
    }

    /// The namespace is being deleted.
    pub(super) fn namespace_leaves(kind: Kind, name: &str, namespace: &str) -> Self {
        let mut details = details(name, kind);
        details["causes"] = json!([{
            "reason": "NamespaceTerminating",
            "message": format!("namespace {namespace} is being terminated"),
            "field": "metadata.namespace",
        }]);
        let message = format!(
            "{} \"{name}\" is forbidden: unable to create new content in namespace {namespace} because it is being terminated",
            kind.qualified()
        );
        Self::new(403, "Forbidden", message).with_details(details)
    }

    /// What an admission plugin of the server forbids, such as a quota.
    pub(super) fn forbidden(kind: Kind, name: &str, why: &str) -> Self {
        Self::new(403, "Forbidden", format!("{} \"{name}\" is forbidden: {why}", kind.qualified()))
            .with_details(details(name, kind))
    }

    /// What a `ValidatingAdmissionPolicy` denies.
    pub(super) fn denied(kind: Kind, name: &str, policy: &str, why: &str) -> Self {
        let cause =
            format!("ValidatingAdmissionPolicy '{policy}' with binding '{policy}' denied request: {why}");
        let mut details = details(name, kind);
        details["causes"] = json!([{"message": cause}]);
        Self::new(422, "Invalid", format!("{} \"{name}\" is forbidden: {cause}", kind.qualified()))
            .with_details(details)
    }

    /// A webhook that cannot be reached.
    pub(super) fn webhook_down(why: &str) -> Self {
        Self::new(500, "InternalError", format!("Internal error occurred: {why}"))
            .with_details(json!({"causes": [{"message": why}]}))
    }

    /// A list, or its continuation, that is too old.
    pub(super) fn expired(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message)
    }

    /// The same, with a token for the rest of the list as it is now.
    pub(super) fn expired_page(message: impl Into<String>, go_on: String) -> Self {
        Self { go_on: Some(go_on), ..Self::expired(message) }
    }

    /// A list at a version that does not exist yet.
    pub(super) fn from_the_future(asked: u64, current: u64) -> Self {
        let details = json!({
            "causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}],
            "retryAfterSeconds": 1,
        });
        let message = format!("Timeout: Too large resource version: {asked}, current: {current}");
        let mut refusal = Self::new(504, "Timeout", message).with_details(details);
        refusal.retry_after = Some(1);
        refusal
    }

    /// A number that is none.
    pub(super) fn bad_version(text: &str) -> Self {
        let message = format!(
            "resourceVersion: Invalid value: \"{text}\": strconv.ParseUint: parsing \"{text}\": invalid syntax"
        );
        Self::new(500, "", message)
    }

    /// The object itself, as it also stands in an `ERROR` event.
    pub(super) fn status(&self) -> Value {
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": self.reason, "code": self.code,
        });
        if let Some(details) = &self.details {
            status["details"] = details.clone();
        }
        if let Some(token) = &self.go_on {
            status["metadata"]["continue"] = token.clone().into();
        }
        if self.reason.is_empty() {
            status.as_object_mut().expect("an object").remove("reason");
        }
        status
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let code = StatusCode::from_u16(self.code).expect("a status code");
        let mut response = (code, Json(self.status())).into_response();
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert("retry-after", seconds.into());
        }
        response
    }
}

fn details(name: &str, kind: Kind) -> Value {
    named(name, kind.group(), kind.plural())
}

/// Some refusals name the type, not the resource.
fn type_details(name: &str, kind: Kind) -> Value {
    named(name, kind.group(), kind.name())
}

fn named(name: &str, group: &str, kind: &str) -> Value {
    let mut details = json!({"name": name, "kind": kind});
    if !group.is_empty() {
        details["group"] = group.into();
    }
    details
}
