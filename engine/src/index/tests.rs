//! Promises of the whole index: it answers like a `BTreeMap` whatever keys and operations come, and
//! beside a writer no reader misses a live key, sees keys out of order, or goes back in time.
//!
//! How they are attacked: random operations over awkward keys (bytes 0 and 255, prefixes of each
//! other, the longest ones), with blocks small enough to split and merge all the time and hashes cut
//! short enough to collide; then threads. To replay: `SEED=… cargo test …`; each test prints its seed.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::*;

/// splitmix64
struct Random(u64);

impl Random {
    fn seeded(test: &str) -> Random {
        let seed = match std::env::var("SEED") {
            Ok(seed) => seed.parse().expect("SEED is a number"),
            Err(_) => (u64::from(std::process::id()) << 20) | 0x5eed,
        };
        println!("{test}: SEED={seed}");
        Random(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(end)) >> 64) as u64
    }
}

/// The `number`-th awkward key: always the same one.
fn key(number: u64) -> Vec<u8> {
    let mut random = Random(number);
    let namespace = [0, 1, 7, u32::MAX][random.below(4) as usize].to_be_bytes();
    let mut key = namespace.to_vec();
    match random.below(32) {
        0..8 => key.extend(format!("user:{}:profile", random.below(1 << 30)).bytes()),
        8..16 => {
            let len = random.below(20);
            key.extend((0..len).map(|_| [0, 1, b'a', 255][random.below(4) as usize]));
        }
        16..20 => key.extend(vec![[0, 255][random.below(2) as usize]; random.below(1025) as usize]),
        20..22 => {
            key.extend(vec![b'p'; 1000 + random.below(20) as usize]);
            key.extend(format!("{}", random.below(9999)).bytes());
        }
        22 => key.extend((0..1024).map(|_| random.next() as u8)),
        _ => key.extend((0..4).flat_map(|_| random.below(9).to_be_bytes())),
    }
    assert!(key.len() <= KEY_LEN_MAX);
    key
}

fn traits(random: &mut Random) -> Traits {
    let expires_at_ms = if random.below(4) == 0 { 1 + random.below(1 << 40) } else { 0 };
    Traits { expires_at_ms, has_metadata: random.below(4) == 0 }
}

/// Where the records would be: an address is the number of a record.
#[derive(Default)]
struct Log(Vec<(Vec<u8>, Traits)>);

impl Log {
    fn append(&mut self, key: &[u8], traits: Traits) -> Address {
        self.0.push((key.to_vec(), traits));
        Address::from_bits(self.0.len() as u64)
    }

    fn read(&self, address: Address) -> &(Vec<u8>, Traits) {
        &self.0[address.to_bits() as usize - 1]
    }

    fn traits(&self, address: Address, key: &[u8]) -> Option<Traits> {
        let record = self.read(address);
        (record.0 == key).then_some(record.1)
    }
}

/// An index beside the map that says what it must answer.
struct Twin {
    index: Index,
    writer: IndexWriter,
    limits: Limits,
    log: Log,
    map: BTreeMap<Vec<u8>, (Address, Traits)>,
    random: Random,
}

impl Twin {
    fn new(random: Random, limits: Limits, hash_mask: u64) -> Twin {
        let (index, writer) = join(hash::with_hash_mask(7, hash_mask), tree::new(limits));
        Twin { index, writer, limits, log: Log::default(), map: BTreeMap::new(), random }
    }

    fn put(&mut self, key: &[u8]) {
        let keeps = self.random.below(2) == 0;
        let old = self.map.get(key).copied();
        let traits = match old {
            Some((_, traits)) if keeps => traits,
            _ => traits(&mut self.random),
        };
        let address = self.log.append(key, traits);
        let log = &self.log;
        let replaced = self.writer.upsert(key, address, traits, |at| log.traits(at, key));
        assert_eq!(replaced, old.map(|old| old.0));
        self.map.insert(key.to_vec(), (address, traits));
    }

    fn remove(&mut self, key: &[u8]) {
        let old = self.map.remove(key).map(|old| old.0);
        if let Some(old) = old.filter(|_| self.random.below(2) == 0) {
            let other = self.log.append(key, Traits::default());
            assert!(!self.writer.remove_at(key, other));
            assert!(self.writer.remove_at(key, old));
            return;
        }
        let log = &self.log;
        assert_eq!(self.writer.remove(key, |at| log.traits(at, key).is_some()), old);
    }

    fn relocate(&mut self, key: &[u8]) {
        let Some(&(from, traits)) = self.map.get(key) else { return };
        let to = self.log.append(key, traits);
        assert!(!self.writer.relocate(key, to, from));
        assert!(self.writer.relocate(key, from, to));
        self.map.insert(key.to_vec(), (to, traits));
    }

    fn remove_range(&mut self, start: &[u8], end: Option<&[u8]>) {
        let upper = end.map_or(Bound::Unbounded, Bound::Excluded);
        let mut expected = Vec::new();
        if end.is_none_or(|end| start < end) {
            let range = self.map.range::<[u8], _>((Bound::Included(start), upper));
            let keys: Vec<_> = range.map(|(key, _)| key.clone()).collect();
            expected.extend(keys.iter().filter_map(|key| self.map.remove(key)).map(|old| old.0));
        }
        let (log, mut removed) = (&self.log, Vec::new());
        self.writer.remove_range(
            start,
            end,
            |at, key| log.traits(at, key).is_some(),
            |at| removed.push(at),
        );
        assert_eq!(removed, expected);
    }

    fn get(&self, key: &[u8]) {
        let guard = self.index.pin();
        let hash = self.index.hash(key);
        self.index.prefetch(hash, &guard);
        let found =
            self.index.get(hash, &guard, |at| self.log.traits(at, key).map(|traits| (at, traits)));
        assert_eq!(found, self.map.get(key).copied());
    }

    fn walk(&self, start: &[u8], limit: usize) {
        let guard = self.index.pin();
        let mut expected = self.map.range::<[u8], _>((Bound::Included(start), Bound::Unbounded));
        let mut left = limit;
        self.index.walk(start, &guard, |key, traits| {
            let (expected_key, (_, expected_traits)) = expected.next().expect("a key too many");
            assert_eq!((key, traits), (&expected_key[..], *expected_traits));
            left -= 1;
            if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        assert!(left == 0 || expected.next().is_none(), "a key was missed");
    }

    /// Both ways through [`start`, `end`), with the keys that are kept.
    fn gather(&self, start: &[u8], end: Option<&[u8]>, limit: usize) {
        let above = end.map_or(Bound::Unbounded, Bound::Excluded);
        // A map does not take a range that ends before it starts.
        let is_empty = end.is_some_and(|end| end <= start);
        let range = || self.map.range::<[u8], _>((Bound::Included(start), above));
        for back in [false, true] {
            let expected: Vec<(Vec<u8>, Traits)> = match (is_empty, back) {
                (true, _) => Vec::new(),
                (_, false) => range().take(limit).map(|(key, put)| (key.clone(), put.1)).collect(),
                (_, true) => {
                    range().rev().take(limit).map(|(key, put)| (key.clone(), put.1)).collect()
                }
            };
            let (mut met, mut kept) = (Vec::new(), b"before".to_vec());
            let visit = |key: &[u8], traits: Traits| {
                if met.len() == limit {
                    return Visited::Stop;
                }
                met.push((key.to_vec(), traits));
                if met.len() % 3 == 0 { Visited::Skip } else { Visited::Keep }
            };
            let guard = self.index.pin();
            if back {
                self.index.gather_back(start, end, &guard, &mut kept, visit);
            } else {
                self.index.gather(start, end, &guard, &mut kept, visit);
            }
            assert_eq!(met, expected, "back: {back}");
            let third = |at: usize| (at + 1).is_multiple_of(3);
            let keys = met.iter().enumerate().filter(|(at, _)| !third(*at));
            let keys: Vec<u8> = keys.flat_map(|(_, (key, _))| key.clone()).collect();
            assert_eq!(kept, [b"before", &keys[..]].concat(), "back: {back}");
        }
    }

    fn check(&self) {
        self.walk(b"", usize::MAX);
        self.gather(b"", None, usize::MAX);
        let keys = self.index.tree.assert_sound(self.limits, &self.index.pin());
        assert_eq!(keys, self.map.len());
        let check = self.index.check(|at, key| self.log.traits(at, key).is_some());
        assert!(check.is_sound() && check.keys_in_tree == self.map.len() as u64, "{check:?}");
    }

    /// Random operations over the first `span` keys; the map grows in one half and shrinks in the
    /// other.
    fn churn(&mut self, operations: u64, span: u64) {
        for step in 0..operations {
            let key = key(self.random.below(span));
            let puts = if step < operations / 2 { 60 } else { 25 };
            match self.random.below(100) {
                below if below < puts => self.put(&key),
                below if below < 70 => self.remove(&key),
                70..75 => self.relocate(&key),
                75..96 => self.get(&key),
                96..99 => {
                    let limit = 1 + self.random.below(60) as usize;
                    self.walk(&key, limit);
                    let end = self.random.below(4) > 0;
                    let end = end.then(|| self::key(self.random.below(span)));
                    self.gather(&key, end.as_deref(), limit);
                }
                _ if self.random.below(10) == 0 => {
                    let mut end = key.clone();
                    end.truncate(self.random.below(12) as usize);
                    end.push(self.random.next() as u8);
                    let end = Some(&end[..]).filter(|_| self.random.below(30) > 0);
                    self.remove_range(&key, end);
                }
                _ => {}
            }
            if step % (operations / 8 + 1) == 0 {
                self.check();
            }
        }
        self.check();
    }

    fn bulk_load(&mut self, numbers: std::ops::Range<u64>) {
        let mut keys: Vec<Vec<u8>> = numbers.map(key).collect();
        keys.sort();
        keys.dedup();
        let mut parts = Vec::new();
        for some in keys.chunks(keys.len() / 3 + 1) {
            parts.push(self.writer.bulk_part()); // It stays empty.
            let mut part = self.writer.bulk_part();
            for key in some {
                let traits = traits(&mut self.random);
                let address = self.log.append(key, traits);
                part.push(key, address, traits);
                self.map.insert(key.clone(), (address, traits));
            }
            parts.push(part);
        }
        self.writer.bulk_load(parts, 2);
        self.check();
    }

    fn remove_all(&mut self) {
        self.remove_range(b"", None);
        self.check();
        // Pins of other tests hold up the epoch for a while.
        for _ in 0..10_000 {
            self.writer.collect();
            if self.index.memory().retired_bytes == 0 {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        let (empty, _writer) = new(1);
        assert_eq!(self.index.memory(), empty.memory(), "nothing is left");
    }
}

const SMALL: Limits = Limits { leaf_keys: 4, inner_children: 4, bytes: 4500 };
const ALL_BITS: u64 = u64::MAX;
/// Four shards, and four tags in each.
const FEW_TAGS: u64 = (0b11 << 62) | (0b11 << 48);

#[test]
fn it_answers_like_a_map_whatever_comes() {
    let random = Random::seeded("standard blocks");
    let mut twin = Twin::new(random, Limits::STANDARD, ALL_BITS);
    twin.churn(150_000, 40_000);
    twin.churn(150_000, 2_000);
    twin.remove_all();
}

#[test]
fn it_answers_like_a_map_while_blocks_split_and_merge_all_the_time() {
    for (leaf_keys, inner_children) in [(2, 3), (4, 4), (5, 8)] {
        let limits = Limits { leaf_keys, inner_children, ..SMALL };
        let mut twin = Twin::new(Random::seeded("small blocks"), limits, ALL_BITS);
        twin.churn(60_000, 3_000);
        twin.churn(30_000, 100);
        twin.remove_all();
    }
}

#[test]
fn it_answers_like_a_map_when_tags_collide() {
    let mut twin = Twin::new(Random::seeded("few tags"), SMALL, FEW_TAGS);
    twin.churn(60_000, 800);
    twin.churn(30_000, 40);
    twin.remove_all();
}

#[test]
fn a_bulk_load_is_an_index_like_any_other() {
    for limits in [SMALL, Limits { inner_children: 3, ..SMALL }, Limits::STANDARD] {
        for keys in [0, 1, 2, 5, 17, 300, 20_000] {
            let mut twin = Twin::new(Random::seeded("bulk load"), limits, ALL_BITS);
            twin.bulk_load(0..keys);
            twin.churn(3_000, 20_000);
            twin.remove_all();
            twin.bulk_load(0..keys / 2);
        }
    }
}

#[test]
fn a_bulk_load_that_is_given_up_leaks_nothing() {
    let (index, writer) = new(3);
    let mut part = writer.bulk_part();
    for number in 0..10_000u32 {
        let address = Address::from_bits(1 + u64::from(number));
        part.push(&number.to_be_bytes(), address, Traits::default());
    }
    drop(part);
    drop(writer);
    index.walk(b"", &index.pin(), |_, _| unreachable!("not finished, so not shown"));
}

#[test]
#[should_panic(expected = "keys of a bulk load must ascend")]
fn a_bulk_load_out_of_order_is_a_bug() {
    let (_index, writer) = new(3);
    let mut part = writer.bulk_part();
    part.push(b"b", Address::from_bits(1), Traits::default());
    part.push(b"b", Address::from_bits(2), Traits::default());
}

#[test]
#[should_panic(expected = "keys of a bulk load must ascend")]
fn parts_of_a_bulk_load_out_of_order_are_a_bug() {
    let (_index, mut writer) = new(3);
    let mut parts = vec![writer.bulk_part(), writer.bulk_part()];
    for part in &mut parts {
        part.push(b"b", Address::from_bits(1), Traits::default());
    }
    writer.bulk_load(parts, 1);
}

#[test]
fn keys_in_order_fill_their_leaves() {
    let (index, mut writer) = new(3);
    for number in 0..64_000u32 {
        let address = Address::from_bits(1 + u64::from(number));
        writer.upsert(&number.to_be_bytes(), address, Traits::default(), |_| None);
    }
    // Head, end and mark, and little beside: so leaves are nearly full.
    assert!(index.memory().tree_bytes < 64_000 * 12, "{:?}", index.memory());
}

#[test]
fn an_outlier_does_not_cost_long_keys_their_common_prefix() {
    let (index, mut writer) = new(3);
    let long = |number: u64| [&[b'p'; 1000][..], &number.to_be_bytes()].concat();
    for number in 0..50 {
        writer.upsert(&long(number), Address::from_bits(1 + number), Traits::default(), |_| None);
    }
    let before = index.memory().tree_bytes;
    for (at, outlier) in [&b"a"[..], b"z"].into_iter().enumerate() {
        writer.upsert(outlier, Address::from_bits(99 + at as u64), Traits::default(), |_| None);
    }
    assert!(index.memory().tree_bytes < before + 300, "{before} {:?}", index.memory());
}

#[test]
fn the_traits_of_a_key_change_and_the_rest_stays() {
    let (index, mut writer) = new(3);
    let meta = Traits { expires_at_ms: 0, has_metadata: true };
    let expiring = Traits { expires_at_ms: 77, has_metadata: false };
    let listed = || {
        let mut all = Vec::new();
        index.walk(b"", &index.pin(), |key, traits| {
            all.push((key.to_vec(), traits));
            ControlFlow::Continue(())
        });
        all
    };
    writer.upsert(b"a", Address::from_bits(1), expiring, |_| None);
    writer.upsert(b"b", Address::from_bits(2), meta, |_| None);
    assert_eq!(listed(), [(b"a".to_vec(), expiring), (b"b".to_vec(), meta)]);
    writer.upsert(b"a", Address::from_bits(3), meta, |_| Some(expiring));
    writer.upsert(b"b", Address::from_bits(4), expiring, |_| Some(meta));
    assert_eq!(listed(), [(b"a".to_vec(), meta), (b"b".to_vec(), expiring)]);
}

#[test]
fn readers_outlive_the_writer_and_the_writer_readers() {
    let fill = |writer: &mut IndexWriter| {
        for number in 0..5_000u32 {
            let address = Address::from_bits(1 + u64::from(number));
            writer.upsert(&number.to_be_bytes(), address, Traits::default(), |_| None);
        }
    };
    let (index, mut writer) = new(1);
    fill(&mut writer);
    drop(writer);
    let mut keys = 0;
    index.walk(b"", &index.pin(), |_, _| {
        keys += 1;
        ControlFlow::Continue(())
    });
    assert_eq!(keys, 5_000);

    let (index, mut writer) = new(1);
    drop(index);
    fill(&mut writer);
    writer.remove_range(b"", None, |_, _| true, |_| {});
}

/// Writes between two keys of one walk, so that every walk stands on blocks that are replaced, merged
/// and dropped under it; without threads, so that a seed replays it.
#[test]
fn a_walk_keeps_its_promises_whatever_is_written_between_two_keys() {
    let mut random = Random::seeded("writes within a walk");
    for (leaf_keys, inner_children) in [(2, 3), (3, 4), (4, 4)] {
        let limits = Limits { leaf_keys, inner_children, ..SMALL };
        for round in 0..1_500 {
            writes_within_a_walk(limits, &mut random, round % 2 == 1);
        }
    }
}

fn writes_within_a_walk(limits: Limits, random: &mut Random, back: bool) {
    let (tree, mut writer) = tree::new(limits);
    let span = 20 + random.below(100);
    let mut held = std::collections::BTreeSet::new();
    for _ in 0..random.below(2 * span) {
        let number = random.below(span) as u8;
        writer.put(&[number], Traits::default());
        held.insert(number);
    }
    let mut live = held.clone();
    let mut last = None;
    let mut met = std::collections::BTreeSet::new();
    let pause = 1 + random.below(8);
    let visit = |key: &[u8], _| {
        let follows = |last: u8| if back { key[0] < last } else { last < key[0] };
        assert!(last.is_none_or(follows), "out of order or twice");
        last = Some(key[0]);
        met.insert(key[0]);
        if random.below(pause) == 0 {
            let from = random.below(span) as u8;
            let until = from.saturating_add(random.below(span / 2) as u8);
            match random.below(3) {
                0 => {
                    let (mut at, mut removed) = (vec![from], Keys::default());
                    while writer.remove_in_one_leaf(&mut at, Some(&[until]), &mut removed) {}
                    held.retain(|number| !(from..until).contains(number));
                }
                1 => {
                    for number in (from..until).rev() {
                        assert_eq!(writer.remove(&[number]), held.remove(&number));
                    }
                }
                _ => {
                    for number in (from..until).step_by(1 + random.below(4) as usize) {
                        writer.put(&[number], Traits::default());
                        held.insert(number);
                    }
                }
            }
            live.retain(|number| held.contains(number));
            tree.assert_sound(limits, &Guard::pin());
        }
        Visited::Skip
    };
    if back {
        tree.walk_back(b"", None, &Guard::pin(), &mut Vec::new(), visit);
    } else {
        tree.walk(b"", None, &Guard::pin(), &mut Vec::new(), visit);
    }
    assert!(live.is_subset(&met), "a live key was missed");
}

/// The address of the `version`-th record of a key.
fn address(number: u64, version: u64) -> Address {
    Address::from_bits((number << 26) | version)
}

fn number(address: Address) -> u64 {
    address.to_bits() >> 26
}

fn version(address: Address) -> u64 {
    address.to_bits() & 0x3ff_ffff
}

/// Odd keys are always there and only grow in version; even keys come and go.
#[test]
fn beside_a_writer_no_live_key_is_missed_and_order_holds() {
    let seconds = std::env::var("SECONDS").map_or(2, |s| s.parse().expect("SECONDS is a number"));
    for limits in [SMALL, Limits::STANDARD] {
        readers_beside_a_writer(limits, std::time::Duration::from_secs(seconds) / 2);
    }
}

fn readers_beside_a_writer(limits: Limits, time: std::time::Duration) {
    let mut random = Random::seeded("threads");
    let mut keys: Vec<Vec<u8>> = (0..6_000).map(key).collect();
    keys.sort();
    keys.dedup();
    keys.truncate(keys.len() & !1);
    let keys = &keys;
    let (index, mut writer) = join(hash::new(5), tree::new(limits));
    let has_key = |at: Address, key: &[u8]| keys[number(at) as usize] == key;
    for at in (1..keys.len()).step_by(2) {
        writer.upsert(&keys[at], address(at as u64, 1), Traits::default(), |_| None);
    }
    let (done, gets, walks) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let (index, done, gets, walks) = (&index, &done, &gets, &walks);
        let mut reader_random = Random(random.next());
        scope.spawn(move || {
            let mut newest = vec![1; keys.len()];
            while !done.load(Ordering::Relaxed) {
                let at = reader_random.below(keys.len() as u64 / 2) as usize * 2 + 1;
                let guard = index.pin();
                let found = index.get(index.hash(&keys[at]), &guard, |found| {
                    has_key(found, &keys[at]).then_some(version(found))
                });
                let found = found.expect("a live key was missed");
                assert!(found >= newest[at], "version {found} after {}", newest[at]);
                newest[at] = found;
                gets.fetch_add(1, Ordering::Relaxed);
            }
        });
        let mut walk_random = Random(random.next());
        scope.spawn(move || {
            while !done.load(Ordering::Relaxed) {
                let start = walk_random.below(keys.len() as u64) as usize;
                walk_beside_a_writer(index, keys, start);
                walk_back_beside_a_writer(index, keys, start);
                walks.fetch_add(1, Ordering::Relaxed);
            }
        });
        write_beside_readers(&mut writer, keys, &mut random, time);
        done.store(true, Ordering::Relaxed);
    });
    let (gets, walks) = (gets.into_inner(), walks.into_inner());
    println!("{limits:?}: {gets} gets and {walks} walks were right");
    assert!(gets > 0 && walks > 0);
    index.tree.assert_sound(limits, &index.pin());
    assert!(index.check(has_key).is_sound());
}

fn walk_beside_a_writer(index: &Index, keys: &[Vec<u8>], start: usize) {
    let mut next_live = start | 1;
    let (mut last, mut visited) = (None::<Vec<u8>>, 0);
    index.walk(&keys[start], &index.pin(), |key, _| {
        assert!(key >= &keys[start][..]);
        assert!(last.as_ref().is_none_or(|last| &last[..] < key), "out of order or twice");
        if let Some(live) = keys.get(next_live) {
            assert!(key <= &live[..], "a live key was missed");
            next_live += if key == &live[..] { 2 } else { 0 };
        }
        last = Some(key.to_vec());
        visited += 1;
        if visited < 500 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    assert!(visited == 500 || next_live >= keys.len(), "the last live keys were missed");
}

fn walk_back_beside_a_writer(index: &Index, keys: &[Vec<u8>], end: usize) {
    // Every key at an odd place is live.
    let mut next_live = Some(end).filter(|end| *end > 1).map(|end| (end - 2) | 1);
    let (mut last, mut visited) = (None::<Vec<u8>>, 0);
    index.gather_back(b"", Some(&keys[end]), &index.pin(), &mut Vec::new(), |key, _| {
        assert!(key < &keys[end][..]);
        assert!(last.as_ref().is_none_or(|last| key < &last[..]), "out of order or twice");
        if let Some(live) = next_live.map(|at| &keys[at][..]) {
            assert!(key >= live, "a live key was missed");
            next_live = if key == live {
                next_live.filter(|at| *at > 1).map(|at| at - 2)
            } else {
                next_live
            };
        }
        last = Some(key.to_vec());
        visited += 1;
        if visited < 500 { Visited::Skip } else { Visited::Stop }
    });
    assert!(visited == 500 || next_live.is_none(), "the first live keys were missed");
}

fn write_beside_readers(
    writer: &mut IndexWriter,
    keys: &[Vec<u8>],
    random: &mut Random,
    time: std::time::Duration,
) {
    let end = std::time::Instant::now() + time;
    let mut versions = vec![1u64; keys.len()];
    let has_key = |at: Address, key: &[u8]| keys[number(at) as usize] == key;
    while std::time::Instant::now() < end {
        let from = random.below(keys.len() as u64 - 100) as usize;
        for _ in 0..200 {
            let at = from + random.below(100) as usize;
            let key = &keys[at];
            if at % 2 == 1 || random.below(2) == 0 {
                versions[at] += 1;
                let traits = Traits { expires_at_ms: random.below(2), has_metadata: false };
                let to = address(at as u64, versions[at]);
                let old = Traits { expires_at_ms: 9, has_metadata: false };
                writer.upsert(key, to, traits, |found| has_key(found, key).then_some(old));
            } else {
                writer.remove(key, |found| has_key(found, key));
            }
        }
        if random.below(8) == 0 {
            for at in (from..from + 100).filter(|at| at % 2 == 0) {
                writer.remove(&keys[at], |found| has_key(found, &keys[at]));
            }
        }
        if random.below(8) == 0 {
            writer.collect();
        }
    }
}

/// A reader that stays pinned sees what it found until it unpins, however much is written meanwhile.
#[test]
fn what_a_pinned_reader_may_see_is_counted_and_then_freed() {
    let (index, mut writer) = new(1);
    let guard = index.pin();
    for round in 0..20 {
        for number in 0..1_000u32 {
            let traits = Traits { expires_at_ms: 1 + round, has_metadata: false };
            let old = Traits { expires_at_ms: round, has_metadata: false };
            let at = Address::from_bits(1 + u64::from(number));
            writer.upsert(&number.to_be_bytes(), at, traits, |found| (found == at).then_some(old));
        }
    }
    let held = index.memory().retired_bytes;
    assert!(held > 20 * 1_000 * 500, "every change of traits retired a leaf: {held}");
    drop(guard);
    for _ in 0..10_000 {
        writer.collect();
        if index.memory().retired_bytes == 0 {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    assert_eq!(index.memory().retired_bytes, 0);
}
