//! What a get returns: the bytes where they lie in the segment, and what keeps them there.

use std::fmt;
use std::io;
use std::ops::{Deref, Range};
use std::sync::Arc;

use bytes::Bytes;

use crate::error::{Damage, Error};
use crate::format::record::{BLOCK_LEN, Header, Record};
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
    offset: u64,
    header: Header,
}

impl Value {
    pub(crate) fn new(segment: &Segment, offset: u64, record: &Record<'_>) -> Value {
        Value { lease: segment.lease(), offset, header: record.header }
    }

    fn range(&self) -> Range<usize> {
        let start = self.offset as usize + self.header.value_start();
        start..start + self.header.value_len as usize
    }

    /// The metadata, if there is any.
    #[must_use]
    pub fn metadata(&self) -> Option<&[u8]> {
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
        self.lease.map.is_resident(self.range())
    }

    /// Brings it into memory. Where the disk cannot give it back this is an error, while touching
    /// the bytes would end the process.
    ///
    /// # Errors
    /// What the system says.
    pub fn populate(&self) -> io::Result<()> {
        self.lease.map.populate(self.range())
    }

    fn verify(&self, check: impl FnOnce(&Record<'_>) -> Result<(), Damage>) -> Result<(), Error> {
        let record = self.lease.record(self.offset)?;
        check(&record).map_err(|damage| self.lease.corruption(self.offset, damage).into())
    }

    /// Verifies all of a value that has a block table.
    pub(crate) fn verify_all(&self) -> Result<(), Error> {
        self.verify(|record| record.verify_value())
    }
}

impl Deref for Value {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.lease.map.bytes()[self.range()]
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
    next: usize,
}

impl ValueStream {
    pub(crate) fn new(value: Value) -> ValueStream {
        ValueStream { value, whole: None, next: 0 }
    }

    /// The length of the value in bytes.
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

    /// The version; see [`Value::version`].
    #[must_use]
    pub fn version(&self) -> u64 {
        self.value.version()
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

    /// The next block of at most 64 KiB, `None` after the last. An empty value has none.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if the block is not what was written.
    pub fn next_block(&mut self) -> Option<Result<Bytes, Error>> {
        let start = self.next * BLOCK_LEN;
        if start as u64 >= self.len() {
            return None;
        }
        let block = self.next;
        let verified = self.value.verify(|record| {
            if block == 0 {
                record.verify_table()?;
            }
            if record.header.has_block_table() { record.verify_block(block) } else { Ok(()) }
        });
        self.next += 1;
        Some(verified.map(|()| {
            let whole = self.whole.get_or_insert_with(|| self.value.clone().into_bytes());
            whole.slice(start..whole.len().min(start + BLOCK_LEN))
        }))
    }
}
