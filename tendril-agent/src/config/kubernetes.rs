//! How runs become pods, read from the command line.

use std::{path::Path, time::Duration};

use crate::{
    config::{args::Cli, timing::Timing},
    launch::kubernetes::{AccountMap, KubernetesSettings, is_dns_name, settings},
    terraform::state::Kind,
};

/// Reads what belongs to `--launcher kubernetes`. `state` is the backend of the states, where it is known.
///
/// Errors: every problem, in a sentence each.
pub(crate) fn read(
    cli: &Cli,
    timing: &Timing,
    state: Option<Kind>,
) -> Result<KubernetesSettings, Vec<String>> {
    let mut problems = Vec::new();
    let image = given(cli.run_image.as_ref()).map(str::to_owned);
    if image.is_none() {
        problems.push(
            "--run-image / TENDRIL_RUN_IMAGE is not set, and --launcher kubernetes needs it: name the image of this agent, with its tag or digest"
                .to_owned(),
        );
    }
    let image_pull_policy = given(cli.run_image_pull_policy.as_ref()).map(str::to_owned);
    if let Some(other) =
        image_pull_policy.as_deref().filter(|policy| !matches!(*policy, "Always" | "IfNotPresent" | "Never"))
    {
        problems.push(format!(
            "--run-image-pull-policy / TENDRIL_RUN_IMAGE_PULL_POLICY is \"{other}\": write Always, IfNotPresent or Never"
        ));
    }
    let namespace = given(cli.run_namespace.as_ref()).map(str::to_owned);
    if let Some(other) = namespace.as_deref().filter(|name| !is_dns_name(name)) {
        problems.push(format!(
            "--run-namespace / TENDRIL_RUN_NAMESPACE is \"{other}\": write the name of a namespace, in lower case letters, digits and -"
        ));
    }
    let accounts = match given(cli.service_account_map.as_ref()) {
        Some(path) => AccountMap::load(Path::new(path)),
        None => Err(
            "--service-account-map / TENDRIL_SERVICE_ACCOUNT_MAP is not set, and --launcher kubernetes needs it: a file with a list of rules such as `- {stacks: [\"*\"], serviceAccount: tendril-run}`"
                .to_owned(),
        ),
    };
    let accounts = accounts.map_err(|problem| problems.push(problem)).ok();
    let pod_template = match given(cli.pod_template.as_ref()) {
        Some(path) => settings::pod_template(Path::new(path)),
        None => Ok(k8s_openapi::api::core::v1::PodTemplateSpec::default()),
    };
    let pod_template = pod_template.map_err(|problem| problems.push(problem)).ok();
    if state == Some(Kind::Local) {
        problems.push(
            "--state-backend / TENDRIL_STATE_BACKEND is \"local\", and with --launcher kubernetes a state there would be lost with the pod of its run: use s3, http, pg or kubernetes"
                .to_owned(),
        );
    }
    let mut time = |name: &str, value: Option<&String>, usual: u64| {
        let Some(text) = given(value) else { return Duration::from_secs(usual) };
        let read = text.parse::<jiff::SignedDuration>().ok().and_then(|span| Duration::try_from(span).ok());
        if let Some(time) = read.filter(|time| *time >= Duration::from_secs(10)) {
            return time;
        }
        problems
            .push(format!("{name} is \"{text}\": write a time of at least 10s, such as 90s, 10m or 1h30m"));
        Duration::from_secs(usual)
    };
    let start_deadline =
        time("--pod-start-deadline / TENDRIL_POD_START_DEADLINE", cli.pod_start_deadline.as_ref(), 600);
    let keep_finished =
        time("--keep-finished-runs / TENDRIL_KEEP_FINISHED_RUNS", cli.keep_finished_runs.as_ref(), 3600);
    let grace = timing.apply_cancel_grace.max(timing.plan_cancel_grace)
        + timing.kill_grace
        + timing.flush_deadline
        + Duration::from_secs(60);
    let plan_volume_claim = given(cli.plan_volume_claim.as_ref()).map(str::to_owned);
    if let Some(other) = plan_volume_claim.as_deref().filter(|name| !is_dns_name(name)) {
        problems.push(format!("--plan-volume-claim / TENDRIL_PLAN_VOLUME_CLAIM is \"{other}\": write the name of a PersistentVolumeClaim, in lower case letters, digits and -"));
    }
    let plan_account = given(cli.plan_account.as_ref()).unwrap_or("tendril-plans").to_owned();
    if !is_dns_name(&plan_account) {
        problems.push(format!("--plan-account / TENDRIL_PLAN_ACCOUNT is \"{plan_account}\": write the name of a service account, in lower case letters, digits and -"));
    }
    let lease = given(cli.lease.as_ref()).map(str::to_owned);
    if let Some(other) = lease.as_deref().filter(|name| !is_dns_name(name)) {
        problems.push(format!("--lease / TENDRIL_LEASE is \"{other}\": write the name of a Lease, in lower case letters, digits and -"));
    }
    let settings = || {
        Some(KubernetesSettings {
            namespace,
            image: image?,
            image_pull_policy,
            accounts: accounts?,
            pod_template: pod_template?,
            start_deadline,
            keep_finished,
            grace,
            deadline: deadline(timing).map(|deadline| deadline + start_deadline + grace),
            plan_volume_claim,
            plan_account,
            plan_deadline: plan_deadline(timing).map(|deadline| deadline + start_deadline),
            lease,
        })
    };
    match settings() {
        Some(settings) if problems.is_empty() => Ok(settings),
        _ => Err(problems),
    }
}

/// The longest that every stage until the plan may take; none, where one has no limit.
fn plan_deadline(timing: &Timing) -> Option<Duration> {
    let limits = timing.limits();
    Some(limits.init? + limits.plan? + timing.git * 2 + timing.cost + timing.hook * 3)
}

/// The longest that every stage together may take; none, where one has no limit.
fn deadline(timing: &Timing) -> Option<Duration> {
    let limits = timing.limits();
    let stages = limits.init? + limits.plan? + limits.apply?;
    // The template is fetched before, and hooks come between.
    Some(stages + timing.git * 2 + timing.cost + timing.hook * 5)
}

fn given(value: Option<&String>) -> Option<&str> {
    value.map(|text| text.trim()).filter(|text| !text.is_empty())
}
