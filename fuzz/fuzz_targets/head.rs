//! What a client sends: heads and bodies of requests, one after the other, in whatever pieces they come.
//!
//! An input is what is sent, and its bytes read backwards are the lengths of the pieces: so a seed is simply a request.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let pieces: Vec<u8> = input.iter().rev().map(|byte| byte % 32).collect();
    bulsa_proxy::fuzzing::read_requests(input, &pieces);
});
