//! Lists: selectors, pages, versions.

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::{
    http::Request,
    selector::Selector,
    status::Refusal,
    store::{Kind, name_of},
};

impl Request<'_> {
    pub(super) fn list(&self, kind: Kind) -> Result<Response, Refusal> {
        let store = &self.cluster.store;
        let selector =
            Selector::parse(kind, self.query.get("labelSelector"), self.query.get("fieldSelector"))?;
        let (asked, matching) = (self.query.get("resourceVersion"), self.query.get("resourceVersionMatch"));
        self.check_list_options(asked, matching)?;
        let asked = if asked.is_empty() {
            0
        } else {
            asked.parse::<u64>().map_err(|_| Refusal::bad_version(asked))?
        };
        if asked > store.version() {
            return Err(Refusal::from_the_future(asked, store.version()));
        }
        if matching == "Exact" && asked < store.oldest() {
            return Err(Refusal::expired("The resourceVersion for the provided list is too old."));
        }
        let (mut version, mut objects) = store.list(kind, &selector);
        if let Some(token) = Some(self.query.get("continue")).filter(|token| !token.is_empty()) {
            let (since, start) = read_continue(token)?;
            if since < store.oldest() {
                return Err(Refusal::expired_page(
                    "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list.",
                    // As recorded: a version that is none.
                    write_continue("-1", &start),
                ));
            }
            version = version.min(since);
            objects.retain(|object| name_of(object) >= start);
        }
        let mut metadata = json!({"resourceVersion": version.to_string()});
        let limit = self.query.get("limit").parse().unwrap_or(usize::MAX);
        if asked == 0 && self.query.get("resourceVersion") == "0" {
            // Served from memory: never in pieces.
        } else if objects.len() > limit && limit > 0 {
            objects.truncate(limit);
            let last = objects.last().map(|object| name_of(object)).unwrap_or_default();
            metadata["continue"] = write_continue(&version.to_string(), &format!("/{last}\u{0}")).into();
        }
        let items: Vec<Value> = objects.iter().map(|object| Value::clone(object)).map(without_type).collect();
        let list = json!({
            "kind": format!("{}List", kind.name()), "apiVersion": kind.api_version(),
            "metadata": metadata, "items": items,
        });
        Ok(Json(list).into_response())
    }

    fn check_list_options(&self, asked: &str, matching: &str) -> Result<(), Refusal> {
        let mut causes = Vec::new();
        let mut forbid = |field: &str, message: &str| {
            causes.push((field.to_owned(), "FieldValueForbidden", format!("Forbidden: {message}")));
        };
        if !matching.is_empty() && asked.is_empty() {
            forbid(
                "resourceVersionMatch",
                "resourceVersionMatch is forbidden unless resourceVersion is provided",
            );
        }
        if matching == "Exact" && asked == "0" {
            forbid(
                "resourceVersionMatch",
                "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
            );
        }
        if self.query.is_true("sendInitialEvents") {
            forbid("sendInitialEvents", "sendInitialEvents is forbidden for list");
        }
        if causes.is_empty() { Ok(()) } else { Err(Refusal::invalid_options("ListOptions", &causes)) }
    }
}

/// The items of a list carry no type.
fn without_type(mut object: Value) -> Value {
    if let Some(fields) = object.as_object_mut() {
        fields.remove("kind");
        fields.remove("apiVersion");
    }
    object
}

fn write_continue(version: &str, start: &str) -> String {
    // As the server writes it, with Go's escape of the NUL.
    let start = start.replace('\u{0}', "\\u0000");
    BASE64_URL_SAFE_NO_PAD
        .encode(format!("{{\"v\":\"meta.k8s.io/v1\",\"rv\":{version},\"start\":\"{start}\"}}"))
}

fn read_continue(token: &str) -> Result<(u64, String), Refusal> {
    let invalid = || Refusal::bad_request("continue key is not valid");
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(token).map_err(|_| invalid())?;
    let token: Value = serde_json::from_slice(&bytes).map_err(|_| invalid())?;
    let start = token["start"].as_str().unwrap_or_default().trim_start_matches('/').to_owned();
    let version = match token["rv"].as_i64() {
        // What an answer to an expired page has: the list as it is now.
        Some(-1) => u64::MAX,
        version => version.and_then(|version| u64::try_from(version).ok()).ok_or_else(invalid)?,
    };
    Ok((version, start))
}
