//! The events of a watch.

use serde::de::DeserializeOwned;

use super::{WatchEvent, record::Key};
use crate::error::{Error, ErrorKind, Retry};

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
    ///
    /// # Errors
    /// The end of the watch.
    pub(super) fn decode<T: DeserializeOwned>(self) -> Result<WatchEvent<T>, Error> {
        Ok(match self {
            Self::Init => WatchEvent::Init,
            Self::InitDone => WatchEvent::InitDone,
            Self::InitApply(_, json) => row(json, WatchEvent::InitApply),
            Self::Apply(_, json) => row(json, WatchEvent::Apply),
            Self::Delete(_, json) => row(json, WatchEvent::Delete),
            Self::Failed(error) if is_end(&error) => return Err(error),
            Self::Failed(error) => WatchEvent::Interrupted(error),
        })
    }
}

fn row<T: DeserializeOwned>(json: Box<str>, event: impl FnOnce(T) -> WatchEvent<T>) -> WatchEvent<T> {
    match serde_json::from_str(&json) {
        Ok(row) => event(row),
        Err(error) => WatchEvent::Undecodable { json: json.into(), error: Error::decode("a row", &error) },
    }
}

/// Whether nothing can be read any more: the session has ended. What else is refused may be granted, published or created later.
pub(super) fn is_end(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Token { .. }) && error.retry() == Retry::Never
}
