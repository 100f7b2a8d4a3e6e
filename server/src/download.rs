//! A value on its way out: verified blocks that borrow the engine's mapping.
//!
//! What always holds: a block is verified before it is handed on, and nothing is read on the thread
//! that serves the connection unless it is in memory. A value is brought into memory one window
//! at a time, so the first byte does not wait for the last, and only the client's own answer waits
//! for the disk. Memory is taken by the blocks that the connection has yet to write, and by nothing
//! else.
//!
//! Absent on purpose: copies, and reading ahead of a client that may never ask for more.

use std::fmt;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use kvast::ValueStream;
use tokio::time::Instant;

use crate::blocking::Blocking;
use crate::error::Failure;

/// How much of a value is brought into memory at a time.
const WINDOW_BYTES: u64 = 1 << 20;

/// Why an answer is not sent to its end.
#[derive(Debug)]
pub(crate) enum BrokenOff {
    /// The store failed.
    Failure(Failure),
    /// The client took too long.
    Overdue,
}

impl From<Failure> for BrokenOff {
    fn from(failure: Failure) -> BrokenOff {
        BrokenOff::Failure(failure)
    }
}

impl fmt::Display for BrokenOff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BrokenOff::Failure(failure) => failure.fmt(f),
            BrokenOff::Overdue => f.write_str("the client took too long to read its answer"),
        }
    }
}

impl std::error::Error for BrokenOff {}

impl BrokenOff {
    /// Tells the operator; the client sees the connection end.
    pub(crate) fn log(&self) {
        match self {
            BrokenOff::Failure(failure) => {
                tracing::error!(code = failure.code(), %failure, "a value broke off");
            }
            BrokenOff::Overdue => tracing::debug!("{self}"),
        }
    }
}

/// The part of a value that is still to be sent.
pub(crate) struct Download {
    blocking: Blocking,
    /// When the client must have taken all of it: until then the value keeps its file on disk.
    until: Instant,
    /// The block that was taken before the answer's head was written.
    first: Option<Bytes>,
    source: Source,
    /// What is still to be taken from the source, counted from the start of the value.
    rest: Range<u64>,
    /// Everything below this was in memory when it was last looked at.
    warm_until: u64,
}

enum Source {
    Ready(ValueStream),
    /// A window is being brought into memory.
    Waiting(Pin<Box<dyn Future<Output = Result<ValueStream, Failure>> + Send>>),
    /// Nothing more can be taken.
    Spent,
}

/// The first part of the range, which is looked at or brought into memory at once.
fn window(range: &Range<u64>) -> Range<u64> {
    range.start..range.end.min(range.start.saturating_add(WINDOW_BYTES))
}

/// Brings a window into memory, so that a failing disk is an error and not a signal.
fn populate(value: &ValueStream, window: Range<u64>) -> Result<(), Failure> {
    value.populate_within(window).map_err(Failure::Unreadable)
}

/// Takes the first block of a range, which is then told as a status if it is damaged: inline if it is
/// in memory. The value that is returned goes on behind it.
pub(crate) async fn begin(
    blocking: &Blocking,
    value: ValueStream,
    range: Range<u64>,
) -> Result<(Option<Bytes>, ValueStream), Failure> {
    let window = window(&range);
    let is_resident = value.is_resident_within(window.clone());
    let mut value = value.range(range);
    let take = move || {
        if !is_resident {
            populate(&value, window)?;
        }
        Ok((value.next_block().transpose()?, value))
    };
    if is_resident { take() } else { blocking.run(take).await }
}

impl Download {
    /// Goes on behind [`begin`], which was given the same range.
    pub(crate) fn new(
        blocking: Blocking,
        until: Instant,
        first: Option<Bytes>,
        value: ValueStream,
        range: Range<u64>,
    ) -> Download {
        let warm_until = window(&range).end;
        let taken = first.as_ref().map_or(0, |block| block.len() as u64);
        let rest = range.start + taken..range.end;
        Download { blocking, until, first, source: Source::Ready(value), rest, warm_until }
    }

    /// How many bytes are still to be sent.
    pub(crate) fn left(&self) -> u64 {
        let first = self.first.as_ref().map_or(0, |block| block.len() as u64);
        first + (self.rest.end - self.rest.start)
    }

    /// The next block, `None` after the last.
    pub(crate) fn poll_block(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, BrokenOff>>> {
        if let Some(block) = self.first.take() {
            return Poll::Ready(Some(Ok(block)));
        }
        if self.rest.is_empty() {
            return Poll::Ready(None);
        }
        let block = if Instant::now() < self.until {
            ready!(self.poll_source(cx)).map(|block| block.map_err(BrokenOff::from))
        } else {
            Some(Err(BrokenOff::Overdue))
        };
        match &block {
            Some(Ok(block)) => self.rest.start += block.len() as u64,
            Some(Err(_)) | None => self.source = Source::Spent,
        }
        Poll::Ready(block)
    }

    fn poll_source(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Failure>>> {
        loop {
            match &mut self.source {
                Source::Ready(value) if self.rest.start < self.warm_until => {
                    let block = value.next_block();
                    return Poll::Ready(block.map(|block| block.map_err(Failure::from)));
                }
                Source::Ready(_) => self.look_ahead(),
                Source::Waiting(brought) => match ready!(brought.as_mut().poll(cx)) {
                    Ok(value) => {
                        self.warm_until = window(&self.rest).end;
                        self.source = Source::Ready(value);
                    }
                    Err(failure) => return Poll::Ready(Some(Err(failure))),
                },
                Source::Spent => return Poll::Ready(None),
            }
        }
    }

    /// Looks whether the next window is in memory; otherwise has it brought there.
    fn look_ahead(&mut self) {
        let Source::Ready(value) = std::mem::replace(&mut self.source, Source::Spent) else {
            return;
        };
        let window = window(&self.rest);
        if value.is_resident_within(window.clone()) {
            self.warm_until = window.end;
            self.source = Source::Ready(value);
        } else {
            let populate = move || populate(&value, window).map(|()| value);
            self.source = Source::Waiting(Box::pin(self.blocking.run(populate)));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use kvast::{Namespace, Options};

    use super::*;

    fn store() -> (tempfile::TempDir, Namespace) {
        let dir = tempfile::tempdir().expect("a directory");
        let db = Options::new().open(dir.path().join("store")).expect("it opens");
        let files = db.namespace("files").expect("a namespace");
        (dir, files)
    }

    /// All that is sent of a range.
    async fn send(
        files: &Namespace,
        range: Range<u64>,
        until: Instant,
    ) -> Result<Vec<u8>, BrokenOff> {
        let blocking = Blocking::new(1);
        let value = files.get_stream("a").expect("no failure").expect("it is there");
        let (first, value) = begin(&blocking, value, range.clone()).await.expect("it begins");
        let mut download = Download::new(blocking, until, first, value, range.clone());
        let mut sent = Vec::new();
        loop {
            assert_eq!(download.left(), range.end - range.start - sent.len() as u64);
            match poll_fn(|cx| download.poll_block(cx)).await {
                Some(block) => sent.extend_from_slice(&block?),
                None => return Ok(sent),
            }
        }
    }

    #[tokio::test]
    async fn a_range_is_sent_whole_across_blocks_and_windows() {
        let (_dir, files) = store();
        let value: Vec<u8> = (0..3_000_000_u32).flat_map(u32::to_le_bytes).collect();
        files.put("a", &value).expect("it is stored");
        let later = Instant::now() + Duration::from_secs(60);
        let len = value.len() as u64;
        let ends = [0, 1, 65_536, WINDOW_BYTES - 1, WINDOW_BYTES, 3 * WINDOW_BYTES + 5, len];
        for start in ends {
            for end in ends.into_iter().filter(|end| start <= *end) {
                let sent = send(&files, start..end, later).await.expect("it is sent");
                assert!(sent == value[start as usize..end as usize], "{start}..{end}");
            }
        }
    }

    #[tokio::test]
    async fn an_answer_that_is_overdue_is_broken_off_behind_its_first_block() {
        let (_dir, files) = store();
        files.put("a", vec![7; 200_000]).expect("it is stored");
        let sent = send(&files, 0..200_000, Instant::now()).await;
        assert!(matches!(sent, Err(BrokenOff::Overdue)), "{sent:?}");
        let one_block = send(&files, 0..1000, Instant::now()).await;
        assert_eq!(one_block.expect("nothing is left to be late for").len(), 1000);
    }
}
