//! `pg_cron`, PostgreSQL's scheduler: an extension that the server must load when it starts.

use std::path::Path;
use std::process::Command;

use super::binaries::Binaries;
use crate::error::{ErrorKind, Result, StackError};

/// Makes the extension in the main database. Safe to repeat; run as superuser.
pub(crate) const SCRIPT: &str = include_str!("bootstrap/pg_cron.sql");

/// Whether the server runs scheduled jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PgCron {
    /// No scheduler: nothing happens in the database but what a test does.
    #[default]
    Off,
    /// With `pg_cron` if the extension is installed on this machine.
    IfInstalled,
    /// With `pg_cron`; without the extension the start fails with [`ErrorKind::ExtensionNotFound`].
    Required,
}

impl PgCron {
    /// Whether a server of these programs loads the extension.
    pub(crate) fn is_loaded(self, binaries: &Binaries) -> Result<bool> {
        match self {
            Self::Off => Ok(false),
            Self::IfInstalled => Ok(is_installed(binaries)),
            Self::Required if is_installed(binaries) => Ok(true),
            Self::Required => Err(StackError::new(
                ErrorKind::ExtensionNotFound,
                "pg_cron is not installed for this PostgreSQL. Install it with `sudo apt-get install \
                 postgresql-<version>-cron` (Debian, Ubuntu), or start without it",
            )),
        }
    }
}

/// The settings with which a server loads the extension and runs its jobs.
pub(crate) const SETTINGS: [&str; 4] = [
    "shared_preload_libraries=pg_cron",
    "cron.database_name=postgres",
    // Jobs need no connection of their own, and no password.
    "cron.use_background_workers=on",
    "max_worker_processes=16",
];

/// Whether the extension's library is where this PostgreSQL loads libraries from.
fn is_installed(binaries: &Binaries) -> bool {
    let printed = Command::new(binaries.program("pg_config")).arg("--pkglibdir").output().ok();
    let printed = printed.filter(|output| output.status.success());
    let printed = printed.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    // Debian has `pg_config` in another package; there the directories are neighbours.
    let beside = binaries.program("../lib");
    printed
        .as_deref()
        .map(Path::new)
        .into_iter()
        .chain([beside.as_path()])
        .any(|dir| ["pg_cron.so", "pg_cron.dylib"].iter().any(|library| dir.join(library).is_file()))
}
