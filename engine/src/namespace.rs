//! A namespace: what can be done with its keys. Each method is a few calls into the rooms behind it.

use std::sync::Arc;

use crate::commit::{Condition, tombstone};
use crate::error::Error;
use crate::format::record::Kind;
use crate::key::{self, Composite};
use crate::list::{self, ListOptions, Page};
use crate::options::PutOptions;
use crate::registry::{NamespaceId, NamespaceState};
use crate::store::Store;
use crate::value::{Value, ValueStream};

mod scan;

pub use scan::{Entry, Scan};

/// A key space of its own in a store. Cheap to clone; keeps the store open.
///
/// ```
/// # fn main() -> Result<(), kvast::Error> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let db = kvast::Db::open(dir.path())?;
/// let users = db.namespace("users")?;
/// users.put("42", b"Ada")?;
/// assert!(users.delete("42")?);
/// assert!(users.get("42")?.is_none());
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Namespace {
    pub(crate) store: Arc<Store>,
    /// One, as a slice for [`Store::write`].
    pub(crate) state: [Arc<NamespaceState>; 1],
}

impl Namespace {
    pub(crate) fn number(&self) -> u32 {
        self.state[0].number
    }

    fn check_alive(&self) -> Result<(), Error> {
        if self.state[0].is_dropped() { Err(Error::NamespaceNotFound) } else { Ok(()) }
    }

    /// The id, which never changes.
    #[must_use]
    pub fn id(&self) -> NamespaceId {
        self.state[0].id
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> String {
        self.state[0].name()
    }

    /// Stores a value, in place of whatever the key had. Returns the new version.
    ///
    /// # Errors
    /// See [`Self::put_with`].
    pub fn put(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<u64, Error> {
        self.put_with(key, value, PutOptions::new())
    }

    /// Stores a value with expiry, metadata or a condition, in place of whatever the key had. Returns
    /// the new version.
    ///
    /// # Errors
    /// [`Error::InvalidKey`], [`Error::ValueTooLarge`], [`Error::MetadataTooLarge`],
    /// [`Error::InvalidExpiry`], [`Error::VersionMismatch`], [`Error::NamespaceNotFound`],
    /// [`Error::DiskFull`], [`Error::Poisoned`], and what the system says. A put that was refused
    /// changes nothing.
    pub fn put_with(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        options: PutOptions,
    ) -> Result<u64, Error> {
        let (key, store) = (key.as_ref(), &self.store);
        let draft = store.draft(self.number(), key, value.as_ref(), &options)?;
        let condition = options.if_version.map(|version| Condition {
            namespace: self.number(),
            key: key.to_owned(),
            version,
        });
        // Until it is published, the system call of the write hides the miss.
        store.keyspace.fetch_ahead(self.number(), key);
        let (place, done) = store.write(&self.state, condition.is_some(), |group| {
            if let Some(condition) = condition {
                group.require(condition);
            }
            group.push(&draft)
        })?;
        Ok(done.seqno(place))
    }

    /// The value of a key, verified; `None` if the key is absent or has expired.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if the record is not what was written, [`Error::InvalidKey`],
    /// [`Error::NamespaceNotFound`].
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Value>, Error> {
        let Some(value) = self.find(key.as_ref())? else { return Ok(None) };
        if value.len() > crate::format::record::BLOCK_LEN {
            value.verify_all()?;
        }
        Ok(Some(value))
    }

    /// The value of a key, to be verified block by block while it is taken.
    ///
    /// # Errors
    /// See [`Self::get`].
    pub fn get_stream(&self, key: impl AsRef<[u8]>) -> Result<Option<ValueStream>, Error> {
        Ok(self.find(key.as_ref())?.map(ValueStream::new))
    }

    fn find(&self, key: &[u8]) -> Result<Option<Value>, Error> {
        self.check_alive()?;
        key::check(key, self.store.options.max_key_bytes)?;
        self.store.find_value(self.number(), key)
    }

    /// Deletes a key, and says whether it was there. Deleting a key that is absent writes nothing.
    ///
    /// # Errors
    /// [`Error::InvalidKey`], [`Error::NamespaceNotFound`], and what a write can fail with.
    pub fn delete(&self, key: impl AsRef<[u8]>) -> Result<bool, Error> {
        let (key, store) = (key.as_ref(), &self.store);
        self.check_alive()?;
        key::check(key, store.options.max_key_bytes)?;
        if !self.is_indexed(key) {
            store.committer.check_poison()?;
            return Ok(false);
        }
        let now_ms = store.keyspace.time.wall_ms();
        let draft = tombstone(Kind::Delete, self.number(), key, now_ms);
        let (place, done) = store.write(&self.state, false, |group| group.push(&draft))?;
        Ok(done.existed(place))
    }

    /// Whether the index has an entry that may be this key's, expired or not. A damaged record
    /// counts: its key can be deleted.
    fn is_indexed(&self, key: &[u8]) -> bool {
        let keyspace = &self.store.keyspace;
        let composite = Composite::new(self.number(), key);
        let found = keyspace.find_pinned(&composite, &keyspace.index.pin(), |_, _, _| ());
        !matches!(found, Ok(None))
    }

    /// Deletes every key that starts with `prefix`, as one commit; all keys if it is empty. Takes
    /// about a microsecond a key, for which other writes wait.
    ///
    /// # Errors
    /// [`Error::InvalidKey`] if the prefix is longer than a key can be,
    /// [`Error::NamespaceNotFound`], and what a write can fail with.
    pub fn delete_prefix(&self, prefix: impl AsRef<[u8]>) -> Result<(), Error> {
        let (prefix, store) = (prefix.as_ref(), &self.store);
        list::check_prefix(prefix, store.options.max_key_bytes)?;
        let now_ms = store.keyspace.time.wall_ms();
        let draft = tombstone(Kind::DeletePrefix, self.number(), prefix, now_ms);
        store.write(&self.state, false, |group| group.push(&draft)).map(drop)
    }

    /// One page of keys in order, with their expiry and metadata.
    ///
    /// # Errors
    /// [`Error::InvalidCursor`], [`Error::InvalidOption`] for the limit, [`Error::InvalidKey`] for the
    /// prefix, [`Error::NamespaceNotFound`], and [`Error::Corrupt`] if a listed key's metadata is not
    /// what was written.
    pub fn list(&self, options: &ListOptions) -> Result<Page, Error> {
        self.check_alive()?;
        self.store.list_page(self.number(), options)
    }

    /// Walks all keys that start with `prefix`, in order.
    ///
    /// ```
    /// # fn main() -> Result<(), kvast::Error> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = kvast::Db::open(dir.path())?;
    /// let users = db.namespace("users")?;
    /// users.put("a:1", b"Ada")?;
    /// for entry in users.scan("a:") {
    ///     assert_eq!(entry?.key, b"a:1");
    /// }
    /// # Ok(()) }
    /// ```
    pub fn scan(&self, prefix: impl AsRef<[u8]>) -> Scan {
        let options = ListOptions::new().prefix(prefix.as_ref());
        Scan::new(self.clone(), options)
    }
}
