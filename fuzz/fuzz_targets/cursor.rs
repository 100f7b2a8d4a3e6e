//! Any text as a list cursor: it is refused, or it is the one spelling of a key in its scope.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| kvast::testing::fuzz::cursor(input));
