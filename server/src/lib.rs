//! kvast as a server: HTTP in, calls of the blocking engine, HTTP out.
//!
//! The server is a thin adapter. It knows the Workers KV API and nothing of segments; the engine
//! knows segments and nothing of HTTP. [`start`] runs it inside any process, [`cli`] is the
//! program.
//!
//! Two surfaces share one port: the *binding surface*, which a Workers runtime speaks for a KV
//! binding, and the *REST surface* below `/client/v4`, which tools and SDKs speak.
//!
//! Each module imports only from those above it in the list below, so reading can start anywhere
//! and go up:
//!
//! ```text
//! limits    every number                      body      uploads under one memory budget
//! config    what a server is started with     commit    writes in flight share a sync
//! uri       two decodings of a target         bridge    async to blocking, here only
//! json      JSON as text                      app       what requests share
//! error     engine failure -> status, code    binding   the binding surface: values, keys, bulk
//! rules     refusals in the API's words       rest      the REST surface: namespaces
//! reply     answers and streamed bodies       service   one request from head to answer
//! envelope  answers of the REST surface       wire      a socket that does not wait for ever
//! auth      tokens                            listen    connections
//! route     (method, path) -> what is asked   start     a running server
//! memory    large blocks go back              cli       the program
//! ```

mod app;
mod auth;
mod binding;
mod body;
mod bridge;
pub mod cli;
mod commit;
mod config;
mod envelope;
mod error;
mod json;
mod limits;
mod listen;
mod memory;
mod reply;
mod rest;
mod route;
mod rules;
mod service;
mod start;
mod uri;
mod wire;

pub use config::{Config, DEFAULT_DATA, DEFAULT_PORT};
pub use limits::Limits;
pub use start::{Handle, StartError, start};
