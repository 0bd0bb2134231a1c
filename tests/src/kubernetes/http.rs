//! Requests: where they go, who may make them, what is answered.

use std::{collections::HashMap, sync::Arc};

use axum::{
    Json,
    body::{Body, Bytes},
    extract::{RawQuery, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header::WARNING},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

use super::{
    Cluster,
    access::User,
    clock, defaults,
    departure::Namespace,
    fields,
    selector::Selector,
    status::Refusal,
    store::{Kind, NAMESPACE, name_of, stamped},
    watch,
};

/// A namespace that is always being deleted.
const LEAVING: &str = "leaving";

/// A query string, decoded.
#[derive(Debug)]
pub(super) struct Query(HashMap<String, String>);

impl Query {
    fn parse(text: &str) -> Self {
        let uri: Uri = format!("/?{text}").parse().unwrap_or_default();
        let pairs = axum::extract::Query::<HashMap<String, String>>::try_from_uri(&uri);
        Self(pairs.map(|query| query.0).unwrap_or_default())
    }

    /// Empty where it is not there.
    pub(super) fn get(&self, name: &str) -> &str {
        self.0.get(name).map(String::as_str).unwrap_or_default()
    }

    pub(super) fn is_true(&self, name: &str) -> bool {
        matches!(self.get(name), "1" | "true")
    }
}

/// Where a request goes.
#[derive(Clone, Copy, Debug)]
struct Target<'a> {
    group: &'a str,
    namespace: Option<&'a str>,
    plural: &'a str,
    name: &'a str,
    sub: &'a str,
}

impl<'a> Target<'a> {
    /// `/api/v1/…` or `/apis/<group>/<version>/…`.
    fn parse(path: &'a str) -> Option<Self> {
        let mut parts = path.trim_matches('/').split('/');
        let group = match parts.next()? {
            "api" => "",
            "apis" => parts.next()?,
            _ => return None,
        };
        if parts.next()? != "v1" {
            return None;
        }
        let mut next = parts.next()?;
        let mut namespace = None;
        if next == "namespaces" {
            namespace = Some(parts.next()?);
            // The namespace itself.
            next = parts.next().unwrap_or("namespaces");
        }
        let name = if next == "namespaces" { namespace } else { parts.next() };
        Some(Self {
            group,
            namespace,
            plural: next,
            name: name.unwrap_or_default(),
            sub: parts.next().unwrap_or_default(),
        })
    }

    /// `pods/log`.
    fn resource(&self) -> String {
        if self.sub.is_empty() { self.plural.to_owned() } else { format!("{}/{}", self.plural, self.sub) }
    }
}

/// Answers every request.
pub(super) async fn handle(
    State(cluster): State<Arc<Cluster>>,
    method: Method,
    uri: Uri,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let text = query.unwrap_or_default();
    let query = Query::parse(&text);
    let header = headers.get("authorization").and_then(|value| value.to_str().ok());
    let user = match cluster.access.identify(header) {
        Ok(user) => user,
        Err(refusal) => return refusal.into_response(),
    };
    if let Some((pod, uid)) = &user.pod
        && cluster.store.get(Kind::Pod, pod).is_none_or(|pod| pod["metadata"]["uid"] != uid.as_str())
    {
        return Refusal::unauthorized().into_response();
    }
    cluster.note(&method, &uri, &user.name);
    tokio::time::sleep(cluster.faults.delay()).await;
    if let Some((status, retry_after)) = cluster.faults.refuses(&text) {
        // As recorded: priority and fairness speak plain text.
        let refusal = match status {
            429 => (StatusCode::TOO_MANY_REQUESTS, "Too many requests, please try again later.\n\n")
                .into_response(),
            410 => Refusal::expired("The provided continue parameter is too old").into_response(),
            _ => Refusal::webhook_down("etcdserver: leader changed").into_response(),
        };
        return ([("retry-after", retry_after.to_string())], refusal).into_response();
    }
    let resource = Target::parse(uri.path()).map(|target| target.plural).unwrap_or_default();
    cluster.faults.pass(method.as_str(), resource).await;
    let request =
        Request { cluster: &cluster, method: &method, query: &query, user: &user, headers: &headers };
    let answer = request.answer(uri.path(), &body).await.unwrap_or_else(IntoResponse::into_response);
    if cluster.faults.loses_answer(method.as_str(), resource) {
        let cut =
            futures_util::stream::iter([Err::<Bytes, _>(std::io::Error::other("the connection is cut"))]);
        return Body::from_stream(cut).into_response();
    }
    answer
}

pub(super) struct Request<'a> {
    pub(super) cluster: &'a Arc<Cluster>,
    method: &'a Method,
    pub(super) query: &'a Query,
    pub(super) user: &'a User,
    headers: &'a HeaderMap,
}

impl Request<'_> {
    async fn answer(&self, path: &str, body: &Bytes) -> Result<Response, Refusal> {
        match path {
            "/version" => return Ok(Json(version()).into_response()),
            "/readyz" | "/livez" | "/healthz" => return Ok("ok".into_response()),
            "/apis/authentication.k8s.io/v1/selfsubjectreviews" => return Ok(self.review_self()),
            "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews" => return self.review_access(body),
            _ => {}
        }
        let target = Target::parse(path).ok_or_else(Refusal::no_such_path)?;
        let is_watch = self.query.is_true("watch");
        let verb = match (self.method, target.name.is_empty(), is_watch) {
            (&Method::GET, true, true) => "watch",
            (&Method::GET, true, false) => "list",
            (&Method::GET, false, _) => "get",
            (&Method::POST, ..) => "create",
            (&Method::PUT, ..) => "update",
            (&Method::PATCH, ..) => "patch",
            (&Method::DELETE, true, _) => "deletecollection",
            (&Method::DELETE, false, _) => "delete",
            _ => return Err(Refusal::no_such_path()),
        };
        self.user.check(target.group, &target.resource(), verb, target.namespace, target.name)?;
        let creates = Kind::of(target.group, target.plural).filter(|_| verb == "create");
        match (target.namespace, self.cluster.faults.namespace(), creates) {
            (Some(LEAVING), _, Some(kind)) => {
                return Err(Refusal::namespace_leaves(kind, &name_in(body), LEAVING));
            }
            (Some(NAMESPACE), Namespace::Leaves, Some(kind)) => {
                return Err(Refusal::namespace_leaves(kind, &name_in(body), NAMESPACE));
            }
            (Some(NAMESPACE), Namespace::Gone, Some(_)) => {
                return Err(Refusal::missing("namespaces", NAMESPACE));
            }
            (Some(NAMESPACE) | None, ..) => {}
            (Some(other), ..) => return Err(Refusal::missing("namespaces", other)),
        }
        match (target.plural, target.sub) {
            ("namespaces", "") => return Ok(Json(namespace()).into_response()),
            ("resourcequotas", "") => return Ok(self.quotas()),
            ("pods", "log") => return self.log(target.name).await,
            ("pods", "eviction") => {
                self.cluster.evict(target.name);
                return Ok((StatusCode::CREATED, Json(success(json!({})))).into_response());
            }
            ("serviceaccounts", "token") => return self.token(target.name, body),
            _ => {}
        }
        let kind = Kind::of(target.group, target.plural).ok_or_else(Refusal::no_such_path)?;
        match verb {
            "create" => self.create(kind, body),
            "get" => {
                let object = self.cluster.store.get(kind, target.name);
                let object = object.ok_or_else(|| Refusal::not_found(kind, target.name))?;
                Ok(Json(Value::clone(&object)).into_response())
            }
            "list" => self.list(kind),
            "watch" => {
                let selector =
                    Selector::parse(kind, self.query.get("labelSelector"), self.query.get("fieldSelector"))?;
                watch::answer(self.cluster, kind, selector, self.query)
            }
            "update" => self.update(kind, target.name, body),
            "delete" => self.delete(kind, target.name, body),
            _ => Err(Refusal::no_such_path()),
        }
    }

    fn create(&self, kind: Kind, body: &Bytes) -> Result<Response, Refusal> {
        let media_type = self.headers.get("content-type").and_then(|value| value.to_str().ok());
        if media_type.is_some_and(|media_type| !media_type.starts_with("application/json")) {
            return Err(Refusal::unsupported_media_type());
        }
        let mut object: Value = serde_json::from_slice(body).map_err(|error| {
            Refusal::bad_request(format!(
                "the object provided is unrecognized (must be of type {}): {error}",
                kind.name()
            ))
        })?;
        let mut warnings = self.validate_fields(kind, &mut object)?;
        defaults::admit(kind, &mut object)?;
        let name = name_of(&object);
        if kind == Kind::Job {
            self.admit_job(&name)?;
            let violation = defaults::pod_security(&object["spec"]["template"]["spec"]);
            warnings.extend(violation.map(|violation| format!("would {violation}")));
        }
        let created = if self.query.get("dryRun") == "All" {
            stamped(kind, object)
        } else {
            Value::clone(&*self.cluster.store.create(kind, object)?)
        };
        let mut response = (StatusCode::CREATED, Json(created)).into_response();
        for warning in warnings {
            let text = format!("299 - \"{}\"", warning.replace('"', "\\\""));
            response.headers_mut().extend(HeaderValue::from_str(&text).ok().map(|text| (WARNING, text)));
        }
        Ok(response)
    }

    /// Takes away the fields that nobody knows; warns of them, or refuses them, as the request wants it.
    fn validate_fields(&self, kind: Kind, object: &mut Value) -> Result<Vec<String>, Refusal> {
        let unknown = fields::prune(kind, object)?;
        let warnings: Vec<String> =
            unknown.iter().map(|field| format!("unknown field \"{field}\"")).collect();
        match self.query.get("fieldValidation") {
            "Ignore" => Ok(Vec::new()),
            "Strict" if !warnings.is_empty() => {
                let kind = kind.name();
                let why = format!(
                    "{kind} in version \"v1\" cannot be handled as a {kind}: strict decoding error: {}",
                    warnings.join(", ")
                );
                Err(Refusal::bad_request(why))
            }
            _ => Ok(warnings),
        }
    }

    /// The admission plugins, in the order in which they are asked: the quota is the last one.
    fn admit_job(&self, name: &str) -> Result<(), Refusal> {
        let faults = &self.cluster.faults;
        if let Some((policy, why)) = faults.policy() {
            return Err(Refusal::denied(Kind::Job, name, &policy, &why));
        }
        if let Some(why) = faults.webhook() {
            return Err(Refusal::webhook_down(&why));
        }
        let (_, jobs) = self.cluster.store.list(Kind::Job, &Selector::default());
        // A name that is taken is refused by the storage, after the quota was asked: as the server does it, the quota wins.
        if let Some(limit) = faults.quota().jobs.filter(|limit| jobs.len() >= *limit) {
            let used = jobs.len();
            let why = format!(
                "exceeded quota: jobs, requested: count/jobs.batch=1, used: count/jobs.batch={used}, limited: count/jobs.batch={limit}"
            );
            return Err(Refusal::forbidden(Kind::Job, name, &why));
        }
        Ok(())
    }

    fn update(&self, kind: Kind, name: &str, body: &Bytes) -> Result<Response, Refusal> {
        let mut sent: Value =
            serde_json::from_slice(body).map_err(|error| Refusal::bad_request(error.to_string()))?;
        defaults::admit(kind, &mut sent)?;
        let store = &self.cluster.store;
        let there = store.get(kind, name).ok_or_else(|| Refusal::not_found(kind, name))?;
        match sent["metadata"]["resourceVersion"].as_str() {
            None if kind == Kind::Lease => {
                let message = "Invalid value: 0: must be specified for an update".to_owned();
                let causes = [("metadata.resourceVersion".to_owned(), "FieldValueInvalid", message)];
                return Err(Refusal::invalid(kind, name, &causes));
            }
            Some(version) if there["metadata"]["resourceVersion"] != version => {
                return Err(Refusal::outdated(kind, name));
            }
            _ => {}
        }
        let stored = store.edit(kind, name, |object| {
            // Nobody can have changed it since: this runtime's requests are answered one after the other up to here.
            for field in ["spec", "data", "type"] {
                if !sent[field].is_null() {
                    object[field] = sent[field].clone();
                }
            }
        });
        let stored = stored.ok_or_else(|| Refusal::not_found(kind, name))?;
        Ok(Json(Value::clone(&stored)).into_response())
    }

    fn delete(&self, kind: Kind, name: &str, body: &Bytes) -> Result<Response, Refusal> {
        let options: Value = serde_json::from_slice(body).unwrap_or_default();
        let policy = options["propagationPolicy"].as_str().unwrap_or(self.query.get("propagationPolicy"));
        if !matches!(policy, "" | "Foreground" | "Background" | "Orphan") {
            let message = format!(
                "Unsupported value: \"{policy}\": supported values: \"Foreground\", \"Background\", \"Orphan\", \"nil\""
            );
            let causes = [("propagationPolicy".to_owned(), "FieldValueNotSupported", message)];
            return Err(Refusal::invalid_options("DeleteOptions", &causes));
        }
        let store = &self.cluster.store;
        let there = store.get(kind, name).ok_or_else(|| Refusal::not_found(kind, name))?;
        for (field, shown) in [("uid", "UID"), ("resourceVersion", "ResourceVersion")] {
            let (sent, is) = (&options["preconditions"][field], &there["metadata"][field]);
            if let (Some(sent), Some(is)) = (sent.as_str(), is.as_str())
                && sent != is
            {
                return Err(Refusal::precondition(kind, name, shown, sent, is));
            }
        }
        match (kind, policy) {
            (Kind::Pod, _) => {
                self.cluster.delete_pod(name);
                return Ok(Json(Value::clone(&there)).into_response());
            }
            (Kind::Job, "Foreground" | "Orphan" | "") => {
                let finalizer = if policy == "Foreground" { "foregroundDeletion" } else { "orphan" };
                let leaving = store.edit(kind, name, |job| {
                    let metadata = &mut job["metadata"];
                    if metadata["deletionTimestamp"].is_null() {
                        metadata["deletionTimestamp"] = clock::now().into();
                        metadata["deletionGracePeriodSeconds"] = 0.into();
                        let mut finalizers = metadata["finalizers"].as_array().cloned().unwrap_or_default();
                        finalizers.push(finalizer.into());
                        metadata["finalizers"] = finalizers.into();
                        metadata["generation"] = (metadata["generation"].as_i64().unwrap_or(1) + 1).into();
                    }
                });
                let mut response = Json(leaving.map(|job| Value::clone(&job))).into_response();
                if finalizer == "orphan" {
                    self.cluster.orphan_pods(name);
                    self.cluster.let_go(kind, name);
                }
                if policy.is_empty() {
                    let warning = "299 - \"child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove them or set propagationPolicy=Orphan to suppress this warning\"";
                    response.headers_mut().insert("warning", HeaderValue::from_static(warning));
                }
                return Ok(response);
            }
            _ => self.cluster.let_go(kind, name),
        }
        let mut details = json!({"name": name, "kind": kind.plural(), "uid": there["metadata"]["uid"]});
        if !kind.group().is_empty() {
            details["group"] = kind.group().into();
        }
        Ok(Json(success(details)).into_response())
    }

    async fn log(&self, name: &str) -> Result<Response, Refusal> {
        self.cluster.store.get(Kind::Pod, name).ok_or_else(|| Refusal::not_found(Kind::Pod, name))?;
        let text = self.cluster.log_of(name).await;
        let waits = || {
            let message =
                format!("container \"run\" in pod \"{name}\" is waiting to start: ContainerCreating");
            Refusal::bad_request(message)
        };
        text.map(|text| ([("content-type", "text/plain")], text).into_response()).ok_or_else(waits)
    }
}

fn name_in(body: &Bytes) -> String {
    serde_json::from_slice(body).map(|object: Value| name_of(&object)).unwrap_or_default()
}

fn version() -> Value {
    json!({
        "major": "1", "minor": "36", "emulationMajor": "1", "emulationMinor": "36", "minCompatibilityMajor": "1",
        "minCompatibilityMinor": "35", "gitVersion": "v1.36.2", "gitCommit": "$Format:%H$", "gitTreeState": "",
        "buildDate": "1970-01-01T00:00:00Z", "goVersion": "go1.26.6", "compiler": "gc", "platform": "linux/amd64",
    })
}

fn namespace() -> Value {
    json!({
        "kind": "Namespace", "apiVersion": "v1",
        "metadata": {"name": NAMESPACE, "labels": {
            "kubernetes.io/metadata.name": NAMESPACE, "pod-security.kubernetes.io/enforce": "restricted",
        }},
        "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"},
    })
}

#[expect(clippy::needless_pass_by_value, reason = "callers make it in place")]
fn success(details: Value) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details})
}
