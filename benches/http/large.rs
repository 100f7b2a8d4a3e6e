//! 64 slow clients with large values, and small requests beside them.

use std::thread;
use std::time::Duration;

use crate::memory::{self, Memory};
use crate::slow::{self, Length};
use crate::{LARGE, Store, small};

const CLIENTS: usize = 64;
const RATE: usize = 1 << 20;
/// Values that are downloaded, so that not all clients read the same pages.
const VALUES: usize = 8;

pub(crate) fn run(store: &Store) {
    let mut client = store.server.client().unwrap();
    small::fill(&mut client);
    for id in 0..VALUES {
        let put =
            slow::upload(store.address(), &format!("large:{id}"), Length::Known, usize::MAX, None);
        assert_eq!(put.unwrap(), 200);
    }
    let time = Duration::from_secs(10);
    let idle_gets = small::gets(&mut client, time);
    let idle_puts = small::puts(&mut client, time, 100);
    thread::sleep(Duration::from_secs(1));
    let idle = Memory::of(store.server.id());

    let ((gets, puts), peak) = memory::peak(store.server.id(), || {
        thread::scope(|scope| {
            for id in 0..CLIENTS {
                scope.spawn(move || exchange(store.address(), id));
            }
            // All are under way, and end after these.
            thread::sleep(Duration::from_secs(2));
            (small::gets(&mut client, time), small::puts(&mut client, time, 100))
        })
    });
    thread::sleep(Duration::from_secs(3));
    let after = Memory::of(store.server.id());

    println!("{CLIENTS} clients, 25 MiB each way at {} MiB/s each\n", RATE >> 20);
    memory::table(&[("idle", idle), ("loaded, at its peak", peak), ("3 s after", after)]);
    small::table(&[("gets", &idle_gets, &gets), ("puts, synced", &idle_puts, &puts)]);
}

/// What one of the slow clients does.
fn exchange(address: &str, id: usize) {
    match id % 4 {
        0 | 2 => {
            let got = slow::download(address, &format!("large:{}", id / 2 % VALUES), RATE);
            assert_eq!(got.unwrap(), LARGE);
        }
        1 => upload(address, id, Length::Known),
        _ => upload(address, id, Length::Unknown),
    }
}

fn upload(address: &str, id: usize, length: Length) {
    let status = slow::upload(address, &format!("up:{id}"), length, RATE, None);
    assert_eq!(status.unwrap(), 200);
}
