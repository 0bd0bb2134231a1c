//! From the session to the driver, and through it to the streams.

use super::{RequestId, SubscriberId};
use crate::{
    error::Error,
    secret::AccessToken,
    wire::{BroadcastPayload, Change, Outbound, Slice},
};

/// Why rows may have been missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ResyncReason {
    /// The connection was lost and is back.
    Reconnected,
    /// The server had ended or lost the channel; it is joined again.
    Rejoined,
    /// The server announced its subscription anew: its connection to the database had been interrupted.
    Resubscribed,
    /// The access token was renewed, upon which the server subscribes anew.
    TokenRenewed,
}

/// From the session to the driver.
#[derive(Debug)]
pub(crate) enum Action {
    /// Put this on the wire.
    Send(Outbound),
    /// Put this into a mailbox.
    Deliver(SubscriberId, Delivery),
    /// Answer a request.
    Answer(RequestId, Result<Slice, Error>),
    /// Ask the token source; tell the answer by [`Session::on_token`](super::Session::on_token).
    FetchToken,
    /// Tell the token source that this token was refused.
    TokenRefused(AccessToken),
    /// The gateway's token for our key is over: connect anew.
    Reconnect,
    /// The peer is dead: drop the connection, without a goodbye.
    Drop,
}

/// What a stream hears.
#[derive(Debug)]
pub(crate) enum Delivery {
    /// A row changed.
    Change(Change),
    /// Rows may have been missed before this point.
    Resync(ResyncReason),
    /// A text broadcast: `{"event","payload","meta"?}`.
    BroadcastText(Slice),
    /// A broadcast that came in binary framing.
    Broadcast { event: String, metadata: Option<String>, payload: BroadcastPayload },
    /// All presences of the channel.
    PresenceState(Slice),
    /// Presences that came and went.
    PresenceDiff(Slice),
    /// The channel was joined again: presences start over.
    PresenceReset,
    /// Something failed, and will be tried again.
    TransientError(Error),
    /// Something failed for good.
    End(Error),
}
