//! From a directory to a store that is ready: `format-spec.md` §8.
//!
//! ```text
//!   manifest ──> which segments there must be
//!   sealed   ──> their footers          ─┐
//!   closed   ──> a footer, if it has one ┼──> merged in key order, range by range ──> index
//!   unsealed ──> scanned group by group ─┘
//!   blobs    ──> opened, and not read   ─────────────── extents ──────────┘
//! ```
//!
//! What always holds: nothing is written here, so a full disk can be opened; records are ordered by
//! seqno, never by file; damage is either proved to have hit what was promised, and then refused
//! with its place, or nothing from there on was promised, and then it is cut and reported. A record that
//! refers to a large value counts like one that has it: unless a watermark or the end of its blob vouches
//! for the value, that is read, which is at most what was in the blobs that were being written.

use std::collections::{BTreeMap, BTreeSet, btree_map};
use std::fmt;
use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::address::{SegmentId, Slot};
use crate::clock::Timekeeper;
use crate::commit::{FullLog, Leftovers, Start, Unproven};
use crate::disk::{DirLock, Disk, LockRefusal};
use crate::error::{Corruption, Damage, Error};
use crate::format::StoreId;
use crate::format::footer::Entry;
use crate::format::manifest::{Closed, Decoded, Sealed, Witness};
use crate::format::record::{BLOCK_LEN, ContentSum, EXTENT_ALIGN, Extent, Header, table_of};
use crate::format::segment_header::{RECORDS_START, Refusal, SegmentHeader, SegmentKind};
use crate::index;
use crate::keyspace::Keyspace;
use crate::mmap::Map;
use crate::options::Options;
use crate::registry::random_128;
use crate::segment::active::Log;
use crate::segment::bins::{Binned, Cuts, Piece};
use crate::segment::blob::Blob;
use crate::segment::scan::{self, Found, LogScan, Values};
use crate::segment::sealed::Footer;
use crate::segment::{Body, Segment, file_name};
use crate::witness::{self, ManifestFile};
use crate::workers;

mod load;

use load::{Input, List};

const LOCK_FILE_NAME: &str = "LOCK";

/// What opening a store found and did.
///
/// ```
/// # fn main() -> Result<(), kvast::Error> {
/// # let dir = tempfile::tempdir().unwrap();
/// let db = kvast::Db::open(dir.path())?;
/// let report = db.recovery();
/// assert!(report.created && report.torn_bytes == 0 && report.repairs.is_empty());
/// println!("{report}");
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct RecoveryReport {
    /// The store was created by this opening.
    pub created: bool,
    /// The session before closed the store.
    pub clean: bool,
    /// Keys in the index, expired ones that still take space included.
    pub keys: u64,
    /// Segments that were opened by their footer.
    pub sealed_segments: usize,
    /// Logs that were read record by record.
    pub scanned_logs: usize,
    /// How long it took.
    pub took: Duration,
    /// Bytes at the end of the log that no sync had promised, and that were cut off.
    pub torn_bytes: u64,
    /// What was mended or cleared away, in sentences.
    pub repairs: Vec<String>,
}

impl fmt::Display for RecoveryReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.created {
            return f.write_str("created a new store");
        }
        write!(
            f,
            "opened {} keys in {:.1} ms ({} sealed segments, {} logs read{})",
            self.keys,
            self.took.as_secs_f64() * 1000.0,
            self.sealed_segments,
            self.scanned_logs,
            if self.clean { "" } else { "; the last session was not closed" },
        )?;
        self.repairs.iter().try_for_each(|repair| write!(f, "\n{repair}"))
    }
}

/// A store that was recovered.
pub(crate) struct Recovered {
    pub(crate) lock: Option<DirLock>,
    pub(crate) keyspace: Arc<Keyspace>,
    pub(crate) manifest: ManifestFile,
    pub(crate) store: StoreId,
    pub(crate) start: Start,
    /// Blobs that have no final length, in the order of their ids.
    pub(crate) blobs: Vec<Arc<Blob>>,
    pub(crate) report: RecoveryReport,
}

/// How often in a row a read-only opening has to fail for the same reason before that is believed.
/// While another process writes the store, each look meets other files.
const SAME_REASON: usize = 3;
/// It looks no more often than this.
const LOOKS: usize = 1000;

pub(crate) fn open(options: &Options, dir: &Path) -> Result<Recovered, Error> {
    let (mut reason, mut same) = (String::new(), 0);
    for _ in 1..LOOKS {
        match open_once(options, dir) {
            Err(error) if options.read_only && may_be_a_race(&error) => {
                let text = error.to_string();
                same = if text == reason { same + 1 } else { 1 };
                if same == SAME_REASON {
                    return Err(error);
                }
                reason = text;
            }
            opened => return opened,
        }
    }
    open_once(options, dir)
}

/// Whether an error can come from a file that was sealed, compacted or removed meanwhile.
fn may_be_a_race(error: &Error) -> bool {
    match error {
        Error::Corrupt(_) => true,
        Error::Io { source, .. } => source.kind() == io::ErrorKind::NotFound,
        _ => false,
    }
}

fn open_once(options: &Options, dir: &Path) -> Result<Recovered, Error> {
    let begin = Instant::now();
    let lock = if options.read_only { None } else { Some(lock(&options.disk, dir)?) };
    let mut report = RecoveryReport::default();
    let (manifest, decoded_torn) = manifest(options, dir, &mut report)?;
    if decoded_torn > 0 {
        report
            .repairs
            .push(format!("ignored {decoded_torn} bytes of an unfinished manifest entry"));
    }
    let mut recovery = Recovery {
        options,
        dir,
        store: *manifest.store(),
        witness: manifest.witness().clone(),
        report,
        leftovers: Leftovers::default(),
        unlisted_blobs: Vec::new(),
        blobs: Vec::new(),
        unproven_extents: Vec::new(),
        proven_seqno: manifest
            .witness()
            .closed
            .map_or(0, |closed| closed.last_seqno)
            .max(manifest.witness().last_seqno),
    };
    let (keyspace, start) = recovery.run()?;
    let Recovery { store, blobs, mut report, .. } = recovery;
    report.took = begin.elapsed();
    Ok(Recovered { lock, keyspace, manifest, store, start, blobs, report })
}

fn lock(disk: &Disk, dir: &Path) -> Result<DirLock, Error> {
    disk.create_dir_all(dir)
        .map_err(|error| Error::io("create the store's directory", dir, error))?;
    let path = dir.join(LOCK_FILE_NAME);
    DirLock::take(&path).map_err(|refusal| match refusal {
        LockRefusal::Held(pid) => Error::Locked { path: dir.to_owned(), pid },
        LockRefusal::Io(error) => Error::io("lock the store", &path, error),
    })
}

/// Reads the manifest, or makes that of a new store. The creation of a store that was cut short is
/// begun anew, since nothing can have been acknowledged before there is a manifest.
fn manifest(
    options: &Options,
    dir: &Path,
    report: &mut RecoveryReport,
) -> Result<(ManifestFile, u64), Error> {
    if let Some(decoded) = witness::read(dir)? {
        let Decoded { torn, .. } = decoded;
        return Ok((ManifestFile::resume(&options.disk, dir, decoded, options.read_only)?, torn));
    }
    if options.read_only && !dir.is_dir() {
        let error = io::Error::from(io::ErrorKind::NotFound);
        return Err(Error::io("open the store", dir, error));
    }
    if !segment_files(dir)?.is_empty() || options.read_only {
        let file = witness::FILE_NAME.to_owned();
        return Err(Corruption { file, offset: 0, damage: Damage::Missing }.into());
    }
    report.created = true;
    sync_names_above(&options.disk, dir)?;
    let store = random_128().to_le_bytes();
    Ok((ManifestFile::create(&options.disk, dir, store)?, 0))
}

/// Makes the name of `dir` durable, and those of the directories above it: any of them may be left
/// over from a creation that was cut before that. Directories that may not be read were not made here.
fn sync_names_above(disk: &Disk, dir: &Path) -> Result<(), Error> {
    let fail = |path: &Path, error| Error::io("sync a directory above the store", path, error);
    let whole = std::path::absolute(dir).map_err(|error| fail(dir, error))?;
    for above in whole.ancestors().skip(1) {
        match disk.sync_dir(above) {
            Err(error) if error.kind() != io::ErrorKind::PermissionDenied => {
                return Err(fail(above, error));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Files in `dir` that are named like segments.
fn segment_files(dir: &Path) -> Result<Vec<(SegmentId, SegmentKind)>, Error> {
    let fail = |error| Error::io("list the store's directory", dir, error);
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).map_err(fail)? {
        let name = entry.map_err(fail)?.file_name();
        files.extend(name.to_str().and_then(parse_name));
    }
    files.sort_by_key(|(id, _)| *id);
    Ok(files)
}

fn parse_name(name: &str) -> Option<(SegmentId, SegmentKind)> {
    let (number, extension) = name.split_once('.')?;
    let kind = SegmentKind::ALL.into_iter().find(|kind| kind.extension() == extension)?;
    let id = SegmentId(number.parse().ok()?);
    (number.len() == 10).then_some((id, kind))
}

struct Recovery<'a> {
    options: &'a Options,
    dir: &'a Path,
    store: StoreId,
    witness: Witness,
    report: RecoveryReport,
    leftovers: Leftovers,
    /// Blobs that the manifest does not name, and did not retire.
    unlisted_blobs: Vec<SegmentId>,
    /// Blobs that are written on, or wait to be sealed.
    blobs: Vec<Arc<Blob>>,
    /// What records refer to there that nothing vouches for.
    unproven_extents: Vec<(SegmentId, Range<u64>)>,
    /// Everything up to this seqno is on disk, as far as the manifest knows.
    proven_seqno: u64,
}

/// A sealed segment, with its records in the order of a footer if the footer had to be read past.
struct SealedSource {
    segment: Arc<Segment>,
    rebuilt: Vec<Found>,
}

/// A log before it was read.
struct OpenLog {
    id: SegmentId,
    body: Body,
    footer: Option<(Footer, Closed)>,
}

/// A log that was scanned, before it is decided how much of it counts.
struct Scanned {
    id: SegmentId,
    /// May show more than what is final.
    body: Body,
    scan: LogScan,
    binned: Binned,
    /// Lists the records in the place of `binned`.
    footer: Option<Footer>,
    /// Where the first record starts that is not known to be durable.
    unproven_from: u64,
}

/// A log that is damaged in its first group, so that its place in the order is not known: what is
/// missing before another log is most likely in there.
fn unreadable(logs: &[Scanned]) -> Option<(&Scanned, u64, Damage)> {
    logs.iter().filter(|log| log.scan.commits == 0).find_map(|log| {
        let (at, damage) = log.scan.stop.clone()?;
        Some((log, at, damage))
    })
}

/// Whether a later log continues where this one is sound to: then what follows here was given up
/// already, by an earlier opening that cut it or a seal that was not finished.
fn goes_on(logs: &[Scanned], nth: usize) -> bool {
    let next = Some(logs[nth].scan.last_seqno + 1);
    logs[nth].scan.commits > 0 && logs[nth + 1..].iter().any(|log| log.scan.first_seqno == next)
}

/// The blobs there are, by their ids.
type OpenedBlobs = BTreeMap<SegmentId, OpenedBlob>;

struct OpenedBlob {
    segment: Arc<Segment>,
    is_sealed: bool,
    /// Extents end here at the latest.
    len: u64,
    /// What was ever written ends here.
    written: u64,
    /// The space that the file takes on disk.
    takes: u64,
}

/// A log, and how much of it counts.
struct LogSource {
    segment: Arc<Segment>,
    records: Binned,
    /// Lists the records in the place of `records`.
    footer: Option<Footer>,
    end: u64,
    chain: u32,
    /// Where the first record starts that is not known to be durable.
    unproven_from: u64,
}

impl Recovery<'_> {
    fn run(&mut self) -> Result<(Arc<Keyspace>, Start), Error> {
        self.find_leftovers()?;
        let (mut scanned, cuts) = self.scan_logs()?;
        self.check_large_values(&mut scanned, &cuts)?;
        let last_seqno = self.judge(&scanned)?;
        let clock_ms = self.clock_ms(&scanned);
        let (index, writer) = index::new(random_128() as u64);
        let time = Timekeeper::new(Arc::clone(&self.options.clock), clock_ms);
        let keyspace = Arc::new(Keyspace::new(index, writer, time));
        let sealed = self.open_sealed(&keyspace)?;
        let logs = self.keep_logs(scanned, &keyspace)?;
        let mut blobs = self.open_blobs(&keyspace)?;
        let inputs = inputs(&sealed, &logs, &cuts);
        load::fill(&keyspace, &inputs, |entry, key| self.hold(&keyspace, &mut blobs, entry, key))?;
        self.forget_unlisted_blobs();
        self.report.keys = keyspace.index.memory().keys;
        self.report.clean = self.witness.closed.is_some();
        self.blobs = self.resume(blobs)?;
        let start = self.start(logs, last_seqno)?;
        Ok((keyspace, start))
    }

    fn path_of(&self, log: SegmentId) -> PathBuf {
        self.dir.join(file_name(log, SegmentKind::Log))
    }

    /// Files that are no part of the store: retired, or of a compaction that was not finished.
    fn find_leftovers(&mut self) -> Result<(), Error> {
        for (id, kind) in segment_files(self.dir)? {
            let listed = self.witness.sealed.get(&id).is_some_and(|sealed| sealed.kind == kind)
                || (kind == SegmentKind::Log && self.witness.open_logs.contains(&id))
                || (kind == SegmentKind::Blob && self.witness.open_blobs.contains(&id));
            if listed {
                continue;
            }
            let path = self.dir.join(file_name(id, kind));
            let retired = self.witness.retired.contains(&id);
            if kind == SegmentKind::Blob && !retired {
                self.unlisted_blobs.push(id);
                continue;
            }
            if kind == SegmentKind::Log && !retired && self.has_commits(&path, id)? {
                // Only damage to the manifest's last entry can have made it forget such a log.
                self.report
                    .repairs
                    .push(format!("took in {}, which the manifest had lost", file_name(id, kind)));
                self.witness.open_logs.insert(id);
                self.witness.closed = None;
                self.adopt(id, kind);
                continue;
            }
            self.leftovers.files.push(path);
            self.leftovers.highest_id = self.leftovers.highest_id.max(id.0);
        }
        Ok(())
    }

    /// Has the first write put a segment into the manifest again, and no later one take its id.
    fn adopt(&mut self, id: SegmentId, kind: SegmentKind) {
        self.leftovers.adopted.push((id, kind));
        self.leftovers.highest_id = self.leftovers.highest_id.max(id.0);
    }

    fn has_commits(&self, path: &Path, id: SegmentId) -> Result<bool, Error> {
        let body = self.map_log(path, id, None)?;
        let header = SegmentHeader::decode(body.map.bytes());
        let ours = header.is_ok_and(|header| header.store == self.store && header.segment == id);
        Ok(ours && scan::scan_log(&body, Values::Trust).commits > 0)
    }

    /// Maps a log up to the last byte that was written to it, or up to `end` if that is given.
    fn map_log(&self, path: &Path, id: SegmentId, end: Option<u64>) -> Result<Body, Error> {
        let fail = |error| Error::io("open a log", path, error);
        let file = File::open(path).map_err(fail)?;
        let file_len = file.metadata().map_err(fail)?.len();
        let written = crate::mmap::written_len(&file, file_len);
        let len = end.map_or(written, |end| written.min(end));
        let map = if self.options.read_only {
            Map::copy_of(&file, len as usize)
        } else {
            let capacity = self.options.segment_bytes.max(written);
            Map::new(&file, capacity as usize, len as usize)
        };
        Ok(Body::new(id, SegmentKind::Log, &self.store, map.map_err(fail)?))
    }

    fn scan_logs(&mut self) -> Result<(Vec<Scanned>, Cuts), Error> {
        let mut logs = Vec::new();
        for id in self.witness.open_logs.clone() {
            let path = self.path_of(id);
            if !path.exists() {
                return Err(missing(id, SegmentKind::Log).into());
            }
            logs.push(self.open_log(id, &path)?);
        }
        let (mut logs, cuts) = self.read_logs(logs);
        // A log that was made ahead of need can be older than one that was used before it.
        logs.sort_by_key(|log| {
            (log.scan.first_seqno.unwrap_or(u64::MAX), log.scan.last_seqno, log.id)
        });
        self.report.scanned_logs = logs.iter().filter(|log| log.footer.is_none()).count();
        Ok((logs, cuts))
    }

    /// Opens a log, with the footer that a close left behind it, if it did.
    fn open_log(&mut self, id: SegmentId, path: &Path) -> Result<OpenLog, Error> {
        let has_footer = |closed: &Closed| closed.segment == id && closed.footer_crc != 0;
        let Some(closed) = self.witness.closed.filter(has_footer) else {
            return self.open_log_up_to(id, path, None);
        };
        let body = self.map_log(path, id, Some(RECORDS_START))?;
        self.check_header(&body, SegmentKind::Log)?;
        let corruption = match self.closed_footer(&body, path, &closed)? {
            Ok(footer) => return Ok(OpenLog { id, body, footer: Some((footer, closed)) }),
            Err(corruption) => corruption,
        };
        self.report.repairs.push(format!("read past a damaged footer: {corruption}"));
        self.open_log_up_to(id, path, Some(closed.end))
    }

    /// Opens a log that is to be read record by record, or the part of it before `end`.
    fn open_log_up_to(
        &self,
        id: SegmentId,
        path: &Path,
        end: Option<u64>,
    ) -> Result<OpenLog, Error> {
        let body = self.map_log(path, id, end)?;
        self.check_header(&body, SegmentKind::Log)?;
        Ok(OpenLog { id, body, footer: None })
    }

    /// Reads logs, each record by record if it has no footer. One thread walks a log; then all verify its
    /// values and put its records into bins, piece by piece.
    fn read_logs(&self, logs: Vec<OpenLog>) -> (Vec<Scanned>, Cuts) {
        let threads = workers::threads();
        let mut logs = workers::map(threads, logs, |OpenLog { id, body, footer }| {
            if let Some((footer, closed)) = footer {
                let (scan, unproven_from) = (scan_of_closed(&footer, &closed), closed.end);
                let (footer, binned) = (Some(footer), Binned::default());
                return Scanned { id, body, scan, footer, binned, unproven_from };
            }
            let scan = scan::scan_log(&body, Values::Trust);
            let unproven_from = self.unproven_from(&scan);
            let (footer, binned) = (None, Binned::default());
            Scanned { id, body, scan, footer, binned, unproven_from }
        });
        let cuts = Cuts::of(logs.iter().flat_map(|Scanned { scan, body, .. }| {
            scan.records.iter().map(move |records| (&records[..], body))
        }));
        let pieces = logs.iter().enumerate().flat_map(|(nth, Scanned { scan, body, .. })| {
            scan.records.iter().map(move |records| (nth, records, body))
        });
        let binned = workers::map(threads, pieces.collect(), |(nth, records, body)| {
            (nth, Piece::of(records, body, &cuts))
        });
        let mut damaged = BTreeSet::new();
        for (nth, piece) in binned {
            match piece {
                Some(piece) => logs[nth].binned.pieces.push(piece),
                None => drop(damaged.insert(nth)),
            }
        }
        for nth in damaged {
            let scan = scan::scan_log(&logs[nth].body, Values::Verify);
            self.end_sooner(&mut logs[nth], scan, &cuts);
        }
        (logs, cuts)
    }

    /// Takes what counts of a log that has a damaged value: it ends there, as if nobody had walked past.
    fn end_sooner(&self, log: &mut Scanned, scan: LogScan, cuts: &Cuts) {
        log.scan = scan;
        log.unproven_from = self.unproven_from(&log.scan);
        let pieces = log.scan.records.iter();
        log.binned.pieces =
            pieces.filter_map(|records| Piece::of(records, &log.body, cuts)).collect();
    }

    /// Where the first record of a log starts that is not known to be durable. Its records are in commit
    /// order.
    fn unproven_from(&self, scan: &LogScan) -> u64 {
        scan.start_after(self.proven_seqno.max(scan.durable_seqno))
    }

    /// The footer that the manifest knows to be behind a log which was closed, or what is wrong with it.
    fn closed_footer(
        &self,
        body: &Body,
        path: &Path,
        closed: &Closed,
    ) -> Result<Result<Footer, Corruption>, Error> {
        let map = self.map_log(path, body.id, None)?.map;
        Ok(Footer::open(body, Arc::new(map)).and_then(|footer| {
            let trailer = &footer.trailer;
            let count = trailer.max_seqno.wrapping_sub(trailer.min_seqno).wrapping_add(1);
            let is_as_witnessed = trailer.footer_crc == closed.footer_crc
                && trailer.footer_offset == closed.end
                && trailer.max_seqno == closed.last_seqno
                && trailer.record_count == count;
            if is_as_witnessed {
                return Ok(footer);
            }
            let damage = Damage::NotAsWitnessed { what: "footer" };
            Err(body.corruption(trailer.footer_offset, damage))
        }))
    }

    /// Ends each log before the first group with a reference to a value that did not reach the disk. Asks
    /// only where nothing says that it did.
    fn check_large_values(&mut self, logs: &mut [Scanned], cuts: &Cuts) -> Result<(), Error> {
        let watermarks = logs.iter().map(|log| log.scan.durable_seqno);
        let vouched = watermarks.fold(self.proven_seqno, u64::max);
        let mut files = BTreeMap::new();
        for log in logs {
            if let Some(unsound) = self.first_unsound(log, vouched, &mut files)? {
                let scan = scan::scan_log_until(&log.body, unsound);
                self.end_sooner(log, scan, cuts);
            }
            // Dead ones too: until a watermark vouches for their records, those are read again.
            for found in log.binned.references() {
                let header = found.record(&log.body)?.header;
                if let Some(extent) = header.extent
                    && header.seqno > vouched
                    && matches!(files.get(&extent.segment()), Some(Some(_)))
                {
                    let end = extent.offset() + content_len(header.value_len);
                    self.unproven_extents.push((extent.segment(), extent.offset()..end));
                }
            }
        }
        Ok(())
    }

    /// The first record of a log whose value should be in a blob and is not.
    fn first_unsound(
        &self,
        log: &Scanned,
        vouched: u64,
        files: &mut BTreeMap<SegmentId, Option<File>>,
    ) -> Result<Option<(u64, Damage)>, Error> {
        for found in log.binned.references() {
            let (offset, header) = (found.offset(), found.record(&log.body)?.header);
            let Some(extent) = header.extent.filter(|_| header.seqno > vouched) else { continue };
            let Some(file) = self.unsealed_blob(files, extent.segment())? else { continue };
            let path = self.dir.join(file_name(extent.segment(), SegmentKind::Blob));
            let fail = |error| Error::io("read a large value", &path, error);
            if let Err(damage) = check_extent(file, &header, extent).map_err(fail)? {
                return Ok(Some((offset, damage)));
            }
        }
        Ok(None)
    }

    /// The file of a blob that has no final length; `None` if there is none. What is in others was synced
    /// when they were sealed.
    fn unsealed_blob<'f>(
        &self,
        files: &'f mut BTreeMap<SegmentId, Option<File>>,
        id: SegmentId,
    ) -> Result<Option<&'f File>, Error> {
        if !self.witness.open_blobs.contains(&id) && !self.unlisted_blobs.contains(&id) {
            return Ok(None);
        }
        if let btree_map::Entry::Vacant(unknown) = files.entry(id) {
            let path = self.dir.join(file_name(id, SegmentKind::Blob));
            let file = match File::open(&path) {
                // Whether that is an error depends on whether anything there counts.
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                opened => Some(opened.map_err(|error| Error::io("open a blob", &path, error))?),
            };
            unknown.insert(file);
        }
        Ok(files.get(&id).and_then(Option::as_ref))
    }

    fn check_header(&self, body: &Body, kind: SegmentKind) -> Result<SegmentHeader, Error> {
        let bytes = body.map.bytes();
        let header = SegmentHeader::decode(bytes).map_err(|refusal| match refusal {
            Refusal::Damaged(damage) => Error::from(body.corruption(0, damage)),
            Refusal::Unknown(detail) => Error::UnknownFormat { file: body.file_name(), detail },
        })?;
        if header.store != self.store || header.segment != body.id || header.kind != kind {
            let damage = Damage::NotAsWitnessed { what: "header" };
            return Err(body.corruption(0, damage).into());
        }
        if !self.options.read_only && !SegmentHeader::allows_writing(bytes) {
            let detail = "it has features that only allow reading here".to_owned();
            return Err(Error::UnknownFormat { file: body.file_name(), detail });
        }
        Ok(header)
    }

    /// Decides whether what stopped the scans is a torn tail or rot. Returns the last seqno that
    /// counts.
    fn judge(&mut self, logs: &[Scanned]) -> Result<u64, Error> {
        let mut last = self.witness.last_seqno;
        let mut broken: Option<(&Scanned, u64, Damage)> = None;
        let mut promised = self.witness.closed.map_or(0, |closed| closed.last_seqno);
        for (nth, log) in logs.iter().enumerate() {
            if broken.is_some() {
                promised = promised.max(scan::watermark_after(&log.body, RECORDS_START));
                continue;
            }
            if let Some(first) = log.scan.first_seqno {
                if first != last + 1 {
                    promised = promised.max(scan::watermark_after(&log.body, RECORDS_START));
                    broken = Some(unreadable(logs).unwrap_or_else(|| {
                        (log, RECORDS_START, Damage::Gap { expected: last + 1, found: first })
                    }));
                    continue;
                }
                last = log.scan.last_seqno;
            }
            if let Some((at, damage)) = &log.scan.stop
                && !goes_on(logs, nth)
            {
                promised = promised.max(scan::watermark_after(&log.body, log.scan.end));
                broken = Some((log, *at, damage.clone()));
            }
        }
        if promised > last && (broken.is_some() || self.witness.closed.is_some()) {
            return Err(self.lost(logs, broken, last, promised).into());
        }
        Ok(last)
    }

    fn lost(
        &self,
        logs: &[Scanned],
        broken: Option<(&Scanned, u64, Damage)>,
        last: u64,
        promised: u64,
    ) -> Corruption {
        let lost = Damage::LostRecords { first: last + 1, last: promised };
        match (broken, self.witness.closed) {
            (Some((log, at, _)), _) => log.body.corruption(at, lost),
            (None, Some(Closed { segment, .. })) => {
                let log = logs.iter().rev().find(|log| log.id == segment);
                let offset = log.map_or(0, |log| log.scan.end);
                Corruption { file: file_name(segment, SegmentKind::Log), offset, damage: lost }
            }
            (None, None) => unreachable!("only damage or a close can prove a loss"),
        }
    }

    fn clock_ms(&self, logs: &[Scanned]) -> u64 {
        let logs = logs.iter().map(|log| log.scan.clock_ms).max().unwrap_or(0);
        logs.max(self.witness.clock_ms).max(self.witness.closed.map_or(0, |closed| closed.clock_ms))
    }

    fn open_sealed(&mut self, keyspace: &Keyspace) -> Result<Vec<SealedSource>, Error> {
        let mut sources = Vec::new();
        let sealed = self.witness.sealed.clone().into_values();
        for sealed in sealed.filter(|sealed| sealed.kind != SegmentKind::Blob) {
            sources.push(self.open_one_sealed(keyspace, &sealed)?);
        }
        self.report.sealed_segments = sources.len();
        Ok(sources)
    }

    fn open_one_sealed(
        &mut self,
        keyspace: &Keyspace,
        sealed: &Sealed,
    ) -> Result<SealedSource, Error> {
        let (id, kind) = (sealed.segment, sealed.kind);
        let path = self.dir.join(file_name(id, kind));
        let fail = |error| Error::io("open a segment", &path, error);
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(missing(id, kind).into());
            }
            result => result.map_err(fail)?,
        };
        let len = file.metadata().map_err(fail)?.len();
        let body = |published: u64| -> Result<Body, Error> {
            let map = Map::new(&file, len as usize, published as usize).map_err(fail)?;
            Ok(Body::new(id, kind, &self.store, map))
        };
        if len < sealed.records_end {
            let (what, wanted) = ("sealed segment", sealed.file_len);
            let damage = Damage::CutShort { what, wanted, found: len };
            return Err(Corruption { file: file_name(id, kind), offset: len, damage }.into());
        }
        let body = body(sealed.records_end)?;
        self.check_header(&body, kind)?;
        let whole = Arc::new(Map::new(&file, len as usize, len as usize).map_err(fail)?);
        let footer = Footer::open(&body, whole).and_then(|footer| match &footer.trailer {
            trailer if trailer.footer_crc == sealed.footer_crc => Ok(footer),
            trailer => {
                let damage = Damage::NotAsWitnessed { what: "footer checksum" };
                Err(body.corruption(trailer.footer_offset, damage))
            }
        });
        let slot = self.take_slot(keyspace)?;
        let mut rebuilt = Vec::new();
        let footer = match footer {
            Ok(footer) => Some(footer),
            Err(corruption) => {
                rebuilt = scan::scan_sealed(&body, sealed.records_end)
                    .map_err(|(offset, damage)| body.corruption(offset, damage))?;
                scan::sort(&mut rebuilt, &body);
                self.report.repairs.push(format!("read past a damaged footer: {corruption}"));
                None
            }
        };
        let segment = Arc::new(Segment::new(body, slot));
        if let Some(footer) = footer {
            segment.set_footer(footer);
        }
        keyspace.catalog.enter(Arc::clone(&segment));
        Ok(SealedSource { segment, rebuilt })
    }

    fn open_blobs(&mut self, keyspace: &Keyspace) -> Result<OpenedBlobs, Error> {
        let sealed = self.witness.sealed.values().filter(|sealed| sealed.kind == SegmentKind::Blob);
        let sealed: Vec<_> = sealed.map(|it| (it.segment, Some(it.records_end))).collect();
        let open = self.witness.open_blobs.iter().map(|id| (*id, None));
        let mut blobs = OpenedBlobs::new();
        for (id, end) in sealed.into_iter().chain(open) {
            blobs.insert(id, self.open_blob(keyspace, id, end)?);
        }
        Ok(blobs)
    }

    /// Opens a blob, which ends at `end` if it was sealed. Nothing of it is read but the header.
    fn open_blob(
        &self,
        keyspace: &Keyspace,
        id: SegmentId,
        end: Option<u64>,
    ) -> Result<OpenedBlob, Error> {
        let kind = SegmentKind::Blob;
        let path = self.dir.join(file_name(id, kind));
        let fail = |error| Error::io("open a blob", &path, error);
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(missing(id, kind).into());
            }
            result => result.map_err(fail)?,
        };
        let metadata = file.metadata().map_err(fail)?;
        let len = metadata.len();
        if end.is_some_and(|end| len < end) {
            let (what, wanted) = ("sealed blob", end.unwrap_or(0));
            let damage = Damage::CutShort { what, wanted, found: len };
            return Err(Corruption { file: file_name(id, kind), offset: len, damage }.into());
        }
        // The last extent's padding need not be in the file.
        let all = len.next_multiple_of(EXTENT_ALIGN);
        let capacity = match end {
            None if !self.options.read_only => self.options.segment_bytes.max(all),
            _ => all,
        };
        let header = len.min(RECORDS_START) as usize;
        let map = Map::new(&file, capacity as usize, header).map_err(fail)?;
        let body = Body::new(id, kind, &self.store, map);
        self.check_header(&body, kind)?;
        body.map.publish_up_to(end.unwrap_or(RECORDS_START).min(len) as usize);
        let segment = Arc::new(Segment::new(body, self.take_slot(keyspace)?));
        keyspace.catalog.enter(Arc::clone(&segment));
        let written = crate::mmap::written_len(&file, len);
        let takes = metadata.blocks() * 512;
        Ok(OpenedBlob {
            segment,
            is_sealed: end.is_some(),
            len: end.unwrap_or(len),
            written,
            takes,
        })
    }

    /// Notes that a record which counts refers to an extent. That must be there.
    fn hold(
        &mut self,
        keyspace: &Keyspace,
        blobs: &mut OpenedBlobs,
        entry: &Entry,
        key: &[u8],
    ) -> Result<(), Error> {
        let Some(extent) = entry.extent else { return Ok(()) };
        let id = extent.segment();
        if let Some(nth) = self.unlisted_blobs.iter().position(|unlisted| *unlisted == id) {
            // Only damage to the manifest's last entry can have made it forget such a blob.
            let name = file_name(id, SegmentKind::Blob);
            self.report.repairs.push(format!("took in {name}, which the manifest had lost"));
            self.adopt(id, SegmentKind::Blob);
            self.unlisted_blobs.remove(nth);
            blobs.insert(id, self.open_blob(keyspace, id, None)?);
        }
        let blob = blobs.get(&id).ok_or_else(|| missing(id, SegmentKind::Blob))?;
        let wanted = extent.offset() + content_len(entry.value_len);
        if wanted > blob.len {
            let damage = Damage::CutShort { what: "blob", wanted, found: blob.len };
            return Err(blob.segment.body.corruption(blob.len, damage).into());
        }
        blob.segment.hold(extent, entry.value_len, entry.expires_ms, key);
        Ok(())
    }

    /// Nobody refers to what is left of them.
    fn forget_unlisted_blobs(&mut self) {
        for id in std::mem::take(&mut self.unlisted_blobs) {
            self.leftovers.files.push(self.dir.join(file_name(id, SegmentKind::Blob)));
            self.leftovers.highest_id = self.leftovers.highest_id.max(id.0);
        }
    }

    /// Goes on with the blobs that were not sealed, behind everything that was ever written to them.
    fn resume(&mut self, blobs: OpenedBlobs) -> Result<Vec<Arc<Blob>>, Error> {
        let mut open = Vec::new();
        for blob in blobs.into_values() {
            let segment = blob.segment;
            let is_here = |(id, _): &mut (SegmentId, _)| *id == segment.id();
            let unproven: Vec<_> = self.unproven_extents.extract_if(.., is_here).collect();
            for (_, bytes) in &unproven {
                segment.body.map.publish_up_to(bytes.end as usize);
            }
            let live_end = segment.body.map.published() as u64;
            let end = if blob.is_sealed { live_end } else { live_end.max(blob.written) };
            // Where they are is not known, and they are all before the end.
            segment.extents.add_hole(0, end.saturating_sub(blob.takes));
            if blob.is_sealed || self.options.read_only {
                continue;
            }
            let path = self.dir.join(segment.body.file_name());
            let file = self.options.disk.open(&path);
            let file = Arc::new(file.map_err(|error| Error::io("open a blob", &path, error))?);
            for (_, bytes) in unproven {
                let (segment, file) = (Arc::clone(&segment), Arc::clone(&file));
                self.leftovers.unproven.push(Unproven { segment, file, bytes });
            }
            open.push(Arc::new(Blob::resume(segment, file, end)));
        }
        Ok(open)
    }

    fn take_slot(&self, keyspace: &Keyspace) -> Result<Slot, Error> {
        let full = Error::InvalidOption { option: "store", must: "of at most 65,536 segments" };
        keyspace.catalog.take_slot().ok_or(full)
    }

    /// Maps the logs for good, up to where they count; the rest is left to the first write.
    fn keep_logs(
        &mut self,
        scanned: Vec<Scanned>,
        keyspace: &Keyspace,
    ) -> Result<Vec<LogSource>, Error> {
        let (mut logs, mut broken, mut last) = (Vec::new(), false, self.witness.last_seqno);
        let go_on: Vec<bool> = (0..scanned.len()).map(|nth| goes_on(&scanned, nth)).collect();
        for (Scanned { id, body, scan, binned, footer, unproven_from }, goes_on) in
            scanned.into_iter().zip(go_on)
        {
            let gap = scan.first_seqno.is_some_and(|first| first != last + 1);
            broken |= gap;
            if broken || scan.commits == 0 {
                self.discard(id, &body, broken || scan.stop.is_some());
                continue;
            }
            if let Some((at, _)) = &scan.stop {
                let torn = body.map.published() as u64 - scan.end;
                self.report.torn_bytes += torn;
                self.report.repairs.push(format!(
                    "cut {torn} bytes that no sync had promised off {} at byte {} (torn at {at})",
                    body.file_name(),
                    scan.end
                ));
                broken = !goes_on;
            }
            last = scan.last_seqno;
            let segment = self.keep_log(keyspace, body, scan.end)?;
            let (records, end, chain) = (binned, scan.end, scan.chain);
            logs.push(LogSource { segment, records, footer, end, chain, unproven_from });
        }
        Ok(logs)
    }

    fn discard(&mut self, id: SegmentId, body: &Body, had_content: bool) {
        let torn = (body.map.published() as u64).saturating_sub(RECORDS_START);
        if had_content && torn > 0 {
            self.report.torn_bytes += torn;
            self.report.repairs.push(format!(
                "dropped {}, nothing of which a sync had promised",
                body.file_name()
            ));
        }
        self.leftovers.discard.push(id);
        self.leftovers.files.push(self.dir.join(file_name(id, SegmentKind::Log)));
    }

    /// The segment of a log that counts up to `end`.
    fn keep_log(
        &self,
        keyspace: &Keyspace,
        mut body: Body,
        end: u64,
    ) -> Result<Arc<Segment>, Error> {
        if self.options.read_only {
            let path = self.path_of(body.id);
            let map =
                File::open(&path).and_then(|file| Map::new(&file, end as usize, end as usize));
            body.map = map.map_err(|error| Error::io("open a log", &path, error))?;
        } else {
            body.map.cut(end as usize);
            body.map.publish_up_to(end as usize);
        }
        let segment = Arc::new(Segment::new(body, self.take_slot(keyspace)?));
        keyspace.catalog.enter(Arc::clone(&segment));
        Ok(segment)
    }

    /// Hands the logs to the committer: the last one is written on, the others wait for a footer.
    fn start(&mut self, logs: Vec<LogSource>, last_seqno: u64) -> Result<Start, Error> {
        let (mut full, mut log) = (Vec::new(), None);
        let count = logs.len();
        for (nth, source) in logs.into_iter().enumerate() {
            if self.options.read_only {
                break;
            }
            let path = self.dir.join(source.segment.body.file_name());
            let file = self.options.disk.open(&path);
            let file = Arc::new(file.map_err(|error| Error::io("open a log", &path, error))?);
            if source.unproven_from < source.end {
                self.leftovers.unproven.push(Unproven {
                    segment: Arc::clone(&source.segment),
                    file: Arc::clone(&file),
                    bytes: source.unproven_from..source.end,
                });
            }
            if nth + 1 == count {
                log = Some(Log::resume(source.segment, file, source.end, source.chain));
            } else {
                let (segment, end) = (source.segment, source.end);
                full.push(FullLog { segment, file, end });
            }
        }
        let leftovers = std::mem::take(&mut self.leftovers);
        // What was read is in the page cache, and may not be on disk: a process that was killed
        // leaves such pages behind. So the watermark starts over.
        let durable_seqno = self.proven_seqno;
        let blobs = self.blobs.clone();
        Ok(Start { log, full, blobs, next_seqno: last_seqno + 1, durable_seqno, leftovers })
    }
}

/// Compares a value in a blob, and its block table, with what a record has for them. What is wrong is no
/// error of this.
fn check_extent(file: &File, header: &Header, extent: Extent) -> io::Result<Result<(), Damage>> {
    let (stored, value_len) = (header.value_crc, header.value_len as usize);
    Ok(match sum_extent(file, extent.offset(), value_len) {
        Ok((computed, true)) if computed == stored => Ok(()),
        Ok((computed, _)) => Err(Damage::Checksum { of: "large value", stored, computed }),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            let wanted = extent.offset() + content_len(header.value_len);
            Err(Damage::CutShort { what: "blob", wanted, found: file.metadata()?.len() })
        }
        Err(error) => return Err(error),
    })
}

/// The checksum of the value at `start`, and whether it has the block table behind it that it should.
/// Reads without a map, since the file may end in there.
fn sum_extent(file: &File, start: u64, value_len: usize) -> io::Result<(u32, bool)> {
    let (table, mut sum) = (table_of(0..value_len), ContentSum::default());
    let mut buffer = vec![0; BLOCK_LEN.max(table.len())];
    for block in (0..value_len).step_by(BLOCK_LEN) {
        let piece = &mut buffer[..BLOCK_LEN.min(value_len - block)];
        file.read_exact_at(piece, start + block as u64)?;
        sum.update(piece);
    }
    let (wanted, crc) = sum.finish();
    let found = &mut buffer[..table.len()];
    file.read_exact_at(found, start + table.start as u64)?;
    Ok((crc, *found == wanted))
}

/// The length of a value in an extent with its block table, without the padding behind.
fn content_len(value_len: u32) -> u64 {
    table_of(0..value_len as usize).end as u64
}

/// What a scan of a log would have found that was closed with this footer.
fn scan_of_closed(footer: &Footer, closed: &Closed) -> LogScan {
    let trailer = &footer.trailer;
    LogScan {
        records: Vec::new(),
        end: closed.end,
        last_seqno: closed.last_seqno,
        first_seqno: Some(trailer.min_seqno),
        durable_seqno: closed.last_seqno,
        clock_ms: trailer.clock_ms,
        chain: trailer.chain_crc,
        commits: 1,
        stop: None,
    }
}

/// All lists of records that there are.
fn inputs<'a>(sealed: &'a [SealedSource], logs: &'a [LogSource], cuts: &'a Cuts) -> Vec<Input<'a>> {
    let sealed = sealed.iter().map(|SealedSource { segment, rebuilt }| {
        let list = segment.footer().map_or(List::Scan(rebuilt), List::Footer);
        Input { segment, list }
    });
    let logs = logs.iter().map(|LogSource { segment, records, footer, .. }| {
        let list = footer.as_ref().map_or(List::Log(records, cuts), List::Footer);
        Input { segment, list }
    });
    sealed.chain(logs).collect()
}

fn missing(id: SegmentId, kind: SegmentKind) -> Corruption {
    Corruption { file: file_name(id, kind), offset: 0, damage: Damage::Missing }
}
