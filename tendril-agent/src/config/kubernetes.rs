//! How runs become pods, read from the command line.

use std::{path::Path, time::Duration};

use crate::{
    config::{args::Cli, timing::Timing},
    launch::kubernetes::{AccountMap, KubernetesSettings, is_dns_name, settings, settings::LeaseSettings},
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
        at_least_ten_seconds(name, value, &mut problems).unwrap_or(Duration::from_secs(usual))
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
    let lease = lease(cli, &mut problems);
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

/// The Lease and its times; none, where nothing names one.
fn lease(cli: &Cli, problems: &mut Vec<String>) -> Option<LeaseSettings> {
    let duration = at_least_ten_seconds(
        "--lease-duration / TENDRIL_LEASE_DURATION",
        cli.lease_duration.as_ref(),
        problems,
    );
    let renew_deadline = at_least_ten_seconds(
        "--lease-renew-deadline / TENDRIL_LEASE_RENEW_DEADLINE",
        cli.lease_renew_deadline.as_ref(),
        problems,
    );
    // A Lease counts whole seconds.
    let duration = Duration::from_secs(duration.map_or(60, |duration| duration.as_secs()));
    let renew_deadline = renew_deadline.unwrap_or(duration * 5 / 6);
    if renew_deadline >= duration {
        problems.push(format!(
            "--lease-renew-deadline / TENDRIL_LEASE_RENEW_DEADLINE is {renew_deadline:?}, and --lease-duration / TENDRIL_LEASE_DURATION {duration:?}: it must be less, or two agents would be at work at once"
        ));
    }
    let name = given(cli.lease.as_ref())?.to_owned();
    if !is_dns_name(&name) {
        problems.push(format!("--lease / TENDRIL_LEASE is \"{name}\": write the name of a Lease, in lower case letters, digits and -"));
    }
    Some(LeaseSettings { name, duration, renew_deadline })
}

/// A time of the command line; none, where none is given, or a wrong one.
fn at_least_ten_seconds(name: &str, value: Option<&String>, problems: &mut Vec<String>) -> Option<Duration> {
    let text = given(value)?;
    let read = text.parse::<jiff::SignedDuration>().ok().and_then(|span| Duration::try_from(span).ok());
    let time = read.filter(|time| *time >= Duration::from_secs(10));
    if time.is_none() {
        problems
            .push(format!("{name} is \"{text}\": write a time of at least 10s, such as 90s, 10m or 1h30m"));
    }
    time
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

#[cfg(test)]
mod tests {
    use super::*;

    fn read(duration: Option<&str>, renew_deadline: Option<&str>) -> (Option<LeaseSettings>, Vec<String>) {
        let cli = Cli {
            lease: Some("tendril".to_owned()),
            lease_duration: duration.map(str::to_owned),
            lease_renew_deadline: renew_deadline.map(str::to_owned),
            ..Cli::default()
        };
        let mut problems = Vec::new();
        (lease(&cli, &mut problems), problems)
    }

    #[test]
    fn the_holder_of_a_lease_stops_before_another_one_may_have_it() {
        for (duration, renew_deadline, seconds) in [
            (None, None, (60, 50)),
            (Some("30s"), None, (30, 25)),
            (Some("2m"), Some("15s"), (120, 15)),
            (Some("10.9s"), None, (10, 8)),
        ] {
            let (lease, problems) = read(duration, renew_deadline);
            let lease = lease.unwrap();
            assert_eq!((lease.duration.as_secs(), lease.renew_deadline.as_secs()), seconds);
            assert_eq!(problems, [""; 0]);
        }
        for (duration, renew_deadline, said) in [
            (None, Some("60s"), "is 60s, and --lease-duration / TENDRIL_LEASE_DURATION 60s: it must be less"),
            (Some("20s"), Some("30s"), "it must be less, or two agents would be at work at once"),
            (
                Some("5s"),
                None,
                "--lease-duration / TENDRIL_LEASE_DURATION is \"5s\": write a time of at least 10s",
            ),
            (None, Some("soon"), "TENDRIL_LEASE_RENEW_DEADLINE is \"soon\": write a time of at least 10s"),
        ] {
            let (_, problems) = read(duration, renew_deadline);
            assert!(problems.iter().any(|problem| problem.contains(said)), "{said}: {problems:?}");
        }
    }
}
