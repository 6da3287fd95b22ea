//! `bulsa stop`, `start`, `restart`, `scale`: a human's wishes about one service.
//!
//! Each returns when what was asked is so, or says after [`ACT_MAX`] that it isn't yet.

use std::{collections::BTreeSet, time::Duration};

use bulsa_core::wire::api::{Request, ServiceState, ServiceView, Snapshot};
use clap::Args;

use super::{
    context::{Accepted, Context, accepted},
    follow,
    which::Purpose,
};
use crate::{
    client::Client,
    report::{CommandError, ExitCode},
};

/// How long a command waits for what it asked. The daemon goes on by itself.
const ACT_MAX: Duration = Duration::from_secs(300);

/// A service of a project.
#[derive(Debug, Args)]
pub(super) struct ServiceArgs {
    /// The service's name in the compose file
    service: String,
    /// Return at once
    #[arg(short, long)]
    detach: bool,
}

/// Change how many replicas a service has
#[derive(Debug, Args)]
pub(super) struct ScaleArgs {
    /// The service and its number of replicas
    #[arg(value_name = "SERVICE=N", value_parser = scaled)]
    wanted: (String, u32),
    /// Return at once
    #[arg(short, long)]
    detach: bool,
}

/// What is waited for.
struct Goal {
    project: String,
    service: String,
    detach: bool,
    /// Whether it is so.
    reached: Box<dyn Fn(&ServiceView) -> bool>,
}

pub(super) async fn stop(args: ServiceArgs, context: &mut Context<'_>) -> Result<ExitCode, CommandError> {
    let (client, project, _) = find(&args.service, context).await?;
    let request = Request::Stop { project: project.clone(), service: args.service.clone() };
    let reached = |service: &ServiceView| service.state == ServiceState::Stopped && running(service) == 0;
    let goal = Goal { project, service: args.service, detach: args.detach, reached: Box::new(reached) };
    act(&client, request, goal, context).await
}

pub(super) async fn start(args: ServiceArgs, context: &mut Context<'_>) -> Result<ExitCode, CommandError> {
    let (client, project, _) = find(&args.service, context).await?;
    let request = Request::Start { project: project.clone(), service: args.service.clone() };
    let reached = |service: &ServiceView| service.state == ServiceState::Healthy;
    let goal = Goal { project, service: args.service, detach: args.detach, reached: Box::new(reached) };
    act(&client, request, goal, context).await
}

pub(super) async fn restart(args: ServiceArgs, context: &mut Context<'_>) -> Result<ExitCode, CommandError> {
    let (client, project, before) = find(&args.service, context).await?;
    // Those of a warm release stay: the service is restarted where users see it. Live ones come first.
    let live = before.replicas.first().map(|replica| replica.release);
    let old: BTreeSet<String> = before
        .replicas
        .into_iter()
        .filter(|replica| Some(replica.release) == live)
        .map(|replica| replica.id)
        .collect();
    let request = Request::Restart { project: project.clone(), service: args.service.clone() };
    let reached = move |service: &ServiceView| {
        service.state == ServiceState::Healthy
            && service.replicas.iter().all(|replica| !old.contains(&replica.id))
    };
    let goal = Goal { project, service: args.service, detach: args.detach, reached: Box::new(reached) };
    act(&client, request, goal, context).await
}

pub(super) async fn scale(args: ScaleArgs, context: &mut Context<'_>) -> Result<ExitCode, CommandError> {
    let (service, replicas) = args.wanted;
    let (client, project, _) = find(&service, context).await?;
    let request = Request::Scale { project: project.clone(), service: service.clone(), replicas };
    let reached = move |service: &ServiceView| {
        let settled = matches!(service.state, ServiceState::Healthy | ServiceState::Stopped);
        settled && service.desired == replicas && service.ready == replicas
    };
    let goal = Goal { project, service, detach: args.detach, reached: Box::new(reached) };
    act(&client, request, goal, context).await
}

/// The daemon, the project, and the service as it is now.
async fn find(service: &str, context: &Context<'_>) -> Result<(Client, String, ServiceView), CommandError> {
    let client = context.client().await?;
    let snapshot = client.snapshot().await?;
    let name = context.which_project(&snapshot, Purpose::Change)?;
    let project = snapshot.project(&name);
    match project.and_then(|project| project.service(service)) {
        Some(view) => Ok((client, name, view.clone())),
        None => {
            let names = project.into_iter().flat_map(|project| &project.services).map(|s| s.name.as_str());
            let error = CommandError::user(format!("`{name}` has no service `{service}`"));
            Err(match bulsa_core::compose::diagnostic::nearest(service, names) {
                Some(near) => error.hint(format!("did you mean `{near}`?")),
                None => error.hint("`bulsa ps` lists the services"),
            })
        }
    }
}

async fn act(
    client: &Client,
    request: Request,
    goal: Goal,
    context: &mut Context<'_>,
) -> Result<ExitCode, CommandError> {
    let text = match accepted(client.request(&request).await?)? {
        Accepted::Already { text, .. } => {
            context.say(&text)?;
            return Ok(ExitCode::Done);
        }
        Accepted::Begun { deploy: Some(id), text, .. } if !goal.detach => {
            context.printer.remark(&text)?;
            return follow::deployment(client, context.printer, &goal.project, id).await;
        }
        Accepted::Begun { text, .. } => text,
    };
    if goal.detach {
        context.say(&text)?;
        return Ok(ExitCode::Done);
    }
    context.printer.remark(&text)?;
    let view =
        |snapshot: &Snapshot| snapshot.project(&goal.project).and_then(|p| p.service(&goal.service)).cloned();
    let reached = follow::until(client, ACT_MAX, |snapshot| {
        // A service that is gone, with its project, is as stopped as it can be, and will never be anything else.
        view(snapshot).map_or(Some(None), |service| (goal.reached)(&service).then_some(Some(service)))
    });
    match reached.await? {
        Some(Some(service)) => {
            let text =
                format!("{}: {}, {}/{} ready", service.name, service.state, service.ready, service.desired);
            context.printer.data(&service, |_| text)?;
            Ok(ExitCode::Done)
        }
        Some(None) => Err(CommandError::user(format!("`{}` is gone from `{}`", goal.service, goal.project))),
        None => {
            let text =
                format!("`{}` is not there after {} s; the daemon goes on", goal.service, ACT_MAX.as_secs());
            Err(CommandError::user(text).hint(format!("see `bulsa ps` and `bulsa logs {}`", goal.service)))
        }
    }
}

/// Replicas with a living process.
fn running(service: &ServiceView) -> usize {
    service.replicas.iter().filter(|replica| replica.pid.is_some()).count()
}

fn scaled(text: &str) -> Result<(String, u32), String> {
    let wrong = || "expected SERVICE=N, like `web=3`".to_owned();
    let (service, number) = text.split_once('=').ok_or_else(wrong)?;
    let number = number.parse().map_err(|_| wrong())?;
    if service.is_empty() { Err(wrong()) } else { Ok((service.to_owned(), number)) }
}

#[cfg(test)]
mod tests {
    #[test]
    fn scale_takes_a_service_and_a_number() {
        assert_eq!(super::scaled("web=3"), Ok(("web".to_owned(), 3)));
        for bad in ["web", "web=", "=3", "web=-1", "web=three"] {
            assert!(super::scaled(bad).is_err(), "{bad}");
        }
    }
}
