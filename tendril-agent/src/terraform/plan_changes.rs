//! The saved plan as rows: what `terraform show -json` says of each resource, masked, shortened, and small enough for a table.

use serde::Deserialize;
use serde_json::{Map, Value, json, value::RawValue};

use crate::{job::result::PlanDetails, redaction::redactor::Redactor};

/// Most rows of a plan; what comes after them is counted by one marker row.
const ROWS: usize = 5000;
/// Longest text of a value, in bytes.
const VALUE: usize = 512;
/// Most bytes of the attribute changes of one row. The database allows 16 KiB of its own notation, which is a little longer.
const ROW: usize = 9 * 1024;
/// Longest address, in bytes.
const ADDRESS: usize = 1024;
/// Beyond this a number is written as text: the database writes all its digits.
const LARGEST_NUMBER: f64 = 1e21;

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
struct ResourceChange {
    address: String,
    #[serde(default)]
    mode: Option<String>,
    #[serde(default)]
    previous_address: Option<String>,
    #[serde(default, rename = "type")]
    resource_type: Option<String>,
    #[serde(default)]
    provider_name: Option<String>,
    change: Change,
}

#[derive(Deserialize)]
struct Change {
    actions: Vec<String>,
    #[serde(default)]
    before: Value,
    #[serde(default)]
    after: Value,
    #[serde(default)]
    after_unknown: Value,
    #[serde(default)]
    before_sensitive: Value,
    #[serde(default)]
    after_sensitive: Value,
    #[serde(default)]
    replace_paths: Vec<Vec<Value>>,
    #[serde(default)]
    importing: Option<Value>,
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
        let resource: ResourceChange = serde_json::from_str(raw.get())?;
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
        let attributes = masked(Value::Array(attributes(&resource.change)), redactor);
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

/// What the log hides is hidden here too, by value.
fn masked(value: Value, redactor: &Redactor) -> Value {
    match value {
        Value::String(text) => Value::String(redactor.redact(&text).into_owned()),
        Value::Array(items) => items.into_iter().map(|item| masked(item, redactor)).collect(),
        Value::Object(fields) => {
            fields.into_iter().map(|(name, value)| (name, masked(value, redactor))).collect()
        }
        other => other,
    }
}

fn is_moved(resource: &ResourceChange) -> bool {
    resource.previous_address.as_ref().is_some_and(|previous| *previous != resource.address)
}

/// The name of what happens to a resource; none where nothing does.
fn action(resource: &ResourceChange, is_drift: bool) -> Option<&'static str> {
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

/// The attributes that change, leaf by leaf.
fn attributes(change: &Change) -> Vec<Value> {
    let mut walk = Walk { found: Vec::new(), bytes: 0, omitted: 0, replace: &change.replace_paths };
    walk.compare(
        &mut Vec::new(),
        Side { value: &change.before, sensitive: &change.before_sensitive },
        Side { value: &change.after, sensitive: &change.after_sensitive },
        &change.after_unknown,
    );
    let Walk { mut found, omitted, .. } = walk;
    if omitted > 0 {
        found.push(json!({"path": "…", "truncated": true, "omitted": omitted}));
    }
    found
}

#[derive(Clone, Copy)]
struct Side<'a> {
    value: &'a Value,
    sensitive: &'a Value,
}

struct Walk<'a> {
    found: Vec<Value>,
    bytes: usize,
    omitted: usize,
    replace: &'a [Vec<Value>],
}

/// What a mark, or a value, has at a step of a path. A mark of a whole is a mark of all its parts.
fn part<'a>(whole: &'a Value, step: &Value) -> &'a Value {
    static NULL: Value = Value::Null;
    match (whole, step) {
        (Value::Bool(true), _) => whole,
        (Value::Object(fields), Value::String(name)) => fields.get(name).unwrap_or(&NULL),
        (Value::Array(items), Value::Number(index)) => {
            index.as_u64().and_then(|index| items.get(usize::try_from(index).ok()?)).unwrap_or(&NULL)
        }
        _ => &NULL,
    }
}

impl Walk<'_> {
    fn compare(&mut self, path: &mut Vec<Value>, before: Side<'_>, after: Side<'_>, unknown: &Value) {
        let is_sensitive = *before.sensitive == Value::Bool(true) || *after.sensitive == Value::Bool(true);
        let is_unknown = *unknown == Value::Bool(true);
        if before.value == after.value && !is_unknown && !holds_true(unknown) {
            return;
        }
        let steps = steps(before.value, after.value, unknown);
        if is_sensitive || is_unknown || steps.is_empty() {
            self.leaf(path, before.value, after.value, is_sensitive, is_unknown);
            return;
        }
        for step in steps {
            // A scalar that becomes a container, or the reverse, has no parts on that side.
            let value = |side: Side<'_>| match side.value {
                Value::Object(_) | Value::Array(_) => part(side.value, &step).clone(),
                _ => Value::Null,
            };
            let (old, new) = (value(before), value(after));
            let (old_mark, new_mark) = (part(before.sensitive, &step), part(after.sensitive, &step));
            path.push(step.clone());
            self.compare(
                path,
                Side { value: &old, sensitive: old_mark },
                Side { value: &new, sensitive: new_mark },
                part(unknown, &step),
            );
            path.pop();
        }
    }

    fn leaf(&mut self, path: &[Value], before: &Value, after: &Value, is_sensitive: bool, is_unknown: bool) {
        let mut entry = Map::new();
        entry.insert("path".to_owned(), json!(cut(&written(path), VALUE).0));
        let mut is_cut = false;
        if is_sensitive {
            entry.insert("sensitive".to_owned(), json!(true));
        } else {
            let mut put = |name: &str, value: &Value| {
                let (value, shortened) = short(value);
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

fn holds_true(mark: &Value) -> bool {
    match mark {
        Value::Bool(mark) => *mark,
        Value::Array(items) => items.iter().any(holds_true),
        Value::Object(fields) => fields.values().any(holds_true),
        _ => false,
    }
}

/// The steps from a value to its parts, on either side or among what is unknown; none for scalars and empty containers.
fn steps(before: &Value, after: &Value, unknown: &Value) -> Vec<Value> {
    let mut names = std::collections::BTreeSet::new();
    let mut most = 0;
    for value in [before, after, unknown] {
        match value {
            Value::Object(fields) => names.extend(fields.keys().cloned()),
            Value::Array(items) => most = most.max(items.len()),
            _ => {}
        }
    }
    let names = names.into_iter().map(Value::String);
    names.chain((0..most).map(|index| json!(index))).collect()
}

/// As Terraform writes it: `ingress[0].cidr_blocks[1]`, `tags["Name"]` as `tags.Name`.
fn written(path: &[Value]) -> String {
    let mut text = String::new();
    for step in path {
        match step {
            Value::Number(index) => {
                text.push('[');
                text.push_str(&index.to_string());
                text.push(']');
            }
            Value::String(name) if text.is_empty() => text.push_str(name),
            Value::String(name) => {
                text.push('.');
                text.push_str(name);
            }
            other => text.push_str(&other.to_string()),
        }
    }
    text
}

/// A value that fits into a row, and whether something of it was cut off.
fn short(value: &Value) -> (Value, bool) {
    match value {
        Value::String(text) => {
            let (text, is_cut) = cut(text, VALUE);
            // No text of PostgreSQL can hold U+0000.
            (Value::String(text.replace('\0', "\u{fffd}")), is_cut)
        }
        Value::Number(number) if number.as_f64().is_none_or(|number| number.abs() > LARGEST_NUMBER) => {
            (Value::String(cut(&number.to_string(), VALUE).0), false)
        }
        Value::Array(_) | Value::Object(_) => {
            let text = value.to_string();
            if text.len() > VALUE {
                (Value::String(cut(&text, VALUE).0), true)
            } else {
                (value.clone(), false)
            }
        }
        other => (other.clone(), false),
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
