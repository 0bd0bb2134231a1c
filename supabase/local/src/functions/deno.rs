//! Where Deno is.

use std::env;
use std::path::{Path, PathBuf};

use crate::project::project_file;

/// Finds the program: `TENDRIL_DENO`, then what `scripts/tool.sh` installs, then the search path. The variable is obeyed or
/// refused.
///
/// # Errors
/// An error that explains how to install it.
pub(super) fn find() -> Result<PathBuf, String> {
    let on_path = env::var_os("PATH").unwrap_or_default();
    let candidates = project_file("../.tools/bin")
        .into_iter()
        .chain(env::split_paths(&on_path))
        .map(|dir| dir.join("deno"));
    choose(env::var_os("TENDRIL_DENO").map(PathBuf::from), candidates)
}

fn choose(named: Option<PathBuf>, mut candidates: impl Iterator<Item = PathBuf>) -> Result<PathBuf, String> {
    let is_there = |path: &Path| path.is_file();
    match named {
        Some(path) if is_there(&path) => Ok(path),
        Some(path) => Err(format!(
            "TENDRIL_DENO is {}, where no program is: name Deno's own, or unset it and run scripts/tool.sh deno",
            path.display()
        )),
        None => candidates.find(|path| is_there(path)).ok_or_else(|| {
            "Edge Functions are run by Deno, which is not here: run scripts/tool.sh deno, or name it with TENDRIL_DENO"
                .to_owned()
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_named_one_counts_and_who_has_none_is_told_how_to_get_it() {
        let dir = tempfile::tempdir().unwrap();
        let (here, none) = (dir.path().join("deno"), dir.path().join("none"));
        std::fs::write(&here, "").unwrap();
        let both = || [none.clone(), here.clone()].into_iter();
        assert_eq!(choose(None, both()), Ok(here.clone()));
        assert_eq!(choose(Some(here.clone()), std::iter::empty()), Ok(here.clone()));
        for refused in [choose(Some(none.clone()), both()), choose(None, std::iter::empty())] {
            assert!(refused.unwrap_err().contains("scripts/tool.sh deno"));
        }
    }
}
