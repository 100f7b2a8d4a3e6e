//! LMDB as the comparison uses it.

use std::hint::black_box;
use std::ops::Bound;
use std::path::Path;
use std::sync::OnceLock;
use std::time::Instant;

use heed::types::Bytes;
use heed::{CommitOrAbort, Database, Env, EnvFlags, EnvOpenOptions};

use super::Store;
use super::data::{Key, PAGE, PLACE_STEP, value};

pub struct LmdbStore {
    env: Env,
    /// The key before each place that lists start at.
    places: OnceLock<Vec<Vec<u8>>>,
}

impl LmdbStore {
    /// A handle, which may not outlive the environment; taken once for many operations.
    fn users(&self) -> Database<'_, Bytes, Bytes> {
        let read = self.env.read_txn().expect("a read transaction");
        let opened = self.env.open_databases_and_commit(read, |opener, read| {
            let users = opener.open_database::<Bytes, Bytes>(read, None)?;
            Ok::<_, heed::Error>(CommitOrAbort::<_, ()>::Commit(users))
        });
        opened.ok().map(CommitOrAbort::unwrap_commit).flatten().expect("a database")
    }

    fn places(&self) -> &[Vec<u8>] {
        self.places.get_or_init(|| {
            let (users, read) = (self.users(), self.env.read_txn().expect("a read transaction"));
            let all = users.iter(&read).expect("a cursor").map(|row| row.expect("a row").0);
            all.skip(PLACE_STEP - 1).step_by(PLACE_STEP).map(<[u8]>::to_vec).collect()
        })
    }
}

impl Store for LmdbStore {
    fn open(dir: &Path, durable: bool) -> LmdbStore {
        std::fs::create_dir_all(dir).expect("a directory");
        let mut flags = EnvFlags::NO_READ_AHEAD;
        if !durable {
            flags |= EnvFlags::WRITE_MAP | EnvFlags::NO_SYNC;
        }
        let mut options = EnvOpenOptions::new();
        // SAFETY: without sync the file may be broken after power is lost; it is a bench's own.
        unsafe { options.map_size(8 << 30).flags(flags) };
        // SAFETY: nobody else changes the file while it is mapped.
        let env = unsafe { options.open(dir) }.expect("the environment to open");
        LmdbStore { env, places: OnceLock::new() }
    }

    fn settle(&self) {
        self.env.force_sync().expect("a sync");
    }

    fn close(self) {
        self.env.prepare_for_closing().wait();
    }

    fn gets(&self, keys: &[Key]) -> usize {
        let (users, read) = (self.users(), self.env.read_txn().expect("a read transaction"));
        let mut found = 0;
        for key in keys {
            if let Some(value) = users.get(&read, key).expect("a get") {
                black_box((value.first(), value.last()));
                found += 1;
            }
        }
        found
    }

    fn lists(&self, places: &[usize]) -> usize {
        let (starts, mut listed) = (self.places(), 0);
        let (users, read) = (self.users(), self.env.read_txn().expect("a read transaction"));
        for place in places {
            let from = (Bound::Excluded(&starts[*place][..]), Bound::Unbounded);
            for row in users.range(&read, &from).expect("a cursor").take(PAGE) {
                black_box(row.expect("a row").0.last());
                listed += 1;
            }
        }
        listed
    }

    fn puts(&self, keys: &[Key], until: Option<Instant>) -> usize {
        let users = self.users();
        for (nth, key) in keys.iter().enumerate() {
            if until.is_some_and(|until| Instant::now() >= until) {
                return nth;
            }
            let mut write = self.env.write_txn().expect("a write transaction");
            users.put(&mut write, key, &value(key)).expect("a put");
            write.commit().expect("a commit");
        }
        keys.len()
    }

    fn put_batches(&self, keys: &[Key]) {
        let users = self.users();
        for some in keys.chunks(1000) {
            let mut write = self.env.write_txn().expect("a write transaction");
            for key in some {
                users.put(&mut write, key, &value(key)).expect("a put");
            }
            write.commit().expect("a commit");
        }
    }
}
