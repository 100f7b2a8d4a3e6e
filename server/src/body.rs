//! Request bodies: collected under one memory budget, or drained so that a refusal is heard.
//!
//! The budget has two parts. Every connection may hold a small body at any time; the connection
//! limit bounds these together, so small puts never wait. Whatever is longer first takes a place
//! in a fair queue for the rest of the budget: as much as `Content-Length` says, or as much as the
//! longest value where a chunked body grows beyond small. An upload asks for room once, for all
//! that it can ever need, so nobody holds room while waiting for more and the queue always moves.
//! Room is given back when the value has reached the engine, not when its request ends.
//!
//! Absent on purpose: spilling to disk, and any store call before a body is complete; an upload
//! that is cut off leaves no trace.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use hyper::{HeaderMap, StatusCode, header};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use crate::limits::{Limits, VALUE_BYTES_MAX};
use crate::rules::Refusal;

/// The memory that uploads share, and how long they may take.
pub(crate) struct Uploads {
    queue: Arc<Semaphore>,
    queue_bytes: u64,
    small_bytes: u64,
    idle: Duration,
    total: Duration,
    drain_bytes: u64,
}

/// A whole request body, with its room in the budget.
#[derive(Debug, Default)]
pub(crate) struct Upload {
    pub(crate) bytes: Bytes,
    _room: Option<OwnedSemaphorePermit>,
}

/// Why a body was not collected.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum UploadError {
    /// It is longer than allowed: by its own word, or as far as it was read.
    TooLong { len: u64 },
    /// It paused for too long, or took too long in all.
    TooSlow,
    /// It ended early or was framed badly.
    Broken,
}

impl UploadError {
    /// The refusal on the binding surface; what is too long is for the caller to say.
    pub(crate) fn into_refusal(self, too_long: impl FnOnce(u64) -> Refusal) -> Refusal {
        match self {
            UploadError::TooLong { len } => too_long(len),
            UploadError::TooSlow => {
                Refusal::new(StatusCode::REQUEST_TIMEOUT, "The request body came too slowly.")
            }
            UploadError::Broken => Refusal::bad("The request body ended early or is framed badly."),
        }
    }
}

impl Uploads {
    pub(crate) fn new(limits: &Limits) -> Uploads {
        let small_bytes = limits.small_upload_bytes as u64;
        let for_small = small_bytes.saturating_mul(limits.connections as u64);
        let queue_bytes = (limits.upload_bytes as u64).saturating_sub(for_small);
        // The longest value must fit, or its upload would wait for ever.
        let queue_bytes = queue_bytes.clamp(VALUE_BYTES_MAX, u64::from(u32::MAX));
        Uploads {
            queue: Arc::new(Semaphore::new(queue_bytes as usize)),
            queue_bytes,
            small_bytes,
            idle: limits.body_idle,
            total: limits.body_time,
            drain_bytes: limits.drain_bytes,
        }
    }

    /// Takes a body off the connection without keeping it.
    async fn drain(&self, mut body: Incoming) {
        let deadline = Instant::now() + self.total;
        let mut left = self.drain_bytes;
        while let Ok(Some(data)) = self.next_data(&mut body, deadline).await {
            match left.checked_sub(data.len() as u64) {
                Some(rest) => left = rest,
                None => break,
            }
        }
    }

    async fn read(
        &self,
        body: &mut Incoming,
        declared: Option<u64>,
        max: u64,
    ) -> Result<Upload, UploadError> {
        let mut room = self.room_for(declared.unwrap_or(0)).await;
        let deadline = Instant::now() + self.total;
        let mut collected = Collected::default();
        collected.expect(declared.unwrap_or(0));
        while let Some(data) = self.next_data(body, deadline).await? {
            let len = collected.len() + data.len() as u64;
            if len > max {
                return Err(UploadError::TooLong { len });
            }
            if declared.is_none() && room.is_none() {
                room = self.room_for_growth(len, max).await;
                collected.expect(if room.is_some() { max } else { len });
            }
            collected.push(data);
        }
        Ok(Upload { bytes: collected.into_bytes(), _room: room })
    }

    /// The next piece of a body, `None` at its end.
    async fn next_data(
        &self,
        body: &mut Incoming,
        deadline: Instant,
    ) -> Result<Option<Bytes>, UploadError> {
        loop {
            let until = deadline.min(Instant::now() + self.idle);
            match timeout_at(until, body.frame()).await {
                Err(_) => return Err(UploadError::TooSlow),
                Ok(None) => return Ok(None),
                Ok(Some(Err(_))) => return Err(UploadError::Broken),
                Ok(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => return Ok(Some(data)),
                    Err(_trailers) => continue,
                },
            }
        }
    }

    async fn room_for_growth(&self, len: u64, max: u64) -> Option<OwnedSemaphorePermit> {
        if len <= self.small_bytes { None } else { self.room_for(max).await }
    }

    async fn room_for(&self, len: u64) -> Option<OwnedSemaphorePermit> {
        if len <= self.small_bytes {
            return None;
        }
        let permits = u32::try_from(len.min(self.queue_bytes)).unwrap_or(u32::MAX);
        // The semaphore is never closed, so this cannot fail.
        Arc::clone(&self.queue).acquire_many_owned(permits).await.ok()
    }
}

/// The body of one request, until somebody reads it.
pub(crate) struct Inbound<'r> {
    uploads: &'r Arc<Uploads>,
    headers: &'r HeaderMap,
    body: Option<Incoming>,
}

impl<'r> Inbound<'r> {
    pub(crate) fn new(
        uploads: &'r Arc<Uploads>,
        headers: &'r HeaderMap,
        body: Incoming,
    ) -> Inbound<'r> {
        Inbound { uploads, headers, body: Some(body) }
    }

    /// Reads the body to its end. One that is too long is refused as early as that is known.
    pub(crate) async fn collect(&mut self, max: u64) -> Result<Upload, UploadError> {
        let Some(body) = &mut self.body else { return Ok(Upload::default()) };
        match body.size_hint().exact() {
            Some(len) if len > max => Err(UploadError::TooLong { len }),
            declared => self.uploads.read(body, declared, max).await,
        }
    }

    /// Drains, behind the answer, what was not read: a client that sends all before it reads would
    /// otherwise meet a reset in the place of its answer.
    pub(crate) fn finish(self) {
        let Some(body) = self.body.filter(|body| !body.is_end_stream()) else { return };
        // Reading would send the `100 Continue` that this client is waiting for; without it, it
        // sends nothing, so there is nothing to drain.
        if self.headers.contains_key(header::EXPECT) {
            return;
        }
        let uploads = Arc::clone(self.uploads);
        tokio::spawn(async move { uploads.drain(body).await });
    }
}

/// The pieces of a body. One piece stays the slice that the connection read; more are joined.
#[derive(Default)]
struct Collected {
    first: Bytes,
    joined: BytesMut,
    expected: usize,
}

impl Collected {
    /// Says how long the body may become, so that joining it allocates once.
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
        let mut single = Collected::default();
        single.push(piece.clone());
        assert_eq!(single.into_bytes().as_ptr(), piece.as_ptr());

        let mut several = Collected::default();
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
        assert!(uploads.queue_bytes >= VALUE_BYTES_MAX);
    }
}
