//! Promise: whatever byte of a store is changed, cut off or moved, a read gives the right answer or an
//! error that names the file and the byte. Never a panic, never a wrong value, never a key that is
//! silently gone or silently back.
//!
//! How it is attacked: a small store with every kind of file and record is damaged in one place at a
//! time (every byte flipped, every length cut, sectors zeroed, files removed and swapped, records
//! copied over others), opened, and read in full: every key by get and by list, those that should be
//! gone too, and then all of it by `verify`. Of the zeros behind segment headers and the inside of the
//! one large value, a sample is taken.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use kvast::testing::ManualClock;
use kvast::{Corruption, Damage, Db, Durability, Error, Options};

mod support;

use support::contents::{Change, Contents, delete, perform, put, put_until, read, read_all};
use support::rng::Rng;
use support::scratch_dir;

const NOW_MS: u64 = 1_700_000_000_000;

fn open(path: &Path, now_ms: u64) -> Result<Db, Error> {
    let options = Options::new().durability(Durability::Sync).segment_bytes(64 << 10);
    options.background(false).clock(ManualClock::new(now_ms)).open(path)
}

/// A store as it lies on disk, and what it holds.
struct Store {
    files: BTreeMap<String, Vec<u8>>,
    contents: Contents,
    /// Keys that were there once and must not come back.
    gone: Vec<(String, Vec<u8>)>,
}

/// The files of a store's directory, without the zeros that logs are laid out with.
fn files_of(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(path).expect("list") {
        let path = entry.expect("entry").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        let mut bytes = fs::read(&path).expect("read");
        if !name.ends_with(".blob") {
            let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
            bytes.truncate(end.next_multiple_of(8).max(64));
        }
        if name != "LOCK" {
            files.insert(name, bytes);
        }
    }
    files
}

/// A log, a sealed log, a run and a manifest, with puts of every kind, overwritten, deleted and expired
/// ones, a value with a block table, and a namespace that was deleted.
fn small_store(is_closed: bool) -> Store {
    let dir = scratch_dir();
    let path = dir.path().join("store");
    let mut contents = Contents::default();
    let db = open(&path, NOW_MS - 100_000).expect("open");
    let mut tell = |changes: &[Change]| {
        for change in changes {
            perform(&db, change).expect("a change");
            contents.apply(change);
        }
    };
    let names = ["users", "other", "dropped"].map(|name| Change::CreateNamespace(name.into()));
    tell(&names);
    let mut rng = Rng::new(3);
    // Dead as soon as it is overwritten, so that its log is compacted into runs.
    tell(&[put("users", b"fading", &rng.bytes(30_000)), put("users", b"fading", b"short")]);
    tell(&[put("users", b"old:1", b"1"), put("users", b"old:2", b"2")]);
    tell(&[put("dropped", b"old:3", b"3"), put_until("users", b"soon", b"4", NOW_MS - 1)]);
    tell(&[put_until("users", b"later", b"5", NOW_MS + 86_400_000_000), put("other", b"k", b"6")]);
    let with_company =
        [put("users", b"large", &rng.bytes(70_000)), put("users", b"beside:1", b"20")];
    tell(&[Change::Batch(with_company.to_vec()), put("users", b"beside:2", b"21")]);
    db.compact().expect("compact");
    tell(&[put("users", b"middle", b"7"), delete("users", b"old:1")]);
    tell(&[put("users", b"temp:1", b"8"), put("users", b"temp:2", &[9; 300])]);
    tell(&[Change::DeletePrefix { namespace: "users".into(), prefix: b"temp:".to_vec() }]);
    // Does not fit behind what there is, so that log is full.
    tell(&[put("users", b"filler", &rng.bytes(62_000)), delete("users", b"filler")]);
    tell(&[Change::Batch(vec![put("users", b"middle", b"10"), put("other", b"empty", b"")])]);
    db.compact().expect("compact");
    tell(&[Change::DeleteNamespace("dropped".into()), put("users", b"young", b"11")]);
    tell(&[put_until("users", b"young:soon", b"12", NOW_MS - 2), delete("users", b"old:2")]);
    tell(&[put_until("users", b"young:later", &[13; 200], NOW_MS + 1_000_000)]);
    tell(&[put("users", b"last", b"14")]);
    // A killed process leaves its files as they are at any moment.
    let files_of_a_killed_store = files_of(&path);
    let closed = db.close();
    let files = if is_closed { files_of(&path) } else { files_of_a_killed_store };
    closed.expect("close");
    let gone = [
        ("users", "old:1"),
        ("users", "old:2"),
        ("users", "soon"),
        ("users", "temp:1"),
        ("users", "temp:2"),
        ("users", "filler"),
        ("users", "young:soon"),
    ];
    let gone = gone.map(|(namespace, key)| (namespace.to_owned(), key.as_bytes().to_vec()));
    Store { files, contents: contents.live(NOW_MS), gone: gone.to_vec() }
}

impl Store {
    fn write_to(&self, dir: &Path) {
        for (name, bytes) in &self.files {
            fs::write(dir.join(name), bytes).expect("write");
        }
    }

    fn logs_and_runs(&self) -> impl Iterator<Item = (&String, &Vec<u8>)> {
        self.files.iter().filter(|(name, _)| name.ends_with(".log") || name.ends_with(".run"))
    }

    fn with_extension(&self, extension: &str) -> Vec<&String> {
        self.files.keys().filter(|name| name.ends_with(extension)).collect()
    }

    /// Sealed segments end with their footer's magic, and so does the log that was written when the store was
    /// closed.
    fn sealed(&self) -> Vec<&String> {
        let sealed = self.files.iter().filter(|(_, bytes)| bytes.ends_with(b"kvastEND"));
        sealed.map(|(name, _)| name).collect()
    }
}

/// One file, changed.
struct Damaged {
    what: String,
    file: String,
    /// `None` if it is removed.
    bytes: Option<Vec<u8>>,
    /// The bytes that differ, if any.
    range: Range<usize>,
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// Opening was refused.
    Refused,
    /// Opened, and something that was read was an error.
    Noticed,
    /// Opened, everything was read and right, and `verify` found the place or opening mended it.
    Reported,
    /// Nobody noticed, and nothing was wrong.
    Unnoticed,
}

fn place_of(error: &Error) -> Option<Corruption> {
    match error {
        Error::Corrupt(corruption) => Some(corruption.clone()),
        Error::UnknownFormat { file, .. } => {
            Some(Corruption { file: file.clone(), offset: 0, damage: Damage::Missing })
        }
        _ => None,
    }
}

/// An error must name the file that was damaged, and a place that is not behind the damage. A manifest
/// that has lost its end still reads, and then the segments are not what it says.
fn assert_names_the_place(error: &Error, damaged: &Damaged) {
    let what = &damaged.what;
    let place = place_of(error).unwrap_or_else(|| panic!("{what}: {error:?}"));
    if damaged.file == "MANIFEST" {
        return;
    }
    assert_eq!(place.file, damaged.file, "{what}: {error}");
    let end = damaged.range.end.max(1) as u64;
    assert!(place.offset < end || damaged.bytes.is_none(), "{what}: {error}");
}

/// Opens a damaged store and reads everything.
fn attack(store: &Store, dir: &Path, damaged: &Damaged, may_lose_the_tail: bool) -> Outcome {
    let what = &damaged.what;
    let db = match open(dir, NOW_MS) {
        Ok(db) => db,
        Err(error) => {
            assert_names_the_place(&error, damaged);
            return Outcome::Refused;
        }
    };
    let is_cut = may_lose_the_tail && db.recovery().torn_bytes > 0;
    let mut outcome = Outcome::Unnoticed;
    let mut notice = |error: &Error| {
        assert_names_the_place(error, damaged);
        outcome = Outcome::Noticed;
    };
    for (name, keys) in &store.contents.0 {
        let Some(namespace) = db.find_namespace(name) else { panic!("{what}: {name} is gone") };
        for (key, stored) in keys {
            match read(&namespace, key) {
                Ok(Some(found)) => assert!(&found == stored, "{what}: {key:?} is {found:?}"),
                Ok(None) => assert!(is_cut && key == b"last", "{what}: {key:?} is gone"),
                Err(error) => notice(&error),
            }
        }
    }
    for (name, key) in &store.gone {
        let Some(namespace) = db.find_namespace(name) else { panic!("{what}: {name} is gone") };
        match read(&namespace, key) {
            Ok(found) => assert!(found.is_none(), "{what}: {key:?} is back: {found:?}"),
            Err(error) => notice(&error),
        }
    }
    match read_all(&db) {
        Ok(_) if is_cut => {}
        Ok(found) => {
            let difference = store.contents.difference(&found);
            assert!(difference.is_none(), "{what}: {difference:?}");
        }
        Err(error) => notice(&error),
    }
    let report = db.verify(|_| {}).expect("verify reports, and does not fail");
    for corruption in &report.damaged {
        assert_eq!(corruption.file, damaged.file, "{what}: {report}");
    }
    let is_reported = !report.is_sound() || !db.recovery().repairs.is_empty();
    if outcome == Outcome::Unnoticed && is_reported {
        outcome = Outcome::Reported;
    }
    assert!(outcome != Outcome::Noticed || !report.is_sound(), "{what}: verify overlooks it");
    outcome
}

/// Attacks with each damage on as many threads as there are processors. Returns what was not noticed.
fn attack_all(store: &Store, damages: Vec<Damaged>, may_lose_the_tail: bool) -> Vec<Damaged> {
    let next = AtomicUsize::new(0);
    let counts = [const { AtomicU64::new(0) }; 4];
    let unnoticed: Vec<usize> = std::thread::scope(|scope| {
        let work = || {
            let dir = scratch_dir();
            store.write_to(dir.path());
            let mut unnoticed = Vec::new();
            loop {
                let nth = next.fetch_add(1, Ordering::Relaxed);
                let Some(damaged) = damages.get(nth) else { return unnoticed };
                let path = dir.path().join(&damaged.file);
                match &damaged.bytes {
                    Some(bytes) => fs::write(&path, bytes).expect("write"),
                    None => fs::remove_file(&path).expect("remove"),
                }
                let outcome = attack(store, dir.path(), damaged, may_lose_the_tail);
                counts[outcome as usize].fetch_add(1, Ordering::Relaxed);
                if outcome == Outcome::Unnoticed {
                    unnoticed.push(nth);
                }
                fs::write(&path, &store.files[&damaged.file]).expect("write");
            }
        };
        let threads = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("an attack failed")).collect()
    });
    let [refused, noticed, reported, silent] = counts.map(AtomicU64::into_inner);
    println!(
        "{} attacks: {refused} refused at opening, {noticed} noticed by a read, \
         {reported} reported, {silent} without effect",
        damages.len()
    );
    let mut damages: Vec<_> = damages.into_iter().map(Some).collect();
    unnoticed.into_iter().filter_map(|nth| damages[nth].take()).collect()
}

/// The bytes worth an attack of their own; in long stretches of zeros or of one value, a sample.
fn places(bytes: &[u8]) -> Vec<usize> {
    let dull = |at: usize| {
        let near = &bytes[at.saturating_sub(80)..bytes.len().min(at + 80)];
        let is_zeros = near.iter().all(|byte| *byte == 0);
        let is_inside_the_large_value = bytes.len() > 60_000
            && (5000..bytes.len() - 1500).contains(&at)
            && !(68_000..75_000).contains(&at);
        is_zeros || is_inside_the_large_value
    };
    let step = if cfg!(debug_assertions) { 4 } else { 1 };
    (0..bytes.len()).step_by(step).filter(|at| !dull(*at) || at % 509 < step).collect()
}

fn flips(store: &Store, file: &str) -> Vec<Damaged> {
    // A single bit, and a whole byte.
    let both = |at| [flip(store, file, at, 1 << (at % 8)), flip(store, file, at, 0xff)];
    places(&store.files[file]).into_iter().flat_map(both).collect()
}

fn flip(store: &Store, file: &str, at: usize, mask: u8) -> Damaged {
    let mut bytes = store.files[file].clone();
    bytes[at] ^= mask;
    let what = format!("{file} byte {at} xor {mask:#04x}");
    Damaged { what, file: file.into(), bytes: Some(bytes), range: at..at + 1 }
}

#[test]
fn the_small_store_has_every_kind_of_file() {
    let store = small_store(true);
    let dir = scratch_dir();
    store.write_to(dir.path());
    let db = open(dir.path(), NOW_MS).expect("open");
    assert_eq!(store.contents.difference(&read_all(&db).expect("read")), None);
    assert!(db.recovery().clean && db.recovery().repairs.is_empty(), "{}", db.recovery());
    let logs = store.with_extension(".log");
    assert!(!store.with_extension(".run").is_empty(), "{:?}", store.files.keys());
    let sealed_logs = logs.iter().filter(|log| store.sealed().contains(log)).count();
    assert!(sealed_logs >= 2, "{logs:?}: {sealed_logs} have a footer");
    let killed = small_store(false);
    assert!(
        killed.sealed().len() < store.sealed().len(),
        "the last log got its footer by the close"
    );
}

#[test]
fn any_flipped_byte_of_a_closed_store_is_an_error_with_its_place_or_changes_nothing() {
    let store = small_store(true);
    for (file, good) in &store.files {
        println!("{file}, {} bytes", good.len());
        for silent in attack_all(&store, flips(&store, file), false) {
            // Padding and reserved bytes hold zeros; whatever else there is matters to somebody.
            let at = silent.range.start;
            assert_eq!(good[at], 0, "{}: nobody noticed", silent.what);
        }
    }
}

#[test]
fn any_flipped_byte_of_a_killed_store_may_cost_the_last_write_and_says_so() {
    let store = small_store(false);
    for (file, good) in &store.files {
        for silent in attack_all(&store, flips(&store, file), true) {
            assert_eq!(good[silent.range.start], 0, "{}: nobody noticed", silent.what);
        }
    }
}

/// Three logs, of which only the last one has a footer, left by the close.
fn store_with_logs_in_waiting() -> Store {
    let dir = scratch_dir();
    let path = dir.path().join("store");
    let mut contents = Contents::default();
    let db = open(&path, NOW_MS).expect("open");
    let mut tell = |change: Change| {
        perform(&db, &change).expect("a change");
        contents.apply(&change);
    };
    tell(Change::CreateNamespace("users".into()));
    let mut rng = Rng::new(4);
    for nth in 0..3 {
        tell(put("users", format!("small:{nth}").as_bytes(), b"1"));
        tell(put("users", format!("other:{nth}").as_bytes(), b"2"));
        // The next one does not fit behind this.
        tell(put("users", format!("filler:{nth}").as_bytes(), &rng.bytes(60_000 - nth)));
    }
    tell(delete("users", b"small:1"));
    db.close().expect("close");
    let gone = vec![("users".to_owned(), b"small:1".to_vec())];
    Store { files: files_of(&path), contents, gone }
}

#[test]
fn any_flipped_byte_of_logs_that_wait_for_their_footers_is_an_error_with_its_place() {
    let store = store_with_logs_in_waiting();
    assert!(store.with_extension(".log").len() >= 3 && store.sealed().len() == 1);
    for (file, good) in store.logs_and_runs() {
        for silent in attack_all(&store, flips(&store, file), false) {
            assert_eq!(good[silent.range.start], 0, "{}: nobody noticed", silent.what);
        }
    }
}

#[test]
fn a_log_that_waits_for_its_footer_and_lost_all_its_records_is_missed() {
    let store = store_with_logs_in_waiting();
    for (file, good) in store.logs_and_runs() {
        let cut = good[..4096].to_vec();
        let mut zeroed = good.clone();
        zeroed[4096..].fill(0);
        for (what, bytes) in [("cut to its header", cut), ("zeroed behind its header", zeroed)] {
            let dir = scratch_dir();
            store.write_to(dir.path());
            fs::write(dir.path().join(file), bytes).expect("write");
            // It looks like a log that was never used, so the error may stand at the gap behind it.
            match open(dir.path(), NOW_MS).err() {
                Some(Error::Corrupt(Corruption { damage: Damage::LostRecords { .. }, .. })) => {}
                other => panic!("{file} {what}: {other:?}"),
            }
        }
    }
}

/// What dead values are made of.
const DEAD: u8 = 0xdd;

/// A store with large values: in blobs that are sealed and one that is not, moved by compaction,
/// replaced, deleted, expired, and an upload that never ended.
fn store_with_blobs(is_closed: bool) -> Store {
    let dir = scratch_dir();
    let path = dir.path().join("store");
    let options = Options::new().segment_bytes(64 << 10).large_value_bytes(4 << 10);
    let options = options.background(false).clock(ManualClock::new(NOW_MS - 100_000));
    let db = options.open(&path).expect("open");
    let mut contents = Contents::default();
    let mut tell = |change: Change| {
        perform(&db, &change).expect("a change");
        contents.apply(&change);
    };
    let mut rng = Rng::new(5);
    let dead = |len| vec![DEAD; len];
    tell(Change::CreateNamespace("users".into()));
    tell(put("users", b"moved:1", &rng.bytes(5000)));
    tell(put_until("users", b"moved:2", &rng.bytes(4097), NOW_MS + 86_400_000));
    // Deleted in a log that is not the one of the values, and so after they were moved.
    tell(put("users", b"gone:1", b"older"));
    for _ in 0..8 {
        tell(put("users", b"gone:1", &dead(9000)));
        tell(put("users", b"stays:1", &dead(8000)));
    }
    tell(put_until("users", b"gone:2", &dead(7000), NOW_MS - 1));
    tell(put("users", b"stays:1", &rng.bytes(9000)));
    db.compact().expect("compact");
    tell(delete("users", b"gone:1"));
    tell(put("users", b"stays:2", &rng.bytes(70_000)));
    tell(put("users", b"stays:3", &rng.bytes(4096)));
    let users = db.find_namespace("users").expect("the namespace is there");
    let mut upload = users.put_stream("stays:3", Some(20_000)).expect("begin an upload");
    upload.write(&dead(15_000)).expect("write a piece");
    tell(put_until("users", b"stays:4", &rng.bytes(6000), NOW_MS + 1_000_000));
    tell(put("users", b"last", b"14"));
    let files_of_a_killed_store = files_of(&path);
    drop((upload, users));
    db.close().expect("close");
    let files = if is_closed { files_of(&path) } else { files_of_a_killed_store };
    let gone = ["gone:1", "gone:2"].map(|key| ("users".to_owned(), key.as_bytes().to_vec()));
    Store { files, contents: contents.live(NOW_MS), gone: gone.to_vec() }
}

/// Bytes of a blob that are worth an attack: its header, both ends of extents, and a sample.
fn places_in_a_blob(blob: &[u8]) -> Vec<usize> {
    let step = if cfg!(debug_assertions) { 2003 } else { 509 };
    let is_worth_it = |at: &usize| *at < 64 || at.is_multiple_of(step) || (at + 1) % 4096 < 2;
    // The last bytes before padding: of a value, or of a block table.
    let is_an_end = |at: &usize| {
        let page = at / 4096 * 4096;
        blob[*at] != 0 && blob[at + 1..page + 4096].iter().all(|byte| *byte == 0)
    };
    (0..blob.len()).filter(|at| is_worth_it(at) || is_an_end(at)).collect()
}

/// Whether nobody needs to notice that this byte was changed.
fn is_nobodys(byte: u8) -> bool {
    byte == 0 || byte == DEAD
}

#[test]
fn the_store_with_blobs_has_every_kind_of_extent() {
    let store = store_with_blobs(true);
    assert!(store.with_extension(".blob").len() >= 2, "{:?}", store.files.keys());
    assert!(!store.with_extension(".run").is_empty(), "{:?}", store.files.keys());
    let dir = scratch_dir();
    store.write_to(dir.path());
    let db = open(dir.path(), NOW_MS).expect("open");
    assert_eq!(store.contents.difference(&read_all(&db).expect("read")), None);
    assert!(db.recovery().clean && db.recovery().repairs.is_empty(), "{}", db.recovery());
}

#[test]
fn any_flipped_byte_of_a_store_with_blobs_is_an_error_with_its_place_or_changes_nothing() {
    for is_closed in [true, false] {
        let store = store_with_blobs(is_closed);
        for (file, good) in &store.files {
            let flips = if file.ends_with(".blob") {
                let places = places_in_a_blob(good).into_iter();
                places.map(|at| flip(&store, file, at, 0x10)).collect()
            } else {
                flips(&store, file)
            };
            println!("{file}, {} bytes, {} places", good.len(), flips.len());
            for silent in attack_all(&store, flips, !is_closed) {
                let at = silent.range.start;
                assert!(is_nobodys(good[at]), "{}: nobody noticed", silent.what);
            }
        }
    }
}

#[test]
fn a_blob_that_is_cut_off_zeroed_missing_or_swapped_is_noticed() {
    let store = store_with_blobs(true);
    let blobs = store.with_extension(".blob");
    for file in &blobs {
        let good = &store.files[*file];
        let damaged = |what: &str, bytes, range| {
            let what = format!("{file} {what} {range:?}");
            Damaged { what, file: (*file).clone(), bytes, range }
        };
        let ends = (0..good.len()).step_by(4096).flat_map(|at| [at, at + 1, at + 4095]);
        let cuts = ends.map(|at| damaged("cut off", Some(good[..at].to_vec()), at..good.len()));
        for silent in attack_all(&store, cuts.collect(), false) {
            let range = silent.range.clone();
            assert!(good[range].iter().all(|byte| is_nobodys(*byte)), "{}", silent.what);
        }
        let zeroed = (0..good.len()).step_by(4096).map(|at| {
            let mut bytes = good.clone();
            bytes[at..at + 4096].fill(0);
            damaged("zeroed", Some(bytes), at..at + 4096)
        });
        for silent in attack_all(&store, zeroed.collect(), false) {
            let range = silent.range.clone();
            assert!(good[range].iter().all(|byte| is_nobodys(*byte)), "{}", silent.what);
        }
        let silent = attack_all(&store, vec![damaged("removed", None, 0..1)], false);
        assert!(silent.is_empty(), "nobody misses {file}");
        for other in blobs.iter().filter(|other| other != &file) {
            let bytes = Some(store.files[*other].clone());
            let swapped = damaged(&format!("has the bytes of {other}"), bytes, 0..1);
            assert!(attack_all(&store, vec![swapped], false).is_empty());
        }
    }
}

#[test]
fn compaction_leaves_a_damaged_value_where_it_is_and_moves_the_others() {
    let store = store_with_blobs(true);
    let mut refused = 0;
    for file in store.with_extension(".blob") {
        let good = &store.files[file];
        for at in (4096..good.len()).step_by(4096).filter(|at| !is_nobodys(good[*at])) {
            let mut bytes = good.clone();
            bytes[at] ^= 1;
            let dir = scratch_dir();
            store.write_to(dir.path());
            fs::write(dir.path().join(file), bytes).expect("write");
            let what = format!("{file} byte {at}");
            let damaged = Damaged { what, file: file.clone(), bytes: None, range: at..at + 1 };
            let db = open(dir.path(), NOW_MS).expect("values are not read at opening");
            let users = db.find_namespace("users").expect("the namespace is there");
            for key in ["stays:2", "stays:4"] {
                users.delete(key).expect("delete");
            }
            for _ in 0..3 {
                if let Err(error) = db.compact() {
                    assert_names_the_place(&error, &damaged);
                    refused += 1;
                }
            }
            drop((users, db));
            let db = open(dir.path(), NOW_MS).expect("open again");
            let users = db.find_namespace("users").expect("the namespace is there");
            for (key, stored) in &store.contents.0["users"] {
                match read(&users, key) {
                    Ok(None) => assert!(key == b"stays:2" || key == b"stays:4", "{}", damaged.what),
                    Ok(found) => assert_eq!(found.as_ref(), Some(stored), "{}", damaged.what),
                    Err(error) => assert_names_the_place(&error, &damaged),
                }
            }
        }
    }
    assert!(refused > 0, "no damaged value was to be moved");
}

#[test]
fn any_file_that_is_cut_off_is_an_error_or_changes_nothing() {
    let store = small_store(true);
    for (file, good) in &store.files {
        let cut = |len: usize| Damaged {
            what: format!("{file} cut to {len} of {} bytes", good.len()),
            file: file.clone(),
            bytes: Some(good[..len].to_vec()),
            range: len..good.len(),
        };
        attack_all(&store, places(good).into_iter().map(cut).collect(), false);
    }
}

#[test]
fn any_zeroed_sector_is_an_error_or_changes_nothing() {
    let store = small_store(true);
    for (file, good) in &store.files {
        let zeroed = |len: usize| {
            let starts = (0..good.len()).step_by(if len == 4096 { 4096 } else { 64 });
            starts.map(move |at| {
                let mut bytes = good.clone();
                let range = at..bytes.len().min(at + len);
                bytes[range.clone()].fill(0);
                let what = format!("{file} bytes {range:?} zeroed");
                Damaged { what, file: file.clone(), bytes: Some(bytes), range }
            })
        };
        attack_all(&store, zeroed(64).chain(zeroed(512)).chain(zeroed(4096)).collect(), false);
    }
}

#[test]
fn any_file_that_is_missing_is_named() {
    let store = small_store(true);
    for file in store.files.keys() {
        let what = format!("{file} removed");
        let damaged = Damaged { what, file: file.clone(), bytes: None, range: 0..1 };
        let silent = attack_all(&store, vec![damaged], false);
        assert!(silent.is_empty(), "nobody misses {file}");
    }
}

#[test]
fn two_segments_that_are_swapped_are_refused() {
    let store = small_store(true);
    let segments: Vec<_> = store.logs_and_runs().collect();
    for (one, its_bytes) in &segments {
        for (other, other_bytes) in &segments {
            if one >= other {
                continue;
            }
            let dir = scratch_dir();
            store.write_to(dir.path());
            fs::write(dir.path().join(one), other_bytes).expect("write");
            fs::write(dir.path().join(other), its_bytes).expect("write");
            let error = open(dir.path(), NOW_MS).err().expect("swapped segments are noticed");
            let place = place_of(&error).unwrap_or_else(|| panic!("{error}"));
            assert!([one, other].contains(&&&place.file), "{one} and {other} swapped: {error}");
        }
    }
}

/// The records and commits of a segment, as §4 of the specification lays them out.
fn items(segment: &[u8]) -> Vec<Range<usize>> {
    let mut items = Vec::new();
    let number = |at: usize, len: usize| {
        segment[at..at + len].iter().rev().fold(0, |number, byte| number << 8 | usize::from(*byte))
    };
    let mut at = 4096;
    while at + 48 <= segment.len() {
        let len = match segment[at + 4] {
            5 => 48,
            1..=4 => {
                let expiry = usize::from(segment[at + 5] & 1) * 8;
                let commit = usize::from(segment[at + 5] >> 7) * 10;
                let head = 36 + expiry + commit + number(at + 6, 2) + number(at + 22, 2);
                let value_len = number(at + 28, 4);
                let end = head + value_len;
                let table = 4 * value_len.div_ceil(65_536);
                if value_len > 65_536 { end.next_multiple_of(4) + table } else { end }
            }
            _ => break,
        };
        let end = at + len.next_multiple_of(8);
        if end > segment.len() {
            break;
        }
        items.push(at..end);
        at = end;
    }
    items
}

#[test]
fn a_record_does_not_pass_at_another_place() {
    let store = small_store(true);
    let mut damages = Vec::new();
    for (file, good) in store.logs_and_runs() {
        let to_places = items(good);
        assert!(!to_places.is_empty(), "{file}: {to_places:?}");
        for (source, source_bytes) in store.logs_and_runs() {
            for from in items(source_bytes) {
                for to in to_places.iter().filter(|to| to.len() == from.len()) {
                    let mut bytes = good.clone();
                    bytes[to.clone()].copy_from_slice(&source_bytes[from.clone()]);
                    if bytes == *good {
                        continue;
                    }
                    let what = format!("{source} bytes {from:?} copied to {file} bytes {to:?}");
                    let range = to.clone();
                    damages.push(Damaged { what, file: file.clone(), bytes: Some(bytes), range });
                }
            }
        }
    }
    assert!(damages.len() > 20, "only {} copies", damages.len());
    let silent = attack_all(&store, damages, false);
    let silent: Vec<_> = silent.iter().map(|damaged| &damaged.what).collect();
    assert!(silent.is_empty(), "{silent:?}");
}

#[test]
fn a_record_that_is_damaged_can_be_overwritten_and_deleted() {
    let store = small_store(true);
    let log = store.sealed().into_iter().find(|name| name.ends_with(".log")).expect("a sealed log");
    let good = &store.files[log];
    for item in items(good) {
        let mut bytes = good.clone();
        bytes[item.start] ^= 1;
        let dir = scratch_dir();
        store.write_to(dir.path());
        fs::write(dir.path().join(log), bytes).expect("write");
        let Ok(db) = open(dir.path(), NOW_MS) else { continue };
        for (name, keys) in &store.contents.0 {
            let namespace = db.find_namespace(name).expect("the namespace is there");
            let all: Vec<_> = keys.keys().collect();
            let fails_alone = all.iter().any(|key| namespace.get(key).is_err());
            assert_eq!(namespace.get_many(&all).is_err(), fails_alone, "one fails all");
            for key in keys.keys() {
                namespace.put(key, b"anew").expect("a damaged record can be overwritten");
                assert_eq!(namespace.get(key).expect("read").as_deref(), Some(&b"anew"[..]));
                assert!(namespace.delete(key).expect("and deleted"));
                // Which key a damaged header had cannot be told, so this may still be its place.
                assert!(matches!(namespace.get(key), Ok(None) | Err(Error::Corrupt(_))));
            }
        }
        drop(db);
        let db = open(dir.path(), NOW_MS).expect("open again");
        let left = read_all(&db).expect("nothing that is damaged is left to read");
        assert!(left.0.values().all(BTreeMap::is_empty), "{left:?}");
    }
}

#[test]
fn compaction_leaves_a_damaged_segment_as_it_is_and_goes_on_with_the_others() {
    let store = small_store(true);
    let log = store.sealed().into_iter().find(|name| name.ends_with(".log")).expect("a sealed log");
    let good = &store.files[log];
    for item in items(good) {
        let mut bytes = good.clone();
        bytes[item.start] ^= 1;
        let dir = scratch_dir();
        store.write_to(dir.path());
        fs::write(dir.path().join(log), bytes).expect("write");
        let what = format!("{log} byte {}", item.start);
        let damaged = Damaged { what, file: log.clone(), bytes: Some(Vec::new()), range: item };
        let Ok(db) = open(dir.path(), NOW_MS) else { continue };
        let users = db.find_namespace("users").expect("the namespace is there");
        // Makes the segment with the large value worth compacting, and others too.
        let _ = users.delete("large");
        for nth in 0..60 {
            users.put("large", vec![nth; 3000]).expect("put");
        }
        for _ in 0..3 {
            if let Err(error) = db.compact() {
                assert_names_the_place(&error, &damaged);
            }
        }
        drop((users, db));
        let db = open(dir.path(), NOW_MS).expect("open again");
        for (name, keys) in &store.contents.0 {
            let namespace = db.find_namespace(name).expect("the namespace is there");
            for (key, stored) in keys.iter().filter(|(key, _)| *key != b"large") {
                match read(&namespace, key) {
                    Ok(found) => assert_eq!(found.as_ref(), Some(stored), "{}", damaged.what),
                    Err(error) => assert_names_the_place(&error, &damaged),
                }
            }
        }
        for (name, key) in &store.gone {
            let namespace = db.find_namespace(name).expect("the namespace is there");
            assert!(!matches!(read(&namespace, key), Ok(Some(_))), "{}", damaged.what);
        }
    }
}
