//! What is done with the machine and not with a store.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Processes that keep the cores awake, and are killed when this is dropped.
pub struct Awake(Vec<Child>);

impl Awake {
    pub fn start() -> Awake {
        let binary = std::env::current_exe().expect("the path of this binary");
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let spin = |_| {
            let mut command = Command::new("chrt");
            command.args(["--idle", "0"]).arg(&binary).arg("--spin");
            command.spawn().expect("chrt, of util-linux, which sets the priority")
        };
        Awake((0..cores).map(spin).collect())
    }
}

impl Drop for Awake {
    fn drop(&mut self) {
        for child in &mut self.0 {
            child.kill().expect("to kill it");
            child.wait().expect("it to be gone");
        }
    }
}

/// Waits until the stores' own threads have no more to do, or for two seconds: what one left to do
/// is not to fall in another's turn.
pub fn calm() {
    let ticks = || {
        let stat = fs::read_to_string("/proc/self/stat").expect("Linux");
        let after_name = stat.rsplit(')').next().expect("something");
        let fields: Vec<&str> = after_name.split_whitespace().collect();
        // The user's and the system's time, in hundredths of a second.
        fields[11..13].iter().map(|ticks| ticks.parse::<u64>().expect("a number")).sum::<u64>()
    };
    let until = Instant::now() + Duration::from_secs(2);
    while Instant::now() < until {
        let before = ticks();
        thread::sleep(Duration::from_millis(30));
        if ticks() == before {
            return;
        }
    }
}

/// Writes what waits to be written to the files below `dir`, so that no measured sync has to.
pub fn sync(dir: &Path) {
    for entry in fs::read_dir(dir).expect("a directory").filter_map(Result::ok) {
        if entry.path().is_dir() {
            sync(&entry.path());
        } else if let Ok(file) = File::open(entry.path()) {
            file.sync_all().expect("the disk to sync");
        }
    }
}

/// What the disk allows: writes of the length of a put into blocks that were written before.
pub struct BareAppends {
    file: File,
}

impl BareAppends {
    /// Header, key, value and commit of one record.
    const PUT_BYTES: u64 = 184;
    const PUTS: u64 = 40_000;

    pub fn new(path: &Path) -> BareAppends {
        let file = File::create(path).expect("a file to write to");
        for page in 0..(Self::PUT_BYTES * Self::PUTS).div_ceil(4096) {
            file.write_all_at(&[0; 4096], page * 4096).expect("room for zeros");
        }
        file.sync_all().expect("the disk to sync");
        BareAppends { file }
    }

    /// A write and a sync at a time.
    pub fn append(&self, nth: usize) {
        let at = nth as u64 % Self::PUTS * Self::PUT_BYTES;
        self.file.write_all_at(&[1; Self::PUT_BYTES as usize], at).expect("room for a record");
        self.file.sync_data().expect("the disk to sync");
    }
}

/// Bytes of the blocks that the files below `dir` take.
pub fn disk_bytes(dir: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    let bytes = |entry: fs::DirEntry| match entry.metadata() {
        Ok(found) if found.is_dir() => disk_bytes(&entry.path()),
        Ok(found) => found.blocks() * 512,
        // It was removed meanwhile.
        Err(_) => 0,
    };
    entries.filter_map(Result::ok).map(bytes).sum()
}

/// A copy of a directory, holes included, that waits in no buffer to be written.
pub fn copy(from: &Path, to: &Path) {
    remove(to);
    fs::create_dir_all(to.parent().expect("it has a parent")).expect("a directory");
    let copied = Command::new("cp").args(["-a", "--sparse=auto"]).args([from, to]).status();
    assert!(copied.expect("cp, of coreutils").success());
    sync(to);
}

pub fn remove(dir: &Path) {
    if dir.exists() {
        fs::remove_dir_all(dir).expect("to remove what the bench made");
    }
}

/// Lets another process load a store, and kills it.
pub fn load_and_kill(store: &str, dir: &Path, keys: usize) {
    let binary = std::env::current_exe().expect("the path of this binary");
    let mut child = Command::new(binary)
        .args(["--keys", &keys.to_string(), "--load", store, "--load-dir"])
        .arg(dir)
        .stdout(Stdio::piped())
        .spawn()
        .expect("a second process");
    let mut line = String::new();
    let stdout = child.stdout.take().expect("it is piped");
    BufReader::new(stdout).read_line(&mut line).expect("a word");
    assert_eq!(line, "loaded\n", "{store}");
    child.kill().expect("to kill it");
    child.wait().expect("it to be gone");
}

/// Bytes of memory that could be had.
pub fn available_bytes() -> u64 {
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = memory.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    number.unwrap_or(0) * 1024
}

/// Lines about the machine for the head of a report.
pub fn describe(dir: &Path) -> Vec<String> {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let processors = read("/proc/cpuinfo");
    let model = processors.lines().find_map(|line| line.strip_prefix("model name"));
    let cores = thread::available_parallelism().map_or(0, usize::from);
    let output = |command: &mut Command| {
        let output = command.output().map(|output| output.stdout).unwrap_or_default();
        String::from_utf8_lossy(&output).trim().to_owned()
    };
    let commit = output(Command::new("git").args(["describe", "--always", "--dirty"]));
    let parent = dir.parent().unwrap_or(dir);
    let disk = output(Command::new("stat").args(["--file-system", "--format=%T"]).arg(parent));
    vec![
        format!(
            "Processor: {}, {cores} cores; {} GiB of memory can be had",
            model.unwrap_or("").trim_start_matches(['\t', ':', ' ']),
            available_bytes() >> 30,
        ),
        format!("Kernel, file system: Linux {}, {disk}", read("/proc/sys/kernel/osrelease").trim()),
        format!("Commit: {commit}"),
    ]
}

/// The load averages of the last 1, 5 and 15 minutes.
pub fn load_average() -> String {
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split_whitespace().take(3).collect::<Vec<_>>().join(" ")
}
