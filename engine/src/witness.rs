//! The manifest file: appends entries, one synced write each, and rewrites itself when it has grown.
//!
//! What always holds: an entry that [`ManifestFile::append`] returned for is durable; an append
//! that failed leaves nothing that a later one could be confused with. See `format::manifest` for
//! what the entries say.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::address::SegmentId;
use crate::disk::{Disk, DiskFile};
use crate::error::{Corruption, Error};
use crate::format::manifest::{self, Decoded, Entry, Refusal, Witness};
use crate::format::segment_header::SegmentKind;
use crate::format::{Seed, StoreId};
use crate::segment::file_name;

pub(crate) const FILE_NAME: &str = "MANIFEST";
const NEW_FILE_NAME: &str = "MANIFEST.new";
/// A manifest that is longer than this and than twice what it says is rewritten.
const REWRITE_AT: u64 = 64 << 10;

pub(crate) struct ManifestFile {
    disk: Disk,
    dir: PathBuf,
    /// `None` in a read-only store.
    file: Option<DiskFile>,
    store: StoreId,
    end: u64,
    dirty_tail: bool,
    witness: Witness,
    /// Why there is no file to append to any more.
    broken: Option<Arc<str>>,
}

/// Reads the manifest of `dir`, `None` if there is none.
pub(crate) fn read(dir: &Path) -> Result<Option<Decoded>, Error> {
    let path = dir.join(FILE_NAME);
    let bytes = match fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io("read the manifest", &path, error)),
        Ok(bytes) => bytes,
    };
    match manifest::decode(&bytes) {
        Ok(decoded) => Ok(Some(decoded)),
        Err(Refusal::Damaged(offset, damage)) => {
            Err(Corruption { file: FILE_NAME.into(), offset, damage }.into())
        }
        Err(Refusal::Unknown(detail)) => {
            Err(Error::UnknownFormat { file: FILE_NAME.into(), detail })
        }
    }
}

impl ManifestFile {
    /// Makes the manifest of a new store, durable under its name.
    pub(crate) fn create(disk: &Disk, dir: &Path, store: StoreId) -> Result<ManifestFile, Error> {
        ManifestFile::create_with(disk, dir, store, [])
    }

    /// Makes the manifest of a store that `entries` tell of, durable under its name.
    pub(crate) fn create_with(
        disk: &Disk,
        dir: &Path,
        store: StoreId,
        entries: impl IntoIterator<Item = Entry>,
    ) -> Result<ManifestFile, Error> {
        let mut witness = Witness { next_segment: 1, ..Witness::default() };
        entries.into_iter().for_each(|entry| witness.apply(&entry));
        let mut manifest = ManifestFile {
            disk: disk.clone(),
            dir: dir.to_owned(),
            file: None,
            store,
            end: 0,
            dirty_tail: false,
            witness,
            broken: None,
        };
        manifest.rewrite()?;
        Ok(manifest)
    }

    /// Goes on with a manifest that was read.
    pub(crate) fn resume(
        disk: &Disk,
        dir: &Path,
        decoded: Decoded,
        read_only: bool,
    ) -> Result<ManifestFile, Error> {
        let path = dir.join(FILE_NAME);
        let open =
            || disk.open(&path).map_err(|error| Error::io("open the manifest", &path, error));
        let file = if read_only { None } else { Some(open()?) };
        Ok(ManifestFile {
            disk: disk.clone(),
            dir: dir.to_owned(),
            file,
            store: decoded.store,
            end: decoded.end,
            dirty_tail: decoded.torn > 0,
            witness: decoded.witness,
            broken: None,
        })
    }

    pub(crate) fn store(&self) -> &StoreId {
        &self.store
    }

    pub(crate) fn witness(&self) -> &Witness {
        &self.witness
    }

    /// An id that no segment of this store ever had.
    pub(crate) fn take_segment_id(&mut self) -> SegmentId {
        let id = SegmentId(self.witness.next_segment);
        self.witness.next_segment += 1;
        id
    }

    /// Never gives out an id up to this one: a file of that name was seen.
    pub(crate) fn skip_ids(&mut self, up_to: u32) {
        self.witness.next_segment = self.witness.next_segment.max(up_to.saturating_add(1));
    }

    /// Adds an entry, durable when this returns.
    pub(crate) fn append(&mut self, entry: &Entry) -> Result<(), Error> {
        let Some(file) = &self.file else {
            return Err(match &self.broken {
                Some(cause) => Error::Poisoned { cause: Arc::clone(cause) },
                None => Error::ReadOnly,
            });
        };
        let fail = |error| Error::io("write the manifest", &self.dir.join(FILE_NAME), error);
        if self.dirty_tail {
            file.set_len(self.end).map_err(fail)?;
            self.dirty_tail = false;
        }
        let mut bytes = Vec::new();
        entry.append_to(&mut bytes, self.end, Seed::of_manifest(&self.store));
        self.dirty_tail = true;
        if let Err(error) = file.write_at(&bytes, self.end) {
            // If that can be taken back, nobody will ever read half an entry.
            self.dirty_tail = file.set_len(self.end).and_then(|()| file.sync()).is_err();
            return Err(fail(error));
        }
        file.sync().map_err(fail)?;
        self.dirty_tail = false;
        self.end += bytes.len() as u64;
        self.witness.apply(entry);
        Ok(())
    }

    /// Rewrites the manifest if it has grown. It forgets the retired segments whose files are gone;
    /// their absence must be durable.
    pub(crate) fn compact(&mut self) -> Result<(), Error> {
        let says = self.witness.sealed.len()
            + self.witness.open_logs.len()
            + self.witness.open_blobs.len();
        if self.end < REWRITE_AT.max(128 * says as u64) {
            return Ok(());
        }
        let dir = self.dir.clone();
        let is_there = |id: &SegmentId| {
            SegmentKind::ALL.iter().any(|kind| dir.join(file_name(*id, *kind)).exists())
        };
        self.witness.retired.retain(is_there);
        self.rewrite()
    }

    /// Whether the last entry that could not be written may be on disk all the same.
    pub(crate) fn is_in_doubt(&self) -> bool {
        self.dirty_tail || self.broken.is_some()
    }

    fn rewrite(&mut self) -> Result<(), Error> {
        let (new, path) = (self.dir.join(NEW_FILE_NAME), self.dir.join(FILE_NAME));
        let fail = |error| Error::io("write the manifest", &new, error);
        let seed = Seed::of_manifest(&self.store);
        let mut bytes = manifest::encode_header(&self.store).to_vec();
        for entry in self.witness.entries() {
            let at = bytes.len() as u64;
            entry.append_to(&mut bytes, at, seed);
        }
        let file = self.disk.create(&new).map_err(fail)?;
        file.write_at(&bytes, 0).map_err(fail)?;
        file.sync().map_err(fail)?;
        // From here on the old file may be nameless, so a failure leaves no file to append to.
        self.file = None;
        let renamed = self
            .disk
            .rename(&new, &path)
            .and_then(|()| self.disk.sync_dir(&self.dir))
            .and_then(|()| self.disk.open(&path));
        match renamed {
            Ok(file) => self.file = Some(file),
            Err(error) => {
                let cause: Arc<str> = fail(error).to_string().into();
                self.broken = Some(Arc::clone(&cause));
                return Err(Error::Poisoned { cause });
            }
        }
        self.end = bytes.len() as u64;
        self.dirty_tail = false;
        Ok(())
    }
}
