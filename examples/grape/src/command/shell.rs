//! Completions of shells, and manual pages.

use std::{fs, io, path::Path};

use clap_complete::Shell;
use clap_mangen::Man;

use crate::{
    cli::command,
    failure::{Failure, FailureKind, Result},
};

/// Prints the completions of a shell.
pub(super) fn completions(shell: Shell) -> Result<()> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut command(), "grape", &mut text);
    io::Write::write_all(&mut io::stdout().lock(), &text)?;
    Ok(())
}

/// Prints the manual page, or writes one for each command into a directory.
pub(super) fn man(dir: Option<&Path>) -> Result<()> {
    let Some(dir) = dir else {
        let mut text = Vec::new();
        Man::new(command()).render(&mut text)?;
        io::Write::write_all(&mut io::stdout().lock(), &text)?;
        return Ok(());
    };
    let write = || -> io::Result<()> {
        fs::create_dir_all(dir)?;
        clap_mangen::generate_to(command(), dir)
    };
    write().map_err(|error| {
        Failure::new(
            FailureKind::Unexpected,
            format!("The pages cannot be written to {}: {error}", dir.display()),
        )
        .caused_by(error)
    })
}
