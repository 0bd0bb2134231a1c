//! `labelSelector` and `fieldSelector`.

use serde_json::Value;

use super::{status::Refusal, store::Kind};

/// What a list or a watch is about; everything by default.
#[derive(Clone, Debug, Default)]
pub(super) struct Selector {
    labels: Vec<Requirement>,
    fields: Vec<(String, String, bool)>,
}

#[derive(Clone, Debug)]
enum Requirement {
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Exists(String),
    Missing(String),
}

impl Selector {
    pub(super) fn parse(kind: Kind, labels: &str, fields: &str) -> Result<Self, Refusal> {
        let labels = split(labels).into_iter().map(|text| requirement(&text)).collect::<Result<_, _>>()?;
        let fields = split(fields).into_iter().map(|text| field(kind, &text)).collect::<Result<_, _>>()?;
        Ok(Self { labels, fields })
    }

    pub(super) fn matches(&self, object: &Value) -> bool {
        let label = |name: &str| object["metadata"]["labels"][name].as_str();
        let labels = self.labels.iter().all(|requirement| match requirement {
            Requirement::In(name, values) => {
                label(name).is_some_and(|value| values.iter().any(|one| one == value))
            }
            Requirement::NotIn(name, values) => {
                !label(name).is_some_and(|value| values.iter().any(|one| one == value))
            }
            Requirement::Exists(name) => label(name).is_some(),
            Requirement::Missing(name) => label(name).is_none(),
        });
        labels
            && self.fields.iter().all(|(path, value, equal)| {
                let there = path.split('.').fold(object, |object, step| &object[step]);
                (there.as_str().unwrap_or_default() == value) == *equal
            })
    }
}

/// At commas that are in no parentheses.
fn split(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut depth = 0;
    for letter in text.chars() {
        depth += i32::from(letter == '(') - i32::from(letter == ')');
        if letter == ',' && depth == 0 {
            parts.push(String::new());
        } else if let Some(last) = parts.last_mut() {
            last.push(letter);
        }
    }
    parts.iter().map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect()
}

fn requirement(text: &str) -> Result<Requirement, Refusal> {
    let set = |text: &str| {
        let inside = text.trim().trim_start_matches('(').trim_end_matches(')');
        inside.split(',').map(|value| value.trim().to_owned()).collect::<Vec<_>>()
    };
    if let Some((name, values)) = text.split_once(" notin ") {
        return Ok(Requirement::NotIn(name.trim().to_owned(), set(values)));
    }
    if let Some((name, values)) = text.split_once(" in ") {
        return Ok(Requirement::In(name.trim().to_owned(), set(values)));
    }
    if let Some(name) = text.strip_prefix('!') {
        return Ok(Requirement::Missing(name.to_owned()));
    }
    let Some((name, value)) = text.split_once('=') else { return Ok(Requirement::Exists(text.to_owned())) };
    let value = value.strip_prefix('=').unwrap_or(value);
    if value.contains('=') {
        return Err(Refusal::bad_request("unable to parse requirement: found '=', expected: identifier"));
    }
    Ok(match name.strip_suffix('!') {
        Some(name) => Requirement::NotIn(name.to_owned(), vec![value.to_owned()]),
        None => Requirement::In(name.to_owned(), vec![value.to_owned()]),
    })
}

fn field(kind: Kind, text: &str) -> Result<(String, String, bool), Refusal> {
    let (name, value) = text.split_once('=').unwrap_or((text, ""));
    let value = value.strip_prefix('=').unwrap_or(value);
    let (name, equal) = name.strip_suffix('!').map_or((name, true), |name| (name, false));
    let known = match kind {
        Kind::Event => name.starts_with("involvedObject.") || matches!(name, "reason" | "type"),
        Kind::Pod => matches!(name, "status.phase" | "spec.nodeName" | "spec.serviceAccountName"),
        _ => false,
    };
    if known || matches!(name, "metadata.name" | "metadata.namespace") {
        return Ok((name.to_owned(), value.to_owned(), equal));
    }
    Err(Refusal::bad_request(format!("field label \"{name}\" not supported for {}", kind.name())))
}
