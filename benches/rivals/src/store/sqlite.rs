//! SQLite by `rusqlite`, bundled: a write-ahead log with checkpoints of 64 MiB, 1 GiB of cache for each
//! connection, the file mapped, statements prepared once. Without sync is `synchronous = OFF`, durable
//! is `FULL`. Short rows are in a table without row ids, as its manual advises; longer ones in a table
//! with them and an index. Each reading thread has a connection, and all writes take turns on one. Many
//! gets are as many selects in one read transaction. It keeps no checksums of its own.

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use rusqlite::{CachedStatement, Connection, OptionalExtension};

use super::{Setup, Store, Watch, look_at};
use crate::data::{Key, PAGE, Values};

struct SqliteStore {
    file: PathBuf,
    setup: Setup,
    writer: Mutex<Connection>,
    /// Those that no thread reads with just now.
    readers: Mutex<Vec<Connection>>,
}

pub fn open(dir: &Path, setup: Setup) -> Box<dyn Store> {
    std::fs::create_dir_all(dir).expect("a directory");
    let file = dir.join("users.sqlite");
    let writer = connect(&file, setup);
    let without = if setup.long_values { "" } else { "WITHOUT ROWID" };
    let schema =
        format!("CREATE TABLE IF NOT EXISTS users (key BLOB PRIMARY KEY, value BLOB) {without}");
    writer.execute_batch(&schema).expect("a table");
    Box::new(SqliteStore { file, setup, writer: Mutex::new(writer), readers: Mutex::default() })
}

fn connect(file: &Path, setup: Setup) -> Connection {
    let connection = Connection::open(file).expect("the database to open");
    let synchronous = if setup.durable { "FULL" } else { "OFF" };
    let pragmas = format!(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = {synchronous}; PRAGMA cache_size = -1048576; \
         PRAGMA mmap_size = 17179869184; PRAGMA wal_autocheckpoint = 16384; PRAGMA temp_store = MEMORY"
    );
    connection.execute_batch(&pragmas).expect("pragmas");
    connection
}

impl SqliteStore {
    /// Reads with a connection that nobody else uses, in one transaction.
    fn read<T>(&self, read: impl FnOnce(&Connection) -> T) -> T {
        let idle = self.readers.lock().expect("no panic").pop();
        let connection = idle.unwrap_or_else(|| connect(&self.file, self.setup));
        run(&connection, "BEGIN");
        let done = read(&connection);
        run(&connection, "COMMIT");
        self.readers.lock().expect("no panic").push(connection);
        done
    }
}

fn cached<'a>(connection: &'a Connection, sql: &str) -> CachedStatement<'a> {
    connection.prepare_cached(sql).expect("a statement")
}

fn run(connection: &Connection, sql: &str) {
    cached(connection, sql).execute([]).expect("the statement to run");
}

fn select(connection: &Connection) -> CachedStatement<'_> {
    cached(connection, "SELECT value FROM users WHERE key = ?")
}

/// What `see` makes of a key's value.
fn get<T>(select: &mut CachedStatement<'_>, key: &Key, see: impl Fn(&[u8]) -> T) -> Option<T> {
    let seen = select.query_row([&key[..]], |row| {
        let value = row.get_ref(0)?;
        Ok(see(value.as_blob().expect("a blob")))
    });
    seen.optional().expect("a get")
}

impl Store for SqliteStore {
    fn settle(&mut self) {
        let writer = self.writer.get_mut().expect("no panic");
        writer.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").expect("a checkpoint");
    }

    fn close(self: Box<Self>) {}

    fn gets(&self, keys: &[Key], watch: &mut Watch) -> usize {
        self.read(|connection| {
            let (mut select, mut found) = (select(connection), 0);
            for key in keys {
                found += usize::from(get(&mut select, key, look_at).is_some());
                watch.lap();
            }
            found
        })
    }

    fn verified_gets(&self, keys: &[Key]) -> usize {
        self.read(|connection| {
            let mut select = select(connection);
            let see = |value: &[u8]| {
                black_box(crc32fast::hash(value));
                value.len()
            };
            keys.iter().map(|key| get(&mut select, key, see).expect("a value")).sum()
        })
    }

    fn lists(&self, starts: &[Key]) -> usize {
        self.read(|connection| {
            let sql = format!("SELECT key FROM users WHERE key >= ? ORDER BY key LIMIT {PAGE}");
            let (mut select, mut listed) = (cached(connection, &sql), 0);
            for start in starts {
                let mut rows = select.query([&start[..]]).expect("a range");
                while let Some(row) = rows.next().expect("a row") {
                    let key = row.get_ref(0).expect("a column");
                    black_box(key.as_blob().expect("a blob").last());
                    listed += 1;
                }
            }
            listed
        })
    }

    fn puts(&self, keys: &[Key], values: &Values) {
        let mut value = values.buffer();
        for key in keys {
            let writer = self.writer.lock().expect("no panic");
            let mut put = cached(&writer, "REPLACE INTO users VALUES (?, ?)");
            put.execute([&key[..], value.of(key)]).expect("a put");
        }
    }

    fn put_batches(&self, keys: &[Key], values: &Values, per_commit: usize) {
        let (mut value, writer) = (values.buffer(), self.writer.lock().expect("no panic"));
        let mut put = cached(&writer, "REPLACE INTO users VALUES (?, ?)");
        for some in keys.chunks(per_commit) {
            run(&writer, "BEGIN IMMEDIATE");
            for key in some {
                put.execute([&key[..], value.of(key)]).expect("a put");
            }
            run(&writer, "COMMIT");
        }
    }

    fn deletes(&self, keys: &[Key]) {
        for key in keys {
            let writer = self.writer.lock().expect("no panic");
            let mut delete = cached(&writer, "DELETE FROM users WHERE key = ?");
            delete.execute([&key[..]]).expect("a delete");
        }
    }
}
