//! What an operator is promised about settings: one value from many places, told where from, and
//! every mistake named before anything starts.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::support::{ACCOUNT, Server};
use tempfile::TempDir;

/// The program in a directory of its own, without a variable of this environment.
fn kvast(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kvast"));
    command.env_clear().current_dir(dir).stdin(Stdio::null()).args(args);
    command
}

fn dir() -> TempDir {
    TempDir::new().expect("a directory")
}

fn write(dir: &TempDir, name: &str, text: &str) -> String {
    let path = dir.path().join(name);
    fs::write(&path, text).expect("it is written");
    path.to_str().expect("UTF-8").to_owned()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

#[track_caller]
fn ok(command: &mut Command) -> String {
    let output = command.output().expect("it runs");
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}

#[track_caller]
fn refused(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().expect("it runs");
    assert_eq!(status.code(), Some(2), "{}", text(&stderr));
    assert!(stdout.is_empty());
    text(&stderr)
}

/// The line of `config show --origin` for one setting.
#[track_caller]
fn shown(command: &mut Command, name: &str) -> String {
    let shown = ok(command);
    let wanted = format!("{name} = ");
    let line = shown.lines().find(|line| line.trim_start_matches("# ").starts_with(&wanted));
    line.unwrap_or_else(|| panic!("no {name}: {shown}")).to_owned()
}

#[test]
fn a_flag_comes_before_a_variable_before_the_file_before_the_default() {
    let dir = dir();
    let show = ["config", "show", "--origin"];
    let with_flag = [&show[..], &["--head-time", "4s"]].concat();
    let head_time = |args: &[&str], variable: bool| {
        let mut command = kvast(dir.path(), args);
        if variable {
            command.env("KVAST_HEAD_TIME", "3s");
        }
        shown(&mut command, "head-time")
    };
    assert_eq!(head_time(&show, false), "head-time = \"10s\"  # default");
    write(&dir, "kvast.toml", "# mine\nhead-time = \"2s\"\n");
    assert_eq!(head_time(&show, false), "head-time = \"2s\"  # kvast.toml:2");
    assert_eq!(head_time(&show, true), "head-time = \"3s\"  # KVAST_HEAD_TIME");
    assert_eq!(head_time(&with_flag, true), "head-time = \"4s\"  # --head-time");
    assert_eq!(head_time(&with_flag, false), "head-time = \"4s\"  # --head-time");
    fs::remove_file(dir.path().join("kvast.toml")).expect("it is removed");
    assert_eq!(head_time(&show, true), "head-time = \"3s\"  # KVAST_HEAD_TIME");
}

#[test]
fn the_file_is_that_of_the_flag_else_that_of_the_variable_else_the_one_here() {
    let dir = dir();
    write(&dir, "kvast.toml", "linger = \"1ms\"\n");
    let of_variable = write(&dir, "variable.toml", "linger = \"2ms\"\n");
    let of_flag = write(&dir, "flag.toml", "linger = \"3ms\"\n");
    let show = ["config", "show"];
    let linger = |command: &mut Command| shown(command, "linger");
    assert_eq!(linger(&mut kvast(dir.path(), &show)), "linger = \"1ms\"");
    let by_variable = linger(kvast(dir.path(), &show).env("KVAST_CONFIG", &of_variable));
    assert_eq!(by_variable, "linger = \"2ms\"");
    let by_flag = [&show[..], &["--config", &of_flag]].concat();
    let by_flag = linger(kvast(dir.path(), &by_flag).env("KVAST_CONFIG", &of_variable));
    assert_eq!(by_flag, "linger = \"3ms\"");
    let missing = refused(kvast(dir.path(), &show).env("KVAST_CONFIG", "missing.toml"));
    assert!(missing.contains("missing.toml"), "{missing}");
}

#[test]
fn lists_switches_and_empty_variables_are_as_one_would_write_them() {
    let dir = dir();
    write(&dir, "kvast.toml", "listen = [\"127.0.0.1:1\", \"unix:/run/s\"]\naccess-log = true\n");
    let show = ["config", "show"];
    let listen = "listen = [\"127.0.0.1:1\", \"unix:/run/s\"]";
    assert_eq!(shown(&mut kvast(dir.path(), &show), "listen"), listen);
    assert_eq!(shown(&mut kvast(dir.path(), &show), "access-log"), "access-log = true");
    let mut command = kvast(dir.path(), &show);
    command.env("KVAST_LISTEN", "127.0.0.1:2, [::1]:3").env("KVAST_TOKEN_FILE", "");
    assert_eq!(shown(&mut command, "listen"), "listen = [\"127.0.0.1:2\", \"[::1]:3\"]");
    assert_eq!(shown(&mut command, "token-file"), "# token-file = \"\"");
    let flags = ["config", "show", "--listen", "[::1]:4", "--listen", "unix:s", "--insecure"];
    let mut command = kvast(dir.path(), &flags);
    assert_eq!(shown(&mut command, "listen"), "listen = [\"[::1]:4\", \"unix:s\"]");
    assert_eq!(shown(&mut command, "insecure"), "insecure = true");
    let off = ["config", "show", "--access-log=false"];
    assert_eq!(shown(&mut kvast(dir.path(), &off), "access-log"), "access-log = false");
}

#[test]
fn what_is_shown_is_a_file_that_says_the_same() {
    let dir = dir();
    let flags = ["config", "show", "--head-bytes", "9000", "--durability", "interval:1500ms"];
    let shown = ok(&mut kvast(dir.path(), &flags));
    write(&dir, "kvast.toml", &shown);
    assert_eq!(ok(&mut kvast(dir.path(), &["config", "show"])), shown);
    let example = ok(&mut kvast(dir.path(), &["config", "example"]));
    write(&dir, "kvast.toml", &example);
    let mut check = kvast(dir.path(), &["config", "check"]);
    assert_eq!(ok(&mut check), "kvast.toml: ok\n");
}

#[test]
fn secrets_are_masked_and_have_no_flag() {
    let dir = dir();
    let mut command = kvast(dir.path(), &["config", "show", "--origin"]);
    let line = shown(command.env("KVAST_TOKEN", "hunter2"), "token");
    assert_eq!(line, "token = \"***\"  # KVAST_TOKEN");
    write(&dir, "kvast.toml", "token = \"hunter2\"\n");
    let shown = ok(&mut kvast(dir.path(), &["config", "show", "--origin"]));
    assert!(!shown.contains("hunter2"));
    refused(&mut kvast(dir.path(), &["serve", "--token", "hunter2"]));
}

#[test]
fn check_names_every_error_with_its_place_and_the_name_that_was_meant() {
    let dir = dir();
    let broken = "head-tim = \"1s\"\nconnections = \"many\"\nlinger = \"soon\"\n[limits]\n";
    let path = write(&dir, "broken.toml", broken);
    let mut command = kvast(dir.path(), &["config", "check", &path]);
    command.env("KVAST_BODY_IDLE", "soon").env("KVAST_HEAD_TIM", "1s");
    let stderr = refused(&mut command);
    for part in [
        "broken.toml:1: there is no setting head-tim; the nearest name is head-time",
        "broken.toml:2: connections: it wants a whole number, and this is a text",
        "broken.toml:3: linger is \"soon\": say a number with ms, s, m, h or d",
        "broken.toml:4: limits is a table",
        "KVAST_BODY_IDLE: body-idle is \"soon\"",
        "the variable KVAST_HEAD_TIM sets nothing; the nearest name is KVAST_HEAD_TIME",
    ] {
        assert!(stderr.contains(part), "{part}: {stderr}");
    }
    let serve = refused(&mut kvast(dir.path(), &["serve", "--config", &path]));
    assert!(serve.contains("head-time") && serve.contains("linger"), "{serve}");
    assert!(!dir.path().join("kvast-data").exists(), "nothing was started");
}

#[test]
fn numbers_that_make_no_sense_are_refused_with_a_sentence() {
    let dir = dir();
    for (flags, part) in [
        (&["--connections", "0"][..], "connections must be at least 1"),
        (&["--head-bytes", "100"], "head-bytes must be at least 8KiB"),
        (&["--connection-buffer-bytes", "1KiB"], "connection-buffer-bytes must be at least"),
        (&["--max-value-bytes", "65MiB"], "max-value-bytes must be from 1 to 64MiB"),
        (&["--keys-per-page", "0"], "keys-per-page must be from 1 to 10000"),
        (&["--upload-bytes", "1MiB"], "upload-bytes must be at least 65MiB"),
        (&["--tls-cert", "cert.pem"], "tls-cert needs tls-key"),
        (&["--head-time", "0s"], "longer than nothing"),
        (&["--head-bytes=-1"], "--head-bytes"),
        (&["--log", "loud"], "text or json"),
        (&["--access-log=maybe"], "true or false"),
    ] {
        let stderr = refused(&mut kvast(dir.path(), &[&["serve"], flags].concat()));
        assert!(stderr.contains(part), "{flags:?}: {stderr}");
    }
}

#[test]
fn other_commands_look_for_the_store_where_the_server_would() {
    let dir = dir();
    let path = write(&dir, "kvast.toml", "data = \"here\"\n");
    ok(&mut kvast(dir.path(), &["put", "ns", "k", "v"]));
    assert!(dir.path().join("here").is_dir());
    let elsewhere = TempDir::new().expect("a directory");
    fs::write(elsewhere.path().join("moved.toml"), "data = 1").expect("it is written");
    refused(kvast(elsewhere.path(), &["get", "ns", "k"]).env("KVAST_CONFIG", "moved.toml"));
    assert_eq!(ok(&mut kvast(dir.path(), &["get", "ns", "k", "--config", &path])), "v");
    let data = dir.path().join("here");
    let data = data.to_str().expect("UTF-8");
    assert_eq!(ok(&mut kvast(elsewhere.path(), &["get", "ns", "k", "--data", data])), "v");
    assert_eq!(ok(kvast(elsewhere.path(), &["get", "ns", "k"]).env("KVAST_DATA", data)), "v");
}

#[test]
fn the_longest_value_and_page_are_what_is_set_and_texts_say_so() {
    let server = Server::with(|config| {
        config.limits.max_value_bytes = 10;
        config.limits.keys_per_page = 2;
    });
    for key in ["/a", "/b", "/c"] {
        server.put(key, &[b'v'; 10]).ok();
    }
    let long = server.put("/a", &[b'v'; 11]);
    assert_eq!(long.refusal(), "413 Value length of 11 exceeds limit of 10.");
    let listed = server.get("/").ok().json();
    assert_eq!(listed["keys"].as_array().map(Vec::len), Some(2));
    assert_eq!(listed["list_complete"], false);
    let refused = server.get("/?key_count_limit=3").refusal();
    assert!(refused.contains("Please specify an integer less than 2."), "{refused}");

    let namespaces = server.get(ACCOUNT).ok().json();
    let id = namespaces["result"][0]["id"].as_str().expect("an id").to_owned();
    let value = server.put(&format!("{ACCOUNT}/{id}/values/a"), &[b'v'; 11]);
    assert_eq!((value.status, &value.json()["errors"][0]["code"]), (413, &10024.into()));
    let bulk = "[{\"key\":\"k\",\"value\":\"12345678901\"}]";
    let headers = ["Content-Type: application/json"];
    let bulk = server.send("PUT", &format!("{ACCOUNT}/{id}/bulk"), &headers, bulk.as_bytes());
    assert!(bulk.text().contains("exceeds limit of 10."), "{}", bulk.text());
    assert_eq!(server.put("/v1/namespaces/default/keys/a", &[b'v'; 11]).status, 413);
    assert_eq!(server.get("/v1/namespaces/default/keys?limit=3").status, 400);
}

#[test]
fn values_may_be_longer_than_those_of_workers_kv() {
    let server = Server::with(|config| config.limits.max_value_bytes = 64 << 20);
    let value = vec![b'v'; 30 << 20];
    server.put("/k", &value).ok();
    assert!(server.get("/k").ok().body == value);
}

#[test]
fn a_reader_that_has_had_enough_is_no_failure() {
    let dir = dir();
    for args in [&["config", "example"][..], &["config", "show"]] {
        let mut command = kvast(dir.path(), args);
        let mut child = command.stdout(Stdio::piped()).spawn().expect("it starts");
        drop(child.stdout.take());
        assert!(child.wait().expect("it ends").success(), "{args:?}");
    }
}

#[test]
fn a_token_that_nobody_can_send_or_everybody_does_is_an_error() {
    let dir = dir();
    for token in ["", " ", " x", "x y", "x\\n"] {
        write(&dir, "kvast.toml", &format!("token = \"{token}\"\n"));
        let output = kvast(dir.path(), &["config", "check"]).output().expect("it runs");
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{token:?}: {said}");
        assert!(said.contains("kvast.toml:1: token is \"***\": say at least one letter"), "{said}");
    }
}
