//! Values on their way in: taken off the connection first, committed then.
//!
//! A short value is collected in memory. A long one goes to the engine's upload while it arrives: one
//! chunk is written on a blocking thread while the next one is read, so an upload takes the same
//! memory whatever its length. Nobody sees anything of a value before it is committed; one
//! that is dropped here leaves its key as it was.
//!
//! Absent on purpose: conditions, expiry and metadata, which come with the commit.

use bytes::{Buf, Bytes};
use kvast::{Namespace, Upload};

use crate::blocking::Blocking;
use crate::body::{Buffered, Pieces, UploadError, Uploads, check_len};
use crate::error::Failure;

/// Values of this length, in bytes, are streamed; so are those whose length is not known, from the
/// first chunk on.
const STREAM_FROM: u64 = 256 << 10;
/// How much is handed to the engine at a time.
const CHUNK_BYTES: usize = 128 << 10;
/// What a streamed value takes of the budget, in bytes: a chunk that is read, one that is written, and
/// what the engine holds.
const STREAM_BYTES: u64 = 2 * CHUNK_BYTES as u64 + (256 << 10);

/// A value that has arrived and that nobody sees yet.
pub(crate) enum Staged {
    Short { namespace: Namespace, key: String, value: Buffered },
    Long(Box<Upload>),
}

/// Why a value was not staged.
#[derive(Debug)]
pub(crate) enum StageError {
    /// It did not arrive.
    Upload(UploadError),
    /// The store did not take it.
    Engine(Failure),
}

impl From<UploadError> for StageError {
    fn from(error: UploadError) -> StageError {
        StageError::Upload(error)
    }
}

impl From<Failure> for StageError {
    fn from(failure: Failure) -> StageError {
        StageError::Engine(failure)
    }
}

/// Takes a value of at most `max` bytes.
pub(crate) async fn stage(
    blocking: &Blocking,
    uploads: &Uploads,
    namespace: &Namespace,
    key: &str,
    pieces: &mut impl Pieces,
    max: u64,
) -> Result<Staged, StageError> {
    let declared = pieces.declared();
    check_len(declared.unwrap_or(0), max)?;
    let short = |value| Staged::Short { namespace: namespace.clone(), key: key.to_owned(), value };
    if declared.is_some_and(|len| len < STREAM_FROM) {
        return Ok(short(uploads.collect(pieces, max).await?));
    }
    let mut inflow = Inflow { pieces, max, len: 0, rest: Bytes::new() };
    let mut first = Vec::new();
    if declared.is_none() {
        let until = uploads.small_bytes().min(CHUNK_BYTES as u64) as usize;
        let room = uploads.room(0).await?;
        if !inflow.fill(&mut first, until).await? {
            return Ok(short(Buffered::new(Bytes::from(first), room)));
        }
    }
    let room = uploads.room(STREAM_BYTES).await?;
    first.reserve_exact(CHUNK_BYTES - first.len());
    if !inflow.fill(&mut first, CHUNK_BYTES).await? {
        return Ok(short(Buffered::new(Bytes::from(first), room)));
    }
    let (namespace, key) = (namespace.clone(), key.to_owned());
    let begin = move || Ok(Box::new(namespace.put_stream(key, declared)?));
    let upload = blocking.run(begin).await?;
    Ok(Staged::Long(stream(blocking, upload, first, inflow).await?))
}

/// Writes the first chunk and all that follow.
async fn stream(
    blocking: &Blocking,
    mut upload: Box<Upload>,
    first: Vec<u8>,
    mut inflow: Inflow<'_, impl Pieces>,
) -> Result<Box<Upload>, StageError> {
    let (mut full, mut next) = (first, Vec::with_capacity(CHUNK_BYTES));
    while !full.is_empty() {
        let write = blocking.run(move || {
            upload.write(&full)?;
            full.clear();
            Ok((upload, full))
        });
        let (written, filled) = tokio::join!(write, inflow.fill(&mut next, CHUNK_BYTES));
        (upload, full) = written?;
        filled?;
        std::mem::swap(&mut full, &mut next);
    }
    Ok(upload)
}

/// What is still to come of a value.
struct Inflow<'p, P> {
    pieces: &'p mut P,
    max: u64,
    /// How many bytes have come.
    len: u64,
    /// What a piece had beyond the end of a chunk.
    rest: Bytes,
}

impl<P: Pieces> Inflow<'_, P> {
    /// Fills a chunk up to this length. False if the value ended before.
    async fn fill(&mut self, chunk: &mut Vec<u8>, until: usize) -> Result<bool, UploadError> {
        while chunk.len() < until {
            if self.rest.is_empty() {
                let Some(piece) = self.pieces.next().await? else { return Ok(false) };
                self.len += piece.len() as u64;
                check_len(self.len, self.max)?;
                self.rest = piece;
            }
            let taken = self.rest.len().min(until - chunk.len());
            chunk.extend_from_slice(&self.rest[..taken]);
            self.rest.advance(taken);
        }
        Ok(true)
    }
}
