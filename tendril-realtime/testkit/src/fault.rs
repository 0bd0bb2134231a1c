//! The fault plan: what goes wrong, where, how often.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::http::HttpAnswer;

/// Where a fault strikes.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Point {
    /// A TCP connection was accepted and nothing was read from it.
    Accept,
    /// A websocket upgrade was requested.
    Upgrade,
    /// A join of any channel.
    Join,
    /// A join of this channel, without the `realtime:` prefix.
    JoinOf(String),
    /// A heartbeat.
    Heartbeat,
    /// A broadcast or presence push.
    Push,
    /// A leave.
    Leave,
    /// A row change, broadcast or presence message on its way to a client.
    Event,
    /// An HTTP request that is no upgrade, with a path that begins so.
    Http(String),
}

/// What happens there instead.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Answer {
    /// Nothing, ever: the peer is silent. At [`Point::Accept`] and [`Point::Upgrade`] the connection stays open.
    Silence,
    /// What would have happened, but this much later.
    Delay(Duration),
    /// The TCP connection ends without a close frame.
    Cut,
    /// The websocket is closed with this code, after the usual answer.
    Close(u16),
    /// An HTTP answer; at [`Point::Upgrade`] and [`Point::Http`].
    Http(HttpAnswer),
    /// An error reply with this reason; at joins and pushes.
    Refuse(String),
    /// The usual answer, and then the channel crashes (`phx_error`); at joins and pushes.
    Crash,
    /// The usual answer, and then this `system` error of the extension `system`, upon which the server closes the channel; at joins.
    End(String),
    /// The join is accepted, and row changes are never announced.
    NeverSubscribed,
    /// The join is accepted, and row changes are announced as failed with this text.
    SubscribeError(String),
    /// The message goes out twice; at [`Point::Event`].
    Duplicate,
}

/// The plan of one server. Faults strike in the order in which they were made, each as often as its count.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    rules: Arc<Mutex<Vec<Fault>>>,
}

/// One fault of the plan. Without [`times`](Self::times) it strikes until it is [lifted](Self::lift).
#[derive(Debug, Clone)]
pub struct Fault {
    point: Point,
    answer: Answer,
    left: Arc<AtomicU64>,
    struck: Arc<AtomicU64>,
}

impl Faults {
    /// Adds a fault.
    pub fn on(&self, point: Point, answer: Answer) -> Fault {
        let fault = Fault {
            point,
            answer,
            left: Arc::new(AtomicU64::new(u64::MAX)),
            struck: Arc::new(AtomicU64::new(0)),
        };
        self.rules.lock().unwrap_or_else(PoisonError::into_inner).push(fault.clone());
        fault
    }

    /// The plan's fault for this place, if there is one; counts as a strike.
    pub(crate) fn strike(&self, is_here: impl Fn(&Point) -> bool) -> Option<Answer> {
        let rules = self.rules.lock().unwrap_or_else(PoisonError::into_inner);
        let fault = rules.iter().find(|fault| is_here(&fault.point) && fault.take())?;
        Some(fault.answer.clone())
    }
}

impl Fault {
    /// Strikes only so often from now on.
    #[must_use = "it strikes from now on; the handle counts how often it has"]
    pub fn times(self, times: u64) -> Self {
        self.left.store(times, Ordering::SeqCst);
        self
    }

    /// Strikes no more.
    pub fn lift(&self) {
        self.left.store(0, Ordering::SeqCst);
    }

    /// How often it struck.
    pub fn struck(&self) -> u64 {
        self.struck.load(Ordering::SeqCst)
    }

    fn take(&self) -> bool {
        let taken = self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| match left {
            0 => None,
            u64::MAX => Some(u64::MAX),
            more => Some(more - 1),
        });
        if taken.is_ok() {
            self.struck.fetch_add(1, Ordering::SeqCst);
        }
        taken.is_ok()
    }
}
