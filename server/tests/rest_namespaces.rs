//! What the REST surface promises about namespaces, and about everything it does not serve.

use crate::support::{ACCOUNT, Server, assert_api_error};
use serde_json::{Value, json};

fn create(server: &Server, title: &str) -> String {
    let made = server.post(ACCOUNT, &json!({ "title": title }).to_string()).ok().json();
    made["result"]["id"].as_str().expect("an id").to_owned()
}

#[test]
fn a_namespace_lives_from_create_to_delete() {
    let server = Server::new();
    let body = r#"{"title":"sessions","jurisdiction":"eu"}"#;
    let made = server.post(ACCOUNT, body).ok().json();
    let id = made["result"]["id"].as_str().expect("an id").to_owned();
    assert_eq!(id.len(), 32);
    assert!(id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')));
    let shown = json!({ "id": id, "title": "sessions", "supports_url_encoding": true });
    assert_eq!(made, json!({ "success": true, "errors": [], "messages": [], "result": shown }));
    let one = format!("{ACCOUNT}/{id}");
    assert_eq!(server.get(&one).ok().json()["result"], shown);

    server.send("PUT", "/k", &["X-KV-Namespace: sessions"], b"v").ok();
    let renamed = server.put(&one, br#"{"title":"visits"}"#).ok().json();
    assert_eq!(renamed["result"]["title"], "visits");
    server.put(&one, br#"{"title":"visits"}"#).ok();
    assert_eq!(server.send("GET", "/k", &["X-KV-Namespace: visits"], b"").ok().text(), "v");
    assert_eq!(server.send("GET", "/k", &["X-KV-Namespace: sessions"], b"").status, 400);

    let deleted = server.delete(&one).ok().json();
    assert_eq!(deleted["result"], Value::Null);
    assert_eq!(deleted["success"], true);
    for (method, body) in [("GET", ""), ("PUT", r#"{"title":"x"}"#), ("DELETE", "")] {
        assert_api_error(&server.send(method, &one, &[], body.as_bytes()), 404, 10013);
    }
    assert_ne!(create(&server, "visits"), id, "the title is free, the id is not");
    assert_eq!(server.send("GET", "/k", &["X-KV-Namespace: visits"], b"").status, 404);
}

#[test]
fn bad_requests_have_their_codes() {
    let server = Server::new();
    let id = create(&server, "taken");
    let other = format!("{ACCOUNT}/{}", create(&server, "other"));
    let long = json!({ "title": "t".repeat(513) }).to_string();
    for (body, code) in [
        (r#"{"title":"taken"}"#, 10014),
        ("{}", 10019),
        (r#"{"title":""}"#, 10019),
        (r#"{"title":5}"#, 10019),
        (long.as_str(), 10019),
        ("", 10029),
        ("nope", 10029),
        ("[]", 10029),
    ] {
        assert_api_error(&server.post(ACCOUNT, body), 400, code);
        assert_api_error(&server.put(&other, body.as_bytes()), 400, code);
    }
    for unknown in ["nonsense", "ffffffffffffffffffffffffffffffff", &id.to_uppercase()] {
        if unknown != id {
            assert_api_error(&server.get(&format!("{ACCOUNT}/{unknown}")), 404, 10013);
        }
    }
    for (query, code) in [
        ("page=0", 10007),
        ("page=x", 10007),
        ("per_page=0", 10008),
        ("per_page=1001", 10008),
        ("order=size", 10029),
        ("direction=up", 10029),
    ] {
        assert_api_error(&server.get(&format!("{ACCOUNT}?{query}")), 400, code);
    }
    let huge = format!(r#"{{"title":"{}"}}"#, "x".repeat(2 << 20));
    assert_api_error(&server.post(ACCOUNT, &huge), 413, 10024);
}

#[test]
fn lists_are_paged_and_ordered() {
    let server = Server::new();
    for title in ["b", "c", "a"] {
        create(&server, title);
    }
    let list = |query: &str| server.get(&format!("{ACCOUNT}?{query}")).ok().json();
    let titles = |json: &Value| -> Vec<String> {
        let all = json["result"].as_array().expect("a list").iter();
        all.map(|one| one["title"].as_str().expect("a title").to_owned()).collect()
    };
    let all = list("");
    assert_eq!(titles(&all), ["a", "b", "c", "default"]);
    let info = json!({ "page": 1, "per_page": 20, "count": 4, "total_count": 4 });
    assert_eq!(all["result_info"], info);
    assert_eq!(titles(&list("direction=desc&per_page=3")), ["default", "c", "b"]);
    let second = list("page=2&per_page=3");
    assert_eq!(titles(&second), ["default"]);
    assert_eq!(second["result_info"]["count"], 1);
    assert_eq!(list("page=99&per_page=1000")["result"], json!([]));
    assert_eq!(list("page=18446744073709551615")["result"], json!([]));

    let ids = |json: &Value| -> Vec<String> {
        let all = json["result"].as_array().expect("a list").iter();
        all.map(|one| one["id"].as_str().expect("an id").to_owned()).collect()
    };
    let up = ids(&list("order=id"));
    assert!(up.is_sorted());
    let mut down = ids(&list("order=id&direction=desc"));
    down.reverse();
    assert_eq!(up, down);
}

#[test]
fn what_is_not_served_says_so_in_the_envelope() {
    let server = Server::new();
    for target in ["/client/v4", "/client/v4/user", "/client/v4/accounts/a/d1"] {
        assert_api_error(&server.get(target), 404, 7003);
    }
    let patched = server.send("PATCH", ACCOUNT, &[], b"");
    assert_api_error(&patched, 405, 7001);
    assert_eq!(patched.header("allow"), Some("GET, POST"));
}

#[test]
fn the_default_namespace_may_go_and_is_there_again_when_it_is_asked_for() {
    let server = Server::new();
    let id = server.handle.db().find_namespace("default").expect("it is there").id();
    server.put("/k", b"v").ok();
    server.delete(&format!("{ACCOUNT}/{id}")).ok();
    assert_eq!(server.get("/k").status, 404, "an empty one is made for who names none");
    server.put("/k", b"w").ok();
    let again = server.handle.db().find_namespace("default").expect("it is there again");
    assert_ne!(again.id(), id);
}
