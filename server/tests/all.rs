//! Everything that the server is tested for from outside, in one program: it is linked once, which
//! with link-time optimisation takes as long as many of these tests together.

mod auth;
mod bench;
mod binding;
mod cli;
mod config;
mod framing;
mod http;
mod lifecycle;
mod listen;
mod native;
mod native_many;
mod openapi;
mod ops;
mod remote;
mod rest_bulk;
mod rest_keys;
mod rest_namespaces;
mod rest_values;
mod streaming;
mod support;
mod tls;
mod tokens;
