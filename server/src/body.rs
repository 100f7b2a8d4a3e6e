//! Request bodies: taken piece by piece under one memory budget, or drained so that a refusal is
//! heard.
//!
//! The budget has two parts. There is room for one small body on every connection. Whatever is
//! longer first takes a place in a fair queue for the rest of the budget, and asks once for all
//! that it can ever need, so nobody holds room while waiting for more and the queue always moves.
//! Whoever waits for too long is told that the server is busy. Room is given back when the bytes
//! have reached the engine, not when the request ends.
//!
//! A client may be slow, but not for free: a body that pauses, that comes below the least rate, or
//! that takes too long in all is given up.
//!
//! Absent on purpose: any store call; what is done with the pieces is for others to say.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use hyper::{HeaderMap, StatusCode, header};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};

use crate::limits::{Limits, QUEUE_BYTES_MIN};
use crate::rules::Refusal;

/// Bytes that come in pieces: a request body, or a part of one.
pub(crate) trait Pieces: Send {
    /// How many bytes come in all, if that is known.
    fn declared(&self) -> Option<u64>;

    /// The next piece, `None` after the last.
    fn next(&mut self) -> impl Future<Output = Result<Option<Bytes>, UploadError>> + Send;
}

/// The memory that uploads share, and how long they may take.
pub(crate) struct Uploads {
    /// One place for each small body.
    small: Arc<Semaphore>,
    small_bytes: u64,
    /// The bytes for all others.
    queue: Arc<Semaphore>,
    queue_bytes: u64,
    wait: Duration,
    idle: Duration,
    total: Duration,
    rate: u64,
    drain_bytes: u64,
}

/// A place in the budget; dropping it gives it back.
#[derive(Debug, Default)]
pub(crate) struct Room {
    _permit: Option<OwnedSemaphorePermit>,
}

/// Bytes that are all in memory, with their room in the budget.
#[derive(Debug, Default)]
pub(crate) struct Buffered {
    pub(crate) bytes: Bytes,
    _room: Room,
}

impl Buffered {
    pub(crate) fn new(bytes: Bytes, room: Room) -> Buffered {
        Buffered { bytes, _room: room }
    }
}

/// Why a body was not taken.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum UploadError {
    /// It is longer than allowed: by its own word, or as far as it was read.
    TooLong { len: u64, max: u64 },
    /// It paused for too long, came too slowly, or took too long in all.
    TooSlow,
    /// It ended early or was framed badly.
    Broken,
    /// Others hold all the memory for uploads.
    Busy,
}

impl UploadError {
    /// The refusal on the binding surface; what is too long is for the caller to say.
    pub(crate) fn into_refusal(self, too_long: impl FnOnce(u64, u64) -> Refusal) -> Refusal {
        match self {
            UploadError::TooLong { len, max } => too_long(len, max),
            UploadError::TooSlow => {
                Refusal::new(StatusCode::REQUEST_TIMEOUT, "The request body came too slowly.")
            }
            UploadError::Broken => Refusal::bad("The request body ended early or is framed badly."),
            UploadError::Busy => Refusal::busy(),
        }
    }
}

impl Uploads {
    pub(crate) fn new(limits: &Limits) -> Uploads {
        let small_bytes = limits.small_upload_bytes as u64;
        let for_small = small_bytes.saturating_mul(limits.connections as u64);
        let queue_bytes = (limits.upload_bytes as u64).saturating_sub(for_small);
        let queue_bytes = queue_bytes.clamp(QUEUE_BYTES_MIN, u64::from(u32::MAX));
        Uploads {
            small: Arc::new(Semaphore::new(limits.connections.min(Semaphore::MAX_PERMITS))),
            small_bytes,
            queue: Arc::new(Semaphore::new(queue_bytes as usize)),
            queue_bytes,
            wait: limits.upload_wait,
            idle: limits.body_idle,
            total: limits.body_time,
            rate: limits.body_rate,
            drain_bytes: limits.drain_bytes,
        }
    }

    /// How many bytes of the budget for bodies that are not small are given out.
    pub(crate) fn reserved_bytes(&self) -> u64 {
        self.queue_bytes.saturating_sub(self.queue.available_permits() as u64)
    }

    /// Room for this many bytes, which may have to be waited for.
    pub(crate) async fn room(&self, len: u64) -> Result<Room, UploadError> {
        let (queue, permits) = if len <= self.small_bytes {
            (&self.small, 1)
        } else {
            let permits = u32::try_from(len.min(self.queue_bytes)).unwrap_or(u32::MAX);
            (&self.queue, permits)
        };
        match Arc::clone(queue).try_acquire_many_owned(permits) {
            Ok(permit) => Ok(Room { _permit: Some(permit) }),
            Err(_) => {
                let acquired = Arc::clone(queue).acquire_many_owned(permits);
                match timeout(self.wait, acquired).await {
                    // The semaphore is never closed.
                    Ok(permit) => Ok(Room { _permit: permit.ok() }),
                    Err(_) => Err(UploadError::Busy),
                }
            }
        }
    }

    /// The most that a body may have without a place in the queue.
    pub(crate) fn small_bytes(&self) -> u64 {
        self.small_bytes
    }

    /// Takes all pieces into memory. What is too long is refused as early as that is known.
    pub(crate) async fn collect(
        &self,
        pieces: &mut impl Pieces,
        max: u64,
    ) -> Result<Buffered, UploadError> {
        let declared = pieces.declared();
        check_len(declared.unwrap_or(0), max)?;
        let mut room = self.room(declared.unwrap_or(0)).await?;
        let mut is_small = declared.unwrap_or(0) <= self.small_bytes;
        let mut joiner = Joiner::default();
        joiner.expect(declared.unwrap_or(0));
        while let Some(piece) = pieces.next().await? {
            let len = joiner.len() + piece.len() as u64;
            check_len(len, max)?;
            if is_small && len > self.small_bytes {
                room = self.room(max).await?;
                is_small = false;
                joiner.expect(max);
            }
            joiner.push(piece);
        }
        Ok(Buffered::new(joiner.into_bytes(), room))
    }

    /// Takes a body off the connection without keeping it.
    async fn drain(&self, mut body: Incoming) {
        let mut pace = Pace::default();
        let mut left = self.drain_bytes;
        while let Ok(Some(data)) = self.next_data(&mut body, &mut pace).await {
            match left.checked_sub(data.len() as u64) {
                Some(rest) => left = rest,
                None => break,
            }
        }
    }

    /// The next piece of a body, `None` at its end.
    async fn next_data(
        &self,
        body: &mut Incoming,
        pace: &mut Pace,
    ) -> Result<Option<Bytes>, UploadError> {
        loop {
            let began = Instant::now();
            let deadline = *pace.deadline.get_or_insert(began + self.total);
            match timeout_at(deadline.min(began + self.idle), body.frame()).await {
                Err(_) => return Err(UploadError::TooSlow),
                Ok(None) => return Ok(None),
                Ok(Some(Err(_))) => return Err(UploadError::Broken),
                Ok(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) if pace.keeps_up(self, began.elapsed(), data.len() as u64) => {
                        return Ok(Some(data));
                    }
                    Ok(_) => return Err(UploadError::TooSlow),
                    Err(_trailers) => continue,
                },
            }
        }
    }
}

/// Refuses what is longer than allowed.
pub(crate) fn check_len(len: u64, max: u64) -> Result<(), UploadError> {
    if len > max { Err(UploadError::TooLong { len, max }) } else { Ok(()) }
}

/// How fast a body has come. Only the time that was spent waiting for the client counts.
#[derive(Default)]
struct Pace {
    /// When it must be complete.
    deadline: Option<Instant>,
    waited: Duration,
    bytes: u64,
}

impl Pace {
    /// Counts a piece. False if less than the least rate came while a whole idle time was waited for.
    fn keeps_up(&mut self, uploads: &Uploads, waited: Duration, bytes: u64) -> bool {
        self.waited += waited;
        self.bytes += bytes;
        if self.waited < uploads.idle {
            return true;
        }
        let enough = self.waited.as_secs_f64() * uploads.rate as f64;
        let keeps_up = self.bytes as f64 >= enough;
        (self.waited, self.bytes) = (Duration::ZERO, 0);
        keeps_up
    }
}

/// The body of one request, until somebody reads it.
pub(crate) struct Inbound<'r> {
    uploads: &'r Arc<Uploads>,
    headers: &'r HeaderMap,
    body: Incoming,
    /// What was read of it before anybody asked.
    ahead: Option<Bytes>,
    pace: Pace,
}

impl<'r> Inbound<'r> {
    pub(crate) fn new(
        uploads: &'r Arc<Uploads>,
        headers: &'r HeaderMap,
        body: Incoming,
    ) -> Inbound<'r> {
        Inbound { uploads, headers, body, ahead: None, pace: Pace::default() }
    }

    /// Whether there is none, as is known before anything is read.
    pub(crate) fn is_empty(&self) -> bool {
        self.body.is_end_stream()
    }

    /// Reads a body that nobody may want as far as it is small, so that a badly framed one is known
    /// before anything is done. What was read is still there for who wants it.
    pub(crate) async fn read_ahead(&mut self) -> Result<(), UploadError> {
        let mut joiner = Joiner::default();
        while joiner.len() < self.uploads.small_bytes() {
            match self.uploads.next_data(&mut self.body, &mut self.pace).await? {
                Some(data) => joiner.push(data),
                None => break,
            }
        }
        self.ahead = Some(joiner.into_bytes()).filter(|ahead| !ahead.is_empty());
        Ok(())
    }

    /// Reads the body to its end. One that is too long is refused as early as that is known.
    pub(crate) async fn collect(&mut self, max: u64) -> Result<Buffered, UploadError> {
        let uploads = self.uploads;
        uploads.collect(self, max).await
    }

    /// Drains, behind the answer, what was not read: a client that sends all before it reads would
    /// otherwise meet a reset in the place of its answer.
    pub(crate) fn finish(self) {
        let Inbound { uploads, headers, body, .. } = self;
        // Reading would send the `100 Continue` that this client is waiting for; without it, it
        // sends nothing, so there is nothing to drain.
        if body.is_end_stream() || headers.contains_key(header::EXPECT) {
            return;
        }
        let uploads = Arc::clone(uploads);
        tokio::spawn(async move { uploads.drain(body).await });
    }
}

impl Pieces for Inbound<'_> {
    fn declared(&self) -> Option<u64> {
        self.body.size_hint().exact()
    }

    async fn next(&mut self) -> Result<Option<Bytes>, UploadError> {
        match self.ahead.take() {
            Some(ahead) => Ok(Some(ahead)),
            None => self.uploads.next_data(&mut self.body, &mut self.pace).await,
        }
    }
}

/// Joins pieces. One piece stays the slice that the connection read; more are copied together.
#[derive(Default)]
struct Joiner {
    first: Bytes,
    joined: BytesMut,
    expected: usize,
}

impl Joiner {
    /// Says how many bytes may come, so that joining them allocates once.
    fn expect(&mut self, len: u64) {
        self.expected = usize::try_from(len).unwrap_or(0);
    }

    fn len(&self) -> u64 {
        (self.first.len() + self.joined.len()) as u64
    }

    fn push(&mut self, data: Bytes) {
        if self.len() == 0 {
            self.first = data;
            return;
        }
        if self.joined.is_empty() {
            self.joined.reserve(self.expected);
            self.joined.extend_from_slice(&std::mem::take(&mut self.first));
        }
        self.joined.extend_from_slice(&data);
    }

    fn into_bytes(self) -> Bytes {
        if self.joined.is_empty() { self.first } else { self.joined.freeze() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_joined_in_order_and_a_single_one_is_not_copied() {
        let piece = Bytes::from_static(b"one");
        let mut single = Joiner::default();
        single.push(piece.clone());
        assert_eq!(single.into_bytes().as_ptr(), piece.as_ptr());

        let mut several = Joiner::default();
        for piece in ["a", "", "bc", "def"] {
            several.push(Bytes::from_static(piece.as_bytes()));
        }
        assert_eq!(several.len(), 6);
        assert_eq!(several.into_bytes(), "abcdef");
    }

    #[test]
    fn small_bodies_on_all_connections_and_the_queue_together_fit_the_budget() {
        let limits = Limits::default();
        let uploads = Uploads::new(&limits);
        let small = limits.connections as u64 * uploads.small_bytes;
        assert!(small + uploads.queue_bytes <= limits.upload_bytes as u64);
        assert!(uploads.queue_bytes >= QUEUE_BYTES_MIN);
    }
}
