//! Batches: writes that happen all or not at all.
//!
//! A batch is encoded while it grows and is one commit, so that nothing of it is visible, or on disk,
//! without the rest. Its conditions are about the state before it, whatever it writes itself.

use std::sync::Arc;

use crate::commit::{Condition, tombstone};
use crate::error::Error;
use crate::format::record::{Draft, Kind};
use crate::key;
use crate::namespace::Namespace;
use crate::options::{BATCH_BYTES_MAX, PutOptions};
use crate::registry::NamespaceState;
use crate::stage::Staged;
use crate::store::Store;

/// Writes that happen all or not at all; from [`crate::Db::batch`].
///
/// ```
/// # fn main() -> Result<(), kvast::Error> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let db = kvast::Db::open(dir.path())?;
/// # let users = db.namespace("users")?;
/// let mut batch = db.batch();
/// batch.put(&users, "a", b"1")?;
/// batch.put(&users, "b", b"2")?;
/// assert_eq!(batch.len(), 2);
/// batch.commit()?;
///
/// // Only if nobody has written "a" meanwhile, and "c" is still absent.
/// let version = users.get("a")?.expect("it was written").version();
/// let mut batch = db.batch();
/// batch.put_with(&users, "b", b"3", kvast::PutOptions::new())?;
/// batch.check(&users, "a", Some(version))?;
/// batch.check(&users, "c", None)?;
/// batch.commit()?;
/// # Ok(()) }
/// ```
pub struct Batch {
    store: Arc<Store>,
    bytes: Vec<u8>,
    starts: Vec<usize>,
    conditions: Vec<Condition>,
    /// Bytes of memory that the conditions take.
    condition_bytes: usize,
    namespaces: Vec<Arc<NamespaceState>>,
    /// The large values, which lie in blobs already.
    staged: Vec<Staged>,
}

/// Batches of more than this many bytes share no commit with others.
const SHARED_BATCH_BYTES: usize = 1 << 20;

impl Batch {
    pub(crate) fn new(store: Arc<Store>) -> Batch {
        Batch {
            store,
            bytes: Vec::new(),
            starts: Vec::new(),
            conditions: Vec::new(),
            condition_bytes: 0,
            namespaces: Vec::new(),
            staged: Vec::new(),
        }
    }

    /// Adds a put.
    ///
    /// # Errors
    /// As [`Namespace::put_with`] for what can be known before the commit; nothing is added then.
    pub fn put(
        &mut self,
        namespace: &Namespace,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
    ) -> Result<(), Error> {
        self.put_with(namespace, key, value, PutOptions::new())
    }

    /// Adds a put with expiry, metadata or a condition.
    ///
    /// # Errors
    /// See [`Self::put`].
    pub fn put_with(
        &mut self,
        namespace: &Namespace,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        options: PutOptions,
    ) -> Result<(), Error> {
        let (store, key) = (Arc::clone(&self.store), key.as_ref());
        let mut draft = store.draft(&namespace.state[0], key, value.as_ref(), &options)?;
        let staged = store.stage_large(&mut draft)?;
        let condition = options.if_version.map(|version| namespace.condition(key, version));
        self.add(namespace, Some(&draft), condition)?;
        self.staged.extend(staged);
        Ok(())
    }

    /// Adds a delete.
    ///
    /// # Errors
    /// See [`Self::put`].
    pub fn delete(&mut self, namespace: &Namespace, key: impl AsRef<[u8]>) -> Result<(), Error> {
        self.add_delete(namespace, key.as_ref(), None)
    }

    /// Adds a delete of a key that must be at this version before the batch.
    ///
    /// # Errors
    /// See [`Self::put`].
    pub fn delete_if(
        &mut self,
        namespace: &Namespace,
        key: impl AsRef<[u8]>,
        version: u64,
    ) -> Result<(), Error> {
        let condition = namespace.condition(key.as_ref(), Some(version));
        self.add_delete(namespace, key.as_ref(), Some(condition))
    }

    fn add_delete(
        &mut self,
        namespace: &Namespace,
        key: &[u8],
        condition: Option<Condition>,
    ) -> Result<(), Error> {
        key::check(key, self.store.options.max_key_bytes)?;
        let now_ms = self.store.keyspace.time.wall_ms();
        let draft = tombstone(Kind::Delete, namespace.number(), key, now_ms);
        self.add(namespace, Some(&draft), condition)
    }

    /// Adds a condition on a key that the batch need not write: that it is at this version before the
    /// batch, or absent.
    ///
    /// # Errors
    /// See [`Self::put`].
    pub fn check(
        &mut self,
        namespace: &Namespace,
        key: impl AsRef<[u8]>,
        version: Option<u64>,
    ) -> Result<(), Error> {
        key::check(key.as_ref(), self.store.options.max_key_bytes)?;
        self.add(namespace, None, Some(namespace.condition(key.as_ref(), version)))
    }

    /// Adds a write, a condition, or both, if there is room.
    fn add(
        &mut self,
        namespace: &Namespace,
        draft: Option<&Draft<'_>>,
        condition: Option<Condition>,
    ) -> Result<(), Error> {
        let [state] = &namespace.state;
        if !Arc::ptr_eq(&namespace.store, &self.store) {
            return Err(Error::NamespaceNotFound);
        }
        let more = condition.as_ref().map_or(0, Condition::memory);
        let record_len = draft.map_or(0, Draft::record_len);
        let len = (self.bytes.len() + self.condition_bytes + record_len + more) as u64;
        if len > BATCH_BYTES_MAX {
            return Err(Error::BatchTooLarge { len, max: BATCH_BYTES_MAX });
        }
        if !self.namespaces.iter().any(|known| Arc::ptr_eq(known, state)) {
            self.namespaces.push(Arc::clone(state));
        }
        self.condition_bytes += more;
        self.conditions.extend(condition);
        if let Some(draft) = draft {
            self.starts.push(self.bytes.len());
            draft.append_to(&mut self.bytes);
        }
        Ok(())
    }

    /// How many writes the batch has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.starts.len()
    }

    /// Whether the batch has no writes; it may have conditions.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }

    /// How many bytes the batch takes in the log, large values not counted; at most 112 MiB.
    #[must_use]
    pub fn byte_len(&self) -> usize {
        self.bytes.len()
    }

    /// Writes all of it in one commit, if every condition holds. Returns the version of the last
    /// write; of a batch without writes, that of the last write before it.
    ///
    /// # Errors
    /// [`Error::VersionMismatch`] if a condition does not hold, and what a write can fail with;
    /// nothing of the batch is visible then.
    pub fn commit(self) -> Result<u64, Error> {
        let Batch { store, bytes, starts, conditions, staged, .. } = self;
        if starts.is_empty() && conditions.is_empty() {
            return Ok(store.committer.counts().versions().0);
        }
        let blobs = store.settle(&staged)?;
        // A condition that does not hold fails its whole group.
        let alone = bytes.len() > SHARED_BATCH_BYTES || !conditions.is_empty();
        let count = starts.len();
        let (first, done) = store.write(&self.namespaces, alone, |group| {
            conditions.into_iter().for_each(|condition| group.require(condition));
            group.rest_on(blobs);
            group.push_all(bytes, starts)
        })?;
        match count.checked_sub(1) {
            Some(last) => Ok(done.seqno(first + last)),
            None => Ok(store.committer.counts().versions().0),
        }
    }
}
