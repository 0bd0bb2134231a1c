//! The session of a profile: a file that its owner alone can read, and a lock beside it.

use std::{
    fs::{self, Permissions},
    io::{self, Seek as _, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use tempfile::NamedTempFile;

use super::{
    Session,
    private_file::{FileLock, make_dir, unreadable, write_private},
    profile::ConfigDir,
};
use crate::failure::Result;

/// Where the session of one profile is stored.
#[derive(Debug, Clone)]
pub struct SessionStore {
    path: PathBuf,
    lock: PathBuf,
}

impl SessionStore {
    /// The store of a profile.
    pub fn new(dir: &ConfigDir, profile: &str) -> Self {
        let dir = dir.join("sessions");
        Self { path: dir.join(format!("{profile}.json")), lock: dir.join(format!("{profile}.lock")) }
    }

    /// The session, where there is one. What other users could read is closed to them first.
    ///
    /// # Errors
    /// A file that cannot be read. One that holds no session counts as none: signing in writes it again.
    pub fn load(&self) -> Result<Option<Session>> {
        let text = match fs::read(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(unreadable(&self.path, error)),
        };
        let mode = fs::metadata(&self.path).map_or(0, |meta| meta.permissions().mode());
        if mode & 0o077 != 0 {
            eprintln!(
                "grape: {} could be read by others; it is closed now. If others use this machine, sign in again.",
                self.path.display()
            );
            let _ = fs::set_permissions(&self.path, Permissions::from_mode(0o600));
        }
        Ok(serde_json::from_slice(&text).ok())
    }

    /// Writes the session, whole or not at all.
    ///
    /// # Errors
    /// A directory that cannot be written, a full disk.
    pub fn save(&self, session: &Session) -> Result<()> {
        let text = zeroize::Zeroizing::new(serde_json::to_vec(session).map_err(io::Error::from)?);
        write_private(&self.path, &text).map_err(|error| unreadable(&self.path, error))
    }

    /// Takes the room that the next session needs, so that a full disk is found before the refresh token is used up.
    ///
    /// # Errors
    /// A directory that cannot be written, a full disk.
    pub fn reserve(&self) -> Result<Reserved> {
        let reserve = || -> io::Result<NamedTempFile> {
            make_dir(&self.path)?;
            let mut file = NamedTempFile::new_in(self.path.parent().unwrap_or(Path::new(".")))?;
            file.write_all(&vec![b' '; ROOM])?;
            file.as_file().sync_all()?;
            Ok(file)
        };
        let file = reserve().map_err(|error| unreadable(&self.path, error))?;
        Ok(Reserved { file, path: self.path.clone() })
    }

    /// Deletes the session.
    ///
    /// # Errors
    /// A directory that cannot be written.
    pub fn clear(&self) -> Result<()> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(unreadable(&self.path, error)),
            _ => Ok(()),
        }
    }

    /// Waits until no other process renews this session, and lets others wait until it is dropped. Blocks the thread.
    ///
    /// # Errors
    /// A directory that cannot be written.
    pub fn lock(&self) -> Result<FileLock> {
        FileLock::take(&self.lock)
    }
}

/// Bytes that are reserved for a session: tokens with many claims have some thousands.
const ROOM: usize = 32 * 1024;

/// Room on the disk for the next session.
#[derive(Debug)]
pub struct Reserved {
    file: NamedTempFile,
    path: PathBuf,
}

impl Reserved {
    /// Writes the session there, and puts it in the place of the last one.
    ///
    /// # Errors
    /// A disk that fails.
    pub fn save(mut self, session: &Session) -> Result<()> {
        let path = self.path.clone();
        let mut save = || -> io::Result<()> {
            let text = zeroize::Zeroizing::new(serde_json::to_vec(session)?);
            self.file.rewind()?;
            self.file.write_all(&text)?;
            self.file.as_file().set_len(text.len() as u64)?;
            self.file.as_file().sync_all()
        };
        save().map_err(|error| unreadable(&path, error))?;
        self.file.persist(&path).map(drop).map_err(|error| unreadable(&path, error.error))
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::{super::User, *};

    fn session(token: &str) -> Session {
        Session {
            access_token: token.to_owned().into(),
            refresh_token: "r".to_owned().into(),
            received_at: 0,
            expires_at: 1,
            user: User { id: Uuid::nil(), email: Some("a@b.c".to_owned()) },
        }
    }

    #[test]
    fn a_session_is_readable_by_its_owner_alone_and_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let store = SessionStore::new(&ConfigDir::at(dir.path().join("new")), "work");
        assert_eq!(store.load().unwrap(), None);
        store.save(&session("one")).unwrap();
        store.save(&session("two")).unwrap();
        assert_eq!(store.load().unwrap(), Some(session("two")));
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&store.path), mode(store.path.parent().unwrap())), (0o600, 0o700));
        store.clear().unwrap();
        store.clear().unwrap();
        assert_eq!(store.load().unwrap(), None);
    }

    #[test]
    fn room_for_a_session_is_taken_before_and_leaves_the_old_one_until_it_is_used() {
        let dir = tempfile::tempdir().unwrap();
        let store = SessionStore::new(&ConfigDir::at(dir.path()), "work");
        store.save(&session("one")).unwrap();
        let room = store.reserve().unwrap();
        assert_eq!(store.load().unwrap(), Some(session("one")));
        room.save(&session("two")).unwrap();
        assert_eq!(store.load().unwrap(), Some(session("two")));
        drop(store.reserve().unwrap());
        assert_eq!(
            fs::read_dir(dir.path().join("sessions")).unwrap().count(),
            1,
            "what is not used is removed"
        );
        // A place where nothing can be written.
        fs::write(dir.path().join("file"), "").unwrap();
        assert!(SessionStore::new(&ConfigDir::at(dir.path().join("file")), "work").reserve().is_err());
    }

    #[test]
    fn a_session_that_others_could_read_is_closed_to_them() {
        let dir = tempfile::tempdir().unwrap();
        let store = SessionStore::new(&ConfigDir::at(dir.path()), "work");
        store.save(&session("one")).unwrap();
        fs::set_permissions(&store.path, Permissions::from_mode(0o644)).unwrap();
        assert!(store.load().unwrap().is_some());
        assert_eq!(fs::metadata(&store.path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_file_that_was_damaged_counts_as_no_session() {
        let dir = tempfile::tempdir().unwrap();
        let store = SessionStore::new(&ConfigDir::at(dir.path()), "work");
        store.save(&session("one")).unwrap();
        fs::write(&store.path, "{\"access_tok").unwrap();
        assert_eq!(store.load().unwrap(), None);
    }
}
