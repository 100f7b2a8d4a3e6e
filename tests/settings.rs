//! Promise: what a namespace asks of its writes is asked of every way to write, is kept like a key, and
//! goes with the namespace. A namespace's name is one that can be printed.
//!
//! Attacked with: values and expiries at the border, puts, batches and changes of the expiry, reopening,
//! compaction, checkpoints and deletion.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::time::Duration;

use kvast::testing::ManualClock;
use kvast::{
    Code, Db, Durability, Error, Expiry, Namespace, NamespaceSettings, Options, PutOptions,
};
use tempfile::TempDir;

const NOW: u64 = 1_800_000_000_000;
const MINUTE: Duration = Duration::from_secs(60);

fn options() -> Options {
    let options = Options::new().durability(Durability::Os).segment_bytes(64 << 10);
    options.background(false).clock(ManualClock::new(NOW))
}

fn open(dir: &TempDir) -> Db {
    options().open(dir.path().join("store")).unwrap()
}

fn set(namespace: &Namespace, change: impl FnOnce(&mut NamespaceSettings)) {
    let mut settings = namespace.settings();
    change(&mut settings);
    namespace.set_settings(settings).unwrap();
    assert_eq!(namespace.settings(), settings);
}

fn expiry(namespace: &Namespace, key: &str) -> Option<u64> {
    namespace.get(key).unwrap().unwrap().expires_at()
}

#[test]
fn a_value_over_the_namespaces_limit_is_refused_by_every_way_to_write() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(&dir);
    let (users, others) = (db.namespace("users").unwrap(), db.namespace("others").unwrap());
    users.put("before", b"12345").unwrap();
    set(&users, |settings| settings.max_value_bytes = Some(4));
    let refused = |error: Error| matches!(error, Error::ValueTooLarge { len: 5, max: 4 });
    assert!(refused(users.put("k", b"12345").unwrap_err()));
    assert!(refused(db.batch().put(&users, "k", b"12345").unwrap_err()));
    users.put("k", b"1234").unwrap();
    others.put("k", b"12345").unwrap();
    assert_eq!(&users.get("before").unwrap().unwrap()[..], b"12345", "what is there stays");
    assert!(users.set_expiry("before", Expiry::In(MINUTE)).unwrap().is_some(), "and is kept");
    set(&users, |settings| settings.max_value_bytes = Some(u64::MAX - 1));
    let error = users.put("k", vec![0; (25 << 20) + 1]).unwrap_err();
    assert_eq!(error.code(), Code::ValueTooLarge, "the store's own limit stands");
}

#[test]
fn a_default_time_to_live_is_for_puts_that_name_none() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(&dir);
    let users = db.namespace("users").unwrap();
    set(&users, |settings| settings.default_ttl = Some(MINUTE));
    users.put("default", b"").unwrap();
    users.put_with("never", b"", PutOptions::new().expiry(Expiry::Never)).unwrap();
    users.put_with("own", b"", PutOptions::new().expires_at_ms(NOW + 1)).unwrap();
    let mut batch = db.batch();
    batch.put(&users, "batch", b"").unwrap();
    batch.commit().unwrap();
    assert_eq!(expiry(&users, "default"), Some(NOW + 60_000));
    assert_eq!(expiry(&users, "batch"), Some(NOW + 60_000));
    assert_eq!(expiry(&users, "never"), None);
    assert_eq!(expiry(&users, "own"), Some(NOW + 1));
    users.set_expiry("default", Expiry::Never).unwrap();
    assert_eq!(expiry(&users, "default"), None, "a change of the expiry names one");
}

#[test]
fn an_expiry_that_is_too_near_is_refused_by_every_way_to_write() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(&dir);
    let users = db.namespace("users").unwrap();
    users.put("k", b"").unwrap();
    set(&users, |settings| settings.min_ttl = Some(MINUTE));
    let near = [Expiry::At(NOW + 59_999), Expiry::In(Duration::from_millis(59_999)), Expiry::At(0)];
    for expiry in near {
        let options = PutOptions::new().expiry(expiry);
        let error = users.put_with("k", b"", options.clone()).unwrap_err();
        assert!(matches!(error, Error::InvalidExpiry { min_ttl: Some(MINUTE), .. }), "{error}");
        let error = db.batch().put_with(&users, "k", b"", options).unwrap_err();
        assert_eq!(error.code(), Code::InvalidExpiry);
        assert_eq!(users.set_expiry("k", expiry).unwrap_err().code(), Code::InvalidExpiry);
    }
    let error = users.set_expiry("k", Expiry::At(NOW + 1)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "an expiry of 1800000000001 ms since 1970 is too near; \
         in this namespace it must lie at least 60s ahead"
    );
    // In whole seconds, or long on its way: the minimum counts from when it was asked for.
    let asked = PutOptions::new().expires_at_ms(NOW + 59_000);
    users.put_with("k", b"", asked.clone().asked_at_ms(NOW - 1_000)).unwrap();
    let error = users.put_with("k", b"", asked.asked_at_ms(NOW + 5_000)).unwrap_err();
    assert_eq!(error.code(), Code::InvalidExpiry, "a moment to come is no excuse");
    for expiry in [Expiry::At(NOW + 60_000), Expiry::In(MINUTE), Expiry::Never] {
        users.put_with("k", b"", PutOptions::new().expiry(expiry)).unwrap();
        users.set_expiry("k", expiry).unwrap();
    }
}

fn example(settings: &mut NamespaceSettings) {
    settings.max_value_bytes = Some(1 << 20);
    settings.default_ttl = Some(Duration::from_millis(86_400_001));
    settings.min_ttl = Some(Duration::ZERO);
}

#[test]
fn settings_survive_reopening_compaction_and_checkpoints() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(&dir);
    let users = db.namespace("users").unwrap();
    set(&users, example);
    let (want, id) = (users.settings(), users.id());
    for round in 0..400 {
        users.put(format!("{}", round % 8), vec![b'v'; 1024]).unwrap();
    }
    db.compact().unwrap();
    db.rename_namespace(id, "people").unwrap();
    db.checkpoint(dir.path().join("backup")).unwrap();
    drop(users);
    db.close().unwrap();
    for path in ["store", "backup"] {
        let db = options().open(dir.path().join(path)).unwrap();
        assert_eq!(db.namespace_by_id(id).unwrap().settings(), want, "{path}");
        assert_eq!(db.namespace("others").unwrap().settings(), NamespaceSettings::default());
    }
}

#[test]
fn settings_go_with_their_namespace_and_can_be_taken_back() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(&dir);
    let users = db.namespace("users").unwrap();
    set(&users, example);
    db.delete_namespace(users.id()).unwrap();
    assert_eq!(users.set_settings(users.settings()).unwrap_err().code(), Code::NamespaceNotFound);
    let users = db.namespace("users").unwrap();
    assert_eq!(users.settings(), NamespaceSettings::default());
    set(&users, example);
    set(&users, |settings| *settings = NamespaceSettings::default());
    drop(users);
    db.close().unwrap();
    let db = open(&dir);
    assert_eq!(db.namespace("users").unwrap().settings(), NamespaceSettings::default());
}

#[test]
fn settings_that_cannot_be_kept_are_refused_and_change_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let users = open(&dir).namespace("users").unwrap();
    set(&users, example);
    let before = users.settings();
    let mut settings = before;
    settings.default_ttl = Some(Duration::ZERO);
    let error = users.set_settings(settings).unwrap_err();
    assert_eq!(
        error.to_string(),
        "option `default_ttl` must be 1 ms or more, and less than 2^48 ms"
    );
    assert_eq!(users.settings(), before);
}

#[test]
fn a_name_with_a_control_character_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(&dir);
    let users = db.namespace("users").unwrap();
    for name in ["\0", "a\nb", "a\r", "tab\t", "\u{7f}", "\u{85}"] {
        let error = db.create_namespace(name).err().unwrap();
        assert_eq!(error.code(), Code::InvalidName, "{name:?}");
        assert_eq!(db.rename_namespace(users.id(), name).err().unwrap().code(), Code::InvalidName);
        assert!(db.namespace(name).is_err());
    }
    let error = db.namespace("a\nb").err().unwrap();
    assert_eq!(error.to_string(), r"a namespace name has no control characters; this one has '\n'");
    assert_eq!(users.name(), "users");
    db.namespace("größer \u{1f600}").unwrap();
}
