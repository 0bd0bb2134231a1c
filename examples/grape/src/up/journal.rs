//! The options of `up`, stored beside Terraform's state, so that a repetition continues with it and `down` finds what there is.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    failure::{Failure, FailureKind, Result},
    session::{
        private_file::{FileLock, write_private},
        profile::ConfigDir,
    },
};

/// The file `up.json`. Holds no secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// The project.
    pub(super) project: String,
    /// AWS region, where one was needed.
    pub(super) region: Option<String>,
    /// The templates that were begun, in their order; none with `--skip-provision`.
    pub(super) templates: Vec<String>,
    /// Context of kubectl, once it is known.
    pub(super) context: Option<String>,
    /// A kubeconfig of our own, for a cluster that was made here.
    pub(super) kubeconfig: Option<PathBuf>,
    /// Namespace of the agent.
    pub(super) namespace: String,
    /// The Helm release.
    pub(super) release: String,
    /// The row in `clusters`, once it is made.
    pub(super) cluster: Option<Uuid>,
    /// Whether a next key was made here that is not the only one yet.
    #[serde(default)]
    pub(super) rotating: bool,
}

/// The directory of one cluster, locked.
#[derive(Debug)]
pub(super) struct Journal {
    /// Where it is.
    pub(super) dir: PathBuf,
    _lock: FileLock,
}

impl Journal {
    /// Opens the directory; only one `up` or `down` of a cluster runs at a time.
    pub(super) fn open(config: &ConfigDir, profile: &str, name: &str, dir: Option<&Path>) -> Result<Self> {
        let dir = dir.map_or_else(|| config.clusters().join(profile).join(name), Path::to_owned);
        let Some(lock) = FileLock::try_take(&dir.join("lock"))? else {
            return Err(Failure::new(
                FailureKind::Refused,
                format!("Another `grape up` or `grape down` of {name} is running."),
            )
            .next("Wait for its end."));
        };
        let dir = fs::canonicalize(&dir)?;
        Ok(Self { dir, _lock: lock })
    }

    /// What was stored; nothing before the first `up`.
    pub(super) fn read(&self) -> Result<Option<Record>> {
        let path = self.path();
        match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).map(Some).map_err(|error| {
                Failure::new(FailureKind::Unexpected, format!("{} cannot be read: {error}", path.display()))
                    .next("It records what `up` has created. Fix it, or name another directory with --state-dir.")
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Saves it, whole or not at all.
    pub(super) fn write(&self, record: &Record) -> Result<()> {
        let text = serde_json::to_vec_pretty(record).map_err(io::Error::from)?;
        write_private(&self.path(), &text).map_err(|error| {
            Failure::new(FailureKind::Unexpected, format!("{}: {error}", self.path().display()))
                .caused_by(error)
        })
    }

    /// Removes it: everything that it names is gone. Terraform's state stays, empty, with its backup.
    pub(super) fn forget(&self) -> Result<()> {
        Ok(fs::remove_file(self.path())?)
    }

    fn path(&self) -> PathBuf {
        self.dir.join("up.json")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time_and_what_is_kept_comes_back() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("state");
        let open = || Journal::open(&ConfigDir::at(home.path()), "default", "prod", Some(&dir));
        let journal = open().unwrap();
        assert_eq!(open().unwrap_err().kind(), FailureKind::Refused);
        assert_eq!(journal.read().unwrap(), None);
        let record = Record {
            project: "https://a.co".to_owned(),
            region: Some("eu-central-1".to_owned()),
            templates: vec!["vpc".to_owned()],
            context: None,
            kubeconfig: None,
            namespace: "tendril".to_owned(),
            release: "tendril-agent".to_owned(),
            cluster: Some(Uuid::nil()),
            rotating: false,
        };
        journal.write(&record).unwrap();
        drop(journal);
        let journal = open().unwrap();
        assert_eq!(journal.read().unwrap(), Some(record));
        journal.forget().unwrap();
        assert_eq!(journal.read().unwrap(), None);
    }
}
