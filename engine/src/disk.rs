//! Every change to the file system goes through here, so that a test can see and fail each one.
//!
//! What always holds: a name counts as durable only after [`Disk::sync_dir`] of its directory, and
//! bytes only after [`DiskFile::sync`]; nobody appends with O_APPEND, the engine owns every offset.
//! Absent on purpose: reads, which go through `mmap`, and retries, since a sync that failed once
//! must never be believed later.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// One change to the file system, about to be made.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
#[allow(missing_docs, reason = "each names one system call and its arguments")]
#[cfg_attr(not(feature = "testing"), expect(dead_code, reason = "only a test's hook looks inside"))]
pub enum Op<'a> {
    CreateDir { path: &'a Path },
    Create { path: &'a Path },
    Write { path: &'a Path, offset: u64, bytes: &'a [u8] },
    SetLen { path: &'a Path, len: u64 },
    Sync { path: &'a Path },
    SyncDir { path: &'a Path },
    Rename { from: &'a Path, to: &'a Path },
    Remove { path: &'a Path },
}

/// What a test lets become of an [`Op`].
#[derive(Debug)]
#[non_exhaustive]
#[cfg_attr(not(feature = "testing"), expect(dead_code, reason = "only a test's hook gives one"))]
pub enum Verdict {
    /// It happens.
    Proceed,
    /// It fails and nothing happens.
    Fail(io::Error),
    /// A write fails after this many bytes reached the file.
    CutShort(usize, io::Error),
}

/// A test's view of the disk.
pub trait Hook: Send + Sync + 'static {
    /// Called before each change.
    fn before(&self, op: &Op<'_>) -> Verdict;

    /// Bytes that the file system has left and has in all, in place of what it says itself.
    fn space(&self) -> Option<(u64, u64)> {
        None
    }
}

/// Whether an operation failed because there is no room, for anyone or for this user.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// The file system, with a test's hook in front of it if there is one.
#[derive(Clone, Default)]
pub(crate) struct Disk {
    hook: Option<Arc<dyn Hook>>,
}

impl Disk {
    #[cfg_attr(not(feature = "testing"), expect(dead_code, reason = "the fault seam"))]
    pub(crate) fn hooked(hook: Arc<dyn Hook>) -> Disk {
        Disk { hook: Some(hook) }
    }

    fn ask(&self, op: &Op<'_>) -> io::Result<()> {
        match self.hook.as_ref().map(|hook| hook.before(op)) {
            None | Some(Verdict::Proceed) => Ok(()),
            Some(Verdict::Fail(error) | Verdict::CutShort(_, error)) => Err(error),
        }
    }

    /// Creates `path` and its missing parents, each durable in the one above it.
    pub(crate) fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        if path.is_dir() {
            return Ok(());
        }
        let parent = parent_of(path);
        self.create_dir_all(&parent)?;
        self.ask(&Op::CreateDir { path })?;
        match std::fs::create_dir(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        self.sync_dir(&parent)
    }

    /// Makes the names in `path` durable. Some network and user-space file systems cannot, and say
    /// EINVAL; they promise nothing that could be kept here.
    pub(crate) fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.ask(&Op::SyncDir { path })?;
        match File::open(path)?.sync_all() {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(()),
            result => result,
        }
    }

    /// Creates an empty file, or empties the one that is there.
    pub(crate) fn create(&self, path: &Path) -> io::Result<DiskFile> {
        self.ask(&Op::Create { path })?;
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?;
        Ok(self.file(file, path))
    }

    /// Opens a file that is there, for writing too.
    pub(crate) fn open(&self, path: &Path) -> io::Result<DiskFile> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        Ok(self.file(file, path))
    }

    fn file(&self, file: File, path: &Path) -> DiskFile {
        DiskFile { file, path: path.into(), disk: self.clone() }
    }

    pub(crate) fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.ask(&Op::Rename { from, to })?;
        std::fs::rename(from, to)
    }

    /// Bytes that the file system of `path` has left for this process, and in all, if it says.
    pub(crate) fn space(&self, path: &Path) -> Option<(u64, u64)> {
        use std::os::unix::ffi::OsStrExt;
        if let Some(told) = self.hook.as_ref().and_then(|hook| hook.space()) {
            return Some(told);
        }
        let path = std::ffi::CString::new(path.as_os_str().as_bytes()).ok()?;
        crate::mmap::space(&path)
    }

    /// Removes a file; one that is gone already is fine.
    pub(crate) fn remove(&self, path: &Path) -> io::Result<()> {
        self.ask(&Op::Remove { path })?;
        match std::fs::remove_file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result,
        }
    }
}

/// The directory that holds the name of `path`.
pub(crate) fn parent_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// A file that is open for writing at offsets which the engine chooses.
pub(crate) struct DiskFile {
    file: File,
    path: Arc<Path>,
    disk: Disk,
}

impl DiskFile {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The open file, for mapping and reading.
    pub(crate) fn as_file(&self) -> &File {
        &self.file
    }

    pub(crate) fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        if let Some(hook) = &self.disk.hook {
            match hook.before(&Op::Write { path: &self.path, offset, bytes }) {
                Verdict::Proceed => {}
                Verdict::Fail(error) => return Err(error),
                Verdict::CutShort(written, error) => {
                    self.file.write_all_at(&bytes[..written.min(bytes.len())], offset)?;
                    return Err(error);
                }
            }
        }
        self.file.write_all_at(bytes, offset)
    }

    pub(crate) fn set_len(&self, len: u64) -> io::Result<()> {
        self.disk.ask(&Op::SetLen { path: &self.path, len })?;
        self.file.set_len(len)
    }

    /// Makes the bytes durable, and the length as far as they need it.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.disk.ask(&Op::Sync { path: &self.path })?;
        self.file.sync_data()
    }
}

/// Holds a store for this process; released when it is dropped or the process dies.
pub(crate) struct DirLock {
    _file: File,
}

/// Why a lock was not had.
pub(crate) enum LockRefusal {
    /// Another process holds it; its pid, if it wrote one.
    Held(Option<u32>),
    Io(io::Error),
}

impl DirLock {
    pub(crate) fn take(path: &Path) -> Result<DirLock, LockRefusal> {
        let open =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
        let file = open.map_err(LockRefusal::Io)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let text = std::fs::read_to_string(path).unwrap_or_default();
                return Err(LockRefusal::Held(text.trim().parse().ok()));
            }
            Err(TryLockError::Error(error)) => return Err(LockRefusal::Io(error)),
        }
        // The pid only serves the message above, so a full disk must not refuse the store.
        let pid = format!("{:<11}\n", std::process::id());
        let _ = file.write_all_at(pid.as_bytes(), 0);
        Ok(DirLock { _file: file })
    }
}
