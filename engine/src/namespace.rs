//! A namespace: what can be done with its keys. Each method is a few calls into the rooms behind it.

use std::io;
use std::sync::Arc;

use crate::commit::{Condition, Renewal, WriteGroup, tombstone};
use crate::error::Error;
use crate::format::record::{Draft, Kind};
use crate::key;
use crate::list::{self, ListOptions, Page};
use crate::options::{Expiry, PutOptions};
use crate::registry::{NamespaceId, NamespaceState, SYSTEM};
use crate::settings::{self, NamespaceSettings};
use crate::stage::Staged;
use crate::store::{Store, held};
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

    pub(crate) fn check_alive(&self) -> Result<(), Error> {
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
        let mut draft = store.draft(&self.state[0], key, value.as_ref(), &options)?;
        let staged = store.stage_large(&mut draft)?;
        self.commit(&draft, staged.as_slice(), options.if_version)
    }

    /// Writes a draft of a put, which may refer to a staged value, if the key is at this version, if one
    /// is given.
    pub(crate) fn commit(
        &self,
        draft: &Draft<'_>,
        staged: &[Staged],
        if_version: Option<Option<u64>>,
    ) -> Result<u64, Error> {
        let (key, store) = (draft.key, &self.store);
        let condition = if_version.map(|version| self.condition(key, version));
        let blobs = store.settle(staged)?;
        // Until it is published, the system call of the write hides the miss.
        store.keyspace.fetch_ahead(self.number(), key);
        let (place, done) = store.write(&self.state, condition.is_some(), |group| {
            if let Some(condition) = condition {
                group.require(condition);
            }
            group.rest_on(blobs);
            group.push(draft)
        })?;
        Ok(done.seqno(place))
    }

    /// The value of a key, verified; `None` if the key is absent or has expired.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if the record is not what was written, [`Error::InvalidKey`],
    /// [`Error::NamespaceNotFound`].
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Value>, Error> {
        let found = self.find(key.as_ref());
        if let Ok(Some(value)) = &found {
            verify_long(value)?;
        }
        found
    }

    /// The values of many keys, in the order of the keys, as [`Self::get`] returns them. Their cache
    /// misses overlap, so that each costs a fraction of a get of its own. Each is the key's value at
    /// some moment of the call, all of them together no snapshot.
    ///
    /// ```
    /// # fn main() -> Result<(), kvast::Error> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = kvast::Db::open(dir.path())?;
    /// let users = db.namespace("users")?;
    /// users.put("42", b"Ada")?;
    /// users.put("43", b"Grace")?;
    /// let found = users.get_many(&["43", "41", "42"])?;
    /// let names: Vec<_> = found.iter().map(|value| value.as_deref()).collect();
    /// assert_eq!(names, [Some(&b"Grace"[..]), None, Some(&b"Ada"[..])]);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// See [`Self::get`]. An error about one key is one of the call, and nothing is returned.
    pub fn get_many(&self, keys: &[impl AsRef<[u8]>]) -> Result<Vec<Option<Value>>, Error> {
        let values = self.find_many(keys)?;
        values.iter().flatten().try_for_each(verify_long)?;
        Ok(values)
    }

    fn find_many(&self, keys: &[impl AsRef<[u8]>]) -> Result<Vec<Option<Value>>, Error> {
        self.check_alive()?;
        let max = self.store.options.max_key_bytes;
        keys.iter().try_for_each(|key| key::check(key.as_ref(), max))?;
        self.store.find_values(self.number(), keys)
    }

    /// The values of many keys as [`Self::get_stream`] returns them, found as [`Self::get_many`] finds them.
    ///
    /// ```
    /// # fn main() -> Result<(), kvast::Error> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let files = kvast::Db::open(dir.path())?.namespace("files")?;
    /// files.put("a", vec![7; 200_000])?;
    /// let found = files.get_many_streams(&["a", "b"])?;
    /// let lengths: Vec<_> = found.iter().map(|value| value.as_ref().map(|it| it.len())).collect();
    /// assert_eq!(lengths, [Some(200_000), None]);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// See [`Self::get_many`].
    pub fn get_many_streams(
        &self,
        keys: &[impl AsRef<[u8]>],
    ) -> Result<Vec<Option<ValueStream>>, Error> {
        let found = self.find_many(keys)?;
        Ok(found.into_iter().map(|value| value.map(ValueStream::new)).collect())
    }

    /// The value of a key, to be verified block by block while it is taken.
    ///
    /// # Errors
    /// See [`Self::get`].
    pub fn get_stream(&self, key: impl AsRef<[u8]>) -> Result<Option<ValueStream>, Error> {
        Ok(self.find(key.as_ref())?.map(ValueStream::new))
    }

    #[inline]
    fn find(&self, key: &[u8]) -> Result<Option<Value>, Error> {
        self.check_alive()?;
        key::check(key, self.store.options.max_key_bytes)?;
        self.store.find_value(self.number(), key)
    }

    /// Whether a get of this key will not wait for the disk, as far as is known: of a value of more
    /// than 64 KiB, up to what its [`ValueStream`] begins with. For those who must not wait, and
    /// have another thread that may.
    ///
    /// ```
    /// # fn main() -> Result<(), kvast::Error> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = kvast::Db::open(dir.path())?;
    /// let users = db.namespace("users")?;
    /// users.put("42", b"Ada")?;
    /// assert!(users.is_resident("42"), "it was just written");
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn is_resident(&self, key: impl AsRef<[u8]>) -> bool {
        let key = key.as_ref();
        // What is refused is refused at once.
        key::check(key, self.store.options.max_key_bytes).is_err()
            || self.store.keyspace.is_resident(self.number(), key)
    }

    /// Brings what a get of this key reads into memory, and little else; see [`Self::is_resident`]. Where the
    /// disk cannot give it back this is an error, while the get would end the process.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = kvast::Db::open(dir.path())?;
    /// let users = db.namespace("users")?;
    /// users.put("42", b"Ada")?;
    /// users.populate("42")?; // on a thread that may wait
    /// assert!(users.is_resident("42"));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// What the system says.
    pub fn populate(&self, key: impl AsRef<[u8]>) -> io::Result<()> {
        let key = key.as_ref();
        match key::check(key, self.store.options.max_key_bytes) {
            Ok(()) => self.store.keyspace.populate(self.number(), key),
            // What is refused is refused at once.
            Err(_) => Ok(()),
        }
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

    /// Deletes a key if it is at this version.
    ///
    /// # Errors
    /// [`Error::VersionMismatch`], also if the key is absent, and see [`Self::delete`].
    pub fn delete_if(&self, key: impl AsRef<[u8]>, version: u64) -> Result<(), Error> {
        let (key, store) = (key.as_ref(), &self.store);
        key::check(key, store.options.max_key_bytes)?;
        let now_ms = store.keyspace.time.wall_ms();
        let draft = tombstone(Kind::Delete, self.number(), key, now_ms);
        let condition = self.condition(key, Some(version));
        let join = |group: &mut WriteGroup| {
            group.require(condition);
            group.push(&draft);
        };
        store.write(&self.state, true, join).map(drop)
    }

    pub(crate) fn condition(&self, key: &[u8], version: Option<u64>) -> Condition {
        Condition { namespace: self.number(), key: key.to_owned(), version }
    }

    /// Changes when a key is gone, and nothing else. Returns the new version; `None` if there is no
    /// such key, and then writes nothing.
    ///
    /// ```
    /// # fn main() -> Result<(), kvast::Error> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = kvast::Db::open(dir.path())?;
    /// use kvast::Expiry;
    /// let users = db.namespace("users")?;
    /// users.put("42", b"Ada")?;
    /// assert!(users.set_expiry("42", Expiry::At(4_102_444_800_000))?.is_some());
    /// assert!(users.set_expiry("43", Expiry::Never)?.is_none());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::InvalidKey`], [`Error::InvalidExpiry`], [`Error::NamespaceNotFound`],
    /// [`Error::Corrupt`] if the value is not what was written, and what a write can fail with.
    pub fn set_expiry(&self, key: impl AsRef<[u8]>, expiry: Expiry) -> Result<Option<u64>, Error> {
        self.renew(key.as_ref(), expiry, None)
    }

    /// The same if the key is at this version. Returns the new one.
    ///
    /// # Errors
    /// [`Error::VersionMismatch`], also if the key is absent, and see [`Self::set_expiry`].
    pub fn set_expiry_if(
        &self,
        key: impl AsRef<[u8]>,
        expiry: Expiry,
        version: u64,
    ) -> Result<u64, Error> {
        let renewed = self.renew(key.as_ref(), expiry, Some(version))?;
        renewed.ok_or(Error::VersionMismatch { current: None })
    }

    fn renew(
        &self,
        key: &[u8],
        expiry: Expiry,
        version: Option<u64>,
    ) -> Result<Option<u64>, Error> {
        let store = &self.store;
        // Brings a value that is to be copied into memory before other writes have to wait for it.
        let found = self.find(key)?;
        if let Some(value) = found.as_ref().filter(|value| !value.is_in_blob()) {
            value.verify_all()?;
        }
        let expires_ms = store.expires_ms(&self.state[0], Some(expiry), None)?;
        if found.is_none() {
            store.committer.check_poison()?;
            return Ok(None);
        }
        let written_ms = store.keyspace.time.wall_ms();
        let namespace = self.number();
        let renewal = Renewal { namespace, key: key.to_owned(), written_ms, expires_ms };
        let condition = version.map(|version| self.condition(key, Some(version)));
        let _where_they_are = store.keyspace.keep_extents();
        let ((), done) = store.write(&self.state, true, |group| {
            if let Some(condition) = condition {
                group.require(condition);
            }
            group.renew(renewal);
        })?;
        Ok(done.wrote().then(|| done.seqno(0)))
    }

    /// What the namespace asks of writes.
    #[must_use]
    pub fn settings(&self) -> NamespaceSettings {
        self.state[0].settings.get()
    }

    /// Changes what the namespace asks of writes that begin from now on. What is there stays.
    ///
    /// # Errors
    /// [`Error::InvalidOption`], [`Error::NamespaceNotFound`], and what a write can fail with.
    pub fn set_settings(&self, settings: NamespaceSettings) -> Result<(), Error> {
        settings::check(&settings)?;
        let (store, state) = (&self.store, &self.state[0]);
        let _turn = held(&store.registry_turn);
        let (key, value) = (state.settings_key(), settings::encode(&settings));
        let draft = if settings == NamespaceSettings::default() {
            tombstone(Kind::Delete, SYSTEM, &key, store.keyspace.time.wall_ms())
        } else {
            store.system_put(&key, &value)
        };
        store.write(&self.state, false, |group| group.push(&draft))?;
        state.settings.set(&settings);
        Ok(())
    }

    /// Whether the index has an entry that may be this key's, expired or not. A damaged record
    /// counts: its key can be deleted.
    fn is_indexed(&self, key: &[u8]) -> bool {
        let keyspace = &self.store.keyspace;
        keyspace.locate(&keyspace.sought(self.number(), key), &keyspace.index.pin()).is_some()
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
        self.scan_with(ListOptions::new().prefix(prefix.as_ref()))
    }

    /// Walks all keys that the options name, in their order; their limit is how many are read at a
    /// time.
    ///
    /// ```
    /// # fn main() -> Result<(), kvast::Error> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = kvast::Db::open(dir.path())?;
    /// use kvast::ListOptions;
    /// let users = db.namespace("users")?;
    /// users.put("a", b"Ada")?;
    /// users.put("b", b"Bea")?;
    /// let last = users.scan_with(ListOptions::new().reverse(true)).next();
    /// assert_eq!(last.unwrap()?.key, b"b");
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn scan_with(&self, options: ListOptions) -> Scan {
        Scan::new(self.clone(), options)
    }
}

/// Verifies a value that was not verified when it was found.
#[inline]
fn verify_long(value: &Value) -> Result<(), Error> {
    if value.is_long() { value.verify_all() } else { Ok(()) }
}
