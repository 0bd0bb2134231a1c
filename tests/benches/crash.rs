//! The crash table: the agent is killed with SIGKILL at each fail point, with several seeds, with its jobs inside it and in
//! executors, where the one of the two processes dies that comes to the place. What lives then has to make good what was left:
//! every line that was read, once and in order, and a row that agrees.
//!
//! `cargo bench -p tendril-tests --bench crash`; `-- 20` for other than 5 seeds, `-- 3 spool` for some of the places.
#![allow(clippy::expect_used, reason = "a measurement that cannot be made ends the program")]

use std::{collections::BTreeMap, process::ExitCode, time::Instant};

use futures_util::{StreamExt as _, stream};
use tendril_tests::{
    World,
    crash::{self, Aftermath, Crash, Launcher},
};

/// Crashes at the same time.
const ABREAST: usize = 6;

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    // `cargo test --benches` runs this too, with `--test`: the subset that is a test of its own is enough.
    if arguments.iter().any(|argument| argument == "--test") {
        return ExitCode::SUCCESS;
    }
    let seeds = arguments.first().map_or(5, |text| text.parse().expect("a number of seeds"));
    let wanted = arguments.get(1).cloned().unwrap_or_default();
    let mut crashes = Crash::all(seeds);
    crashes.retain(|crash| crash.place.contains(&wanted));

    crash::prepare();
    let (world, started) = (World::start().await, Instant::now());
    let mut playing = stream::iter(crashes)
        .map(async |crash| {
            let began = Instant::now();
            (crash, crash.play(&world).await, began.elapsed())
        })
        .buffer_unordered(ABREAST);
    println!(
        "{:<10} {:<20} {:>4} {:>4}  {:<8} {:>7} {:>9} {:>7}  outcome",
        "launcher", "place", "time", "seed", "status", "attempt", "lines", "seconds"
    );
    let (mut played, mut broken, mut places) = (0, 0, BTreeMap::<_, [u32; 2]>::new());
    while let Some((crash, outcome, took)) = playing.next().await {
        played += 1;
        let Crash { launcher, place, time, seed } = crash;
        let how = launcher.name();
        places.entry((launcher, place, time)).or_insert([0, 0])[usize::from(outcome.is_err())] += 1;
        let seconds = took.as_secs_f64();
        match outcome {
            Ok(Aftermath { row, lines, on_disk }) => {
                let reported = lines.values().sum::<usize>();
                println!(
                    "{how:<10} {place:<20} {time:>4} {seed:>4}  {:<8} {:>7} {reported:>9} {seconds:>7.1}  whole ({on_disk} were on disk)",
                    row.status, row.attempt
                );
            }
            Err(why) => {
                broken += 1;
                println!(
                    "{how:<10} {place:<20} {time:>4} {seed:>4}  {:<8} {:>7} {:>9} {seconds:>7.1}  BROKEN: {why}",
                    "", "", ""
                );
            }
        }
    }
    for launcher in Launcher::ALL {
        let of = places.iter().filter(|((of, ..), _)| *of == launcher).map(|(_, counts)| counts);
        let (points, [whole, broken]) =
            of.fold((0, [0, 0]), |(points, [whole, broken]), [w, b]| (points + 1, [whole + w, broken + b]));
        println!(
            "launcher {:<10}  {points} points, {whole} crashes made good, {broken} broken",
            launcher.name()
        );
    }
    println!(
        "{played} crashes at {} points, {broken} broken, {:.0} s",
        places.len(),
        started.elapsed().as_secs_f64()
    );
    if broken == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
