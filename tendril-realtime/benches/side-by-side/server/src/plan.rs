//! What is sent when, over all connections.

use std::{
    cell::Cell,
    env,
    ops::Range,
    rc::Rc,
    time::{Duration, Instant},
};

use tokio::time::sleep;

/// Rows written at once when there is no pace to keep.
const BURST: u64 = 64;
/// Between the first join and the first row.
const SETTLE: Duration = Duration::from_millis(300);

#[derive(Clone)]
pub(crate) struct Plan {
    events: u64,
    /// Events a second; 0 for as fast as they are taken.
    rate: u64,
    cut_every: u64,
    state: Rc<State>,
}

struct State {
    started: Instant,
    connections: Cell<u64>,
    sent: Cell<u64>,
    /// Since when, and from which event on, the pace is kept.
    pace: Cell<(Instant, u64)>,
    cuts: Cell<u64>,
    /// The time of the last cut, until an event has told it.
    cut_at: Cell<Option<u64>>,
}

pub(crate) enum Turn {
    /// The rows with these numbers.
    Send(Range<u64>),
    Cut,
    Done,
}

impl Plan {
    pub(crate) fn from_arguments() -> Self {
        let mut numbers = env::args().skip(1).map(|text| text.parse::<u64>().expect("a number"));
        let mut next = || numbers.next().expect("EVENTS RATE CUT_EVERY");
        let state = State {
            started: Instant::now(),
            connections: Cell::new(0),
            sent: Cell::new(0),
            pace: Cell::new((Instant::now(), 0)),
            cuts: Cell::new(0),
            cut_at: Cell::new(None),
        };
        Self { events: next(), rate: next(), cut_every: next(), state: Rc::new(state) }
    }

    /// Prints a line about something that happened.
    pub(crate) fn note(&self, what: &str) {
        super::say(&format!("{what} {}", self.state.started.elapsed().as_millis()));
    }

    /// Returns whether it is the first connection.
    pub(crate) fn connected(&self) -> bool {
        self.note("connected");
        self.state.connections.replace(self.state.connections.get() + 1) == 0
    }

    /// Rows may flow.
    pub(crate) async fn start(&self, first: bool) {
        if first {
            sleep(SETTLE).await;
        }
        self.state.pace.set((Instant::now(), self.state.sent.get()));
    }

    /// Waits for what comes next. Cancel safe: it changes nothing.
    pub(crate) async fn turn(&self) -> Turn {
        let sent = self.state.sent.get();
        if sent >= self.events {
            return Turn::Done;
        }
        let mut end = self.events;
        if self.cut_every > 0 {
            let next_cut = (self.state.cuts.get() + 1) * self.cut_every;
            if sent >= next_cut {
                return Turn::Cut;
            }
            end = end.min(next_cut);
        }
        if self.rate == 0 {
            return Turn::Send(sent + 1..end.min(sent + BURST) + 1);
        }
        loop {
            let (since, from) = self.state.pace.get();
            let due = from + (since.elapsed().as_micros() as u64 * self.rate).div_ceil(1_000_000);
            if due > sent {
                return Turn::Send(sent + 1..due.min(end).min(sent + BURST) + 1);
            }
            sleep(Duration::from_millis(1)).await;
        }
    }

    pub(crate) fn sent(&self, last: u64) {
        self.state.sent.set(last);
    }

    /// The time to put into a row: when it is sent; for the first one after a cut, when the cut was.
    pub(crate) fn stamp(&self) -> u64 {
        match self.state.cut_at.take() {
            Some(cut) => cut,
            None if self.rate == 0 => 0,
            None => bench_meter::monotonic_ns(),
        }
    }

    pub(crate) fn cut(&self) {
        self.note("cut");
        self.state.cuts.set(self.state.cuts.get() + 1);
        self.state.cut_at.set(Some(bench_meter::monotonic_ns()));
    }
}
