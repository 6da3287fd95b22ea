//! Desired state to rows of the store and back.
//!
//! Owns: what a committed change means on the disk. A change is written as the difference between the state before
//! and after it, so that no change can be forgotten here. Never: writes.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use bulsa_core::{
    decide::{Deployment, Desired, ExitStatus, Kind, Outcome, Phase, Release, ReleaseState, Wish},
    ids::{ReleaseId, Slot},
    notify::memory::Settings,
    spec::Spec,
    time::Timestamp,
    wire::{api::DeploymentRow, spec::SpecV1},
};

use crate::agent::store::{Change, ProjectRow, ReleaseRow, SlotRow, WishRow};

/// What is kept beside a release for people.
#[derive(Clone, Debug, Default)]
pub(super) struct About {
    /// The files that it was read from, as JSON.
    pub(super) sources: String,
    /// When it was made.
    pub(super) created_at_ms: u64,
    /// Who is told from here on, where the file says it anew.
    pub(super) notify: Option<Settings>,
}

/// The rows that turn `before` into `after`.
pub(super) fn difference(
    project: &str,
    before: &Desired,
    after: &Desired,
    about: &About,
) -> Result<Vec<Change>, serde_json::Error> {
    let mut changes = Vec::new();
    for (id, release) in &after.releases {
        match before.releases.get(id) {
            None => changes.push(Change::SaveRelease(release_row(project, *id, release, about)?)),
            Some(old) if state_text(old) != state_text(release) => {
                changes.push(Change::SetReleaseState {
                    project: project.to_owned(),
                    release: id.0,
                    state: state_text(release),
                });
            }
            Some(_) => {}
        }
    }
    let forgotten = before.releases.keys().filter(|id| !after.releases.contains_key(id));
    changes.extend(forgotten.map(|id| Change::DeleteRelease { project: project.to_owned(), release: id.0 }));
    if before.live != after.live {
        let release = after.live.map(|id| id.0);
        changes.push(Change::SetLive { project: project.to_owned(), release });
    }
    if before.deployment != after.deployment {
        let ended = before
            .deployment
            .as_ref()
            .filter(|old| old.is_running() && after.deployment.as_ref().is_none_or(|new| new.id != old.id));
        let rows = ended.into_iter().chain(&after.deployment);
        changes.extend(rows.map(|deployment| Change::SaveDeployment(deployment_row(project, deployment))));
    }
    wishes(project, before, after, &mut changes);
    changes.extend(
        after
            .withheld
            .difference(&before.withheld)
            .map(|slot| Change::Withhold { project: project.to_owned(), slot: slot_row(slot) }),
    );
    changes.extend(
        before
            .withheld
            .difference(&after.withheld)
            .map(|slot| Change::Reinstate { project: project.to_owned(), slot: slot_row(slot) }),
    );
    if before.deployment.as_ref().map(recreates_text) != after.deployment.as_ref().map(recreates_text) {
        let text = after.deployment.as_ref().and_then(recreates_text);
        changes.push(value(project, RECREATES, text));
    }
    for (service, release) in &after.made_for {
        if before.made_for.get(service) != Some(release) {
            let key = format!("{MADE_FOR}{service}");
            changes.push(value(project, &key, Some(release.0.to_string())));
        }
    }
    for ((release, service), success) in &after.jobs {
        if before.jobs.get(&(*release, service.clone())) != Some(success) {
            changes.push(value(project, &job_key(*release, service), Some(success.to_string())));
        }
    }
    for (release, service) in before.jobs.keys() {
        if !after.jobs.contains_key(&(*release, service.clone())) {
            changes.push(value(project, &job_key(*release, service), None));
        }
    }
    if before.down != after.down {
        changes.push(value(project, DOWN, after.down.then(|| "true".to_owned())));
    }
    if let Some(settings) = &about.notify {
        changes.push(notify_change(project, settings)?);
    }
    Ok(changes)
}

/// The key under which it is kept which `shared` services the last deployment recreates.
const RECREATES: &str = "recreates";

/// Before the name of a `shared` service that was recreated: the release that did it.
const MADE_FOR: &str = "made_for:";

/// `DEPLOYMENT SERVICE …`: no service's name has a space in it.
fn recreates_text(deployment: &Deployment) -> Option<String> {
    let names: Vec<&str> = deployment.recreates.iter().map(String::as_str).collect();
    (!names.is_empty()).then(|| format!("{} {}", deployment.id, names.join(" ")))
}

/// The key under which it is kept who is told of a project.
const NOTIFY: &str = "notify";

/// Who is told of a project, to be kept.
pub(super) fn notify_change(project: &str, settings: &Settings) -> Result<Change, serde_json::Error> {
    Ok(value(project, NOTIFY, Some(serde_json::to_string(settings)?)))
}

/// Who is told of a project, as it was kept.
pub(super) fn notify_from(values: &[(String, String)]) -> Option<Result<Settings, serde_json::Error>> {
    let (_, text) = values.iter().find(|(key, _)| key == NOTIFY)?;
    Some(serde_json::from_str(text))
}

/// The key under which it is kept that a project goes down.
const DOWN: &str = "down";

fn value(project: &str, key: &str, value: Option<String>) -> Change {
    Change::SetValue { project: project.to_owned(), key: key.to_owned(), value }
}

fn job_key(release: ReleaseId, service: &str) -> String {
    format!("job:{}:{service}", release.0)
}

fn release_row(
    project: &str,
    id: ReleaseId,
    release: &Release,
    about: &About,
) -> Result<ReleaseRow, serde_json::Error> {
    Ok(ReleaseRow {
        project: project.to_owned(),
        id: id.0,
        spec: serde_json::to_string(&SpecV1::from(release.spec.as_ref()))?,
        content_hash: release.hash.clone(),
        sources: about.sources.clone(),
        created_at_ms: about.created_at_ms,
        state: state_text(release),
    })
}

fn slot_row(slot: &Slot) -> SlotRow {
    SlotRow { release: slot.release.0, service: slot.service.clone(), ordinal: slot.ordinal }
}

fn wishes(project: &str, before: &Desired, after: &Desired, changes: &mut Vec<Change>) {
    for (service, wish) in &after.wishes {
        let old = before.wish(service);
        let mut set = |kind: &str, was: Option<String>, is: Option<String>| {
            if was == is {
                return;
            }
            let (project, service, kind) = (project.to_owned(), service.clone(), kind.to_owned());
            changes.push(match is {
                Some(value) => {
                    let since = if kind == HELD { wish.held } else { wish.restart };
                    let at_ms = since.unwrap_or_default().0;
                    Change::SetWish(WishRow { project, service, kind, value, at_ms })
                }
                None => Change::ClearWish { project, service, kind },
            });
        };
        let stopped = |wish: Wish| wish.stopped.then(String::new);
        set("stopped", stopped(old), stopped(*wish));
        set("scale", old.replicas.map(|n| n.to_string()), wish.replicas.map(|n| n.to_string()));
        set("restart", old.restart.map(|at| at.0.to_string()), wish.restart.map(|at| at.0.to_string()));
        set(HELD, old.held.map(|at| at.0.to_string()), wish.held.map(|at| at.0.to_string()));
    }
}

/// The kind of wish that a service's requests wait; its value is since when.
const HELD: &str = "held";

/// Whether a release in this state has been proven where its text doesn't say: as it mostly is, and as it was taken to
/// be by those who wrote no such word.
const fn is_mostly_proven(state: ReleaseState) -> bool {
    !matches!(state, ReleaseState::Candidate | ReleaseState::Failed)
}

fn state_text(release: &Release) -> String {
    let mut text = match release.state {
        ReleaseState::Candidate => "candidate".to_owned(),
        ReleaseState::Live => "live".to_owned(),
        ReleaseState::Warm { since, until } => format!("warm {} {}", since.0, until.0),
        ReleaseState::Retired => "retired".to_owned(),
        ReleaseState::Failed => "failed".to_owned(),
    };
    if release.proven != is_mostly_proven(release.state) {
        text.push_str(if release.proven { " proven" } else { " unproven" });
    }
    text
}

fn proven_from(text: &str, state: ReleaseState) -> bool {
    match text.rsplit(' ').next() {
        Some("proven") => true,
        Some("unproven") => false,
        _ => is_mostly_proven(state),
    }
}

/// How a replica ended, as the ledger keeps it for the next agent.
pub(super) fn status_text(status: ExitStatus) -> Option<String> {
    match status {
        ExitStatus::Code(code) => Some(format!("code {code}")),
        ExitStatus::Signal(signal) => Some(format!("signal {signal}")),
        ExitStatus::Unknown => None,
    }
}

/// The same, read back.
pub(super) fn status_from(text: Option<&str>) -> ExitStatus {
    let read = || {
        let (kind, number) = text?.split_once(' ')?;
        let number = number.parse().ok()?;
        match kind {
            "code" => Some(ExitStatus::Code(number)),
            "signal" => Some(ExitStatus::Signal(number)),
            _ => None,
        }
    };
    read().unwrap_or(ExitStatus::Unknown)
}

fn state_from(text: &str) -> Option<ReleaseState> {
    let mut words = text.split(' ');
    Some(match words.next()? {
        "candidate" => ReleaseState::Candidate,
        "live" => ReleaseState::Live,
        "warm" => ReleaseState::Warm {
            since: Timestamp(words.next()?.parse().ok()?),
            until: Timestamp(words.next()?.parse().ok()?),
        },
        "retired" => ReleaseState::Retired,
        "failed" => ReleaseState::Failed,
        _ => return None,
    })
}

/// A line of the deploy journal.
fn deployment_row(project: &str, deployment: &Deployment) -> DeploymentRow {
    let mut row = DeploymentRow {
        project: project.to_owned(),
        id: deployment.id,
        kind: kind_text(deployment.kind).to_owned(),
        candidate: deployment.candidate.0,
        previous: deployment.previous.map(|id| id.0),
        phase: String::new(),
        started_at_ms: deployment.started.0,
        ..DeploymentRow::default()
    };
    match &deployment.phase {
        Phase::Gate => "gate".clone_into(&mut row.phase),
        Phase::Exchange { since, moved } => {
            row.phase = format!("stop_first {}", since.0);
            for (service, replicas) in moved {
                row.phase.push_str(&format!(" {service}={replicas}"));
            }
        }
        Phase::Revert { since, reason, seen } => {
            row.phase = format!("revert {} {seen}", since.0);
            row.reason = Some(reason.clone());
        }
        Phase::Bake { switched } => {
            "bake".clone_into(&mut row.phase);
            row.switched_at_ms = Some(switched.0);
        }
        Phase::Done { outcome, reason, at } => {
            "done".clone_into(&mut row.phase);
            row.finished_at_ms = Some(at.0);
            row.outcome = Some(wire_outcome(*outcome).to_string());
            row.reason = (!reason.is_empty()).then(|| reason.clone());
        }
    }
    row
}

/// The core's word for an outcome as the API shows it.
pub(super) const fn wire_outcome(outcome: Outcome) -> bulsa_core::wire::api::Outcome {
    match outcome {
        Outcome::Deployed => bulsa_core::wire::api::Outcome::Deployed,
        Outcome::RolledBack => bulsa_core::wire::api::Outcome::RolledBack,
        Outcome::Failed => bulsa_core::wire::api::Outcome::Failed,
    }
}

const fn kind_text(kind: Kind) -> &'static str {
    match kind {
        Kind::First => "first",
        Kind::Deploy => "deploy",
        Kind::Rollback => "rollback",
    }
}

/// `stop_first SINCE SERVICE=REPLICAS …`: no service's name has a space in it.
fn exchange_from(text: &str) -> Option<Phase> {
    let mut words = text.split(' ').skip(1);
    let since = Timestamp(words.next()?.parse().ok()?);
    let moved = words.map(|word| {
        let (service, replicas) = word.rsplit_once('=')?;
        Some((service.to_owned(), replicas.parse().ok()?))
    });
    Some(Phase::Exchange { since, moved: moved.collect::<Option<_>>()? })
}

/// `revert SINCE SEEN`
fn revert_from(text: &str, reason: String) -> Option<Phase> {
    let mut words = text.split(' ').skip(1);
    let since = Timestamp(words.next()?.parse().ok()?);
    Some(Phase::Revert { since, reason, seen: words.next()? == "true" })
}

fn deployment_from(row: &DeploymentRow) -> Option<Deployment> {
    let at = |ms: Option<u64>| ms.map(Timestamp);
    let phase = match row.phase.split(' ').next()? {
        "gate" => Phase::Gate,
        "stop_first" => exchange_from(&row.phase)?,
        "revert" => revert_from(&row.phase, row.reason.clone().unwrap_or_default())?,
        "bake" => Phase::Bake { switched: at(row.switched_at_ms)? },
        "done" => Phase::Done {
            outcome: match bulsa_core::wire::api::Outcome::from_text(row.outcome.as_deref()?)? {
                bulsa_core::wire::api::Outcome::Deployed => Outcome::Deployed,
                bulsa_core::wire::api::Outcome::RolledBack => Outcome::RolledBack,
                _ => Outcome::Failed,
            },
            reason: row.reason.clone().unwrap_or_default(),
            at: at(row.finished_at_ms)?,
        },
        _ => return None,
    };
    Some(Deployment {
        id: row.id,
        kind: match row.kind.as_str() {
            "first" => Kind::First,
            "rollback" => Kind::Rollback,
            _ => Kind::Deploy,
        },
        candidate: ReleaseId(row.candidate),
        previous: row.previous.map(ReleaseId),
        // They are among the project's values.
        recreates: BTreeSet::new(),
        started: Timestamp(row.started_at_ms),
        phase,
    })
}

/// What a project should be, as the store has it. What can't be read is named; it is left out.
pub(super) fn restore(row: &ProjectRow, problems: &mut Vec<String>) -> Desired {
    let mut desired = Desired { live: row.live.map(ReleaseId), ..Desired::default() };
    for release in &row.releases {
        match (read_spec(&release.spec), state_from(&release.state)) {
            (Ok(spec), Some(state)) => {
                let (spec, hash) = (Arc::new(spec), release.content_hash.clone());
                let proven = proven_from(&release.state, state);
                desired.releases.insert(ReleaseId(release.id), Release { spec, hash, state, proven });
            }
            (Err(error), _) => {
                problems.push(format!("release r{} of `{}` can't be read: {error}", release.id, row.name));
            }
            (_, None) => problems.push(format!(
                "release r{} of `{}` is in the state `{}`, which this version doesn't know",
                release.id, row.name, release.state
            )),
        }
    }
    desired.deployment = row.deployments.last().and_then(deployment_from);
    for wish in &row.wishes {
        let entry = desired.wishes.entry(wish.service.clone()).or_default();
        match wish.kind.as_str() {
            "stopped" => entry.stopped = true,
            "scale" => entry.replicas = wish.value.parse().ok(),
            "restart" => entry.restart = wish.value.parse().ok().map(Timestamp),
            HELD => entry.held = wish.value.parse().ok().map(Timestamp),
            other => problems.push(format!("a wish of the kind `{other}` for `{}` is unknown", wish.service)),
        }
    }
    desired.withheld.extend(row.withheld.iter().map(|row| Slot {
        release: ReleaseId(row.release),
        service: row.service.clone(),
        ordinal: row.ordinal,
    }));
    restore_values(&row.values, &mut desired);
    desired
}

fn restore_values(values: &[(String, String)], desired: &mut Desired) {
    for (key, value) in values {
        if key == DOWN {
            desired.down = value == "true";
        } else if key == RECREATES {
            let (id, names) = value.split_once(' ').unwrap_or_default();
            if let Some(deployment) = desired.deployment.as_mut().filter(|one| one.id.to_string() == id) {
                deployment.recreates = names.split(' ').map(str::to_owned).collect();
            }
        } else if let Some(service) = key.strip_prefix(MADE_FOR)
            && let Ok(release) = value.parse()
        {
            desired.made_for.insert(service.to_owned(), ReleaseId(release));
        } else if let Some((release, service)) =
            key.strip_prefix("job:").and_then(|rest| rest.split_once(':'))
            && let Ok(release) = release.parse()
        {
            desired.jobs.insert((ReleaseId(release), service.to_owned()), value == "true");
        }
    }
}

fn read_spec(text: &str) -> Result<Spec, String> {
    let wire: SpecV1 = serde_json::from_str(text).map_err(|error| error.to_string())?;
    Spec::try_from(wire).map_err(|error| error.to_string())
}

/// A duration as people write it: `30 s`, `1.5 s`, `250 ms`.
pub(super) fn human(duration: Duration) -> String {
    if duration < Duration::from_secs(1) {
        format!("{} ms", duration.as_millis())
    } else if duration.subsec_millis() == 0 {
        format!("{} s", duration.as_secs())
    } else {
        format!("{:.1} s", duration.as_secs_f64())
    }
}

#[cfg(test)]
mod tests;
