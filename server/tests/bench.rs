//! What `kvast bench` promises: figures and what they mean on standard output, and a disk that is as it
//! was, whatever ends the run.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

use crate::support::program::command;

const TINY: [&str; 5] =
    ["--keys=2000", "--seconds=0.1", "--threads=2", "--value-bytes=50", "--dir=."];

/// Below `dir`, small but for what the arguments say otherwise.
fn bench(dir: &Path, args: &[&str]) -> Command {
    let name = |arg: &str| arg.split('=').next().map(str::to_owned);
    let is_said = |tiny: &&&str| args.iter().any(|arg| name(arg) == name(tiny));
    let mut command = command(dir);
    command.current_dir(dir).arg("bench").args(args);
    command.args(TINY.iter().filter(|tiny| !is_said(tiny)));
    command
}

fn run(dir: &Path, args: &[&str]) -> Output {
    bench(dir, args).output().expect("it runs")
}

fn is_empty(dir: &Path) -> bool {
    fs::read_dir(dir).expect("a directory").next().is_none()
}

#[test]
fn a_table_and_what_it_means_and_nothing_left() {
    let dir = TempDir::new().expect("a directory");
    let output = run(dir.path(), &[]);
    let (shown, said) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(shown.starts_with("2,000 keys of 22 B, values of 50 B, in /"), "{shown}");
    for row in [
        "bare disk: write and sync ",
        "put, durable ",
        "put, durable, 2 threads ",
        "put, without sync ",
        "put in batches, without sync ",
        "get, all keys alike ",
        "get, some keys wanted often ",
        "get, absent key ",
        "listed key, 1,000 a page ",
        "get of 1 MiB, every byte verified ",
        "open after a close ",
    ] {
        assert!(shown.contains(row), "{row}: {shown}");
    }
    for words in ["This disk writes and syncs in ", "Expect ", "bytes of memory a key"] {
        assert!(shown.contains(words), "{words}: {shown}");
    }
    assert!(said.contains("measuring: put, durable, 2 threads\n"), "progress: {said}");
    assert!(is_empty(dir.path()), "it removes what it made");
}

#[test]
fn json_has_every_figure_in_its_base_unit() {
    let dir = TempDir::new().expect("a directory");
    let output = run(dir.path(), &["--json", "--threads=1"]);
    let report: serde_json::Value =
        serde_json::from_slice(&output.stdout).expect("nothing but JSON on standard output");
    assert_eq!((&report["keys"], &report["value_bytes"]), (&2000.into(), &50.into()));
    let rows = report["rows"].as_array().expect("rows");
    let row = |work: &str| {
        let row = rows.iter().find(|row| row["work"] == work && row["threads"] == 1);
        row.unwrap_or_else(|| panic!("{work}: {report}"))
    };
    for work in ["get_uniform", "get_zipf", "get_absent", "list", "get_large", "put_batched"] {
        let per_second = row(work)["per_second"].as_f64().expect("a number");
        assert!(per_second > 1.0 && row(work)["p50_seconds"].is_null(), "{work}");
    }
    for work in ["bare_disk", "put_durable", "put_unsynced", "open"] {
        let time = |name: &str| row(work)[name].as_f64().expect("a number");
        assert!(time("p50_seconds") > 0.0 && time("p99_seconds") >= time("p50_seconds"), "{work}");
    }
    assert!(!rows.iter().any(|row| row["work"] == "put_durable" && row["threads"] != 1));
    assert!(report["index_bytes_per_key"].as_f64().expect("a number") > 22.0);
    assert!(report["disk_bytes_per_user_byte"].as_f64().expect("a number") > 1.0);
}

#[test]
fn one_key_and_a_long_value_are_measured_too() {
    for args in [["--keys=1", "--value-bytes=0"], ["--keys=3", "--value-bytes=1MiB"]] {
        let dir = TempDir::new().expect("a directory");
        let output = run(dir.path(), &args);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{args:?}: {said}");
    }
}

#[test]
fn nothing_is_measured_inside_of_a_store() {
    let dir = TempDir::new().expect("a directory");
    let put = command(dir.path()).args(["put", "ns", "k", "v"]).status().expect("it runs");
    assert!(put.success());
    let before = fs::read_dir(dir.path().join("data")).expect("a store").count();
    let output = run(dir.path(), &["--dir=data"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    let above = fs::canonicalize(dir.path()).expect("it is there");
    assert!(said.contains(&format!("--dir {}", above.display())), "it says what to do: {said}");
    assert_eq!(fs::read_dir(dir.path().join("data")).expect("a store").count(), before);
}

#[test]
fn what_cannot_be_measured_is_refused_before_anything_is_written() {
    let dir = TempDir::new().expect("a directory");
    for (args, code, words) in [
        (&["--keys=500000000", "--value-bytes=1MiB"][..], 1, "are needed"),
        (&["--dir=nowhere"], 1, "nowhere"),
        (&["--keys=0"], 2, "--keys"),
        (&["--threads=0"], 2, "--threads"),
        (&["--value-bytes=2MiB"], 2, "1MiB at most"),
        (&["--seconds=0"], 2, "0.01 to 3600"),
        (&["--seconds=soon"], 2, "0.01 to 3600"),
    ] {
        let output = run(dir.path(), args);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
        assert!(said.contains(words), "{args:?}: {said}");
        assert!(is_empty(dir.path()), "{args:?}");
    }
}

#[test]
fn whoever_interrupts_it_finds_nothing_left() {
    // The signal comes when this is begun: what follows would take seconds.
    for (signal, code, stage) in [
        ("INT", 130, "bare disk"),
        ("INT", 130, "put in batches"),
        ("TERM", 143, "open"),
        ("HUP", 129, "get, all keys"),
    ] {
        let dir = TempDir::new().expect("a directory");
        let seconds = if stage == "bare disk" { "--seconds=60" } else { "--seconds=5" };
        let mut child = bench(dir.path(), &["--keys=100000", seconds])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it runs");
        let said = BufReader::new(child.stderr.take().expect("a pipe"));
        let mut lines = said.lines().map_while(Result::ok);
        lines.find(|line| line.contains(stage)).expect("its stage");
        let pid = child.id().to_string();
        let sent = Command::new("kill").args(["-s", signal, &pid]).status().expect("it runs");
        assert!(sent.success());
        assert_eq!(child.wait().expect("it ends").code(), Some(code), "{signal} at {stage}");
        assert!(is_empty(dir.path()), "{signal} at {stage}");
    }
}
