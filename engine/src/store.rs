//! The open store behind every handle: what the front door, a namespace and a batch share.
//!
//! What always holds: a write to a namespace comes whole before or whole after its deletion; the
//! lock on the directory is given up last.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::background::Background;
use crate::commit::{Committer, Done, WriteGroup};
use crate::compact::Compactor;
use crate::cursor::Scope;
use crate::disk::DirLock;
use crate::error::Error;
use crate::format::StoreId;
use crate::format::record::{Draft, EXPIRES_END, Kind, value_checksum};
use crate::key;
use crate::keyspace::Keyspace;
use crate::list::{self, ListOptions, Page};
use crate::options::{Durability, Expiry, Options, PutOptions};
use crate::recover::RecoveryReport;
use crate::registry::{NamespaceState, Registry, SYSTEM};
use crate::value::Value;

/// What all clones of a `Db` and all its handles hold on to; the last of them closes it.
pub(crate) struct Store {
    /// Stopped first.
    pub(crate) background: Mutex<Option<Background>>,
    pub(crate) keyspace: Arc<Keyspace>,
    pub(crate) committer: Arc<Committer>,
    pub(crate) compactor: Arc<Compactor>,
    pub(crate) registry: Registry,
    /// Held while the registry changes, so that two creations of one name are one.
    pub(crate) registry_turn: Mutex<()>,
    pub(crate) options: Options,
    pub(crate) id: StoreId,
    pub(crate) report: RecoveryReport,
    /// Given up last.
    pub(crate) lock: Mutex<Option<DirLock>>,
}

pub(crate) fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Store {
    /// Stops the threads, makes everything durable, and gives the lock up.
    pub(crate) fn close(&self) -> Result<(), Error> {
        // First, so that a thread which compacts gives up.
        self.compactor.stop();
        drop(held(&self.background).take());
        let closed = self.committer.close();
        drop(held(&self.lock).take());
        closed
    }

    fn syncs(&self) -> bool {
        self.options.durability == Durability::Sync
    }

    /// Writes what `join` adds for a namespace, unless that was deleted. Returns what `join`
    /// returned, and the group's outcome.
    pub(crate) fn write<T>(
        &self,
        namespaces: &[Arc<NamespaceState>],
        alone: bool,
        join: impl FnOnce(&mut WriteGroup) -> T,
    ) -> Result<(T, Done), Error> {
        self.compactor.wait_for_space();
        let (joined, done) = self.committer.write(self.syncs(), alone, |group| {
            // Under the queue's lock: a deletion of the namespace comes before or after, whole.
            let dropped = namespaces.iter().any(|namespace| namespace.is_dropped());
            (!dropped).then(|| join(group))
        });
        let joined = joined.ok_or(Error::NamespaceNotFound)?;
        Ok((joined, done?))
    }

    /// The value of a key that has not expired; short values are verified.
    pub(crate) fn find_value(&self, namespace: u32, key: &[u8]) -> Result<Option<Value>, Error> {
        let found = self.keyspace.find(namespace, key, |segment, offset, record| {
            // Short values are verified here, where the bytes are warm.
            if !record.header.has_block_table() {
                let damage = record.verify_value();
                damage.map_err(|damage| segment.body.corruption(offset, damage))?;
            }
            Ok::<_, Error>(Value::new(segment, offset, record))
        })?;
        found.transpose()
    }

    /// One page of a namespace's keys.
    pub(crate) fn list_page(&self, namespace: u32, options: &ListOptions) -> Result<Page, Error> {
        let scope = Scope { store: &self.id, namespace, prefix: &[], reverse: false };
        list::list(&self.keyspace, scope, self.options.max_key_bytes, options)
    }

    /// Checks the limits and drafts a put.
    pub(crate) fn draft<'a>(
        &self,
        namespace: &NamespaceState,
        key: &'a [u8],
        value: &'a [u8],
        options: &'a PutOptions,
    ) -> Result<Draft<'a>, Error> {
        key::check(key, self.options.max_key_bytes)?;
        self.check_metadata(options.metadata.len())?;
        self.check_value(namespace, value.len() as u64)?;
        Ok(Draft {
            kind: Kind::Put,
            namespace: namespace.number,
            written_ms: self.keyspace.time.wall_ms(),
            expires_ms: self.expires_ms(namespace, options.expiry)?,
            key,
            metadata: &options.metadata,
            value,
            value_crc: value_checksum(value),
        })
    }

    pub(crate) fn check_metadata(&self, len: usize) -> Result<(), Error> {
        let max = self.options.max_metadata_bytes;
        if len > max { Err(Error::MetadataTooLarge { len, max }) } else { Ok(()) }
    }

    /// Refuses a value that is longer than the store or the namespace allows.
    pub(crate) fn check_value(&self, namespace: &NamespaceState, len: u64) -> Result<(), Error> {
        let own = namespace.settings.max_value_bytes().unwrap_or(u64::MAX);
        let max = self.options.max_value_bytes.min(own);
        if len > max { Err(Error::ValueTooLarge { len, max }) } else { Ok(()) }
    }

    /// The expiry of a record, in ms since 1970 and 0 for never: what was asked for, or the
    /// namespace's default.
    pub(crate) fn expires_ms(
        &self,
        namespace: &NamespaceState,
        asked: Option<Expiry>,
    ) -> Result<u64, Error> {
        let settings = &namespace.settings;
        let (wanted, min_ms) = match (asked, settings.default_ttl_ms()) {
            (Some(wanted), _) => (wanted, settings.min_ttl_ms()),
            (None, Some(ms)) => (Expiry::In(Duration::from_millis(ms)), None),
            (None, None) => return Ok(0),
        };
        let now_ms = self.keyspace.time.now_ms();
        let ms = match wanted {
            Expiry::Never => return Ok(0),
            // 0 stands for never, so what expired at the beginning of time expires a moment later.
            Expiry::At(ms) => ms.max(1),
            Expiry::In(time) => {
                now_ms.saturating_add(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
            }
        };
        if ms >= EXPIRES_END {
            return Err(Error::InvalidExpiry { ms, min_ttl: None });
        }
        match min_ms {
            Some(min_ms) if ms < now_ms.saturating_add(min_ms) => {
                Err(Error::InvalidExpiry { ms, min_ttl: Some(Duration::from_millis(min_ms)) })
            }
            _ => Ok(ms),
        }
    }

    /// A record of the registry.
    pub(crate) fn system_put<'a>(&self, key: &'a [u8], value: &'a [u8]) -> Draft<'a> {
        Draft {
            kind: Kind::Put,
            namespace: SYSTEM,
            written_ms: self.keyspace.time.wall_ms(),
            expires_ms: 0,
            key,
            metadata: &[],
            value,
            value_crc: value_checksum(value),
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // There is nobody to tell; `Db::close` is there for those who want to know.
        let _ = self.close();
    }
}
