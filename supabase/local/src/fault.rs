//! The fault plan: what a test needs and no real server offers.
//!
//! ```no_run
//! # async fn example(stack: &supabase_local::Stack) {
//! use supabase_local::Cut;
//!
//! stack.faults().refuse_realtime(true); // further upgrades are answered 503
//! stack.faults().cut_sockets(Cut::Abrupt); // the open ones break without a close frame
//! # }
//! ```

use std::sync::Arc;

use tokio::sync::{broadcast, watch};

/// How open sockets end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cut {
    /// With a close frame of this code, as the server does when it restarts (1012) or has enough (1001).
    Close(u16),
    /// The connection just breaks: no close frame. A client sees code 1006.
    Abrupt,
}

/// The switches of one stack. Cloning gives another handle to the same switches.
#[derive(Debug, Clone)]
pub struct Faults {
    switches: Arc<Switches>,
}

#[derive(Debug)]
struct Switches {
    realtime_refused: watch::Sender<bool>,
    rest_refused: watch::Sender<bool>,
    stalled: watch::Sender<bool>,
    blows: broadcast::Sender<Blow>,
}

/// Something that happens to every open socket at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Blow {
    /// The socket ends.
    Cut(Cut),
    /// The token of every channel has just expired.
    Expire,
}

impl Default for Faults {
    fn default() -> Self {
        let switch = || watch::Sender::new(false);
        let switches = Switches {
            realtime_refused: switch(),
            rest_refused: switch(),
            stalled: switch(),
            // Sockets that are many blows behind have only the last one to suffer.
            blows: broadcast::Sender::new(16),
        };
        Self { switches: Arc::new(switches) }
    }
}

impl Faults {
    /// Ends all sockets that are open now. New ones are welcome unless [`Faults::refuse_realtime`] says otherwise.
    pub fn cut_sockets(&self, cut: Cut) {
        // An error only says that no socket is open.
        let _ = self.switches.blows.send(Blow::Cut(cut));
    }

    /// Ends the token of every channel that is joined now: `system` error, then `phx_close`; the sockets stay open.
    pub fn expire_tokens(&self) {
        let _ = self.switches.blows.send(Blow::Expire);
    }

    /// While true, websocket upgrades are answered with 503. Open sockets stay.
    pub fn refuse_realtime(&self, refused: bool) {
        self.switches.realtime_refused.send_replace(refused);
    }

    /// While true, every REST request is answered with 503.
    pub fn refuse_rest(&self, refused: bool) {
        self.switches.rest_refused.send_replace(refused);
    }

    /// While true, sockets are open, and can be opened, but nothing is read from them and nothing sent: a dead peer.
    /// What the server wanted to send is sent when this ends.
    pub fn stall_sockets(&self, stalled: bool) {
        self.switches.stalled.send_replace(stalled);
    }

    pub(crate) fn realtime_refused(&self) -> bool {
        *self.switches.realtime_refused.borrow()
    }

    pub(crate) fn rest_refused(&self) -> bool {
        *self.switches.rest_refused.borrow()
    }

    pub(crate) fn stalled(&self) -> watch::Receiver<bool> {
        self.switches.stalled.subscribe()
    }

    pub(crate) fn blows(&self) -> broadcast::Receiver<Blow> {
        self.switches.blows.subscribe()
    }
}
