//! What is asked of the server itself: tokens, rights, quotas.

use axum::{
    Json,
    body::Bytes,
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    clock,
    http::Request,
    selector::Selector,
    status::Refusal,
    store::{Kind, NAMESPACE},
};

impl Request<'_> {
    /// A token for a service account of the namespace.
    pub(super) fn token(&self, account: &str, body: &Bytes) -> Result<Response, Refusal> {
        if !self.cluster.has_account(account) {
            return Err(Refusal::missing("serviceaccounts", account));
        }
        let sent: Value = serde_json::from_slice(body).unwrap_or_default();
        let seconds = sent["spec"]["expirationSeconds"].as_i64().unwrap_or(3600);
        if seconds < 600 {
            let message =
                format!("Invalid value: {seconds}: may not specify a duration less than 10 minutes");
            let causes = [("spec.expirationSeconds".to_owned(), "FieldValueInvalid", message)];
            return Err(Refusal::invalid_token_request(&causes));
        }
        let bound = &sent["spec"]["boundObjectRef"];
        let name = bound["name"].as_str().unwrap_or_default();
        let pod = match bound["kind"].as_str() {
            None => None,
            Some("Pod") => {
                let pod = self.cluster.store.get(Kind::Pod, name);
                let pod = pod.ok_or_else(|| Refusal::not_found(Kind::Pod, name))?;
                let uid = pod["metadata"]["uid"].as_str().unwrap_or_default();
                if bound["uid"].as_str().is_some_and(|sent| sent != uid) {
                    return Err(Refusal::outdated(Kind::Pod, name));
                }
                Some((name.to_owned(), uid.to_owned()))
            }
            Some("Secret") => {
                self.cluster
                    .store
                    .get(Kind::Secret, name)
                    .ok_or_else(|| Refusal::not_found(Kind::Secret, name))?;
                None
            }
            Some(other) => {
                let version = bound["apiVersion"].as_str().unwrap_or_default();
                let message = format!("cannot bind token to object of type {version}, Kind={other}");
                return Err(Refusal::bad_request(message));
            }
        };
        let audiences = match &sent["spec"]["audiences"] {
            Value::Null => json!(["https://kubernetes.default.svc"]),
            audiences => audiences.clone(),
        };
        let token = Uuid::new_v4().to_string();
        self.cluster.access.token_of(account, &token, pod);
        Ok((StatusCode::CREATED, Json(json!({
            "kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1",
            "metadata": {"name": account, "namespace": NAMESPACE, "uid": Uuid::new_v4(), "creationTimestamp": clock::now()},
            "spec": {"audiences": audiences, "expirationSeconds": seconds, "boundObjectRef": bound},
            "status": {"token": token, "expirationTimestamp": clock::in_seconds(seconds.unsigned_abs())},
        })))
        .into_response())
    }

    pub(super) fn quotas(&self) -> Response {
        let quota = self.cluster.faults.quota();
        let mut hard = serde_json::Map::new();
        let mut used = serde_json::Map::new();
        for (name, limit, kind) in
            [("count/jobs.batch", quota.jobs, Kind::Job), ("pods", quota.pods, Kind::Pod)]
        {
            if let Some(limit) = limit {
                let (_, there) = self.cluster.store.list(kind, &Selector::default());
                hard.insert(name.to_owned(), limit.to_string().into());
                used.insert(name.to_owned(), there.len().to_string().into());
            }
        }
        let items = if hard.is_empty() {
            json!([])
        } else {
            json!([{
                "metadata": {"name": "runs", "namespace": NAMESPACE},
                "spec": {"hard": hard}, "status": {"hard": hard, "used": used},
            }])
        };
        let version = self.cluster.store.version().to_string();
        Json(json!({"kind": "ResourceQuotaList", "apiVersion": "v1", "metadata": {"resourceVersion": version}, "items": items}))
            .into_response()
    }

    pub(super) fn review_self(&self) -> Response {
        let review = json!({
            "kind": "SelfSubjectReview", "apiVersion": "authentication.k8s.io/v1",
            "metadata": {"creationTimestamp": clock::now()},
            "status": {"userInfo": {
                "username": self.user.name,
                "groups": ["system:serviceaccounts", format!("system:serviceaccounts:{NAMESPACE}"), "system:authenticated"],
            }},
        });
        (StatusCode::CREATED, Json(review)).into_response()
    }

    pub(super) fn review_access(&self, body: &Bytes) -> Result<Response, Refusal> {
        let sent: Value =
            serde_json::from_slice(body).map_err(|error| Refusal::bad_request(error.to_string()))?;
        let asked = &sent["spec"]["resourceAttributes"];
        let text = |field: &str| asked[field].as_str().unwrap_or_default();
        let mut resource = text("resource").to_owned();
        if !text("subresource").is_empty() {
            resource = format!("{resource}/{}", text("subresource"));
        }
        let allowed =
            self.user.may(text("group"), &resource, text("verb"), asked["namespace"].as_str(), text("name"));
        let mut status = json!({"allowed": allowed});
        if allowed {
            let account = self.user.account();
            status["reason"] = format!("RBAC: allowed by RoleBinding \"{account}/{NAMESPACE}\" of Role \"{account}\" to ServiceAccount \"{account}/{NAMESPACE}\"").into();
        }
        let review = json!({
            "kind": "SelfSubjectAccessReview", "apiVersion": "authorization.k8s.io/v1", "metadata": {},
            "spec": {"resourceAttributes": asked}, "status": status,
        });
        Ok((StatusCode::CREATED, Json(review)).into_response())
    }
}
