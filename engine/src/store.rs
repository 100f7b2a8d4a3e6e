//! The open store behind every handle: what the front door, a namespace and a batch share.
//!
//! What always holds: a write to a namespace comes whole before or whole after its deletion; the
//! lock on the directory is given up last.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::background::Background;
use crate::commit::{Committer, Done, WriteGroup};
use crate::compact::Compactor;
use crate::cursor::Scope;
use crate::disk::DirLock;
use crate::error::{Corruption, Damage, Error};
use crate::format::StoreId;
use crate::format::record::{Draft, EXPIRES_END, Extent, Kind, Record, value_checksum};
use crate::format::segment_header::SegmentKind;
use crate::index::Guard;
use crate::key;
use crate::keyspace::{FOUND_TOGETHER, Keyspace, Sought};
use crate::list::{self, ListOptions, Page};
use crate::options::{Durability, Expiry, Options, PutOptions};
use crate::recover::RecoveryReport;
use crate::registry::{NamespaceState, Registry, SYSTEM};
use crate::segment::blob::Blob;
use crate::segment::{Segment, file_name};
use crate::stage::{self, Stage, Staged};
use crate::value::Value;

/// What all clones of a `Db` and all its handles hold on to; the last of them closes it.
pub(crate) struct Store {
    /// Stopped first.
    pub(crate) background: Mutex<Option<Background>>,
    pub(crate) keyspace: Arc<Keyspace>,
    pub(crate) committer: Arc<Committer>,
    pub(crate) stage: Arc<Stage>,
    pub(crate) compactor: Arc<Compactor>,
    pub(crate) registry: Registry,
    /// Held while the registry changes, so that two creations of one name are one.
    pub(crate) registry_turn: Mutex<()>,
    pub(crate) options: Options,
    pub(crate) id: StoreId,
    pub(crate) report: RecoveryReport,
    /// Given up last.
    pub(crate) lock: Mutex<Option<DirLock>>,
}

/// How often a reader looks for a value that compaction moves: once is rare, and twice is no accident.
const LOOKS: usize = 100;

pub(crate) fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Store {
    /// Stops the threads, makes everything durable, and gives the lock up.
    pub(crate) fn close(&self) -> Result<(), Error> {
        // First, so that a thread which compacts gives up.
        self.compactor.stop();
        drop(held(&self.background).take());
        // Uploads that are under way end here, so that nothing is written after the lock is given up.
        let was_open = self.stage.close();
        let closed = self.committer.close();
        // A store that is closed a second time may be open in another process.
        if was_open && closed.is_ok() {
            self.stage.trim();
        }
        drop(held(&self.lock).take());
        closed
    }

    fn syncs(&self) -> bool {
        self.options.durability == Durability::Sync
    }

    /// Writes what `join` adds for a namespace, unless that was deleted. Returns what `join`
    /// returned, and the group's outcome.
    pub(crate) fn write<T>(
        &self,
        namespaces: &[Arc<NamespaceState>],
        alone: bool,
        join: impl FnOnce(&mut WriteGroup) -> T,
    ) -> Result<(T, Done), Error> {
        self.compactor.wait_for_space();
        let (joined, done) = self.committer.write(self.syncs(), alone, |group| {
            // Under the queue's lock: a deletion of the namespace comes before or after, whole.
            let dropped = namespaces.iter().any(|namespace| namespace.is_dropped());
            (!dropped).then(|| join(group))
        });
        let joined = joined.ok_or(Error::NamespaceNotFound)?;
        Ok((joined, done?))
    }

    /// The value of a key that has not expired; short values are verified.
    #[inline]
    pub(crate) fn find_value(&self, namespace: u32, key: &[u8]) -> Result<Option<Value>, Error> {
        let keyspace = &self.keyspace;
        self.find_pinned(&keyspace.sought(namespace, key), &keyspace.index.pin())
    }

    /// The same for many keys, in their order.
    pub(crate) fn find_values(
        &self,
        namespace: u32,
        keys: &[impl AsRef<[u8]>],
    ) -> Result<Vec<Option<Value>>, Error> {
        let keyspace = &self.keyspace;
        let mut values = Vec::with_capacity(keys.len());
        let mut sought = Vec::with_capacity(FOUND_TOGETHER.min(keys.len()));
        for together in keys.chunks(FOUND_TOGETHER) {
            let pinned = keyspace.index.pin();
            sought.clear();
            sought.extend(together.iter().map(|key| keyspace.sought(namespace, key.as_ref())));
            keyspace.fetch_together(&sought, &pinned);
            for sought in &sought {
                values.push(self.find_pinned(sought, &pinned)?);
            }
        }
        Ok(values)
    }

    // Step by step and not by `Keyspace::find`: what that returns would be copied twice.
    #[inline]
    fn find_pinned(&self, sought: &Sought<'_>, pinned: &Guard) -> Result<Option<Value>, Error> {
        for looked in 0.. {
            let Some((segment, offset)) = self.keyspace.locate(sought, pinned) else { break };
            let record = segment.body.record(offset)?;
            if !self.keyspace.is_live(&record.header) {
                break;
            }
            let Some(extent) = record.header.extent else {
                // Short values are verified here, where the bytes are warm.
                if !record.header.has_block_table() {
                    let damage = record.verify_value();
                    damage.map_err(|damage| segment.body.corruption(offset, damage))?;
                }
                return Ok(Some(Value::new(segment, offset, &record)));
            };
            match self.large_value(extent, &record, pinned) {
                // Compaction moved the value after the key was looked up: look again.
                Err(Error::Corrupt(Corruption { damage: Damage::Missing, .. }))
                    if looked < LOOKS => {}
                value => return value.map(Some),
            }
        }
        Ok(None)
    }

    /// The value in a blob, [`Damage::Missing`] if that is gone.
    #[cold]
    fn large_value(
        &self,
        extent: Extent,
        record: &Record<'_>,
        pinned: &Guard,
    ) -> Result<Value, Error> {
        let metadata = (!record.metadata.is_empty()).then(|| record.metadata.into());
        let value = |blob: &Segment| Value::in_blob(blob, extent, record.header, metadata);
        let Some(value) = self.keyspace.catalog.with_id(extent.segment(), pinned, value) else {
            let file = file_name(extent.segment(), SegmentKind::Blob);
            return Err(
                Corruption { file, offset: extent.offset(), damage: Damage::Missing }.into()
            );
        };
        let value = value?;
        if !record.header.has_block_table() {
            value.verify_all()?;
        }
        Ok(value)
    }

    /// Writes a large value into a blob, and has the draft refer to it. What is returned is given to
    /// [`Self::settle`] before the draft is committed, and kept until it is.
    pub(crate) fn stage_large(&self, draft: &mut Draft<'_>) -> Result<Option<Staged>, Error> {
        if (draft.value.len() as u64) < self.options.large_value_bytes {
            draft.value_crc = value_checksum(draft.value);
            return Ok(None);
        }
        let mut writing = self.stage.begin(draft.value.len() as u64)?;
        writing.write(draft.value)?;
        let staged = writing.finish()?;
        staged.refer(draft);
        Ok(Some(staged))
    }

    /// Makes large values as durable as records must find them. Returns the blobs that are synced with the
    /// log instead, see [`WriteGroup::rest_on`].
    pub(crate) fn settle(&self, values: &[Staged]) -> Result<Vec<Arc<Blob>>, Error> {
        if self.syncs() {
            return stage::sync_all(values.iter()).map(|()| Vec::new());
        }
        let mut blobs: Vec<_> = values.iter().map(Staged::blob).collect();
        blobs.dedup_by(|a, b| Arc::ptr_eq(a, b));
        Ok(blobs)
    }

    /// One page of a namespace's keys.
    pub(crate) fn list_page(&self, namespace: u32, options: &ListOptions) -> Result<Page, Error> {
        let scope = Scope { store: &self.id, namespace, prefix: &[], reverse: false };
        list::list(&self.keyspace, scope, self.options.max_key_bytes, options)
    }

    /// Checks the limits and drafts a put, which [`Self::stage_large`] completes.
    pub(crate) fn draft<'a>(
        &self,
        namespace: &NamespaceState,
        key: &'a [u8],
        value: &'a [u8],
        options: &'a PutOptions,
    ) -> Result<Draft<'a>, Error> {
        key::check(key, self.options.max_key_bytes)?;
        self.check_metadata(options.metadata.len())?;
        self.check_value(namespace, value.len() as u64)?;
        Ok(Draft {
            kind: Kind::Put,
            namespace: namespace.number,
            written_ms: self.keyspace.time.wall_ms(),
            expires_ms: self.expires_ms(namespace, options.expiry, options.asked_ms)?,
            key,
            metadata: &options.metadata,
            value,
            // See `stage_large`.
            value_crc: 0,
            extent: None,
        })
    }

    pub(crate) fn check_metadata(&self, len: usize) -> Result<(), Error> {
        let max = self.options.max_metadata_bytes;
        if len > max { Err(Error::MetadataTooLarge { len, max }) } else { Ok(()) }
    }

    /// Refuses a value that is longer than the store or the namespace allows.
    pub(crate) fn check_value(&self, namespace: &NamespaceState, len: u64) -> Result<(), Error> {
        let max = self.max_value_bytes(namespace);
        if len > max { Err(Error::ValueTooLarge { len, max }) } else { Ok(()) }
    }

    pub(crate) fn max_value_bytes(&self, namespace: &NamespaceState) -> u64 {
        let own = namespace.settings.max_value_bytes().unwrap_or(u64::MAX);
        self.options.max_value_bytes.min(own)
    }

    /// The expiry of a record, in ms since 1970 and 0 for never: what was asked for, or the
    /// namespace's default.
    pub(crate) fn expires_ms(
        &self,
        namespace: &NamespaceState,
        asked: Option<Expiry>,
        asked_ms: Option<u64>,
    ) -> Result<u64, Error> {
        let settings = &namespace.settings;
        let (wanted, min_ms) = match (asked, settings.default_ttl_ms()) {
            (Some(wanted), _) => (wanted, settings.min_ttl_ms()),
            (None, Some(ms)) => (Expiry::In(Duration::from_millis(ms)), None),
            (None, None) => return Ok(0),
        };
        let now_ms = self.keyspace.time.now_ms();
        let ms = match wanted {
            Expiry::Never => return Ok(0),
            // 0 stands for never, so what expired at the beginning of time expires a moment later.
            Expiry::At(ms) => ms.max(1),
            Expiry::In(time) => {
                now_ms.saturating_add(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
            }
        };
        if ms >= EXPIRES_END {
            return Err(Error::InvalidExpiry { ms, min_ttl: None });
        }
        match min_ms {
            Some(min_ms) if ms < asked_ms.unwrap_or(now_ms).min(now_ms).saturating_add(min_ms) => {
                Err(Error::InvalidExpiry { ms, min_ttl: Some(Duration::from_millis(min_ms)) })
            }
            _ => Ok(ms),
        }
    }

    /// A record of the registry.
    pub(crate) fn system_put<'a>(&self, key: &'a [u8], value: &'a [u8]) -> Draft<'a> {
        Draft {
            kind: Kind::Put,
            namespace: SYSTEM,
            written_ms: self.keyspace.time.wall_ms(),
            expires_ms: 0,
            key,
            metadata: &[],
            value,
            value_crc: value_checksum(value),
            extent: None,
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // There is nobody to tell; `Db::close` is there for those who want to know.
        let _ = self.close();
    }
}
