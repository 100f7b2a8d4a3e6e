//! Every way a call can fail, as one type that names the place and the next step.
//!
//! An [`Error`] has a stable [`Code`], the same word in logs, over HTTP and on the command line,
//! and prints as a sentence. Errors can be cloned, because all members of a commit group share the
//! fate of their group. Absent on purpose: a variant that is only text.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// What went wrong. It prints as a sentence that names the place and the next step.
///
/// ```
/// # fn main() -> Result<(), kvast::Error> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let users = kvast::Db::open(dir.path())?.namespace("users")?;
/// let error = users.put("k".repeat(513), b"").unwrap_err();
/// assert_eq!(error.code(), kvast::Code::InvalidKey);
/// assert_eq!(error.to_string(), "the key has 513 bytes; at most 512 are allowed");
/// # Ok(()) }
/// ```
///
/// Match on [`Error::code`] where the kind of failure is enough.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Error {
    /// The key (or list prefix) is empty or too long.
    InvalidKey {
        /// Its length in bytes.
        len: usize,
        /// The longest that is allowed, in bytes.
        max: usize,
    },
    /// The metadata is too long.
    MetadataTooLarge {
        /// Its length in bytes.
        len: usize,
        /// The longest that is allowed, in bytes.
        max: usize,
    },
    /// The value is too long.
    ValueTooLarge {
        /// Its length in bytes.
        len: u64,
        /// The longest that is allowed, in bytes.
        max: u64,
    },
    /// An upload was given more or fewer bytes than it was begun for.
    WrongLength {
        /// The length that was said at the beginning.
        expected: u64,
        /// How many bytes came.
        found: u64,
    },
    /// The batch takes more bytes in the log than one commit can hold.
    BatchTooLarge {
        /// Its encoded length in bytes.
        len: u64,
        /// The longest that is allowed, in bytes.
        max: u64,
    },
    /// The expiry cannot be stored: it is 2^48 ms after 1970 or later, or nearer than the namespace
    /// allows.
    InvalidExpiry {
        /// The refused expiry, in ms since 1970.
        ms: u64,
        /// If it is too near: how far ahead it must lie at least.
        min_ttl: Option<Duration>,
    },
    /// The list cursor was never issued by this store, or belongs to another namespace, prefix or
    /// direction.
    InvalidCursor,
    /// An option is out of its range.
    InvalidOption {
        /// Which option.
        option: &'static str,
        /// What it must be.
        must: &'static str,
    },
    /// A namespace name must have 1 to 512 characters, none of them a control character.
    InvalidName {
        /// The name's length in characters.
        chars: usize,
        /// The first control character in it.
        control: Option<char>,
    },
    /// There is no such namespace, or it was deleted while this handle was held.
    NamespaceNotFound,
    /// Another namespace has this name already.
    NamespaceExists {
        /// The name.
        name: String,
    },
    /// The key's version is not the one that the write asked for.
    VersionMismatch {
        /// The version that the key has, `None` if it is absent.
        current: Option<u64>,
    },
    /// Another process has this store open.
    Locked {
        /// The store's directory.
        path: PathBuf,
        /// The process that holds the lock, if it could be read.
        pid: Option<u32>,
    },
    /// Bytes on disk are not what was written. Nothing was changed by noticing it.
    Corrupt(Corruption),
    /// A file was written by a later version of kvast, or is no file of kvast at all.
    UnknownFormat {
        /// The file's name.
        file: String,
        /// What is unknown about it.
        detail: String,
    },
    /// An earlier write or sync failed, so writes are refused until the store is opened again.
    Poisoned {
        /// What failed then.
        cause: Arc<str>,
    },
    /// The file system has no room for this write; nothing of it is visible.
    DiskFull {
        /// Bytes that the file system has left, if it could be asked.
        free: Option<u64>,
    },
    /// The store was opened read-only.
    ReadOnly,
    /// The store was closed.
    Closed,
    /// The operating system refused.
    Io {
        /// The engine's step, for example "sync the log".
        during: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: Arc<io::Error>,
    },
}

impl Error {
    pub(crate) fn io(during: &'static str, path: &Path, source: io::Error) -> Error {
        if source.kind() == io::ErrorKind::StorageFull
            || source.kind() == io::ErrorKind::QuotaExceeded
        {
            return Error::DiskFull { free: None };
        }
        Error::Io { during, path: path.to_owned(), source: Arc::new(source) }
    }

    /// The stable word for this kind of failure.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Error::InvalidKey { .. } => Code::InvalidKey,
            Error::MetadataTooLarge { .. } => Code::MetadataTooLarge,
            Error::ValueTooLarge { .. } => Code::ValueTooLarge,
            Error::WrongLength { .. } => Code::WrongLength,
            Error::BatchTooLarge { .. } => Code::BatchTooLarge,
            Error::InvalidExpiry { .. } => Code::InvalidExpiry,
            Error::InvalidCursor => Code::InvalidCursor,
            Error::InvalidOption { .. } => Code::InvalidOption,
            Error::InvalidName { .. } => Code::InvalidName,
            Error::NamespaceNotFound => Code::NamespaceNotFound,
            Error::NamespaceExists { .. } => Code::NamespaceExists,
            Error::VersionMismatch { .. } => Code::VersionMismatch,
            Error::Locked { .. } => Code::Locked,
            Error::Corrupt(_) => Code::Corrupt,
            Error::UnknownFormat { .. } => Code::UnknownFormat,
            Error::Poisoned { .. } => Code::Poisoned,
            Error::DiskFull { .. } => Code::DiskFull,
            Error::ReadOnly => Code::ReadOnly,
            Error::Closed => Code::Closed,
            Error::Io { .. } => Code::Io,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::InvalidKey { len: 0, .. } => f.write_str("the key is empty"),
            Error::InvalidKey { len, max } => {
                write!(f, "the key has {len} bytes; at most {max} are allowed")
            }
            Error::MetadataTooLarge { len, max } => {
                write!(f, "the metadata has {len} bytes; at most {max} are allowed")
            }
            Error::ValueTooLarge { len, max } => {
                write!(f, "the value has {len} bytes; at most {max} are allowed")
            }
            Error::WrongLength { expected, found } => {
                write!(f, "{expected} bytes were announced and {found} came; nothing was stored")
            }
            Error::BatchTooLarge { len, max } => write!(
                f,
                "the batch takes {len} bytes in the log; at most {max} fit in one commit, so split it"
            ),
            Error::InvalidExpiry { ms, min_ttl: None } => {
                write!(f, "an expiry of {ms} ms since 1970 is too far away to be stored")
            }
            Error::InvalidExpiry { ms, min_ttl: Some(min_ttl) } => write!(
                f,
                "an expiry of {ms} ms since 1970 is too near; \
                 in this namespace it must lie at least {min_ttl:?} ahead"
            ),
            Error::InvalidCursor => f.write_str(
                "the cursor was not issued by this store for this namespace, prefix and direction; \
                 start the list again without a cursor",
            ),
            Error::InvalidOption { option, must } => write!(f, "option `{option}` must be {must}"),
            Error::InvalidName { control: Some(control), .. } => {
                write!(f, "a namespace name has no control characters; this one has {control:?}")
            }
            Error::InvalidName { chars, control: None } => {
                write!(f, "a namespace name has 1 to 512 characters; this one has {chars}")
            }
            Error::NamespaceNotFound => f.write_str("there is no such namespace"),
            Error::NamespaceExists { name } => {
                write!(f, "a namespace named {name:?} exists already")
            }
            Error::VersionMismatch { current: Some(version) } => {
                write!(f, "the key is at version {version} by now; read it again and retry")
            }
            Error::VersionMismatch { current: None } => {
                f.write_str("the key is absent; read it again and retry")
            }
            Error::Locked { path, pid } => {
                write!(f, "the store {} is open in another process", path.display())?;
                if let Some(pid) = pid {
                    write!(f, " (pid {pid})")?;
                }
                f.write_str("; stop that one first, or talk to it instead")
            }
            Error::Corrupt(corruption) => corruption.fmt(f),
            Error::UnknownFormat { file, detail } => {
                write!(f, "{file}: {detail}; open it with the version of kvast that wrote it")
            }
            Error::Poisoned { cause } => write!(
                f,
                "writes are refused since an earlier one failed ({cause}); \
                 reads go on; open the store again to write"
            ),
            Error::DiskFull { free: Some(free) } => {
                write!(f, "the disk is full ({free} bytes left); nothing was written")
            }
            Error::DiskFull { free: None } => {
                f.write_str("the disk is full; nothing was written; free some space and retry")
            }
            Error::ReadOnly => f.write_str("the store was opened read-only"),
            Error::Closed => f.write_str("the store was closed"),
            Error::Io { during, path, source } => {
                write!(f, "could not {during} ({}): {source}", path.display())
            }
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Io { source, .. } => Some(source.as_ref()),
            _ => None,
        }
    }
}

impl From<Corruption> for Error {
    fn from(corruption: Corruption) -> Error {
        Error::Corrupt(corruption)
    }
}

/// The stable word for a kind of [`Error`]. A word once given never changes its meaning.
///
/// ```
/// assert_eq!(kvast::Code::DiskFull.as_str(), "disk_full");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[allow(missing_docs, reason = "each is described at the variant of `Error` of the same name")]
pub enum Code {
    InvalidKey,
    MetadataTooLarge,
    ValueTooLarge,
    WrongLength,
    BatchTooLarge,
    InvalidExpiry,
    InvalidCursor,
    InvalidOption,
    InvalidName,
    NamespaceNotFound,
    NamespaceExists,
    VersionMismatch,
    Locked,
    Corrupt,
    UnknownFormat,
    Poisoned,
    DiskFull,
    ReadOnly,
    Closed,
    Io,
}

impl Code {
    /// The code as it stands in logs and answers, in `snake_case`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Code::InvalidKey => "invalid_key",
            Code::MetadataTooLarge => "metadata_too_large",
            Code::ValueTooLarge => "value_too_large",
            Code::WrongLength => "wrong_length",
            Code::BatchTooLarge => "batch_too_large",
            Code::InvalidExpiry => "invalid_expiry",
            Code::InvalidCursor => "invalid_cursor",
            Code::InvalidOption => "invalid_option",
            Code::InvalidName => "invalid_name",
            Code::NamespaceNotFound => "namespace_not_found",
            Code::NamespaceExists => "namespace_exists",
            Code::VersionMismatch => "version_mismatch",
            Code::Locked => "locked",
            Code::Corrupt => "corrupt",
            Code::UnknownFormat => "unknown_format",
            Code::Poisoned => "poisoned",
            Code::DiskFull => "disk_full",
            Code::ReadOnly => "read_only",
            Code::Closed => "closed",
            Code::Io => "io",
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One damaged place, exact enough to find with a hex editor.
///
/// ```
/// use kvast::{Corruption, Damage};
/// let corruption = Corruption { file: "0000000007.log".into(), offset: 4096, damage: Damage::Missing };
/// assert!(corruption.to_string().starts_with("0000000007.log is damaged at byte 4096"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Corruption {
    /// The file's name inside the store's directory.
    pub file: String,
    /// The byte in that file where the damaged thing starts.
    pub offset: u64,
    /// What is wrong there.
    pub damage: Damage,
}

impl fmt::Display for Corruption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} is damaged at byte {}: {}; nothing was changed: copy the directory away, \
             then restore these records from a backup (`kvast verify` lists every damaged place)",
            self.file, self.offset, self.damage
        )
    }
}

/// What is wrong at a damaged place.
///
/// ```
/// let damage = kvast::Damage::Checksum { of: "value", stored: 0x9ae1c0de, computed: 0x51f20b77 };
/// assert_eq!(damage.to_string(), "value checksum is 9ae1c0de, its bytes give 51f20b77");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Damage {
    /// A stored checksum does not fit the bytes it covers.
    Checksum {
        /// What the checksum covers, for example "record header".
        of: &'static str,
        /// The checksum that is stored.
        stored: u32,
        /// The checksum of the bytes as they are.
        computed: u32,
    },
    /// A field holds what no version of this format writes.
    Field {
        /// The field's name in the format specification.
        field: &'static str,
        /// What it holds.
        found: u64,
    },
    /// The thing is longer than the file.
    CutShort {
        /// What it is.
        what: &'static str,
        /// The bytes that should be there.
        wanted: u64,
        /// The bytes that are there.
        found: u64,
    },
    /// Seqnos do not follow on each other: records are missing.
    Gap {
        /// The seqno that had to come.
        expected: u64,
        /// The seqno that came.
        found: u64,
    },
    /// Records from here on are unreadable although they were promised to be durable.
    LostRecords {
        /// The first seqno that is lost.
        first: u64,
        /// The last seqno that was promised.
        last: u64,
    },
    /// The file is named by the manifest and is not there.
    Missing,
    /// The file does not fit what the manifest says of it.
    NotAsWitnessed {
        /// What differs.
        what: &'static str,
    },
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Damage::Checksum { of, stored, computed } => {
                write!(f, "{of} checksum is {stored:08x}, its bytes give {computed:08x}")
            }
            Damage::Field { field, found } => write!(f, "field `{field}` holds {found}"),
            Damage::CutShort { what, wanted, found } => {
                write!(f, "{what} should have {wanted} bytes and has {found}")
            }
            Damage::Gap { expected, found } => {
                write!(f, "record {expected} should follow and {found} does")
            }
            Damage::LostRecords { first, last } => {
                write!(f, "records {first} to {last} were durable and cannot be read")
            }
            Damage::Missing => f.write_str("the file is missing"),
            Damage::NotAsWitnessed { what } => {
                write!(f, "its {what} is not what the manifest says")
            }
        }
    }
}
