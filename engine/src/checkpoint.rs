//! A copy of the whole store as of one moment, made while it is written to.
//!
//! Sealed segments are immutable, so the copy shares their files by hard link; across file systems
//! they are copied. Logs are copied up to where they were whole, and so are blobs that are still written
//! to, which have their final length in the copy. The manifest of the copy is written
//! last and says that the store was closed, so a copy that was cut short is no store, and damage in a
//! whole one is noticed. What always holds: everything acknowledged before the call is in the copy,
//! and of a commit all or nothing.

use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use crate::commit::{Committer, Site};
use crate::disk;
use crate::error::Error;
use crate::format::manifest::{Closed, Entry, Sealed};
use crate::format::segment_header::SegmentKind;
use crate::segment::blob::Blob;
use crate::segment::{Segment, file_name};
use crate::stage::Stage;
use crate::witness::ManifestFile;

/// Logs are copied in pieces of this length.
const PIECE_BYTES: usize = 1 << 20;

/// Copies the store to `target`, an absent or empty directory. The caller keeps compaction away.
pub(crate) fn write(committer: &Committer, stage: &Stage, target: &Path) -> Result<(), Error> {
    let site = committer.site();
    let fail = |error| Error::io("write the checkpoint", target, error);
    site.disk.create_dir_all(target).map_err(fail)?;
    if fs::read_dir(target).map_err(fail)?.next().is_some() {
        return Err(fail(io::Error::from(io::ErrorKind::DirectoryNotEmpty)));
    }
    let moment = committer.moment()?;
    let witness = committer.manifest().witness().clone();
    for sealed in witness.sealed.values() {
        share(site, target, &file_name(sealed.segment, sealed.kind)).map_err(fail)?;
    }
    let logs = moment.logs.iter();
    for (segment, end) in logs.clone() {
        copy(site, target, segment, *end).map_err(fail)?;
    }
    // Whatever a record of that moment refers to lies in there.
    let mut blobs = Vec::new();
    for blob in stage.open_blobs() {
        blobs.push(Entry::Sealed(copy_blob(site, target, &blob).map_err(fail)?));
    }
    site.disk.sync_dir(target).map_err(fail)?;
    let sealed = witness.sealed.values().map(|sealed| Entry::Sealed(*sealed));
    let (segment, end) =
        logs.clone().last().map_or_else(Default::default, |(segment, end)| (segment.id(), *end));
    let (last_seqno, clock_ms) = (moment.last_seqno, moment.clock_ms);
    let closed = Closed { last_seqno, segment, end, clock_ms, footer_crc: 0 };
    let counters = Entry::Counters {
        next_segment: witness.next_segment,
        epoch: witness.epoch,
        last_seqno: witness.last_seqno,
        clock_ms: witness.clock_ms,
    };
    let entries = std::iter::once(counters)
        .chain(sealed)
        .chain(blobs)
        .chain(logs.map(|(segment, _)| Entry::Opened(segment.id(), SegmentKind::Log)))
        .chain(std::iter::once(Entry::Closed(closed)));
    ManifestFile::create_with(&site.disk, target, site.store, entries).map(drop)?;
    site.disk.sync_dir(&disk::parent_of(target)).map_err(fail)
}

/// Gives the copy the same file.
fn share(site: &Site, target: &Path, name: &str) -> io::Result<()> {
    let (from, to) = (site.dir.join(name), target.join(name));
    if fs::hard_link(&from, &to).is_ok() {
        return Ok(());
    }
    let bytes = fs::read(&from)?;
    let file = site.disk.create(&to)?;
    file.write_at(&bytes, 0)?;
    file.sync()
}

/// Copies a blob up to the end of the extents that any record refers to. It is written to meanwhile, so
/// it is not read through its map.
fn copy_blob(site: &Site, target: &Path, blob: &Blob) -> io::Result<Sealed> {
    let body = &blob.segment.body;
    let end = body.map.published() as u64;
    let file = site.disk.create(&target.join(body.file_name()))?;
    let mut piece = vec![0; PIECE_BYTES];
    let mut at = 0;
    loop {
        let len = PIECE_BYTES.min((end - at) as usize);
        let len = blob.file.as_file().read_at(&mut piece[..len], at)?;
        if len == 0 {
            break;
        }
        // What was set aside and not used takes no space in the copy either.
        if piece[..len].iter().any(|byte| *byte != 0) {
            file.write_at(&piece[..len], at)?;
        }
        at += len as u64;
    }
    file.set_len(end)?;
    file.sync()?;
    let (segment, kind, footer_crc, last_seqno, clock_ms) = (body.id, body.kind, 0, 0, 0);
    let (file_len, records_end) = (end, end);
    Ok(Sealed { segment, kind, file_len, records_end, footer_crc, last_seqno, clock_ms })
}

/// Copies a log up to `end`.
fn copy(site: &Site, target: &Path, log: &Arc<Segment>, end: u64) -> io::Result<()> {
    let file = site.disk.create(&target.join(log.body.file_name()))?;
    let mut at = 0;
    for piece in log.body.map.bytes()[..end as usize].chunks(PIECE_BYTES) {
        file.write_at(piece, at)?;
        at += piece.len() as u64;
    }
    file.sync()
}
