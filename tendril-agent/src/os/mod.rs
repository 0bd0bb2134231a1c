//! The operating system: files and locks. It knows nothing of Terraform or Supabase.

pub(crate) mod failpoint;
pub(crate) mod file_lock;
