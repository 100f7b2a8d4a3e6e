//! Blocks: the nodes of the key tree, and the only file that knows their bytes.
//!
//! A block is one allocation of exact size. It is filled while its builder owns it alone
//! ([`NewBlock`]), then published, and from then on nothing in it changes but the child pointers of an
//! inner block. Readers hold a [`Block`], a view that lives no longer than their pin.
//!
//! ```text
//!   header    counts and the size                                        16 bytes
//!   heads     u64 a key: the first 8 bytes after the prefix, big-endian,
//!             padded with zeros; comparing two numbers compares 8 bytes
//!   wide      leaf:  u64 for each key that expires: when
//!             inner: one pointer a child, one more than keys
//!   ends      u16 a key: where its tail ends in `tails`
//!   tails     what follows the heads, key after key
//!   marks     u8 a key: length of its head (0 to 8), expires?, has metadata?
//!   prefix    what all keys of the block begin with
//! ```
//!
//! What always holds: keys are strictly ascending; `ends` ascends and ends at the length of `tails`;
//! a tail is empty unless its head is full; the header describes the allocation. Every offset below
//! follows from the header, so a view needs no bounds of its own.
//!
//! Padding makes "a" and "a\0" equal as heads; the lengths in the marks tell them apart, and a shorter
//! head comes first. Marks and prefix stand behind the tails, so that a walk may copy 16 bytes where a
//! tail has 3 and yet stays inside all but the smallest blocks.
//!
//! Absent on purpose: addresses (the hash has them), room to grow (a block is rebuilt, not changed),
//! links to siblings and parents (they could not be swapped together with one store).

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::marker::PhantomData;
use std::ops::{ControlFlow, Range};
use std::ptr::NonNull;

use crate::sync::{AtomicPtr, Ordering};

/// The longest key: four bytes of namespace and 1,024 of the user's.
pub(crate) const KEY_LEN_MAX: usize = 4 + 1024;

/// What the tree keeps beside a key, so that a list needs no log access.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct Traits {
    /// Milliseconds since the Unix epoch; 0: never.
    pub(crate) expires_at_ms: u64,
    pub(crate) has_metadata: bool,
}

const HEAD_LEN: u8 = 0x0f;
const EXPIRES: u8 = 0x10;
const HAS_METADATA: u8 = 0x20;

/// Bytes a key takes in a leaf beyond its tail and its expiry: head, end and mark.
pub(super) const KEY_OVERHEAD: usize = 8 + 2 + 1;

#[repr(C, align(8))]
pub(super) struct Header {
    size: u32,
    count: u16,
    prefix_len: u16,
    /// Leaf: keys that expire. Inner: children.
    wide: u16,
    /// 0: leaf.
    level: u8,
    /// Lets loom see that a block is filled before it is read and read before it is freed.
    #[cfg(loom)]
    witness: loom::cell::UnsafeCell<()>,
}

/// Bytes in a block before its first head.
pub(super) const HEADER_LEN: usize = size_of::<Header>();
const CHILD_LEN: usize = size_of::<AtomicPtr<Header>>();
const _: () = assert!(align_of::<AtomicPtr<Header>>() <= 8 && HEADER_LEN.is_multiple_of(8));

/// The numbers from which every offset in a block follows.
#[derive(Clone, Copy)]
struct Shape {
    level: u8,
    count: usize,
    wide: usize,
    prefix_len: usize,
    tails_len: usize,
}

impl Shape {
    const HEADS: usize = HEADER_LEN;

    fn wide_at(self) -> usize {
        Self::HEADS + 8 * self.count
    }

    fn ends_at(self) -> usize {
        self.wide_at() + self.wide * if self.level == 0 { 8 } else { CHILD_LEN }
    }

    fn tails_at(self) -> usize {
        self.ends_at() + 2 * self.count
    }

    fn marks_at(self) -> usize {
        self.tails_at() + self.tails_len
    }

    fn prefix_at(self) -> usize {
        self.marks_at() + self.count
    }

    fn size(self) -> usize {
        self.prefix_at() + self.prefix_len
    }
}

/// Names a block without promising that it is still there. Every one came from
/// [`NewBlock::into_ptr`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct BlockPtr(NonNull<Header>);

// SAFETY: a block belongs to no thread: it is plain bytes and atomics from the global allocator.
// What may be done with it, and when, is stated by each method that uses the pointer.
unsafe impl Send for BlockPtr {}

impl BlockPtr {
    pub(super) fn from_raw(raw: *mut Header) -> BlockPtr {
        BlockPtr(NonNull::new(raw).expect("no pointer to a block is ever null"))
    }

    pub(super) fn as_raw(self) -> *mut Header {
        self.0.as_ptr()
    }

    /// A view of the block.
    ///
    /// # Safety
    /// The block is not freed during `'a`, and its filling happened before this call (it was found
    /// through an `Acquire` load of the pointer stored with `Release`, or by the thread that filled it).
    #[inline]
    pub(super) unsafe fn view<'a>(self) -> Block<'a> {
        let block = Block { base: self.0, life: PhantomData };
        #[cfg(loom)]
        block.header().witness.with(|_| ());
        block
    }

    /// Frees the block, not what it points to.
    ///
    /// # Safety
    /// Nobody has a view of the block, nobody can reach it, and it is not freed twice.
    pub(super) unsafe fn free(self) {
        drop(NewBlock { base: self.0 });
    }

    /// Has the processor fetch the first `lines` cache lines of the block, or of whatever lies there.
    #[inline]
    pub(super) fn prefetch(self, lines: usize) {
        for line in 0..lines {
            prefetch(self.0.as_ptr().wrapping_byte_add(64 * line));
        }
    }
}

/// Has the processor fetch one cache line. A hint: any pointer will do.
#[inline]
pub(crate) fn prefetch<T>(place: *const T) {
    #[cfg(all(target_arch = "x86_64", not(miri), not(loom)))]
    // SAFETY: a prefetch does not access memory as far as the program can tell; an address that is
    // not mapped is ignored. SSE, which the instruction needs, is part of x86-64.
    unsafe {
        use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(place.cast());
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri), not(loom))))]
    let _ = place;
}

/// A published block, or one about to be, as it is read.
#[derive(Clone, Copy)]
pub(super) struct Block<'a> {
    base: NonNull<Header>,
    life: PhantomData<&'a Header>,
}

impl<'a> Block<'a> {
    #[inline]
    fn header(self) -> &'a Header {
        // SAFETY: a `Block<'a>` exists only for a filled block that is not freed during 'a (see
        // `BlockPtr::view`), and nobody writes to a header after it was filled.
        unsafe { self.base.as_ref() }
    }

    #[inline]
    fn shape(self) -> Shape {
        let header = self.header();
        let mut shape = Shape {
            level: header.level,
            count: usize::from(header.count),
            wide: usize::from(header.wide),
            prefix_len: usize::from(header.prefix_len),
            tails_len: 0,
        };
        shape.tails_len = header.size as usize - shape.size();
        shape
    }

    /// # Safety
    /// The block's layout has `len` initialised values of type `T` at byte `at`, aligned for `T`, and
    /// no part of them changes while the block is published unless `T` is atomic.
    #[inline]
    unsafe fn array<T>(self, at: usize, len: usize) -> &'a [T] {
        // SAFETY: the caller says what lies there. `base` came from the allocation of the whole
        // block, so it may be used for all of it, and the allocation outlives 'a.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr().byte_add(at).cast::<T>(), len) }
    }

    #[inline]
    pub(super) fn ptr(self) -> BlockPtr {
        BlockPtr(self.base)
    }

    #[inline]
    pub(super) fn is_leaf(self) -> bool {
        self.header().level == 0
    }

    #[inline]
    pub(super) fn level(self) -> u8 {
        self.header().level
    }

    /// How many keys the block holds; an inner block has one child more.
    #[inline]
    pub(super) fn count(self) -> usize {
        usize::from(self.header().count)
    }

    #[inline]
    pub(super) fn size(self) -> usize {
        self.header().size as usize
    }

    #[inline]
    fn heads(self) -> &'a [u64] {
        // SAFETY: `count` heads follow the header, which is a multiple of 8 long; zeroed at
        // allocation, and not written after publication.
        unsafe { self.array(Shape::HEADS, self.count()) }
    }

    #[inline]
    fn expiries(self) -> &'a [u64] {
        let shape = self.shape();
        debug_assert_eq!(shape.level, 0);
        // SAFETY: a leaf has `wide` expiries behind its heads, so they are aligned; zeroed at
        // allocation, and not written after publication.
        unsafe { self.array(shape.wide_at(), shape.wide) }
    }

    #[inline]
    fn children(self) -> &'a [AtomicPtr<Header>] {
        let shape = self.shape();
        assert!(shape.level > 0, "a leaf has no children");
        // SAFETY: an inner block has `wide` child pointers behind its heads, so they are aligned;
        // `NewBlock::inner` wrote all of them, and they are atomic.
        unsafe { self.array(shape.wide_at(), shape.wide) }
    }

    #[inline]
    fn ends(self) -> &'a [u16] {
        let shape = self.shape();
        // SAFETY: `count` ends follow what is 8 bytes wide, so they are aligned; zeroed at
        // allocation, and not written after publication.
        unsafe { self.array(shape.ends_at(), shape.count) }
    }

    #[inline]
    fn marks(self) -> &'a [u8] {
        let shape = self.shape();
        // SAFETY: `count` marks follow the tails; zeroed at allocation, and not written after
        // publication.
        unsafe { self.array(shape.marks_at(), shape.count) }
    }

    /// The tails, and behind them whatever else the block holds.
    #[inline]
    fn text(self) -> &'a [u8] {
        let shape = self.shape();
        // SAFETY: from the tails on a block is bytes to its end; zeroed at allocation, and not written
        // after publication.
        unsafe { self.array(shape.tails_at(), shape.size() - shape.tails_at()) }
    }

    #[inline]
    pub(super) fn prefix(self) -> &'a [u8] {
        let shape = self.shape();
        // SAFETY: the prefix is the last bytes of the block; zeroed at allocation, and not written
        // after publication.
        unsafe { self.array(shape.prefix_at(), shape.prefix_len) }
    }

    #[inline]
    fn tail_start(self, at: usize) -> usize {
        if at == 0 { 0 } else { usize::from(self.ends()[at - 1]) }
    }

    #[inline]
    fn tail(self, at: usize) -> &'a [u8] {
        &self.text()[self.tail_start(at)..usize::from(self.ends()[at])]
    }

    /// How many of the first `at` keys expire.
    #[inline]
    fn expiring_before(self, at: usize) -> usize {
        if self.header().wide == 0 {
            return 0;
        }
        self.marks()[..at].iter().filter(|&mark| mark & EXPIRES != 0).count()
    }

    pub(super) fn traits(self, at: usize) -> Traits {
        let mark = self.marks()[at];
        let expires_at_ms =
            if mark & EXPIRES != 0 { self.expiries()[self.expiring_before(at)] } else { 0 };
        Traits { expires_at_ms, has_metadata: mark & HAS_METADATA != 0 }
    }

    /// `Ok` where the key stands, `Err` where it would.
    #[inline]
    pub(super) fn search(self, key: &[u8]) -> Result<usize, usize> {
        let prefix = self.prefix();
        let Some(rest) = key.strip_prefix(prefix) else {
            return Err(if key < prefix { 0 } else { self.count() });
        };
        let head = head_of(rest);
        let heads = self.heads();
        let first = heads.partition_point(|&other| other < head);
        if first == heads.len() || heads[first] != head {
            return Err(first);
        }
        self.search_equal_heads(first, head, rest)
    }

    /// The same among the keys from `first` on whose head is `head`; the heads do not decide.
    #[inline]
    fn search_equal_heads(self, first: usize, head: u64, rest: &[u8]) -> Result<usize, usize> {
        let equal = &self.heads()[first..];
        let equal = if equal.get(1) == Some(&head) {
            equal.partition_point(|&other| other == head)
        } else {
            1
        };
        let head_len = rest.len().min(8);
        let rest_tail = &rest[head_len..];
        let (mut low, mut high) = (first, first + equal);
        while low < high {
            let middle = (low + high) / 2;
            let other_len = usize::from(self.marks()[middle] & HEAD_LEN);
            match other_len.cmp(&head_len).then_with(|| self.tail(middle).cmp(rest_tail)) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
                std::cmp::Ordering::Equal => return Ok(middle),
            }
        }
        Err(low)
    }

    /// Which child of an inner block leads to `key`: the one behind the last separator that is not
    /// larger.
    #[inline]
    pub(super) fn child_for(self, key: &[u8]) -> usize {
        match self.search(key) {
            Ok(at) => at + 1,
            Err(at) => at,
        }
    }

    #[inline]
    pub(super) fn child(self, at: usize) -> BlockPtr {
        BlockPtr::from_raw(self.children()[at].load(Ordering::Acquire))
    }

    /// Publishes another child. Whoever reads it sees it filled.
    pub(super) fn set_child(self, at: usize, child: BlockPtr) {
        self.children()[at].store(child.as_raw(), Ordering::Release);
    }

    /// Calls `visit` with each key in `range`, put together behind what `keys` holds, and does with it
    /// what `visit` says. Breaks if that was to stop.
    #[inline(always)]
    pub(super) fn visit(
        self,
        range: Range<usize>,
        keys: &mut Vec<u8>,
        mut visit: impl FnMut(&[u8], Traits) -> Visited,
    ) -> ControlFlow<()> {
        let (prefix, text) = (Prefix::of(self.prefix()), self.text());
        let mut expiries = self.expiries()[self.expiring_before(range.start)..].iter();
        let mut start = self.tail_start(range.start);
        let tails = self.tail_start(range.end) - start;
        // Nothing that was just written is read again unless `visit` does so: the processor would
        // wait for the stores, which cost more than all the rest.
        let mut at = keys.len();
        keys.resize(at + range.len() * (prefix.bytes.len() + 8) + tails + SLACK, 0);
        let mut outcome = ControlFlow::Continue(());
        let (heads, ends) = (&self.heads()[range.clone()], &self.ends()[range.clone()]);
        for ((head, end), mark) in heads.iter().zip(ends).zip(&self.marks()[range]) {
            let end = usize::from(*end);
            let len = prefix.put(&mut keys[at..], *head, mark & HEAD_LEN, text, start..end);
            start = end;
            let expires = if mark & EXPIRES != 0 { expiries.next() } else { None };
            let traits = Traits {
                expires_at_ms: expires.copied().unwrap_or(0),
                has_metadata: mark & HAS_METADATA != 0,
            };
            match visit(&keys[at..at + len], traits) {
                Visited::Keep => at += len,
                Visited::Skip => {}
                Visited::Stop => {
                    outcome = ControlFlow::Break(());
                    break;
                }
            }
        }
        keys.truncate(at);
        outcome
    }

    /// The same from the last key of `range` to the first.
    #[inline(always)]
    pub(super) fn visit_back(
        self,
        range: Range<usize>,
        keys: &mut Vec<u8>,
        mut visit: impl FnMut(&[u8], Traits) -> Visited,
    ) -> ControlFlow<()> {
        let (prefix, text) = (Prefix::of(self.prefix()), self.text());
        let mut expiries = self.expiries()[..self.expiring_before(range.end)].iter().rev();
        let mut end = self.tail_start(range.end);
        let tails = end - self.tail_start(range.start);
        let mut at = keys.len();
        keys.resize(at + range.len() * (prefix.bytes.len() + 8) + tails + SLACK, 0);
        let mut outcome = ControlFlow::Continue(());
        let (heads, ends, marks) = (self.heads(), self.ends(), self.marks());
        for nth in range.rev() {
            let start = if nth == 0 { 0 } else { usize::from(ends[nth - 1]) };
            let mark = marks[nth];
            let len = prefix.put(&mut keys[at..], heads[nth], mark & HEAD_LEN, text, start..end);
            end = start;
            let expires = if mark & EXPIRES != 0 { expiries.next() } else { None };
            let traits = Traits {
                expires_at_ms: expires.copied().unwrap_or(0),
                has_metadata: mark & HAS_METADATA != 0,
            };
            match visit(&keys[at..at + len], traits) {
                Visited::Keep => at += len,
                Visited::Skip => {}
                Visited::Stop => {
                    outcome = ControlFlow::Break(());
                    break;
                }
            }
        }
        keys.truncate(at);
        outcome
    }

    /// Whether [`Self::splice`] can put this key in: it has the prefix of the others.
    pub(super) fn admits(self, key: &[u8]) -> bool {
        self.count() > 0 && key.starts_with(self.prefix())
    }

    /// The most bytes that [`Self::splice`] can come to with this key put in.
    pub(super) fn size_with(self, key: &[u8]) -> usize {
        self.size() + KEY_OVERHEAD + 8 + (key.len() - self.prefix().len()).saturating_sub(8)
    }

    /// A new leaf: this one with the keys in `cut` replaced by `put`, which stands where it belongs
    /// and begins with the prefix.
    pub(super) fn splice(self, cut: Range<usize>, put: Option<(&[u8], Traits)>) -> NewBlock {
        let old = self.shape();
        let put = put.map(|(key, traits)| (&key[old.prefix_len..], traits));
        let added = usize::from(put.is_some());
        let put_tail = put.map_or(&[][..], |(rest, _)| tail_of(rest));
        let put_expires = put.is_some_and(|(_, traits)| traits.expires_at_ms != 0);
        let gone = self.tail_start(cut.start)..self.tail_start(cut.end);
        let gone_expiries = self.expiring_before(cut.start)..self.expiring_before(cut.end);
        let mut new = NewBlock::leaf(Shape {
            count: old.count - cut.len() + added,
            wide: old.wide - gone_expiries.len() + usize::from(put_expires),
            tails_len: old.tails_len - gone.len() + put_tail.len(),
            ..old
        });
        let parts = new.parts();
        splice_copy(parts.heads, self.heads(), &cut, put.map(|(rest, _)| head_of(rest)));
        splice_copy(parts.marks, self.marks(), &cut, put.map(|(rest, t)| mark_of(rest, t)));
        let put_end = (gone.start + put_tail.len()) as u16;
        splice_copy(parts.ends, self.ends(), &cut, put.map(|_| put_end));
        let moved = (put_tail.len() as u16).wrapping_sub(gone.len() as u16);
        for end in &mut parts.ends[cut.start + added..] {
            *end = end.wrapping_add(moved);
        }
        let put_expiry = put.filter(|_| put_expires).map(|(_, traits)| traits.expires_at_ms);
        splice_copy(parts.expiries, self.expiries(), &gone_expiries, put_expiry);
        let tails = &self.text()[..old.tails_len];
        parts.tails[..gone.start].copy_from_slice(&tails[..gone.start]);
        parts.tails[gone.start..][..put_tail.len()].copy_from_slice(put_tail);
        parts.tails[gone.start + put_tail.len()..].copy_from_slice(&tails[gone.end..]);
        parts.prefix.copy_from_slice(self.prefix());
        new
    }
}

#[inline]
fn splice_copy<T: Copy>(new: &mut [T], old: &[T], cut: &Range<usize>, put: Option<T>) {
    new[..cut.start].copy_from_slice(&old[..cut.start]);
    let mut at = cut.start;
    if let Some(put) = put {
        new[at] = put;
        at += 1;
    }
    new[at..].copy_from_slice(&old[cut.end..]);
}

#[inline]
fn head_of(rest: &[u8]) -> u64 {
    match rest.first_chunk::<8>() {
        Some(bytes) => u64::from_be_bytes(*bytes),
        None => {
            let mut bytes = [0; 8];
            bytes[..rest.len()].copy_from_slice(rest);
            u64::from_be_bytes(bytes)
        }
    }
}

#[inline]
fn tail_of(rest: &[u8]) -> &[u8] {
    rest.get(8..).unwrap_or(&[])
}

#[inline]
fn mark_of(rest: &[u8], traits: Traits) -> u8 {
    let mut mark = rest.len().min(8) as u8;
    if traits.expires_at_ms != 0 {
        mark |= EXPIRES;
    }
    if traits.has_metadata {
        mark |= HAS_METADATA;
    }
    mark
}

/// What becomes of a key that a walk has met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Visited {
    /// It stays, and the next one comes behind it.
    Keep,
    /// The next one takes its place.
    Skip,
    /// It does not stay, and the walk ends.
    Stop,
}

/// Bytes copied at once where a tail is no longer.
const STRIDE: usize = 16;
/// The same for a prefix.
const PREFIX_STRIDE: usize = 32;
/// What is written behind a key at most.
const SLACK: usize = PREFIX_STRIDE + 8 + STRIDE;

/// What all keys of a block begin with, ready to be copied in one stride if it is short.
struct Prefix<'a> {
    bytes: &'a [u8],
    stride: [u8; PREFIX_STRIDE],
}

impl<'a> Prefix<'a> {
    fn of(bytes: &'a [u8]) -> Prefix<'a> {
        let mut stride = [0; PREFIX_STRIDE];
        if let Some(short) = stride.get_mut(..bytes.len()) {
            short.copy_from_slice(bytes);
        }
        Prefix { bytes, stride }
    }

    /// Writes a key to the front of `room`, which is longer by [`SLACK`]; returns its length.
    #[inline(always)]
    fn put(
        &self,
        room: &mut [u8],
        head: u64,
        head_len: u8,
        text: &[u8],
        tail: Range<usize>,
    ) -> usize {
        let len = self.bytes.len() + usize::from(head_len) + tail.len();
        debug_assert!(len <= KEY_LEN_MAX);
        match room.first_chunk_mut::<PREFIX_STRIDE>() {
            Some(front) if self.bytes.len() <= PREFIX_STRIDE => *front = self.stride,
            _ => room[..self.bytes.len()].copy_from_slice(self.bytes),
        }
        let rest = &mut room[self.bytes.len()..];
        let front = rest.first_chunk_mut::<{ 8 + STRIDE }>();
        let front = front.expect("there is slack behind the longest key");
        front[..8].copy_from_slice(&head.to_be_bytes());
        match text[tail.start..].first_chunk::<STRIDE>() {
            Some(bytes) if tail.len() <= STRIDE => front[8..].copy_from_slice(bytes),
            _ => rest[8..8 + tail.len()].copy_from_slice(&text[tail]),
        }
        len
    }
}

/// A block that nobody else has seen. Dropping it frees it.
pub(super) struct NewBlock {
    base: NonNull<Header>,
}

/// The parts of a block while it is filled.
struct Parts<'a> {
    heads: &'a mut [u64],
    expiries: &'a mut [u64],
    ends: &'a mut [u16],
    marks: &'a mut [u8],
    tails: &'a mut [u8],
    prefix: &'a mut [u8],
}

impl NewBlock {
    fn leaf(shape: Shape) -> NewBlock {
        debug_assert_eq!(shape.level, 0);
        NewBlock::allocate(shape)
    }

    fn inner(shape: Shape, children: &[BlockPtr]) -> NewBlock {
        assert!(shape.level > 0 && shape.wide == children.len() && shape.count + 1 == shape.wide);
        let new = NewBlock::allocate(shape);
        for (at, child) in children.iter().enumerate() {
            // SAFETY: an inner block has `wide` child pointers at `wide_at`, aligned to 8, and `at`
            // is below `wide`; the block is still owned by this function alone.
            unsafe {
                let place = new.base.as_ptr().byte_add(shape.wide_at() + at * CHILD_LEN);
                place.cast::<AtomicPtr<Header>>().write(AtomicPtr::new(child.as_raw()));
            }
        }
        new
    }

    fn allocate(shape: Shape) -> NewBlock {
        assert!(
            shape.size() <= usize::from(u16::MAX) && shape.prefix_len <= KEY_LEN_MAX,
            "a block of {} bytes is beyond every limit",
            shape.size()
        );
        let layout = layout(shape.size());
        // SAFETY: the layout has at least the size of a header, so it is not zero.
        let base = unsafe { alloc(layout) }.cast::<Header>();
        let Some(base) = NonNull::new(base) else { handle_alloc_error(layout) };
        let header = Header {
            size: shape.size() as u32,
            count: shape.count as u16,
            prefix_len: shape.prefix_len as u16,
            wide: shape.wide as u16,
            level: shape.level,
            #[cfg(loom)]
            witness: loom::cell::UnsafeCell::new(()),
        };
        // Zeroed here, and not by the allocator: glibc's `calloc` passes by the blocks that this thread
        // has just freed, which are warm and of the right size.
        // SAFETY: the allocation is as large as a header or larger, aligned to 8, and ours alone.
        unsafe {
            base.write(header);
            base.as_ptr().add(1).cast::<u8>().write_bytes(0, shape.size() - HEADER_LEN);
        }
        NewBlock { base }
    }

    /// The block as it will be read.
    pub(super) fn view(&self) -> Block<'_> {
        Block { base: self.base, life: PhantomData }
    }

    /// Hands the block over to the tree, which must free it.
    pub(super) fn into_ptr(self) -> BlockPtr {
        let ptr = BlockPtr(self.base);
        std::mem::forget(self);
        ptr
    }

    fn parts(&mut self) -> Parts<'_> {
        let shape = self.view().shape();
        let expiring = if shape.level == 0 { shape.wide } else { 0 };
        // SAFETY: `self` owns the block alone and lends it out mutably, so nobody else reads or
        // writes it meanwhile. The six ranges follow from the shape that the block was allocated
        // with, are disjoint, aligned for their types, and zeroed; any bits are valid in them. The
        // child pointers of an inner block are in none of them.
        unsafe {
            Parts {
                heads: self.array_mut(Shape::HEADS, shape.count),
                expiries: self.array_mut(shape.wide_at(), expiring),
                ends: self.array_mut(shape.ends_at(), shape.count),
                marks: self.array_mut(shape.marks_at(), shape.count),
                tails: self.array_mut(shape.tails_at(), shape.tails_len),
                prefix: self.array_mut(shape.prefix_at(), shape.prefix_len),
            }
        }
    }

    /// # Safety
    /// The layout has `len` initialised, aligned values of type `T` at byte `at`; while `'a` lasts
    /// nothing else refers to them.
    unsafe fn array_mut<'a, T>(&self, at: usize, len: usize) -> &'a mut [T] {
        // SAFETY: the caller's word; `base` came from the allocation of the whole block.
        unsafe { std::slice::from_raw_parts_mut(self.base.as_ptr().byte_add(at).cast::<T>(), len) }
    }
}

impl Drop for NewBlock {
    fn drop(&mut self) {
        #[cfg(loom)]
        self.view().header().witness.with_mut(|_| ());
        let layout = layout(self.view().size());
        // SAFETY: the header holds the size that the block was allocated with, and `layout` is the
        // same function. Nobody else uses the block: it was never published, or the caller of
        // `BlockPtr::free` says so.
        unsafe { dealloc(self.base.as_ptr().cast(), layout) };
    }
}

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 8).expect("a block is smaller than 64 KiB")
}

/// Keys taken out of blocks, in order, while blocks are cut anew.
#[derive(Default)]
pub(super) struct Keys {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Keys {
    /// The same keys, in memory of their own that is as long as they are.
    pub(super) fn of(keys: &[&[u8]]) -> Keys {
        let bytes = keys.iter().map(|key| key.len()).sum();
        let mut copy =
            Keys { bytes: Vec::with_capacity(bytes), ends: Vec::with_capacity(keys.len()) };
        keys.iter().for_each(|key| copy.push(key));
        copy
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }

    pub(super) fn get(&self, at: usize) -> &[u8] {
        let start = if at == 0 { 0 } else { self.ends[at - 1] };
        &self.bytes[start..self.ends[at]]
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.len()).map(|at| self.get(at))
    }

    pub(super) fn push(&mut self, key: &[u8]) {
        self.bytes.extend_from_slice(key);
        self.ends.push(self.bytes.len());
    }

    /// The keys but those in `cut`.
    pub(super) fn without(&self, cut: Range<usize>) -> Keys {
        let mut keys = Keys::default();
        (0..self.len()).filter(|at| !cut.contains(at)).for_each(|at| keys.push(self.get(at)));
        keys
    }

    /// Appends the keys of a block.
    pub(super) fn push_from(&mut self, block: Block<'_>, range: Range<usize>) {
        // Once, instead of in steps: most of these live for one change only.
        let tails = block.tail_start(range.end) - block.tail_start(range.start);
        self.bytes.reserve(range.len() * (block.prefix().len() + 8) + tails);
        self.ends.reserve(range.len());
        for at in range {
            self.bytes.extend_from_slice(block.prefix());
            let head_len = usize::from(block.marks()[at] & HEAD_LEN);
            self.bytes.extend_from_slice(&block.heads()[at].to_be_bytes()[..head_len]);
            self.bytes.extend_from_slice(block.tail(at));
            self.ends.push(self.bytes.len());
        }
    }

    /// All bytes of the keys in `range`.
    fn bytes_in(&self, range: Range<usize>) -> usize {
        let end_of = |at: usize| if at == 0 { 0 } else { self.ends[at - 1] };
        end_of(range.end) - end_of(range.start)
    }

    /// Where to cut `range` (of two keys or more) so that both sides weigh about the same.
    pub(super) fn middle(&self, range: Range<usize>) -> usize {
        debug_assert!(range.len() >= 2);
        let weight =
            |end: usize| self.bytes_in(range.start..end) + (end - range.start) * KEY_OVERHEAD;
        let half = weight(range.end) / 2;
        let cut = (range.start + 1..range.end).find(|&at| weight(at) >= half);
        cut.unwrap_or(range.end - 1)
    }

    /// The shape of a block that holds the keys in `range`.
    fn shape(&self, range: Range<usize>, level: u8, wide: usize) -> Shape {
        let prefix_len = match range.len() {
            0 => 0,
            _ => common_prefix_len(self.get(range.start), self.get(range.end - 1)),
        };
        let tail_len = |at: usize| tail_of(&self.get(at)[prefix_len..]).len();
        let tails_len = range.clone().map(tail_len).sum();
        Shape { level, count: range.len(), wide, prefix_len, tails_len }
    }

    /// The size of a leaf with the keys in `range`.
    pub(super) fn leaf_size(&self, range: Range<usize>, traits: &[Traits]) -> usize {
        self.shape(range.clone(), 0, expiring(&traits[range])).size()
    }

    /// A leaf with the keys in `range`; `traits` are those of all keys.
    pub(super) fn leaf(&self, range: Range<usize>, traits: &[Traits]) -> NewBlock {
        let traits = &traits[range.clone()];
        let mut new = NewBlock::leaf(self.shape(range.clone(), 0, expiring(traits)));
        self.fill(&mut new, range, |at| traits[at]);
        let expires = traits.iter().map(|traits| traits.expires_at_ms).filter(|&ms| ms != 0);
        for (place, expires_at_ms) in new.parts().expiries.iter_mut().zip(expires) {
            *place = expires_at_ms;
        }
        new
    }

    /// The size of an inner block with the separators in `range`.
    pub(super) fn inner_size(&self, range: Range<usize>) -> usize {
        self.shape(range.clone(), 1, range.len() + 1).size()
    }

    /// An inner block with the separators in `range` between its children.
    pub(super) fn inner(&self, range: Range<usize>, level: u8, children: &[BlockPtr]) -> NewBlock {
        let shape = self.shape(range.clone(), level, children.len());
        let mut new = NewBlock::inner(shape, children);
        self.fill(&mut new, range, |_| Traits::default());
        new
    }

    fn fill(&self, new: &mut NewBlock, range: Range<usize>, traits: impl Fn(usize) -> Traits) {
        let parts = new.parts();
        let prefix_len = parts.prefix.len();
        let mut tails_len = 0;
        for (at, from) in range.enumerate() {
            let key = self.get(from);
            parts.prefix.copy_from_slice(&key[..prefix_len]);
            let (rest, tail) = (&key[prefix_len..], tail_of(&key[prefix_len..]));
            parts.heads[at] = head_of(rest);
            parts.marks[at] = mark_of(rest, traits(at));
            parts.tails[tails_len..][..tail.len()].copy_from_slice(tail);
            tails_len += tail.len();
            parts.ends[at] = tails_len as u16;
        }
        debug_assert_eq!(tails_len, parts.tails.len());
    }
}

fn expiring(traits: &[Traits]) -> usize {
    traits.iter().filter(|traits| traits.expires_at_ms != 0).count()
}

pub(super) fn common_prefix_len(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(x, y)| x == y).count()
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn leaf_of(keys: &[(&[u8], Traits)]) -> NewBlock {
        let mut set = Keys::default();
        keys.iter().for_each(|(key, _)| set.push(key));
        let traits: Vec<Traits> = keys.iter().map(|(_, traits)| *traits).collect();
        set.leaf(0..keys.len(), &traits)
    }

    fn contents(block: Block<'_>) -> Vec<(Vec<u8>, Traits)> {
        let mut all = Vec::new();
        let _ = block.visit(0..block.count(), &mut Vec::new(), |key, traits| {
            all.push((key.to_vec(), traits));
            Visited::Skip
        });
        all
    }

    fn expires(expires_at_ms: u64) -> Traits {
        Traits { expires_at_ms, has_metadata: false }
    }

    const PLAIN: Traits = Traits { expires_at_ms: 0, has_metadata: false };
    const META: Traits = Traits { expires_at_ms: 0, has_metadata: true };

    /// Prefixes of each other, zeros that look like padding, and keys around the length of a head.
    const AWKWARD: [&[u8]; 12] = [
        b"",
        b"\0",
        b"\0\0",
        b"a",
        b"a\0",
        b"a\0\0\0\0\0\0\0",
        b"a\0\0\0\0\0\0\0\0",
        b"a\0\0\0\0\0\0\0\x01",
        b"abcdefgh",
        b"abcdefgh\0",
        b"abcdefghi",
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff",
    ];

    #[test]
    fn a_leaf_gives_back_its_keys_and_finds_each() {
        for prefix in [&b""[..], b"tenant"] {
            let keys: Vec<Vec<u8>> = AWKWARD.iter().map(|key| [prefix, key].concat()).collect();
            for skip in 0..keys.len() {
                let traits = |at: usize| [PLAIN, META, expires(7 + at as u64)][at % 3];
                let kept: Vec<_> = (0..keys.len())
                    .filter(|&at| at != skip)
                    .map(|at| (&keys[at][..], traits(at)))
                    .collect();
                let leaf = leaf_of(&kept);
                let expected: Vec<_> = kept.iter().map(|(key, t)| (key.to_vec(), *t)).collect();
                assert_eq!(contents(leaf.view()), expected);
                for (at, (key, traits)) in kept.iter().enumerate() {
                    assert_eq!(leaf.view().search(key), Ok(at));
                    assert_eq!(leaf.view().traits(at), *traits);
                }
                assert_eq!(leaf.view().search(&keys[skip]), Err(skip));
            }
        }
    }

    #[test]
    fn a_splice_is_the_leaf_built_anew() {
        let keys: Vec<Vec<u8>> = AWKWARD.iter().map(|key| [b"ns", *key].concat()).collect();
        let traits = |at: usize| [expires(100 + at as u64), PLAIN, META][at % 3];
        let all: Vec<_> = keys.iter().enumerate().map(|(at, key)| (&key[..], traits(at))).collect();
        for at in 0..all.len() {
            let mut others = all.clone();
            let put = others.remove(at);
            let leaf = leaf_of(&others);
            let grown = leaf.view().splice(at..at, Some(put));
            assert_eq!(contents(grown.view()), contents(leaf_of(&all).view()));
            let shrunk = grown.view().splice(at..at + 1, None);
            assert_eq!(contents(shrunk.view()), contents(leaf.view()));
            let other = if put.1.expires_at_ms == 0 { expires(9) } else { META };
            let changed = grown.view().splice(at..at + 1, Some((put.0, other)));
            assert_eq!(changed.view().traits(at), other);
            for end in at..=all.len() {
                let rest = grown.view().splice(at..end, None);
                let kept: Vec<_> = [&all[..at], &all[end..]].concat();
                let kept: Vec<_> = kept.iter().map(|(key, t)| (key.to_vec(), *t)).collect();
                assert_eq!(contents(rest.view()), kept);
            }
        }
    }

    #[test]
    fn an_inner_block_leads_every_key_to_its_child() {
        let leaves: Vec<BlockPtr> = (0..4).map(|_| leaf_of(&[]).into_ptr()).collect();
        let mut separators = Keys::default();
        [&b"b"[..], b"ba", b"c"].iter().for_each(|key| separators.push(key));
        let inner = separators.inner(0..3, 1, &leaves);
        let cases: [(&[u8], usize); 8] = [
            (b"", 0),
            (b"a\xff", 0),
            (b"b", 1),
            (b"b\xff", 2),
            (b"ba", 2),
            (b"bz", 2),
            (b"c", 3),
            (b"\xff", 3),
        ];
        for (key, child) in cases {
            assert_eq!(inner.view().child_for(key), child, "{key:?}");
            assert_eq!(inner.view().child(child), leaves[child]);
        }
        for leaf in leaves {
            // SAFETY: this test made the leaf, and the inner block above never reads it.
            unsafe { leaf.free() };
        }
    }
}
