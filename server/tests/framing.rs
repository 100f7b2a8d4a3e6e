//! Nobody can hide a request inside another: what two readers could understand differently is
//! refused, after the answers to what came before it, and the connection ends. What is merely
//! unusual is served.

use crate::support::{Client, Server, head, request};

/// Sends a sound request and then these bytes, with a third request behind them.
fn smuggle(server: &Server, bytes: &[u8]) -> Client {
    let mut client = server.connect();
    let mut all = request("PUT", "/before", &[], b"sound");
    all.extend(bytes);
    all.extend(request("PUT", "/smuggled", &[], b"hidden"));
    client.write(all);
    assert_eq!(client.read().status, 200, "the request before is answered first");
    client
}

#[track_caller]
fn assert_refused(server: &Server, bytes: impl AsRef<[u8]>) {
    let bytes = bytes.as_ref();
    let shown = String::from_utf8_lossy(bytes);
    let mut client = smuggle(server, bytes);
    assert_eq!(client.read().status, 400, "{shown:?}");
    assert!(client.is_closed(), "{shown:?}");
    for target in ["/k", "/smuggled"] {
        assert_eq!(server.get(target).status, 404, "nothing is stored: {shown:?}");
    }
}

fn put(headers: &str, body: &str) -> String {
    format!("{}{headers}\r\n{body}", head("PUT", "/k", &[]))
}

#[test]
fn a_length_that_is_said_twice_or_not_plainly_is_refused() {
    let server = Server::new();
    for headers in [
        "Content-Length: 6\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 6\r\n",
        "Content-Length: 6\r\nX: y\r\ntransfer-encoding: chunked\r\n",
        "Content-Length: 6\r\nContent-Length: 6\r\n",
        "Content-Length: 6\r\nContent-Length: 5\r\n",
        "Content-Length: 6, 6\r\n",
        "Content-Length: +6\r\n",
        "Content-Length: 0x6\r\n",
        "Content-Length:\r\n",
        "Content-Length: 18446744073709551616\r\n",
        "Content-Length : 6\r\n",
        "Content-Length\t: 6\r\n",
        "Transfer-Encoding : chunked\r\n",
        "Transfer-Encoding: gzip\r\n",
        "Transfer-Encoding: chunked, gzip\r\n",
        "Transfer-Encoding:\r\n",
    ] {
        assert_refused(&server, put(headers, "0\r\n\r\n\r"));
    }
}

#[test]
fn a_coding_that_is_not_known_ends_the_connection_behind_its_answer() {
    let server = Server::new();
    for headers in [
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: chunked, chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n",
    ] {
        let mut client = smuggle(&server, put(headers, "1\r\nx\r\n0\r\n\r\n").as_bytes());
        assert_eq!(client.read().status, 501, "{headers}");
        assert!(client.is_closed(), "{headers}");
        assert_eq!(server.get("/k").status, 404);
        assert_eq!(server.get("/smuggled").status, 404);
    }
}

#[test]
fn http_1_0_has_no_transfer_codings() {
    let server = Server::new();
    let request = "PUT /k HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n";
    assert_refused(&server, request);
}

#[test]
fn a_chunk_says_its_size_plainly_and_ends_there() {
    let server = Server::new();
    let long = format!("5;{}\r\nabcde\r\n0\r\n\r\n", "x".repeat(20 << 10));
    for body in [
        "\r\nabcde\r\n0\r\n\r\n",
        "zz\r\nabcde\r\n0\r\n\r\n",
        "+5\r\nabcde\r\n0\r\n\r\n",
        "-5\r\nabcde\r\n0\r\n\r\n",
        " 5\r\nabcde\r\n0\r\n\r\n",
        "5 \r\nabcde\r\n0\r\n\r\n",
        "5\t\r\nabcde\r\n0\r\n\r\n",
        "0x5\r\nabcde\r\n0\r\n\r\n",
        "10000000000000005\r\nabcde\r\n0\r\n\r\n",
        "00000000000000005\r\nabcde\r\n0\r\n\r\n",
        "5\nabcde\r\n0\r\n\r\n",
        "5\rabcde\r\n0\r\n\r\n",
        "5;x\nabcde\r\n0\r\n\r\n",
        "5;x\ry\r\nabcde\r\n0\r\n\r\n",
        "5;\0\r\nabcde\r\n0\r\n\r\n",
        "5\r\nabcdef\r\n0\r\n\r\n",
        "5\r\nabcd\r\n0\r\n\r\n",
        "5\r\nabcde0\r\n\r\n",
        "5\r\nabcde\n0\r\n\r\n",
        "5\r\nabcde\r0\r\n\r\n",
        "5\r\nabcde\r\n0\n\r\n",
        "5\r\nabcde\r\n0\r\n\n",
        "5\r\nabcde\r\n0\r\nX: y\n\r\n",
        "5\r\nabcde\r\n0\r\nX : y\r\n\r\n",
        "5\r\nabcde\r\n0\r\nX: \0\r\n\r\n",
        "5\r\nabcde\r\n0\r\nX: y\r\n z\r\n\r\n",
        &long,
    ] {
        assert_refused(&server, put("Transfer-Encoding: chunked\r\n", body));
    }
}

#[test]
fn chunks_that_nobody_wants_are_looked_at_before_anything_is_done() {
    let server = Server::new();
    server.put("/kept", b"value").ok();
    for method in ["DELETE", "GET"] {
        let head = head(method, "/kept", &["Transfer-Encoding: chunked"]);
        for body in ["zz\r\nabcde\r\n0\r\n\r\n", "5\r\nabcde\n0\r\n\r\n"] {
            let mut client = smuggle(&server, format!("{head}\r\n{body}").as_bytes());
            assert_eq!(client.read_to(method).status, 400, "{method} {body:?}");
            assert!(client.is_closed(), "{method} {body:?}");
        }
        assert_eq!(server.get("/kept").ok().text(), "value");
        let mut client = server.connect();
        client.write(format!("{head}\r\n5\r\nabcde\r\n0\r\n\r\n"));
        assert_eq!(client.read_to(method).status, 200);
        server.put("/kept", b"value").ok();
    }
    assert_eq!(server.get("/smuggled").status, 404);
}

#[test]
fn lines_of_a_head_end_plainly_and_have_no_stray_bytes() {
    let server = Server::new();
    for bytes in [
        "PUT /k HTTP/1.1\nHost: h\nContent-Length: 0\n\n",
        "PUT /k HTTP/1.1\r\nHost: h\nContent-Length: 0\r\n\r\n",
        "PUT /k HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\n",
        "\nPUT /k HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n",
        "PUT /k HTTP/1.1\r\nHost: h\rX: y\r\nContent-Length: 0\r\n\r\n",
        "PUT /k HTTP/1.1\r\nHost: h\r\nX: a\rb\r\nContent-Length: 0\r\n\r\n",
        "PUT /k HTTP/1.1\r\nHost: h\r\nX: a\0b\r\nContent-Length: 0\r\n\r\n",
        "PUT /k HTTP/1.1\r\nHost: h\r\nX\0: a\r\nContent-Length: 0\r\n\r\n",
        "PUT /k\0 HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n",
        "PUT /k HTTP/1.1\r\nHost: h\r\nX: a\r\n b\r\nContent-Length: 0\r\n\r\n",
        "PUT /k HTTP/1.1\r\nHost: h\r\nX: a\r\n\tb\r\nContent-Length: 0\r\n\r\n",
        "PUT /k HTTP/1.1\r\n Host: h\r\nContent-Length: 0\r\n\r\n",
        "PUT /k HTTP/1.1\r\n X: y\r\nHost: h\r\nContent-Length: 0\r\n\r\n",
        "PUT /k HTTP/1.1\r\nHost : h\r\nContent-Length: 0\r\n\r\n",
        "PUT /k HTTP/1.1\r\nHost: h\r\nno colon\r\nContent-Length: 0\r\n\r\n",
        "PUT /k HTTP/1.1\r\nHost: h\r\n: nameless\r\nContent-Length: 0\r\n\r\n",
        "PUT  /k HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n",
        "PUT /k  HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n",
        "PUT\t/k\tHTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n",
        "PUT /k HTTP/1.1 \r\nHost: h\r\nContent-Length: 0\r\n\r\n",
        "PUT /k HTTP/1.2\r\nHost: h\r\nContent-Length: 0\r\n\r\n",
        "PUT /k HTTP/2.0\r\nHost: h\r\nContent-Length: 0\r\n\r\n",
        "PUT /k\r\nHost: h\r\nContent-Length: 0\r\n\r\n",
    ] {
        assert_refused(&server, bytes);
    }
}

#[test]
fn what_is_refused_whole_is_refused_byte_by_byte() {
    let server = Server::new();
    for bytes in [
        put("Content-Length: 6\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n\r"),
        put("Transfer-Encoding: chunked\r\n", "5;x\nabcde\r\n0\r\n\r\n"),
        put("Transfer-Encoding: chunked\r\n", "5\r\nabcde\r\n0\r\nX: y\n\r\n"),
        "PUT /k HTTP/1.1\r\nHost: h\nContent-Length: 0\r\n\r\n".to_owned(),
    ] {
        let mut client = server.connect();
        for byte in bytes.as_bytes() {
            use std::io::Write;
            // The server may have hung up already.
            if client.stream.get_mut().write_all(&[*byte]).is_err() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_micros(200));
        }
        assert_eq!(client.read().status, 400, "{bytes:?}");
        assert!(client.is_closed(), "{bytes:?}");
        assert_eq!(server.get("/k").status, 404, "{bytes:?}");
    }
}

#[test]
fn what_is_unusual_but_plain_is_served() {
    let server = Server::new();
    for (headers, body) in [
        ("CONTENT-LENGTH:\t5 \r\n", "value"),
        ("Content-Length: 0000000005\r\n", "value"),
        ("X: \u{e9}\u{ff}\r\nContent-Length: 5\r\n", "value"),
        ("Transfer-Encoding: Chunked\r\n", "5;name=\"quo\\\"ted\";flag\r\nvalue\r\n0\r\n\r\n"),
        ("Transfer-Encoding: chunked\r\n", "05 ;x\r\nvalue\r\n000;y\r\nTrailer: t\r\nX:\r\n\r\n"),
        ("Transfer-Encoding: chunked\r\n", "1\r\nv\r\n4\r\nalue\r\n0\r\n\r\n"),
    ] {
        let mut client = server.connect();
        // Empty lines before a request are skipped, and the next request is found.
        client.write(format!("\r\n{0}\r\n{0}", put(headers, body)));
        client.read().ok();
        client.read().ok();
        assert_eq!(client.send("GET", "/k", &[], b"").ok().text(), "value", "{headers}");
        client.send("DELETE", "/k", &[], b"").ok();
    }
}

#[test]
fn http_1_0_is_served() {
    let server = Server::new();
    server.put("/k", b"value").ok();
    let mut client = server.connect();
    client.write("GET /k HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    let answer = client.read_of("HTTP/1.0", "GET");
    assert_eq!((answer.status, answer.text()), (200, "value"));
    client.write("GET /k HTTP/1.0\r\n\r\n");
    assert_eq!(client.read_of("HTTP/1.0", "GET").status, 200);
    assert!(client.is_closed());
}

#[test]
fn a_request_that_was_invited_is_answered_and_the_next_one_too() {
    let server = Server::new();
    let mut client = server.connect();
    client.begin_put("/k", 5);
    client.write(b"value");
    client.write(request("GET", "/k", &[], b""));
    client.read().ok();
    assert_eq!(client.read().ok().text(), "value");
    let head = head("PUT", "/k", &["Expect: 100-continue", "Transfer-Encoding: chunked"]);
    client.write(format!("{head}\r\n"));
    assert_eq!(client.read().status, 100);
    client.write("3\r\nnew\r\n0\r\n\r\n");
    client.read().ok();
    assert_eq!(client.send("GET", "/k", &[], b"").ok().text(), "new");
}

#[test]
fn a_target_that_is_too_long_is_refused_by_name() {
    let server = Server::with(|config| config.limits.line_bytes = 2048);
    assert_eq!(server.get(&format!("/k?{}", "q".repeat(2045))).status, 404);
    assert_eq!(server.get(&format!("/k?{}", "q".repeat(2046))).status, 414);
    assert_eq!(server.get(&format!("/{}", "k".repeat(2048))).status, 414);
    assert_eq!(server.get(&format!("/{}", "k".repeat(70 << 10))).status, 431);
}
