use serde_json::{Value, json};

use super::*;
use crate::launch::kubernetes::{
    account_map::AccountMap,
    held_manifest::{self, Keeping},
    names::TOKEN_FILE,
    view::JobView,
};

fn settings() -> KubernetesSettings {
    KubernetesSettings {
        namespace: None,
        image: "registry.example.com/tendril-agent:1.0".to_owned(),
        image_pull_policy: None,
        accounts: AccountMap::of_one("tendril-run"),
        pod_template: PodTemplateSpec::default(),
        start_deadline: Duration::from_secs(600),
        keep_finished: Duration::from_secs(3600),
        grace: Duration::from_secs(1275),
        deadline: Some(Duration::from_secs(95_000)),
        plan_volume_claim: None,
        plan_account: "tendril-plans".to_owned(),
        plan_deadline: Some(Duration::from_secs(7200)),
        lease: None,
    }
}

fn id() -> AttemptId {
    AttemptId { deployment_id: Uuid::from_u128(0x0b6c_7f6e_0000_4000_8000_0000_0000_0001), attempt: 1 }
}

fn made(settings: &KubernetesSettings, part: Part, waits_for_approval: bool) -> Value {
    let rule = settings.accounts.rule("hello", Some("prod")).unwrap();
    let run = Run {
        id: id(),
        part,
        cluster_id: Uuid::from_u128(7),
        claim: "0123456789abcdef0123456789abcdef",
        stack: "hello.prod",
        rule,
        deadline: settings.deadline,
        waits_for_approval,
        secret: "89abcdef".to_owned(),
    };
    serde_json::to_value(job(settings, &run)).unwrap()
}

#[test]
fn the_job_of_a_run() {
    insta::assert_json_snapshot!("job", made(&settings(), Part::First, false));
}

#[test]
fn the_job_of_a_run_with_a_rule_and_a_template() {
    let mut settings = settings();
    settings.accounts = AccountMap::parse(
        "- stacks: [prod]\n  serviceAccount: runs-prod\n  resources: {limits: {memory: 256Mi, cpu: 4}}\n  nodeSelector: {tendril.dev/pool: runs}\n  tolerations: [{key: runs, operator: Exists}]\n",
    )
    .unwrap();
    settings.pod_template = serde_json::from_value(json!({
        "metadata": {"labels": {"team": "platform"}, "annotations": {"karpenter.sh/do-not-disrupt": "false"}},
        "spec": {
            "imagePullSecrets": [{"name": "registry"}],
            "nodeSelector": {"kubernetes.io/arch": "amd64"},
            "securityContext": {"runAsUser": 1000},
            "volumes": [
                {"name": "tendril-home", "emptyDir": {"sizeLimit": "20Gi"}},
                // A template cannot take the place of what a run is given.
                {"name": "tendril-attempt", "secret": {"secretName": "other"}},
            ],
            "containers": [
                {"name": "proxy", "image": "proxy:1"},
                {"name": "run", "env": [
                    {"name": "TENDRIL_STATE_BACKEND", "value": "s3"},
                    {"name": "TENDRIL_WORK_DIR", "value": "/elsewhere"},
                ], "resources": {"requests": {"memory": "512Mi"}}},
            ],
        },
    }))
    .unwrap();
    insta::assert_json_snapshot!("job_with_template", made(&settings, Part::Approved, false));
}

#[test]
fn nothing_starts_a_second_pod() {
    let job = made(&settings(), Part::First, false);
    assert_eq!(job["spec"]["backoffLimit"], 0);
    assert_eq!(job["spec"]["template"]["spec"]["restartPolicy"], "Never");
    assert!(job["spec"]["podFailurePolicy"].is_null(), "a rule that ignores disruptions would");
}

#[test]
fn a_plan_that_may_wait_keeps_its_job() {
    assert!(made(&settings(), Part::First, true)["spec"]["ttlSecondsAfterFinished"].is_null());
    assert_eq!(made(&settings(), Part::First, false)["spec"]["ttlSecondsAfterFinished"], 3600);
}

#[test]
fn a_plan_is_kept_in_a_secret_or_on_a_volume_and_mounted_into_the_pod_that_applies_it() {
    let pod = |settings: &KubernetesSettings, part, waits| {
        made(settings, part, waits)["spec"]["template"]["spec"].clone()
    };
    let plain = pod(&settings(), Part::First, false);
    assert_eq!(plain["automountServiceAccountToken"], false, "no token where none is needed");
    assert!(!plain.to_string().contains("TENDRIL_PLAN_STORE"));
    let keeps = pod(&settings(), Part::First, true);
    assert_eq!(keeps["automountServiceAccountToken"], false, "its account has no rights");
    assert!(keeps["containers"][0]["env"].to_string().contains("TENDRIL_JOB_UID"));
    let applies = pod(&settings(), Part::Approved, false);
    assert_eq!(applies["automountServiceAccountToken"], false);
    let secret = format!("{}-89abcdef-plan", name(id(), Part::First));
    assert!(applies["volumes"].to_string().contains(&secret));
    assert!(keeps["containers"][0]["env"].to_string().contains(&secret));
    let on_volume = KubernetesSettings { plan_volume_claim: Some("plans".to_owned()), ..settings() };
    for (part, waits) in [(Part::First, true), (Part::Approved, false)] {
        let pod = pod(&on_volume, part, waits);
        assert_eq!(pod["automountServiceAccountToken"], false);
        let mounts = pod["containers"][0]["volumeMounts"].as_array().unwrap().clone();
        let folder =
            |path: &str| mounts.iter().find(|mount| mount["mountPath"] == path).unwrap()["subPath"].clone();
        assert_eq!(folder(PLAN_DIR), name(id(), Part::First), "its own folder");
        assert!(folder(STATE_DIR).as_str().unwrap().starts_with("state-"), "one for each stack");
        assert_eq!(pod["volumes"].to_string().matches("\"plans\"").count(), 1, "it is mounted once");
    }
}

#[test]
fn what_stores_a_state_is_the_run_again_without_what_only_a_run_has() {
    let volume = KubernetesSettings { plan_volume_claim: Some("plans".to_owned()), ..settings() };
    for (settings, waits) in [(settings(), false), (settings(), true), (volume, true)] {
        let mut run: Job = serde_json::from_value(made(&settings, Part::First, waits)).unwrap();
        (run.metadata.uid, run.metadata.resource_version) = (Some("run".to_owned()), Some("1".to_owned()));
        let keeping = Keeping::of(&run).unwrap();
        let holder = held_manifest::holder(&run, &JobView::of(&run).unwrap(), &keeping);
        let mut there = holder.clone();
        there.metadata.uid = Some("holder".to_owned());
        let view = JobView::of(&there).unwrap();
        assert_eq!((view.part, view.stack.as_deref()), (Part::State, Some("hello.prod")));
        assert_eq!(serde_json::to_value(&holder).unwrap()["spec"]["suspend"], true);
        let push = serde_json::to_value(held_manifest::push(&there, &view, 3)).unwrap();
        assert_eq!(push["metadata"]["name"], format!("{}-3", name(id(), Part::Push)));
        assert_eq!(push["metadata"]["ownerReferences"][0]["uid"], "holder", "it goes with it");
        assert_eq!(push["metadata"]["labels"]["tendril.dev/part"], "push");
        assert!(push["spec"]["suspend"].is_null());
        let (spec, of_run) = (&push["spec"]["template"]["spec"], made(&settings, Part::First, waits));
        let of_run = &of_run["spec"]["template"]["spec"];
        for field in ["serviceAccountName", "securityContext", "automountServiceAccountToken"] {
            assert_eq!(spec[field], of_run[field], "{field}");
        }
        for field in ["image", "args", "resources", "securityContext"] {
            assert_eq!(spec["containers"][0][field], of_run["containers"][0][field], "{field}");
        }
        let text = spec.to_string();
        for gone in
            ["late", "TENDRIL_PLAN", "TENDRIL_STATE_SECRET", "TENDRIL_STATE_ACCESS", "TENDRIL_JOB_UID"]
        {
            assert!(!text.contains(gone), "{gone}: {text}");
        }
        let volumes: Vec<&Value> =
            spec["volumes"].as_array().unwrap().iter().map(|one| &one["name"]).collect();
        for mount in spec["containers"][0]["volumeMounts"].as_array().unwrap() {
            assert!(volumes.contains(&&mount["name"]), "{mount} has its volume");
        }
        assert_eq!(
            text.matches("/var/run/tendril-state").count(),
            2,
            "where the state is, and that it is there"
        );
    }
}

#[test]
fn names_fit_and_tell_attempts_and_parts_apart() {
    let names: Vec<String> = [1, 2, i32::MAX]
        .into_iter()
        .flat_map(|attempt| {
            [Part::First, Part::Approved].map(|part| name(AttemptId { attempt, ..id() }, part))
        })
        .collect();
    assert!(names.iter().all(|name| name.len() <= 63), "{names:?}");
    let mut different = names.clone();
    different.dedup();
    assert_eq!(names, different);
}

#[test]
fn the_secret_goes_with_the_job_and_holds_what_the_executor_is_given() {
    let settings = settings();
    let rule = settings.accounts.rule("hello", None).unwrap();
    let run = Run {
        id: id(),
        part: Part::First,
        cluster_id: Uuid::from_u128(7),
        claim: "x",
        stack: "hello.prod",
        rule,
        deadline: None,
        waits_for_approval: false,
        secret: "89abcdef".to_owned(),
    };
    let files = [(ATTEMPT_FILE, b"{}".to_vec()), (TOKEN_FILE, b"jwt".to_vec())];
    let secret = serde_json::to_value(secret(&run, "the-uid", files)).unwrap();
    assert_eq!(secret["metadata"]["name"], format!("{}-89abcdef", name(id(), Part::First)));
    assert_eq!(secret["metadata"]["ownerReferences"][0]["uid"], "the-uid");
    assert_eq!(secret["data"], json!({"attempt.json": "e30=", "token": "and0"}));
    assert_eq!(secret["immutable"], true);
    let job = serde_json::to_value(job(&settings, &run)).unwrap();
    assert!(job["spec"]["activeDeadlineSeconds"].is_null(), "no limit where a stage has none");
    assert!(!job.to_string().contains("jwt"));
}
