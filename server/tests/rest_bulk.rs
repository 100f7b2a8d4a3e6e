//! What the REST surface promises about many keys in one request.

use crate::support::{
    ACCOUNT, Server, assert_api_error, default_namespace, message, request, unix_now,
};
use serde_json::{Value, json};

fn written(count: usize) -> Value {
    json!({
        "success": true, "errors": [], "messages": [],
        "result": { "successful_key_count": count, "unsuccessful_keys": [] },
    })
}

fn put(server: &Server, base: &str, entries: &Value) -> crate::support::Answer {
    server.put(&format!("{base}/bulk"), entries.to_string().as_bytes())
}

#[test]
fn a_bulk_put_writes_entries_of_every_kind() {
    let server = Server::new();
    let base = default_namespace(&server);
    let at = unix_now() + 900;
    let long = "x".repeat(1 << 20);
    let entries = json!([
        { "key": "text", "value": "tëxt", "extra": [{}] },
        { "key": "bytes", "value": "AP+A", "base64": true },
        { "key": "meta", "value": "", "metadata": { "b": 1, "a": [] }, "expiration_ttl": 600 },
        { "key": "dated", "value": "v", "metadata": null, "expiration": at, "base64": false },
        { "key": "twice", "value": "first" },
        { "key": "long", "value": long },
        { "key": "twice", "value": long },
        { "key": "twice", "value": "last" },
    ]);
    assert_eq!(put(&server, &base, &entries).ok().json(), written(8));
    let value = |key: &str| server.get(&format!("{base}/values/{key}")).ok();
    assert_eq!(value("text").text(), "tëxt");
    assert_eq!(value("bytes").body, [0, 255, 128]);
    assert_eq!(value("meta").text(), "");
    assert_eq!(value("dated").header("expiration"), Some(&*at.to_string()));
    assert_eq!(value("twice").text(), "last");
    assert_eq!(value("long").text(), long);
    let raw = br#"[{"key":"meta","value":"","metadata":{ "b" : 1, "a":[]}}]"#;
    server.put(&format!("{base}/bulk"), raw).ok();
    let metadata = server.get(&format!("{base}/metadata/meta")).ok();
    assert!(metadata.text().contains(r#""result":{"b":1,"a":[]}"#), "the order of members stays");
    assert_eq!(server.get(&format!("{base}/metadata/dated")).ok().json()["result"], Value::Null);
    assert_eq!(put(&server, &base, &json!([])).ok().json(), written(0));
}

#[test]
fn one_bad_entry_at_the_end_refuses_the_request_and_writes_nothing() {
    let server = Server::new();
    let base = default_namespace(&server);
    let good: Vec<Value> =
        (0..2000).map(|at| json!({ "key": format!("k{at}"), "value": "v" })).collect();
    for (bad, status, code, what) in [
        (json!({ "key": "", "value": "v" }), 400, 10041, "Key names must not be empty"),
        (
            json!({ "key": "k".repeat(513), "value": "v" }),
            414,
            10030,
            "UTF-8 encoded length of 513",
        ),
        (json!({ "value": "v" }), 400, 10029, "it has no key"),
        (json!({ "key": "k" }), 400, 10012, "it has no value"),
        (json!({ "key": "k", "value": 5 }), 400, 10029, "value must be a string"),
        (json!({ "key": "k", "value": "?", "base64": true }), 400, 10012, "value is not standard"),
        (
            json!({ "key": "k", "value": "v", "expiration_ttl": 59 }),
            400,
            10034,
            "Invalid expiration",
        ),
        (
            json!({ "key": "k", "value": "v", "expiration": 1 }),
            400,
            10033,
            "Invalid expiration of 1.",
        ),
        (
            json!({ "key": "k", "value": "v", "expiration": 9_999_999_999_999_999_u64 }),
            400,
            10033,
            "Invalid expiration of 9999999999999999.",
        ),
        (json!({ "key": "k", "value": "v", "metadata": "m".repeat(1023) }), 413, 10046, "Metadata"),
        (json!("k"), 400, 10029, "it must be an object"),
        (json!(null), 400, 10029, "it must be an object"),
    ] {
        let entries: Vec<&Value> = good.iter().chain([&bad]).collect();
        let refused = put(&server, &base, &json!(entries));
        assert_api_error(&refused, status, code);
        assert_eq!(refused.json()["result"], Value::Null);
        let said = message(&refused);
        assert!(said.starts_with(&format!("bulk put: 'entry 2001: {what}")), "{said}");
        let keys = server.get(&format!("{base}/keys")).ok().json();
        assert_eq!(keys["result"], json!([]), "{what}");
    }
}

#[test]
fn what_is_no_array_of_entries_is_refused() {
    let server = Server::new();
    let base = default_namespace(&server);
    for body in ["", "nope", "{}", "\"k\"", "[", "[{\"key\":\"k\",\"value\":\"v\"}", "[] []"] {
        for (method, path) in
            [("PUT", "bulk"), ("DELETE", "bulk"), ("POST", "bulk/delete"), ("POST", "bulk/get")]
        {
            let refused = server.send(method, &format!("{base}/{path}"), &[], body.as_bytes());
            assert_api_error(&refused, 400, 10029);
        }
    }
    let unknown = format!("{ACCOUNT}/{}/bulk", "f".repeat(32));
    assert_api_error(&server.put(&unknown, b"[]"), 404, 10013);
}

#[test]
fn ten_thousand_entries_are_the_most_of_one_request() {
    let server = Server::with(|config| config.durability = kvast::Durability::Os);
    let base = default_namespace(&server);
    let keys: Vec<String> = (0..10_001).map(|at| format!("k{at:05}")).collect();
    let entries: Vec<Value> = keys.iter().map(|key| json!({ "key": key, "value": "v" })).collect();
    assert_api_error(&put(&server, &base, &json!(entries)), 400, 10036);
    assert_eq!(server.get(&format!("{base}/keys")).ok().json()["result"], json!([]));
    assert_eq!(put(&server, &base, &json!(entries[1..])).ok().json(), written(10_000));
    let delete =
        |keys: &[String]| server.post(&format!("{base}/bulk/delete"), &json!(keys).to_string());
    assert_api_error(&delete(&keys), 400, 10036);
    assert_eq!(server.get(&format!("{base}/keys")).ok().json()["result_info"]["count"], 1000);
    assert_eq!(delete(&keys[1..]).ok().json(), written(10_000));
    assert_eq!(server.get(&format!("{base}/keys")).ok().json()["result"], json!([]));
}

#[test]
fn a_bulk_put_of_more_than_100_mb_is_refused_before_it_is_read() {
    let server = Server::new();
    let base = default_namespace(&server);
    let mut client = server.connect();
    let head = String::from_utf8(request("PUT", &format!("{base}/bulk"), &[], b"")).expect("UTF-8");
    client.write(head.replace("Content-Length: 0", "Content-Length: 104857601"));
    assert_api_error(&client.read(), 413, 10024);
}

#[test]
fn a_bulk_put_of_many_batches_is_written_whole_and_leaves_no_file() {
    let server = Server::with(|config| config.durability = kvast::Durability::Os);
    let base = default_namespace(&server);
    let value = "x".repeat(10_000);
    let entries: Vec<Value> =
        (0..2000).map(|at| json!({ "key": format!("k{at:04}"), "value": value })).collect();
    assert_eq!(put(&server, &base, &json!(entries)).ok().json(), written(2000));
    for at in [0, 999, 1999] {
        assert_eq!(server.get(&format!("{base}/values/k{at:04}")).ok().text(), value);
    }
    let names = std::fs::read_dir(server.dir.path().join("data")).expect("a directory");
    let names: Vec<String> =
        names.map(|entry| entry.expect("one").file_name().to_string_lossy().into_owned()).collect();
    assert!(names.iter().all(|name| !name.contains("tmp")), "{names:?}");
}

#[test]
fn a_bulk_get_shows_values_as_text_or_json_with_what_belongs_to_them() {
    let server = Server::new();
    let base = default_namespace(&server);
    let at = unix_now() + 900;
    let entries = json!([
        { "key": "json", "value": "{ \"j\": 1.0 }", "metadata": { "m": 1 }, "expiration": at },
        { "key": "text", "value": "t" },
        { "key": "empty", "value": "" },
        { "key": "bytes", "value": "/w==", "base64": true },
    ]);
    put(&server, &base, &entries).ok();
    let get = |request: Value| server.post(&format!("{base}/bulk/get"), &request.to_string());
    let keys = json!(["text", "none", "json", "text", "empty", "bytes"]);
    let plain = get(json!({ "keys": keys })).ok();
    assert_eq!(plain.header("content-type"), Some("application/json"));
    let values = json!({
        "text": "t", "none": null, "json": "{ \"j\": 1.0 }", "empty": "", "bytes": "\u{fffd}",
    });
    let expected = json!({
        "success": true, "errors": [], "messages": [], "result": { "values": values },
    });
    assert_eq!(plain.json(), expected);
    let typed = get(json!({ "keys": ["json"], "type": "json" })).ok();
    assert!(typed.text().contains(r#"{"json":{ "j": 1.0 }}"#), "{}", typed.text());
    let full = get(json!({ "keys": ["json", "text", "none"], "withMetadata": true })).ok().json();
    let expected = json!({
        "json": { "value": "{ \"j\": 1.0 }", "metadata": { "m": 1 }, "expiration": at },
        "text": { "value": "t", "metadata": null },
        "none": null,
    });
    assert_eq!(full["result"]["values"], expected);
}

#[test]
fn bad_bulk_gets_have_their_codes() {
    let server = Server::new();
    let base = default_namespace(&server);
    server.put(&format!("{base}/values/text"), b"nope").ok();
    let many: Vec<String> = (0..101).map(|at| format!("k{at}")).collect();
    for (request, status, code) in [
        (json!({ "keys": many }), 400, 10036),
        (json!({ "keys": vec!["same"; 101] }), 400, 10036),
        (json!({ "keys": [] }), 400, 10029),
        (json!({ "keys": "k" }), 400, 10029),
        (json!({ "keys": [5] }), 400, 10029),
        (json!({}), 400, 10029),
        (json!([]), 400, 10029),
        (json!({ "keys": ["k"], "type": "arrayBuffer" }), 400, 10029),
        (json!({ "keys": ["text"], "type": "json" }), 400, 10012),
        (json!({ "keys": ["k", ""] }), 400, 10041),
        (json!({ "keys": ["k".repeat(513)] }), 414, 10030),
    ] {
        let refused = server.post(&format!("{base}/bulk/get"), &request.to_string());
        assert_api_error(&refused, status, code);
    }
    for at in 0..3 {
        server.put(&format!("{base}/values/big{at}"), &vec![b'x'; 10 << 20]).ok();
    }
    let big = r#"{"keys":["big0","big1","big2"]}"#;
    assert_api_error(&server.post(&format!("{base}/bulk/get"), big), 413, 10024);
}

#[test]
fn both_paths_of_bulk_delete_count_every_key() {
    let server = Server::new();
    let base = default_namespace(&server);
    for (method, path) in [("DELETE", "bulk"), ("POST", "bulk/delete")] {
        server.put(&format!("{base}/values/a"), b"v").ok();
        server.put(&format!("{base}/values/b"), b"v").ok();
        let body = br#"["a","none","a"]"#;
        let deleted = server.send(method, &format!("{base}/{path}"), &[], body).ok();
        assert_eq!(deleted.json(), written(3));
        assert_api_error(&server.get(&format!("{base}/values/a")), 404, 10009);
        // One bad key refuses the request.
        for (body, status, code) in [
            (json!(["b", ""]), 400, 10041),
            (json!(["b", 5]), 400, 10029),
            (json!(["b", { "name": "c" }]), 400, 10029),
            (json!(["b", "k".repeat(513)]), 414, 10030),
        ] {
            let body = body.to_string();
            let refused = server.send(method, &format!("{base}/{path}"), &[], body.as_bytes());
            assert_api_error(&refused, status, code);
        }
        server.get(&format!("{base}/values/b")).ok();
    }
}

#[test]
fn a_value_that_its_namespace_does_not_take_refuses_the_whole_request() {
    let server = Server::new();
    let settings = "{\"name\":\"small\",\"settings\":{\"max_value_bytes\":2097152}}";
    assert_eq!(server.post("/v1/namespaces", settings).status, 201);
    let target = format!("{ACCOUNT}/small/bulk");
    let entry =
        |key: usize, len: usize| json!({ "key": key.to_string(), "value": "v".repeat(len) });
    let mut entries: Vec<Value> = (1..=5).map(|key| entry(key, 2 << 20)).collect();
    entries.push(entry(6, (2 << 20) + 1));
    let refused = server.put(&target, Value::from(entries).to_string().as_bytes());
    assert_api_error(&refused, 413, 10024);
    assert!(message(&refused).contains("entry 6: Value length of 2097153 exceeds"), "{refused:?}");
    let listed = server.get(&format!("{ACCOUNT}/small/keys")).ok().json();
    assert_eq!(listed["result"], json!([]), "nothing is written");
}
