//! The first page of every segment file; `format-spec.md` §3.

use super::{
    Field, StoreId, VERSION, assert_dense, crc32, field, read_u16, read_u32, write_u16, write_u32,
};
use crate::address::SegmentId;
use crate::error::Damage;

/// Records start here, so that the page with the header is never written again.
pub(crate) const RECORDS_START: u64 = 4096;
pub(crate) const LEN: usize = 64;
pub(crate) const MAGIC: &[u8; 8] = b"kvastSEG";

/// The segment header, row for row as in §3.
pub(crate) const FIELDS: [Field; 12] = [
    field("magic", 0, 8),
    field("version", 8, 2),
    field("segment_kind", 10, 1),
    field("window", 11, 1),
    field("segment_id", 12, 4),
    field("store_id", 16, 16),
    field("incompatible", 32, 4),
    field("read_only_compatible", 36, 4),
    field("compatible", 40, 4),
    field("writer_epoch", 44, 4),
    field("reserved", 48, 12),
    field("header_crc", 60, 4),
];
const _: () = assert_dense(&FIELDS, LEN);

/// What a segment holds, and how it came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum SegmentKind {
    /// Records in commit order.
    Log,
    /// Large values, as extents; no records.
    Blob,
    /// Survivors of a compaction, sorted by key.
    Run,
}

impl SegmentKind {
    pub(crate) const ALL: [SegmentKind; 3] =
        [SegmentKind::Log, SegmentKind::Blob, SegmentKind::Run];

    pub(crate) fn to_byte(self) -> u8 {
        match self {
            SegmentKind::Log => 1,
            SegmentKind::Blob => 2,
            SegmentKind::Run => 3,
        }
    }

    pub(crate) fn from_byte(byte: u8) -> Option<SegmentKind> {
        match byte {
            1 => Some(SegmentKind::Log),
            2 => Some(SegmentKind::Blob),
            3 => Some(SegmentKind::Run),
            _ => None,
        }
    }

    pub(crate) fn extension(self) -> &'static str {
        match self {
            SegmentKind::Log => "log",
            SegmentKind::Blob => "blob",
            SegmentKind::Run => "run",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) kind: SegmentKind,
    /// Which expiry window a run holds; 0 in logs.
    pub(crate) window: u8,
    pub(crate) segment: SegmentId,
    pub(crate) store: StoreId,
    pub(crate) writer_epoch: u32,
}

/// Why a header was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    Damaged(Damage),
    Unknown(String),
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> [u8; LEN] {
        let mut out = [0; LEN];
        out[..8].copy_from_slice(MAGIC);
        write_u16(&mut out, 8, VERSION);
        out[10] = self.kind.to_byte();
        out[11] = self.window;
        write_u32(&mut out, 12, self.segment.0);
        out[16..32].copy_from_slice(&self.store);
        write_u32(&mut out, 44, self.writer_epoch);
        let crc = crc32(&out[..60]);
        write_u32(&mut out, 60, crc);
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<SegmentHeader, Refusal> {
        if bytes.len() < LEN {
            let (wanted, found) = (LEN as u64, bytes.len() as u64);
            return Err(Refusal::Damaged(Damage::CutShort {
                what: "segment header",
                wanted,
                found,
            }));
        }
        let (stored, computed) = (read_u32(bytes, 60), crc32(&bytes[..60]));
        if stored != computed {
            let of = "segment header";
            return Err(Refusal::Damaged(Damage::Checksum { of, stored, computed }));
        }
        if &bytes[..8] != MAGIC {
            return Err(Refusal::Unknown("it is no kvast segment".into()));
        }
        let version = read_u16(bytes, 8);
        let incompatible = read_u32(bytes, 32);
        if version != VERSION || incompatible != 0 {
            return Err(Refusal::Unknown(format!(
                "format version {version} with features {incompatible:#x} is not known here"
            )));
        }
        let Some(kind) = SegmentKind::from_byte(bytes[10]) else {
            return Err(Refusal::Unknown(format!("segment kind {} is not known here", bytes[10])));
        };
        let mut store = [0; 16];
        store.copy_from_slice(&bytes[16..32]);
        Ok(SegmentHeader {
            kind,
            window: bytes[11],
            segment: SegmentId(read_u32(bytes, 12)),
            store,
            writer_epoch: read_u32(bytes, 44),
        })
    }

    /// Features that allow reading and not writing.
    pub(crate) fn allows_writing(bytes: &[u8]) -> bool {
        read_u32(bytes, 36) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> SegmentHeader {
        SegmentHeader {
            kind: SegmentKind::Run,
            window: 3,
            segment: SegmentId(7),
            store: [9; 16],
            writer_epoch: 2,
        }
    }

    #[test]
    fn a_header_comes_back_as_it_was_written() {
        assert_eq!(SegmentHeader::decode(&sample().encode()), Ok(sample()));
    }

    #[test]
    fn every_flipped_bit_of_a_header_is_noticed() {
        let good = sample().encode();
        for bit in 0..LEN * 8 {
            let mut bad = good;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(SegmentHeader::decode(&bad).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_later_version_is_unknown_and_not_damaged() {
        let mut later = sample().encode();
        write_u16(&mut later, 8, VERSION + 1);
        let crc = crc32(&later[..60]);
        write_u32(&mut later, 60, crc);
        assert!(matches!(SegmentHeader::decode(&later), Err(Refusal::Unknown(_))));
    }
}
