//! `grape watch`: clusters and deployments as they are, live.
//!
//! ```text
//! board    what is known, and where the selection is; pure
//! screen   the board drawn
//! ```

mod board;
mod screen;

use std::{io::IsTerminal as _, time::Duration};

use futures_util::StreamExt as _;
use jiff::{Timestamp, ToSpan as _};
use ratatui::crossterm::event::{self, Event};
use serde_json::json;
use tendril_realtime::{
    Retry,
    watch::{Watch, WatchEvent},
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    time::interval,
};

use self::board::{Action, Board};
use super::lists::short_id;
use crate::{
    cli,
    context::Context,
    control_plane::{
        cluster::{self, Cluster},
        deployment::{self, Deployment},
    },
    failure::{Failure, FailureKind, Result},
    output::Format,
};

/// How often the tables are read while events do not flow, and while they do.
const POLLS: (Duration, Duration) = (Duration::from_secs(3), Duration::from_secs(30));

/// The two tables.
struct Feed {
    clusters: Watch<Cluster>,
    deployments: Watch<Deployment>,
}

/// Something of them.
#[allow(clippy::large_enum_variant, reason = "each is there for one turn of a loop")]
enum FeedEvent {
    Cluster(WatchEvent<Cluster>),
    Deployment(WatchEvent<Deployment>),
    Failed(String),
}

impl Feed {
    /// The next event; passing errors are events, others end it.
    async fn next(&mut self) -> Result<FeedEvent> {
        let error = tokio::select! {
            Some(event) = self.clusters.next() => match event {
                Ok(WatchEvent::Interrupted(error) | WatchEvent::Undecodable { error, .. }) | Err(error) => error,
                Ok(event) => return Ok(FeedEvent::Cluster(event)),
            },
            Some(event) = self.deployments.next() => match event {
                Ok(WatchEvent::Interrupted(error) | WatchEvent::Undecodable { error, .. }) | Err(error) => error,
                Ok(event) => return Ok(FeedEvent::Deployment(event)),
            },
            else => return Err(Failure::new(FailureKind::Unexpected, "The watch has ended.")),
        };
        let is_final = error.retry() == Retry::Never;
        let message = error.to_string();
        let failure = Failure::from(error);
        if is_final || failure.kind() == FailureKind::NotSignedIn {
            Err(failure)
        } else {
            Ok(FeedEvent::Failed(message))
        }
    }
}

/// Watches: a table on a terminal, a line for each change otherwise.
pub(super) async fn watch(context: &Context, options: &cli::Watch) -> Result<()> {
    let project = context.project()?;
    let only = match options.of.cluster.as_deref() {
        Some(name) => Some(cluster::find(&project, Some(name)).await?.id),
        None => None,
    };
    let since =
        Timestamp::now().checked_sub(i64::from(options.hours).hours()).unwrap_or(Timestamp::UNIX_EPOCH);
    let clusters = match only {
        Some(id) => Cluster::query_one(id),
        None => Cluster::query(),
    };
    let feed = Feed {
        clusters: project.client.watch(clusters.poll_interval(POLLS.0).resync_interval(POLLS.1))?,
        deployments: project
            .client
            .watch(deployment::query_since(since, only).poll_interval(POLLS.0).resync_interval(POLLS.1))?,
    };
    let table = context.out.format == Format::Text
        && std::io::stdout().is_terminal()
        && std::io::stdin().is_terminal();
    if table {
        let title = format!("{} · {}", project.profile.url, project.name);
        on_terminal(context, feed, title, project.client.status()).await
    } else {
        as_lines(context, feed).await
    }
}

async fn on_terminal(
    context: &Context,
    mut feed: Feed,
    title: String,
    status: tokio::sync::watch::Receiver<tendril_realtime::Status>,
) -> Result<()> {
    let mut board = Board::new(title, context.out.style.coloured);
    let mut keys = keys();
    let mut tick = interval(Duration::from_millis(500));
    let mut terminate = signal(SignalKind::terminate())?;
    let mut terminal = ratatui::try_init()?;
    let outcome = async {
        loop {
            tokio::select! {
                update = feed.next() => match update? {
                    FeedEvent::Cluster(event) => board.on_cluster(event),
                    FeedEvent::Deployment(event) => board.on_deployment(event),
                    FeedEvent::Failed(message) => board.problem = Some(message),
                },
                Some(event) = keys.recv() => if let Event::Key(key) = event && board.on_key(key) == Action::Leave {
                    return Ok(());
                },
                _ = tick.tick() => {
                    let status = status.borrow();
                    board.live = status.channels > 0 && status.subscribed_channels == status.channels;
                }
                _ = terminate.recv() => return Ok(()),
            }
            // Events that came together are drawn once.
            while let Some(update) = futures_util::FutureExt::now_or_never(feed.next()) {
                match update? {
                    FeedEvent::Cluster(event) => board.on_cluster(event),
                    FeedEvent::Deployment(event) => board.on_deployment(event),
                    FeedEvent::Failed(message) => board.problem = Some(message),
                }
            }
            let now = Timestamp::now();
            terminal.draw(|frame| screen::draw(&mut board, now, frame))?;
        }
    }
    .await;
    ratatui::restore();
    outcome
}

/// Keys from a thread of its own: reading them blocks.
fn keys() -> mpsc::Receiver<Event> {
    let (sender, receiver) = mpsc::channel(16);
    std::thread::spawn(move || {
        while let Ok(event) = event::read() {
            if sender.blocking_send(event).is_err() {
                return;
            }
        }
    });
    receiver
}

async fn as_lines(context: &Context, mut feed: Feed) -> Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    loop {
        let update = tokio::select! {
            update = feed.next() => update?,
            _ = interrupt.recv() => return Ok(()),
        };
        let out = context.out;
        match update {
            FeedEvent::Cluster(WatchEvent::InitApply(row) | WatchEvent::Apply(row)) => {
                if out.is_json() {
                    out.json_line(&json!({ "type": "cluster", "cluster": row }))?;
                } else {
                    out.line(format_args!("{:.0} cluster {} {}", Timestamp::now(), row.name, row.state()))?;
                }
            }
            FeedEvent::Deployment(WatchEvent::InitApply(row) | WatchEvent::Apply(row)) => {
                if out.is_json() {
                    out.json_line(&json!({ "type": "deployment", "deployment": row }))?;
                } else {
                    let now = Timestamp::now();
                    out.line(format_args!(
                        "{now:.0} deployment {} {} {} {}",
                        short_id(row.id),
                        row.template(),
                        row.action(),
                        row.state()
                    ))?;
                }
            }
            FeedEvent::Failed(message) => out.note(format_args!("grape: {message}; watching continues.")),
            FeedEvent::Cluster(_) | FeedEvent::Deployment(_) => {}
        }
    }
}
