//! Child processes that end with this one, however it ends.
//!
//! A child's parent is a small shell (`supervisor.sh`) that holds a pipe from this process. When the pipe closes, because it
//! was requested, because its end here was dropped or because this process was killed, the shell ends the child.

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

/// How a child is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// PostgreSQL's fast shutdown.
    Interrupt,
    /// What ends programs by default: a shell's background children ignore interrupts.
    Terminate,
}

/// The command that runs a program under the shell; arguments that are added are the program's. Its standard input is the pipe.
/// A directory to remove once the program has ended may be named.
pub(crate) fn supervised(program: &Path, ending: Ending, remove: Option<&Path>) -> Command {
    let mut command = Command::new("/bin/sh");
    command.arg("-c").arg(include_str!("supervisor.sh")).arg("supervisor");
    command.arg(remove.map_or("".as_ref(), Path::as_os_str));
    command.arg(match ending {
        Ending::Interrupt => "INT",
        Ending::Terminate => "TERM",
    });
    command.arg(program).stdin(Stdio::piped());
    // Out of the terminal's group: Ctrl-C is for this process, which then ends its children in good order.
    command.process_group(0);
    command
}
