//! How many bytes of memory does kvast's index take for a key, keys included?
//!
//! Two shapes of keys, 10^7 of each at the default size, put in random order, 1,000 a commit. The row is what
//! the index says of itself then; the note is what a counting allocator finds of the whole store after it
//! was opened again. No rival keeps its index in memory, so none is measured.

use crate::contest::Contest;
use crate::data::Shape;
use crate::heap::heap_of;
use crate::machine::remove;
use crate::report::{Better, Report, Series, Target};
use crate::store::{KvastStore, Setup, Store};

pub fn run(contest: &Contest, report: &mut Report) {
    let shapes = [
        (Shape::User, "user:{id}:profile", Target::Alone { must: 28.0, goal: 22.0 }),
        (Shape::Path, "paths", Target::Alone { must: 48.0, goal: 40.0 }),
    ];
    let (dir, count) = (contest.dir("index", "kvast"), contest.arguments.index_keys);
    for (shape, name, target) in shapes {
        remove(&dir);
        let store = Box::new(KvastStore::open(&dir, Setup::default()));
        store.put_all((0..count).map(|nth| shape.key(count, nth)));
        let stats = store.stats();
        assert!(stats.keys >= count as u64, "{} of {count} keys", stats.keys);
        let per_key = |bytes: f64| bytes / count as f64;
        let mut index = Series::new(&["kvast"]);
        index.push(vec![per_key(stats.index_bytes as f64)]);
        store.close();
        let (store, heap) = heap_of(|| Box::new(KvastStore::open(&dir, Setup::default())));
        let key_bytes: usize = (0..count).map(|nth| shape.key(count, nth).len()).sum();
        let work = format!("index, {count} keys of {:.1} B ({name})", per_key(key_bytes as f64));
        report.note(format!(
            "{work}: after it was opened again {:.1} B a key; heap of the whole store {:.1} B a key.",
            per_key(store.stats().index_bytes as f64),
            per_key(heap as f64),
        ));
        report.row(work, "B a key", Better::Less, target, index);
        store.close();
    }
    remove(&dir);
}
