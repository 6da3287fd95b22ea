//! Images against a real Docker Engine and a real registry (Debian's `docker-registry`, a child of each test).
//!
//! Every test has names of its own, beginning with `bulsa-test-images`, and removes what it made when it ends, also
//! when it fails. Without an Engine, the registry or a static busybox the tests say so and pass.

#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "this is a test; integration tests are not recognised as such everywhere in them"
)]

mod builds;
mod login;
mod prune;
mod pulls;
mod registry;
mod world;
