//! What becomes of memory that a large body has used: it goes back to the system.
//!
//! glibc takes large blocks from the system one by one, and gives each back when it is freed. But the
//! first time it frees one, it raises the length that counts as large, up to 32 MiB; from then on blocks
//! for values come from heaps that keep what was freed. Measured with values of 25 MiB, six requests at
//! a time: 404 MiB were kept for good that way, 1 MiB if the length stays fixed.

/// Blocks of this length and more are taken from the system one by one: glibc's own default.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const LARGE_BYTES: libc::c_int = 128 << 10;

/// Fixes the length from which a block counts as large. Call it first, before any thread is started.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub(crate) fn give_back_large_blocks() {
    // SAFETY: `mallopt` has no preconditions on its numbers, which it refuses if they are wrong. It is
    // called before any other thread exists, so nobody allocates meanwhile.
    #[expect(unsafe_code, reason = "the allocator can only be told by a call into libc")]
    let taken = unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE_BYTES) };
    debug_assert_eq!(taken, 1, "glibc knows the option");
}

/// Other allocators are left as they are.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(crate) fn give_back_large_blocks() {}
