//! A listener whose connections pass through [`RequestLines`].

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::request_line::RequestLines;

/// Bytes read at once while request lines are looked for.
const PIECE: usize = 16 << 10;

/// Wraps a listener so that any byte but a space may stand in a request's path and query string.
#[derive(Debug)]
pub struct Lenient<L>(pub L);

impl<L: Listener<Addr = SocketAddr>> Listener for Lenient<L> {
    type Io = LenientStream<L::Io>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, SocketAddr) {
        let (stream, address) = self.0.accept().await;
        (LenientStream { stream, lines: RequestLines::default(), ready: Vec::new(), given: 0 }, address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

/// A connection of a [`Lenient`] listener.
#[derive(Debug)]
pub struct LenientStream<S> {
    stream: S,
    lines: RequestLines,
    /// Bytes that were read and changed, and are given out from `given` on.
    ready: Vec<u8>,
    given: usize,
}

impl<S: AsyncRead + Unpin> AsyncRead for LenientStream<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.given == this.ready.len() {
            if this.lines.is_opaque() {
                return Pin::new(&mut this.stream).poll_read(cx, out);
            }
            let mut piece = [0; PIECE];
            let mut piece = ReadBuf::new(&mut piece);
            ready!(Pin::new(&mut this.stream).poll_read(cx, &mut piece))?;
            this.ready.clear();
            this.given = 0;
            this.lines.feed(piece.filled(), &mut this.ready);
        }
        let rest = &this.ready[this.given..];
        let count = rest.len().min(out.remaining());
        out.put_slice(&rest[..count]);
        this.given += count;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for LenientStream<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, pieces)
    }
}
