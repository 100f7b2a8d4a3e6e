//! The front door: a store as a whole, and which namespaces it has. Each method is a few calls into
//! the rooms behind it.

use std::path::Path;
use std::sync::{Arc, Mutex};

use crate::background::Background;
use crate::batch::Batch;
use crate::checkpoint;
use crate::commit::{Committer, Site, tombstone};
use crate::compact::Compactor;
use crate::error::Error;
use crate::format::record::Kind;
use crate::list::ListOptions;
use crate::namespace::Namespace;
use crate::options::Options;
use crate::recover::{self, RecoveryReport};
use crate::registry::{
    self, NEXT_NUMBER_KEY, NamespaceId, NamespaceState, Registry, SYSTEM, random_128,
};
use crate::settings::NamespaceSettings;
use crate::stage::Stage;
use crate::stats::{Residency, Stats};
use crate::store::{Store, held};
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
    store: Arc<Store>,
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
        let stage = Stage::new(Arc::clone(&committer), Arc::clone(&keyspace), recovered.blobs);
        let stage = Arc::new(stage);
        let compactor = Compactor::new(
            Arc::clone(&keyspace),
            Arc::clone(&committer),
            Arc::clone(&stage),
            options.space_bound,
            options.compaction_bytes_per_second,
        );
        let compactor = Arc::new(compactor);
        let background = if options.background && !options.read_only {
            let started = Background::start(&keyspace, &committer, &compactor, options.durability);
            Some(started.map_err(|error| Error::io("start a thread", path, error))?)
        } else {
            None
        };
        let store = Store {
            background: Mutex::new(background),
            keyspace,
            committer,
            stage,
            compactor,
            registry: Registry::default(),
            registry_turn: Mutex::new(()),
            options,
            id: recovered.store,
            report: recovered.report,
            lock: Mutex::new(recovered.lock),
        };
        let db = Db { store: Arc::new(store) };
        db.load_registry()?;
        Ok(db)
    }

    fn load_registry(&self) -> Result<(), Error> {
        let all = ListOptions::new().limit(1000);
        let mut page = self.store.list_page(SYSTEM, &all)?;
        loop {
            for listed in page.iter() {
                if let Some(value) = self.store.find_value(SYSTEM, listed.key)? {
                    self.store.registry.load(listed.key, &value)?;
                }
            }
            let Some(cursor) = page.cursor() else { return Ok(()) };
            page = self.store.list_page(SYSTEM, &all.clone().cursor(cursor))?;
        }
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
        let store = &self.store;
        let _turn = held(&store.registry_turn);
        if store.registry.by_name(name).is_some() {
            return Err(Error::NamespaceExists { name: name.to_owned() });
        }
        let (number, id) = (store.registry.next_number(), NamespaceId(random_128()));
        let state = Registry::default().enter(number, id, name.to_owned());
        let next = (number + 1).to_be_bytes();
        let (key, value) = (state.entry_key(), registry::entry_value(id, name));
        store.write(&[], false, |group| {
            group.push(&store.system_put(NEXT_NUMBER_KEY, &next));
            group.push(&store.system_put(&key, &value));
        })?;
        let state = store.registry.enter(number, id, name.to_owned());
        Ok(self.handle(state))
    }

    fn handle(&self, state: Arc<NamespaceState>) -> Namespace {
        Namespace { store: Arc::clone(&self.store), state: [state] }
    }

    /// The namespace of this name, if there is one.
    #[must_use]
    pub fn find_namespace(&self, name: &str) -> Option<Namespace> {
        self.store.registry.by_name(name).map(|state| self.handle(state))
    }

    /// The namespace of this id, if there is one.
    #[must_use]
    pub fn namespace_by_id(&self, id: NamespaceId) -> Option<Namespace> {
        self.store.registry.by_id(id).map(|state| self.handle(state))
    }

    /// All namespaces, ordered by name.
    #[must_use]
    pub fn namespaces(&self) -> Vec<Namespace> {
        self.store.registry.all().into_iter().map(|state| self.handle(state)).collect()
    }

    /// Gives a namespace another name; its id and its keys stay. Its own name is fine.
    ///
    /// # Errors
    /// [`Error::NamespaceNotFound`], [`Error::NamespaceExists`], [`Error::InvalidName`], and what a
    /// write can fail with.
    pub fn rename_namespace(&self, id: NamespaceId, name: &str) -> Result<Namespace, Error> {
        registry::check_name(name)?;
        let store = &self.store;
        let _turn = held(&store.registry_turn);
        let state = store.registry.by_id(id).ok_or(Error::NamespaceNotFound)?;
        match store.registry.by_name(name) {
            Some(other) if other.id == id => return Ok(self.handle(state)),
            Some(_) => return Err(Error::NamespaceExists { name: name.to_owned() }),
            None => {}
        }
        let (key, value) = (state.entry_key(), registry::entry_value(id, name));
        store.write(&[], false, |group| group.push(&store.system_put(&key, &value)))?;
        store.registry.rename(&state, name);
        Ok(self.handle(state))
    }

    /// Deletes a namespace with all its keys, as one commit. Takes about a microsecond a key, for
    /// which other writes wait. Handles to it refuse every call from then on.
    ///
    /// # Errors
    /// [`Error::NamespaceNotFound`], and what a write can fail with.
    pub fn delete_namespace(&self, id: NamespaceId) -> Result<(), Error> {
        let store = &self.store;
        let _turn = held(&store.registry_turn);
        let state = store.registry.by_id(id).ok_or(Error::NamespaceNotFound)?;
        let (entry, settings) = (state.entry_key(), state.settings_key());
        let now_ms = store.keyspace.time.wall_ms();
        let written = store.write(&[], false, |group| {
            state.set_dropped(true);
            group.push(&tombstone(Kind::Delete, SYSTEM, &entry, now_ms));
            if state.settings.get() != NamespaceSettings::default() {
                group.push(&tombstone(Kind::Delete, SYSTEM, &settings, now_ms));
            }
            group.push(&tombstone(Kind::DeleteNamespace, state.number, &[], now_ms));
        });
        if let Err(error) = written {
            state.set_dropped(false);
            return Err(error);
        }
        store.registry.forget(&state);
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
        Batch::new(Arc::clone(&self.store))
    }

    /// Makes everything acknowledged so far durable, whatever the store's durability.
    ///
    /// # Errors
    /// [`Error::Poisoned`], and what the system says.
    pub fn sync(&self) -> Result<(), Error> {
        self.store.committer.sync()
    }

    /// Seals and compacts until there is nothing to be gained. The store does so by itself; this is
    /// for those who turned that off, or want to wait for it.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if a record that was to be copied is damaged, and what the system says.
    pub fn compact(&self) -> Result<(), Error> {
        if self.store.options.read_only {
            return Err(Error::ReadOnly);
        }
        while self.store.compactor.step_for_a_caller()? {}
        Ok(())
    }

    /// Whether the store takes writes: the error that the next one would be refused with, if it
    /// can be told beforehand. Waits for nothing.
    ///
    /// ```
    /// # fn main() -> Result<(), kvast::Error> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// let db = kvast::Db::open(dir.path())?;
    /// db.check_writable()?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::ReadOnly`] and [`Error::Poisoned`].
    pub fn check_writable(&self) -> Result<(), Error> {
        let committer = &self.store.committer;
        if committer.site().read_only {
            return Err(Error::ReadOnly);
        }
        committer.check_poison()
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
        let store = &self.store;
        let (segments, index) = (store.keyspace.catalog.segments(), store.keyspace.index.memory());
        let counts = store.committer.counts();
        let (last_version, durable_version) = counts.versions();
        let record_bytes = segments.iter().map(|segment| segment.record_bytes()).sum();
        let live_bytes: u64 = segments.iter().map(|segment| segment.live_bytes()).sum();
        Stats {
            keys: index.keys,
            segments: segments.len(),
            record_bytes,
            live_bytes,
            dead_bytes: record_bytes.saturating_sub(live_bytes),
            pinned_bytes: store.keyspace.catalog.pinned_bytes(),
            index_bytes: index.hash_bytes + index.tree_bytes,
            index_retired_bytes: index.retired_bytes,
            written_bytes: counts.written_bytes(),
            compaction_copied_bytes: load(&store.compactor.copied_bytes),
            compaction_freed_bytes: load(&store.compactor.freed_bytes),
            commits: counts.commits(),
            syncs: counts.syncs(),
            last_version,
            durable_version,
            background_error: held(&store.background)
                .as_ref()
                .and_then(Background::last_error)
                .map(|error| error.to_string()),
        }
    }

    /// How much of the store's files is in memory. Asks the kernel page by page, which takes about a
    /// millisecond for each 100 MB; holds nothing up, but is nothing for an async thread.
    #[must_use]
    pub fn residency(&self) -> Residency {
        let mut sum = Residency::default();
        for segment in self.store.keyspace.catalog.segments() {
            let (resident, mapped) = segment.body.map.residency();
            sum.resident_bytes += resident;
            sum.mapped_bytes += mapped;
        }
        sum
    }

    /// Whether all of the store was in memory when that was last looked at, about a second ago, so that
    /// no read will wait for the disk. Costs next to nothing. Always false without the store's own
    /// threads.
    #[must_use]
    pub fn is_resident(&self) -> bool {
        self.store.keyspace.catalog.is_warm()
    }

    /// Reads everything and compares it with its checksums; calls `progress` after each segment.
    ///
    /// # Errors
    /// None at present; damage is in the report.
    pub fn verify(&self, progress: impl FnMut(VerifyProgress)) -> Result<VerifyReport, Error> {
        verify::verify(&self.store.keyspace, progress)
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
        if self.store.options.read_only {
            return Err(Error::ReadOnly);
        }
        let store = &self.store;
        store
            .compactor
            .while_it_rests(|| checkpoint::write(&store.committer, &store.stage, path.as_ref()))
    }

    /// What opening the store found.
    #[must_use]
    pub fn recovery(&self) -> &RecoveryReport {
        &self.store.report
    }

    /// Makes everything durable, notes that the store was closed in order, and lets another process
    /// have it. Values that were read stay valid; other clones can read and no longer write.
    ///
    /// # Errors
    /// [`Error::Poisoned`], and what the system says.
    pub fn close(self) -> Result<(), Error> {
        self.store.close()
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
