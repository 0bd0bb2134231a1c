//! What goes from the watcher to whoever reads.

use serde::de::DeserializeOwned;

use super::{WatchEvent, record::Key};
use crate::error::Error;

/// An event on its way to the reader, not yet of the reader's type.
pub(super) enum RawWatchEvent {
    Init,
    InitDone,
    InitApply(Key, Box<str>),
    Apply(Key, Box<str>),
    Delete(Key, Box<str>),
    Failed(Error),
}

impl RawWatchEvent {
    /// Decodes on the reader's task.
    pub(super) fn decode<T: DeserializeOwned>(self) -> Result<WatchEvent<T>, Error> {
        let row = |json: &str| serde_json::from_str(json).map_err(|error| Error::decode("a row", &error));
        Ok(match self {
            Self::Init => WatchEvent::Init,
            Self::InitDone => WatchEvent::InitDone,
            Self::InitApply(_, json) => WatchEvent::InitApply(row(&json)?),
            Self::Apply(_, json) => WatchEvent::Apply(row(&json)?),
            Self::Delete(_, json) => WatchEvent::Delete(row(&json)?),
            Self::Failed(error) => return Err(error),
        })
    }
}
