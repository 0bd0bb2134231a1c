//! The PostgreSQL programs of this machine.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::{ErrorKind, Result, StackError};

/// The oldest version with everything the stack uses (`pgoutput` options, `regexp` and `jsonb` functions).
pub(super) const OLDEST: u32 = 14;

/// A directory with `postgres` and `initdb`, and their version.
#[derive(Debug, Clone)]
pub(crate) struct Binaries {
    dir: PathBuf,
    version: String,
}

impl Binaries {
    /// Finds the programs: `TENDRIL_PG_BINDIR`, then `pg_config`, the search path, and the highest version under
    /// `/usr/lib/postgresql`. The variable is obeyed or refused; the others are tried in turn.
    ///
    /// # Errors
    /// [`ErrorKind::PostgresNotFound`] and [`ErrorKind::PostgresTooOld`].
    pub(crate) fn find() -> Result<Self> {
        if let Some(dir) = env::var_os("TENDRIL_PG_BINDIR") {
            return Self::in_dir(Path::new(&dir));
        }
        let mut too_old = None;
        for dir in candidates() {
            match Self::in_dir(&dir) {
                Ok(found) => return Ok(found),
                Err(error) if error.kind() == ErrorKind::PostgresTooOld => too_old = Some(error),
                Err(_) => {}
            }
        }
        Err(too_old.unwrap_or_else(|| {
            StackError::new(
                ErrorKind::PostgresNotFound,
                "no PostgreSQL server was found. Install it with `sudo apt-get install postgresql` (Debian, Ubuntu), \
                 `sudo dnf install postgresql-server` (Fedora) or `brew install postgresql@17` (macOS), or set \
                 TENDRIL_PG_BINDIR to the directory that has `postgres` and `initdb`",
            )
        }))
    }

    /// The programs of one directory.
    fn in_dir(dir: &Path) -> Result<Self> {
        let missing = |name: &str| {
            StackError::new(
                ErrorKind::PostgresNotFound,
                format!(
                    "{} has no `{name}` that runs. Point TENDRIL_PG_BINDIR at a PostgreSQL server's directory of \
                     programs, or unset it",
                    dir.display()
                ),
            )
        };
        if !dir.join("initdb").is_file() {
            return Err(missing("initdb"));
        }
        let output =
            Command::new(dir.join("postgres")).arg("--version").output().map_err(|_| missing("postgres"))?;
        let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        let major = major_version(&version).ok_or_else(|| missing("postgres"))?;
        if major < OLDEST {
            return Err(StackError::new(
                ErrorKind::PostgresTooOld,
                format!("{version} in {} is too old: install PostgreSQL {OLDEST} or newer", dir.display()),
            ));
        }
        Ok(Self { dir: dir.to_owned(), version })
    }

    /// The path of one program.
    pub(crate) fn program(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The version text, such as `postgres (PostgreSQL) 15.18`.
    pub(crate) fn version(&self) -> &str {
        &self.version
    }
}

/// Directories to search, the best guess first.
fn candidates() -> Vec<PathBuf> {
    let mut dirs = Vec::new();
    if let Ok(output) = Command::new("pg_config").arg("--bindir").output() {
        dirs.push(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()));
    }
    dirs.extend(env::var_os("PATH").iter().flat_map(env::split_paths));
    let mut versions: Vec<(u32, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .collect();
    versions.sort_unstable_by(|a, b| b.cmp(a));
    dirs.extend(versions.into_iter().map(|(_, dir)| dir));
    dirs
}

/// `15` of `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`, also of `17beta1`.
fn major_version(text: &str) -> Option<u32> {
    let number = text.split_once("(PostgreSQL) ")?.1;
    let digits: String = number.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_text_gives_its_major_number() {
        assert_eq!(major_version("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)"), Some(15));
        assert_eq!(major_version("postgres (PostgreSQL) 17beta1"), Some(17));
        assert_eq!(major_version("something else"), None);
    }

    #[test]
    fn a_directory_without_programs_is_refused_with_advice() {
        let error = Binaries::in_dir(Path::new("/nonexistent")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PostgresNotFound);
        assert!(error.to_string().contains("TENDRIL_PG_BINDIR"), "{error}");
    }
}
