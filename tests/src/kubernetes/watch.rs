//! Watches: what happened, one JSON object a line, until the time is over.

use std::{collections::VecDeque, convert::Infallible, sync::Arc, time::Duration};

use axum::{
    body::{Body, Bytes},
    response::{IntoResponse, Response},
};
use futures_util::stream;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until};

use super::{
    Cluster,
    http::Query,
    selector::Selector,
    status::Refusal,
    store::{Kind, Store},
};

/// Between two bookmarks on a quiet watch.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);
/// Where the request names no time.
const USUAL_TIME: Duration = Duration::from_secs(1800);

/// Answers a watch.
pub(super) fn answer(
    cluster: &Arc<Cluster>,
    kind: Kind,
    selector: Selector,
    query: &Query,
) -> Result<Response, Refusal> {
    let store = &cluster.store;
    let asked = query.get("resourceVersion");
    let version = asked.parse::<u64>();
    if !asked.is_empty() && version.is_err() {
        return Err(Refusal::bad_version(asked));
    }
    let version = version.unwrap_or(0);
    if query.is_true("sendInitialEvents") && query.get("resourceVersionMatch") != "NotOlderThan" {
        let why = "Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
        let causes = [("resourceVersionMatch".to_owned(), "FieldValueForbidden", why.to_owned())];
        return Err(Refusal::invalid_options("ListOptions", &causes));
    }
    let (longest, has_no_bookmarks) = cluster.faults.watches();
    let wants_bookmarks = query.is_true("allowWatchBookmarks") && !has_no_bookmarks;
    let time = query.get("timeoutSeconds").parse().map_or(USUAL_TIME, Duration::from_secs);
    let time = longest.map_or(time, |longest| time.min(longest));
    let mut watching = Watching {
        cluster: Arc::clone(cluster),
        kind,
        selector,
        version,
        lines: VecDeque::new(),
        ends: Instant::now() + time,
        bookmark: wants_bookmarks.then(|| Instant::now() + BOOKMARK_EVERY),
        is_over: false,
    };
    if version > 0 && version < store.oldest() {
        let oldest = store.oldest();
        let gone = Refusal::expired(format!("too old resource version: {version} ({oldest})"));
        watching.push("ERROR", &gone.status());
        watching.is_over = true;
    } else if version == 0 {
        watching.initial(store, query.is_true("sendInitialEvents") && wants_bookmarks);
    }
    let lines = stream::unfold(watching, |mut watching| async move {
        let line = watching.next().await?;
        Some((Ok::<Bytes, Infallible>(line), watching))
    });
    Ok(([("content-type", "application/json")], Body::from_stream(lines)).into_response())
}

struct Watching {
    cluster: Arc<Cluster>,
    kind: Kind,
    selector: Selector,
    /// Everything up to it was said.
    version: u64,
    lines: VecDeque<Bytes>,
    ends: Instant,
    bookmark: Option<Instant>,
    is_over: bool,
}

impl Watching {
    fn push(&mut self, change: &str, object: &Value) {
        let mut line = json!({"type": change, "object": object}).to_string();
        line.push('\n');
        self.lines.push_back(line.into());
    }

    /// What exists, and the mark behind it.
    fn initial(&mut self, store: &Store, is_marked: bool) {
        let (version, objects) = store.list(self.kind, &self.selector);
        for object in objects {
            self.push("ADDED", &object);
        }
        self.version = version;
        if is_marked {
            let mut bookmark = self.bookmark_object();
            bookmark["metadata"]["annotations"] = json!({"k8s.io/initial-events-end": "true"});
            self.push("BOOKMARK", &bookmark);
        }
    }

    fn bookmark_object(&self) -> Value {
        let mut object = json!({
            "kind": self.kind.name(), "apiVersion": self.kind.api_version(),
            "metadata": {"resourceVersion": self.version.to_string(), "creationTimestamp": null},
        });
        // As recorded: the object is not a whole one.
        match self.kind {
            Kind::Job => {
                object["spec"] = json!({"template": {"metadata": {"creationTimestamp": null}, "spec": {"containers": null}}});
                object["status"] = json!({});
            }
            Kind::Pod => {
                object["spec"] = json!({"containers": null});
                object["status"] = json!({});
            }
            _ => {}
        }
        object
    }

    async fn next(&mut self) -> Option<Bytes> {
        let mut changed = self.cluster.store.subscribe();
        loop {
            if let Some(line) = self.lines.pop_front() {
                return Some(line);
            }
            if self.is_over {
                return None;
            }
            changed.mark_unchanged();
            let now = self.cluster.store.version();
            for step in self.cluster.store.since(self.version, self.kind) {
                if let Some((change, object)) = step.seen_through(&self.selector) {
                    self.push(change, &object);
                }
            }
            self.version = self.version.max(now);
            if !self.lines.is_empty() {
                continue;
            }
            let bookmark = async {
                match self.bookmark {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = changed.changed() => {}
                () = sleep_until(self.ends) => {
                    self.is_over = true;
                    if self.bookmark.is_some() {
                        let bookmark = self.bookmark_object();
                        self.push("BOOKMARK", &bookmark);
                    }
                }
                () = bookmark => {
                    self.bookmark = Some(Instant::now() + BOOKMARK_EVERY);
                    let bookmark = self.bookmark_object();
                    self.push("BOOKMARK", &bookmark);
                }
            }
        }
    }
}
