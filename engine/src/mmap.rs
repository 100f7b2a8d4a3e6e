//! Segment files as memory: the room with the `unsafe` of mapping.
//!
//! A [`Map`] shows the part of a file that is published, never more. Publishing is the promise that
//! the bytes below will not change while any map of the file lives; everything safe in this crate
//! rests on it. The engine keeps it by writing only at the end of a log, never truncating below
//! what is published, and unlinking files instead of emptying them. A program that ignores the
//! store's lock can break it, and the README says so. A blob has several writers at once, so below
//! its published end only the header and the extents that a record refers to are final, and it is
//! read through [`Map::window`] alone.
//!
//! A fault waits for the disk on the thread that takes it, and reads what lies around it too: with memory for
//! a quarter of the data, reading cold values straight from the map all but stops (`benches/cold`). So
//! whoever serves asks [`Map::is_resident`] first, and has another thread bring in what is not. Hot reads then
//! wait about as long as with `pread`, and what is in memory needs no copy and no other thread. Absent on
//! purpose: `MADV_RANDOM`, with which newer kernels give up pages that are in use.
//!
//! A read of a page that the disk cannot give back is SIGBUS. [`Map::populate`] asks for the pages
//! beforehand and returns an error instead.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicUsize, Ordering};

use memmap2::{MmapOptions, MmapRaw};

use crate::warmth::Warmth;

/// Pages whose state is asked for at once: 64 MiB of 4 KiB pages.
const PAGES_ASKED: usize = 16 << 10;
/// So many are asked for without an allocation.
const FEW_PAGES: usize = 32;
/// Bytes that are looked at in one call.
const LOOK_STEP: usize = 4 << 20;

/// A file in memory, readable up to where it is published.
pub(crate) struct Map {
    raw: MmapRaw,
    /// Bytes below never change again.
    published: AtomicUsize,
    warmth: Warmth,
}

impl Map {
    /// Maps the first `len` bytes of `file`, of which the first `published` are final.
    ///
    /// The map may reach past the end of the file; nothing past `published` is ever touched.
    pub(crate) fn new(file: &File, len: usize, published: usize) -> io::Result<Map> {
        assert!(published <= len, "only mapped bytes can be published");
        let raw = MmapOptions::new().len(len.max(1)).map_raw_read_only(file)?;
        Ok(Map { raw, published: AtomicUsize::new(published), warmth: Warmth::default() })
    }

    /// A copy of the first `len` bytes of `file` in memory of its own: for files that another process
    /// may shorten at any time. Ends where the file ends, if that is sooner.
    pub(crate) fn copy_of(file: &File, len: usize) -> io::Result<Map> {
        let mut copy = MmapOptions::new().len(len.max(1)).map_anon()?;
        let mut published = 0;
        while published < len {
            match file.read_at(&mut copy[published..len], published as u64)? {
                0 => break,
                read => published += read,
            }
        }
        let published = AtomicUsize::new(published);
        Ok(Map { raw: copy.into(), published, warmth: Warmth::default() })
    }

    /// Makes the bytes below `end` readable. They must be in the file, and final.
    pub(crate) fn publish(&self, end: usize) {
        assert!(end <= self.raw.len(), "only mapped bytes can be published");
        let before = self.published.swap(end, Ordering::Release);
        debug_assert!(before <= end, "what is published stays so");
    }

    /// Takes back what was published behind `end`; nobody else can be reading it.
    pub(crate) fn cut(&mut self, end: usize) {
        let published = self.published.get_mut();
        *published = end.min(*published);
    }

    /// Makes what is final below `end` readable; an end that was reached before stays.
    pub(crate) fn publish_up_to(&self, end: usize) {
        assert!(end <= self.raw.len(), "only mapped bytes can be published");
        self.published.fetch_max(end, Ordering::Release);
    }

    #[inline]
    pub(crate) fn published(&self) -> usize {
        self.published.load(Ordering::Acquire)
    }

    /// How many bytes may ever be published.
    pub(crate) fn capacity(&self) -> usize {
        self.raw.len()
    }

    /// The published bytes, all of which are final.
    #[inline]
    pub(crate) fn bytes(&self) -> &[u8] {
        self.slice(0..self.published())
    }

    /// Some bytes that are final; `None` if they are not all published.
    #[inline]
    pub(crate) fn window(&self, range: Range<usize>) -> Option<&[u8]> {
        let is_there = range.start <= range.end && range.end <= self.published();
        is_there.then(|| self.slice(range))
    }

    /// Bytes below the published end.
    #[inline]
    fn slice(&self, range: Range<usize>) -> &[u8] {
        let (start, len) = (range.start, range.end - range.start);
        // SAFETY: `add` needs `start` inside of the mapping, and `from_raw_parts` needs `len` readable
        // bytes that no one changes while the slice lives.
        // - Readable: the mapping is at least `capacity` long and lives as long as `self`, `publish`
        //   refuses an end past it, and both callers keep the range below a published end. There the
        //   file has bytes, because the writer publishes after its write returned and only shortens a
        //   file to an end at or above the published one.
        // - Unchanged: see the module's promise, for logs and runs of all published bytes, for blobs of
        //   the windows that are asked for. Other processes are kept out by `disk::DirLock`; a
        //   program that ignores the lock, and storage that fails under a mapped page, are not
        //   covered and can end the process.
        #[expect(unsafe_code, reason = "this module is the room for it")]
        unsafe {
            std::slice::from_raw_parts(self.raw.as_ptr().add(start), len)
        }
    }

    /// Whether every page of `range` is in memory, so that reading it will not wait for the disk. Asks
    /// the kernel unless all of the file is known to be there.
    pub(crate) fn is_resident(&self, range: Range<usize>) -> bool {
        self.warmth.is_warm() || self.is_resident_now(range)
    }

    /// Looks whether all that is published is in memory, if anybody has asked or `for_all`; otherwise
    /// forgets what was known.
    pub(crate) fn look(&self, for_all: bool) -> bool {
        let published = self.published();
        // In steps, since one page that is absent is enough.
        let mut steps = (0..published).step_by(LOOK_STEP);
        let is_warm = (for_all || self.warmth.was_asked())
            && steps.all(|start| self.is_resident_now(start..published.min(start + LOOK_STEP)));
        self.warmth.note(is_warm);
        is_warm
    }

    fn is_resident_now(&self, range: Range<usize>) -> bool {
        let page = page_size();
        let start = range.start / page * page;
        let len = range.end.min(self.raw.len()).saturating_sub(start);
        if len == 0 {
            return true;
        }
        let (mut few, mut many) = ([0u8; FEW_PAGES], Vec::new());
        let pages = match len.div_ceil(page) {
            count if count <= FEW_PAGES => &mut few[..count],
            count => {
                many.resize(count, 0);
                &mut many[..]
            }
        };
        self.pages_in_memory(start, len, pages) && pages.iter().all(|page| page & 1 == 1)
    }

    /// Asks for each page of the `len` bytes from `start` whether it is in memory; the lowest bit of
    /// its byte says so. False if the kernel does not tell.
    fn pages_in_memory(&self, start: usize, len: usize, pages: &mut [u8]) -> bool {
        let page = page_size();
        assert!(start.is_multiple_of(page) && pages.len() == len.div_ceil(page));
        assert!(start.checked_add(len).is_some_and(|end| end <= self.raw.len()));
        // SAFETY: `mincore` needs a page-aligned address and a vector with one byte for each page
        // of the `len` bytes from there. The mapping starts page-aligned; the rest was just checked.
        #[expect(unsafe_code, reason = "this module is the room for it")]
        let status = unsafe {
            libc::mincore(self.raw.as_mut_ptr().add(start).cast(), len, pages.as_mut_ptr().cast())
        };
        status == 0
    }

    /// How many of the published bytes are in memory, by whole pages, and how many there are.
    pub(crate) fn residency(&self) -> (u64, u64) {
        let (page, published) = (page_size(), self.published());
        let mut pages = vec![0u8; PAGES_ASKED.min(published.div_ceil(page))];
        let (mut resident, mut all) = (0, 0);
        for start in (0..published).step_by(PAGES_ASKED * page) {
            let len = (published - start).min(PAGES_ASKED * page);
            let asked = &mut pages[..len.div_ceil(page)];
            // What the kernel does not say counts as absent.
            let answered = self.pages_in_memory(start, len, asked);
            let present = asked.iter().filter(|state| answered && **state & 1 == 1).count();
            resident += present * page;
            all += asked.len() * page;
        }
        (resident as u64, all as u64)
    }

    /// Brings `range` into memory. A page that cannot be read is an error here, where touching it
    /// would end the process. Kernels before Linux 5.14 do not know the request: there it does
    /// nothing.
    pub(crate) fn populate(&self, range: Range<usize>) -> io::Result<()> {
        let end = range.end.min(self.published());
        let len = end.saturating_sub(range.start);
        #[cfg(target_os = "linux")]
        if len > 0 {
            // A fault reads what is around it too, and so drives out what others need; this reads just
            // these pages, at once, and the fault then waits for them. It is a hint, so it cannot fail.
            let _ = self.raw.advise_range(memmap2::Advice::WillNeed, range.start, len);
            return match self.raw.advise_range(memmap2::Advice::PopulateRead, range.start, len) {
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(()),
                result => result,
            };
        }
        let _ = len;
        Ok(())
    }
}

/// Where the page ends that the byte before `at` is in.
pub(crate) fn page_end(at: usize) -> usize {
    at.next_multiple_of(page_size())
}

fn page_size() -> usize {
    // SAFETY: `sysconf` has no preconditions.
    #[expect(unsafe_code, reason = "this module is the room for it")]
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(size).unwrap_or(4096)
}

/// Where the last byte of `file` that was ever written ends, as far as the file system knows; what
/// follows up to `len` are zeros that take no space.
pub(crate) fn written_len(file: &File, len: u64) -> u64 {
    let mut end = 0;
    while end < len {
        let Some(data) = seek(file, end, libc::SEEK_DATA) else { break };
        match seek(file, data, libc::SEEK_HOLE) {
            Some(hole) if hole > end => end = hole,
            _ => return len,
        }
    }
    end.min(len)
}

/// `None` past the last data, and where the file system cannot tell.
fn seek(file: &File, from: u64, whence: libc::c_int) -> Option<u64> {
    // SAFETY: `lseek` takes any descriptor and offset; this one is open, and its position is used
    // by nobody, since the engine reads and writes at offsets of its own.
    #[expect(unsafe_code, reason = "this module is the room for calls into libc")]
    let at = unsafe { libc::lseek(file.as_raw_fd(), from as libc::off_t, whence) };
    u64::try_from(at).ok()
}

/// Bytes that the file system of `path` has left for this process, and how many it has in all.
pub(crate) fn space(path: &CStr) -> Option<(u64, u64)> {
    // SAFETY: all-zero bytes are a valid `statvfs`, which is plain integers.
    #[expect(unsafe_code, reason = "this module is the room for calls into libc")]
    let mut stat: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: `path` ends with a zero byte and `stat` is ours to be written.
    #[expect(unsafe_code, reason = "this module is the room for calls into libc")]
    let status = unsafe { libc::statvfs(path.as_ptr(), &mut stat) };
    let unit = stat.f_frsize;
    (status == 0).then(|| (stat.f_bavail * unit, stat.f_blocks * unit))
}
