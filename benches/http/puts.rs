//! Small puts beside a few large uploads, some of which are cut off.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crate::memory::{self, Memory};
use crate::slow::{self, Exchange, Length};
use crate::{LARGE, Store, mib, small};

const UPLOADERS: usize = 4;
const RATE: usize = 5 << 20;
/// One upload in so many is cut off in its middle.
const CUT_ONE_IN: usize = 10;

pub(crate) fn run(store: &Store) {
    let mut client = store.client();
    let time = Duration::from_secs(30);
    let alone = small::puts(&mut client, time, 1024);
    thread::sleep(Duration::from_secs(1));
    let idle = Memory::of(store.server.id());
    let dead_before = store.metric("kvast_dead_bytes");

    let (is_over, begun) = (AtomicBool::new(false), AtomicUsize::new(0));
    let (beside, peak) = memory::peak(store.server.id(), || {
        thread::scope(|scope| {
            scope.spawn(|| {
                let next = |id| {
                    (!is_over.load(Ordering::Relaxed)).then(|| upload(store.address(), id, &begun))
                };
                slow::drive(UPLOADERS, RATE, next).unwrap();
            });
            let beside = small::puts(&mut client, time, 1024);
            is_over.store(true, Ordering::Relaxed);
            beside
        })
    });
    let dead_after = store.metric("kvast_dead_bytes");
    thread::sleep(Duration::from_secs(3));
    let after = Memory::of(store.server.id());

    let begun = begun.load(Ordering::Relaxed);
    println!(
        "{begun} uploads of 25 MiB at {} MiB/s, {UPLOADERS} at a time, {} of them cut off\n",
        RATE >> 20,
        begun / CUT_ONE_IN
    );
    small::table(&[("puts of 1 KiB, synced", &alone, &beside)]);
    memory::table(&[("idle", idle), ("loaded, at its peak", peak), ("3 s after", after)]);
    println!("dead bytes, MiB: {:.1} before, {:.1} after", mib(dead_before), mib(dead_after));
}

/// Begins to upload a large value over the one before.
fn upload(address: &str, id: usize, begun: &AtomicUsize) -> io::Result<Exchange> {
    let turn = 1 + begun.fetch_add(1, Ordering::Relaxed);
    let cut_at = turn.is_multiple_of(CUT_ONE_IN).then_some(LARGE / 2);
    Exchange::upload(address, &format!("up:{id}"), Length::Unknown, cut_at)
}
