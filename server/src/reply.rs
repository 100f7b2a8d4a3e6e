//! Answers: a head and a body of one of three kinds.
//!
//! A body is whole, or whole in memory that was set aside for it, or it is a value that is taken block
//! by block. The first block is taken before the head is written, so damage there is still told as a
//! status; damage in a later block breaks the connection off, which no client mistakes for the end
//! of the value. So does a client that takes too long for an answer that keeps memory or a file.
//! Absent on purpose: a boxed body, compression, and any header that a resource did not ask for.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use hyper::ext::ReasonPhrase;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use crate::download::{BrokenOff, Download};

/// The longest reason phrase, in characters.
const REASON_CHARS_MAX: usize = 512;

/// The most that is taken at a time of an answer in memory that was set aside.
const PART_BYTES: usize = 256 << 10;

/// An answer.
pub(crate) type Reply = Response<ReplyBody>;

/// The body of an answer.
pub(crate) enum ReplyBody {
    /// All of it.
    Whole(Bytes),
    /// All of it, in memory that was set aside.
    Reserved(Bytes, Reserve),
    /// A long value.
    Blocks(Box<Download>),
}

/// Memory that was set aside for an answer, and until when the client may take it.
pub(crate) struct Reserve {
    _memory: OwnedSemaphorePermit,
    until: Instant,
}

impl Reserve {
    pub(crate) fn new(memory: OwnedSemaphorePermit, until: Instant) -> Reserve {
        Reserve { _memory: memory, until }
    }
}

/// The next part of an answer that is to be taken by a certain time.
fn next_part(bytes: &mut Bytes, until: Instant) -> Option<Result<Bytes, BrokenOff>> {
    if bytes.is_empty() {
        return None;
    }
    if Instant::now() >= until {
        return Some(Err(BrokenOff::Overdue));
    }
    Some(Ok(bytes.split_to(bytes.len().min(PART_BYTES))))
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        let frame = match &mut *self {
            ReplyBody::Whole(bytes) if bytes.is_empty() => None,
            ReplyBody::Whole(bytes) => Some(Ok(std::mem::take(bytes))),
            ReplyBody::Reserved(bytes, reserve) => next_part(bytes, reserve.until),
            ReplyBody::Blocks(download) => ready!(download.poll_block(cx)),
        };
        if let Some(Err(broken)) = &frame {
            broken.log();
        }
        Poll::Ready(frame.map(|block| block.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.size_hint().exact() == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(match self {
            ReplyBody::Whole(bytes) | ReplyBody::Reserved(bytes, _) => bytes.len() as u64,
            ReplyBody::Blocks(download) => download.left(),
        })
    }
}

impl From<Bytes> for ReplyBody {
    fn from(bytes: Bytes) -> ReplyBody {
        ReplyBody::Whole(bytes)
    }
}

/// 200 and nothing more.
pub(crate) fn done() -> Reply {
    Response::new(ReplyBody::from(Bytes::new()))
}

/// 200 with JSON, and the memory that was set aside for it.
pub(crate) fn json(body: Vec<u8>, reserve: Option<Reserve>) -> Reply {
    let mut reply = Response::new(match reserve {
        None => ReplyBody::Whole(body.into()),
        Some(reserve) => ReplyBody::Reserved(body.into(), reserve),
    });
    set(&mut reply, CONTENT_TYPE, "application/json");
    reply
}

/// 200 with a text of some type.
pub(crate) fn text(content_type: &'static str, text: impl Into<Bytes>) -> Reply {
    let mut reply = Response::new(ReplyBody::from(text.into()));
    set(&mut reply, CONTENT_TYPE, content_type);
    reply
}

/// An answer that is a sentence: as the body, and as the reason phrase of the status line, which
/// is all that a Workers runtime shows to the application.
pub(crate) fn sentence(status: StatusCode, text: impl Into<Bytes>) -> Reply {
    let text = text.into();
    let reason = ReasonPhrase::try_from(reason_phrase(&text));
    let mut reply = Response::new(ReplyBody::from(text));
    *reply.status_mut() = status;
    set(&mut reply, CONTENT_TYPE, "text/plain;charset=utf-8");
    if let Ok(reason) = reason {
        reply.extensions_mut().insert(reason);
    }
    reply
}

/// Names the methods that a resource has, on an answer that refused another.
pub(crate) fn allow(mut reply: Reply, methods: &'static str) -> Reply {
    set(&mut reply, ALLOW, methods);
    reply
}

/// Says on an answer that the same request may succeed a little later.
pub(crate) fn retry_later(mut reply: Reply) -> Reply {
    set(&mut reply, RETRY_AFTER, "5");
    reply
}

/// Sets a header that never changes.
pub(crate) fn set(reply: &mut Reply, name: HeaderName, value: &'static str) {
    reply.headers_mut().insert(name, HeaderValue::from_static(value));
}

/// A text as one printable line of bounded length.
fn reason_phrase(text: &[u8]) -> String {
    let printable = |c: char| if c.is_control() { '?' } else { c };
    String::from_utf8_lossy(text).chars().take(REASON_CHARS_MAX).map(printable).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_phrase_is_one_bounded_printable_line() {
        assert_eq!(reason_phrase(b"a\r\nb\tc\x7f"), "a??b?c?");
        assert_eq!(reason_phrase("é".repeat(600).as_bytes()), "é".repeat(512));
    }
}
