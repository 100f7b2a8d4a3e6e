//! How far from the floor is each kind of request, and how far ahead of what else speaks HTTP?
//!
//! A figure is requests per second of the server's own processor time, which the clients do not add to.
//! All servers have the same keys, and take turns within each row.

use std::path::Path;
use std::time::Duration;

use crate::contenders::{Contender, Dialect, pin_driver};
use crate::driver::{Driver, Requests};
use crate::idle;
use crate::report::{Must, Report};
use crate::server::binary;

const KEYS: usize = 100_000;
/// Miniflare takes a minute for as many.
const KEYS_OF_THE_SLOW: usize = 5_000;
/// Different requests of a row, which then come again.
const REQUESTS: usize = 1 << 16;
const LARGE_VALUES: usize = 32;
const LARGEST_VALUES: usize = 8;
const LISTED: usize = 1000;
const GATHERED: usize = 100;

const ROUNDS: usize = 9;
const TIME: Duration = Duration::from_millis(400);
/// The rivals are so far away that fewer rounds tell.
const RIVALS_EVERY: usize = 3;
const PACED_ROUNDS: usize = 7;
const PACED_TIME: Duration = Duration::from_secs(1);

/// One row of the table.
struct Row {
    name: &'static str,
    work: Work,
    connections: usize,
    /// The least share of the floor, and the least multiple of each rival.
    floor: f64,
    webdis: Option<f64>,
    miniflare: Option<f64>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Work {
    Get100,
    GetZipf,
    Get1KiB,
    GetAbsent,
    Get1MiB,
    Get25MiB,
    Put,
    /// A put that is on disk when it is answered.
    PutSynced,
    List,
    BulkGet,
}

const fn get(name: &'static str, work: Work, connections: usize) -> Row {
    Row { name, work, connections, floor: 0.93, webdis: Some(2.0), miniflare: Some(40.0) }
}

const ROWS: [Row; 16] = [
    get("get 100 B, uniform, 1 connection", Work::Get100, 1),
    get("get 100 B, uniform, 32 connections", Work::Get100, 32),
    get("get 100 B, uniform, 256 connections", Work::Get100, 256),
    get("get 100 B, zipf, 32 connections", Work::GetZipf, 32),
    get("get 100 B, zipf, 256 connections", Work::GetZipf, 256),
    get("get 1 KiB, 32 connections", Work::Get1KiB, 32),
    get("get 1 KiB, 256 connections", Work::Get1KiB, 256),
    get("get of an absent key, 1 connection", Work::GetAbsent, 1),
    get("get of an absent key, 32 connections", Work::GetAbsent, 32),
    get("get of an absent key, 256 connections", Work::GetAbsent, 256),
    Row {
        floor: 0.85,
        webdis: None,
        miniflare: None,
        ..get("get 1 MiB, 8 connections", Work::Get1MiB, 8)
    },
    Row {
        floor: 0.85,
        webdis: None,
        miniflare: None,
        ..get("get 25 MiB, 4 connections", Work::Get25MiB, 4)
    },
    Row {
        floor: 0.7,
        webdis: None,
        miniflare: None,
        ..get("put 100 B, `os`, 32 connections", Work::Put, 32)
    },
    Row {
        floor: 0.4,
        webdis: None,
        miniflare: None,
        ..get("put 100 B, `sync`, 32 connections", Work::PutSynced, 32)
    },
    Row {
        floor: 0.5,
        webdis: Some(5.0),
        miniflare: Some(50.0),
        ..get("list of 1,000, 32 connections", Work::List, 32)
    },
    Row {
        floor: 0.7,
        webdis: Some(3.0),
        miniflare: None,
        ..get("bulk get of 100, 32 connections", Work::BulkGet, 32)
    },
];

/// Measures the rows whose names contain what is asked for.
pub(crate) fn run(dir: &Path, only: &str) {
    // The program is built on all cores.
    binary();
    pin_driver();
    let mut report = Report::default();
    if ROWS.iter().any(|row| row.name.contains(only)) || PACED.contains(only) {
        let servers = Servers::start(dir);
        for row in ROWS.iter().filter(|row| row.name.contains(only)) {
            servers.measure(row, &mut report);
        }
        if PACED.contains(only) {
            servers.pace(&mut report);
        }
    }
    idle::measure(dir, only, &mut report);
    report.print();
}

struct Servers {
    kvast: Contender,
    /// The same with writes synced.
    synced: Contender,
    floor: Contender,
    rivals: Vec<Contender>,
}

impl Servers {
    fn start(dir: &Path) -> Servers {
        let kvast = Contender::kvast(dir, "kvast", &["--durability", "os"]);
        let synced = Contender::kvast(dir, "kvast", &["--durability", "sync"]);
        let floor = Contender::floor(dir);
        let mut rivals = Vec::new();
        for (name, rival) in
            [("webdis + Redis", Contender::webdis(dir)), ("Miniflare", Contender::miniflare(dir))]
        {
            match rival {
                Ok(rival) => rivals.push(rival),
                Err(why) => println!("{name} is absent: {why}"),
            }
        }
        println!("etcd is absent: it is not driven by this bench\n");
        let servers = Servers { kvast, synced, floor, rivals };
        servers.all().for_each(fill);
        fill_large(&servers.kvast);
        fill_large(&servers.floor);
        // The floor's list is an answer that was made beforehand.
        let list = crate::fetch(servers.kvast.address, &Dialect::Binding.list(LISTED));
        send(&servers.floor, one("PUT", "/", &list), 1);
        servers
    }

    fn all(&self) -> impl Iterator<Item = &Contender> {
        [&self.kvast, &self.floor].into_iter().chain(&self.rivals)
    }

    fn measure(&self, row: &Row, report: &mut Report) {
        let kvast = if row.work == Work::PutSynced { &self.synced } else { &self.kvast };
        let wanted = |rival: &&Contender| match rival.dialect {
            Dialect::Webdis => row.webdis.is_some(),
            Dialect::Binding => row.miniflare.is_some(),
        };
        let mut measured: Vec<Measured> = [kvast, &self.floor]
            .into_iter()
            .chain(self.rivals.iter().filter(wanted))
            .map(|contender| Measured::new(contender, row))
            .collect();
        for round in 0..ROUNDS {
            let taking_part = if round % RIVALS_EVERY == 0 { measured.len() } else { 2 };
            for turn in 0..taking_part {
                // The other way round in every other round, so that nobody is always the first.
                let at = if round % 2 == 0 { turn } else { taking_part - 1 - turn };
                measured[at].round();
            }
        }
        let musts = [row.floor, row.webdis.unwrap_or(0.0), row.miniflare.unwrap_or(0.0)];
        for other in &measured[1..] {
            let must = match other.contender.name {
                "floor" => musts[0],
                "Miniflare" => musts[2],
                _ => musts[1],
            };
            let ours = every(&measured[0].rates, measured[0].rates.len() / other.rates.len());
            report.compare(row.name, other.contender.name, Must::Least(must), &ours, &other.rates);
        }
    }

    fn pace(&self, report: &mut Report) {
        let row = &ROWS[1];
        let mut both = [Measured::new(&self.kvast, row), Measured::new(&self.floor, row)];
        for _ in 0..3 {
            both.iter_mut().for_each(Measured::round);
        }
        let slowest = both.iter().map(|one| median(&one.per_second)).fold(f64::MAX, f64::min);
        let mut p99 = [Vec::new(), Vec::new()];
        for round in 0..PACED_ROUNDS {
            for at in [round % 2, 1 - round % 2] {
                let Measured { driver, requests, .. } = &mut both[at];
                let took = driver.pace(requests, slowest / 2.0, PACED_TIME);
                p99[at].push(took[took.len() * 99 / 100].as_secs_f64() * 1e6);
            }
        }
        report.compare(PACED, "floor", Must::Most(1.5), &p99[0], &p99[1]);
    }
}

const PACED: &str = "p99 in µs at half the rate, get 100 B, 32 connections";

/// A server in a row.
struct Measured<'s> {
    contender: &'s Contender,
    driver: Driver,
    requests: Requests,
    /// Requests per second of the server's time, in each round.
    rates: Vec<f64>,
    per_second: Vec<f64>,
}

impl<'s> Measured<'s> {
    fn new(contender: &'s Contender, row: &Row) -> Measured<'s> {
        let mut driver = Driver::connect(contender.address, row.connections);
        let requests = requests(contender, row.work);
        driver.saturate(&requests, TIME / 4);
        Measured { contender, driver, requests, rates: Vec::new(), per_second: Vec::new() }
    }

    fn round(&mut self) {
        let (before, began) = (self.contender.ran(), std::time::Instant::now());
        let done = self.driver.saturate(&self.requests, TIME) as f64;
        let took = began.elapsed();
        self.rates.push(done / self.contender.ran().since(&before).as_secs_f64());
        self.per_second.push(done / took.as_secs_f64());
    }
}

/// Every `step`th of these.
fn every(rates: &[f64], step: usize) -> Vec<f64> {
    rates.iter().step_by(step).copied().collect()
}

pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

fn key(id: usize) -> String {
    format!("user:{id:09}:profile")
}

fn kibibyte_key(id: usize) -> String {
    format!("kib:{id:09}:profile")
}

fn keys_of(contender: &Contender) -> usize {
    if contender.name == "Miniflare" { KEYS_OF_THE_SLOW } else { KEYS }
}

fn fill(contender: &Contender) {
    let (dialect, keys) = (contender.dialect, keys_of(contender));
    let mut puts = Requests::new(200, 0);
    for id in 0..keys {
        puts.push("PUT", &dialect.put(&key(id)), &[b'v'; 100]);
        puts.push("PUT", &dialect.put(&kibibyte_key(id / 10)), &[b'v'; 1024]);
        if dialect == Dialect::Webdis {
            puts.push("GET", &format!("/ZADD/index/0/{}", key(id)), b"");
        }
    }
    send(contender, puts, 32);
}

fn fill_large(contender: &Contender) {
    let mut puts = Requests::new(200, 0);
    for (name, len, count) in
        [("large", 1 << 20, LARGE_VALUES), ("largest", crate::LARGE, LARGEST_VALUES)]
    {
        for id in 0..count {
            let value = vec![b'v'; len];
            puts.push("PUT", &contender.dialect.put(&format!("{name}:{id}")), &value);
        }
    }
    send(contender, puts, 2);
}

fn one(method: &str, target: &str, body: &[u8]) -> Requests {
    let mut requests = Requests::new(200, 0);
    requests.push(method, target, body);
    requests
}

/// Sends each request once.
fn send(contender: &Contender, requests: Requests, connections: usize) {
    Driver::connect(contender.address, connections).send(&requests, requests.len());
}

/// The requests of a row, as this server wants them.
fn requests(contender: &Contender, work: Work) -> Requests {
    let (dialect, keys) = (contender.dialect, keys_of(contender));
    let mut random = Random(7);
    let mut gets = |status, len, name: &mut dyn FnMut(&mut Random) -> String| {
        let mut requests = Requests::new(status, len);
        for _ in 0..REQUESTS {
            requests.push("GET", &dialect.get(&name(&mut random)), b"");
        }
        requests
    };
    match work {
        Work::Get100 => gets(200, 100, &mut |random| key(random.below(keys))),
        Work::GetZipf => {
            let zipf = Zipf::new(keys);
            gets(200, 100, &mut |random| key(zipf.sample(random)))
        }
        Work::Get1KiB => gets(200, 1024, &mut |random| kibibyte_key(random.below(keys / 10))),
        Work::GetAbsent => gets(404, 0, &mut |random| format!("gone:{:09}:x", random.below(keys))),
        Work::Get1MiB => {
            gets(200, 1 << 20, &mut |random| format!("large:{}", random.below(LARGE_VALUES)))
        }
        Work::Get25MiB => gets(200, crate::LARGE, &mut |random| {
            format!("largest:{}", random.below(LARGEST_VALUES))
        }),
        Work::Put | Work::PutSynced => {
            let mut requests = Requests::new(200, 0);
            for _ in 0..REQUESTS {
                requests.push("PUT", &dialect.put(&key(random.below(keys))), &[b'w'; 100]);
            }
            requests
        }
        Work::List => {
            let mut requests = Requests::new(200, LISTED * key(0).len());
            requests.push("GET", &dialect.list(LISTED), b"");
            requests
        }
        Work::BulkGet => {
            let mut requests = Requests::new(200, GATHERED * 100);
            for _ in 0..REQUESTS / GATHERED {
                let asked: Vec<String> = (0..GATHERED).map(|_| key(random.below(keys))).collect();
                let (method, target, body) = dialect.bulk_get(&asked);
                requests.push(method, &target, &body);
            }
            requests
        }
    }
}

/// Numbers without a pattern that matters here (SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }
}

/// Few keys are asked for often: the nth as often as 1 / n^0.99.
struct Zipf {
    /// How often one of the first n is asked for.
    sums: Vec<f64>,
}

impl Zipf {
    fn new(keys: usize) -> Zipf {
        let mut sum = 0.0;
        let sums = (1..=keys).map(|nth| {
            sum += (nth as f64).powf(-0.99);
            sum
        });
        Zipf { sums: sums.collect() }
    }

    fn sample(&self, random: &mut Random) -> usize {
        let share = random.next() as f64 / u64::MAX as f64;
        let at = self.sums.partition_point(|sum| *sum < share * self.sums[self.sums.len() - 1]);
        // What is often asked for is not neighbours.
        at.min(self.sums.len() - 1) * 7919 % self.sums.len()
    }
}
