//! `--service-account-map`: which runs have which service account, limits and nodes.
//!
//! A list in YAML or JSON. The first rule whose patterns match the stack and the template of a deployment is its rule; where
//! none does, the deployment is refused: a cloud role is given to what was named, and to nothing else.

use std::{collections::BTreeMap, path::Path};

use k8s_openapi::{api::core::v1::Toleration, apimachinery::pkg::api::resource::Quantity};
use serde::Deserialize;

use crate::launch::kubernetes::yaml;

/// The rules, in the order of the file.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct AccountMap {
    rules: Vec<AccountRule>,
}

/// What the runs of some stacks get.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct AccountRule {
    /// Names of stacks (`config_snapshot.stack`); `*` stands for any text. A deployment without a stack has the empty name.
    pub(crate) stacks: Vec<String>,
    /// Templates, by the part of `state_key` before the stack; any, if none is named.
    #[serde(default = "any")]
    pub(crate) templates: Vec<String>,
    /// The service account of their pods.
    pub(crate) service_account: String,
    /// Replaces the usual requests and limits, resource by resource.
    #[serde(default)]
    pub(crate) resources: Resources,
    /// Labels of the nodes that may take them.
    #[serde(default)]
    pub(crate) node_selector: BTreeMap<String, String>,
    /// Taints of nodes that they tolerate.
    #[serde(default)]
    pub(crate) tolerations: Vec<Toleration>,
}

/// Requests and limits of a container: `cpu`, `memory`, `ephemeral-storage`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Resources {
    #[serde(default)]
    pub(crate) requests: BTreeMap<String, Quantity>,
    #[serde(default)]
    pub(crate) limits: BTreeMap<String, Quantity>,
}

fn any() -> Vec<String> {
    vec!["*".to_owned()]
}

impl AccountMap {
    /// Every stack has this service account.
    #[cfg(test)]
    pub(crate) fn of_one(service_account: &str) -> Self {
        Self {
            rules: vec![AccountRule {
                stacks: any(),
                templates: any(),
                service_account: service_account.to_owned(),
                resources: Resources::default(),
                node_selector: BTreeMap::new(),
                tolerations: Vec::new(),
            }],
        }
    }

    /// Reads the file. Errors: what is wrong with it, and where.
    pub(crate) fn load(path: &Path) -> Result<Self, String> {
        let flag = "--service-account-map / TENDRIL_SERVICE_ACCOUNT_MAP";
        let text = std::fs::read_to_string(path)
            .map_err(|error| format!("{flag} {}: it cannot be read ({error})", path.display()))?;
        Self::parse(&text).map_err(|why| format!("{flag} {}: {why}", path.display()))
    }

    /// Reads the text of the file.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let rules: Vec<AccountRule> = yaml::read(text).map_err(|why| {
            format!(
                "it must be a list of rules such as `- {{stacks: [\"prod\"], serviceAccount: runs-prod}}` ({why})"
            )
        })?;
        if rules.is_empty() {
            return Err("it has no rule, so every deployment would be refused: write at least one".to_owned());
        }
        for (index, rule) in rules.iter().enumerate() {
            rule.check().map_err(|why| format!("rule {}: {why}", index + 1))?;
        }
        Ok(Self { rules })
    }

    /// The rule of a deployment. Errors: a sentence for its user.
    pub(crate) fn rule(&self, template: &str, stack: Option<&str>) -> Result<&AccountRule, String> {
        let name = stack.unwrap_or_default();
        let is_for = |rule: &&AccountRule| {
            rule.stacks.iter().any(|pattern| matches(pattern, name))
                && rule.templates.iter().any(|pattern| matches(pattern, template))
        };
        self.rules.iter().find(is_for).ok_or_else(|| {
            let what = match stack {
                Some(stack) => format!("the stack \"{stack}\" of template \"{template}\""),
                None => format!("template \"{template}\" without a stack"),
            };
            format!(
                "No rule of this agent's --service-account-map is for {what}, so no service account may run it. Add it to a rule, or queue it on another cluster."
            )
        })
    }

    /// The service accounts that it names, each once.
    pub(crate) fn service_accounts(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.rules.iter().map(|rule| rule.service_account.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// The rules, in their order.
    pub(crate) fn rules(&self) -> &[AccountRule] {
        &self.rules
    }
}

impl AccountRule {
    fn check(&self) -> Result<(), String> {
        if self.stacks.is_empty() || self.templates.is_empty() {
            return Err(
                "`stacks` (or `templates`) is empty, so it matches nothing: name some, or \"*\"".to_owned()
            );
        }
        if !is_dns_name(&self.service_account) {
            return Err(format!(
                "serviceAccount \"{}\" is no name of a service account: lower case letters, digits, '-' and '.'",
                self.service_account
            ));
        }
        for (resource, quantity) in self.resources.requests.iter().chain(&self.resources.limits) {
            if !matches!(resource.as_str(), "cpu" | "memory" | "ephemeral-storage") && !resource.contains('/')
            {
                return Err(format!(
                    "\"{resource}\" is no resource: cpu, memory, ephemeral-storage, or one with a domain such as example.com/gpu"
                ));
            }
            if amount(quantity).is_none() {
                return Err(format!("{resource} \"{}\" is no quantity such as 500m, 2 or 4Gi", quantity.0));
            }
        }
        for (resource, request) in &self.resources.requests {
            if let Some(limit) = self.resources.limits.get(resource)
                && amount(request) > amount(limit)
            {
                return Err(format!(
                    "it requests {resource} {}, which is more than its limit of {}",
                    request.0, limit.0
                ));
            }
        }
        Ok(())
    }
}

/// Whether a pattern stands for a text; `*` in it stands for any text, also none.
fn matches(pattern: &str, text: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut left) = text.strip_prefix(head) else { return false };
    let mut parts = rest.split('*').peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return left.ends_with(part);
        }
        let Some(at) = left.find(part) else { return false };
        left = &left[at + part.len()..];
    }
    true
}

/// What the API accepts as a name: at most 253 letters.
pub(crate) fn is_dns_name(name: &str) -> bool {
    let is_inner = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit();
    name.len() <= 253
        && name.split('.').all(|part| {
            part.starts_with(is_inner)
                && part.ends_with(is_inner)
                && part.chars().all(|letter| is_inner(letter) || letter == '-')
        })
}

/// A quantity as a number, to compare it with another one; none, if it is none.
pub(crate) fn amount(quantity: &Quantity) -> Option<f64> {
    let text = quantity.0.trim();
    let end = text.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(text.len());
    let number = text[..end].parse::<f64>().ok()?;
    let factor = match &text[end..] {
        "" => 1.0,
        "m" => 1e-3,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "Ki" => 1024.0,
        "Mi" => 1024.0 * 1024.0,
        "Gi" => 1024.0 * 1024.0 * 1024.0,
        "Ti" => 1024.0 * 1024.0 * 1024.0 * 1024.0,
        _ => return None,
    };
    Some(number * factor)
}

#[cfg(test)]
#[path = "account_map_tests.rs"]
mod tests;
