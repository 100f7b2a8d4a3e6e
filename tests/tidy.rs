//! Promise: the habits of this project that a program can check are kept. Imports run one way, each
//! module says why it exists, `unsafe` stays in its rooms, nothing that can fail is unwrapped outside
//! of tests, the engine drags in no async, HTTP or JSON, and what is cited in `format-spec.md` is there.
//!
//! A *room* is a module together with the modules below it. The order of the rooms stands in the
//! crate's own documentation (`lib.rs`), and is read from there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const ENGINE: &str = "engine/src";
const SERVER: &str = "server/src";
/// Where `unsafe` may be written; each module says why it must.
const UNSAFE_ROOMS: [&str; 3] = ["mmap", "catalog", "index"];
/// The one place for it outside of the engine.
const UNSAFE_IN_SERVER: &str = "server/src/memory.rs";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// One source file.
struct Source {
    /// Its path as a module: `segment/scan.rs` is `segment`, `scan`; `lib.rs` is empty.
    module: Vec<String>,
    path: String,
    text: String,
}

impl Source {
    fn room(&self) -> &str {
        self.module.first().map_or("lib", String::as_str)
    }

    /// The text without comments, and without tests.
    fn code(&self) -> String {
        let is_test_file =
            ["tests", "loom_models"].contains(&self.module.last().map_or("", String::as_str));
        if is_test_file {
            return String::new();
        }
        let code: String = without_tests(&self.text)
            .lines()
            .map(|line| line.find("//").map_or(line, |at| &line[..at]))
            .flat_map(|line| [line, "\n"])
            .collect();
        code
    }
}

/// Test modules stand at the end of their file, perhaps with a lint that is allowed in them.
fn without_tests(text: &str) -> &str {
    let begins = |line: &str| {
        line.starts_with("#[cfg(") && line.contains("test") && !line.contains("feature")
    };
    let mut at = 0;
    for (line, next) in text.lines().zip(text.lines().skip(1)) {
        if begins(line) && (next.starts_with("mod ") || next.starts_with("#[allow(")) {
            return &text[..at];
        }
        at += line.len() + 1;
    }
    text
}

fn sources(dir: &str) -> Vec<Source> {
    let base = root().join(dir);
    let mut paths = Vec::new();
    walk(&base, &mut paths);
    paths.sort();
    let source = |path: PathBuf| {
        let inside = path.strip_prefix(&base).expect("inside").with_extension("");
        let module: Vec<String> =
            inside.iter().map(|part| part.to_string_lossy().into_owned()).collect();
        let is_root = module == ["lib"] || module == ["main"];
        let text = fs::read_to_string(&path).expect("read a source file");
        let path = path.strip_prefix(root()).expect("inside").to_string_lossy().into_owned();
        Source { module: if is_root { Vec::new() } else { module }, path, text }
    };
    let sources: Vec<Source> = paths.into_iter().map(source).collect();
    assert!(sources.len() > 10, "{dir} has only {} files", sources.len());
    sources
}

fn walk(dir: &Path, paths: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("list a source directory") {
        let path = entry.expect("entry").path();
        if path.is_dir() {
            walk(&path, paths);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            paths.push(path);
        }
    }
}

/// Every path that a file's code names, as absolute module paths.
fn named_paths(source: &Source) -> Vec<Vec<String>> {
    let code = source.code();
    let words = split_words(&code);
    let mut paths = Vec::new();
    for (at, word) in words.iter().enumerate() {
        let follows_a_path = at > 0 && words[at - 1] == "::";
        let base = match *word {
            _ if follows_a_path || words.get(at + 1) != Some(&"::") => continue,
            "crate" => Vec::new(),
            "self" => source.module.clone(),
            "super" => parent(&source.module),
            // A module below this one.
            child => [&source.module[..], &[child.to_owned()]].concat(),
        };
        read_path(&words, at + 2, base, &mut paths);
    }
    paths
}

fn parent(module: &[String]) -> Vec<String> {
    module[..module.len().saturating_sub(1)].to_vec()
}

/// Reads what follows `base ::` at `at`: names, `super`, and groups in braces.
fn read_path(words: &[&str], mut at: usize, mut base: Vec<String>, paths: &mut Vec<Vec<String>>) {
    loop {
        match words.get(at) {
            Some(&"super") => base = parent(&base),
            Some(&"{") => {
                for start in group_members(words, at) {
                    read_path(words, start, base.clone(), paths);
                }
                return;
            }
            Some(word) if is_name(word) => base.push((*word).to_owned()),
            _ => break,
        }
        if words.get(at + 1) != Some(&"::") {
            break;
        }
        at += 2;
    }
    paths.push(base);
}

/// Where the members of the group that opens at `open` begin.
fn group_members(words: &[&str], open: usize) -> Vec<usize> {
    let (mut depth, mut members) = (0, vec![open + 1]);
    for (at, word) in words.iter().enumerate().skip(open) {
        match *word {
            "{" => depth += 1,
            "}" => depth -= 1,
            "," if depth == 1 => members.push(at + 1),
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    members
}

fn is_name(word: &str) -> bool {
    word.starts_with(|letter: char| letter.is_alphabetic() || letter == '_') && word != "self"
}

fn split_words(code: &str) -> Vec<&str> {
    let mut words = Vec::new();
    let mut rest = code;
    while let Some(first) = rest.chars().next() {
        let is_word = |letter: char| letter.is_alphanumeric() || letter == '_';
        let len = if is_word(first) {
            rest.find(|letter| !is_word(letter)).unwrap_or(rest.len())
        } else if rest.starts_with("::") {
            2
        } else {
            first.len_utf8()
        };
        if !first.is_whitespace() {
            words.push(&rest[..len]);
        }
        rest = &rest[len..];
    }
    words
}

/// For each file the files that it imports from.
fn imports(sources: &[Source]) -> BTreeMap<&str, BTreeSet<&str>> {
    let by_module: BTreeMap<&[String], &str> = sources
        .iter()
        .filter(|source| !source.module.is_empty())
        .map(|source| (&source.module[..], source.path.as_str()))
        .collect();
    let mut imports = BTreeMap::new();
    for source in sources.iter().filter(|source| !source.module.is_empty()) {
        let longest = |path: &Vec<String>| {
            (1..=path.len()).rev().find_map(|len| by_module.get(&path[..len])).copied()
        };
        let named = named_paths(source);
        let files = named.iter().filter_map(longest).filter(|file| *file != source.path);
        imports.insert(source.path.as_str(), files.collect());
    }
    imports
}

fn room_of<'a>(sources: &'a [Source], path: &str) -> &'a str {
    let source = sources.iter().find(|source| source.path == path);
    source.expect("imports are between files").room()
}

/// The rooms of the engine in the order that its documentation gives, first the one that uses none.
fn engine_order(lib: &str) -> Vec<String> {
    let rows = lib.lines().filter_map(|line| line.strip_prefix("//! | `"));
    rows.flat_map(|row| {
        let names = row.split('|').next().unwrap_or_default();
        names.split(',').map(|name| name.trim_matches([' ', '`']).to_owned()).collect::<Vec<_>>()
    })
    .collect()
}

/// The same for the server, whose list has a module in each line.
fn server_order(lib: &str) -> Vec<String> {
    let list = lib.split("//! ```").nth(1).expect("the documentation has a list");
    let lines = list.lines().filter_map(|line| line.strip_prefix("//! "));
    lines.filter_map(|line| line.split_whitespace().next().map(str::to_owned)).collect()
}

fn assert_imports_run_one_way(dir: &str, order: &[String]) {
    let sources = sources(dir);
    let place = |room: &str| {
        let place = order.iter().position(|name| name == room);
        place.unwrap_or_else(|| panic!("{dir}/lib.rs does not list `{room}`; it lists {order:?}"))
    };
    let mut wrong = Vec::new();
    for (file, targets) in imports(&sources) {
        let room = room_of(&sources, file);
        if room == "testing" {
            continue;
        }
        for target in targets {
            let other = room_of(&sources, target);
            if other != room && place(other) >= place(room) {
                wrong.push(format!("{file} imports from {target}"));
            }
        }
    }
    assert!(wrong.is_empty(), "against the order in {dir}/lib.rs:\n{}", wrong.join("\n"));
}

#[test]
fn imports_of_the_engine_run_one_way() {
    let lib = fs::read_to_string(root().join(ENGINE).join("lib.rs")).expect("read lib.rs");
    assert_imports_run_one_way(ENGINE, &engine_order(&lib));
}

#[test]
fn imports_of_the_server_run_one_way() {
    let lib = fs::read_to_string(root().join(SERVER).join("lib.rs")).expect("read lib.rs");
    assert_imports_run_one_way(SERVER, &server_order(&lib));
}

/// The files of the largest cycle in a graph; empty if there is none.
fn largest_cycle<'a>(graph: &BTreeMap<&'a str, BTreeSet<&'a str>>) -> BTreeSet<&'a str> {
    let reachable = |from: &'a str| {
        let (mut seen, mut open) = (BTreeSet::new(), vec![from]);
        while let Some(file) = open.pop() {
            let next = graph.get(file).into_iter().flatten();
            open.extend(next.filter(|target| seen.insert(**target)));
        }
        seen
    };
    let reach: BTreeMap<&str, BTreeSet<&str>> =
        graph.keys().map(|file| (*file, reachable(file))).collect();
    let cycle = |file: &&'a str| -> BTreeSet<&'a str> {
        let targets = reach[file].iter().copied();
        targets.filter(|target| reach.get(target).is_some_and(|back| back.contains(file))).collect()
    };
    graph.keys().map(cycle).max_by_key(BTreeSet::len).unwrap_or_default()
}

#[test]
fn the_largest_cycle_between_modules_is_0() {
    for dir in [ENGINE, SERVER] {
        let sources = sources(dir);
        let mut rooms: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        let mut siblings: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for (file, targets) in imports(&sources) {
            let room = room_of(&sources, file);
            for target in targets {
                let other = room_of(&sources, target);
                if other != room {
                    rooms.entry(room).or_default().insert(other);
                    continue;
                }
                // Inside of a room its head and the files below know each other; the files below
                // among themselves have an order.
                let is_head = |path: &str| path == format!("{dir}/{room}.rs");
                if !is_head(file) && !is_head(target) {
                    siblings.entry(file).or_default().insert(target);
                }
            }
        }
        assert_eq!(largest_cycle(&rooms), BTreeSet::new(), "rooms of {dir}");
        assert_eq!(largest_cycle(&siblings), BTreeSet::new(), "files inside a room of {dir}");
    }
}

#[test]
fn the_import_graph_is_not_blind() {
    let engine = sources(ENGINE);
    let imports = imports(&engine);
    let edges: usize = imports.values().map(BTreeSet::len).sum();
    assert!(edges > 60, "only {edges} imports were found");
    assert!(imports["engine/src/db.rs"].contains("engine/src/commit.rs"));
    assert!(imports["engine/src/segment/scan.rs"].contains("engine/src/segment.rs"));
    assert!(imports["engine/src/segment.rs"].contains("engine/src/format/record.rs"));
    let graph = BTreeMap::from([("a", BTreeSet::from(["b"])), ("b", BTreeSet::from(["c", "a"]))]);
    assert_eq!(largest_cycle(&graph), BTreeSet::from(["a", "b"]));
}

#[test]
fn every_module_begins_by_saying_why_it_exists() {
    for source in [sources(ENGINE), sources(SERVER)].into_iter().flatten() {
        let first = source.text.lines().next().unwrap_or_default();
        assert!(first.starts_with("//! "), "{} begins with {first:?}", source.path);
    }
}

#[test]
fn nothing_is_unwrapped_outside_of_tests_without_a_reason() {
    for source in [sources(ENGINE), sources(SERVER)].into_iter().flatten() {
        let code = source.code();
        for (at, line) in code.lines().enumerate() {
            let line_number = at + 1;
            assert!(
                !line.contains(".unwrap()"),
                "{}:{line_number} unwraps without a reason; `expect` has room for one",
                source.path
            );
        }
    }
}

#[test]
fn unsafe_stays_in_its_rooms() {
    for source in [sources(ENGINE), sources(SERVER)].into_iter().flatten() {
        let is_room = source.path == UNSAFE_IN_SERVER
            || source.path.starts_with(ENGINE) && UNSAFE_ROOMS.contains(&source.room());
        let code = source.code();
        let words = split_words(&code);
        assert!(is_room || !words.contains(&"unsafe"), "{} uses `unsafe`", source.path);
    }
}

#[test]
fn the_engine_drags_in_no_async_http_or_json() {
    let tree = Command::new(env!("CARGO"))
        .args(["tree", "--package", "kvast", "--edges", "normal", "--prefix", "none", "--locked"])
        .arg("--all-features")
        .current_dir(root())
        .output()
        .expect("run cargo tree");
    assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
    let tree = String::from_utf8(tree.stdout).expect("cargo prints UTF-8");
    let names: BTreeSet<&str> = tree.lines().filter_map(|it| it.split(' ').next()).collect();
    assert!(names.contains("memmap2"), "{names:?}");
    // Loom, which only models are built with, has its own way of logging.
    for banned in ["tokio", "hyper", "serde", "serde_json", "futures", "async-std", "http"] {
        assert!(!names.contains(banned), "the engine depends on {banned}");
    }
}

#[test]
fn sections_of_the_specification_that_are_cited_exist() {
    let spec = fs::read_to_string(root().join("format-spec.md")).expect("read the specification");
    let headings: BTreeSet<&str> = spec
        .lines()
        .filter(|line| line.starts_with('#'))
        .filter_map(|line| line.trim_start_matches('#').split_whitespace().next())
        .collect();
    let mut cited = 0;
    let mut texts: Vec<(String, String)> =
        sources(ENGINE).into_iter().map(|source| (source.path, source.text)).collect();
    texts.push(("format-spec.md".into(), spec.clone()));
    for (path, text) in &texts {
        for (before, after) in
            text.match_indices('§').map(|(at, sign)| text.split_at(at + sign.len()))
        {
            // Other documents have sections too.
            if before[..before.len() - '§'.len_utf8()].trim_end().ends_with("4648")
                || before
                    .trim_end_matches('§')
                    .trim_end_matches(['\n', '/', '!', ' '])
                    .ends_with("4648")
            {
                continue;
            }
            let is_part = |letter: char| letter.is_ascii_digit() || letter == '.';
            let end = after.find(|letter| !is_part(letter)).unwrap_or(after.len());
            let number = after[..end].trim_end_matches('.');
            if number.is_empty() {
                continue;
            }
            cited += 1;
            assert!(headings.contains(number), "{path} cites §{number}, which is not there");
        }
    }
    assert!(cited > 40, "only {cited} citations were found");
}

#[test]
fn the_tests_that_the_table_of_hazards_names_exist() {
    let table = fs::read_to_string(root().join("tests/README.md")).expect("read tests/README.md");
    let mut paths = Vec::new();
    walk(&root().join("tests"), &mut paths);
    walk(&root().join("server/tests"), &mut paths);
    let texts: String =
        paths.iter().map(|path| fs::read_to_string(path).expect("read a test")).collect();
    let quoted = table.split('`').skip(1).step_by(2);
    let names: BTreeSet<&str> =
        quoted.filter(|text| text.matches('_').count() >= 3 && is_name(text)).collect();
    assert!(names.len() > 30, "{names:?}");
    for name in names {
        assert!(texts.contains(&format!("fn {name}()")), "there is no test {name}");
    }
}
