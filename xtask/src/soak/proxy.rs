//! `cargo xtask soak proxy`: the data plane alone, in one process with its clients and its backends.
//!
//! Owns: how the test `soak` of bulsa-proxy is run for long. Never: knows what it does; its short form is in every test
//! run, and says it.

use super::Asked;
use crate::run::{Trouble, cargo, run as run_command};

/// Runs it, in a release build.
pub(crate) fn run(asked: Asked) -> Result<(), Trouble> {
    let mut command = cargo();
    command.args(["test", "--release", "--package", "bulsa-proxy", "--test", "soak", "--", "--nocapture"]);
    command.env("BULSA_SOAK_MINUTES", asked.minutes.to_string());
    command.env("BULSA_SOAK_SEED", asked.seed.to_string());
    run_command(&mut command)
}
