//! The output of an attempt's programs on disk, as they wrote it, before anything else is done with it.
//!
//! Bytes go from a program's pipe into the journal inside the kernel (`splice`). A process that is killed leaves each byte in
//! one of the two, and whoever goes on reads it there. Positions count all bytes of a stream since the attempt began. What
//! nobody needs any more is given back to the disk from the front; positions stay what they are. At its end room is taken from the disk
//! before it is needed: a disk that has become full takes that much more.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::OpenOptionsExt as _,
    },
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use rustix::{
    fs::{FallocateFlags, fallocate},
    io::Errno,
    pipe::{SpliceFlags, splice},
};

use crate::{
    os::{
        failpoint,
        files::{private_dir, remove_dir},
        room::Room,
    },
    process::stream::Stream,
};

/// Most bytes of one step.
const STEP: usize = 64 * 1024;
/// The disk gets back at least so many bytes at once.
const GIVEN_BACK: u64 = 1024 * 1024;

/// What an attempt's programs wrote: one file for each stream.
#[derive(Debug)]
pub(crate) struct Journal {
    stdout: StreamJournal,
    stderr: StreamJournal,
}

/// The journal of one stream. One reader takes bytes in at a time.
#[derive(Debug)]
pub(crate) struct StreamJournal {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// None until there is something to write.
    file: Option<File>,
    /// What was handed out ends here.
    read: u64,
    /// What is in the file ends here.
    end: u64,
    /// What the disk gave for what comes next.
    room: Room,
    /// What the disk got back ends here.
    freed: u64,
    /// It may become so large.
    limit: Option<u64>,
    /// The file system cannot make holes in files.
    keeps_all: bool,
    /// The file system takes nothing from a pipe without a copy in this process.
    copies: bool,
}

/// A part of what a program wrote.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Portion {
    pub(crate) bytes: Vec<u8>,
    /// Where it ends in the journal; none, if it is not there.
    pub(crate) end: Option<u64>,
}

/// What a look at a pipe has brought.
#[derive(Debug)]
pub(super) enum Taken {
    Portion(Portion),
    /// The pipe is empty.
    Nothing,
    /// Nobody can write into the pipe any more.
    Closed,
}

impl Journal {
    /// Of an attempt that begins, in this directory, which is made when it is needed. What an earlier try left there is removed.
    pub(crate) fn create(dir: &Path) -> io::Result<Self> {
        match remove_dir(dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(Self::at(dir)),
        }
    }

    fn at(dir: &Path) -> Self {
        let stream = |name: &str| StreamJournal { path: dir.join(name), state: Mutex::new(State::default()) };
        Self { stdout: stream("stdout"), stderr: stream("stderr") }
    }

    /// Of an attempt that goes on: each stream is read again from this position on, or from its end.
    pub(crate) fn resume(dir: &Path, from: [Option<u64>; 2]) -> Self {
        let journal = Self::at(dir);
        for (stream, from) in [&journal.stdout, &journal.stderr].into_iter().zip(from) {
            let in_file = fs::metadata(&stream.path).map_or(0, |file| file.len());
            let read = from.unwrap_or(in_file);
            // A power cut may have taken what was read and not forced to the disk.
            let mut state = stream.state();
            (state.read, state.end) = (read, in_file.max(read));
        }
        journal
    }

    /// The same, which takes in so many bytes at most.
    pub(crate) fn limited(self, most: u64) -> Self {
        for stream in [&self.stdout, &self.stderr] {
            let mut state = stream.state();
            state.limit = Some(state.end.saturating_add(most));
        }
        self
    }

    /// The one of a stream that a program writes.
    pub(crate) const fn of(&self, stream: Stream) -> Option<&StreamJournal> {
        match stream {
            Stream::Stdout => Some(&self.stdout),
            Stream::Stderr => Some(&self.stderr),
            Stream::Agent => None,
        }
    }
}

impl StreamJournal {
    /// Where what is in the file ends.
    pub(crate) fn end(&self) -> u64 {
        self.state().end
    }

    /// The next bytes that an earlier process took in and did not finish with.
    pub(crate) fn rest(&self) -> io::Result<Option<Portion>> {
        let mut state = self.state();
        let left = usize::try_from(state.end - state.read).unwrap_or(usize::MAX);
        if left == 0 {
            return Ok(None);
        }
        let handed = state.hand_out(&self.path, left.min(STEP));
        if handed.is_err() {
            // It must not be in the way of what comes.
            state.read = state.end;
        }
        handed.map(Some)
    }

    /// Takes in what is in a pipe that does not block, and hands it out. Errors: the disk takes nothing; the bytes are in the pipe
    /// then.
    pub(super) fn take_in(&self, pipe: BorrowedFd<'_>) -> Result<Taken, Errno> {
        let mut state = self.state();
        let taken = match state.move_in(&self.path, pipe) {
            Err(Errno::AGAIN) => return Ok(Taken::Nothing),
            Err(Errno::INVAL) => {
                state.copies = true;
                state.move_in(&self.path, pipe)
            }
            moved => moved,
        };
        let taken = match taken {
            Ok(0) => return Ok(Taken::Closed),
            Ok(taken) => taken,
            Err(Errno::AGAIN) => return Ok(Taken::Nothing),
            Err(error) => return Err(error),
        };
        failpoint!("journal.taken");
        match state.hand_out(&self.path, taken) {
            Ok(portion) => Ok(Taken::Portion(portion)),
            Err(error) => {
                tracing::error!(%error, "what a program wrote was stored and cannot be read again");
                state.read = state.end;
                Ok(Taken::Portion(Portion { bytes: Vec::new(), end: Some(state.end) }))
            }
        }
    }

    /// Nobody reads what is before this position again: the disk gets it back, if it is much.
    pub(crate) fn release(&self, position: u64) {
        let mut state = self.state();
        let position = position.min(state.read);
        if state.keeps_all || position < state.freed + GIVEN_BACK {
            return;
        }
        let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        let made = state.file.as_ref().map(|file| fallocate(file, hole, state.freed, position - state.freed));
        match made {
            Some(Ok(())) | None => state.freed = position,
            Some(Err(error)) => {
                tracing::debug!(%error, "the file system keeps all of a program's output until the end of the run");
                state.keeps_all = true;
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing that holds the lock can leave it in halves.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn file(&mut self, path: &Path) -> io::Result<&mut File> {
        if self.file.is_none() {
            path.parent().map_or(Ok(()), private_dir)?;
            let mut open = OpenOptions::new();
            self.file =
                Some(open.read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?);
        }
        self.file.as_mut().ok_or_else(|| io::Error::other("the file is not open"))
    }

    /// Moves bytes of a pipe to the end of the file; returns how many.
    fn move_in(&mut self, path: &Path, pipe: BorrowedFd<'_>) -> Result<usize, Errno> {
        if self.limit.is_some_and(|limit| self.end >= limit) {
            return Err(Errno::FBIG);
        }
        let (mut end, copies) = (self.end, self.copies);
        let of = |error: &io::Error| Errno::from_io_error(error).unwrap_or(Errno::IO);
        self.file(path).map_err(|error| of(&error))?;
        let Some(file) = self.file.as_mut() else { return Err(Errno::BADF) };
        self.room.take(file, end);
        let moved = loop {
            let moved = if copies {
                copy(pipe, file, end)
            } else {
                splice(pipe, None, file.as_fd(), Some(&mut end), STEP, SpliceFlags::NONBLOCK)
            };
            if moved != Err(Errno::INTR) {
                break moved?;
            }
        };
        self.end += moved as u64;
        Ok(moved)
    }

    fn hand_out(&mut self, path: &Path, size: usize) -> io::Result<Portion> {
        let mut bytes = vec![0; size];
        let from = self.read;
        let file = self.file(path)?;
        file.seek(SeekFrom::Start(from))?;
        file.read_exact(&mut bytes)?;
        self.read += size as u64;
        Ok(Portion { bytes, end: Some(self.read) })
    }
}

impl Drop for State {
    /// The disk gets back the room that was not needed: plans that wait are many, and nothing is written while they do.
    fn drop(&mut self) {
        let Some(file) = self.file.as_ref().filter(|_| self.room.reaches_beyond(self.end)) else { return };
        // A file that another process made longer is left alone.
        let is_whole = file.metadata().is_ok_and(|metadata| metadata.len() == self.end);
        if is_whole && let Err(error) = file.set_len(self.end) {
            tracing::debug!(%error, "the disk does not get back the room for a program's output");
        }
    }
}

/// Where the kernel cannot move bytes from a pipe into this file system. What is read must be written: a process that is killed
/// between the two loses it.
fn copy(pipe: BorrowedFd<'_>, file: &mut File, at: u64) -> Result<usize, Errno> {
    let mut bytes = vec![0; STEP];
    let of = |error: &io::Error| Errno::from_io_error(error).unwrap_or(Errno::IO);
    // Room first: bytes that were read cannot be put back.
    fallocate(&*file, FallocateFlags::KEEP_SIZE, at, STEP as u64).or_else(|error| match error {
        Errno::OPNOTSUPP => Ok(()),
        error => Err(error),
    })?;
    let read = rustix::io::read(pipe, &mut *bytes)?;
    file.seek(SeekFrom::Start(at)).map_err(|error| of(&error))?;
    file.write_all(&bytes[..read]).map_err(|error| of(&error))?;
    Ok(read)
}

#[cfg(test)]
mod tests {
    use std::os::{fd::OwnedFd, unix::fs::MetadataExt as _};

    use rustix::{io::ioctl_fionbio, pipe::fcntl_setpipe_size};

    use super::*;
    use crate::os::room::ROOM;

    fn pipe() -> (OwnedFd, io::PipeWriter) {
        let (reader, writer) = io::pipe().unwrap();
        ioctl_fionbio(&reader, true).unwrap();
        let _as_granted = fcntl_setpipe_size(&writer, 1024 * 1024);
        (reader.into(), writer)
    }

    fn portion(text: &str, end: u64) -> Portion {
        Portion { bytes: text.into(), end: Some(end) }
    }

    fn taken(journal: &Journal, pipe: &OwnedFd) -> Option<Portion> {
        match journal.stdout.take_in(pipe.as_fd()).unwrap() {
            Taken::Portion(portion) => Some(portion),
            Taken::Nothing | Taken::Closed => None,
        }
    }

    #[test]
    fn what_was_taken_in_is_handed_out_again_from_any_position() {
        let dir = tempfile::tempdir().unwrap();
        let (reader, mut writer) = pipe();
        let journal = Journal::create(&dir.path().join("journal")).unwrap();
        assert_eq!(taken(&journal, &reader), None);
        writer.write_all(b"one two ").unwrap();
        assert_eq!(taken(&journal, &reader), Some(portion("one two ", 8)));
        writer.write_all(b"three").unwrap();
        assert_eq!(taken(&journal, &reader), Some(portion("three", 13)));
        let again = Journal::resume(&dir.path().join("journal"), [Some(4), None]);
        assert_eq!(again.stderr.rest().unwrap(), None);
        assert_eq!(again.stdout.rest().unwrap(), Some(portion("two three", 13)));
        assert_eq!(again.stdout.rest().unwrap(), None);
        // It goes on where the earlier process was.
        writer.write_all(b"four").unwrap();
        assert_eq!(taken(&again, &reader), Some(portion("four", 17)));
        drop(writer);
        assert!(matches!(again.stdout.take_in(reader.as_fd()), Ok(Taken::Closed)));
        assert_eq!(Journal::resume(&dir.path().join("journal"), [None, None]).stdout.end(), 17);
    }

    #[test]
    fn positions_go_on_where_the_file_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let (reader, mut writer) = pipe();
        let journal = Journal::resume(dir.path(), [Some(1000), None]);
        assert_eq!(journal.stdout.rest().unwrap(), None);
        writer.write_all(b"more").unwrap();
        assert_eq!(taken(&journal, &reader), Some(portion("more", 1004)));
    }

    #[test]
    fn the_disk_gets_back_what_nobody_reads_again() {
        let dir = tempfile::tempdir().unwrap();
        let (reader, mut writer) = pipe();
        let journal = Journal::create(dir.path()).unwrap();
        for _ in 0..128 {
            writer.write_all(&vec![b'x'; STEP]).unwrap();
            assert_eq!(taken(&journal, &reader).unwrap().bytes.len(), STEP);
        }
        let on_disk = || fs::metadata(dir.path().join("stdout")).unwrap().blocks() * 512;
        assert!(on_disk() >= 8 * 1024 * 1024, "{}", on_disk());
        journal.stdout.release(7 * 1024 * 1024);
        assert!(on_disk() <= 1024 * 1024 + ROOM + 8192, "{}", on_disk());
        assert_eq!(journal.stdout.end(), 8 * 1024 * 1024);
        writer.write_all(b"after").unwrap();
        assert_eq!(taken(&journal, &reader), Some(portion("after", 8 * 1024 * 1024 + 5)));
    }

    #[test]
    fn the_disk_gets_back_the_room_that_was_not_needed_when_nobody_writes_any_more() {
        let dir = tempfile::tempdir().unwrap();
        let (reader, mut writer) = pipe();
        let journal = Journal::create(dir.path()).unwrap();
        writer.write_all(b"one ").unwrap();
        assert_eq!(taken(&journal, &reader), Some(portion("one ", 4)));
        let on_disk = || fs::metadata(dir.path().join("stdout")).unwrap().blocks() * 512;
        assert!(on_disk() >= ROOM, "{}", on_disk());
        drop(journal);
        assert!(on_disk() <= 64 * 1024, "{}", on_disk());
        let again = Journal::resume(dir.path(), [Some(0), None]);
        assert_eq!(again.stdout.rest().unwrap(), Some(portion("one ", 4)));
        writer.write_all(b"two").unwrap();
        assert_eq!(taken(&again, &reader), Some(portion("two", 7)));
    }

    #[test]
    fn a_file_system_that_takes_nothing_from_a_pipe_gets_a_copy() {
        let dir = tempfile::tempdir().unwrap();
        let (reader, mut writer) = pipe();
        let journal = Journal::create(dir.path()).unwrap();
        journal.stdout.state().copies = true;
        writer.write_all(b"copied").unwrap();
        assert_eq!(taken(&journal, &reader), Some(portion("copied", 6)));
        assert_eq!(taken(&journal, &reader), None);
        assert_eq!(fs::read(dir.path().join("stdout")).unwrap(), b"copied");
    }

    #[test]
    fn a_disk_that_has_become_full_takes_as_much_as_there_is_room_for() {
        let dir = tempfile::tempdir().unwrap();
        let mount =
            |args: &[&str]| std::process::Command::new(args[0]).args(&args[1..]).arg(dir.path()).output();
        let is_mounted = mount(&["mount", "-t", "tmpfs", "-o", "size=8m", "none"]);
        if !is_mounted.is_ok_and(|output| output.status.success()) {
            eprintln!("only root can mount: not tried");
            return;
        }
        let (reader, mut writer) = pipe();
        let journal = Journal::create(&dir.path().join("journal")).unwrap();
        writer.write_all(b"before").unwrap();
        assert_eq!(taken(&journal, &reader), Some(portion("before", 6)));
        let mut fill = File::create(dir.path().join("fill")).unwrap();
        while fill.write_all(&[1; 4096]).is_ok() {}
        let (mut all, mut refused) = (b"before".to_vec(), None);
        while refused.is_none() {
            if rustix::io::ioctl_fionread(&reader).unwrap() == 0 {
                writer.write_all(&vec![b'x'; STEP]).unwrap();
            }
            match journal.stdout.take_in(reader.as_fd()) {
                Ok(Taken::Portion(portion)) => all.extend(portion.bytes),
                other => refused = Some(other),
            }
        }
        assert!(matches!(refused, Some(Err(Errno::NOSPC))), "{refused:?}");
        assert!(all.len() as u64 >= ROOM - STEP as u64, "{}", all.len());
        assert_eq!(fs::read(dir.path().join("journal/stdout")).unwrap(), all);
        // There is room again, also for what comes later.
        drop(fill);
        fs::remove_file(dir.path().join("fill")).unwrap();
        assert!(taken(&journal, &reader).is_some());
        let end = journal.stdout.end();
        assert!(journal.stdout.state().room.reaches_beyond(end + ROOM / 2 - 1));
        drop(journal);
        assert!(mount(&["umount", "-l"]).unwrap().status.success());
    }

    /// The kernel moves bytes or leaves them: at no moment of a kill are they in neither of the two, or in both.
    #[test]
    fn a_disk_that_refuses_leaves_the_bytes_in_the_pipe() {
        let (reader, mut writer) = pipe();
        writer.write_all(b"stays").unwrap();
        // It is always full.
        let journal = StreamJournal { path: "/dev/full".into(), state: Mutex::default() };
        journal.state().copies = false;
        let refused = journal.take_in(reader.as_fd());
        assert!(refused.is_err(), "{refused:?}");
        assert_eq!(rustix::io::ioctl_fionread(&reader).unwrap(), 5);
    }
}
