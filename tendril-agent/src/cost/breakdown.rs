//! The output of `infracost breakdown --format json` of 0.10 (its format "0.2").

use serde::Deserialize;

use super::{
    estimate::{Counts, ProjectError, Reading, ResourceCost},
    money::Money,
};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Root {
    /// Of the format. 2.x has none: its output is not taken for this one.
    #[serde(rename = "version")]
    _version: String,
    currency: String,
    projects: Vec<Project>,
    total_hourly_cost: Option<Money>,
    total_monthly_cost: Option<Money>,
    total_monthly_usage_cost: Option<Money>,
    summary: Option<Summary>,
}

#[derive(Deserialize)]
struct Project {
    metadata: Option<Metadata>,
    breakdown: Option<Breakdown>,
}

#[derive(Deserialize)]
struct Metadata {
    #[serde(default)]
    errors: Vec<Diagnostic>,
}

#[derive(Deserialize)]
struct Diagnostic {
    code: Option<i64>,
    #[serde(default)]
    message: String,
}

#[derive(Deserialize)]
struct Breakdown {
    #[serde(default)]
    resources: Vec<Resource>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Resource {
    name: String,
    #[serde(default, rename = "resourceType")]
    kind: String,
    monthly_cost: Option<Money>,
    #[serde(default)]
    cost_components: Vec<Component>,
    #[serde(default)]
    subresources: Vec<Resource>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Component {
    #[serde(default)]
    price_not_found: bool,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Summary {
    total_unsupported_resources: Option<u64>,
    /// Those that are free: infracost does not mean a price that was not found.
    total_no_price_resources: Option<u64>,
}

impl Resource {
    /// Whether its whole cost is known: null means that it depends on use.
    fn is_priced(&self) -> bool {
        self.monthly_cost.is_some() && !self.lacks_a_price()
    }

    fn lacks_a_price(&self) -> bool {
        self.cost_components.iter().any(|component| component.price_not_found)
            || self.subresources.iter().any(Self::lacks_a_price)
    }
}

/// Reads it. Errors: it is something else.
pub(super) fn read(json: &[u8]) -> Result<Reading, serde_json::Error> {
    let root: Root = serde_json::from_slice(json)?;
    let summary = root.summary.unwrap_or_default();
    let (mut resources, mut errors, mut priced, mut unpriced) = (Vec::new(), Vec::new(), 0, 0);
    for project in root.projects {
        // An errored project ends with 0 as any other: its errors are found here, and nowhere else.
        let found = project.metadata.into_iter().flat_map(|metadata| metadata.errors);
        errors.extend(found.map(|error| ProjectError { code: error.code, message: error.message }));
        for resource in project.breakdown.into_iter().flat_map(|breakdown| breakdown.resources) {
            if resource.is_priced() {
                priced += 1;
            } else {
                unpriced += 1;
            }
            let Resource { name, kind, monthly_cost, .. } = resource;
            resources.extend(monthly_cost.map(|monthly| ResourceCost { name, r#type: kind, monthly }));
        }
    }
    Ok(Reading {
        currency: root.currency,
        monthly: root.total_monthly_cost,
        hourly: root.total_hourly_cost,
        usage_monthly: root.total_monthly_usage_cost,
        counts: Counts::new(
            priced,
            unpriced,
            summary.total_unsupported_resources.unwrap_or_default(),
            summary.total_no_price_resources.unwrap_or_default(),
        ),
        resources,
        errors,
    })
}

#[cfg(test)]
#[path = "breakdown_tests.rs"]
mod tests;
