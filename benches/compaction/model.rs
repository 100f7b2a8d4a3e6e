//! A store without a disk: which records lie in which segment, what is dead, and what was copied.
//!
//! Every record is one step long and every segment 1,024 of them, so that a segment has the 128 MiB
//! that the engine's plan reckons with. Exact are: what is alive, what has expired, and which
//! tombstones are still needed. Left out are commit records, footers, blobs, and sealing takes no time.

use crate::policy::{Policy, View};

/// Bytes of a record and of a tombstone.
pub(crate) const RECORD: u64 = 128 << 10;
pub(crate) const TOMBSTONE: u64 = RECORD / 14;
pub(crate) const SEGMENT: u64 = 128 << 20;
/// How often a plan is asked for, in bytes written.
const STEP: u64 = SEGMENT / 4;
/// What expires within a day counts as soon.
const SOON_MS: u64 = 86_400_000;
const NOWHERE: Place = Place { segment: u32::MAX, slot: 0 };

#[derive(Clone, Copy, PartialEq, Eq)]
struct Place {
    segment: u32,
    slot: u32,
}

/// A record in a segment.
#[derive(Clone, Copy)]
pub(crate) struct Slot {
    key: u32,
    is_put: bool,
    /// The index points at it.
    is_live: bool,
    pub(crate) expires_ms: u64,
    pub(crate) written_ms: u64,
    /// How often it was copied.
    pub(crate) copies: u32,
    /// Its place among those of its segment that expire.
    rank: u32,
}

impl Slot {
    fn len(&self) -> u64 {
        if self.is_put { RECORD } else { TOMBSTONE }
    }

    fn has_expired(&self, now_ms: u64) -> bool {
        self.expires_ms != 0 && self.expires_ms <= now_ms
    }
}

#[derive(Default)]
struct Segment {
    slots: Vec<Slot>,
    bytes: u64,
    live: u64,
    kept_tombstones: u64,
    /// When its records expire, in order, and which they are.
    expiries: Vec<(u64, u32)>,
    /// Live bytes of the first so many of `expiries`: a Fenwick tree.
    sums: Vec<u64>,
    /// How many of `expiries` have passed.
    passed: usize,
    /// When its youngest record was written.
    written_ms: u64,
}

impl Segment {
    fn push(&mut self, slot: Slot) {
        self.bytes += slot.len();
        self.live += if slot.is_live { slot.len() } else { 0 };
        self.written_ms = self.written_ms.max(slot.written_ms);
        self.slots.push(slot);
    }

    /// From now on it takes no more records.
    fn seal(&mut self) {
        let expiring = self.slots.iter().enumerate().filter(|(_, slot)| slot.expires_ms != 0);
        self.expiries = expiring.map(|(nth, slot)| (slot.expires_ms, nth as u32)).collect();
        self.expiries.sort_unstable();
        self.sums = vec![0; self.expiries.len() + 1];
        for rank in 0..self.expiries.len() {
            let slot = &mut self.slots[self.expiries[rank].1 as usize];
            slot.rank = rank as u32;
            let len = if slot.is_live { slot.len() } else { 0 };
            self.add(rank, len);
        }
    }

    fn add(&mut self, rank: usize, len: u64) {
        let mut at = rank + 1;
        while at < self.sums.len() {
            self.sums[at] = self.sums[at].wrapping_add(len);
            at += at & at.wrapping_neg();
        }
    }

    fn kill(&mut self, nth: usize) {
        let slot = &mut self.slots[nth];
        slot.is_live = false;
        let slot = *slot;
        self.live -= slot.len();
        if slot.expires_ms != 0 && !self.sums.is_empty() {
            self.add(slot.rank as usize, slot.len().wrapping_neg());
        }
    }

    /// Live bytes that expire up to a moment.
    fn expiring_by(&self, ms: u64) -> u64 {
        let mut at = self.expiries.partition_point(|(expires, _)| *expires <= ms);
        let mut sum = 0u64;
        while at > 0 {
            sum = sum.wrapping_add(self.sums[at]);
            at -= at & at.wrapping_neg();
        }
        sum
    }
}

/// What a run has shown.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) put: u64,
    pub(crate) copied: u64,
    pub(crate) copied_again: u64,
    pub(crate) expired: u64,
    pub(crate) expired_uncopied: u64,
    pub(crate) compactions: u64,
    pub(crate) segments: usize,
    pub(crate) space_max: f64,
    space_sum: f64,
    space_count: u64,
}

impl Seen {
    pub(crate) fn space_mean(&self) -> f64 {
        self.space_sum / self.space_count as f64
    }
}

pub(crate) struct Model<'a> {
    policy: &'a Policy,
    bound: f64,
    places: Vec<Place>,
    /// How many puts of a key lie in segments, dead ones too.
    puts: Vec<u32>,
    segments: Vec<Option<Segment>>,
    /// Those that are there.
    ids: Vec<u32>,
    /// Those that are being written: one, or one for each lane.
    active: Vec<(u32, u32)>,
    until_step: u64,
    pub(crate) seen: Seen,
}

impl<'a> Model<'a> {
    pub(crate) fn new(policy: &'a Policy, bound: f64, keys: usize) -> Model<'a> {
        Model {
            policy,
            bound,
            places: vec![NOWHERE; keys],
            puts: vec![0; keys],
            segments: Vec::new(),
            ids: Vec::new(),
            active: Vec::new(),
            until_step: STEP,
            seen: Seen::default(),
        }
    }

    /// Forgets what was seen so far: the store was being filled.
    pub(crate) fn begin(&mut self) {
        self.seen = Seen::default();
    }

    pub(crate) fn put(&mut self, key: u32, expires_ms: u64, now_ms: u64) {
        self.kill(key);
        self.puts[key as usize] += 1;
        let slot = Slot {
            key,
            is_put: true,
            is_live: true,
            expires_ms,
            written_ms: now_ms,
            copies: 0,
            rank: 0,
        };
        self.append(slot, now_ms);
    }

    pub(crate) fn delete(&mut self, key: u32, now_ms: u64) {
        self.kill(key);
        self.append(tombstone(key, now_ms), now_ms);
    }

    pub(crate) fn has(&self, key: u32) -> bool {
        self.places[key as usize] != NOWHERE
    }

    fn kill(&mut self, key: u32) {
        let place = std::mem::replace(&mut self.places[key as usize], NOWHERE);
        if place != NOWHERE
            && let Some(segment) = &mut self.segments[place.segment as usize]
        {
            segment.kill(place.slot as usize);
        }
    }

    fn create(&mut self) -> u32 {
        let id = self.segments.len() as u32;
        self.segments.push(Some(Segment::default()));
        self.ids.push(id);
        id
    }

    fn segment(&mut self, id: u32) -> &mut Segment {
        self.segments[id as usize].as_mut().expect("a segment that is there")
    }

    fn append(&mut self, slot: Slot, now_ms: u64) {
        self.seen.put += slot.len();
        let lane = if self.policy.groups_at_write { self.policy.lane(&slot, now_ms) } else { 0 };
        let mut active = std::mem::take(&mut self.active);
        let id = self.output(lane, &mut active);
        self.active = active;
        self.place(id, slot);
        self.until_step = self.until_step.saturating_sub(slot.len());
        if self.until_step == 0 {
            self.until_step = STEP;
            self.pass(now_ms);
            while self.compact(now_ms) {}
            self.look(now_ms);
        }
    }

    fn place(&mut self, id: u32, slot: Slot) {
        let nth = self.segment(id).slots.len() as u32;
        self.segment(id).push(slot);
        if slot.is_live {
            self.places[slot.key as usize] = Place { segment: id, slot: nth };
        }
    }

    /// Counts what has expired meanwhile.
    fn pass(&mut self, now_ms: u64) {
        for id in &self.ids {
            let Some(segment) = &mut self.segments[*id as usize] else { continue };
            while let Some((expires_ms, nth)) = segment.expiries.get(segment.passed)
                && *expires_ms <= now_ms
            {
                let slot = &segment.slots[*nth as usize];
                if slot.is_live {
                    self.seen.expired += slot.len();
                    self.seen.expired_uncopied += if slot.copies == 0 { slot.len() } else { 0 };
                }
                segment.passed += 1;
            }
        }
    }

    fn views(&self, now_ms: u64) -> Vec<View> {
        let is_active = |id: u32| self.active.iter().any(|(_, active)| *active == id);
        let sealed = self.ids.iter().filter(|id| !is_active(**id));
        sealed
            .filter_map(|id| Some((*id, self.segments[*id as usize].as_ref()?)))
            .map(|(id, segment)| {
                let expired = segment.expiring_by(now_ms);
                View {
                    id,
                    records: segment.bytes,
                    live: segment.live - expired,
                    kept_tombstones: segment.kept_tombstones,
                    age_ms: now_ms.saturating_sub(segment.written_ms),
                    soon: segment.expiring_by(now_ms + SOON_MS) - expired,
                }
            })
            .collect()
    }

    fn look(&mut self, now_ms: u64) {
        let views = self.views(now_ms);
        let records: u64 = views.iter().map(|view| view.records).sum();
        let live: u64 = views.iter().map(|view| view.live).sum();
        if live > 0 {
            let space = records as f64 / live as f64;
            self.seen.space_max = self.seen.space_max.max(space);
            self.seen.space_sum += space;
            self.seen.space_count += 1;
        }
        self.seen.segments = self.seen.segments.max(views.len());
    }

    /// Does what the policy says, once. Returns whether that was anything.
    fn compact(&mut self, now_ms: u64) -> bool {
        let victims = self.policy.choose(&self.views(now_ms), self.bound);
        if victims.is_empty() {
            return false;
        }
        let mut slots = Vec::new();
        for id in &victims {
            let segment = self.segments[*id as usize].take().expect("a victim is there");
            slots.extend(segment.slots);
        }
        self.ids.retain(|id| !victims.contains(id));
        // What is left of the counts lies outside of the victims, and may need a tombstone.
        for slot in slots.iter().filter(|slot| slot.is_put) {
            self.puts[slot.key as usize] -= 1;
        }
        let mut outputs: Vec<(u32, u32)> = Vec::new();
        for slot in slots {
            self.keep(slot, &mut outputs, now_ms);
        }
        for (_, id) in outputs {
            self.segment(id).seal();
        }
        self.seen.compactions += 1;
        true
    }

    fn keep(&mut self, slot: Slot, outputs: &mut Vec<(u32, u32)>, now_ms: u64) {
        let is_gone = slot.is_live && slot.has_expired(now_ms);
        if is_gone {
            self.places[slot.key as usize] = NOWHERE;
        }
        if !slot.is_put || is_gone {
            if self.puts[slot.key as usize] > 0 {
                let id = self.output(0, outputs);
                self.place(id, tombstone(slot.key, slot.written_ms));
                self.segment(id).kept_tombstones += TOMBSTONE;
            }
            return;
        }
        if !slot.is_live {
            return;
        }
        let id = self.output(self.policy.lane(&slot, now_ms), outputs);
        self.puts[slot.key as usize] += 1;
        self.seen.copied += slot.len();
        self.seen.copied_again += if slot.copies > 0 { slot.len() } else { 0 };
        self.place(id, Slot { copies: slot.copies + 1, ..slot });
    }

    /// The segment that is being written for a lane.
    fn output(&mut self, lane: u32, outputs: &mut Vec<(u32, u32)>) -> u32 {
        if let Some(at) = outputs.iter().position(|(it, _)| *it == lane) {
            let id = outputs[at].1;
            if self.segment(id).bytes + RECORD <= SEGMENT {
                return id;
            }
            self.segment(id).seal();
            outputs.swap_remove(at);
        }
        let id = self.create();
        outputs.push((lane, id));
        id
    }
}

fn tombstone(key: u32, written_ms: u64) -> Slot {
    Slot { key, is_put: false, is_live: false, expires_ms: 0, written_ms, copies: 0, rank: 0 }
}
