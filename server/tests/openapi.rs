//! Promise: what `/openapi.json` says of an answer is true: its status, its type, its headers, its
//! form. Each operation is seen to succeed, and to refuse.

use std::collections::BTreeSet;

use crate::support::{ACCOUNT, Answer, Server};
use serde_json::{Value as Json, json};

/// The document, and which of its operations have been seen to succeed.
struct Description {
    document: Json,
    succeeded: BTreeSet<(String, String)>,
}

impl Description {
    fn of(server: &Server) -> Description {
        Description {
            document: server.get("/openapi.json").ok().json(),
            succeeded: BTreeSet::new(),
        }
    }

    /// What a part of the document is, or what it refers to.
    fn resolve<'d>(&'d self, part: &'d Json) -> &'d Json {
        match part["$ref"].as_str() {
            Some(reference) => {
                let pointer = reference.strip_prefix('#').expect("a reference into the document");
                self.document.pointer(pointer).unwrap_or_else(|| panic!("no {reference}"))
            }
            None => part,
        }
    }

    /// Checks an answer to a request for one operation.
    #[track_caller]
    fn check(&mut self, method: &str, path: &str, answer: &Answer) {
        let place = format!("{method} {path}: {}", answer.status);
        let operation = &self.document["paths"][path][method.to_lowercase()];
        assert!(operation.is_object(), "{place}: there is no such operation");
        let documented = &operation["responses"][answer.status.to_string()];
        assert!(documented.is_object(), "{place} is not documented: {}", lossy(answer));
        let documented = self.resolve(documented);
        self.check_headers(&place, documented, answer);
        self.check_body(&place, method, documented, answer);
        if answer.status < 300 {
            self.succeeded.insert((method.to_owned(), path.to_owned()));
        }
    }

    fn check_headers(&self, place: &str, documented: &Json, answer: &Answer) {
        let general = ["content-length", "content-type", "date", "connection", "x-request-id"];
        let described: Vec<String> = documented["headers"]
            .as_object()
            .into_iter()
            .flat_map(|headers| headers.keys().map(|name| name.to_lowercase()))
            .collect();
        for (name, value) in &answer.headers {
            if general.contains(&name.as_str()) {
                continue;
            }
            assert!(described.contains(name), "{place}: header {name} is not documented");
            let (_, header) = documented["headers"]
                .as_object()
                .and_then(|all| all.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)))
                .expect("it is described");
            let schema = &self.resolve(header)["schema"];
            let value = match schema["type"].as_str() {
                Some("integer") => value.parse::<u64>().map(Json::from).expect("a number"),
                _ => Json::from(value.as_str()),
            };
            self.validate(&format!("{place}: {name}"), schema, &value);
        }
    }

    fn check_body(&self, place: &str, method: &str, documented: &Json, answer: &Answer) {
        let Some(content) = documented["content"].as_object() else {
            assert!(answer.body.is_empty(), "{place}: a body is not documented: {}", lossy(answer));
            return;
        };
        assert_ne!(method, "HEAD", "{place}: a HEAD has no content");
        let found = answer.header("content-type").unwrap_or_else(|| panic!("{place}: no type"));
        let media = content.get(found);
        let schema = media.unwrap_or_else(|| panic!("{place}: {found} is not documented"));
        if found.ends_with("json") {
            self.validate(place, &schema["schema"], &answer.json());
        }
    }

    /// Checks a value against a schema. A keyword that is not known here fails, so none is passed
    /// over in silence.
    fn validate(&self, place: &str, schema: &Json, value: &Json) {
        let problems = self.problems(schema, value);
        assert!(problems.is_empty(), "{place}: {problems:?} in {value}");
    }

    fn problems(&self, schema: &Json, value: &Json) -> Vec<String> {
        let schema = self.resolve(schema).as_object().expect("a schema");
        schema.iter().flat_map(|(keyword, is)| self.broken(keyword, is, schema, value)).collect()
    }

    fn broken(
        &self,
        keyword: &str,
        is: &Json,
        schema: &serde_json::Map<String, Json>,
        value: &Json,
    ) -> Vec<String> {
        let holds = |schema: &Json| self.problems(schema, value).is_empty();
        let count = |schemas: &Json| {
            schemas.as_array().expect("schemas").iter().filter(|schema| holds(schema)).count()
        };
        let is_kept = match keyword {
            "description" | "examples" | "default" | "format" => true,
            "type" => match is {
                Json::Array(types) => types.iter().any(|one| has_type(value, one)),
                one => has_type(value, one),
            },
            "const" => value == is,
            "enum" => is.as_array().expect("values").contains(value),
            "minimum" => value.as_f64() >= is.as_f64(),
            "maximum" => value.as_f64() <= is.as_f64(),
            "minItems" => value.as_array().is_none_or(|items| items.len() as u64 >= number(is)),
            "maxItems" => value.as_array().is_none_or(|items| items.len() as u64 <= number(is)),
            "pattern" => value.as_str().is_none_or(|text| has_pattern(text, is)),
            "anyOf" => count(is) > 0,
            "oneOf" => count(is) == 1,
            "allOf" => count(is) == is.as_array().map_or(0, Vec::len),
            "required" => {
                let names = is.as_array().expect("names").iter().filter_map(Json::as_str);
                value
                    .as_object()
                    .is_none_or(|members| names.into_iter().all(|name| members.contains_key(name)))
            }
            "additionalProperties" => {
                let known = schema.get("properties").and_then(Json::as_object);
                let is_known = |name: &String| known.is_some_and(|known| known.contains_key(name));
                assert_eq!(is, &json!(false));
                value.as_object().is_none_or(|members| members.keys().all(is_known))
            }
            "items" => {
                let items = value.as_array().into_iter().flatten();
                return items.flat_map(|item| self.problems(is, item)).collect();
            }
            "properties" => {
                let members = is.as_object().expect("schemas").iter();
                let members = members.filter_map(|(name, is)| Some((is, value.get(name)?)));
                return members.flat_map(|(is, member)| self.problems(is, member)).collect();
            }
            unknown => panic!("the keyword {unknown} is not known to this test"),
        };
        if is_kept { Vec::new() } else { vec![format!("{keyword} {is}")] }
    }

    fn assert_all_succeeded(&self) {
        for (path, item) in self.document["paths"].as_object().expect("paths") {
            for method in item.as_object().expect("methods").keys().filter(|it| *it != "parameters")
            {
                let operation = (method.to_uppercase(), path.clone());
                assert!(
                    self.succeeded.contains(&operation),
                    "{operation:?} was not seen to succeed"
                );
            }
        }
    }
}

fn has_type(value: &Json, name: &Json) -> bool {
    match name.as_str().expect("a type") {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_u64() || value.is_i64(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("type {other}"),
    }
}

/// The patterns of answers are few.
fn has_pattern(text: &str, pattern: &Json) -> bool {
    let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    match pattern.as_str().expect("a pattern") {
        "^[0-9a-f]{32}$" => text.len() == 32 && text.bytes().all(is_hex),
        "^\"[0-9]+\"$" => {
            let digits = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
            digits.is_some_and(|it| !it.is_empty() && it.bytes().all(|it| it.is_ascii_digit()))
        }
        // A lifetime in the settings, when it is no number.
        "^[1-9][0-9]{0,5}(ms|s|m|h|d)?$" => text.ends_with("ms"),
        other => panic!("the pattern {other} is not known to this test"),
    }
}

fn number(json: &Json) -> u64 {
    json.as_u64().expect("a number")
}

fn lossy(answer: &Answer) -> String {
    String::from_utf8_lossy(&answer.body).into_owned()
}

const BASE: &str = "/client/v4/accounts/{account}/storage/kv/namespaces";

/// A request for an operation: method, path of the document, target, headers, body.
type Sent<'s> = (&'s str, &'s str, String, &'s [&'s str], String);

fn check_all(server: &Server, description: &mut Description, requests: &[Sent<'_>]) {
    for (method, path, target, headers, body) in requests {
        let answer = server.send(method, target, headers, body.as_bytes());
        description.check(method, path, &answer);
    }
}

fn sent<'s>(method: &'s str, path: &'s str, target: &str, body: &str) -> Sent<'s> {
    (method, path, target.to_owned(), &[], body.to_owned())
}

fn with<'s>(headers: &'s [&'s str], (method, path, target, _, body): Sent<'s>) -> Sent<'s> {
    (method, path, target, headers, body)
}

fn native() -> Vec<Sent<'static>> {
    const SPACES: &str = "/v1/namespaces";
    const SPACE: &str = "/v1/namespaces/{namespace}";
    const KEYS: &str = "/v1/namespaces/{namespace}/keys";
    const KEY: &str = "/v1/namespaces/{namespace}/keys/{key}";
    const BATCH: &str = "/v1/namespaces/{namespace}/batch";
    let settings = r#"{"default_ttl":"1500ms","min_ttl":null,"max_value_bytes":100}"#;
    let (one, key) = ("/v1/namespaces/one", "/v1/namespaces/default/keys/k");
    vec![
        sent("POST", SPACES, SPACES, &format!(r#"{{"name":"one","settings":{settings}}}"#)),
        sent("POST", SPACES, SPACES, r#"{"name":"one"}"#),
        sent("POST", SPACES, SPACES, "nope"),
        sent("POST", SPACES, SPACES, &format!("\"{}\"", "x".repeat(2 << 20))),
        sent("GET", SPACES, SPACES, ""),
        sent("GET", SPACES, "/v1/namespaces?limit=1", ""),
        sent("GET", SPACES, "/v1/namespaces?limit=0", ""),
        sent("GET", SPACE, one, ""),
        sent("GET", SPACE, "/v1/namespaces/none", ""),
        sent("PATCH", SPACE, one, r#"{"name":"two","settings":{"min_ttl":5}}"#),
        sent("PATCH", SPACE, "/v1/namespaces/two", r#"{"name":"default"}"#),
        sent("DELETE", SPACE, "/v1/namespaces/two", ""),
        with(&["Kvast-Metadata: {\"é\":1}"], sent("PUT", KEY, &format!("{key}?ttl=1h"), "value")),
        sent("PUT", KEY, key, "value"),
        with(&["If-None-Match: *"], sent("PUT", KEY, key, "value")),
        sent("PUT", KEY, &format!("{key}?ttl=0"), ""),
        with(&["Kvast-Metadata: {\"é\":1}"], sent("PUT", KEY, &format!("{key}?ttl=1h"), "value")),
        sent("GET", KEY, key, ""),
        with(&["Range: bytes=0-1"], sent("GET", KEY, key, "")),
        with(&["Range: bytes=99-"], sent("GET", KEY, key, "")),
        with(&["If-None-Match: *"], sent("GET", KEY, key, "")),
        with(&["If-Match: \"0\""], sent("GET", KEY, key, "")),
        with(&["If-Match: 0"], sent("GET", KEY, key, "")),
        sent("GET", KEY, "/v1/namespaces/default/keys/none", ""),
        sent("HEAD", KEY, key, ""),
        with(&["If-None-Match: *"], sent("HEAD", KEY, key, "")),
        with(&["If-Match: \"0\""], sent("HEAD", KEY, key, "")),
        sent("HEAD", KEY, "/v1/namespaces/default/keys/none", ""),
        sent("PATCH", KEY, key, r#"{"expires_at":null}"#),
        sent("PATCH", KEY, key, r#"{"ttl":"soon"}"#),
        with(&["If-Match: \"0\""], sent("PATCH", KEY, key, r#"{"ttl":5}"#)),
        sent("GET", KEYS, "/v1/namespaces/default/keys", ""),
        sent("GET", KEYS, "/v1/namespaces/default/keys?include=value,size", ""),
        sent("GET", KEYS, "/v1/namespaces/default/keys?cursor=x", ""),
        sent("POST", BATCH, "/v1/namespaces/default/batch", &many_operations()),
        sent("GET", KEYS, &all_included("limit=3"), ""),
        sent("GET", KEYS, &all_included(""), ""),
        sent("POST", BATCH, "/v1/namespaces/default/batch", r#"{"operations":[{"op":"put"}]}"#),
        sent("POST", BATCH, "/v1/namespaces/default/batch", FAILING),
        sent("DELETE", KEY, key, ""),
        sent("DELETE", KEY, key, ""),
    ]
}

const FAILING: &str = r#"{"operations":[{"op":"check","key":"none","version":5}]}"#;

fn all_included(query: &str) -> String {
    let include = "include=metadata,expiration,size,version,value";
    format!("/v1/namespaces/default/keys?{include}&{query}")
}

fn many_operations() -> String {
    let operations = json!([
        { "op": "put", "key": "a", "value": "x", "metadata": { "v": [1] }, "ttl": 500 },
        { "op": "put", "key": "b", "value_base64": "AAH/" },
        { "op": "delete", "key": "none" },
        { "op": "check", "key": "none", "version": null },
    ]);
    json!({ "operations": operations }).to_string()
}

fn rest(id: &str) -> Vec<Sent<'static>> {
    const SPACE: &str = "/client/v4/accounts/{account}/storage/kv/namespaces/{namespace}";
    const KEYS: &str = "/client/v4/accounts/{account}/storage/kv/namespaces/{namespace}/keys";
    const VALUE: &str =
        "/client/v4/accounts/{account}/storage/kv/namespaces/{namespace}/values/{key}";
    const METADATA: &str =
        "/client/v4/accounts/{account}/storage/kv/namespaces/{namespace}/metadata/{key}";
    const BULK: &str = "/client/v4/accounts/{account}/storage/kv/namespaces/{namespace}/bulk";
    const BULK_GET: &str =
        "/client/v4/accounts/{account}/storage/kv/namespaces/{namespace}/bulk/get";
    const BULK_DELETE: &str =
        "/client/v4/accounts/{account}/storage/kv/namespaces/{namespace}/bulk/delete";
    let one = format!("{ACCOUNT}/{id}");
    let at = |path: &str| format!("{one}{path}");
    let entries = r#"[{"key":"b","value":"1","metadata":{"v":1},"expiration_ttl":600}]"#;
    vec![
        sent("POST", BASE, ACCOUNT, r#"{"title":"mine"}"#),
        sent("POST", BASE, ACCOUNT, r#"{"title":"mine"}"#),
        sent("GET", BASE, ACCOUNT, ""),
        sent("GET", BASE, &format!("{ACCOUNT}?page=0"), ""),
        sent("GET", SPACE, &one, ""),
        sent("GET", SPACE, &format!("{ACCOUNT}/none"), ""),
        sent("PUT", SPACE, &one, r#"{"title":"renamed"}"#),
        sent("PUT", SPACE, &one, r#"{"title":"mine"}"#),
        sent("PUT", VALUE, &at("/values/k?expiration_ttl=600"), "value"),
        with(&["If-None-Match: *"], sent("PUT", VALUE, &at("/values/k"), "value")),
        sent("PUT", VALUE, &at("/values/k?expiration_ttl=1"), "value"),
        sent("PUT", VALUE, &at(&format!("/values/{}", "k".repeat(513))), "value"),
        sent("GET", VALUE, &at("/values/k"), ""),
        with(&["Range: bytes=0-1"], sent("GET", VALUE, &at("/values/k"), "")),
        with(&["Range: bytes=99-"], sent("GET", VALUE, &at("/values/k"), "")),
        with(&["If-None-Match: *"], sent("GET", VALUE, &at("/values/k"), "")),
        with(&["If-Match: \"0\""], sent("GET", VALUE, &at("/values/k"), "")),
        sent("GET", VALUE, &at("/values/none"), ""),
        sent("HEAD", VALUE, &at("/values/k"), ""),
        sent("HEAD", VALUE, &at("/values/none"), ""),
        sent("PUT", BULK, &at("/bulk"), entries),
        sent("PUT", BULK, &at("/bulk"), r#"[{"key":""}]"#),
        sent("GET", METADATA, &at("/metadata/b"), ""),
        sent("GET", METADATA, &at("/metadata/k"), ""),
        sent("GET", METADATA, &at("/metadata/none"), ""),
        sent("GET", KEYS, &at("/keys"), ""),
        sent("GET", KEYS, &at("/keys?limit=1"), ""),
        sent("GET", KEYS, &at("/keys?limit=0"), ""),
        sent("POST", BULK_GET, &at("/bulk/get"), r#"{"keys":["b","none"],"withMetadata":true}"#),
        sent("POST", BULK_GET, &at("/bulk/get"), r#"{"keys":[]}"#),
        sent("POST", BULK_DELETE, &at("/bulk/delete"), r#"["b"]"#),
        sent("POST", BULK_DELETE, &at("/bulk/delete"), "5"),
        sent("DELETE", BULK, &at("/bulk"), r#"["b"]"#),
        with(&["If-Match: \"0\""], sent("DELETE", VALUE, &at("/values/k"), "")),
        sent("DELETE", VALUE, &at("/values/k"), ""),
        sent("DELETE", SPACE, &one, ""),
        sent("DELETE", SPACE, &one, ""),
    ]
}

fn binding() -> Vec<Sent<'static>> {
    let expiring = "/k?expiration_ttl=600";
    vec![
        with(&["CF-KV-Metadata: {\"v\":1}"], sent("PUT", "/{key}", expiring, "value")),
        sent("PUT", "/{key}", "/k2?expiration_ttl=1", "value"),
        sent("PUT", "/{key}", &format!("/{}", "k".repeat(513)), "value"),
        sent("GET", "/{key}", "/k", ""),
        sent("GET", "/{key}", "/none", ""),
        with(&["X-KV-Namespace: none"], sent("GET", "/{key}", "/k", "")),
        sent("GET", "/", "/", ""),
        sent("GET", "/", "/?key_count_limit=0", ""),
        sent("POST", "/bulk/get", "/bulk/get", r#"{"keys":["k","none"],"withMetadata":true}"#),
        sent("POST", "/bulk/get", "/bulk/get", "nope"),
        sent("POST", "/bulk/delete", "/bulk/delete", r#"{"keys":["k"]}"#),
        sent("POST", "/bulk/delete", "/bulk/delete", "nope"),
        sent("DELETE", "/{key}", "/k", ""),
        sent("DELETE", "/{key}", "/%zz?urlencoded=true", ""),
    ]
}

fn operators() -> Vec<Sent<'static>> {
    vec![
        sent("GET", "/healthz", "/healthz", ""),
        sent("HEAD", "/healthz", "/healthz", ""),
        sent("GET", "/readyz", "/readyz", ""),
        sent("HEAD", "/readyz", "/readyz", ""),
        sent("GET", "/metrics", "/metrics", ""),
        sent("GET", "/openapi.json", "/openapi.json", ""),
    ]
}

#[test]
fn answers_are_as_they_are_described() {
    let server = Server::new();
    let mut description = Description::of(&server);
    let id = server.post(ACCOUNT, r#"{"title":"described"}"#).ok().json()["result"]["id"].clone();
    let id = id.as_str().expect("an id").to_owned();
    for requests in [native(), rest(&id), binding(), operators()] {
        check_all(&server, &mut description, &requests);
    }
    description.assert_all_succeeded();
}

#[test]
fn whoever_has_no_token_is_answered_as_described() {
    let dir = tempfile::TempDir::new().expect("a directory");
    let tokens = dir.path().join("tokens");
    std::fs::write(&tokens, "secret\n").expect("a file");
    let server = Server::with(|config| config.token_file = Some(tokens));
    let authorized = server.send("GET", "/openapi.json", &["Authorization: Bearer secret"], b"");
    let mut description =
        Description { document: authorized.ok().json(), succeeded: BTreeSet::new() };
    for (method, path, target, ..) in [native(), rest("none"), binding(), operators()].concat() {
        for token in [&[][..], &["Authorization: Bearer wrong"]] {
            let answer = server.send(method, &target, token, b"");
            description.check(method, path, &answer);
            let is_open = matches!(path, "/healthz" | "/readyz");
            assert_eq!(matches!(answer.status, 401 | 403), !is_open, "{method} {path}");
        }
    }
}

#[test]
fn bad_framing_is_answered_as_described() {
    let server = Server::new();
    let mut description = Description::of(&server);
    for (method, path, target) in [
        ("PUT", "/v1/namespaces/{namespace}/keys/{key}", "/v1/namespaces/default/keys/k"),
        ("POST", BASE, ACCOUNT),
        ("PUT", "/{key}", "/k"),
    ] {
        let answer = server.send(method, target, &["Host: another"], b"");
        assert_eq!(answer.status, 400);
        description.check(method, path, &answer);
    }
}
