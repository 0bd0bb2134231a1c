//! Publishes the templates in this agent's folder: at the start, and when they change, so that a portal offers what the cluster
//! can really run.

use std::{path::PathBuf, time::Duration};

use serde::Serialize;
use tendril_realtime::Rest;
use tokio::time::sleep;

use crate::{
    control_plane::{around, pause_after},
    os::blocking,
    template::{CatalogueEntry, catalogue},
};

/// How often the templates are checked.
const LOOK_AFTER: Duration = Duration::from_secs(60);
/// About how long after a failure it is tried again.
const AGAIN: Duration = Duration::from_secs(30);
/// The longest that one request may take.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Written as it is: by way of a map, the schemas would lose the order of their keys.
#[derive(Serialize)]
struct Arguments<'a> {
    templates: &'a [CatalogueEntry],
}

/// Publishes for ever. A database of the contract before this agent's has no catalogue: then it ends.
pub(crate) async fn publish_templates(rest: Rest, templates_dir: PathBuf) {
    let mut published: Option<Vec<CatalogueEntry>> = None;
    loop {
        let dir = templates_dir.clone();
        let found = blocking(move || Ok(catalogue(&dir))).await.unwrap_or_default();
        if published.as_ref() == Some(&found) {
            sleep(around(LOOK_AFTER)).await;
            continue;
        }
        let arguments = Arguments { templates: &found };
        let request = rest.rpc("agent_publish_templates", &arguments).timeout(TIMEOUT).idempotent(true);
        match request.execute().await {
            Ok(_) => published = Some(found),
            Err(error) if error.postgrest().is_some_and(|api| api.code == "PGRST202") => return,
            Err(error) => {
                tracing::warn!(%error, "the templates cannot be published now: trying again");
                sleep(pause_after(&error, AGAIN)).await;
            }
        }
    }
}
