//! Promise: a store holds exactly what a `BTreeMap` would hold, whatever is done to it and in
//! whatever order: puts with and without expiry and metadata, expiries changed alone, deletes, batches,
//! all of them on condition too, large values at once and in pieces, uploads that are given up, prefix deletes, lists either way, namespaces made and deleted, time that passes, compaction, closing and opening, and
//! being killed at any change to the disk, in the middle of a write too.
//!
//! How it is attacked: random operations from a seed, several runs side by side, half of them with
//! the store's own threads at work. Values from 8 KiB on count as large. Segments of 64 KiB make rotation and compaction happen all the
//! time. After each operation its answer is compared, every few thousand the whole content. After a
//! kill the operation that was hit may have happened or not, as a whole.
//!
//! Replay: each run prints its seed; `SEED=... cargo test --test model`. `MODEL_OPS=...` sets the
//! number of operations of all runs together.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use kvast::testing::ManualClock;
use kvast::{
    Code, Db, Durability, Error, Expiry, ListOptions, Namespace, Options, PutOptions, Upload, Value,
};

mod support;

use support::contents::{
    Change, Contents, Keys, Stored, handle, options, perform, read, read_all, stored,
};
use support::disk::Killer;
use support::rng::{self, Rng};
use support::scratch_dir;

const RUNS: u64 = 4;
/// Of all runs together; debug builds do a share.
const OPERATIONS: u64 = if cfg!(debug_assertions) { 240_000 } else { 1_040_000 };
const START_MS: u64 = 1_700_000_000_000;
const NAMES: [&str; 3] = ["users", "cache", "flags"];

/// A list that is read a page at a time while other things happen.
struct Paging {
    namespace: String,
    id: String,
    span: Span,
    cursor: String,
    last_key: Vec<u8>,
}

/// Which keys a list shows, and which way.
#[derive(Clone, Debug, Default)]
struct Span {
    prefix: Vec<u8>,
    start: Option<Vec<u8>>,
    end: Option<Vec<u8>>,
    reverse: bool,
}

impl Span {
    fn options(&self) -> ListOptions {
        let mut options = ListOptions::new().prefix(self.prefix.clone()).reverse(self.reverse);
        if let Some(start) = &self.start {
            options = options.start(start.clone());
        }
        if let Some(end) = &self.end {
            options = options.end(end.clone());
        }
        options
    }

    /// The keys behind `after`, in the order of the list.
    fn keys_of<'a>(&self, keys: &'a Keys, after: Option<&[u8]>) -> Vec<(&'a [u8], &'a Stored)> {
        let is_behind = |key: &[u8]| match after {
            Some(after) if self.reverse => key < after,
            Some(after) => key > after,
            None => true,
        };
        let mut wanted: Vec<_> = keys
            .iter()
            .map(|(key, stored)| (key.as_slice(), stored))
            .filter(|(key, _)| key.starts_with(&self.prefix))
            .filter(|(key, _)| self.start.as_ref().is_none_or(|start| *key >= start.as_slice()))
            .filter(|(key, _)| self.end.as_ref().is_none_or(|end| *key < end.as_slice()))
            .filter(|(key, _)| is_behind(key))
            .collect();
        if self.reverse {
            wanted.reverse();
        }
        wanted
    }
}

/// A value that comes in pieces.
struct Uploading {
    upload: Upload,
    namespace: String,
    /// The namespace's id.
    id: String,
    /// Counts openings.
    session: u64,
    key: Vec<u8>,
    value: Vec<u8>,
}

#[derive(Default)]
struct Tally {
    operations: u64,
    kills: u64,
    kills_inside_a_write: u64,
    reopenings: u64,
    compactions: u64,
}

struct Run {
    rng: Rng,
    clock: Arc<ManualClock>,
    killer: Arc<Killer>,
    path: PathBuf,
    background: bool,
    db: Option<Db>,
    model: Contents,
    now_ms: u64,
    last_version: u64,
    ids: BTreeSet<String>,
    paging: Option<Paging>,
    /// Values that were read, with what they held then.
    held: Vec<(Value, Vec<u8>)>,
    /// A handle to a namespace that is about to be deleted.
    stale: Option<Namespace>,
    /// Values that come in pieces, while other things happen.
    uploads: Vec<Uploading>,
    tally: Tally,
}

impl Run {
    fn new(seed: u64, background: bool, path: PathBuf) -> Run {
        let mut run = Run {
            rng: Rng::new(seed),
            clock: ManualClock::new(START_MS),
            killer: Arc::new(Killer::new()),
            path,
            background,
            db: None,
            model: Contents::default(),
            now_ms: START_MS,
            last_version: 0,
            ids: BTreeSet::new(),
            paging: None,
            held: Vec::new(),
            stale: None,
            uploads: Vec::new(),
            tally: Tally::default(),
        };
        run.open();
        run
    }

    fn db(&self) -> &Db {
        self.db.as_ref().expect("the store is open between operations")
    }

    fn open(&mut self) {
        let options = Options::new()
            .durability(Durability::Os)
            .segment_bytes(64 << 10)
            .large_value_bytes(8 << 10)
            .background(self.background)
            .clock(self.clock.clone())
            .disk_hook(self.killer.clone());
        let db = options.open(&self.path).unwrap_or_else(|error| panic!("opening: {error}"));
        self.db = Some(db);
    }

    fn step(&mut self) {
        self.tally.operations += 1;
        match self.rng.below(10_000) {
            0..=4499 => self.put_plain(),
            4500..=6269 => self.put_with_options(),
            6270..=6299 => self.upload(),
            6300..=6399 => self.put_on_condition(),
            6400..=7299 => self.delete(),
            7300..=8199 => self.get(),
            8200..=8299 => self.set_expiry(),
            8300..=8399 => self.batch_on_conditions(),
            8400..=8899 => self.list_page(),
            8900..=9199 => self.batch(),
            9200..=9799 => self.let_time_pass(),
            9800..=9839 => self.delete_prefix(),
            9840..=9879 => self.hold_a_value(),
            9880..=9909 => self.create_or_delete_a_namespace(),
            9910..=9915 => self.compact(),
            9916..=9919 => self.close_and_open(),
            9920..=9923 => self.kill(),
            9924..=9929 => {
                // Falls in the middle of some later operation.
                let (after, cut) = (self.rng.below(60), self.rng.next() >> 1);
                self.killer.kill_after(after, cut);
            }
            9930..=9933 => self.check_everything(),
            _ => self.clock_goes_back_for_a_moment(),
        }
        if self.killer.is_dead() {
            self.revive(None);
        }
    }

    /// Makes a change in the store and in the model, and returns whether it was acknowledged.
    fn change(&mut self, mut change: Change) -> bool {
        let before = self.existing(&change);
        match perform(self.db(), &change) {
            Ok(answer) => {
                if let Some(version) = answer.version {
                    assert!(version > self.last_version, "versions grow");
                    self.last_version = version;
                    note_version(&mut change, version);
                }
                if let Some(existed) = answer.existed {
                    assert_eq!(existed, before, "whether {change:?} found its key");
                }
                self.model.apply(&change);
                true
            }
            Err(error) => {
                assert!(self.killer.is_dead(), "{change:?} failed: {error}");
                self.revive(Some(change));
                false
            }
        }
    }

    fn existing(&self, change: &Change) -> bool {
        match change {
            Change::Delete { namespace, key } => {
                self.model.get(namespace, key).is_some_and(|stored| stored.is_live(self.now_ms))
            }
            _ => false,
        }
    }

    /// Opens the store again after it was killed, in the middle of `hit` if that is given, and finds
    /// out whether that happened.
    fn revive(&mut self, hit: Option<Change>) {
        self.tally.kills += 1;
        self.tally.kills_inside_a_write += u64::from(hit.is_some());
        (self.db, self.stale) = (None, None);
        self.uploads.clear();
        self.killer.revive();
        self.open();
        let found = read_all(self.db()).unwrap_or_else(|error| panic!("after a kill: {error}"));
        let difference = self.model.live(self.now_ms).difference(&found);
        let Some(difference) = difference else { return };
        let Some(hit) = hit else { panic!("after a kill: {difference}") };
        let mut after = self.model.clone();
        after.apply(&hit);
        if let Some(other) = after.live(self.now_ms).difference(&found) {
            panic!("after a kill in the middle of {hit:?}: {difference}; had it happened: {other}");
        }
        self.model = after;
    }

    fn put_plain(&mut self) {
        let Some(namespace) = self.some_namespace() else { return };
        let (key, value) = (self.key(), self.value());
        let stored = Stored { value, metadata: Vec::new(), expires_at: None, version: 0 };
        self.change(Change::Put { namespace, key, stored });
    }

    fn put_with_options(&mut self) {
        let Some(namespace) = self.some_namespace() else { return };
        let (key, stored) = (self.key(), self.stored());
        self.change(Change::Put { namespace, key, stored });
    }

    fn stored(&mut self) -> Stored {
        let metadata = if self.rng.one_in(2) {
            let len = self.rng.len(60);
            self.rng.bytes(len)
        } else {
            Vec::new()
        };
        let expires_at = match self.rng.below(10) {
            0 => None,
            // Some are over before they begin.
            1 => Some(self.now_ms - self.rng.below(1000)),
            2..=6 => Some(self.now_ms + 1 + self.rng.below(20_000)),
            _ => Some(self.now_ms + self.rng.below(40 * 86_400_000)),
        };
        Stored { value: self.value(), metadata, expires_at, version: 0 }
    }

    /// Begins an upload, or goes on with one, gives it up, or ends it.
    fn upload(&mut self) {
        if self.uploads.len() < 3 {
            let Some(namespace) = self.some_namespace() else { return };
            let (key, len) = (self.key(), 1 + self.rng.len(90_000));
            let mut value = self.rng.bytes(64);
            value.resize(len, self.tally.operations as u8);
            let handle = handle(self.db(), &namespace);
            let announced = self.rng.one_in(2).then_some(len as u64);
            let upload = handle.put_stream(&key, announced);
            let upload = upload.unwrap_or_else(|error| panic!("put_stream: {error}"));
            let (id, session) = (handle.id().to_string(), self.tally.reopenings);
            self.uploads.push(Uploading { upload, namespace, id, session, key, value });
            return;
        }
        let nth = self.rng.len(self.uploads.len());
        match self.rng.below(8) {
            0 => drop(self.uploads.remove(nth)),
            1..=4 => self.write_on(nth),
            _ => self.end_upload(nth),
        }
    }

    fn write_on(&mut self, nth: usize) {
        let uploading = &mut self.uploads[nth];
        let from = uploading.upload.len() as usize;
        let len = self.rng.len(uploading.value.len() - from + 1);
        let written = uploading.upload.write(&uploading.value[from..from + len]);
        self.expect_end_of(nth, written);
    }

    /// An upload fails if its session has ended, and with the store.
    fn expect_end_of(&mut self, nth: usize, written: Result<(), Error>) {
        let Err(error) = written else { return };
        let is_over = self.uploads[nth].session != self.tally.reopenings;
        assert!(is_over || self.killer.is_dead(), "writing a piece: {error}");
        assert!(!is_over || error.code() == Code::Closed, "a closed store says {error}");
        self.uploads.remove(nth);
    }

    fn end_upload(&mut self, nth: usize) {
        let mut uploading = self.uploads.remove(nth);
        let from = uploading.upload.len() as usize;
        let stored = Stored { value: uploading.value.clone(), ..self.stored() };
        let written = uploading.upload.write(&uploading.value[from..]);
        let committed = written.and_then(|()| uploading.upload.commit(options(&stored)));
        let Uploading { namespace, id, session, key, .. } = uploading;
        let now = self.db().find_namespace(&namespace).map(|now| now.id().to_string());
        let is_over = session != self.tally.reopenings;
        let mut change = Change::Put { namespace, key, stored };
        match committed {
            Ok(version) => {
                assert!(!is_over && now == Some(id), "stored in what is no more");
                assert!(version > self.last_version, "versions grow");
                self.last_version = version;
                note_version(&mut change, version);
                self.model.apply(&change);
            }
            Err(Error::Closed) => assert!(is_over),
            Err(Error::NamespaceNotFound) if is_over => {}
            Err(Error::NamespaceNotFound) => assert_ne!(now, Some(id)),
            Err(error) => {
                assert!(self.killer.is_dead(), "an upload failed: {error}");
                self.revive(Some(change).filter(|_| now == Some(id)));
            }
        }
    }

    fn put_on_condition(&mut self) {
        let Some(namespace) = self.some_namespace() else { return };
        let key = self.key();
        let current = self.model.get(&namespace, &key);
        let current = current.filter(|stored| stored.is_live(self.now_ms)).map(|it| it.version);
        if current == Some(0) {
            return;
        }
        let asked = match self.rng.below(3) {
            0 => None,
            1 => current,
            _ => Some(self.last_version + 1000),
        };
        let options = match asked {
            None => PutOptions::new().if_absent(),
            Some(version) => PutOptions::new().if_version(version),
        };
        let written = handle(self.db(), &namespace).put_with(&key, b"conditional", options);
        match written {
            Ok(version) => {
                assert_eq!(asked, current, "the condition did not hold");
                self.last_version = version;
                let value = b"conditional".to_vec();
                let stored = Stored { value, metadata: Vec::new(), expires_at: None, version };
                self.model.apply(&Change::Put { namespace, key, stored });
            }
            Err(Error::VersionMismatch { current: found }) => {
                assert_eq!(found, current);
                assert_ne!(asked, current, "the condition held");
            }
            Err(error) => {
                assert!(self.killer.is_dead(), "a conditional put failed: {error}");
                let value = b"conditional".to_vec();
                let stored = Stored { value, metadata: Vec::new(), expires_at: None, version: 0 };
                self.revive(Some(Change::Put { namespace, key, stored }));
            }
        }
    }

    /// The version of a live key, if it has one; `Err` if nobody was told of it.
    fn current(&self, namespace: &str, key: &[u8]) -> Result<Option<u64>, ()> {
        let stored = self.model.get(namespace, key);
        match stored.filter(|stored| stored.is_live(self.now_ms)).map(|stored| stored.version) {
            Some(0) => Err(()),
            version => Ok(version),
        }
    }

    fn set_expiry(&mut self) {
        let Some(namespace) = self.some_namespace() else { return };
        let key = self.key();
        let expires_at = self.stored().expires_at;
        let version = self.current(&namespace, &key);
        if version == Ok(None) {
            let expiry = expires_at.map_or(Expiry::Never, Expiry::At);
            let touched = handle(self.db(), &namespace).set_expiry(&key, expiry);
            assert!(matches!(touched, Ok(None)), "{key:?} is absent: {touched:?}");
            return;
        }
        let before = self.last_version;
        if self.change(Change::SetExpiry { namespace, key, expires_at, version: 0 }) {
            assert!(self.last_version > before, "a key that is there gets a new version");
        }
    }

    fn batch_on_conditions(&mut self) {
        let Some(namespace) = self.some_namespace() else { return };
        let users = handle(self.db(), &namespace);
        let (mut batch, mut changes, mut all_hold) = (self.db().batch(), Vec::new(), true);
        for _ in 0..=self.rng.below(5) {
            let (key, stored) = (self.key(), self.stored());
            let Ok(current) = self.current(&namespace, &key) else { continue };
            let asked = match self.rng.below(12) {
                0 => None,
                1 => Some(self.last_version + 1000),
                _ => current,
            };
            all_hold &= asked == current;
            let added = match (self.rng.below(3), asked) {
                (0, _) => batch.check(&users, &key, asked),
                (1, Some(version)) => {
                    let added = batch.delete_if(&users, &key, version);
                    changes.push(Change::Delete { namespace: namespace.clone(), key });
                    added
                }
                _ => {
                    let options = options(&stored);
                    let options = match asked {
                        Some(version) => options.if_version(version),
                        None => options.if_absent(),
                    };
                    let added = batch.put_with(&users, &key, &stored.value, options);
                    changes.push(Change::Put { namespace: namespace.clone(), key, stored });
                    added
                }
            };
            if let Err(error) = added {
                // A large value is written when it is added.
                assert!(self.killer.is_dead(), "adding to a batch: {error}");
                drop((users, batch));
                return self.revive(None);
            }
        }
        drop(users);
        let wrote = !changes.is_empty();
        let mut change = Change::Batch(changes);
        match batch.commit() {
            Ok(version) => {
                assert!(all_hold, "a condition of {change:?} did not hold");
                assert!(!wrote || version > self.last_version, "versions grow");
                if wrote {
                    self.last_version = version;
                    note_version(&mut change, version);
                }
                self.model.apply(&change);
            }
            Err(Error::VersionMismatch { .. }) => assert!(!all_hold, "the conditions held"),
            Err(error) => {
                assert!(self.killer.is_dead(), "a batch on conditions failed: {error}");
                self.revive(Some(change).filter(|_| all_hold));
            }
        }
    }

    fn delete(&mut self) {
        let Some(namespace) = self.some_namespace() else { return };
        let key = self.key();
        self.change(Change::Delete { namespace, key });
    }

    fn delete_prefix(&mut self) {
        let Some(namespace) = self.some_namespace() else { return };
        let prefix = match self.rng.below(40) {
            0 => Vec::new(),
            _ => self.prefix(),
        };
        self.change(Change::DeletePrefix { namespace, prefix });
    }

    fn batch(&mut self) {
        let mut changes = Vec::new();
        for _ in 0..=self.rng.below(20) {
            let Some(namespace) = self.some_namespace() else { return };
            let key = self.key();
            changes.push(match self.rng.below(3) {
                0 => Change::Delete { namespace, key },
                _ => Change::Put { namespace, key, stored: self.stored() },
            });
        }
        self.change(Change::Batch(changes));
    }

    fn get(&mut self) {
        let Some(name) = self.some_namespace() else { return };
        let key = self.key();
        let found = read(&handle(self.db(), &name), &key);
        let found = found.unwrap_or_else(|error| panic!("get: {error}"));
        let want = self.model.get(&name, &key).filter(|stored| stored.is_live(self.now_ms));
        assert_eq!(found.as_ref(), want, "get of {key:?} in {name}");
        if self.rng.one_in(20) {
            self.get_as_a_stream(&name, &key);
        }
        if self.rng.one_in(20) {
            self.get_many(&name);
        }
    }

    /// Some keys at once, some of them twice.
    fn get_many(&mut self, name: &str) {
        let keys: Vec<_> = (0..self.rng.len(50)).map(|_| self.key()).collect();
        let found = handle(self.db(), name).get_many(&keys);
        let found = found.unwrap_or_else(|error| panic!("get_many: {error}"));
        assert_eq!(found.len(), keys.len());
        for (key, found) in keys.iter().zip(&found) {
            let want = self.model.get(name, key).filter(|stored| stored.is_live(self.now_ms));
            assert_eq!(found.as_ref().map(stored).as_ref(), want, "get_many of {key:?} in {name}");
        }
    }

    fn get_as_a_stream(&mut self, name: &str, key: &[u8]) {
        let stream = handle(self.db(), name).get_stream(key);
        let stream = stream.unwrap_or_else(|error| panic!("get_stream: {error}"));
        let found = stream.map(|mut stream| {
            let mut bytes = Vec::new();
            while let Some(block) = stream.next_block() {
                bytes.extend_from_slice(&block.unwrap_or_else(|error| panic!("block: {error}")));
            }
            bytes
        });
        let want = self.model.get(name, key).filter(|stored| stored.is_live(self.now_ms));
        assert_eq!(found.as_ref(), want.map(|stored| &stored.value));
    }

    fn hold_a_value(&mut self) {
        for (value, bytes) in &self.held {
            assert!(**value == **bytes, "a value that is held changed");
        }
        let Some(name) = self.some_namespace() else { return };
        let key = self.key();
        let found = handle(self.db(), &name).get(&key);
        if let Some(value) = found.unwrap_or_else(|error| panic!("get: {error}")) {
            let bytes = value.to_vec();
            self.held.push((value, bytes));
        }
        if self.held.len() > 20 {
            self.held.remove(0);
        }
    }

    fn list_page(&mut self) {
        let limit = 1 + self.rng.len(60);
        let paging = if self.rng.one_in(3) { None } else { self.paging.take() };
        let Some(paging) = paging else {
            let Some(name) = self.some_namespace() else { return };
            let span = self.span();
            let options = span.options().limit(limit);
            self.compare_page(name, span, None, options, limit);
            return;
        };
        let Paging { namespace, id, span, cursor, last_key } = paging;
        let options = span.options().limit(limit).cursor(cursor);
        match self.db().find_namespace(&namespace) {
            None => {}
            Some(now) if now.id().to_string() == id => {
                let other_way = options.clone().reverse(!span.reverse);
                let refused = now.list(&other_way).expect_err("a cursor of the other direction");
                assert_eq!(refused.code(), Code::InvalidCursor);
                self.compare_page(namespace, span, Some(last_key), options, limit);
            }
            Some(successor) => {
                let refused =
                    successor.list(&options).expect_err("a cursor of a deleted namespace");
                assert_eq!(refused.code(), Code::InvalidCursor);
            }
        }
    }

    fn compare_page(
        &mut self,
        namespace: String,
        span: Span,
        after: Option<Vec<u8>>,
        options: ListOptions,
        limit: usize,
    ) {
        let db_namespace = handle(self.db(), &namespace);
        let page = db_namespace.list(&options).unwrap_or_else(|error| panic!("list: {error}"));
        let keys = span.keys_of(&self.model.0[&namespace], after.as_deref());
        let mut want = keys.into_iter().filter(|(_, stored)| stored.is_live(self.now_ms));
        for listed in page.iter() {
            let (key, stored) = want.next().unwrap_or_else(|| panic!("{:?} is listed", listed.key));
            assert_eq!(listed.key, key, "list of {span:?} after {after:?}");
            assert_eq!(listed.expires_at, stored.expires_at);
            assert_eq!(listed.metadata.unwrap_or_default(), stored.metadata);
        }
        let more = want.next().is_some();
        assert_eq!(page.is_complete(), !more, "list of {span:?} after {after:?}");
        assert!(!more || page.len() == limit, "a page before the last is full");
        self.paging = page.cursor().map(|cursor| Paging {
            id: db_namespace.id().to_string(),
            cursor: cursor.to_owned(),
            last_key: page.iter().last().map(|listed| listed.key.to_vec()).unwrap_or_default(),
            namespace,
            span,
        });
    }

    fn let_time_pass(&mut self) {
        let ms = match self.rng.below(20) {
            0 => self.rng.below(3 * 86_400_000),
            _ => self.rng.below(3000),
        };
        self.clock.advance(ms);
        self.now_ms += ms;
    }

    /// What was seen to have expired stays so.
    fn clock_goes_back_for_a_moment(&mut self) {
        let Some(namespace) = self.some_namespace() else { return };
        let now_ms = self.now_ms;
        let keys = &self.model.0[&namespace];
        let over = keys.iter().find(|(_, stored)| !stored.is_live(now_ms));
        let Some(key) = over.map(|(key, _)| key.clone()) else { return };
        let get = |run: &Run| handle(run.db(), &namespace).get(&key).map(|value| value.is_some());
        assert!(matches!(get(self), Ok(false)), "{key:?} has expired");
        self.clock.jump_to(now_ms - 86_400_000);
        assert!(matches!(get(self), Ok(false)), "{key:?} came back");
        self.clock.jump_to(now_ms);
    }

    fn create_or_delete_a_namespace(&mut self) {
        let name = (*self.rng.pick(&NAMES)).to_owned();
        if !self.model.0.contains_key(&name) {
            if self.change(Change::CreateNamespace(name.clone())) {
                let id = handle(self.db(), &name).id().to_string();
                assert!(self.ids.insert(id), "an id is never used again");
            }
        } else if self.rng.one_in(8) {
            self.stale = Some(handle(self.db(), &name));
            self.change(Change::DeleteNamespace(name));
            if let Some(stale) = self.stale.take() {
                let refused = stale.put("key", "value").expect_err("a deleted namespace");
                assert_eq!(refused.code(), Code::NamespaceNotFound);
            }
        }
    }

    fn compact(&mut self) {
        self.tally.compactions += 1;
        match self.db().compact() {
            Ok(()) => {
                let stats = self.db().stats();
                assert!(stats.live_bytes <= stats.record_bytes);
            }
            Err(error) => assert!(self.killer.is_dead(), "compaction: {error}"),
        }
    }

    fn close_and_open(&mut self) {
        self.tally.reopenings += 1;
        if let Some(db) = self.db.take()
            && let Err(error) = db.close()
        {
            assert!(self.killer.is_dead(), "close: {error}");
        }
        self.killer.revive();
        self.open();
        self.check_everything();
    }

    fn kill(&mut self) {
        self.killer.kill();
        self.revive(None);
    }

    fn check_everything(&mut self) {
        let found = read_all(self.db()).unwrap_or_else(|error| panic!("reading all: {error}"));
        if let Some(difference) = self.model.live(self.now_ms).difference(&found) {
            panic!("{difference}");
        }
        let report = self.db().verify(|_| {}).unwrap_or_else(|error| panic!("verify: {error}"));
        assert!(report.is_sound(), "{report}");
    }

    fn some_namespace(&mut self) -> Option<String> {
        if self.model.0.is_empty() {
            return None;
        }
        let nth = self.rng.len(self.model.0.len());
        self.model.0.keys().nth(nth).cloned()
    }

    fn key(&mut self) -> Vec<u8> {
        match self.rng.below(20) {
            0..=13 => format!("user:{:04}", self.rng.below(400)).into_bytes(),
            14..=16 => format!("a/{}/{}", self.rng.below(8), self.rng.below(20)).into_bytes(),
            17 => vec![self.rng.next() as u8],
            18 => vec![0xff, 0xff, self.rng.below(4) as u8, 0],
            _ => [&[b'l'; 490][..], format!("{:022}", self.rng.below(9)).as_bytes()].concat(),
        }
    }

    fn prefix(&mut self) -> Vec<u8> {
        match self.rng.below(8) {
            0 => Vec::new(),
            1 => b"user:".to_vec(),
            2 => format!("user:{:02}", self.rng.below(5)).into_bytes(),
            3 => format!("user:{:03}", self.rng.below(41)).into_bytes(),
            4 => format!("a/{}/", self.rng.below(9)).into_bytes(),
            5 => vec![0xff; 1 + self.rng.len(2)],
            6 => vec![b'l'; 490],
            _ => self.key(),
        }
    }

    fn span(&mut self) -> Span {
        let mut span = Span { prefix: self.prefix(), ..Span::default() };
        span.reverse = self.rng.one_in(2);
        if self.rng.one_in(3) {
            let bounds = [self.key(), self.key()];
            let [start, end] = bounds.map(|bound| Some(bound).filter(|_| !self.rng.one_in(3)));
            (span.start, span.end) = (start, end);
            if self.rng.one_in(2) {
                span.prefix.clear();
            }
        }
        span
    }

    fn value(&mut self) -> Vec<u8> {
        let len = match self.rng.below(1000) {
            0..=799 => self.rng.len(120),
            800..=989 => self.rng.len(1500),
            990..=997 => self.rng.len(20_000),
            _ => 65_530 + self.rng.len(70_000),
        };
        let mut value = self.rng.bytes(len.min(64));
        value.resize(len, self.tally.operations as u8);
        value
    }
}

fn note_version(change: &mut Change, version: u64) {
    match change {
        Change::Put { stored, .. } => stored.version = version,
        Change::SetExpiry { version: new, .. } => *new = version,
        Change::Batch(changes) => {
            let first = version + 1 - changes.len() as u64;
            for (nth, change) in changes.iter_mut().enumerate() {
                note_version(change, first + nth as u64);
            }
        }
        _ => {}
    }
}

fn run(seed: u64, background: bool, operations: u64) -> Tally {
    println!("SEED={seed} background={background}");
    let dir = scratch_dir();
    let path = dir.path().join("store");
    let _blame = Blame { seed, dir };
    let mut run = Run::new(seed, background, path);
    run.change(Change::CreateNamespace("users".into()));
    for _ in 0..operations {
        run.step();
    }
    run.killer.revive();
    run.close_and_open();
    run.tally
}

/// Says which run it was when a run panics, and leaves its store behind.
struct Blame {
    seed: u64,
    dir: tempfile::TempDir,
}

impl Drop for Blame {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.dir.disable_cleanup(true);
            let (seed, dir) = (self.seed, self.dir.path().display());
            eprintln!("replay: SEED={seed} cargo test --test model; the store is in {dir}");
        }
    }
}

#[test]
fn a_store_holds_what_a_btree_map_holds_through_everything_that_is_done_to_it() {
    let total = std::env::var("MODEL_OPS").ok().and_then(|text| text.parse().ok());
    let operations = total.unwrap_or(OPERATIONS) / RUNS;
    // A replay is of one run.
    let runs = if std::env::var_os("SEED").is_some() { 1 } else { RUNS };
    let seed = rng::seed();
    let tallies: Vec<Tally> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..runs)
            .map(|nth| {
                let seed = seed + nth;
                scope.spawn(move || run(seed, seed.is_multiple_of(2), operations))
            })
            .collect();
        threads.into_iter().map(|run| run.join().expect("a run failed")).collect()
    });
    let sum = |of: fn(&Tally) -> u64| tallies.iter().map(of).sum::<u64>();
    println!(
        "{} operations, {} kills ({} inside a write), {} reopenings, {} compactions: 0 differences",
        sum(|tally| tally.operations),
        sum(|tally| tally.kills),
        sum(|tally| tally.kills_inside_a_write),
        sum(|tally| tally.reopenings),
        sum(|tally| tally.compactions),
    );
    assert!(sum(|tally| tally.kills) > 10 && sum(|tally| tally.compactions) > 10);
}
