//! Four ways to read a value. Each verifies it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::IoSliceMut;
use std::os::unix::fs::FileExt;
use std::path::Path;

use kvast::{Db, Durability, Namespace, Options, ValueStream};
use rustix::io::{Errno, ReadWriteFlags, preadv2};

use crate::data::{self, Place};

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Way {
    Map,
    Gate,
    Pread,
    NoWait,
}

pub(crate) const WAYS: [(Way, &str); 4] =
    [(Way::Map, "map"), (Way::Gate, "map+gate"), (Way::Pread, "pread"), (Way::NoWait, "nowait")];

/// What of a value is verified at once.
const BLOCK: usize = 64 << 10;

/// Who reads, in all ways.
pub(crate) struct Reader {
    _db: Db,
    values: Namespace,
    places: Vec<Place>,
    files: BTreeMap<u32, File>,
    len: usize,
}

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl Reader {
    pub(crate) fn open(dir: &Path, len: usize) -> Reader {
        let db = Options::new().durability(Durability::Os).open(dir.join("store")).unwrap();
        let values = db.namespace("values").unwrap();
        let mut files = BTreeMap::new();
        for entry in fs::read_dir(dir.join("store")).unwrap() {
            let path = entry.unwrap().path();
            let id = path.file_stem().and_then(|stem| stem.to_str()?.parse().ok());
            if let Some(id) = id {
                files.insert(id, File::open(&path).unwrap());
            }
        }
        Reader { _db: db, values, places: data::places(dir), files, len }
    }

    pub(crate) fn keys(&self) -> usize {
        self.places.len()
    }

    /// Reads a value, unless this way knows that it would wait for the disk, or never reads here.
    pub(crate) fn read_now(&self, way: Way, id: usize) -> bool {
        match way {
            Way::Map => take(self.find(id)),
            Way::Gate => {
                if !self.values.is_resident(data::key(id)) {
                    return false;
                }
                let value = self.find(id);
                if !value.is_resident_within(0..value.len()) {
                    return false;
                }
                take(value);
            }
            Way::Pread => return false,
            Way::NoWait => return self.pread(id, true),
        }
        true
    }

    /// Reads a value on a thread that may wait.
    pub(crate) fn read_waiting(&self, way: Way, id: usize) {
        match way {
            Way::Map | Way::Gate => {
                self.values.populate(data::key(id)).unwrap();
                let value = self.find(id);
                // A shorter one was brought with its record.
                if self.len > BLOCK {
                    value.populate().unwrap();
                }
                take(value);
            }
            Way::Pread | Way::NoWait => assert!(self.pread(id, false)),
        }
    }

    fn find(&self, id: usize) -> ValueStream {
        self.values.get_stream(data::key(id)).unwrap().unwrap()
    }

    fn pread(&self, id: usize, only_now: bool) -> bool {
        let Place { file, offset, crc } = self.places[id];
        let file = &self.files[&file];
        BUFFER.with_borrow_mut(|buffer| {
            buffer.resize(self.len, 0);
            if only_now {
                let into = &mut [IoSliceMut::new(buffer)];
                match preadv2(file, into, u64::from(offset), ReadWriteFlags::NOWAIT) {
                    Ok(read) if read == self.len => {}
                    Ok(_) | Err(Errno::AGAIN) => return false,
                    Err(error) => panic!("preadv2: {error}"),
                }
            } else {
                file.read_exact_at(buffer, u64::from(offset)).unwrap();
            }
            assert_eq!(crc32fast::hash(buffer), crc);
            true
        })
    }
}

/// Takes, and so verifies, all of a value.
fn take(mut value: ValueStream) {
    while let Some(block) = value.next_block() {
        std::hint::black_box(block.unwrap());
    }
}
