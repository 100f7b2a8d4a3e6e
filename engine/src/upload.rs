//! A value that is stored as it arrives, so that nobody needs all of it in memory.
//!
//! A value that is known to be large goes to a blob piece by piece. One of unknown length is kept in memory
//! up to 256 KiB first, since a small one is better off in the log, and as much room as the longest
//! value may take is set aside then.
//!
//! What always holds: nobody sees anything of an upload before [`Upload::commit`] has returned, and all
//! of it then; an upload that is dropped leaves the key as it was; the limits are checked as early as
//! they can be known; an upload takes little more memory than what is given here.

use crate::error::Error;
use crate::key;
use crate::namespace::Namespace;
use crate::options::PutOptions;
use crate::stage::Writing;

/// Pieces are gathered to writes of this length.
const PIECE_BYTES: u64 = 256 << 10;
/// A value of unknown length is not written before it has this length.
const UNKNOWN_BYTES: u64 = 256 << 10;

/// A value on its way into the store; from [`Namespace::put_stream`]. Dropping it gives it up.
///
/// ```
/// # fn main() -> Result<(), kvast::Error> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let db = kvast::Db::open(dir.path())?;
/// let files = db.namespace("files")?;
/// let mut upload = files.put_stream("a", None)?;
/// for _ in 0..100 {
///     upload.write(&[7; 10_000])?;
/// }
/// assert!(files.get("a")?.is_none());
/// let version = upload.commit(kvast::PutOptions::new())?;
/// let value = files.get("a")?.expect("it was just stored");
/// assert_eq!((value.len(), value.version()), (1_000_000, version));
/// # Ok(()) }
/// ```
pub struct Upload {
    namespace: Namespace,
    key: Vec<u8>,
    /// How many bytes may come: what the limit was at the beginning, since so much is set aside.
    longest: u64,
    /// What was announced.
    expected: Option<u64>,
    /// What has come.
    len: u64,
    /// The last of it, which was not written yet.
    buffer: Vec<u8>,
    /// The rest of it.
    writing: Option<Writing>,
    /// Why it can only be dropped.
    failed: Option<Error>,
}

impl Namespace {
    /// Begins to store a value that comes in pieces, of `len` bytes if that is known. The key keeps what
    /// it has until the upload is committed.
    ///
    /// # Errors
    /// [`Error::InvalidKey`], [`Error::ValueTooLarge`], [`Error::NamespaceNotFound`].
    pub fn put_stream(&self, key: impl AsRef<[u8]>, len: Option<u64>) -> Result<Upload, Error> {
        let key = key.as_ref();
        self.check_alive()?;
        let limits = &self.store.options;
        key::check(key, limits.max_key_bytes)?;
        let upload = Upload {
            namespace: self.clone(),
            key: key.to_vec(),
            longest: self.store.max_value_bytes(&self.state[0]),
            expected: len,
            len: 0,
            buffer: Vec::new(),
            writing: None,
            failed: None,
        };
        upload.check_limit(len.unwrap_or(0))?;
        Ok(upload)
    }
}

impl Upload {
    /// How many bytes have come.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether no byte has come.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn check_limit(&self, len: u64) -> Result<(), Error> {
        let max = self.longest;
        if len > max { Err(Error::ValueTooLarge { len, max }) } else { Ok(()) }
    }

    /// Takes the next piece. After an error the upload can only be dropped.
    ///
    /// # Errors
    /// [`Error::ValueTooLarge`] and [`Error::WrongLength`] as soon as too many bytes came,
    /// [`Error::DiskFull`], [`Error::Closed`], and what the system says.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let taken = self.take(bytes);
        self.failed = taken.as_ref().err().cloned();
        taken
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let found = self.len + bytes.len() as u64;
        self.check_limit(found)?;
        if let Some(expected) = self.expected.filter(|expected| found > *expected) {
            return Err(Error::WrongLength { expected, found });
        }
        self.len = found;
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() as u64 >= self.buffered_at_most() { self.flush() } else { Ok(()) }
    }

    fn buffered_at_most(&self) -> u64 {
        let large = self.namespace.store.options.large_value_bytes;
        match (self.expected, &self.writing) {
            (Some(expected), _) if expected < large => u64::MAX,
            (None, None) => UNKNOWN_BYTES.min(4 * large),
            _ => PIECE_BYTES.min(large),
        }
    }

    /// Writes what has come.
    fn flush(&mut self) -> Result<(), Error> {
        let store = &self.namespace.store;
        if self.writing.is_none() {
            let len = self.expected.unwrap_or(self.longest);
            self.writing = Some(store.stage.begin(len)?);
        }
        if let Some(writing) = &mut self.writing {
            writing.write(&self.buffer)?;
            self.buffer.clear();
        }
        Ok(())
    }

    /// Stores the value, in place of whatever the key has. Returns the new version.
    ///
    /// # Errors
    /// As [`Namespace::put_with`], and [`Error::WrongLength`] if too few bytes came. The key keeps what
    /// it had then.
    pub fn commit(mut self, options: PutOptions) -> Result<u64, Error> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let found = self.len;
        if let Some(expected) = self.expected.filter(|expected| found != *expected) {
            return Err(Error::WrongLength { expected, found });
        }
        if self.writing.is_none() {
            return self.namespace.put_with(&self.key, &self.buffer, options);
        }
        self.flush()?;
        let (namespace, key) = (&self.namespace, &self.key);
        let mut draft = namespace.store.draft(&namespace.state[0], key, &[], &options)?;
        let Some(writing) = self.writing else { unreachable!("it was seen above") };
        let staged = writing.finish()?;
        staged.refer(&mut draft);
        namespace.commit(&draft, &[staged], options.if_version)
    }
}

#[allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#[cfg(all(test, not(loom)))]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use crate::{Code, Db, Durability, Namespace, Options, PutOptions};

    const LARGE: u64 = 10_000;

    fn options() -> Options {
        let mut options = Options::new()
            .durability(Durability::Os)
            .segment_bytes(256 << 10)
            .max_value_bytes(200_000)
            .background(false);
        options.large_value_bytes = LARGE;
        options
    }

    fn value(len: usize, seed: u8) -> Vec<u8> {
        (0..len).map(|at| (at % 251) as u8 ^ seed).collect()
    }

    fn upload(namespace: &Namespace, key: &str, len: Option<u64>, value: &[u8]) -> u64 {
        let mut upload = namespace.put_stream(key, len).unwrap();
        value.chunks(7001).for_each(|piece| upload.write(piece).unwrap());
        assert_eq!(upload.len(), value.len() as u64);
        upload.commit(PutOptions::new().metadata(*b"{}")).unwrap()
    }

    fn blobs(dir: &Path) -> usize {
        let names = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name());
        names.filter(|name| name.to_string_lossy().ends_with(".blob")).count()
    }

    fn copy(from: &Path, to: &Path) {
        std::fs::create_dir_all(to).unwrap();
        for entry in std::fs::read_dir(from).unwrap() {
            let path = entry.unwrap().path();
            std::fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
        }
    }

    fn assert_holds(db: &Db, key: &str, want: &[u8]) {
        let found = db.find_namespace("files").unwrap().get(key).unwrap().unwrap();
        assert!(*found == *want, "{key} has {} bytes, not those that it should", found.len());
        assert!(db.verify(|_| {}).unwrap().is_sound());
    }

    #[test]
    fn values_of_every_length_come_back_as_they_were_uploaded() {
        let dir = tempfile::tempdir().unwrap();
        let db = options().open(dir.path()).unwrap();
        let files = db.namespace("files").unwrap();
        let lens = [0, 1, 9999, 10_000, 10_001, 39_999, 40_001, 65_536, 65_537, 131_072, 200_000];
        for len in lens {
            for announced in [None, Some(len as u64)] {
                let key = format!("{len}:{announced:?}");
                let version = upload(&files, &key, announced, &value(len, 1));
                let found = files.get(&key).unwrap().unwrap();
                assert_eq!((found.version(), found.metadata()), (version, Some(&b"{}"[..])));
                files.put(&key, value(len, 2)).unwrap();
                assert_holds(&db, &key, &value(len, 2));
                upload(&files, &key, announced, &value(len, 3));
            }
        }
        let stats = db.stats();
        let live: usize = lens.iter().map(|len| 2 * len).sum();
        assert!(stats.live_bytes > live as u64 && stats.live_bytes < live as u64 + 200_000);
        drop((files, db));
        let db = options().open(dir.path()).unwrap();
        assert_eq!(db.stats().live_bytes, stats.live_bytes, "derived anew, and the same");
        for len in lens {
            assert_holds(&db, &format!("{len}:None"), &value(len, 3));
        }
        assert!(blobs(dir.path()) > 1);
    }

    #[test]
    fn a_store_that_was_killed_has_its_large_values() {
        let dir = tempfile::tempdir().unwrap();
        let (store, killed) = (dir.path().join("store"), dir.path().join("killed"));
        let db = options().open(&store).unwrap();
        let files = db.namespace("files").unwrap();
        files.put("a", value(50_000, 1)).unwrap();
        upload(&files, "b", None, &value(150_000, 2));
        let mut unfinished = files.put_stream("a", None).unwrap();
        unfinished.write(&value(100_000, 9)).unwrap();
        copy(&store, &killed);
        let db = options().open(&killed).unwrap();
        assert_holds(&db, "a", &value(50_000, 1));
        assert_holds(&db, "b", &value(150_000, 2));
        upload(&db.namespace("files").unwrap(), "c", None, &value(60_000, 3));
        drop(db);
        let db = options().open(&killed).unwrap();
        for (key, len, seed) in [("a", 50_000, 1), ("b", 150_000, 2), ("c", 60_000, 3)] {
            assert_holds(&db, key, &value(len, seed));
        }
    }

    #[test]
    fn uploads_that_are_given_up_leave_the_key_and_their_space_is_taken_back() {
        let dir = tempfile::tempdir().unwrap();
        let db = options().open(dir.path()).unwrap();
        let files = db.namespace("files").unwrap();
        files.put("a", value(50_000, 1)).unwrap();
        for _ in 0..20 {
            let mut upload = files.put_stream("a", Some(100_000)).unwrap();
            upload.write(&value(90_000, 2)).unwrap();
        }
        assert!(blobs(dir.path()) > 3);
        for nth in 0..20 {
            files.put("b", value(40_000, nth)).unwrap();
        }
        db.compact().unwrap();
        assert_holds(&db, "a", &value(50_000, 1));
        assert_holds(&db, "b", &value(40_000, 19));
        let stats = db.stats();
        assert!(stats.record_bytes < 2 * stats.live_bytes + (256 << 10), "{stats:?}");
        drop((files, db));
        let db = options().open(dir.path()).unwrap();
        assert_holds(&db, "a", &value(50_000, 1));
        assert_holds(&db, "b", &value(40_000, 19));
        assert_eq!(db.stats().live_bytes, stats.live_bytes);
    }

    #[test]
    fn a_wrong_length_is_refused_and_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let db = options().open(dir.path()).unwrap();
        let files = db.namespace("files").unwrap();
        for len in [100, 50_000] {
            let mut upload = files.put_stream("a", Some(len)).unwrap();
            upload.write(&value(len as usize - 1, 1)).unwrap();
            assert_eq!(upload.commit(PutOptions::new()).unwrap_err().code(), Code::WrongLength);
            let mut upload = files.put_stream("a", Some(len)).unwrap();
            let refused = upload.write(&value(len as usize + 1, 1)).unwrap_err();
            assert_eq!(refused.code(), Code::WrongLength);
            assert_eq!(upload.write(b"").unwrap_err().code(), Code::WrongLength);
            assert_eq!(upload.commit(PutOptions::new()).unwrap_err().code(), Code::WrongLength);
        }
        let refused = files.put_stream("a", Some(200_001)).err().unwrap();
        assert_eq!(refused.code(), Code::ValueTooLarge);
        let mut upload = files.put_stream("a", None).unwrap();
        upload.write(&value(200_000, 1)).unwrap();
        assert_eq!(upload.write(b"1").unwrap_err().code(), Code::ValueTooLarge);
        drop(upload);
        assert!(files.get("a").unwrap().is_none());
    }

    #[test]
    fn conditions_hold_at_the_commit_of_an_upload() {
        let dir = tempfile::tempdir().unwrap();
        let db = options().open(dir.path()).unwrap();
        let files = db.namespace("files").unwrap();
        let mut two = [0, 1].map(|_| files.put_stream("a", None).unwrap());
        two.iter_mut().for_each(|upload| upload.write(&value(50_000, 1)).unwrap());
        let [first, second] = two;
        let version = first.commit(PutOptions::new().if_absent()).unwrap();
        let refused = second.commit(PutOptions::new().if_absent()).unwrap_err();
        assert_eq!(refused.code(), Code::VersionMismatch);
        let mut third = files.put_stream("a", None).unwrap();
        third.write(&value(60_000, 2)).unwrap();
        third.commit(PutOptions::new().if_version(version)).unwrap();
        assert_holds(&db, "a", &value(60_000, 2));
    }

    #[test]
    fn a_large_value_expires_and_its_space_is_taken_back() {
        let dir = tempfile::tempdir().unwrap();
        let clock = crate::clock::ManualClock::new(1_700_000_000_000);
        let open = || {
            let mut options = options();
            options.clock = clock.clone();
            options.open(dir.path()).unwrap()
        };
        let db = open();
        let files = db.namespace("files").unwrap();
        let until = PutOptions::new().expires_in(Duration::from_secs(60));
        files.put("session", b"older and without expiry").unwrap();
        for nth in 0..4 {
            files.put(format!("stays:{nth}"), value(20_000, nth)).unwrap();
            files.put_with("session", value(50_000, nth), until.clone()).unwrap();
        }
        clock.advance(59_000);
        assert_holds(&db, "session", &value(50_000, 3));
        clock.advance(180_000);
        for _ in 0..3 {
            db.compact().unwrap();
            assert!(files.get("session").unwrap().is_none());
        }
        let before = db.stats();
        assert!(before.live_bytes < 120_000, "{before:?}");
        drop((files, db));
        let db = open();
        let files = db.namespace("files").unwrap();
        assert!(files.get("session").unwrap().is_none());
        (0..4).for_each(|nth| assert_holds(&db, &format!("stays:{nth}"), &value(20_000, nth)));
    }

    #[test]
    fn an_upload_can_be_handed_to_another_thread() {
        fn is_send<T: Send + 'static>() {}
        is_send::<crate::Upload>();
    }

    #[test]
    fn an_open_upload_does_not_hold_up_close_and_ends_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let db = options().open(dir.path()).unwrap();
        let files = db.namespace("files").unwrap();
        let mut begun = files.put_stream("a", Some(150_000)).unwrap();
        begun.write(&value(100_000, 1)).unwrap();
        let mut whole = files.put_stream("b", Some(50_000)).unwrap();
        whole.write(&value(50_000, 1)).unwrap();
        db.close().unwrap();
        let next = options().open(dir.path()).unwrap();
        upload(&next.namespace("files").unwrap(), "a", None, &value(120_000, 2));
        assert_eq!(begun.write(&value(50_000, 1)).unwrap_err().code(), Code::Closed);
        assert_eq!(whole.commit(PutOptions::new()).unwrap_err().code(), Code::Closed);
        assert_holds(&next, "a", &value(120_000, 2));
        drop((begun, files));
        assert_holds(&next, "a", &value(120_000, 2));
    }

    #[test]
    fn a_batch_with_large_values_is_one_commit() {
        let dir = tempfile::tempdir().unwrap();
        let db = options().open(dir.path()).unwrap();
        let files = db.namespace("files").unwrap();
        let mut batch = db.batch();
        for nth in 0..10 {
            batch.put(&files, format!("{nth}"), value(60_000, nth)).unwrap();
        }
        assert!(batch.byte_len() < 1000);
        assert!(files.get("0").unwrap().is_none());
        batch.commit().unwrap();
        (0..10).for_each(|nth| assert_holds(&db, &format!("{nth}"), &value(60_000, nth)));
    }

    #[test]
    fn values_of_unknown_length_share_a_blob_however_long_they_might_have_been() {
        let dir = tempfile::tempdir().unwrap();
        let db = options().max_value_bytes(1 << 20).open(dir.path()).unwrap();
        let files = db.namespace("files").unwrap();
        for nth in 0..20 {
            upload(&files, &format!("{nth}"), None, &value(50_000, nth));
        }
        assert_eq!(blobs(dir.path()), 4, "five in each, with 256 KiB and what the last one adds");
    }

    #[test]
    fn room_that_was_set_aside_in_vain_hides_nothing_of_what_is_dead() {
        let dir = tempfile::tempdir().unwrap();
        let db = options().open(dir.path()).unwrap();
        let files = db.namespace("files").unwrap();
        files.put("a", value(60_000, 1)).unwrap();
        files.delete("a").unwrap();
        let mut uploads = ["a", "b"].map(|key| files.put_stream(key, None).unwrap());
        uploads.iter_mut().for_each(|upload| upload.write(&value(45_000, 2)).unwrap());
        let [kept, given_up] = uploads;
        kept.commit(PutOptions::new()).unwrap();
        drop(given_up);
        let stats = db.stats();
        assert!((60_000..70_000).contains(&stats.dead_bytes), "{stats:?}");
    }

    #[test]
    fn a_checkpoint_has_the_large_values_of_its_moment() {
        let dir = tempfile::tempdir().unwrap();
        let (store, copy) = (dir.path().join("store"), dir.path().join("copy"));
        let db = options().open(&store).unwrap();
        let files = db.namespace("files").unwrap();
        for nth in 0..10 {
            files.put(format!("{nth}"), value(60_000, nth)).unwrap();
        }
        db.compact().unwrap();
        let mut begun = files.put_stream("0", None).unwrap();
        begun.write(&value(100_000, 77)).unwrap();
        db.checkpoint(&copy).unwrap();
        begun.commit(PutOptions::new()).unwrap();
        let copied = options().open(&copy).unwrap();
        assert!(copied.recovery().repairs.is_empty(), "{}", copied.recovery());
        (0..10).for_each(|nth| assert_holds(&copied, &format!("{nth}"), &value(60_000, nth)));
        upload(&copied.namespace("files").unwrap(), "0", None, &value(50_000, 5));
        assert_holds(&copied, "0", &value(50_000, 5));
        assert_holds(&db, "0", &value(100_000, 77));
    }
}
