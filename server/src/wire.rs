//! A socket that does not wait for ever, and that lets its client read the last answer.
//!
//! A client that takes nothing of its answer is dropped after a while, since it holds a place and
//! the value it asked for. And closing a socket while bytes of the client are unread sends a reset,
//! which can overtake the answer; so closing ends this side first, then reads on for a moment
//! until the client has hung up. Absent on purpose: time-outs for reading, which belong to heads
//! and bodies, not to sockets.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};

/// A connection's socket.
pub(crate) struct Wire {
    stream: TcpStream,
    stall_limit: Duration,
    /// Runs while the client takes nothing.
    stalled: Option<Pin<Box<Sleep>>>,
    linger_limit: Duration,
    /// Runs from the end of this side until the end of the other.
    lingering: Option<Pin<Box<Sleep>>>,
}

impl Wire {
    pub(crate) fn new(stream: TcpStream, stall_limit: Duration, linger_limit: Duration) -> Wire {
        Wire { stream, stall_limit, stalled: None, linger_limit, lingering: None }
    }

    /// Turns a write that waits for too long into an error.
    fn bound<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let limit = self.stall_limit;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(limit)));
        ready!(stalled.as_mut().poll(cx));
        tracing::debug!("a client stopped reading its answer");
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    /// Reads and forgets until the client ends its side.
    fn poll_hang_up(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let mut scratch = [0; 8192];
            let mut buffer = ReadBuf::new(&mut scratch);
            let read = ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer));
            if read.is_err() || buffer.filled().is_empty() {
                return Poll::Ready(());
            }
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.bound(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.bound(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.lingering.is_none() {
            ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
            self.lingering = Some(Box::pin(sleep(self.linger_limit)));
        }
        let hung_up = self.poll_hang_up(cx).is_ready();
        let expired =
            self.lingering.as_mut().is_some_and(|lingering| lingering.as_mut().poll(cx).is_ready());
        if hung_up || expired { Poll::Ready(Ok(())) } else { Poll::Pending }
    }
}
