//! Promise: a key is gone from the millisecond of its expiry on, in gets, lists and conditions alike,
//! whether or not its space was taken back, across restarts and compaction; it never uncovers an older
//! version; and a clock that is wrong for a moment destroys nothing.
//!
//! How it is attacked: the clock is moved by hand, to the millisecond, back, and years ahead.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use kvast::testing::ManualClock;
use kvast::{Code, Db, Durability, ListOptions, Namespace, Options, PutOptions};

mod support;

use support::scratch_dir;

const START_MS: u64 = 1_700_000_000_000;
const DAY: u64 = 86_400_000;

fn open(path: &Path, clock: &Arc<ManualClock>) -> Db {
    let options = Options::new().durability(Durability::Os).segment_bytes(64 << 10);
    options.background(false).clock(clock.clone()).open(path).expect("open")
}

fn put_until(namespace: &Namespace, key: &str, value: &[u8], at: u64) {
    let options = PutOptions::new().expires_at_ms(at);
    namespace.put_with(key, value, options).expect("put");
}

fn is_there(namespace: &Namespace, key: &str) -> bool {
    let found = namespace.get(key).expect("get").is_some();
    let page = namespace.list(&ListOptions::new().prefix(key)).expect("list");
    assert_eq!(page.iter().any(|listed| listed.key == key.as_bytes()), found, "list and get agree");
    found
}

/// Dead bytes enough that everything sealed is worth compacting.
fn churn(namespace: &Namespace) {
    for _ in 0..60 {
        namespace.put("churn", [7; 3000]).expect("put");
    }
}

#[test]
fn a_key_is_gone_from_the_millisecond_of_its_expiry_on() {
    let dir = scratch_dir();
    let clock = ManualClock::new(START_MS);
    let db = open(dir.path(), &clock);
    let cache = db.namespace("cache").expect("create");
    put_until(&cache, "key", b"v", START_MS + 100);
    clock.advance(99);
    assert!(is_there(&cache, "key"));
    clock.advance(1);
    assert!(!is_there(&cache, "key"));
    assert!(!cache.delete("key").expect("delete"), "there is nothing to delete");
    put_until(&cache, "key", b"w", START_MS + 200);
    assert!(is_there(&cache, "key"), "a new put starts afresh");
    let options = PutOptions::new().expires_in(Duration::from_millis(5)).if_absent();
    clock.advance(100);
    cache.put_with("key", b"x", options).expect("an expired key is absent");
    clock.advance(5);
    assert!(!is_there(&cache, "key"));
}

#[test]
fn expiry_that_has_passed_or_is_too_far_away_is_clear() {
    let dir = scratch_dir();
    let clock = ManualClock::new(START_MS);
    let db = open(dir.path(), &clock);
    let cache = db.namespace("cache").expect("create");
    cache.put("key", b"old").expect("put");
    put_until(&cache, "key", b"over", START_MS - 1);
    assert!(!is_there(&cache, "key"), "gone at once, and the old one with it");
    let too_far = PutOptions::new().expires_at_ms(1 << 48);
    let error = cache.put_with("key", b"v", too_far).expect_err("it cannot be stored");
    assert_eq!(error.code(), Code::InvalidExpiry);
    put_until(&cache, "far", b"v", (1 << 48) - 1);
    clock.advance(1000 * 365 * DAY);
    assert!(is_there(&cache, "far"), "what expires far away is there for long");
}

#[test]
fn an_expired_key_never_uncovers_an_older_version_through_compaction_and_restarts() {
    let dir = scratch_dir();
    let clock = ManualClock::new(START_MS);
    let mut db = open(dir.path(), &clock);
    let keys: Vec<String> = (0..30).map(|nth| format!("key:{nth:02}")).collect();
    let cache = db.namespace("cache").expect("create");
    // An old version of each without expiry, in a segment of its own that is mostly alive.
    for key in &keys {
        cache.put(key, [1; 1500]).expect("put");
    }
    churn(&cache);
    db.compact().expect("compact");
    for key in &keys {
        put_until(&cache, key, b"short", START_MS + 1000);
    }
    drop(cache);
    for round in 0..6 {
        let cache = db.namespace("cache").expect("open");
        for key in &keys {
            assert_eq!(is_there(&cache, key), round == 0, "{key} in round {round}");
        }
        churn(&cache);
        db.compact().expect("compact");
        clock.advance(1000);
        drop(cache);
        if round % 2 == 1 {
            db.close().expect("close");
            db = open(dir.path(), &clock);
        }
    }
}

#[test]
fn what_was_seen_to_have_expired_stays_so_when_the_clock_goes_back() {
    let dir = scratch_dir();
    let clock = ManualClock::new(START_MS);
    let db = open(dir.path(), &clock);
    let cache = db.namespace("cache").expect("create");
    put_until(&cache, "key", b"v", START_MS + 1000);
    clock.advance(2000);
    assert!(!is_there(&cache, "key"));
    // A commit records the time, and what is recorded holds after a restart too.
    cache.put("other", b"w").expect("put");
    clock.jump_to(START_MS - DAY);
    assert!(!is_there(&cache, "key"));
    drop(cache);
    db.close().expect("close");
    let db = open(dir.path(), &clock);
    let cache = db.namespace("cache").expect("open");
    assert!(!is_there(&cache, "key"));
    assert!(is_there(&cache, "other"));
}

#[test]
fn a_clock_that_jumps_years_ahead_for_a_moment_destroys_nothing() {
    let dir = scratch_dir();
    let clock = ManualClock::new(START_MS);
    let db = open(dir.path(), &clock);
    let cache = db.namespace("cache").expect("create");
    for nth in 0..20 {
        put_until(&cache, &format!("key:{nth:02}"), &[3; 500], START_MS + 30 * DAY);
    }
    clock.jump_to(START_MS + 3650 * DAY);
    assert!(!is_there(&cache, "key:00"), "readers go by the clock");
    churn(&cache);
    db.compact().expect("compact");
    drop(cache);
    db.close().expect("close");
    clock.jump_to(START_MS + 1000);
    let db = open(dir.path(), &clock);
    let cache = db.namespace("cache").expect("open");
    for nth in 0..20 {
        assert!(is_there(&cache, &format!("key:{nth:02}")), "compaction believed the clock");
    }
}

#[test]
fn space_of_what_has_expired_is_taken_back() {
    let dir = scratch_dir();
    let clock = ManualClock::new(START_MS);
    let db = open(dir.path(), &clock);
    let cache = db.namespace("cache").expect("create");
    for nth in 0..200 {
        put_until(&cache, &format!("key:{nth}"), &[5; 3000], START_MS + 10_000);
    }
    let full = db.stats().record_bytes;
    // Time goes by, hour by hour: no jump.
    clock.advance(DAY);
    cache.put("after", b"v").expect("put");
    db.compact().expect("compact");
    let left = db.stats().record_bytes;
    assert!(left < full / 4, "{left} of {full} bytes are left");
}
