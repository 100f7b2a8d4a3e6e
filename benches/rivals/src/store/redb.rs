//! redb: a cache of 1 GiB, which holds all short values. Without sync means `Durability::None`, which
//! even the end of the process undoes; so [`Store::persist`] ends with an empty durable commit. One
//! read transaction and one open table for each thousand gets. It has no call for many gets, and
//! looks at its checksums only when it repairs. Its `compact` shrinks the file and is no faster to
//! read, so it is not called.

use std::hint::black_box;
use std::path::Path;

use redb::{Database, Durability, ReadOnlyTable, ReadableDatabase, TableDefinition};

use super::{CACHE_BYTES, Setup, Store, Watch, look_at};
use crate::data::{Key, PAGE, Values};

const USERS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("users");

struct RedbStore {
    db: Database,
    durability: Durability,
}

pub fn open(dir: &Path, setup: Setup) -> Box<dyn Store> {
    std::fs::create_dir_all(dir).expect("a directory");
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES);
    let db = builder.create(dir.join("users.redb")).expect("the database to open");
    let durability = if setup.durable { Durability::Immediate } else { Durability::None };
    Box::new(RedbStore { db, durability })
}

impl RedbStore {
    fn users(&self) -> ReadOnlyTable<&'static [u8], &'static [u8]> {
        let read = self.db.begin_read().expect("a read transaction");
        read.open_table(USERS).expect("a table")
    }

    fn write(
        &self,
        durability: Durability,
        change: impl FnOnce(&mut redb::Table<&'static [u8], &'static [u8]>),
    ) {
        let mut write = self.db.begin_write().expect("a write transaction");
        write.set_durability(durability).expect("no savepoint is open");
        change(&mut write.open_table(USERS).expect("a table"));
        write.commit().expect("a commit");
    }
}

impl Store for RedbStore {
    fn settle(&mut self) {
        self.persist();
    }

    fn persist(&self) {
        self.write(Durability::Immediate, |_| ());
    }

    fn close(self: Box<Self>) {
        self.persist();
    }

    fn gets(&self, keys: &[Key], watch: &mut Watch) -> usize {
        let (users, mut found) = (self.users(), 0);
        for key in keys {
            if let Some(value) = users.get(&key[..]).expect("a get") {
                look_at(value.value());
                found += 1;
            }
            watch.lap();
        }
        found
    }

    fn verified_gets(&self, keys: &[Key]) -> usize {
        let users = self.users();
        let get = |key: &Key| {
            let value = users.get(&key[..]).expect("a get").expect("a value");
            black_box(crc32fast::hash(value.value()));
            value.value().len()
        };
        keys.iter().map(get).sum()
    }

    fn lists(&self, starts: &[Key]) -> usize {
        let (users, mut listed) = (self.users(), 0);
        for start in starts {
            for row in users.range::<&[u8]>(&start[..]..).expect("a range").take(PAGE) {
                black_box(row.expect("a row").0.value().last());
                listed += 1;
            }
        }
        listed
    }

    fn puts(&self, keys: &[Key], values: &Values) {
        self.put_batches(keys, values, 1);
    }

    fn put_batches(&self, keys: &[Key], values: &Values, per_commit: usize) {
        let mut value = values.buffer();
        for some in keys.chunks(per_commit) {
            self.write(self.durability, |users| {
                for key in some {
                    users.insert(&key[..], value.of(key)).expect("a put");
                }
            });
        }
    }

    fn deletes(&self, keys: &[Key]) {
        for key in keys {
            self.write(self.durability, |users| {
                users.remove(&key[..]).expect("a delete");
            });
        }
    }
}
