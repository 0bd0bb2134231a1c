//! Bytes to frames and back. Pure: no sockets, no clocks, no state.
//!
//! Facts of the protocol are those of Supabase Realtime 2.129.8 as recorded; see the module of each shape.

pub(crate) mod binary;
pub(crate) mod change;
pub(crate) mod close;
pub(crate) mod event;
pub(crate) mod ids;
pub(crate) mod join;
pub(crate) mod name;
pub(crate) mod reason;
pub(crate) mod text;

use bytes::Bytes;
/// Text that was checked to be UTF-8 and shares its memory: what a text frame is made of.
pub(crate) use tokio_tungstenite::tungstenite::Utf8Bytes;

pub(crate) use self::{change::Change, event::Event, ids::Ids};

/// The beginning of the server's topics; names of channels are without it.
pub(crate) const TOPIC_PREFIX: &str = "realtime:";

/// The name of a channel without the prefix, which some users write too.
pub(crate) fn channel_name(name: &str) -> &str {
    name.strip_prefix(TOPIC_PREFIX).unwrap_or(name)
}

/// One message from the server: the envelope taken apart, the payload left in place.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Inbound {
    /// Which incarnation of the channel this is for. Version 1 never has it; version 2 not always (OBSERVED 9).
    pub(crate) join_ref: Option<String>,
    /// Which message of ours this answers. Version 1 puts the join ref of `phx_close` and `phx_error` here.
    pub(crate) reference: Option<String>,
    pub(crate) topic: Slice,
    pub(crate) event: Event,
    pub(crate) body: Body,
}

/// The payload of an [`Inbound`].
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Body {
    /// JSON text, not looked into.
    Json(Slice),
    /// A row change, and the bindings that it is for.
    Change(Ids, Change),
    /// A user broadcast in binary framing (kind 4). Boxed: row changes are many more, and smaller.
    UserBroadcast(Box<UserBroadcast>),
    /// A binary message of the generic Phoenix kinds; Realtime does not send them.
    Opaque(Bytes),
}

/// A broadcast with its own event, metadata, and JSON or raw bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UserBroadcast {
    pub(crate) event: String,
    pub(crate) metadata: Option<String>,
    pub(crate) payload: BroadcastPayload,
}

/// The payload of a broadcast.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum BroadcastPayload {
    /// JSON text.
    Json(Slice),
    /// Raw bytes.
    Binary(Bytes),
}

/// A piece of a received text frame: shares the frame's memory instead of copying.
#[derive(Debug, Clone)]
pub(crate) struct Slice {
    frame: Utf8Bytes,
    part: Part,
}

/// The place of a piece in its frame, in bytes. A frame has 16 MiB at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Part {
    start: u32,
    end: u32,
}

impl Part {
    /// `None` if the piece is not in the frame.
    fn of(frame: &Utf8Bytes, piece: &str) -> Option<Self> {
        let start = (piece.as_ptr() as usize).checked_sub(frame.as_str().as_ptr() as usize)?;
        let end = start.checked_add(piece.len()).filter(|end| *end <= frame.as_str().len())?;
        Some(Self { start: u32::try_from(start).ok()?, end: u32::try_from(end).ok()? })
    }
}

impl Slice {
    /// `piece` should be within `frame`; otherwise it is copied.
    pub(crate) fn of(frame: &Utf8Bytes, piece: &str) -> Self {
        match Part::of(frame, piece) {
            Some(part) => Self { frame: frame.clone(), part },
            None => Self::from(piece.to_owned()),
        }
    }

    pub(crate) fn at(frame: Utf8Bytes, part: Part) -> Self {
        Self { frame, part }
    }

    /// All of a frame.
    pub(crate) fn whole(frame: Utf8Bytes) -> Self {
        let end = u32::try_from(frame.as_str().len()).unwrap_or(u32::MAX);
        Self { frame, part: Part { start: 0, end } }
    }

    pub(crate) fn as_str(&self) -> &str {
        self.text(self.part)
    }

    /// Another piece of the same frame.
    pub(crate) fn text(&self, part: Part) -> &str {
        self.frame.as_str().get(part.start as usize..part.end as usize).unwrap_or_default()
    }

    /// The place of a text that was borrowed from this piece; an empty part if there is none.
    pub(crate) fn part_of(&self, text: Option<&str>) -> Part {
        text.and_then(|text| Part::of(&self.frame, text)).unwrap_or_default()
    }

    /// Bytes of the frame.
    pub(crate) fn frame_len(&self) -> usize {
        self.frame.as_str().len()
    }
}

impl From<String> for Slice {
    fn from(text: String) -> Self {
        Self::whole(Utf8Bytes::from(text))
    }
}

impl PartialEq for Slice {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Slice {}

/// One message to the server, before it is put into a version's framing.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Outbound {
    pub(crate) join_ref: Option<String>,
    pub(crate) reference: String,
    pub(crate) topic: String,
    pub(crate) event: &'static str,
    pub(crate) payload: Payload,
}

/// The payload of an [`Outbound`].
#[derive(Clone, PartialEq)]
pub(crate) enum Payload {
    /// JSON text of an object.
    Json(String),
    /// A broadcast of raw bytes; only version 2 has these.
    BinaryBroadcast { event: String, bytes: Bytes },
}

impl Payload {
    /// Bytes of the payload.
    pub(crate) fn size(&self) -> usize {
        match self {
            Self::Json(json) => json.len(),
            Self::BinaryBroadcast { bytes, .. } => bytes.len(),
        }
    }
}

/// Payloads hold access tokens (joins, `access_token`): never shown.
impl std::fmt::Debug for Payload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Json(json) => write!(f, "Json({} bytes)", json.len()),
            Self::BinaryBroadcast { event, bytes } => {
                write!(f, "BinaryBroadcast({event}, {} bytes)", bytes.len())
            }
        }
    }
}

/// Why a frame was not understood. The connection stays open (OBSERVED 10, 29).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("not the JSON of a message: {0}")]
    Json(String),
    #[error("a binary frame of {0} bytes that ends too early")]
    Truncated(usize),
    #[error("a binary frame of unknown kind {0}")]
    UnknownKind(u8),
    #[error("a name in a binary frame is not UTF-8")]
    NotUtf8,
}
