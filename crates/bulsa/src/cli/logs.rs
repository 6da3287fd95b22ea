//! `bulsa logs`

use std::path::PathBuf;

use bulsa_core::wire::api::LogLine;
use clap::Args;

use super::{args::FileArgs, context::Context, follow as following, which::Purpose};
use crate::{
    client::{Client, LogsQuery},
    output::{Printer, Tone},
    report::{CommandError, ExitCode},
};

/// Show what replicas wrote
#[derive(Debug, Args)]
pub(super) struct LogsArgs {
    /// Only this service
    service: Option<String>,
    /// Go on with what is written
    #[arg(short, long)]
    follow: bool,
    /// The last so many lines of each replica
    #[arg(short = 'n', long, value_name = "N", default_value_t = 100)]
    tail: u32,
    // `-f` means `--follow` here, as everywhere; the compose file only chooses the project.
    /// A compose file (can be repeated)
    #[arg(long = "file", value_name = "FILE")]
    files: Vec<PathBuf>,
}

pub(super) async fn run(args: &LogsArgs, context: &mut Context<'_>) -> Result<ExitCode, CommandError> {
    context.files = FileArgs { files: args.files.clone(), ..FileArgs::default() }.over(&context.files);
    let client = context.client().await?;
    let project = context.which_project(&client.snapshot().await?, Purpose::Look)?;
    let query =
        LogsQuery { project, service: args.service.clone(), tail: Some(args.tail), follow: args.follow };
    if args.follow {
        return follow(&client, context.printer, query).await;
    }
    let mut stream = client.logs(&query).await?;
    while let Some(line) = stream.next().await? {
        show(&line, context.printer)?;
    }
    Ok(ExitCode::Done)
}

/// Shows lines as they come, across the agent's deaths, until the project is gone.
async fn follow(
    client: &Client,
    printer: &mut Printer,
    mut query: LogsQuery,
) -> Result<ExitCode, CommandError> {
    loop {
        let mut stream = match client.logs(&query).await {
            Ok(stream) => stream,
            // The agent may be replaced right after it answered.
            Err(error) if error.may_pass() => {
                following::back(client).await?;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        let ended = loop {
            match stream.next().await {
                Ok(Some(line)) => show(&line, printer)?,
                Ok(None) => break None,
                Err(error) => break Some(error),
            }
        };
        if let Some(error) = ended.filter(|error| !error.may_pass()) {
            return Err(error.into());
        }
        let snapshot = following::back(client).await?;
        if snapshot.project(&query.project).is_none() {
            return Ok(ExitCode::Done);
        }
        // What was written while nobody looked is not told apart from what was shown: a few lines are better missing.
        query.tail = Some(0);
    }
}

pub(super) fn show(line: &LogLine, printer: &mut Printer) -> Result<(), CommandError> {
    printer.data(line, |_| format!("{} {}", Tone::Dim.paint(&format!("{} |", line.replica)), line.text))
}
