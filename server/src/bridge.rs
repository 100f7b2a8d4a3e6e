//! The only place where asynchronous code calls the blocking engine.
//!
//! A call runs in one of three places. What cannot wait for a disk runs inline, on the thread that
//! serves the connection. What may wait for a disk runs on one of a bounded number of blocking
//! threads. Writes that wait for a sync go through one commit thread, which takes all that are
//! queued, commits them as one batch and answers them together: any number of puts in flight
//! share a sync, and none holds a thread.
//!
//! Absent on purpose: HTTP, and retries of what failed.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use kvast::{
    Batch, Db, Durability, Expiry, ListOptions, Namespace, NamespaceId, NamespaceSettings, Page,
    PutOptions, Residency, Stats, ValueStream,
};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use crate::blocking::Blocking;
use crate::body::{Pieces, Uploads};
use crate::commit::{Committer, Write};
use crate::download::{self, Download};
use crate::error::Failure;
use crate::limits::{Limits, VALUE_BYTES_MAX};
use crate::reply::{ReplyBody, Reserve};
use crate::spool::{Spool, SpoolError, Spooled};
use crate::staging::{self, StageError, Staged};

/// The most that a call may read, join or copy on the thread that serves the connection, in bytes.
const INLINE_BYTES_MAX: u64 = 64 << 10;

/// The engine, as asynchronous code sees it.
pub(crate) struct Bridge {
    db: Db,
    writes: Writes,
    blocking: Blocking,
    uploads: Arc<Uploads>,
    spool: Spool,
    bulk_room: Arc<Semaphore>,
    room_wait: Duration,
    answer_time: Duration,
}

/// Who carries a write to the engine.
enum Writes {
    /// The caller: with durability `os` a write is a copy into the page cache, and a look at what the
    /// key had.
    Caller,
    /// The commit thread.
    Committer(Committer),
}

/// A value that is about to be sent: its first block is verified and in memory.
pub(crate) struct Opened<'b> {
    /// What is sent of it.
    pub(crate) range: Range<u64>,
    first: Option<Bytes>,
    /// The value itself, behind its first block.
    pub(crate) rest: ValueStream,
    bridge: &'b Bridge,
}

impl Opened<'_> {
    /// The body of the answer that sends it.
    pub(crate) fn into_body(self) -> ReplyBody {
        match self.first {
            None => ReplyBody::from(Bytes::new()),
            Some(bytes) if bytes.len() as u64 == self.range.end - self.range.start => bytes.into(),
            first => {
                let blocking = self.bridge.blocking.clone();
                let until = Instant::now() + self.bridge.answer_time;
                let download = Download::new(blocking, until, first, self.rest, self.range);
                ReplyBody::Blocks(Box::new(download))
            }
        }
    }
}

/// A whole value in one piece.
pub(crate) struct Whole {
    pub(crate) bytes: Bytes,
    /// What the bytes came from: it has the metadata and the expiry.
    pub(crate) of: ValueStream,
}

impl Bridge {
    /// Takes charge of an open store. Spawns the commit thread if writes wait for a sync.
    pub(crate) fn new(
        db: Db,
        durability: Durability,
        limits: &Limits,
        uploads: Arc<Uploads>,
        spool: Spool,
    ) -> io::Result<Bridge> {
        let writes = match durability {
            Durability::Os => Writes::Caller,
            _ => Writes::Committer(Committer::start(db.clone(), limits.queued_writes)?),
        };
        let bulk_bytes = limits.bulk_bytes.max(VALUE_BYTES_MAX as usize);
        Ok(Bridge {
            db,
            writes,
            blocking: Blocking::new(limits.blocking_calls),
            uploads,
            spool,
            bulk_room: Arc::new(Semaphore::new(bulk_bytes.min(Semaphore::MAX_PERMITS))),
            room_wait: limits.upload_wait,
            answer_time: limits.answer_time,
        })
    }

    /// The store itself, for what happens outside of requests.
    pub(crate) fn db(&self) -> &Db {
        &self.db
    }

    /// Whether the store takes writes.
    pub(crate) fn check_writable(&self) -> Result<(), Failure> {
        Ok(self.db.check_writable()?)
    }

    /// The store's numbers, for which its segments are gone through.
    pub(crate) async fn stats(&self) -> Result<(Stats, Residency), Failure> {
        self.blocking(|db| Ok((db.stats(), db.residency()))).await
    }

    /// The namespace that an id or, failing that, a title names.
    pub(crate) fn find_namespace(&self, id_or_title: &str) -> Option<Namespace> {
        let by_id = id_or_title.parse().ok().and_then(|id| self.db.namespace_by_id(id));
        by_id.or_else(|| self.db.find_namespace(id_or_title))
    }

    pub(crate) fn namespaces(&self) -> Vec<Namespace> {
        self.db.namespaces()
    }

    pub(crate) async fn create_namespace(&self, title: String) -> Result<Namespace, Failure> {
        self.blocking(move |db| Ok(db.create_namespace(&title)?)).await
    }

    /// The namespace with this title, which is made if there is none.
    pub(crate) async fn namespace_or_new(&self, title: &'static str) -> Result<Namespace, Failure> {
        self.blocking(move |db| Ok(db.namespace(title)?)).await
    }

    pub(crate) async fn rename_namespace(
        &self,
        id: NamespaceId,
        title: String,
    ) -> Result<Namespace, Failure> {
        self.blocking(move |db| Ok(db.rename_namespace(id, &title)?)).await
    }

    pub(crate) async fn set_settings(
        &self,
        namespace: &Namespace,
        settings: NamespaceSettings,
    ) -> Result<(), Failure> {
        let namespace = namespace.clone();
        self.blocking(move |_| Ok(namespace.set_settings(settings)?)).await
    }

    pub(crate) async fn delete_namespace(&self, id: NamespaceId) -> Result<(), Failure> {
        self.blocking(move |db| Ok(db.delete_namespace(id)?)).await
    }

    /// Finds a value without reading it: what it is, not what is in it.
    pub(crate) async fn find(
        &self,
        namespace: &Namespace,
        key: &str,
    ) -> Result<Option<ValueStream>, Failure> {
        if self.is_resident(namespace, key) {
            return Ok(namespace.get_stream(key)?);
        }
        let (namespace, key) = (namespace.clone(), key.to_owned());
        self.blocking(move |_| find_cold(&namespace, &key)).await
    }

    /// Whether a get of this key will not wait for the disk. While all of the store is in memory, that
    /// takes no look at the key.
    fn is_resident(&self, namespace: &Namespace, key: &str) -> bool {
        self.db.is_resident() || namespace.is_resident(key)
    }

    /// Opens a value, or the bytes of it that `range` names, for sending: inline if they are in
    /// memory.
    pub(crate) async fn open_value(
        &self,
        value: ValueStream,
        range: Option<Range<u64>>,
    ) -> Result<Opened<'_>, Failure> {
        let range = within(range.unwrap_or(0..u64::MAX), value.len());
        let (first, rest) = download::begin(&self.blocking, value, range.clone()).await?;
        Ok(Opened { range, first, rest, bridge: self })
    }

    /// Finds several values without reading them.
    pub(crate) async fn find_many(
        &self,
        namespace: &Namespace,
        keys: &[String],
    ) -> Result<Vec<Option<ValueStream>>, Failure> {
        if keys.iter().all(|key| self.is_resident(namespace, key)) {
            return find_all(namespace, keys);
        }
        let (namespace, keys) = (namespace.clone(), keys.to_vec());
        self.blocking(move |_| keys.iter().map(|key| find_cold(&namespace, key)).collect()).await
    }

    /// Finds any number of values without reading them, on a blocking thread.
    pub(crate) async fn find_each(
        &self,
        namespace: &Namespace,
        keys: Vec<Vec<u8>>,
    ) -> Result<Vec<Option<ValueStream>>, Failure> {
        let namespace = namespace.clone();
        self.blocking(move |_| keys.iter().map(|key| find_cold(&namespace, key)).collect()).await
    }

    /// Reads values whole and makes something of them: inline if they are few bytes and in memory,
    /// otherwise with room in the memory that such readings share.
    pub(crate) async fn read_many<T: Send + 'static>(
        &self,
        values: Vec<Option<ValueStream>>,
        make: impl FnOnce(Vec<Option<Whole>>) -> T + Send + 'static,
    ) -> Result<(T, Option<Reserve>), Failure> {
        let total = values.iter().flatten().map(ValueStream::len).sum::<u64>();
        if total <= INLINE_BYTES_MAX && values.iter().flatten().all(ValueStream::is_resident) {
            return Ok((make(read_whole(values)?), None));
        }
        let permits = u32::try_from(total).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.bulk_room).acquire_many_owned(permits);
        // The semaphore is never closed, so this fails only if others hold all of it for too long.
        let Ok(Ok(room)) = timeout(self.room_wait, room).await else { return Err(Failure::Busy) };
        let reserve = Reserve::new(room, Instant::now() + self.answer_time);
        let made = self.blocking(|_| Ok(make(read_whole(values)?))).await?;
        Ok((made, Some(reserve)))
    }

    /// One page of keys: inline if all of the store is in memory, since keys with metadata cost a look at
    /// their record.
    pub(crate) async fn list(
        &self,
        namespace: &Namespace,
        options: &ListOptions,
    ) -> Result<Page, Failure> {
        if self.db.is_resident() {
            return Ok(namespace.list(options)?);
        }
        let (namespace, options) = (namespace.clone(), options.clone());
        self.blocking(move |_| Ok(namespace.list(&options)?)).await
    }

    /// Takes a value of at most `max` bytes off the connection. Nobody sees it before it is committed.
    pub(crate) async fn stage(
        &self,
        namespace: &Namespace,
        key: &str,
        pieces: &mut impl Pieces,
        max: u64,
    ) -> Result<Staged, StageError> {
        staging::stage(&self.blocking, &self.uploads, namespace, key, pieces, max).await
    }

    /// Takes a body of at most `max` bytes off the connection, and keeps it where it needs no memory.
    pub(crate) async fn spool(
        &self,
        pieces: &mut impl Pieces,
        max: u64,
    ) -> Result<Spooled, SpoolError> {
        self.spool.take(&self.blocking, pieces, max).await
    }

    /// Commits a value, and returns its version when it is as durable as the store promises.
    pub(crate) async fn commit(&self, staged: Staged, options: PutOptions) -> Result<u64, Failure> {
        match staged {
            Staged::Short { namespace, key, value } => {
                self.write(Write::Put { namespace, key, value, options }).await
            }
            Staged::Long(upload) => self.blocking(move |_| Ok(upload.commit(options)?)).await,
        }
    }

    /// Writes that are to happen all or not at all, for [`Self::commit_batch`].
    pub(crate) fn batch(&self) -> Batch {
        self.db.batch()
    }

    /// Commits a batch by itself. Returns the version of its last write when all of it is as durable as
    /// the store promises.
    pub(crate) async fn commit_batch(&self, batch: Batch) -> Result<u64, Failure> {
        self.blocking(move |_| Ok(batch.commit()?)).await
    }

    /// Changes when a key is gone, if it is at this version or none is given. Returns the new version;
    /// `None` if no version is given and there is no such key.
    pub(crate) async fn set_expiry(
        &self,
        namespace: Namespace,
        key: String,
        expiry: Expiry,
        version: Option<u64>,
    ) -> Result<Option<u64>, Failure> {
        self.blocking(move |_| {
            Ok(match version {
                Some(version) => Some(namespace.set_expiry_if(&key, expiry, version)?),
                None => namespace.set_expiry(&key, expiry)?,
            })
        })
        .await
    }

    /// Makes a change, and returns when it is as durable as the store promises: the version that a
    /// put wrote, or 0.
    pub(crate) async fn write(&self, write: Write) -> Result<u64, Failure> {
        match &self.writes {
            Writes::Committer(committer) if !write.is_conditional() => {
                committer.commit(write).await
            }
            // Its own wait for the sync, on a thread of its own.
            Writes::Committer(_) => self.blocking(move |db| Ok(write.apply(db)?)).await,
            Writes::Caller if write.byte_len() <= INLINE_BYTES_MAX && self.is_warm_for(&write) => {
                Ok(write.apply(&self.db)?)
            }
            Writes::Caller => self.blocking(move |db| Ok(write.apply(db)?)).await,
        }
    }

    /// Whether what a write replaces is in memory.
    fn is_warm_for(&self, write: &Write) -> bool {
        self.db.is_resident() || write.is_resident()
    }

    /// Ends the commit thread after what it has, and closes the store. Blocks.
    pub(crate) fn close(&self) -> Result<(), kvast::Error> {
        if let Writes::Committer(committer) = &self.writes {
            committer.stop();
        }
        self.db.clone().close()
    }

    /// Makes a call that takes its time.
    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        call: impl FnOnce(&Db) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let db = self.db.clone();
        self.blocking.run(move || call(&db)).await
    }
}

/// The part of a range that a value of `len` bytes has.
fn within(range: Range<u64>, len: u64) -> Range<u64> {
    let end = range.end.min(len);
    range.start.min(end)..end
}

fn find_all(namespace: &Namespace, keys: &[String]) -> Result<Vec<Option<ValueStream>>, Failure> {
    Ok(namespace.get_many_streams(keys)?)
}

/// Finds a value whose record may have to be read from disk, on a thread that may wait for that.
fn find_cold(namespace: &Namespace, key: impl AsRef<[u8]>) -> Result<Option<ValueStream>, Failure> {
    namespace.populate(&key).map_err(Failure::Unreadable)?;
    Ok(namespace.get_stream(&key)?)
}

fn read_whole(values: Vec<Option<ValueStream>>) -> Result<Vec<Option<Whole>>, Failure> {
    values.into_iter().map(|value| value.map(join_blocks).transpose()).collect()
}

/// A value of one block stays where it is; more blocks are joined.
fn join_blocks(mut value: ValueStream) -> Result<Whole, Failure> {
    populate(&value)?;
    let mut bytes = value.next_block().transpose()?.unwrap_or_default();
    if (bytes.len() as u64) < value.len() {
        let mut joined = BytesMut::with_capacity(usize::try_from(value.len()).unwrap_or(0));
        joined.extend_from_slice(&bytes);
        while let Some(block) = value.next_block() {
            joined.extend_from_slice(&block?);
        }
        bytes = joined.freeze();
    }
    Ok(Whole { bytes, of: value })
}

/// Brings a value's bytes into memory, so that a failing disk is an error and not a signal.
fn populate(value: &ValueStream) -> Result<(), Failure> {
    if value.is_resident() { Ok(()) } else { value.populate().map_err(Failure::Unreadable) }
}
