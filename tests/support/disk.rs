//! Disks that misbehave, behind the engine's seam for tests.
//!
//! [`Killer`] stops everything at a chosen change, as a kill does: what was done stays, nothing
//! follows. [`Injector`] fails chosen changes. [`Recorder`] remembers every change with its bytes, so
//! that [`Image`] can say what a disk may hold if power is cut after any of them, in the strict
//! reading: names only by a sync of their directory, bytes only by a sync of their file.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use kvast::testing::{Hook, Op, Verdict};

use super::rng::Rng;

/// Lets a chosen number of changes happen, then none.
#[derive(Default)]
pub(crate) struct Killer {
    dead: AtomicBool,
    /// Changes until death; negative is never.
    countdown: AtomicI64,
    /// How much of the write that is hit still reaches the file.
    cut: AtomicU64,
}

impl Killer {
    pub(crate) fn new() -> Killer {
        Killer { countdown: AtomicI64::new(-1), ..Killer::default() }
    }

    /// Dies at the change after `changes` more; a write that is hit is cut to `cut` bytes.
    pub(crate) fn kill_after(&self, changes: u64, cut: u64) {
        self.cut.store(cut, Ordering::SeqCst);
        self.countdown.store(changes as i64, Ordering::SeqCst);
    }

    pub(crate) fn kill(&self) {
        self.dead.store(true, Ordering::SeqCst);
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.dead.load(Ordering::SeqCst)
    }

    pub(crate) fn revive(&self) {
        self.countdown.store(-1, Ordering::SeqCst);
        self.dead.store(false, Ordering::SeqCst);
    }
}

fn killed() -> io::Error {
    io::Error::other("the process was killed")
}

impl Hook for Killer {
    fn before(&self, op: &Op<'_>) -> Verdict {
        if self.is_dead() {
            return Verdict::Fail(killed());
        }
        if self.countdown.load(Ordering::SeqCst) < 0 {
            return Verdict::Proceed;
        }
        if self.countdown.fetch_sub(1, Ordering::SeqCst) > 0 {
            return Verdict::Proceed;
        }
        self.kill();
        match op {
            Op::Write { bytes, .. } => {
                let cut = self.cut.load(Ordering::SeqCst) as usize % (bytes.len() + 1);
                Verdict::CutShort(cut, killed())
            }
            _ => Verdict::Fail(killed()),
        }
    }
}

/// What kind of change to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Write,
    Sync,
    SyncDir,
    Create,
    SetLen,
    Rename,
    Remove,
}

impl Target {
    fn of(op: &Op<'_>) -> Option<Target> {
        match op {
            Op::Write { .. } => Some(Target::Write),
            Op::Sync { .. } => Some(Target::Sync),
            Op::SyncDir { .. } => Some(Target::SyncDir),
            Op::Create { .. } => Some(Target::Create),
            Op::SetLen { .. } => Some(Target::SetLen),
            Op::Rename { .. } => Some(Target::Rename),
            Op::Remove { .. } => Some(Target::Remove),
            _ => None,
        }
    }
}

/// Fails changes of one kind, from the nth on, a number of times.
pub(crate) struct Injector {
    target: Target,
    errno: i32,
    /// Changes of the kind to let pass.
    pass: AtomicI64,
    /// How many to fail after that.
    fail: AtomicI64,
    pub(crate) failed: AtomicU64,
}

/// errno of "input/output error".
pub(crate) const EIO: i32 = 5;
/// errno of "no space left on device".
pub(crate) const ENOSPC: i32 = 28;

impl Injector {
    pub(crate) fn new(target: Target, errno: i32, pass: u64, fail: u64) -> Injector {
        Injector {
            target,
            errno,
            pass: AtomicI64::new(pass as i64),
            fail: AtomicI64::new(fail as i64),
            failed: AtomicU64::new(0),
        }
    }

    pub(crate) fn failed(&self) -> u64 {
        self.failed.load(Ordering::SeqCst)
    }
}

impl Hook for Injector {
    fn before(&self, op: &Op<'_>) -> Verdict {
        if Target::of(op) != Some(self.target) || self.pass.fetch_sub(1, Ordering::SeqCst) > 0 {
            return Verdict::Proceed;
        }
        if self.fail.fetch_sub(1, Ordering::SeqCst) <= 0 {
            return Verdict::Proceed;
        }
        self.failed.fetch_add(1, Ordering::SeqCst);
        let error = io::Error::from_raw_os_error(self.errno);
        match op {
            // A full disk takes what still fits.
            Op::Write { bytes, .. } if self.errno == ENOSPC => {
                Verdict::CutShort(bytes.len() / 2, error)
            }
            _ => Verdict::Fail(error),
        }
    }
}

/// A change to the file system, as it was made.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    CreateDir(PathBuf),
    Create(PathBuf),
    Write(PathBuf, u64, Vec<u8>),
    SetLen(PathBuf, u64),
    Sync(PathBuf),
    SyncDir(PathBuf),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
}

/// Remembers every change that was made. Another hook may forbid some.
#[derive(Default)]
pub(crate) struct Recorder {
    events: Mutex<Vec<Event>>,
    judge: Option<Arc<dyn Hook>>,
}

impl Recorder {
    pub(crate) fn judged_by(judge: Arc<dyn Hook>) -> Recorder {
        Recorder { judge: Some(judge), ..Recorder::default() }
    }

    pub(crate) fn len(&self) -> usize {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    pub(crate) fn events(&self) -> Vec<Event> {
        self.events_from(0)
    }

    pub(crate) fn events_from(&self, begin: usize) -> Vec<Event> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)[begin..].to_vec()
    }
}

impl Hook for Recorder {
    fn before(&self, op: &Op<'_>) -> Verdict {
        let verdict = self.judge.as_ref().map_or(Verdict::Proceed, |judge| judge.before(op));
        let event = match (op, &verdict) {
            (_, Verdict::Fail(_)) => return verdict,
            (Op::Write { path, offset, bytes }, Verdict::CutShort(len, _)) => {
                Event::Write((*path).into(), *offset, bytes[..*len].into())
            }
            (op, _) => event(op),
        };
        self.events.lock().unwrap_or_else(PoisonError::into_inner).push(event);
        verdict
    }
}

fn event(op: &Op<'_>) -> Event {
    match *op {
        Op::CreateDir { path } => Event::CreateDir(path.into()),
        Op::Create { path } => Event::Create(path.into()),
        Op::Write { path, offset, bytes } => Event::Write(path.into(), offset, bytes.into()),
        Op::SetLen { path, len } => Event::SetLen(path.into(), len),
        Op::Sync { path } => Event::Sync(path.into()),
        Op::SyncDir { path } => Event::SyncDir(path.into()),
        Op::Rename { from, to } => Event::Rename(from.into(), to.into()),
        Op::Remove { path } => Event::Remove(path.into()),
        ref other => panic!("the recorder does not know {other:?}"),
    }
}

/// What becomes of changes that were not synced when the power goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loss {
    /// All are lost.
    Strict,
    /// None is lost, as after a kill.
    Nothing,
    /// Any of them are lost, names and bytes each for themselves.
    Some,
    /// As `Some`, and the writes that are kept are torn in sectors of 512 bytes.
    Torn,
    /// Names and lengths are kept, and the bytes are zeros.
    Zeros,
}

pub(crate) const LOSSES: [Loss; 5] =
    [Loss::Strict, Loss::Nothing, Loss::Some, Loss::Torn, Loss::Zeros];

#[derive(Clone, Debug)]
enum Pending {
    Write(u64, Vec<u8>),
    SetLen(u64),
}

/// A file's bytes on disk, and what was done to it since its last sync.
#[derive(Clone, Debug, Default)]
struct Inode {
    durable: Vec<u8>,
    pending: Vec<Pending>,
}

/// What a name leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Node {
    File(usize),
    Dir,
}

/// A disk that recorded changes are played to.
#[derive(Clone, Default)]
pub(crate) struct Image {
    inodes: Vec<Inode>,
    /// The names as programs see them.
    names: BTreeMap<PathBuf, Node>,
    /// The names that are durable.
    durable: BTreeMap<PathBuf, Node>,
}

impl Image {
    /// A disk on which everything in `dir`, an existing directory, is durable.
    pub(crate) fn of(dir: &Path) -> io::Result<Image> {
        let mut image = Image::default();
        image.adopt(dir)?;
        Ok(image)
    }

    fn adopt(&mut self, dir: &Path) -> io::Result<()> {
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            let node = if path.is_dir() {
                self.adopt(&path)?;
                Node::Dir
            } else {
                self.inodes.push(Inode { durable: fs::read(&path)?, pending: Vec::new() });
                Node::File(self.inodes.len() - 1)
            };
            self.names.insert(path.clone(), node);
            self.durable.insert(path, node);
        }
        Ok(())
    }

    pub(crate) fn play(&mut self, event: &Event) {
        match event {
            Event::CreateDir(path) => {
                self.names.insert(path.clone(), Node::Dir);
            }
            Event::Create(path) => self.create(path),
            Event::Write(path, offset, bytes) => {
                self.change(path, Pending::Write(*offset, bytes.clone()));
            }
            Event::SetLen(path, len) => self.change(path, Pending::SetLen(*len)),
            Event::Sync(path) => self.sync(path),
            Event::SyncDir(dir) => self.sync_dir(dir),
            Event::Rename(from, to) => {
                if let Some(node) = self.names.remove(from) {
                    self.names.insert(to.clone(), node);
                }
            }
            Event::Remove(path) => {
                self.names.remove(path);
            }
        }
    }

    fn create(&mut self, path: &Path) {
        if self.names.contains_key(path) {
            self.change(path, Pending::SetLen(0));
        } else {
            self.inodes.push(Inode::default());
            self.names.insert(path.into(), Node::File(self.inodes.len() - 1));
        }
    }

    fn inode(&mut self, path: &Path) -> Option<&mut Inode> {
        match self.names.get(path)? {
            Node::File(number) => self.inodes.get_mut(*number),
            Node::Dir => None,
        }
    }

    fn change(&mut self, path: &Path, pending: Pending) {
        // A file whose name is gone takes changes to the grave.
        if let Some(inode) = self.inode(path) {
            inode.pending.push(pending);
        }
    }

    fn sync(&mut self, path: &Path) {
        if let Some(inode) = self.inode(path) {
            let pending = std::mem::take(&mut inode.pending);
            pending.iter().for_each(|pending| apply(&mut inode.durable, pending));
        }
    }

    fn sync_dir(&mut self, dir: &Path) {
        self.durable.retain(|path, _| path.parent() != Some(dir));
        let names = self.names.iter().filter(|(path, _)| path.parent() == Some(dir));
        self.durable.extend(names.map(|(path, node)| (path.clone(), *node)));
    }

    /// A sync failed before, so bytes that were not synced never reach the disk, and no later sync says
    /// so; programs go on to see them.
    pub(crate) fn lose_unsynced_bytes(&mut self) {
        for inode in &mut self.inodes {
            inode.pending.retain(|pending| matches!(pending, Pending::SetLen(_)));
        }
    }

    /// The same disk, with `from` replaced by `to` in every path.
    pub(crate) fn moved(&self, from: &Path, to: &Path) -> Image {
        let moved = |names: &BTreeMap<PathBuf, Node>| {
            let moved = names.iter().map(|(path, node)| {
                let path = path.strip_prefix(from).map_or(path.clone(), |rest| to.join(rest));
                (path, *node)
            });
            moved.collect()
        };
        let (names, durable) = (moved(&self.names), moved(&self.durable));
        Image { inodes: self.inodes.clone(), names, durable }
    }

    /// Writes what is left after a power cut, with `from` replaced by `to` in every path. Both are
    /// directories that exist.
    pub(crate) fn materialise(
        &self,
        loss: Loss,
        rng: &mut Rng,
        from: &Path,
        to: &Path,
    ) -> io::Result<()> {
        let names = self.names_after(loss, rng);
        for (path, node) in &names {
            let Ok(relative) = path.strip_prefix(from) else { continue };
            // A name in a directory that is lost is lost.
            let parents = path.ancestors().skip(1).take_while(|parent| *parent != from);
            if parents.into_iter().any(|parent| names.get(parent) != Some(&Node::Dir)) {
                continue;
            }
            let target = to.join(relative);
            match node {
                Node::Dir => fs::create_dir_all(&target)?,
                Node::File(number) => {
                    fs::write(&target, bytes_after(&self.inodes[*number], loss, rng))?;
                }
            }
        }
        Ok(())
    }

    fn names_after(&self, loss: Loss, rng: &mut Rng) -> BTreeMap<PathBuf, Node> {
        match loss {
            Loss::Strict => self.durable.clone(),
            Loss::Nothing | Loss::Zeros => self.names.clone(),
            Loss::Some | Loss::Torn => {
                let paths = self.durable.keys().chain(self.names.keys());
                let pick = |path: &PathBuf| {
                    let (old, new) = (self.durable.get(path), self.names.get(path));
                    let node = if old == new || rng.one_in(2) { new } else { old };
                    node.map(|node| (path.clone(), *node))
                };
                let mut paths: Vec<&PathBuf> = paths.collect();
                paths.sort();
                paths.dedup();
                paths.into_iter().filter_map(pick).collect()
            }
        }
    }
}

fn apply(bytes: &mut Vec<u8>, pending: &Pending) {
    match pending {
        Pending::SetLen(len) => bytes.resize(*len as usize, 0),
        Pending::Write(offset, new) => {
            let end = *offset as usize + new.len();
            if bytes.len() < end {
                bytes.resize(end, 0);
            }
            bytes[*offset as usize..end].copy_from_slice(new);
        }
    }
}

fn bytes_after(inode: &Inode, loss: Loss, rng: &mut Rng) -> Vec<u8> {
    let mut bytes = inode.durable.clone();
    for pending in &inode.pending {
        match (loss, pending) {
            (Loss::Strict, _) => {}
            (Loss::Nothing, pending) => apply(&mut bytes, pending),
            (Loss::Zeros, Pending::Write(offset, new)) => {
                let end = *offset as usize + new.len();
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
            }
            (Loss::Zeros, pending) => apply(&mut bytes, pending),
            (Loss::Some | Loss::Torn, _) if rng.one_in(2) => {}
            (Loss::Torn, Pending::Write(offset, new)) => tear(&mut bytes, *offset, new, rng),
            (Loss::Some | Loss::Torn, pending) => apply(&mut bytes, pending),
        }
    }
    bytes
}

/// Keeps any of the sectors that a write touches.
fn tear(bytes: &mut Vec<u8>, offset: u64, new: &[u8], rng: &mut Rng) {
    const SECTOR: u64 = 512;
    let (mut at, end) = (offset, offset + new.len() as u64);
    while at < end {
        let next = (at / SECTOR + 1) * SECTOR;
        let piece = &new[(at - offset) as usize..(next.min(end) - offset) as usize];
        if rng.one_in(2) {
            apply(bytes, &Pending::Write(at, piece.to_vec()));
        }
        at = next;
    }
}
