//! The floor: the least that a server can do that is made of the same parts as kvast's. hyper over a map
//! in memory, on the same kind of runtime, with the same requests; no disk, no checksums, no limits, no
//! tokens, no metrics. A list is one answer that was stored beforehand, under the empty key.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio::runtime::Builder;

type Map = RwLock<HashMap<String, Bytes>>;

#[derive(Deserialize)]
struct BulkGet<'r> {
    #[serde(borrow)]
    keys: Vec<&'r str>,
}

/// Serves until the process is killed.
pub(crate) fn serve() {
    Builder::new_multi_thread().enable_all().build().unwrap().block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        println!("listening on http://{}", listener.local_addr().unwrap());
        let map = Arc::new(Map::default());
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
            let map = Arc::clone(&map);
            tokio::spawn(async move {
                let service = service_fn(|request| answer(Arc::clone(&map), request));
                // A client that goes away is no news.
                let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
}

async fn answer(
    map: Arc<Map>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    let key = &parts.uri.path()[1..];
    Ok(match parts.method {
        Method::GET => {
            let value = map.read().unwrap_or_else(PoisonError::into_inner).get(key).cloned();
            match value {
                Some(value) => reply(StatusCode::OK, "application/octet-stream", value),
                None => {
                    reply(StatusCode::NOT_FOUND, "text/plain", Bytes::from_static(b"Not Found"))
                }
            }
        }
        Method::PUT => {
            let value = collect(body).await;
            map.write().unwrap_or_else(PoisonError::into_inner).insert(key.to_owned(), value);
            Response::default()
        }
        _ => {
            let asked = collect(body).await;
            let BulkGet { keys } = serde_json::from_slice(&asked).unwrap();
            reply(StatusCode::OK, "application/json", gather(&map, &keys).into())
        }
    })
}

async fn collect(body: Incoming) -> Bytes {
    body.collect().await.map(|whole| whole.to_bytes()).unwrap_or_default()
}

fn gather(map: &Map, keys: &[&str]) -> Vec<u8> {
    let map = map.read().unwrap_or_else(PoisonError::into_inner);
    let mut out = vec![b'{'];
    for key in keys {
        if out.len() > 1 {
            out.push(b',');
        }
        serde_json::to_writer(&mut out, key).unwrap();
        out.push(b':');
        let value = map.get(*key).map(|value| str::from_utf8(value).unwrap());
        serde_json::to_writer(&mut out, &value).unwrap();
    }
    out.push(b'}');
    out
}

fn reply(status: StatusCode, content_type: &'static str, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
