//! The directory of further versions of Terraform and OpenTofu.
//!
//! ```text
//! <terraform dir>/1.11.4/terraform       <terraform dir>/terraform_1.11.4
//! <terraform dir>/1.9.1/tofu             <terraform dir>/tofu_1.9.1
//! ```
//!
//! The directory is read for each run that needs it, so that a version can be added while the agent runs. A program is believed
//! only once it has said the version that its name promises.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use rustix::fs::{Access, access};

use crate::{
    job::{Product, Version},
    terraform::probe::{PROBE_LIMIT, version_of},
};

/// Most entries of the directory that are looked at.
const MOST_ENTRIES: usize = 1000;
/// Longest wrong version that is quoted.
const LONGEST_QUOTE: usize = 40;

/// A program of the directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) product: Product,
    /// What its name promises.
    pub(crate) version: Version,
    pub(crate) path: PathBuf,
    /// Why it cannot be run, as far as that can be seen without running it.
    pub(crate) problem: Option<String>,
}

/// A program that said the version that its name promises.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Verified {
    /// Where it is, without links.
    pub(crate) program: PathBuf,
    pub(crate) version: String,
}

/// Which file a program is: another one of the same name has not been tried yet.
type Identity = (PathBuf, u64, u64, u64, i64, i64);

/// The directory of versions, if there is one.
#[derive(Clone, Debug, Default)]
pub(crate) struct TerraformDir {
    path: Option<PathBuf>,
    /// What programs said when they were tried.
    tried: Arc<Mutex<BTreeMap<Identity, Result<String, String>>>>,
}

impl TerraformDir {
    /// The directory at this path.
    pub(crate) fn at(path: PathBuf) -> Self {
        Self { path: Some(path), tried: Arc::default() }
    }

    /// Where it is.
    pub(crate) fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// Its programs, the newest first. Errors: it cannot be read.
    pub(crate) fn candidates(&self) -> io::Result<Vec<Candidate>> {
        let Some(dir) = &self.path else { return Ok(Vec::new()) };
        let mut found: Vec<Candidate> = Vec::new();
        for entry in fs::read_dir(dir)?.take(MOST_ENTRIES) {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            for product in Product::ALL {
                let program = product.name();
                let (version, path) = match name.strip_prefix(program).and_then(|rest| rest.strip_prefix('_'))
                {
                    Some(version) => (version, entry.path()),
                    None => (name.as_str(), entry.path().join(program)),
                };
                let Some(version) = Version::parse(version) else { continue };
                if path.symlink_metadata().is_ok() {
                    found.push(Candidate { product, version, problem: problem_of(&path), path });
                }
            }
        }
        // Of two of one version, the one that can be run.
        found.sort_by(|one, other| {
            let key = |candidate: &Candidate| {
                (candidate.product.name(), candidate.problem.is_some(), candidate.path.clone())
            };
            other.version.cmp(&one.version).then_with(|| key(one).cmp(&key(other)))
        });
        found.dedup_by(|later, first| (later.product, &later.version) == (first.product, &first.version));
        Ok(found)
    }

    /// Has a program of the directory say its version, if it has not yet. Errors: why it cannot be run.
    pub(crate) async fn verify(&self, candidate: &Candidate) -> Result<Verified, String> {
        if let Some(problem) = &candidate.problem {
            return Err(problem.clone());
        }
        let unusable = |error: io::Error| format!("it cannot be used ({error})");
        let path = candidate.path.canonicalize().map_err(unusable)?;
        let meta = fs::metadata(&path).map_err(unusable)?;
        let identity = (path.clone(), meta.dev(), meta.ino(), meta.size(), meta.ctime(), meta.ctime_nsec());
        let known = self.tried.lock().unwrap_or_else(PoisonError::into_inner).get(&identity).cloned();
        let said = if let Some(said) = known {
            said
        } else {
            let said = version_of(&path, PROBE_LIMIT).await;
            self.tried.lock().unwrap_or_else(PoisonError::into_inner).insert(identity, said.clone());
            said
        }?;
        if Version::parse(&said).as_ref() == Some(&candidate.version) {
            return Ok(Verified { program: path, version: said });
        }
        let quote: String = said.chars().take(LONGEST_QUOTE).collect();
        Err(format!("it says that its version is {quote:?}"))
    }

    pub(crate) fn unreadable(&self, error: &io::Error) -> String {
        let dir = self.path.as_deref().unwrap_or(Path::new("")).display();
        format!(
            "the directory of Terraform versions {dir} cannot be read ({error}): check --terraform-dir / TENDRIL_TERRAFORM_DIR of the agent"
        )
    }
}

/// Why a file cannot be a program; nothing if it may be one.
fn problem_of(path: &Path) -> Option<String> {
    let meta = match fs::metadata(path) {
        Ok(meta) => meta,
        Err(error) if path.is_symlink() => return Some(format!("it is a link that leads nowhere ({error})")),
        Err(error) => return Some(format!("it cannot be read ({error})")),
    };
    if !meta.is_file() {
        return Some("it is no file".to_owned());
    }
    match access(path, Access::EXEC_OK) {
        Ok(()) if meta.mode() & 0o111 != 0 => None,
        _ => Some("it is not executable for this user: chmod +x it".to_owned()),
    }
}
