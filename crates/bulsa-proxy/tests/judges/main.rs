//! Foreign judges: corpora, scanners, clients and servers that others have written, on the proxy over real sockets.
//!
//! What a judge needs and isn't in the workspace comes from `cargo xtask parts`; where it is missing, the test says that
//! it is skipped. `BULSA_LONG=1` asks for the long forms.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    reason = "a test may fail by panicking, helpers included, and says why it skips something"
)]

mod client;
mod corpus;
mod guardian;
mod hyper_reads;
#[expect(dead_code, reason = "what becomes of a payload is another test's")]
#[path = "../it/payloads.rs"]
mod payloads;
mod peers;
mod programs;
mod recorder;
mod slow;
mod smugglex;
#[expect(dead_code, reason = "the judges need less of it than the other tests")]
#[path = "../it/support.rs"]
mod support;
mod websockets;
