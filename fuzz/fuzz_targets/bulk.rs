//! Any bytes as the body of a bulk write: it is cut into the entries that a parser of JSON finds, and
//! what comes out of it keeps the API's rules.

#![no_main]

libfuzzer_sys::fuzz_target!(|body: &[u8]| kvast_server::testing::bulk(body));
