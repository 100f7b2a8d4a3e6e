//! A server in this process, and a raw HTTP client that sends exactly what a test says.

#![allow(dead_code, reason = "each test file uses its own part")]

pub(crate) mod program;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use kvast_server::{Config, Handle, start};
use tempfile::TempDir;

/// Longer than anything here takes; a test that hangs fails instead.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) const ACCOUNT: &str = "/client/v4/accounts/acct/storage/kv/namespaces";

/// A server on a port of its own, with a fresh store.
pub(crate) struct Server {
    pub(crate) handle: Handle,
    pub(crate) dir: TempDir,
}

impl Server {
    pub(crate) fn new() -> Server {
        Server::with(|_| {})
    }

    pub(crate) fn with(change: impl FnOnce(&mut Config)) -> Server {
        let dir = TempDir::new().expect("a temporary directory");
        let mut config = config(dir.path());
        change(&mut config);
        Server { handle: start(config).expect("it starts"), dir }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.handle.addr()
    }

    pub(crate) fn connect(&self) -> Client {
        Client::to(self.addr())
    }

    /// One request on a connection of its own.
    pub(crate) fn send(&self, method: &str, target: &str, headers: &[&str], body: &[u8]) -> Answer {
        self.connect().send(method, target, headers, body)
    }

    pub(crate) fn get(&self, target: &str) -> Answer {
        self.send("GET", target, &[], b"")
    }

    pub(crate) fn put(&self, target: &str, body: &[u8]) -> Answer {
        self.send("PUT", target, &[], body)
    }

    pub(crate) fn delete(&self, target: &str) -> Answer {
        self.send("DELETE", target, &[], b"")
    }

    pub(crate) fn post(&self, target: &str, json: &str) -> Answer {
        self.send("POST", target, &["Content-Type: application/json"], json.as_bytes())
    }
}

pub(crate) fn config(dir: &Path) -> Config {
    Config {
        data: dir.join("data"),
        listen: vec![kvast_server::ListenOn::Tcp("127.0.0.1:0".parse().expect("an address"))],
        ..Config::default()
    }
}

/// A connection.
pub(crate) struct Client<S: Read = TcpStream> {
    pub(crate) stream: BufReader<S>,
}

impl Client {
    pub(crate) fn to(addr: SocketAddr) -> Client {
        Client::on(tcp(addr))
    }
}

impl Client<UnixStream> {
    pub(crate) fn to_unix(path: &Path) -> Client<UnixStream> {
        let stream = UnixStream::connect(path).expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
        stream.set_write_timeout(Some(PATIENCE)).expect("a time-out");
        Client::on(stream)
    }
}

pub(crate) fn tcp(addr: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(addr).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    stream.set_write_timeout(Some(PATIENCE)).expect("a time-out");
    stream
}

impl<S: Read + Write> Client<S> {
    pub(crate) fn on(stream: S) -> Client<S> {
        Client { stream: BufReader::new(stream) }
    }

    pub(crate) fn write(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.get_mut().write_all(bytes.as_ref()).expect("the server takes it");
    }

    pub(crate) fn send(
        &mut self,
        method: &str,
        target: &str,
        headers: &[&str],
        body: &[u8],
    ) -> Answer {
        self.write(request(method, target, headers, body));
        self.read_to(method)
    }

    /// Starts a put of `len` bytes, and returns when the server waits for them.
    pub(crate) fn begin_put(&mut self, target: &str, len: usize) {
        let head = head("PUT", target, &["Expect: 100-continue"]);
        self.write(format!("{head}Content-Length: {len}\r\n\r\n"));
        assert_eq!(self.read().status, 100);
    }

    pub(crate) fn read(&mut self) -> Answer {
        self.read_to("GET")
    }

    /// Reads one answer to a request of the given method.
    pub(crate) fn read_to(&mut self, method: &str) -> Answer {
        self.read_of("HTTP/1.1", method)
    }

    /// Reads one answer in a version of HTTP.
    pub(crate) fn read_of(&mut self, version: &str, method: &str) -> Answer {
        let line = self.line();
        let rest = line.strip_prefix(version).and_then(|rest| rest.strip_prefix(' '));
        let line = rest.unwrap_or_else(|| panic!("no status: {line:?}"));
        let (status, reason) = line.split_once(' ').expect("a reason phrase");
        let status = status.parse().expect("a status");
        let mut headers = Vec::new();
        loop {
            let line = self.line();
            match line.split_once(": ") {
                Some((name, value)) => headers.push((name.to_owned(), value.to_owned())),
                None => break,
            }
        }
        let mut answer = Answer { status, reason: reason.to_owned(), headers, body: Vec::new() };
        let len: usize = answer.header("content-length").map_or(0, |len| len.parse().expect("len"));
        if method != "HEAD" && status != 100 {
            answer.body = vec![0; len];
            self.stream.read_exact(&mut answer.body).expect("the whole body");
        }
        answer
    }

    /// Whether the server has ended the connection, and sent nothing more before.
    pub(crate) fn is_closed(&mut self) -> bool {
        let mut rest = Vec::new();
        match self.stream.read_to_end(&mut rest) {
            Ok(_) => rest.is_empty(),
            Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }

    fn line(&mut self) -> String {
        let mut line = Vec::new();
        self.stream.read_until(b'\n', &mut line).expect("a line");
        String::from_utf8(line).expect("UTF-8").trim_end_matches(['\r', '\n']).to_owned()
    }
}

/// The bytes of a request with `Content-Length`, unless it has no body and no need of one.
pub(crate) fn request(method: &str, target: &str, headers: &[&str], body: &[u8]) -> Vec<u8> {
    let mut bytes = head(method, target, headers).into_bytes();
    if !body.is_empty() || method == "PUT" || method == "POST" {
        bytes.extend(format!("Content-Length: {}\r\n", body.len()).into_bytes());
    }
    bytes.extend(b"\r\n");
    bytes.extend(body);
    bytes
}

/// The start of a request head, without the empty line.
pub(crate) fn head(method: &str, target: &str, headers: &[&str]) -> String {
    let mut head = format!("{method} {target} HTTP/1.1\r\nHost: fake-host\r\n");
    for header in headers {
        head.push_str(header);
        head.push_str("\r\n");
    }
    head
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) reason: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(found, _)| found.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> &str {
        str::from_utf8(&self.body).expect("UTF-8")
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }

    /// Status and reason, the way that a Workers application sees an error.
    pub(crate) fn refusal(&self) -> String {
        format!("{} {}", self.status, self.reason)
    }

    #[track_caller]
    pub(crate) fn ok(self) -> Answer {
        assert_eq!(self.status, 200, "{} {}", self.reason, String::from_utf8_lossy(&self.body));
        self
    }
}

pub(crate) fn unix_now() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.expect("after 1970").as_secs()
}

/// Percent-encodes everything but letters and digits.
pub(crate) fn encode(key: &str) -> String {
    key.bytes()
        .map(|byte| match byte {
            b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

/// The REST resource of the namespace `default`.
pub(crate) fn default_namespace(server: &Server) -> String {
    let id = server.handle.db().namespace("default").expect("it is there").id();
    format!("{ACCOUNT}/{id}")
}

/// A refusal on the REST surface: the status, the code, and all members of the envelope.
#[track_caller]
pub(crate) fn assert_api_error(answer: &Answer, status: u16, code: u32) {
    let json = answer.json();
    assert_eq!(answer.status, status, "{json}");
    assert_eq!(json["errors"][0]["code"], code, "{json}");
    assert_eq!(json["success"], false);
    assert_eq!(json["messages"], serde_json::json!([]));
    assert_eq!(answer.header("content-type"), Some("application/json"));
    // What serde calls things is nothing to a client.
    assert!(!answer.text().contains("expected"), "{json}");
}

/// The message of a refusal on the REST surface.
pub(crate) fn message(answer: &Answer) -> String {
    answer.json()["errors"][0]["message"].as_str().expect("a message").to_owned()
}

/// A multipart form with the boundary `b0`: each part's header lines and bytes.
pub(crate) fn form(parts: &[(&str, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (headers, bytes) in parts {
        body.extend_from_slice(format!("--b0\r\n{headers}\r\n\r\n").as_bytes());
        body.extend_from_slice(bytes);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"--b0--\r\n");
    body
}
