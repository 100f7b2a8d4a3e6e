//! LMDB by `heed`: MDB_NORDAHEAD always; without sync MDB_WRITEMAP and MDB_NOSYNC, its fastest way to
//! write; durable with its defaults. A thread opens one read transaction for each thousand gets and
//! reads the values where they lie in the map; a server would open one for each request. It has no
//! call for many gets, keeps no checksums, and has nothing to settle but its sync.

use std::hint::black_box;
use std::ops::Bound;
use std::path::Path;

use heed::types::Bytes;
use heed::{CommitOrAbort, Database, Env, EnvFlags, EnvOpenOptions};

use super::{Setup, Store, Watch, look_at};
use crate::data::{Key, PAGE, Values};

/// Address space, and the apparent length of the file.
const MAP_BYTES: usize = 64 << 30;

struct LmdbStore {
    env: Env,
}

pub fn open(dir: &Path, setup: Setup) -> Box<dyn Store> {
    std::fs::create_dir_all(dir).expect("a directory");
    let mut flags = EnvFlags::NO_READ_AHEAD;
    if !setup.durable {
        flags |= EnvFlags::WRITE_MAP | EnvFlags::NO_SYNC;
    }
    let mut options = EnvOpenOptions::new();
    // SAFETY: without sync the file may be broken after power is lost; it is a bench's own.
    unsafe { options.map_size(MAP_BYTES).flags(flags) };
    // SAFETY: nobody else changes the file while it is mapped.
    let env = unsafe { options.open(dir) }.expect("the environment to open");
    Box::new(LmdbStore { env })
}

impl LmdbStore {
    /// A handle, which may not outlive the environment; taken once for many operations.
    fn users(&self) -> Database<'_, Bytes, Bytes> {
        let read = self.env.read_txn().expect("a read transaction");
        let opened = self.env.open_databases_and_commit(read, |opener, read| {
            let users = opener.open_database::<Bytes, Bytes>(read, None)?;
            Ok::<_, heed::Error>(CommitOrAbort::<_, ()>::Commit(users))
        });
        opened.ok().and_then(CommitOrAbort::unwrap_commit).expect("a database")
    }
}

impl Store for LmdbStore {
    fn settle(&mut self) {
        self.env.force_sync().expect("a sync");
    }

    fn close(self: Box<Self>) {
        self.env.prepare_for_closing().wait();
    }

    fn gets(&self, keys: &[Key], watch: &mut Watch) -> usize {
        let (users, read) = (self.users(), self.env.read_txn().expect("a read transaction"));
        let mut found = 0;
        for key in keys {
            if let Some(value) = users.get(&read, key).expect("a get") {
                look_at(value);
                found += 1;
            }
            watch.lap();
        }
        found
    }

    fn verified_gets(&self, keys: &[Key]) -> usize {
        let (users, read) = (self.users(), self.env.read_txn().expect("a read transaction"));
        let get = |key: &Key| {
            let value = users.get(&read, key).expect("a get").expect("a value");
            black_box(crc32fast::hash(value));
            value.len()
        };
        keys.iter().map(get).sum()
    }

    fn lists(&self, starts: &[Key]) -> usize {
        let mut listed = 0;
        let (users, read) = (self.users(), self.env.read_txn().expect("a read transaction"));
        for start in starts {
            let from = (Bound::Included(&start[..]), Bound::Unbounded);
            for row in users.range(&read, &from).expect("a cursor").take(PAGE) {
                black_box(row.expect("a row").0.last());
                listed += 1;
            }
        }
        listed
    }

    fn puts(&self, keys: &[Key], values: &Values) {
        self.put_batches(keys, values, 1);
    }

    fn put_batches(&self, keys: &[Key], values: &Values, per_commit: usize) {
        let (users, mut value) = (self.users(), values.buffer());
        for some in keys.chunks(per_commit) {
            let mut write = self.env.write_txn().expect("a write transaction");
            for key in some {
                users.put(&mut write, key, value.of(key)).expect("a put");
            }
            write.commit().expect("a commit");
        }
    }

    fn deletes(&self, keys: &[Key]) {
        let users = self.users();
        for key in keys {
            let mut write = self.env.write_txn().expect("a write transaction");
            users.delete(&mut write, key).expect("a delete");
            write.commit().expect("a commit");
        }
    }
}
