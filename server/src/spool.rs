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
use crate::limits::Limits;

/// What is gathered in memory before it is written, and the longest body that stays there.
const CHUNK_BYTES: usize = 256 << 10;
/// What is read back at a time.
const READ_BYTES: usize = 64 << 10;

/// Where bodies are kept.
pub(crate) struct Spool {
    dir: PathBuf,
    /// For bodies that are kept: each takes up to its length on disk.
    places: Arc<Semaphore>,
    /// For bodies that are worked on: each takes the memory of its longest entry.
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
    /// Bodies in this directory.
    pub(crate) fn new(dir: PathBuf, limits: &Limits) -> Spool {
        let places =
            |count: usize| Arc::new(Semaphore::new(count.clamp(1, Semaphore::MAX_PERMITS)));
        Spool {
            dir,
            places: places(limits.bulk_bodies),
            work: places(limits.bulk_writes),
            wait: limits.upload_wait,
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
        let place = self.place().await?;
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
        // No client holds this up, so it is waited for as long as it takes.
        let work = Arc::clone(&self.work).acquire_owned().await;
        let work = work.map_err(|_closed| SpoolError::Stopping)?;
        Ok(Spooled { file, _place: place, _work: work })
    }

    /// A place for a body; whoever waits for too long is told that the server is busy.
    async fn place(&self) -> Result<OwnedSemaphorePermit, SpoolError> {
        match timeout(self.wait, Arc::clone(&self.places).acquire_owned()).await {
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

#[cfg(test)]
mod tests {
    use std::io::Read;

    use bytes::Bytes;

    use super::*;

    /// A body of pieces of one length.
    struct Given {
        pieces: usize,
        len: usize,
    }

    impl Pieces for Given {
        fn declared(&self) -> Option<u64> {
            None
        }

        async fn next(&mut self) -> Result<Option<Bytes>, UploadError> {
            let Some(left) = self.pieces.checked_sub(1) else { return Ok(None) };
            self.pieces = left;
            Ok(Some(vec![u8::try_from(left % 251).unwrap_or(0); self.len].into()))
        }
    }

    fn run<T>(future: impl Future<Output = T>) -> T {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_time().build().expect("a runtime").block_on(future)
    }

    async fn take(spool: &Spool, pieces: usize, len: usize) -> Result<Spooled, SpoolError> {
        let max = 1 << 20;
        spool.take(&Blocking::new(1), &mut Given { pieces, len }, max).await
    }

    #[test]
    fn a_body_comes_back_as_often_as_it_is_read_and_leaves_no_name() {
        let dir = tempfile::tempdir().expect("a directory");
        let spool = Spool::new(dir.path().to_owned(), &Limits::default());
        for (pieces, len) in [(0, 0), (3, 10), (100, 10_000), (16, 65_536)] {
            let mut spooled = run(take(&spool, pieces, len)).expect("it is kept");
            for _ in 0..2 {
                let mut body = Vec::new();
                spooled.read().expect("it is there").read_to_end(&mut body).expect("all of it");
                let expected: Vec<u8> =
                    (0..pieces).rev().flat_map(|at| vec![at as u8; len]).collect();
                assert!(body == expected, "{pieces} pieces of {len}");
            }
            assert_eq!(std::fs::read_dir(dir.path()).expect("it is there").count(), 0);
        }
    }

    #[test]
    fn what_is_too_long_or_has_no_disk_is_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let spool = Spool::new(dir.path().to_owned(), &Limits::default());
        let refused = run(take(&spool, 17, 65_536)).err().expect("too long");
        assert!(matches!(refused, SpoolError::Upload(UploadError::TooLong { len: 1_114_112, .. })));
        let spool = Spool::new(dir.path().join("none"), &Limits::default());
        let refused = run(take(&spool, 8, 65_536)).err().expect("no such directory");
        assert!(matches!(refused, SpoolError::Disk(_)));
    }

    #[test]
    fn who_waits_for_a_place_for_too_long_is_told_so_and_a_place_comes_back() {
        let dir = tempfile::tempdir().expect("a directory");
        let limits =
            Limits { bulk_bodies: 1, upload_wait: Duration::from_millis(1), ..Limits::default() };
        let spool = Spool::new(dir.path().to_owned(), &limits);
        let first = run(take(&spool, 1, 1)).expect("it is kept");
        let refused = run(take(&spool, 1, 1)).err().expect("no place");
        assert!(matches!(refused, SpoolError::Upload(UploadError::Busy)));
        drop(first);
        assert!(run(take(&spool, 1, 1)).is_ok());
    }
}
