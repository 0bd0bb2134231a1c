//! What an executor counted, in the status of its pod: nothing scrapes a pod that lives for minutes, and nothing connects to it.

use serde::{Deserialize, Serialize};

use crate::launch::{kubernetes::names::END_MESSAGE_VARIABLE, launcher::End, local::Totals};

/// The kubelet cuts what is longer.
const LONGEST: usize = 4096;

#[derive(Serialize, Deserialize)]
struct Message {
    totals: Totals,
}

/// Writes it, where this is the end of a pod. Of one that ends badly its log's last lines are shown instead.
pub(crate) fn write(end: &End, totals: &Totals) {
    let Some(file) = std::env::var_os(END_MESSAGE_VARIABLE).filter(|_| !matches!(end, End::Died(_))) else {
        return;
    };
    let text = [totals.clone(), totals.counters_only()]
        .into_iter()
        .filter_map(|totals| serde_json::to_string(&Message { totals }).ok())
        .find(|text| text.len() <= LONGEST);
    if let Some(Err(error)) = text.map(|text| std::fs::write(file, text)) {
        tracing::debug!(%error, "what the executor counted cannot be written");
    }
}

/// Adds what an executor counted to the series of this process.
pub(super) fn record(message: &str) {
    if let Ok(Message { totals }) = serde_json::from_str(message) {
        totals.record();
    }
}
