//! Promise: on the native surface a value is a resource as HTTP has them, and errors are problems
//! that a program can read.

use std::thread;

use crate::support::{Answer, Server};
use serde_json::{Value, json};

const KEYS: &str = "/v1/namespaces/default/keys";

fn key(name: &str) -> String {
    format!("{KEYS}/{name}")
}

/// An error in the form of this surface.
#[track_caller]
fn assert_problem(answer: &Answer, status: u16, code: &str) -> Value {
    assert_eq!(answer.status, status, "{}", answer.text());
    assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    let problem = answer.json();
    assert_eq!(problem["type"], "about:blank");
    assert_eq!(problem["status"], status);
    assert_eq!(problem["code"], code, "{problem}");
    assert!(problem["title"].is_string());
    assert!(problem["detail"].as_str().is_some_and(|detail| detail.ends_with('.')), "{problem}");
    assert!(problem["request_id"].is_string());
    problem
}

#[track_caller]
fn etag(answer: &Answer) -> String {
    answer.header("etag").unwrap_or_else(|| panic!("no etag: {answer:?}")).to_owned()
}

fn put(server: &Server, name: &str, headers: &[&str], value: &str) -> Answer {
    server.send("PUT", &key(name), headers, value.as_bytes())
}

fn get(server: &Server, name: &str, headers: &[&str]) -> Answer {
    server.send("GET", &key(name), headers, b"")
}

#[test]
fn a_value_lives_from_put_to_delete() {
    let server = Server::new();
    assert_problem(&get(&server, "a", &[]), 404, "key_not_found");
    let created = put(&server, "a", &["Content-Type: text/plain"], "one");
    assert_eq!(created.status, 201);
    let read = get(&server, "a", &[]).ok();
    assert_eq!(read.text(), "one");
    assert_eq!(read.header("content-type"), Some("application/octet-stream"));
    assert_eq!(read.header("accept-ranges"), Some("bytes"));
    assert_eq!(read.header("cache-control"), Some("no-cache"));
    assert!(read.header("last-modified").is_some_and(|date| date.ends_with(" GMT")));
    assert_eq!(read.header("kvast-metadata"), None);
    assert_eq!(read.header("kvast-expires"), None);
    assert_eq!(etag(&read), etag(&created));

    let replaced = put(&server, "a", &[], "");
    assert_eq!(replaced.status, 204);
    assert_ne!(etag(&replaced), etag(&created));
    assert_eq!(get(&server, "a", &[]).ok().text(), "");

    assert_eq!(server.delete(&key("a")).status, 204);
    assert_problem(&get(&server, "a", &[]), 404, "key_not_found");
    assert_problem(&server.delete(&key("a")), 404, "key_not_found");
}

#[test]
fn head_tells_all_but_the_value() {
    let server = Server::new();
    put(&server, "a", &["Kvast-Metadata: [1]"], &"x".repeat(300_000));
    let (read, head) = (get(&server, "a", &[]), server.send("HEAD", &key("a"), &[], b""));
    assert_eq!(head.status, 200);
    assert!(head.body.is_empty());
    for header in ["content-length", "etag", "last-modified", "kvast-metadata", "content-type"] {
        assert_eq!(head.header(header), read.header(header), "{header}");
    }
    // A range is for GET alone.
    let head = server.send("HEAD", &key("a"), &["Range: bytes=0-1"], b"");
    assert_eq!((head.status, head.header("content-length")), (200, Some("300000")));
    let mut client = server.connect();
    assert_eq!(client.send("HEAD", &key("b"), &[], b"").status, 404);
    assert_eq!(client.send("GET", &key("a"), &[], b"").status, 200, "nothing was left over");
}

#[test]
fn metadata_comes_back_as_the_same_json_in_ascii() {
    let server = Server::new();
    for (sent, back) in [
        (r#"{ "v": 1.0, "v": 12345678901234567890 }"#, r#"{"v":1.0,"v":12345678901234567890}"#),
        ("\"é🔑\"", r#""\u00e9\ud83d\udd11""#),
        (r#""\u00e9""#, r#""\u00e9""#),
    ] {
        put(&server, "m", &[&format!("Kvast-Metadata: {sent}")], "");
        assert_eq!(get(&server, "m", &[]).ok().header("kvast-metadata"), Some(back));
    }
    put(&server, "m", &["Kvast-Metadata: null"], "");
    assert_eq!(get(&server, "m", &[]).ok().header("kvast-metadata"), None);

    let refused = put(&server, "m", &["Kvast-Metadata: {nope"], "");
    assert_problem(&refused, 400, "invalid_metadata");
    let twice = put(&server, "m", &["Kvast-Metadata: 1", "Kvast-Metadata: 2"], "");
    assert_problem(&twice, 400, "invalid_header");
    let long = format!("Kvast-Metadata: \"{}\"", "x".repeat(1100));
    assert_problem(&put(&server, "m", &[&long], ""), 413, "metadata_too_large");
}

#[test]
fn a_key_expires_as_its_ttl_or_its_moment_says() {
    let server = Server::new();
    for (query, shown) in [
        ("expires_at=2100-01-01T00:00:00Z", Some("2100-01-01T00:00:00Z")),
        ("expires_at=2100-01-01T01:00:00.5%2B01:00", Some("2100-01-01T00:00:00.5Z")),
        ("expires_at=4102444800", Some("2100-01-01T00:00:00Z")),
        ("expires_at=never", None),
        ("", None),
    ] {
        put(&server, &format!("e?{query}"), &[], "");
        assert_eq!(get(&server, "e", &[]).ok().header("kvast-expires"), shown, "{query}");
    }
    for ttl in ["1", "1s", "90m", "1500ms", "30d"] {
        let status = put(&server, &format!("t?ttl={ttl}"), &[], "").status;
        assert!(matches!(status, 201 | 204), "{ttl}");
        assert!(get(&server, "t", &[]).ok().header("kvast-expires").is_some());
    }
    for query in [
        "ttl=0",
        "ttl=999ms",
        "ttl=soon",
        "ttl=",
        "ttl=5&expires_at=4102444800",
        "expires_at=1",
        "expires_at=2020-01-01T00:00:00Z",
        "expires_at=tomorrow",
        "ttl=99999999999999",
    ] {
        let refused = put(&server, &format!("r?{query}"), &[], "");
        assert_problem(&refused, 400, "invalid_expiry");
    }
    assert_eq!(get(&server, "r", &[]).status, 404, "what was refused changed nothing");
}

#[test]
fn only_the_expiration_changes_by_patch() {
    let server = Server::new();
    let patch =
        |body: &str, headers: &[&str]| server.send("PATCH", &key("p"), headers, body.as_bytes());
    assert_problem(&patch(r#"{"ttl":30}"#, &[]), 404, "key_not_found");
    let first = put(&server, "p?ttl=1d", &["Kvast-Metadata: {\"a\":1}"], "value");
    let changed = patch(r#"{"expires_at":"2100-01-01T00:00:00Z"}"#, &[]);
    assert_eq!(changed.status, 204);
    let read = get(&server, "p", &[]).ok();
    assert_eq!(read.text(), "value");
    assert_eq!(read.header("kvast-metadata"), Some("{\"a\":1}"));
    assert_eq!(read.header("kvast-expires"), Some("2100-01-01T00:00:00Z"));
    assert_eq!(etag(&read), etag(&changed));
    assert_ne!(etag(&read), etag(&first));

    let stale = patch(r#"{"ttl":"1h"}"#, &[&format!("If-Match: {}", etag(&first))]);
    assert_problem(&stale, 412, "version_mismatch");
    assert_eq!(etag(&stale), etag(&changed));
    let never = patch(r#"{"expires_at":null}"#, &[&format!("If-Match: {}", etag(&changed))]);
    assert_eq!(never.status, 204);
    assert_eq!(get(&server, "p", &[]).ok().header("kvast-expires"), None);

    for body in ["", "[]", "{}", "{\"ttl\":30", r#"{"ttl":30,"value":"x"}"#] {
        assert_problem(&patch(body, &[]), 400, "invalid_body");
    }
    for body in [r#"{"ttl":0}"#, r#"{"ttl":1,"expires_at":null}"#, r#"{"ttl":null}"#] {
        assert_problem(&patch(body, &[]), 400, "invalid_expiry");
    }
    let huge = format!("{{\"ttl\":\"{}\"}}", " ".repeat(2 << 20));
    assert_problem(&patch(&huge, &[]), 413, "body_too_large");
}

#[test]
fn what_the_client_has_is_not_sent_again() {
    let server = Server::new();
    let tag = etag(&put(&server, "a", &["Kvast-Metadata: 1"], "one"));
    for condition in [
        format!("If-None-Match: {tag}"),
        format!("If-None-Match: \"x\", W/{tag}"),
        "If-None-Match: *".to_owned(),
        "If-Modified-Since: Fri, 31 Dec 2100 23:59:59 GMT".to_owned(),
    ] {
        for method in ["GET", "HEAD"] {
            let answer = server.send(method, &key("a"), &[&condition], b"");
            assert_eq!(answer.status, 304, "{condition}");
            assert_eq!(etag(&answer), tag);
            assert!(answer.body.is_empty());
        }
    }
    put(&server, "a", &[], "two");
    assert_eq!(get(&server, "a", &[&format!("If-None-Match: {tag}")]).ok().text(), "two");
    let failed = get(&server, "a", &[&format!("If-Match: {tag}")]);
    assert_problem(&failed, 412, "version_mismatch");
    assert_problem(&get(&server, "a", &["If-Match: 7"]), 400, "invalid_header");
    assert_eq!(get(&server, "b", &["If-None-Match: *"]).status, 404);
}

#[test]
fn a_range_is_sent_alone() {
    let server = Server::new();
    let value: Vec<u8> = (0..300_000u32).map(|at| (at % 251) as u8).collect();
    let tag = etag(&server.put(&key("r"), &value));
    for (range, part) in [
        ("bytes=0-0", 0..1),
        ("bytes=1000-1999", 1000..2000),
        ("bytes=65530-131080", 65_530..131_081),
        ("bytes=299999-", 299_999..300_000),
        ("bytes=-5", 299_995..300_000),
        ("bytes=0-999999", 0..300_000),
    ] {
        let answer = get(&server, "r", &[&format!("Range: {range}")]);
        assert_eq!(answer.status, 206, "{range}");
        let expected = format!("bytes {}-{}/300000", part.start, part.end - 1);
        assert_eq!(answer.header("content-range"), Some(expected.as_str()));
        assert_eq!(answer.body, value[part], "{range}");
        assert_eq!(etag(&answer), tag);
    }
    for range in ["bytes=0-1,5-6", "bytes=5-1", "items=0-1", "bytes=x"] {
        assert_eq!(get(&server, "r", &[&format!("Range: {range}")]).ok().body, value, "{range}");
    }
    let beyond = get(&server, "r", &["Range: bytes=300000-"]);
    assert_problem(&beyond, 416, "range_not_satisfiable");
    assert_eq!(beyond.header("content-range"), Some("bytes */300000"));

    let of = |tag: &str| get(&server, "r", &["Range: bytes=0-9", &format!("If-Range: {tag}")]);
    assert_eq!(of(&tag).status, 206);
    assert_eq!(of("\"0\"").status, 200);
    assert_eq!(of(&format!("W/{tag}")).status, 200);
    let fresh = get(&server, "r", &["Range: bytes=0-9", &format!("If-None-Match: {tag}")]);
    assert_eq!(fresh.status, 304);
}

#[test]
fn a_write_under_conditions_happens_over_what_they_name_and_nothing_else() {
    let server = Server::new();
    let absent = put(&server, "c", &["If-Match: *"], "x");
    assert_eq!(assert_problem(&absent, 412, "version_mismatch")["version"], Value::Null);
    assert_eq!(absent.header("etag"), None);
    assert_eq!(put(&server, "c", &["If-Match: \"7\""], "x").status, 412);
    let first = put(&server, "c", &["If-None-Match: *"], "one");
    assert_eq!(first.status, 201);

    let again = put(&server, "c", &["If-None-Match: *"], "x");
    let problem = assert_problem(&again, 412, "version_mismatch");
    assert_eq!(etag(&again), etag(&first));
    assert_eq!(format!("\"{}\"", problem["version"]), etag(&first));

    let second = put(&server, "c", &[&format!("If-Match: {}", etag(&first))], "two");
    assert_eq!(second.status, 204);
    assert_eq!(put(&server, "c", &[&format!("If-Match: {}", etag(&first))], "x").status, 412);
    let several = format!("If-Match: \"x\", {}, {}", etag(&first), etag(&second));
    let third = put(&server, "c", &[&several], "three");
    assert_eq!(third.status, 204);
    let unlike = format!("If-None-Match: {}", etag(&third));
    assert_eq!(put(&server, "c", &[&unlike], "x").status, 412);
    let past = "If-Unmodified-Since: Sat, 05 Sep 2020 12:26:40 GMT";
    assert_eq!(put(&server, "c", &[past], "x").status, 412);
    let future = "If-Unmodified-Since: Fri, 31 Dec 2100 23:59:59 GMT";
    let fourth = put(&server, "c", &[future], "four");
    assert_eq!(fourth.status, 204);
    assert_eq!(get(&server, "c", &[]).ok().text(), "four");

    let delete = |condition: &str| server.send("DELETE", &key("c"), &[condition], b"");
    assert_problem(&delete(&format!("If-Match: {}", etag(&first))), 412, "version_mismatch");
    assert_problem(&delete("If-None-Match: *"), 412, "version_mismatch");
    assert_problem(&delete("If-Match: four"), 400, "invalid_header");
    assert_eq!(delete(&format!("If-Match: {}", etag(&fourth))).status, 204);
    assert_problem(&delete("If-Match: *"), 404, "key_not_found");
}

#[test]
fn a_refused_write_is_refused_before_its_body_is_asked_for() {
    let server = Server::new();
    put(&server, "c", &[], "one");
    let mut client = server.connect();
    let head =
        crate::support::head("PUT", &key("c"), &["If-None-Match: *", "Expect: 100-continue"]);
    client.write(format!("{head}Content-Length: 1000000\r\n\r\n"));
    assert_problem(&client.read(), 412, "version_mismatch");
}

#[test]
fn of_many_writers_under_one_condition_one_succeeds() {
    let server = Server::new();
    let mut tag = etag(&put(&server, "n", &[], "0"));
    for round in 1..=10 {
        // Long enough to be streamed as well as short.
        let value = "x".repeat(if round % 2 == 0 { 1 } else { 300_000 });
        let answers: Vec<Answer> = thread::scope(|scope| {
            let write = || put(&server, "n", &[&format!("If-Match: {tag}")], &value);
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(write)).collect();
            threads.into_iter().map(|thread| thread.join().expect("an answer")).collect()
        });
        let won: Vec<&Answer> = answers.iter().filter(|answer| answer.status == 204).collect();
        assert_eq!(won.len(), 1, "round {round}");
        tag = etag(won[0]);
        for lost in answers.iter().filter(|answer| answer.status != 204) {
            assert_problem(lost, 412, "version_mismatch");
        }
    }
}

#[test]
fn any_key_that_a_url_can_name_is_a_key() {
    let server = Server::new();
    for (path, name) in [
        ("a%2Fb", "a/b"),
        ("%F0%9F%94%91", "🔑"),
        ("a+b", "a+b"),
        ("a%20%00%0A", "a \0\n"),
        ("100%25", "100%"),
        ("healthz", "healthz"),
    ] {
        assert_eq!(put(&server, path, &[], name).status, 201);
        assert_eq!(get(&server, path, &[]).ok().text(), name);
        let stored = server.handle.db().find_namespace("default").expect("a namespace");
        assert!(stored.get(name).expect("a read").is_some(), "{name:?}");
    }
    for path in ["%", "%zz", "%FF", ".", "%2E%2E", &"k".repeat(513)] {
        assert_problem(&put(&server, path, &[], ""), 400, "invalid_key");
        assert_problem(&get(&server, path, &[]), 400, "invalid_key");
    }
}

#[test]
fn what_nobody_reads_is_refused() {
    let server = Server::new();
    for target in ["a?tll=5", "a?ttl=5&ttl=6", "a?ttl=%zz", "a?expiration_ttl=60"] {
        assert_problem(&put(&server, target, &[], ""), 400, "invalid_query");
    }
    let refused = assert_problem(&get(&server, "a?cache_ttl=60", &[]), 400, "invalid_query");
    assert_eq!(refused["parameter"], "cache_ttl");
}

#[test]
fn values_have_a_longest() {
    let server = Server::new();
    let max = 26_214_400;
    let mut client = server.connect();
    let head = crate::support::head("PUT", &key("v"), &["Expect: 100-continue"]);
    client.write(format!("{head}Content-Length: {}\r\n\r\n", max + 1));
    assert_problem(&client.read(), 413, "value_too_large");
    let namespace = "/v1/namespaces/default";
    let settings = json!({ "settings": { "max_value_bytes": 10 } }).to_string();
    server.send("PATCH", namespace, &[], settings.as_bytes()).ok();
    assert_problem(&put(&server, "v", &[], "12345678901"), 413, "value_too_large");
    assert_eq!(put(&server, "v", &[], "1234567890").status, 201);
}

#[test]
fn unknown_paths_methods_and_namespaces_are_problems() {
    let server = Server::new();
    for target in ["/v1/", "/v1/x", "/v1/namespaces/default/values/a"] {
        assert_problem(&server.get(target), 404, "no_such_resource");
    }
    let wrong = server.send("POST", &key("a"), &[], b"");
    assert_problem(&wrong, 405, "wrong_method");
    assert_eq!(wrong.header("allow"), Some("GET, HEAD, PUT, PATCH, DELETE"));
    for target in ["/v1/namespaces/none", "/v1/namespaces/none/keys", "/v1/namespaces/%FF/keys/a"] {
        assert_problem(&server.get(target), 404, "namespace_not_found");
    }
}

#[test]
fn a_problem_names_the_request_as_the_client_did() {
    let server = Server::new();
    let answer = get(&server, "none", &["X-Request-Id: mine-1"]);
    assert_eq!(assert_problem(&answer, 404, "key_not_found")["request_id"], "mine-1");
}

#[test]
fn a_namespace_lives_from_create_to_delete() {
    let server = Server::new();
    let body = r#"{"name":"sessions/eu","settings":{"default_ttl":"30m","min_ttl":1}}"#;
    let created = server.post("/v1/namespaces", body);
    assert_eq!(created.status, 201, "{}", created.text());
    let shown = created.json();
    let id = shown["id"].as_str().expect("an id").to_owned();
    let one = format!("/v1/namespaces/{id}");
    assert_eq!(created.header("location"), Some(one.as_str()));
    let settings = json!({ "max_value_bytes": null, "default_ttl": 1800, "min_ttl": 1 });
    assert_eq!(shown, json!({ "id": id, "name": "sessions/eu", "settings": settings }));
    assert_eq!(server.get(&one).ok().json(), shown);
    assert_eq!(server.get("/v1/namespaces/sessions%2Feu").ok().json(), shown);

    // The default life of a key, and how to have none.
    let a_key = format!("{one}/keys/a");
    server.put(&a_key, b"v");
    assert!(server.get(&a_key).ok().header("kvast-expires").is_some());
    server.put(&format!("{a_key}?expires_at=never"), b"v");
    assert_eq!(server.get(&a_key).ok().header("kvast-expires"), None);

    let patch = |body: &str| server.send("PATCH", &one, &[], body.as_bytes());
    let changed = patch(r#"{"name":"visits","settings":{"default_ttl":null,"min_ttl":60}}"#);
    let settings = json!({ "max_value_bytes": null, "default_ttl": null, "min_ttl": 60 });
    let expected = json!({ "id": id, "name": "visits", "settings": settings });
    assert_eq!(changed.ok().json(), expected);
    assert_eq!(patch("{}").ok().json(), expected);
    assert_problem(&server.put(&format!("{a_key}?ttl=59"), b"v"), 400, "invalid_expiry");
    assert_eq!(server.put(&format!("{a_key}?ttl=61"), b"v").status, 204);

    assert_eq!(server.delete(&one).status, 204);
    assert_problem(&server.get(&one), 404, "namespace_not_found");
    assert_problem(&server.get(&a_key), 404, "namespace_not_found");
}

#[test]
fn bad_namespaces_are_refused_whole() {
    let server = Server::new();
    let post = |body: &str| server.post("/v1/namespaces", body);
    assert_eq!(post(r#"{"name":"taken"}"#).status, 201);
    assert_problem(&post(r#"{"name":"taken"}"#), 409, "namespace_exists");
    assert_problem(&post(r#"{"name":""}"#), 400, "invalid_name");
    for body in [
        "",
        "[]",
        "{}",
        r#"{"name":5}"#,
        r#"{"title":"x"}"#,
        r#"{"name":"x","settings":5}"#,
        r#"{"name":"x","settings":{"ttl":5}}"#,
        r#"{"name":"x","settings":{"default_ttl":0}}"#,
        r#"{"name":"x","settings":{"min_ttl":"soon"}}"#,
        r#"{"name":"x","settings":{"max_value_bytes":26214401}}"#,
        r#"{"name":"x","settings":{"max_value_bytes":-1}}"#,
    ] {
        assert_problem(&post(body), 400, "invalid_body");
    }
    assert_problem(&server.get("/v1/namespaces/x"), 404, "namespace_not_found");
    let patch = |body: &str| server.send("PATCH", "/v1/namespaces/taken", &[], body.as_bytes());
    assert_problem(&patch(r#"{"name":"default"}"#), 409, "namespace_exists");
    assert_problem(&patch(r#"{"name":"new","settings":{"min_ttl":-1}}"#), 400, "invalid_body");
    assert_eq!(server.get("/v1/namespaces/taken").ok().json()["name"], "taken");
}

#[test]
fn namespaces_are_listed_by_name_a_page_at_a_time() {
    let server = Server::new();
    for name in ["b", "a", "c"] {
        server.post("/v1/namespaces", &json!({ "name": name }).to_string());
    }
    let names = |page: &Value| -> Vec<String> {
        let all = page["namespaces"].as_array().expect("a list").iter();
        all.map(|one| one["name"].as_str().expect("a name").to_owned()).collect()
    };
    let all = server.get("/v1/namespaces").ok().json();
    assert_eq!(names(&all), ["a", "b", "c", "default"]);
    assert_eq!(all["complete"], true);
    let first = server.get("/v1/namespaces?limit=3").ok().json();
    assert_eq!(names(&first), ["a", "b", "c"]);
    assert_eq!(first["complete"], false);
    let cursor = first["cursor"].as_str().expect("a cursor");
    let second = server.get(&format!("/v1/namespaces?limit=3&cursor={cursor}")).ok().json();
    assert_eq!(names(&second), ["default"]);
    assert_eq!(second["complete"], true);
    for query in ["limit=0", "limit=1001", "limit=x", "cursor=%21", "page=1"] {
        let refused = server.get(&format!("/v1/namespaces?{query}"));
        assert_problem(&refused, 400, "invalid_query");
    }
}

#[test]
fn without_a_token_there_is_a_challenge() {
    let dir = tempfile::TempDir::new().expect("a directory");
    let tokens = dir.path().join("tokens");
    std::fs::write(&tokens, "secret\n").expect("a file");
    let server = Server::with(|config| config.token_file = Some(tokens));
    let missing = server.get("/v1/namespaces");
    assert_problem(&missing, 401, "unauthorized");
    assert_eq!(missing.header("www-authenticate"), Some("Bearer"));
    let wrong = server.send("GET", "/v1/namespaces", &["Authorization: Bearer x"], b"");
    assert_problem(&wrong, 401, "unauthorized");
    assert_eq!(wrong.header("www-authenticate"), Some("Bearer error=\"invalid_token\""));
    server.send("GET", "/v1/namespaces", &["Authorization: Bearer secret"], b"").ok();
    assert_problem(&server.get("/v1/nothing"), 401, "unauthorized");
}

#[test]
fn the_least_life_that_a_namespace_allows_is_enough_on_every_surface() {
    let server = Server::new();
    for least in [1, 60, 90] {
        let settings = json!({ "settings": { "min_ttl": least } }).to_string();
        server.send("PATCH", "/v1/namespaces/default", &[], settings.as_bytes()).ok();
        let rest = format!("{}/default", crate::support::ACCOUNT);
        server.put(&format!("/k?expiration_ttl={least}"), b"").ok();
        server.put(&format!("{rest}/values/k?expiration_ttl={least}"), b"").ok();
        let entry = json!([{ "key": "k", "value": "", "expiration_ttl": least }]).to_string();
        server.put(&format!("{rest}/bulk"), entry.as_bytes()).ok();
        let native = put(&server, &format!("k?ttl={least}"), &[], "");
        assert!(matches!(native.status, 201 | 204), "{}", native.text());
        let less = least - 1;
        assert_eq!(server.put(&format!("/k?expiration_ttl={less}"), b"").status, 400);
        assert_eq!(put(&server, &format!("k?ttl={less}"), &[], "").status, 400);
    }
}
