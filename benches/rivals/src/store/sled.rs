//! sled: a cache of 1 GiB, mode `HighThroughput`, no compression. Without sync it writes when a buffer
//! is full and syncs never; durable is a `flush` after each commit. On Linux that flush is a
//! `sync_file_range`, which has the disk flush no cache of its own, so it promises less than the
//! `fdatasync` of the others. It has no call for many gets. Its checksums are verified when a page
//! enters the cache. What is in its buffers goes with the process, so [`Store::persist`] flushes.

use std::hint::black_box;
use std::path::Path;

use sled::{Batch, Config, Db, Mode};

use super::{CACHE_BYTES, Setup, Store, Watch, look_at};
use crate::data::{Key, PAGE, Values};

struct SledStore {
    db: Db,
    durable: bool,
}

pub fn open(dir: &Path, setup: Setup) -> Box<dyn Store> {
    let config = Config::new()
        .path(dir)
        .mode(Mode::HighThroughput)
        .cache_capacity(CACHE_BYTES as u64)
        .flush_every_ms(None);
    let db = config.open().expect("the database to open");
    Box::new(SledStore { db, durable: setup.durable })
}

impl SledStore {
    fn sync_if_durable(&self) {
        if self.durable {
            self.db.flush().expect("a flush");
        }
    }
}

impl Store for SledStore {
    fn settle(&mut self) {
        self.persist();
    }

    fn persist(&self) {
        self.db.flush().expect("a flush");
    }

    fn close(self: Box<Self>) {
        self.persist();
    }

    fn gets(&self, keys: &[Key], watch: &mut Watch) -> usize {
        let mut found = 0;
        for key in keys {
            if let Some(value) = self.db.get(key).expect("a get") {
                look_at(&value);
                found += 1;
            }
            watch.lap();
        }
        found
    }

    fn verified_gets(&self, keys: &[Key]) -> usize {
        let get = |key: &Key| {
            let value = self.db.get(key).expect("a get").expect("a value");
            black_box(crc32fast::hash(&value));
            value.len()
        };
        keys.iter().map(get).sum()
    }

    fn lists(&self, starts: &[Key]) -> usize {
        let mut listed = 0;
        for start in starts {
            for key in self.db.range(&start[..]..).keys().take(PAGE) {
                black_box(key.expect("a row").last());
                listed += 1;
            }
        }
        listed
    }

    fn puts(&self, keys: &[Key], values: &Values) {
        let mut value = values.buffer();
        for key in keys {
            self.db.insert(key, value.of(key)).expect("a put");
            self.sync_if_durable();
        }
    }

    fn put_batches(&self, keys: &[Key], values: &Values, per_commit: usize) {
        let mut value = values.buffer();
        for some in keys.chunks(per_commit) {
            let mut batch = Batch::default();
            for key in some {
                batch.insert(key, value.of(key));
            }
            self.db.apply_batch(batch).expect("a commit");
            self.sync_if_durable();
        }
    }

    fn deletes(&self, keys: &[Key]) {
        for key in keys {
            self.db.remove(key).expect("a delete");
            self.sync_if_durable();
        }
    }
}
