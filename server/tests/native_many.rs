//! Promise: on the native surface keys are listed in either direction with what is asked for beside
//! them, and a batch happens whole or not at all.

use crate::support::{Answer, Server, encode};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kvast::Namespace;
use serde_json::{Value, json};

const LIST: &str = "/v1/namespaces/default/keys";
const BATCH: &str = "/v1/namespaces/default/batch";

fn filled(keys: &[&str]) -> Server {
    let server = Server::new();
    for key in keys {
        server.put(&format!("{LIST}/{}", encode(key)), format!("value of {key}").as_bytes());
    }
    server
}

fn list(server: &Server, query: &str) -> Value {
    server.get(&format!("{LIST}?{query}")).ok().json()
}

fn keys(page: &Value) -> Vec<&str> {
    let keys = page["keys"].as_array().expect("a list").iter();
    keys.map(|row| row["key"].as_str().expect("a key")).collect()
}

fn stored(server: &Server) -> Namespace {
    server.handle.db().find_namespace("default").expect("a namespace")
}

/// Follows the `Link` headers from a first page to the end.
fn all_pages(server: &Server, query: &str) -> Vec<Value> {
    let mut pages = Vec::new();
    let mut next = Some(format!("{LIST}?{query}"));
    while let Some(target) = next {
        let answer = server.get(&target).ok();
        let page = answer.json();
        next = answer.header("link").map(|link| {
            let (target, rel) = link.split_once(">; ").expect("a target");
            assert_eq!(rel, "rel=\"next\"");
            target.strip_prefix('<').expect("a target").to_owned()
        });
        assert_eq!(page["complete"], next.is_none());
        assert_eq!(page.get("cursor").is_some(), next.is_some());
        pages.push(page);
    }
    pages
}

#[test]
fn keys_are_listed_in_either_direction_between_any_bounds() {
    let server = filled(&["a", "b/1", "b/2", "b/3", "c d", "é"]);
    for (query, expected) in [
        ("", &["a", "b/1", "b/2", "b/3", "c d", "é"][..]),
        ("prefix=b/", &["b/1", "b/2", "b/3"]),
        ("prefix=b%2F&reverse=true", &["b/3", "b/2", "b/1"]),
        ("prefix=c+d", &["c d"]),
        ("prefix=%C3%A9", &["é"]),
        ("start=b/2", &["b/2", "b/3", "c d", "é"]),
        ("end=b/2", &["a", "b/1"]),
        ("start=b/1&end=b/3&reverse=true", &["b/2", "b/1"]),
        ("prefix=b/&start=b/2", &["b/2", "b/3"]),
        ("prefix=&start=&end=&cursor=&reverse=false", &["a", "b/1", "b/2", "b/3", "c d", "é"]),
        ("prefix=x", &[]),
    ] {
        let page = list(&server, query);
        assert_eq!(keys(&page), expected, "{query}");
        assert_eq!(page["complete"], true);
    }
    assert_eq!(list(&server, "limit=1")["keys"], json!([{ "key": "a" }]), "and nothing more");
}

#[test]
fn pages_follow_each_other_to_the_end() {
    let names: Vec<String> = (0..25).map(|at| format!("k&{at:02}")).collect();
    let server = filled(&names.iter().map(String::as_str).collect::<Vec<_>>());
    for query in ["limit=7", "limit=7&prefix=k%26", "include=value&limit=7", "limit=25"] {
        let pages = all_pages(&server, query);
        let listed: Vec<&str> = pages.iter().flat_map(keys).collect();
        assert_eq!(listed, names, "{query}");
    }
    let pages = all_pages(&server, "limit=10&reverse=true&start=k%2605");
    let mut listed: Vec<&str> = pages.iter().flat_map(keys).collect();
    listed.reverse();
    assert_eq!(listed, names[5..]);
}

#[test]
fn a_list_includes_what_is_asked_for() {
    let server = Server::new();
    let headers = ["Kvast-Metadata: {\"n\": 1.0}"];
    let target = format!("{LIST}/a?expires_at=2100-01-01T00:00:00Z");
    let put = server.send("PUT", &target, &headers, b"Ada");
    let version: u64 =
        put.header("etag").expect("a tag").trim_matches('"').parse().expect("digits");
    let whole = json!({
        "key": "a",
        "expires_at": "2100-01-01T00:00:00Z",
        "metadata": { "n": 1.0 },
        "size": 3,
        "version": version,
        "value": "Ada",
    });
    let row = |query: &str| list(&server, query)["keys"][0].clone();
    assert_eq!(row("include=metadata,expiration,size,version,value"), whole);
    for (include, members) in [
        ("metadata", &["metadata"][..]),
        ("expiration", &["expires_at"]),
        ("size", &["size"]),
        ("version", &["version"]),
        ("value", &["value"]),
        ("metadata,size", &["metadata", "size"]),
    ] {
        let row = row(&format!("include={include}"));
        let expected: Vec<(&str, &Value)> =
            ["key"].iter().chain(members).map(|name| (*name, &whole[name])).collect();
        let row = row.as_object().expect("an object");
        assert_eq!(row.len(), expected.len(), "{include}");
        assert!(expected.iter().all(|(name, value)| row.get(*name) == Some(value)), "{include}");
    }
}

#[test]
fn what_is_no_text_is_listed_in_base64() {
    let server = Server::new();
    stored(&server).put(b"\xff\x00", b"\x00\x01").expect("a put");
    let row = &list(&server, "include=value")["keys"][0];
    let expected = json!({
        "key_base64": STANDARD.encode(b"\xff\x00"),
        "value_base64": STANDARD.encode(b"\x00\x01"),
    });
    assert_eq!(row, &expected);
}

#[test]
fn a_page_with_values_stays_small_and_none_is_left_out() {
    let server = Server::new();
    let namespace = stored(&server);
    for at in 0..9 {
        namespace.put(format!("k{at}"), vec![b'x'; 1_500_000]).expect("a put");
    }
    namespace.put("k4", vec![b'y'; 6_000_000]).expect("a put");
    let pages = all_pages(&server, "include=value");
    let sizes: Vec<Vec<usize>> = pages
        .iter()
        .map(|page| {
            let rows = page["keys"].as_array().expect("a list").iter();
            rows.map(|row| row["value"].as_str().expect("a value").len()).collect()
        })
        .collect();
    let (small, large) = (1_500_000, 6_000_000);
    assert_eq!(sizes, [&[small; 2][..], &[small; 2], &[large], &[small; 2], &[small; 2]]);
}

#[test]
fn bad_lists_are_refused() {
    let server = filled(&["a", "b"]);
    let cursor = list(&server, "limit=1")["cursor"].as_str().expect("a cursor").to_owned();
    for (query, code) in [
        ("limit=0", "invalid_query"),
        ("limit=1001", "invalid_query"),
        ("include=everything", "invalid_query"),
        ("reverse=yes", "invalid_query"),
        ("key_count_limit=5", "invalid_query"),
        ("prefix=%FF", "invalid_query"),
        ("cursor=nonsense", "invalid_cursor"),
        (&format!("cursor={cursor}&reverse=true"), "invalid_cursor"),
        (&format!("prefix={}", "k".repeat(513)), "invalid_key"),
    ] {
        let refused = server.get(&format!("{LIST}?{query}"));
        assert_eq!(refused.status, 400, "{query}: {}", refused.text());
        assert_eq!(refused.json()["code"], code, "{query}");
    }
}

fn batch(server: &Server, operations: &Value) -> Answer {
    server.post(BATCH, &json!({ "operations": operations }).to_string())
}

#[test]
fn a_batch_puts_and_deletes_and_says_which_versions_there_are() {
    let server = filled(&["gone"]);
    let done = batch(
        &server,
        &json!([
            { "op": "put", "key": "a/1", "value": "Ada" },
            { "op": "delete", "key": "gone" },
            { "op": "put", "key": "b", "value_base64": "AAH/", "metadata": { "v": 1 }, "ttl": "1h" },
            { "op": "check", "key": "absent", "version": null },
            { "op": "put", "key": "b2", "value": "", "expires_at": "2100-01-01T00:00:00Z" },
        ]),
    );
    let done = done.ok().json();
    let namespace = stored(&server);
    let version = |key: &str| namespace.get(key).expect("a read").map(|value| value.version());
    let expected = json!([
        { "version": version("a/1") },
        { "version": null },
        { "version": version("b") },
        { "version": null },
        { "version": version("b2") },
    ]);
    assert_eq!(done, json!({ "operations": expected }));
    assert_eq!(version("gone"), None);
    let b = namespace.get("b").expect("a read").expect("a value");
    assert_eq!((&*b, b.metadata()), (&b"\x00\x01\xff"[..], Some(&b"{\"v\":1}"[..])));
    assert!(b.expires_at().is_some());
}

#[test]
fn a_condition_that_does_not_hold_is_named_and_nothing_is_written() {
    let server = filled(&["a", "b"]);
    let namespace = stored(&server);
    let version = namespace.get("b").expect("a read").expect("a value").version();
    for (condition, current) in [
        (json!({ "op": "check", "key": "b", "version": version + 1 }), Some(version)),
        (json!({ "op": "check", "key": "b", "version": null }), Some(version)),
        (json!({ "op": "check", "key": "none", "version": 1 }), None),
        (json!({ "op": "put", "key": "b", "value": "", "if_absent": true }), Some(version)),
        (json!({ "op": "put", "key": "b", "value": "", "if_version": 99 }), Some(version)),
        (json!({ "op": "delete", "key": "none", "if_version": 99 }), None),
    ] {
        let writes = json!([
            { "op": "put", "key": "a", "value": "changed" },
            { "op": "check", "key": "b", "version": version },
            condition,
            { "op": "delete", "key": "b" },
        ]);
        let refused = batch(&server, &writes);
        assert_eq!(refused.status, 412, "{}", refused.text());
        let problem = refused.json();
        assert_eq!(problem["code"], "version_mismatch");
        assert_eq!(problem["operation"], 2, "{problem}");
        assert_eq!(problem["key"], condition["key"]);
        assert_eq!(problem["version"], json!(current));
        assert_eq!(&*namespace.get("a").expect("a read").expect("a value"), b"value of a");
        assert!(namespace.get("b").expect("a read").is_some());
    }
    let held = json!([
        { "op": "check", "key": "b", "version": version },
        { "op": "put", "key": "a", "value": "changed", "if_version": version - 1 },
        { "op": "delete", "key": "b", "if_version": version },
    ]);
    batch(&server, &held).ok();
    assert_eq!(&*namespace.get("a").expect("a read").expect("a value"), b"changed");
    assert!(namespace.get("b").expect("a read").is_none());
}

#[test]
fn a_bad_operation_refuses_the_batch_and_is_named() {
    let server = Server::new();
    for (operation, status, code) in [
        (json!({ "op": "put", "key": "b" }), 400, "invalid_body"),
        (json!({ "op": "put", "key": "", "value": "" }), 400, "invalid_key"),
        (json!({ "op": "put", "key": "k".repeat(513), "value": "" }), 400, "invalid_key"),
        (json!({ "op": "put", "key": "b", "value": "", "ttl": 0 }), 400, "invalid_expiry"),
        (json!({ "op": "delete", "key": "" }), 400, "invalid_key"),
        (json!({ "op": "check", "key": "", "version": null }), 400, "invalid_key"),
        (
            json!({ "op": "put", "key": "b", "value": "", "metadata": "x".repeat(1100) }),
            413,
            "metadata_too_large",
        ),
    ] {
        let refused = batch(&server, &json!([{ "op": "put", "key": "a", "value": "" }, operation]));
        assert_eq!(refused.status, status, "{}", refused.text());
        let problem = refused.json();
        assert_eq!(problem["code"], code, "{problem}");
        assert_eq!(problem["operation"], 1, "{problem}");
        assert!(stored(&server).get("a").expect("a read").is_none());
    }
    let large = json!([{ "op": "put", "key": "a", "value": "x".repeat(5 << 20) }]);
    let refused = batch(&server, &large);
    assert_eq!((refused.status, &refused.json()["code"]), (413, &json!("body_too_large")));
}

#[test]
fn what_no_url_can_name_cannot_be_put_by_a_batch_either() {
    let server = Server::new();
    for key in [".", ".."] {
        let refused = batch(&server, &json!([{ "op": "put", "key": key, "value": "" }]));
        assert_eq!((refused.status, &refused.json()["code"]), (400, &json!("invalid_key")));
    }
}
