//! Doors for tests: the disk and clock seams, the format's tables, and decoders for fuzzing. Behind
//! the feature `testing`, and no part of the stable interface.

pub use crate::clock::{Clock, ManualClock};
pub use crate::disk::{Hook, Op, Verdict};
pub use crate::format::Field;

use crate::format::{footer, manifest, record, segment_header};

/// The fixed layouts of the format, by the section of `format-spec.md` that holds each.
#[must_use]
pub fn spec_tables() -> Vec<(&'static str, Vec<Field>)> {
    vec![
        ("3", segment_header::FIELDS.to_vec()),
        ("4.1", record::FIELDS.to_vec()),
        ("4.3", record::COMMIT_FIELDS.to_vec()),
        ("4.3.1", record::OWN_COMMIT_FIELDS.to_vec()),
        ("4.5", record::REFERENCE_FIELDS.to_vec()),
        ("5.1", footer::BLOCK_FIELDS.to_vec()),
        ("5.3", footer::TRAILER_FIELDS.to_vec()),
        ("6.1", manifest::HEADER_FIELDS.to_vec()),
        ("6.2", manifest::ENTRY_FIELDS.to_vec()),
    ]
}

/// The choice of what to compact, which needs no disk: for simulations.
pub mod compaction {
    use crate::address::SegmentId;
    use crate::compact::plan::{self, Candidate};

    /// What the choice rests on, for one sealed segment; in bytes of records.
    #[derive(Clone, Copy, Debug)]
    #[allow(missing_docs, reason = "each is a field of the engine's own candidate")]
    pub struct Sealed {
        pub id: u32,
        pub records: u64,
        pub live: u64,
        pub kept_tombstones: u64,
    }

    /// The segments to compact next.
    #[must_use]
    pub fn plan(sealed: &[Sealed], bound: f64, free: u64) -> Vec<u32> {
        let candidate = |sealed: &Sealed| Candidate {
            id: SegmentId(sealed.id),
            records: sealed.records,
            live: sealed.live,
            kept_tombstones: sealed.kept_tombstones,
        };
        let candidates: Vec<Candidate> = sealed.iter().map(candidate).collect();
        plan::plan(&candidates, bound, free).iter().map(|id| id.get()).collect()
    }

    /// Which run a record that outlives a compaction goes to.
    #[must_use]
    pub fn window(expires_ms: u64, now_ms: u64) -> u8 {
        plan::window(expires_ms, now_ms)
    }
}

/// The number in the name of the file that a key's value lies in, and the byte at which it starts, for
/// benches that read it past the engine.
#[must_use]
pub fn place_of(namespace: &crate::Namespace, key: impl AsRef<[u8]>) -> Option<(u32, u64)> {
    namespace.get(key).ok().flatten().map(|value| value.place())
}

/// Decoders that take any bytes: none may panic.
pub mod fuzz {
    use crate::cursor::{self, Scope};
    use crate::format::{Seed, footer, manifest, record};

    /// A record or commit. The first four bytes are the checksum's initial value.
    pub fn record(input: &[u8]) {
        let Some((initial, rest)) = input.split_first_chunk::<4>() else { return };
        // Once as it is, and once with a checksum that fits, to get behind it.
        let initial = u32::from_le_bytes(*initial);
        try_record(rest, initial);
        let mut sound = rest.to_vec();
        if sound.len() >= record::COMMIT_LEN {
            let covered = crate::format::read_u16(&sound, 6) as usize
                + crate::format::read_u16(&sound, 22) as usize
                + record::HEADER_LEN
                + usize::from(sound[5] & 1) * 8
                + usize::from(sound[5] >> 7) * record::OWN_COMMIT_LEN
                + usize::from(sound[5] >> 1 & 1) * record::REFERENCE_LEN;
            let end = if sound[4] == record::COMMIT_KIND { record::COMMIT_LEN } else { covered };
            if let Some(covered) = sound.get(4..end) {
                let crc = crate::format::crc32_from(initial, covered);
                crate::format::write_u32(&mut sound, 0, crc);
                try_record(&sound, initial);
            }
        }
    }

    fn try_record(input: &[u8], initial: u32) {
        record::has_key(input, 1, b"key");
        if let Ok(record::Item::Record(record)) = record::decode(input, initial) {
            let _ = record.verify_value();
            let _ = record::OwnCommit::of(&record.header, input);
            assert!(record.header.record_len() <= input.len());
        }
    }

    /// A footer, at the end of a file that is all footer.
    pub fn footer(input: &[u8]) {
        let seed = Seed::of_segment(&[0; 16], 1);
        if let Ok(trailer) = footer::Trailer::decode(input, seed) {
            let _ = footer::read_fences(input, &trailer, seed);
        }
        let Some((offset, _)) = input.split_first() else { return };
        walk_block(input, u64::from(*offset) / 8 * 8, seed);
        // The same bytes as the payload of a block whose checksum fits.
        let mut block = vec![0; footer::BLOCK_HEADER_LEN];
        crate::format::write_u32(&mut block, 4, input.len() as u32);
        crate::format::write_u32(&mut block, 8, u32::from(*offset));
        block.extend_from_slice(input);
        let crc = crate::format::crc32_from(seed.at(0), &block[4..]);
        crate::format::write_u32(&mut block, 0, crc);
        walk_block(&block, 0, seed);
    }

    fn walk_block(file: &[u8], offset: u64, seed: Seed) {
        if let Ok((mut reader, _)) = footer::open_block(file, offset, seed) {
            while let Ok(Some(_)) = reader.next() {}
        }
    }

    /// A manifest.
    pub fn manifest(input: &[u8]) {
        let _ = manifest::decode(input);
        let whole = [&manifest::encode_header(&[0; 16])[..], input].concat();
        let _ = manifest::decode(&whole);
    }

    /// A cursor's text.
    pub fn cursor(input: &[u8]) {
        for reverse in [false, true] {
            try_cursor(input, Scope { store: &[0; 16], namespace: 1, prefix: b"a", reverse });
        }
    }

    fn try_cursor(input: &[u8], scope: Scope<'_>) {
        if let Ok(text) = std::str::from_utf8(input)
            && let Ok(key) = cursor::decode(scope, text)
        {
            assert!(key.starts_with(b"a"));
            assert_eq!(cursor::encode(scope, &key), text, "a cursor has one spelling");
        }
        let key = [b"a", input].concat();
        let text = cursor::encode(scope, &key);
        assert_eq!(cursor::decode(scope, &text).ok(), Some(key));
    }
}
