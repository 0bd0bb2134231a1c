//! Profiles: which project, under a name. One is current.

use std::{
    collections::BTreeMap,
    env, fs, io,
    path::{Path, PathBuf},
};

use directories::ProjectDirs;
use serde::{Deserialize, Serialize};

use super::private_file::{FileLock, unreadable, write_private};
use crate::failure::{Failure, FailureKind, Result};

/// The profile that is used unless another one is named.
pub const DEFAULT: &str = "default";

/// A project and what is remembered of it. Holds no secret: the publishable key is public.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Profile {
    /// Base URL of the project.
    pub url: String,
    /// Its publishable (or anon) key.
    pub key: String,
    /// Base URL of the portal, for `grape open`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub portal: Option<String>,
    /// Name or id of the cluster that is meant where none is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
}

/// The file `profiles.json`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Profiles {
    /// Name of the current profile.
    #[serde(default)]
    pub current: Option<String>,
    /// By name.
    #[serde(default)]
    pub profiles: BTreeMap<String, Profile>,
}

/// The user's configuration directory for this program.
#[derive(Debug, Clone)]
pub struct ConfigDir(PathBuf);

impl ConfigDir {
    /// `GRAPE_CONFIG_DIR`, or where the platform stores configuration (`~/.config/grape` on Linux).
    ///
    /// # Errors
    /// When the user has no home directory.
    pub fn find() -> Result<Self> {
        if let Some(dir) = env::var_os("GRAPE_CONFIG_DIR").filter(|dir| !dir.is_empty()) {
            return Ok(Self(dir.into()));
        }
        let dirs = ProjectDirs::from("dev", "tendril", "grape").ok_or_else(|| {
            Failure::new(FailureKind::Usage, "This user has no home directory to store a session in.")
                .next("Set GRAPE_CONFIG_DIR to a directory.")
        })?;
        Ok(Self(dirs.config_dir().to_owned()))
    }

    /// A given directory.
    pub fn at(dir: impl Into<PathBuf>) -> Self {
        Self(dir.into())
    }

    /// Where `up` stores its files, one directory for each cluster of each profile: beside the configuration where that has a
    /// place of its own, otherwise where the platform stores data (`~/.local/share/grape` on Linux).
    pub fn clusters(&self) -> PathBuf {
        let own = ProjectDirs::from("dev", "tendril", "grape").filter(|dirs| dirs.config_dir() == self.0);
        own.map_or_else(|| self.0.clone(), |dirs| dirs.data_dir().to_owned()).join("clusters")
    }

    /// A file or directory in it.
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.0.join(name)
    }

    /// Reads the profiles; none where the file is not there yet.
    ///
    /// # Errors
    /// A file that is not ours.
    pub fn profiles(&self) -> Result<Profiles> {
        let path = self.profiles_path();
        match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).map_err(|error| {
                Failure::new(FailureKind::Usage, format!("{} cannot be read: {error}", path.display()))
                    .next("Fix it, or delete it and sign in again: `grape login`.")
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Profiles::default()),
            Err(error) => Err(unreadable(&path, error)),
        }
    }

    /// Changes the profiles; two processes at once do not lose each other's change.
    ///
    /// # Errors
    /// What reading and writing can fail with.
    pub fn change_profiles(&self, change: impl FnOnce(&mut Profiles)) -> Result<()> {
        let _lock = FileLock::take(&self.join("profiles.lock"))?;
        let mut profiles = self.profiles()?;
        change(&mut profiles);
        let path = self.profiles_path();
        let text = serde_json::to_vec_pretty(&profiles).map_err(io::Error::from)?;
        write_private(&path, &text).map_err(|error| unreadable(&path, error))
    }

    fn profiles_path(&self) -> PathBuf {
        self.join("profiles.json")
    }
}

impl Profiles {
    /// The name of the profile in use: the requested one, the current one, or `default`.
    pub fn name(&self, requested: Option<&str>) -> String {
        requested.or(self.current.as_deref()).unwrap_or(DEFAULT).to_owned()
    }
}

/// Checks a profile's name, which is part of a file's name.
///
/// # Errors
/// A sentence for people.
pub fn checked_name(name: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let begins = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    if begins && name.len() <= 63 && name.chars().all(fits) {
        Ok(name.to_owned())
    } else {
        Err("a profile's name has up to 63 letters, digits, `.`, `_` and `-`, and begins with a letter or digit".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_that_is_asked_for_goes_before_the_current_one() {
        let mut profiles = Profiles::default();
        assert_eq!(profiles.name(None), "default");
        profiles.current = Some("work".to_owned());
        assert_eq!(profiles.name(None), "work");
        assert_eq!(profiles.name(Some("home")), "home");
    }

    #[test]
    fn a_profiles_name_leads_out_of_no_directory() {
        for name in ["", ".", "..", "../a", "a/b", "-a", "a b", "ä", &"a".repeat(64)] {
            assert!(checked_name(name).is_err(), "{name}");
        }
        assert_eq!(checked_name("acme-prod.eu_1").as_deref(), Ok("acme-prod.eu_1"));
    }
}
