//! What `doctor` asks the cluster: rights, and whether it would take a run's Job.

use http_body_util::BodyExt as _;
use k8s_openapi::api::{
    authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec},
    core::v1::ResourceQuota,
};
use kube::{
    Api,
    api::{ListParams, PostParams},
    client::Body,
};
use uuid::Uuid;

use crate::launch::{
    attempt_file::AttemptId,
    kubernetes::{
        connection::Connection,
        election::answered,
        manifest::{self, Run},
        names::Part,
        settings::KubernetesSettings,
    },
};

/// What the launcher needs: (API group, resource, verb). The chart's Role has the same.
pub(crate) const RIGHTS: &[(&str, &str, &str)] = &[
    ("batch", "jobs", "create"),
    ("batch", "jobs", "get"),
    ("batch", "jobs", "list"),
    ("batch", "jobs", "watch"),
    ("batch", "jobs", "delete"),
    ("", "pods", "list"),
    ("", "pods", "watch"),
    ("", "secrets", "create"),
    ("", "events", "list"),
];

/// And where plans that wait for approval are in Secrets: of the account that makes them, and of no other.
pub(crate) const PLAN_RIGHTS: &[(&str, &str, &str)] = &[("", "serviceaccounts/token", "create")];

/// And where a Lease decides which dispatcher is at work.
pub(crate) const LEASE_RIGHTS: &[(&str, &str, &str)] = &[
    ("coordination.k8s.io", "leases", "create"),
    ("coordination.k8s.io", "leases", "get"),
    ("coordination.k8s.io", "leases", "update"),
];

/// Which API server it is. Errors: a sentence.
pub(crate) async fn server(connection: &Connection) -> Result<String, String> {
    match answered(connection.client.apiserver_version()).await {
        Ok(version) => Ok(format!("Kubernetes {}, namespace {}", version.git_version, connection.namespace)),
        Err(kube::Error::Api(status)) if status.code == 401 => Err(format!(
            "the cluster {} does not accept the credentials (401): use the service account of the pod, or another kubeconfig",
            connection.url
        )),
        Err(error) => Err(format!("the cluster {} does not answer: {error}", connection.url)),
    }
}

/// Whether the agent may do what it does, with this Lease if there is one. Errors: what is missing, as it stands in a Role.
pub(crate) async fn rights(connection: &Connection, lease: Option<&str>) -> Result<(), String> {
    let mut missing = Vec::new();
    // A Role can limit every right on the Lease to its name but that to create it.
    let of_lease = LEASE_RIGHTS.iter().map(|right| (right, lease.filter(|_| right.2 != "create")));
    let wanted = RIGHTS.iter().map(|right| (right, None)).chain(of_lease.filter(|_| lease.is_some()));
    for ((group, resource, verb), name) in wanted {
        let allowed = may(connection, group, resource, verb, name)
            .await
            .map_err(|error| format!("whether {verb} {resource} is allowed cannot be asked: {error}"))?;
        if !allowed {
            let of = if group.is_empty() { String::new() } else { format!(" ({group})") };
            missing.push(format!("{verb} {resource}{of}"));
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    Err(format!(
        "the Role of the agent's service account in namespace {} lacks {}: add it, as the chart's Role has it",
        connection.namespace,
        missing.join(", ")
    ))
}

/// What runs whose plan waits for approval would lack; none, if nothing.
pub(crate) async fn plans(connection: &Connection, settings: &KubernetesSettings) -> Option<String> {
    if settings.plan_volume_claim.is_some() {
        return None;
    }
    let account = &settings.plan_account;
    for (group, resource, verb) in PLAN_RIGHTS {
        if !may(connection, group, resource, verb, Some(account)).await.unwrap_or(true) {
            return Some(format!(
                "deployments that wait for approval would fail: the Role of the agent's service account in namespace {} lacks {verb} {resource} for {account}. Add it, as the chart's Role has it, or give the agent a volume for plans (--plan-volume-claim)",
                connection.namespace
            ));
        }
    }
    None
}

async fn may(
    connection: &Connection,
    group: &str,
    resource: &str,
    verb: &str,
    name: Option<&str>,
) -> Result<bool, kube::Error> {
    let (resource, subresource) = match resource.split_once('/') {
        Some((resource, subresource)) => (resource, Some(subresource.to_owned())),
        None => (resource, None),
    };
    let reviews: Api<SelfSubjectAccessReview> = Api::all(connection.client.clone());
    let review = SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec {
            resource_attributes: Some(ResourceAttributes {
                namespace: Some(connection.namespace.clone()),
                group: Some(group.to_owned()),
                resource: Some(resource.to_owned()),
                subresource,
                verb: Some(verb.to_owned()),
                name: name.map(str::to_owned),
                ..ResourceAttributes::default()
            }),
            ..SelfSubjectAccessReviewSpec::default()
        },
        ..SelfSubjectAccessReview::default()
    };
    let review = answered(reviews.create(&PostParams::default(), &review)).await?;
    Ok(review.status.is_some_and(|status| status.allowed))
}

/// Has the server judge the Job of each rule without storing it: fields, policies, quota, and the namespace's pod security
/// level. Errors: what it refuses.
pub(crate) async fn trial(connection: &Connection, settings: &KubernetesSettings) -> Result<(), String> {
    let mut wrong = Vec::new();
    for rule in settings.accounts.rules() {
        let run = Run {
            id: AttemptId { deployment_id: Uuid::nil(), attempt: 0 },
            part: Part::First,
            cluster_id: Uuid::nil(),
            claim: "doctor",
            stack: "doctor",
            rule,
            deadline: settings.deadline,
            waits_for_approval: false,
            secret: "doctor".to_owned(),
        };
        let job = manifest::job(settings, &run);
        if let Err(why) = judged(connection, &job).await
            && !wrong.contains(&why)
        {
            wrong.push(why);
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
}

async fn judged(connection: &Connection, job: &k8s_openapi::api::batch::v1::Job) -> Result<(), String> {
    let path =
        format!("/apis/batch/v1/namespaces/{}/jobs?dryRun=All&fieldValidation=Strict", connection.namespace);
    let body = serde_json::to_vec(job).map_err(|error| error.to_string())?;
    let request = http::Request::post(path)
        .header("content-type", "application/json")
        .header("accept", "application/json")
        .body(Body::from(body))
        .map_err(|error| error.to_string())?;
    let response = answered(connection.client.send(request))
        .await
        .map_err(|error| format!("the cluster does not answer to a trial of a run's Job: {error}"))?;
    let (head, body) = response.into_parts();
    if head.status.is_success() {
        // The Job is taken and its pod would be refused: nothing but this header says so.
        let warnings = head.headers.get_all("warning").iter().filter_map(|value| value.to_str().ok());
        let security: Vec<&str> = warnings.filter(|text| text.contains("PodSecurity")).collect();
        if security.is_empty() {
            return Ok(());
        }
        let text = security.join("; ").replace("\\\"", "\"");
        return Err(format!(
            "the namespace {} would refuse the pod of a run: {}",
            connection.namespace,
            text.trim_start_matches("299 - ").trim_matches('"')
        ));
    }
    // What is read of an error is bounded: some echo the whole object.
    let text = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let message = serde_json::from_slice::<serde_json::Value>(&text)
        .ok()
        .and_then(|status| status["message"].as_str().map(|text| text.chars().take(1000).collect::<String>()))
        .unwrap_or_else(|| head.status.to_string());
    Err(format!("the namespace {} refuses the Job of a run: {message}", connection.namespace))
}

/// What the namespace's quotas leave, where the agent may read them.
pub(crate) async fn quotas(connection: &Connection) -> Option<String> {
    if !may(connection, "", "resourcequotas", "list", None).await.unwrap_or(false) {
        return None;
    }
    let quotas: Api<ResourceQuota> = Api::namespaced(connection.client.clone(), &connection.namespace);
    let quotas = answered(quotas.list(&ListParams::default())).await.ok()?;
    let mut lines = Vec::new();
    for quota in quotas.items {
        let status = quota.status.unwrap_or_default();
        for (resource, hard) in status.hard.unwrap_or_default() {
            let used = status.used.as_ref().and_then(|used| used.get(&resource));
            let used = used.map_or("0", |amount| amount.0.as_str());
            lines.push(format!("{resource} {used} of {}", hard.0));
        }
    }
    (!lines.is_empty()).then(|| lines.join(", "))
}
