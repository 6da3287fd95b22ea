//! `bulsa status`: how every project is; exit 6 when a service isn't as it should be.

mod since;

use std::{collections::BTreeMap, time::Duration};

use bulsa_core::wire::api::{NotifyView, ProjectView, ServiceState, ServiceView, SinceView, Snapshot};
use clap::Args;
use serde_json::Value;

use super::{
    context::Context,
    sources::{Drift, drift_of, drift_text},
    which::Purpose,
};
use crate::{
    output::{Cell, Clock, Table, Tone},
    report::{CommandError, ExitCode},
};

/// Show how every project is
#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    /// Also show how much of the last time each service was served: 1h, 30d, 2w
    #[arg(long, value_name = "TIME", value_parser = since::window)]
    since: Option<Duration>,
}

pub(super) async fn run(args: &StatusArgs, context: &mut Context<'_>) -> Result<ExitCode, CommandError> {
    let client = context.client().await?;
    let mut snapshot = client.snapshot().await?;
    if context.project.is_some() {
        let name = context.which_project(&snapshot, Purpose::Look)?;
        snapshot.projects.retain(|project| project.name == name);
    }
    let mut drifts = BTreeMap::new();
    for project in &snapshot.projects {
        drifts.insert(project.name.as_str(), drift_of(&client, project).await);
    }
    let mut views = BTreeMap::new();
    if let Some(window) = args.since {
        for project in &snapshot.projects {
            views.insert(project.name.as_str(), client.since(&project.name, window).await?);
        }
    }
    let here = context.directory.clone();
    context.printer.data(&with_more(&snapshot, &drifts, &views)?, |clock| {
        let notes = drifts.iter().map(|(name, drifts)| drift_text(name, drifts, &here));
        let since = views.values().map(|view| since::since_text(view, clock));
        status_text(&snapshot, clock) + &since.collect::<String>() + &notes.collect::<String>()
    })?;
    for warning in &snapshot.agent.warnings {
        context.printer.warning(warning)?;
    }
    let degraded = snapshot.projects.iter().any(ProjectView::degraded);
    Ok(if degraded { ExitCode::Degraded } else { ExitCode::Done })
}

/// The snapshot as JSON, each project with a list `drift` of the files that its live release was read from and that are
/// not as they were, and with how much of the time it was served where that was asked for.
fn with_more(
    snapshot: &Snapshot,
    drifts: &BTreeMap<&str, Vec<Drift>>,
    views: &BTreeMap<&str, SinceView>,
) -> Result<Value, CommandError> {
    let failed = |error: serde_json::Error| CommandError::bug("can't write JSON").cause(error);
    let mut value = serde_json::to_value(snapshot).map_err(failed)?;
    let projects = value.get_mut("projects").and_then(Value::as_array_mut);
    for project in projects.into_iter().flatten() {
        let name = project.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
        let drift = drifts.get(name.as_str()).map(Vec::as_slice).unwrap_or_default();
        let drift = serde_json::to_value(drift).map_err(failed)?;
        let since = views.get(name.as_str()).map(serde_json::to_value).transpose().map_err(failed)?;
        if let Some(fields) = project.as_object_mut() {
            fields.insert("drift".to_owned(), drift);
            fields.extend(since.map(|since| ("since".to_owned(), since)));
        }
    }
    Ok(value)
}

/// A snapshot for people.
pub(super) fn status_text(snapshot: &Snapshot, clock: &Clock) -> String {
    let mut text = String::new();
    for project in &snapshot.projects {
        text += &project_text(project, clock);
        text.push('\n');
    }
    if snapshot.projects.is_empty() {
        text += "no project runs\n\n";
    }
    text + &daemon_text(snapshot, clock)
}

fn project_text(project: &ProjectView, clock: &Clock) -> String {
    let live = match project.live.and_then(|id| project.releases.iter().find(|release| release.id == id)) {
        Some(release) => {
            format!(
                "r{} ({}) is live, made {} ago",
                release.id,
                release.color,
                clock.ago(release.created_at_ms)
            )
        }
        None => "nothing is live yet".to_owned(),
    };
    let mut text = format!("{}  {live}\n", Tone::Strong.paint(&project.name));
    if let Some(deployment) = project.deploying() {
        let began = clock.local_time(deployment.since_ms);
        let line = format!(
            "{} {} of r{}: {}, since {began}",
            deployment.kind, deployment.id, deployment.candidate, deployment.phase
        );
        text += &format!("{}\n", Tone::Warn.paint(&line));
    }
    let mut table = Table::new(&["SERVICE", "STATE", "READY", "RELEASE", "RESTARTS", "URL"]);
    for service in &project.services {
        table.row([
            Cell::from(&service.name),
            Cell::toned(state_text(service, clock), tone(service.state)),
            Cell::from(format!("{}/{}", service.ready, service.desired)),
            Cell::from(releases(service)),
            Cell::from(service.restarts),
            Cell::from(service.urls.join(" ")),
        ]);
    }
    text += &table.render();
    for service in &project.services {
        if let Some(reason) = &service.reason {
            text += &format!("{}: {reason}\n", service.name);
        }
        text += &held_text(service, clock);
    }
    text + &notify_text(&project.notify, clock)
}

/// A line for each URL whose messages don't arrive; nothing where all do.
fn notify_text(all: &[NotifyView], clock: &Clock) -> String {
    let mut text = String::new();
    for view in all.iter().filter(|view| view.error.is_some() || view.given_up > 0) {
        let sent = view.last_sent_at_ms.map_or_else(
            || "nothing was sent yet".to_owned(),
            |at| format!("the last was sent at {}", clock.local_time(at)),
        );
        text += &format!("{} to {}: {sent}", view.kind, view.target);
        if view.waiting > 0 {
            text += &format!(", {} events wait", view.waiting);
        }
        if view.given_up > 0 {
            let what = if view.kind == "heartbeat" { "calls failed" } else { "messages were given up" };
            text += &format!(", {} {what}", view.given_up);
        }
        if let Some(error) = &view.error {
            text += &format!("; {error}");
        }
        text += "; `bulsa notify test` tries it\n";
    }
    text
}

fn state_text(service: &ServiceView, clock: &Clock) -> String {
    match service.next_retry_at_ms {
        Some(at) if service.state.is_bad() => format!("{}, next try in {}", service.state, clock.until(at)),
        _ if service.held.is_some() => format!("{}, held", service.state),
        _ => service.state.to_string(),
    }
}

/// A line that says since when a service's requests are held, and how many there are; nothing where none is.
pub(super) fn held_text(service: &ServiceView, clock: &Clock) -> String {
    let (Some(held), name) = (&service.held, &service.name) else { return String::new() };
    let since = clock.local_time(held.since_ms);
    let how = if service.state == ServiceState::Stopped {
        "it is stopped, so they are answered with an error at once".to_owned()
    } else if held.in_force {
        format!("{} wait, {} from before are under way", held.waiting, held.in_flight)
    } else {
        "not every proxy does so yet".to_owned()
    };
    format!(
        "{name}: a human holds its requests since {since}; {how}; `bulsa hold off {name}` lets them out\n"
    )
}

/// The releases that its replicas are of, the live one first: `r3`, `r3 r2`.
fn releases(service: &ServiceView) -> String {
    let mut seen: Vec<u32> = Vec::new();
    for replica in &service.replicas {
        if replica.release > 0 && !seen.contains(&replica.release) {
            seen.push(replica.release);
        }
    }
    seen.iter().map(|id| format!("r{id}")).collect::<Vec<_>>().join(" ")
}

/// The colour of a state.
pub(super) fn tone(state: ServiceState) -> Tone {
    match state {
        ServiceState::Healthy => Tone::Good,
        ServiceState::Starting | ServiceState::Degraded => Tone::Warn,
        ServiceState::CrashLooping | ServiceState::Down => Tone::Bad,
        ServiceState::Stopped => Tone::Dim,
    }
}

fn daemon_text(snapshot: &Snapshot, clock: &Clock) -> String {
    let mut text = format!(
        "bulsa {}: keeper {}, agent {} up {}",
        snapshot.version,
        snapshot.keeper_pid,
        snapshot.agent.pid,
        clock.ago(snapshot.agent.started_at_ms)
    );
    for proxy in &snapshot.proxies {
        text += &format!(
            "; proxy g{} {} serves table {} ({} in flight, {} tunnels)",
            proxy.generation, proxy.pid, proxy.table, proxy.in_flight, proxy.tunnels
        );
        if proxy.access_log_dropped > 0 {
            text += &format!(", {} lines of its access log lost", proxy.access_log_dropped);
        }
    }
    if snapshot.proxies.is_empty() {
        text += "; no proxy is up";
    }
    Tone::Dim.paint(&text) + "\n"
}
