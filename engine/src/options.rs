//! Every limit and default, in one table.
//!
//! | option | default | range |
//! |---|---|---|
//! | [`Options::durability`] | [`Durability::Sync`] | |
//! | [`Options::segment_bytes`] | 128 MiB | 64 KiB to 128 MiB |
//! | [`Options::max_key_bytes`] | 512 | 1 to 1,024 |
//! | [`Options::max_metadata_bytes`] | 1,024 | 0 to 65,535 |
//! | [`Options::max_value_bytes`] | 25 MiB | 1 to 64 MiB |
//! | [`Options::space_bound`] | 1.3 | 1.05 to 10 |
//! | [`Options::compaction_bytes_per_second`] | 64 MiB | 1 MiB and more |
//! | [`Options::background`] | `true` | |
//! | [`Options::read_only`] | `false` | |

use std::sync::Arc;
use std::time::Duration;

use crate::address::Address;
use crate::clock::{Clock, SystemClock};
use crate::disk::Disk;
use crate::error::Error;

/// The longest key that the index can hold, whatever the options say.
pub(crate) const KEY_BYTES_CEILING: usize = 1024;
/// Values of this length and more are kept out of the logs. In a blob a durable put costs a second sync; in
/// the log everybody whose write is in the same group waits while the value is written and synced, and it
/// is copied once or twice more. Up to here the sync is the dearer of the two; see `benches/large.rs`.
const LARGE_VALUE_BYTES: u64 = 256 << 10;
/// The longest batch: it has to fit in one segment.
pub(crate) const BATCH_BYTES_MAX: u64 = 112 << 20;

/// When an acknowledged write has reached the disk, a large value included.
///
/// ```
/// # fn main() -> Result<(), kvast::Error> {
/// # let dir = tempfile::tempdir().unwrap();
/// use kvast::{Durability, Options};
/// use std::time::Duration;
/// let every = Durability::Interval(Duration::from_millis(50));
/// let db = Options::new().durability(every).open(dir.path())?;
/// db.namespace("users")?.put("42", b"Ada")?; // on disk within 50 ms
/// db.sync()?; // or now
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Before it is acknowledged: it survives power loss. Concurrent writes share one sync.
    Sync,
    /// This long after it was acknowledged. What a power cut takes is cut off whole, from the first
    /// write that is lost on; versions that were given to it are then given out again.
    Interval(Duration),
    /// When the operating system gets round to it: survives the process, not the machine. After a power
    /// cut the same holds as for `Interval`.
    Os,
}

/// How to open a store. Start from [`Options::new`], then [`Options::open`].
///
/// ```
/// # fn main() -> Result<(), kvast::Error> {
/// # let dir = tempfile::tempdir().unwrap();
/// use kvast::{Durability, Options};
/// let db = Options::new().durability(Durability::Os).open(dir.path().join("data"))?;
/// # db.close() }
/// ```
#[derive(Clone)]
pub struct Options {
    pub(crate) durability: Durability,
    pub(crate) segment_bytes: u64,
    pub(crate) max_key_bytes: usize,
    pub(crate) max_metadata_bytes: usize,
    pub(crate) max_value_bytes: u64,
    pub(crate) space_bound: f64,
    pub(crate) compaction_bytes_per_second: u64,
    pub(crate) background: bool,
    pub(crate) read_only: bool,
    pub(crate) large_value_bytes: u64,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) disk: Disk,
}

impl Default for Options {
    fn default() -> Options {
        Options::new()
    }
}

impl Options {
    /// The defaults of the table above.
    #[must_use]
    pub fn new() -> Options {
        Options {
            durability: Durability::Sync,
            segment_bytes: Address::OFFSET_END,
            max_key_bytes: 512,
            max_metadata_bytes: 1024,
            max_value_bytes: 25 << 20,
            space_bound: 1.3,
            compaction_bytes_per_second: 64 << 20,
            background: true,
            read_only: false,
            large_value_bytes: LARGE_VALUE_BYTES,
            clock: Arc::new(SystemClock::new()),
            disk: Disk::default(),
        }
    }

    /// When an acknowledged write has reached the disk.
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> Options {
        self.durability = durability;
        self
    }

    /// The length at which a log segment is sealed and the next one begins, in bytes.
    #[must_use]
    pub fn segment_bytes(mut self, bytes: u64) -> Options {
        self.segment_bytes = bytes;
        self
    }

    /// The longest key, in bytes.
    #[must_use]
    pub fn max_key_bytes(mut self, bytes: usize) -> Options {
        self.max_key_bytes = bytes;
        self
    }

    /// The longest metadata, in bytes.
    #[must_use]
    pub fn max_metadata_bytes(mut self, bytes: usize) -> Options {
        self.max_metadata_bytes = bytes;
        self
    }

    /// The longest value, in bytes.
    #[must_use]
    pub fn max_value_bytes(mut self, bytes: u64) -> Options {
        self.max_value_bytes = bytes;
        self
    }

    /// Compaction keeps the bytes of records under this many times the live ones, besides the segments
    /// that wait for their turn and, while there are writes, the log that takes them. More space is less
    /// work: at 1.3 compaction copies about as many bytes as are written, at 1.5 half of that, at 2 a
    /// quarter.
    #[must_use]
    pub fn space_bound(mut self, factor: f64) -> Options {
        self.space_bound = factor;
        self
    }

    /// How many bytes the store's own compaction copies in a second while there are writes. It goes on as
    /// fast as it can while there are none, and if space grows so far that writes wait for it.
    #[must_use]
    pub fn compaction_bytes_per_second(mut self, bytes: u64) -> Options {
        self.compaction_bytes_per_second = bytes;
        self
    }

    /// Whether threads of the store seal logs, compact and sync by themselves. Without them,
    /// [`crate::Db::compact`] and [`crate::Db::sync`] do the work when they are called, and
    /// [`Durability::Interval`] acts like [`Durability::Os`].
    #[must_use]
    pub fn background(mut self, on: bool) -> Options {
        self.background = on;
        self
    }

    /// Opens without the lock and without writing a byte, for a copy, a read-only medium, or a look
    /// into a store that another process writes; shows the state of the moment of opening.
    #[must_use]
    pub fn read_only(mut self, on: bool) -> Options {
        self.read_only = on;
        self
    }

    /// Puts a test's clock in the place of the machine's.
    #[cfg(feature = "testing")]
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Options {
        self.clock = clock;
        self
    }

    /// Keeps shorter values than usual out of the logs, so that a test needs no large ones.
    #[cfg(feature = "testing")]
    #[must_use]
    pub fn large_value_bytes(mut self, bytes: u64) -> Options {
        self.large_value_bytes = bytes.max(1);
        self
    }

    /// Puts a test's hook in front of every change to the disk.
    #[cfg(feature = "testing")]
    #[must_use]
    pub fn disk_hook(mut self, hook: Arc<dyn crate::disk::Hook>) -> Options {
        self.disk = Disk::hooked(hook);
        self
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        let rules = [
            (
                "segment_bytes",
                (64 << 10..=Address::OFFSET_END).contains(&self.segment_bytes)
                    && self.segment_bytes.is_multiple_of(4096),
                "64 KiB to 128 MiB, in steps of 4 KiB",
            ),
            ("max_key_bytes", (1..=KEY_BYTES_CEILING).contains(&self.max_key_bytes), "1 to 1,024"),
            ("max_metadata_bytes", self.max_metadata_bytes <= 65_535, "0 to 65,535"),
            ("max_value_bytes", (1..=64 << 20).contains(&self.max_value_bytes), "1 to 64 MiB"),
            ("space_bound", (1.05..=10.0).contains(&self.space_bound), "1.05 to 10"),
            (
                "compaction_bytes_per_second",
                self.compaction_bytes_per_second >= 1 << 20,
                "1 MiB or more",
            ),
        ];
        match rules.into_iter().find(|(_, holds, _)| !holds) {
            Some((option, _, must)) => Err(Error::InvalidOption { option, must }),
            None => Ok(()),
        }
    }
}

/// What a put stores beside key and value.
///
/// ```
/// # fn main() -> Result<(), kvast::Error> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let db = kvast::Db::open(dir.path())?;
/// use kvast::PutOptions;
/// use std::time::Duration;
/// let sessions = db.namespace("sessions")?;
/// let options = PutOptions::new().expires_in(Duration::from_secs(1800)).metadata(*b"{\"v\":1}");
/// sessions.put_with("42", b"Ada", options)?;
/// assert_eq!(sessions.get("42")?.unwrap().metadata(), Some(&b"{\"v\":1}"[..]));
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Default)]
pub struct PutOptions {
    pub(crate) expiry: Option<Expiry>,
    pub(crate) asked_ms: Option<u64>,
    pub(crate) metadata: Vec<u8>,
    pub(crate) if_version: Option<Option<u64>>,
}

/// When a key is gone.
///
/// ```
/// # fn main() -> Result<(), kvast::Error> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let db = kvast::Db::open(dir.path())?;
/// use kvast::Expiry;
/// use std::time::Duration;
/// let sessions = db.namespace("sessions")?;
/// sessions.put("42", b"Ada")?;
/// sessions.set_expiry("42", Expiry::In(Duration::from_secs(1800)))?;
/// assert!(sessions.get("42")?.unwrap().expires_at().is_some());
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    /// Not by itself.
    Never,
    /// From this moment on, in ms since 1970. A moment that has passed is allowed: the key is then
    /// gone at once.
    At(u64),
    /// This long from now, in whole milliseconds.
    In(Duration),
}

impl PutOptions {
    /// No expiry but the namespace's default, no metadata, no condition.
    #[must_use]
    pub fn new() -> PutOptions {
        PutOptions::default()
    }

    /// When the key is gone. [`Expiry::Never`] also sets aside the default of the namespace.
    #[must_use]
    pub fn expiry(mut self, expiry: Expiry) -> PutOptions {
        self.expiry = Some(expiry);
        self
    }

    /// The key is gone from this moment on, in ms since 1970; see [`Expiry::At`].
    #[must_use]
    pub fn expires_at_ms(self, ms: u64) -> PutOptions {
        self.expiry(Expiry::At(ms))
    }

    /// The key is gone this long from now, in whole milliseconds.
    #[must_use]
    pub fn expires_in(self, time: Duration) -> PutOptions {
        self.expiry(Expiry::In(time))
    }

    /// When the write was asked for, in ms since 1970: the namespace's minimum time to live counts from
    /// there and not from now, if that has passed. For expiries in whole seconds, and for values that
    /// are long on their way.
    #[must_use]
    pub fn asked_at_ms(mut self, ms: u64) -> PutOptions {
        self.asked_ms = Some(ms);
        self
    }

    /// Bytes that come back with the value and in lists. Empty is the same as none.
    #[must_use]
    pub fn metadata(mut self, metadata: impl Into<Vec<u8>>) -> PutOptions {
        self.metadata = metadata.into();
        self
    }

    /// Writes only if the key is at this version; otherwise [`Error::VersionMismatch`].
    #[must_use]
    pub fn if_version(mut self, version: u64) -> PutOptions {
        self.if_version = Some(Some(version));
        self
    }

    /// Writes only if the key is absent; otherwise [`Error::VersionMismatch`].
    #[must_use]
    pub fn if_absent(mut self) -> PutOptions {
        self.if_version = Some(None);
        self
    }

    /// Whether there is a condition.
    #[must_use]
    pub fn is_conditional(&self) -> bool {
        self.if_version.is_some()
    }
}
