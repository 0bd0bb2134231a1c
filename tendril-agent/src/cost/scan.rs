//! The output of `infracost scan --json` of 2.x.
//!
//! It has no total of a resource, prints 0 for a price that was not found, and 0 for a cost that depends on use. So a resource
//! that costs nothing and is not marked free counts as one without a price.

use serde::Deserialize;

use super::{
    estimate::{Counts, ProjectError, Reading, ResourceCost},
    money::Money,
};

#[derive(Deserialize)]
struct Root {
    #[serde(default)]
    currency: String,
    projects: Vec<Project>,
    /// The first versions of the line have none.
    summary: Option<Summary>,
}

#[derive(Deserialize)]
struct Summary {
    total_monthly_cost: Option<Money>,
}

#[derive(Deserialize)]
struct Project {
    /// 0.10 has another name for it: its output is not taken for this one.
    #[serde(rename = "project_name")]
    _name: String,
    resources: Vec<Resource>,
    #[serde(default)]
    diagnostics: Vec<Diagnostic>,
}

#[derive(Deserialize)]
struct Resource {
    name: String,
    r#type: String,
    is_supported: bool,
    is_free: bool,
    #[serde(default)]
    cost_components: Vec<Component>,
    #[serde(default)]
    subresources: Vec<Resource>,
}

#[derive(Deserialize)]
struct Component {
    total_monthly_cost: Option<Money>,
    usage_monthly_cost: Option<Money>,
}

#[derive(Deserialize)]
struct Diagnostic {
    #[serde(default)]
    message: String,
    severity: String,
}

impl Resource {
    /// Every component of it and of what is below it.
    fn components(&self) -> Vec<&Component> {
        let below = self.subresources.iter().flat_map(Self::components);
        self.cost_components.iter().chain(below).collect()
    }
}

/// Reads it. Errors: it is something else.
pub(super) fn read(json: &[u8]) -> Result<Reading, serde_json::Error> {
    let root: Root = serde_json::from_slice(json)?;
    let (mut resources, mut errors, mut usage) = (Vec::new(), Vec::new(), Vec::new());
    let (mut unpriced, mut unsupported, mut free) = (0, 0, 0);
    for project in root.projects {
        let critical = project.diagnostics.into_iter().filter(|diagnostic| diagnostic.severity == "critical");
        errors.extend(critical.map(|diagnostic| ProjectError { code: None, message: diagnostic.message }));
        for resource in project.resources {
            let components = resource.components();
            let monthly = Money::sum(components.iter().filter_map(|part| part.total_monthly_cost.as_ref()));
            usage.extend(components.iter().filter_map(|part| part.usage_monthly_cost.clone()));
            if !monthly.is_zero() {
                resources.push(ResourceCost { name: resource.name, r#type: resource.r#type, monthly });
            } else if !resource.is_supported {
                unsupported += 1;
            } else if resource.is_free {
                free += 1;
            } else {
                unpriced += 1;
            }
        }
    }
    let sum = || Money::sum(resources.iter().map(|resource| &resource.monthly));
    Ok(Reading {
        // Empty means that none was requested, and that the prices are in its default.
        currency: if root.currency.is_empty() { "USD".to_owned() } else { root.currency },
        monthly: Some(root.summary.and_then(|summary| summary.total_monthly_cost).unwrap_or_else(sum)),
        hourly: None,
        usage_monthly: Some(Money::sum(&usage)),
        counts: Counts::new(u64::try_from(resources.len()).unwrap_or(u64::MAX), unpriced, unsupported, free),
        resources,
        errors,
    })
}

#[cfg(test)]
#[path = "scan_tests.rs"]
mod tests;
