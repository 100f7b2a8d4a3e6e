//! RocksDB, linked to the library of the system, so that nothing has to be built for ten minutes.
//!
//! On Debian 12: `apt-get install librocksdb-dev libclang-dev` (7.8.3), then the feature `rocksdb`.
//! Elsewhere set `ROCKSDB_LIB_DIR` and `ROCKSDB_INCLUDE_DIR`, see `.cargo/config.toml`; the
//! bindings are made from the headers found there, and version 0.20.1 of the crate needs 7.x.
//!
//! A cache of 1 GiB, memtables of 64 MiB, filters of 10 bits a key, a hash index in each block, levels
//! of dynamic size, pipelined writes, no compression; values of 4 KiB and more in blob files. Without
//! sync its log reaches the system with each commit, its default; durable is `sync` on each write. Gets
//! are pinned, which copies nothing out of the cache. Many gets are one `batched_multi_get`. Its
//! checksums are verified when a block enters the cache. Settled means flushed and merged to one level.

use std::hint::black_box;
use std::path::Path;

use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamilyDescriptor, DB, DBCompressionType, DataBlockIndexType,
    Options, ReadOptions, WriteBatch, WriteOptions,
};

use super::{CACHE_BYTES, Setup, Store, Watch, look_at};
use crate::data::{Key, PAGE, Values};

struct RocksStore {
    db: DB,
    durable: bool,
}

pub fn open(dir: &Path, setup: Setup) -> Box<dyn Store> {
    std::fs::create_dir_all(dir).expect("a directory");
    let options = options(setup);
    let users = ColumnFamilyDescriptor::new("default", options.clone());
    let db = DB::open_cf_descriptors(&options, dir, [users]).expect("the database to open");
    Box::new(RocksStore { db, durable: setup.durable })
}

fn options(setup: Setup) -> Options {
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_cache(&Cache::new_lru_cache(CACHE_BYTES).expect("a cache"));
    blocks.set_bloom_filter(10.0, false);
    blocks.set_format_version(5);
    blocks.set_data_block_index_type(DataBlockIndexType::BinaryAndHash);
    let mut options = Options::default();
    options.create_if_missing(true);
    options.increase_parallelism(2);
    options.set_block_based_table_factory(&blocks);
    options.set_compression_type(DBCompressionType::None);
    options.set_write_buffer_size(64 << 20);
    options.set_max_write_buffer_number(4);
    options.set_level_compaction_dynamic_level_bytes(true);
    options.set_enable_pipelined_write(true);
    options.set_bytes_per_sync(1 << 20);
    if setup.long_values {
        options.set_enable_blob_files(true);
        options.set_min_blob_size(4096);
        options.set_enable_blob_gc(true);
    }
    options
}

impl RocksStore {
    fn write_options(&self) -> WriteOptions {
        let mut options = WriteOptions::default();
        options.set_sync(self.durable);
        options
    }
}

impl Store for RocksStore {
    fn settle(&mut self) {
        self.db.flush().expect("a flush");
        self.db.compact_range(None::<&[u8]>, None::<&[u8]>);
    }

    fn close(self: Box<Self>) {
        // Otherwise each opening would read the log again.
        self.db.flush().expect("a flush");
    }

    fn gets(&self, keys: &[Key], watch: &mut Watch) -> usize {
        let (options, mut found) = (ReadOptions::default(), 0);
        for key in keys {
            if let Some(value) = self.db.get_pinned_opt(key, &options).expect("a get") {
                look_at(&value);
                found += 1;
            }
            watch.lap();
        }
        found
    }

    fn multi_gets(&self, keys: &[Key], many: usize) -> usize {
        let users = self.db.cf_handle("default").expect("the default family");
        let get_many = |keys| {
            let values = self.db.batched_multi_get_cf(users, keys, false);
            let values = values.into_iter().filter_map(|value| value.expect("a get"));
            values.inspect(|value| look_at(value)).count()
        };
        keys.chunks(many).map(get_many).sum()
    }

    fn verified_gets(&self, keys: &[Key]) -> usize {
        let options = ReadOptions::default();
        let get = |key: &Key| {
            let value = self.db.get_pinned_opt(key, &options).expect("a get").expect("a value");
            black_box(crc32fast::hash(&value));
            value.len()
        };
        keys.iter().map(get).sum()
    }

    fn lists(&self, starts: &[Key]) -> usize {
        let (mut rows, mut listed) = (self.db.raw_iterator(), 0);
        for start in starts {
            rows.seek(start);
            for _ in 0..PAGE {
                let Some(key) = rows.key() else { break };
                black_box(key.last());
                listed += 1;
                rows.next();
            }
        }
        rows.status().expect("all rows");
        listed
    }

    fn puts(&self, keys: &[Key], values: &Values) {
        let (options, mut value) = (self.write_options(), values.buffer());
        for key in keys {
            self.db.put_opt(key, value.of(key), &options).expect("a put");
        }
    }

    fn put_batches(&self, keys: &[Key], values: &Values, per_commit: usize) {
        let (options, mut value) = (self.write_options(), values.buffer());
        for some in keys.chunks(per_commit) {
            let mut batch = WriteBatch::default();
            for key in some {
                batch.put(key, value.of(key));
            }
            self.db.write_opt(batch, &options).expect("a commit");
        }
    }

    fn deletes(&self, keys: &[Key]) {
        let options = self.write_options();
        for key in keys {
            self.db.delete_opt(key, &options).expect("a delete");
        }
    }
}
