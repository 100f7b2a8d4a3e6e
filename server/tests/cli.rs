//! What the program promises: data alone on standard output, an exit code that tells, and an end
//! without loss when it is asked to stop.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use crate::support::Client;
use crate::support::program::{Program, command, serve};
use tempfile::TempDir;

fn run(dir: &Path, args: &[&str]) -> Output {
    command(dir).args(args).output().expect("it runs")
}

#[track_caller]
fn expect(dir: &Path, args: &[&str], code: i32, stdout: &[u8]) -> String {
    let output = run(dir, args);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{args:?}: {stderr}");
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(output.stdout == stdout, "{args:?}: {shown:?}");
    stderr
}

#[test]
fn a_value_goes_in_and_comes_out_byte_for_byte() {
    let dir = TempDir::new().expect("a directory");
    let dir = dir.path();
    let stderr = expect(dir, &["put", "sessions", "user/42", "{\"name\":\"Ada\"}"], 0, b"");
    assert!(stderr.contains("sessions"), "it says that the namespace is new");
    expect(dir, &["get", "sessions", "user/42"], 0, b"{\"name\":\"Ada\"}");

    let every_byte: Vec<u8> = (0..=255).collect();
    let file = dir.join("value");
    fs::write(&file, &every_byte).expect("it is written");
    let path = file.to_str().expect("UTF-8");
    assert_eq!(expect(dir, &["put", "sessions", "bin", "--file", path], 0, b""), "");
    expect(dir, &["get", "sessions", "bin"], 0, &every_byte);

    for args in [&["put", "sessions", "in", "--file", "-"][..], &["put", "sessions", "in"]] {
        let mut child = command(dir).args(args).stdin(Stdio::piped()).spawn().expect("it runs");
        child.stdin.take().expect("a pipe").write_all(&every_byte).expect("it is taken");
        assert!(child.wait().expect("it ends").success());
        expect(dir, &["get", "sessions", "in"], 0, &every_byte);
    }
    expect(dir, &["put", "sessions", "dash", "--", "-v"], 0, b"");
    expect(dir, &["get", "sessions", "dash"], 0, b"-v");
    expect(dir, &["delete", "sessions", "dash"], 0, b"");
    expect(dir, &["get", "sessions", "dash"], 3, b"");
}

#[test]
fn lists_show_keys_expirations_and_metadata() {
    let dir = TempDir::new().expect("a directory");
    let dir = dir.path();
    let at = crate::support::unix_now() + 1000;
    expect(dir, &["put", "ns", "b", "v", "--expires", &at.to_string()], 0, b"");
    expect(dir, &["put", "ns", "a", "v", "--metadata", "{ \"n\": 1 }"], 0, b"");
    expect(dir, &["put", "ns", "p/1", "v"], 0, b"");
    expect(dir, &["list", "ns"], 0, b"a\nb\np/1\n");
    expect(dir, &["list", "ns", "--prefix", "p/"], 0, b"p/1\n");
    expect(dir, &["list", "ns", "--limit", "2"], 0, b"a\nb\n");
    let long = format!("-\t{{\"n\":1}}\ta\n{at}\t-\tb\n-\t-\tp/1\n");
    expect(dir, &["list", "ns", "--long"], 0, long.as_bytes());
    let json = format!(
        "{{\"name\":\"a\",\"metadata\":{{\"n\":1}}}}\n{{\"name\":\"b\",\"expiration\":{at}}}\n"
    );
    expect(dir, &["list", "ns", "--json", "--limit", "2"], 0, json.as_bytes());
    expect(dir, &["get", "ns", "a", "--metadata"], 0, b"{\"n\":1}\n");
    expect(dir, &["get", "ns", "b", "--metadata"], 0, b"null\n");
}

#[test]
fn a_short_life_ends() {
    let dir = TempDir::new().expect("a directory");
    let dir = dir.path();
    expect(dir, &["put", "ns", "k", "v", "--ttl", "200ms"], 0, b"");
    std::thread::sleep(Duration::from_millis(300));
    expect(dir, &["get", "ns", "k"], 3, b"");
    expect(dir, &["list", "ns"], 0, b"");
}

#[test]
fn exit_codes_tell_failures_apart() {
    let dir = TempDir::new().expect("a directory");
    let dir = dir.path();
    let stderr = expect(dir, &["get", "ns", "k"], 1, b"");
    assert!(stderr.contains("--data"), "{stderr}");
    assert!(!dir.join("data").exists(), "reading makes no store");
    expect(dir, &["put", "ns", "k", "v"], 0, b"");

    for usage in [
        &["nonsense"][..],
        &["get", "ns"],
        &["put", "ns", "", "v"],
        &["put", "ns", "..", "v"],
        &["put", "ns", "k", "v", "--file", "x"],
        &["put", "ns", "k", "v", "--ttl", "soon"],
        &["put", "ns", "k", "v", "--ttl", "1s", "--expires", "9999999999"],
        &["put", "ns", "k", "v", "--expires", "1"],
        &["put", "ns", "k", "v", "--metadata", "{nope"],
        &["serve", "--listen", "nowhere"],
        &["serve", "--listen", "0.0.0.0:0"],
        &["serve", "--durability", "never"],
    ] {
        expect(dir, usage, 2, b"");
    }
    for missing in [
        &["get", "ns", "other"][..],
        &["get", "other", "k"],
        &["delete", "ns", "other"],
        &["delete", "other", "k"],
        &["list", "other"],
    ] {
        expect(dir, missing, 3, b"");
    }
    expect(dir, &["put", "ns", "k", "--file", "/no/such/file"], 1, b"");
    assert_eq!(run(dir, &["verify"]).status.code(), Some(0));
}

#[test]
fn a_store_that_is_being_served_is_locked_for_writers() {
    let dir = TempDir::new().expect("a directory");
    let mut serving = Program::spawn(&mut serve(dir.path(), &[]));
    serving.addr();
    let stderr = expect(dir.path(), &["put", "default", "k", "v"], 5, b"");
    assert!(stderr.starts_with("kvast: "), "{stderr}");
    expect(dir.path(), &["delete", "default", "k"], 5, b"");
    expect(dir.path(), &["serve", "--listen", "127.0.0.1:0"], 5, b"");
    serving.signal("TERM");
    assert_eq!(serving.end().status.code(), Some(0));
}

#[test]
fn verify_finds_damage_and_exits_with_6() {
    let dir = TempDir::new().expect("a directory");
    let value = "v".repeat(100_000);
    for n in 0..3 {
        let key = format!("k{n}");
        expect(dir.path(), &["put", "ns", &key, &value], 0, b"");
    }
    let data = dir.path().join("data");
    assert_eq!(run(dir.path(), &["verify"]).status.code(), Some(0));
    for entry in fs::read_dir(&data).expect("a directory") {
        let path = entry.expect("an entry").path();
        let Ok(mut bytes) = fs::read(&path) else { continue };
        // Damage one byte in the midst of the values.
        if let Some(at) = bytes.windows(64).position(|window| window == [b'v'; 64]) {
            bytes[at + 50_000] ^= 1;
            fs::write(&path, bytes).expect("it is written");
        }
    }
    let output = run(dir.path(), &["verify"]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(6), "{stderr}");
    assert!(stderr.contains("damaged"), "{stderr}");
}

#[test]
fn help_names_every_command_and_every_exit_code() {
    let dir = TempDir::new().expect("a directory");
    let help = String::from_utf8(run(dir.path(), &["--help"]).stdout).expect("UTF-8");
    for word in ["serve", "put", "get", "delete", "list", "verify", "bench", "Exit codes", "  6  "]
    {
        assert!(help.contains(word), "{word}");
    }
    for command in ["serve", "config", "put", "get", "delete", "list", "verify", "bench"] {
        let help = String::from_utf8(run(dir.path(), &[command, "--help"]).stdout).expect("UTF-8");
        assert!(help.contains("Example"), "{command}");
    }
    assert_eq!(run(dir.path(), &[]).status.code(), Some(2));
}

#[test]
fn sigterm_drains_and_closes_and_what_was_written_is_there() {
    for (signal, durability) in [("TERM", "sync"), ("INT", "os"), ("TERM", "interval:50ms")] {
        let dir = TempDir::new().expect("a directory");
        let mut serving = Program::spawn(&mut serve(dir.path(), &["--durability", durability]));
        let addr = serving.addr();
        let mut client = Client::to(addr);
        client.send("PUT", "/k", &[], b"value").ok();
        client.write(format!(
            "{}Content-Length: 8\r\n\r\nhalf",
            crate::support::head("PUT", "/late", &[])
        ));
        std::thread::sleep(Duration::from_millis(100));
        serving.signal(signal);
        std::thread::sleep(Duration::from_millis(100));
        client.write(b"half");
        client.read().ok();
        drop(client);
        let output = serving.end();
        assert_eq!(output.status.code(), Some(0));
        assert!(output.stdout.is_empty(), "nothing after the first line");
        assert!(String::from_utf8_lossy(&output.stderr).contains("stopped"));
        expect(dir.path(), &["get", "default", "k"], 0, b"value");
        expect(dir.path(), &["get", "default", "late"], 0, b"halfhalf");
    }
}

#[test]
fn a_second_signal_exits_at_once() {
    let dir = TempDir::new().expect("a directory");
    let mut serving = Program::spawn(&mut serve(dir.path(), &[]));
    let addr = serving.addr();
    let mut stuck = Client::to(addr);
    stuck.begin_put("/k", 8);
    stuck.write(b"half");
    let began = Instant::now();
    serving.signal("TERM");
    std::thread::sleep(Duration::from_millis(200));
    serving.signal("TERM");
    assert_ne!(serving.end().status.code(), Some(0));
    assert!(began.elapsed() < Duration::from_secs(5), "it did not wait for the stuck request");
}

#[test]
fn json_logs_are_json_lines_on_stderr() {
    let dir = TempDir::new().expect("a directory");
    let mut serving =
        Program::spawn(&mut serve(dir.path(), &["--log", "json", "--log-level", "debug"]));
    let addr = serving.addr();
    Client::to(addr).send("GET", "/missing", &[], b"");
    serving.signal("TERM");
    let stderr = String::from_utf8(serving.end().stderr).expect("UTF-8");
    let lines: Vec<serde_json::Value> =
        stderr.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert!(lines.iter().any(|line| line["fields"]["status"] == 404), "{stderr}");
}

/// What the process holds of memory that is no file's, in MiB.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn anonymous_mib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("a line");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") / 1024
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[test]
fn memory_that_large_values_have_used_goes_back_to_the_system() {
    let dir = TempDir::new().expect("a directory");
    let mut serving = Program::spawn(&mut serve(dir.path(), &["--durability", "os"]));
    let addr = serving.addr();
    let value = vec![b'v'; 25 << 20];
    for _ in 0..3 {
        std::thread::scope(|scope| {
            for nth in 0..4 {
                let value = &value;
                scope.spawn(move || {
                    let mut client = Client::to(addr);
                    let put = client.send("PUT", &format!("/big{nth}"), &[], value);
                    put.ok();
                    let asked = format!("{{\"keys\":[\"big{nth}\"]}}");
                    client.send("POST", "/bulk/get", &[], asked.as_bytes()).ok();
                });
            }
        });
    }
    let until = Instant::now() + Duration::from_secs(10);
    while anonymous_mib(serving.id()) > 64 && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(100));
    }
    let kept = anonymous_mib(serving.id());
    serving.signal("TERM");
    assert_eq!(serving.end().status.code(), Some(0));
    assert!(kept <= 64, "{kept} MiB are kept");
}
