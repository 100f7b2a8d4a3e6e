//! Promise: the server can be killed at any moment. No write that it acknowledged is lost, none is
//! there in part, and no key that was deleted or has expired comes back. Asked to stop, it finishes
//! what it has begun, and ends with status 0.
//!
//! How it is attacked: the real binary is killed with SIGKILL again and again while several clients
//! write over HTTP, is started again on the same directory, and everything is read back. A request
//! that was under way at the kill may have been carried out or not, as a whole.
//!
//! Replay: `SEED=...` repeats the clients' choices (not the moment of the kill); `KILLS=...` sets the
//! number of kills.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

mod support;

use support::rng::{self, Rng};
use support::server::{Client, Server};

const KILLS: u64 = if cfg!(debug_assertions) { 15 } else { 100 };
const CLIENTS: u64 = 4;
const KEYS_PER_CLIENT: u64 = 40;

/// What a key holds after a write.
#[derive(Clone, Debug, PartialEq)]
struct Held {
    value: Vec<u8>,
    /// In seconds since 1970.
    expires_at: Option<u64>,
}

/// One client's keys, of which nobody else writes any.
struct Book {
    client: u64,
    rng: Rng,
    counter: u64,
    /// What was acknowledged; an absent key is deleted.
    keys: BTreeMap<String, Held>,
    /// The write that was under way.
    in_doubt: Option<(String, Option<Held>)>,
    acknowledged: u64,
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

impl Book {
    fn new(client: u64, seed: u64) -> Book {
        Book {
            client,
            rng: Rng::new(seed + client),
            counter: 0,
            keys: BTreeMap::new(),
            in_doubt: None,
            acknowledged: 0,
        }
    }

    fn key(&self, nth: u64) -> String {
        format!("client-{}-key-{nth}", self.client)
    }

    /// Writes until the server is gone or `stop` is set.
    fn write_on(&mut self, connection: &mut Client, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            let nth = self.rng.below(KEYS_PER_CLIENT);
            let key = self.key(nth);
            self.counter += 1;
            let held = if self.rng.one_in(4) { None } else { Some(self.value()) };
            self.in_doubt = Some((key.clone(), held.clone()));
            let answer = match &held {
                None => connection.send("DELETE", &format!("/{key}"), b""),
                Some(Held { value, expires_at: None }) => {
                    connection.send("PUT", &format!("/{key}"), value)
                }
                Some(Held { value, expires_at: Some(at) }) => {
                    connection.send("PUT", &format!("/{key}?expiration={at}"), value)
                }
            };
            match answer {
                Ok(answer) if answer.status == 200 => self.note(key, held),
                // A server that is stopping may refuse, and then has done nothing.
                Ok(answer) if answer.status == 503 => self.in_doubt = None,
                Ok(answer) => panic!("status {} for a write of {key}", answer.status),
                Err(_) => return,
            }
        }
    }

    fn value(&mut self) -> Held {
        let len = match self.rng.below(120) {
            0..=2 => 100_000,
            // Lies in a blob.
            3 => 400_000,
            _ => self.rng.len(600),
        };
        let mut value = format!("{}:{}:", self.client, self.counter).into_bytes();
        value.extend(self.rng.bytes(len));
        // The least lifetime that the API allows; a little more, because time goes by on the way.
        let expires_at = self.rng.one_in(5).then(|| now_s() + 62);
        Held { value, expires_at }
    }

    fn note(&mut self, key: String, held: Option<Held>) {
        self.acknowledged += 1;
        self.in_doubt = None;
        match held {
            Some(held) => self.keys.insert(key, held),
            None => self.keys.remove(&key),
        };
    }

    /// Reads all keys back, and finds out what became of the write that was under way.
    fn check(&mut self, connection: &mut Client, context: &str) {
        for nth in 0..KEYS_PER_CLIENT {
            let key = self.key(nth);
            let answer = connection.send("GET", &format!("/{key}"), b"");
            let answer = answer.unwrap_or_else(|error| panic!("{context}: get {key}: {error}"));
            let found = match answer.status {
                200 => Some(answer.body),
                404 => None,
                status => panic!("{context}: status {status} for {key}"),
            };
            let acknowledged = self.keys.get(&key).cloned();
            if fits(acknowledged.as_ref(), found.as_deref()) {
                continue;
            }
            match self.in_doubt.take() {
                Some((other, held)) if other == key && fits(held.as_ref(), found.as_deref()) => {
                    match held {
                        Some(held) => self.keys.insert(key, held),
                        None => self.keys.remove(&key),
                    };
                }
                in_doubt => panic!(
                    "{context}: {key} should hold {acknowledged:?} and holds {found:?}; \
                     in doubt was {in_doubt:?}"
                ),
            }
        }
        self.in_doubt = None;
    }
}

/// Whether a read that was made just now may show this.
fn fits(held: Option<&Held>, found: Option<&[u8]>) -> bool {
    let now_s = now_s();
    match held {
        None => found.is_none(),
        Some(Held { value, expires_at }) => match expires_at {
            Some(at) if *at < now_s => found.is_none(),
            // Within this very second it may be seen on either side.
            Some(at) if *at <= now_s + 1 => found.is_none_or(|found| found == value),
            _ => found == Some(value),
        },
    }
}

/// Starts the server, checks everything, lets all clients write for a while, and stops it.
fn round(data: &Path, books: &mut [Book], context: &str, stop: impl FnOnce(&mut Server)) {
    let mut server = Server::start(data, &[]);
    for book in &mut *books {
        book.check(&mut server.client().expect("connect"), context);
    }
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for book in &mut *books {
            let mut connection = server.client().expect("connect");
            let over = &over;
            scope.spawn(move || book.write_on(&mut connection, over));
        }
        stop(&mut server);
        over.store(true, Ordering::Relaxed);
    });
}

#[test]
fn a_server_that_is_killed_again_and_again_loses_nothing_that_it_acknowledged() {
    let seed = rng::seed();
    let kills = std::env::var("KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(KILLS);
    println!("SEED={seed}");
    let mut rng = Rng::new(seed);
    let dir = tempfile::tempdir().expect("make a directory");
    let mut books: Vec<Book> = (1..=CLIENTS).map(|client| Book::new(client, seed)).collect();
    let began = Instant::now();
    for kill in 0..kills {
        let wait = Duration::from_millis(5 + rng.below(250));
        round(dir.path(), &mut books, &format!("SEED={seed}, after kill {kill}"), |server| {
            std::thread::sleep(wait);
            server.kill();
        });
    }
    // Until the keys of the first rounds have expired, at least.
    let expiring = books.iter().flat_map(|book| book.keys.values()).filter_map(|it| it.expires_at);
    let first = expiring.min().filter(|_| !cfg!(debug_assertions)).unwrap_or(0);
    while now_s() <= first + 1 {
        std::thread::sleep(Duration::from_millis(200));
    }
    let context = format!("SEED={seed}, at the end");
    round(dir.path(), &mut books, &context, |server| assert_eq!(server.terminate(), Some(0)));
    let acknowledged: u64 = books.iter().map(|book| book.acknowledged).sum();
    println!("{kills} kills, {acknowledged} writes acknowledged, 0 lost, in {:?}", began.elapsed());
    assert!(acknowledged > kills * 10, "only {acknowledged} writes were acknowledged");
}

#[test]
fn a_server_that_is_asked_to_stop_keeps_what_it_acknowledged_and_ends_with_status_0() {
    let seed = rng::seed();
    println!("SEED={seed}");
    let dir = tempfile::tempdir().expect("make a directory");
    let mut books: Vec<Book> = (1..=CLIENTS).map(|client| Book::new(client, seed)).collect();
    for nth in 0..5 {
        round(dir.path(), &mut books, &format!("SEED={seed}, after stop {nth}"), |server| {
            std::thread::sleep(Duration::from_millis(100));
            assert_eq!(server.terminate(), Some(0));
        });
    }
}

#[test]
fn a_second_server_on_the_same_directory_is_refused_and_the_first_one_goes_on() {
    let dir = tempfile::tempdir().expect("make a directory");
    let server = Server::start(dir.path(), &[]);
    let mut client = server.client().expect("connect");
    assert_eq!(client.send("PUT", "/key", b"value").expect("put").status, 200);
    let second = std::process::Command::new(support::server::binary())
        .args(["serve", "--listen", "127.0.0.1:0", "--data"])
        .arg(dir.path())
        .output()
        .expect("run a second server");
    assert!(!second.status.success());
    let complaint = String::from_utf8_lossy(&second.stderr);
    assert!(complaint.contains("another process"), "{complaint}");
    assert_eq!(client.send("GET", "/key", b"").expect("get").body, b"value");
}
