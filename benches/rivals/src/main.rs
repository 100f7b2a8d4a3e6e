//! How does kvast compare with other embedded stores, and does it reach what it set out to reach?
//!
//! Varies: the store; the work, in the parts below; 1, 2 and 8 threads. Fixed: 22-byte keys
//! `user:{id:09}:profile` of which every second id is there, loaded in random order, values of 100 bytes
//! that differ and cannot be compressed, everything in the page cache, checksums on where a store has
//! them, compression off. Leaves out: cold disk (see `../cold`), HTTP (see `../http`), damage.
//!
//! Run: `cargo run --release` here, with Debian's RocksDB `cargo run --release --features rocksdb` (how
//! to get it: `src/store/rocksdb.rs`). Keep a result: `../record/README.md`. Options:
//!
//! | option | meaning |
//! |---|---|
//! | `--quick` | a look: 100,000 keys, 3 rounds, short turns; its figures mean little |
//! | `--only PART,..` | parts: see below |
//! | `--rivals NAME,..` | lmdb, redb, fjall, rocksdb, sled, sqlite; `none` for kvast alone |
//! | `--rounds N`, `--keys N` | 9 and 1,000,000 |
//! | `--index-keys N`, `--growth-to N` | ten times the keys each; `--growth-to 30000000` for 3 x 10^7 |
//! | `--dir DIR` | where the stores are made, for choosing a disk; `kvast-rivals` in it is removed |
//!
//! | part | rows |
//! |---|---|
//! | `load` | put without sync, 1,000 a commit |
//! | `reads` | get (uniform, zipf; 1 and 2 threads), many gets, misses, lists |
//! | `open` | open to the first get, closed and killed; disk of puts of one a commit |
//! | `mixed` | 95 % gets and 5 % puts |
//! | `beside` | gets beside a writer at full speed |
//! | `writes` | put and delete, one a commit, without sync |
//! | `durable` | put with sync |
//! | `space` | disk per user byte, loaded and overwritten |
//! | `values` | load of 1 KiB, 16 KiB and 1 MiB; get of 1 MiB |
//! | `index` | kvast's memory for a key |
//! | `growth` | everything against the number of keys |
//!
//! Each row is measured in rounds; in each one all stores do the same work one after the other, in an
//! order that changes. Shown are medians; a ratio is the median of the rounds' ratios, with the least and
//! the greatest. How each store is used, and with which settings, stands at the top of its file in
//! `src/store/`; what a row counts and what not, at the top of its part in `src/parts/`. A rival that was
//! not built is named as absent.

mod arguments;
mod contest;
mod data;
mod heap;
mod machine;
mod parts;
mod report;
mod store;

use std::process::ExitCode;
use std::time::Instant;

use arguments::Arguments;
use contest::Contest;
use report::Report;

#[global_allocator]
static HEAP: heap::Counting = heap::Counting;

fn main() -> ExitCode {
    let arguments = match Arguments::read(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(sentence) => {
            eprintln!("{sentence}");
            return ExitCode::FAILURE;
        }
    };
    if arguments.spin {
        loop {
            std::hint::spin_loop();
        }
    }
    if let Some(what) = &arguments.load {
        parts::load_and_wait(what, &arguments.dir, arguments.keys);
    }
    machine::remove(&arguments.dir);
    std::fs::create_dir_all(&arguments.dir).expect("a directory for the stores");
    let contest = Contest::new(arguments);
    let mut report = Report::new(&contest);
    let wanted = parts::PARTS.iter().filter(|(name, _)| contest.arguments.has_part(name));
    for (name, run) in wanted {
        let begin = Instant::now();
        run(&contest, &mut report);
        eprintln!("part {name} took {:.0} s", begin.elapsed().as_secs_f64());
    }
    machine::remove(&contest.arguments.dir);
    print!("{report}");
    ExitCode::SUCCESS
}
