//! HTTPS: the certificate is checked before anything is served, changed without dropping anybody,
//! and a client chooses HTTP/2 by ALPN, within bounds. Silence costs a place for a bounded time.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::program::{self, Program};
use crate::support::{Client, PATIENCE, Server, config, request};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::{self, SendRequest};
use hyper::{Request, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use kvast_server::{Config, StartError, TlsFiles, start};
use rcgen::{CertifiedKey, KeyPair, generate_simple_self_signed};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

type TlsStream = StreamOwned<ClientConnection, TcpStream>;

/// Writes a fresh certificate and key, and returns the certificate to trust.
fn certify(files: &TlsFiles) -> CertificateDer<'static> {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    fs::write(&files.cert, cert.pem()).expect("it is written");
    fs::write(&files.key, signing_key.serialize_pem()).expect("it is written");
    cert.der().clone()
}

fn files(dir: &Path) -> TlsFiles {
    TlsFiles { cert: dir.join("cert.pem"), key: dir.join("key.pem") }
}

/// A server with TLS, and what its clients need.
struct Https {
    server: Server,
    files: TlsFiles,
    trusted: CertificateDer<'static>,
    _dir: TempDir,
}

impl Https {
    fn new() -> Https {
        Https::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut Config)) -> Https {
        let dir = TempDir::new().expect("a directory");
        let files = files(dir.path());
        let trusted = certify(&files);
        let server = Server::with(|config| {
            config.tls = Some(files.clone());
            change(config);
        });
        Https { server, files, trusted, _dir: dir }
    }

    fn addr(&self) -> SocketAddr {
        self.server.addr()
    }

    /// A connection that speaks this protocol.
    fn connect(&self, alpn: &str) -> TlsStream {
        tls(self.addr(), &self.trusted, alpn).expect("a handshake")
    }

    fn http1(&self) -> Client<TlsStream> {
        Client::on(self.connect("http/1.1"))
    }

    async fn http2(&self) -> SendRequest<Full<Bytes>> {
        let connector = TlsConnector::from(trusting(&self.trusted, "h2"));
        let tcp = tokio::net::TcpStream::connect(self.addr()).await.expect("a connection");
        let tls = connector.connect(localhost(), tcp).await.expect("a handshake");
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(tls))
            .await
            .expect("a handshake of HTTP/2");
        tokio::spawn(connection);
        sender
    }
}

fn trusting(trusted: &CertificateDer<'static>, alpn: &str) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).expect("a certificate");
    let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
    Arc::new(config)
}

fn localhost() -> ServerName<'static> {
    ServerName::try_from("localhost").expect("a name")
}

fn tls(
    addr: SocketAddr,
    trusted: &CertificateDer<'static>,
    alpn: &str,
) -> std::io::Result<TlsStream> {
    let session = ClientConnection::new(trusting(trusted, alpn), localhost()).expect("a session");
    let mut stream = StreamOwned::new(session, crate::support::tcp(addr));
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock)?;
    }
    Ok(stream)
}

/// Whether the server ends a connection, whatever it says before.
fn ends(stream: &mut impl Read) -> bool {
    let mut rest = Vec::new();
    match stream.read_to_end(&mut rest) {
        Ok(_) => true,
        Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
    }
}

#[test]
fn http_1_1_over_tls_is_served_like_without() {
    let https = Https::new();
    assert!(https.server.handle.url().starts_with("https://127.0.0.1:"));
    let mut client = https.http1();
    let value = vec![7; 3 << 20];
    client.send("PUT", "/k", &[], &value).ok();
    assert!(client.send("GET", "/k", &[], b"").ok().body == value);

    let head = crate::support::head("PUT", "/bad", &["Content-Length: 1"]);
    client.write(format!("{head}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"));
    assert_eq!(client.read().status, 400, "what is framed in two ways is refused here too");
    assert!(ends(&mut client.stream));
}

#[test]
fn http_2_is_served_to_who_chooses_it() {
    let https = Https::new();
    assert_eq!(https.connect("h2").conn.alpn_protocol(), Some(&b"h2"[..]));
    Runtime::new().expect("a runtime").block_on(async {
        let mut sender = https.http2().await;
        let value = Bytes::from(vec![7; 3 << 20]);
        let put = Request::put("https://localhost/k").body(Full::new(value.clone()));
        let answer = sender.send_request(put.expect("a request")).await.expect("an answer");
        assert_eq!((answer.status().as_u16(), answer.version()), (200, Version::HTTP_2));
        let answers: Vec<_> = (0..300)
            .map(|n| {
                let uri = if n % 100 == 0 { "https://localhost/k" } else { "https://localhost/" };
                sender.send_request(Request::get(uri).body(Full::default()).expect("a request"))
            })
            .collect();
        for (n, answer) in answers.into_iter().enumerate() {
            let answer = answer.await.expect("an answer");
            assert_eq!(answer.status(), 200);
            let body = answer.into_body().collect().await.expect("a body").to_bytes();
            assert!(n % 100 != 0 || body == value);
        }
        let missing = Request::get("https://localhost/none").body(Full::default());
        let answer = sender.send_request(missing.expect("a request")).await.expect("an answer");
        assert_eq!(answer.status(), 404);
    });
}

#[test]
fn a_certificate_that_cannot_be_used_is_named_before_the_store_is_touched() {
    let dir = TempDir::new().expect("a directory");
    let files = files(dir.path());
    let refusal = || {
        let config = Config { tls: Some(files.clone()), ..config(dir.path()) };
        match start(config) {
            Err(StartError::Tls(error)) => error.to_string(),
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("it starts"),
        }
    };
    let (cert, key) = (files.cert.display().to_string(), files.key.display().to_string());
    assert!(refusal().starts_with(&format!("{cert} cannot be read: ")));
    fs::write(&files.cert, "nothing of use").expect("it is written");
    assert_eq!(refusal(), format!("{cert} holds no certificate in PEM form"));
    let damaged = "-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n";
    fs::write(&files.cert, damaged).expect("it is written");
    assert!(refusal().starts_with(&format!("{cert} holds no sound certificate: ")));

    certify(&files);
    let good = fs::read(&files.key).expect("it is there");
    fs::write(&files.key, "").expect("it is written");
    assert_eq!(refusal(), format!("{key} holds no private key in PEM form"));
    let other = KeyPair::generate().expect("a key").serialize_pem();
    fs::write(&files.key, other).expect("it is written");
    let refused = refusal();
    assert!(refused.contains(&cert) && refused.contains(&key), "{refused}");
    assert!(!dir.path().join("data").exists());

    fs::write(&files.key, good).expect("it is written");
    let config = Config { tls: Some(files.clone()), ..config(dir.path()) };
    start(config).expect("it starts").stop().expect("a clean stop");
}

#[test]
fn a_new_certificate_is_for_new_connections_and_a_bad_one_for_nobody() {
    let https = Https::new();
    let mut before = https.http1();
    before.send("GET", "/", &[], b"").ok();
    let renewed = certify(&https.files);
    https.server.handle.reload().expect("it is taken");
    before.send("GET", "/", &[], b"").ok();
    assert!(tls(https.addr(), &https.trusted, "h2").is_err(), "the old one is not shown any more");
    tls(https.addr(), &renewed, "h2").expect("the new one is");

    fs::write(&https.files.cert, "damaged").expect("it is written");
    let error = https.server.handle.reload().expect_err("it is refused");
    assert!(error.to_string().contains("holds no certificate"), "{error}");
    before.send("GET", "/", &[], b"").ok();
    tls(https.addr(), &renewed, "http/1.1").expect("the last good one is shown");
}

#[test]
fn a_signal_makes_the_program_read_its_certificate_again() {
    let dir = TempDir::new().expect("a directory");
    let files = files(dir.path());
    let before = certify(&files);
    let mut command = program::command(dir.path());
    command.args(["serve", "--listen", "127.0.0.1:0"]);
    command.arg("--tls-cert").arg(&files.cert).arg("--tls-key").arg(&files.key);
    let mut server = Program::spawn(&mut command);
    let place = server.place();
    let addr = place.strip_prefix("https://").expect("HTTPS").parse().expect("an address");
    let mut client = Client::on(tls(addr, &before, "http/1.1").expect("a handshake"));
    client.send("PUT", "/k", &[], b"value").ok();
    let renewed = certify(&files);
    server.signal("HUP");
    let began = Instant::now();
    while tls(addr, &renewed, "http/1.1").is_err() {
        assert!(began.elapsed() < PATIENCE, "the new certificate is shown");
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(client.send("GET", "/k", &[], b"").ok().text(), "value");
    drop(client);
    server.signal("TERM");
    assert_eq!(server.end().status.code(), Some(0));
}

#[test]
fn handshakes_that_stop_or_fail_keep_nobody_waiting_and_end() {
    let https = Https::with(|config| config.limits.handshake_time = Duration::from_millis(500));
    let mut silent: Vec<_> = (0..10).map(|_| Client::to(https.addr())).collect();
    let mut plain = Client::to(https.addr());
    plain.write(request("GET", "/", &[], b""));
    https.http1().send("GET", "/", &[], b"").ok();
    assert!(ends(&mut plain.stream), "plain HTTP is no handshake");
    let began = Instant::now();
    for client in &mut silent {
        assert!(ends(&mut client.stream));
    }
    assert!(began.elapsed() < Duration::from_secs(10));
}

#[test]
fn a_unix_socket_stays_plain() {
    let dir = TempDir::new().expect("a directory");
    let path = dir.path().join("kvast.sock");
    let on = kvast_server::ListenOn::Unix(path.clone());
    let https = Https::with(|config| config.listen.push(on));
    Client::to_unix(&path).send("PUT", "/k", &[], b"value").ok();
    assert_eq!(https.http1().send("GET", "/k", &[], b"").ok().text(), "value");
}

#[test]
fn stopping_lets_an_answer_over_http_2_end_and_closes_what_idles() {
    let https = Https::new();
    https.http1().send("PUT", "/k", &[], &vec![7; 3 << 20]).ok();
    let mut idle = https.connect("h2");
    let runtime = Runtime::new().expect("a runtime");
    let mut sender = runtime.block_on(https.http2());
    let answer = runtime.block_on(async {
        let get = Request::get("https://localhost/k").body(Full::default()).expect("a request");
        sender.send_request(get).await.expect("an answer")
    });
    let stopping = thread::spawn(move || https.server.handle.stop());
    assert!(ends(&mut idle));
    let body = runtime.block_on(answer.into_body().collect()).expect("the whole body");
    assert_eq!(body.to_bytes().len(), 3 << 20);
    stopping.join().expect("no panic").expect("a clean stop");
}

/// HTTP/2 by hand, to do what no client library does.
mod frames {
    use super::{Read, TlsStream, Write};

    pub(super) const DATA: u8 = 0;
    pub(super) const HEADERS: u8 = 1;
    pub(super) const RST_STREAM: u8 = 3;
    pub(super) const SETTINGS: u8 = 4;
    pub(super) const GOAWAY: u8 = 7;
    /// END_STREAM and END_HEADERS.
    pub(super) const WHOLE: u8 = 5;
    /// `GET https://h/` in HPACK, without its table.
    pub(super) const GET: &[u8] = &[0x82, 0x87, 0x84, 0x01, 1, b'h'];

    pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let len = u32::try_from(payload.len()).expect("short").to_be_bytes();
        let mut frame = vec![len[1], len[2], len[3], kind, flags];
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        frame
    }

    /// Begins a connection with these settings.
    pub(super) fn begin(stream: &mut TlsStream, settings: &[(u16, u32)]) {
        let mut payload = Vec::new();
        for (id, value) in settings {
            payload.extend(id.to_be_bytes());
            payload.extend(value.to_be_bytes());
        }
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        bytes.extend(frame(SETTINGS, 0, 0, &payload));
        stream.write_all(&bytes).expect("it is taken");
    }

    /// The next frame's kind and payload; `None` at the end.
    pub(super) fn read(stream: &mut TlsStream) -> Option<(u8, Vec<u8>)> {
        let mut head = [0; 9];
        stream.read_exact(&mut head).ok()?;
        let len = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; len as usize];
        stream.read_exact(&mut payload).ok()?;
        Some((head[3], payload))
    }

    /// The payload of the next frame of a kind.
    pub(super) fn read_kind(stream: &mut TlsStream, kind: u8) -> Option<Vec<u8>> {
        loop {
            let (found, payload) = read(stream)?;
            if found == kind {
                return Some(payload);
            }
        }
    }
}

#[test]
fn streams_and_windows_are_bounded_from_the_first_frame() {
    let https = Https::with(|config| {
        config.limits.streams = 7;
        config.limits.stream_window_bytes = 70_000;
        config.limits.head_bytes = 9_000;
    });
    let mut stream = https.connect("h2");
    frames::begin(&mut stream, &[]);
    let settings = frames::read_kind(&mut stream, frames::SETTINGS).expect("settings");
    let setting = |id: u16| {
        let found = settings.chunks(6).find(|entry| entry[..2] == id.to_be_bytes());
        found.map(|entry| u32::from_be_bytes(entry[2..6].try_into().expect("four bytes")))
    };
    assert_eq!((setting(3), setting(4), setting(6)), (Some(7), Some(70_000), Some(9_000)));
}

#[test]
fn a_flood_of_requests_that_are_given_up_ends_the_connection() {
    const ENHANCE_YOUR_CALM: [u8; 4] = [0, 0, 0, 11];
    let https = Https::new();
    let mut stream = https.connect("h2");
    frames::begin(&mut stream, &[]);
    let mut flood = Vec::new();
    for id in (1..2000).step_by(2) {
        flood.extend(frames::frame(frames::HEADERS, frames::WHOLE, id, frames::GET));
        flood.extend(frames::frame(frames::RST_STREAM, 0, id, &[0, 0, 0, 8]));
    }
    // The server may hang up before it has read all.
    let _ = stream.write_all(&flood);
    let goaway = frames::read_kind(&mut stream, frames::GOAWAY).expect("the reason");
    assert_eq!(goaway[4..8], ENHANCE_YOUR_CALM);
    assert!(ends(&mut stream));
    https.http1().send("GET", "/", &[], b"").ok();
}

#[test]
fn a_client_that_takes_nothing_of_an_answer_is_cut_off() {
    let https = Https::with(|config| config.limits.write_stall = Duration::from_millis(300));
    https.http1().send("PUT", "/k", &[], &vec![7; 3 << 20]).ok();
    let mut stream = https.connect("h2");
    const INITIAL_WINDOW: u16 = 4;
    frames::begin(&mut stream, &[(INITIAL_WINDOW, 10)]);
    let get = [0x82, 0x87, 0x04, 2, b'/', b'k', 0x01, 1, b'h'];
    let asked = frames::frame(frames::HEADERS, frames::WHOLE, 1, &get);
    stream.write_all(&asked).expect("it is taken");
    let data = frames::read_kind(&mut stream, frames::DATA).expect("what the window allows");
    assert_eq!(data, [7; 10]);
    assert!(ends(&mut stream), "and then nothing");
    https.http1().send("GET", "/", &[], b"").ok();
}

#[test]
fn an_idle_http_2_connection_gives_its_place_to_a_client_that_waits() {
    let https = Https::with(|config| config.limits.connections = 1);
    let mut idle = https.connect("h2");
    frames::begin(&mut idle, &[]);
    https.http1().send("GET", "/", &[], b"").ok();
    assert!(ends(&mut idle));
}

#[test]
fn an_http_2_connection_that_idles_for_too_long_is_told_to_go() {
    let https = Https::with(|config| config.limits.idle_time = Duration::from_millis(300));
    let mut stream = https.connect("h2");
    frames::begin(&mut stream, &[]);
    let asked = frames::frame(frames::HEADERS, frames::WHOLE, 1, frames::GET);
    stream.write_all(&asked).expect("it is taken");
    frames::read_kind(&mut stream, frames::HEADERS).expect("an answer");
    let goaway = frames::read_kind(&mut stream, frames::GOAWAY).expect("a farewell");
    assert_eq!(goaway[4..8], [0; 4], "no error");
    assert!(ends(&mut stream));
}
