//! A server listens where it is told to: on any number of addresses, on Unix sockets, and on
//! sockets that somebody else has opened; what other machines reach needs a token. A connection
//! may wait between requests, not within one.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::program::{self, Program};
use crate::support::{Client, Server, config};
use kvast_server::{Config, ListenOn, StartError, start};
use tempfile::TempDir;

fn tcp(addr: &str) -> ListenOn {
    ListenOn::Tcp(addr.parse().expect("an address"))
}

fn listening_on(dir: &Path, on: ListenOn) -> Config {
    Config { listen: vec![on], ..config(dir) }
}

/// Why a server does not start.
#[track_caller]
fn refusal(config: Config) -> StartError {
    match start(config) {
        Ok(handle) => panic!("it listens on {:?}", handle.urls()),
        Err(error) => error,
    }
}

#[test]
fn all_places_serve_the_same_store() {
    let dir = TempDir::new().expect("a directory");
    let path = dir.path().join("kvast.sock");
    let server = Server::with(|config| {
        config.listen = vec![tcp("127.0.0.1:0"), ListenOn::Unix(path.clone()), tcp("[::1]:0")];
    });
    let [v4, v6] = server.handle.addrs() else { panic!("two addresses") };
    let urls = [format!("http://{v4}"), format!("unix:{}", path.display()), format!("http://{v6}")];
    assert_eq!(server.handle.urls(), urls);
    assert!(urls[2].starts_with("http://[::1]:"));
    Client::to(*v4).send("PUT", "/k", &[], b"value").ok();
    assert_eq!(Client::to(*v6).send("GET", "/k", &[], b"").ok().text(), "value");
    let mut local = Client::to_unix(&path);
    assert_eq!(local.send("GET", "/k", &[], b"").ok().text(), "value");
    assert_eq!(local.send("GET", "/k", &[], b"").ok().text(), "value", "it is kept open");
}

#[test]
fn a_unix_socket_is_for_owner_and_group_and_is_gone_in_the_end() {
    let dir = TempDir::new().expect("a directory");
    let path = dir.path().join("kvast.sock");
    let server = Server::with(|config| config.listen = vec![ListenOn::Unix(path.clone())]);
    let found = fs::symlink_metadata(&path).expect("it is there");
    assert!(found.file_type().is_socket());
    assert_eq!(found.permissions().mode() & 0o777, 0o660);
    server.handle.stop().expect("a clean stop");
    assert!(!path.exists());
}

#[test]
fn a_unix_socket_that_was_left_behind_is_replaced() {
    let dir = TempDir::new().expect("a directory");
    let path = dir.path().join("kvast.sock");
    drop(UnixListener::bind(&path).expect("a socket"));
    assert!(path.exists(), "a process that is killed leaves its socket behind");
    let _server = Server::with(|config| config.listen = vec![ListenOn::Unix(path.clone())]);
    assert_eq!(Client::to_unix(&path).send("GET", "/", &[], b"").status, 200);
}

#[test]
fn a_unix_socket_of_somebody_else_and_a_file_are_left_alone() {
    let dir = TempDir::new().expect("a directory");
    let path = dir.path().join("kvast.sock");
    let server = Server::with(|config| config.listen = vec![ListenOn::Unix(path.clone())]);
    let second = TempDir::new().expect("a directory");
    let text = refusal(listening_on(second.path(), ListenOn::Unix(path.clone()))).to_string();
    assert!(text.contains("another process listens on it"), "{text}");
    assert_eq!(Client::to_unix(&path).send("GET", "/", &[], b"").status, 200);

    let file = dir.path().join("file");
    fs::write(&file, "precious").expect("it is written");
    let text = refusal(listening_on(second.path(), ListenOn::Unix(file.clone()))).to_string();
    assert!(text.contains("no socket"), "{text}");
    assert_eq!(fs::read(&file).expect("it is there"), b"precious");

    // Whoever has replaced the file keeps it.
    fs::remove_file(&path).expect("it is removed");
    let _other = UnixListener::bind(&path).expect("a socket");
    server.handle.stop().expect("a clean stop");
    assert!(path.exists());
}

#[test]
fn what_other_machines_reach_needs_a_token_or_somebody_who_says_that_it_does_not() {
    let dir = TempDir::new().expect("a directory");
    for on in ["0.0.0.0:0", "[::]:0"] {
        let refused = refusal(listening_on(dir.path(), tcp(on)));
        assert!(matches!(refused, StartError::Unprotected(_)), "{refused}");
        assert!(!dir.path().join("data").exists(), "the store is not touched");
        let second = Config { listen: vec![tcp("127.0.0.1:0"), tcp(on)], ..config(dir.path()) };
        assert!(matches!(refusal(second), StartError::Unprotected(_)));

        let insecure = Config { insecure: true, ..listening_on(dir.path(), tcp(on)) };
        start(insecure).expect("it starts").stop().expect("a clean stop");
        let tokens = dir.path().join("tokens");
        fs::write(&tokens, "token\n").expect("it is written");
        let guarded = Config { token_file: Some(tokens), ..listening_on(dir.path(), tcp(on)) };
        start(guarded).expect("it starts").stop().expect("a clean stop");
        fs::remove_dir_all(dir.path().join("data")).expect("it is removed");
    }
    for on in [tcp("[::1]:0"), tcp("[::ffff:127.0.0.1]:0"), tcp("127.9.9.9:0")] {
        start(listening_on(dir.path(), on)).expect("it starts").stop().expect("a clean stop");
    }
}

#[test]
fn an_address_that_is_taken_or_missing_is_named() {
    let server = Server::new();
    let dir = TempDir::new().expect("a directory");
    let text = refusal(listening_on(dir.path(), ListenOn::Tcp(server.addr()))).to_string();
    assert!(text.contains(&server.addr().to_string()), "{text}");
    let nowhere = Config { listen: Vec::new(), ..config(dir.path()) };
    assert!(matches!(refusal(nowhere), StartError::Nowhere));
}

#[test]
fn connections_of_all_places_share_the_places_there_are() {
    let dir = TempDir::new().expect("a directory");
    let path = dir.path().join("kvast.sock");
    let server = Server::with(|config| {
        config.listen.push(ListenOn::Unix(path.clone()));
        config.limits.connections = 1;
    });
    let mut first = server.connect();
    first.send("GET", "/", &[], b"").ok();
    let mut second = Client::to_unix(&path);
    second.write(crate::support::request("GET", "/", &[], b""));
    thread::sleep(Duration::from_millis(100));
    drop(first);
    second.read().ok();
    drop(second);
    server.get("/").ok();
}

#[test]
fn an_idle_connection_gives_its_place_to_a_client_that_waits() {
    let server = Server::with(|config| config.limits.connections = 2);
    let mut busy = server.connect();
    busy.begin_put("/k", 9);
    let mut idle = server.connect();
    idle.send("GET", "/", &[], b"").ok();
    // It would have to wait for longer than a test does until the other has idled for too long.
    server.get("/").ok();
    assert!(idle.is_closed());
    busy.write("the whole");
    busy.read().ok();
}

#[test]
fn a_connection_may_idle_between_requests_for_longer_than_a_head_may_take() {
    let server = Server::with(|config| {
        config.limits.head_time = Duration::from_millis(200);
        config.limits.idle_time = Duration::from_secs(60);
    });
    let mut client = server.connect();
    thread::sleep(Duration::from_millis(500));
    client.send("GET", "/", &[], b"").ok();
    thread::sleep(Duration::from_millis(500));
    client.send("GET", "/", &[], b"").ok();
    client.write("GET / HT");
    let began = Instant::now();
    assert!(client.is_closed(), "the head has its own time on a kept connection too");
    assert!(began.elapsed() < Duration::from_secs(10));
}

#[test]
fn a_head_that_trickles_has_no_more_time_than_one_that_stops() {
    let server = Server::with(|config| config.limits.head_time = Duration::from_millis(300));
    let mut client = server.connect();
    let began = Instant::now();
    loop {
        use std::io::Write;
        if client.stream.get_mut().write_all(b"X").is_err() {
            break;
        }
        thread::sleep(Duration::from_millis(20));
        assert!(began.elapsed() < Duration::from_secs(10), "it is given up");
    }
}

#[test]
fn a_connection_that_idles_for_too_long_is_closed() {
    let server = Server::with(|config| config.limits.idle_time = Duration::from_millis(200));
    assert!(server.connect().is_closed(), "without any request");
    let mut client = server.connect();
    for _ in 0..5 {
        client.send("GET", "/", &[], b"").ok();
        thread::sleep(Duration::from_millis(50));
    }
    client.write("\r\n");
    assert!(client.is_closed(), "an empty line is no request");
}

/// Runs the program with a socket as its descriptor 3, the way that systemd does it.
fn activated(dir: &Path, socket: OwnedFd) -> Program {
    let serve = "exec 3<&0 0</dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec \"$0\" serve";
    let program = env!("CARGO_BIN_EXE_kvast");
    let mut shell = Command::new("/bin/sh");
    let data = dir.join("data");
    shell.args(["-c", serve, program]).env_clear().env("KVAST_DATA", data).stdin(socket);
    Program::spawn(&mut shell)
}

#[test]
fn sockets_of_a_service_manager_take_the_place_of_the_address() {
    let dir = TempDir::new().expect("a directory");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let addr: SocketAddr = listener.local_addr().expect("an address");
    let mut early = Client::to(addr);
    early.write(crate::support::request("PUT", "/k", &[], b"early"));
    let mut server = activated(dir.path(), listener.into());
    assert_eq!(server.addr(), addr);
    early.read().ok();
    assert_eq!(Client::to(addr).send("GET", "/k", &[], b"").ok().text(), "early");
    server.signal("TERM");
    assert_eq!(server.end().status.code(), Some(0));

    let path = dir.path().join("kvast.sock");
    let listener = UnixListener::bind(&path).expect("a listener");
    let mut server = activated(dir.path(), listener.into());
    assert_eq!(server.place(), format!("unix:{}", path.display()));
    let answer = Client::to_unix(&path).send("GET", "/k", &[], b"");
    assert_eq!(answer.ok().text(), "early");
    server.signal("TERM");
    assert_eq!(server.end().status.code(), Some(0));
    assert!(path.exists(), "the file is the manager's");
}

#[test]
fn a_socket_of_a_service_manager_that_others_reach_needs_a_token_too() {
    let dir = TempDir::new().expect("a directory");
    let listener = TcpListener::bind("0.0.0.0:0").expect("a listener");
    let output = activated(dir.path(), listener.into()).end();
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("a token is needed"), "{said}");
}

#[test]
fn sockets_that_are_for_another_process_are_left_alone() {
    let dir = TempDir::new().expect("a directory");
    let mut command = program::command(dir.path());
    command.args(["serve", "--listen", "127.0.0.1:0"]);
    command.env("LISTEN_FDS", "1").env("LISTEN_PID", "1").stdin(Stdio::null());
    let mut server = Program::spawn(&mut command);
    Client::to(server.addr()).send("GET", "/", &[], b"").ok();
    server.signal("TERM");
    assert_eq!(server.end().status.code(), Some(0));
}
