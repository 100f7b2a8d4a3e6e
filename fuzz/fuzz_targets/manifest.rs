//! Any bytes as a manifest: decoding never panics and never reads past them.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| kvast::testing::fuzz::manifest(input));
