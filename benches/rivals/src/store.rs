//! What every store can do, and which of them were built.
//!
//! Each call does many operations, so that nothing is dispatched for each one, and so that a store
//! can open its transaction or take its handle once for all of them. Each store's file says which
//! settings it runs with and why those.

#[cfg(feature = "fjall")]
mod fjall;
mod kvast;
#[cfg(feature = "lmdb")]
mod lmdb;
#[cfg(feature = "redb")]
mod redb;
#[cfg(feature = "rocksdb")]
mod rocksdb;
#[cfg(feature = "sled")]
mod sled;
#[cfg(feature = "sqlite")]
mod sqlite;

use std::path::Path;
use std::time::Instant;

pub use self::kvast::KvastStore;
use crate::data::{Key, Values};

/// Memory for the cache of a store that has one: more than all short values take.
#[cfg(any(feature = "fjall", feature = "redb", feature = "rocksdb", feature = "sled"))]
const CACHE_BYTES: usize = 1 << 30;

/// How a store is opened.
#[derive(Clone, Copy, Default)]
pub struct Setup {
    /// Whether a write is on disk when it is acknowledged; without it, it has to survive the end of
    /// the process at most.
    pub durable: bool,
    /// Whether the values are of 1 KiB and more. kvast does not care.
    #[cfg_attr(
        not(any(feature = "fjall", feature = "rocksdb", feature = "sqlite")),
        allow(dead_code, reason = "no store that was built cares")
    )]
    pub long_values: bool,
}

impl Setup {
    pub const DURABLE: Setup = Setup { durable: true, long_values: false };
    pub const LONG_VALUES: Setup = Setup { durable: false, long_values: true };
}

pub trait Store: Send + Sync {
    /// Brings the data into the shape that the store reads fastest.
    fn settle(&mut self);
    /// From here on the end of the process loses nothing.
    fn persist(&self) {}
    fn close(self: Box<Self>);
    /// Gets each key, looks at the first and the last byte of its value, and says how many were there.
    fn gets(&self, keys: &[Key], watch: &mut Watch) -> usize;
    /// The same with one call for `many` of them at a time, where there is such a call.
    fn multi_gets(&self, keys: &[Key], _many: usize) -> usize {
        self.gets(keys, &mut Watch::default())
    }
    /// Gets each key and takes the CRC-32 of each byte of its value once. Returns the bytes.
    fn verified_gets(&self, keys: &[Key]) -> usize;
    /// Lists 1,000 keys from each of these on, and looks at the last byte of each. Returns how many.
    fn lists(&self, starts: &[Key]) -> usize;
    /// Puts each key in a commit of its own.
    fn puts(&self, keys: &[Key], values: &Values);
    /// Puts so many in a commit.
    fn put_batches(&self, keys: &[Key], values: &Values, per_commit: usize);
    /// Deletes each key in a commit of its own.
    fn deletes(&self, keys: &[Key]);
    /// Bytes of records that a key points at, if the store knows.
    fn live_bytes(&self) -> Option<u64> {
        None
    }
}

/// How long each operation took, if that is asked for.
#[derive(Default)]
pub struct Watch {
    began: Option<Instant>,
    pub nanos: Vec<u32>,
}

impl Watch {
    pub fn started() -> Watch {
        Watch { began: Some(Instant::now()), nanos: Vec::with_capacity(1 << 20) }
    }

    /// An operation has ended, and the next one begins.
    pub fn lap(&mut self) {
        if let Some(began) = self.began {
            let now = Instant::now();
            self.nanos.push(now.duration_since(began).as_nanos() as u32);
            self.began = Some(now);
        }
    }
}

type Open = fn(&Path, Setup) -> Box<dyn Store>;

/// A store by name.
#[derive(Clone, Copy)]
pub struct Kind {
    pub name: &'static str,
    /// The package whose version is shown.
    pub package: &'static str,
    /// Absent if it was not built.
    pub open: Option<Open>,
}

macro_rules! built {
    ($feature:literal, $open:path) => {{
        #[cfg(feature = $feature)]
        let open = Some($open as Open);
        #[cfg(not(feature = $feature))]
        let open = None;
        open
    }};
}

/// kvast, and then the rivals.
pub fn kinds() -> [Kind; 7] {
    let kind = |name, package, open| Kind { name, package, open };
    [
        kind("kvast", "kvast", Some(self::kvast::open as Open)),
        kind("LMDB", "heed", built!("lmdb", lmdb::open)),
        kind("redb", "redb", built!("redb", redb::open)),
        kind("fjall", "fjall", built!("fjall", fjall::open)),
        kind("RocksDB", "rocksdb", built!("rocksdb", rocksdb::open)),
        kind("sled", "sled", built!("sled", sled::open)),
        kind("SQLite", "rusqlite", built!("sqlite", sqlite::open)),
    ]
}

/// Looks at a value as every `gets` does.
fn look_at(value: &[u8]) {
    std::hint::black_box((value.first(), value.last()));
}
