//! Reads everything and changes nothing: every header, record, value, commit and footer entry; of the
//! values in blobs those that a key has.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use crate::error::{Corruption, Damage, Error};
use crate::format::footer::Entry;
use crate::format::record;
use crate::format::segment_header::{self, SegmentHeader};
use crate::index::IndexCheck;
use crate::key;
use crate::keyspace::Keyspace;
use crate::segment::Segment;
use crate::segment::scan::{self, Values};
use crate::segment::sealed::Footer;

/// How far a verification is.
///
/// ```
/// # fn main() -> Result<(), kvast::Error> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let db = kvast::Db::open(dir.path())?;
/// db.verify(|progress| eprintln!("{} of {}", progress.segments_done, progress.segments))?;
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct VerifyProgress {
    /// Segments that were read.
    pub segments_done: usize,
    /// Segments there are.
    pub segments: usize,
    /// Bytes of records that were read.
    pub bytes_done: u64,
}

/// What a verification found.
///
/// ```
/// # fn main() -> Result<(), kvast::Error> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let db = kvast::Db::open(dir.path())?;
/// let report = db.verify(|_| {})?;
/// assert!(report.is_sound(), "{report}");
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct VerifyReport {
    /// Segments that were read.
    pub segments: usize,
    /// Sound records that were read, dead ones included.
    pub records: u64,
    /// Bytes of records that were read.
    pub bytes: u64,
    /// Keys in the index.
    pub keys: u64,
    /// Every damaged place; empty if all is sound.
    pub damaged: Vec<Corruption>,
}

impl fmt::Display for VerifyReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} keys, {} records, {} bytes in {} segments: ",
            self.keys, self.records, self.bytes, self.segments
        )?;
        if self.is_sound() {
            return f.write_str("all sound");
        }
        write!(f, "{} damaged places", self.damaged.len())?;
        self.damaged.iter().try_for_each(|corruption| {
            write!(f, "\n{} byte {}: {}", corruption.file, corruption.offset, corruption.damage)
        })
    }
}

impl VerifyReport {
    /// Whether nothing is damaged.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.damaged.is_empty()
    }
}

pub(crate) fn verify(
    keyspace: &Keyspace,
    mut progress: impl FnMut(VerifyProgress),
) -> Result<VerifyReport, Error> {
    let segments = keyspace.catalog.segments();
    let mut report = VerifyReport { segments: segments.len(), ..VerifyReport::default() };
    for (nth, segment) in segments.iter().enumerate() {
        verify_segment(keyspace, segment, &mut report);
        progress(VerifyProgress {
            segments_done: nth + 1,
            segments: segments.len(),
            bytes_done: report.bytes,
        });
    }
    verify_index(keyspace, &mut report);
    Ok(report)
}

fn verify_segment(keyspace: &Keyspace, segment: &Arc<Segment>, report: &mut VerifyReport) {
    let body = &segment.body;
    let header = body.map.window(0..segment_header::LEN).unwrap_or_default();
    if SegmentHeader::decode(header).is_err() {
        let damage = Damage::NotAsWitnessed { what: "header" };
        report.damaged.push(body.corruption(0, damage));
    }
    report.bytes += segment.record_bytes();
    if segment.is_blob() {
        return verify_blob(keyspace, segment, report);
    }
    match segment.footer() {
        Some(footer) => verify_sealed(segment, footer, report),
        None => {
            let scan = scan::scan_log(body, Values::Verify);
            report.records += scan.records.iter().map(|piece| piece.len() as u64).sum::<u64>();
            report.damaged.extend(scan.stop.map(|(at, damage)| body.corruption(at, damage)));
        }
    }
}

/// Reads each value that a key has.
fn verify_blob(keyspace: &Keyspace, blob: &Segment, report: &mut VerifyReport) {
    for (extent, held) in blob.extents.live() {
        let pinned = keyspace.index.pin();
        let found = keyspace.find_any(&keyspace.sought_composite(&held.composite), &pinned);
        // What cannot be read is found damaged where it is; what was replaced meanwhile is not here.
        let Ok(Some(found)) = found else { continue };
        let header = found.record.header;
        drop(pinned);
        if header.extent != Some(extent) {
            continue;
        }
        let verified = blob.body.verified_content(extent.offset(), &header);
        report.damaged.extend(verified.err());
    }
}

/// Reads each record in the order of the file, so that one damaged place does not hide the next,
/// and holds it against its footer entry.
fn verify_sealed(segment: &Segment, footer: &Footer, report: &mut VerifyReport) {
    let body = &segment.body;
    let (mut listed, mut entries) = (HashMap::new(), footer.entries());
    loop {
        match entries.next() {
            Ok(Some(entry)) => {
                let (namespace, key) = key::split(entries.key());
                listed.insert(entry.offset, (entry, namespace, crate::format::crc32(key)));
            }
            Ok(None) => break,
            Err(corruption) => {
                report.damaged.push(corruption);
                return;
            }
        }
    }
    let mut offsets: Vec<u64> = listed.keys().copied().collect();
    offsets.sort_unstable();
    for offset in offsets {
        let checked = body.record(offset).and_then(|record| {
            record.verify_value().map_err(|damage| body.corruption(offset, damage))?;
            let as_listed = (
                Entry::of(&record.header, offset),
                record.header.namespace,
                crate::format::crc32(record.key),
            );
            if listed.get(&offset) != Some(&as_listed) {
                let damage = Damage::NotAsWitnessed { what: "footer entry" };
                return Err(body.corruption(offset, damage));
            }
            Ok(())
        });
        match checked {
            Ok(()) => report.records += 1,
            Err(corruption) => report.damaged.push(corruption),
        }
    }
    verify_between(segment, footer, report);
}

/// Reads what stands between the records of a log: its commits.
fn verify_between(segment: &Segment, footer: &Footer, report: &mut VerifyReport) {
    let walked = scan::scan_sealed(&segment.body, footer.trailer.footer_offset);
    if let Err((offset, damage)) = walked {
        let corruption = segment.body.corruption(offset, damage);
        if !report.damaged.contains(&corruption) {
            report.damaged.push(corruption);
        }
    }
}

fn check_index(keyspace: &Keyspace) -> IndexCheck {
    keyspace.index.check(|address, composite| {
        let (namespace, key) = key::split(composite);
        let pinned = keyspace.index.pin();
        keyspace.segment(address, &pinned).is_some_and(|segment| {
            let bytes = segment.body.bytes_from(address.offset());
            record::has_key(bytes, namespace, key)
        })
    })
}

fn verify_index(keyspace: &Keyspace, report: &mut VerifyReport) {
    let mut check = check_index(keyspace);
    if !check.is_sound() {
        // Writes during the check look like that too; so once more, while they wait.
        let _writers_wait = keyspace.writer();
        check = check_index(keyspace);
    }
    report.keys = check.keys_in_tree;
    if !check.is_sound() && report.damaged.is_empty() {
        let damage = Damage::NotAsWitnessed { what: "index" };
        let file = "index (in memory)".to_owned();
        report.damaged.push(Corruption { file, offset: check.not_in_hash, damage });
    }
}
