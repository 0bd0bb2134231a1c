//! The log of a deployment, as it is or as it comes.

use tendril_examples::log::{Chunk, LogOrder};
use tendril_realtime::col;

use super::{deploy::to_the_end, log_printer::Printer};
use crate::{
    cli::{self, Until},
    context::Context,
    control_plane::{
        deployment::{self, Deployment},
        follow::Follow,
        project::Project,
    },
    failure::Result,
};

/// Prints a log.
pub(super) async fn logs(context: &Context, options: &cli::Logs) -> Result<()> {
    let project = context.project()?;
    let row = deployment::find(&project, &options.id).await?;
    let mut printer = Printer::new(context.out, options.timestamps);
    if options.follow {
        let follow = Follow::start(&project, row.id).await?;
        return to_the_end(context, row.id, follow, printer, Until::End).await;
    }
    let mut last = (options.attempt.unwrap_or(0), 0);
    let mut order = LogOrder::default();
    loop {
        let chunks = page(&project, &row, options.attempt, last).await?;
        let Some(end) = chunks.last() else { break };
        last = (end.attempt, end.seq);
        for chunk in chunks {
            for chunk in order.put(chunk) {
                printer.chunk(&chunk)?;
            }
        }
    }
    // A chunk that is still on its way leaves a gap: what comes after it is shown all the same.
    order.rest().iter().try_for_each(|chunk| printer.chunk(chunk))
}

/// The chunks after this one: pages by key, however long the log is.
async fn page(
    project: &Project,
    row: &Deployment,
    attempt: Option<i32>,
    (at, seq): (i32, i64),
) -> Result<Vec<Chunk>> {
    let chunks = project
        .rest()
        .from("deployment_logs")
        .select("attempt,seq,stream,log_chunk,ts")
        .eq("deployment_id", row.id);
    let chunks = match attempt {
        Some(attempt) => chunks.eq("attempt", attempt).gt("seq", seq),
        None => chunks.or([col("attempt").gt(at), col("attempt").eq(at).and(col("seq").gt(seq))]),
    };
    Ok(chunks.order("attempt").order("seq").limit(500).rows().await?)
}
