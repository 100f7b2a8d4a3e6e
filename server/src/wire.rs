//! A socket that does not wait for ever, that hands on no doubtful byte, and that lets its client
//! read the last answer.
//!
//! A client that takes nothing of its answer is dropped after a while, since it holds a place and
//! the value it asked for; so is one that takes too long for a head. Between requests a connection
//! may wait longer, which only this place can tell apart: it follows the framing of what it reads,
//! and where that is in doubt it ends the input with bytes that the parser refuses. And closing a
//! socket while bytes of the client are unread sends a reset, which can overtake the answer; so
//! closing ends this side first, then reads on for a moment until the client has hung up. Absent
//! on purpose: time-outs of bodies, which belong to who reads them.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep, sleep_until};

use crate::framing::{Framing, Place, REFUSED};
use crate::limits::Limits;
use crate::places::IdleLimit;

/// A connection's socket, or the TLS session on it.
pub(crate) struct Wire<S> {
    stream: S,
    input: Input,
    stall_limit: Duration,
    /// Runs while the client takes nothing.
    stalled: Option<Pin<Box<Sleep>>>,
    linger_limit: Duration,
    /// Runs from the end of this side until the end of the other.
    lingering: Option<Pin<Box<Sleep>>>,
}

/// What is known about the bytes that come in.
enum Input {
    /// Requests of HTTP/1.1, one after the other.
    Requests(Framing, Patience),
    /// Something that has its own framing and its own times.
    Anything,
    /// No more comes but these.
    Ending(&'static [u8]),
}

/// How long the next byte of a request may take.
struct Patience {
    idle_limit: Arc<IdleLimit>,
    head_limit: Duration,
    /// Where the connection is, and since when.
    at: (Place, u64),
    since: Instant,
    /// Never later than the time runs out. It is moved only when it has run out, not for each request.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Patience {
    fn new(limits: &Limits, idle_limit: Arc<IdleLimit>) -> Patience {
        Patience {
            idle_limit,
            head_limit: limits.head_time,
            at: (Place::Body, 0),
            since: Instant::now(),
            timer: None,
        }
    }

    /// Ready when it has taken too long.
    fn poll_end(&mut self, cx: &mut Context<'_>, framing: &Framing) -> Poll<Place> {
        let place = framing.place();
        let limit = match place {
            Place::Between => self.idle_limit.get(),
            Place::Head => self.head_limit,
            Place::Body => return Poll::Pending,
        };
        if self.at != (place, framing.heads()) {
            self.at = (place, framing.heads());
            self.since = Instant::now();
        }
        let deadline = self.since + limit;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if timer.deadline() > deadline {
            timer.as_mut().reset(deadline);
        }
        while timer.deadline() < deadline {
            ready!(timer.as_mut().poll(cx));
            timer.as_mut().reset(deadline);
        }
        timer.as_mut().poll(cx).map(|()| place)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    /// A stream of HTTP/1.1 requests.
    pub(crate) fn of_requests(stream: S, limits: &Limits, idle_limit: Arc<IdleLimit>) -> Wire<S> {
        let input = Input::Requests(Framing::default(), Patience::new(limits, idle_limit));
        Wire { input, ..Wire::of_anything(stream, limits) }
    }

    /// A stream whose input is not looked at.
    pub(crate) fn of_anything(stream: S, limits: &Limits) -> Wire<S> {
        Wire {
            stream,
            input: Input::Anything,
            stall_limit: limits.write_stall,
            stalled: None,
            linger_limit: limits.linger,
            lingering: None,
        }
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

    /// Whether the client has taken too long with its next byte.
    fn poll_impatience(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Input::Requests(framing, patience) = &mut self.input else { return Poll::Pending };
        let place = ready!(patience.poll_end(cx, framing));
        self.input = Input::Ending(b"");
        if place == Place::Between {
            return Poll::Ready(Ok(()));
        }
        tracing::debug!("a client did not send its whole head in time");
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

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Wire<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        if !matches!(self.input, Input::Ending(_)) {
            match Pin::new(&mut self.stream).poll_read(cx, buffer) {
                Poll::Ready(read) => read?,
                Poll::Pending => return self.poll_impatience(cx),
            }
        }
        self.input.check(buffer, before);
        Poll::Ready(Ok(()))
    }
}

impl Input {
    /// Takes back what is not sound of what was read, and puts in its place what is refused.
    fn check(&mut self, buffer: &mut ReadBuf<'_>, before: usize) {
        if let Input::Requests(framing, _) = self
            && let Err(sound) = framing.follow(&buffer.filled()[before..])
        {
            tracing::debug!("a request is framed so that it could be understood in two ways");
            buffer.set_filled(before + sound);
            *self = Input::Ending(REFUSED);
        }
        if let Input::Ending(rest) = self {
            let (now, later) = rest.split_at(rest.len().min(buffer.remaining()));
            buffer.put_slice(now);
            *rest = later;
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Wire<S> {
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
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.bound(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.lingering.is_none() {
            let ended = Pin::new(&mut self.stream).poll_shutdown(cx);
            ready!(self.bound(cx, ended))?;
            self.lingering = Some(Box::pin(sleep(self.linger_limit)));
        }
        let hung_up = self.poll_hang_up(cx).is_ready();
        let expired =
            self.lingering.as_mut().is_some_and(|lingering| lingering.as_mut().poll(cx).is_ready());
        if hung_up || expired { Poll::Ready(Ok(())) } else { Poll::Pending }
    }
}
