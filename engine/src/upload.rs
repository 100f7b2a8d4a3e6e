//! A value that is stored as it arrives, so that nobody needs all of it in memory.
//!
//! What always holds: nobody sees anything of an upload before [`Upload::commit`] has returned, and all
//! of it then; an upload that is dropped leaves the key as it was; the limits are checked as early as
//! they can be known.

use crate::error::Error;
use crate::key;
use crate::namespace::Namespace;
use crate::options::PutOptions;

/// A value on its way into the store; from [`Namespace::put_stream`]. Dropping it gives it up.
///
/// ```
/// # fn main() -> Result<(), kvast::Error> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let db = kvast::Db::open(dir.path())?;
/// let files = db.namespace("files")?;
/// let mut upload = files.put_stream("a", None)?;
/// for _ in 0..100 {
///     upload.write(&[7; 10_000])?;
/// }
/// assert!(files.get("a")?.is_none());
/// let version = upload.commit(kvast::PutOptions::new())?;
/// let value = files.get("a")?.expect("it was just stored");
/// assert_eq!((value.len(), value.version()), (1_000_000, version));
/// # Ok(()) }
/// ```
pub struct Upload {
    namespace: Namespace,
    key: Vec<u8>,
    /// What was announced.
    expected: Option<u64>,
    buffer: Vec<u8>,
}

impl Namespace {
    /// Begins to store a value that comes in pieces, of `len` bytes if that is known. The key keeps what
    /// it has until the upload is committed.
    ///
    /// # Errors
    /// [`Error::InvalidKey`], [`Error::ValueTooLarge`], [`Error::NamespaceNotFound`].
    pub fn put_stream(&self, key: impl AsRef<[u8]>, len: Option<u64>) -> Result<Upload, Error> {
        let key = key.as_ref();
        self.check_alive()?;
        let limits = &self.store.options;
        key::check(key, limits.max_key_bytes)?;
        let upload = Upload {
            namespace: self.clone(),
            key: key.to_vec(),
            expected: len,
            buffer: Vec::new(),
        };
        upload.check_limit(len.unwrap_or(0))?;
        Ok(upload)
    }
}

impl Upload {
    /// How many bytes have come.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.buffer.len() as u64
    }

    /// Whether no byte has come.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn check_limit(&self, len: u64) -> Result<(), Error> {
        let max = self.namespace.store.options.max_value_bytes;
        if len > max { Err(Error::ValueTooLarge { len, max }) } else { Ok(()) }
    }

    /// Takes the next piece. After an error the upload can only be dropped.
    ///
    /// # Errors
    /// [`Error::ValueTooLarge`] and [`Error::WrongLength`] as soon as too many bytes came,
    /// [`Error::DiskFull`], [`Error::Closed`], and what the system says.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let found = self.len() + bytes.len() as u64;
        self.check_limit(found)?;
        if let Some(expected) = self.expected.filter(|expected| found > *expected) {
            return Err(Error::WrongLength { expected, found });
        }
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    /// Stores the value, in place of whatever the key has. Returns the new version.
    ///
    /// # Errors
    /// As [`Namespace::put_with`], and [`Error::WrongLength`] if too few bytes came. The key keeps what
    /// it had then.
    pub fn commit(self, options: PutOptions) -> Result<u64, Error> {
        let found = self.len();
        if let Some(expected) = self.expected.filter(|expected| found != *expected) {
            return Err(Error::WrongLength { expected, found });
        }
        self.namespace.put_with(&self.key, &self.buffer, options)
    }
}
