//! A server's life as its operator and its service manager see it: when it is ready, what a signal
//! does, that stopping costs no answer that was begun, and an exit code that tells how it ended.

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::program::{Program, serve};
use crate::support::{Client, PATIENCE, config};
use tempfile::TempDir;

/// Where a service manager listens.
struct Manager(UnixDatagram);

impl Manager {
    fn at(path: &Path) -> Manager {
        let socket = UnixDatagram::bind(path).expect("a socket");
        socket.set_read_timeout(Some(PATIENCE)).expect("a time-out");
        Manager(socket)
    }

    fn hear(&self) -> String {
        let mut message = [0; 4096];
        let len = self.0.recv(&mut message).expect("a message");
        String::from_utf8(message[..len].to_vec()).expect("UTF-8")
    }

    /// The next message that is not only a sign of life.
    fn hear_news(&self) -> String {
        loop {
            let message = self.hear();
            if message != "WATCHDOG=1\n" {
                return message;
            }
        }
    }
}

/// Waits until the server has begun to drain: then it closes connections that idle.
fn wait_for_drain(idle: &mut Client) {
    assert!(idle.is_closed());
}

#[test]
fn the_service_manager_hears_of_every_turn_of_a_life() {
    let dir = TempDir::new().expect("a directory");
    let path = dir.path().join("notify");
    let manager = Manager::at(&path);
    let mut server = Program::spawn(serve(dir.path(), &[]).env("NOTIFY_SOCKET", &path));
    let addr = server.addr();
    let ready = manager.hear();
    assert_eq!(ready, format!("READY=1\nSTATUS=Serving on http://{addr}\n"));

    server.signal("HUP");
    let reloading = manager.hear();
    let since = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").expect("since when");
    assert!(since.trim_end().parse::<u64>().is_ok(), "{reloading}");
    assert_eq!(manager.hear(), ready);
    Client::to(addr).send("GET", "/", &[], b"").ok();

    server.signal("TERM");
    assert!(manager.hear().starts_with("STOPPING=1\n"));
    assert_eq!(server.end().status.code(), Some(0));
}

#[test]
fn a_watchdog_gets_signs_of_life_as_long_as_it_wants_them() {
    let dir = TempDir::new().expect("a directory");
    let path = dir.path().join("notify");
    let manager = Manager::at(&path);
    let mut command = serve(dir.path(), &[]);
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "100000");
    let server = Program::spawn(&mut command);
    assert!(manager.hear().starts_with("READY=1\n"));
    for _ in 0..5 {
        assert_eq!(manager.hear(), "WATCHDOG=1\n");
    }
    server.signal("TERM");
    assert!(manager.hear_news().starts_with("STOPPING=1\n"));
    assert_eq!(server.end().status.code(), Some(0));
}

#[test]
fn a_deaf_or_missing_service_manager_changes_nothing() {
    let dir = TempDir::new().expect("a directory");
    let nowhere = dir.path().join("nowhere");
    let mut server = Program::spawn(serve(dir.path(), &[]).env("NOTIFY_SOCKET", nowhere));
    Client::to(server.addr()).send("GET", "/", &[], b"").ok();
    server.signal("HUP");
    server.signal("INT");
    assert_eq!(server.end().status.code(), Some(0));
}

#[test]
fn an_upload_that_was_begun_is_answered_and_kept() {
    let dir = TempDir::new().expect("a directory");
    let mut server = Program::spawn(&mut serve(dir.path(), &[]));
    let addr = server.addr();
    let mut idle = Client::to(addr);
    idle.send("GET", "/", &[], b"").ok();
    let mut busy = Client::to(addr);
    busy.begin_put("/k", 10);
    busy.write(b"first");
    server.signal("TERM");
    wait_for_drain(&mut idle);
    busy.write(b" half");
    let answer = busy.read().ok();
    assert_eq!(answer.header("connection"), Some("close"));
    assert!(busy.is_closed());
    assert_eq!(server.end().status.code(), Some(0));

    let again = kvast_server::start(config(dir.path())).expect("it starts again");
    assert_eq!(Client::to(again.addr()).send("GET", "/k", &[], b"").ok().text(), "first half");
}

#[test]
fn a_server_that_drains_is_not_ready_and_still_healthy() {
    let dir = TempDir::new().expect("a directory");
    let mut server = Program::spawn(&mut serve(dir.path(), &[]));
    let addr = server.addr();
    let mut idle = Client::to(addr);
    assert_eq!(idle.send("GET", "/readyz", &[], b"").status, 200);
    let mut begun = [Client::to(addr), Client::to(addr)];
    for (client, path) in begun.iter_mut().zip(["/readyz", "/healthz"]) {
        client.write(format!("GET {path} HTTP/1.1\r\n"));
    }
    thread::sleep(Duration::from_millis(200));
    server.signal("TERM");
    wait_for_drain(&mut idle);
    let statuses = begun.each_mut().map(|client| {
        client.write("Host: h\r\n\r\n");
        client.read().status
    });
    assert_eq!(statuses, [503, 200]);
    assert_eq!(server.end().status.code(), Some(0));
}

#[test]
fn whoever_asks_twice_does_not_wait_and_the_exit_code_says_so() {
    for (second, code) in [("TERM", 143), ("INT", 130)] {
        let dir = TempDir::new().expect("a directory");
        let mut server = Program::spawn(&mut serve(dir.path(), &[]));
        let addr = server.addr();
        let mut idle = Client::to(addr);
        idle.send("PUT", "/k", &[], b"kept").ok();
        let mut stuck = Client::to(addr);
        stuck.begin_put("/stuck", 10);
        let began = Instant::now();
        server.signal("TERM");
        wait_for_drain(&mut idle);
        server.signal("HUP");
        server.signal(second);
        let output = server.end();
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        assert!(began.elapsed() < Duration::from_secs(9), "it did not wait for the upload");

        let again = kvast_server::start(config(dir.path())).expect("it starts again");
        let mut client = Client::to(again.addr());
        assert_eq!(client.send("GET", "/k", &[], b"").ok().text(), "kept");
        assert_eq!(client.send("GET", "/stuck", &[], b"").status, 404);
    }
}

#[test]
fn a_store_that_another_process_has_open_is_an_exit_code_of_its_own() {
    let dir = TempDir::new().expect("a directory");
    let mut server = Program::spawn(&mut serve(dir.path(), &[]));
    server.addr();
    let second = serve(dir.path(), &[]).output().expect("it runs");
    assert_eq!(second.status.code(), Some(5));
    server.signal("TERM");
    assert_eq!(server.end().status.code(), Some(0));
}
