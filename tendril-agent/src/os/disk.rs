//! A disk that is too full.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Below this much free space Terraform could not write its state, in bytes.
pub(crate) const LEAST_FREE: u64 = 64 * 1024 * 1024;
const MIB: u64 = 1024 * 1024;
/// Below this many free inodes, or a tenth of all, runs, logs and states could lack files.
pub(crate) const LEAST_FREE_INODES: u64 = 4096;

/// Why there is no room, as far as one job is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DiskPressure {
    /// Bytes in the work directory.
    pub(crate) used: u64,
    /// Bytes that it may hold.
    pub(crate) limit: u64,
    /// Bytes that are left on its disk.
    pub(crate) free: u64,
    /// Bytes of this job.
    pub(crate) own: u64,
    /// Where there are bytes, and hardly any more files fit.
    #[serde(default)]
    pub(crate) inodes: Option<InodePressure>,
}

/// A disk on which hardly any more files fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct InodePressure {
    /// How many do.
    pub(crate) free: u64,
    /// How many of them are reserved.
    pub(crate) reserved: u64,
    /// Files of this job.
    pub(crate) own: u64,
}

impl fmt::Display for DiskPressure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(InodePressure { free, reserved, own }) = self.inodes {
            return write!(
                f,
                "Only {free} more files fit on the disk of the agent's work directory (inodes), and {reserved} are reserved; this job had most of them, {own}"
            );
        }
        let [used, limit, free, own] = [self.used, self.limit, self.free, self.own].map(|bytes| bytes / MIB);
        if self.used > self.limit {
            write!(
                f,
                "The agent's work directory held {used} MiB, and its limit is {limit} MiB (--work-limit / TENDRIL_WORK_LIMIT)"
            )?;
        } else {
            let least = LEAST_FREE / MIB;
            write!(
                f,
                "Only {free} MiB were free on the disk of the agent's work directory, and {least} MiB are reserved for states"
            )?;
        }
        write!(f, "; this job had most of it, {own} MiB")
    }
}
