//! kvast as a server: HTTP in, calls of the blocking engine, HTTP out.
//!
//! The server is a thin adapter. It knows the Workers KV API and nothing of segments; the engine
//! knows segments and nothing of HTTP. [`start`] runs it inside any process, [`cli`] is the
//! program.
//!
//! Three surfaces share one port: the *binding surface*, which a Workers runtime speaks for a KV
//! binding, the *REST surface* below `/client/v4`, which tools and SDKs speak, and the *native
//! surface* below `/v1`.
//!
//! Each module imports only from those above it in the list below, so reading can start anywhere
//! and go up:
//!
//! ```text
//! units       sizes and times as text
//! limits      every number
//! config      what a server is started with
//! settings    flags, variables, kvast.toml
//! uri         two decodings of a target
//! json        JSON as text
//! conditions  ETags, dates, ranges
//! route       (method, path) -> what is asked
//! error       engine failure -> status, code
//! rules       refusals in the API's words
//! listing     pages of keys, for both Workers KV surfaces
//! blocking    threads for what may wait for a disk
//! download    values on their way out
//! entries     bulk bodies, entry by entry
//! reply       answers and streamed bodies
//! token       tokens at rest
//! auth        who may do what
//! memory      large blocks go back
//! trace       names of requests
//! exposition  the text that Prometheus reads
//! metrics     what is counted about requests
//! process     what the system tells about this process
//! body        uploads under one memory budget
//! staging     values on their way in
//! form        multipart bodies, part by part
//! spool       long bodies, on disk until they are used
//! envelope    answers of the REST surface
//! commit      writes in flight share a sync
//! bridge      async to blocking, here only
//! gather      several values in one answer
//! phase       serving, draining
//! app         what requests share
//! call        one request, for its handler
//! binding     the binding surface
//! rest        the REST surface
//! problem     errors of the native surface
//! native      the native surface
//! openapi     the description of it all
//! ops         health, metrics, OpenAPI
//! remote      Miniflare's form of a binding request
//! service     one request from head to answer
//! places      connections at once, and which idle one goes
//! framing     where requests end
//! wire        a socket that does not wait for ever
//! tls         certificates and handshakes
//! socket      places to listen
//! streams     requests of one HTTP/2 connection
//! listen      connections
//! start       a running server
//! cli         the program
//! ```

mod app;
mod auth;
mod binding;
mod blocking;
mod body;
mod bridge;
mod call;
pub mod cli;
mod commit;
mod conditions;
mod config;
mod download;
mod entries;
mod envelope;
mod error;
mod exposition;
mod form;
mod framing;
mod gather;
mod json;
mod limits;
mod listen;
mod listing;
mod memory;
mod metrics;
mod native;
mod openapi;
mod ops;
mod phase;
mod places;
mod problem;
mod process;
mod remote;
mod reply;
mod rest;
mod route;
mod rules;
mod service;
mod settings;
mod socket;
mod spool;
mod staging;
mod start;
mod streams;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod tls;
mod token;
mod trace;
mod units;
mod uri;
mod wire;

pub use config::{Config, DEFAULT_DATA, DEFAULT_PORT, ListenOn, Secret, TlsFiles};
pub use limits::Limits;
pub use start::{Handle, StartError, start};
pub use tls::TlsError;
