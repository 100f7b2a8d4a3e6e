//! Who is let in: anybody on loopback without a token file, and with one only holders of a token.

use std::fs;

use crate::support::{ACCOUNT, Server};
use kvast_server::{Config, StartError, start};

fn guarded() -> Server {
    let file = tempfile::NamedTempFile::new().expect("a file");
    fs::write(file.path(), "# tokens\n\ncorrect-horse\n  battery-staple\n").expect("it is written");
    Server::with(|config| config.token_file = Some(file.path().to_owned()))
}

#[test]
fn loopback_without_a_token_file_takes_any_token_and_none() {
    let server = Server::new();
    server.get("/").ok();
    server.send("GET", "/", &["Authorization: Bearer whatever"], b"").ok();
    server.send("GET", ACCOUNT, &["X-Auth-Key: whatever"], b"").ok();
}

#[test]
fn without_tokens_no_page_in_a_browser_reads_or_writes_anything() {
    let server = Server::new();
    server.put("/k", b"v").ok();
    let page = ["Origin: https://example.com", "Content-Type: text/plain"];
    for (method, target, body) in [
        ("GET", "/k", ""),
        ("POST", "/bulk/delete", "{\"keys\":[\"k\"]}"),
        ("POST", ACCOUNT, "{\"title\":\"theirs\"}"),
        ("POST", "/v1/namespaces", "{\"name\":\"theirs\"}"),
        ("GET", "/metrics", ""),
    ] {
        let refused = server.send(method, target, &page, body.as_bytes());
        assert_eq!(refused.status, 403, "{method} {target}");
        assert!(refused.text().contains("page in a browser"), "{method} {target}");
    }
    server.send("GET", "/healthz", &page, b"").ok();
    assert_eq!(server.get("/k").ok().body, b"v");
    let guarded = guarded();
    let held = [page[0], "Authorization: Bearer correct-horse"];
    guarded.send("PUT", "/k", &held, b"v").ok();
}

#[test]
fn with_a_token_file_every_request_needs_a_token_and_is_never_told_404() {
    let server = guarded();
    for (method, target) in [
        ("GET", "/missing"),
        ("GET", "/"),
        ("PUT", "/k"),
        ("DELETE", "/k"),
        ("POST", "/bulk/get"),
        ("GET", "/no/such/path"),
        ("HEAD", "/k"),
    ] {
        let missing = server.send(method, target, &[], b"");
        assert_eq!(missing.status, 401, "{method} {target}");
        let wrong = server.send(method, target, &["Authorization: Bearer correct-hors"], b"");
        assert_eq!(wrong.status, 403, "{method} {target}");
        let namespace = ["X-KV-Namespace: no such"];
        assert_eq!(server.send(method, target, &namespace, b"").status, 401, "{method} {target}");
    }
    for header in [
        "Authorization: Bearer correct-horse",
        "authorization: bearer battery-staple",
        "X-Auth-Key: correct-horse",
        "X-Auth-User-Service-Key: battery-staple",
    ] {
        server.send("PUT", "/k", &[header], b"v").ok();
        server.send("GET", ACCOUNT, &[header], b"").ok();
    }
}

#[test]
fn the_rest_surface_denies_in_its_envelope() {
    let server = guarded();
    for (headers, status) in [(&[][..], 401), (&["Authorization: Bearer no"][..], 403)] {
        for target in [ACCOUNT, "/client/v4/nonsense"] {
            let answer = server.send("GET", target, headers, b"");
            assert_eq!(answer.status, status);
            assert_eq!(answer.json()["success"], false);
            assert_eq!(answer.json()["errors"][0]["code"], 10000);
        }
    }
}

#[test]
fn an_address_that_others_can_reach_needs_a_token_file() {
    let dir = tempfile::tempdir().expect("a directory");
    let config = Config {
        listen: vec![kvast_server::ListenOn::Tcp("0.0.0.0:0".parse().expect("an address"))],
        ..crate::support::config(dir.path())
    };
    let Err(error) = start(config.clone()) else { panic!("it started") };
    assert!(matches!(error, StartError::Unprotected(_)));
    assert!(error.to_string().contains("--token-file"));
    assert!(!config.data.exists(), "nothing was touched");

    let tokens = dir.path().join("tokens");
    fs::write(&tokens, "secret").expect("it is written");
    drop(start(Config { token_file: Some(tokens), ..config }).expect("it starts"));
}

#[test]
fn a_token_file_without_a_token_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let tokens = dir.path().join("tokens");
    for text in ["", "\n  \n# none\n"] {
        fs::write(&tokens, text).expect("it is written");
        let config =
            Config { token_file: Some(tokens.clone()), ..crate::support::config(dir.path()) };
        assert!(matches!(start(config), Err(StartError::TokenFile { .. })));
    }
}

#[test]
fn every_route_of_the_rest_surface_wants_a_token() {
    let server = guarded();
    let id = server.handle.db().find_namespace("default").expect("it is there").id();
    for (method, path) in [
        ("GET", String::new()),
        ("POST", String::new()),
        ("GET", format!("/{id}")),
        ("PUT", format!("/{id}")),
        ("DELETE", format!("/{id}")),
        ("GET", format!("/{id}/keys")),
        ("GET", format!("/{id}/values/k")),
        ("HEAD", format!("/{id}/values/k")),
        ("PUT", format!("/{id}/values/k")),
        ("DELETE", format!("/{id}/values/k")),
        ("GET", format!("/{id}/metadata/k")),
        ("PUT", format!("/{id}/bulk")),
        ("DELETE", format!("/{id}/bulk")),
        ("POST", format!("/{id}/bulk/get")),
        ("POST", format!("/{id}/bulk/delete")),
    ] {
        let target = format!("{ACCOUNT}{path}");
        for (headers, status) in [(&[][..], 401), (&["Authorization: Bearer no"][..], 403)] {
            let answer = server.send(method, &target, headers, b"");
            assert_eq!(answer.status, status, "{method} {target}");
            if method != "HEAD" {
                assert_eq!(answer.json()["errors"][0]["code"], 10000, "{method} {target}");
            }
        }
    }
}
