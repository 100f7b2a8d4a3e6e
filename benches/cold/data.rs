//! The store that is read, and where each value lies.

use std::fs::{self, File};
use std::io::{BufWriter, Read, Write};
use std::path::Path;

use kvast::{Durability, Options};
use rustix::fs::{Advice, fadvise};

/// Where a value lies, for those who read it past the engine.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    pub(crate) file: u32,
    pub(crate) offset: u32,
    pub(crate) crc: u32,
}

/// Bytes of a batch.
const BATCH_BYTES: usize = 8 << 20;

pub(crate) fn key(id: usize) -> [u8; 22] {
    let mut key = [0; 22];
    // Neighbours in number are no neighbours on disk.
    let id = (id as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    write!(&mut key[..], "k:{id:020}").unwrap();
    key
}

/// Writes a store of this many values, and takes it out of the page cache.
pub(crate) fn write(dir: &Path, keys: usize, len: usize) {
    let db = Options::new().durability(Durability::Os).open(dir.join("store")).unwrap();
    let values = db.namespace("values").unwrap();
    let mut value = vec![0; len];
    let per_batch = (BATCH_BYTES / len).max(1);
    for first in (0..keys).step_by(per_batch) {
        let mut batch = db.batch();
        for id in first..keys.min(first + per_batch) {
            fill(&mut value, id as u64);
            batch.put(&values, key(id), &value).unwrap();
        }
        batch.commit().unwrap();
    }
    db.compact().unwrap();
    let mut places = BufWriter::new(File::create(dir.join("places")).unwrap());
    for id in 0..keys {
        let key = key(id);
        let (segment, offset) = kvast::testing::place_of(&values, key).unwrap();
        let crc = crc32fast::hash(&values.get(key).unwrap().unwrap());
        for field in [segment, offset as u32, crc] {
            places.write_all(&field.to_le_bytes()).unwrap();
        }
    }
    places.into_inner().unwrap().sync_all().unwrap();
    drop(values);
    db.close().unwrap();
    for entry in fs::read_dir(dir.join("store")).unwrap() {
        let file = File::open(entry.unwrap().path()).unwrap();
        file.sync_all().unwrap();
        fadvise(&file, 0, None, Advice::DontNeed).unwrap();
    }
}

pub(crate) fn places(dir: &Path) -> Vec<Place> {
    let mut bytes = Vec::new();
    File::open(dir.join("places")).unwrap().read_to_end(&mut bytes).unwrap();
    let number = |at: &[u8]| u32::from_le_bytes(at.try_into().unwrap());
    bytes
        .chunks(12)
        .map(|place| Place {
            file: number(&place[..4]),
            offset: number(&place[4..8]),
            crc: number(&place[8..]),
        })
        .collect()
}

/// Bytes that no two values share.
fn fill(value: &mut [u8], seed: u64) {
    let mut state = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
    for bytes in value.chunks_mut(8) {
        state = state.wrapping_mul(0xD128_9D5A_7B2E_4C35).wrapping_add(1);
        bytes.copy_from_slice(&(state ^ state >> 32).to_le_bytes()[..bytes.len()]);
    }
}
