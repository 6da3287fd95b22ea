//! Commands that have their place in the interface and don't work yet.

use std::ffi::OsString;

use clap::Args;

use crate::report::{CommandError, ExitCode};

/// Whatever is written behind the name.
#[derive(Debug, Args)]
pub(super) struct LaterArgs {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    pub(super) rest: Vec<OsString>,
}

/// Says so.
pub(super) fn refuse(name: &str) -> Result<ExitCode, CommandError> {
    Err(later(&format!("`bulsa {name}`")))
}

/// The error for a command or flag that comes later.
pub(super) fn later(what: &str) -> CommandError {
    CommandError::user(format!("{what} comes in a later version of Bulsa"))
        .hint("`bulsa --help` lists what this one does")
}
