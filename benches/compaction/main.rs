//! What does compaction copy, and what does it leave lying?
//!
//! Varies: what users write (keys alike or not, deletes, times to live), which segments are compacted
//! first, what is kept apart when they are rewritten, and the bound on space. Fixed: 128-MiB segments,
//! 150 of them loaded first and 1,500 written afterwards; everything goes by seed, so two runs print
//! the same. Leaves out: time, large values, footers and commit records. No disk is touched: the
//! choice is the engine's own, the store is a model of one.
//! Run: `cargo bench --bench compaction`.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, reason = "a bench")]

mod model;
mod policy;
mod workload;

use std::thread;

use model::{Model, Seen};
use policy::{Apart, Order, Policy};
use workload::{Keys, Ttl, Workload};

const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
const BOUND: f64 = 1.3;

/// The upper ends of one to ten windows, besides the one for what never expires.
const ENDS: [&[u64]; 10] = [
    &[],
    &[30 * DAY],
    &[DAY],
    &[HOUR, 7 * DAY],
    &[HOUR, DAY, 7 * DAY],
    &[HOUR, DAY, 7 * DAY, 30 * DAY],
    &[HOUR, 6 * HOUR, DAY, 7 * DAY, 30 * DAY],
    &[HOUR, 6 * HOUR, DAY, 3 * DAY, 7 * DAY, 30 * DAY],
    &[HOUR, 6 * HOUR, DAY, 3 * DAY, 7 * DAY, 14 * DAY, 30 * DAY],
    &[10 * MINUTE, HOUR, 6 * HOUR, DAY, 3 * DAY, 7 * DAY, 14 * DAY, 30 * DAY],
];

fn workloads() -> Vec<Workload> {
    let over = |days| {
        move |name, keys, ttl, delete_in| Workload {
            name,
            keys,
            ttl,
            delete_in,
            loaded: 150,
            written: 1500,
            days,
        }
    };
    let (slow, fast) = (over(60), over(3));
    vec![
        slow("append only", Keys::New, Ttl::None, 0),
        slow("overwrites, uniform", Keys::Uniform, Ttl::None, 0),
        slow("overwrites, zipf 0.99", Keys::Zipf, Ttl::None, 0),
        slow("overwrites, 90/10", Keys::HotCold, Ttl::None, 0),
        slow("a third deletes, uniform", Keys::Uniform, Ttl::None, 3),
        slow("all live a day", Keys::New, Ttl::All(DAY), 0),
        slow("half sessions, half uniform", Keys::Uniform, Ttl::HalfOnce, 0),
        slow("half sessions, half zipf", Keys::Zipf, Ttl::HalfOnce, 0),
        slow("half expire, uniform", Keys::Uniform, Ttl::Half, 0),
        slow("half expire, zipf 0.99", Keys::Zipf, Ttl::Half, 0),
        slow("half expire, 90/10", Keys::HotCold, Ttl::Half, 0),
        fast("the same 20 times as fast", Keys::HotCold, Ttl::Half, 0),
    ]
}

fn policies() -> Vec<Policy> {
    let ours = Policy::engine;
    vec![
        ours(),
        Policy { apart: Apart::Windows(Vec::new()), ..ours() }.named("ours, no windows"),
        Policy { order: Order::Greedy, ..ours() }.named("greedy"),
        Policy { order: Order::CostBenefit, ..ours() }.named("cost-benefit"),
        Policy { order: Order::Soon, ..ours() }.named("ours, soon is dead"),
        Policy { apart: Apart::Ages(vec![2 * DAY, 8 * DAY]), ..ours() }.named("ours, by age too"),
        Policy { groups_at_write: true, ..ours() }.named("grouped at write"),
    ]
}

fn main() {
    println!("## Policies, space bound {BOUND}\n");
    print_head("policy");
    let jobs = workloads()
        .into_iter()
        .flat_map(|workload| policies().into_iter().map(move |policy| (workload, policy, BOUND)));
    print_all(jobs.collect(), |policy, _| policy.name.clone());

    println!("\n## How many windows, space bound {BOUND}\n");
    print_head("windows");
    let jobs = expiring().flat_map(|workload| {
        ENDS.iter().enumerate().map(move |(nth, ends)| {
            let apart = Apart::Windows(ends.to_vec());
            let policy = Policy { apart, ..Policy::engine() }.named((nth + 1).to_string());
            (workload, policy, BOUND)
        })
    });
    print_all(jobs.collect(), |policy, _| policy.name.clone());

    println!("\n## What another bound would cost\n");
    print_head("bound");
    let jobs = workloads().into_iter().flat_map(|workload| {
        [1.1, 1.2, 1.3, 1.5, 2.0].map(|bound| (workload, Policy::engine(), bound))
    });
    print_all(jobs.collect(), |_, bound| bound.to_string());
}

fn expiring() -> impl Iterator<Item = Workload> {
    workloads().into_iter().filter(|workload| matches!(workload.ttl, Ttl::Half | Ttl::HalfOnce))
}

fn print_head(what: &str) {
    println!(
        "| writes | {what} | written / put | copied / put | copied again / put | space mean | space max | expired, never copied | compactions | segments |"
    );
    println!("|---|---|--:|--:|--:|--:|--:|--:|--:|--:|");
}

/// Runs all, as many at a time as there are processors, and prints them in order.
fn print_all(jobs: Vec<(Workload, Policy, f64)>, name: impl Fn(&Policy, f64) -> String) {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    for some in jobs.chunks(threads) {
        let seen: Vec<Seen> = thread::scope(|scope| {
            let running: Vec<_> = some.iter().map(|job| scope.spawn(move || run(job))).collect();
            running.into_iter().map(|run| run.join().unwrap()).collect()
        });
        for ((workload, policy, bound), seen) in some.iter().zip(seen) {
            print_row(workload.name, &name(policy, *bound), &seen);
        }
    }
}

fn run((workload, policy, bound): &(Workload, Policy, f64)) -> Seen {
    let mut model = Model::new(policy, *bound, workload.key_count());
    workload.run(&mut model, 1);
    model.seen
}

fn print_row(workload: &str, name: &str, seen: &Seen) {
    let per_put = |bytes: u64| bytes as f64 / seen.put as f64;
    let uncopied = match seen.expired {
        0 => "–".to_owned(),
        expired => format!("{:.0} %", 100.0 * seen.expired_uncopied as f64 / expired as f64),
    };
    println!(
        "| {workload} | {name} | {:.2} | {:.2} | {:.2} | {:.2} | {:.2} | {uncopied} | {} | {} |",
        per_put(seen.put + seen.copied),
        per_put(seen.copied),
        per_put(seen.copied_again),
        seen.space_mean(),
        seen.space_max,
        seen.compactions,
        seen.segments,
    );
}
