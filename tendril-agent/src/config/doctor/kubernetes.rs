//! What the launcher needs of the cluster that its pods run in.

use super::finding::Finding;
use crate::launch::kubernetes::{Connection, KubernetesSettings, preflight};

/// What the launcher needs of the cluster: the server, the rights, and that it would take the Job of each rule.
pub(super) async fn examine(settings: &KubernetesSettings) -> Vec<Finding> {
    let connection = match Connection::open(settings.namespace.as_deref()).await {
        Ok(connection) => connection,
        Err(problem) => return vec![Finding::new("kubernetes", Err(problem))],
    };
    let server = match preflight::server(&connection).await {
        Ok(server) => server,
        // What depends on it would only say the same again.
        Err(problem) => return vec![Finding::new("kubernetes", Err(problem))],
    };
    let mut rights = Finding::new(
        "kubernetes rights",
        preflight::rights(&connection, settings.lease.as_ref().map(|lease| lease.name.as_str())).await,
    );
    rights.warning = preflight::plans(&connection, settings).await;
    let mut findings = vec![Finding::noted("kubernetes", Some(server)), rights];
    let mut trial = Finding::new("run's pod", preflight::trial(&connection, settings).await);
    trial.note = Some(format!(
        "image {}, service accounts {}",
        settings.image,
        settings.accounts.service_accounts().join(", ")
    ));
    if !settings.image.contains('@')
        && settings.image.rsplit('/').next().is_some_and(|name| !name.contains(':'))
    {
        trial.warning = Some(format!(
            "the image {} has neither a tag nor a digest: runs get whatever is newest, also in the middle of a deployment. Name a version",
            settings.image
        ));
    }
    findings.push(trial);
    if let Some(quotas) = preflight::quotas(&connection).await {
        findings.push(Finding::noted("quota", Some(quotas)));
    }
    findings
}

/// What it means that the agent has a machine token and no API key.
pub(super) fn machine_token() -> Finding {
    let warning = "the agent has a machine token (a JWT) and no API key: each run, and each template in it, gets that token, which reaches every deployment of the cluster, and a run that outlives the token cannot report its end. Give the agent an API key (tdl_…), which is exchanged for a token of each run";
    Finding { warning: Some(warning.to_owned()), ..Finding::new("run's token", Ok(())) }
}
