//! The hash: key -> address, in eight bytes a key plus what a table keeps free.
//!
//! ```text
//!   KeyHash   shard (14 bits) | tag (24 bits) | unused
//!   shard     pointer to its table | size class in the 6 low bits
//!   table     buckets of one cache line, 8 slots each
//!   slot      tag (24 bits) | address (40 bits)
//!             all zero: never used      tag without address: removed
//! ```
//!
//! A slot holds no key, so a lookup may meet another key's address under its tag: whoever looks up
//! compares the key in the record. The home bucket follows from the tag, so a table grows from what
//! its slots hold, without reading a key; and the tag is independent of the shard.
//!
//! What always holds:
//! - A key that is in has one slot per table, in the first bucket from its home on that had room when
//!   it came. It does not leave that slot until it is removed.
//! - A bucket with a never-used slot was never full, so nothing was ever pushed past it: a search ends
//!   there. Hence a removed slot turns to never used only if its bucket has another such slot.
//! - A table has at least one never-used slot.
//! - Storing a slot is one `Release` store, and reading one is `Acquire`: whoever sees an address sees
//!   the record that was complete before the store. Overwrite, move and remove are one store each.
//! - A table that was replaced is never written again. A reader who still has it sees the shard as it
//!   was at that moment, which lies within its own get; the next get finds the new table.
//!
//! Tables lie in an [`Arena`], so that huge pages hold many of them. Freed ones leave room between the
//! others: two or three bytes a key in a store that only grows. That counts as the hash's memory.
//!
//! Size classes instead of a count beside the pointer: pointer and size must change in one store, and
//! the alignment of a bucket leaves just six bits, on every platform.
//!
//! Absent on purpose: iteration (the tree has the order), keys, reference counts, and any reader's
//! write.
//!
//! Loom runs this very code, with one shard and two slots a bucket: see `loom_models.rs`.

use std::hash::Hasher;
use std::ptr::NonNull;

use foldhash::fast::FixedState;

use super::arena::Arena;
use super::block::prefetch;
use super::reclaim::{Gauge, Guard, Reclaimer};
use crate::address::Address;
use crate::sync::{Arc, AtomicPtr, AtomicU64, Mutex, Ordering};
use crate::workers;

/// 16,384 shards: a shard grows in one go while the writer waits, so it must stay small. At 10^8 keys
/// one holds about 6,100.
const SHARD_BITS: u32 = if cfg!(loom) { 0 } else { 14 };
const SLOTS: usize = if cfg!(loom) { 2 } else { 8 };

const TAG_BITS: u32 = 24;
const ADDRESS_MASK: u64 = (1 << Address::BITS) - 1;
const _: () = assert!(TAG_BITS + Address::BITS == u64::BITS);

/// Never used.
const EMPTY: u64 = 0;
/// Used, and free again. No packed address is zero, so it is nobody's slot.
const REMOVED: u64 = 1 << Address::BITS;

const CLASS_MASK: usize = 63;

/// Buckets in a table of each size class: by a quarter, and by at least one.
const BUCKETS: [u32; CLASS_MASK + 1] = {
    let mut buckets = [1u32; CLASS_MASK + 1];
    let mut class = 1;
    while class < buckets.len() {
        let last = buckets[class - 1];
        buckets[class] = if last < 8 { last + 1 } else { last + last / 4 };
        class += 1;
    }
    // The home bucket is computed as tag * buckets >> 24.
    assert!(buckets[CLASS_MASK] < 1 << TAG_BITS);
    buckets
};

#[repr(align(64))]
struct Bucket([AtomicU64; SLOTS]);
const _: () = assert!(align_of::<Bucket>() > CLASS_MASK);
#[cfg(not(loom))]
const _: () = assert!(size_of::<Bucket>() == 64);

/// The hash of a key, under this index's seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KeyHash(u64);

impl KeyHash {
    #[inline]
    fn shard(self) -> usize {
        (self.0 >> 40 >> (24 - SHARD_BITS)) as usize
    }

    #[inline]
    fn tag(self) -> u64 {
        (self.0 >> 26) & ((1 << TAG_BITS) - 1)
    }

    #[inline]
    fn word(self, address: Address) -> u64 {
        (self.tag() << Address::BITS) | address.to_bits()
    }
}

/// A table as a shard names it: pointer and size class in one, or null for no table.
#[derive(Clone, Copy, PartialEq, Eq)]
struct TablePtr(*mut Bucket);

// SAFETY: a table belongs to no thread: it is atomics in the memory of an arena. Who may look at it,
// and who frees it, is stated where that is done.
unsafe impl Send for TablePtr {}

impl TablePtr {
    const NONE: TablePtr = TablePtr(std::ptr::null_mut());

    /// An empty table, in the memory of `arena`.
    fn new(class: usize, arena: &mut Arena<Bucket>) -> TablePtr {
        let bucket = || Bucket(std::array::from_fn(|_| AtomicU64::new(EMPTY)));
        let first = arena.take(BUCKETS[class] as usize, bucket).as_ptr();
        debug_assert_eq!(first.addr() & CLASS_MASK, 0);
        TablePtr(first.map_addr(|address| address | class))
    }

    fn class(self) -> usize {
        self.0.addr() & CLASS_MASK
    }

    #[inline]
    fn len(self) -> usize {
        if self.0.is_null() { 0 } else { BUCKETS[self.class()] as usize }
    }

    fn bytes(self) -> usize {
        self.len() * size_of::<Bucket>()
    }

    #[inline]
    fn first(self) -> *mut Bucket {
        self.0.map_addr(|address| address & !CLASS_MASK)
    }

    /// # Safety
    /// The table is not freed during `'a`, and making it happened before this call.
    #[inline]
    unsafe fn view<'a>(self) -> Table<'a> {
        if self.0.is_null() {
            return Table(&[]);
        }
        // SAFETY: `new` took `len` buckets that start at `first`; they are still there, says the
        // caller, and everything in them is atomic.
        Table(unsafe { std::slice::from_raw_parts(self.first(), self.len()) })
    }

    /// # Safety
    /// It was made in `arena`; nobody has a view of it or can reach it; and it is not freed twice.
    unsafe fn free(self, arena: &mut Arena<Bucket>) {
        if let Some(first) = NonNull::new(self.first()) {
            // SAFETY: `new` took this very slice; nobody else uses it, says the caller.
            unsafe { arena.give_back(first, self.len()) };
        }
    }
}

/// A table as it is searched.
#[derive(Clone, Copy)]
struct Table<'a>(&'a [Bucket]);

/// Which slot of a table.
#[derive(Clone, Copy)]
struct Place {
    bucket: usize,
    slot: usize,
}

impl<'a> Table<'a> {
    #[inline]
    fn home(self, tag: u64) -> usize {
        ((tag * self.0.len() as u64) >> TAG_BITS) as usize
    }

    #[inline]
    fn next(self, bucket: usize) -> usize {
        if bucket + 1 == self.0.len() { 0 } else { bucket + 1 }
    }

    fn slot(self, place: Place) -> &'a AtomicU64 {
        &self.0[place.bucket].0[place.slot]
    }

    fn slots(self) -> usize {
        self.0.len() * SLOTS
    }

    /// Calls `probe` with every address under `tag` until it answers.
    #[inline]
    fn find<R>(self, tag: u64, mut probe: impl FnMut(Place, Address) -> Option<R>) -> Option<R> {
        let mut bucket = self.home(tag);
        for _ in 0..self.0.len() {
            let mut was_never_full = false;
            for (slot, cell) in self.0[bucket].0.iter().enumerate() {
                let word = cell.load(Ordering::Acquire);
                if word >> Address::BITS == tag && word & ADDRESS_MASK != 0 {
                    let address = Address::from_bits(word & ADDRESS_MASK);
                    let answer = probe(Place { bucket, slot }, address);
                    if answer.is_some() {
                        return answer;
                    }
                }
                was_never_full |= word == EMPTY;
            }
            if was_never_full {
                return None;
            }
            bucket = self.next(bucket);
        }
        None
    }

    /// Stores a word that is not in the table in the first free slot; returns what that slot held.
    fn place(self, word: u64) -> u64 {
        let mut bucket = self.home(word >> Address::BITS);
        for _ in 0..self.0.len() {
            for cell in &self.0[bucket].0 {
                let held = cell.load(Ordering::Relaxed);
                if held & ADDRESS_MASK == 0 {
                    cell.store(word, Ordering::Release);
                    return held;
                }
            }
            bucket = self.next(bucket);
        }
        unreachable!("a table always has a free slot")
    }

    /// Frees a slot; returns what it holds now.
    fn vacate(self, place: Place) -> u64 {
        let bucket = &self.0[place.bucket].0;
        let was_never_full = bucket.iter().any(|cell| cell.load(Ordering::Relaxed) == EMPTY);
        let free = if was_never_full { EMPTY } else { REMOVED };
        self.slot(place).store(free, Ordering::Release);
        free
    }
}

/// The readers' side.
pub(super) struct Hash {
    shards: Box<[AtomicPtr<Bucket>]>,
    state: FixedState,
    keys: Gauge,
    bytes: Gauge,
    retired_bytes: Gauge,
    /// Where all tables lie, once the writer is gone.
    memory: Mutex<Option<Arena<Bucket>>>,
    /// Forces tags to collide.
    #[cfg(test)]
    hash_mask: u64,
}

impl Hash {
    /// Of a composite key.
    #[inline]
    pub(super) fn hash(&self, key: &[u8]) -> KeyHash {
        match key.split_first_chunk() {
            Some((number, rest)) => self.hash_in(u32::from_be_bytes(*number), rest),
            None => self.hash_in(0, key),
        }
    }

    /// The same of a composite key that is not put together: its number comes in one go, so that a
    /// reader need not copy the key behind it.
    #[inline]
    pub(super) fn hash_in(&self, number: u32, key: &[u8]) -> KeyHash {
        use std::hash::BuildHasher;
        let mut hasher = self.state.build_hasher();
        hasher.write_u32(number);
        hasher.write(key);
        let hash = hasher.finish();
        #[cfg(test)]
        let hash = hash & self.hash_mask;
        KeyHash(hash)
    }

    #[inline]
    pub(super) fn prefetch(&self, hash: KeyHash) {
        // Only the address is computed, so it does not matter whether the table is still there.
        let table = TablePtr(self.shards[hash.shard()].load(Ordering::Acquire));
        let home = ((hash.tag() * table.len() as u64) >> TAG_BITS) as usize;
        prefetch(table.first().wrapping_add(home));
    }

    #[inline]
    pub(super) fn get<R>(
        &self,
        hash: KeyHash,
        guard: &Guard,
        mut probe: impl FnMut(Address) -> Option<R>,
    ) -> Option<R> {
        self.table(hash, guard).find(hash.tag(), |_, address| probe(address))
    }

    #[inline]
    fn table<'a>(&'a self, hash: KeyHash, _guard: &'a Guard) -> Table<'a> {
        let table = TablePtr(self.shards[hash.shard()].load(Ordering::Acquire));
        // SAFETY: the table was reachable after the guard pinned this thread. The writer retires a
        // table only after it stored another one in the shard, and frees it only after every pin of
        // that time is gone. The rest is freed with the memory it lies in, which the writer owns and
        // leaves to `self` when it goes; the writer owns `self` too. The `Acquire` load sees the table
        // made.
        unsafe { table.view() }
    }

    pub(super) fn keys(&self) -> u64 {
        self.keys.get()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes.get()
    }

    pub(super) fn retired_bytes(&self) -> u64 {
        self.retired_bytes.get()
    }
}

/// A panic elsewhere leaves nothing half done behind these locks.
fn lock<T>(mutex: &Mutex<T>) -> crate::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Shards whose keys are put together before a hash is filled: their tables stay in a core's cache.
const GROUP_SHARDS: usize = if cfg!(loom) { 1 } else { 256 };

/// Keys that are to be put into an empty hash, grouped by shards.
pub(super) struct Words {
    groups: Box<[Group]>,
}

/// What the slots of some neighbouring shards are to hold, and in which of them.
#[derive(Default)]
struct Group {
    words: Vec<u64>,
    shards: Vec<u8>,
}

impl Words {
    pub(super) fn new() -> Words {
        Words { groups: (0..(1 << SHARD_BITS) / GROUP_SHARDS).map(|_| Group::default()).collect() }
    }

    #[inline]
    pub(super) fn push(&mut self, hash: KeyHash, address: Address) {
        let group = &mut self.groups[hash.shard() / GROUP_SHARDS];
        group.words.push(hash.word(address));
        group.shards.push((hash.shard() % GROUP_SHARDS) as u8);
    }
}

impl Group {
    /// Puts the words into the tables of these shards, which have room for them.
    fn place(&self, shards: &[AtomicPtr<Bucket>]) {
        for (word, shard) in self.words.iter().zip(&self.shards) {
            let table = TablePtr(shards[usize::from(*shard)].load(Ordering::Relaxed));
            // SAFETY: the writer made the table, on the thread that started this one, and holds on to it
            // while it has groups placed.
            unsafe { table.view() }.place(*word);
        }
    }
}

/// How full a shard's table is.
#[derive(Clone, Copy, Default)]
struct Load {
    keys: u32,
    /// Slots that are not never used.
    used: u32,
}

/// The writer's side. There is one per hash.
pub(super) struct HashWriter {
    hash: Arc<Hash>,
    loads: Box<[Load]>,
    /// Where all tables lie, retired ones too.
    arena: Arena<Bucket>,
    retired: Reclaimer<TablePtr>,
}

/// A slot found for a key, good until the next change.
#[derive(Clone, Copy)]
pub(super) struct Found {
    hash: KeyHash,
    place: Place,
    pub(super) address: Address,
}

/// Replaced tables under one flag.
const BATCH: usize = 64;
/// Tables freed by one write, if so many are ready.
const FREED_PER_WRITE: usize = 2;

pub(super) fn new(seed: u64) -> (Arc<Hash>, HashWriter) {
    with_batch(seed, BATCH)
}

pub(super) fn with_batch(seed: u64, batch: usize) -> (Arc<Hash>, HashWriter) {
    let shards = 1usize << SHARD_BITS;
    let hash = Arc::new(Hash {
        shards: (0..shards).map(|_| AtomicPtr::new(TablePtr::NONE.0)).collect(),
        state: FixedState::with_seed(seed),
        keys: Gauge::default(),
        bytes: Gauge::default(),
        retired_bytes: Gauge::default(),
        memory: Mutex::new(None),
        #[cfg(test)]
        hash_mask: u64::MAX,
    });
    let writer = HashWriter {
        hash: Arc::clone(&hash),
        loads: vec![Load::default(); shards].into_boxed_slice(),
        arena: Arena::default(),
        retired: Reclaimer::new(batch),
    };
    writer.note_bytes();
    (hash, writer)
}

/// A hash whose keys' hashes keep only the bits in `mask`.
#[cfg(all(test, not(loom)))]
pub(super) fn with_hash_mask(seed: u64, mask: u64) -> (Arc<Hash>, HashWriter) {
    let (hash, mut writer) = new(seed);
    drop(hash);
    Arc::get_mut(&mut writer.hash).expect("nobody else has it yet").hash_mask = mask;
    (Arc::clone(&writer.hash), writer)
}

impl HashWriter {
    #[inline]
    pub(super) fn hash(&self, key: &[u8]) -> KeyHash {
        self.hash.hash(key)
    }

    /// Hashes keys as this hash does.
    pub(super) fn shared(&self) -> Arc<Hash> {
        Arc::clone(&self.hash)
    }

    pub(super) fn keys(&self) -> u64 {
        self.hash.keys()
    }

    /// The first slot under this key's tag whose address `probe` answers.
    #[inline]
    pub(super) fn find<R>(
        &self,
        hash: KeyHash,
        mut probe: impl FnMut(Address) -> Option<R>,
    ) -> Option<(Found, R)> {
        let table = self.table(hash.shard());
        table.find(hash.tag(), |place, address| {
            probe(address).map(|answer| (Found { hash, place, address }, answer))
        })
    }

    /// The slot that points exactly at `address`.
    pub(super) fn find_at(&self, hash: KeyHash, address: Address) -> Option<Found> {
        self.find(hash, |other| (other == address).then_some(())).map(|(found, ())| found)
    }

    /// One store: the slot points at another address.
    #[inline]
    pub(super) fn set(&mut self, found: Found, address: Address) {
        let slot = self.table(found.hash.shard()).slot(found.place);
        debug_assert_eq!(slot.load(Ordering::Relaxed), found.hash.word(found.address));
        slot.store(found.hash.word(address), Ordering::Release);
    }

    /// The caller knows that the key is not in.
    pub(super) fn insert(&mut self, hash: KeyHash, address: Address) {
        let shard = hash.shard();
        let load = self.loads[shard];
        if (load.used as usize + 1) * 8 > self.table(shard).slots() * 7 {
            self.rebuild(shard, class_after_growth(load.keys as usize + 1, self.current(shard)));
        }
        let held = self.table(shard).place(hash.word(address));
        let load = &mut self.loads[shard];
        load.keys += 1;
        load.used += u32::from(held == EMPTY);
        self.hash.keys.add(1);
    }

    pub(super) fn remove(&mut self, found: Found) {
        let shard = found.hash.shard();
        let table = self.table(shard);
        debug_assert_eq!(
            table.slot(found.place).load(Ordering::Relaxed),
            found.hash.word(found.address)
        );
        let (slots, holds) = (table.slots(), table.vacate(found.place));
        let load = &mut self.loads[shard];
        load.keys -= 1;
        load.used -= u32::from(holds == EMPTY);
        self.hash.keys.subtract(1);
        let keys = load.keys as usize;
        if keys == 0 || (keys * 4 < slots && slots > SLOTS) {
            self.rebuild(shard, class_after_shrinking(keys));
        }
    }

    /// Puts the keys of `parts` into this hash, which is empty, on as many threads as `threads`. The
    /// caller knows that no two are the same.
    pub(super) fn fill(&mut self, parts: &[Words], threads: usize) {
        let groups = self.loads.chunks_mut(GROUP_SHARDS).enumerate().collect();
        workers::map(threads, groups, |(nth, loads)| {
            for shard in parts.iter().flat_map(|part| &part.groups[nth].shards) {
                loads[usize::from(*shard)].keys += 1;
            }
        });
        for (shard, load) in self.hash.shards.iter().zip(&mut self.loads) {
            load.used = load.keys;
            self.hash.keys.add(load.keys as usize);
            let class =
                (load.keys > 0).then(|| class_after_growth(load.keys as usize, TablePtr::NONE));
            if let Some(class) = class.flatten() {
                shard.store(TablePtr::new(class, &mut self.arena).0, Ordering::Release);
            }
        }
        let shards = self.hash.shards.chunks(GROUP_SHARDS).enumerate().collect();
        workers::map(threads, shards, |(nth, shards): (usize, &[AtomicPtr<Bucket>])| {
            parts.iter().for_each(|part| part.groups[nth].place(shards));
        });
        self.note_bytes();
    }

    /// Frees a few tables that nobody can see any more.
    #[inline]
    pub(super) fn sweep(&mut self) {
        for _ in 0..FREED_PER_WRITE {
            if !self.free_one() {
                break;
            }
        }
    }

    /// Frees all tables that nobody can see any more, after helping the epoch along.
    pub(super) fn collect(&mut self) {
        self.retired.flush();
        while self.free_one() {}
    }

    #[cfg(all(test, loom))]
    pub(super) fn retired(&self) -> usize {
        self.retired.len()
    }

    fn free_one(&mut self) -> bool {
        let Some(table) = self.retired.ready() else { return false };
        self.hash.retired_bytes.subtract(table.bytes());
        // SAFETY: the table was retired after another one took its place, and the reclaimer gives it
        // back once, when every reader that could have found it is gone. The writer's own views end
        // with the method that made them.
        unsafe { table.free(&mut self.arena) };
        self.note_bytes();
        true
    }

    /// Keeps the statistics: what is retired counts by itself.
    fn note_bytes(&self) {
        let shards = self.loads.len() * (size_of::<AtomicPtr<Bucket>>() + size_of::<Load>());
        let retired = self.hash.retired_bytes.get();
        self.hash.bytes.set((shards + self.arena.bytes()) as u64 - retired);
    }

    fn current(&self, shard: usize) -> TablePtr {
        TablePtr(self.hash.shards[shard].load(Ordering::Relaxed))
    }

    #[inline]
    fn table(&self, shard: usize) -> Table<'_> {
        // SAFETY: this is the only writer, so the current table stays until `rebuild` replaces it,
        // which needs `&mut self` and so outlives no view; and it was made by this writer.
        unsafe { self.current(shard).view() }
    }

    /// Replaces a shard's table by one of another class, or none, with the same keys in it.
    fn rebuild(&mut self, shard: usize, class: Option<usize>) {
        let old = self.current(shard);
        let new = class.map_or(TablePtr::NONE, |class| TablePtr::new(class, &mut self.arena));
        // SAFETY: this function made the table, and nobody frees it before it is retired.
        let target = unsafe { new.view() };
        for cell in self.table(shard).0.iter().flat_map(|bucket| &bucket.0) {
            let word = cell.load(Ordering::Relaxed);
            if word & ADDRESS_MASK != 0 {
                target.place(word);
            }
        }
        self.hash.shards[shard].store(new.0, Ordering::Release);
        self.loads[shard].used = self.loads[shard].keys;
        if old != TablePtr::NONE {
            self.hash.retired_bytes.add(old.bytes());
            self.retired.retire(old);
        }
        self.note_bytes();
    }
}

impl Drop for HashWriter {
    fn drop(&mut self) {
        // Readers may still look at the tables, and go on to own the hash. Whatever lies in the arena is
        // freed with it, by the last of them.
        *lock(&self.hash.memory) = Some(std::mem::take(&mut self.arena));
    }
}

/// The class to go on with when `keys` do not fit: the present one if removed slots fill it, the next
/// otherwise. Three quarters full at most, so that the next growth is not near.
fn class_after_growth(keys: usize, present: TablePtr) -> Option<usize> {
    let fits = |class: &usize| keys * 4 <= BUCKETS[*class] as usize * SLOTS * 3;
    let class = (present.class()..BUCKETS.len()).find(fits);
    Some(class.expect("10^11 keys are beyond the memory of any machine"))
}

/// The class for what is left in a table that is mostly free: half full at most.
fn class_after_shrinking(keys: usize) -> Option<usize> {
    let fits = |class: &usize| keys * 2 <= BUCKETS[*class] as usize * SLOTS;
    (keys > 0).then(|| (0..BUCKETS.len()).find(fits)).flatten()
}
