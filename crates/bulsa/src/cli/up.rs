//! `bulsa up`: a deploy that starts the daemon where none runs, and stays to watch.

use std::time::Duration;

use bulsa_core::wire::api::Request;
use clap::Args;

use super::{
    args::FileArgs,
    context::{Accepted, Context, accepted},
    daemon::{self, Reached},
    deploy::{self, Wanted},
    follow, logs, project,
};
use crate::{
    client::LogsQuery,
    report::{CommandError, ExitCode},
};

/// The longest that one look at a daemon that goes down waits for something new.
const SHUTDOWN_POLL: Duration = Duration::from_secs(20);

/// Run a compose project; on a running one, deploy it
#[derive(Debug, Args)]
pub(super) struct UpArgs {
    #[command(flatten)]
    files: FileArgs,
    /// Only these services take what the file says, the others stay as they are
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
    /// Return once the project runs
    #[arg(short, long)]
    detach: bool,
}

pub(super) async fn run(args: UpArgs, context: &mut Context<'_>) -> Result<ExitCode, CommandError> {
    let files = args.files.over(&context.files);
    let project = project::load(&files, context)?;
    let wanted = Wanted { spec: project.spec, sources: project.sources, services: args.services, up: true };
    bring_up(wanted, args.detach, context).await
}

/// Starts a daemon where none runs, deploys, and stays with the logs unless detached.
pub(super) async fn bring_up(
    wanted: Wanted,
    detach: bool,
    context: &mut Context<'_>,
) -> Result<ExitCode, CommandError> {
    let reached = daemon::reach_or_start(context).await?;
    let name = wanted.spec.project.clone();
    match follow::unless_interrupted(deploy_and_stay(wanted, detach, &reached, context)).await {
        Some(result) => result,
        None => interrupted(&reached, &name, context).await,
    }
}

async fn deploy_and_stay(
    wanted: Wanted,
    detach: bool,
    reached: &Reached,
    context: &mut Context<'_>,
) -> Result<ExitCode, CommandError> {
    let client = &reached.client;
    let name = wanted.spec.project.clone();
    match deploy::send(client, wanted).await? {
        Accepted::Begun { deploy: Some(id), text } => {
            context.printer.remark(&text)?;
            let code = follow::deployment(client, context.printer, &name, id).await?;
            if code != ExitCode::Done {
                if !detach && reached.started {
                    context.printer.remark("stopping the daemon that this command started")?;
                    stop_all(reached).await?;
                }
                return Ok(code);
            }
        }
        other => deploy::said(context, &other)?,
    }
    if detach {
        return Ok(ExitCode::Done);
    }
    let what = if reached.started { "stops everything" } else { "leaves it running" };
    context.printer.remark(&format!("showing logs; Ctrl-C {what}"))?;
    let which = LogsQuery { project: name, follow: true, ..LogsQuery::default() };
    logs::follow(client, context.printer, which).await
}

/// Ctrl-C: what this command brought up goes down with it; what ran before stays.
async fn interrupted(
    reached: &Reached,
    name: &str,
    context: &mut Context<'_>,
) -> Result<ExitCode, CommandError> {
    if !reached.started {
        context
            .printer
            .remark(&format!("detached; `{name}` goes on, and `bulsa down -p {name}` stops it"))?;
        return Ok(ExitCode::Done);
    }
    context.printer.remark("stopping everything; Ctrl-C again leaves that to the daemon")?;
    match follow::unless_interrupted(stop_all(reached)).await {
        Some(result) => result.map(|()| ExitCode::Done),
        None => Ok(ExitCode::Done),
    }
}

/// Ends the daemon, and returns when nobody answers any more. The daemon itself bounds how long its replicas may take.
async fn stop_all(reached: &Reached) -> Result<(), CommandError> {
    accepted(reached.client.request(&Request::Shutdown).await?)?;
    let mut number = 0;
    while let Ok(snapshot) = reached.client.snapshot_after(number, SHUTDOWN_POLL).await {
        number = snapshot.number;
    }
    Ok(())
}
