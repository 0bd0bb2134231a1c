//! One websocket: dial, queue, next, close. It handles frames of bytes, without their meaning.

mod addresses;
mod dial;
mod tls;
mod tunnel;

use std::{
    collections::VecDeque,
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures_util::{Sink as _, Stream as _};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Error as WsError, Message, Utf8Bytes, protocol::CloseFrame},
};

pub(crate) use self::dial::{Dialer, Opened, TcpTuning};

/// Bytes in the outbox from which on senders should wait.
const CONGESTED: usize = 1 << 20;

/// A TCP connection, with TLS or without.
pub(crate) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// What the other side sent.
#[derive(Debug)]
pub(crate) enum Received {
    Text(Utf8Bytes),
    Binary(Bytes),
    /// A ping or a pong: no message, but a sign of life.
    Control,
    /// The end; nothing comes after it.
    Closed(Closed),
}

/// How a connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Closed {
    /// The close code, where there was a close frame.
    pub(crate) code: Option<u16>,
    /// The transport's error, where there was no close frame.
    pub(crate) detail: Option<String>,
}

/// An open websocket. Outgoing messages are queued and written while the next one is awaited, so that a peer that does not
/// read can never stop us from reading, or from noticing that it is dead.
pub(crate) struct Socket {
    stream: WebSocketStream<Box<dyn Io>>,
    outbox: VecDeque<Message>,
    /// Bytes in the outbox.
    waiting: usize,
    /// The outbox was fuller than [`CONGESTED`] when its fill was last checked.
    was_congested: bool,
    /// Something was handed to the stream and not flushed.
    unflushed: bool,
    ended: bool,
}

impl Socket {
    fn new(stream: WebSocketStream<Box<dyn Io>>) -> Self {
        Self {
            stream,
            outbox: VecDeque::new(),
            waiting: 0,
            was_congested: false,
            unflushed: false,
            ended: false,
        }
    }

    /// Queues a text frame; it leaves during the next [`receive`](Self::receive).
    pub(crate) fn queue_text(&mut self, text: String) -> usize {
        let bytes = text.len();
        self.waiting += bytes;
        self.outbox.push_back(Message::Text(text.into()));
        bytes
    }

    /// Queues a text frame before all others.
    pub(crate) fn queue_first(&mut self, text: String) -> usize {
        let bytes = text.len();
        self.waiting += bytes;
        self.outbox.push_front(Message::Text(text.into()));
        bytes
    }

    /// Whether so much waits to be written that nothing should be added. [`receive`](Self::receive) returns when that is over.
    pub(crate) fn is_congested(&mut self) -> bool {
        self.was_congested = self.waiting > CONGESTED;
        self.was_congested
    }

    /// Queues a binary frame.
    pub(crate) fn queue_binary(&mut self, frame: Bytes) -> usize {
        let bytes = frame.len();
        self.waiting += bytes;
        self.outbox.push_back(Message::Binary(frame));
        bytes
    }

    /// Waits for something to come in and takes up to `most` messages that are there already. Cancel safe: what was not
    /// taken stays, and nothing half-written is lost.
    pub(crate) async fn receive(&mut self, into: &mut Vec<Received>, most: usize) {
        poll_fn(|cx| self.poll_receive(cx, into, most)).await;
    }

    fn poll_receive(&mut self, cx: &mut Context<'_>, into: &mut Vec<Received>, most: usize) -> Poll<()> {
        let written = self.poll_write(cx);
        while into.len() < most && !self.ended {
            match Pin::new(&mut self.stream).poll_next(cx) {
                Poll::Pending => break,
                Poll::Ready(next) => {
                    let received = understood(next);
                    self.ended = matches!(received, Received::Closed(_));
                    into.push(received);
                }
            }
        }
        // What the other side sent before the end, its close code among it, was read first.
        if let (Err(error), false) = (written, self.ended) {
            self.ended = true;
            into.push(Received::Closed(closed_by(&error)));
        }
        let relieved = self.was_congested && self.waiting <= CONGESTED;
        self.was_congested &= !relieved;
        if into.is_empty() && !relieved { Poll::Pending } else { Poll::Ready(()) }
    }

    /// Writes what can be written now.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Result<(), WsError> {
        while !self.outbox.is_empty() {
            match Pin::new(&mut self.stream).poll_ready(cx)? {
                Poll::Pending => return Ok(()),
                Poll::Ready(()) => {
                    let Some(message) = self.outbox.pop_front() else { break };
                    self.waiting = self.waiting.saturating_sub(message.len());
                    Pin::new(&mut self.stream).start_send(message)?;
                    self.unflushed = true;
                }
            }
        }
        if self.unflushed && Pin::new(&mut self.stream).poll_flush(cx)?.is_ready() {
            self.unflushed = false;
        }
        Ok(())
    }

    /// Writes what is queued, sends a close frame (1000) and waits for the answer. The caller sets the time limit.
    pub(crate) async fn close(mut self) {
        let _ = poll_fn(|cx| {
            loop {
                self.poll_write(cx)?;
                if self.outbox.is_empty() && !self.unflushed {
                    return Poll::Ready(Ok::<_, WsError>(()));
                }
                ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
            }
        })
        .await;
        let frame = CloseFrame { code: 1000.into(), reason: Utf8Bytes::from_static("") };
        if self.stream.close(Some(frame)).await.is_ok() {
            // The handshake is complete when the stream ends.
            poll_fn(|cx| {
                while ready!(Pin::new(&mut self.stream).poll_next(cx)).is_some_and(|next| next.is_ok()) {}
                Poll::Ready(())
            })
            .await;
        }
    }
}

fn understood(next: Option<Result<Message, WsError>>) -> Received {
    match next {
        Some(Ok(Message::Text(text))) => Received::Text(text),
        Some(Ok(Message::Binary(bytes))) => Received::Binary(bytes),
        Some(Ok(Message::Close(frame))) => {
            let code = frame.map_or(1005, |frame| frame.code.into());
            Received::Closed(Closed { code: Some(code), detail: None })
        }
        Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => Received::Control,
        Some(Err(error)) => Received::Closed(closed_by(&error)),
        None => Received::Closed(Closed { code: None, detail: None }),
    }
}

fn closed_by(error: &WsError) -> Closed {
    Closed { code: None, detail: Some(error.to_string()) }
}

impl std::fmt::Debug for Socket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Socket").field("outbox", &self.outbox.len()).finish_non_exhaustive()
    }
}
