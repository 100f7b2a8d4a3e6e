//! What tokens are promised to do: every route asks for one, each allows what it was made for and no
//! more, and a running server learns of new and revoked ones by itself.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::program::{self, Program, serve};
use crate::support::{ACCOUNT, Answer, Client};
use tempfile::TempDir;

/// The table of routes, as it is written.
const ROUTES: &str = include_str!("../src/route.rs");

fn kvast(dir: &Path, args: &[&str]) -> Command {
    let mut command = program::command(dir);
    command.current_dir(dir).args(args);
    command
}

#[track_caller]
fn run(dir: &Path, args: &[&str], code: i32) -> (String, String) {
    let Output { status, stdout, stderr } = kvast(dir, args).output().expect("it runs");
    let stderr = String::from_utf8(stderr).expect("UTF-8");
    assert_eq!(status.code(), Some(code), "{args:?}: {stderr}");
    (String::from_utf8(stdout).expect("UTF-8"), stderr)
}

/// Makes a token and gives the header that carries it.
#[track_caller]
fn create(dir: &Path, flags: &[&str]) -> String {
    let (token, stderr) = run(dir, &[&["token", "create"], flags].concat(), 0);
    assert!(stderr.contains("shown this once"), "{stderr}");
    format!("Authorization: Bearer {}", token.trim_end())
}

fn id_of(dir: &Path, name: &str) -> String {
    let (listed, _) = run(dir, &["token", "list"], 0);
    let line = listed.lines().find(|line| line.contains(name)).expect("it is listed");
    line.split_whitespace().next().expect("an id").to_owned()
}

/// A server that is running.
struct Serving {
    _program: Program,
    addr: SocketAddr,
}

impl Serving {
    fn start(dir: &Path, flags: &[&str]) -> Serving {
        Serving::spawn(serve(dir, flags).args(["--log-level", "error"]))
    }

    fn spawn(command: &mut Command) -> Serving {
        let mut program = Program::spawn(command);
        let addr = program.addr();
        Serving { _program: program, addr }
    }

    fn send(&self, method: &str, target: &str, headers: &[&str]) -> Answer {
        Client::to(self.addr).send(method, target, headers, b"")
    }

    /// Waits until a request is answered so.
    #[track_caller]
    fn answers(&self, status: u16, headers: &[&str]) {
        let until = Instant::now() + Duration::from_secs(10);
        loop {
            let answer = self.send("GET", "/", headers);
            if answer.status == status {
                return;
            }
            assert!(Instant::now() < until, "still {}", answer.refusal());
            thread::sleep(Duration::from_millis(50));
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Surface {
    Binding,
    Rest,
    Native,
    Ops,
}

/// One line of the table of routes.
#[derive(Debug)]
struct Line {
    surface: Surface,
    method: &'static str,
    path: String,
    access: &'static str,
}

fn lines() -> Vec<Line> {
    let mut lines = Vec::new();
    for table in ROUTES.split("\nsurface! {").skip(1) {
        let table = table.split("\n}").next().expect("it ends");
        let (head, rows) = table.split_once("\":\n").expect("a head");
        let base = head.rsplit('"').next().expect("a base");
        let surface = match head.split("\n    ").last().and_then(|line| line.split(',').next()) {
            Some("Binding") => Surface::Binding,
            Some("Rest") => Surface::Rest,
            Some("Native") => Surface::Native,
            Some("Ops") => Surface::Ops,
            other => panic!("{other:?}"),
        };
        for row in rows.lines() {
            let words: Vec<&str> = row.split_whitespace().collect();
            let [method, path, _, access, _] = words[..] else { panic!("{row}") };
            let path = format!("{base}{}", path.trim_matches('"'));
            lines.push(Line { surface, method, path, access });
        }
    }
    assert!(lines.len() > 35, "{lines:?}");
    lines
}

impl Line {
    fn target(&self, namespace: &str) -> String {
        let path = self.path.replace("{account}", "any").replace("{key}", "k");
        path.replace("{namespace}", namespace)
    }

    /// Whether a request names one namespace, in its path or in its header.
    fn has_namespace(&self) -> bool {
        self.surface == Surface::Binding || self.path.contains("{namespace}")
    }

    /// Refused, in the surface's own form, and without a word about what is there.
    fn assert_denied(&self, answer: &Answer, status: u16) {
        assert_eq!(answer.status, status, "{self:?}: {answer:?}");
        assert_eq!(answer.header("www-authenticate").is_some(), status == 401 || self.is_native());
        if self.method == "HEAD" {
            return;
        }
        match self.surface {
            Surface::Rest => {
                assert_eq!(answer.json()["success"], false);
                assert_eq!(answer.json()["errors"][0]["code"], 10000, "{self:?}");
            }
            Surface::Native => assert_eq!(answer.json()["status"], status),
            Surface::Binding | Surface::Ops => {
                assert!(answer.text().contains("oken"), "{self:?}: {}", answer.text());
            }
        }
    }

    fn is_native(&self) -> bool {
        self.surface == Surface::Native
    }
}

#[test]
fn every_route_asks_for_a_token_that_is_good_enough() {
    let dir = TempDir::new().expect("a directory");
    let dir = dir.path();
    run(dir, &["put", "own", "k", "v"], 0);
    run(dir, &["put", "other", "k", "v"], 0);
    let all = create(dir, &["--name", "all"]);
    let reads = create(dir, &["--read-only"]);
    let scoped = create(dir, &["--namespace", "own"]);
    let expired = create(dir, &["--expires", "1ms"]);
    let wrong = format!("{all}0");
    let serving = Serving::start(dir, &[]);
    serving.answers(403, &[&expired]);

    for line in lines() {
        let target = line.target("other");
        let send =
            |token: &str| serving.send(line.method, &target, &[token, "X-KV-Namespace: other"]);
        if line.surface == Surface::Ops && line.access == "Open" {
            assert_eq!(serving.send(line.method, &target, &[]).status, 200, "{line:?}");
            assert_eq!(serving.send(line.method, &target, &[&wrong]).status, 200, "{line:?}");
            continue;
        }
        line.assert_denied(&send("X-Nothing: here"), 401);
        // RFC 6750 has 401 for a token that is none; the other surfaces have their own habit.
        let refused = if line.is_native() { 401 } else { 403 };
        line.assert_denied(&send(&wrong), refused);
        line.assert_denied(&send(&expired), refused);
        if line.access == "Write" {
            line.assert_denied(&send(&reads), 403);
        }
        if line.has_namespace() {
            line.assert_denied(&send(&scoped), 403);
            let target = line.target("missing");
            let headers = [scoped.as_str(), "X-KV-Namespace: missing"];
            line.assert_denied(&serving.send(line.method, &target, &headers), 403);
        }
    }
    // Nothing was changed by any of these.
    let key = [all.as_str(), "X-KV-Namespace: other"];
    assert_eq!(serving.send("GET", "/k", &key).text(), "v");
    assert_eq!(serving.send("GET", "/no/such/path", &[]).status, 401);
    assert_eq!(serving.send("GET", "/client/v4/nonsense", &[&wrong]).status, 403);
}

#[test]
fn a_token_does_what_it_was_made_for() {
    let dir = TempDir::new().expect("a directory");
    let dir = dir.path();
    run(dir, &["put", "own", "k", "v"], 0);
    let reads = create(dir, &["--read-only"]);
    let scoped = create(dir, &["--namespace", "own"]);
    let all = create(dir, &[]);
    let serving = Serving::start(dir, &[]);
    for header in [&reads, &scoped, &all] {
        let own = [header.as_str(), "X-KV-Namespace: own"];
        assert_eq!(serving.send("GET", "/k", &own).ok().text(), "v");
    }
    let bare = all.replace("Authorization: Bearer", "X-Auth-Key:");
    serving.send("PUT", "/k", &[&bare]).ok();
    serving.send("PUT", "/k", &[&scoped, "X-KV-Namespace: own"]).ok();
    assert_eq!(serving.send("PUT", "/k", &[&scoped]).status, 403, "the namespace default");
    assert_eq!(serving.send("GET", "/metrics", &[&scoped]).status, 403, "of all namespaces");
    serving.send("GET", "/metrics", &[&reads]).ok();
    let listed = serving.send("GET", ACCOUNT, &[&scoped]).ok().json();
    let titles: Vec<&str> = listed["result"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|namespace| namespace["title"].as_str())
        .collect();
    assert_eq!(titles, ["own"]);
}

#[test]
fn a_token_stays_with_its_namespace_and_not_with_a_name() {
    let dir = TempDir::new().expect("a directory");
    let dir = dir.path();
    run(dir, &["put", "first", "k", "v"], 0);
    let (_, stderr) = run(dir, &["token", "create", "--namespace", "nonsense"], 3);
    assert!(stderr.contains("first"), "{stderr}");
    let scoped = create(dir, &["--namespace", "first"]);
    let all = create(dir, &[]);
    let serving = Serving::start(dir, &[]);
    let listed = serving.send("GET", ACCOUNT, &[&scoped]).ok().json();
    let id = listed["result"][0]["id"].as_str().expect("an id").to_owned();
    let rename = |target: &str, title: &str| {
        let mut client = Client::to(serving.addr);
        let body = format!("{{\"title\":\"{title}\"}}");
        let method = if target == ACCOUNT { "POST" } else { "PUT" };
        client
            .send(method, target, &[&all, "Content-Type: application/json"], body.as_bytes())
            .ok();
    };
    rename(&format!("{ACCOUNT}/{id}"), "second");
    rename(ACCOUNT, "first");
    let get =
        |name: &str| serving.send("GET", "/k", &[&scoped, &format!("X-KV-Namespace: {name}")]);
    assert_eq!(get("second").ok().text(), "v");
    assert_eq!(get("first").status, 403);
}

#[test]
fn a_running_server_learns_of_new_and_revoked_tokens_and_stays_shut() {
    let dir = TempDir::new().expect("a directory");
    let dir = dir.path();
    let serving = Serving::start(dir, &[]);
    serving.send("GET", "/", &[]).ok();
    let first = create(dir, &["--name", "first"]);
    serving.answers(401, &[]);
    serving.send("GET", "/", &[&first]).ok();
    let second = create(dir, &["--name", "second"]);
    serving.answers(200, &[&second]);
    run(dir, &["token", "revoke", &id_of(dir, "first")], 0);
    serving.answers(403, &[&first]);
    serving.send("GET", "/", &[&second]).ok();
    run(dir, &["token", "revoke", &id_of(dir, "second")], 0);
    serving.answers(403, &[&second]);
    assert_eq!(serving.send("GET", "/", &[]).status, 401, "without a token left it is shut");
    run(dir, &["token", "revoke", "nonsense"], 3);
}

#[test]
fn broken_files_of_tokens_keep_the_old_ones_and_refuse_a_start() {
    let dir = TempDir::new().expect("a directory");
    let token = create(dir.path(), &[]);
    let serving = Serving::start(dir.path(), &[]);
    let file = dir.path().join("data/tokens.toml");
    fs::write(&file, "[[token]]\nnonsense = 1\n").expect("it is written");
    thread::sleep(Duration::from_millis(1200));
    serving.send("GET", "/", &[&token]).ok();
    assert_eq!(serving.send("GET", "/", &[]).status, 401);
    drop(serving);
    let (_, stderr) = run(dir.path(), &["serve", "--listen", "127.0.0.1:0"], 2);
    assert!(stderr.contains("tokens.toml") && stderr.contains("nonsense"), "{stderr}");
}

#[test]
fn the_store_never_contains_a_token_and_lists_show_none() {
    let dir = TempDir::new().expect("a directory");
    let flags = ["--name", "ci", "--read-only", "--expires", "30d"];
    let header = create(dir.path(), &flags);
    let token = header.strip_prefix("Authorization: Bearer ").expect("a header");
    let random = token.strip_prefix("kvast_").expect("a prefix that scanners know");
    assert_eq!(random.len(), 64);
    let serving = Serving::start(dir.path(), &[]);
    serving.send("GET", "/", &[&header]).ok();
    assert_eq!(serving.send("PUT", "/k", &[&header]).status, 403);
    drop(serving);
    for entry in fs::read_dir(dir.path().join("data")).expect("a directory") {
        let path = entry.expect("an entry").path();
        let bytes = fs::read(&path).expect("it is read");
        let is_in = bytes.windows(64).any(|window| window == random.as_bytes());
        assert!(!is_in, "{}", path.display());
    }
    let file = dir.path().join("data/tokens.toml");
    let mode = fs::metadata(file).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let (listed, _) = run(dir.path(), &["token", "list"], 0);
    for part in ["ci", "read", "all namespaces", "until 20"] {
        assert!(listed.contains(part), "{listed}");
    }
    let (json, _) = run(dir.path(), &["token", "list", "--json"], 0);
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!((&json["name"], &json["access"]), (&"ci".into(), &"read".into()));
    assert!(!listed.contains(random) && !json.to_string().contains(random));
    run(dir.path(), &["token", "create", "--expires", "soon"], 2);
}

#[test]
fn tokens_of_the_configuration_do_everything() {
    let dir = TempDir::new().expect("a directory");
    let file = dir.path().join("listed");
    fs::write(&file, "# mine\nfrom-file\n").expect("it is written");
    let mut command = serve(dir.path(), &[]);
    command.env("KVAST_TOKEN", "from-variable").env("KVAST_TOKEN_FILE", &file);
    let serving = Serving::spawn(&mut command);
    for token in ["from-variable", "from-file"] {
        let header = format!("Authorization: Bearer {token}");
        serving.send("PUT", "/k", &[&header]).ok();
    }
    fs::write(&file, "another\n").expect("it is written");
    serving.answers(200, &["Authorization: Bearer another"]);
    serving.answers(403, &["Authorization: Bearer from-file"]);
}

#[test]
fn other_machines_are_served_with_a_token_or_by_word_of_the_operator() {
    let dir = TempDir::new().expect("a directory");
    let everywhere = ["serve", "--listen", "0.0.0.0:0"];
    let (_, stderr) = run(dir.path(), &everywhere, 2);
    for part in ["kvast token create", "--insecure"] {
        assert!(stderr.contains(part), "{stderr}");
    }
    assert!(!dir.path().join("data").exists(), "nothing was touched");
    let insecure = Serving::start(dir.path(), &["--insecure"]);
    insecure.send("GET", "/", &[]).ok();
    drop(insecure);
    create(dir.path(), &[]);
    let place = Program::spawn(&mut kvast(dir.path(), &everywhere)).place();
    assert!(place.starts_with("http://0.0.0.0:"), "{place}");
}

#[test]
fn ping_tells_whether_a_server_is_ready_and_needs_no_token() {
    let dir = TempDir::new().expect("a directory");
    create(dir.path(), &[]);
    let serving = Serving::start(dir.path(), &[]);
    let url = format!("http://{}", serving.addr);
    run(dir.path(), &["ping", "--url", &url], 0);
    let mut command = kvast(dir.path(), &["ping"]);
    command.env("KVAST_LISTEN", serving.addr.to_string());
    assert!(command.status().expect("it runs").success());
    let mut waiting = kvast(dir.path(), &["ping", "--wait", "30s", "--url", "unix:later"]);
    waiting.stderr(Stdio::null());
    let mut waiting = waiting.spawn().expect("it runs");
    thread::sleep(Duration::from_millis(200));
    assert!(waiting.try_wait().expect("it is asked").is_none(), "it waits");
    waiting.kill().expect("it runs");
    waiting.wait().expect("it ends");
    drop(serving);
    let (_, stderr) = run(dir.path(), &["ping", "--url", &url], 1);
    assert!(stderr.contains("not ready"), "{stderr}");
    run(dir.path(), &["ping", "--url", "https://localhost"], 2);
}

#[test]
fn a_directory_of_tokens_alone_is_no_store_and_no_damaged_one() {
    let dir = TempDir::new().expect("a directory");
    create(dir.path(), &[]);
    for args in [&["get", "n", "k"][..], &["list", "n"], &["delete", "n", "k"], &["verify"]] {
        let (_, stderr) = run(dir.path(), args, 1);
        assert!(stderr.contains("there is no store"), "{args:?}: {stderr}");
    }
    run(dir.path(), &["put", "n", "k", "v"], 0);
    assert_eq!(run(dir.path(), &["get", "n", "k"], 0).0, "v");
}
