//! Where the project's files are.

use std::path::{Path, PathBuf};

/// The `supabase` directory here or above, as the Supabase CLI looks for it: one with a `config.toml` or with `migrations`.
pub(crate) fn project_dir() -> Option<PathBuf> {
    let current = std::env::current_dir().ok()?;
    current.ancestors().map(|dir| dir.join("supabase")).find(|dir| is_project(dir))
}

/// A file or directory of it, if it is there.
pub(crate) fn project_file(name: &str) -> Option<PathBuf> {
    Some(project_dir()?.join(name)).filter(|found| found.exists())
}

fn is_project(dir: &Path) -> bool {
    ["config.toml", "migrations"].iter().any(|name| dir.join(name).exists())
}
