//! Any bytes as a connection of HTTP/1.1: where they are cut changes nothing, and the server sees no
//! request that the framing does not see, nor another body.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| kvast_server::testing::framing(input));
