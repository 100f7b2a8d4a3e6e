//! Promise: `format-spec.md` and the code describe the same bytes.
//!
//! How it is attacked: each table of a fixed layout is compared with the code's, field by field, and
//! checked for gaps; the worked example is decoded by a reader written from the specification alone
//! (it shares no line with the engine, not even the checksum), and is then opened by the engine.

use std::fs;
use std::path::Path;

use kvast::testing::{ManualClock, spec_tables};
use kvast::{Durability, Options};

const SPEC: &str = include_str!("../format-spec.md");

/// The lines of the section whose heading begins with `number`, up to the next heading.
fn section(number: &str) -> Vec<&'static str> {
    let heading =
        |line: &str| line.starts_with('#') && line.trim_start_matches('#').starts_with(' ');
    let mut lines = SPEC.lines().skip_while(|line| {
        !(heading(line) && line.trim_start_matches(['#', ' ']).starts_with(&format!("{number} ")))
    });
    assert!(lines.next().is_some(), "format-spec.md has no section {number}");
    lines.take_while(|line| !heading(line)).collect()
}

/// The rows of the tables of fixed layouts in a section: name, offset, size.
fn rows(number: &str) -> Vec<(String, usize, usize)> {
    section(number).into_iter().filter_map(row).collect()
}

fn row(line: &str) -> Option<(String, usize, usize)> {
    let cells: Vec<&str> = line.strip_prefix('|')?.split('|').map(str::trim).collect();
    let name = cells.get(2)?.strip_prefix('`')?.strip_suffix('`')?;
    Some((name.to_owned(), cells[0].parse().ok()?, cells[1].parse().ok()?))
}

#[test]
fn the_specification_and_the_code_list_the_same_fields() {
    let tables = spec_tables();
    assert!(tables.len() >= 8, "the code names only {} tables", tables.len());
    for (number, fields) in tables {
        let code: Vec<_> =
            fields.iter().map(|field| (field.name.to_owned(), field.offset, field.size)).collect();
        assert_eq!(rows(number), code, "section {number}");
    }
}

#[test]
fn no_layout_of_the_specification_has_a_gap_or_an_overlap() {
    let lengths = [
        ("3", 64),
        ("4.1", 36),
        ("4.3", 48),
        ("4.3.1", 10),
        ("4.5", 8),
        ("5.1", 16),
        ("5.3", 96),
        ("6.1", 64),
        ("6.2", 16),
        ("6.2.1", 8),
        ("6.2.2", 48),
        ("6.2.3", 8),
        ("6.2.4", 8),
        ("6.2.5", 32),
        ("6.2.6", 24),
    ];
    for (number, len) in lengths {
        let mut end = 0;
        for (name, offset, size) in rows(number) {
            assert_eq!(offset, end, "section {number}, field `{name}`");
            end += size;
        }
        assert_eq!(end, len, "section {number}");
    }
}

/// CRC-32 as §1 gives it, bit by bit, in its continuing form.
fn crc(so_far: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(!so_far, |state, byte| {
        (0..8).fold(state ^ u32::from(*byte), |state, _| {
            if state & 1 == 1 { state >> 1 ^ 0xedb8_8320 } else { state >> 1 }
        })
    }) ^ u32::MAX
}

/// The bytes of the worked example, and where they lie.
fn example() -> Vec<(usize, Vec<u8>)> {
    let rows = section("12").into_iter().filter_map(|line| {
        let (offset, rest) = line.split_once("  ")?;
        let offset = usize::from_str_radix(offset, 16).ok().filter(|_| offset.len() == 8)?;
        let hex = rest.get(..rest.len().min(47))?.split_whitespace();
        let bytes: Vec<u8> = hex.map_while(|byte| u8::from_str_radix(byte, 16).ok()).collect();
        Some((offset, bytes))
    });
    rows.collect()
}

/// The example as a file: what it leaves out is zeros.
fn example_file() -> Vec<u8> {
    let mut file = Vec::new();
    for (offset, bytes) in example() {
        assert!(offset >= file.len(), "the dump's rows ascend");
        file.resize(offset, 0);
        file.extend_from_slice(&bytes);
    }
    file
}

/// Takes a dump apart from the front, so that no byte can be left unexplained.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> &'a [u8] {
        self.at += len;
        &self.bytes[self.at - len..self.at]
    }

    fn number(&mut self, len: usize) -> u64 {
        self.take(len).iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
    }

    fn zeros(&mut self, len: usize) {
        assert!(self.take(len).iter().all(|byte| *byte == 0), "zeros before byte {}", self.at);
    }
}

#[test]
fn the_worked_example_decodes_byte_by_byte_as_it_is_explained() {
    let file = example_file();
    let mut read = Reader { bytes: &file, at: 0 };

    // The header, §3.
    assert_eq!(read.take(8), b"kvastSEG");
    assert_eq!((read.number(2), read.number(1), read.number(1)), (1, 1, 0));
    let segment = read.number(4) as u32;
    let store = read.take(16);
    assert_eq!((segment, store), (1, &b"kvast example 01"[..]));
    read.zeros(12);
    assert_eq!(read.number(4), 1, "writer epoch");
    read.zeros(12);
    assert_eq!(read.number(4) as u32, crc(0, &file[..60]));
    read.zeros(4096 - 64);

    // The record, §4.1 and §4.2.
    let base = crc(crc(0, store), &segment.to_le_bytes());
    assert_eq!(base, 0xb085_54eb);
    let record_crc = read.number(4) as u32;
    assert_eq!(record_crc, crc(base ^ (4096 / 8), &file[4100..4161]));
    assert_eq!((read.number(1), read.number(1)), (1, 1), "kind and flags");
    let key_len = read.number(2) as usize;
    assert_eq!((read.number(8), read.number(6)), (1, 1_767_225_600_000), "seqno, written_ms");
    let metadata_len = read.number(2) as usize;
    assert_eq!(read.number(4), 1, "namespace");
    let (value_len, value_crc) = (read.number(4) as usize, read.number(4) as u32);
    assert_eq!(read.number(8), 4_102_444_800_000, "expiry");
    assert_eq!(read.take(key_len), b"greeting");
    assert_eq!(read.take(metadata_len), br#"{"lang":"en"}"#);
    let value = read.take(value_len);
    assert_eq!((value, value_crc), (&b"hello"[..], crc(0, b"hello")));
    read.zeros(read.at.next_multiple_of(8) - read.at);

    // The commit, §4.3.
    let commit = read.at;
    let covered = &file[commit + 4..commit + 48];
    assert_eq!(read.number(4) as u32, crc(base ^ (commit as u32 / 8), covered));
    assert_eq!((read.number(1), read.number(1), read.number(2)), (5, 0, 0), "kind and flags");
    assert_eq!((read.number(8), read.number(8)), (1, 0), "last and durable seqno");
    assert_eq!((read.number(6), read.number(2)), (1_767_225_600_000, 0), "clock");
    assert_eq!((read.number(4), read.number(4)), (1, commit as u64 - 4096), "count and bytes");
    let chain = read.number(4) as u32;
    assert_eq!(chain, crc(base, &record_crc.to_le_bytes()), "chain");
    assert_eq!(read.number(4), 1, "writer epoch");

    // The record that commits itself, §4.3.1.
    let record = read.at;
    let covered = &file[record + 4..4267];
    assert_eq!(read.number(4) as u32, crc(base ^ (record as u32 / 8), covered));
    assert_eq!((read.number(1), read.number(1), read.number(2)), (1, 128, 5), "kind, flags, key");
    assert_eq!((read.number(8), read.number(6)), (2, 1_767_225_600_001), "seqno, written_ms");
    assert_eq!((read.number(2), read.number(4)), (0, 1), "metadata, namespace");
    assert_eq!((read.number(4), read.number(4) as u32), (2, crc(0, b"hi")), "value");
    assert_eq!((read.number(4) as u32, read.number(4)), (chain, 1), "chain and watermark");
    assert_eq!(read.number(2) as u16 as i16, -1, "clock");
    assert_eq!((read.take(5), read.take(2)), (&b"again"[..], &b"hi"[..]));
    read.zeros(3);
    assert_eq!(read.at, file.len(), "every byte of the dump is explained");
}

/// An entry of the manifest, as §6.2 has it.
fn entry(at: usize, base: u32, kind: u8, body: &[u8]) -> Vec<u8> {
    let mut entry = vec![0, 0, 0, 0, kind, 0, 0, 0];
    entry.extend_from_slice(&(body.len() as u32).to_le_bytes());
    entry.extend_from_slice(&[0; 4]);
    entry.extend_from_slice(body);
    let checksum = crc(base ^ (at as u32 / 8), &entry[4..]);
    entry[..4].copy_from_slice(&checksum.to_le_bytes());
    entry.resize(entry.len().next_multiple_of(8), 0);
    entry
}

/// A manifest written from the specification: an open log, an open blob, one session that did not close.
fn manifest(store: &[u8; 16]) -> Vec<u8> {
    let mut file = [&b"kvastMAN"[..], &[1, 0, 0, 0, 0, 0, 0, 0], store, &[0; 28]].concat();
    let checksum = crc(0, &file);
    file.extend_from_slice(&checksum.to_le_bytes());
    let base = crc(0, store);
    let (writing, log, blob) = ([1, 0, 0, 0, 0, 0, 0, 0], 1, 2);
    let opened = |id: u8, kind: u8| [id, 0, 0, 0, kind, 0, 0, 0];
    for (kind, body) in [(4, writing), (1, opened(1, log)), (1, opened(2, blob))] {
        let next = entry(file.len(), base, kind, &body);
        file.extend_from_slice(&next);
    }
    file
}

fn write_example_store(dir: &Path) {
    fs::write(dir.join("MANIFEST"), manifest(b"kvast example 01")).expect("write the manifest");
    fs::write(dir.join("0000000001.log"), example_file()).expect("write the log");
    fs::write(dir.join("0000000002.blob"), segment(2, 2)).expect("write the blob");
}

/// The header's page of a segment, as §3 has it.
fn segment(id: u8, kind: u8) -> Vec<u8> {
    let mut page = example_file()[..4096].to_vec();
    (page[10], page[12]) = (kind, id);
    let checksum = crc(0, &page[..60]);
    page[60..64].copy_from_slice(&checksum.to_le_bytes());
    page
}

/// A blob with one extent, as §4.5 has it, and the checksum of its block table.
fn blob(value: &[u8]) -> (Vec<u8>, u32) {
    let table: Vec<u8> =
        value.chunks(65_536).flat_map(|block| crc(0, block).to_le_bytes()).collect();
    let mut file = segment(2, 2);
    // Dead bytes in front of it.
    file.resize(3 * 4096, 0xab);
    file.extend_from_slice(value);
    file.resize(file.len().next_multiple_of(4), 0);
    file.extend_from_slice(&table);
    file.resize(file.len().next_multiple_of(4096), 0);
    (file, crc(0, &table))
}

/// A log with one group, a reference to the extent at page 3 of blob 2, as §4.1 and §4.3 have them.
fn log_with_reference(store: &[u8; 16], value_len: u32, value_crc: u32) -> Vec<u8> {
    let base = crc(crc(0, store), &1u32.to_le_bytes());
    let mut record = vec![0, 0, 0, 0, 1, 0b110, 5, 0];
    record.extend_from_slice(&1u64.to_le_bytes());
    record.extend_from_slice(&1_767_225_600_000u64.to_le_bytes()[..6]);
    record.extend_from_slice(&[2, 0, 1, 0, 0, 0]);
    record.extend_from_slice(&value_len.to_le_bytes());
    record.extend_from_slice(&value_crc.to_le_bytes());
    record.extend_from_slice(b"large{}");
    record.extend_from_slice(&[2, 0, 0, 0, 3, 0, 0, 0]);
    let header_crc = crc(base ^ (4096 / 8), &record[4..]).to_le_bytes();
    record[..4].copy_from_slice(&header_crc);
    record.resize(record.len().next_multiple_of(8), 0);
    let mut commit = vec![0, 0, 0, 0, 5, 0, 0, 0];
    commit.extend_from_slice(&1u64.to_le_bytes());
    commit.extend_from_slice(&0u64.to_le_bytes());
    commit.extend_from_slice(&1_767_225_600_000u64.to_le_bytes());
    commit.extend_from_slice(&1u32.to_le_bytes());
    commit.extend_from_slice(&(record.len() as u32).to_le_bytes());
    commit.extend_from_slice(&crc(base, &header_crc).to_le_bytes());
    commit.extend_from_slice(&1u32.to_le_bytes());
    let at = 4096 + record.len() as u32;
    let commit_crc = crc(base ^ (at / 8), &commit[4..]);
    commit[..4].copy_from_slice(&commit_crc.to_le_bytes());
    [segment(1, 1), record, commit].concat()
}

#[test]
fn the_engine_reads_a_large_value_that_was_written_from_the_specification() {
    let dir = tempfile::tempdir().expect("make a directory");
    let value: Vec<u8> = (0..300_001u32).map(|at| (at % 239) as u8).collect();
    let (blob, table_crc) = blob(&value);
    let log = log_with_reference(b"kvast example 01", value.len() as u32, table_crc);
    write_example_store(dir.path());
    fs::write(dir.path().join("0000000001.log"), log).expect("write the log");
    fs::write(dir.path().join("0000000002.blob"), blob).expect("write the blob");
    let options = Options::new().durability(Durability::Os).background(false);
    let db = options.clock(ManualClock::new(1_767_225_600_000)).open(dir.path()).expect("open");
    assert_eq!((db.recovery().keys, db.recovery().torn_bytes), (1, 0));
    let first = db.create_namespace("first").expect("create a namespace");
    let found = first.get("large").expect("read").expect("the key is there");
    assert!(*found == *value && found.metadata() == Some(&b"{}"[..]));
    let report = db.verify(|_| {}).expect("verify");
    assert!(report.is_sound(), "{report}");
}

#[test]
fn the_engine_opens_a_store_that_was_written_from_the_specification() {
    let dir = tempfile::tempdir().expect("make a directory");
    write_example_store(dir.path());
    let options = Options::new().durability(Durability::Os).background(false);
    let db = options.clock(ManualClock::new(1_767_225_600_000)).open(dir.path()).expect("open");
    assert_eq!((db.recovery().keys, db.recovery().torn_bytes), (2, 0));
    assert!(db.recovery().repairs.is_empty(), "{}", db.recovery());
    // Namespaces are numbered from 1, and nobody has used number 1 in this store.
    let first = db.create_namespace("first").expect("create a namespace");
    let value = first.get("greeting").expect("read").expect("the example's key is there");
    assert_eq!(&*value, b"hello");
    assert_eq!(value.metadata(), Some(&br#"{"lang":"en"}"#[..]));
    assert_eq!((value.expires_at(), value.version()), (Some(4_102_444_800_000), 1));
    let again = first.get("again").expect("read").expect("the second key is there");
    assert_eq!((&*again, again.version()), (&b"hi"[..], 2));
    db.close().expect("close");
}

#[test]
fn the_engine_hides_the_examples_record_once_it_has_expired() {
    let dir = tempfile::tempdir().expect("make a directory");
    write_example_store(dir.path());
    let options = Options::new().durability(Durability::Os).background(false);
    let db = options.clock(ManualClock::new(4_102_444_800_000)).open(dir.path()).expect("open");
    let first = db.create_namespace("first").expect("create a namespace");
    assert!(first.get("greeting").expect("read").is_none());
}
