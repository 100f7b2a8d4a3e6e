//! The front door: a store, its namespaces, and what can be done with them. Each method is a few
//! calls into the rooms behind it.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::background::Background;
use crate::checkpoint;
use crate::commit::{Committer, Condition, Site, WriteGroup, tombstone};
use crate::compact::Compactor;
use crate::cursor::Scope;
use crate::disk::DirLock;
use crate::error::Error;
use crate::format::StoreId;
use crate::format::record::{Draft, EXPIRES_END, Kind, value_checksum};
use crate::key::{self, Composite};
use crate::keyspace::Keyspace;
use crate::list::{self, ListOptions, Page};
use crate::options::{BATCH_BYTES_MAX, Durability, ExpiryOption, Options, PutOptions};
use crate::recover::{self, RecoveryReport};
use crate::registry::{
    self, NEXT_NUMBER_KEY, NamespaceId, NamespaceState, Registry, SYSTEM, random_128,
};
use crate::value::{Value, ValueStream};
use crate::verify::{self, VerifyProgress, VerifyReport};

/// An open store. Cheap to clone; all clones are one store.
///
/// When the last clone and the last [`Namespace`] of it are dropped, the store is closed as
/// [`Db::close`] does, but without a word if that fails.
///
/// ```
/// # fn main() -> Result<(), kvast::Error> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("data");
/// let db = kvast::Db::open(path)?;
/// let users = db.namespace("users")?;
/// users.put("42", b"Ada")?;
/// assert_eq!(users.get("42")?.as_deref(), Some(&b"Ada"[..]));
/// db.close()?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Db {
    inner: Arc<Inner>,
}

struct Inner {
    /// Stopped first.
    background: Mutex<Option<Background>>,
    keyspace: Arc<Keyspace>,
    committer: Arc<Committer>,
    compactor: Arc<Compactor>,
    registry: Registry,
    /// Held while the registry changes, so that two creations of one name are one.
    registry_turn: Mutex<()>,
    options: Options,
    store: StoreId,
    report: RecoveryReport,
    /// Given up last.
    lock: Mutex<Option<DirLock>>,
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Inner {
    fn close(&self) -> Result<(), Error> {
        // First, so that a thread which compacts gives up.
        self.compactor.stop();
        drop(held(&self.background).take());
        let closed = self.committer.close();
        drop(held(&self.lock).take());
        closed
    }

    fn syncs(&self) -> bool {
        self.options.durability == Durability::Sync
    }

    /// Writes what `join` adds for a namespace, unless that was deleted. Returns what `join`
    /// returned, and the group's outcome.
    fn write<T>(
        &self,
        namespaces: &[Arc<NamespaceState>],
        alone: bool,
        join: impl FnOnce(&mut WriteGroup) -> T,
    ) -> Result<(T, crate::commit::Done), Error> {
        self.compactor.wait_for_space();
        let (joined, done) = self.committer.write(self.syncs(), alone, |group| {
            // Under the queue's lock: a deletion of the namespace comes before or after, whole.
            let dropped = namespaces.iter().any(|namespace| namespace.is_dropped());
            (!dropped).then(|| join(group))
        });
        let joined = joined.ok_or(Error::NamespaceNotFound)?;
        Ok((joined, done?))
    }

    fn find_value(&self, namespace: u32, key: &[u8]) -> Result<Option<Value>, Error> {
        let found = self.keyspace.find(namespace, key, |segment, offset, record| {
            // Short values are verified here, where the bytes are warm.
            if !record.header.has_block_table() {
                let damage = record.verify_value();
                damage.map_err(|damage| segment.body.corruption(offset, damage))?;
            }
            Ok::<_, Error>(Value::new(segment, offset, record))
        })?;
        found.transpose()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // There is nobody to tell; `Db::close` is there for those who want to know.
        let _ = self.close();
    }
}

impl Db {
    /// Opens the store in directory `path` with the defaults, and creates it if it is absent.
    ///
    /// # Errors
    /// See [`Options::open`].
    pub fn open(path: impl AsRef<Path>) -> Result<Db, Error> {
        Options::new().open(path)
    }

    pub(crate) fn open_with(options: Options, path: &Path) -> Result<Db, Error> {
        let recovered = recover::open(&options, path)?;
        let site = Site {
            disk: options.disk.clone(),
            dir: path.to_owned(),
            store: recovered.store,
            segment_bytes: options.segment_bytes,
            read_only: options.read_only,
        };
        let keyspace = recovered.keyspace;
        let committer =
            Committer::new(site, Arc::clone(&keyspace), recovered.manifest, recovered.start);
        let committer = Arc::new(committer);
        let compactor =
            Compactor::new(Arc::clone(&keyspace), Arc::clone(&committer), options.space_bound);
        let compactor = Arc::new(compactor);
        let background = if options.background && !options.read_only {
            let started = Background::start(&keyspace, &committer, &compactor, options.durability);
            Some(started.map_err(|error| Error::io("start a thread", path, error))?)
        } else {
            None
        };
        let inner = Inner {
            background: Mutex::new(background),
            keyspace,
            committer,
            compactor,
            registry: Registry::default(),
            registry_turn: Mutex::new(()),
            options,
            store: recovered.store,
            report: recovered.report,
            lock: Mutex::new(recovered.lock),
        };
        let db = Db { inner: Arc::new(inner) };
        db.load_registry()?;
        Ok(db)
    }

    fn load_registry(&self) -> Result<(), Error> {
        let all = ListOptions::new().limit(1000);
        let mut page = self.list_page(SYSTEM, &all)?;
        loop {
            for listed in page.iter() {
                if let Some(value) = self.inner.find_value(SYSTEM, listed.key)? {
                    self.inner.registry.load(listed.key, &value)?;
                }
            }
            let Some(cursor) = page.cursor() else { return Ok(()) };
            page = self.list_page(SYSTEM, &all.clone().cursor(cursor))?;
        }
    }

    fn list_page(&self, namespace: u32, options: &ListOptions) -> Result<Page, Error> {
        let scope = Scope { store: &self.inner.store, namespace, prefix: &[] };
        list::list(&self.inner.keyspace, scope, self.inner.options.max_key_bytes, options)
    }

    /// The namespace of this name, which is created if it is absent.
    ///
    /// # Errors
    /// [`Error::InvalidName`], and what a write can fail with.
    pub fn namespace(&self, name: &str) -> Result<Namespace, Error> {
        match self.find_namespace(name) {
            Some(namespace) => Ok(namespace),
            None => match self.create_namespace(name) {
                Err(Error::NamespaceExists { name }) => {
                    self.find_namespace(&name).ok_or(Error::NamespaceNotFound)
                }
                created => created,
            },
        }
    }

    /// Creates a namespace.
    ///
    /// # Errors
    /// [`Error::NamespaceExists`], [`Error::InvalidName`], and what a write can fail with.
    pub fn create_namespace(&self, name: &str) -> Result<Namespace, Error> {
        registry::check_name(name)?;
        let inner = &self.inner;
        let _turn = held(&inner.registry_turn);
        if inner.registry.by_name(name).is_some() {
            return Err(Error::NamespaceExists { name: name.to_owned() });
        }
        let (number, id) = (inner.registry.next_number(), NamespaceId(random_128()));
        let state = Registry::default().enter(number, id, name.to_owned());
        let next = (number + 1).to_be_bytes();
        let (key, value) = (state.entry_key(), registry::entry_value(id, name));
        inner.write(&[], false, |group| {
            group.push(&self.system_put(NEXT_NUMBER_KEY, &next));
            group.push(&self.system_put(&key, &value));
        })?;
        let state = inner.registry.enter(number, id, name.to_owned());
        Ok(self.handle(state))
    }

    fn system_put<'a>(&self, key: &'a [u8], value: &'a [u8]) -> Draft<'a> {
        Draft {
            kind: Kind::Put,
            namespace: SYSTEM,
            written_ms: self.inner.keyspace.time.wall_ms(),
            expires_ms: 0,
            key,
            metadata: &[],
            value,
            value_crc: value_checksum(value),
        }
    }

    fn handle(&self, state: Arc<NamespaceState>) -> Namespace {
        Namespace { db: self.clone(), state: [state] }
    }

    /// The namespace of this name, if there is one.
    #[must_use]
    pub fn find_namespace(&self, name: &str) -> Option<Namespace> {
        self.inner.registry.by_name(name).map(|state| self.handle(state))
    }

    /// The namespace of this id, if there is one.
    #[must_use]
    pub fn namespace_by_id(&self, id: NamespaceId) -> Option<Namespace> {
        self.inner.registry.by_id(id).map(|state| self.handle(state))
    }

    /// All namespaces, ordered by name.
    #[must_use]
    pub fn namespaces(&self) -> Vec<Namespace> {
        self.inner.registry.all().into_iter().map(|state| self.handle(state)).collect()
    }

    /// Gives a namespace another name; its id and its keys stay. Its own name is fine.
    ///
    /// # Errors
    /// [`Error::NamespaceNotFound`], [`Error::NamespaceExists`], [`Error::InvalidName`], and what a
    /// write can fail with.
    pub fn rename_namespace(&self, id: NamespaceId, name: &str) -> Result<Namespace, Error> {
        registry::check_name(name)?;
        let inner = &self.inner;
        let _turn = held(&inner.registry_turn);
        let state = inner.registry.by_id(id).ok_or(Error::NamespaceNotFound)?;
        match inner.registry.by_name(name) {
            Some(other) if other.id == id => return Ok(self.handle(state)),
            Some(_) => return Err(Error::NamespaceExists { name: name.to_owned() }),
            None => {}
        }
        let (key, value) = (state.entry_key(), registry::entry_value(id, name));
        inner.write(&[], false, |group| group.push(&self.system_put(&key, &value)))?;
        inner.registry.rename(&state, name);
        Ok(self.handle(state))
    }

    /// Deletes a namespace with all its keys, as one commit. Takes about a microsecond a key, for
    /// which other writes wait. Handles to it refuse every call from then on.
    ///
    /// # Errors
    /// [`Error::NamespaceNotFound`], and what a write can fail with.
    pub fn delete_namespace(&self, id: NamespaceId) -> Result<(), Error> {
        let inner = &self.inner;
        let _turn = held(&inner.registry_turn);
        let state = inner.registry.by_id(id).ok_or(Error::NamespaceNotFound)?;
        let (entry, now_ms) = (state.entry_key(), inner.keyspace.time.wall_ms());
        let written = inner.write(&[], false, |group| {
            state.set_dropped(true);
            group.push(&tombstone(Kind::Delete, SYSTEM, &entry, now_ms));
            group.push(&tombstone(Kind::DeleteNamespace, state.number, &[], now_ms));
        });
        if let Err(error) = written {
            state.set_dropped(false);
            return Err(error);
        }
        inner.registry.forget(&state);
        Ok(())
    }

    /// Writes that are to happen all or not at all.
    ///
    /// ```
    /// # fn main() -> Result<(), kvast::Error> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = kvast::Db::open(dir.path())?;
    /// let users = db.namespace("users")?;
    /// let mut batch = db.batch();
    /// batch.put(&users, "a", b"1")?;
    /// batch.delete(&users, "b")?;
    /// batch.commit()?;
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn batch(&self) -> Batch {
        Batch { db: self.clone(), bytes: Vec::new(), starts: Vec::new(), namespaces: Vec::new() }
    }

    /// Makes everything acknowledged so far durable, whatever the store's durability.
    ///
    /// # Errors
    /// [`Error::Poisoned`], and what the system says.
    pub fn sync(&self) -> Result<(), Error> {
        self.inner.committer.sync()
    }

    /// Seals and compacts until there is nothing to be gained. The store does so by itself; this is
    /// for those who turned that off, or want to wait for it.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if a record that was to be copied is damaged, and what the system says.
    pub fn compact(&self) -> Result<(), Error> {
        if self.inner.options.read_only {
            return Err(Error::ReadOnly);
        }
        while self.inner.compactor.step()? {}
        Ok(())
    }

    /// Numbers about the store.
    ///
    /// ```
    /// # fn main() -> Result<(), kvast::Error> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = kvast::Db::open(dir.path())?;
    /// db.namespace("users")?.put("42", b"Ada")?;
    /// let stats = db.stats();
    /// assert!(stats.live_bytes <= stats.record_bytes);
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn stats(&self) -> Stats {
        let inner = &self.inner;
        let (segments, index) = (inner.keyspace.catalog.segments(), inner.keyspace.index.memory());
        let (last_version, durable_version) = inner.committer.seqnos();
        Stats {
            keys: index.keys,
            segments: segments.len(),
            record_bytes: segments.iter().map(|segment| segment.record_bytes()).sum(),
            live_bytes: segments.iter().map(|segment| segment.live_bytes()).sum(),
            pinned_bytes: inner.keyspace.catalog.pinned_bytes(),
            index_bytes: index.hash_bytes + index.tree_bytes,
            index_retired_bytes: index.retired_bytes,
            compaction_copied_bytes: load(&inner.compactor.copied_bytes),
            compaction_freed_bytes: load(&inner.compactor.freed_bytes),
            last_version,
            durable_version,
            background_error: held(&inner.background)
                .as_ref()
                .and_then(Background::last_error)
                .map(|error| error.to_string()),
        }
    }

    /// Reads everything and compares it with its checksums; calls `progress` after each segment.
    ///
    /// # Errors
    /// None at present; damage is in the report.
    pub fn verify(&self, progress: impl FnMut(VerifyProgress)) -> Result<VerifyReport, Error> {
        verify::verify(&self.inner.keyspace, progress)
    }

    /// Writes a copy of the store, as of this moment, to an absent or empty directory, while the store
    /// is used on. Sealed segments are shared by hard link, so it takes little time and space on the
    /// same file system; the copy is a store like any other. Compaction waits for it.
    ///
    /// ```
    /// # fn main() -> Result<(), kvast::Error> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = kvast::Db::open(dir.path().join("data"))?;
    /// # let backup = dir.path().join("backup");
    /// db.namespace("users")?.put("42", b"Ada")?;
    /// db.checkpoint(&backup)?;
    /// let copy = kvast::Db::open(&backup)?;
    /// assert!(copy.namespace("users")?.get("42")?.is_some());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// What the system says, also if the directory is not empty; then `path` holds no store.
    pub fn checkpoint(&self, path: impl AsRef<Path>) -> Result<(), Error> {
        if self.inner.options.read_only {
            return Err(Error::ReadOnly);
        }
        let inner = &self.inner;
        inner.compactor.while_it_rests(|| checkpoint::write(&inner.committer, path.as_ref()))
    }

    /// What opening the store found.
    #[must_use]
    pub fn recovery(&self) -> &RecoveryReport {
        &self.inner.report
    }

    /// Makes everything durable, notes that the store was closed in order, and lets another process
    /// have it. Values that were read stay valid; other clones can read and no longer write.
    ///
    /// # Errors
    /// [`Error::Poisoned`], and what the system says.
    pub fn close(self) -> Result<(), Error> {
        self.inner.close()
    }
}

fn load(counter: &std::sync::atomic::AtomicU64) -> u64 {
    counter.load(std::sync::atomic::Ordering::Relaxed)
}

impl Options {
    /// Opens the store in directory `path`, which is created if it is absent.
    ///
    /// # Errors
    /// [`Error::Locked`] if another process has it open, [`Error::Corrupt`] if it is damaged where
    /// that cannot be mended without loss, [`Error::InvalidOption`], [`Error::UnknownFormat`], and
    /// what the system says.
    pub fn open(self, path: impl AsRef<Path>) -> Result<Db, Error> {
        self.check()?;
        Db::open_with(self, path.as_ref())
    }
}

/// Numbers about a store, as of the moment they were asked for.
///
/// ```
/// # fn main() -> Result<(), kvast::Error> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let db = kvast::Db::open(dir.path())?;
/// db.namespace("users")?;
/// let stats = db.stats();
/// assert_eq!(stats.last_version, stats.durable_version, "durability is `Sync`");
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Keys in the index, expired ones that still take space included.
    pub keys: u64,
    /// Segment files.
    pub segments: usize,
    /// Bytes of records and commits on disk, live and dead, without footers.
    pub record_bytes: u64,
    /// Bytes of the records that a key points at.
    pub live_bytes: u64,
    /// Bytes of removed segments that a value still keeps.
    pub pinned_bytes: u64,
    /// Bytes of memory that the index takes.
    pub index_bytes: u64,
    /// Bytes of memory that the index no longer needs and readers may still see.
    pub index_retired_bytes: u64,
    /// Bytes that compaction has copied since the store was opened.
    pub compaction_copied_bytes: u64,
    /// Bytes of files that compaction has removed since the store was opened.
    pub compaction_freed_bytes: u64,
    /// The version of the last write.
    pub last_version: u64,
    /// Every write up to this version is on disk.
    pub durable_version: u64,
    /// The last thing that went wrong in the background.
    pub background_error: Option<String>,
}

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
    db: Db,
    /// One, as a slice for [`Inner::write`].
    state: [Arc<NamespaceState>; 1],
}

impl Namespace {
    fn inner(&self) -> &Inner {
        &self.db.inner
    }

    fn number(&self) -> u32 {
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
        let (key, inner) = (key.as_ref(), self.inner());
        let draft = draft(inner, self.number(), key, value.as_ref(), &options)?;
        let condition = options.if_version.map(|version| Condition {
            namespace: self.number(),
            key: key.to_owned(),
            version,
        });
        // Until it is published, the system call of the write hides the miss.
        inner.keyspace.fetch_ahead(self.number(), key);
        let (place, done) = inner.write(&self.state, condition.is_some(), |group| {
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
        key::check(key, self.inner().options.max_key_bytes)?;
        self.inner().find_value(self.number(), key)
    }

    /// Deletes a key, and says whether it was there. Deleting a key that is absent writes nothing.
    ///
    /// # Errors
    /// [`Error::InvalidKey`], [`Error::NamespaceNotFound`], and what a write can fail with.
    pub fn delete(&self, key: impl AsRef<[u8]>) -> Result<bool, Error> {
        let (key, inner) = (key.as_ref(), self.inner());
        self.check_alive()?;
        key::check(key, inner.options.max_key_bytes)?;
        if !self.is_indexed(key) {
            inner.committer.check_poison()?;
            return Ok(false);
        }
        let now_ms = inner.keyspace.time.wall_ms();
        let draft = tombstone(Kind::Delete, self.number(), key, now_ms);
        let (place, done) = inner.write(&self.state, false, |group| group.push(&draft))?;
        Ok(done.existed(place))
    }

    /// Whether the index has an entry that may be this key's, expired or not. A damaged record
    /// counts: its key can be deleted.
    fn is_indexed(&self, key: &[u8]) -> bool {
        let keyspace = &self.inner().keyspace;
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
        let (prefix, inner) = (prefix.as_ref(), self.inner());
        list::check_prefix(prefix, inner.options.max_key_bytes)?;
        let now_ms = inner.keyspace.time.wall_ms();
        let draft = tombstone(Kind::DeletePrefix, self.number(), prefix, now_ms);
        inner.write(&self.state, false, |group| group.push(&draft)).map(drop)
    }

    /// One page of keys in order, with their expiry and metadata.
    ///
    /// # Errors
    /// [`Error::InvalidCursor`], [`Error::InvalidOption`] for the limit, [`Error::InvalidKey`] for the
    /// prefix, [`Error::NamespaceNotFound`], and [`Error::Corrupt`] if a listed key's metadata is not
    /// what was written.
    pub fn list(&self, options: &ListOptions) -> Result<Page, Error> {
        self.check_alive()?;
        self.db.list_page(self.number(), options)
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
        Scan { namespace: self.clone(), options, entries: Vec::new().into_iter(), ended: false }
    }
}

/// Checks the limits and drafts a put.
fn draft<'a>(
    inner: &Inner,
    namespace: u32,
    key: &'a [u8],
    value: &'a [u8],
    options: &'a PutOptions,
) -> Result<Draft<'a>, Error> {
    let limits = &inner.options;
    key::check(key, limits.max_key_bytes)?;
    if options.metadata.len() > limits.max_metadata_bytes {
        let (len, max) = (options.metadata.len(), limits.max_metadata_bytes);
        return Err(Error::MetadataTooLarge { len, max });
    }
    if value.len() as u64 > limits.max_value_bytes {
        let (len, max) = (value.len() as u64, limits.max_value_bytes);
        return Err(Error::ValueTooLarge { len, max });
    }
    let now_ms = inner.keyspace.time.wall_ms();
    let expires_ms = match options.expiry {
        None => 0,
        // 0 stands for never, so what expired at the beginning of time expires a moment later.
        Some(ExpiryOption::At(ms)) => ms.max(1),
        Some(ExpiryOption::In(time)) => {
            let ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
            inner.keyspace.time.now_ms().saturating_add(ms)
        }
    };
    if expires_ms >= EXPIRES_END {
        return Err(Error::InvalidExpiry { ms: expires_ms });
    }
    Ok(Draft {
        kind: Kind::Put,
        namespace,
        written_ms: now_ms,
        expires_ms,
        key,
        metadata: &options.metadata,
        value,
        value_crc: value_checksum(value),
    })
}

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
    db: Db,
    bytes: Vec<u8>,
    starts: Vec<usize>,
    namespaces: Vec<Arc<NamespaceState>>,
}

/// Batches of more than this many bytes share no commit with others.
const SHARED_BATCH_BYTES: usize = 1 << 20;

impl Batch {
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
        let inner = Arc::clone(&self.db.inner);
        let draft = draft(&inner, namespace.number(), key.as_ref(), value.as_ref(), &options)?;
        self.push(namespace, &draft)
    }

    /// Adds a delete.
    ///
    /// # Errors
    /// See [`Self::put`].
    pub fn delete(&mut self, namespace: &Namespace, key: impl AsRef<[u8]>) -> Result<(), Error> {
        let inner = &self.db.inner;
        key::check(key.as_ref(), inner.options.max_key_bytes)?;
        let now_ms = inner.keyspace.time.wall_ms();
        let draft = tombstone(Kind::Delete, namespace.number(), key.as_ref(), now_ms);
        self.push(namespace, &draft)
    }

    fn push(&mut self, namespace: &Namespace, draft: &Draft<'_>) -> Result<(), Error> {
        let [state] = &namespace.state;
        if !Arc::ptr_eq(&namespace.db.inner, &self.db.inner) {
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
        let inner = &self.db.inner;
        let Some(last) = self.starts.len().checked_sub(1) else {
            return Ok(inner.committer.seqnos().0);
        };
        let alone = self.bytes.len() > SHARED_BATCH_BYTES;
        let (first, done) = inner
            .write(&self.namespaces, alone, |group| group.push_all(&self.bytes, &self.starts))?;
        Ok(done.seqno(first + last))
    }
}

/// One key of a [`Scan`].
///
/// ```
/// # fn main() -> Result<(), kvast::Error> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let users = kvast::Db::open(dir.path())?.namespace("users")?;
/// # users.put("42", b"Ada")?;
/// let entries = users.scan("4").collect::<Result<Vec<_>, _>>()?;
/// assert_eq!(entries[0].key, b"42");
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: Vec<u8>,
    /// When it expires, in ms since 1970.
    pub expires_at: Option<u64>,
    /// Its metadata, if there is any.
    pub metadata: Option<Vec<u8>>,
}

/// Walks keys in order, a page at a time. Each key was there when its page was read.
///
/// ```
/// # fn main() -> Result<(), kvast::Error> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let users = kvast::Db::open(dir.path())?.namespace("users")?;
/// let scan: kvast::Scan = users.scan("user:");
/// assert_eq!(scan.count(), 0);
/// # Ok(()) }
/// ```
pub struct Scan {
    namespace: Namespace,
    options: ListOptions,
    entries: std::vec::IntoIter<Entry>,
    ended: bool,
}

impl Scan {
    fn next_page(&mut self) -> Result<(), Error> {
        let page = self.namespace.list(&self.options)?;
        match page.cursor() {
            Some(cursor) => self.options = self.options.clone().cursor(cursor),
            None => self.ended = true,
        }
        let entries: Vec<Entry> = page
            .iter()
            .map(|listed| Entry {
                key: listed.key.to_vec(),
                expires_at: listed.expires_at,
                metadata: listed.metadata.map(<[u8]>::to_vec),
            })
            .collect();
        self.entries = entries.into_iter();
        Ok(())
    }
}

impl Iterator for Scan {
    type Item = Result<Entry, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(entry) = self.entries.next() {
            return Some(Ok(entry));
        }
        if self.ended {
            return None;
        }
        if let Err(error) = self.next_page() {
            self.ended = true;
            return Some(Err(error));
        }
        self.entries.next().map(Ok)
    }
}
