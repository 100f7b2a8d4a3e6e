//! What the REST surface promises about lists of keys.

use crate::support::{ACCOUNT, Server, assert_api_error, default_namespace, encode, unix_now};
use serde_json::{Value, json};

fn names(page: &Value) -> Vec<&str> {
    let listed = page["result"].as_array().expect("a list").iter();
    listed.map(|key| key["name"].as_str().expect("a name")).collect()
}

#[test]
fn a_list_shows_names_with_expirations_and_metadata_as_json() {
    let server = Server::new();
    let base = default_namespace(&server);
    let expiration = unix_now() + 900;
    let entries = json!([
        { "key": "b", "value": "", "metadata": { "n": [1, "é"] }, "expiration": expiration },
        { "key": "a/ \"1\"", "value": "v" },
        { "key": "c", "value": "v", "metadata": "tag" },
        { "key": "d", "value": "v", "metadata": null },
    ]);
    server.put(&format!("{base}/bulk"), entries.to_string().as_bytes()).ok();
    let page = server.get(&format!("{base}/keys")).ok();
    assert_eq!(page.header("content-type"), Some("application/json"));
    let expected = json!({
        "success": true, "errors": [], "messages": [],
        "result": [
            { "name": "a/ \"1\"" },
            { "name": "b", "expiration": expiration, "metadata": { "n": [1, "é"] } },
            { "name": "c", "metadata": "tag" },
            { "name": "d" },
        ],
        "result_info": { "count": 4, "cursor": "" },
    });
    assert_eq!(page.json(), expected);
}

#[test]
fn pages_follow_the_cursor_until_it_is_empty_and_none_before_is() {
    let server = Server::new();
    let base = default_namespace(&server);
    let keys: Vec<String> = (0..25).map(|at| format!("k:{at:02}")).collect();
    let entries: Vec<Value> = keys.iter().map(|key| json!({ "key": key, "value": "v" })).collect();
    server.put(&format!("{base}/bulk"), json!(entries).to_string().as_bytes()).ok();
    for limit in [1, 5, 10, 25, 1000] {
        let (mut found, mut cursor) = (Vec::new(), String::new());
        loop {
            let target = format!("{base}/keys?limit={limit}&prefix=k%3A&cursor={cursor}");
            let page = server.get(&target).ok().json();
            let count = names(&page).len();
            assert!((1..=limit).contains(&count));
            assert_eq!(page["result_info"]["count"], count);
            found.extend(names(&page).into_iter().map(str::to_owned));
            cursor = page["result_info"]["cursor"].as_str().expect("a cursor").to_owned();
            if cursor.is_empty() {
                break;
            }
        }
        assert_eq!(found, keys, "{limit}");
    }
    let empty = server.get(&format!("{base}/keys?prefix=none")).ok().json();
    assert_eq!(empty["result"], json!([]));
    assert_eq!(empty["result_info"], json!({ "count": 0, "cursor": "" }));
}

#[test]
fn bad_parameters_have_their_codes() {
    let server = Server::new();
    let base = default_namespace(&server);
    for limit in ["0", "-1", "1001", "99999999999999999999", "ten", "1.5", ""] {
        assert_api_error(&server.get(&format!("{base}/keys?limit={limit}")), 400, 10028);
    }
    for cursor in ["nonsense", "AAAA", "%00"] {
        assert_api_error(&server.get(&format!("{base}/keys?cursor={cursor}")), 400, 10039);
    }
    let long = encode(&"é".repeat(257));
    assert_api_error(&server.get(&format!("{base}/keys?prefix={long}")), 414, 10030);
    let unknown = format!("{ACCOUNT}/{}/keys", "f".repeat(32));
    assert_api_error(&server.get(&unknown), 404, 10013);
}

#[test]
fn a_namespace_is_named_by_its_title_too() {
    let server = Server::new();
    server.post(ACCOUNT, r#"{"title":"my sessions"}"#).ok();
    server.put(&format!("{ACCOUNT}/my%20sessions/values/k"), b"v").ok();
    let page = server.get(&format!("{ACCOUNT}/my%20sessions/keys")).ok().json();
    assert_eq!(names(&page), ["k"]);
}
