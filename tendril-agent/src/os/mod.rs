//! The operating system: files, directories, locks and programs. It knows nothing of Terraform or Supabase.
//!
//! ```text
//! files       private files and directories, made durable
//! walk        directory trees that others made, measured and removed without recursion
//! ownership   who owns a directory tree
//! tree_digest the digest of a tree that others may have changed
//! untrusted   files that others may have made
//! file_lock   locks between processes
//! disk        a disk that is too full
//! room        room that is taken from a disk before it is needed
//! blocking    work that waits for the disk, on a thread of its own
//! program     programs on this machine
//! text        where a text may be cut
//! failpoint   places where a test kills the agent
//! ```

mod blocking;
mod disk;
pub(crate) mod failpoint;
pub(crate) mod file_lock;
pub(crate) mod files;
pub(crate) mod ownership;
pub(crate) mod program;
pub(crate) mod room;
pub(crate) mod text;
pub(crate) mod tree_digest;
pub(crate) mod untrusted;
pub(crate) mod walk;

pub(crate) use self::{
    blocking::blocking,
    disk::{DiskPressure, InodePressure, LEAST_FREE, LEAST_FREE_INODES},
    failpoint::failpoint,
};
