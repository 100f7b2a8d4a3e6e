//! Batches: writes that happen all or not at all.
//!
//! A batch is encoded while it grows and is one commit, so that nothing of it is visible, or on disk,
//! without the rest.

use std::sync::Arc;

use crate::commit::tombstone;
use crate::error::Error;
use crate::format::record::{Draft, Kind};
use crate::key;
use crate::namespace::Namespace;
use crate::options::{BATCH_BYTES_MAX, PutOptions};
use crate::registry::NamespaceState;
use crate::store::Store;

/// Writes that happen all or not at all; from [`Db::batch`].
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
/// # Ok(()) }
/// ```
pub struct Batch {
    store: Arc<Store>,
    bytes: Vec<u8>,
    starts: Vec<usize>,
    namespaces: Vec<Arc<NamespaceState>>,
}

/// Batches of more than this many bytes share no commit with others.
const SHARED_BATCH_BYTES: usize = 1 << 20;

impl Batch {
    pub(crate) fn new(store: Arc<Store>) -> Batch {
        Batch { store, bytes: Vec::new(), starts: Vec::new(), namespaces: Vec::new() }
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

    /// Adds a put with expiry or metadata. A condition is refused: a batch has none.
    ///
    /// # Errors
    /// See [`Self::put`], and [`Error::InvalidOption`].
    pub fn put_with(
        &mut self,
        namespace: &Namespace,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        options: PutOptions,
    ) -> Result<(), Error> {
        if options.if_version.is_some() {
            return Err(Error::InvalidOption { option: "if_version", must: "absent in a batch" });
        }
        let store = Arc::clone(&self.store);
        let draft = store.draft(namespace.number(), key.as_ref(), value.as_ref(), &options)?;
        self.push(namespace, &draft)
    }

    /// Adds a delete.
    ///
    /// # Errors
    /// See [`Self::put`].
    pub fn delete(&mut self, namespace: &Namespace, key: impl AsRef<[u8]>) -> Result<(), Error> {
        let store = &self.store;
        key::check(key.as_ref(), store.options.max_key_bytes)?;
        let now_ms = store.keyspace.time.wall_ms();
        let draft = tombstone(Kind::Delete, namespace.number(), key.as_ref(), now_ms);
        self.push(namespace, &draft)
    }

    fn push(&mut self, namespace: &Namespace, draft: &Draft<'_>) -> Result<(), Error> {
        let [state] = &namespace.state;
        if !Arc::ptr_eq(&namespace.store, &self.store) {
            return Err(Error::NamespaceNotFound);
        }
        let len = (self.bytes.len() + draft.record_len()) as u64;
        if len > BATCH_BYTES_MAX {
            return Err(Error::BatchTooLarge { len, max: BATCH_BYTES_MAX });
        }
        if !self.namespaces.iter().any(|known| Arc::ptr_eq(known, state)) {
            self.namespaces.push(Arc::clone(state));
        }
        self.starts.push(self.bytes.len());
        draft.append_to(&mut self.bytes);
        Ok(())
    }

    /// How many writes the batch has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.starts.len()
    }

    /// Whether the batch has no writes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }

    /// How many bytes the batch takes in the log; at most 112 MiB.
    #[must_use]
    pub fn byte_len(&self) -> usize {
        self.bytes.len()
    }

    /// Writes all of it in one commit. Returns the version of the last write.
    ///
    /// # Errors
    /// What a write can fail with; nothing of the batch is visible then.
    pub fn commit(self) -> Result<u64, Error> {
        let store = &self.store;
        let Some(last) = self.starts.len().checked_sub(1) else {
            return Ok(store.committer.seqnos().0);
        };
        let alone = self.bytes.len() > SHARED_BATCH_BYTES;
        let (first, done) = store
            .write(&self.namespaces, alone, |group| group.push_all(&self.bytes, &self.starts))?;
        Ok(done.seqno(first + last))
    }
}
