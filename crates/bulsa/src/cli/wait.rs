//! `bulsa wait`

use clap::Args;

use super::{context::Context, follow, which::Purpose};
use crate::report::{CommandError, ExitCode};

/// Wait for a deploy to end
#[derive(Debug, Args)]
pub(super) struct WaitArgs {
    /// The deploy's number [default: the one that runs, or else the last]
    id: Option<u32>,
}

pub(super) async fn run(args: &WaitArgs, context: &mut Context<'_>) -> Result<ExitCode, CommandError> {
    let client = context.client().await?;
    let snapshot = client.snapshot().await?;
    let name = context.which_project(&snapshot, Purpose::Look)?;
    let last = snapshot.project(&name).and_then(|project| project.deployments.last()).map(|last| last.id);
    let Some(id) = args.id.or(last) else {
        return Err(CommandError::user(format!("`{name}` has had no deploy since the daemon started"))
            .hint("name an older one: `bulsa wait ID`"));
    };
    follow::deployment(&client, context.printer, &name, id).await
}
