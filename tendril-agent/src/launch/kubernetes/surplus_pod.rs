//! A second pod of a run: Kubernetes may start one after a failure of its own, and an apply must not run twice.
//!
//! What a run is given names the pod that it is for. Another pod does nothing, and does not end by itself: its exit code would end the
//! Job, and the right pod with it.

use tokio::signal::unix::{SignalKind, signal};

use crate::launch::{attempt_file::AttemptFile, kubernetes::names::POD_UID_VARIABLE};

/// Whether what this pod is given is for another one.
pub(crate) fn is_surplus(attempt: &AttemptFile, variable: impl Fn(&str) -> Option<String>) -> bool {
    match (&attempt.pod_uid, variable(POD_UID_VARIABLE)) {
        (Some(meant), Some(own)) => *meant != own,
        _ => false,
    }
}

/// Waits until the Job controller ends this pod.
pub(crate) async fn wait_for_end() {
    tracing::error!("this run belongs to another pod of its Job: this one does nothing");
    match signal(SignalKind::terminate()) {
        Ok(mut terminated) => drop(terminated.recv().await),
        // Without a handler the signal ends the process by itself.
        Err(_) => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_pod_that_is_named_is_the_run() {
        let attempt = |pod_uid: Option<&str>| -> AttemptFile {
            serde_json::from_value(serde_json::json!({
                "format": 1, "version": "1", "deployment_id": uuid::Uuid::nil(), "attempt": 1, "claim_token": uuid::Uuid::nil(),
                "start": "workspace", "config_snapshot": {}, "supabase_url": "http://x", "supabase_key": "k",
                "cluster_id": uuid::Uuid::nil(), "agent_name": "a", "token": "claim", "pod_uid": pod_uid,
            }))
            .unwrap()
        };
        let own = |uid: Option<&str>| {
            let uid = uid.map(str::to_owned);
            move |name: &str| uid.clone().filter(|_| name == POD_UID_VARIABLE)
        };
        assert!(is_surplus(&attempt(Some("a")), own(Some("b"))));
        assert!(!is_surplus(&attempt(Some("a")), own(Some("a"))));
        assert!(!is_surplus(&attempt(None), own(Some("a"))), "of an earlier dispatcher");
        assert!(!is_surplus(&attempt(Some("a")), own(None)), "in no pod");
    }
}
