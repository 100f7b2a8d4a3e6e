//! kvast: its defaults but for the durability. Each get is one call and verifies the checksum, many
//! gets are one `get_many`; a list is one call, which copies the keys and makes the cursor of the next
//! page. Without sync means `Durability::Os`: a system call for each commit, so that it survives the
//! end of the process. Settled means compacted.

use std::hint::black_box;
use std::path::Path;

use kvast::{Db, Durability, ListOptions, Namespace, Options, Stats};

use super::{Setup, Store, Watch, look_at};
use crate::data::{Key, PAGE, Values};

pub struct KvastStore {
    db: Db,
    users: Namespace,
}

pub fn open(dir: &Path, setup: Setup) -> Box<dyn Store> {
    Box::new(KvastStore::open(dir, setup))
}

impl KvastStore {
    pub fn open(dir: &Path, setup: Setup) -> KvastStore {
        let durability = if setup.durable { Durability::Sync } else { Durability::Os };
        let db = Options::new().durability(durability).open(dir).expect("the store to open");
        let users = db.namespace("users").expect("a namespace");
        KvastStore { db, users }
    }

    pub fn stats(&self) -> Stats {
        self.db.stats()
    }

    /// Puts keys of any length with values of a few bytes, 1,000 in a commit.
    pub fn put_all(&self, keys: impl Iterator<Item = Vec<u8>>) {
        let mut keys = keys.peekable();
        while keys.peek().is_some() {
            let mut batch = self.db.batch();
            for key in keys.by_ref().take(1000) {
                batch.put(&self.users, key, b"a value!").expect("a put");
            }
            batch.commit().expect("a commit");
        }
    }
}

impl Store for KvastStore {
    fn settle(&mut self) {
        self.db.compact().expect("compaction");
        self.db.sync().expect("a sync");
    }

    fn close(self: Box<Self>) {
        drop(self.users);
        self.db.close().expect("the store to close");
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

    fn multi_gets(&self, keys: &[Key], many: usize) -> usize {
        let get_many = |keys| {
            let values = self.users.get_many(keys).expect("a get of many");
            values.iter().flatten().inspect(|value| look_at(value)).count()
        };
        keys.chunks(many).map(get_many).sum()
    }

    fn verified_gets(&self, keys: &[Key]) -> usize {
        let get = |key| {
            // Verified as a whole before it is returned.
            let value = self.users.get(key).expect("a get").expect("a value");
            look_at(&value);
            value.len()
        };
        keys.iter().map(get).sum()
    }

    fn lists(&self, starts: &[Key]) -> usize {
        let mut listed = 0;
        for start in starts {
            let page = self.users.list(&ListOptions::new().start(*start).limit(PAGE));
            let page = page.expect("a page");
            for key in page.iter() {
                black_box(key.key.last());
            }
            listed += page.len();
        }
        listed
    }

    fn puts(&self, keys: &[Key], values: &Values) {
        let mut value = values.buffer();
        for key in keys {
            self.users.put(key, value.of(key)).expect("a put");
        }
    }

    fn put_batches(&self, keys: &[Key], values: &Values, per_commit: usize) {
        let mut value = values.buffer();
        for some in keys.chunks(per_commit) {
            let mut batch = self.db.batch();
            for key in some {
                batch.put(&self.users, key, value.of(key)).expect("a put");
            }
            batch.commit().expect("a commit");
        }
    }

    fn live_bytes(&self) -> Option<u64> {
        Some(self.stats().live_bytes)
    }

    fn deletes(&self, keys: &[Key]) {
        for key in keys {
            self.users.delete(key).expect("a delete");
        }
    }
}
