//! What a process takes of the machine.

use std::fs;

/// Memory, threads and descriptors of a process at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    /// Resident memory.
    pub kib: u64,
    /// The part of it that is the process's own: not pages of files.
    pub own_kib: u64,
    /// Threads.
    pub threads: u32,
    /// Open descriptors.
    pub descriptors: u32,
}

impl Usage {
    /// Of a process that runs.
    pub fn of(pid: u32) -> Self {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
        let field = |name: &str| -> u64 {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("the field");
            line.trim().trim_end_matches(" kB").parse().expect("a number")
        };
        // Those of a process that hides its memory are shown to root alone.
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count);
        let small = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        Self {
            kib: field("VmRSS:"),
            own_kib: field("RssAnon:"),
            threads: small(field("Threads:")),
            descriptors: u32::try_from(descriptors).unwrap_or(u32::MAX),
        }
    }

    /// Resident memory in MiB.
    pub fn mebibytes(&self) -> f64 {
        u32::try_from(self.kib).map_or(f64::INFINITY, f64::from) / 1024.0
    }
}
