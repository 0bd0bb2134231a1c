//! A run whose directory somebody removes: it can keep nothing any more, neither its log nor its result, so it is stopped.

use std::{
    convert::Infallible, fs, future::pending, io, os::unix::fs::MetadataExt as _, path::Path, time::Duration,
};

use tokio::time::sleep;

use crate::{
    os::blocking,
    process::{StopReason, StopSignal},
};

/// Between two looks.
const LOOK: Duration = Duration::from_secs(2);

/// Stops a run once this directory, which is there, is removed, or another one is in its place.
pub(crate) async fn stop_without(dir: &Path, stop: &StopSignal) -> Infallible {
    removed(dir).await;
    tracing::error!(dir = %dir.display(), "the directory of a run was removed: the run is ended gracefully");
    stop.request(StopReason::DirectoryRemoved);
    pending().await
}

/// Waits until this directory, which is there, is removed, or another one is in its place.
pub(crate) async fn removed(dir: &Path) {
    let first = match identity(dir).await {
        Ok(first) => first,
        Err(error) => {
            tracing::debug!(dir = %dir.display(), %error, "whether a directory stays cannot be seen");
            return pending().await;
        }
    };
    loop {
        sleep(LOOK).await;
        match identity(dir).await {
            Ok(now) if now == first => {}
            // A disk that is away for a moment has removed nothing.
            Err(error) if error.kind() != io::ErrorKind::NotFound => {}
            _ => return,
        }
    }
}

/// What no other directory has at the same time: device, inode and, because the number of an inode is given away again, the time
/// at which it was made.
async fn identity(dir: &Path) -> io::Result<(u64, u64, Option<std::time::SystemTime>)> {
    let dir = dir.to_path_buf();
    blocking(move || {
        let metadata = fs::symlink_metadata(dir)?;
        Ok((metadata.dev(), metadata.ino(), metadata.created().ok()))
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_run_is_stopped_when_its_directory_is_gone_or_another_one_and_not_before() {
        let place = tempfile::tempdir().unwrap();
        for replaced in [false, true] {
            let (dir, stop) = (place.path().join("run"), StopSignal::default());
            fs::create_dir(&dir).unwrap();
            fs::write(dir.join("file"), "").unwrap();
            let watched = async {
                sleep(LOOK * 3).await;
                assert_eq!(stop.requested(), None);
                fs::remove_dir_all(&dir).unwrap();
                if replaced {
                    fs::create_dir(&dir).unwrap();
                }
                stop.wait().await;
            };
            tokio::select! {
                never = stop_without(&dir, &stop) => match never {},
                () = watched => assert_eq!(stop.requested(), Some(StopReason::DirectoryRemoved)),
            }
            let _replaced = fs::remove_dir(&dir);
        }
    }
}
