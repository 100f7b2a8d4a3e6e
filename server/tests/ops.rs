//! What an operator's tools are promised: health and readiness for anybody, numbers that add up, and
//! a name for every request.

use std::collections::BTreeMap;
use std::fs;

use crate::support::Server;

/// The samples of an exposition: name with labels, and value.
fn samples(text: &str) -> BTreeMap<&str, f64> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').expect("a name and a value");
            (name, value.parse().expect("a number"))
        })
        .collect()
}

#[test]
fn health_and_readiness_are_one_word_and_need_no_token() {
    let server = Server::with(|config| {
        let file = config.data.with_file_name("tokens");
        fs::write(&file, "secret\n").expect("written");
        config.token_file = Some(file);
    });
    for path in ["/healthz", "/readyz"] {
        let answer = server.get(path);
        assert_eq!((answer.status, answer.text()), (200, "ok"), "{path}");
        assert_eq!(server.send("HEAD", path, &[], b"").status, 200, "{path}");
        let posted = server.send("POST", path, &["Authorization: Bearer secret"], b"");
        assert_eq!((posted.status, posted.header("allow")), (405, Some("GET, HEAD")), "{path}");
    }
    assert_eq!(server.get("/metrics").status, 401, "anything else wants a token");
    assert_eq!(server.send("GET", "/metrics", &["Authorization: Bearer secret"], b"").status, 200);
}

#[test]
fn a_runtime_reaches_keys_that_are_named_like_an_operators_paths() {
    let server = Server::new();
    for key in ["healthz", "readyz", "metrics", "openapi.json"] {
        let target = format!("/{key}?urlencoded=true");
        assert_eq!(server.get(&target).status, 404, "{key}");
        assert_eq!(server.put(&target, b"mine").status, 200, "{key}");
        assert_eq!(server.get(&target).text(), "mine", "{key}");
    }
}

#[test]
fn metrics_count_requests_by_surface_operation_and_status() {
    let server = Server::new();
    server.put("/a?urlencoded=true", b"1").ok();
    server.get("/a?urlencoded=true").ok();
    for _ in 0..3 {
        assert_eq!(server.get("/missing?urlencoded=true").status, 404);
    }
    assert_eq!(server.get("/client/v4/nonsense").status, 404);
    let answer = server.get("/metrics");
    assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let text = answer.text();
    let samples = samples(text);
    let requests = |surface: &str, operation: &str, status: u16| {
        let labels = format!("surface=\"{surface}\",operation=\"{operation}\",status=\"{status}\"");
        samples.get(format!("kvast_http_requests_total{{{labels}}}").as_str()).copied()
    };
    assert_eq!(requests("binding", "put", 200), Some(1.0));
    assert_eq!(requests("binding", "get", 200), Some(1.0));
    assert_eq!(requests("binding", "get", 404), Some(3.0));
    assert_eq!(requests("rest", "none", 404), Some(1.0));
    assert_eq!(samples["kvast_http_requests_in_flight"], 1.0, "the scrape itself");
    let took = "kvast_http_request_duration_seconds";
    let labels = "surface=\"binding\",operation=\"get\"";
    assert_eq!(samples[format!("{took}_count{{{labels}}}").as_str()], 4.0);
    assert_eq!(samples[format!("{took}_bucket{{{labels},le=\"+Inf\"}}").as_str()], 4.0);
}

#[test]
fn metrics_tell_what_the_store_holds() {
    let server = Server::new();
    let before = server.get("/metrics").text().to_owned();
    server.put("/a", &[7; 1000]).ok();
    server.put("/a", &[8; 1000]).ok();
    let after = server.get("/metrics").text().to_owned();
    let (before, after) = (samples(&before), samples(&after));
    assert_eq!(after["kvast_keys"], before["kvast_keys"] + 1.0);
    assert!(after["kvast_dead_bytes"] >= before["kvast_dead_bytes"] + 1000.0);
    assert_eq!(after["kvast_record_bytes"], after["kvast_live_bytes"] + after["kvast_dead_bytes"]);
    assert!(after["kvast_resident_bytes"] <= after["kvast_mapped_bytes"]);
    assert_eq!(after["kvast_commit_records_sum"], before["kvast_commit_records_sum"] + 2.0);
    assert!(
        after["kvast_sync_duration_seconds_count"] > before["kvast_sync_duration_seconds_count"]
    );
    assert_eq!(after["kvast_writable"], 1.0);
    assert_eq!(after["kvast_background_trouble"], 0.0);
}

#[test]
fn metrics_tell_how_many_clients_there_are_and_what_their_uploads_hold() {
    let server = Server::new();
    let mut uploading = server.connect();
    uploading.begin_put("/large", 10 << 20);
    uploading.write(vec![7; 1 << 20]);
    let text = server.get("/metrics").text().to_owned();
    let samples = samples(&text);
    assert_eq!(samples["kvast_http_connections"], 2.0, "the upload and the scrape");
    assert!(samples["kvast_upload_reserved_bytes"] > 0.0);
}

#[test]
fn every_family_has_help_and_a_type_and_is_announced_once() {
    let server = Server::new();
    let text = server.get("/metrics").text().to_owned();
    let announced = |word: &str| -> Vec<&str> {
        let lines = text.lines().filter_map(|line| line.strip_prefix(word));
        lines.filter_map(|line| line.split(' ').next()).collect()
    };
    let (helps, types) = (announced("# HELP "), announced("# TYPE "));
    assert_eq!(helps, types);
    let distinct: std::collections::BTreeSet<_> = helps.iter().collect();
    assert_eq!(distinct.len(), helps.len());
    for name in samples(&text).keys() {
        let name = name.split('{').next().expect("a name");
        let family = ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|end| name.strip_suffix(end).filter(|family| helps.contains(family)));
        assert!(helps.contains(&family.unwrap_or(name)), "{name} is announced");
    }
}

#[test]
fn a_requests_own_name_comes_back_and_a_bad_one_does_not() {
    let server = Server::new();
    let named = server.send("GET", "/k", &["X-Request-Id: mine-1"], b"");
    assert_eq!(named.header("x-request-id"), Some("mine-1"));
    let bad = server.send("GET", "/k", &["X-Request-Id: a b"], b"");
    assert_eq!(bad.header("x-request-id"), None);
    assert_eq!(
        server.get("/k").header("x-request-id"),
        None,
        "nothing changes for who asks nothing"
    );
}
