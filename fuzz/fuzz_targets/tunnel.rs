//! Whatever two sides of a tunnel send, and in whatever pieces it comes: their frames are followed, or given up, and
//! never with a panic or in another way than byte by byte.
//!
//! An input begins with the number of pieces whose lengths follow, a byte each; the rest is what is sent.
#![no_main]

use bulsa_proxy::fuzzing::follow_frames;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((count, rest)) = input.split_first() else { return };
    let (pieces, data) = rest.split_at(rest.len().min(usize::from(*count)));
    follow_frames(data, pieces);
});
