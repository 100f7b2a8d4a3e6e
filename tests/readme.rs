//! Promise: what the README shows works as it is written.
//!
//! How it is attacked: its Rust program is the example that is compiled with the engine, its curl lines
//! are run against the real server (where there is curl), and its files exist.

use std::fs;
use std::path::Path;
use std::process::Command;

mod support;

use support::server::Server;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn readme() -> String {
    fs::read_to_string(root().join("README.md")).expect("read the README")
}

/// The blocks of code in a language.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let fence = format!("```{language}\n");
    let parts = text.split(&fence).skip(1);
    parts.filter_map(|part| part.split("```").next()).map(str::to_owned).collect()
}

#[test]
fn the_program_in_the_readme_is_the_one_that_is_compiled() {
    let example = root().join("engine/examples/embedded.rs");
    let example = fs::read_to_string(example).expect("read the example");
    let [program] = &blocks(&readme(), "rust")[..] else { panic!("one program is expected") };
    assert!(example.ends_with(program), "README.md and engine/examples/embedded.rs differ");
}

#[test]
fn the_curl_lines_of_the_readme_work_against_the_server() {
    if Command::new("curl").arg("--version").output().is_err() {
        println!("there is no curl here");
        return;
    }
    let data = tempfile::tempdir().expect("make a directory");
    let server = Server::start(data.path(), &[]);
    let lines: Vec<String> = blocks(&readme(), "sh")
        .into_iter()
        .filter(|block| block.contains("curl "))
        .map(|block| block.replace("127.0.0.1:8787", &server.address))
        .collect();
    assert_eq!(lines.len(), 4, "{lines:?}");
    let run = |script: &str| {
        let script = format!("set -e\n{}", script.replace("curl ", "curl --silent --fail "));
        let output = Command::new("sh").args(["-c", &script]).output().expect("run sh");
        assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    let answers = run(&lines[0]);
    assert!(answers.starts_with("hello{\"keys\":[{\"name\":\"greeting\"}]"), "{answers}");
    run(&lines[1]);
    let listed = run(&format!("curl 'http://{}/?prefix=user/'", server.address));
    assert!(listed.contains("\"user/42\"") && listed.contains("expiration"), "{listed}");
    let rest = run(&lines[2]);
    for shown in ["\"title\":\"sessions\"", "Ada", "\"result\":{\"v\":1}", "\"a\":{\"value\":\"1\""]
    {
        assert!(rest.contains(shown), "{rest}");
    }
    assert!(!rest.contains("\"success\":false"), "{rest}");
    let native = run(&lines[3]);
    for shown in
        ["HTTP/1.1 201", "kvast-metadata: {\"v\":1}", "\"value\":\"Ada\"", "\"version\":null"]
    {
        assert!(native.contains(shown), "{native}");
    }
}

#[test]
fn the_files_that_the_documents_link_to_exist() {
    for document in ["README.md", "CHANGELOG.md", "tests/README.md", "format-spec.md"] {
        let path = root().join(document);
        let text = fs::read_to_string(&path).expect("read a document");
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = link.split('#').next().unwrap_or_default();
            let is_web = link.contains("://") || file.is_empty();
            let target = path.parent().expect("a directory").join(file);
            assert!(is_web || target.exists(), "{document} links to {link}");
        }
    }
}

#[test]
fn the_command_that_the_readme_gives_for_testing_is_what_ci_runs_first() {
    let ci = fs::read_to_string(root().join(".ci/run")).expect("read .ci/run");
    let first = ci.lines().find(|line| line.starts_with("step ")).expect("there are steps");
    assert!(readme().contains("cargo test --workspace --release"));
    assert!(first.contains("cargo test --locked --workspace --release"), "{first}");
}
