//! Flags and environment variables, and the settings that the rooms get from them.

pub(crate) mod args;
pub mod doctor;
pub(crate) mod handed_secrets;
#[cfg(feature = "kubernetes")]
pub(crate) mod kubernetes;
pub(crate) mod preflight;
pub(crate) mod settings;
pub(crate) mod timing;
pub(crate) mod versions;
