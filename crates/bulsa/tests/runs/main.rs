//! `bulsa run` as people use it: the real binary, real programs (Express on Node.js where it is installed), real
//! signals.
//!
//! Every test has a daemon of its own in a temporary state directory, on ports of its own, and ends what it started.
//! What needs Node.js, Express or root says so and passes where there is none.

#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "this is a test; integration tests are not recognised as such everywhere in them"
)]

mod ends;
mod heartbeats;
mod kills;
mod loops;
mod node;
mod seeds;
mod watches;
mod world;
