//! The bytes on disk: pure functions from bytes to values and back. `format-spec.md` is normative;
//! each file here cites the section it implements, and `tests/format_spec.rs` compares the tables.
//!
//! What always holds: every integer is little-endian; zero is never a valid kind, so bytes that
//! were never written are never a record; a decoder never panics and never reads past its input.
//! Absent on purpose: files, offsets that move, and any decision about what damage means.

pub(crate) mod footer;
pub(crate) mod manifest;
pub(crate) mod record;
pub(crate) mod segment_header;
pub(crate) mod varint;

/// The version written into every header; §1.
pub(crate) const VERSION: u16 = 1;

/// Names a store for ever; drawn at random when it is created.
pub(crate) type StoreId = [u8; 16];

/// One field of a fixed layout, as in the specification's tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// The field's name.
    pub name: &'static str,
    /// Its first byte, counted from the start of the layout.
    pub offset: usize,
    /// Its length in bytes.
    pub size: usize,
}

pub(crate) const fn field(name: &'static str, offset: usize, size: usize) -> Field {
    Field { name, offset, size }
}

/// Fails the build if the fields leave a gap, overlap, or do not add up to `len`.
pub(crate) const fn assert_dense(fields: &[Field], len: usize) {
    let (mut end, mut i) = (0, 0);
    while i < fields.len() {
        assert!(fields[i].offset == end, "gap or overlap between two fields");
        end += fields[i].size;
        i += 1;
    }
    assert!(end == len, "the fields do not fill the layout");
}

/// CRC-32 (IEEE 802.3, reflected) of `bytes`; §1.
pub(crate) fn crc32(bytes: &[u8]) -> u32 {
    crc32fast::hash(bytes)
}

/// Continues a CRC-32 whose value so far is `initial`; §1.
pub(crate) fn crc32_from(initial: u32, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(initial);
    hasher.update(bytes);
    hasher.finalize()
}

/// The checksum seed of one file: binds what it holds to the store and the file; §1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seed(u32);

impl Seed {
    pub(crate) fn of_segment(store: &StoreId, segment: u32) -> Seed {
        Seed(crc32_from(crc32(store), &segment.to_le_bytes()))
    }

    pub(crate) fn of_manifest(store: &StoreId) -> Seed {
        Seed(crc32(store))
    }

    /// The initial value for what starts at `offset`, a multiple of 8.
    pub(crate) fn at(self, offset: u64) -> u32 {
        self.0 ^ (offset / 8) as u32
    }

    /// The initial value for what is bound to the file and not to a place in it.
    pub(crate) fn base(self) -> u32 {
        self.0
    }
}

pub(crate) fn read_u16(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(array(bytes, at))
}

pub(crate) fn read_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array(bytes, at))
}

pub(crate) fn read_u64(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array(bytes, at))
}

/// Six bytes: enough for milliseconds until the year 10889.
pub(crate) fn read_u48(bytes: &[u8], at: usize) -> u64 {
    let mut wide = [0; 8];
    wide[..6].copy_from_slice(&bytes[at..at + 6]);
    u64::from_le_bytes(wide)
}

pub(crate) fn write_u48(bytes: &mut [u8], at: usize, value: u64) {
    bytes[at..at + 6].copy_from_slice(&value.to_le_bytes()[..6]);
}

pub(crate) fn write_u16(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_le_bytes());
}

pub(crate) fn write_u32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

pub(crate) fn write_u64(bytes: &mut [u8], at: usize, value: u64) {
    bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

/// Rounds up to the next multiple of eight.
pub(crate) const fn align8(len: usize) -> usize {
    len.next_multiple_of(8)
}
