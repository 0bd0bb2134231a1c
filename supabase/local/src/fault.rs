//! The fault plan: what a test needs and no real server offers.
//!
//! Some faults happen once to what is open now ([`Faults::cut_sockets`], [`Faults::restart`]), some are switches
//! ([`Faults::stall_sockets`], [`Faults::refuse_rest`]), and some are injected for chosen requests or frames
//! ([`Faults::on_requests`], [`Faults::on_frames`]) until they are lifted.
//!
//! ```no_run
//! # async fn example(stack: &supabase_local::Stack) {
//! use std::time::Duration;
//! use supabase_local::{Cut, FrameFault, RequestFault, Target};
//!
//! let faults = stack.faults();
//! faults.cut_sockets(Cut::Abrupt); // the open sockets break without a close frame
//! faults.restart(Duration::from_secs(2)); // 1012 to all, and two seconds of "connection refused"
//!
//! // A fifth of all claims are committed, but their answer never arrives.
//! let claims = Target::all().method("PATCH").path("/rest/v1/deployments").chance(0.2);
//! let lost = faults.on_requests(RequestFault::DropAfter, claims);
//! // One cluster's rows are lost on the way, as when the server's database connections break.
//! faults.on_frames(FrameFault::Withhold, Target::all().event("postgres_changes").claim("cluster_id", "c1"));
//! assert_eq!(lost.struck(), 0);
//! lost.lift();
//! faults.clear();
//! # }
//! ```

mod frame;
mod plan;
mod port;
mod rates;
mod request;
mod target;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{broadcast, watch};
use tokio::time::Instant;

use crate::clock::Clock;
pub use frame::FrameFault;
pub(crate) use plan::FrameOutcome;
pub use plan::Injection;
use plan::{Fault, Plan};
pub(crate) use port::{Port, ReopeningListener};
pub(crate) use rates::RateTicks;
pub use request::RequestFault;
pub(crate) use request::strike;
pub(crate) use target::Subject;
pub use target::Target;

/// How open sockets end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cut {
    /// With a close frame of this code, as the server does when it restarts (1012) or has enough (1001).
    Close(u16),
    /// The connection just breaks: no close frame. A client sees code 1006.
    Abrupt,
}

/// The faults of one stack. Cloning gives another handle to the same faults.
#[derive(Debug, Clone)]
pub struct Faults {
    switches: Arc<Switches>,
    plan: Arc<Plan>,
}

#[derive(Debug)]
struct Switches {
    realtime_refused: AtomicBool,
    rest_refused: AtomicBool,
    suspended: AtomicBool,
    rates: Arc<RateTicks>,
    stalled: watch::Sender<bool>,
    port: watch::Sender<Port>,
    socket_faults: broadcast::Sender<SocketFault>,
    clock: Clock,
}

/// Something that happens at once to the sockets that fit.
#[derive(Debug, Clone)]
pub(crate) enum SocketFault {
    /// The socket ends.
    Cut(Cut, Arc<Target>),
    /// The token of each channel has just expired.
    Expire(Arc<Target>),
    /// Each channel crashes.
    Crash(Arc<Target>),
    /// The server requests a disconnect, and closes the socket.
    Disconnect,
}

impl Default for Faults {
    fn default() -> Self {
        Self::new(Clock::default())
    }
}

impl Faults {
    /// No faults. `clock` is the one that tokens are judged by.
    pub(crate) fn new(clock: Clock) -> Self {
        let switches = Switches {
            realtime_refused: AtomicBool::new(false),
            rest_refused: AtomicBool::new(false),
            suspended: AtomicBool::new(false),
            rates: Arc::default(),
            stalled: watch::Sender::new(false),
            port: watch::Sender::new(Port::Open),
            // Sockets that are many faults behind apply only the last ones.
            socket_faults: broadcast::Sender::new(16),
            clock,
        };
        Self { switches: Arc::new(switches), plan: Arc::default() }
    }

    /// Lets a fault strike the requests of a target: REST, other HTTP services, websocket upgrades.
    pub fn on_requests(&self, fault: RequestFault, target: Target) -> Injection {
        self.plan.inject(Fault::Request(fault), target)
    }

    /// Lets a fault strike the frames that the server sends to a target.
    pub fn on_frames(&self, fault: FrameFault, target: Target) -> Injection {
        self.plan.inject(Fault::Frame(fault), target)
    }

    /// Decides which requests and frames a [`Target::chance`] strikes. The default is 0.
    pub fn seed(&self, seed: u64) {
        self.plan.seed(seed);
    }

    /// Ends everything: injected faults, switches, the wrong clock, the closed port.
    pub fn clear(&self) {
        self.refuse_realtime(false);
        self.refuse_rest(false);
        self.suspend(false);
        self.hold_rates(false);
        self.stall_sockets(false);
        self.close_port(false);
        self.skew_clock(0);
        self.plan.clear();
    }

    /// Ends all sockets that are open now. New ones are accepted unless [`Faults::refuse_realtime`] is set.
    pub fn cut_sockets(&self, cut: Cut) {
        self.cut(cut, Target::all());
    }

    /// Ends the sockets of a target that are open now. The target's counts are ignored.
    pub fn cut(&self, cut: Cut, target: Target) {
        self.strike(SocketFault::Cut(cut, Arc::new(target)));
    }

    /// Ends the token of every channel that is joined now: `system` error, then `phx_close`; the sockets stay open.
    pub fn expire_tokens(&self) {
        self.expire(Target::all());
    }

    /// Ends the tokens of the target's channels. The target's counts are ignored.
    pub fn expire(&self, target: Target) {
        self.strike(SocketFault::Expire(Arc::new(target)));
    }

    /// Crashes the target's channels: `phx_error`, and the channel is gone; the sockets stay open. The target's counts
    /// are ignored.
    pub fn crash(&self, target: Target) {
        self.strike(SocketFault::Crash(Arc::new(target)));
    }

    /// Does to all sockets what the real server does when the project's settings change: a `system` message "Server
    /// requested disconnect" for each channel, then code 1012.
    pub fn request_disconnect(&self) {
        self.strike(SocketFault::Disconnect);
    }

    /// Restarts the services as clients see it: all sockets are closed with 1012, and connections are refused
    /// for a while.
    pub fn restart(&self, down: Duration) {
        self.switches.port.send_replace(Port::Closed(Some(Instant::now() + down)));
        self.cut_sockets(Cut::Close(1012));
    }

    /// While true, connections are refused as if no server ran, and requests on open HTTP connections are dropped. Open
    /// sockets stay.
    pub fn close_port(&self, closed: bool) {
        self.switches.port.send_replace(if closed { Port::Closed(None) } else { Port::Open });
    }

    /// While true, websocket upgrades are answered with 503. Open sockets stay.
    pub fn refuse_realtime(&self, refused: bool) {
        self.switches.realtime_refused.store(refused, Ordering::Relaxed);
    }

    /// While true, Realtime is disabled for the project, as for one over its plan's quotas or suspended by its owner: open sockets
    /// receive a disconnect request and are closed with 1012; upgrades and broadcasts over HTTP are answered with 403.
    pub fn suspend(&self, suspended: bool) {
        self.switches.suspended.store(suspended, Ordering::Relaxed);
        if suspended {
            self.request_disconnect();
        }
    }

    /// While true, the averages that are compared with limits per second are taken only by [`Faults::tick_rates`], and not by
    /// the clock ([`RealtimeOptions::rate_tick`](crate::RealtimeOptions::rate_tick)).
    pub fn hold_rates(&self, held: bool) {
        self.switches.rates.hold(held);
    }

    /// Takes the averages now, as if the interval between two measurements had passed.
    pub fn tick_rates(&self) {
        self.switches.rates.tick();
    }

    /// While true, every REST request is answered with 503.
    pub fn refuse_rest(&self, refused: bool) {
        self.switches.rest_refused.store(refused, Ordering::Relaxed);
    }

    /// While true, sockets are open, and can be opened, but nothing is read from them and nothing sent: a dead peer.
    /// What the server wanted to send is sent when this ends.
    pub fn stall_sockets(&self, stalled: bool) {
        self.switches.stalled.send_replace(stalled);
    }

    /// Sets the clock by which all services judge tokens so many seconds fast, or slow if negative.
    pub fn skew_clock(&self, seconds: i64) {
        self.switches.clock.skew(seconds);
        // Channels have to look anew at when they expire.
        self.plan.changed();
    }

    pub(crate) fn realtime_refused(&self) -> bool {
        self.switches.realtime_refused.load(Ordering::Relaxed)
    }

    pub(crate) fn suspended(&self) -> bool {
        self.switches.suspended.load(Ordering::Relaxed)
    }

    pub(crate) fn rates(&self) -> Arc<RateTicks> {
        Arc::clone(&self.switches.rates)
    }

    pub(crate) fn rest_refused(&self) -> bool {
        self.switches.rest_refused.load(Ordering::Relaxed)
    }

    pub(crate) fn port(&self) -> watch::Receiver<Port> {
        self.switches.port.subscribe()
    }

    pub(crate) fn port_is_closed(&self) -> bool {
        self.switches.port.borrow().is_closed()
    }

    pub(crate) fn stalled(&self) -> watch::Receiver<bool> {
        self.switches.stalled.subscribe()
    }

    pub(crate) fn socket_faults(&self) -> broadcast::Receiver<SocketFault> {
        self.switches.socket_faults.subscribe()
    }

    /// Notified whenever the plan or the clock was changed.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.plan.changes()
    }

    /// Returns once a rule is no longer there.
    pub(crate) async fn lifted(&self, rule: u64) {
        self.plan.lifted(rule).await;
    }

    pub(crate) fn requests(&self, subject: &Subject<'_>) -> Vec<(u64, RequestFault)> {
        self.plan.requests(subject)
    }

    pub(crate) fn frame<'a>(&self, subject: impl FnOnce() -> Subject<'a>) -> FrameOutcome {
        self.plan.frame(subject)
    }

    fn strike(&self, fault: SocketFault) {
        // An error only means that no socket is open.
        let _ = self.switches.socket_faults.send(fault);
    }
}
