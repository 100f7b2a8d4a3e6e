//! Small requests of one client at a steady pace, and how long they take.

use std::thread;
use std::time::{Duration, Instant};

use crate::server::Client;

const KEYS: usize = 10_000;
const PERIOD: Duration = Duration::from_millis(1);

/// How long requests took, sorted.
pub(crate) struct Times(Vec<Duration>);

/// Writes the values that [`gets`] reads.
pub(crate) fn fill(client: &mut Client) {
    for id in 0..KEYS {
        let answer = client.send("PUT", &key(id), &[b'v'; 100]).unwrap();
        assert_eq!(answer.status, 200);
    }
}

fn key(id: usize) -> String {
    format!("/user:{id:09}:profile")
}

/// Gets values for so long.
pub(crate) fn gets(client: &mut Client, time: Duration) -> Times {
    steadily(time, |turn| {
        // A step that shares no divisor with the number of keys reaches all of them.
        let answer = client.send("GET", &key(turn * 7919 % KEYS), b"").unwrap();
        assert_eq!((answer.status, answer.body.len()), (200, 100));
    })
}

/// Puts values of this length for so long.
pub(crate) fn puts(client: &mut Client, time: Duration, len: usize) -> Times {
    let value = vec![b'w'; len];
    steadily(time, |turn| {
        let target = format!("/put:{:09}", turn % KEYS);
        assert_eq!(client.send("PUT", &target, &value).unwrap().status, 200);
    })
}

/// Acts once a millisecond, or as often as it can.
fn steadily(time: Duration, mut act: impl FnMut(usize)) -> Times {
    let mut times = Vec::new();
    let start = Instant::now();
    for turn in 0.. {
        let began = Instant::now();
        if began - start > time {
            break;
        }
        act(turn);
        times.push(began.elapsed());
        thread::sleep(PERIOD.saturating_sub(began.elapsed()));
    }
    times.sort_unstable();
    Times(times)
}

impl Times {
    fn quantile(&self, share: f64) -> f64 {
        let place = (self.0.len() as f64 * share) as usize;
        self.0[place.min(self.0.len() - 1)].as_secs_f64() * 1e6
    }
}

/// A table of requests, each line beside the one without the load.
pub(crate) fn table(rows: &[(&str, &Times, &Times)]) {
    println!("| small requests, µs | count | p50 | p99 | p99.9 | longest | p99, ratio |");
    println!("|---|--:|--:|--:|--:|--:|--:|");
    for (name, idle, loaded) in rows {
        for (when, times) in [("idle", idle), ("loaded", loaded)] {
            println!(
                "| {name}, {when} | {} | {:.0} | {:.0} | {:.0} | {:.0} | {:.2} |",
                times.0.len(),
                times.quantile(0.5),
                times.quantile(0.99),
                times.quantile(0.999),
                times.quantile(1.0),
                times.quantile(0.99) / idle.quantile(0.99),
            );
        }
    }
    println!();
}
