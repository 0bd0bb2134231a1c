//! The saved plan as rows: what `terraform show -json` prints about each resource, masked, shortened, and small enough for a table.

use serde::{Deserialize, de::IgnoredAny};
use serde_json::{Map, Value, json, value::RawValue};

use crate::{
    job::{Json, NotReadable, PlanDetails},
    redaction::Redactor,
};

/// Most rows of a plan; what comes after them is counted by one marker row.
const ROWS: usize = 5000;
/// Longest text of a value, in bytes.
const VALUE: usize = 512;
/// Most bytes of the attribute changes of one row. The database allows 16 KiB of its own notation, which is a little longer.
const ROW: usize = 9 * 1024;
/// Longest address, in bytes.
const ADDRESS: usize = 1024;

/// A plan, read.
#[derive(Debug, Default)]
pub(crate) struct PlannedChanges {
    /// The rows, as `agent_store_changes` takes them, in the order of the plan; what drifted comes last.
    pub(crate) rows: Vec<Value>,
    /// Counts beside those of the plan's summary.
    pub(crate) details: PlanDetails,
    /// How many resources the state holds once the plan is applied.
    pub(crate) resources: u64,
    /// The addresses that are replaced: they are both created and destroyed during apply.
    pub(crate) replaced: Vec<String>,
}

#[derive(Deserialize)]
struct Plan<'a> {
    #[serde(borrow, default)]
    resource_changes: Vec<&'a RawValue>,
    #[serde(borrow, default)]
    resource_drift: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
struct ResourceChange<'a> {
    address: String,
    #[serde(default)]
    mode: Option<String>,
    #[serde(default)]
    previous_address: Option<String>,
    #[serde(default, rename = "type")]
    resource_type: Option<String>,
    #[serde(default)]
    provider_name: Option<String>,
    #[serde(borrow)]
    change: Change<'a>,
}

/// Values are read later, one resource at a time: one that cannot be read does not hide the others.
#[derive(Deserialize)]
struct Change<'a> {
    actions: Vec<String>,
    #[serde(borrow, default)]
    before: Option<&'a RawValue>,
    #[serde(borrow, default)]
    after: Option<&'a RawValue>,
    #[serde(borrow, default)]
    after_unknown: Option<&'a RawValue>,
    #[serde(borrow, default)]
    before_sensitive: Option<&'a RawValue>,
    #[serde(borrow, default)]
    after_sensitive: Option<&'a RawValue>,
    #[serde(borrow, default)]
    replace_paths: Option<&'a RawValue>,
    #[serde(default)]
    importing: Option<IgnoredAny>,
}

/// Reads what `terraform show -json` printed. Errors: it is no plan.
pub(crate) fn read(shown: &[u8], redactor: &Redactor) -> Result<PlannedChanges, serde_json::Error> {
    let plan: Plan<'_> = serde_json::from_slice(shown)?;
    let mut planned = PlannedChanges::default();
    let mut omitted = 0_usize;
    for (raw, is_drift) in plan
        .resource_changes
        .iter()
        .map(|raw| (raw, false))
        .chain(plan.resource_drift.iter().map(|raw| (raw, true)))
    {
        // One at a time: a large plan is never in memory as a tree.
        let resource: ResourceChange<'_> = serde_json::from_str(raw.get())?;
        let stays = !resource.change.actions.iter().any(|action| action == "forget")
            && resource.change.actions.as_slice() != ["delete"];
        planned.resources +=
            u64::from(!is_drift && stays && resource.mode.as_deref().unwrap_or("managed") == "managed");
        let Some(action) = action(&resource, is_drift) else { continue };
        let details = &mut planned.details;
        if is_drift {
            details.drift += 1;
        } else {
            details.r#move += u64::from(is_moved(&resource));
            details.forget += u64::from(action == "forget");
            if action == "replace" {
                planned.replaced.push(resource.address.clone());
            }
        }
        if planned.rows.len() >= ROWS {
            omitted += 1;
            continue;
        }
        let attributes = attributes(&resource.change, redactor).unwrap_or_else(|error| {
            tracing::warn!(address = resource.address, %error, "the attributes of a planned change cannot be read");
            vec![json!({"path": "…", "truncated": true, "omitted": 1})]
        });
        planned.rows.push(json!({
            "position": planned.rows.len() + 1,
            "address": cut(&redactor.redact(&resource.address), ADDRESS).0,
            "resource_type": resource.resource_type,
            "provider": resource.provider_name,
            "action": action,
            "drift": is_drift,
            "attributes": attributes,
        }));
    }
    if omitted > 0 {
        planned.rows.push(json!({
            "position": ROWS + 1,
            "address": format!("{omitted} more"),
            "action": "truncated",
            "attributes": {"omitted": omitted},
        }));
    }
    Ok(planned)
}

fn is_moved(resource: &ResourceChange<'_>) -> bool {
    resource.previous_address.as_ref().is_some_and(|previous| *previous != resource.address)
}

/// The name of what happens to a resource; none where nothing does.
fn action(resource: &ResourceChange<'_>, is_drift: bool) -> Option<&'static str> {
    let actions: Vec<&str> = resource.change.actions.iter().map(String::as_str).collect();
    match actions.as_slice() {
        _ if resource.change.importing.is_some() && !is_drift => Some("import"),
        ["create"] => Some("create"),
        ["update"] => Some("update"),
        ["delete"] => Some("delete"),
        ["delete", "create"] | ["create", "delete"] => Some("replace"),
        ["read"] => Some("read"),
        ["forget"] | ["create", "forget"] => Some("forget"),
        _ if is_moved(resource) => Some("move"),
        _ if is_drift => Some("no-op"),
        _ => None,
    }
}

/// The attributes that change, leaf by leaf. Errors: a value that is nested too deeply.
fn attributes(change: &Change<'_>, redactor: &Redactor) -> Result<Vec<Value>, NotReadable> {
    let value = |raw: Option<&RawValue>| raw.map_or(Ok(Json::Null), |raw| Json::parse(raw.get()));
    let (before, after, unknown) =
        (value(change.before)?, value(change.after)?, value(change.after_unknown)?);
    let (before_sensitive, after_sensitive) =
        (value(change.before_sensitive)?, value(change.after_sensitive)?);
    let replace = match value(change.replace_paths)? {
        Json::Array(paths) => paths.iter().filter_map(Step::path).collect(),
        _ => Vec::new(),
    };
    let mut walk = Walk { found: Vec::new(), bytes: 0, omitted: 0, replace, redactor };
    walk.compare(
        &mut Vec::new(),
        Side { value: &before, sensitive: &before_sensitive },
        Side { value: &after, sensitive: &after_sensitive },
        &unknown,
    );
    let Walk { mut found, omitted, .. } = walk;
    if omitted > 0 {
        found.push(json!({"path": "…", "truncated": true, "omitted": omitted}));
    }
    Ok(found)
}

/// From a value to one of its parts.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Name(String),
    Index(usize),
}

impl Step {
    /// A path as Terraform writes it: a list of names and indices.
    fn path(path: &Json) -> Option<Vec<Self>> {
        let Json::Array(steps) = path else { return None };
        let step = |step: &Json| match step {
            Json::String(name) => Some(Self::Name(name.clone())),
            Json::Number(index) => index.parse().ok().map(Self::Index),
            _ => None,
        };
        steps.iter().map(step).collect()
    }

    /// The steps from a value to its parts, on either side or among what is unknown; none for scalars and empty containers.
    fn all(values: [&Json; 3]) -> Vec<Self> {
        let mut names = std::collections::BTreeSet::new();
        let mut most = 0;
        for value in values {
            match value {
                Json::Object(fields) => names.extend(fields.keys().cloned()),
                Json::Array(items) => most = most.max(items.len()),
                _ => {}
            }
        }
        names.into_iter().map(Self::Name).chain((0..most).map(Self::Index)).collect()
    }

    /// What a value has there. A scalar that becomes a container, or the reverse, has no parts.
    fn part<'a>(&self, whole: &'a Json) -> &'a Json {
        static NULL: Json = Json::Null;
        match (whole, self) {
            (Json::Object(fields), Self::Name(name)) => fields.get(name).unwrap_or(&NULL),
            (Json::Array(items), Self::Index(index)) => items.get(*index).unwrap_or(&NULL),
            _ => &NULL,
        }
    }

    /// What a mark has there: a mark of a whole is a mark of all its parts.
    fn mark<'a>(&self, whole: &'a Json) -> &'a Json {
        if *whole == Json::Bool(true) { whole } else { self.part(whole) }
    }
}

#[derive(Clone, Copy)]
struct Side<'a> {
    value: &'a Json,
    sensitive: &'a Json,
}

impl Side<'_> {
    fn at(&self, step: &Step) -> Self {
        Self { value: step.part(self.value), sensitive: step.mark(self.sensitive) }
    }

    fn is_sensitive(&self) -> bool {
        *self.sensitive == Json::Bool(true)
    }
}

struct Walk<'a> {
    found: Vec<Value>,
    bytes: usize,
    omitted: usize,
    replace: Vec<Vec<Step>>,
    redactor: &'a Redactor,
}

impl Walk<'_> {
    fn compare(&mut self, path: &mut Vec<Step>, before: Side<'_>, after: Side<'_>, unknown: &Json) {
        let is_sensitive = before.is_sensitive() || after.is_sensitive();
        let is_unknown = *unknown == Json::Bool(true);
        if before.value == after.value && !is_unknown && !holds_true(unknown) {
            return;
        }
        let steps = Step::all([before.value, after.value, unknown]);
        if is_sensitive || is_unknown || steps.is_empty() {
            self.leaf(path, before.value, after.value, is_sensitive, is_unknown);
            return;
        }
        for step in steps {
            let (old, new, unknown) = (before.at(&step), after.at(&step), step.mark(unknown));
            path.push(step);
            self.compare(path, old, new, unknown);
            path.pop();
        }
    }

    fn leaf(&mut self, path: &[Step], before: &Json, after: &Json, is_sensitive: bool, is_unknown: bool) {
        let mut entry = Map::new();
        // Redacted before it is cut: the redactor does not recognize a part of a secret.
        let shown = self.redactor.redact(&written(path)).into_owned();
        entry.insert("path".to_owned(), json!(cut(&shown, VALUE).0));
        let mut is_cut = false;
        if is_sensitive {
            entry.insert("sensitive".to_owned(), json!(true));
        } else {
            let mut put = |name: &str, value: &Json| {
                let (value, shortened) = short(value.clone().redacted(self.redactor));
                is_cut |= shortened;
                entry.insert(name.to_owned(), value);
            };
            put("before", before);
            if !is_unknown {
                put("after", after);
            }
        }
        if is_unknown {
            entry.insert("unknown".to_owned(), json!(true));
        }
        if is_cut {
            entry.insert("truncated".to_owned(), json!(true));
        }
        if self.replace.iter().any(|cause| path.starts_with(cause)) {
            entry.insert("requires_replace".to_owned(), json!(true));
        }
        let entry = Value::Object(entry);
        let size = entry.to_string().len();
        if self.bytes + size > ROW {
            self.omitted += 1;
        } else {
            self.bytes += size;
            self.found.push(entry);
        }
    }
}

fn holds_true(mark: &Json) -> bool {
    match mark {
        Json::Bool(mark) => *mark,
        Json::Array(items) => items.iter().any(holds_true),
        Json::Object(fields) => fields.values().any(holds_true),
        _ => false,
    }
}

/// As Terraform writes it: `ingress[0].cidr_blocks[1]`, `tags["Name"]` as `tags.Name`.
fn written(path: &[Step]) -> String {
    let mut text = String::new();
    for step in path {
        match step {
            Step::Index(index) => {
                text.push('[');
                text.push_str(&index.to_string());
                text.push(']');
            }
            Step::Name(name) if text.is_empty() => text.push_str(name),
            Step::Name(name) => {
                text.push('.');
                text.push_str(name);
            }
        }
    }
    text
}

/// A value that fits into a row, and whether something of it was cut off. Numbers have all their digits: what a program would change that
/// reads them into a double is written as text.
fn short(value: Json) -> (Value, bool) {
    match value.without_nul() {
        Json::Null => (Value::Null, false),
        Json::Bool(bool) => (Value::Bool(bool), false),
        Json::String(text) => {
            let (text, is_cut) = cut(&text, VALUE);
            (Value::String(text), is_cut)
        }
        other => {
            let text = other.to_string();
            // The database writes out all digits of a number with an exponent.
            let has_exponent =
                |leaf: &&Json| matches!(leaf, Json::Number(number) if number.contains(['e', 'E']));
            let is_plain = text.len() <= VALUE && !other.leaves().iter().any(has_exponent);
            match other.to_value().map(|value| (value.to_string(), value)) {
                Ok((printed, value)) if is_plain && printed == text => (value, false),
                _ => {
                    let (text, is_cut) = cut(&text, VALUE);
                    (Value::String(text), is_cut)
                }
            }
        }
    }
}

fn cut(text: &str, most: usize) -> (String, bool) {
    if text.len() <= most {
        return (text.to_owned(), false);
    }
    let end = (0..=most).rev().find(|at| text.is_char_boundary(*at)).unwrap_or_default();
    (format!("{}…", &text[..end]), true)
}

#[cfg(test)]
#[path = "plan_changes_tests.rs"]
mod tests;
