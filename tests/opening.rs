//! Promise: opening says plainly why it refuses, changes nothing that it need not change, and leaves
//! what it does not know alone: a store that is open already, a copy, a read-only directory, a full
//! disk, files of others, and files of a later version.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use kvast::testing::ManualClock;
use kvast::{Code, Db, Durability, Error, ListOptions, Options};

mod support;

use support::disk::{ENOSPC, Injector, Recorder, Target};
use support::scratch_dir;

fn options() -> Options {
    Options::new().durability(Durability::Sync).segment_bytes(64 << 10).background(false)
}

fn filled(path: &Path) -> Db {
    let db = options().open(path).expect("open");
    let users = db.namespace("users").expect("create");
    for nth in 0..100 {
        users.put(format!("key:{nth:03}"), vec![nth; 2000]).expect("put");
    }
    db.compact().expect("compact");
    db
}

fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(dir).expect("list").map(|entry| entry.expect("entry").path());
    let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
    entries.filter_map(|path| Some((name(&path)?, fs::read(&path).expect("read")))).collect()
}

fn copy(from: &Path, to: &Path) {
    for (name, bytes) in files(from) {
        fs::write(to.join(name), bytes).expect("write");
    }
}

#[test]
fn a_store_that_is_open_is_not_opened_twice() {
    let dir = scratch_dir();
    let db = filled(dir.path());
    match options().open(dir.path()).err() {
        Some(Error::Locked { pid, .. }) => assert_eq!(pid, Some(std::process::id())),
        other => panic!("{other:?}"),
    }
    db.close().expect("close");
    options().open(dir.path()).expect("a closed store can be opened");
}

#[test]
fn a_copy_of_a_store_that_is_open_can_be_opened() {
    let (dir, other) = (scratch_dir(), scratch_dir());
    let db = filled(dir.path());
    copy(dir.path(), other.path());
    let copy = options().open(other.path()).expect("open the copy");
    let users = copy.find_namespace("users").expect("the namespace is there");
    assert_eq!(users.scan("").count(), 100);
    users.put("new", b"v").expect("the copy takes writes");
    drop((users, copy, db));
}

#[test]
fn opening_and_reading_writes_nothing_until_the_first_write() {
    let dir = scratch_dir();
    drop(filled(dir.path()));
    let recorder = Arc::new(Recorder::default());
    let db = options().disk_hook(recorder.clone()).open(dir.path()).expect("open");
    let users = db.find_namespace("users").expect("the namespace is there");
    assert_eq!(users.scan("").count(), 100);
    assert!(users.get("key:007").expect("get").is_some());
    drop(users);
    db.close().expect("close");
    assert_eq!(recorder.len(), 0, "{:?}", recorder.events());
}

/// A store whose records are all in one log, without a footer of its own.
fn in_one_log(path: &Path) -> Db {
    let db = options().segment_bytes(1 << 20).open(path).expect("open");
    let users = db.namespace("users").expect("create");
    for nth in 0..100 {
        users.put(format!("key:{nth:03}"), [nth; 20]).expect("put");
    }
    users.delete("key:007").expect("delete");
    db
}

fn logs(dir: &Path) -> usize {
    files(dir).keys().filter(|name| name.ends_with(".log")).count()
}

#[test]
fn a_store_that_was_closed_is_opened_by_footers_and_goes_on_in_the_same_log() {
    let dir = scratch_dir();
    in_one_log(dir.path()).close().expect("close");
    for session in 0..5u8 {
        for read_only in [true, false] {
            let options = options().segment_bytes(1 << 20).read_only(read_only);
            let db = options.open(dir.path()).expect("open");
            let report = db.recovery();
            assert_eq!((report.scanned_logs, report.clean), (0, true), "{report}");
            assert!(report.repairs.is_empty() && report.torn_bytes == 0, "{report}");
            let users = db.namespace("users").expect("find");
            assert!(users.get("key:007").expect("get").is_none());
            assert_eq!(users.get("key:042").expect("get").as_deref(), Some(&[42; 20][..]));
            if session > 0 {
                assert_eq!(users.get("last").expect("get").as_deref(), Some(&[session - 1][..]));
            }
            if !read_only {
                users.put("last", [session]).expect("put");
            }
            drop(users);
            db.close().expect("close");
        }
        assert_eq!(logs(dir.path()), 1, "short sessions leave no short logs behind");
    }
    let db = options().open(dir.path()).expect("open");
    assert!(db.verify(|_| {}).expect("verify").is_sound());
}

#[test]
fn a_kill_after_a_session_that_went_on_in_a_closed_log_loses_nothing() {
    let (dir, other) = (scratch_dir(), scratch_dir());
    in_one_log(dir.path()).close().expect("close");
    let db = options().segment_bytes(1 << 20).open(dir.path()).expect("open");
    let users = db.namespace("users").expect("find");
    users.put("key:001", b"changed").expect("put");
    copy(dir.path(), other.path());
    let killed = options().segment_bytes(1 << 20).open(other.path()).expect("open");
    let report = killed.recovery();
    assert_eq!((report.scanned_logs, report.clean, report.torn_bytes), (1, false, 0), "{report}");
    let users = killed.namespace("users").expect("find");
    assert_eq!(users.get("key:001").expect("get").as_deref(), Some(&b"changed"[..]));
    assert_eq!(users.get("key:042").expect("get").as_deref(), Some(&[42; 20][..]));
}

#[test]
fn a_closed_log_whose_footer_is_damaged_is_read_record_by_record_and_that_is_reported() {
    let dir = scratch_dir();
    in_one_log(dir.path()).close().expect("close");
    let name = files(dir.path()).into_keys().find(|name| name.ends_with(".log")).expect("a log");
    let mut bytes = fs::read(dir.path().join(&name)).expect("read");
    let at = bytes.len() - 300;
    bytes[at] ^= 1;
    fs::write(dir.path().join(&name), bytes).expect("write");
    let db = options().segment_bytes(1 << 20).open(dir.path()).expect("open");
    let report = db.recovery();
    assert_eq!((report.scanned_logs, report.torn_bytes), (1, 0), "{report}");
    assert!(report.repairs.iter().any(|repair| repair.contains(&name)), "{report}");
    let users = db.namespace("users").expect("find");
    users.put("key:001", b"changed").expect("put");
    assert_eq!(users.list(&ListOptions::new()).expect("list").iter().count(), 99);
}

#[test]
fn a_close_on_a_full_disk_goes_without_the_footer() {
    let dir = scratch_dir();
    in_one_log(dir.path()).close().expect("close");
    // The manifest, the put, and then the footer.
    let full = Arc::new(Injector::new(Target::Write, ENOSPC, 2, 1));
    let options_on_full = options().durability(Durability::Os).segment_bytes(1 << 20);
    let db = options_on_full.disk_hook(full.clone()).open(dir.path()).expect("open");
    db.namespace("users").expect("find").put("key:001", b"changed").expect("put");
    db.close().expect("close");
    assert_eq!(full.failed(), 1);
    let db = options().segment_bytes(1 << 20).open(dir.path()).expect("open");
    let report = db.recovery();
    assert_eq!((report.scanned_logs, report.clean, report.torn_bytes), (1, true, 0), "{report}");
    let value = db.namespace("users").expect("find").get("key:001").expect("get");
    assert_eq!(value.as_deref(), Some(&b"changed"[..]));
}

#[test]
fn a_full_disk_can_be_opened_and_read() {
    let dir = scratch_dir();
    drop(filled(dir.path()));
    for target in [Target::Write, Target::Create, Target::SetLen, Target::Sync] {
        let full = Arc::new(Injector::new(target, ENOSPC, 0, u64::MAX >> 1));
        let db = options().disk_hook(full).open(dir.path()).expect("open on a full disk");
        let users = db.find_namespace("users").expect("the namespace is there");
        assert_eq!(users.scan("").count(), 100);
    }
}

#[test]
fn a_read_only_store_takes_no_lock_writes_nothing_and_refuses_writes() {
    let dir = scratch_dir();
    let db = filled(dir.path());
    let before = files(dir.path());
    // Beside the process that writes.
    let reader = options().read_only(true).open(dir.path()).expect("open read-only");
    let users = reader.find_namespace("users").expect("the namespace is there");
    assert_eq!(users.scan("").count(), 100);
    let refusals = [
        users.put("key", b"v").err(),
        users.delete("key:007").err(),
        users.delete_prefix("key").err(),
        reader.create_namespace("other").err(),
        reader.compact().err(),
    ];
    for refusal in refusals {
        assert_eq!(refusal.map(|error| error.code()), Some(Code::ReadOnly));
    }
    drop(users);
    reader.close().expect("close");
    assert!(files(dir.path()) == before, "a file changed");
    drop(db);
}

#[test]
fn a_read_only_store_must_be_there() {
    let dir = scratch_dir();
    let absent = dir.path().join("absent");
    let error = options().read_only(true).open(&absent).err().expect("there is no store");
    assert_eq!(error.code(), Code::Io);
    assert!(!absent.exists(), "nothing was made");
}

#[test]
fn files_of_others_are_left_alone() {
    let dir = scratch_dir();
    drop(filled(dir.path()));
    let strangers = ["notes.txt", "7.log", "000000000x.log", "0000000001.tmp", "00000000001.run"];
    for name in strangers {
        fs::write(dir.path().join(name), name).expect("write");
    }
    let db = options().open(dir.path()).expect("open");
    let users = db.find_namespace("users").expect("the namespace is there");
    users.put("key", b"v").expect("put");
    db.compact().expect("compact");
    drop((users, db));
    for name in strangers {
        assert_eq!(fs::read(dir.path().join(name)).expect("it is there"), name.as_bytes());
    }
}

#[test]
fn a_store_of_a_later_version_is_refused_as_such() {
    let dir = scratch_dir();
    drop(filled(dir.path()));
    let names: Vec<String> = files(dir.path()).into_keys().filter(|name| name != "LOCK").collect();
    for name in names {
        let other = scratch_dir();
        copy(dir.path(), other.path());
        let path = other.path().join(&name);
        let mut bytes = fs::read(&path).expect("read");
        // The version stands behind the magic in every header, and the checksum after 60 bytes.
        bytes[8] = 99;
        let checksum = crc32_of(&bytes[..60]);
        bytes[60..64].copy_from_slice(&checksum.to_le_bytes());
        fs::write(&path, bytes).expect("write");
        match options().open(other.path()).err() {
            Some(Error::UnknownFormat { file, detail }) => {
                assert_eq!(file, name);
                assert!(detail.contains("99"), "{detail}");
            }
            unexpected => panic!("{name}: {unexpected:?}"),
        }
    }
}

/// CRC-32 as §1 of the specification gives it.
fn crc32_of(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |state, byte| {
        (0..8).fold(state ^ u32::from(*byte), |state, _| {
            if state & 1 == 1 { state >> 1 ^ 0xedb8_8320 } else { state >> 1 }
        })
    })
}

#[test]
fn a_directory_that_is_no_store_is_refused_if_it_holds_segments() {
    let dir = scratch_dir();
    drop(filled(dir.path()));
    fs::remove_file(dir.path().join("MANIFEST")).expect("remove");
    match options().open(dir.path()).err() {
        Some(Error::Corrupt(corruption)) => assert_eq!(corruption.file, "MANIFEST"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_cursor_survives_a_restart_and_compaction_and_is_refused_elsewhere() {
    let dir = scratch_dir();
    let db = filled(dir.path());
    let users = db.find_namespace("users").expect("the namespace is there");
    let options_of = |cursor: &str| ListOptions::new().prefix("key:").limit(10).cursor(cursor);
    let page = users.list(&ListOptions::new().prefix("key:").limit(10)).expect("list");
    let cursor = page.cursor().expect("there is more").to_owned();
    users.delete("key:009").expect("delete the key that it names");
    drop(users);
    db.close().expect("close");

    let clock = ManualClock::new(1_700_000_000_000);
    let db = options().clock(clock).open(dir.path()).expect("open");
    let users = db.find_namespace("users").expect("the namespace is there");
    let page = users.list(&options_of(&cursor)).expect("list on");
    assert_eq!(page.iter().next().map(|listed| listed.key.to_vec()), Some(b"key:010".to_vec()));

    let others = db.create_namespace("others").expect("create");
    let elsewhere = [
        others.list(&options_of(&cursor)),
        users.list(&ListOptions::new().prefix("key").cursor(&*cursor)),
        users.list(&options_of(&cursor[1..])),
        users.list(&options_of("never-issued")),
        users.list(&options_of("")),
    ];
    for page in elsewhere {
        assert_eq!(page.err().map(|error| error.code()), Some(Code::InvalidCursor));
    }
}

#[test]
fn the_name_of_every_new_directory_is_made_durable() {
    let dir = scratch_dir();
    let path = dir.path().join("a/b/store");
    let recorder = Arc::new(Recorder::default());
    drop(options().disk_hook(recorder.clone()).open(&path).expect("open"));
    let events = format!("{:?}", recorder.events());
    for directory in [dir.path().to_owned(), dir.path().join("a"), dir.path().join("a/b")] {
        assert!(events.contains(&format!("SyncDir({directory:?})")), "{directory:?}: {events}");
    }
}
