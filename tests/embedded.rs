//! What the library promises to a program that embeds it, through the public interface alone.
//!
//! Attacked with: reopening, small segments, compaction after every few writes, a clock that is
//! moved by hand. Random attacks are in `model.rs`, crashes in `crash.rs`, damage in `corruption.rs`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::time::Duration;

use kvast::testing::ManualClock;
use kvast::{Code, Db, Durability, Error, Expiry, ListOptions, Namespace, Options, PutOptions};
use tempfile::TempDir;

const NOW: u64 = 1_800_000_000_000;

fn options() -> Options {
    Options::new().durability(Durability::Os).segment_bytes(64 << 10).background(false)
}

fn open(dir: &TempDir) -> Db {
    options().open(dir.path().join("store")).unwrap()
}

fn keys(namespace: &Namespace, prefix: &str) -> Vec<String> {
    namespace.scan(prefix).map(|entry| String::from_utf8(entry.unwrap().key).unwrap()).collect()
}

fn text(namespace: &Namespace, key: &str) -> Option<String> {
    namespace.get(key).unwrap().map(|value| String::from_utf8(value.to_vec()).unwrap())
}

#[test]
fn what_was_put_is_there_after_reopening_with_metadata_expiry_and_version() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(&dir);
    let users = db.namespace("users").unwrap();
    let later = PutOptions::new().expires_at_ms(u64::from(u32::MAX) * 1000).metadata(*b"{}");
    let version = users.put_with("a", b"one", later).unwrap();
    users.put("empty", b"").unwrap();
    let large: Vec<u8> = (0..200_000u32).map(|number| number as u8).collect();
    users.put("large", &large).unwrap();
    drop(users);
    db.close().unwrap();
    let db = open(&dir);
    assert!(db.recovery().clean);
    let users = db.find_namespace("users").unwrap();
    let value = users.get("a").unwrap().unwrap();
    assert_eq!((&value[..], value.metadata()), (&b"one"[..], Some(&b"{}"[..])));
    assert_eq!((value.version(), value.expires_at()), (version, Some(4_294_967_295_000)));
    assert_eq!(text(&users, "empty").as_deref(), Some(""));
    assert_eq!(users.get("large").unwrap().unwrap()[..], large[..]);
    let mut stream = users.get_stream("large").unwrap().unwrap();
    let mut taken = Vec::new();
    while let Some(block) = stream.next_block() {
        taken.extend_from_slice(&block.unwrap());
    }
    assert_eq!(taken, large);
}

#[test]
fn many_keys_are_got_in_their_order_as_each_alone_would_be() {
    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::new(NOW);
    let options = options().clock(clock.clone()).large_value_bytes(100_000);
    let db = options.open(dir.path().join("store")).unwrap();
    let users = db.namespace("users").unwrap();
    for (nth, len) in [0, 1, 100, 65_536, 65_537, 99_999, 100_000, 300_000].into_iter().enumerate()
    {
        let soon = PutOptions::new().expires_at_ms(NOW + 1).metadata(*b"soon");
        users.put(format!("stays{nth}"), vec![nth as u8; len]).unwrap();
        users.put_with(format!("goes{nth}"), vec![nth as u8; len], soon).unwrap();
    }
    db.namespace("others").unwrap().put("absent0", b"of another namespace").unwrap();
    let names = ["stays", "goes", "absent"];
    for count in [0, 1, 15, 16, 17, 100] {
        let keys: Vec<_> = (0..count).map(|n| format!("{}{}", names[n % 3], n / 3 % 9)).collect();
        let found = users.get_many(&keys).unwrap();
        assert_eq!(found.len(), count);
        for (key, found) in keys.iter().zip(found) {
            let shape = |value: kvast::Value| {
                let metadata = value.metadata().map(<[u8]>::to_vec);
                (value.to_vec(), metadata, value.expires_at(), value.version())
            };
            assert_eq!(found.map(shape), users.get(key).unwrap().map(shape), "{key}");
        }
    }
    assert!(users.get_many(&["goes1"]).unwrap()[0].is_some());
    clock.advance(1);
    assert!(users.get_many(&["goes1"]).unwrap()[0].is_none());
    let refused = users.get_many(&["stays1", ""]).unwrap_err();
    assert_eq!(refused.code(), Code::InvalidKey);
    db.delete_namespace(users.id()).unwrap();
    let refused = users.get_many(&["stays1"]).unwrap_err();
    assert_eq!(refused.code(), Code::NamespaceNotFound);
}

#[test]
fn a_put_replaces_value_metadata_and_expiry() {
    let dir = tempfile::tempdir().unwrap();
    let users = open(&dir).namespace("users").unwrap();
    let first = PutOptions::new().expires_in(Duration::from_secs(60)).metadata(*b"m");
    users.put_with("k", b"1", first).unwrap();
    users.put("k", b"2").unwrap();
    let value = users.get("k").unwrap().unwrap();
    assert_eq!((&value[..], value.metadata(), value.expires_at()), (&b"2"[..], None, None));
    let page = users.list(&ListOptions::new()).unwrap();
    let listed = page.iter().next().unwrap();
    assert_eq!((listed.metadata, listed.expires_at), (None, None));
}

#[test]
fn an_expired_key_is_gone_from_the_millisecond_of_its_expiry_on() {
    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::new(NOW);
    let db = options().clock(clock.clone()).open(dir.path()).unwrap();
    let users = db.namespace("users").unwrap();
    users.put("k", b"old").unwrap();
    users.put_with("k", b"v", PutOptions::new().expires_at_ms(NOW + 1000)).unwrap();
    clock.advance(999);
    assert_eq!(text(&users, "k").as_deref(), Some("v"));
    assert_eq!(keys(&users, ""), ["k"]);
    clock.advance(1);
    assert_eq!(text(&users, "k"), None);
    assert!(keys(&users, "").is_empty());
    assert!(!users.delete("k").unwrap(), "it was not there any more");
}

#[test]
fn an_expired_key_never_uncovers_an_older_version() {
    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::new(NOW);
    let open = || options().clock(clock.clone()).open(dir.path()).unwrap();
    let db = open();
    let users = db.namespace("users").unwrap();
    for number in 0..300 {
        users.put(format!("{number}"), vec![b'x'; 400]).unwrap();
    }
    db.compact().unwrap();
    let soon = PutOptions::new().expires_at_ms(NOW + 1000);
    users.put_with("7", b"new", soon).unwrap();
    for round in 0..3 {
        for number in 300..600 {
            users.put(format!("{number}"), vec![b'y'; 400]).unwrap();
        }
        clock.advance(3_600_000);
        db.compact().unwrap();
        assert_eq!(text(&users, "7"), None, "round {round}");
    }
    drop(users);
    db.close().unwrap();
    let users = open().namespace("users").unwrap();
    assert_eq!(text(&users, "7"), None);
    assert_eq!(text(&users, "8").map(|value| value.len()), Some(400));
}

#[test]
fn a_clock_that_goes_back_revives_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::new(NOW);
    let open = || options().clock(clock.clone()).open(dir.path()).unwrap();
    let db = open();
    let users = db.namespace("users").unwrap();
    users.put_with("k", b"v", PutOptions::new().expires_at_ms(NOW + 1000)).unwrap();
    clock.advance(2000);
    assert_eq!(text(&users, "k"), None);
    users.put("other", b"records the time").unwrap();
    clock.jump_to(NOW - 86_400_000);
    assert_eq!(text(&users, "k"), None);
    drop(users);
    db.close().unwrap();
    assert_eq!(text(&open().namespace("users").unwrap(), "k"), None);
}

#[test]
fn a_clock_that_jumps_ahead_destroys_nothing_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::new(NOW);
    let open = || options().clock(clock.clone()).open(dir.path()).unwrap();
    let db = open();
    let users = db.namespace("users").unwrap();
    for number in 0..400 {
        let month = PutOptions::new().expires_at_ms(NOW + 30 * 86_400_000);
        users.put_with(format!("{number}"), vec![b'x'; 400], month).unwrap();
    }
    clock.jump_to(NOW + 3650 * 86_400_000);
    assert_eq!(text(&users, "7"), None, "readers believe the clock");
    db.compact().unwrap();
    drop(users);
    db.close().unwrap();
    clock.jump_to(NOW + 1000);
    let users = open().namespace("users").unwrap();
    assert_eq!(text(&users, "7").map(|value| value.len()), Some(400), "compaction did not");
}

#[test]
fn deletes_say_whether_the_key_was_there_and_outlive_compaction() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(&dir);
    let users = db.namespace("users").unwrap();
    for number in 0..500 {
        users.put(format!("{number:03}"), vec![b'x'; 300]).unwrap();
    }
    db.compact().unwrap();
    for number in (0..500).filter(|number| number % 2 == 0) {
        assert!(users.delete(format!("{number:03}")).unwrap());
    }
    assert!(!users.delete("000").unwrap());
    for _ in 0..3 {
        for number in 0..200 {
            users.put("filler", vec![number; 700]).unwrap();
        }
        db.compact().unwrap();
        assert_eq!(keys(&users, "").len(), 251);
    }
    drop(users);
    db.close().unwrap();
    let users = open(&dir).namespace("users").unwrap();
    assert_eq!(text(&users, "000"), None);
    assert_eq!(keys(&users, "").len(), 251);
}

#[test]
fn compaction_keeps_space_within_the_bound() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(&dir);
    let users = db.namespace("users").unwrap();
    for round in 0..20u8 {
        for number in 0..1000 {
            users.put(format!("{number}"), vec![round; 200]).unwrap();
        }
        db.compact().unwrap();
    }
    let stats = db.stats();
    assert_eq!(stats.keys, 1002);
    let bound = 1.3 * stats.live_bytes as f64 + 2.0 * 65_536.0;
    assert!((stats.record_bytes as f64) < bound, "{stats:?}");
    for number in 0..1000 {
        assert!(users.delete(format!("{number}")).unwrap());
    }
    db.compact().unwrap();
    assert!(db.stats().record_bytes < 4 * 65_536, "{:?}", db.stats());
}

#[test]
fn a_value_that_is_held_outlives_delete_compaction_and_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(&dir);
    let users = db.namespace("users").unwrap();
    users.put("k", vec![7; 5000]).unwrap();
    let value = users.get("k").unwrap().unwrap();
    let bytes = users.get("k").unwrap().unwrap().into_bytes();
    users.delete("k").unwrap();
    for number in 0..400 {
        users.put("filler", vec![number as u8; 700]).unwrap();
    }
    db.compact().unwrap();
    assert!(db.stats().pinned_bytes > 0);
    drop(users);
    db.close().unwrap();
    drop(dir);
    assert_eq!((&value[..], &bytes[..]), (&[7; 5000][..], &[7; 5000][..]));
}

#[test]
fn a_batch_is_one_commit_across_namespaces() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(&dir);
    let (a, b) = (db.namespace("a").unwrap(), db.namespace("b").unwrap());
    a.put("gone", b"").unwrap();
    let mut batch = db.batch();
    batch.put(&a, "k", b"1").unwrap();
    batch.put(&b, "k", b"2").unwrap();
    batch.put(&b, "k", b"3").unwrap();
    batch.delete(&a, "gone").unwrap();
    assert_eq!(batch.len(), 4);
    let version = batch.commit().unwrap();
    assert_eq!(db.stats().last_version, version);
    assert_eq!((text(&a, "k"), text(&b, "k")), (Some("1".into()), Some("3".into())));
    assert_eq!(text(&a, "gone"), None);
    let mut refused = db.batch();
    assert_eq!(refused.put(&a, "", b"").unwrap_err().code(), Code::InvalidKey);
}

#[test]
fn a_prefix_is_deleted_whole_and_stays_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(&dir);
    let users = db.namespace("users").unwrap();
    for number in 0..300 {
        users.put(format!("a:{number}"), vec![b'x'; 300]).unwrap();
        users.put(format!("b:{number}"), b"").unwrap();
    }
    users.delete_prefix("a:").unwrap();
    users.put("a:again", b"").unwrap();
    db.compact().unwrap();
    assert_eq!(keys(&users, "a:"), ["a:again"]);
    drop(users);
    db.close().unwrap();
    let users = open(&dir).namespace("users").unwrap();
    assert_eq!(keys(&users, "a:"), ["a:again"]);
    assert_eq!(keys(&users, "").len(), 301);
    users.delete_prefix("").unwrap();
    assert!(keys(&users, "").is_empty());
}

#[test]
fn namespaces_are_found_renamed_and_deleted_for_good() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(&dir);
    let users = db.create_namespace("users").unwrap();
    users.put("k", b"v").unwrap();
    assert_eq!(db.create_namespace("users").err().unwrap().code(), Code::NamespaceExists);
    assert_eq!(db.create_namespace("").err().unwrap().code(), Code::InvalidName);
    db.rename_namespace(users.id(), "people").unwrap();
    assert_eq!(users.name(), "people");
    assert!(db.find_namespace("users").is_none());
    db.create_namespace("users").unwrap();
    assert_eq!(
        db.rename_namespace(users.id(), "users").err().unwrap().code(),
        Code::NamespaceExists
    );
    db.delete_namespace(users.id()).unwrap();
    assert_eq!(users.get("k").unwrap_err().code(), Code::NamespaceNotFound);
    assert_eq!(users.put("k", b"").unwrap_err().code(), Code::NamespaceNotFound);
    assert_eq!(db.delete_namespace(users.id()).unwrap_err().code(), Code::NamespaceNotFound);
    let old_id = users.id();
    drop(users);
    db.close().unwrap();
    let db = open(&dir);
    let names: Vec<String> = db.namespaces().iter().map(Namespace::name).collect();
    assert_eq!(names, ["users"]);
    let again = db.create_namespace("people").unwrap();
    assert!(again.id() != old_id && text(&again, "k").is_none());
}

#[test]
fn pages_cover_every_key_once_whatever_the_limit() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(&dir);
    let users = db.namespace("users").unwrap();
    let all: Vec<String> = (0..250).map(|number| format!("p:{number:03}")).collect();
    for key in all.iter().rev() {
        users.put_with(key, b"", PutOptions::new().metadata(key.as_bytes())).unwrap();
    }
    users.put("q", b"").unwrap();
    for limit in [1, 7, 249, 250, 251, 1000] {
        let (mut seen, mut cursor) = (Vec::new(), None);
        loop {
            let mut options = ListOptions::new().prefix("p:").limit(limit);
            if let Some(cursor) = cursor.take() {
                options = options.cursor(cursor);
            }
            let page = users.list(&options).unwrap();
            assert!(page.len() == limit || page.is_complete());
            seen.extend(page.iter().map(|listed| {
                assert_eq!(listed.metadata, Some(listed.key));
                String::from_utf8(listed.key.to_vec()).unwrap()
            }));
            match page.cursor() {
                Some(next) => cursor = Some(next.to_owned()),
                None => break,
            }
        }
        assert_eq!(seen, all, "limit {limit}");
    }
    let error = users.list(&ListOptions::new().cursor("never-issued")).unwrap_err();
    assert_eq!(error.code(), Code::InvalidCursor);
}

#[test]
fn a_write_with_a_condition_happens_only_if_it_holds() {
    let dir = tempfile::tempdir().unwrap();
    let users = open(&dir).namespace("users").unwrap();
    let absent = || PutOptions::new().if_absent();
    let first = users.put_with("k", b"1", absent()).unwrap();
    assert_eq!(users.put_with("k", b"2", absent()).unwrap_err().code(), Code::VersionMismatch);
    let second = users.put_with("k", b"2", PutOptions::new().if_version(first)).unwrap();
    let stale = users.put_with("k", b"3", PutOptions::new().if_version(first));
    assert_eq!(stale.unwrap_err().code(), Code::VersionMismatch);
    assert!(second > first);
    assert_eq!(text(&users, "k").as_deref(), Some("2"));
}

#[test]
fn of_many_writers_with_one_condition_one_wins() {
    let dir = tempfile::tempdir().unwrap();
    let users = open(&dir).namespace("users").unwrap();
    let version = users.put("counter", b"0").unwrap();
    let wins: usize = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..8)
            .map(|_| {
                let users = users.clone();
                scope.spawn(move || {
                    users.put_with("counter", b"1", PutOptions::new().if_version(version)).is_ok()
                })
            })
            .collect();
        writers.into_iter().map(|writer| usize::from(writer.join().unwrap())).sum()
    });
    assert_eq!(wins, 1);
}

#[test]
fn a_delete_with_a_condition_happens_only_if_it_holds() {
    let dir = tempfile::tempdir().unwrap();
    let users = open(&dir).namespace("users").unwrap();
    let first = users.put("k", b"1").unwrap();
    let second = users.put("k", b"2").unwrap();
    let error = users.delete_if("k", first).unwrap_err();
    assert!(
        matches!(error, Error::VersionMismatch { current: Some(version) } if version == second)
    );
    users.delete_if("k", second).unwrap();
    assert!(users.get("k").unwrap().is_none());
    let error = users.delete_if("k", second).unwrap_err();
    assert!(matches!(error, Error::VersionMismatch { current: None }));
}

#[test]
fn a_batch_is_written_only_if_every_condition_holds_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(&dir);
    let (a, b) = (db.namespace("a").unwrap(), db.namespace("b").unwrap());
    let version = a.put("k", b"1").unwrap();
    let begin = || {
        let mut batch = db.batch();
        batch.put(&b, "plain", b"").unwrap();
        batch
    };
    let before = db.stats().last_version;
    let mut batch = begin();
    batch.put_with(&a, "k", b"2", PutOptions::new().if_version(version + 1000)).unwrap();
    assert_eq!(batch.commit().unwrap_err().code(), Code::VersionMismatch);
    let mut batch = begin();
    batch.put_with(&a, "k", b"2", PutOptions::new().if_absent()).unwrap();
    assert_eq!(batch.commit().unwrap_err().code(), Code::VersionMismatch);
    let mut batch = begin();
    batch.delete_if(&a, "absent", version).unwrap();
    assert_eq!(batch.commit().unwrap_err().code(), Code::VersionMismatch);
    let mut batch = begin();
    batch.check(&a, "k", Some(version)).unwrap();
    batch.check(&a, "k", None).unwrap();
    assert_eq!(batch.commit().unwrap_err().code(), Code::VersionMismatch);
    assert!(keys(&b, "").is_empty() && db.stats().last_version == before, "nothing was written");
    // Each is about the state before the batch, whatever the batch itself does to the key.
    let mut batch = begin();
    batch.put_with(&a, "k", b"2", PutOptions::new().if_version(version)).unwrap();
    batch.put_with(&a, "k", b"3", PutOptions::new().if_version(version)).unwrap();
    batch.put_with(&b, "new", b"", PutOptions::new().if_absent()).unwrap();
    batch.delete_if(&a, "k", version).unwrap();
    batch.check(&b, "new", None).unwrap();
    assert_eq!(batch.len(), 5);
    batch.commit().unwrap();
    assert_eq!((text(&a, "k"), keys(&b, "")), (None, vec!["new".into(), "plain".into()]));
}

#[test]
fn a_batch_of_conditions_alone_says_whether_they_hold_and_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(&dir);
    let users = db.namespace("users").unwrap();
    let version = users.put("k", b"1").unwrap();
    let check = |asked| {
        let mut batch = db.batch();
        batch.check(&users, "k", asked).unwrap();
        assert!(batch.is_empty());
        batch.commit().map_err(|error| error.code())
    };
    assert_eq!(check(Some(version)), Ok(version));
    assert_eq!(check(None), Err(Code::VersionMismatch));
    assert_eq!(db.stats().last_version, version);
    db.delete_namespace(users.id()).unwrap();
    assert_eq!(check(Some(version)), Err(Code::NamespaceNotFound));
}

#[test]
fn conditions_count_in_the_length_of_a_batch() {
    let dir = tempfile::tempdir().unwrap();
    let db = options().max_key_bytes(1024).open(dir.path()).unwrap();
    let users = db.namespace("users").unwrap();
    let (mut batch, key) = (db.batch(), vec![b'k'; 1024]);
    let refused = (0..120_000).find_map(|_| batch.check(&users, &key, None).err());
    assert_eq!(refused.expect("a batch has an end").code(), Code::BatchTooLarge);
}

#[test]
fn another_expiry_keeps_value_and_metadata_and_gives_a_new_version() {
    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::new(NOW);
    let reopen = || options().clock(clock.clone()).open(dir.path()).unwrap();
    let db = reopen();
    let users = db.namespace("users").unwrap();
    let large: Vec<u8> = (0..200_000u32).map(|number| number as u8).collect();
    users.put_with("k", &large, PutOptions::new().metadata(*b"m")).unwrap();
    let first = users.get("k").unwrap().unwrap().version();
    let second = users.set_expiry("k", Expiry::In(Duration::from_secs(1))).unwrap().unwrap();
    assert!(second > first);
    assert_eq!(
        users.list(&ListOptions::new()).unwrap().iter().next().unwrap().expires_at,
        Some(NOW + 1000)
    );
    db.compact().unwrap();
    drop(users);
    db.close().unwrap();
    let db = reopen();
    let users = db.namespace("users").unwrap();
    let value = users.get("k").unwrap().unwrap();
    assert_eq!((&value[..], value.metadata()), (&large[..], Some(&b"m"[..])));
    assert_eq!((value.expires_at(), value.version()), (Some(NOW + 1000), second));
    let stale = users.set_expiry_if("k", Expiry::Never, first).unwrap_err();
    assert_eq!(stale.code(), Code::VersionMismatch);
    let third = users.set_expiry_if("k", Expiry::Never, second).unwrap();
    clock.advance(1000);
    let value = users.get("k").unwrap().unwrap();
    assert_eq!((&value[..], value.version(), value.expires_at()), (&large[..], third, None));
}

#[test]
fn another_expiry_brings_no_key_back() {
    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::new(NOW);
    let db = options().clock(clock.clone()).open(dir.path()).unwrap();
    let users = db.namespace("users").unwrap();
    users.put_with("k", b"v", PutOptions::new().expires_at_ms(NOW + 1)).unwrap();
    clock.advance(1);
    let before = db.stats().last_version;
    assert_eq!(users.set_expiry("k", Expiry::Never).unwrap(), None);
    assert_eq!(users.set_expiry("absent", Expiry::Never).unwrap(), None);
    let error = users.set_expiry_if("k", Expiry::Never, 1).unwrap_err();
    assert!(matches!(error, Error::VersionMismatch { current: None }));
    assert_eq!((text(&users, "k"), db.stats().last_version), (None, before));
    users.put("k", b"v").unwrap();
    users.set_expiry("k", Expiry::At(NOW)).unwrap().expect("it is there");
    assert_eq!(text(&users, "k"), None, "an expiry that has passed is one");
}

#[test]
fn another_expiry_takes_no_concurrent_put_back() {
    let dir = tempfile::tempdir().unwrap();
    let users = open(&dir).namespace("users").unwrap();
    users.put("k", b"0").unwrap();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut last = 0;
                while !done.load(std::sync::atomic::Ordering::SeqCst) {
                    let version = users.set_expiry("k", Expiry::In(Duration::from_secs(3600)));
                    let version = version.unwrap().expect("it is always there");
                    assert!(version > last);
                    last = version;
                }
            });
        }
        for number in 1..=2000 {
            users.put("k", number.to_string()).unwrap();
            assert_eq!(text(&users, "k"), Some(number.to_string()), "an acknowledged put is gone");
        }
        done.store(true, std::sync::atomic::Ordering::SeqCst);
    });
}

#[test]
fn the_numbers_about_a_store_add_up() {
    let dir = tempfile::tempdir().unwrap();
    let db = options().durability(Durability::Sync).open(dir.path()).unwrap();
    let users = db.namespace("users").unwrap();
    users.put("k", vec![b'1'; 1000]).unwrap();
    users.put("k", vec![b'2'; 1000]).unwrap();
    let mut batch = db.batch();
    (0..100).for_each(|number| batch.put(&users, format!("b{number}"), b"").unwrap());
    batch.commit().unwrap();
    users.delete("absent").unwrap();
    let stats = db.stats();
    assert_eq!((stats.commits.count(), stats.commits.sum), (4, 104), "{stats:?}");
    let large = stats.commits.buckets.iter().find(|(bound, _)| *bound >= 100).unwrap();
    assert_eq!(large.1, 1);
    assert_eq!(stats.syncs.count(), 4, "one a commit");
    assert!(stats.syncs.sum > 0 && stats.dead_bytes >= 1000);
    assert_eq!(stats.dead_bytes, stats.record_bytes - stats.live_bytes);
    let residency = db.residency();
    assert!(residency.mapped_bytes >= stats.record_bytes);
    assert!((1..=residency.mapped_bytes).contains(&residency.resident_bytes));
}

#[test]
fn limits_are_refused_with_the_numbers_that_matter() {
    let dir = tempfile::tempdir().unwrap();
    let users = open(&dir).namespace("users").unwrap();
    assert!(users.put("k".repeat(512), b"").is_ok());
    let error = users.put("k".repeat(513), b"").unwrap_err();
    assert_eq!(error.to_string(), "the key has 513 bytes; at most 512 are allowed");
    let error = users.put("", b"").unwrap_err();
    assert_eq!(error.to_string(), "the key is empty");
    let error = users.put_with("k", b"", PutOptions::new().metadata(vec![0; 1025])).unwrap_err();
    assert_eq!(error.code(), Code::MetadataTooLarge);
    let error = users.put("k", vec![0; (25 << 20) + 1]).unwrap_err();
    assert_eq!(error.code(), Code::ValueTooLarge);
    let error = users.put_with("k", b"", PutOptions::new().expires_at_ms(1 << 48)).unwrap_err();
    assert_eq!(error.code(), Code::InvalidExpiry);
    assert!(users.put("k", vec![1; 25 << 20]).is_ok());
    assert_eq!(users.get("k").unwrap().unwrap().len(), 25 << 20);
}

#[test]
fn a_second_opening_is_refused_and_names_the_holder() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(&dir);
    let error = options().open(dir.path().join("store")).err().unwrap();
    assert_eq!(error.code(), Code::Locked);
    assert!(error.to_string().contains(&std::process::id().to_string()), "{error}");
    db.close().unwrap();
    assert!(options().open(dir.path().join("store")).is_ok());
}

#[test]
fn a_read_only_opening_sees_the_store_of_another_and_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(&dir);
    let users = db.namespace("users").unwrap();
    for number in 0..500 {
        users.put(format!("{number}"), vec![b'x'; 300]).unwrap();
    }
    let reader = options().read_only(true).open(dir.path().join("store")).unwrap();
    let seen = reader.find_namespace("users").unwrap();
    assert_eq!(keys(&seen, "").len(), 500);
    assert_eq!(seen.put("k", b"").unwrap_err().code(), Code::ReadOnly);
    assert_eq!(reader.compact().unwrap_err().code(), Code::ReadOnly);
    assert!(reader.verify(|_| {}).unwrap().is_sound());
    assert!(options().read_only(true).open(dir.path().join("absent")).is_err());
    assert!(!dir.path().join("absent").exists());
}

#[test]
fn verification_of_a_sound_store_finds_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(&dir);
    let users = db.namespace("users").unwrap();
    for number in 0..2000 {
        users.put(format!("{}", number % 700), vec![b'x'; 300]).unwrap();
        if number % 900 == 0 {
            db.compact().unwrap();
        }
    }
    let report =
        db.verify(|progress| assert!(progress.segments_done <= progress.segments)).unwrap();
    assert!(report.is_sound(), "{report}");
    assert_eq!(report.keys, 702);
}

#[test]
fn readers_beside_a_writer_and_compaction_see_every_key_that_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let db = options().background(true).open(dir.path()).unwrap();
    let users = db.namespace("users").unwrap();
    for number in 0..500 {
        users.put(format!("stay:{number:03}"), vec![b's'; 100]).unwrap();
    }
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    assert_eq!(keys(&users, "stay:").len(), 500);
                    assert_eq!(users.get("stay:123").unwrap().unwrap().len(), 100);
                }
            });
        }
        for round in 0..20_000u32 {
            users.put(format!("churn:{}", round % 97), vec![b'c'; 400]).unwrap();
            if round % 50 == 0 {
                users.put(format!("stay:{:03}", round % 500), vec![b's'; 100]).unwrap();
            }
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    assert!(db.verify(|_| {}).unwrap().is_sound());
}

#[test]
fn a_log_that_was_made_ahead_of_need_and_never_used_is_no_loss() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..4u8 {
        let db = options().background(true).open(dir.path()).unwrap();
        let users = db.namespace("users").unwrap();
        for number in 0..90 {
            users.put(format!("{round}:{number}"), vec![round; 500]).unwrap();
        }
        std::thread::sleep(Duration::from_millis(250));
        for earlier in 0..=round {
            assert_eq!(keys(&users, &format!("{earlier}:")).len(), 90);
        }
        drop(users);
        db.close().unwrap();
    }
}

#[test]
fn a_checkpoint_is_the_store_of_one_moment_and_lives_on_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(&dir);
    let users = db.namespace("users").unwrap();
    for number in 0..600 {
        users.put(format!("{:03}", number % 300), vec![b'x'; 300]).unwrap();
        if number == 350 {
            db.compact().unwrap();
        }
    }
    users.delete("007").unwrap();
    let backup = dir.path().join("deep/backup");
    db.checkpoint(&backup).unwrap();
    assert!(db.checkpoint(&backup).is_err(), "it is not empty any more");
    users.put("after", b"").unwrap();
    users.delete("008").unwrap();
    for number in 0..600 {
        users.put(format!("{:03}", number % 200), vec![b'y'; 300]).unwrap();
    }
    db.compact().unwrap();
    drop((users, db));
    let copy = options().open(&backup).unwrap();
    assert!(copy.recovery().clean && copy.verify(|_| {}).unwrap().is_sound());
    let users = copy.namespace("users").unwrap();
    assert_eq!(keys(&users, "").len(), 299);
    assert!(users.get("after").unwrap().is_none() && users.get("007").unwrap().is_none());
    assert_eq!(users.get("150").unwrap().unwrap()[..], [b'x'; 300]);
    users.put("own", b"").unwrap();
    copy.compact().unwrap();
    drop(users);
    copy.close().unwrap();
    assert_eq!(keys(&options().open(&backup).unwrap().namespace("users").unwrap(), "").len(), 300);
}

#[test]
fn a_checkpoint_beside_writers_has_every_acknowledged_write() {
    let dir = tempfile::tempdir().unwrap();
    let db =
        options().background(true).segment_bytes(1 << 20).open(dir.path().join("store")).unwrap();
    let users = db.namespace("users").unwrap();
    let acknowledged = std::sync::atomic::AtomicU64::new(0);
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut number = 0;
            while !stop.load(std::sync::atomic::Ordering::SeqCst) && number < 30_000 {
                users.put(format!("{number:06}"), vec![b'v'; 200]).unwrap();
                users.put("churn", vec![b'c'; 400]).unwrap();
                number += 1;
                acknowledged.store(number, std::sync::atomic::Ordering::SeqCst);
            }
        });
        for round in 0..5 {
            let before = acknowledged.load(std::sync::atomic::Ordering::SeqCst);
            let backup = dir.path().join(format!("backup{round}"));
            db.checkpoint(&backup).unwrap();
            let copy = options().open(&backup).unwrap();
            let users = copy.namespace("users").unwrap();
            assert!((0..before).all(|number| users.get(format!("{number:06}")).unwrap().is_some()));
        }
        stop.store(true, std::sync::atomic::Ordering::SeqCst);
    });
}

#[test]
fn a_store_in_which_nothing_was_overwritten_deleted_or_expired_is_not_compacted() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(&dir);
    let users = db.namespace("users").unwrap();
    for number in 0..3000 {
        // What commits a group of two takes a third of what the two take.
        let mut batch = db.batch();
        batch.put(&users, format!("{number}a"), b"v").unwrap();
        batch.put(&users, format!("{number}b"), b"v").unwrap();
        batch.commit().unwrap();
    }
    db.compact().unwrap();
    let stats = db.stats();
    assert!(stats.record_bytes as f64 > 1.3 * stats.live_bytes as f64, "{stats:?}");
    assert_eq!(stats.compaction_copied_bytes, 0, "nothing could be gained: {stats:?}");
    for number in 0..1500 {
        users.delete(format!("{number}a")).unwrap();
    }
    db.compact().unwrap();
    assert!(db.stats().compaction_copied_bytes > 0, "a quarter is dead, and tombstones");
}

#[test]
fn what_was_written_and_what_compaction_copied_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(&dir);
    let users = db.namespace("users").unwrap();
    let before = db.stats().written_bytes;
    for round in 0..4u8 {
        for number in 0..1000 {
            users.put(format!("{number}"), vec![round; 200]).unwrap();
        }
    }
    let written = db.stats().written_bytes - before;
    assert!((4 * 1000 * 200..4 * 1000 * 300).contains(&written), "{written}");
    db.compact().unwrap();
    let stats = db.stats();
    assert_eq!(stats.written_bytes - before, written, "copies are not counted as written");
    assert!((1..written).contains(&stats.compaction_copied_bytes), "{stats:?}");
}
