//! `bulsa down`

use std::time::Duration;

use bulsa_core::wire::api::Request;
use clap::Args;

use super::{
    context::{Accepted, Context, accepted},
    follow,
    which::Purpose,
};
use crate::report::{CommandError, ExitCode};

/// How long the command waits; the daemon goes on by itself. Longer than the usual drain and grace together.
const DOWN_MAX: Duration = Duration::from_secs(180);

/// Stop a project and close its ports
#[derive(Debug, Args)]
pub(super) struct DownArgs {
    /// Return at once
    #[arg(short, long)]
    detach: bool,
}

pub(super) async fn run(args: &DownArgs, context: &mut Context<'_>) -> Result<ExitCode, CommandError> {
    let client = context.client().await?;
    let snapshot = client.snapshot().await?;
    let project = context.which_project(&snapshot, Purpose::Change)?;
    let text = match accepted(client.request(&Request::Down { project: project.clone() }).await?)? {
        Accepted::Begun { text, .. } => text,
        Accepted::Already { text, .. } => {
            context.say(&text)?;
            return Ok(ExitCode::Done);
        }
    };
    if args.detach {
        context.say(&text)?;
        return Ok(ExitCode::Done);
    }
    context.printer.remark(&text)?;
    let gone =
        follow::until(&client, DOWN_MAX, |snapshot| snapshot.project(&project).is_none().then_some(()));
    if gone.await?.is_none() {
        let text = format!("`{project}` is not down after {} s; the daemon goes on", DOWN_MAX.as_secs());
        return Err(CommandError::user(text).hint("`bulsa ps` shows what still runs"));
    }
    context.say(&format!("`{project}` is down"))?;
    Ok(ExitCode::Done)
}
