//! Where a job's files come from, and the directory that Terraform works in.

pub(crate) mod catalogue;
pub(crate) mod declared;
pub(crate) mod definition;
pub(crate) mod git;
pub(crate) mod workspace;
