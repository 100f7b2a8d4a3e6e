//! What is counted about requests, without a lock.
//!
//! Every thread counts in a shard of its own as far as there are shards, so that cores do not fight
//! over a line of memory; whoever reads adds the shards up. The time of a request runs from its
//! head's arrival until the head of its answer is ready: a streamed value is not waited for. Absent
//! on purpose: keys and namespaces as labels, which have no bound.

use std::array;
use std::cell::Cell;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use crate::exposition::{Kind, Text};
use crate::route::{self, Route, Surface};

/// The statuses that are told apart; any other is counted as one of its hundred.
const STATUSES: [u16; 26] = [
    200, 201, 204, 206, 304, 400, 401, 403, 404, 405, 408, 409, 410, 412, 413, 414, 415, 416, 422,
    428, 429, 431, 500, 501, 503, 507,
];
/// What is left: 1xx to 5xx and beyond.
const OTHERS: [&str; 6] = ["1xx", "2xx", "3xx", "4xx", "5xx", "other"];

/// Upper ends of the buckets, in nanoseconds: 50 us to 10 s.
const BUCKETS_NS: [u64; 14] = [
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    50_000_000,
    100_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    10_000_000_000,
];

/// Counters of all requests since the start.
pub(crate) struct Metrics {
    shards: Box<[Shard]>,
}

/// What one thread counts, if there are as many shards as threads.
#[repr(align(128))]
struct Shard {
    /// Requests begun less requests ended; one can begin here and end in another shard.
    in_flight: AtomicI64,
    /// In the order of [`names`].
    operations: Box<[Counted]>,
}

struct Counted {
    statuses: [AtomicU64; STATUSES.len() + OTHERS.len()],
    buckets: [AtomicU64; BUCKETS_NS.len() + 1],
    sum_ns: AtomicU64,
}

impl Default for Counted {
    fn default() -> Counted {
        Counted {
            statuses: array::from_fn(|_| AtomicU64::new(0)),
            buckets: array::from_fn(|_| AtomicU64::new(0)),
            sum_ns: AtomicU64::new(0),
        }
    }
}

/// A request that has begun and not ended.
pub(crate) struct InFlight<'m> {
    metrics: &'m Metrics,
    began: Instant,
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.metrics.shard().in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

impl InFlight<'_> {
    /// Counts the request with its answer; returns how long that took, in nanoseconds.
    pub(crate) fn answered(&self, route: &Route, status: u16) -> u64 {
        let ns = u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let counted = &self.metrics.shard().operations[place_of(route)];
        counted.statuses[status_place(status)].fetch_add(1, Ordering::Relaxed);
        let bucket = BUCKETS_NS.partition_point(|end| *end < ns);
        counted.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        counted.sum_ns.fetch_add(ns, Ordering::Relaxed);
        ns
    }
}

impl Metrics {
    pub(crate) fn new() -> Metrics {
        let shards = thread::available_parallelism().map_or(1, usize::from);
        let operations = route::lines().count() + SURFACES.len();
        let shard = |_| Shard {
            in_flight: AtomicI64::new(0),
            operations: (0..operations).map(|_| Counted::default()).collect(),
        };
        Metrics { shards: (0..shards).map(shard).collect() }
    }

    /// A request begins.
    pub(crate) fn begin(&self) -> InFlight<'_> {
        self.shard().in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight { metrics: self, began: Instant::now() }
    }

    fn shard(&self) -> &Shard {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        thread_local! {
            static MINE: Cell<usize> = Cell::new(NEXT.fetch_add(1, Ordering::Relaxed));
        }
        &self.shards[MINE.get() % self.shards.len()]
    }

    fn sum(&self, of: impl Fn(&Shard) -> u64) -> u64 {
        self.shards.iter().map(of).sum()
    }

    /// Writes all of it. What never happened is left out.
    pub(crate) fn write_to(&self, text: &mut Text) {
        let begun = |shard: &Shard| shard.in_flight.load(Ordering::Relaxed);
        let in_flight: i64 = self.shards.iter().map(begun).sum();
        text.single(
            Kind::Gauge,
            "kvast_http_requests_in_flight",
            "Requests without an answer yet.",
            in_flight.max(0),
        );
        self.write_requests(text);
        self.write_times(text);
    }

    fn write_requests(&self, text: &mut Text) {
        let name = "kvast_http_requests_total";
        let help = "Requests by surface, operation and status.";
        text.family(Kind::Counter, name, help);
        for (place, (surface, operation)) in names().enumerate() {
            for status in 0..STATUSES.len() + OTHERS.len() {
                let load = |shard: &Shard| {
                    shard.operations[place].statuses[status].load(Ordering::Relaxed)
                };
                let (count, status) = (self.sum(load), status_name(status));
                if count > 0 {
                    let labels =
                        [("surface", surface), ("operation", operation), ("status", &status)];
                    text.sample(name, &labels, count);
                }
            }
        }
    }

    fn write_times(&self, text: &mut Text) {
        let name = "kvast_http_request_duration_seconds";
        let help = "Time from the head of a request to the head of its answer.";
        text.family(Kind::Histogram, name, help);
        for (place, (surface, operation)) in names().enumerate() {
            let bucket = |at: usize| {
                self.sum(|shard| shard.operations[place].buckets[at].load(Ordering::Relaxed))
            };
            let counts: [u64; BUCKETS_NS.len() + 1] = array::from_fn(bucket);
            if counts.iter().all(|count| *count == 0) {
                continue;
            }
            let sum_ns = self.sum(|shard| shard.operations[place].sum_ns.load(Ordering::Relaxed));
            let buckets = BUCKETS_NS.iter().map(|end| seconds(*end)).zip(counts);
            let labels = [("surface", surface), ("operation", operation)];
            text.histogram(name, &labels, buckets, counts[BUCKETS_NS.len()], seconds(sum_ns));
        }
    }
}

pub(crate) fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

const SURFACES: [Surface; 4] = [Surface::Binding, Surface::Rest, Surface::Native, Surface::Ops];

/// Surface and operation of each place: the table of routes, then what was no route of each surface.
fn names() -> impl Iterator<Item = (&'static str, &'static str)> {
    let of_lines = route::lines().map(|line| (line.surface.name(), line.name));
    of_lines.chain(SURFACES.iter().map(|surface| (surface.name(), "none")))
}

fn place_of(route: &Route) -> usize {
    match route {
        Route::Found(line) => line.place(),
        other => {
            let at = SURFACES.iter().position(|surface| *surface == other.surface());
            route::lines().count() + at.unwrap_or_default()
        }
    }
}

fn status_place(status: u16) -> usize {
    let hundred = usize::from(status / 100).clamp(1, OTHERS.len()) - 1;
    STATUSES.binary_search(&status).unwrap_or(STATUSES.len() + hundred)
}

fn status_name(place: usize) -> String {
    match STATUSES.get(place) {
        Some(status) => status.to_string(),
        None => OTHERS[place - STATUSES.len()].to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use hyper::Method;

    use super::*;

    #[test]
    fn every_place_has_a_name_of_its_own() {
        let distinct: BTreeSet<_> = names().collect();
        assert_eq!(distinct.len(), names().count());
        for (place, line) in route::lines().enumerate() {
            assert_eq!(place_of(&Route::Found(line)), place);
        }
    }

    #[test]
    fn statuses_are_counted_as_themselves_or_by_their_hundred() {
        assert!(STATUSES.is_sorted());
        for (status, name) in
            [(200, "200"), (507, "507"), (418, "4xx"), (599, "5xx"), (700, "other")]
        {
            assert_eq!(status_name(status_place(status)), name);
        }
    }

    #[test]
    fn requests_are_counted_in_whatever_thread_they_end() {
        let metrics = Metrics::new();
        let asked = route::route(&Method::GET, "/k", true);
        thread::scope(|scope| {
            for _ in 0..8 {
                let request = metrics.begin();
                scope.spawn(move || request.answered(&asked.route, 200));
            }
        });
        let unfinished = metrics.begin();
        let mut text = Text::default();
        metrics.write_to(&mut text);
        drop(unfinished);
        let text = text.into_string();
        let labels = "surface=\"binding\",operation=\"get\"";
        for line in [
            "kvast_http_requests_in_flight 1".to_owned(),
            format!("kvast_http_requests_total{{{labels},status=\"200\"}} 8"),
            format!("kvast_http_request_duration_seconds_count{{{labels}}} 8"),
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in {text}");
        }
    }
}
