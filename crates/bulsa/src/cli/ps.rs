//! `bulsa ps`: every replica.

use bulsa_core::wire::api::{HeldView, ProjectView, ReplicaView};
use clap::Args;
use serde::Serialize;

use super::{context::Context, status::held_text, which::Purpose};
use crate::{
    output::{Cell, Clock, Table, Tone},
    report::{CommandError, ExitCode},
};

/// Show every replica
#[derive(Debug, Args)]
pub(super) struct PsArgs {
    /// Only this service
    service: Option<String>,
}

/// One replica with the names of what it belongs to.
#[derive(Debug, Serialize)]
struct Row<'a> {
    project: &'a str,
    service: &'a str,
    /// Of its service.
    held: Option<&'a HeldView>,
    replica: &'a ReplicaView,
}

pub(super) async fn run(args: &PsArgs, context: &mut Context<'_>) -> Result<ExitCode, CommandError> {
    let client = context.client().await?;
    let mut snapshot = client.snapshot().await?;
    if context.project.is_some() {
        let name = context.which_project(&snapshot, Purpose::Look)?;
        snapshot.projects.retain(|project| project.name == name);
    }
    if let Some(service) = &args.service {
        let known = snapshot.projects.iter().any(|project| project.service(service).is_some());
        if !known {
            return Err(CommandError::user(format!("there is no service `{service}`"))
                .hint("`bulsa status` lists the services"));
        }
        for project in &mut snapshot.projects {
            project.services.retain(|view| view.name == *service);
        }
    }
    let rows: Vec<Row<'_>> = snapshot.projects.iter().flat_map(rows).collect();
    context.printer.data(&rows, |clock| ps_text(&snapshot.projects, clock))?;
    Ok(ExitCode::Done)
}

fn rows(project: &ProjectView) -> impl Iterator<Item = Row<'_>> {
    project.services.iter().flat_map(|service| {
        service.replicas.iter().map(|replica| Row {
            project: &project.name,
            service: &service.name,
            held: service.held.as_ref(),
            replica,
        })
    })
}

/// The replicas for people.
pub(super) fn ps_text(projects: &[ProjectView], clock: &Clock) -> String {
    let several = projects.len() > 1;
    let mut headings = vec!["REPLICA", "STATE", "HEALTH", "PID", "ADDRESS", "SINCE", "RESTARTS", "LAST EXIT"];
    if several {
        headings.insert(0, "PROJECT");
    }
    let mut table = Table::new(&headings);
    for project in projects {
        for replica in project.services.iter().flat_map(|service| &service.replicas) {
            let project = several.then(|| Cell::from(&project.name));
            table.row(project.into_iter().chain(cells(replica, clock)));
        }
    }
    let services = projects.iter().flat_map(|project| &project.services);
    table.render() + &services.map(|service| held_text(service, clock)).collect::<String>()
}

fn cells(replica: &ReplicaView, clock: &Clock) -> [Cell; 8] {
    let pid = replica.pid.map(|pid| pid.to_string());
    [
        Cell::from(&replica.name),
        Cell::toned(&replica.state, state_tone(&replica.state)),
        Cell::from(&replica.health),
        Cell::from(pid.unwrap_or_default()),
        Cell::from(replica.addr.as_deref().unwrap_or_default()),
        Cell::from(clock.ago(replica.since_ms)),
        Cell::from(replica.restarts),
        Cell::from(replica.last_exit.as_deref().unwrap_or_default()),
    ]
}

fn state_tone(state: &str) -> Tone {
    match state {
        "ready" | "running" | "spare" => Tone::Good,
        "starting" | "draining" | "stopping" => Tone::Warn,
        "waiting" | "failed" | "hung" => Tone::Bad,
        _ => Tone::Plain,
    }
}
