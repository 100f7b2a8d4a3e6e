//! The key tree: every key in order, with what a list needs to know of it.
//!
//! A B+tree of immutable blocks. A change builds new blocks beside the old ones and publishes them
//! with one `Release` store: of a child pointer, or of the root.
//!
//! ```text
//!   one key more        new leaf                          -> one child pointer of the parent
//!   split, merge        new leaves, and a new parent      -> one child pointer of the grandparent
//!   ... up to the root  new root                          -> the root pointer
//! ```
//!
//! What always holds, for whoever loads pointers with `Acquire`:
//! - The keys below child i of an inner block are not smaller than separator i - 1 and smaller than
//!   separator i. Neither separators nor the range of an inner block ever change, though several blocks
//!   may lead to it, so the ranges a walk goes through adjoin: it meets keys in order and none twice,
//!   whichever way it goes and whatever the writer does beside it. What is to have another range is a new block; so when one
//!   goes, the neighbour that takes over its range is a copy, down to the parent of a leaf.
//! - A block that is out of reach is never written again. A walk that stands on one sees that part as
//!   it was when the block was replaced, which is within the walk. So a key that is there during the
//!   whole walk is met.
//! - Leaves are all at level 0, and a child is one level below its parent. Only a root may be empty.
//! - A block is within [`Limits`], by keys and by bytes.
//! - A block is retired after the store that puts it out of reach.
//!
//! Absent on purpose: parent and sibling pointers (they could not change in the same store), locks,
//! versions, retries, and addresses.
//!
//! Loom runs this very code with small blocks: see `loom_models.rs`.

use std::ops::Range;

use super::block::{
    Block, BlockPtr, HEADER_LEN, Header, KEY_LEN_MAX, KEY_OVERHEAD, Keys, NewBlock, Traits,
    Visited, common_prefix_len,
};
use super::reclaim::{Gauge, Guard, Reclaimer};
use crate::sync::{Arc, AtomicPtr, Mutex, Ordering};

/// How large blocks get.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) leaf_keys: usize,
    pub(super) inner_children: usize,
    /// Of a whole block. Even a block with four of the longest keys must be within.
    pub(super) bytes: usize,
}

impl Limits {
    const BYTES_MIN: usize = HEADER_LEN + 4 * (KEY_LEN_MAX + KEY_OVERHEAD + 8) + 64;

    /// 64 keys: measured best for get, list and insert together. 8 KiB: an insert copies its leaf, so
    /// long keys get fewer to a leaf.
    pub(super) const STANDARD: Limits =
        Limits { leaf_keys: 64, inner_children: 64, bytes: 8 << 10 };
}

/// Cache lines fetched ahead: the heads of an inner block; most of a usual leaf.
const INNER_LINES: usize = 8;
const LEAF_LINES: usize = 14;

/// The readers' side.
pub(super) struct Tree {
    root: AtomicPtr<Header>,
    bytes: Gauge,
    retired_bytes: Gauge,
    /// What the writer had not freed when it went.
    orphans: Mutex<Vec<BlockPtr>>,
}

impl Tree {
    /// Visits the keys in [`start`, `end`), or from `start` on, in order, until `visit` says to stop;
    /// appends those that it says to keep to `keys`, one after the other.
    // Always inlined, like all that it calls for a key: as calls they make a list a third dearer.
    #[inline(always)]
    pub(super) fn walk(
        &self,
        start: &[u8],
        end: Option<&[u8]>,
        guard: &Guard,
        keys: &mut Vec<u8>,
        mut visit: impl FnMut(&[u8], Traits) -> Visited,
    ) {
        let reader = Reader { tree: self, _guard: guard };
        let mut path: Vec<(Block<'_>, usize)> = Vec::with_capacity(8);
        let mut block = reader.view(self.root());
        while !block.is_leaf() {
            let at = block.child_for(start);
            path.push((block, at));
            block = reader.child(block, at);
        }
        let (Ok(mut from) | Err(mut from)) = block.search(start);
        prefetch_leaf_after(&path, 1);
        loop {
            prefetch_leaf_after(&path, 2);
            // One search a leaf, instead of a comparison a key.
            let until = match end.map(|end| block.search(end)) {
                Some(Ok(at) | Err(at)) => at,
                None => block.count(),
            };
            let visited = block.visit(from..until.max(from), keys, &mut visit);
            if visited.is_break() || until < block.count() {
                return;
            }
            let Some(next) = reader.next_leaf(&mut path) else { return };
            (block, from) = (next, 0);
        }
    }

    /// The same from the last key before `end` (or from the last one of all) back to `start`.
    #[inline(always)]
    pub(super) fn walk_back(
        &self,
        start: &[u8],
        end: Option<&[u8]>,
        guard: &Guard,
        keys: &mut Vec<u8>,
        mut visit: impl FnMut(&[u8], Traits) -> Visited,
    ) {
        let reader = Reader { tree: self, _guard: guard };
        let mut path: Vec<(Block<'_>, usize)> = Vec::with_capacity(8);
        let mut block = reader.view(self.root());
        while !block.is_leaf() {
            let at = end.map_or(block.count(), |end| block.child_for(end));
            path.push((block, at));
            block = reader.child(block, at);
        }
        let mut until = match end.map(|end| block.search(end)) {
            Some(Ok(at) | Err(at)) => at,
            None => block.count(),
        };
        prefetch_leaf_before(&path, 1);
        loop {
            prefetch_leaf_before(&path, 2);
            let (from, is_first) = match block.search(start) {
                Ok(at) => (at, true),
                Err(at) => (at, at > 0),
            };
            let visited = block.visit_back(from..until.max(from), keys, &mut visit);
            if visited.is_break() || is_first {
                return;
            }
            let Some(previous) = reader.previous_leaf(&mut path) else { return };
            (block, until) = (previous, previous.count());
        }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes.get()
    }

    pub(super) fn retired_bytes(&self) -> u64 {
        self.retired_bytes.get()
    }

    fn root(&self) -> BlockPtr {
        BlockPtr::from_raw(self.root.load(Ordering::Acquire))
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let mut orphans = self.orphans.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        for block in orphans.drain(..) {
            // SAFETY: readers and writer look at blocks only while they own this tree, and this is
            // its last owner. The writer, which is gone, retired each of these once, out of reach.
            unsafe { block.free() };
        }
        drop(orphans);
        // SAFETY: as above; what can be reached was not retired.
        unsafe { free_below(self.root()) };
    }
}

/// Frees a block and all blocks below it.
///
/// # Safety
/// Nobody else can reach or has a view of any of them.
unsafe fn free_below(root: BlockPtr) {
    let mut open = vec![root];
    while let Some(ptr) = open.pop() {
        // SAFETY: the block is freed only below, after its children were noted; the caller says that
        // it is ours alone, so its filling was seen.
        let block = unsafe { ptr.view() };
        if !block.is_leaf() {
            open.extend((0..=block.count()).map(|at| block.child(at)));
        }
        // SAFETY: the caller's word; each block has one parent, so it is met once.
        unsafe { ptr.free() };
    }
}

/// One pin's view of the tree.
#[derive(Clone, Copy)]
struct Reader<'a> {
    tree: &'a Tree,
    _guard: &'a Guard,
}

impl<'a> Reader<'a> {
    /// `ptr` was loaded from the root or from a block that this reader views.
    #[inline]
    fn view(self, ptr: BlockPtr) -> Block<'a> {
        debug_assert!(!self.tree.root.load(Ordering::Relaxed).is_null());
        // SAFETY: the block could be reached after the guard pinned this thread, or through a block
        // that could. The writer retires a block only after the store that puts it out of reach, and
        // frees it only when every pin of that time is gone; the last owner of the tree, which the
        // borrow of it keeps from going, frees the rest. The `Acquire` load saw it filled.
        unsafe { ptr.view() }
    }

    #[inline]
    fn child(self, block: Block<'a>, at: usize) -> Block<'a> {
        let child = block.child(at);
        child.prefetch(if block.level() == 1 { LEAF_LINES } else { INNER_LINES });
        self.view(child)
    }

    /// The first leaf behind the one that `path` leads to.
    #[inline]
    fn next_leaf(self, path: &mut Vec<(Block<'a>, usize)>) -> Option<Block<'a>> {
        let mut block = loop {
            let (parent, at) = path.last_mut()?;
            if *at < parent.count() {
                *at += 1;
                break self.view(parent.child(*at));
            }
            path.pop();
        };
        while !block.is_leaf() {
            path.push((block, 0));
            block = self.child(block, 0);
        }
        Some(block)
    }

    /// The last leaf before the one that `path` leads to.
    #[inline]
    fn previous_leaf(self, path: &mut Vec<(Block<'a>, usize)>) -> Option<Block<'a>> {
        let mut block = loop {
            let (parent, at) = path.last_mut()?;
            if *at > 0 {
                *at -= 1;
                break self.view(parent.child(*at));
            }
            path.pop();
        };
        while !block.is_leaf() {
            let last = block.count();
            path.push((block, last));
            block = self.child(block, last);
        }
        Some(block)
    }
}

/// Fetches the leaf `ahead` places before the one that is walked, if it has the same parent.
#[inline]
fn prefetch_leaf_before(path: &[(Block<'_>, usize)], ahead: usize) {
    if cfg!(loom) {
        return;
    }
    if let Some((parent, at)) = path.last()
        && let Some(place) = at.checked_sub(ahead)
    {
        parent.child(place).prefetch(LEAF_LINES);
    }
}

/// Fetches the leaf `ahead` places behind the one that is walked, if it has the same parent.
#[inline]
fn prefetch_leaf_after(path: &[(Block<'_>, usize)], ahead: usize) {
    if cfg!(loom) {
        return;
    }
    if let Some((parent, at)) = path.last()
        && at + ahead <= parent.count()
    {
        parent.child(at + ahead).prefetch(LEAF_LINES);
    }
}

/// The writer's side. There is one per tree.
pub(super) struct TreeWriter {
    tree: Arc<Tree>,
    edit: Edit,
    retired: Reclaimer<BlockPtr>,
}

/// Blocks under one flag.
const BATCH: usize = 64;
/// Usually a write frees as many blocks as it retires, so that an allocator finds each size it is asked
/// for among those that it was just given back. If more batches than this wait, it frees one more.
const BATCHES_WAITING: usize = 4;

pub(super) fn new(limits: Limits) -> (Arc<Tree>, TreeWriter) {
    with_batch(limits, BATCH)
}

pub(super) fn with_batch(limits: Limits, batch: usize) -> (Arc<Tree>, TreeWriter) {
    assert!(
        limits.leaf_keys >= 2 && limits.inner_children >= 3 && limits.bytes >= Limits::BYTES_MIN
    );
    let root = Keys::default().leaf(0..0, &[]);
    let tree = Arc::new(Tree {
        bytes: Gauge::default(),
        retired_bytes: Gauge::default(),
        orphans: Mutex::new(Vec::new()),
        root: AtomicPtr::new(std::ptr::null_mut()),
    });
    tree.bytes.add(root.view().size());
    tree.root.store(root.into_ptr().as_raw(), Ordering::Release);
    let writer = TreeWriter {
        tree: Arc::clone(&tree),
        edit: Edit::new(limits),
        retired: Reclaimer::new(batch),
    };
    (tree, writer)
}

impl TreeWriter {
    /// Puts a key in, or gives a key that is in other traits.
    pub(super) fn put(&mut self, key: &[u8], traits: Traits) {
        debug_assert!(key.len() <= KEY_LEN_MAX);
        self.edit.put(Live { tree: &self.tree }, key, traits);
        self.bury();
    }

    /// Takes a key out; false if it was not in.
    pub(super) fn remove(&mut self, key: &[u8]) -> bool {
        let removed = self.edit.remove(Live { tree: &self.tree }, key);
        self.bury();
        removed
    }

    /// Takes the keys of one leaf that are in [`from`, `end`) out and appends them to `removed`;
    /// moves `from` on behind that leaf. False when there is no more to do.
    pub(super) fn remove_in_one_leaf(
        &mut self,
        from: &mut Vec<u8>,
        end: Option<&[u8]>,
        removed: &mut Keys,
    ) -> bool {
        let more = self.edit.remove_in_one_leaf(Live { tree: &self.tree }, from, end, removed);
        self.bury();
        more
    }

    /// Takes the keys of a bulk load, whose parts are in order. The tree must be empty.
    pub(super) fn adopt(&mut self, parts: Vec<BulkLeaves>) {
        let old = self.tree.root();
        let live = Live { tree: &self.tree };
        assert!(live.view(old).is_leaf() && live.view(old).count() == 0, "the tree has keys");
        let mut rows = BulkRows::new(self.edit.limits);
        parts.into_iter().for_each(|part| rows.append(part));
        let (root, bytes) = rows.finish();
        if let Some(root) = root {
            self.tree.bytes.add(bytes);
            self.tree.root.store(root.as_raw(), Ordering::Release);
            self.edit.dead.push(old);
        }
        self.bury();
    }

    pub(super) fn bulk(&self) -> BulkLeaves {
        BulkLeaves::new(self.edit.limits)
    }

    /// Frees all blocks that nobody can see any more, after helping the epoch along.
    pub(super) fn collect(&mut self) {
        self.retired.flush();
        while self.free_one() {}
    }

    #[cfg(all(test, loom))]
    pub(super) fn retired(&self) -> usize {
        self.retired.len()
    }

    /// Retires what the last change put out of reach, and frees a few blocks for it.
    #[inline]
    fn bury(&mut self) {
        let dead = self.edit.dead.len();
        for block in self.edit.dead.drain(..) {
            let size = Live { tree: &self.tree }.view(block).size();
            self.tree.bytes.subtract(size);
            self.tree.retired_bytes.add(size);
            self.retired.retire(block);
        }
        let more = usize::from(self.retired.batches() > BATCHES_WAITING);
        for _ in 0..dead + more {
            if !self.free_one() {
                break;
            }
        }
    }

    fn free_one(&mut self) -> bool {
        let Some(block) = self.retired.ready() else { return false };
        self.tree.retired_bytes.subtract(Live { tree: &self.tree }.view(block).size());
        // SAFETY: the block was retired after the store that put it out of reach, and the reclaimer
        // gives it back once, when every reader that could have found it is gone. A view of the
        // writer borrows from `self.tree`, so none outlives into this method.
        unsafe { block.free() };
        true
    }
}

impl Drop for TreeWriter {
    fn drop(&mut self) {
        let retired = std::mem::replace(&mut self.retired, Reclaimer::new(1));
        let mut orphans =
            self.tree.orphans.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        orphans.extend(retired.into_items());
    }
}

/// The writer's view of the tree; made by [`TreeWriter`] only.
#[derive(Clone, Copy)]
struct Live<'a> {
    tree: &'a Tree,
}

impl<'a> Live<'a> {
    /// `ptr` names a block that can be reached, or that this writer retired and has not freed.
    #[inline]
    fn view(self, ptr: BlockPtr) -> Block<'a> {
        // SAFETY: only `TreeWriter::free_one` frees blocks of a tree that has a writer, and it needs
        // the writer mutably, while 'a borrows the writer's own tree. The writer filled it itself.
        unsafe { ptr.view() }
    }
}

/// A step down: a block, and which of its children comes next.
#[derive(Clone, Copy)]
struct Step {
    block: BlockPtr,
    child: usize,
}

/// Blocks that take the place of others, with a separator between each two.
#[derive(Default)]
struct Fresh {
    separators: Keys,
    blocks: Vec<NewBlock>,
}

impl Fresh {
    fn one(block: NewBlock) -> Fresh {
        Fresh { separators: Keys::default(), blocks: vec![block] }
    }
}

/// One change to the tree, and the memory it works in.
struct Edit {
    limits: Limits,
    /// From the root to the leaf in question; the leaf is not in it.
    path: Vec<Step>,
    /// Put out of reach by this change, to be retired after it.
    dead: Vec<BlockPtr>,
    keys: Keys,
    traits: Vec<Traits>,
}

impl Edit {
    fn new(limits: Limits) -> Edit {
        Edit {
            limits,
            path: Vec::new(),
            dead: Vec::new(),
            keys: Keys::default(),
            traits: Vec::new(),
        }
    }

    fn descend<'a>(&mut self, live: Live<'a>, key: &[u8]) -> Block<'a> {
        self.path.clear();
        let mut block = live.view(live.tree.root());
        while !block.is_leaf() {
            let child = block.child_for(key);
            self.path.push(Step { block: block.ptr(), child });
            let ptr = block.child(child);
            ptr.prefetch(if block.level() == 1 { LEAF_LINES } else { INNER_LINES });
            block = live.view(ptr);
        }
        block
    }

    fn put(&mut self, live: Live<'_>, key: &[u8], traits: Traits) {
        let leaf = self.descend(live, key);
        let cut = match leaf.search(key) {
            Ok(at) => at..at + 1,
            Err(at) => at..at,
        };
        let keys = leaf.count() - cut.len() + 1;
        self.dead.push(leaf.ptr());
        if leaf.admits(key)
            && keys <= self.limits.leaf_keys
            && leaf.size_with(key) <= self.limits.bytes
        {
            self.replace_leaf(live, leaf.splice(cut, Some((key, traits))));
        } else {
            let fresh = self.split_leaf(leaf, cut, key, traits);
            self.replace_at(live, self.path.len(), fresh);
        }
    }

    /// The leaf with the key put in, as one leaf or as many as it takes.
    fn split_leaf(
        &mut self,
        leaf: Block<'_>,
        cut: Range<usize>,
        key: &[u8],
        traits: Traits,
    ) -> Fresh {
        self.keys.clear();
        self.traits.clear();
        self.take_from(leaf, 0..cut.start);
        self.keys.push(key);
        self.traits.push(traits);
        self.take_from(leaf, cut.end..leaf.count());
        // Keys that come in order leave full leaves behind, and a key that would cost the others
        // their prefix stands apart.
        let keys = self.keys.len();
        let cut = if cut.start + 1 == keys {
            keys - 1
        } else if cut.start == 0 && !leaf.admits(key) {
            1
        } else {
            self.keys.middle(0..keys)
        };
        let mut ranges = Vec::new();
        self.cut_leaves(0..keys, Some(cut), &mut ranges);
        let mut fresh = Fresh::default();
        for range in ranges {
            if range.start > 0 {
                let (left, right) = (self.keys.get(range.start - 1), self.keys.get(range.start));
                fresh.separators.push(separator(left, right));
            }
            fresh.blocks.push(self.keys.leaf(range, &self.traits));
        }
        fresh
    }

    fn take_from(&mut self, leaf: Block<'_>, range: Range<usize>) {
        self.keys.push_from(leaf, range.clone());
        self.traits.extend(range.map(|at| leaf.traits(at)));
    }

    /// Cuts `range` of the keys at hand into leaves that are within the limits.
    fn cut_leaves(&self, range: Range<usize>, cut: Option<usize>, into: &mut Vec<Range<usize>>) {
        if range.len() <= self.limits.leaf_keys
            && self.keys.leaf_size(range.clone(), &self.traits) <= self.limits.bytes
        {
            into.push(range);
            return;
        }
        let cut = cut.unwrap_or_else(|| self.keys.middle(range.clone()));
        self.cut_leaves(range.start..cut, None, into);
        self.cut_leaves(cut..range.end, None, into);
    }

    fn remove(&mut self, live: Live<'_>, key: &[u8]) -> bool {
        let leaf = self.descend(live, key);
        let Ok(at) = leaf.search(key) else { return false };
        self.remove_from(live, leaf, at..at + 1);
        true
    }

    fn remove_in_one_leaf(
        &mut self,
        live: Live<'_>,
        from: &mut Vec<u8>,
        end: Option<&[u8]>,
        removed: &mut Keys,
    ) -> bool {
        let leaf = self.descend(live, from);
        let place = |key: &[u8]| match leaf.search(key) {
            Ok(at) | Err(at) => at,
        };
        let cut = place(from)..end.map_or(leaf.count(), place);
        // The range is empty if `end` is not larger than `from`.
        let cut = cut.start..cut.end.max(cut.start);
        let more = self.key_behind_leaf(live, from) && end.is_none_or(|end| &from[..] < end);
        if !cut.is_empty() {
            removed.push_from(leaf, cut.clone());
            self.remove_from(live, leaf, cut);
        }
        more
    }

    /// Sets `key` to the smallest one that belongs behind the leaf that `path` leads to; false if
    /// that leaf is the last one.
    fn key_behind_leaf(&self, live: Live<'_>, key: &mut Vec<u8>) -> bool {
        let step = self.path.iter().rev().find(|step| step.child < live.view(step.block).count());
        let Some(step) = step else { return false };
        let mut separators = Keys::default();
        separators.push_from(live.view(step.block), step.child..step.child + 1);
        key.clear();
        key.extend_from_slice(separators.get(0));
        true
    }

    /// Takes the keys in `cut`, of which there are some, out of a leaf.
    fn remove_from(&mut self, live: Live<'_>, leaf: Block<'_>, cut: Range<usize>) {
        self.dead.push(leaf.ptr());
        if cut.len() == leaf.count() {
            return self.replace_at(live, self.path.len(), Fresh::default());
        }
        let rest = leaf.splice(cut, None);
        match self.merge_leaf(live, rest.view()) {
            Some((children, merged)) => {
                self.replace(live, self.path.len(), children, Fresh::one(merged));
            }
            None => self.replace_leaf(live, rest),
        }
    }

    /// A small leaf and a neighbour in one, if that makes a leaf with room to spare; and which
    /// children of the parent it replaces.
    fn merge_leaf(&mut self, live: Live<'_>, rest: Block<'_>) -> Option<(Range<usize>, NewBlock)> {
        let Limits { leaf_keys, bytes, .. } = self.limits;
        if rest.count() >= leaf_keys.div_ceil(4) || rest.size() >= bytes / 4 {
            return None;
        }
        let (children, other) = neighbour(live, *self.path.last()?)?;
        let other = live.view(other);
        let keys = rest.count() + other.count();
        if keys > leaf_keys - leaf_keys / 4 || rest.size() + other.size() > bytes - bytes / 4 {
            return None;
        }
        let rest_is_left = children.start == self.path.last()?.child;
        let (left, right) = if rest_is_left { (rest, other) } else { (other, rest) };
        self.keys.clear();
        self.traits.clear();
        self.take_from(left, 0..left.count());
        self.take_from(right, 0..right.count());
        if self.keys.leaf_size(0..keys, &self.traits) > bytes {
            return None; // What the two have in common is much shorter than either prefix.
        }
        self.dead.push(other.ptr());
        Some((children, self.keys.leaf(0..keys, &self.traits)))
    }

    /// Puts a new leaf where `path` leads to: one store.
    fn replace_leaf(&mut self, live: Live<'_>, new: NewBlock) {
        live.tree.bytes.add(new.view().size());
        match self.path.last() {
            Some(step) => live.view(step.block).set_child(step.child, new.into_ptr()),
            None => live.tree.root.store(new.into_ptr().as_raw(), Ordering::Release),
        }
    }

    /// [`Self::replace`] for the one block at `depth` on the path.
    fn replace_at(&mut self, live: Live<'_>, depth: usize, fresh: Fresh) {
        let child = if depth == 0 { 0 } else { self.path[depth - 1].child };
        self.replace(live, depth, child..child + 1, fresh);
    }

    /// Puts `fresh` in the place of the blocks `children` at `depth`: of the children of the block one
    /// step up on the path, or of the root if there is none. Goes up as far as it must, and publishes
    /// all of it with one store.
    fn replace(
        &mut self,
        live: Live<'_>,
        mut depth: usize,
        mut children: Range<usize>,
        mut fresh: Fresh,
    ) {
        while depth > 0 {
            let parent = live.view(self.path[depth - 1].block);
            if children.len() == 1 && fresh.blocks.len() == 1 {
                for block in fresh.blocks {
                    live.tree.bytes.add(block.view().size());
                    parent.set_child(children.start, block.into_ptr());
                }
                return;
            }
            self.dead.push(parent.ptr());
            let mut row = Row::of(live, parent);
            if fresh.blocks.is_empty() {
                self.drop_children(live, &mut row, children);
            } else {
                row.replace(live, children, fresh);
            }
            depth -= 1;
            children = match depth.checked_sub(1).map(|up| self.path[up]) {
                Some(step) => self.merge_row(live, step, &mut row),
                None => 0..1,
            };
            fresh = self.build_row(live, row);
        }
        self.replace_root(live, fresh);
    }

    /// Takes children that have become empty out of a row. The one left of them takes over their range,
    /// or the one right of them if there is none.
    fn drop_children(&mut self, live: Live<'_>, row: &mut Row, gone: Range<usize>) {
        let heir_is_left = gone.start > 0;
        row.children.drain(gone.clone());
        if row.children.is_empty() {
            return row.separators.clear();
        }
        let separators = gone.start.saturating_sub(1)..gone.end - usize::from(heir_is_left);
        row.separators = row.separators.without(separators);
        let heir = &mut row.children[gone.start.saturating_sub(1)];
        *heir = self.copy_edge(live, *heir, heir_is_left);
    }

    /// A copy of an inner block and of those below it on its right or left edge, down to the parent of
    /// a leaf. Their range is about to widen, and a walk may still come to them through the block that
    /// has them now: there, keys of the wider range would be out of order.
    fn copy_edge(&mut self, live: Live<'_>, ptr: BlockPtr, is_right: bool) -> BlockPtr {
        let block = live.view(ptr);
        if block.is_leaf() {
            return ptr; // Nothing in a leaf changes, so that walk never sees more than it should.
        }
        let mut row = Row::of(live, block);
        let edge = &mut row.children[if is_right { block.count() } else { 0 }];
        *edge = self.copy_edge(live, *edge, is_right);
        self.dead.push(ptr);
        let copy = row.separators.inner(0..block.count(), block.level(), &row.children);
        live.tree.bytes.add(copy.view().size());
        copy.into_ptr()
    }

    /// Joins a small row with its neighbour below `up`, if that leaves room to spare. Returns which
    /// children of `up` the row now stands for.
    fn merge_row(&mut self, live: Live<'_>, up: Step, row: &mut Row) -> Range<usize> {
        let alone = up.child..up.child + 1;
        let Limits { inner_children, bytes, .. } = self.limits;
        let is_small = (1..inner_children.div_ceil(4).max(2)).contains(&row.children.len());
        let Some((children, other)) = neighbour(live, up).filter(|_| is_small) else {
            return alone;
        };
        let (parent, other) = (live.view(up.block), live.view(other));
        if row.children.len() + other.count() + 1 > inner_children - inner_children / 4 {
            return alone;
        }
        let mut between = Keys::default();
        between.push_from(parent, children.start..children.start + 1);
        let other_row = Row::of(live, other);
        let joined = if children.start == up.child {
            Row::joined(row, between.get(0), &other_row)
        } else {
            Row::joined(&other_row, between.get(0), row)
        };
        if joined.separators.inner_size(0..joined.separators.len()) > bytes - bytes / 4 {
            return alone;
        }
        self.dead.push(other.ptr());
        *row = joined;
        children
    }

    /// Inner blocks for a row of children: none, one, or as many as the limits ask for.
    fn build_row(&self, live: Live<'_>, row: Row) -> Fresh {
        let mut fresh = Fresh::default();
        if row.children.is_empty() {
            return fresh;
        }
        let mut ranges = Vec::new();
        self.cut_row(&row, 0..row.children.len(), &mut ranges);
        let level = live.view(row.children[0]).level() + 1;
        for range in ranges {
            if range.start > 0 {
                fresh.separators.push(row.separators.get(range.start - 1));
            }
            let separators = range.start..range.end - 1;
            fresh.blocks.push(row.separators.inner(separators, level, &row.children[range]));
        }
        fresh
    }

    /// Cuts `range` of the children into blocks that are within the limits.
    fn cut_row(&self, row: &Row, range: Range<usize>, into: &mut Vec<Range<usize>>) {
        let separators = range.start..range.end - 1;
        if range.len() <= self.limits.inner_children
            && row.separators.inner_size(separators.clone()) <= self.limits.bytes
        {
            into.push(range);
            return;
        }
        // The separator at the cut moves up, so the child behind it opens the right side.
        let cut = row.separators.middle(separators) + 1;
        self.cut_row(row, range.start..cut, into);
        self.cut_row(row, cut..range.end, into);
    }

    /// Publishes a new root: what `fresh` has, under new inner blocks if it is more than one; without
    /// the inner blocks on top that have a single child.
    fn replace_root(&mut self, live: Live<'_>, mut fresh: Fresh) {
        while fresh.blocks.len() > 1 {
            let mut row = Row::default();
            row.replace_all(live, fresh);
            fresh = self.build_row(live, row);
        }
        let root = fresh.blocks.pop().unwrap_or_else(|| Keys::default().leaf(0..0, &[]));
        let root = if root.view().is_leaf() || root.view().count() > 0 {
            live.tree.bytes.add(root.view().size());
            root.into_ptr()
        } else {
            let mut only = root.view().child(0);
            while !live.view(only).is_leaf() && live.view(only).count() == 0 {
                self.dead.push(only);
                only = live.view(only).child(0);
            }
            only
        };
        live.tree.root.store(root.as_raw(), Ordering::Release);
    }
}

/// The children of one or more inner blocks, taken out to be changed.
#[derive(Default)]
struct Row {
    /// Between each two children.
    separators: Keys,
    children: Vec<BlockPtr>,
}

impl Row {
    fn of(live: Live<'_>, block: Block<'_>) -> Row {
        debug_assert_eq!(live.view(block.ptr()).level(), block.level());
        let mut row = Row::default();
        row.separators.push_from(block, 0..block.count());
        row.children.extend((0..=block.count()).map(|at| block.child(at)));
        row
    }

    fn joined(left: &Row, between: &[u8], right: &Row) -> Row {
        let mut row = Row::default();
        left.separators.iter().for_each(|key| row.separators.push(key));
        row.separators.push(between);
        right.separators.iter().for_each(|key| row.separators.push(key));
        row.children.extend(left.children.iter().chain(&right.children));
        row
    }

    fn replace_all(&mut self, live: Live<'_>, fresh: Fresh) {
        debug_assert!(self.children.is_empty());
        self.separators = fresh.separators;
        self.children = adopt(live, fresh.blocks);
    }

    /// Puts `fresh`, one block or more, in the place of the children in `cut`.
    fn replace(&mut self, live: Live<'_>, cut: Range<usize>, fresh: Fresh) {
        debug_assert!(!fresh.blocks.is_empty());
        let mut kept = Vec::with_capacity(self.separators.len());
        kept.extend((0..cut.start).map(|at| self.separators.get(at)));
        kept.extend(fresh.separators.iter());
        kept.extend((cut.end - 1..self.separators.len()).map(|at| self.separators.get(at)));
        self.separators = Keys::of(&kept);
        self.children.splice(cut, adopt(live, fresh.blocks));
        debug_assert_eq!(self.separators.len() + 1, self.children.len());
    }
}

/// Hands blocks over to the tree: from here on they are freed by retiring them.
fn adopt(live: Live<'_>, blocks: Vec<NewBlock>) -> Vec<BlockPtr> {
    let adopt = |block: NewBlock| {
        live.tree.bytes.add(block.view().size());
        block.into_ptr()
    };
    blocks.into_iter().map(adopt).collect()
}

/// The next child beside the one of `step`, and the range of the two.
fn neighbour(live: Live<'_>, step: Step) -> Option<(Range<usize>, BlockPtr)> {
    let parent = live.view(step.block);
    if step.child < parent.count() {
        Some((step.child..step.child + 2, parent.child(step.child + 1)))
    } else {
        let left = step.child.checked_sub(1)?;
        Some((left..step.child + 1, parent.child(left)))
    }
}

/// The shortest key that is larger than `left` and not larger than `right`.
fn separator<'a>(left: &[u8], right: &'a [u8]) -> &'a [u8] {
    debug_assert!(left < right);
    &right[..common_prefix_len(left, right) + 1]
}

/// Leaves of keys that come in order: a part of a tree that is built from the bottom up. Nobody sees
/// them before they are adopted.
pub(super) struct BulkLeaves {
    limits: Limits,
    /// Of all blocks.
    bytes: usize,
    /// Of the leaf that is being filled.
    keys: Keys,
    key_bytes: usize,
    traits: Vec<Traits>,
    /// The first key of all.
    first: Vec<u8>,
    /// The last key of the leaf before the one that is being filled.
    last: Vec<u8>,
    row: BulkRow,
}

/// A row that is being filled. Its first separator stands before its first child.
#[derive(Default)]
struct BulkRow {
    separators: Keys,
    children: Vec<BlockPtr>,
    separator_bytes: usize,
}

impl BulkRow {
    fn push(&mut self, separator: &[u8], child: BlockPtr) {
        self.separators.push(separator);
        self.separator_bytes += separator.len();
        self.children.push(child);
    }
}

impl BulkLeaves {
    fn new(limits: Limits) -> BulkLeaves {
        BulkLeaves {
            limits,
            bytes: 0,
            keys: Keys::default(),
            key_bytes: 0,
            traits: Vec::new(),
            first: Vec::new(),
            last: Vec::new(),
            row: BulkRow::default(),
        }
    }

    /// # Panics
    /// If `key` is not larger than the one before: a bug of whoever merges the keys.
    pub(super) fn push(&mut self, key: &[u8], traits: Traits) {
        let last = match self.keys.len() {
            0 => &self.last[..],
            keys => self.keys.get(keys - 1),
        };
        let is_first = self.keys.len() == 0 && self.row.children.is_empty();
        assert!(is_first || last < key, "keys of a bulk load must ascend");
        if is_first {
            self.first.extend_from_slice(key);
        }
        if self.is_full_for(key) {
            self.end_leaf();
        }
        self.keys.push(key);
        self.key_bytes += key.len();
        self.traits.push(traits);
    }

    /// Blocks are filled to seven eighths, so that the first insert after a load need not split.
    fn is_full_for(&self, key: &[u8]) -> bool {
        let Limits { leaf_keys, bytes, .. } = self.limits;
        let keys = self.keys.len();
        if keys == 0 {
            return false;
        }
        let most = HEADER_LEN + self.key_bytes + key.len() + (keys + 1) * (KEY_OVERHEAD + 16);
        let is_long = || {
            most > seven_eighths(bytes)
                && most - keys * common_prefix_len(self.keys.get(0), key) > seven_eighths(bytes)
        };
        keys >= seven_eighths(leaf_keys) || is_long()
    }

    fn end_leaf(&mut self) {
        let first = self.keys.get(0);
        let is_first = self.row.children.is_empty();
        let separator = if is_first { &[][..] } else { separator(&self.last, first) };
        let leaf = self.keys.leaf(0..self.keys.len(), &self.traits);
        self.bytes += leaf.view().size();
        self.row.push(separator, leaf.into_ptr());
        self.last.clear();
        self.last.extend_from_slice(self.keys.get(self.keys.len() - 1));
        self.keys.clear();
        self.key_bytes = 0;
        self.traits.clear();
    }
}

impl Drop for BulkLeaves {
    fn drop(&mut self) {
        // SAFETY: these leaves were filled here, nobody else has seen them, and what is handed over is
        // taken out of the row.
        unsafe { free_all(&mut self.row) };
    }
}

/// The inner blocks over the leaves of a bulk load, and the leaves.
struct BulkRows {
    limits: Limits,
    /// Of all blocks.
    bytes: usize,
    /// The last key so far.
    last: Vec<u8>,
    /// What is being filled, the leaves first.
    rows: Vec<BulkRow>,
}

impl BulkRows {
    fn new(limits: Limits) -> BulkRows {
        BulkRows { limits, bytes: 0, last: Vec::new(), rows: Vec::new() }
    }

    /// Takes over the leaves of the next part.
    fn append(&mut self, mut part: BulkLeaves) {
        if part.keys.len() > 0 {
            part.end_leaf();
        }
        self.bytes += std::mem::take(&mut part.bytes);
        let row = std::mem::take(&mut part.row);
        let between = match (self.rows.is_empty(), row.children.is_empty()) {
            (false, false) => {
                assert!(self.last < part.first, "keys of a bulk load must ascend");
                separator(&self.last, &part.first)
            }
            _ => &[],
        };
        for (at, child) in row.children.into_iter().enumerate() {
            self.push(0, if at == 0 { between } else { row.separators.get(at) }, child);
        }
        if !part.last.is_empty() {
            self.last = std::mem::take(&mut part.last);
        }
    }

    /// Appends a block to the row `at`; ends that row first if it is full.
    fn push(&mut self, at: usize, separator: &[u8], block: BlockPtr) {
        if self.rows.len() == at {
            self.rows.push(BulkRow::default());
        }
        let Limits { inner_children, bytes, .. } = self.limits;
        let row = &self.rows[at];
        let most = HEADER_LEN
            + row.separator_bytes
            + separator.len()
            + (row.children.len() + 2) * (KEY_OVERHEAD + size_of::<AtomicPtr<Header>>() + 8);
        let is_full = row.children.len() >= seven_eighths(inner_children)
            || (row.children.len() > 1 && most > seven_eighths(bytes));
        if is_full {
            self.end_row(at);
        }
        self.rows[at].push(separator, block);
    }

    fn end_row(&mut self, at: usize) {
        let row = std::mem::take(&mut self.rows[at]);
        let level = (at + 1) as u8;
        let block = row.separators.inner(1..row.children.len(), level, &row.children);
        self.bytes += block.view().size();
        self.push(at + 1, row.separators.get(0), block.into_ptr());
    }

    /// The root, if there was a key, and the bytes of all blocks.
    fn finish(mut self) -> (Option<BlockPtr>, usize) {
        let mut at = 0;
        while at < self.rows.len() {
            if at + 1 == self.rows.len() && self.rows[at].children.len() == 1 {
                return (self.rows[at].children.pop(), self.bytes);
            }
            self.end_row(at);
            at += 1;
        }
        (None, 0)
    }
}

impl Drop for BulkRows {
    fn drop(&mut self) {
        for row in &mut self.rows {
            // SAFETY: these blocks came from a bulk load that nobody else has seen; what was handed over
            // by `finish` or to a row above is not in a row any more.
            unsafe { free_all(row) };
        }
    }
}

/// Frees the blocks of a row and all blocks below them.
///
/// # Safety
/// Nobody else can reach or has a view of any of them.
unsafe fn free_all(row: &mut BulkRow) {
    for block in row.children.drain(..) {
        // SAFETY: the caller's word.
        unsafe { free_below(block) };
    }
}

fn seven_eighths(of: usize) -> usize {
    of - of / 8
}

#[cfg(test)]
impl Tree {
    /// Walks every block and compares it with what the module promises. Returns the keys.
    pub(super) fn assert_sound(&self, limits: Limits, guard: &Guard) -> usize {
        let reader = Reader { tree: self, _guard: guard };
        let root = reader.view(self.root());
        let (mut keys, mut bytes) = (0, 0);
        let mut open = vec![(root, Vec::new(), None::<Vec<u8>>)];
        while let Some((block, low, high)) = open.pop() {
            bytes += block.size();
            let mut held = Keys::default();
            held.push_from(block, 0..block.count());
            let held: Vec<Vec<u8>> = held.iter().map(<[u8]>::to_vec).collect();
            assert!(held.is_sorted_by(|a, b| a < b), "keys of a block ascend");
            assert!(held.iter().all(|key| *key >= low), "below the range of its parent");
            assert!(held.iter().all(|key| high.as_ref().is_none_or(|high| key < high)));
            assert!(block.size() <= limits.bytes, "a block of {} bytes", block.size());
            if block.is_leaf() {
                assert!(block.count() <= limits.leaf_keys);
                assert!(block.count() > 0 || block.ptr() == root.ptr(), "only a root is empty");
                keys += block.count();
                continue;
            }
            assert!(block.count() < limits.inner_children);
            assert!(block.count() > 0 || block.ptr() != root.ptr(), "a root has two children");
            for at in 0..=block.count() {
                let child = reader.view(block.child(at));
                assert_eq!(child.level() + 1, block.level(), "leaves are at one depth");
                let low = if at == 0 { low.clone() } else { held[at - 1].clone() };
                let high = held.get(at).cloned().or_else(|| high.clone());
                open.push((child, low, high));
            }
        }
        assert_eq!(bytes as u64, self.bytes(), "the bytes are counted exactly");
        keys
    }
}
