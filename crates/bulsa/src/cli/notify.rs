//! `bulsa notify test`: tries the URLs that a project's messages go to, through the daemon, as real ones are sent.

use bulsa_core::{
    notify::{Format, SecretUrl},
    wire::api::{NotifyTest, NotifyTested},
};
use clap::{Args, Subcommand, ValueEnum};

use super::{context::Context, which::Purpose};
use crate::{
    output::{Cell, Table, Tone},
    report::{CommandError, ExitCode},
};

/// Try the webhooks and the heartbeat of a project
#[derive(Debug, Args)]
pub(super) struct NotifyArgs {
    #[command(subcommand)]
    command: NotifyCommand,
}

#[derive(Debug, Subcommand)]
enum NotifyCommand {
    /// Send a test message to each webhook of a project, and call its heartbeat; exit 1 when one failed
    Test(TestArgs),
}

#[derive(Debug, Args)]
struct TestArgs {
    /// Try this webhook instead of the project's
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// The form of the message to `--url` [default: what its host takes]
    #[arg(long, requires = "url")]
    format: Option<FormatArg>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum FormatArg {
    /// For programs
    Json,
    /// Slack's
    Slack,
    /// Discord's
    Discord,
}

pub(super) async fn run(args: NotifyArgs, context: &mut Context<'_>) -> Result<ExitCode, CommandError> {
    let NotifyCommand::Test(TestArgs { url, format }) = args.command;
    let url = url.map(|text| SecretUrl::parse(&text)).transpose().map_err(|error| {
        CommandError::user(format!("the URL of `--url` {error}"))
            .hint("write one such as https://hooks.example.com/…")
    })?;
    let format = format.map(|format| match format {
        FormatArg::Json => Format::Json,
        FormatArg::Slack => Format::Slack,
        FormatArg::Discord => Format::Discord,
    });
    let client = context.client().await?;
    let project = context.which_project(&client.snapshot().await?, Purpose::Look)?;
    let tested = client.notify_test(&NotifyTest { project: project.clone(), url, format }).await?;
    if tested.is_empty() {
        let text = format!(
            "`{project}` tells nobody: its file, as of the last deploy, has no webhook and no heartbeat"
        );
        let hint =
            "write `x-bulsa: {notify: [{url: …}], heartbeat: {url: …}}` at its top and run `bulsa deploy`";
        return Err(CommandError::user(text).hint(hint));
    }
    context.printer.data(&tested, |_| tested_text(&tested))?;
    let failed = tested.iter().any(|one| !one.accepted);
    Ok(if failed { ExitCode::UserError } else { ExitCode::Done })
}

/// A line for each URL, and below the table what to do about those that failed.
pub(super) fn tested_text(tested: &[NotifyTested]) -> String {
    let mut table = Table::new(&["KIND", "TARGET", "RESULT"]);
    for one in tested {
        let (result, tone) = match (&one.error, one.status) {
            (Some(error), _) => (error.clone(), Tone::Bad),
            (None, Some(status)) => (format!("accepted ({status})"), Tone::Good),
            (None, None) => ("accepted".to_owned(), Tone::Good),
        };
        table.row([Cell::from(&one.kind), Cell::from(&one.target), Cell::toned(result, tone)]);
    }
    let mut text = table.render();
    for one in tested {
        if let Some(hint) = &one.hint {
            text += &format!("{} to {}: {hint}\n", one.kind, one.target);
        }
    }
    text
}
