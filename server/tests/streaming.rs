//! What large values promise: they come and go in pieces, nobody sees half of one, and those who are
//! slow keep nobody else waiting.

use std::fs;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::{Client, Server, config, head, request};
use kvast::Durability;

const MIB: usize = 1 << 20;
const LIMIT: usize = 25 * MIB;

/// Bytes that are nowhere the same as a little further on.
fn value(len: usize) -> Vec<u8> {
    let mut state = len as u64 + 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// Sends a value whose length is not told, in chunks of the given length.
fn put_chunked(client: &mut Client, target: &str, value: &[u8], chunk: usize) {
    client.write(format!("{}Transfer-Encoding: chunked\r\n\r\n", head("PUT", target, &[])));
    for chunk in value.chunks(chunk) {
        client.write(format!("{:x}\r\n", chunk.len()));
        client.write(chunk);
        client.write("\r\n");
    }
    client.write("0\r\n\r\n");
}

/// Begins an upload that sends so much and then nothing more.
fn stalled_upload(server: &Server, target: &str, len: usize, sent: usize) -> Client {
    let mut client = server.connect();
    client.write(format!("{}Content-Length: {len}\r\n\r\n", head("PUT", target, &[])));
    client.write(vec![1; sent]);
    client
}

#[test]
fn values_of_known_and_of_unknown_length_come_back_whole() {
    for durability in [Durability::Sync, Durability::Os] {
        let server = Server::with(|config| config.durability = durability);
        let mut client = server.connect();
        let around = [64 << 10, 256 << 10, 512 << 10, 3 * MIB];
        for len in around.into_iter().flat_map(|len| [len - 1, len, len + 1]) {
            let want = value(len);
            client.send("PUT", "/known", &[], &want).ok();
            assert!(client.send("GET", "/known", &[], b"").ok().body == want, "{len}");
            put_chunked(&mut client, "/unknown", &want, 10_007);
            client.read().ok();
            assert!(client.send("GET", "/unknown", &[], b"").ok().body == want, "{len}");
        }
    }
}

#[test]
fn a_value_of_25_mib_is_taken_and_one_byte_more_is_not_however_it_comes() {
    let server = Server::new();
    let mut client = server.connect();
    let longest = value(LIMIT);
    client.send("PUT", "/k", &[], &longest).ok();
    assert!(client.send("GET", "/k", &[], b"").ok().body == longest);

    put_chunked(&mut client, "/chunked", &longest, 60_000);
    client.read().ok();
    assert!(client.send("GET", "/chunked", &[], b"").ok().body == longest);

    let longer = value(LIMIT + 1);
    let told = format!("413 Value length of {} exceeds limit of {LIMIT}.", LIMIT + 1);
    assert_eq!(client.send("PUT", "/k", &[], &longer).refusal(), told);
    put_chunked(&mut client, "/k", &longer, 60_000);
    assert_eq!(client.read().status, 413);
    assert!(client.send("GET", "/k", &[], b"").ok().body == longest, "it kept what it had");
}

#[test]
fn a_large_upload_that_is_cut_off_leaves_the_old_value() {
    let server = Server::new();
    server.put("/k", b"old").ok();
    for framing in [format!("Content-Length: {}", 8 * MIB), "Transfer-Encoding: chunked".into()] {
        let mut client = server.connect();
        client.write(format!("{}{framing}\r\n\r\n500000\r\n", head("PUT", "/k", &[])));
        client.write(value(4 * MIB));
        client.stream.get_ref().shutdown(Shutdown::Both).expect("it hangs up");
    }
    thread::sleep(Duration::from_millis(100));
    assert_eq!(server.get("/k").ok().text(), "old");
    server.put("/k", &value(2 * MIB)).ok();
    assert!(server.get("/k").ok().body == value(2 * MIB));
}

#[test]
fn many_uploads_that_stall_keep_nobody_else_waiting() {
    let server = Server::new();
    let stalled: Vec<Client> =
        (0..64).map(|n| stalled_upload(&server, &format!("/s{n}"), LIMIT, 600 << 10)).collect();
    let began = Instant::now();
    let mut client = server.connect();
    for n in 0..20 {
        client.send("PUT", &format!("/small{n}"), &[], b"v").ok();
        assert_eq!(client.send("GET", &format!("/small{n}"), &[], b"").ok().text(), "v");
    }
    let large = value(5 * MIB);
    client.send("PUT", "/large", &[], &large).ok();
    put_chunked(&mut client, "/chunked", &large, 100_000);
    client.read().ok();
    assert!(client.send("GET", "/large", &[], b"").ok().body == large);
    assert!(began.elapsed() < Duration::from_secs(9), "nobody waited for a time-out");
    drop(stalled);
}

#[test]
fn an_upload_for_which_there_is_no_memory_is_told_to_come_back() {
    let server = Server::with(|config| {
        config.limits.connections = 16;
        config.limits.upload_bytes = 2 << 20;
        config.limits.upload_wait = Duration::from_millis(100);
    });
    // Beside what each connection has there is room for two.
    let stalled = [1, 2].map(|n| stalled_upload(&server, &format!("/s{n}"), LIMIT, 300 << 10));
    thread::sleep(Duration::from_millis(100));
    let refused = server.put("/k", &value(MIB));
    assert_eq!(
        refused.refusal(),
        "503 The server is busy with other uploads; try again in a few seconds."
    );
    assert_eq!(refused.header("retry-after"), Some("5"));
    server.put("/small", b"v").ok();
    assert_eq!(server.get("/small").ok().text(), "v");
    drop(stalled);
    let began = Instant::now();
    while server.put("/k", &value(MIB)).status != 200 {
        assert!(began.elapsed() < Duration::from_secs(10), "the room comes back");
    }
}

#[test]
fn a_body_that_trickles_is_given_up() {
    let server = Server::with(|config| {
        config.limits.body_idle = Duration::from_millis(300);
        config.limits.body_rate = 1 << 20;
    });
    let mut client = stalled_upload(&server, "/k", LIMIT, 100);
    let mut writer = client.stream.get_ref().try_clone().expect("a second handle");
    let trickle = thread::spawn(move || {
        // No pause is long, and all together bring next to nothing.
        while writer.write_all(b"drop").is_ok() {
            thread::sleep(Duration::from_millis(20));
        }
    });
    assert_eq!(client.read().status, 408);
    drop(client);
    trickle.join().expect("no panic");
    assert_eq!(server.get("/k").status, 404);
}

#[test]
fn small_reads_go_on_beside_many_slow_readers_of_large_values() {
    let server = Server::new();
    server.put("/large", &value(LIMIT)).ok();
    server.put("/small", b"v").ok();
    let slow: Vec<Client> = (0..32)
        .map(|_| {
            let mut client = server.connect();
            client.write(request("GET", "/large", &[], b""));
            client
        })
        .collect();
    let mut client = server.connect();
    for _ in 0..100 {
        assert_eq!(client.send("GET", "/small", &[], b"").ok().text(), "v");
    }
    for mut client in slow.into_iter().take(2) {
        assert!(client.read().ok().body == value(LIMIT), "a slow reader gets all of it");
    }
}

#[test]
fn an_answer_that_takes_too_long_in_all_is_cut_off() {
    let server = Server::with(|config| config.limits.answer_time = Duration::from_millis(300));
    server.put("/large", &value(LIMIT)).ok();
    let mut client = server.connect();
    client.write(request("GET", "/large", &[], b""));
    thread::sleep(Duration::from_millis(500));
    let mut got = Vec::new();
    let _ = client.stream.read_to_end(&mut got);
    assert!(got.len() < LIMIT, "it was cut off");
}

/// Asks the system to forget what it has of the store's files.
fn cool(dir: &Path) {
    for path in files(dir) {
        let from = format!("if={}", path.display());
        let told =
            Command::new("dd").args([&from, "iflag=nocache", "count=0", "status=none"]).status();
        assert!(told.expect("dd runs").success());
    }
}

#[test]
fn what_is_not_in_memory_is_served_like_everything_else() {
    let dir = tempfile::tempdir().expect("a directory");
    let handle = kvast_server::start(config(dir.path())).expect("it starts");
    let mut client = Client::to(handle.addr());
    let large = value(5 * MIB);
    client.send("PUT", "/large", &[], &large).ok();
    for n in 0..200 {
        let metadata = format!("CF-KV-Metadata: {n}");
        client.send("PUT", &format!("/k{n:03}"), &[&metadata], &value(10_000 + n)).ok();
    }
    drop(client);
    handle.stop().expect("a clean close");
    cool(dir.path());

    let handle = kvast_server::start(config(dir.path())).expect("it starts again");
    let mut client = Client::to(handle.addr());
    assert!(client.send("GET", "/large", &[], b"").ok().body == large);
    for n in 0..200 {
        let found = client.send("GET", &format!("/k{n:03}"), &[], b"").ok();
        assert!(found.body == value(10_000 + n), "{n}");
    }
    let listed = client.send("GET", "/?prefix=k", &[], b"").ok().json();
    assert_eq!(listed["keys"][199]["metadata"], "199");
}

/// Changes one byte where `wanted` is stored.
fn damage(dir: &Path, wanted: &[u8]) {
    for path in files(dir) {
        let bytes = fs::read(&path).expect("a file of the store");
        if let Some(at) = bytes.windows(wanted.len()).position(|found| found == wanted) {
            let file = fs::OpenOptions::new().write(true).open(&path).expect("it can be written");
            file.write_all_at(&[!wanted[0]], at as u64).expect("it is written");
            return;
        }
    }
    panic!("it is stored nowhere");
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("entry").path());
    let (dirs, mut found): (Vec<_>, Vec<_>) = entries.partition(|path| path.is_dir());
    found.extend(dirs.iter().flat_map(|dir| files(dir)));
    found
}

#[test]
fn a_damaged_first_block_is_a_status_and_a_damaged_later_one_breaks_the_answer_off() {
    let server = Server::new();
    let whole = value(3 * MIB);
    server.put("/first", &whole).ok();
    let other: Vec<u8> = whole.iter().map(|byte| byte ^ 0x55).collect();
    server.put("/later", &other).ok();
    damage(server.dir.path(), &whole[1000..1100]);
    damage(server.dir.path(), &other[2 * MIB..2 * MIB + 100]);

    assert_eq!(server.get("/first").status, 500);
    let mut client = server.connect();
    client.write(request("GET", "/later", &[], b""));
    let mut got = Vec::new();
    let _ = client.stream.read_to_end(&mut got);
    let start = got.windows(4).position(|found| found == b"\r\n\r\n").expect("a head") + 4;
    assert!(got.starts_with(b"HTTP/1.1 200 "));
    let body = &got[start..];
    assert!(body.len() < other.len() && other.starts_with(body), "only what is sound was sent");
}
