//! 64 slow clients with large values, and small requests beside them.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::memory::{self, Memory};
use crate::slow::{self, Exchange, Length};
use crate::{Store, small};

const CLIENTS: usize = 64;
const RATE: usize = 1 << 20;
/// Values that are downloaded, so that not all clients read the same pages.
const VALUES: usize = 8;

pub(crate) fn run(store: &Store) {
    // The control: a server that does nothing else, beside the same clients.
    let control = store.another();
    let (mut client, mut unloaded) = (store.client(), control.client());
    small::fill(&mut client);
    small::fill(&mut unloaded);
    let mut left = 0..VALUES;
    slow::drive(1, usize::MAX, |_| {
        Some(upload(store, &format!("large:{}", left.next()?), Length::Known))
    })
    .unwrap();
    let time = Duration::from_secs(10);
    let idle_gets = small::gets(&mut client, time);
    let idle_puts = small::puts(&mut client, time, 100);
    thread::sleep(Duration::from_secs(1));
    let idle = Memory::of(store.server.id());

    let is_over = AtomicBool::new(false);
    let ((gets, control_gets, puts), peak) = memory::peak(store.server.id(), || {
        thread::scope(|scope| {
            scope.spawn(|| {
                let next = |id| (!is_over.load(Ordering::Relaxed)).then(|| exchange(store, id));
                slow::drive(CLIENTS, RATE, next).unwrap();
            });
            thread::sleep(Duration::from_secs(2));
            let gets = small::gets(&mut client, time);
            let control = small::gets(&mut unloaded, time);
            let puts = small::puts(&mut client, time, 100);
            is_over.store(true, Ordering::Relaxed);
            (gets, control, puts)
        })
    });
    thread::sleep(Duration::from_secs(3));
    let after = Memory::of(store.server.id());

    println!("{CLIENTS} clients, 25 MiB each way at {} MiB/s each\n", RATE >> 20);
    memory::table(&[("idle", idle), ("loaded, at its peak", peak), ("3 s after", after)]);
    small::table(&[
        ("gets", &idle_gets, &gets),
        ("gets from another server, which is idle", &idle_gets, &control_gets),
        ("puts, synced", &idle_puts, &puts),
    ]);
}

/// What one of the slow clients does: half of them take values, half send some.
fn exchange(store: &Store, id: usize) -> io::Result<Exchange> {
    match id % 4 {
        0 | 2 => Exchange::download(store.address(), &format!("large:{}", id / 2 % VALUES)),
        1 => upload(store, &format!("up:{id}"), Length::Known),
        _ => upload(store, &format!("up:{id}"), Length::Unknown),
    }
}

fn upload(store: &Store, key: &str, length: Length) -> io::Result<Exchange> {
    Exchange::upload(store.address(), key, length, None)
}
