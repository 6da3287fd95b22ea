//! The docker engine's host side with a real Docker Engine.
//!
//! Each test has an owner, a project and an image of its own (busybox, imported from this host), named after it, and
//! removes all of it, also when it fails. Without an Engine or a static busybox it says so and passes.

#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "this is a test; integration tests are not recognised as such everywhere in them"
)]

mod anchors;
mod execs;
mod life;
mod news;
mod problems;
mod resources;
mod world;
