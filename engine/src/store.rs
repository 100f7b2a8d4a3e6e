//! The open store behind every handle: what the front door, a namespace and a batch share.
//!
//! What always holds: a write to a namespace comes whole before or whole after its deletion; the
//! lock on the directory is given up last.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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
use crate::options::{Durability, ExpiryOption, Options, PutOptions};
use crate::recover::RecoveryReport;
use crate::registry::{NamespaceState, Registry};
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
        let scope = Scope { store: &self.id, namespace, prefix: &[] };
        list::list(&self.keyspace, scope, self.options.max_key_bytes, options)
    }

    /// Checks the limits and drafts a put.
    pub(crate) fn draft<'a>(
        &self,
        namespace: u32,
        key: &'a [u8],
        value: &'a [u8],
        options: &'a PutOptions,
    ) -> Result<Draft<'a>, Error> {
        let limits = &self.options;
        key::check(key, limits.max_key_bytes)?;
        if options.metadata.len() > limits.max_metadata_bytes {
            let (len, max) = (options.metadata.len(), limits.max_metadata_bytes);
            return Err(Error::MetadataTooLarge { len, max });
        }
        if value.len() as u64 > limits.max_value_bytes {
            let (len, max) = (value.len() as u64, limits.max_value_bytes);
            return Err(Error::ValueTooLarge { len, max });
        }
        let now_ms = self.keyspace.time.wall_ms();
        let expires_ms = match options.expiry {
            None => 0,
            // 0 stands for never, so what expired at the beginning of time expires a moment later.
            Some(ExpiryOption::At(ms)) => ms.max(1),
            Some(ExpiryOption::In(time)) => {
                let ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
                self.keyspace.time.now_ms().saturating_add(ms)
            }
        };
        if expires_ms >= EXPIRES_END {
            return Err(Error::InvalidExpiry { ms: expires_ms });
        }
        Ok(Draft {
            kind: Kind::Put,
            namespace,
            written_ms: now_ms,
            expires_ms,
            key,
            metadata: &options.metadata,
            value,
            value_crc: value_checksum(value),
        })
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // There is nobody to tell; `Db::close` is there for those who want to know.
        let _ = self.close();
    }
}
