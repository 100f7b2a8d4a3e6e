//! What the binding surface promises: every request of a Workers runtime, with its exact errors.

use crate::support::{Server, encode, unix_now};

const LIMIT: usize = 25 * 1024 * 1024;

/// Method, target, headers, body.
type Sent<'h> = (&'static str, String, Vec<&'h str>, String);

fn text_of(status_line: &str, n: impl std::fmt::Display) -> String {
    status_line.replace("{n}", &n.to_string())
}

#[test]
fn every_refusal_has_its_exact_words_in_the_reason_and_in_the_body() {
    let server = Server::new();
    server.put("/mixed?urlencoded=true", b"not json").ok();
    server.put("/fine?urlencoded=true", b"{}").ok();
    let now = unix_now();
    let long = "k".repeat(513);
    let soon = now + 30;
    let meta = |len: usize| format!("CF-KV-Metadata: \"{}\"", "m".repeat(len - 2));
    let (meta_1025, nul) = (meta(1025), "CF-KV-Metadata: {nope");
    let keys = |count: usize| {
        let keys: Vec<String> = (0..count).map(|n| format!("\"k{n}\"")).collect();
        format!("[{}]", keys.join(","))
    };
    const NO_TTL: &str =
        "400 Invalid expiration_ttl of {n}. Please specify integer greater than 0.";
    const SHORT_TTL: &str =
        "400 Invalid expiration_ttl of {n}. Expiration TTL must be at least 60.";
    const PAST: &str = "400 Invalid expiration of {n}. Please specify integer greater than the \
                        current number of seconds since the UNIX epoch.";
    const SOON: &str = "400 Invalid expiration of {n}. Expiration times must be at least 60 seconds in the future.";
    const CACHE: &str = "400 Invalid cache_ttl of {n}. Cache TTL must be at least 30.";
    const LOW: &str =
        "400 Invalid key_count_limit of {n}. Please specify an integer greater than 0.";
    const HIGH: &str =
        "400 Invalid key_count_limit of {n}. Please specify an integer less than 1000.";
    const LENGTH: &str = "414 UTF-8 encoded length of {n} exceeds key length limit of 512.";
    const EMPTY: &str = "400 Key names must not be empty";
    const UNDECODABLE: &str = "400 Could not URL-decode key name";
    let illegal = |k: &str| format!("400 Illegal key name \"{k}\". Please use a different name.");
    let wrong_type = |k: &str| format!("400 \"{k}\" is not a valid type. Use \"json\" or \"text\"");

    let get = |target: String| ("GET", target, vec![], String::new());
    let put = |query: String| ("PUT", format!("/k?urlencoded=true{query}"), vec![], "v".to_owned());
    let bulk = |body: String| ("POST", "/bulk/get".to_owned(), vec![], body);
    let rows: Vec<(Sent<'_>, String)> = vec![
        (bulk(r#"{"keys":[""]}"#.into()), EMPTY.into()),
        (("PUT", "/".into(), vec![], "v".into()), EMPTY.into()),
        (get("/.?urlencoded=true".into()), illegal(".")),
        (get("/%2e%2E?urlencoded=true".into()), illegal("..")),
        (("DELETE", "/..".into(), vec![], String::new()), illegal("..")),
        (bulk(r#"{"keys":["ok","."]}"#.into()), illegal(".")),
        (get("/%zz?urlencoded=true".into()), UNDECODABLE.into()),
        (get("/%E2%82?urlencoded=TRUE".into()), UNDECODABLE.into()),
        (get("/%ED%A0%80?urlencoded=true".into()), UNDECODABLE.into()),
        (get("/trailing%?urlencoded=true".into()), UNDECODABLE.into()),
        (get(format!("/{long}?urlencoded=true")), text_of(LENGTH, 513)),
        (get(format!("/{}?urlencoded=true", "%C3%A9".repeat(257))), text_of(LENGTH, 514)),
        (get(format!("/?prefix={long}")), text_of(LENGTH, 513)),
        (bulk(format!(r#"{{"keys":["{long}"]}}"#)), text_of(LENGTH, 513)),
        (get("/k?urlencoded=true&cache_ttl=29".into()), text_of(CACHE, 29)),
        (get("/k?urlencoded=true&cache_ttl=soon".into()), text_of(CACHE, "soon")),
        (bulk(r#"{"keys":["k"],"cacheTtl":"29"}"#.into()), text_of(CACHE, 29)),
        (put("&expiration_ttl=0".into()), text_of(NO_TTL, 0)),
        (put("&expiration_ttl=-5".into()), text_of(NO_TTL, -5)),
        (put("&expiration_ttl=many".into()), text_of(NO_TTL, "many")),
        (put("&expiration_ttl=1".into()), text_of(SHORT_TTL, 1)),
        (put(format!("&expiration_ttl=59&expiration={}", now + 900)), text_of(SHORT_TTL, 59)),
        (put("&expiration=0".into()), text_of(PAST, 0)),
        (put(format!("&expiration={}", now - 1)), text_of(PAST, now - 1)),
        (put("&expiration=tomorrow".into()), text_of(PAST, "tomorrow")),
        (put(format!("&expiration={soon}")), text_of(SOON, soon)),
        (
            ("PUT", "/k?urlencoded=true".into(), vec![&meta_1025], "v".into()),
            "413 Metadata length of 1025 exceeds limit of 1024.".into(),
        ),
        (
            ("PUT", "/k?urlencoded=true".into(), vec![nul], "v".into()),
            "400 Metadata is not valid JSON.".into(),
        ),
        (get("/?key_count_limit=0".into()), text_of(LOW, 0)),
        (get("/?key_count_limit=-1".into()), text_of(LOW, -1)),
        (get("/?key_count_limit=all".into()), text_of(LOW, "all")),
        (get("/?key_count_limit=1001".into()), text_of(HIGH, 1001)),
        (
            bulk(format!(r#"{{"keys":{}}}"#, keys(101))),
            "400 You can request a maximum of 100 keys".into(),
        ),
        (bulk(r#"{"keys":[]}"#.into()), "400 You must request a minimum of 1 key".into()),
        (bulk(r#"{"keys":["fine"],"type":"stream"}"#.into()), wrong_type("stream")),
        (bulk(r#"{"keys":[],"type":"arrayBuffer"}"#.into()), wrong_type("arrayBuffer")),
        (
            bulk(r#"{"keys":["fine","mixed"],"type":"json"}"#.into()),
            "400 At least one of the requested keys corresponds to a non-json value".into(),
        ),
        (
            ("POST", "/bulk/delete".into(), vec![], format!(r#"{{"keys":{}}}"#, keys(101))),
            "400 You can delete maximum of 100 keys per request".into(),
        ),
        (("POST", "/bulk/delete".into(), vec![], r#"{"keys":["a",""]}"#.into()), EMPTY.into()),
    ];
    let mut client = server.connect();
    for ((method, target, headers, body), refusal) in rows {
        let answer = client.send(method, &target, &headers, body.as_bytes());
        assert_eq!(answer.refusal(), refusal, "{method} {target} {body}");
        assert_eq!(answer.text(), answer.reason, "{method} {target}");
    }
    assert_eq!(client.send("GET", "/k?urlencoded=true", &[], b"").status, 404, "nothing was put");
}

#[test]
fn what_has_no_prescribed_words_is_still_a_400() {
    let server = Server::new();
    for body in
        ["", "nope", "[]", "{}", r#"{"keys":"a"}"#, r#"{"keys":[1]}"#, r#"{"keys":["\ud800"]}"#]
    {
        assert_eq!(server.post("/bulk/get", body).status, 400, "{body}");
        assert_eq!(server.post("/bulk/delete", body).status, 400, "{body}");
    }
    for cursor in ["never-issued!", "AAAA", "%00", "0"] {
        assert_eq!(server.get(&format!("/?cursor={cursor}")).status, 400, "{cursor}");
    }
    for path in ["/a/b", "/a/", "//", "/bulk/put/x"] {
        assert_eq!(server.get(path).status, 400, "{path}");
    }
}

#[test]
fn an_unknown_method_is_405_and_never_a_missing_key() {
    let server = Server::new();
    for (method, target) in [
        ("HEAD", "/k"),
        ("POST", "/k"),
        ("PATCH", "/k"),
        ("BREW", "/k"),
        ("POST", "/"),
        ("HEAD", "/"),
        ("GET", "/bulk/get"),
        ("PUT", "/bulk/delete"),
    ] {
        let answer = server.send(method, target, &[], b"");
        assert_eq!(answer.status, 405, "{method} {target}");
        assert!(answer.header("allow").is_some(), "{method} {target}");
    }
}

#[test]
fn one_key_has_many_spellings() {
    let server = Server::new();
    let spellings =
        ["a%2Fb%20c%2Bd%3A%40%C3%A9", "a%2fb%20c+d:@%c3%a9", "%61%2Fb%20c%2Bd:%40%C3%A9"];
    for (n, written) in spellings.iter().enumerate() {
        server.put(&format!("/{written}?urlencoded=true"), n.to_string().as_bytes()).ok();
        for read in spellings {
            let answer = server.get(&format!("/{read}?urlencoded=true")).ok();
            assert_eq!(answer.text(), n.to_string(), "{written} as {read}");
        }
    }
    let listed = server.get("/").ok().json();
    assert_eq!(listed["keys"][0]["name"], "a/b c+d:@é");
    assert_eq!(listed["keys"].as_array().map(Vec::len), Some(1));
}

#[test]
fn without_urlencoded_the_segment_itself_is_the_key() {
    let server = Server::new();
    server.put("/a%2Fb", b"raw").ok();
    assert_eq!(server.get("/a%2Fb").ok().text(), "raw");
    assert_eq!(server.get("/a%2Fb?urlencoded=false").ok().text(), "raw");
    assert_eq!(server.get("/a%252Fb?urlencoded=true").ok().text(), "raw");
    assert_eq!(server.get("/a%2Fb?urlencoded=true").status, 404);
}

#[test]
fn keys_of_every_kind_come_back() {
    let server = Server::new();
    let longest = "k".repeat(512);
    let keys = [
        "/",
        "//",
        "bulk",
        "bulk/get",
        "client/v4",
        "client/v4/accounts/a",
        "?",
        "#",
        "%",
        "%2F",
        "...",
        "a/../b",
        "tab\t",
        "line\nline",
        "\0",
        "\u{7f}",
        "\u{feff}",
        "é",
        "e\u{301}",
        "🔑",
        "[x]|{y}\\^`\"<>",
        "__proto__",
        "0",
        " ",
        "+",
        longest.as_str(),
    ];
    let mut client = server.connect();
    for key in keys {
        let target = format!("/{}?urlencoded=true", encode(key));
        client.send("PUT", &target, &[], key.as_bytes()).ok();
        assert_eq!(client.send("GET", &target, &[], b"").ok().body, key.as_bytes(), "{key:?}");
    }
    let listed = client.send("GET", "/", &[], b"").ok().json();
    let mut expected = keys.map(str::to_owned);
    expected.sort();
    let listed: Vec<_> =
        listed["keys"].as_array().expect("keys").iter().map(|key| key["name"].clone()).collect();
    assert_eq!(listed, expected);
    for key in keys {
        let target = format!("/{}?urlencoded=true", encode(key));
        client.send("DELETE", &target, &[], b"").ok();
        assert_eq!(client.send("GET", &target, &[], b"").status, 404, "{key:?}");
        client.send("DELETE", &target, &[], b"").ok();
    }
}

#[test]
fn characters_that_strict_parsers_refuse_pass_raw_in_a_path() {
    let server = Server::new();
    let raw = "A-._~!$&'()*+,;=:@[]|z";
    server.put(&format!("/{raw}?urlencoded=true"), b"v").ok();
    assert_eq!(server.get(&format!("/{}?urlencoded=true", encode(raw))).ok().text(), "v");
}

#[test]
fn metadata_is_raw_utf8_both_ways_and_every_letter_of_it_survives() {
    let server = Server::new();
    for (sent, shown) in [
        (r#"{"name":"é🤓","n":123456789012345678901234567890.10}"#, None),
        (r#"{"b":1,"a":2,"b":3}"#, None),
        (r#""plain""#, None),
        ("0", None),
        ("\"\"", None),
        (r#"{ "a" : [ 1 ,	2 ] }"#, Some(r#"{"a":[1,2]}"#)),
        (r#""\ud800 \u0000""#, None),
    ] {
        let header = format!("CF-KV-Metadata: {sent}");
        server.send("PUT", "/m", &[&header], b"v").ok();
        let shown = shown.unwrap_or(sent);
        assert_eq!(server.get("/m").ok().header("cf-kv-metadata"), Some(shown));
        let bulk = server.post("/bulk/get", r#"{"keys":["m"],"withMetadata":true}"#).ok();
        let expected = format!(r#"{{"m":{{"value":"v","metadata":{shown}}}}}"#);
        assert_eq!(bulk.text(), expected);
        let listed = server.get("/").ok().json();
        assert_eq!(listed["keys"][0]["metadata"], shown, "a string that contains JSON");
    }
    server.send("PUT", "/m", &["CF-KV-Metadata: null"], b"v").ok();
    assert_eq!(server.get("/m").ok().header("cf-kv-metadata"), None);
    assert_eq!(server.get("/").ok().text(), r#"{"keys":[{"name":"m"}],"list_complete":true}"#);
}

#[test]
fn metadata_is_measured_in_compact_form() {
    let server = Server::new();
    let exact = format!("CF-KV-Metadata: [ \"{}\" ]", "m".repeat(1020));
    server.send("PUT", "/m", &[&exact], b"v").ok();
    let wide = format!("CF-KV-Metadata: \"{}\"", "é".repeat(512));
    assert!(server.send("PUT", "/m", &[&wide], b"v").reason.contains("length of 1026"));
}

#[test]
fn metadata_that_another_program_wrote_never_breaks_an_answer() {
    let server = Server::new();
    let namespace = server.handle.db().find_namespace("default").expect("it is there");
    for (stored, shown) in [
        (&b"not json"[..], None),
        (b"\xff\xfe", None),
        (b"{\n \"a\": 1\n}", Some("{\"a\":1}")),
        (b"\"\x7f\"", Some("\"\\u007f\"")),
    ] {
        let options = kvast::PutOptions::new().metadata(stored);
        namespace.put_with("m", b"v", options).expect("it is stored");
        assert_eq!(server.get("/m").ok().header("cf-kv-metadata"), shown);
        server.get("/").ok().json();
        server.post("/bulk/get", r#"{"keys":["m"],"withMetadata":true}"#).ok().json();
    }
}

#[test]
fn a_put_replaces_value_metadata_and_expiration() {
    let server = Server::new();
    let at = unix_now() + 3600;
    let target = format!("/k?urlencoded=true&expiration={at}");
    server.send("PUT", &target, &["CF-KV-Metadata: 1"], b"one").ok();
    let first = server.get("/k").ok();
    assert_eq!(first.header("cf-expiration"), Some(at.to_string().as_str()));
    assert_eq!(first.header("cf-kv-metadata"), Some("1"));
    assert_eq!(server.get("/").ok().json()["keys"][0]["expiration"], at);

    server.put("/k", b"").ok();
    let second = server.get("/k").ok();
    assert_eq!((second.text(), second.header("content-length")), ("", Some("0")));
    assert_eq!(second.header("cf-expiration"), None);
    assert_eq!(second.header("cf-kv-metadata"), None);
}

#[test]
fn a_lifetime_counts_from_now_and_wins() {
    let server = Server::new();
    let before = unix_now();
    server.put("/k?expiration_ttl=60&expiration=nonsense", b"v").ok();
    let expiration: u64 = server
        .get("/k")
        .ok()
        .header("cf-expiration")
        .expect("it expires")
        .parse()
        .expect("a number");
    assert!((before + 60..=unix_now() + 60).contains(&expiration));
}

#[test]
fn values_of_every_length_come_back_whole() {
    let server = Server::new();
    let mut client = server.connect();
    for len in [0, 1, 2, 3, 65_535, 65_536, 65_537, 300_000, LIMIT - 1, LIMIT] {
        let value: Vec<u8> = (0..len).map(|at| (at % 251) as u8).collect();
        client.send("PUT", "/v", &[], &value).ok();
        let answer = client.send("GET", "/v", &[], b"").ok();
        assert!(answer.body == value, "{len} bytes");
    }
}

#[test]
fn pages_cover_every_key_once_and_end_exactly() {
    let server = Server::new();
    let mut client = server.connect();
    let keys: Vec<String> = (0..25).map(|n| format!("p/{n:02}")).collect();
    for key in &keys {
        client.send("PUT", &format!("/{}?urlencoded=true", encode(key)), &[], b"v").ok();
    }
    for key in ["o", "q"] {
        client.send("PUT", &format!("/{key}"), &[], b"v").ok();
    }
    for limit in [1, 7, 24, 25, 26, 1000] {
        let (mut found, mut cursor) = (Vec::new(), String::new());
        loop {
            let target = format!("/?key_count_limit={limit}&prefix=p%2F&cursor={cursor}");
            let page = client.send("GET", &target, &[], b"").ok().json();
            let names = page["keys"].as_array().expect("keys").iter();
            let before = found.len();
            found.extend(names.map(|key| key["name"].as_str().expect("a name").to_owned()));
            assert!(found.len() > before && found.len() - before <= limit);
            match page["list_complete"].as_bool() {
                Some(true) => break assert!(page.get("cursor").is_none()),
                _ => cursor = page["cursor"].as_str().expect("a cursor").to_owned(),
            }
        }
        assert_eq!(found, keys, "limit {limit}");
    }
}

#[test]
fn list_parameters_are_form_encoded_and_empty_means_absent() {
    let server = Server::new();
    for key in ["a b", "a+b", "c"] {
        server.put(&format!("/{}?urlencoded=true", encode(key)), b"v").ok();
    }
    let names = |target: &str| {
        let json = server.get(target).ok().json();
        let keys = json["keys"].as_array().expect("keys").clone();
        keys.iter().map(|key| key["name"].as_str().expect("name").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names("/?prefix=a+"), ["a b"]);
    assert_eq!(names("/?prefix=a%2B"), ["a+b"]);
    assert_eq!(names("/?prefix=&cursor="), ["a b", "a+b", "c"]);
    assert_eq!(server.get("/?prefix=zzz").ok().text(), r#"{"keys":[],"list_complete":true}"#);
}

#[test]
fn a_cursor_of_another_prefix_is_refused() {
    let server = Server::new();
    for key in ["a1", "a2", "b1"] {
        server.put(&format!("/{key}"), b"v").ok();
    }
    let page = server.get("/?prefix=a&key_count_limit=1").ok().json();
    let cursor = page["cursor"].as_str().expect("a cursor");
    assert_eq!(server.get(&format!("/?prefix=b&cursor={cursor}")).status, 400);
    server.get(&format!("/?prefix=a&cursor={cursor}")).ok();
}

#[test]
fn bulk_get_embeds_texts_and_json_as_they_are() {
    let server = Server::new();
    let number = "123456789012345678901234567890.10";
    server.put("/n", number.as_bytes()).ok();
    server.put("/o", b"{ \"b\": 1,\n \"a\": 2 }").ok();
    server.put("/bad", b"a\xffb").ok();
    server.put("/empty", b"").ok();
    let bulk = |json: &str| server.post("/bulk/get", json).ok().text().to_owned();
    assert_eq!(
        bulk(r#"{"keys":["n","o","missing","n"],"type":"json","cacheTtl":"60"}"#),
        format!("{{\"n\":{number},\"o\":{{ \"b\": 1,\n \"a\": 2 }},\"missing\":null}}")
    );
    assert_eq!(
        bulk(r#"{"keys":["bad","empty","missing"],"withMetadata":true,"type":"text"}"#),
        "{\"bad\":{\"value\":\"a\u{fffd}b\",\"metadata\":null},\
          \"empty\":{\"value\":\"\",\"metadata\":null},\"missing\":null}"
    );
    assert_eq!(server.post("/bulk/get", r#"{"keys":["empty"],"type":"json"}"#).status, 400);
}

#[test]
fn bulk_get_ends_at_25_mib_of_distinct_values() {
    let server = Server::new();
    server.put("/a", &vec![b'a'; LIMIT - 1]).ok();
    server.put("/b", b"b").ok();
    server.put("/c", b"c").ok();
    let whole = server.post("/bulk/get", r#"{"keys":["a","b","a"]}"#).ok();
    assert_eq!(whole.body.len(), LIMIT - 1 + r#"{"a":"","b":"b"}"#.len());
    let refused = server.post("/bulk/get", r#"{"keys":["a","b","c"]}"#);
    assert_eq!(refused.refusal(), "413 Total size of request exceeds the limit of 25MB");
}

#[test]
fn bulk_delete_removes_what_is_there() {
    let server = Server::new();
    for key in ["a", "b", "c"] {
        server.put(&format!("/{key}"), b"v").ok();
    }
    server.post("/bulk/delete", r#"{"keys":["a","b","missing","a"]}"#).ok();
    server.post("/bulk/delete", r#"{"keys":[]}"#).ok();
    assert_eq!(server.get("/").ok().text(), r#"{"keys":[{"name":"c"}],"list_complete":true}"#);
}

#[test]
fn a_namespace_is_named_by_id_or_by_title_and_an_unknown_one_is_400() {
    let server = Server::new();
    let id = server.handle.db().create_namespace("überlauf").expect("it is made").id().to_string();
    for name in [id.as_str(), "überlauf"] {
        let header = format!("X-KV-Namespace: {name}");
        server.send("PUT", "/k", &[&header], name.as_bytes()).ok();
        assert_eq!(server.send("GET", "/k", &[&header], b"").ok().text(), name);
    }
    assert_eq!(server.get("/k").status, 404, "default has no such key");
    server.send("GET", "/", &["X-KV-Namespace: default"], b"").ok();
    let unknown = ["nobody", "", "00000000000000000000000000000000"];
    for name in unknown {
        let header = format!("X-KV-Namespace: {name}");
        for (method, target) in
            [("GET", "/k"), ("GET", "/"), ("PUT", "/k"), ("DELETE", "/k"), ("POST", "/bulk/get")]
        {
            let answer = server.send(method, target, &[&header], b"");
            assert_eq!(answer.status, 400, "{method} {target} {name}");
        }
    }
}
