//! What the server's decoder says of a Job: fields of another type, and fields that it does not know.

use k8s_openapi::api::batch::v1::Job;
use serde::Deserialize as _;
use serde_json::Value;

use super::{status::Refusal, store::Kind};

/// Takes the fields of a Job away that the server does not know; answers their paths. An object of another type or version is refused
/// elsewhere.
pub(super) fn prune(kind: Kind, object: &mut Value) -> Result<Vec<String>, Refusal> {
    if kind != Kind::Job || object.get("apiVersion").is_some_and(|version| version != kind.api_version()) {
        return Ok(Vec::new());
    }
    let known = Job::deserialize(&*object).and_then(serde_json::to_value);
    let known = known.map_err(|why| {
        let kind = kind.name();
        Refusal::bad_request(format!("{kind} in version \"v1\" cannot be handled as a {kind}: {why}"))
    })?;
    let mut unknown = Vec::new();
    without(object, &known, "", &mut unknown);
    Ok(unknown)
}

fn without(object: &mut Value, known: &Value, path: &str, unknown: &mut Vec<String>) {
    match (object, known) {
        (Value::Object(fields), Value::Object(known)) => fields.retain(|field, value| {
            let here = if path.is_empty() { field.clone() } else { format!("{path}.{field}") };
            match known.get(field) {
                Some(known) => {
                    without(value, known, &here, unknown);
                    true
                }
                // What is null is not there.
                None if value.is_null() => true,
                None => {
                    unknown.push(here);
                    false
                }
            }
        }),
        (Value::Array(items), Value::Array(known)) => {
            for (at, (item, known)) in items.iter_mut().zip(known).enumerate() {
                without(item, known, &format!("{path}[{at}]"), unknown);
            }
        }
        _ => {}
    }
}
