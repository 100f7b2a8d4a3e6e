//! The index: key -> address for a get, keys in order for a list; two structures that one writer
//! keeps in step.
//!
//! ```text
//!            get ──> hash   tag + address in 8 bytes; the key is compared in the record
//!           list ──> tree   keys in order, expiry, has-metadata; no addresses
//!   IndexWriter  ──> both
//! ```
//!
//! Readers are any number, take no lock and never wait; they pin ([`Index::pin`]), look, and unpin.
//! There is one [`IndexWriter`] per index, and its methods take it mutably, so that "one writer" is
//! checked by the compiler.
//!
//! The order of publication, on which everything else stands:
//! 1. A record is complete before its address is given to the writer; whoever gets an address from the
//!    index sees the record.
//! 2. A new key enters the hash, then the tree. A removed one leaves the tree, then the hash. So a key
//!    that a list shows can be got, unless it is removed meanwhile.
//! 3. Changed traits: the hash first, then the tree.
//! 4. Blocks and tables are retired after they are out of reach, and freed by the writer, some with
//!    every write, when no pin of that time is left. Readers never free.
//!
//! What the engine owes: it probes records truthfully (a slot holds 24 bits of a hash, no key); it
//! keeps an address readable from before it is given to the writer until every pin is gone that was
//! there when the address left the index ([`Reclaimer`] does for segments what it does for blocks
//! here); it pins before it looks and does not hold a pin while it waits.
//!
//! A list is exact key by key, at the moment each leaf is read, and no snapshot.
//!
//! Absent on purpose: versions and snapshots, seqnos (the record has them), expiry as a rule (the index
//! only keeps the time), and a bound on memory (the numbers are here, the decision is the engine's).

#[expect(unsafe_code, reason = "takes memory for tables and gives it back")]
mod arena;
#[expect(unsafe_code, reason = "lays out, reads and frees the tree's blocks byte by byte")]
mod block;
#[expect(unsafe_code, reason = "views and frees tables that readers share without a lock")]
mod hash;
mod reclaim;
#[expect(unsafe_code, reason = "views and frees blocks that readers share without a lock")]
mod tree;

use std::ops::ControlFlow;

use crate::address::Address;
use crate::sync::Arc;

use block::{KEY_LEN_MAX, Keys};
use hash::{Hash, HashWriter, Words};
use tree::{BulkLeaves, Limits, Tree, TreeWriter};

pub(crate) use block::{Traits, Visited, prefetch};
pub(crate) use hash::KeyHash;
pub(crate) use reclaim::{Guard, Reclaimer};

/// An empty index. `seed` should differ from store to store and from open to open, so that nobody can
/// prepare keys that collide.
pub(crate) fn new(seed: u64) -> (Index, IndexWriter) {
    join(hash::new(seed), tree::new(Limits::STANDARD))
}

fn join(hash: (Arc<Hash>, HashWriter), tree: (Arc<Tree>, TreeWriter)) -> (Index, IndexWriter) {
    (Index { hash: hash.0, tree: tree.0 }, IndexWriter { hash: hash.1, tree: tree.1 })
}

/// The readers' side; cheap to clone. It may outlive the writer.
#[derive(Clone)]
pub(crate) struct Index {
    hash: Arc<Hash>,
    tree: Arc<Tree>,
}

/// What the index takes of memory, in bytes asked of the allocator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IndexMemory {
    pub(crate) keys: u64,
    pub(crate) hash_bytes: u64,
    pub(crate) tree_bytes: u64,
    /// Out of use, and not free yet because a reader may still look.
    pub(crate) retired_bytes: u64,
}

/// What [`Index::check`] found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct IndexCheck {
    pub(crate) keys_in_tree: u64,
    pub(crate) keys_in_hash: u64,
    /// Keys of the tree for which no record was found through the hash.
    pub(crate) not_in_hash: u64,
    /// Keys of the tree that are not larger than the one before.
    pub(crate) out_of_order: u64,
}

impl IndexCheck {
    pub(crate) fn is_sound(&self) -> bool {
        self.keys_in_tree == self.keys_in_hash && self.not_in_hash == 0 && self.out_of_order == 0
    }
}

/// Keys that [`Index::check`] looks at under one pin.
const CHECKED_PER_PIN: u64 = 1000;

impl Index {
    /// Keeps what the index shows alive while the guard lives.
    #[inline]
    pub(crate) fn pin(&self) -> Guard {
        Guard::pin()
    }

    #[inline]
    pub(crate) fn hash(&self, key: &[u8]) -> KeyHash {
        self.hash.hash(key)
    }

    /// The hash of the composite key that these two make.
    #[inline]
    pub(crate) fn hash_in(&self, namespace: u32, key: &[u8]) -> KeyHash {
        self.hash.hash_in(namespace, key)
    }

    /// Has the processor fetch what [`Self::get`] will read first.
    #[inline]
    pub(crate) fn prefetch(&self, hash: KeyHash, _guard: &Guard) {
        self.hash.prefetch(hash);
    }

    /// Calls `probe` with each address that may be this key's until it answers; the caller compares
    /// the key in the record.
    #[inline]
    pub(crate) fn get<R>(
        &self,
        hash: KeyHash,
        guard: &Guard,
        probe: impl FnMut(Address) -> Option<R>,
    ) -> Option<R> {
        self.hash.get(hash, guard, probe)
    }

    /// Visits the keys from the first one >= `start` on, in order, until `visit` breaks.
    pub(crate) fn walk(
        &self,
        start: &[u8],
        guard: &Guard,
        mut visit: impl FnMut(&[u8], Traits) -> ControlFlow<()>,
    ) {
        self.tree.walk(start, None, guard, &mut Vec::new(), |key, traits| {
            if visit(key, traits).is_continue() { Visited::Skip } else { Visited::Stop }
        });
    }

    /// Visits the keys in [`start`, `end`), or from `start` on, in order, until `visit` says to stop;
    /// appends those that it says to keep to `keys`, one after the other.
    #[inline(always)]
    pub(crate) fn gather(
        &self,
        start: &[u8],
        end: Option<&[u8]>,
        guard: &Guard,
        keys: &mut Vec<u8>,
        visit: impl FnMut(&[u8], Traits) -> Visited,
    ) {
        self.tree.walk(start, end, guard, keys, visit);
    }

    /// The same from the last key of the range to the first.
    #[inline(always)]
    pub(crate) fn gather_back(
        &self,
        start: &[u8],
        end: Option<&[u8]>,
        guard: &Guard,
        keys: &mut Vec<u8>,
        visit: impl FnMut(&[u8], Traits) -> Visited,
    ) {
        self.tree.walk_back(start, end, guard, keys, visit);
    }

    pub(crate) fn memory(&self) -> IndexMemory {
        IndexMemory {
            keys: self.hash.keys(),
            hash_bytes: self.hash.bytes(),
            tree_bytes: self.tree.bytes(),
            retired_bytes: self.hash.retired_bytes() + self.tree.retired_bytes(),
        }
    }

    /// Walks the tree and looks every key up in the hash. `probe` says whether the record there has
    /// this key. Pins for a page at a time; the answer is exact only if nothing is written meanwhile.
    pub(crate) fn check(&self, mut probe: impl FnMut(Address, &[u8]) -> bool) -> IndexCheck {
        let mut check = IndexCheck::default();
        let mut last: Option<Vec<u8>> = None;
        loop {
            let start = last.as_ref().map_or(Vec::new(), |key| [key, &[0][..]].concat());
            let page_end = check.keys_in_tree + CHECKED_PER_PIN;
            let guard = self.pin();
            self.walk(&start, &guard, |key, _| {
                let found =
                    self.get(self.hash(key), &guard, |address| probe(address, key).then_some(()));
                check.keys_in_tree += 1;
                check.not_in_hash += u64::from(found.is_none());
                check.out_of_order += u64::from(last.as_deref().is_some_and(|last| key <= last));
                let last = last.get_or_insert_default();
                last.clear();
                last.extend_from_slice(key);
                if check.keys_in_tree < page_end {
                    ControlFlow::Continue(())
                } else {
                    ControlFlow::Break(())
                }
            });
            if check.keys_in_tree < page_end {
                check.keys_in_hash = self.memory().keys;
                return check;
            }
        }
    }
}

/// The writer's side. There is one per index.
pub(crate) struct IndexWriter {
    hash: HashWriter,
    tree: TreeWriter,
}

impl IndexWriter {
    /// Puts key -> address. `probe` gets the addresses that may be this key's and answers with the
    /// traits the key was put with if the record there has this very key. Returns the address that was
    /// replaced. A key that is in and keeps its traits costs one store; the tree is not touched.
    ///
    /// # Panics
    /// If the key is longer than the namespace number and 1,024 bytes: a bug of the caller.
    pub(crate) fn upsert(
        &mut self,
        key: &[u8],
        address: Address,
        traits: Traits,
        probe: impl FnMut(Address) -> Option<Traits>,
    ) -> Option<Address> {
        assert!(key.len() <= KEY_LEN_MAX, "a key of {} bytes", key.len());
        let hash = self.hash.hash(key);
        let replaced = match self.hash.find(hash, probe) {
            Some((found, old_traits)) => {
                self.hash.set(found, address);
                if old_traits != traits {
                    self.tree.put(key, traits);
                }
                Some(found.address)
            }
            None => {
                self.hash.insert(hash, address);
                self.tree.put(key, traits);
                None
            }
        };
        self.hash.sweep();
        replaced
    }

    /// Removes a key. `probe` says whether the record at an address has this very key. Returns where
    /// the key pointed.
    pub(crate) fn remove(
        &mut self,
        key: &[u8],
        mut probe: impl FnMut(Address) -> bool,
    ) -> Option<Address> {
        let hash = self.hash.hash(key);
        let (found, ()) = self.hash.find(hash, |address| probe(address).then_some(()))?;
        self.remove_found(key, found);
        Some(found.address)
    }

    /// Removes a key if it points exactly at `address`, which is where a record of this key is or was:
    /// nothing else tells keys with one tag apart.
    pub(crate) fn remove_at(&mut self, key: &[u8], address: Address) -> bool {
        let found = self.hash.find_at(self.hash.hash(key), address);
        found.is_some_and(|found| {
            self.remove_found(key, found);
            true
        })
    }

    fn remove_found(&mut self, key: &[u8], found: hash::Found) {
        let was_in_tree = self.tree.remove(key);
        debug_assert!(was_in_tree, "a key in the hash is in the tree");
        self.hash.remove(found);
        self.hash.sweep();
    }

    /// Moves a key from one address to another if it still points at the first; both are records of
    /// this key. One store.
    pub(crate) fn relocate(&mut self, key: &[u8], from: Address, to: Address) -> bool {
        let found = self.hash.find_at(self.hash.hash(key), from);
        found.is_some_and(|found| {
            self.hash.set(found, to);
            true
        })
    }

    /// Removes every key in [`start`, `end`), or from `start` on, a leaf at a time. `probe` says
    /// whether the record at an address has this key; `removed` gets the address of each key removed.
    pub(crate) fn remove_range(
        &mut self,
        start: &[u8],
        end: Option<&[u8]>,
        mut probe: impl FnMut(Address, &[u8]) -> bool,
        mut removed: impl FnMut(Address),
    ) {
        let (mut from, mut keys) = (start.to_vec(), Keys::default());
        let mut more = true;
        while more {
            more = self.tree.remove_in_one_leaf(&mut from, end, &mut keys);
            for key in keys.iter() {
                let hash = self.hash.hash(key);
                let found = self.hash.find(hash, |address| probe(address, key).then_some(()));
                debug_assert!(found.is_some(), "a key in the tree is in the hash");
                if let Some((found, ())) = found {
                    self.hash.remove(found);
                    removed(found.address);
                }
            }
            self.hash.sweep();
            keys.clear();
        }
    }

    /// A part of a bulk load, to be filled by whatever thread.
    pub(crate) fn bulk_part(&self) -> BulkPart {
        let (hash, words) = (self.hash.shared(), Words::new());
        BulkPart { hash, words, leaves: self.tree.bulk() }
    }

    /// Fills an empty index with the keys of `parts`, on as many threads as `threads`.
    ///
    /// # Panics
    /// If the index is not empty, or the keys of a part are not all larger than those of the part before.
    pub(crate) fn bulk_load(&mut self, parts: Vec<BulkPart>, threads: usize) {
        assert_eq!(self.hash.keys(), 0, "a bulk load needs an empty index");
        let (leaves, words): (Vec<_>, Vec<_>) =
            parts.into_iter().map(|part| (part.leaves, part.words)).unzip();
        self.hash.fill(&words, threads);
        self.tree.adopt(leaves);
    }

    /// Frees what readers can no longer see, and helps the epoch along. For when there is nothing else
    /// to do; a few calls free all of it if nobody is pinned.
    pub(crate) fn collect(&mut self) {
        self.hash.collect();
        self.tree.collect();
    }
}

/// Keys that are to fill an empty index together with those of other parts. Dropped before that, it
/// leaves nothing behind.
pub(crate) struct BulkPart {
    hash: Arc<Hash>,
    words: Words,
    leaves: BulkLeaves,
}

impl BulkPart {
    /// # Panics
    /// If `key` is not larger than the one before, or too long: a bug of the caller.
    pub(crate) fn push(&mut self, key: &[u8], address: Address, traits: Traits) {
        assert!(key.len() <= KEY_LEN_MAX, "a key of {} bytes", key.len());
        self.words.push(self.hash.hash(key), address);
        self.leaves.push(key, traits);
    }
}

#[cfg(all(test, loom))]
#[expect(unsafe_code, reason = "a model reads a record that the index is to have published")]
mod loom_models;
#[cfg(all(test, not(loom)))]
mod tests;
