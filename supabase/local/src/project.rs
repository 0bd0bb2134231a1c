//! Where the project's files are.

use std::path::{Path, PathBuf};

/// A directory or file of the project's `supabase/`, if this is built inside it.
pub(crate) fn project_dir(name: &str) -> Option<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).parent()?.join(name);
    dir.exists().then_some(dir)
}
