//! The largest bulk put there may be, and one that is refused for its last entry.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use crate::memory::{self, Memory};
use crate::{Store, mib};

const NAMESPACES: &str = "/client/v4/accounts/bench/storage/kv/namespaces";
const ENTRIES: usize = 10_000;
/// So that all entries together come to a little less than 100 MB.
const VALUE_LEN: usize = 9_950;

pub(crate) fn run(store: &Store) {
    let namespace = create_namespace(store);
    thread::sleep(Duration::from_secs(1));
    let idle = Memory::of(store.server.id());

    let began = Instant::now();
    let (bad, bad_peak) =
        memory::peak(store.server.id(), || put(store, &namespace, r#","expiration_ttl":5"#));
    let bad_time = began.elapsed();
    let written = list(store, &namespace);

    let (keys, index) = (store.metric("kvast_keys"), store.metric("kvast_index_bytes"));
    let began = Instant::now();
    let (good, good_peak) = memory::peak(store.server.id(), || put(store, &namespace, ""));
    let good_time = began.elapsed();
    let index = store.metric("kvast_index_bytes") - index;
    thread::sleep(Duration::from_secs(3));
    let after = Memory::of(store.server.id());

    println!(
        "{ENTRIES} entries, {} bytes of JSON; the index grew by {:.1} MiB\n",
        body_len(""),
        mib(index)
    );
    println!("| bulk put | status | time | written |\n|---|--:|--:|--:|");
    println!("| its last entry bad | {bad} | {:.2} s | {written} keys |", bad_time.as_secs_f64());
    let written = store.metric("kvast_keys") - keys;
    println!("| good | {good} | {:.2} s | {written} keys |\n", good_time.as_secs_f64());
    memory::table(&[
        ("idle", idle),
        ("its last entry bad, at its peak", bad_peak),
        ("good, at its peak", good_peak),
        ("3 s after", after),
    ]);
}

fn create_namespace(store: &Store) -> String {
    let mut client = store.client();
    let answer = client.send("POST", NAMESPACES, br#"{"title":"bulk"}"#).unwrap();
    let text = String::from_utf8(answer.body).unwrap();
    let (_, after) = text.split_once(r#""id":""#).unwrap();
    after[..32].to_owned()
}

/// How many keys a list shows, of the first few.
fn list(store: &Store, namespace: &str) -> usize {
    let target = format!("{NAMESPACES}/{namespace}/keys?limit=10");
    let answer = store.client().send("GET", &target, b"").unwrap();
    assert_eq!(answer.status, 200);
    String::from_utf8(answer.body).unwrap().matches(r#""name""#).count()
}

/// One entry; `more` is added to the last one.
fn entry(id: usize, more: &str) -> Vec<u8> {
    let more = if id + 1 == ENTRIES { more } else { "" };
    let mut entry = format!(r#"{{"key":"bulk:{id:06}"{more},"value":""#).into_bytes();
    entry.extend((0..VALUE_LEN).map(|at| b'a' + ((id + at) % 26) as u8));
    entry.extend_from_slice(if id + 1 == ENTRIES { b"\"}]" } else { b"\"}," });
    entry
}

fn body_len(more: &str) -> usize {
    1 + ENTRIES * entry(0, "").len() + more.len()
}

/// Sends all entries as they are made, and returns the status.
fn put(store: &Store, namespace: &str, more: &str) -> u16 {
    let mut stream = TcpStream::connect(store.address()).unwrap();
    write!(
        stream,
        "PUT {NAMESPACES}/{namespace}/bulk HTTP/1.1\r\nhost: kvast\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n[",
        body_len(more)
    )
    .unwrap();
    for id in 0..ENTRIES {
        stream.write_all(&entry(id, more)).unwrap();
    }
    let (mut stream, mut line) = (BufReader::new(stream), String::new());
    stream.read_line(&mut line).unwrap();
    stream.read_to_end(&mut Vec::new()).unwrap();
    line.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap()
}
