//! The key of the price list, and where it comes from.

use std::{fs, path::PathBuf};

use secrecy::SecretString;

/// Where the key comes from.
#[derive(Clone, Debug)]
pub(super) enum Key {
    /// Given once, at start.
    Inline(SecretString),
    /// A file that is read for every estimate, so that it may be replaced.
    File(PathBuf),
}

impl Key {
    /// One of the two, or none. Errors: both.
    pub(super) fn from_values(inline: Option<&str>, file: Option<&str>) -> Result<Option<Self>, String> {
        match (inline, file) {
            (Some(key), None) => Ok(Some(Self::Inline(SecretString::from(key)))),
            (None, Some(path)) => Ok(Some(Self::File(PathBuf::from(path)))),
            (None, None) => Ok(None),
            (Some(_), Some(_)) => {
                Err("TENDRIL_INFRACOST_KEY and TENDRIL_INFRACOST_KEY_FILE are both set: remove one of them"
                    .to_owned())
            }
        }
    }

    /// The key as it is now. Errors: the file, in a sentence.
    pub(super) fn read(&self) -> Result<SecretString, String> {
        let path = match self {
            Self::Inline(key) => return Ok(key.clone()),
            Self::File(path) => path,
        };
        let name = format!("TENDRIL_INFRACOST_KEY_FILE (--infracost-key-file) {}", path.display());
        let text = fs::read_to_string(path).map_err(|error| format!("{name} cannot be read ({error})"))?;
        match text.trim() {
            "" => Err(format!("{name} is empty: write the key into it")),
            key => Ok(SecretString::from(key)),
        }
    }
}
