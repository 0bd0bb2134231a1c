//! What is worth knowing at the end.

use std::{
    fs, io,
    time::{Duration, Instant},
};

use tendril_examples::{
    deployment::Deployment,
    log::Chunk,
    screen::{Screen, printable, span},
};

/// Counted while the log scrolls by.
pub(crate) struct Summary {
    agent: u32,
    inserted: Instant,
    first_log: Option<Duration>,
    chunks: u64,
    lines: usize,
}

impl Summary {
    /// Begins with the insert.
    pub(crate) fn new(agent: u32, inserted: Instant) -> Self {
        Self { agent, inserted, first_log: None, chunks: 0, lines: 0 }
    }

    /// Counts a chunk that has just arrived.
    pub(crate) fn count(&mut self, chunk: &Chunk) {
        self.first_log.get_or_insert_with(|| self.inserted.elapsed());
        self.chunks += 1;
        self.lines += chunk.lines().count();
    }

    /// Prints it all.
    pub(crate) fn print(&self, row: &Deployment, screen: &Screen) -> io::Result<()> {
        screen.line("")?;
        screen.fact("status", screen.end(row))?;
        for (name, value) in row.outputs.iter().flatten() {
            screen.fact("output", format_args!("{name} = {}", printable(&value.to_string())))?;
        }
        if let Some(claimed) = row.claimed_at.map(|time| span(row.since_queued(time))) {
            screen.fact("claimed", format_args!("{claimed} after the insert (database clock)"))?;
        }
        if let Some(first_log) = self.first_log.map(span) {
            screen.fact("first log", format_args!("{first_log} after the insert, as the user saw it"))?;
        }
        let missing = match u64::try_from(row.log_count) {
            Ok(stored) if stored != self.chunks => format!(", but {stored} are stored"),
            _ => String::new(),
        };
        screen.fact("log", format_args!("{} chunks, {} lines{missing}", self.chunks, self.lines))?;
        if let Some(resident) = resident(self.agent) {
            let build = if cfg!(debug_assertions) { "debug build" } else { "release build" };
            screen.fact("memory", format_args!("{resident} resident, the agent ({build})"))?;
        }
        Ok(())
    }
}

/// A process' resident set, where the system has it in /proc.
fn resident(process: u32) -> Option<String> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(format!("{:.1} MiB", kib / 1024.0))
}
