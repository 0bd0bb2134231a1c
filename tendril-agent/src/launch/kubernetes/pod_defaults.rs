//! What the pod of a run has where its template does not say otherwise: the profile `restricted`, requests and limits.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{
        EnvVar, EnvVarSource, ObjectFieldSelector, PodSecurityContext, PodSpec, ResourceRequirements,
        SeccompProfile,
    },
    apimachinery::pkg::api::resource::Quantity,
};

use crate::launch::kubernetes::{
    account_map::{AccountRule, amount},
    settings::KubernetesSettings,
};

/// The user of the image.
const USER: i64 = 65532;

/// The profile `restricted`, where the template does not say otherwise.
pub(super) fn harden(context: &mut PodSecurityContext) {
    context.run_as_non_root.get_or_insert(true);
    context.run_as_user.get_or_insert(USER);
    context.run_as_group.get_or_insert(USER);
    context.fs_group.get_or_insert(USER);
    context.seccomp_profile.get_or_insert_with(|| SeccompProfile {
        type_: "RuntimeDefault".to_owned(),
        ..SeccompProfile::default()
    });
}

/// A variable with the value of a field of the pod.
pub(super) fn of_field(name: &str, path: &str) -> EnvVar {
    let field = ObjectFieldSelector { field_path: path.to_owned(), ..ObjectFieldSelector::default() };
    let source = EnvVarSource { field_ref: Some(field), ..EnvVarSource::default() };
    EnvVar { name: name.to_owned(), value_from: Some(source), ..EnvVar::default() }
}

/// The rule first, then the template, then what is usual. A limit below a request lowers the request.
pub(super) fn resources(rule: &AccountRule, resources: &mut ResourceRequirements) {
    let (requests, limits) = KubernetesSettings::usual_resources();
    let fill = |there: &mut Option<BTreeMap<String, Quantity>>,
                rule: &BTreeMap<String, Quantity>,
                usual: BTreeMap<String, Quantity>| {
        let all = there.get_or_insert_default();
        for (name, amount) in usual {
            all.entry(name).or_insert(amount);
        }
        all.extend(rule.clone());
    };
    fill(&mut resources.requests, &rule.resources.requests, requests);
    fill(&mut resources.limits, &rule.resources.limits, limits);
    let limits = resources.limits.clone().unwrap_or_default();
    for (name, request) in resources.requests.iter_mut().flatten() {
        if let Some(limit) = limits.get(name)
            && amount(request) > amount(limit)
        {
            request.clone_from(limit);
        }
    }
}

pub(super) fn remove_empty(spec: &mut PodSpec) {
    if spec.node_selector.as_ref().is_some_and(BTreeMap::is_empty) {
        spec.node_selector = None;
    }
    if spec.tolerations.as_ref().is_some_and(Vec::is_empty) {
        spec.tolerations = None;
    }
}
