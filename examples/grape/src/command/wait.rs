//! Wait for the end of a deployment; the exit code is its result.

use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use tokio::signal::unix::{SignalKind, signal};

use super::deploy::{answer, left, waiting};
use crate::{
    cli::{self, Until},
    context::Context,
    control_plane::{
        deployment::{self, Deployment},
        follow::{Follow, FollowEvent},
    },
    failure::{Failure, FailureKind, Result},
    output::{progress::spinner, time::span},
};

/// Waits.
pub(super) async fn wait(context: &Context, options: &cli::Wait) -> Result<()> {
    let project = context.project()?;
    let row = deployment::find(&project, &options.id).await?;
    let bar = spinner(context.out);
    let began = Instant::now();
    show(&bar, &row);
    let mut follow = Follow::start(&project, row.id).await?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let time_limit = options.timeout.unwrap_or(Duration::MAX);
    let ended = async {
        loop {
            let event = tokio::select! {
                event = follow.next() => event?,
                _ = interrupt.recv() => return Err(left(row.id)),
            };
            match event {
                Some(FollowEvent::Changed(row))
                    if options.until == Until::Approval && row.waits_for_approval() =>
                {
                    return Ok((row, true));
                }
                Some(FollowEvent::Changed(row)) => show(&bar, &row),
                Some(FollowEvent::Ended(row)) => return Ok((row, false)),
                Some(FollowEvent::Unreachable(message)) => bar.set_message(message),
                Some(FollowEvent::Logged(_)) => {}
                None => {
                    return Err(Failure::new(
                        FailureKind::Unexpected,
                        "The deployment was not followed to its end.",
                    ));
                }
            }
        }
    };
    let outcome = tokio::time::timeout(time_limit, ended).await;
    bar.finish_and_clear();
    let (row, waits) = outcome.map_err(|_| {
        let text = format!("Deployment {} has not ended within {}.", row.id, span(began.elapsed()));
        Failure::new(FailureKind::TimedOut, text).next(format!("It continues: `grape logs -f {}`.", row.id))
    })??;
    answer(context, &row)?;
    if !context.out.is_json() {
        let code = row.reason().map_or_else(String::new, |code| format!(", {code}"));
        let state = if waits { row.state() } else { &row.status };
        context.out.line(format_args!(
            "{}{code}",
            context.out.style.paint(crate::output::style::Tone::of_status(state), state)
        ))?;
    }
    if waits { Err(waiting(&row)) } else { row.outcome() }
}

fn show(bar: &ProgressBar, row: &Deployment) {
    bar.set_message(format!("{} {}", row.template(), row.state()));
}
