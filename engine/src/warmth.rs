//! Whether something is known to be in memory, so that asking costs no system call.
//!
//! What is asked about is looked at again about once a second, by one of the store's own threads; what
//! nobody asks about is not. In between the kernel may take memory back, so "warm" is a recent
//! truth and no promise: acting on it wrongly costs a wait for the disk and nothing else.

use std::sync::atomic::{AtomicU8, Ordering};

const WARM: u8 = 1;
const ASKED: u8 = 2;

/// What was last seen, and whether anybody wants to know. Nothing is known at first.
#[derive(Default)]
pub(crate) struct Warmth(AtomicU8);

impl Warmth {
    /// Whether all of it was in memory when that was last looked at. False if that is not known.
    pub(crate) fn is_warm(&self) -> bool {
        let state = self.0.load(Ordering::Relaxed);
        if state & ASKED == 0 {
            self.0.fetch_or(ASKED, Ordering::Relaxed);
        }
        state & WARM != 0
    }

    /// Whether anybody has asked since it was last looked at.
    pub(crate) fn was_asked(&self) -> bool {
        self.0.load(Ordering::Relaxed) & ASKED != 0
    }

    /// Notes what was seen.
    pub(crate) fn note(&self, is_warm: bool) {
        self.0.store(if is_warm { WARM } else { 0 }, Ordering::Relaxed);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn what_was_noted_is_told_and_asking_is_noted() {
        let warmth = Warmth::default();
        assert!(!warmth.was_asked());
        assert!(!warmth.is_warm() && warmth.was_asked(), "nothing is known at first");
        warmth.note(true);
        assert!(!warmth.was_asked());
        assert!(warmth.is_warm() && warmth.was_asked());
        warmth.note(false);
        assert!(!warmth.is_warm());
    }
}
