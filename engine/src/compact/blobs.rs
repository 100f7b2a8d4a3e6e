//! Takes space back in blobs: copies the extents that are alive in mostly dead ones, and the records that
//! refer to them.
//!
//! A record cannot be changed, so a value that moves needs a new record. That one keeps the seqno, since
//! nothing happened to the key; of the two, the one in the younger file counts. What always holds:
//! - The record that is copied lies in a sealed segment, and its copy in a run that was begun later. So
//!   the copy is always in the younger file, and a footer tells of the original for as long as it exists:
//!   a tombstone that hides the original is kept.
//! - Copying the bytes holds nobody up. While the records are copied and the index is moved, nobody makes
//!   another record that refers to an extent of the victims; see `Keyspace::move_extents`.
//! - A value that has expired is not copied; a tombstone is written in the place of its record.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::plan::{Candidate, window};
use super::{Compactor, Expired, Job, Memory, Move, is_sealed};
use crate::address::{Address, SegmentId};
use crate::error::{Damage, Error};
use crate::format::record::{self, Extent, Header, Kind, extent_len};
use crate::keyspace::{Found, is_expired};
use crate::segment::Segment;
use crate::segment::extents::Held;
use crate::stage::{self, Staged};

/// The copies of extents, by where the originals are.
type Copies = BTreeMap<Extent, Staged>;

/// A record that the index points at and that refers to an extent of a victim.
struct Reference {
    composite: Box<[u8]>,
    header: Header,
    extent: Extent,
    address: Address,
    /// The record's bytes, and the segment that they lie in.
    bytes: Vec<u8>,
    segment: SegmentId,
}

impl Compactor {
    /// What the plan is told of the sealed blobs.
    pub(super) fn blob_candidates(
        &self,
        segments: &[Arc<Segment>],
        memory: &Memory,
        now_ms: u64,
    ) -> Vec<Candidate> {
        let open = self.stage.open_blobs();
        let is_open = |id| open.iter().any(|blob| blob.segment.id() == id);
        segments
            .iter()
            .filter(|segment| segment.is_blob() && !memory.damaged.contains(&segment.id()))
            .filter(|segment| !is_open(segment.id()))
            .map(|segment| Candidate {
                id: segment.id(),
                records: segment.record_bytes(),
                live: segment.live_bytes().saturating_sub(segment.extents.expired_bytes(now_ms)),
                kept_tombstones: 0,
            })
            .collect()
    }

    /// Moves what is alive in the victims to the active blob. Returns whether they are gone.
    pub(super) fn compact_blobs(
        &self,
        victims: &[SegmentId],
        memory: &mut Memory,
    ) -> Result<bool, Error> {
        let now_ms = self.keyspace.time.guarded_ms();
        let (blobs, _) = self.divide(victims);
        let moved = self.copy_extents(&blobs, now_ms).and_then(|copies| {
            let _nobody_refers = self.keyspace.move_extents();
            self.move_references(&blobs, &copies, now_ms, memory)
        });
        if !matches!(moved, Ok(true)) {
            // Sealing the blob that has the copies gives back what they take at its end.
            self.stage.rotate();
        }
        if let Err(Error::Corrupt(corruption)) = &moved {
            let is_guilty = |blob: &&Arc<Segment>| blob.body.file_name() == corruption.file;
            let guilty = blobs.iter().find(is_guilty).map(|guilty| vec![guilty.id()]);
            // If it is a record that cannot be read, nobody knows whose value it has.
            memory.damaged.extend(guilty.unwrap_or_else(|| victims.to_vec()));
        }
        moved
    }

    fn copy_extents(&self, blobs: &[Arc<Segment>], now_ms: u64) -> Result<Copies, Error> {
        let mut copies = Copies::new();
        for blob in blobs {
            for (extent, held) in blob.extents.live() {
                if self.stopping.load(Ordering::Relaxed) {
                    return Err(Error::Closed);
                }
                if let Some(reference) = self.reference_to(extent, &held)?
                    && !is_expired(reference.header.expires_ms, now_ms)
                {
                    copies.insert(extent, self.copy(blob, extent, &reference.header)?);
                }
            }
        }
        stage::sync_all(copies.values())?;
        Ok(copies)
    }

    /// Everything that is copied is verified: damage must not be given a new checksum.
    fn copy(&self, blob: &Segment, extent: Extent, header: &Header) -> Result<Staged, Error> {
        let content = blob.body.verified_content(extent.offset(), header)?;
        let mut copy = self.stage.begin_copy(u64::from(header.value_len))?;
        copy.write(content.value)?;
        let copy = copy.finish()?;
        if copy.value_crc() != header.value_crc {
            let (stored, computed) = (header.value_crc, copy.value_crc());
            let damage = Damage::Checksum { of: "value", stored, computed };
            return Err(blob.body.corruption(extent.offset(), damage).into());
        }
        let len = extent_len(u64::from(header.value_len));
        self.note_copied(len);
        Ok(copy)
    }

    /// The record for which an extent is held, if the index still points at it.
    fn reference_to(&self, extent: Extent, held: &Held) -> Result<Option<Reference>, Error> {
        let keyspace = &self.keyspace;
        let pinned = keyspace.index.pin();
        let found = keyspace.find_any(&keyspace.sought_composite(&held.composite), &pinned)?;
        let found = found.filter(|found| found.record.header.extent == Some(extent));
        Ok(found.map(|Found { segment, offset, record }| Reference {
            composite: held.composite.clone(),
            header: record.header,
            extent,
            address: Address::new(segment.slot, offset),
            bytes: segment.body.bytes_from(offset)[..record.header.record_len()].to_vec(),
            segment: segment.id(),
        }))
    }

    /// All records that refer to extents of the blobs, in the order of their keys.
    fn references(&self, blobs: &[Arc<Segment>]) -> Result<Vec<Reference>, Error> {
        let live = blobs.iter().flat_map(|blob| blob.extents.live());
        let found = live.map(|(extent, held)| self.reference_to(extent, &held));
        let mut references: Vec<Reference> =
            found.filter_map(Result::transpose).collect::<Result<_, _>>()?;
        references.sort_by(|a, b| a.composite.cmp(&b.composite));
        Ok(references)
    }

    /// Copies the records, has them refer to the copies of the values, and puts that in the place of the
    /// blobs.
    fn move_references(
        &self,
        blobs: &[Arc<Segment>],
        copies: &Copies,
        now_ms: u64,
        memory: &mut Memory,
    ) -> Result<bool, Error> {
        let references = self.references(blobs)?;
        let is_in_a_log = |reference: &Reference| {
            let segment = self.keyspace.catalog.by_id(reference.segment);
            segment.is_some_and(|segment| !is_sealed(&segment, &self.committer))
        };
        if references.iter().any(is_in_a_log) {
            self.committer.rotate_for_room()?;
            self.seal_all()?;
        }
        let is_known = |it: &Reference| {
            copies.contains_key(&it.extent) || is_expired(it.header.expires_ms, now_ms)
        };
        if !references.iter().all(is_known) {
            return Ok(false);
        }
        let ids: Vec<_> = blobs.iter().map(|blob| blob.id()).collect();
        let (_, others) = self.divide(&ids);
        let mut job = Job::new(self, now_ms, &others);
        let written = references
            .iter()
            .try_for_each(|reference| job.refer(reference, copies.get(&reference.extent)));
        if let Err(error) = written.and_then(|()| job.finish()) {
            job.remove_outputs();
            return Err(error);
        }
        job.install(blobs, memory)?;
        Ok(true)
    }
}

impl Job<'_> {
    /// Writes what stands in the place of a record from now on.
    fn refer(&mut self, reference: &Reference, copy: Option<&Staged>) -> Result<(), Error> {
        let Reference { composite, header, extent, address, bytes, .. } = reference;
        let (len, seqno, extent) = (bytes.len() as u64, header.seqno, Some(*extent));
        let Some(copy) = copy else {
            let (composite, address) = (composite.clone(), *address);
            self.expired.push(Expired { composite, address, len, extent });
            return self.keep_tombstone(&reference.composite, Kind::Delete, seqno);
        };
        let (mut bytes, header) =
            (bytes.clone(), Header { extent: Some(copy.extent()), ..*header });
        record::refer_to(&mut bytes, &header, copy.extent());
        let run = self.output(window(header.expires_ms, self.now_ms), bytes.len())?;
        let (run, offset) = (run.id, run.copy(composite, &header, &bytes)?);
        self.moves.push(Move { from: *address, len, run, offset, extent });
        Ok(())
    }
}
