//! What a subscriber receives, as a line of text.

use std::fmt::Write as _;

use crate::session::Delivery;
use crate::wire::{BroadcastPayload, UserBroadcast};

/// One delivery; long texts are cut.
pub(super) fn described(delivery: &Delivery) -> String {
    let short = |text: &str| {
        let mut short: String = text.chars().take(160).collect();
        if short.len() < text.len() {
            let _ = write!(short, "… ({} bytes)", text.len());
        }
        short
    };
    match delivery {
        Delivery::Change(change) => {
            let change = change.parts();
            let mut text = format!("{:?} {}.{}", change.kind().unwrap(), change.schema(), change.table());
            for (what, row) in [("new", change.record()), ("old", change.old_record())] {
                if let Some(row) = row {
                    let _ = write!(text, " {what} {}", short(row));
                }
            }
            if !change.errors().is_empty() {
                let _ = write!(text, " errors {:?}", change.errors());
            }
            text
        }
        Delivery::Resync(reason) => format!("RESYNC {reason:?}"),
        Delivery::BroadcastText(text) => format!("broadcast {}", short(text.as_str())),
        Delivery::Broadcast(broadcast) => {
            let UserBroadcast { event, metadata, payload } = &**broadcast;
            let payload = match payload {
                BroadcastPayload::Json(text) => format!("json {}", short(text.as_str())),
                BroadcastPayload::Binary(bytes) => {
                    format!("bytes {}", short(&format!("{:02x?}", bytes.as_ref())))
                }
            };
            format!("broadcast `{event}` {} {payload}", metadata.as_deref().unwrap_or("-"))
        }
        Delivery::PresenceState(text) => format!("presence state {}", short(text.as_str())),
        Delivery::PresenceDiff(text) => format!("presence diff {}", short(text.as_str())),
        Delivery::PresenceReset => "presence reset".to_owned(),
        Delivery::TransientError(error) => {
            format!("INTERRUPTED {}: {error} [{:?}]", error.code(), error.retry())
        }
        Delivery::System(_) => "system".to_owned(),
        Delivery::Finish => "finish".to_owned(),
        Delivery::End(error) => format!("END {}: {error}", error.code()),
    }
}
