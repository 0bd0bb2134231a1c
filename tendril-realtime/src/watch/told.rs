//! What goes from the watcher to whoever reads.

use serde::de::DeserializeOwned;

use super::{WatchEvent, record::Key};
use crate::error::Error;

/// An event on its way to the reader, not yet of the reader's type.
pub(super) enum Told {
    Init,
    InitDone,
    InitApplied(Key, Box<str>),
    Applied(Key, Box<str>),
    Deleted(Key, Box<str>),
    Failed(Error),
}

impl Told {
    /// Decodes on the reader's task.
    pub(super) fn read<T: DeserializeOwned>(self) -> Result<WatchEvent<T>, Error> {
        let row = |json: &str| serde_json::from_str(json).map_err(|error| Error::decode("a row", &error));
        Ok(match self {
            Self::Init => WatchEvent::Init,
            Self::InitDone => WatchEvent::InitDone,
            Self::InitApplied(_, json) => WatchEvent::InitApplied(row(&json)?),
            Self::Applied(_, json) => WatchEvent::Applied(row(&json)?),
            Self::Deleted(_, json) => WatchEvent::Deleted(row(&json)?),
            Self::Failed(error) => return Err(error),
        })
    }
}
