//! What the server adds to an object that is posted, and what it refuses.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

use super::{
    status::Refusal,
    store::{Kind, NAMESPACE},
};

const LONGEST_LABEL: usize = 63;
/// Of all values of a Secret together.
const LARGEST_SECRET: usize = 1024 * 1024;

type Cause = (String, &'static str, String);

/// Completes a posted object, or refuses it.
pub(super) fn admit(kind: Kind, object: &mut Value) -> Result<(), Refusal> {
    if !object.is_object() {
        return Err(Refusal::bad_request("the object provided is unrecognized"));
    }
    let version = object["apiVersion"].as_str().unwrap_or(kind.api_version());
    if version != kind.api_version() {
        let short = version.rsplit('/').next().unwrap_or_default();
        return Err(Refusal::bad_request(format!(
            "{0} in version \"{short}\" cannot be handled as a {0}: no kind \"{0}\" is registered for version \"{version}\" in scheme \"pkg/runtime/scheme.go:111\"",
            kind.name()
        )));
    }
    if object["metadata"]["namespace"].as_str().is_some_and(|namespace| namespace != NAMESPACE) {
        let message = "the namespace of the provided object does not match the namespace sent on the request";
        return Err(Refusal::bad_request(message));
    }
    generate_name(object);
    let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let mut causes = Vec::new();
    if !is_subdomain(&name) {
        causes.push((
            "metadata.name".to_owned(),
            "FieldValueInvalid",
            format!("Invalid value: \"{name}\": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"),
        ));
    }
    for value in object["metadata"]["labels"].as_object().into_iter().flat_map(serde_json::Map::values) {
        long_label(&mut causes, "metadata.labels", value.as_str().unwrap_or_default());
    }
    for owner in object["metadata"]["ownerReferences"].as_array().into_iter().flatten() {
        if owner["uid"].as_str().unwrap_or_default().is_empty() {
            let message = "Invalid value: \"\": must not be empty".to_owned();
            causes.push(("metadata.ownerReferences.uid".to_owned(), "FieldValueInvalid", message));
        }
    }
    match kind {
        Kind::Job => job(object, &name, &mut causes),
        Kind::Secret => secret(object, &mut causes)?,
        Kind::Lease => lease(object)?,
        Kind::Pod | Kind::Event => {}
    }
    if causes.is_empty() { Ok(()) } else { Err(Refusal::invalid(kind, &name, &causes)) }
}

fn generate_name(object: &mut Value) {
    let metadata = &mut object["metadata"];
    if let (None, Some(prefix)) = (metadata["name"].as_str(), metadata["generateName"].as_str()) {
        metadata["name"] = format!("{prefix}{}", suffix()).into();
    }
}

/// Five letters, as the server appends them.
pub(super) fn suffix() -> String {
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let bytes = uuid::Uuid::new_v4().into_bytes();
    bytes[..5].iter().map(|byte| char::from(LETTERS[usize::from(*byte) % LETTERS.len()])).collect()
}

fn is_subdomain(name: &str) -> bool {
    let label = |label: &str| {
        let inner = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit();
        label.starts_with(inner) && label.ends_with(inner) && label.chars().all(|c| inner(c) || c == '-')
    };
    name.len() <= 253 && name.split('.').all(label)
}

fn long_label(causes: &mut Vec<Cause>, field: &str, value: &str) {
    if value.len() > LONGEST_LABEL {
        let message = format!("Invalid value: \"{value}\": must be no more than 63 bytes");
        causes.push((field.to_owned(), "FieldValueInvalid", message));
    }
}

fn set_default(object: &mut Value, field: &str, value: Value) {
    if object[field].is_null() {
        object[field] = value;
    }
}

fn job(job: &mut Value, name: &str, causes: &mut Vec<Cause>) {
    let uid = uuid::Uuid::new_v4().to_string();
    job["metadata"]["uid"] = uid.clone().into();
    let replacement =
        if job["spec"]["podFailurePolicy"].is_null() { "TerminatingOrFailed" } else { "Failed" };
    let spec = &mut job["spec"];
    for field in ["activeDeadlineSeconds", "backoffLimit", "ttlSecondsAfterFinished"] {
        if let Some(number) = spec[field].as_i64().filter(|number| *number < 0) {
            let message = format!("Invalid value: {number}: must be greater than or equal to 0");
            causes.push((format!("spec.{field}"), "FieldValueInvalid", message));
        }
    }
    for (field, value) in [
        ("parallelism", json!(1)),
        ("completions", json!(1)),
        ("backoffLimit", json!(6)),
        ("manualSelector", json!(false)),
        ("completionMode", json!("NonIndexed")),
        ("suspend", json!(false)),
        ("podReplacementPolicy", json!(replacement)),
        ("selector", json!({"matchLabels": {"batch.kubernetes.io/controller-uid": uid}})),
    ] {
        set_default(spec, field, value);
    }
    if spec["backoffLimit"].is_null() {
        spec["backoffLimit"] = json!(6);
    }
    let labels = &mut spec["template"]["metadata"]["labels"];
    for (label, value) in [
        ("batch.kubernetes.io/controller-uid", uid.as_str()),
        ("batch.kubernetes.io/job-name", name),
        ("controller-uid", uid.as_str()),
        ("job-name", name),
    ] {
        labels[label] = value.into();
    }
    for value in labels.as_object().into_iter().flat_map(serde_json::Map::values) {
        long_label(causes, "spec.template.labels", value.as_str().unwrap_or_default());
    }
    let pod = &mut spec["template"]["spec"];
    if !matches!(pod["restartPolicy"].as_str(), Some("OnFailure" | "Never")) {
        let message = "Required value: valid values: \"OnFailure\", \"Never\"".to_owned();
        causes.push(("spec.template.spec.restartPolicy".to_owned(), "FieldValueRequired", message));
    }
    pod_spec(pod);
    requests_within_limits(pod, causes);
    job["status"] = json!({});
}

/// What is added to the specification of a pod.
fn pod_spec(spec: &mut Value) {
    for (field, value) in [
        ("terminationGracePeriodSeconds", json!(30)),
        ("dnsPolicy", json!("ClusterFirst")),
        ("securityContext", json!({})),
        ("schedulerName", json!("default-scheduler")),
    ] {
        set_default(spec, field, value);
    }
    if spec["serviceAccountName"].is_string() {
        spec["serviceAccount"] = spec["serviceAccountName"].clone();
    }
    for container in spec["containers"].as_array_mut().into_iter().flatten() {
        let image = container["image"].as_str().unwrap_or_default();
        let tag = image.rsplit('/').next().unwrap_or_default().split_once(':').map(|(_, tag)| tag);
        let pull = if tag.is_none_or(|tag| tag == "latest") { "Always" } else { "IfNotPresent" };
        for (field, value) in [
            ("imagePullPolicy", json!(pull)),
            ("resources", json!({})),
            ("terminationMessagePath", json!("/dev/termination-log")),
            ("terminationMessagePolicy", json!("File")),
        ] {
            set_default(container, field, value);
        }
        for variable in container["env"].as_array_mut().into_iter().flatten() {
            if variable["valueFrom"]["fieldRef"].is_object() {
                set_default(&mut variable["valueFrom"]["fieldRef"], "apiVersion", json!("v1"));
            }
        }
    }
    for volume in spec["volumes"].as_array_mut().into_iter().flatten() {
        for source in ["secret", "projected", "configMap"] {
            if volume[source].is_object() {
                set_default(&mut volume[source], "defaultMode", json!(420));
            }
        }
        let projected = volume.get_mut("projected").and_then(|projected| projected["sources"].as_array_mut());
        for source in projected.into_iter().flatten() {
            if source["serviceAccountToken"].is_object() {
                set_default(&mut source["serviceAccountToken"], "expirationSeconds", json!(3600));
            }
        }
    }
    remove_nulls(spec);
}

/// Reading a missing field of a [`Value`] through `IndexMut` leaves a null behind.
fn remove_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, field| !field.is_null());
            fields.values_mut().for_each(remove_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(remove_nulls),
        _ => {}
    }
}

fn requests_within_limits(spec: &Value, causes: &mut Vec<Cause>) {
    for (index, container) in spec["containers"].as_array().into_iter().flatten().enumerate() {
        let resources = &container["resources"];
        for (resource, request) in resources["requests"].as_object().into_iter().flatten() {
            let limit = &resources["limits"][resource];
            if quantity(request) > quantity(limit).or(Some(f64::INFINITY)) {
                let (request, limit) =
                    (request.as_str().unwrap_or_default(), limit.as_str().unwrap_or_default());
                causes.push((
                    format!("spec.template.spec.containers[{index}].resources.requests"),
                    "FieldValueInvalid",
                    format!(
                        "Invalid value: \"{request}\": must be less than or equal to {resource} limit of {limit}"
                    ),
                ));
            }
        }
    }
}

/// `500m`, `64Mi`, `2`.
pub(super) fn quantity(value: &Value) -> Option<f64> {
    let text = value.as_str()?;
    let end = text.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(text.len());
    let factor = match &text[end..] {
        "" => 1.0,
        "m" => 0.001,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "Ki" => 1024.0,
        "Mi" => 1024.0 * 1024.0,
        "Gi" => 1024.0 * 1024.0 * 1024.0,
        "Ti" => 1024.0 * 1024.0 * 1024.0 * 1024.0,
        _ => return None,
    };
    text[..end].parse::<f64>().ok().map(|number| number * factor)
}

fn secret(secret: &mut Value, causes: &mut Vec<Cause>) -> Result<(), Refusal> {
    let strings = secret.as_object_mut().and_then(|fields| fields.remove("stringData"));
    if let Some(Value::Object(strings)) = strings {
        for (name, value) in strings {
            let encoded = BASE64_STANDARD.encode(value.as_str().unwrap_or_default());
            secret["data"][name] = encoded.into();
        }
    }
    let mut size = 0;
    for (name, value) in secret["data"].as_object().into_iter().flatten() {
        let text = value.as_str().unwrap_or_default();
        let bytes = BASE64_STANDARD.decode(text).map_err(|_| {
            let at = text.find(|letter: char| !letter.is_ascii_alphanumeric()).unwrap_or_default();
            Refusal::bad_request(format!(
                "Secret in version \"v1\" cannot be handled as a Secret: illegal base64 data at input byte {at}"
            ))
        })?;
        size += bytes.len();
        if !name.chars().all(|letter| letter.is_ascii_alphanumeric() || "-._".contains(letter)) {
            causes.push((
                format!("data[{name}]"),
                "FieldValueInvalid",
                format!("Invalid value: \"{name}\": a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')"),
            ));
        }
    }
    if size > LARGEST_SECRET {
        let message = format!("Too long: may not be more than {LARGEST_SECRET} bytes");
        causes.push(("data".to_owned(), "FieldValueTooLong", message));
    }
    set_default(secret, "type", json!("Opaque"));
    remove_nulls(secret);
    Ok(())
}

fn lease(lease: &Value) -> Result<(), Refusal> {
    for field in ["acquireTime", "renewTime"] {
        let Some(time) = lease["spec"][field].as_str() else { continue };
        let fraction = time.trim_end_matches('Z').split_once('.').map_or("", |(_, fraction)| fraction);
        if fraction.len() != 6 {
            return Err(Refusal::bad_request(format!(
                "Lease in version \"v1\" cannot be handled as a Lease: parsing time \"{time}\" as \"2006-01-02T15:04:05.000000Z07:00\": cannot parse \"Z\" as \".000000\""
            )));
        }
    }
    Ok(())
}

/// The sentence of the header `Warning` for a Job whose pod the profile "restricted" would refuse; none, if it passes.
pub(super) fn pod_security(spec: &Value) -> Option<String> {
    let pod = &spec["securityContext"];
    let mut reasons = Vec::new();
    for container in spec["containers"].as_array().into_iter().flatten() {
        let name = container["name"].as_str().unwrap_or_default();
        let context = &container["securityContext"];
        if context["allowPrivilegeEscalation"] != json!(false) {
            reasons.push(format!("allowPrivilegeEscalation != false (container \"{name}\" must set securityContext.allowPrivilegeEscalation=false)"));
        }
        let drops = context["capabilities"]["drop"].as_array();
        if !drops.is_some_and(|drops| drops.contains(&json!("ALL"))) {
            reasons.push(format!("unrestricted capabilities (container \"{name}\" must set securityContext.capabilities.drop=[\"ALL\"])"));
        }
        if pod["runAsNonRoot"] != json!(true) && context["runAsNonRoot"] != json!(true) {
            reasons.push(format!("runAsNonRoot != true (pod or container \"{name}\" must set securityContext.runAsNonRoot=true)"));
        }
        let profile = |context: &Value| {
            matches!(context["seccompProfile"]["type"].as_str(), Some("RuntimeDefault" | "Localhost"))
        };
        if !profile(pod) && !profile(context) {
            reasons.push(format!("seccompProfile (pod or container \"{name}\" must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")"));
        }
    }
    (!reasons.is_empty())
        .then(|| format!("violate PodSecurity \"restricted:latest\": {}", reasons.join(", ")))
}
