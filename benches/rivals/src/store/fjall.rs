//! fjall: a cache of 1 GiB, two worker threads, its default filters of 10 bits a key and memtables of
//! 64 MiB, no compression; values of 1 KiB and more apart from the keys, as it advises for long ones.
//! Without sync the journal reaches the system with each commit, its default; durable is a
//! `SyncData` after each commit. Its checksums are verified when a block enters the cache. Settled
//! means that the memtable was written out and all tables were merged.

use std::hint::black_box;
use std::path::Path;

use fjall::{Database, Keyspace, KeyspaceCreateOptions, KvSeparationOptions, PersistMode};

use super::{CACHE_BYTES, Setup, Store, Watch, look_at};
use crate::data::{Key, PAGE, Values};

struct FjallStore {
    db: Database,
    users: Keyspace,
    durable: bool,
}

pub fn open(dir: &Path, setup: Setup) -> Box<dyn Store> {
    std::fs::create_dir_all(dir).expect("a directory");
    let builder = Database::builder(dir).cache_size(CACHE_BYTES as u64).worker_threads(2);
    let db = builder.open().expect("the database to open");
    let options = || {
        let apart = setup.long_values.then(KvSeparationOptions::default);
        KeyspaceCreateOptions::default().with_kv_separation(apart)
    };
    let users = db.keyspace("users", options).expect("a keyspace");
    Box::new(FjallStore { db, users, durable: setup.durable })
}

impl FjallStore {
    fn sync_if_durable(&self) {
        if self.durable {
            self.db.persist(PersistMode::SyncData).expect("a sync");
        }
    }
}

impl Store for FjallStore {
    fn settle(&mut self) {
        self.users.rotate_memtable_and_wait().expect("the memtable to be written");
        self.users.major_compact().expect("a compaction");
    }

    fn close(self: Box<Self>) {
        self.db.persist(PersistMode::SyncAll).expect("a sync");
    }

    fn gets(&self, keys: &[Key], watch: &mut Watch) -> usize {
        let mut found = 0;
        for key in keys {
            if let Some(value) = self.users.get(key).expect("a get") {
                look_at(&value);
                found += 1;
            }
            watch.lap();
        }
        found
    }

    fn verified_gets(&self, keys: &[Key]) -> usize {
        let get = |key: &Key| {
            let value = self.users.get(key).expect("a get").expect("a value");
            black_box(crc32fast::hash(&value));
            value.len()
        };
        keys.iter().map(get).sum()
    }

    fn lists(&self, starts: &[Key]) -> usize {
        let mut listed = 0;
        for start in starts {
            for row in self.users.range(&start[..]..).take(PAGE) {
                black_box(row.key().expect("a row").last());
                listed += 1;
            }
        }
        listed
    }

    fn puts(&self, keys: &[Key], values: &Values) {
        let mut value = values.buffer();
        for key in keys {
            self.users.insert(key, value.of(key)).expect("a put");
            self.sync_if_durable();
        }
    }

    fn put_batches(&self, keys: &[Key], values: &Values, per_commit: usize) {
        let mut value = values.buffer();
        for some in keys.chunks(per_commit) {
            let mut batch = self.db.batch();
            for key in some {
                batch.insert(&self.users, key, value.of(key));
            }
            batch.commit().expect("a commit");
            self.sync_if_durable();
        }
    }

    fn deletes(&self, keys: &[Key]) {
        for key in keys {
            self.users.remove(key).expect("a delete");
            self.sync_if_durable();
        }
    }
}
