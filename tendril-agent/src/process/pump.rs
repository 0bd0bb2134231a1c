//! Bytes from a program's pipe to a sink, through the sink's journal where it has one.

use std::{
    os::fd::{AsFd as _, OwnedFd},
    time::{Duration, Instant},
};

use rustix::{
    buffer::spare_capacity,
    io::{Errno, ioctl_fionread, read},
    pipe::fcntl_getpipe_size,
};
use tokio::{
    net::unix::pipe::Receiver,
    sync::watch,
    task::yield_now,
    time::{sleep, sleep_until},
};

use crate::process::{
    journal::{Portion, StreamJournal, Taken},
    sink::Sink,
    stream::Stream,
};

/// Bytes of one read from a pipe.
const READ_SIZE: usize = 64 * 1024;
/// A program that writes line by line is not read line by line: what it writes in this time after a read is gathered in its
/// pipe, and read together. No reader waits at the pipe meanwhile, because waking one would cost the program more than
/// its writes do. It never waits for that itself: the pipe holds far more, and a full read is followed by the next one at once.
const GATHER: Duration = Duration::from_millis(5);
/// A full disk is tried again so often.
const DISK_RETRY: Duration = Duration::from_millis(50);
/// For so long the pipe holds what a full disk does not take. After that it is read all the same: no program waits for the log.
const DISK_PATIENCE: Duration = Duration::from_secs(3);

/// Copies bytes until the stream's end. Once the program has ended: what was in the pipe then, however slow the sink is, and
/// for a moment what others write who hold it open; they are not waited for.
pub(super) async fn pump(
    pipe: OwnedFd,
    stream: Stream,
    sink: &dyn Sink,
    mut ended: watch::Receiver<Option<Instant>>,
) {
    deliver_rest(stream, sink).await;
    let mut source = Source { pipe, journal: sink.journal(stream), buffer: Vec::new(), refused_since: None };
    // Bytes that were in the pipe when the program had ended, and are not read yet.
    let mut owed: Option<u64> = None;
    loop {
        let deadline = *ended.borrow_and_update();
        if let Some(deadline) = deadline {
            let owed = *owed.get_or_insert_with(|| ioctl_fionread(&source.pipe).unwrap_or(0));
            if owed == 0 && Instant::now() >= deadline {
                tracing::warn!(
                    "a process that left its group still holds the program's output; it is not waited for"
                );
                return;
            }
        }
        match source.next(deadline.is_some()) {
            Ok(Some(Taken::Closed)) => return,
            Ok(Some(Taken::Portion(portion))) => {
                let read = portion.bytes.len();
                owed = owed.map(|owed| owed.saturating_sub(read as u64));
                hand_over(portion, stream, sink).await;
                if read >= READ_SIZE || deadline.is_some() {
                    yield_now().await;
                } else {
                    sleep(GATHER).await;
                }
            }
            Ok(Some(Taken::Nothing)) => {
                // Nothing is left of what was there.
                owed = owed.map(|_| 0);
                let Ok(pipe) = Receiver::from_owned_fd(source.pipe) else { return };
                let over = async {
                    match deadline {
                        Some(deadline) => sleep_until(deadline.into()).await,
                        // It cannot be closed before the program was waited for.
                        None => drop(ended.changed().await),
                    }
                };
                tokio::select! {
                    biased;
                    ready = pipe.readable() => if ready.is_err() { return },
                    () = over => {}
                }
                let Ok(descriptor) = pipe.into_nonblocking_fd() else { return };
                source.pipe = descriptor;
            }
            Ok(None) => sleep(DISK_RETRY).await,
            Err(_) => return,
        }
    }
}

/// Writes what an earlier process took into the journal and did not finish with.
pub(crate) async fn deliver_rest(stream: Stream, sink: &dyn Sink) {
    let Some(journal) = sink.journal(stream) else { return };
    loop {
        match journal.rest() {
            Ok(Some(portion)) => hand_over(portion, stream, sink).await,
            Ok(None) => return,
            Err(error) => {
                return tracing::error!(%error, "what a program wrote while an earlier process read it cannot be read");
            }
        }
    }
}

async fn hand_over(portion: Portion, stream: Stream, sink: &dyn Sink) {
    match portion {
        Portion { bytes, .. } if bytes.is_empty() => {}
        Portion { bytes, end: Some(end) } => sink.write_journaled(stream, bytes, end).await,
        Portion { bytes, end: None } => sink.write(stream, bytes).await,
    }
}

/// A pipe, and where its bytes go first.
struct Source<'a> {
    pipe: OwnedFd,
    journal: Option<&'a StreamJournal>,
    /// Grows to what the program really writes, so that idle pipes cost little.
    buffer: Vec<u8>,
    /// Since when the disk takes nothing.
    refused_since: Option<Instant>,
}

impl Source<'_> {
    /// The next bytes. None, if the disk does not take them now and the pipe can hold them. Errors: the pipe cannot be read.
    fn next(&mut self, program_ended: bool) -> Result<Option<Taken>, Errno> {
        let Some(journal) = self.journal else { return self.read().map(Some) };
        match journal.take_in(self.pipe.as_fd()) {
            Ok(taken) => {
                self.refused_since = None;
                return Ok(Some(taken));
            }
            Err(Errno::BADF | Errno::PIPE) => return Err(Errno::BADF),
            Err(error) => {
                let since = *self.refused_since.get_or_insert_with(|| {
                    tracing::error!(%error, "what a program writes cannot be written to disk");
                    Instant::now()
                });
                let held = ioctl_fionread(&self.pipe).unwrap_or(0);
                let room = fcntl_getpipe_size(&self.pipe).unwrap_or(0) as u64;
                if !program_ended && since.elapsed() < DISK_PATIENCE && held < room / 2 {
                    return Ok(None);
                }
            }
        }
        self.read().map(Some)
    }

    fn read(&mut self) -> Result<Taken, Errno> {
        if self.buffer.capacity() == 0 {
            self.buffer.reserve_exact(4096);
        }
        loop {
            match read(&self.pipe, spare_capacity(&mut self.buffer)) {
                Ok(0) => return Ok(Taken::Closed),
                Ok(read) => {
                    let next = if read == self.buffer.capacity() { READ_SIZE } else { 4096 };
                    let bytes = std::mem::replace(&mut self.buffer, Vec::with_capacity(next));
                    return Ok(Taken::Portion(Portion { bytes, end: None }));
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(Taken::Nothing),
                Err(error) => return Err(error),
            }
        }
    }
}
