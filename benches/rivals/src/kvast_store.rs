//! kvast as the comparison uses it.

use std::hint::black_box;
use std::path::Path;
use std::sync::OnceLock;
use std::time::Instant;

use kvast::{Db, Durability, ListOptions, Namespace, Options};

use super::Store;
use super::data::{Key, PAGE, PLACE_STEP, value};

pub struct KvastStore {
    db: Db,
    users: Namespace,
    /// One for each place that lists start at, made when lists are first asked for.
    pages: OnceLock<Vec<ListOptions>>,
}

impl KvastStore {
    fn start(options: Options, dir: &Path) -> KvastStore {
        let db = options.open(dir).expect("the store to open");
        let users = db.namespace("users").expect("a namespace");
        KvastStore { db, users, pages: OnceLock::new() }
    }

    pub fn open_without_background(dir: &Path) -> KvastStore {
        KvastStore::start(Options::new().durability(Durability::Os).background(false), dir)
    }

    pub fn index_bytes(&self) -> u64 {
        self.db.stats().index_bytes
    }

    fn pages(&self) -> &[ListOptions] {
        self.pages.get_or_init(|| {
            let (mut pages, mut at) = (Vec::new(), ListOptions::new().limit(PLACE_STEP));
            while let Some(cursor) = self.users.list(&at).expect("a page").cursor() {
                pages.push(ListOptions::new().limit(PAGE).cursor(cursor));
                at = at.cursor(cursor);
            }
            pages
        })
    }
}

impl Store for KvastStore {
    fn open(dir: &Path, durable: bool) -> KvastStore {
        let durability = if durable { Durability::Sync } else { Durability::Os };
        KvastStore::start(Options::new().durability(durability), dir)
    }

    fn settle(&self) {
        self.db.compact().expect("compaction");
        self.db.sync().expect("a sync");
        self.pages();
    }

    fn close(self) {
        drop(self.users);
        self.db.close().expect("the store to close");
    }

    fn gets(&self, keys: &[Key]) -> usize {
        let mut found = 0;
        for key in keys {
            if let Some(value) = self.users.get(key).expect("a get") {
                black_box((value.first(), value.last()));
                found += 1;
            }
        }
        found
    }

    fn lists(&self, places: &[usize]) -> usize {
        let (pages, mut listed) = (self.pages(), 0);
        for place in places {
            let page = self.users.list(&pages[*place]).expect("a page");
            for key in page.iter() {
                black_box(key.key.last());
            }
            listed += page.len();
        }
        listed
    }

    fn puts(&self, keys: &[Key], until: Option<Instant>) -> usize {
        for (nth, key) in keys.iter().enumerate() {
            if until.is_some_and(|until| Instant::now() >= until) {
                return nth;
            }
            self.users.put(key, value(key)).expect("a put");
        }
        keys.len()
    }

    fn put_batches(&self, keys: &[Key]) {
        for some in keys.chunks(1000) {
            let mut batch = self.db.batch();
            for key in some {
                batch.put(&self.users, key, value(key)).expect("a put");
            }
            batch.commit().expect("a commit");
        }
    }
}
