//! Any bytes written over a file of a sound store, or in its place: opening and reading never panics,
//! and what can be read is what was written.
//!
//! An input is: which file (one byte), where (two bytes, in units of eight), what to do with the rest
//! of the file (one byte), then the bytes.

#![no_main]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use kvast::testing::ManualClock;
use kvast::{Db, Durability, ListOptions, Options, PutOptions};
use libfuzzer_sys::fuzz_target;
use tempfile::TempDir;

const NOW_MS: u64 = 1_700_000_000_000;

struct Store {
    dir: TempDir,
    files: BTreeMap<String, Vec<u8>>,
}

fn open(path: &Path) -> Result<Db, kvast::Error> {
    let options = Options::new().durability(Durability::Os).segment_bytes(64 << 10);
    let options = options.large_value_bytes(3500);
    options.background(false).clock(ManualClock::new(NOW_MS)).open(path)
}

fn value(nth: u64) -> Vec<u8> {
    format!("value {nth} ").into_bytes().repeat(1 + nth as usize % 40)
}

/// Lies in a blob.
fn large(nth: u64) -> Vec<u8> {
    format!("large {nth} ").into_bytes().repeat(500)
}

/// A log, a sealed log, runs, blobs and a manifest, as a process leaves them that is killed.
fn write(path: &Path) -> Result<(), kvast::Error> {
    let db = open(path)?;
    let users = db.namespace("users")?;
    for nth in 0..60 {
        users.put("fading", vec![nth; 3000])?;
    }
    for nth in 0..20 {
        let options = PutOptions::new().metadata(*b"{}").expires_at_ms(NOW_MS + 1 + nth);
        users.put_with(format!("key:{nth:02}"), value(nth), options)?;
    }
    for nth in 0..4 {
        users.put(format!("large:{nth}"), large(nth))?;
    }
    users.delete("fading")?;
    db.compact()?;
    for nth in 20..30 {
        users.put(format!("key:{nth:02}"), value(nth))?;
    }
    users.delete("key:00")?;
    Ok(())
}

fn store() -> &'static Store {
    static STORE: OnceLock<Store> = OnceLock::new();
    STORE.get_or_init(|| {
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        let dir = dir.expect("make a directory");
        write(dir.path()).expect("write a store");
        let mut files = BTreeMap::new();
        for entry in fs::read_dir(dir.path()).expect("list the store") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            let mut bytes = fs::read(&path).expect("read a file");
            if !name.ends_with(".blob") {
                let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
                bytes.truncate(end.next_multiple_of(8));
            }
            fs::write(&path, &bytes).expect("write a file");
            if name != "LOCK" {
                files.insert(name, bytes);
            }
        }
        Store { dir, files }
    })
}

fn damage(good: &[u8], at: usize, what: u8, bytes: &[u8]) -> Vec<u8> {
    let mut bad = good.to_vec();
    let at = at.min(bad.len());
    match what % 4 {
        // Over what is there.
        0 => {
            let end = (at + bytes.len()).min(bad.len());
            bad[at..end].copy_from_slice(&bytes[..end - at]);
        }
        // In the place of the rest.
        1 => {
            bad.truncate(at);
            bad.extend_from_slice(bytes);
        }
        // Mixed into what is there.
        2 => bad[at..].iter_mut().zip(bytes).for_each(|(old, new)| *old ^= new),
        // Another part of the same file, moved here.
        _ => {
            let len = bytes.len().min(bad.len() - at);
            let from = bytes.first().map_or(0, |first| usize::from(*first) * 64);
            let from = from.min(bad.len() - len);
            bad.copy_within(from..from + len, at);
        }
    }
    bad
}

fn read_all(path: &Path) -> Result<(), kvast::Error> {
    let db = open(path)?;
    let _ = db.verify(|_| {});
    let Some(users) = db.find_namespace("users") else { return Ok(()) };
    for nth in 0..30 {
        if let Ok(Some(found)) = users.get(format!("key:{nth:02}")) {
            assert_eq!(*found, value(nth), "key {nth} has a value that was never written");
        }
    }
    for nth in 0..4 {
        if let Ok(Some(found)) = users.get(format!("large:{nth}")) {
            assert_eq!(*found, large(nth), "large {nth} has a value that was never written");
        }
    }
    let page = users.list(&ListOptions::new().limit(7))?;
    if let Some(cursor) = page.cursor() {
        users.list(&ListOptions::new().cursor(cursor))?;
    }
    Ok(())
}

fuzz_target!(|input: &[u8]| {
    let Some(([file, low, high, what], bytes)) = input.split_first_chunk::<4>() else { return };
    let store = store();
    let nth = usize::from(*file) % store.files.len();
    let Some((name, good)) = store.files.iter().nth(nth) else { return };
    let at = usize::from(u16::from_le_bytes([*low, *high])) * 8;
    let path = store.dir.path().join(name);
    fs::write(&path, damage(good, at, *what, bytes)).expect("damage the file");
    let _ = read_all(store.dir.path());
    fs::write(&path, good).expect("mend the file");
});
