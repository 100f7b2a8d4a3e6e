//! The two structures under loom: the code that ships, with one shard, two slots a bucket and small
//! blocks. Loom sees every atomic of the hash, every pointer of the tree, and, through a witness cell
//! in each block, whether a block is filled before it is read and read before it is freed.
//!
//! Bounds: two threads, a reader and the writer, a handful of keys. Every interleaving, and every value
//! a load may return; where crossbeam-epoch takes part, those of up to two preemptions. Models in which
//! nothing is freed leave it out; those that free run the real one. Run time: 10 ms each, 2 s with the
//! epoch (2 cores).
//!
//! The models were seen to fail when a `Release` or `Acquire` they rest on was relaxed, when the order of
//! the two structures was turned round, when a table was shown before it was filled, and when a block or
//! table was freed instead of retired.

use super::*;
use loom::thread;

fn explore(preemptions: Option<usize>, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = preemptions;
    builder.max_branches = 20_000;
    builder.check(model);
}

fn at(bits: u64) -> Address {
    Address::from_bits(bits)
}

fn nothing_is_freed() -> Guard {
    Guard::of_a_model_that_frees_nothing()
}

/// The first record of a key enters a table with room for it, then another takes its place: each by
/// nothing but the store of the slot.
#[test]
fn loom_a_record_is_complete_when_its_address_is_seen() {
    explore(None, || {
        let records = Arc::new([1, 2].map(|_| loom::cell::UnsafeCell::new(0)));
        let (hash, mut writer) = hash::new(1);
        writer.insert(writer.hash(b"x"), at(100));
        writer.insert(writer.hash(b"y"), at(200));
        let tables = writer.retired();
        let reader = {
            let records = Arc::clone(&records);
            thread::spawn(move || {
                let own = |found: Address| (found.to_bits() <= 2).then_some(found.to_bits());
                if let Some(number) = hash.get(hash.hash(b"a"), &nothing_is_freed(), own) {
                    records[number as usize - 1].with(|record| {
                        // SAFETY: the record was complete before its address was stored: the very
                        // claim that loom checks here.
                        assert_eq!(unsafe { *record }, number);
                    });
                }
            })
        };
        let write = |number: u64| {
            records[number as usize - 1].with_mut(|record| {
                // SAFETY: no address leads here yet, so no reader looks.
                unsafe { *record = number };
            });
        };
        write(1);
        writer.insert(writer.hash(b"a"), at(1));
        write(2);
        let first = writer.find_at(writer.hash(b"a"), at(1)).expect("it is in");
        writer.set(first, at(2));
        assert_eq!(writer.retired(), tables, "the table was to stay");
        reader.join().unwrap();
    });
}

/// Looks a key up twice: there both times, and not older the second time.
fn get_twice(hash: &Hash, key: &[u8], addresses: std::ops::RangeInclusive<u64>) {
    let get = || {
        let own = |found: Address| addresses.contains(&found.to_bits()).then(|| found.to_bits());
        hash.get(hash.hash(key), &nothing_is_freed(), own)
    };
    let first = get().expect("a live key was missed");
    let second = get().expect("a live key was missed");
    assert!(second >= first, "address {second} after {first}");
}

#[test]
fn loom_a_live_key_is_found_beside_overwrite_removal_and_growth() {
    explore(None, || {
        let (hash, mut writer) = hash::new(1);
        writer.insert(writer.hash(b"other"), at(100));
        writer.insert(writer.hash(b"live"), at(1));
        let reader = thread::spawn(move || get_twice(&hash, b"live", 1..=3));
        let own = |writer: &hash::HashWriter, address| {
            writer.find_at(writer.hash(b"live"), at(address)).expect("the writer sees its own")
        };
        writer.set(own(&writer, 1), at(2));
        let other = writer.find_at(writer.hash(b"other"), at(100)).expect("it is in");
        writer.remove(other);
        for (number, key) in [&b"b"[..], b"c", b"d"].into_iter().enumerate() {
            writer.insert(writer.hash(key), at(200 + number as u64));
        }
        assert!(writer.retired() > 0, "the table was to be replaced");
        writer.set(own(&writer, 2), at(3));
        reader.join().unwrap();
    });
}

#[test]
fn loom_a_live_key_is_found_while_its_table_shrinks() {
    explore(None, || {
        let (hash, mut writer) = hash::new(1);
        let keys = [&b"live"[..], b"b", b"c", b"d", b"e"];
        for (number, key) in keys.into_iter().enumerate() {
            writer.insert(writer.hash(key), at(1 + 10 * number as u64));
        }
        let tables = writer.retired();
        let reader = thread::spawn(move || get_twice(&hash, b"live", 1..=2));
        for (number, key) in keys.into_iter().enumerate().skip(1) {
            let found = writer.find_at(writer.hash(key), at(1 + 10 * number as u64));
            writer.remove(found.expect("it is in"));
        }
        assert!(writer.retired() > tables, "the table was to be replaced");
        let live = writer.find_at(writer.hash(b"live"), at(1)).expect("it is in");
        writer.set(live, at(2));
        reader.join().unwrap();
    });
}

const SMALL: Limits = Limits { leaf_keys: 2, inner_children: 3, bytes: 8 << 10 };

fn keys_from(tree: &Tree, start: &[u8], guard: &Guard) -> Vec<u8> {
    let mut keys = Vec::new();
    tree.walk(start, None, guard, &mut keys, |_, _| Visited::Keep);
    keys
}

/// The same from the last key to the first, turned round.
fn keys_back(tree: &Tree, guard: &Guard) -> Vec<u8> {
    let mut keys = Vec::new();
    tree.walk_back(b"", None, guard, &mut keys, |_, _| Visited::Keep);
    keys.reverse();
    keys
}

/// A walk beside `write`, in each direction: strict order, every key of `live` met, nothing but what
/// is in `ever`.
fn walk_beside(
    before: &'static [u8],
    live: &'static [u8],
    ever: &'static [u8],
    write: fn(&mut TreeWriter),
) {
    walk_one_way_beside(before, live, ever, write, |tree| {
        keys_from(tree, b"", &nothing_is_freed())
    });
    walk_one_way_beside(before, live, ever, write, |tree| keys_back(tree, &nothing_is_freed()));
}

fn walk_one_way_beside(
    before: &'static [u8],
    live: &'static [u8],
    ever: &'static [u8],
    write: fn(&mut TreeWriter),
    walk: fn(&Tree) -> Vec<u8>,
) {
    explore(None, move || {
        let (tree, mut writer) = tree::new(SMALL);
        for key in before {
            writer.put(&[*key], Traits::default());
        }
        let walker = {
            let tree = Arc::clone(&tree);
            thread::spawn(move || {
                let keys = walk(&tree);
                assert!(keys.is_sorted_by(|a, b| a < b), "out of order or twice: {keys:?}");
                assert!(live.iter().all(|key| keys.contains(key)), "a live key missed: {keys:?}");
                assert!(keys.iter().all(|key| ever.contains(key)));
            })
        };
        write(&mut writer);
        walker.join().unwrap();
        tree.assert_sound(SMALL, &nothing_is_freed());
    });
}

#[test]
fn loom_a_walk_beside_a_leaf_replaced() {
    walk_beside(b"aceg", b"aceg", b"aceg", |writer| {
        let traits = Traits { expires_at_ms: 1, has_metadata: true };
        writer.put(b"a", traits);
        writer.put(b"g", traits);
    });
}

#[test]
fn loom_a_walk_beside_a_split_and_a_root_that_grows() {
    walk_beside(b"ac", b"ac", b"abc", |writer| writer.put(b"b", Traits::default()));
    walk_beside(b"acegik", b"acegik", b"abcefgik", |writer| {
        writer.put(b"b", Traits::default());
        writer.put(b"f", Traits::default());
    });
}

#[test]
fn loom_a_walk_beside_a_merge_and_a_root_that_shrinks() {
    walk_beside(b"abc", b"a", b"abc", |writer| {
        assert!(writer.remove(b"b"));
        assert!(writer.remove(b"c"));
    });
    walk_beside(b"abcdefghi", b"ai", b"abcdefghi", |writer| {
        for key in b"dcefbgh" {
            assert!(writer.remove(&[*key]));
        }
    });
}

#[test]
fn loom_a_walk_beside_a_range_removed() {
    walk_beside(b"abcdefg", b"ag", b"abcdefg", |writer| {
        let (mut from, mut removed) = (b"b".to_vec(), Keys::default());
        while writer.remove_in_one_leaf(&mut from, Some(b"g"), &mut removed) {}
        assert_eq!(removed.len(), 5);
    });
}

/// An inner block goes, and a key comes into the range that its neighbour takes over.
#[test]
fn loom_a_walk_beside_an_inner_block_dropped() {
    walk_beside(b"chljd", b"cdhj", b"cdhjln", |writer| {
        assert!(writer.remove(b"l"));
        writer.put(b"n", Traits::default());
    });
}

#[test]
fn loom_a_walk_beside_a_bulk_load() {
    walk_beside(b"", b"", b"abcd", |writer| {
        let mut bulk = writer.bulk();
        b"abcd".iter().for_each(|key| bulk.push(&[*key], Traits::default()));
        writer.adopt(vec![bulk]);
    });
}

/// A new key is in the hash before the tree shows it; a removed one has left the tree before the hash
/// forgets it. So what a list shows can be got, and what cannot be got is not listed afterwards.
#[test]
fn loom_a_listed_key_can_be_got() {
    let listed =
        |index: &Index, key: u8| keys_from(&index.tree, b"", &nothing_is_freed()).contains(&key);
    let got = |index: &Index, key: u8| {
        index.get(index.hash(&[key]), &nothing_is_freed(), |found| {
            (found == at(u64::from(key))).then_some(())
        })
    };
    explore(None, move || {
        let (index, mut writer) = join(hash::new(1), tree::new(SMALL));
        writer.upsert(b"r", at(u64::from(b'r')), Traits::default(), |_| None);
        let reader = thread::spawn(move || {
            if listed(&index, b'n') {
                assert!(got(&index, b'n').is_some(), "listed, and not to be got");
            }
            if got(&index, b'r').is_none() {
                assert!(!listed(&index, b'r'), "gone, and listed afterwards");
            }
        });
        writer.upsert(b"n", at(u64::from(b'n')), Traits::default(), |_| None);
        let own = |found| found == at(u64::from(b'r'));
        assert_eq!(writer.remove(b"r", own), Some(at(u64::from(b'r'))));
        reader.join().unwrap();
    });
}

/// The real tree, the real crossbeam-epoch, a flag for every block; at most 2 preemptions.
#[test]
fn loom_no_block_is_freed_under_a_pinned_walk() {
    explore(Some(2), || {
        let (tree, mut writer) = tree::with_batch(SMALL, 1);
        writer.put(b"a", Traits::default());
        let walker = {
            let tree = Arc::clone(&tree);
            thread::spawn(move || {
                let guard = Guard::pin();
                assert!(keys_from(&tree, b"", &guard).contains(&b'a'));
            })
        };
        writer.put(b"b", Traits::default());
        writer.collect();
        writer.collect();
        walker.join().unwrap();
    });
}

/// The same for a table of the hash.
#[test]
fn loom_no_table_is_freed_under_a_pinned_get() {
    explore(Some(2), || {
        let (hash, mut writer) = hash::with_batch(1, 1);
        writer.insert(writer.hash(b"live"), at(1));
        let reader = thread::spawn(move || {
            let guard = Guard::pin();
            let own = |found: Address| (found == at(1)).then_some(());
            hash.get(hash.hash(b"live"), &guard, own).expect("a live key was missed");
        });
        writer.insert(writer.hash(b"b"), at(2));
        assert!(writer.retired() > 0, "the table was to be replaced");
        writer.collect();
        writer.collect();
        reader.join().unwrap();
    });
}
