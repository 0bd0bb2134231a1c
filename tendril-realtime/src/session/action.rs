//! From the session to the driver, and through it to the streams.

use std::time::Duration;

use super::{RequestId, SubscriberId, TopicId};
use crate::{
    error::Error,
    secret::AccessToken,
    wire::{Change, Outbound, Slice, UserBroadcast},
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

/// Where one channel stands; see [`Channel::status`](crate::Channel::status).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum ChannelStatus {
    /// It waits for the connection or for its turn, or its join is sent.
    #[doc(alias = "JOINING")]
    Joining,
    /// The join is accepted; row changes or messages of the database are not announced yet.
    Subscribing,
    /// Everything that was requested flows.
    #[doc(alias = "SUBSCRIBED")]
    Subscribed,
    /// Something failed, and is tried again by itself.
    #[doc(alias("CHANNEL_ERROR", "TIMED_OUT"))]
    Interrupted(Error),
    /// The channel was left, or the client was shut down.
    #[doc(alias = "CLOSED")]
    Left,
    /// The channel ended for good. Every later call on it returns this error.
    Ended(Error),
}

impl ChannelStatus {
    /// Whether everything that was requested flows.
    pub fn is_subscribed(&self) -> bool {
        matches!(self, Self::Subscribed)
    }

    /// Whether nothing will happen any more.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Left | Self::Ended(_))
    }

    /// The status' name in lower case, for logs.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Joining => "joining",
            Self::Subscribing => "subscribing",
            Self::Subscribed => "subscribed",
            Self::Interrupted(_) => "interrupted",
            Self::Left => "left",
            Self::Ended(_) => "ended",
        }
    }
}

/// From the session to the driver.
#[derive(Debug)]
pub(crate) enum Action {
    /// A handle's channel stands somewhere else now.
    Channel(TopicId, ChannelStatus),
    /// A message without an answer was given up.
    PushDropped,
    /// Put this on the wire.
    Send(Outbound),
    /// Put this into a mailbox.
    Deliver(SubscriberId, Delivery),
    /// Answer a request.
    Answer(RequestId, Result<Slice, Error>),
    /// Call the token source; pass the answer to [`Session::on_token`](super::Session::on_token).
    FetchToken,
    /// Report to the token source that this token was refused.
    TokenRefused(AccessToken),
    /// The gateway's token for our key is over: connect anew.
    Reconnect,
    /// The heartbeat was answered after this time.
    HeartbeatAnswered(Duration),
    /// The peer is dead: drop the connection, without a close frame.
    Drop,
}

/// What a stream receives.
#[derive(Debug)]
pub(crate) enum Delivery {
    /// A row changed.
    Change(Change),
    /// Rows may have been missed before this point.
    Resync(ResyncReason),
    /// A text broadcast: `{"event","payload","meta"?}`.
    BroadcastText(Slice),
    /// A broadcast that came in binary framing.
    Broadcast(Box<UserBroadcast>),
    /// All presences of the channel.
    PresenceState(Slice),
    /// Presences that came and went.
    PresenceDiff(Slice),
    /// The channel was joined again: presences start over.
    PresenceReset,
    /// A `system` message of the server.
    System(Slice),
    /// Something failed, and will be tried again.
    TransientError(Error),
    /// Something failed for good.
    End(Error),
    /// The channel was left: the stream ends.
    Finish,
}
