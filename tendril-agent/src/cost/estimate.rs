//! The contents of an estimate: its status, the figures in the row, and the sentence in the log.

use serde::Serialize;
use serde_json::{Value, json};

use super::money::Money;
use crate::{job::CostStatus, os::text::char_floor, redaction::Redactor};

/// Most resources that are listed, the dearest first.
const MOST_RESOURCES: usize = 20;
/// Longest name and longest reason, in bytes.
const LONGEST_NAME: usize = 200;
const LONGEST_REASON: usize = 500;
/// infracost's code of a project that was refused because its quota is used up.
const QUOTA: i64 = 401;

/// How many resources are of which kind; each is in one of the four.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Counts {
    /// All of them.
    pub(crate) detected: u64,
    /// Their cost is in the total.
    pub(crate) priced: u64,
    /// No price was found, or it depends on use that cannot be known before.
    pub(crate) unpriced: u64,
    /// Of a type that infracost does not know.
    pub(crate) unsupported: u64,
    /// They cost nothing.
    pub(crate) free: u64,
}

impl Counts {
    /// With their sum.
    pub(crate) const fn new(priced: u64, unpriced: u64, unsupported: u64, free: u64) -> Self {
        let detected = priced.saturating_add(unpriced).saturating_add(unsupported).saturating_add(free);
        Self { detected, priced, unpriced, unsupported, free }
    }
}

/// One resource and what it costs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct ResourceCost {
    /// Its address, such as `aws_instance.web`.
    pub(crate) name: String,
    /// Its type.
    pub(crate) r#type: String,
    /// A month of it.
    pub(crate) monthly: Money,
}

/// A project that could not be read, or not wholly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ProjectError {
    /// infracost's number of it, if it has one.
    pub(crate) code: Option<i64>,
    /// Its text.
    pub(crate) message: String,
}

/// What was read from infracost's output, of either line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reading {
    pub(crate) currency: String,
    pub(crate) monthly: Option<Money>,
    pub(crate) hourly: Option<Money>,
    pub(crate) usage_monthly: Option<Money>,
    pub(crate) counts: Counts,
    /// Those with a cost, in any order.
    pub(crate) resources: Vec<ResourceCost>,
    pub(crate) errors: Vec<ProjectError>,
}

/// The figures of a row. An amount that is not known is null, and never 0.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Figures {
    currency: String,
    monthly: Option<Money>,
    hourly: Option<Money>,
    usage_monthly: Option<Money>,
    resources: Counts,
    by_resource: Vec<ResourceCost>,
}

/// `deployments.cost`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Cost {
    #[serde(flatten)]
    figures: Option<Figures>,
    /// Program and version.
    #[serde(skip_serializing_if = "Option::is_none")]
    tool: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// An estimate, or why there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Estimate {
    pub(crate) status: CostStatus,
    pub(crate) cost: Cost,
}

impl Estimate {
    /// As the row has it.
    pub(crate) fn columns(&self) -> (CostStatus, Value) {
        (self.status, json!(self.cost))
    }

    /// There is none.
    pub(crate) fn unavailable(tool: Option<String>, reason: &str, redactor: &Redactor) -> Self {
        let reason = Some(short(reason, LONGEST_REASON, redactor));
        Self { status: CostStatus::Unavailable, cost: Cost { figures: None, tool, reason } }
    }

    /// Evaluates what was read. Names come from a template and its variables, so secrets are hidden in them; amounts are
    /// numbers.
    pub(crate) fn of(reading: Reading, tool: String, redactor: &Redactor) -> Self {
        let Reading { currency, monthly, hourly, usage_monthly, counts, mut resources, errors } = reading;
        if let Some(error) = errors.first().filter(|_| counts.detected == 0) {
            return Self::unavailable(Some(tool), &nothing_read(&errors, error), redactor);
        }
        resources.sort_by(|a, b| b.monthly.compare(&a.monthly).then_with(|| a.name.cmp(&b.name)));
        resources.truncate(MOST_RESOURCES);
        for resource in &mut resources {
            resource.name = short(&resource.name, LONGEST_NAME, redactor);
            resource.r#type = short(&resource.r#type, LONGEST_NAME, redactor);
        }
        // A total over nothing is printed as 0, and means nothing where something may cost.
        let known = counts.priced > 0 || counts.detected == counts.free && errors.is_empty();
        let if_known = |amount: Option<Money>| amount.filter(|_| known);
        let missing = missing(&counts, &errors);
        let status = if missing.is_empty() { CostStatus::Ok } else { CostStatus::Partial };
        let figures = Figures {
            currency,
            monthly: if_known(monthly),
            hourly: if_known(hourly),
            usage_monthly: if_known(usage_monthly),
            resources: counts,
            by_resource: resources,
        };
        let reason = (status != CostStatus::Ok).then(|| short(&missing.join("; "), LONGEST_REASON, redactor));
        Self { status, cost: Cost { figures: Some(figures), tool: Some(tool), reason } }
    }

    /// For people.
    pub(crate) fn annotation(&self) -> String {
        let reason = self.cost.reason.as_deref().unwrap_or_default();
        let Some(Figures { currency, monthly, resources: counts, .. }) = &self.cost.figures else {
            return format!("No cost estimate: {reason}.");
        };
        let amount = match monthly {
            Some(monthly) => format!("{} {currency} a month", monthly.as_str()),
            None => "unknown".to_owned(),
        };
        let priced = match (counts.detected - counts.free, counts.free) {
            (0, 0) => "nothing that has a price".to_owned(),
            (0, free) => format!("{free} free"),
            (costly, 0) => format!("{} of {costly} resources priced", counts.priced),
            (costly, free) => format!("{} of {costly} resources priced, {free} free", counts.priced),
        };
        let but = if reason.is_empty() { String::new() } else { format!(" Not in it: {reason}.") };
        format!("Estimated cost: {amount} ({priced}).{but}")
    }
}

/// Why there are no figures at all.
fn nothing_read(errors: &[ProjectError], first: &ProjectError) -> String {
    if errors.iter().any(|error| error.code == Some(QUOTA)) {
        return format!("infracost's quota of this key is used up: {}", first.message);
    }
    format!("infracost could not read the template or its prices: {}", first.message)
}

/// What is not in the figures.
fn missing(counts: &Counts, errors: &[ProjectError]) -> Vec<String> {
    let mut missing = Vec::new();
    let count = |number: u64, one: &str, many: &str| match number {
        0 => None,
        1 => Some(format!("1 {one}")),
        number => Some(format!("{number} {many}")),
    };
    missing.extend(count(
        counts.unpriced,
        "resource without a price, or whose cost depends on its use",
        "resources without a price, or whose cost depends on their use",
    ));
    missing.extend(count(
        counts.unsupported,
        "resource of a type that infracost does not know",
        "resources of types that infracost does not know",
    ));
    missing.extend(errors.first().map(|error| {
        let further =
            if errors.len() > 1 { format!(" (and {} more)", errors.len() - 1) } else { String::new() };
        format!("what infracost could not read: {}{further}", error.message)
    }));
    missing
}

/// One line, without secrets, and not too long.
fn short(text: &str, longest: usize, redactor: &Redactor) -> String {
    // Redacted before it is cut: the redactor does not recognize a part of a secret.
    let hidden = redactor.redact(text);
    let mut line = hidden.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.len() > longest {
        line.truncate(char_floor(&line, longest));
        line.push('…');
    }
    line.trim_end_matches('.').to_owned()
}

#[cfg(test)]
#[path = "estimate_tests.rs"]
mod tests;
