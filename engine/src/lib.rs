//! kvast: a log-structured key-value store with expiry, metadata and zero-copy reads.
//!
//! ```
//! # fn main() -> Result<(), kvast::Error> {
//! # let dir = tempfile::tempdir().unwrap();
//! # let path = dir.path().join("data");
//! use kvast::{Db, ListOptions, PutOptions};
//! use std::time::Duration;
//!
//! let db = Db::open(path)?;
//! let users = db.namespace("users")?; // created if absent
//! users.put("42", b"Ada")?;
//! users.put_with("43", b"Grace", PutOptions::new().expires_in(Duration::from_secs(3600)))?;
//! assert_eq!(users.get("42")?.as_deref(), Some(&b"Ada"[..]));
//! for listed in users.list(&ListOptions::new().prefix("4"))?.iter() {
//!     println!("{}", String::from_utf8_lossy(listed.key));
//! }
//! db.close()
//! # }
//! ```
//!
//! By default a write is on disk when it is acknowledged, see [`Durability`]; a value that is damaged
//! is an error and never served; a key that was deleted or has expired does not come back.
//!
//! # Reading order
//!
//! A file uses files above it in this list, never one below.
//!
//! | file | what it holds |
//! |---|---|
//! | `sync`, `address`, `error` | the words that everything else is written in |
//! | `format` | bytes to values and back; cites `format-spec.md` |
//! | `clock`, `warmth`, `mmap`, `disk`, `workers`, `options`, `key`, `stats` | time, memory, files, threads, limits, composite keys, numbers |
//! | `segment` | files of records: one that is appended to, many that are read |
//! | `index` | key to address, and keys in order |
//! | `catalog`, `keyspace` | which segments there are; what is published |
//! | `witness`, `commit`, `stage` | the manifest; the single writer; where large values are written first |
//! | `merge`, `compact` | many sorted lists as one; space is taken back |
//! | `value`, `cursor`, `list`, `settings`, `registry` | what a reader gets; namespaces |
//! | `recover`, `verify`, `checkpoint`, `background` | from a directory to a store; read everything; copy it; own threads |
//! | `store`, `namespace`, `upload`, `batch` | an open store; what is done with keys; a value as it arrives; many writes as one |
//! | `db` | the front door |

#![cfg_attr(
    not(feature = "testing"),
    allow(unreachable_pub, reason = "the seams are reachable with the feature `testing` only")
)]

mod address;
mod background;
mod batch;
mod catalog;
mod checkpoint;
mod clock;
mod commit;
mod compact;
mod cursor;
mod db;
mod disk;
mod error;
mod format;
mod index;
mod key;
mod keyspace;
mod list;
mod merge;
mod mmap;
mod namespace;
mod options;
mod recover;
mod registry;
mod segment;
mod settings;
mod stage;
mod stats;
mod store;
mod sync;
mod upload;
mod value;
mod verify;
mod warmth;
mod witness;
mod workers;

#[cfg(feature = "testing")]
pub mod testing;

pub use batch::Batch;
pub use db::Db;
pub use error::{Code, Corruption, Damage, Error};
pub use list::{ListOptions, Listed, Page};
pub use namespace::{Entry, Namespace, Scan};
pub use options::{Durability, Expiry, Options, PutOptions};
pub use recover::RecoveryReport;
pub use registry::NamespaceId;
pub use settings::NamespaceSettings;
pub use stats::{Histogram, Residency, Stats};
pub use upload::Upload;
pub use value::{Value, ValueStream};
pub use verify::{VerifyProgress, VerifyReport};
