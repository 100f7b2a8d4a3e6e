//! Promise: what was acknowledged is there after the power was cut, after a write or sync failed, and
//! after the disk was full; what was not is there whole or not at all; and nothing that was deleted or
//! has expired comes back.
//!
//! How it is attacked: the store writes through a seam that records every change to the file system.
//! From the record, disks are made as they may look if power is cut after any of the changes, in the
//! strict reading of POSIX: a name is there if its directory was synced (the store's own in its
//! parent too), bytes if their file was; the rest is lost, or kept in part, or torn at 512 bytes, or
//! zeros. Each such disk must open, hold exactly what it should, take writes, and survive another cut.
//! Separately, each kind of change is made to fail, one after the other.
//!
//! Replay: a failure prints the cut and the kind of loss; `SEED=...` repeats the random choices.

use std::path::Path;
use std::sync::Arc;

use kvast::testing::{Hook, ManualClock};
use kvast::{Code, Db, Durability, Error, Options, PutOptions, Upload};

mod support;

use support::contents::{Change, Contents, delete, handle, perform, put, put_until, read_all};
use support::disk::{EIO, ENOSPC, Event, Image, Injector, Killer, LOSSES, Loss, Recorder, Target};
use support::rng::{self, Rng};
use support::scratch_dir;

const START_MS: u64 = 1_700_000_000_000;

/// One step in the life of a store.
#[derive(Clone, Debug)]
enum Step {
    Change(Change),
    /// So many milliseconds go by.
    Pass(u64),
    Compact,
    /// Begin to upload so many bytes to `first`, and give that up.
    GiveUp(usize),
    /// Close and open.
    Reopen,
}

/// What was done to a store, and where in the record of its disk each change began and ended.
struct Story {
    recorder: Arc<Recorder>,
    /// What the store holds after each change; the first is a new store.
    states: Vec<Contents>,
    marks: Vec<Mark>,
    /// The time from each place of the record on.
    times: Vec<(usize, u64)>,
    now_ms: u64,
}

struct Mark {
    begin: usize,
    /// Acknowledged once the record is this long.
    end: usize,
}

impl Story {
    fn new(recorder: Arc<Recorder>, state: Contents, now_ms: u64) -> Story {
        let (states, times) = (vec![state], vec![(0, now_ms)]);
        Story { recorder, states, marks: Vec::new(), times, now_ms }
    }

    fn options(&self, durability: Durability) -> Options {
        options(durability, self.now_ms).disk_hook(self.recorder.clone())
    }

    fn last(&self) -> &Contents {
        self.states.last().expect("there is always one")
    }

    fn tell(&mut self, db: &Db, change: &Change) -> Result<(), Error> {
        let begin = self.recorder.len();
        perform(db, change)?;
        self.acknowledge(begin, change);
        Ok(())
    }

    /// Notes a change that was acknowledged now, and that began when the record was `begin` long.
    fn acknowledge(&mut self, begin: usize, change: &Change) {
        self.marks.push(Mark { begin, end: self.recorder.len() });
        let mut state = self.last().clone();
        state.apply(change);
        self.states.push(state);
    }

    /// Which states a store may be in if power is cut once the record is `cut` long: from the last
    /// that was acknowledged to the last that was begun.
    fn allowed(&self, cut: usize) -> std::ops::RangeInclusive<usize> {
        let acknowledged = self.marks.iter().filter(|mark| mark.end <= cut).count();
        let begun = self.marks.iter().filter(|mark| mark.begin < cut).count();
        acknowledged..=begun.max(acknowledged)
    }

    fn time_at(&self, cut: usize) -> u64 {
        let at = self.times.iter().rev().find(|(from, _)| *from <= cut);
        at.map_or(self.now_ms, |(_, now_ms)| *now_ms)
    }
}

fn options(durability: Durability, now_ms: u64) -> Options {
    Options::new()
        .durability(durability)
        .segment_bytes(64 << 10)
        .large_value_bytes(3500)
        .background(false)
        .clock(ManualClock::new(now_ms))
}

/// Does what the steps say.
fn live(path: &Path, steps: &[Step], durability: Durability) -> Story {
    let recorder = Arc::new(Recorder::default());
    let mut story = Story::new(recorder, Contents::default(), START_MS);
    let clock = ManualClock::new(START_MS);
    let open = |story: &Story| story.options(durability).clock(clock.clone()).open(path);
    let mut db = open(&story).expect("open a new store");
    for step in steps {
        match step {
            Step::Change(change) => story.tell(&db, change).expect("a change"),
            Step::Pass(ms) => {
                clock.advance(*ms);
                story.now_ms += ms;
                story.times.push((story.recorder.len(), story.now_ms));
            }
            Step::Compact => db.compact().expect("compact"),
            Step::GiveUp(len) => give_up(&db, *len).expect("an upload"),
            Step::Reopen => {
                db.close().expect("close");
                db = open(&story).expect("open again");
            }
        }
    }
    db.close().expect("close");
    story
}

fn give_up(db: &Db, len: usize) -> Result<(), Error> {
    let mut upload = handle(db, "users").put_stream("first", Some(len as u64))?;
    upload.write(&vec![7; len - 1])
}

/// A life that has everything in it: creation, rotation, overwriting, expiry, batches, prefix deletes,
/// large values in blobs, compaction of them too, closing, a namespace that comes and goes.
fn a_full_life(rng: &mut Rng) -> Vec<Step> {
    let mut steps = vec![
        Step::Change(Change::CreateNamespace("users".into())),
        Step::Change(put("users", b"first", b"1")),
        Step::Change(Change::CreateNamespace("doomed".into())),
    ];
    let mut now_ms = START_MS;
    for round in 0..5u64 {
        for nth in 0..22u64 {
            let key = format!("key:{:02}", rng.below(30));
            let len = 200 + rng.len(4000);
            let value = rng.bytes(len);
            steps.push(Step::Change(match rng.below(8) {
                0 => delete("users", key.as_bytes()),
                1 => put_until("users", key.as_bytes(), &value, now_ms + 1 + rng.below(5000)),
                2 => put("doomed", key.as_bytes(), &value),
                _ => put("users", key.as_bytes(), &value),
            }));
            if nth % 7 == 3 {
                let ms = rng.below(2000);
                now_ms += ms;
                steps.push(Step::Pass(ms));
            }
        }
        let batch =
            (0..5).map(|nth| put("users", format!("batch:{nth}").as_bytes(), &[round as u8]));
        steps.push(Step::GiveUp(20_000));
        let batch = batch.chain([put("users", b"batch:large", &rng.bytes(4000))]);
        steps.push(Step::Change(Change::Batch(batch.chain([delete("users", b"first")]).collect())));
        steps.push(Step::Compact);
        match round {
            0 => steps.push(Step::Reopen),
            1 => steps.push(Step::Change(Change::DeletePrefix {
                namespace: "users".into(),
                prefix: b"key:1".to_vec(),
            })),
            2 => steps.push(Step::Change(put("users", b"large", &rng.bytes(90_000)))),
            3 => {
                steps.push(Step::Change(Change::DeleteNamespace("doomed".into())));
                steps.push(Step::Compact);
                steps.push(Step::Change(Change::CreateNamespace("doomed".into())));
            }
            _ => {}
        }
        steps.push(Step::Pass(3000));
        now_ms += 3000;
    }
    steps.push(Step::Compact);
    steps
}

/// A place and kind of a power cut, for messages.
#[derive(Clone, Copy, Debug)]
#[allow(dead_code, reason = "printed when a test fails")]
struct Cut {
    seed: u64,
    at: usize,
    loss: Loss,
    second: Option<(usize, Loss)>,
}

/// Compares a store with the states that it may be in, and returns the one it is in.
fn check(db: &Db, story: &Story, at: usize, cut: Cut) -> usize {
    let found = read_all(db).unwrap_or_else(|error| panic!("{cut:?}: {error}"));
    let now_ms = story.time_at(at);
    let allowed = story.allowed(at);
    let differences: Vec<_> = allowed
        .clone()
        .map(|state| (state, story.states[state].live(now_ms).difference(&found)))
        .collect();
    match differences.iter().find(|(_, difference)| difference.is_none()) {
        Some((state, _)) => *state,
        None => panic!("{cut:?}: none of {differences:?}; {}", db.recovery()),
    }
}

fn open_after(path: &Path, now_ms: u64, cut: Cut, hook: Arc<dyn Hook>) -> Db {
    let opened = options(Durability::Sync, now_ms).disk_hook(hook).open(path);
    opened.unwrap_or_else(|error| panic!("{cut:?}: {error}"))
}

/// Cuts the power at `at`, opens what is left, writes on, and cuts again at a few places.
fn cut_and_cut_again(story: &Story, image: &Image, root: &Path, mut cut: Cut, rng: &mut Rng) {
    let first = scratch_dir();
    image.materialise(cut.loss, rng, root, first.path()).expect("write the image");
    let path = first.path().join("deep/er/store");
    let before = Image::of(first.path()).expect("read the image");
    let recorder = Arc::new(Recorder::default());
    let now_ms = story.time_at(cut.at);
    let db = open_after(&path, now_ms, cut, recorder.clone());
    let state = check(&db, story, cut.at, cut);
    let mut sequel = Story::new(recorder, story.states[state].clone(), now_ms);
    write_on(&db, &mut sequel, rng).unwrap_or_else(|error| panic!("{cut:?}: writing on: {error}"));
    check(&db, &sequel, sequel.recorder.len(), cut);
    drop(db);

    let events = sequel.recorder.events();
    for _ in 0..2 {
        let (at, loss) = (rng.len(events.len() + 1), *rng.pick(&LOSSES));
        cut.second = Some((at, loss));
        let mut image = before.clone();
        events[..at].iter().for_each(|event| image.play(event));
        let second = scratch_dir();
        image.materialise(loss, rng, first.path(), second.path()).expect("write the image");
        let path = second.path().join("deep/er/store");
        let db = open_after(&path, now_ms, cut, Arc::new(Recorder::default()));
        check(&db, &sequel, at, cut);
    }
}

fn write_on(db: &Db, sequel: &mut Story, rng: &mut Rng) -> Result<(), Error> {
    let namespace = "users".to_owned();
    if !sequel.last().0.contains_key(&namespace) {
        sequel.tell(db, &Change::CreateNamespace(namespace.clone()))?;
    }
    for nth in 0..4 {
        let key = format!("key:{:02}", rng.below(30));
        let len = rng.len(9000);
        sequel.tell(db, &put(&namespace, key.as_bytes(), &rng.bytes(len)))?;
        if nth == 1 {
            sequel.tell(db, &delete(&namespace, key.as_bytes()))?;
        }
        if nth == 2 && rng.one_in(3) {
            db.compact()?;
        }
    }
    Ok(())
}

fn debug_share(every: usize) -> usize {
    if cfg!(debug_assertions) { every * 4 } else { every }
}

/// Cuts the power after every change to the disk, with every kind of loss, or with one in so many.
fn cut_everywhere(story: &Story, root: &Path, seed: u64, one_in: usize, rng: &mut Rng) {
    let events = story.recorder.events();
    // The disk begins empty: not even the store's directory is there.
    let mut image = Image::default();
    let mut cuts = 0;
    for at in 0..=events.len() {
        if at > 0 {
            image.play(&events[at - 1]);
        }
        for loss in LOSSES {
            if rng.one_in(debug_share(one_in) as u64) {
                let cut = Cut { seed, at, loss, second: None };
                cut_and_cut_again(story, &image, root, cut, rng);
                cuts += 1;
            }
        }
    }
    println!("{} changes to the disk, {cuts} cuts, {} second cuts", events.len(), 2 * cuts);
}

/// An upload that other steps come between.
struct OpenUpload {
    upload: Upload,
    key: Vec<u8>,
    value: Vec<u8>,
}

impl OpenUpload {
    fn begin(db: &Db, key: Vec<u8>, value: Vec<u8>, length_is_known: bool) -> OpenUpload {
        let len = length_is_known.then_some(value.len() as u64);
        let upload = handle(db, "users").put_stream(&key, len).expect("begin an upload");
        OpenUpload { upload, key, value }
    }

    fn feed(&mut self, len: usize) {
        let at = self.upload.len() as usize;
        let piece = &self.value[at..self.value.len().min(at.saturating_add(len))];
        self.upload.write(piece).expect("write a piece");
    }

    fn finish(mut self, story: &mut Story) {
        self.feed(usize::MAX);
        let begin = story.recorder.len();
        self.upload.commit(PutOptions::new()).expect("commit an upload");
        story.acknowledge(begin, &put("users", &self.key, &self.value));
    }
}

/// A life in which uploads stay open while keys are put, touched and deleted, and blobs compacted.
fn live_beside_open_uploads(path: &Path, rng: &mut Rng) -> Story {
    let mut story = Story::new(Arc::new(Recorder::default()), Contents::default(), START_MS);
    let db = story.options(Durability::Sync).open(path).expect("open a new store");
    story.tell(&db, &Change::CreateNamespace("users".into())).expect("create");
    let mut open: Vec<OpenUpload> = Vec::new();
    for _ in 0..150 {
        let key = format!("key:{:02}", rng.below(20)).into_bytes();
        let (len, is_known) = (3000 + rng.len(12_000), rng.one_in(2));
        let value = rng.bytes(len);
        match rng.below(9) {
            0 | 1 => open.push(OpenUpload::begin(&db, key, value, is_known)),
            2 | 3 => open.iter_mut().for_each(|upload| upload.feed(3000)),
            4 if !open.is_empty() => open.remove(0).finish(&mut story),
            5 if rng.one_in(3) => db.compact().expect("compact"),
            6 if story.last().get("users", &key).is_some() => {
                let expires_at = rng.one_in(2).then_some(START_MS + 1_000_000);
                let namespace = "users".to_owned();
                let touch = Change::SetExpiry { namespace, key, expires_at, version: 0 };
                story.tell(&db, &touch).expect("touch");
            }
            7 => story.tell(&db, &delete("users", &key)).expect("delete"),
            _ => story.tell(&db, &put("users", &key, &value)).expect("put"),
        }
    }
    drop(open);
    db.compact().expect("compact");
    db.close().expect("close");
    story
}

#[test]
fn uploads_that_stay_open_beside_everything_else_survive_power_cuts() {
    let seed = rng::seed();
    println!("SEED={seed}");
    let mut rng = Rng::new(seed);
    let root = scratch_dir();
    let story = live_beside_open_uploads(&root.path().join("deep/er/store"), &mut rng);
    cut_everywhere(&story, root.path(), seed, 4, &mut rng);
}

#[test]
fn what_was_acknowledged_survives_power_cuts_at_every_step_and_a_second_one() {
    let seed = rng::seed();
    println!("SEED={seed}");
    let mut rng = Rng::new(seed);
    let root = scratch_dir();
    let steps = a_full_life(&mut rng);
    let story = live(&root.path().join("deep/er/store"), &steps, Durability::Sync);
    let events = story.recorder.events();
    cut_everywhere(&story, root.path(), seed, 1, &mut rng);
    let is_gone = |event: &Event, extension: &str| matches!(event, Event::Remove(path) if path.to_string_lossy().ends_with(extension));
    assert!(events.iter().any(|event| is_gone(event, ".log")), "compaction took part");
    assert!(events.iter().any(|event| is_gone(event, ".blob")), "blobs were compacted");
}

#[test]
fn without_syncs_a_power_cut_leaves_what_was_synced_and_a_prefix_of_the_rest() {
    let seed = rng::seed();
    println!("SEED={seed}");
    let mut rng = Rng::new(seed);
    let root = scratch_dir();
    let path = root.path().join("store");
    let recorder = Arc::new(Recorder::default());
    let mut story = Story::new(recorder, Contents::default(), START_MS);
    let db = story.options(Durability::Os).open(&path).expect("open a new store");
    story.tell(&db, &Change::CreateNamespace("users".into())).expect("create");
    let mut synced = vec![(0, 0)];
    for nth in 0..150u64 {
        let key = format!("key:{:02}", rng.below(40));
        // Many lie in blobs.
        let len = if rng.one_in(4) { 3500 + rng.len(4000) } else { rng.len(4000) };
        let change = match rng.below(10) {
            0 => delete("users", key.as_bytes()),
            1 => {
                let puts =
                    (0..6).map(|nth| put("users", format!("b:{nth}").as_bytes(), &[nth; 700]));
                Change::Batch(puts.collect())
            }
            _ => put("users", key.as_bytes(), &rng.bytes(len)),
        };
        story.tell(&db, &change).expect("a change");
        if nth % 60 == 11 {
            db.sync().expect("sync");
            synced.push((story.recorder.len(), story.marks.len()));
        }
        // Logs with much that was not synced are sealed.
        if nth % 30 == 20 {
            db.compact().expect("compact");
        }
    }
    drop(db);

    let events = story.recorder.events();
    let mut image = Image::default();
    for at in 0..=events.len() {
        if at > 0 {
            image.play(&events[at - 1]);
        }
        for loss in LOSSES {
            if !rng.one_in(debug_share(1) as u64) {
                continue;
            }
            let cut = Cut { seed, at, loss, second: None };
            let dir = scratch_dir();
            image.materialise(loss, &mut rng, root.path(), dir.path()).expect("write the image");
            let path = dir.path().join("store");
            let db = open_after(&path, START_MS, cut, Arc::new(Recorder::default()));
            let found = read_all(&db).unwrap_or_else(|error| panic!("{cut:?}: {error}"));
            let promised = synced.iter().rev().find(|(from, _)| *from <= at).map_or(0, |it| it.1);
            let begun = *story.allowed(at).end();
            let fits = (promised..=begun)
                .rev()
                .any(|state| story.states[state].difference(&found).is_none());
            assert!(fits, "{cut:?}: no state from {promised} to {begun}; {}", db.recovery());
        }
    }
}

#[test]
fn a_synced_write_after_a_kill_makes_durable_what_the_killed_process_left_unsynced() {
    write_after_kill(false);
}

#[test]
fn a_synced_write_after_a_kill_makes_durable_what_the_killed_process_failed_to_sync() {
    write_after_kill(true);
}

fn write_after_kill(a_sync_had_failed: bool) {
    let root = scratch_dir();
    let path = root.path().join("store");
    let recorder = Arc::new(Recorder::default());
    let mut story = Story::new(recorder, Contents::default(), START_MS);
    let db = story.options(Durability::Os).open(&path).expect("open a new store");
    story.tell(&db, &Change::CreateNamespace("users".into())).expect("create");
    db.sync().expect("sync");
    for nth in 0..60u64 {
        // One in three lies in a blob.
        let len = if nth % 3 == 0 { 5000 } else { 3000 };
        let key = format!("key:{}", nth % 45);
        let change = put("users", key.as_bytes(), &vec![nth as u8; len]);
        story.tell(&db, &change).expect("a change");
    }
    // The process is killed: what it wrote is in the page cache, not on disk.
    let killed_at = story.recorder.len();
    drop(db);
    let mut image = Image::default();
    story.recorder.events()[..killed_at].iter().for_each(|event| image.play(event));
    let second = scratch_dir();
    let mut rng = Rng::new(1);
    image.materialise(Loss::Nothing, &mut rng, root.path(), second.path()).expect("write");
    let mut image = image.moved(root.path(), second.path());
    if a_sync_had_failed {
        image.lose_unsynced_bytes();
    }

    // Its successor writes one thing, and the power is cut.
    let recorder = Arc::new(Recorder::default());
    let mut sequel = Story::new(recorder, story.last().clone(), START_MS);
    let path = second.path().join("store");
    let db = sequel.options(Durability::Sync).open(&path).expect("open after the kill");
    sequel.tell(&db, &put("users", b"last", b"acknowledged")).expect("a synced put");
    sequel.recorder.events().iter().for_each(|event| image.play(event));
    let third = scratch_dir();
    image.materialise(Loss::Strict, &mut rng, second.path(), third.path()).expect("write");
    let cut = Cut { seed: 1, at: sequel.recorder.len(), loss: Loss::Strict, second: None };
    let path = third.path().join("store");
    let db = open_after(&path, START_MS, cut, Arc::new(Recorder::default()));
    check(&db, &sequel, cut.at, cut);
}

#[test]
fn a_creation_that_was_killed_at_any_step_is_made_durable_by_the_next_session() {
    let mut rng = Rng::new(1);
    for step in 0.. {
        let root = scratch_dir();
        let path = root.path().join("deep/er/store");
        let killer = Arc::new(Killer::new());
        killer.kill_after(step, rng.next() >> 1);
        let first = Arc::new(Recorder::judged_by(killer.clone()));
        let opened = options(Durability::Sync, START_MS).disk_hook(first.clone()).open(&path);
        let is_over = opened.is_ok() && !killer.is_dead();
        drop(opened);

        let recorder = Arc::new(Recorder::default());
        let mut story = Story::new(recorder, Contents::default(), START_MS);
        let db = story.options(Durability::Sync).open(&path).expect("finish the creation");
        story.tell(&db, &Change::CreateNamespace("users".into())).expect("create");
        story.tell(&db, &put("users", b"key", b"acknowledged")).expect("put");
        drop(db);
        let mut image = Image::default();
        let events = [first.events(), story.recorder.events()].concat();
        events.iter().for_each(|event| image.play(event));
        let copy = scratch_dir();
        image.materialise(Loss::Strict, &mut rng, root.path(), copy.path()).expect("write");
        let cut = Cut { seed: step, at: story.recorder.len(), loss: Loss::Strict, second: None };
        let path = copy.path().join("deep/er/store");
        let db = open_after(&path, START_MS, cut, Arc::new(Recorder::default()));
        check(&db, &story, cut.at, cut);
        if is_over {
            assert!(step > 6, "a creation has more steps than {step}");
            return;
        }
    }
}

#[test]
fn retired_segments_stay_gone_when_the_manifest_is_rewritten_and_the_power_is_cut() {
    let seed = rng::seed();
    println!("SEED={seed}");
    let mut rng = Rng::new(seed);
    let root = scratch_dir();
    let path = root.path().join("store");
    let recorder = Arc::new(Recorder::default());
    let mut story = Story::new(recorder, Contents::default(), START_MS);
    let db = story.options(Durability::Sync).open(&path).expect("open a new store");
    story.tell(&db, &Change::CreateNamespace("users".into())).expect("create");
    // Overwrite a few keys until the manifest has grown so far that it is rewritten.
    let mut rounds = 0..2000u64;
    let rewritten_at = loop {
        let round = rounds.next().expect("the manifest is rewritten at last");
        let key = format!("key:{}", round % 3);
        story.tell(&db, &put("users", key.as_bytes(), &vec![round as u8; 40_000])).expect("put");
        story.tell(&db, &delete("users", b"key:0")).expect("delete");
        let begin = story.recorder.len();
        db.compact().expect("compact");
        let is_rename = |event: &Event| matches!(event, Event::Rename(..));
        if let Some(at) = story.recorder.events_from(begin).iter().position(is_rename) {
            break begin + at;
        }
    };
    story.tell(&db, &put("users", b"after", b"the rewriting")).expect("put");
    drop(db);

    let events = story.recorder.events();
    let mut image = Image::default();
    for at in 0..=events.len() {
        if at > 0 {
            image.play(&events[at - 1]);
        }
        if at + 40 < rewritten_at {
            continue;
        }
        for loss in LOSSES {
            let cut = Cut { seed, at, loss, second: None };
            let dir = scratch_dir();
            image.materialise(loss, &mut rng, root.path(), dir.path()).expect("write the image");
            let path = dir.path().join("store");
            let db = open_after(&path, START_MS, cut, Arc::new(Recorder::default()));
            check(&db, &story, at, cut);
        }
    }
}

/// How far a life got before a change failed.
struct Failed {
    /// What was acknowledged.
    acknowledged: Contents,
    /// What failed, if it was a write; it may be there after the store is opened again.
    in_doubt: Option<Change>,
}

/// Lives until the injected failure has done its work, and holds the store to its promises.
fn live_with_failures(
    path: &Path,
    steps: &[Step],
    target: Target,
    errno: i32,
    nth: u64,
) -> Option<()> {
    let context = format!("errno {errno} at {target:?} number {nth}");
    let injector = Arc::new(Injector::new(target, errno, nth, 1));
    let recorder = Arc::new(Recorder::judged_by(injector.clone()));
    let mut story = Story::new(recorder, Contents::default(), START_MS);
    let clock = ManualClock::new(START_MS);
    let opened = story.options(Durability::Sync).clock(clock.clone()).open(path);
    let mut db = match opened {
        Ok(db) => db,
        Err(error) => {
            assert_fault(&error, errno, &context);
            let db = options(Durability::Sync, START_MS).open(path);
            let db = db.unwrap_or_else(|error| panic!("{context}: opening again: {error}"));
            assert!(db.namespaces().is_empty(), "{context}");
            return Some(());
        }
    };
    let mut failed = None;
    for step in steps {
        let result = match step {
            Step::Change(change) => story.tell(&db, change),
            Step::Pass(ms) => {
                clock.advance(*ms);
                story.now_ms += ms;
                Ok(())
            }
            Step::Compact => db.compact(),
            Step::GiveUp(len) => give_up(&db, *len),
            Step::Reopen => match db.close() {
                Ok(()) => {
                    db = match story.options(Durability::Sync).clock(clock.clone()).open(path) {
                        Ok(db) => db,
                        Err(error) => {
                            assert_fault(&error, errno, &context);
                            options(Durability::Sync, story.now_ms)
                                .open(path)
                                .unwrap_or_else(|error| panic!("{context}: {error}"))
                        }
                    };
                    Ok(())
                }
                Err(error) => {
                    assert_fault(&error, errno, &context);
                    return {
                        compare_after(path, &story, None, &context);
                        Some(())
                    };
                }
            },
        };
        if let Err(error) = result {
            assert!(injector.failed() > 0, "{context}: {step:?}: {error}");
            assert_fault(&error, errno, &context);
            let in_doubt = match step {
                Step::Change(change) => Some(change.clone()),
                _ => None,
            };
            failed = Some((error, in_doubt));
            break;
        }
    }
    if injector.failed() == 0 {
        return match db.close() {
            Ok(()) => None,
            Err(error) => {
                assert_fault(&error, errno, &context);
                compare_after(path, &story, None, &context);
                Some(())
            }
        };
    }
    let in_doubt = failed.as_ref().and_then(|(_, change)| change.clone());
    // Reads go on, and show what was acknowledged.
    let found = read_all(&db).unwrap_or_else(|error| panic!("{context}: reads: {error}"));
    if let Some(difference) = story.last().live(story.now_ms).difference(&found) {
        panic!("{context}: {difference}");
    }
    if let Some((error, _)) = failed {
        write_after_failure(&db, &mut story, &error, &context);
    }
    let failed = Failed { acknowledged: story.last().clone(), in_doubt };
    drop(db);
    power_cut_after_failure(path, &story, &failed, &context);
    compare_after(path, &story, failed.in_doubt, &context);
    Some(())
}

/// After a failure, writes are refused until the store is opened again, unless the disk was merely
/// full: then they go on as soon as there is room.
fn write_after_failure(db: &Db, story: &mut Story, error: &Error, context: &str) {
    if !story.last().0.contains_key("users") {
        return;
    }
    let again = story.tell(db, &put("users", b"after the failure", b"x"));
    match (error.code(), again) {
        (Code::DiskFull, Ok(())) => {}
        (Code::DiskFull, Err(error)) => panic!("{context}: there is room again: {error}"),
        (_, Ok(())) => {}
        (_, Err(error)) => assert_eq!(error.code(), Code::Poisoned, "{context}: {error}"),
    }
}

fn assert_fault(error: &Error, errno: i32, context: &str) {
    let expected: &[Code] = match errno {
        ENOSPC => &[Code::DiskFull, Code::Poisoned],
        _ => &[Code::Io, Code::Poisoned],
    };
    assert!(expected.contains(&error.code()), "{context}: {} ({error})", error.code());
}

/// What was not synced when a sync failed may never reach the disk, whatever later syncs say.
fn power_cut_after_failure(path: &Path, story: &Story, failed: &Failed, context: &str) {
    let mut image = Image::default();
    story.recorder.events().iter().for_each(|event| image.play(event));
    let dir = scratch_dir();
    let root = path.parent().expect("a store in a directory");
    image.materialise(Loss::Strict, &mut Rng::new(1), root, dir.path()).expect("write the image");
    let copy = dir.path().join(path.file_name().expect("a name"));
    compare(&copy, story.now_ms, &failed.acknowledged, failed.in_doubt.as_ref(), context);
}

fn compare_after(path: &Path, story: &Story, in_doubt: Option<Change>, context: &str) {
    compare(path, story.now_ms, story.last(), in_doubt.as_ref(), context);
}

fn compare(path: &Path, now_ms: u64, want: &Contents, in_doubt: Option<&Change>, context: &str) {
    let db = options(Durability::Sync, now_ms).open(path);
    let db = db.unwrap_or_else(|error| panic!("{context}: opening again: {error}"));
    let found = read_all(&db).unwrap_or_else(|error| panic!("{context}: reading again: {error}"));
    let Some(difference) = want.live(now_ms).difference(&found) else { return };
    let mut after = want.clone();
    if let Some(change) = in_doubt {
        after.apply(change);
    }
    let other = after.live(now_ms).difference(&found);
    assert!(other.is_none(), "{context}: {difference}; with what was in doubt: {other:?}");
}

fn fail_each(target: Target, errno: i32) {
    let mut rng = Rng::new(7);
    let steps = a_full_life(&mut rng);
    let (mut nth, mut tried) = (0, 0);
    loop {
        let root = scratch_dir();
        let path = root.path().join("store");
        if live_with_failures(&path, &steps, target, errno, nth).is_none() {
            break;
        }
        tried += 1;
        // The beginning is tried in full, the rest in leaps.
        nth += if nth < 40 { 1 } else { debug_share(7) as u64 };
    }
    println!("{tried} failures of {target:?} with errno {errno}");
    assert!(tried > 0, "no {target:?} happens");
}

#[test]
fn a_write_that_fails_poisons_the_store_and_loses_nothing() {
    fail_each(Target::Write, EIO);
}

#[test]
fn a_sync_that_fails_poisons_the_store_and_loses_nothing() {
    fail_each(Target::Sync, EIO);
}

#[test]
fn a_directory_sync_that_fails_loses_nothing() {
    fail_each(Target::SyncDir, EIO);
}

#[test]
fn a_file_that_cannot_be_created_renamed_cut_or_removed_loses_nothing() {
    for target in [Target::Create, Target::Rename, Target::SetLen, Target::Remove] {
        fail_each(target, EIO);
    }
}

#[test]
fn a_full_disk_refuses_the_write_and_takes_the_next_once_there_is_room() {
    for target in [Target::Write, Target::Create, Target::SetLen] {
        fail_each(target, ENOSPC);
    }
}

#[test]
fn a_full_disk_while_syncing_loses_nothing() {
    fail_each(Target::Sync, ENOSPC);
}

#[test]
fn after_a_failed_sync_every_write_is_refused_and_reads_go_on() {
    let dir = scratch_dir();
    let path = dir.path().join("store");
    let db = options(Durability::Sync, START_MS).open(&path).expect("open");
    db.namespace("users").expect("create").put("before", "1").expect("put");
    db.close().expect("close");

    let injector = Arc::new(Injector::new(Target::Sync, EIO, 1, 1));
    let db = options(Durability::Sync, START_MS).disk_hook(injector).open(&path).expect("open");
    let users = handle(&db, "users");
    // The first sync of the session is the manifest's, the second the log's.
    let error = users.put("during", "2").expect_err("its sync fails");
    assert_eq!(error.code(), Code::Io);
    for _ in 0..3 {
        let error = users.put("later", "3").expect_err("writes are refused");
        assert_eq!(error.code(), Code::Poisoned);
        let error = users.delete("before").expect_err("deletes are refused");
        assert_eq!(error.code(), Code::Poisoned);
        assert_eq!(db.sync().expect_err("so are syncs").code(), Code::Poisoned);
        assert_eq!(users.get("before").expect("reads go on").as_deref(), Some(&b"1"[..]));
        assert!(users.get("during").expect("reads go on").is_none(), "it was never acknowledged");
    }
    drop((users, db));
    let db = options(Durability::Sync, START_MS).open(&path).expect("open again");
    let users = handle(&db, "users");
    assert!(users.get("before").expect("read").is_some());
    users.put("later", "3").expect("writes are taken again");
}

#[test]
fn a_store_that_found_no_room_for_its_first_log_opens_again() {
    let dir = scratch_dir();
    let path = dir.path().join("store");
    let injector = Arc::new(Injector::new(Target::Create, ENOSPC, 1, 1));
    let db = options(Durability::Sync, START_MS).disk_hook(injector).open(&path).expect("open");
    assert_eq!(db.create_namespace("users").err().map(|error| error.code()), Some(Code::DiskFull));
    db.close().expect("close");
    let db = options(Durability::Sync, START_MS).open(&path).expect("open again");
    assert!(db.namespaces().is_empty());
    db.create_namespace("users").expect("there is room");
}
