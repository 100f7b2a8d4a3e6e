//! Takes space back: seals full logs and blobs, and rewrites what is alive in segments that are mostly
//! dead.
//!
//! ```text
//!   full log ──footer──> sealed ─┐
//!                                ├─ victims ──merge──> runs, one for each expiry window
//!   run ─────────────────────────┘
//!   full blob ──length──> sealed ── victims ──copy──> the active blob, and references in runs
//! ```
//!
//! The one shadowing rule: an expired record is a tombstone, and a tombstone may go only if no
//! sealed segment outside of the victims holds an older put that it hides. Logs that are not sealed
//! hold nothing older than what is. A put that the index does not point at is hidden by something
//! newer, and goes. A put whose value was moved to another blob stands in two segments with one seqno;
//! the one in the older file counts as the older put. See `blobs`.
//!
//! The order that makes a crash at any step harmless: outputs synced; their names synced; the log
//! synced, so that what a decision rested on is as durable as the decision; one manifest entry that
//! puts the outputs in the place of the inputs; index moved; inputs retired, then unlinked.
//! Survivors keep their seqnos, so two copies of a record are one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::address::{Address, SegmentId};
use crate::commit::{Committer, FullLog, Site, tombstone};
use crate::error::{Corruption, Error};
use crate::format::footer::Trailer;
use crate::format::manifest::{Entry, Sealed};
use crate::format::record::{Extent, Header, Kind, Record};
use crate::format::segment_header::SegmentKind;
use crate::key;
use crate::keyspace::{Keyspace, is_expired};
use crate::merge::{Current, Merge, Source};
use crate::mmap::Map;
use crate::segment::blob::Blob;
use crate::segment::sealed::{self, Footer};
use crate::segment::{Body, Segment, file_name};
use crate::stage::Stage;

mod blobs;
mod pace;
pub(crate) mod plan;
mod run;

use pace::Pace;
use plan::{Candidate, window};
use run::{FinishedRun, RunWriter};

/// Index entries that are moved in one go, so that writers wait for few.
const MOVES_AT_ONCE: usize = 256;

pub(crate) struct Compactor {
    keyspace: Arc<Keyspace>,
    committer: Arc<Committer>,
    stage: Arc<Stage>,
    bound: f64,
    /// One compaction at a time.
    turn: Mutex<Memory>,
    pub(crate) copied_bytes: AtomicU64,
    pub(crate) freed_bytes: AtomicU64,
    pressure: Pressure,
    pace: Pace,
    /// So many wait for what is under way, which is not slowed down then.
    awaiting: AtomicUsize,
    /// The store is being closed.
    stopping: AtomicBool,
}

/// Set while the store takes more space than its ceiling and compaction is getting somewhere:
/// writers then wait for it.
#[derive(Default)]
struct Pressure {
    is_high: AtomicBool,
    /// A thread seals full logs, and did not fail at it the last time.
    is_watched: AtomicBool,
    turn: Mutex<()>,
    eased: Condvar,
}

/// How long a write waits for compaction at most, so that it is slowed down and never stopped.
const WAIT_MAX: Duration = Duration::from_millis(250);
/// Besides the bound's excess, this many times over: as many segments may wait for compaction, and as
/// many full logs to be sealed.
const CEILING_SEGMENTS: u64 = 8;

/// Without writes for this long, a store is idle.
const IDLE: Duration = Duration::from_secs(1);

/// What one compaction remembers for the next.
#[derive(Default)]
struct Memory {
    /// The last version that was seen to be new, and when.
    last_write: Option<(u64, Instant)>,
    /// Segments with damaged records: they stay as they are, for a human to look at.
    damaged: BTreeSet<SegmentId>,
    /// Counts compactions that took puts away, after which a tombstone may have become needless.
    generation: u64,
    /// The generation in which a run's tombstones were last found to be needed.
    examined: BTreeMap<SegmentId, u64>,
}

impl Memory {
    /// Whether nobody has written for a while, if `version` is the last that was given out.
    fn is_idle(&mut self, version: u64) -> bool {
        match self.last_write {
            Some((seen, since)) if seen == version => since.elapsed() >= IDLE,
            _ => {
                self.last_write = Some((version, Instant::now()));
                false
            }
        }
    }
}

impl Compactor {
    pub(crate) fn new(
        keyspace: Arc<Keyspace>,
        committer: Arc<Committer>,
        stage: Arc<Stage>,
        bound: f64,
        bytes_per_second: u64,
    ) -> Compactor {
        let turn = Mutex::new(Memory::default());
        let (copied_bytes, freed_bytes) = (AtomicU64::new(0), AtomicU64::new(0));
        let pressure = Pressure::default();
        let pace = Pace::new(bytes_per_second);
        let (awaiting, stopping) = (AtomicUsize::new(0), AtomicBool::new(false));
        Compactor {
            keyspace,
            committer,
            stage,
            bound,
            turn,
            copied_bytes,
            freed_bytes,
            pressure,
            pace,
            awaiting,
            stopping,
        }
    }

    /// Gives up what is under way, and does nothing from now on.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        drop(self.turn.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Does something while no segment is sealed, compacted or removed.
    pub(crate) fn while_it_rests<T>(&self, act: impl FnOnce() -> T) -> T {
        let _turn = self.awaited_turn();
        act()
    }

    /// The turn, as soon as it can be had: what holds it is not slowed down meanwhile.
    fn awaited_turn(&self) -> MutexGuard<'_, Memory> {
        self.awaiting.fetch_add(1, Ordering::Relaxed);
        let turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        self.awaiting.fetch_sub(1, Ordering::Relaxed);
        turn
    }

    /// A thread that seals full logs has been started, or has ended.
    pub(crate) fn watch(&self, is_watched: bool) {
        self.pressure.is_watched.store(is_watched, Ordering::Relaxed);
    }

    /// Slows a writer down while compaction is behind.
    pub(crate) fn wait_for_space(&self) {
        if self.is_behind() {
            let turn = self.pressure.turn.lock().unwrap_or_else(PoisonError::into_inner);
            let is_behind = |_: &mut ()| self.is_behind();
            drop(self.pressure.eased.wait_timeout_while(turn, WAIT_MAX, is_behind));
        }
    }

    /// Whether there is too much on disk, or too much that nobody has looked at yet.
    fn is_behind(&self) -> bool {
        self.pressure.is_high.load(Ordering::Relaxed)
            || (self.pressure.is_watched.load(Ordering::Relaxed)
                && self.committer.full_count() as u64 > CEILING_SEGMENTS)
    }

    /// The ceiling is twice the bound's excess and a few segments on top.
    fn set_pressure(&self, is_working: bool) {
        let segments = self.keyspace.catalog.segments();
        let total: u64 = segments.iter().map(|segment| segment.compactable_bytes()).sum();
        let live: u64 = segments.iter().map(|segment| segment.live_bytes()).sum();
        let excess = live as f64 * (2.0 * self.bound - 1.0);
        let spare = CEILING_SEGMENTS * self.committer.site().segment_bytes;
        let is_high = is_working && total as f64 > excess + spare as f64;
        self.pressure.is_high.store(is_high, Ordering::Relaxed);
        if !self.is_behind() {
            self.pressure.eased.notify_all();
        }
    }

    /// The store's own step: it leaves those who write their share of the disk, and slows them down
    /// while there is too much to do.
    pub(crate) fn step_beside_writers(&self) -> Result<bool, Error> {
        self.set_pressure(true);
        let mut memory = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let is_idle = memory.is_idle(self.committer.counts().versions().0);
        let worked = self.step(&mut memory, is_idle);
        drop(memory);
        self.watch(worked.is_ok());
        self.set_pressure(matches!(worked, Ok(true)));
        worked
    }

    /// A step that somebody waits for.
    pub(crate) fn step_for_a_caller(&self) -> Result<bool, Error> {
        let mut memory = self.awaited_turn();
        self.awaiting.fetch_add(1, Ordering::Relaxed);
        let worked = self.step(&mut memory, true);
        self.awaiting.fetch_sub(1, Ordering::Relaxed);
        worked
    }

    /// Notes that so many bytes were copied, and rests if there was much and others write.
    fn note_copied(&self, bytes: u64) {
        self.copied_bytes.fetch_add(bytes, Ordering::Relaxed);
        if self.pace.copied(bytes) {
            self.rest();
        }
    }

    fn rest(&self) {
        let rest = self.pace.rest(self.committer.counts().versions().0);
        let is_awaited = self.awaiting.load(Ordering::Relaxed) > 0;
        if is_awaited || self.stopping.load(Ordering::Relaxed) {
            return;
        }
        self.set_pressure(true);
        if !rest.is_zero() && !self.is_behind() {
            std::thread::sleep(rest);
        }
    }

    /// Seals full logs and compacts once. Returns whether anything was done. While nobody writes, the
    /// log that is being written is held to the bound with the others.
    fn step(&self, memory: &mut Memory, is_idle: bool) -> Result<bool, Error> {
        if self.stopping.load(Ordering::Relaxed) {
            return Err(Error::Closed);
        }
        self.committer.check_poison()?;
        if !self.committer.full().is_empty() {
            self.committer.begin()?;
        }
        // A log that cannot be sealed, or not be ended since there is no room for another one, must not
        // keep the rest from being compacted.
        let blobs = self.seal_blobs(is_idle);
        let sealed = blobs.and_then(|worked| Ok(self.seal_logs(is_idle)? | worked));
        let (mut worked, setback) = match sealed {
            Ok(worked) => (worked, None),
            Err(error @ (Error::Corrupt(_) | Error::DiskFull { .. })) => (false, Some(error)),
            Err(error) => return Err(error),
        };
        let free = self.committer.site().space().map_or(u64::MAX, |(free, _)| free);
        let victims = plan::plan(&self.candidates(memory), self.bound, free);
        if !victims.is_empty() {
            self.committer.begin()?;
            worked |= self.compact_any(&victims, memory)?;
        }
        self.keyspace.catalog.collect();
        match setback {
            Some(error) if !worked => Err(error),
            _ => Ok(worked),
        }
    }

    /// Seals full logs, and the one that is being written if it is not worth going on with.
    fn seal_logs(&self, is_idle: bool) -> Result<bool, Error> {
        let worked = self.seal_all()?;
        if !self.committer.active().is_some_and(|log| self.is_mostly_dead(&log, is_idle)) {
            return Ok(worked);
        }
        self.committer.rotate()?;
        self.seal_all().map(|_| true)
    }

    /// Gives the blobs their final length that nobody writes to any more.
    fn seal_blobs(&self, is_idle: bool) -> Result<bool, Error> {
        let active = self.stage.active_blob();
        if active.is_some_and(|blob| self.is_mostly_dead(&blob.segment, is_idle)) {
            self.stage.rotate();
        }
        let mut worked = false;
        while let Some(blob) = self.stage.next_to_seal() {
            self.committer.begin()?;
            self.seal_blob(&blob)?;
            self.stage.forget(&blob);
            worked = true;
        }
        Ok(worked)
    }

    fn seal_blob(&self, blob: &Blob) -> Result<(), Error> {
        let fail = |error| Error::io("seal a blob", blob.file.path(), error);
        let cut = blob.trim().map_err(fail);
        let end = cut.map_err(|error| self.committer.poison_unless_full(error))?;
        blob.sync().map_err(fail).map_err(|error| self.committer.poison(error))?;
        self.committer.record(&Entry::Sealed(Sealed {
            segment: blob.segment.id(),
            kind: SegmentKind::Blob,
            file_len: end,
            records_end: end,
            footer_crc: 0,
            last_seqno: 0,
            clock_ms: 0,
        }))
    }

    fn seal_all(&self) -> Result<bool, Error> {
        let mut worked = false;
        loop {
            // A log leaves the queue when it is sealed: until then it is in somebody's view.
            let next = self.committer.full().front().map(|log| FullLog {
                segment: Arc::clone(&log.segment),
                file: Arc::clone(&log.file),
                end: log.end,
            });
            let Some(log) = next else { return Ok(worked) };
            self.seal(&log)?;
            self.committer.forget_first_full();
            worked = true;
        }
    }

    /// Gives a log its footer.
    fn seal(&self, log: &FullLog) -> Result<(), Error> {
        let body = &log.segment.body;
        let (bytes, trailer, last_seqno) = sealed::footer_of(body, log.end)?;
        let file_len = log.end + bytes.len() as u64;
        let fail = |error| Error::io("seal a log", log.file.path(), error);
        let written = log.file.set_len(log.end).and_then(|()| log.file.write_at(&bytes, log.end));
        written.map_err(fail).map_err(|error| self.committer.poison_unless_full(error))?;
        // A sealed log's records are promised, and so are the values that they refer to.
        self.committer.sync_blobs()?;
        // The log's own records may be among what a failed sync has lost.
        log.file.sync().map_err(fail).map_err(|error| self.committer.poison(error))?;
        let whole = Map::new(log.file.as_file(), file_len as usize, file_len as usize);
        let footer = Footer::open(body, Arc::new(whole.map_err(fail)?))?;
        let (segment, kind, records_end) = (body.id, SegmentKind::Log, log.end);
        let Trailer { footer_crc, clock_ms, .. } = trailer;
        let sealed =
            Sealed { segment, kind, file_len, records_end, footer_crc, last_seqno, clock_ms };
        self.committer.record(&Entry::Sealed(sealed))?;
        log.segment.set_footer(footer);
        Ok(())
    }

    /// Whether what is dead in a segment that is being written is a reason to end it early.
    fn is_mostly_dead(&self, active: &Segment, is_idle: bool) -> bool {
        let dead_in = |segment: &Segment| {
            let expired = segment.extents.expired_bytes(self.keyspace.time.guarded_ms());
            let live = segment.live_bytes().saturating_sub(expired);
            segment.compactable_bytes().saturating_sub(live)
        };
        let segments = self.keyspace.catalog.segments();
        let live = segments.iter().map(|segment| segment.live_bytes()).sum();
        let dead = dead_in(active);
        let counted =
            if is_idle { segments.iter().map(|segment| dead_in(segment)).sum() } else { dead };
        plan::active_is_mostly_dead(
            dead,
            counted,
            live,
            self.committer.site().segment_bytes,
            self.bound,
        )
    }

    fn candidates(&self, memory: &Memory) -> Vec<Candidate> {
        let now_ms = self.keyspace.time.guarded_ms();
        let segments = self.keyspace.catalog.segments();
        let blobs = self.blob_candidates(&segments, memory, now_ms);
        let sealed = segments.iter().filter_map(|segment| Some((segment, segment.footer()?)));
        sealed
            .filter(|(segment, _)| !memory.damaged.contains(&segment.id()))
            .map(|(segment, footer)| {
                let kept = segment.kept_tombstone_bytes.load(Ordering::Relaxed);
                let examined = memory.examined.get(&segment.id());
                let fresh = examined == Some(&memory.generation);
                Candidate {
                    id: segment.id(),
                    records: footer.record_bytes(),
                    live: footer.unexpired_bytes(segment.live_bytes(), now_ms),
                    kept_tombstones: if fresh { kept } else { 0 },
                }
            })
            .chain(blobs)
            .collect()
    }

    fn compact_any(&self, victims: &[SegmentId], memory: &mut Memory) -> Result<bool, Error> {
        let is_blob = |id: &SegmentId| {
            let segment = self.keyspace.catalog.by_id(*id);
            segment.is_some_and(|segment| segment.is_blob())
        };
        let (blobs, others): (Vec<_>, Vec<_>) = victims.iter().copied().partition(is_blob);
        let mut worked = false;
        if !others.is_empty() {
            worked |= self.compact(&others, memory)?;
        }
        if !blobs.is_empty() {
            worked |= self.compact_blobs(&blobs, memory)?;
        }
        Ok(worked)
    }

    fn compact(&self, victims: &[SegmentId], memory: &mut Memory) -> Result<bool, Error> {
        let (inputs, others) = self.divide(victims);
        let mut job = Job::new(self, self.keyspace.time.guarded_ms(), &others);
        match job.write(&inputs) {
            Ok(()) => {}
            Err(Error::Corrupt(corruption)) => {
                job.remove_outputs();
                let guilty = inputs.iter().find(|input| input.body.file_name() == corruption.file);
                memory.damaged.extend(guilty.map(|guilty| guilty.id()));
                return Err(corruption.into());
            }
            Err(error) => {
                job.remove_outputs();
                return Err(error);
            }
        }
        job.install(&inputs, memory)?;
        Ok(true)
    }

    /// The victims, and all other segments.
    fn divide(&self, victims: &[SegmentId]) -> (Vec<Arc<Segment>>, Vec<Arc<Segment>>) {
        let segments = self.keyspace.catalog.segments().into_iter();
        segments.partition(|segment| victims.contains(&segment.id()))
    }
}

/// Whether the segment has records and takes no more. A sealed one whose footer is damaged is meant too.
fn is_sealed(segment: &Segment, committer: &Committer) -> bool {
    if segment.is_blob() {
        return false;
    }
    segment.footer().is_some()
        || (committer.active().is_none_or(|active| active.id() != segment.id())
            && committer.full().iter().all(|full| full.segment.id() != segment.id()))
}

/// One compaction.
struct Job<'a> {
    compactor: &'a Compactor,
    now_ms: u64,
    /// Sealed segments that are not compacted: what they hold may need a tombstone.
    others: Vec<&'a Arc<Segment>>,
    /// The run that is being written for each expiry window.
    outputs: BTreeMap<u8, RunWriter>,
    finished: Vec<FinishedRun>,
    /// Every run that was begun, whatever became of it.
    created: Vec<SegmentId>,
    moves: Vec<Move>,
    expired: Vec<Expired>,
    /// Inputs that the index may still point at, since a copy could not be read back.
    stuck: BTreeSet<SegmentId>,
    dropped_puts: bool,
}

/// A survivor: where it was, and where its copy is.
struct Move {
    from: Address,
    /// How long it was there.
    len: u64,
    run: SegmentId,
    offset: u64,
    /// Where its value was, if that was in a blob.
    extent: Option<Extent>,
}

/// A record that expired for good.
struct Expired {
    composite: Box<[u8]>,
    address: Address,
    len: u64,
    extent: Option<Extent>,
}

impl<'a> Job<'a> {
    /// `others` are all segments that are no inputs.
    fn new(compactor: &'a Compactor, now_ms: u64, others: &'a [Arc<Segment>]) -> Job<'a> {
        let is_sealed = |other: &&Arc<Segment>| is_sealed(other, &compactor.committer);
        Job {
            compactor,
            now_ms,
            others: others.iter().filter(is_sealed).collect(),
            outputs: BTreeMap::new(),
            finished: Vec::new(),
            created: Vec::new(),
            moves: Vec::new(),
            expired: Vec::new(),
            stuck: BTreeSet::new(),
            dropped_puts: false,
        }
    }

    fn site(&self) -> &Site {
        self.compactor.committer.site()
    }

    /// Writes all survivors of `inputs`, and syncs the runs and their names.
    fn write(&mut self, inputs: &[Arc<Segment>]) -> Result<(), Error> {
        let sources = inputs
            .iter()
            .filter_map(|segment| Some((&**segment, Source::Footer(segment.footer()?.entries()))));
        let mut merge = Merge::new(sources)?;
        while let Some(current) = merge.current() {
            if self.compactor.stopping.load(Ordering::Relaxed) {
                return Err(Error::Closed);
            }
            self.take(&current)?;
            merge.advance()?;
        }
        self.finish()
    }

    /// Makes the outputs durable under their names.
    fn finish(&mut self) -> Result<(), Error> {
        while let Some((_, run)) = self.outputs.pop_first() {
            self.finished.push(run.finish(self.now_ms)?);
        }
        let site = self.site();
        let synced = site.disk.sync_dir(&site.dir);
        synced.map_err(|error| Error::io("sync the store's directory", &site.dir, error))
    }

    /// Decides what becomes of one record.
    fn take(&mut self, current: &Current<'_>) -> Result<(), Error> {
        let entry = &current.entry;
        if entry.kind != Kind::Put {
            return self.keep_tombstone(current.key, entry.kind, entry.seqno);
        }
        let address = Address::new(current.segment.slot, entry.offset);
        let keyspace = &self.compactor.keyspace;
        let is_newest = keyspace.points_at(current.key, address, &keyspace.index.pin());
        if !is_newest {
            self.dropped_puts = true;
            return Ok(());
        }
        if is_expired(entry.expires_ms, self.now_ms) {
            self.dropped_puts = true;
            let (len, extent) = (entry.record_len(current.key.len()), entry.extent);
            self.expired.push(Expired { composite: current.key.into(), address, len, extent });
            return self.keep_tombstone(current.key, Kind::Delete, entry.seqno);
        }
        self.keep(current, address)
    }

    fn keep(&mut self, current: &Current<'_>, address: Address) -> Result<(), Error> {
        let offset = current.entry.offset;
        let record = self.verified(&current.segment.body, offset)?;
        let bytes = &current.segment.body.bytes_from(offset)[..record.header.record_len()];
        let window = window(record.header.expires_ms, self.now_ms);
        let run = self.output(window, bytes.len())?;
        let (run, offset) = (run.id, run.copy(current.key, &record.header, bytes)?);
        let (len, extent) = (bytes.len() as u64, record.header.extent);
        self.moves.push(Move { from: address, len, run, offset, extent });
        self.compactor.copied_bytes.fetch_add(len, Ordering::Relaxed);
        Ok(())
    }

    /// Everything that is copied is verified: damage must not be given a new checksum.
    fn verified<'b>(&self, body: &'b Body, offset: u64) -> Result<Record<'b>, Corruption> {
        let record = body.record(offset)?;
        record.verify_value().map_err(|damage| body.corruption(offset, damage))?;
        Ok(record)
    }

    fn keep_tombstone(&mut self, composite: &[u8], kind: Kind, seqno: u64) -> Result<(), Error> {
        if !self.hides_something(composite, kind, seqno)? {
            return Ok(());
        }
        let (namespace, key) = key::split(composite);
        let draft = tombstone(kind, namespace, key, self.now_ms);
        self.output(0, draft.record_len())?.tombstone(composite, seqno, &draft)
    }

    /// Whether a segment that stays holds an older put that would come alive without the tombstone.
    fn hides_something(&self, composite: &[u8], kind: Kind, seqno: u64) -> Result<bool, Error> {
        for other in &self.others {
            let hides = match (other.footer(), kind) {
                (None, _) => true,
                (Some(footer), Kind::DeletePrefix | Kind::DeleteNamespace) => {
                    footer.has_older_put_under(composite, seqno)?
                }
                (Some(footer), _) => footer.has_older_put(composite, seqno)?,
            };
            if hides {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The run of a window, with room for `len` more bytes.
    fn output(&mut self, window: u8, len: usize) -> Result<&mut RunWriter, Error> {
        let capacity = self.site().segment_bytes.min(Address::OFFSET_END);
        let is_full =
            self.outputs.get(&window).is_some_and(|run| run.end() + len as u64 > capacity);
        if is_full && let Some(run) = self.outputs.remove(&window) {
            self.finished.push(run.finish(self.now_ms)?);
        }
        if !self.outputs.contains_key(&window) {
            let id = self.compactor.committer.manifest().take_segment_id();
            self.created.push(id);
            let site = self.site();
            let run = RunWriter::create(&site.disk, &site.dir, id, &site.store, window)?;
            self.outputs.insert(window, run);
        }
        self.outputs
            .get_mut(&window)
            .ok_or_else(|| unreachable!("a run for the window was just made"))
    }

    /// Gives up: the inputs stay, and the outputs were never part of the store.
    fn remove_outputs(&mut self) {
        self.outputs.clear();
        self.finished.clear();
        let site = self.site();
        for id in &self.created {
            // What cannot be removed now is a leftover that the next opening removes.
            let _ = site.disk.remove(&site.dir.join(file_name(*id, SegmentKind::Run)));
        }
    }

    /// Puts the outputs in the place of the inputs.
    fn install(mut self, inputs: &[Arc<Segment>], memory: &mut Memory) -> Result<(), Error> {
        let compactor = self.compactor;
        let outputs = match self.map_outputs().and_then(|outputs| {
            compactor.committer.sync()?;
            Ok(outputs)
        }) {
            Ok(outputs) => outputs,
            Err(error) => {
                self.remove_outputs();
                return Err(error);
            }
        };
        let entry = Entry::Replaced {
            inputs: inputs.iter().map(|input| input.id()).collect(),
            outputs: self.finished.iter().map(|run| run.sealed).collect(),
        };
        if let Err(error) = compactor.committer.record(&entry) {
            // An entry that may be on disk all the same needs its outputs; the next opening knows.
            if !compactor.committer.manifest().is_in_doubt() {
                self.remove_outputs();
            }
            return Err(error);
        }
        memory.generation += u64::from(self.dropped_puts);
        for output in outputs.values() {
            memory.examined.insert(output.id(), memory.generation);
            compactor.keyspace.catalog.enter(Arc::clone(output));
        }
        self.move_index(&outputs, inputs);
        self.retire(inputs, memory)
    }

    fn map_outputs(&self) -> Result<BTreeMap<SegmentId, Arc<Segment>>, Error> {
        let catalog = &self.compactor.keyspace.catalog;
        let mut outputs = BTreeMap::new();
        for run in &self.finished {
            let sealed = &run.sealed;
            let fail = |error| Error::io("map a run", run.file.path(), error);
            let map = |published: u64| {
                Map::new(run.file.as_file(), sealed.file_len as usize, published as usize)
            };
            let map_of_records = map(sealed.records_end).map_err(fail)?;
            let body = Body::new(sealed.segment, sealed.kind, &self.site().store, map_of_records);
            let footer = Footer::open(&body, Arc::new(map(sealed.file_len).map_err(fail)?))?;
            let Some(slot) = catalog.take_slot() else {
                return Err(Error::DiskFull { free: None });
            };
            let segment = Segment::new(body, slot);
            segment.set_footer(footer);
            segment.kept_tombstone_bytes.store(run.tombstone_bytes, Ordering::Relaxed);
            outputs.insert(sealed.segment, Arc::new(segment));
        }
        Ok(outputs)
    }

    /// Points the index at the copies, where it still points at the originals.
    fn move_index(&mut self, outputs: &BTreeMap<SegmentId, Arc<Segment>>, inputs: &[Arc<Segment>]) {
        let keyspace = &self.compactor.keyspace;
        for moves in self.moves.chunks(MOVES_AT_ONCE) {
            let (mut writer, pinned) = (keyspace.writer(), keyspace.index.pin());
            for Move { from, len, run, offset, extent } in moves {
                let Some(output) = outputs.get(run) else { continue };
                let Ok(record) = output.body.record(*offset) else {
                    let of = |input: &&Arc<Segment>| {
                        input.slot == from.slot()
                            || extent.is_some_and(|extent| extent.segment() == input.id())
                    };
                    self.stuck.extend(inputs.iter().filter(of).map(|input| input.id()));
                    continue;
                };
                let composite = key::Composite::new(record.header.namespace, record.key);
                let to = Address::new(output.slot, *offset);
                let lens = (*len, record.header.record_len() as u64);
                // The value can be read where the copy says before the copy can be found.
                let Header { extent: moved_to, value_len, expires_ms, .. } = record.header;
                keyspace.hold_extent(moved_to, value_len, expires_ms, &composite);
                let moved = keyspace.relocate(&mut writer, &composite, *from, to, lens, &pinned);
                keyspace.release_extent(if moved { *extent } else { moved_to });
            }
        }
        for gone in self.expired.chunks(MOVES_AT_ONCE) {
            let (mut writer, pinned) = (keyspace.writer(), keyspace.index.pin());
            for Expired { composite, address, len, extent } in gone {
                let gone = (*len, *extent);
                keyspace.forget(&mut writer, composite, *address, gone, &pinned);
            }
        }
    }

    fn retire(&self, inputs: &[Arc<Segment>], memory: &mut Memory) -> Result<(), Error> {
        let compactor = self.compactor;
        let site = self.site();
        for input in inputs.iter().filter(|input| !self.stuck.contains(&input.id())) {
            compactor.keyspace.catalog.retire(input.id());
            memory.examined.remove(&input.id());
            let freed = input.footer().map_or(input.record_bytes(), Footer::file_len);
            compactor.freed_bytes.fetch_add(freed, Ordering::Relaxed);
            let path = site.dir.join(input.body.file_name());
            let removed = site.disk.remove(&path);
            removed.map_err(|error| Error::io("remove a compacted segment", &path, error))?;
            if compactor.pace.removed(freed) {
                compactor.rest();
            }
        }
        let synced = site.disk.sync_dir(&site.dir);
        synced.map_err(|error| Error::io("sync the store's directory", &site.dir, error))?;
        let compacted = compactor.committer.manifest().compact();
        compacted.map_err(|error| compactor.committer.poison_unless_full(error))
    }
}
