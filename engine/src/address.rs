//! Where a record lies: the types that keep segment ids, byte offsets and index addresses
//! apart, so that swapping two of them does not compile.

use std::fmt;

/// Names one segment file. Ids grow and are never used again; a larger id is a younger file, though
/// after compaction its records may be old. Order records by seqno, never by this.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SegmentId(pub(crate) u32);

impl SegmentId {
    /// The number in the segment's file name.
    #[must_use]
    pub(crate) fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:010}", self.0)
    }
}

/// Place of a segment in the catalog's slot table. Slots are used again; segment ids are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Slot(pub(crate) u16);

/// Where a record starts, packed into 40 bits for the index: the segment's slot (16 bits) and the
/// offset in units of eight bytes (24 bits), so a record starts below 128 MiB of its segment.
///
/// The unit is never zero, because every segment opens with a header. So no packed address is
/// zero.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Address(u64);

impl Address {
    /// Bits in a packed address.
    pub(crate) const BITS: u32 = 40;
    /// Records start on multiples of this many bytes.
    pub(crate) const ALIGN: u64 = 8;
    /// The first byte offset at which no record may start.
    pub(crate) const OFFSET_END: u64 = Self::ALIGN << 24;

    /// # Panics
    /// If `offset` is zero, not aligned, or [`Self::OFFSET_END`] or more: a bug of the caller.
    pub(crate) fn new(slot: Slot, offset: u64) -> Address {
        assert!(
            offset != 0 && offset.is_multiple_of(Self::ALIGN) && offset < Self::OFFSET_END,
            "no record can start at byte {offset}"
        );
        Address((u64::from(slot.0) << 24) | (offset / Self::ALIGN))
    }

    pub(crate) fn slot(self) -> Slot {
        Slot((self.0 >> 24) as u16)
    }

    pub(crate) fn offset(self) -> u64 {
        (self.0 & 0xff_ffff) * Self::ALIGN
    }

    /// The 40 bits; never zero.
    pub(crate) fn to_bits(self) -> u64 {
        self.0
    }

    /// Undoes [`Self::to_bits`].
    pub(crate) fn from_bits(bits: u64) -> Address {
        debug_assert!(bits != 0 && bits >> Self::BITS == 0);
        Address(bits)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "slot {} byte {}", self.slot().0, self.offset())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_keeps_slot_and_offset_through_its_bits() {
        for (slot, offset) in [(0, 8), (7, 4096), (u16::MAX, Address::OFFSET_END - 8)] {
            let address = Address::from_bits(Address::new(Slot(slot), offset).to_bits());
            assert_eq!((address.slot().0, address.offset()), (slot, offset));
        }
    }

    #[test]
    #[should_panic(expected = "no record can start at byte 12")]
    fn an_unaligned_offset_is_a_bug() {
        let _ = Address::new(Slot(0), 12);
    }
}
