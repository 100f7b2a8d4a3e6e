//! The stores that the benches work on: `user:{id:09}:profile` for every second id.
#![allow(dead_code, reason = "no bench uses all of it")]

use std::io::Write;
use std::path::Path;

use kvast::{Db, Durability, Namespace, Options};
use tempfile::TempDir;

pub(crate) const VALUE: [u8; 100] = [b'v'; 100];

pub(crate) type Key = [u8; 22];

pub(crate) fn key(id: u64) -> Key {
    let mut key = [0; 22];
    write!(&mut key[..], "user:{id:09}:profile").unwrap();
    key
}

/// xorshift64*: fast, seeded, good enough for choosing keys.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let random = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D);
        ((u128::from(random) * u128::from(end)) >> 64) as u64
    }
}

pub(crate) fn open(dir: &Path) -> (Db, Namespace) {
    let db = Options::new().durability(Durability::Os).open(dir).unwrap();
    let users = db.namespace("users").unwrap();
    (db, users)
}

/// Puts `keys` keys in random order, `per_commit` in a commit.
pub(crate) fn fill(db: &Db, users: &Namespace, keys: u64, value_len: usize, per_commit: usize) {
    let value = vec![b'v'; value_len];
    let mut ids: Vec<u64> = (0..keys).map(|nth| 2 * nth).collect();
    let mut random = Random(42);
    for last in (1..ids.len()).rev() {
        ids.swap(last, random.below(last as u64 + 1) as usize);
    }
    for some in ids.chunks(per_commit) {
        let mut batch = db.batch();
        for id in some {
            batch.put(users, key(*id), &value).unwrap();
        }
        batch.commit().unwrap();
    }
}

/// A store with `keys` keys, sealed as far as it goes.
pub(crate) fn store(keys: u64, value_len: usize) -> (TempDir, Db, Namespace) {
    let dir = tempfile::tempdir().unwrap();
    let (db, users) = open(dir.path());
    fill(&db, &users, keys, value_len, 100.min(keys as usize / 10));
    db.compact().unwrap();
    (dir, db, users)
}
