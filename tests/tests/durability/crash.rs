//! A part of the crash table; `cargo bench -p tendril-tests --bench crash` plays all of it.

use futures_util::{StreamExt as _, stream};
use tendril_tests::{
    World,
    crash::{self, Crash, Launcher},
};

/// One or two places of each stage, each with a seed of its own.
const SOME: &[(&str, u64)] = &[
    ("claim.answered", 1),
    ("workspace.claimed", 1),
    ("step.ended", 2),
    ("lock_owner.saved", 2),
    ("approval.saved", 1),
    ("journal.taken", 6),
    ("writer.took", 4),
    ("writer.line", 600),
    ("spool.flushing", 8),
    ("spool.flushed", 4),
    ("spool.sealed", 2),
    ("spool.dropped", 1),
    ("sink.stored", 2),
    ("sink.based", 1),
    ("apply.flushed", 1),
    ("final_status.saved", 1),
    ("final_status.stored", 1),
    ("workspace.removing", 1),
    ("recovery.resumed", 1),
    ("recovery.counted", 1),
];

#[tokio::test]
async fn an_agent_that_is_killed_anywhere_loses_and_doubles_no_line() {
    play(Launcher::InProcess).await;
}

#[tokio::test]
async fn a_dispatcher_or_executor_that_is_killed_anywhere_loses_and_doubles_no_line() {
    play(Launcher::Local).await;
}

async fn play(launcher: Launcher) {
    crash::prepare();
    let world = World::start().await;
    if world.project.stack("leases are ended by hand, and log rows refused").is_none() {
        return;
    }
    let crashes =
        SOME.iter().zip(1..).map(|((place, time), seed)| Crash { launcher, place, time: *time, seed });
    let play = async |crash: Crash| crash.play(&world).await.err().map(|why| format!("{crash:?}: {why}"));
    let broken: Vec<_> =
        stream::iter(crashes).map(play).buffer_unordered(4).filter_map(std::future::ready).collect().await;
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}
