//! Programs on this machine.

use std::{env, fs, os::unix::fs::PermissionsExt, path::PathBuf};

/// A path as it is, or a name looked up on PATH, if it is an executable file.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let executable = |path: &PathBuf| {
        fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    };
    if program.contains('/') {
        return std::path::absolute(program).ok().filter(executable);
    }
    env::split_paths(&env::var_os("PATH")?).map(|dir| dir.join(program)).find(executable)
}
