//! Places where a test kills the agent, to see what its next run makes of what is left on disk.
//!
//! Compiled in with the feature `failpoints` only. `TENDRIL_FAILPOINT=spool.flushed:3` ends the process with SIGKILL when
//! it comes to that place for the third time: nothing is flushed, and the agent does not report that it stops.

/// Every place, in the order in which a job reaches them; the last ones are those of a dispatcher whose runs are pods.
#[cfg(feature = "failpoints")]
const FAILPOINTS: &[&str] = &[
    "claim.answered",
    "claim.won",
    "workspace.made",
    "workspace.claimed",
    "workspace.logging",
    "step.begins",
    "lock_owner.saved",
    "step.ended",
    "journal.taken",
    "writer.took",
    "writer.line",
    "spool.flushing",
    "spool.flushed",
    "spool.sealed",
    "spool.begun",
    "spool.dropping",
    "spool.dropped",
    "sink.read",
    "sink.sending",
    "sink.stored",
    "sink.based",
    "sink.forgot",
    "progress.stored",
    "approval.saved",
    "approval.shown",
    "apply.saved",
    "apply.flushed",
    "final_status.made",
    "final_status.saved",
    "final_status.uploaded",
    "final_status.counted",
    "final_status.stored",
    "workspace.removing",
    "final_status.removed",
    "recovery.found",
    "recovery.cleared",
    "recovery.resumed",
    "recovery.uploaded",
    "recovery.counted",
    "recovery.stored",
    "lease.won",
    "run.job_made",
    "run.secret_made",
    "run.ended",
    "run.concluded",
];

/// A place of that name. Nothing without the feature.
macro_rules! failpoint {
    ($name:literal) => {
        #[cfg(feature = "failpoints")]
        $crate::os::failpoint::hit($name);
    };
}
pub(crate) use failpoint;

/// Dies here if this is the place and the time.
#[cfg(feature = "failpoints")]
pub(crate) fn hit(name: &str) {
    use std::sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    };

    static PLAN: OnceLock<Option<(String, u64)>> = OnceLock::new();
    static HITS: AtomicU64 = AtomicU64::new(0);
    let plan = PLAN.get_or_init(|| {
        let plan = std::env::var("TENDRIL_FAILPOINT").ok()?;
        let (name, time) = plan.split_once(':')?;
        if !FAILPOINTS.contains(&name) {
            tracing::error!("TENDRIL_FAILPOINT names \"{name}\", which is no fail point");
        }
        Some((name.to_owned(), time.parse().ok()?))
    });
    let Some((wanted, time)) = plan else { return };
    // Of processes that are started again after their death, one dies: who makes this file.
    let is_first = || {
        std::env::var_os("TENDRIL_FAILPOINT_ONCE").is_none_or(|file| std::fs::File::create_new(file).is_ok())
    };
    if name == wanted && HITS.fetch_add(1, Ordering::SeqCst) + 1 == *time && is_first() {
        let _dead = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        // The signal may find another thread first; this one does nothing more.
        loop {
            std::thread::park();
        }
    }
}
