//! What the REST surface promises about the value and the metadata of one key.

use crate::support::{
    ACCOUNT, Server, assert_api_error, default_namespace, encode, form, message, unix_now,
};
use serde_json::{Value, json};

const FORM: &str = "Content-Type: multipart/form-data; boundary=b0";
const VALUE_BYTES_MAX: usize = 26_214_400;

fn nothing() -> Value {
    json!({ "success": true, "errors": [], "messages": [], "result": null })
}

#[test]
fn a_value_comes_back_as_it_was_put_whatever_type_it_was_said_to_have() {
    let server = Server::new();
    let base = default_namespace(&server);
    let bytes: Vec<u8> = (0..=255).collect();
    for content_type in [
        "application/json",
        "text/plain;charset=UTF-8",
        "application/x-www-form-urlencoded",
        "multipart/mixed; boundary=b0",
        "nonsense",
    ] {
        let header = format!("Content-Type: {content_type}");
        let target = format!("{base}/values/k");
        let put = server.send("PUT", &target, &[&header], &bytes).ok();
        assert_eq!(put.json(), nothing());
        let got = server.get(&target).ok();
        assert_eq!(got.body, bytes, "{content_type}");
        assert_eq!(got.header("content-type"), Some("application/octet-stream"));
        assert_eq!(got.header("expiration"), None);
    }
    server.put(&format!("{base}/values/k"), b"").ok();
    assert_eq!(server.get(&format!("{base}/values/k")).ok().body, b"");
}

#[test]
fn keys_are_always_decoded_however_they_are_encoded() {
    let server = Server::new();
    let base = default_namespace(&server);
    for key in ["a/b c%é:+?#", "@:,;=[]|", "\u{1}", "k%2F", "client/v4/x"] {
        server.put(&format!("{base}/values/{}", encode(key)), key.as_bytes()).ok();
        assert_eq!(server.get(&format!("{base}/values/{}", encode(key))).ok().text(), key);
    }
    assert_eq!(server.get(&format!("{base}/values/@:,;=[]|")).ok().text(), "@:,;=[]|");
    assert_eq!(server.get(&format!("{base}/values/a%2fb%20c%25%c3%a9:+%3F%23")).ok().status, 200);
}

#[test]
fn an_expiration_is_taken_from_the_query_and_shown_in_a_header() {
    let server = Server::new();
    let base = default_namespace(&server);
    let target = format!("{base}/values/k");
    let at = unix_now() + 900;
    server.put(&format!("{target}?expiration={at}"), b"v").ok();
    assert_eq!(server.get(&target).ok().header("expiration"), Some(&*at.to_string()));
    // A lifetime wins, and then the other is not even looked at.
    server.put(&format!("{target}?expiration=nonsense&expiration_ttl=600"), b"v").ok();
    let shown = server.get(&target).ok().header("expiration").expect("one").parse::<u64>();
    assert!(shown.expect("a number").abs_diff(unix_now() + 600) < 30);
    // A put replaces everything.
    server.put(&target, b"v").ok();
    assert_eq!(server.get(&target).ok().header("expiration"), None);
}

#[test]
fn times_that_make_no_sense_are_refused_and_change_nothing() {
    let server = Server::new();
    let base = default_namespace(&server);
    let target = format!("{base}/values/k");
    server.put(&target, b"before").ok();
    let soon = (unix_now() + 30).to_string();
    for at in ["0", "-5", "1", "nonsense", "", &soon, "9999999999999999", "99999999999999999999"] {
        let refused = server.put(&format!("{target}?expiration={at}"), b"v");
        assert_api_error(&refused, 400, 10033);
        assert!(message(&refused).starts_with(&format!("put: 'Invalid expiration of {at}.")));
    }
    for ttl in ["0", "-5", "59", "1.5", "nonsense", "", "9999999999999999"] {
        let refused = server.put(&format!("{target}?expiration_ttl={ttl}"), b"v");
        assert_api_error(&refused, 400, 10034);
        assert!(message(&refused).starts_with(&format!("put: 'Invalid expiration_ttl of {ttl}.")));
    }
    assert_eq!(server.get(&target).ok().text(), "before");
}

#[test]
fn a_form_may_have_its_parts_in_any_order_and_of_any_type() {
    let server = Server::new();
    let base = default_namespace(&server);
    let value = b"\x00\xff\r\n--b\r\n";
    let disposition =
        |name: &str, more: &str| format!("Content-Disposition: form-data; name=\"{name}\"{more}");
    let plain = disposition("value", "");
    let file = disposition("value", "; filename=\"v.bin\"\r\nContent-Type: application/json");
    let metadata = disposition("metadata", "");
    let typed = disposition("metadata", "; filename=\"m\"\r\nContent-Type: application/json");
    let other = disposition("metadata[a][b]", "");
    let json = b" { \"a\" : [1, \"\xc3\xa9\"] }\n";
    for (at, parts) in [
        vec![(&*plain, &value[..]), (&*metadata, json)],
        vec![(&*typed, json), (&*other, b"x"), (&*file, value)],
        vec![(&*other, b""), (&*metadata, json), (&*plain, value), (&*other, b"")],
    ]
    .iter()
    .enumerate()
    {
        let key = format!("k{at}");
        let body = form(parts);
        server.send("PUT", &format!("{base}/values/{key}"), &[FORM], &body).ok();
        assert_eq!(server.get(&format!("{base}/values/{key}")).ok().body, value);
        let shown = server.get(&format!("{base}/metadata/{key}")).ok();
        assert_eq!(shown.json()["result"], json!({ "a": [1, "é"] }));
        assert!(shown.text().contains(r#"{"a":[1,"é"]}"#), "compact: {}", shown.text());
    }
    let alone = form(&[(&plain, b"v")]);
    server.send("PUT", &format!("{base}/values/k0"), &[FORM], &alone).ok();
    assert_eq!(server.get(&format!("{base}/metadata/k0")).ok().json(), nothing());
}

#[test]
fn a_form_that_is_none_is_refused_and_changes_nothing() {
    let server = Server::new();
    let base = default_namespace(&server);
    let target = format!("{base}/values/k");
    server.put(&target, b"before").ok();
    let value = "Content-Disposition: form-data; name=\"value\"";
    let metadata = "Content-Disposition: form-data; name=\"metadata\"";
    let long = format!("\"{}\"", "m".repeat(1023));
    let longer = format!("\"{}\"", "m".repeat(100 << 10));
    let cut = &form(&[(value, b"v")])[..40];
    for (body, status, code) in [
        (form(&[(metadata, b"{}")]), 400, 10012),
        (form(&[]), 400, 10012),
        (b"v".to_vec(), 400, 10012),
        (Vec::new(), 400, 10012),
        (cut.to_vec(), 400, 10012),
        (form(&[(value, b"v"), (value, b"w")]), 400, 10012),
        (form(&[(value, b"v"), (metadata, b"nope")]), 400, 10046),
        (form(&[(value, b"v"), (metadata, b"")]), 400, 10046),
        (form(&[(value, b"v"), (metadata, long.as_bytes())]), 413, 10046),
        (form(&[(metadata, longer.as_bytes()), (value, b"v")]), 413, 10046),
    ] {
        let refused = server.send("PUT", &target, &[FORM], &body);
        assert_api_error(&refused, status, code);
    }
    let no_boundary = ["Content-Type: multipart/form-data"];
    assert_api_error(&server.send("PUT", &target, &no_boundary, b"v"), 400, 10012);
    assert_eq!(server.get(&target).ok().text(), "before");
}

#[test]
fn a_value_may_have_25_mib_raw_or_in_a_form_and_no_byte_more() {
    let server = Server::with(|config| config.durability = kvast::Durability::Os);
    let base = default_namespace(&server);
    let target = format!("{base}/values/k");
    let value = "Content-Disposition: form-data; name=\"value\"";
    let most: Vec<u8> = (0..VALUE_BYTES_MAX).map(|at| (at % 251) as u8).collect();
    let more = vec![0; VALUE_BYTES_MAX + 1];
    server.put(&target, &most).ok();
    assert!(server.get(&target).ok().body == most);
    assert_api_error(&server.put(&target, &more), 413, 10024);
    server.send("PUT", &target, &[FORM], &form(&[(value, &most)])).ok();
    assert!(server.get(&target).ok().body == most);
    assert_api_error(&server.send("PUT", &target, &[FORM], &form(&[(value, &more)])), 413, 10024);
    // Parts that nobody wants are ignored, but not without end.
    let other = "Content-Disposition: form-data; name=\"other\"";
    let padded = form(&[(other, &more), (other, &more), (value, b"v")]);
    assert_api_error(&server.send("PUT", &target, &[FORM], &padded), 413, 10024);
    assert!(server.get(&target).ok().body == most);
}

#[test]
fn a_missing_key_is_10009_and_deleting_one_succeeds() {
    let server = Server::new();
    let base = default_namespace(&server);
    let missing = server.get(&format!("{base}/values/none"));
    assert_api_error(&missing, 404, 10009);
    assert_eq!(message(&missing), "get: 'key not found'");
    assert_api_error(&server.get(&format!("{base}/metadata/none")), 404, 10009);
    let head = server.send("HEAD", &format!("{base}/values/none"), &[], b"");
    assert_eq!((head.status, head.body.len()), (404, 0));
    server.put(&format!("{base}/values/k"), b"v").ok();
    for _ in 0..2 {
        assert_eq!(server.delete(&format!("{base}/values/k")).ok().json(), nothing());
    }
    assert_api_error(&server.get(&format!("{base}/values/k")), 404, 10009);
}

#[test]
fn bad_keys_and_unknown_namespaces_have_their_codes() {
    let server = Server::new();
    let base = default_namespace(&server);
    let long = "k".repeat(513);
    for resource in ["values", "metadata"] {
        let methods: &[&str] =
            if resource == "values" { &["GET", "PUT", "DELETE"] } else { &["GET"] };
        for method in methods {
            for (key, status, code) in [
                (".", 400, 10041),
                ("..", 400, 10041),
                ("%2e%2E", 400, 10041),
                ("%", 400, 10041),
                ("%zz", 400, 10041),
                ("%FF", 400, 10041),
                ("%ED%A0%80", 400, 10041),
                (&*long, 414, 10030),
            ] {
                let refused = server.send(method, &format!("{base}/{resource}/{key}"), &[], b"");
                assert_api_error(&refused, status, code);
            }
            let unknown = format!("{ACCOUNT}/{}/{resource}/k", "f".repeat(32));
            assert_api_error(&server.send(method, &unknown, &[], b""), 404, 10013);
        }
    }
    assert_api_error(&server.send("POST", &format!("{base}/values/k"), &[], b""), 405, 7001);
    assert_api_error(&server.get(&format!("{base}/values/a/b")), 404, 7003);
}

#[test]
fn head_tells_all_that_get_does_without_the_bytes() {
    let server = Server::new();
    let base = default_namespace(&server);
    let target = format!("{base}/values/k?expiration_ttl=600");
    server.put(&target, &vec![7; 300_000]).ok();
    let got = server.get(&target).ok();
    let head = server.send("HEAD", &target, &["Range: bytes=0-0"], b"").ok();
    assert_eq!(head.body, b"");
    for name in
        ["content-length", "content-type", "expiration", "etag", "last-modified", "accept-ranges"]
    {
        assert!(got.header(name).is_some(), "{name}");
        assert_eq!(head.header(name), got.header(name), "{name}");
    }
    assert_eq!(got.header("content-length"), Some("300000"));
    // A range is for GET alone.
    let ranged = server.send("HEAD", &target, &["Range: bytes=0-9"], b"").ok();
    assert_eq!(ranged.header("content-length"), Some("300000"));
}

#[test]
fn a_read_is_conditional_for_who_asks() {
    let server = Server::new();
    let base = default_namespace(&server);
    let target = format!("{base}/values/k");
    let put = server.put(&target, b"one").ok();
    let etag = put.header("etag").expect("a tag").to_owned();
    assert_eq!(server.get(&target).ok().header("etag"), Some(&*etag));
    let get = |headers: &[&str]| server.send("GET", &target, headers, b"");
    let same = get(&[&format!("If-None-Match: {etag}")]);
    assert_eq!((same.status, same.body.len(), same.header("etag")), (304, 0, Some(&*etag)));
    get(&["If-None-Match: \"0\""]).ok();
    get(&[&format!("If-Match: {etag}")]).ok();
    assert_api_error(&get(&["If-Match: \"0\""]), 412, 10029);
    assert_api_error(&get(&["If-Match: nonsense"]), 400, 10029);
    server.put(&target, b"two").ok();
    assert_eq!(get(&[&format!("If-None-Match: {etag}")]).ok().text(), "two");
}

#[test]
fn a_write_is_conditional_for_who_asks() {
    let server = Server::new();
    let base = default_namespace(&server);
    let target = format!("{base}/values/k");
    let put = |header: &str, value: &str| server.send("PUT", &target, &[header], value.as_bytes());
    let made = put("If-None-Match: *", "one").ok();
    let etag = made.header("etag").expect("a tag").to_owned();
    assert_api_error(&put("If-None-Match: *", "lost"), 412, 10029);
    let next = put(&format!("If-Match: {etag}"), "two").ok();
    let next = next.header("etag").expect("a tag").to_owned();
    assert_api_error(&put(&format!("If-Match: {etag}"), "lost"), 412, 10029);
    assert_eq!(server.get(&target).ok().text(), "two");

    let delete = |header: &str| server.send("DELETE", &target, &[header], b"");
    assert_api_error(&delete(&format!("If-Match: {etag}")), 412, 10029);
    assert_api_error(&delete("If-None-Match: *"), 412, 10029);
    delete(&format!("If-Match: {next}")).ok();
    assert_api_error(&server.get(&target), 404, 10009);
    assert_api_error(&delete("If-Match: *"), 412, 10029);
    assert_api_error(&put("If-Match: *", "lost"), 412, 10029);
    delete("If-None-Match: *").ok();
}

#[test]
fn a_range_is_answered_with_just_those_bytes() {
    let server = Server::new();
    let base = default_namespace(&server);
    let target = format!("{base}/values/k");
    let value: Vec<u8> = (0..700_000).map(|at: u32| (at % 251) as u8).collect();
    server.put(&target, &value).ok();
    for (range, from, to) in [
        ("bytes=0-0", 0, 1),
        ("bytes=65535-131072", 65_535, 131_073),
        ("bytes=-5", 699_995, 700_000),
    ] {
        let part = server.send("GET", &target, &[&format!("Range: {range}")], b"");
        assert_eq!(part.status, 206, "{range}");
        assert!(part.body == value[from..to], "{range}");
        let content_range = format!("bytes {from}-{}/700000", to - 1);
        assert_eq!(part.header("content-range"), Some(&*content_range));
        assert_eq!(part.header("content-type"), Some("application/octet-stream"));
    }
    let none = server.send("GET", &target, &["Range: bytes=700000-"], b"");
    assert_api_error(&none, 416, 10029);
    assert_eq!(none.header("content-range"), Some("bytes */700000"));
    assert_eq!(server.send("GET", &target, &["Range: lines=1-2"], b"").ok().body.len(), 700_000);
}

#[test]
fn metadata_of_every_kind_comes_back_and_null_is_none() {
    let server = Server::new();
    let base = default_namespace(&server);
    for metadata in ["0", "false", "\"\"", "[]", "{}", "\"é\"", "[1e400,-0.0]"] {
        let header = format!("CF-KV-Metadata: {metadata}");
        server.send("PUT", "/k", &[&header], b"v").ok();
        let shown = server.get(&format!("{base}/metadata/k")).ok();
        assert!(shown.text().ends_with(&format!("\"result\":{metadata}}}")), "{}", shown.text());
    }
    server.send("PUT", "/k", &["CF-KV-Metadata: null"], b"v").ok();
    assert_eq!(server.get(&format!("{base}/metadata/k")).ok().json(), nothing());
}
