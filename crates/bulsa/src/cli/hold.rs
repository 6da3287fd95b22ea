//! `bulsa hold on|off`: new requests wait in the proxy, or are let out.
//!
//! Owns: the wait until every proxy does so. Never: gives up what was asked when that takes long: the wish is stored, and
//! holds over deploys and restarts of the daemon.

use std::time::Duration;

use bulsa_core::wire::api::{ProjectView, Request, ServiceView, Snapshot};
use clap::{Args, ValueEnum};
use serde_json::json;

use super::{
    context::{Accepted, Context, accepted},
    follow,
    which::Purpose,
};
use crate::report::{CommandError, ExitCode};

/// How long the command waits for the proxies: longer than one that is silent lives, and its successor needs to start.
const HOLD_MAX: Duration = Duration::from_secs(30);

/// Let new requests wait in the proxy, or let them out
#[derive(Debug, Args)]
pub(super) struct HoldArgs {
    /// Whether requests are to wait
    #[arg(value_name = "on|off", hide_possible_values = true)]
    state: State,
    /// The services' names in the compose file [default: every one that the proxy serves]
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum State {
    /// They wait
    On,
    /// They are let out
    Off,
}

pub(super) async fn run(args: HoldArgs, context: &mut Context<'_>) -> Result<ExitCode, CommandError> {
    let client = context.client().await?;
    let snapshot = client.snapshot().await?;
    let name = context.which_project(&snapshot, Purpose::Change)?;
    let before = snapshot.project(&name).map(held_of).unwrap_or_default();
    let on = args.state == State::On;
    let request = Request::Hold { project: name.clone(), services: args.services.clone(), on };
    match accepted(client.request(&request).await?)? {
        Accepted::Already { text, .. } => {
            context.say(&text)?;
            return Ok(ExitCode::Done);
        }
        Accepted::Begun { text, notes, .. } => {
            context.printer.remark(&text)?;
            for note in notes {
                context.printer.remark(&note)?;
            }
        }
    }
    let reached = |snapshot: &Snapshot| match snapshot.project(&name) {
        // One that is gone holds nothing, and will never do so.
        None => Some(None),
        Some(project) => is_so(project, &args.services, on).then(|| Some(project.services.clone())),
    };
    match follow::until(&client, HOLD_MAX, reached).await? {
        Some(Some(services)) => {
            let is_asked = |service: &ServiceView| match args.services.is_empty() {
                true if on => service.held.is_some(),
                true => before.contains(&service.name),
                false => args.services.contains(&service.name),
            };
            let services: Vec<ServiceView> = services.into_iter().filter(is_asked).collect();
            let object = json!({ "project": name, "on": on, "services": &services });
            context.printer.data(&object, |_| done_text(&services, on))?;
            Ok(ExitCode::Done)
        }
        Some(None) => Err(CommandError::user(format!("`{name}` is gone: it was taken down meanwhile"))),
        None => {
            let text = format!(
                "not every proxy does so after {} s; it is recorded, and the daemon goes on",
                HOLD_MAX.as_secs()
            );
            Err(CommandError::user(text).hint("see `bulsa status`; until then some requests may get through"))
        }
    }
}

fn held_of(project: &ProjectView) -> Vec<String> {
    let held = project.services.iter().filter(|service| service.held.is_some());
    held.map(|service| service.name.clone()).collect()
}

/// Whether the proxies do what was asked; where no service is named it was asked of those that are held now.
fn is_so(project: &ProjectView, named: &[String], on: bool) -> bool {
    let mut asked =
        project.services.iter().filter(|service| named.is_empty() || named.contains(&service.name));
    asked.all(|service| match service.held {
        None => !on || named.is_empty(),
        Some(held) => on && held.in_force,
    })
}

fn done_text(services: &[ServiceView], on: bool) -> String {
    let line = |service: &ServiceView| match (&service.held, on) {
        (Some(held), true) => format!("{}: held, {} from before are under way", service.name, held.in_flight),
        _ => format!("{}: not held", service.name),
    };
    services.iter().map(line).collect::<Vec<_>>().join("\n")
}
