//! Bodies that are longer than memory should be: kept in a file without a name until they are used.
//!
//! A short body stays in memory. A long one goes to a file in the data directory, which is gone with
//! the last handle to it, also after a crash. There is room for a bounded number of bodies, and fewer
//! of them are worked on at a time, since that takes memory. Absent on purpose: what a body means.

use std::io::{self, BufRead, BufReader, Seek, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tempfile::{SpooledTempFile, spooled_tempfile_in};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::blocking::Blocking;
use crate::body::{Pieces, UploadError, check_len};

/// What is gathered in memory before it is written, and the longest body that stays there.
const CHUNK_BYTES: usize = 256 << 10;
/// What is read back at a time.
const READ_BYTES: usize = 64 << 10;
/// Bodies that are kept at a time: each takes up to its length on disk.
const BODIES_MAX: usize = 16;
/// Bodies that are worked on at a time: each takes the memory of its longest entry.
const IN_WORK_MAX: usize = 2;

/// Where bodies are kept.
pub(crate) struct Spool {
    dir: PathBuf,
    places: Arc<Semaphore>,
    work: Arc<Semaphore>,
    wait: Duration,
}

/// A whole body.
pub(crate) struct Spooled {
    file: SpooledTempFile,
    _place: OwnedSemaphorePermit,
    _work: OwnedSemaphorePermit,
}

/// Why a body was not kept.
#[derive(Debug)]
pub(crate) enum SpoolError {
    /// It did not arrive.
    Upload(UploadError),
    /// The disk did not take it.
    Disk(io::Error),
    Stopping,
}

impl From<UploadError> for SpoolError {
    fn from(error: UploadError) -> SpoolError {
        SpoolError::Upload(error)
    }
}

impl Spool {
    /// Bodies in this directory; whoever waits for a place for longer than `wait` is told to come back.
    pub(crate) fn new(dir: PathBuf, wait: Duration) -> Spool {
        Spool {
            dir,
            places: Arc::new(Semaphore::new(BODIES_MAX)),
            work: Arc::new(Semaphore::new(IN_WORK_MAX)),
            wait,
        }
    }

    /// Takes a body of at most `max` bytes, and returns when it may be worked on.
    pub(crate) async fn take(
        &self,
        blocking: &Blocking,
        pieces: &mut impl Pieces,
        max: u64,
    ) -> Result<Spooled, SpoolError> {
        check_len(pieces.declared().unwrap_or(0), max)?;
        let place = self.place(&self.places).await?;
        let mut file = spooled_tempfile_in(CHUNK_BYTES, &self.dir);
        let (mut chunk, mut len) = (Vec::new(), 0);
        while let Some(piece) = pieces.next().await? {
            len += piece.len() as u64;
            check_len(len, max)?;
            chunk.extend_from_slice(&piece);
            if chunk.len() >= CHUNK_BYTES {
                (file, chunk) = append(blocking, file, chunk).await?;
            }
        }
        (file, _) = append(blocking, file, chunk).await?;
        let work = self.place(&self.work).await?;
        Ok(Spooled { file, _place: place, _work: work })
    }

    async fn place(&self, places: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, SpoolError> {
        match timeout(self.wait, Arc::clone(places).acquire_owned()).await {
            Ok(Ok(place)) => Ok(place),
            Ok(Err(_closed)) => Err(SpoolError::Stopping),
            Err(_) => Err(SpoolError::Upload(UploadError::Busy)),
        }
    }
}

async fn append(
    blocking: &Blocking,
    mut file: SpooledTempFile,
    mut chunk: Vec<u8>,
) -> Result<(SpooledTempFile, Vec<u8>), SpoolError> {
    let written = blocking.run(move || {
        let written = file.write_all(&chunk);
        chunk.clear();
        Ok(written.map(|()| (file, chunk)))
    });
    match written.await {
        Ok(written) => written.map_err(SpoolError::Disk),
        // The call itself does not fail.
        Err(_stopping) => Err(SpoolError::Stopping),
    }
}

impl Spooled {
    /// The body from its start. Blocks.
    pub(crate) fn read(&mut self) -> io::Result<impl BufRead> {
        self.file.rewind()?;
        Ok(BufReader::with_capacity(READ_BYTES, &mut self.file))
    }
}
