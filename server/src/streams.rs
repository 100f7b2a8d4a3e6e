//! The requests of one HTTP/2 connection, and when the connection has to end.
//!
//! A connection without requests ends after the idle time. One whose client takes nothing of an
//! answer is cut off: HTTP/2 lets it refuse one answer and go on with others, and a value that
//! nobody takes would keep its file for ever. What hyper has buffered of an answer is out of sight
//! here, so no connection lives for ever either. HTTP/1.1 needs none of this, because there a client
//! that takes nothing stops the whole socket. Absent on purpose: time-outs of request bodies, which
//! are the same for both protocols.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::{Body, Frame, SizeHint};
use tokio::time::Instant;

use crate::limits::Limits;
use crate::places::IdleLimit;

/// How long a connection may take new requests.
const AGE_MAX: Duration = Duration::from_secs(3600);

/// The requests of a connection.
pub(crate) struct Streams {
    stall_limit: Duration,
    idle_limit: Arc<IdleLimit>,
    /// When it has to end, idle or not.
    old_at: Instant,
    state: Mutex<State>,
}

struct State {
    opened: u64,
    open: usize,
    /// Since when no request is open, if none is.
    idle_since: Instant,
    /// When each answer that is being sent was last asked for more.
    moved: HashMap<u64, Instant>,
}

/// What is to be done about a connection.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outlook {
    /// Requests are being answered.
    Busy,
    /// None is.
    Quiet,
    /// None is, and none was for long enough.
    Idle,
    /// Requests are being answered, and were for long enough.
    Old,
    /// A client takes nothing of an answer.
    Stalled,
}

impl Streams {
    pub(crate) fn new(limits: &Limits, idle_limit: Arc<IdleLimit>) -> Arc<Streams> {
        let state = State { opened: 0, open: 0, idle_since: Instant::now(), moved: HashMap::new() };
        Arc::new(Streams {
            stall_limit: limits.write_stall,
            idle_limit,
            old_at: Instant::now() + AGE_MAX,
            state: Mutex::new(state),
        })
    }

    /// A request begins.
    pub(crate) fn open(self: &Arc<Self>) -> Stream {
        let mut state = self.state();
        state.opened += 1;
        state.open += 1;
        Stream { streams: Arc::clone(self), id: state.opened }
    }

    pub(crate) fn outlook(&self) -> Outlook {
        let (state, now) = (self.state(), Instant::now());
        let is_stalled = |moved: &Instant| now.duration_since(*moved) >= self.stall_limit;
        match state.open {
            _ if state.moved.values().any(is_stalled) => Outlook::Stalled,
            0 if now.duration_since(state.idle_since) >= self.idle_limit.get() => Outlook::Idle,
            0 => Outlook::Quiet,
            _ if now >= self.old_at => Outlook::Old,
            _ => Outlook::Busy,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One request, until its answer is sent or given up.
pub(crate) struct Stream {
    streams: Arc<Streams>,
    id: u64,
}

impl Stream {
    /// The answer is ready to be sent.
    pub(crate) fn send<B>(self, body: B) -> Sent<B> {
        self.moved();
        Sent { body, stream: self }
    }

    fn moved(&self) {
        self.streams.state().moved.insert(self.id, Instant::now());
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let mut state = self.streams.state();
        state.moved.remove(&self.id);
        state.open -= 1;
        state.idle_since = Instant::now();
    }
}

/// The body of an answer that is being sent.
pub(crate) struct Sent<B> {
    body: B,
    stream: Stream,
}

impl<B: Body + Unpin> Body for Sent<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        self.stream.moved();
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn streams(stall: Duration, idle: Duration) -> Arc<Streams> {
        let limits = Limits { write_stall: stall, ..Limits::default() };
        Streams::new(&limits, Arc::new(IdleLimit::new(idle)))
    }

    const NEVER: Duration = Duration::from_secs(1000);

    #[test]
    fn a_connection_is_idle_when_no_request_is_open_for_long_enough() {
        let streams = streams(NEVER, Duration::ZERO);
        assert_eq!(streams.outlook(), Outlook::Idle);
        let stream = streams.open();
        assert_eq!(streams.outlook(), Outlook::Busy, "a request is being answered");
        let sent = stream.send(());
        assert_eq!(streams.outlook(), Outlook::Busy, "its answer is being sent");
        drop(sent);
        assert_eq!(streams.outlook(), Outlook::Idle);
    }

    #[test]
    fn a_connection_that_is_never_idle_grows_old() {
        let streams = streams(NEVER, NEVER);
        let streams = Arc::into_inner(streams).expect("the only one");
        let streams = Arc::new(Streams { old_at: Instant::now(), ..streams });
        assert_eq!(streams.outlook(), Outlook::Quiet);
        let _stream = streams.open();
        assert_eq!(streams.outlook(), Outlook::Old);
    }

    #[test]
    fn an_answer_that_is_not_taken_stalls_and_a_request_without_one_does_not() {
        let streams = streams(Duration::ZERO, NEVER);
        assert_eq!(streams.outlook(), Outlook::Quiet);
        let _waits = streams.open();
        assert_eq!(streams.outlook(), Outlook::Busy);
        let sent = streams.open().send(());
        assert_eq!(streams.outlook(), Outlook::Stalled);
        drop(sent);
        assert_eq!(streams.outlook(), Outlook::Busy);
    }
}
