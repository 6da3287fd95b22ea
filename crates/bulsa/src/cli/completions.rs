//! `bulsa completions`

use clap::Args;
use clap_complete::Shell;

use crate::{
    output::Printer,
    report::{CommandError, ExitCode},
};

/// Print the completions for a shell
#[derive(Debug, Args)]
pub(super) struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

pub(super) fn run(
    args: &CompletionsArgs,
    command: &mut clap::Command,
    printer: &mut Printer,
) -> Result<ExitCode, CommandError> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, command, "bulsa", &mut script);
    printer.text(&String::from_utf8_lossy(&script))?;
    Ok(ExitCode::Done)
}
