//! Everything on the Docker Engine, end to end: the real program, real containers, real images, load that counts every
//! failure. Tests run on the Engine that this machine has and, as far as `cargo xtask parts` could get it, on a newer one;
//! of those that take long and don't depend on the Engine's version the short form runs on one of the two.
//!
//! The short form takes minutes; `BULSA_LONG=1` asks for the long one (20 deploys in a row).

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    reason = "a test may fail by panicking, helpers included, and says why it skips something"
)]

mod agents;
mod broken;
mod builds;
mod cares;
mod compose_commands;
mod deploys;
mod develops;
mod drills;
mod examples;
mod exchanges;
mod humans;
mod init;
mod injuries;
mod inside;
mod parts_run;
mod preflight;
mod recreate;
#[path = "../images/registry.rs"]
mod registry;
mod restarts;
mod shop;
#[path = "../support/support.rs"]
mod support;
mod volumes;
mod whys;
