//! What the transport promises: refusals are heard, nothing half-sent is stored, nothing waits for
//! ever, and stopping loses no answer.

use std::io::Write;
use std::net::Shutdown;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::{ACCOUNT, Client, Server, config, default_namespace, head, request};
use kvast::Durability;

const LIMIT: usize = 25 * 1024 * 1024;

fn too_large(n: usize) -> String {
    format!("413 Value length of {n} exceeds limit of {LIMIT}.")
}

#[test]
fn a_declared_length_over_the_limit_is_refused_before_the_body_and_the_connection_lives_on() {
    let server = Server::new();
    let mut client = server.connect();
    let len = LIMIT + 1;
    client.write(format!("{}Content-Length: {len}\r\n\r\n", head("PUT", "/k", &[])));
    assert_eq!(client.read().refusal(), too_large(len), "not a byte of the body was sent");
    let body = vec![0; len];
    client.write(&body);
    assert_eq!(client.send("GET", "/k", &[], b"").status, 404);
}

#[test]
fn an_absurd_declared_length_is_refused_with_its_number() {
    let server = Server::new();
    let mut client = server.connect();
    client.write(format!("{}Content-Length: 99999999999999\r\n\r\n", head("PUT", "/k", &[])));
    assert_eq!(client.read().refusal(), too_large(99_999_999_999_999));
}

#[test]
fn a_chunked_body_over_the_limit_is_refused_while_it_is_being_sent() {
    let server = Server::new();
    let mut client = server.connect();
    client.write(format!("{}Transfer-Encoding: chunked\r\n\r\n", head("PUT", "/k", &[])));
    let mut writer = client.stream.get_ref().try_clone().expect("a second handle");
    let sender = thread::spawn(move || {
        let chunk = vec![7; 1 << 20];
        for _ in 0..30 {
            writer.write_all(b"100000\r\n")?;
            writer.write_all(&chunk)?;
            writer.write_all(b"\r\n")?;
        }
        writer.write_all(b"0\r\n\r\n")
    });
    let answer = client.read();
    assert_eq!(answer.status, 413);
    assert!(answer.reason.starts_with("Value length of "), "{}", answer.reason);
    sender.join().expect("no panic").expect("the server took all of it");
    assert_eq!(client.send("GET", "/k", &[], b"").status, 404, "the connection lives on");
}

#[test]
fn a_client_that_sends_everything_before_it_reads_still_gets_the_refusal() {
    let server = Server::with(|config| config.limits.drain_bytes = 1 << 20);
    let mut client = server.connect();
    let len = LIMIT + 1;
    client.write(format!("{}Content-Length: {len}\r\n\r\n", head("PUT", "/k", &[])));
    // More than is drained before the server gives up on the rest, and less than the whole.
    client.write(vec![0; 3 << 20]);
    assert_eq!(client.read().refusal(), too_large(len));
    assert!(client.is_closed());
}

#[test]
fn a_refused_put_leaves_the_connection_usable_and_the_value_as_it_was() {
    let server = Server::new();
    let mut client = server.connect();
    client.send("PUT", "/k", &[], b"old").ok();
    let body = vec![0; 1 << 20];
    let refused = client.send("PUT", "/k?expiration_ttl=1", &[], &body);
    assert_eq!(refused.status, 400);
    assert_eq!(client.send("GET", "/k", &[], b"").ok().text(), "old");
}

#[test]
fn expect_continue_is_answered_by_the_refusal_or_by_an_invitation() {
    let server = Server::new();
    let expect = ["Expect: 100-continue"];
    let mut client = server.connect();
    client.write(format!("{}Content-Length: {}\r\n\r\n", head("PUT", "/k", &expect), LIMIT + 1));
    assert_eq!(client.read().status, 413, "no invitation comes first");

    let mut client = server.connect();
    client.begin_put("/k", 5);
    client.write(b"value");
    client.read().ok();
    assert_eq!(server.get("/k").ok().text(), "value");
}

#[test]
fn a_chunked_body_is_stored_whole() {
    let server = Server::new();
    let mut client = server.connect();
    client.write(format!("{}Transfer-Encoding: chunked\r\n\r\n", head("PUT", "/k", &[])));
    client.write("4\r\nWiki\r\n");
    thread::sleep(Duration::from_millis(20));
    client.write("5\r\npedia\r\n0\r\n\r\n");
    client.read().ok();
    assert_eq!(client.send("GET", "/k", &[], b"").ok().text(), "Wikipedia");

    let chunk = "x".repeat(0x8000);
    client.write(format!("{}Transfer-Encoding: chunked\r\n\r\n", head("PUT", "/k", &[])));
    for _ in 0..64 {
        client.write(format!("8000\r\n{chunk}\r\n"));
    }
    client.write("0\r\n\r\n");
    client.read().ok();
    assert_eq!(client.send("GET", "/k", &[], b"").ok().body.len(), 64 * 0x8000);
}

#[test]
fn an_upload_that_is_cut_off_leaves_the_old_value() {
    let server = Server::new();
    server.put("/k", b"old").ok();
    for framing in ["Content-Length: 100", "Transfer-Encoding: chunked"] {
        let mut client = server.connect();
        client.write(format!("{}{framing}\r\n\r\n", head("PUT", "/k", &[])));
        client.write("8\r\npartial!\r\n");
        client.stream.get_ref().shutdown(Shutdown::Both).expect("it hangs up");
    }
    thread::sleep(Duration::from_millis(100));
    assert_eq!(server.get("/k").ok().text(), "old");
}

#[test]
fn a_badly_framed_body_stores_nothing() {
    let server = Server::new();
    server.put("/k", b"old").ok();
    for body in ["zz\r\nnope\r\n0\r\n\r\n", "5\r\nabcdeXX0\r\n\r\n", "fffffffffffffffff\r\nx"] {
        let mut client = server.connect();
        client.write(format!("{}Transfer-Encoding: chunked\r\n\r\n{body}", head("PUT", "/k", &[])));
        assert_eq!(client.read().status, 400, "{body:?}");
        assert!(client.is_closed(), "{body:?}");
    }
    for framing in ["Content-Length: 3\r\nContent-Length: 4", "Content-Length: -1"] {
        let mut client = server.connect();
        client.write(format!("{}{framing}\r\n\r\nabcd", head("PUT", "/k", &[])));
        assert_eq!(client.read().status, 400, "{framing}");
    }
    assert_eq!(server.get("/k").ok().text(), "old");
}

#[test]
fn a_body_that_pauses_for_too_long_is_given_up() {
    let server = Server::with(|config| config.limits.body_idle = Duration::from_millis(100));
    let mut client = server.connect();
    client.write(format!("{}Content-Length: 10\r\n\r\nhalf", head("PUT", "/k", &[])));
    assert_eq!(client.read().status, 408);
    assert_eq!(server.get("/k").status, 404);
}

#[test]
fn a_head_that_never_ends_is_given_up() {
    let server = Server::with(|config| config.limits.head_time = Duration::from_millis(100));
    let mut client = server.connect();
    client.write("GET / HTTP/1.1\r\nHost: fake");
    assert!(client.is_closed());
}

#[test]
fn a_reader_that_stalls_is_dropped_and_disturbs_nobody() {
    let server = Server::with(|config| config.limits.write_stall = Duration::from_millis(200));
    server.put("/big", &vec![0; LIMIT]).ok();
    let mut stalled = server.connect();
    stalled.write(request("GET", "/big", &[], b""));
    let began = Instant::now();
    server.put("/small", b"v").ok();
    assert_eq!(server.get("/small").ok().text(), "v");
    assert!(began.elapsed() < Duration::from_secs(2));
    thread::sleep(Duration::from_millis(1500));
    let mut got = Vec::new();
    let _ = std::io::Read::read_to_end(&mut stalled.stream, &mut got);
    assert!(got.len() < LIMIT, "it was cut off");
}

#[test]
fn heads_of_16_kib_are_taken_and_endless_ones_are_refused() {
    let server = Server::new();
    let key = "%F0%9F%94%91".repeat(128);
    let url = format!("CF-KV-FLPROD-405: https://fake-host/{}", key.repeat(10));
    let answer = server.send("GET", &format!("/{key}?urlencoded=true"), &[&url], b"");
    assert!(url.len() > 15 << 10);
    assert_eq!(answer.status, 404);
    let endless = format!("X-Endless: {}", "x".repeat(300 << 10));
    let mut client = server.connect();
    let sent = client.stream.get_mut().write_all(&request("GET", "/", &[&endless], b""));
    if sent.is_ok() {
        assert_eq!(client.read().status, 431);
    }
}

#[test]
fn a_request_has_exactly_one_host() {
    let server = Server::new();
    let answer = server.send("GET", "/", &["Host: other"], b"");
    assert_eq!(answer.status, 400);
    let mut client = server.connect();
    client.write("GET / HTTP/1.1\r\n\r\n");
    assert_eq!(client.read().status, 400);
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let server = Server::new();
    let mut client = server.connect();
    let mut all = Vec::new();
    for n in 0..20 {
        all.extend(request("PUT", &format!("/k{n}"), &[], n.to_string().as_bytes()));
        all.extend(request("GET", &format!("/k{n}"), &[], b""));
    }
    client.write(all);
    for n in 0..20 {
        client.read().ok();
        assert_eq!(client.read().ok().text(), n.to_string());
    }
}

#[test]
fn a_client_that_ends_its_side_first_still_gets_its_answer() {
    let server = Server::new();
    server.put("/k", b"value").ok();
    let mut client = server.connect();
    client.write(request("GET", "/k", &[], b""));
    client.stream.get_ref().shutdown(Shutdown::Write).expect("half a close");
    assert_eq!(client.read().ok().text(), "value");
}

#[test]
fn writes_of_many_connections_are_all_there_whatever_the_durability() {
    for durability in
        [Durability::Sync, Durability::Os, Durability::Interval(Duration::from_millis(5))]
    {
        let server = Server::with(|config| config.durability = durability);
        thread::scope(|scope| {
            for writer in 0..8 {
                let server = &server;
                scope.spawn(move || {
                    let mut client = server.connect();
                    for n in 0..50 {
                        let target = format!("/w{writer}-{n}");
                        client.send("PUT", &target, &[], target.as_bytes()).ok();
                        assert_eq!(
                            client.send("GET", &target, &[], b"").ok().body,
                            target.as_bytes()
                        );
                        if n % 2 == 0 {
                            client.send("DELETE", &target, &[], b"").ok();
                        }
                    }
                });
            }
        });
        let listed = server.get("/").ok().json();
        assert_eq!(listed["keys"].as_array().map(Vec::len), Some(8 * 25), "{durability:?}");
    }
}

#[test]
fn a_write_into_a_deleted_namespace_fails_alone() {
    let server = Server::new();
    let doomed = server.handle.db().create_namespace("doomed").expect("it is made");
    thread::scope(|scope| {
        let server = &server;
        for _ in 0..4 {
            scope.spawn(move || {
                let mut client = server.connect();
                for n in 0..100 {
                    client.send("PUT", &format!("/k{n}"), &[], b"v").ok();
                }
            });
            scope.spawn(move || {
                let mut client = server.connect();
                for n in 0..100 {
                    let headers = ["X-KV-Namespace: doomed"];
                    let status = client.send("PUT", &format!("/k{n}"), &headers, b"v").status;
                    assert!(status == 200 || status == 400, "{status}");
                }
            });
        }
        server.handle.db().delete_namespace(doomed.id()).expect("it is deleted");
    });
}

#[test]
fn large_uploads_share_a_budget_and_all_get_their_turn() {
    // Room for one long body at a time; every second one is chunked.
    let server = Server::with(|config| {
        config.limits.connections = 16;
        config.limits.upload_bytes = 26 << 20;
    });
    let value = vec![b'x'; 14 << 20];
    thread::scope(|scope| {
        for n in 0..4 {
            let (server, value) = (&server, &value);
            scope.spawn(move || {
                let mut client = server.connect();
                let target = format!("/k{n}");
                if n % 2 == 0 {
                    client.send("PUT", &target, &[], value).ok();
                } else {
                    let head = head("PUT", &target, &["Transfer-Encoding: chunked"]);
                    client.write(format!("{head}\r\n{:x}\r\n", value.len()));
                    client.write(value);
                    client.write("\r\n0\r\n\r\n");
                    client.read().ok();
                }
                assert_eq!(client.send("GET", &target, &[], b"").ok().body.len(), value.len());
            });
        }
    });
}

#[test]
fn more_connections_than_places_wait_for_one() {
    let server = Server::with(|config| config.limits.connections = 2);
    let (first, _second) = (server.connect(), server.connect());
    let mut third = server.connect();
    third.write(request("GET", "/", &[], b""));
    thread::sleep(Duration::from_millis(100));
    drop(first);
    third.read().ok();
}

#[test]
fn stopping_lets_a_request_in_flight_end_and_keeps_what_it_wrote() {
    let dir = tempfile::tempdir().expect("a directory");
    let handle = kvast_server::start(config(dir.path())).expect("it starts");
    let addr = handle.addr();
    let mut idle = Client::to(addr);
    idle.send("GET", "/", &[], b"").ok();
    let mut busy = Client::to(addr);
    busy.begin_put("/k", 10);
    busy.write(b"first");
    let stopping = thread::spawn(move || handle.stop());
    assert!(idle.is_closed());
    busy.write(b" half");
    busy.read().ok();
    drop(busy);
    stopping.join().expect("no panic").expect("a clean close");
    assert!(std::net::TcpStream::connect(addr).is_err(), "it no longer listens");

    let again = kvast_server::start(config(dir.path())).expect("it starts again");
    assert_eq!(Client::to(again.addr()).send("GET", "/k", &[], b"").ok().text(), "first half");
}

#[test]
fn stopping_does_not_wait_for_ever() {
    let server = Server::with(|config| config.limits.drain_time = Duration::from_millis(200));
    let mut stuck = server.connect();
    stuck.begin_put("/k", 10);
    let began = Instant::now();
    server.handle.stop().expect("a clean close");
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_body_in_a_coding_that_is_not_known_is_refused_and_not_stored() {
    let server = Server::new();
    for coding in ["gzip, chunked", "gzip", "chunked\r\nTransfer-Encoding: chunked"] {
        let mut client = server.connect();
        let head = crate::support::head("PUT", "/coded", &[]);
        client.write(format!("{head}Transfer-Encoding: {coding}\r\n\r\n1\r\nx\r\n0\r\n\r\n"));
        assert!(client.read().status >= 400, "{coding}");
    }
    assert_eq!(server.get("/coded").status, 404);
}

#[test]
fn two_namespaces_in_one_request_are_refused() {
    let server = Server::new();
    let both = ["X-KV-Namespace: default", "X-KV-Namespace: other"];
    assert_eq!(server.send("GET", "/k", &both, b"").status, 400);
}

#[test]
fn json_within_json_however_deep_is_refused_and_costs_no_stack() {
    let server = Server::new();
    let namespace = default_namespace(&server);
    let mut within = "1".to_owned();
    while within.len() < 200 << 10 {
        let text = serde_json::Value::from(within);
        let (open, close) = ("[".repeat(126), "]".repeat(126));
        within = format!("{open}{{\"$serde_json::private::RawValue\":{text}}}{close}");
    }
    for (method, target, body) in [
        ("POST", "/bulk/get".to_owned(), "{\"keys\":[\"a\"],\"type\":JSON}"),
        ("POST", format!("{namespace}/bulk/get"), "{\"keys\":[\"a\"],\"cacheTtl\":JSON}"),
        ("POST", ACCOUNT.to_owned(), "{\"title\":JSON}"),
        ("POST", "/v1/namespaces".to_owned(), "{\"name\":JSON}"),
        ("PATCH", "/v1/namespaces/default".to_owned(), "{\"settings\":JSON}"),
        ("PATCH", "/v1/namespaces/default/keys/a".to_owned(), "{\"ttl\":JSON}"),
        (
            "POST",
            "/v1/namespaces/default/batch".to_owned(),
            "{\"operations\":[{\"op\":\"put\",\"key\":\"a\",\"value\":\"\",\"ttl\":JSON}]}",
        ),
    ] {
        let body = body.replace("JSON", &within);
        let refused = server.send(method, &target, &[], body.as_bytes());
        assert_eq!(refused.status, 400, "{method} {target}: {}", refused.text());
    }
}

#[test]
fn a_limit_as_large_as_a_number_can_be_is_no_limit() {
    let server = Server::with(|config| {
        let limits = &mut config.limits;
        (limits.connections, limits.small_upload_bytes) = (usize::MAX, 0);
        (limits.upload_bytes, limits.bulk_bytes) = (usize::MAX, usize::MAX);
        (limits.bulk_bodies, limits.bulk_writes) = (usize::MAX, usize::MAX);
        (limits.blocking_calls, limits.queued_writes) = (usize::MAX, usize::MAX);
        (limits.json_bytes, limits.drain_bytes) = (u64::MAX, u64::MAX);
    });
    let value = vec![b'v'; 100 << 10];
    server.put("/k?urlencoded=true", &value).ok();
    assert_eq!(server.get("/k?urlencoded=true").ok().body, value);
    server.post("/bulk/get", "{\"keys\":[\"k\"]}").ok();
}
