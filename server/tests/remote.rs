//! What Miniflare's form of a binding request comes to.

use crate::support::{ACCOUNT, Server};
use serde_json::json;

#[test]
fn a_wrapped_request_is_the_binding_request_that_it_stands_for() {
    let server = Server::new();
    server.post(ACCOUNT, r#"{"title":"MY_KV"}"#).ok();
    let put = [
        "MF-URL: https://fake-host/a%20%C3%A9?urlencoded=true&expiration_ttl=600",
        "MF-Binding: MY_KV",
        "MF-Header-CF-KV-Metadata: {\"a\":\"é\"}",
        "MF-Header-Content-Length: 900",
        "MF-Header-Transfer-Encoding: chunked",
        "MF-Header-Host: elsewhere",
    ];
    server.send("PUT", "/", &put, b"v").ok();
    let get = ["MF-URL: https://fake-host/a%20%C3%A9?urlencoded=true", "MF-Binding: MY_KV"];
    let got = server.send("GET", "/some/path", &get, b"").ok();
    assert_eq!(got.text(), "v");
    assert!(got.header("cf-expiration").is_some());
    for url in ["https://fake-host", "https://fake-host/", "https://fake-host?prefix=a+"] {
        let header = format!("MF-URL: {url}");
        let page = server.send("GET", "/", &[&header, "MF-Binding: MY_KV"], b"").ok().json();
        assert_eq!(page["keys"][0]["name"], "a é", "{url}");
        assert_eq!(page["keys"][0]["metadata"], "{\"a\":\"é\"}");
    }
    let bulk = ["MF-URL: https://fake-host/bulk/get", "MF-Binding: MY_KV"];
    let values = server.send("POST", "/", &bulk, br#"{"keys":["a \u00e9"]}"#).ok().json();
    assert_eq!(values, json!({ "a é": "v" }));
    assert_eq!(server.send("DELETE", "/", &get, b"").ok().status, 200);
    assert_eq!(server.send("GET", "/", &get, b"").status, 404);
}

#[test]
fn the_namespace_is_named_by_the_query_or_a_header_or_the_binding() {
    let server = Server::new();
    for title in ["KV", "one", "two", "three"] {
        server.post(ACCOUNT, &json!({ "title": title }).to_string()).ok();
        let header = format!("X-KV-Namespace: {title}");
        server.send("PUT", "/k", &[&header], title.as_bytes()).ok();
    }
    let get = |target: &str, headers: &[&str]| {
        let all = [&["MF-URL: https://fake-host/k", "MF-Binding: KV"], headers].concat();
        server.send("GET", target, &all, b"").ok().text().to_owned()
    };
    assert_eq!(get("/", &[]), "KV");
    assert_eq!(get("/", &["X-KV-Namespace: one"]), "one");
    assert_eq!(get("/", &["X-KV-Namespace: one", "MF-Header-X-KV-Namespace: two"]), "two");
    assert_eq!(get("/?namespace=three", &["MF-Header-X-KV-Namespace: two"]), "three");
    let unknown = ["MF-URL: https://fake-host/k", "MF-Binding: NONE"];
    assert_eq!(server.send("GET", "/", &unknown, b"").status, 400);
}

#[test]
fn the_token_comes_in_the_query_or_in_its_header_and_never_from_the_request_that_was_meant() {
    let tokens = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(tokens.path(), "secret\n").expect("written");
    let server = Server::with(|config| config.token_file = Some(tokens.path().to_owned()));
    let get = |target: &str, headers: &[&str]| {
        let all = [&["MF-URL: https://fake-host/k", "MF-Binding: default"], headers].concat();
        server.send("GET", target, &all, b"").status
    };
    assert_eq!(get("/", &[]), 401);
    assert_eq!(get("/?token=wrong", &[]), 403);
    assert_eq!(get("/", &["MF-Header-Authorization: Bearer secret"]), 401);
    assert_eq!(get("/?token=secret", &[]), 404);
    assert_eq!(get("/", &["Authorization: Bearer secret"]), 404);
    assert_eq!(get("/?token=secret", &["Authorization: Bearer wrong"]), 403);
    // Only a wrapped request may bring its token so.
    assert_eq!(server.get("/k?token=secret").status, 401);
}

#[test]
fn what_cannot_be_unwrapped_is_refused() {
    let server = Server::new();
    for url in ["nonsense", "/k", ""] {
        let header = format!("MF-URL: {url}");
        let refused = server.send("GET", "/", &[&header, "MF-Binding: default"], b"");
        assert_eq!(refused.status, 400, "{url}");
        assert!(refused.reason.starts_with("MF-URL must be"), "{}", refused.reason);
    }
    let call = server.send("GET", "/?token=t&MF-Binding=KV", &["Upgrade: websocket"], b"");
    assert_eq!(call.status, 400);
}
