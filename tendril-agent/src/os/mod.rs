//! The operating system: files and locks. It knows nothing of Terraform or Supabase.

pub(crate) mod blocking;
pub(crate) mod disk;
pub(crate) mod failpoint;
pub(crate) mod file_lock;
pub(crate) mod files;
pub(crate) mod program;
pub(crate) mod text;
pub(crate) mod walk;
