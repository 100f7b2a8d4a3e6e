//! One thread that serves, a pool that waits, and what that gives.

use std::fs;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use crate::group;
use crate::ways::{Reader, WAYS, Way};

pub(crate) const HEAD: &str = "\
| value | data / limit | way | hot p50, µs | p99 | p99.9 | of them waited, % | cold reads/s | MiB/s | KiB from disk, each | CPU µs, each | warm CPU µs |
|---|--:|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|";

/// As many as kvast's server has for what may wait.
const POOL: usize = 32;
/// Clients that read cold keys.
const CLIENTS: usize = 16;
/// Hot reads are due this far apart, or as much further as their values are longer than 64 KiB.
const PACE: Duration = Duration::from_micros(500);
/// One key in so many is hot.
const HOT_ONE_IN: usize = 100;
/// What is read before a turn is counted.
const LEAD: Duration = Duration::from_millis(500);
const WARM: Duration = Duration::from_millis(200);

/// A read that a thread of the pool is to do, or has done. `due` is told of hot ones.
struct Job {
    way: Way,
    id: usize,
    due: Option<Instant>,
}

#[derive(Default)]
struct Seen {
    hot: Vec<Duration>,
    /// Hot reads that were handed to the pool.
    waited: usize,
    cold: usize,
    disk_bytes: u64,
    time: Duration,
    processor: Duration,
    warm: usize,
    warm_processor: Duration,
}

pub(crate) fn main(arguments: &[String]) {
    let [group, dir, name, len, ratio, turn, rounds] = arguments else { panic!("{arguments:?}") };
    group::join(Path::new(group));
    let len: usize = len.parse().unwrap();
    let turn = Duration::from_millis(turn.parse().unwrap());
    let reader = Arc::new(Reader::open(Path::new(dir), len));
    let server = Server::new(&reader, PACE * (len as u32 >> 16).max(1));
    let mut random = Random(0x5EED);
    let mut seen: [Seen; WAYS.len()] = std::array::from_fn(|_| Seen::default());
    for _ in 0..rounds.parse().unwrap() {
        for (place, (way, _)) in WAYS.into_iter().enumerate() {
            server.take_turn(way, LEAD, &mut random, &mut Seen::default());
            server.take_turn(way, turn, &mut random, &mut seen[place]);
        }
        for (place, (way, _)) in WAYS.into_iter().enumerate() {
            server.read_warm(way, &mut random, &mut seen[place]);
        }
    }
    for (seen, (_, way)) in seen.iter_mut().zip(WAYS) {
        seen.hot.sort_unstable();
        let at = |part: f64| {
            let place = (seen.hot.len() as f64 * part) as usize;
            seen.hot[place.min(seen.hot.len() - 1)].as_secs_f64() * 1e6
        };
        let rate = seen.cold as f64 / seen.time.as_secs_f64();
        println!(
            "| {name} | {ratio} | {way} | {:.0} | {:.0} | {:.0} | {:.1} | {rate:.0} | {:.0} | {:.1} | {:.1} | {:.2} |",
            at(0.5),
            at(0.99),
            at(0.999),
            100.0 * seen.waited as f64 / seen.hot.len() as f64,
            rate * len as f64 / f64::from(1 << 20),
            seen.disk_bytes as f64 / 1024.0 / seen.cold.max(1) as f64,
            seen.processor.as_secs_f64() * 1e6 / seen.cold.max(1) as f64,
            seen.warm_processor.as_secs_f64() * 1e6 / seen.warm as f64,
        );
    }
}

struct Server {
    reader: Arc<Reader>,
    pool: Sender<Job>,
    done: Receiver<Job>,
    zipf: Vec<f64>,
    pace: Duration,
}

impl Server {
    fn new(reader: &Arc<Reader>, pace: Duration) -> Server {
        let (pool, jobs) = channel::<Job>();
        let (answer, done) = channel();
        let jobs = Arc::new(Mutex::new(jobs));
        for _ in 0..POOL {
            let (jobs, answer, reader) = (Arc::clone(&jobs), answer.clone(), Arc::clone(reader));
            thread::Builder::new()
                .stack_size(128 << 10)
                .spawn(move || {
                    loop {
                        let job = jobs.lock().unwrap().recv();
                        let Ok(job) = job else { return };
                        reader.read_waiting(job.way, job.id);
                        if answer.send(job).is_err() {
                            return;
                        }
                    }
                })
                .unwrap();
        }
        let hot = (reader.keys() / HOT_ONE_IN).max(1);
        let mut sum = 0.0;
        let zipf = (1..=hot).map(|rank| {
            sum += (rank as f64).powf(-0.99);
            sum
        });
        Server { reader: Arc::clone(reader), pool, done, zipf: zipf.collect(), pace }
    }

    /// A hot key; they lie anywhere.
    fn hot(&self, random: &mut Random) -> usize {
        let point = random.part() * self.zipf.last().unwrap();
        self.zipf.partition_point(|sum| *sum < point) * HOT_ONE_IN % self.reader.keys()
    }

    fn cold(&self, random: &mut Random) -> usize {
        (random.part() * self.reader.keys() as f64) as usize
    }

    fn take_turn(&self, way: Way, time: Duration, random: &mut Random, seen: &mut Seen) {
        let (began, disk_before, used) = (Instant::now(), disk_bytes(), processor());
        let (mut due, mut asked, mut waiting) = (began, CLIENTS, 0);
        loop {
            let now = Instant::now();
            if now >= began + time {
                break;
            }
            if now >= due {
                let id = self.hot(random);
                if self.reader.read_now(way, id) {
                    seen.hot.push(due.elapsed());
                } else {
                    seen.waited += 1;
                    waiting += 1;
                    self.pool.send(Job { way, id, due: Some(due) }).unwrap();
                }
                due += self.pace;
            } else if let Ok(job) = self.done.try_recv() {
                waiting -= 1;
                asked += seen.note(&job);
            } else if asked > 0 {
                asked -= 1;
                let id = self.cold(random);
                if self.reader.read_now(way, id) {
                    seen.cold += 1;
                    asked += 1;
                } else {
                    waiting += 1;
                    self.pool.send(Job { way, id, due: None }).unwrap();
                }
            } else {
                match self.done.recv_timeout(due - now) {
                    Ok(job) => {
                        waiting -= 1;
                        asked += seen.note(&job);
                    }
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        }
        seen.time += began.elapsed();
        for _ in 0..waiting {
            seen.note(&self.done.recv().unwrap());
        }
        seen.disk_bytes += disk_bytes() - disk_before;
        seen.processor += processor() - used;
    }

    /// Hot reads one after the other, with nothing beside them.
    fn read_warm(&self, way: Way, random: &mut Random, seen: &mut Seen) {
        let mut read = |count: &mut usize, time| {
            let (began, used) = (Instant::now(), processor());
            while began.elapsed() < time {
                let id = self.hot(random);
                if !self.reader.read_now(way, id) {
                    self.pool.send(Job { way, id, due: None }).unwrap();
                    self.done.recv().unwrap();
                }
                *count += 1;
            }
            processor() - used
        };
        read(&mut 0, WARM);
        seen.warm_processor += read(&mut seen.warm, WARM);
    }
}

impl Seen {
    /// Counts a read that the pool has done. Returns how many cold ones may be asked for.
    fn note(&mut self, job: &Job) -> usize {
        match job.due {
            Some(due) => {
                self.hot.push(due.elapsed());
                0
            }
            None => {
                self.cold += 1;
                1
            }
        }
    }
}

/// What this process had read from disk so far.
fn disk_bytes() -> u64 {
    let text = fs::read_to_string("/proc/self/io").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("read_bytes: "));
    line.unwrap().parse().unwrap()
}

/// Time of processors that this process has used so far.
fn processor() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// xorshift64*.
struct Random(u64);

impl Random {
    /// From 0 to 1.
    fn part(&mut self) -> f64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11) as f64 / (1u64 << 53) as f64
    }
}
