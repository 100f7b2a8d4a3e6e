//! Promise: a list shows every key that is there in the order asked for, forward or backward, from
//! whatever part of a namespace, and says exactly whether more follow.
//!
//! Attacked with: every limit, bounds in and beside keys, long stretches of expired keys, cursors in the
//! wrong place. Random lists are in `model.rs`, lists beside a writer in `concurrency.rs`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use kvast::testing::ManualClock;
use kvast::{Code, Db, Durability, ListOptions, Namespace, Options, PutOptions};
use tempfile::TempDir;

const NOW: u64 = 1_800_000_000_000;

fn options() -> Options {
    Options::new().durability(Durability::Os).segment_bytes(64 << 10).background(false)
}

fn open(dir: &TempDir) -> Db {
    options().open(dir.path().join("store")).unwrap()
}

/// All pages of a list, and checks that each but the last is full.
fn read(users: &Namespace, options: &ListOptions, limit: usize) -> Vec<String> {
    let (mut seen, mut next) = (Vec::new(), options.clone().limit(limit));
    loop {
        let page = users.list(&next).unwrap();
        assert!(page.len() == limit || page.is_complete(), "a short page before the end");
        let keys = page.iter().map(|listed| String::from_utf8(listed.key.to_vec()).unwrap());
        seen.extend(keys);
        match page.cursor() {
            Some(cursor) => next = options.clone().limit(limit).cursor(cursor),
            None => return seen,
        }
    }
}

fn refusal(users: &Namespace, options: &ListOptions) -> Code {
    users.list(options).unwrap_err().code()
}

#[test]
fn a_range_begins_with_its_start_and_ends_before_its_end_either_way() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(&dir);
    let users = db.namespace("users").unwrap();
    let all: Vec<String> = (0..250).map(|number| format!("p:{number:03}")).collect();
    for key in &all {
        users.put_with(key, b"", PutOptions::new().metadata(key.as_bytes())).unwrap();
    }
    for other in ["a", "p", "q:000", "q:001"] {
        users.put(other, b"").unwrap();
    }
    let bounds = ["", "p", "p:", "p:000", "p:0005", "p:100", "p:249", "p:249\0", "q", "q:001", "z"];
    for start in bounds {
        for end in bounds {
            let options = ListOptions::new().prefix("p:").start(start).end(end);
            let inside = |key: &&String| start <= key.as_str() && key.as_str() < end;
            let want: Vec<String> = all.iter().filter(inside).cloned().collect();
            let back: Vec<String> = want.iter().rev().cloned().collect();
            for limit in [7, want.len().max(1), 1000] {
                assert_eq!(read(&users, &options, limit), want, "{start:?}..{end:?}");
                let reverse = options.clone().reverse(true);
                assert_eq!(read(&users, &reverse, limit), back, "{start:?}..{end:?} back");
            }
        }
    }
    let without_prefix = ListOptions::new().start("p:248").end("q:001").reverse(true);
    assert_eq!(read(&users, &without_prefix, 1), ["q:000", "p:249", "p:248"]);
}

#[test]
fn a_range_stays_inside_its_namespace() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(&dir);
    let names = ["before", "users", "after"].map(|name| db.namespace(name).unwrap());
    for namespace in &names {
        namespace.put(b"\0", b"").unwrap();
        namespace.put(b"\xff\xff", b"").unwrap();
    }
    let [_, users, _] = names;
    for options in [ListOptions::new(), ListOptions::new().start("").end(b"\xff\xff\xff")] {
        for reverse in [false, true] {
            let page = users.list(&options.clone().reverse(reverse)).unwrap();
            let mut keys: Vec<&[u8]> = page.iter().map(|listed| listed.key).collect();
            keys.sort_unstable();
            assert_eq!(keys, [&b"\0"[..], b"\xff\xff"]);
        }
    }
}

#[test]
fn a_page_says_exactly_whether_a_live_key_follows_a_long_stretch_of_expired_ones() {
    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::new(NOW);
    let db = options().clock(clock.clone()).open(dir.path()).unwrap();
    let users = db.namespace("users").unwrap();
    for number in 0..10_000 {
        let options = PutOptions::new().expires_at_ms(NOW + 1);
        users.put_with(format!("k{number:05}"), b"", options).unwrap();
    }
    users.put("a", b"").unwrap();
    users.put("z", b"").unwrap();
    clock.advance(1);
    for (reverse, first, second) in [(false, "a", "z"), (true, "z", "a")] {
        let options = ListOptions::new().reverse(reverse);
        assert_eq!(read(&users, &options, 1), [first, second]);
        let only = users.list(&options.clone().prefix("k")).unwrap();
        assert!(only.is_empty() && only.is_complete());
    }
    users.delete("a").unwrap();
    let page = users.list(&ListOptions::new().reverse(true).limit(1)).unwrap();
    assert!(page.len() == 1 && page.is_complete(), "only expired keys follow");
}

#[test]
fn a_cursor_is_refused_in_the_other_direction() {
    let dir = tempfile::tempdir().unwrap();
    let users = open(&dir).namespace("users").unwrap();
    for key in ["a", "b", "c", "d"] {
        users.put(key, b"").unwrap();
    }
    let [forward, back] = [false, true].map(|reverse| {
        let page = users.list(&ListOptions::new().reverse(reverse).limit(2)).unwrap();
        page.cursor().unwrap().to_owned()
    });
    assert_ne!(forward, back);
    let options = ListOptions::new().reverse(true).cursor(&forward);
    assert_eq!(refusal(&users, &options), Code::InvalidCursor);
    assert_eq!(refusal(&users, &ListOptions::new().cursor(&back)), Code::InvalidCursor);
    let other_prefix = ListOptions::new().prefix("b").reverse(true).cursor(&back);
    assert_eq!(refusal(&users, &other_prefix), Code::InvalidCursor);
    // A range may be narrowed on the way.
    let narrowed = ListOptions::new().reverse(true).cursor(&back).start("b");
    assert_eq!(users.list(&narrowed).unwrap().iter().next().unwrap().key, b"b");
}

#[test]
fn a_bound_may_stand_just_behind_the_longest_key_and_be_no_longer() {
    let dir = tempfile::tempdir().unwrap();
    let users = open(&dir).namespace("users").unwrap();
    let longest = "k".repeat(512);
    users.put(&longest, b"").unwrap();
    let behind = format!("{longest}\0");
    assert!(users.list(&ListOptions::new().start(behind.as_str())).unwrap().is_empty());
    assert_eq!(users.list(&ListOptions::new().end(behind.as_str())).unwrap().len(), 1);
    let longer = format!("{behind}\0");
    let start = ListOptions::new().start(longer.as_str());
    assert_eq!(refusal(&users, &start), Code::InvalidKey);
    assert_eq!(refusal(&users, &ListOptions::new().end(longer.as_str())), Code::InvalidKey);
}

#[test]
fn a_scan_walks_as_its_options_say() {
    let dir = tempfile::tempdir().unwrap();
    let users = open(&dir).namespace("users").unwrap();
    for number in 0..100 {
        users.put(format!("{number:02}"), b"").unwrap();
    }
    let options = ListOptions::new().start("10").end("20").reverse(true).limit(3);
    let keys: Vec<Vec<u8>> = users.scan_with(options).map(|entry| entry.unwrap().key).collect();
    let want: Vec<Vec<u8>> = (10..20).rev().map(|it| it.to_string().into_bytes()).collect();
    assert_eq!(keys, want);
}
