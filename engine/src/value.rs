//! What a get returns: the bytes where they lie in the segment, and what keeps them there.

use std::fmt;
use std::io;
use std::ops::{Deref, Range};
use std::sync::Arc;

use bytes::Bytes;

use crate::error::{Corruption, Damage, Error};
use crate::format::record::{BLOCK_LEN, Content, Extent, Header, Record, table_of};
use crate::segment::{Lease, Segment};

/// A value, its metadata, expiry and version, borrowed from the segment they are stored in.
///
/// It reads as `&[u8]`, was verified against its checksum, and stays valid whatever happens to the
/// key: the segment's file stays mapped while a `Value` lives, so a value that is kept for long
/// keeps disk space. Cloning copies no bytes.
///
/// ```
/// # fn main() -> Result<(), kvast::Error> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let db = kvast::Db::open(dir.path())?;
/// let users = db.namespace("users")?;
/// let version = users.put("42", b"Ada")?;
/// let value = users.get("42")?.expect("it was just put");
/// assert_eq!(&value[..], b"Ada");
/// assert_eq!((value.version(), value.expires_at(), value.metadata()), (version, None, None));
/// let bytes: bytes::Bytes = value.into_bytes(); // no copy
/// # assert_eq!(&bytes[..], b"Ada");
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Value {
    lease: Arc<Lease>,
    /// Where the value starts in the leased file.
    start: u64,
    header: Header,
    /// What a value in a blob cannot have before it.
    metadata: Option<Arc<[u8]>>,
}

impl Value {
    /// The value inside of the record at `offset`.
    #[inline]
    pub(crate) fn new(segment: &Segment, offset: u64, record: &Record<'_>) -> Value {
        let start = offset + record.header.value_start() as u64;
        Value { lease: segment.lease(), start, header: record.header, metadata: None }
    }

    /// The value at `extent` of `blob`, to which a record refers.
    pub(crate) fn in_blob(
        blob: &Segment,
        extent: Extent,
        header: Header,
        metadata: Option<Arc<[u8]>>,
    ) -> Result<Value, Corruption> {
        // From here on it is known that all of it is there.
        blob.body.content(extent.offset(), &header)?;
        Ok(Value { lease: blob.lease(), start: extent.offset(), header, metadata })
    }

    /// The id of the segment that it lies in, and where it starts there.
    #[cfg(feature = "testing")]
    pub(crate) fn place(&self) -> (u32, u64) {
        (self.lease.id.0, self.start)
    }

    /// Whether a new record can refer to it, instead of having a copy.
    pub(crate) fn is_in_blob(&self) -> bool {
        self.header.extent.is_some()
    }

    /// Whether it is too long to be verified as one piece.
    #[inline]
    pub(crate) fn is_long(&self) -> bool {
        self.header.has_block_table()
    }

    #[inline]
    fn range(&self) -> Range<usize> {
        let start = self.start as usize;
        start..start + self.header.value_len as usize
    }

    /// Where its block table lies, empty if there is none.
    fn table(&self) -> Range<usize> {
        table_of(self.range())
    }

    /// The metadata, if there is any.
    #[must_use]
    pub fn metadata(&self) -> Option<&[u8]> {
        if self.header.extent.is_some() {
            return self.metadata.as_deref();
        }
        let end = self.range().start;
        let start = end - usize::from(self.header.metadata_len);
        (start < end).then(|| &self.lease.map.bytes()[start..end])
    }

    /// When the key expires, in ms since 1970.
    #[must_use]
    pub fn expires_at(&self) -> Option<u64> {
        (self.header.expires_ms != 0).then_some(self.header.expires_ms)
    }

    /// When it was written, in ms since 1970, by the clock of the machine that wrote it.
    #[must_use]
    pub fn written_at(&self) -> u64 {
        self.header.written_ms
    }

    /// The version: it grows with every write to the store and stays with the value.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.header.seqno
    }

    /// The value as `Bytes`, which keep the segment mapped. Copies nothing.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        Bytes::from_owner(self)
    }

    /// Whether all of it is in memory, so that reading it will not wait for the disk.
    #[must_use]
    pub fn is_resident(&self) -> bool {
        self.lease.map.is_resident(self.range().start..self.table().end)
    }

    /// Brings it into memory. Where the disk cannot give it back this is an error, while touching
    /// the bytes would end the process.
    ///
    /// # Errors
    /// What the system says.
    pub fn populate(&self) -> io::Result<()> {
        self.lease.map.populate(self.range().start..self.table().end)
    }

    /// Verifies with `check`, which says what is wrong with the value and at which of its bytes.
    fn verify(
        &self,
        check: impl FnOnce(&Content<'_>) -> Result<(), (usize, Damage)>,
    ) -> Result<(), Error> {
        let content = self.lease.content(self.start, &self.header)?;
        check(&content).map_err(|(at, damage)| {
            // Inside of a record the place that is named is the record's.
            let place = match self.header.extent {
                None => self.start - self.header.value_start() as u64,
                Some(_) => self.start + at as u64,
            };
            self.lease.corruption(place, damage).into()
        })
    }

    /// Verifies one block; `and_table` also what its checksum is taken from.
    fn verify_block(&self, block: usize, and_table: bool) -> Result<(), Error> {
        self.verify(|content| {
            if and_table {
                content.verify_table().map_err(|damage| (0, damage))?;
            }
            content.verify_block(block).map_err(|damage| (block * BLOCK_LEN, damage))
        })
    }

    /// Verifies all of it.
    pub(crate) fn verify_all(&self) -> Result<(), Error> {
        let blocks = self.len().div_ceil(BLOCK_LEN).max(1);
        (0..blocks).try_for_each(|block| self.verify_block(block, block == 0))
    }
}

impl Deref for Value {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        let is_there = "it was when the value was found";
        self.lease.map.window(self.range()).expect(is_there)
    }
}

impl AsRef<[u8]> for Value {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Value")
            .field("len", &self.len())
            .field("version", &self.version())
            .field("expires_at", &self.expires_at())
            .finish_non_exhaustive()
    }
}

/// A value that is verified block by block while it is taken, for large ones that are sent on as
/// they are read.
///
/// ```
/// # fn main() -> Result<(), kvast::Error> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let db = kvast::Db::open(dir.path())?;
/// let files = db.namespace("files")?;
/// files.put("a", vec![7; 200_000])?;
/// let mut stream = files.get_stream("a")?.expect("it was just put");
/// let mut len = 0;
/// while let Some(block) = stream.next_block() {
///     len += block?.len(); // at most 64 KiB, verified, not copied
/// }
/// assert_eq!(len as u64, stream.len());
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct ValueStream {
    value: Value,
    whole: Option<Bytes>,
    /// What is still to be taken.
    rest: Range<u64>,
    /// What the checksums of the blocks are checked against was itself checked.
    has_begun: bool,
}

impl ValueStream {
    pub(crate) fn new(value: Value) -> ValueStream {
        let rest = 0..u64::from(value.header.value_len);
        ValueStream { value, whole: None, rest, has_begun: false }
    }

    /// The length of the whole value in bytes, also if a range of it is taken.
    #[must_use]
    pub fn len(&self) -> u64 {
        u64::from(self.value.header.value_len)
    }

    /// Whether the value is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The metadata, if there is any.
    #[must_use]
    pub fn metadata(&self) -> Option<&[u8]> {
        self.value.metadata()
    }

    /// When the key expires, in ms since 1970.
    #[must_use]
    pub fn expires_at(&self) -> Option<u64> {
        self.value.expires_at()
    }

    /// When it was written; see [`Value::written_at`].
    #[must_use]
    pub fn written_at(&self) -> u64 {
        self.value.written_at()
    }

    /// The version; see [`Value::version`].
    #[must_use]
    pub fn version(&self) -> u64 {
        self.value.version()
    }

    /// Takes only these bytes of the value, counted from its start; what lies past its end is left out.
    /// Only the blocks that the range touches are read and verified.
    ///
    /// ```
    /// # fn main() -> Result<(), kvast::Error> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let files = kvast::Db::open(dir.path())?.namespace("files")?;
    /// files.put("a", vec![7; 200_000])?;
    /// let mut range = files.get_stream("a")?.expect("it was just put").range(100_000..100_010);
    /// assert_eq!(range.next_block().expect("ten bytes")?, vec![7; 10]);
    /// assert!(range.next_block().is_none());
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn range(mut self, range: Range<u64>) -> ValueStream {
        self.rest = range.start.min(self.len())..range.end.min(self.len());
        self
    }

    /// See [`Value::is_resident`].
    #[must_use]
    pub fn is_resident(&self) -> bool {
        self.value.is_resident()
    }

    /// See [`Value::populate`].
    ///
    /// # Errors
    /// What the system says.
    pub fn populate(&self) -> io::Result<()> {
        self.value.populate()
    }

    /// Whether all that is read to take this range is in memory.
    #[must_use]
    pub fn is_resident_within(&self, range: Range<u64>) -> bool {
        let map = &self.value.lease.map;
        map.is_resident(self.blocks_of(range)) && map.is_resident(self.value.table())
    }

    /// Brings all that is read to take this range into memory; see [`Value::populate`]. So a large value
    /// can be sent on a window at a time.
    ///
    /// # Errors
    /// What the system says.
    pub fn populate_within(&self, range: Range<u64>) -> io::Result<()> {
        let map = &self.value.lease.map;
        map.populate(self.blocks_of(range))?;
        map.populate(self.value.table())
    }

    /// The blocks that a range touches, in the file.
    fn blocks_of(&self, range: Range<u64>) -> Range<usize> {
        let value = self.value.range();
        let within = |at: u64| at.min(self.len()) as usize;
        let start = within(range.start) / BLOCK_LEN * BLOCK_LEN;
        let end = within(range.end).next_multiple_of(BLOCK_LEN).min(value.len());
        value.start + start..value.start + end
    }

    /// The next piece of at most 64 KiB, `None` after the last. An empty value has none.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if the block is not what was written.
    pub fn next_block(&mut self) -> Option<Result<Bytes, Error>> {
        if self.rest.is_empty() {
            return None;
        }
        let (start, block) = (self.rest.start as usize, self.rest.start as usize / BLOCK_LEN);
        let end = ((block + 1) * BLOCK_LEN).min(self.rest.end as usize);
        self.rest.start = end as u64;
        // A short value was verified when it was found.
        if self.value.header.has_block_table()
            && let Err(error) = self.value.verify_block(block, !self.has_begun)
        {
            return Some(Err(error));
        }
        self.has_begun = true;
        let whole = self.whole.get_or_insert_with(|| self.value.clone().into_bytes());
        Some(Ok(whole.slice(start..end)))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use crate::{Db, Durability, Options};

    fn value(len: usize) -> Vec<u8> {
        (0..len).map(|at| (at % 251) as u8).collect()
    }

    fn store() -> (tempfile::TempDir, Db) {
        let dir = tempfile::tempdir().expect("make a directory");
        let options = Options::new().durability(Durability::Os).background(false);
        let db = options.open(dir.path().join("store")).expect("open");
        (dir, db)
    }

    #[test]
    fn a_range_of_a_stream_yields_just_those_bytes() {
        let (_dir, db) = store();
        let files = db.namespace("files").unwrap();
        for len in [0, 1, 65_536, 65_537, 300_000, 700_000] {
            let want = value(len);
            files.put("a", &want).unwrap();
            let edges = [0, 1, 65_535, 65_536, 65_537, 299_999, 400_000, len as u64, u64::MAX];
            for start in edges {
                for end in edges {
                    let mut stream = files.get_stream("a").unwrap().unwrap().range(start..end);
                    let mut found = Vec::new();
                    while let Some(block) = stream.next_block() {
                        let block = block.unwrap();
                        assert!(!block.is_empty() && block.len() <= 65_536);
                        found.extend_from_slice(&block);
                    }
                    let end = (end.min(len as u64) as usize).max(start.min(len as u64) as usize);
                    assert_eq!(found, want[(start.min(len as u64) as usize)..end]);
                    assert_eq!(stream.len(), len as u64);
                }
            }
        }
    }

    #[test]
    fn a_window_that_was_brought_into_memory_is_there() {
        let (_dir, db) = store();
        let files = db.namespace("files").unwrap();
        files.put("a", value(3_000_000)).unwrap();
        let stream = files.get_stream("a").unwrap().unwrap();
        for range in [0..1, 1_000_000..2_000_000, 2_999_999..5_000_000, 9_000_000..9_000_001] {
            stream.populate_within(range.clone()).unwrap();
            assert!(stream.is_resident_within(range));
        }
    }
}
