//! The pipe that a program's output goes through: large, and unbroken even if this process is killed.
//!
//! A program whose output pipe has no reader any more is killed by SIGPIPE at its next line: a Terraform in the middle of an
//! apply, with the state unsaved. So the program gets its end of the pipe open for reading as well. As long as it runs there
//! is a reader, and when the agent was killed it continues: until the pipe is full, or a later run of the agent empties it.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::OpenOptionsExt as _,
    },
    process::Stdio,
};

use rustix::{fs::OFlags, io::ioctl_fionbio, pipe::fcntl_setpipe_size};
use tokio::{io::AsyncReadExt, net::unix::pipe::Receiver};

use crate::process::process_table::Process;

/// What a pipe shall hold, in bytes: the most that Linux grants to everybody.
const CAPACITY: usize = 1024 * 1024;

/// A pipe: the end to read, which never blocks, and the program's end. Errors: too many open files.
pub(crate) fn output_pipe() -> io::Result<(OwnedFd, Stdio)> {
    let (reader, writer) = io::pipe()?;
    ioctl_fionbio(&reader, true)?;
    // Where it is not granted (many jobs of one user), it holds 64 KiB as ever.
    let _as_granted = fcntl_setpipe_size(&writer, CAPACITY);
    let both =
        OpenOptions::new().read(true).write(true).open(format!("/proc/self/fd/{}", writer.as_raw_fd()));
    // Without /proc it is a pipe like any other.
    let theirs = both.unwrap_or_else(|_| File::from(OwnedFd::from(writer)));
    Ok((reader.into(), theirs.into()))
}

/// Reads what a program that survived its agent writes, and throws it away, until it is gone: with a full pipe it could not
/// end. Must be called inside a runtime.
pub(crate) async fn discard_output_of(process: Process) {
    let drain = async |descriptor: u8| {
        let Some(mut pipe) = pipe_of(&process, descriptor) else { return };
        let mut buffer = vec![0; 64 * 1024];
        while pipe.read(&mut buffer).await.is_ok_and(|read| read > 0) {}
    };
    tokio::join!(drain(1), drain(2));
}

/// Another reading end of the pipe that this process has as its output, if it is one of [`output_pipe`]. Others must be left
/// alone: what a provider writes is read by Terraform.
pub(super) fn pipe_of(process: &Process, descriptor: u8) -> Option<Receiver> {
    const ACCESS: u32 = 0o3;
    const READ_AND_WRITE: u32 = 0o2;
    let place = format!("/proc/{}", process.pid.as_raw_nonzero());
    let info = fs::read_to_string(format!("{place}/fdinfo/{descriptor}")).ok()?;
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:"))?;
    let flags = u32::from_str_radix(flags.trim(), 8).ok()?;
    if flags & ACCESS != READ_AND_WRITE {
        return None;
    }
    // No named pipe, no device, nothing on a file system of the program's own: opening those can wait for ever.
    let link = fs::read_link(format!("{place}/fd/{descriptor}")).ok()?;
    if !link.as_os_str().as_encoded_bytes().starts_with(b"pipe:[") {
        return None;
    }
    let mut open = OpenOptions::new();
    open.read(true).custom_flags((OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed());
    let file = open.open(format!("{place}/fd/{descriptor}")).ok()?;
    // It is refused unless it is a pipe, and of the process that was found.
    process.is_running().then(|| Receiver::from_file(file).ok())?
}

#[cfg(test)]
mod tests {
    use std::{path::Path, process::Command, time::Duration};

    use rustix::process::Pid;
    use tokio::time::timeout;

    use super::*;

    fn process(child: &std::process::Child) -> Process {
        Process::with_id(Pid::from_child(child)).unwrap()
    }

    /// A program that prints so many KiB, and then creates a file.
    fn start(kib: u32, done: &Path, out: Stdio) -> std::process::Child {
        let script =
            format!("head -c {} /dev/zero && echo printed && touch '{}'", kib * 1024, done.display());
        Command::new("/bin/sh").args(["-c", &script]).stdout(out).spawn().unwrap()
    }

    async fn ended(mut child: std::process::Child) -> bool {
        let waited = tokio::task::spawn_blocking(move || child.wait());
        timeout(Duration::from_secs(20), waited).await.unwrap().unwrap().unwrap().success()
    }

    #[tokio::test]
    async fn a_program_whose_reader_is_gone_says_its_last_words_and_ends_well() {
        let dir = tempfile::tempdir().unwrap();
        let (reader, out) = output_pipe().unwrap();
        drop(reader);
        assert!(ended(start(30, &dir.path().join("done"), out)).await, "it died of a broken pipe");
        assert!(dir.path().join("done").exists());
    }

    #[tokio::test]
    async fn a_program_that_waits_on_its_full_pipe_is_set_free() {
        let dir = tempfile::tempdir().unwrap();
        let (reader, out) = output_pipe().unwrap();
        drop(reader);
        let child = start(4096, &dir.path().join("done"), out);
        let freed = discard_output_of(process(&child));
        assert!(tokio::join!(ended(child), freed).0);
        assert!(dir.path().join("done").exists());
    }

    #[tokio::test]
    async fn a_pipe_ends_when_all_who_write_are_gone_and_a_foreign_one_is_left_alone() {
        let (reader, out) = output_pipe().unwrap();
        let mut reader = Receiver::from_owned_fd(reader).unwrap();
        let mut program = Command::new("/bin/sh");
        program.args(["-c", "echo printed; read _"]).stdin(Stdio::piped()).stdout(out);
        let mut child = program.spawn().unwrap();
        drop(program);
        // Its input is a pipe too, and not of this kind.
        assert!(pipe_of(&process(&child), 0).is_none());
        assert!(pipe_of(&process(&child), 1).is_some());
        drop(child.stdin.take());
        let mut message = String::new();
        timeout(Duration::from_secs(20), reader.read_to_string(&mut message)).await.unwrap().unwrap();
        assert_eq!(message, "printed\n");
        child.wait().unwrap();
    }
}
