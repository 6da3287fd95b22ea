//! A deploy's way: gate, switch, bake, retire.
//!
//! Owns: when a deployment takes its next step, and when it is given up. Never: starts or stops a replica; that
//! follows from the step, in `wanted` and `slots`.

mod bake;
mod fall_back;
mod recreate;

use std::{collections::BTreeMap, time::Duration};

use self::bake::{badness, bake};
pub(super) use self::fall_back::fall_back;
pub use self::fall_back::{FALL_BACK_DEATHS, FALL_BACK_WITHIN, FallBack};
use super::{
    Decision, ExitStatus, PROXY_SILENCE_MAX, RESEND,
    desired::{Change, Deployment, Desired, Kind, Outcome, Phase, Release, ReleaseState, bake_time},
    humans::is_away,
    observed::{Observed, SlotHistory},
    table::TUNNEL_CLOSE_MARGIN,
    wanted::{Want, awaiting_takeover},
};
use crate::{
    health::Verdict,
    ids::{ReleaseId, Slot},
    spec::{Handover, Restart, Role, Service},
    time::Timestamp,
};

/// A candidate's slot that died this often before it was ever ready is given up before its gate's deadline.
pub(super) const GATE_DEATHS_MAX: u32 = 3;

/// How a service of the candidate stands before its gate.
enum Standing {
    Passed,
    Waiting,
    Failed(String),
}

/// Takes the running deployment one step further, if a step is due.
pub(super) fn deployment(
    desired: &Desired,
    observed: &Observed,
    wanted: &BTreeMap<Slot, Want<'_>>,
    now: Timestamp,
    decision: &mut Decision,
) {
    let Some(deployment) = desired.running() else { return };
    if desired.down {
        return;
    }
    let step = match deployment.phase {
        Phase::Gate | Phase::Exchange { .. } => gate(desired, observed, wanted, deployment, now, decision),
        Phase::Revert { since, ref reason, .. } => {
            recreate::come_back(desired, observed, deployment, (since, reason), now, decision)
        }
        Phase::Bake { switched } => bake(desired, observed, deployment, switched, now, decision),
        Phase::Done { .. } => None,
    };
    decision.commits.extend(step);
}

fn gate(
    desired: &Desired,
    observed: &Observed,
    wanted: &BTreeMap<Slot, Want<'_>>,
    deployment: &Deployment,
    now: Timestamp,
    decision: &mut Decision,
) -> Option<Change> {
    let candidate = desired.releases.get(&deployment.candidate)?;
    let mut all_passed = true;
    let awaiting = awaiting_takeover(desired);
    for service in candidate.spec.services.values().filter(|s| !awaiting.contains(s.name.as_str())) {
        match stand(desired, observed, wanted, deployment, service) {
            Standing::Passed => {}
            Standing::Waiting => all_passed = false,
            Standing::Failed(reason) => return Some(give_up(deployment, reason, now)),
        }
        if let Some(reason) = overdue(desired, observed, deployment, service, now, decision)
            .or_else(|| seen_badness(desired, observed, deployment, service))
        {
            return Some(give_up(deployment, reason, now));
        }
        if let Some(change) = roll(desired, observed, deployment.candidate, service, now, decision) {
            return Some(change);
        }
    }
    if !all_passed {
        let since = gated_since(observed, deployment, candidate)?;
        let deadline = since + longest_gate(desired, candidate);
        if deadline <= now {
            let reason = "its services were not all healthy within the sum of their gates".to_owned();
            return Some(give_up(deployment, reason, now));
        }
        decision.wake(deadline);
        return None;
    }
    if deployment.kind == Kind::First {
        return Some(Change::Finish { outcome: Outcome::Deployed, reason: String::new(), at: now });
    }
    Some(if awaiting.is_empty() { Change::Switch { at: now } } else { Change::Exchange { at: now } })
}

/// The next step of a rolling service, once all of this one serve and have done so for its delay. The last step ends with
/// the switch.
fn roll(
    desired: &Desired,
    observed: &Observed,
    candidate: ReleaseId,
    service: &Service,
    now: Timestamp,
    decision: &mut Decision,
) -> Option<Change> {
    let step = desired.roll_step(&service.name).filter(|step| step.until < desired.replicas(service))?;
    let mut since = Timestamp::default();
    for slot in desired.slots(candidate, service).filter(|slot| slot.ordinal <= step.until) {
        let serving = observed.in_slot(&slot).filter(|(_, replica)| replica.serves(service));
        let ready = serving.filter_map(|(_, replica)| replica.health.ready_since()).min()?;
        since = since.max(ready);
    }
    let due = since + step.rolling.delay;
    if now < due {
        decision.wake(due);
        return None;
    }
    Some(Change::Move { service: service.name.clone(), replicas: step.until })
}

/// Why a rolling service is bad whose first replicas users have met, if it is.
fn seen_badness(
    desired: &Desired,
    observed: &Observed,
    deployment: &Deployment,
    service: &Service,
) -> Option<String> {
    desired.roll_step(&service.name).filter(|step| step.done > 0)?;
    let releases = (deployment.candidate, deployment.previous);
    badness(desired, observed, releases, service, "while it was rolled out")
}

/// Since when the gate is waited for: its begin, or the end of its last job. None while a job runs: a migration takes as
/// long as it takes, and one that is cut off in the middle is worse than one that is slow.
fn gated_since(observed: &Observed, deployment: &Deployment, candidate: &Release) -> Option<Timestamp> {
    let mut since = deployment.started;
    for job in candidate.spec.services.values().filter(|service| service.role == Role::Job) {
        let slot = Slot { release: deployment.candidate, service: job.name.clone(), ordinal: 1 };
        if observed.in_slot(&slot).next().is_some() {
            return None;
        }
        since = since.max(observed.slot(&slot).map(SlotHistory::died_at).unwrap_or_default());
    }
    Some(since)
}

/// The longest that a whole gate may take: services may wait for one another, so it is the sum; and the candidate may
/// have to wait twice for others to leave: for the oldest release to make room, and for what is `stop_first`.
fn longest_gate(desired: &Desired, candidate: &Release) -> Duration {
    let leaves = |service: &Service| {
        service.drain.requests.max(service.drain.stagger + TUNNEL_CLOSE_MARGIN) + service.stop_grace
    };
    let others = desired.releases.values().flat_map(|release| release.spec.services.values());
    let longest_leave = others.map(leaves).max().unwrap_or_default() + PROXY_SILENCE_MAX + RESEND;
    let gate = |service: &Service| match service.handover {
        Handover::Overlap | Handover::StopFirst => service.gate_timeout,
        Handover::Rolling(how) => {
            let steps = desired.replicas(service).div_ceil(how.parallelism.max(1)).max(1);
            (service.gate_timeout + how.delay + longest_leave) * steps
        }
    };
    candidate.spec.services.values().map(gate).sum::<Duration>() + longest_leave * 2
}

fn give_up(deployment: &Deployment, reason: String, at: Timestamp) -> Change {
    match deployment.kind {
        // There is nothing to go back to: it stays, and healing goes on.
        Kind::First => Change::Finish { outcome: Outcome::Failed, reason, at },
        Kind::Deploy | Kind::Rollback if recreate::has_begun(deployment) => Change::Revert { reason, at },
        Kind::Deploy | Kind::Rollback => Change::Undo { reason, at },
    }
}

fn stand(
    desired: &Desired,
    observed: &Observed,
    wanted: &BTreeMap<Slot, Want<'_>>,
    deployment: &Deployment,
    service: &Service,
) -> Standing {
    let name = &service.name;
    let job = desired.jobs.get(&(deployment.candidate, name.clone())).filter(|_| service.role == Role::Job);
    let away = desired.slots(deployment.candidate, service).find(|slot| is_away(desired, observed, slot));
    if let Some(slot) = away.filter(|_| job.is_none()) {
        return Standing::Failed(format!(
            "`{name}` replica {} was stopped by a person before it had passed its gate",
            slot.ordinal
        ));
    }
    if service.role == Role::Job {
        return match job {
            Some(true) => Standing::Passed,
            Some(false) => Standing::Failed(job_failure(observed, deployment.candidate, name)),
            None => start_trouble(observed, deployment.candidate, name).unwrap_or(Standing::Waiting),
        };
    }
    let release = desired.slot_release(deployment.candidate, service);
    let slots: Vec<&Slot> =
        wanted.keys().filter(|slot| slot.release == release && slot.service == *name).collect();
    let is_ready = |slot: &Slot| observed.in_slot(slot).any(|(_, replica)| replica.serves(service));
    let wanted_now = u32::try_from(slots.len()).unwrap_or(u32::MAX);
    if wanted_now < desired.replicas(service) {
        return Standing::Waiting; // there is no room for the candidate yet
    }
    if slots.into_iter().all(is_ready) {
        return named(observed, service);
    }
    start_trouble(observed, release, name)
        .or_else(|| early_deaths(observed, release, service))
        .unwrap_or(Standing::Waiting)
}

/// A service whose name means the proxy has to be found under it when users come.
fn named(observed: &Observed, service: &Service) -> Standing {
    let has_anchor = service.container.as_ref().is_some_and(|container| !container.anchor.is_empty());
    match observed.unserved(&service.name).filter(|_| has_anchor) {
        None => Standing::Passed,
        Some(None) => Standing::Waiting,
        Some(Some(reason)) => Standing::Failed(reason.to_owned()),
    }
}

fn job_failure(observed: &Observed, release: ReleaseId, job: &str) -> String {
    let exit = observed.histories(release, job).find_map(|(_, history)| history.last_exit);
    // An agent that began after the job's end knows that it failed, and no more.
    exit.map_or_else(
        || format!("the job `{job}` failed"),
        |exit| format!("the job `{job}` failed: {}", how_it_ended(Some(exit))),
    )
}

fn how_it_ended(exit: Option<ExitStatus>) -> String {
    match exit {
        Some(ExitStatus::Code(code)) => format!("it exited with code {code}"),
        Some(ExitStatus::Signal(signal)) => format!("it was ended by signal {signal}"),
        Some(ExitStatus::Unknown) | None => "nobody saw how it ended".to_owned(),
    }
}

fn start_trouble(observed: &Observed, release: ReleaseId, service: &str) -> Option<Standing> {
    observed
        .histories(release, service)
        .find_map(|(slot, history)| Some((slot, history.start_error.as_ref().filter(|e| e.permanent)?)))
        .map(|(slot, error)| {
            Standing::Failed(format!(
                "`{service}` replica {} could not be started: {}",
                slot.ordinal, error.message
            ))
        })
}

fn early_deaths(observed: &Observed, release: ReleaseId, service: &Service) -> Option<Standing> {
    observed.histories(release, &service.name).find_map(|(slot, history)| {
        let ended = history.start_error.as_ref().map_or_else(
            || how_it_ended(history.last_exit),
            |error| format!("it could not be started: {}", error.message),
        );
        let (name, ordinal, deaths) = (&service.name, slot.ordinal, history.early_deaths);
        if service.restart == Restart::No && deaths > 0 {
            return Some(Standing::Failed(format!(
                "`{name}` replica {ordinal} died before it was ready and `restart` is `no`: {ended}"
            )));
        }
        (deaths >= GATE_DEATHS_MAX).then(|| {
            Standing::Failed(format!(
                "`{name}` replica {ordinal} died {deaths} times before it was ready; the last time {ended}"
            ))
        })
    })
}

/// Why the gate of one service is missed, if it is.
fn overdue(
    desired: &Desired,
    observed: &Observed,
    deployment: &Deployment,
    service: &Service,
    now: Timestamp,
    decision: &mut Decision,
) -> Option<String> {
    if service.role == Role::Job {
        return None; // a job may take as long as it takes, within the sum of the gates
    }
    let release = desired.slot_release(deployment.candidate, service);
    // One that was ready and fails its probes now has passed its gate; it is replaced as any other.
    let unready = observed.replicas().filter(|(id, replica)| {
        id.release == release
            && id.service == service.name
            && !replica.serves(service)
            && !matches!(replica.health.verdict(), Verdict::Suspect | Verdict::Failed { .. })
    });
    let first = unready.map(|(_, replica)| replica.watched_since).min()?;
    let since = first.max(deployment.started);
    let ready = observed
        .replicas()
        .filter(|(id, r)| id.release == release && id.service == service.name && r.serves(service))
        .count();
    let deadline = since + service.gate_timeout;
    if now < deadline {
        decision.wake(deadline);
        return None;
    }
    let wanted = desired.replicas(service);
    Some(format!(
        "`{}` did not become healthy within {:?}: {ready} of {wanted} replicas are ready",
        service.name, service.gate_timeout
    ))
}

/// So many releases of a project are remembered, to look at and to go back to.
const RELEASES_KEPT: usize = 20;

/// Retires warm releases whose time is over, or whose room is needed.
pub(super) fn retire(desired: &Desired, observed: &Observed, now: Timestamp, decision: &mut Decision) {
    let in_use = desired.running().and_then(|deployment| deployment.previous);
    let candidate = desired.running().map(|deployment| deployment.candidate);
    let mut warm = Vec::new();
    for (id, release) in &desired.releases {
        let ReleaseState::Warm { since, until } = release.state else { continue };
        let has_tunnels = observed
            .replicas()
            .any(|(replica, _)| replica.release == *id && observed.load(replica).tunnels > 0);
        let websockets = release.spec.services.values().map(|service| service.drain.websockets).max();
        let end = if has_tunnels { until.max(since + websockets.unwrap_or_default()) } else { until };
        if in_use == Some(*id) || candidate == Some(*id) {
            continue;
        }
        if end <= now {
            decision.commits.push(Change::Retire { release: *id });
        } else {
            decision.wake(end);
            warm.push((since, *id));
        }
    }
    // The live release, the candidate if there is one, and so many warm ones as `keep.releases` leaves room for.
    let newest = desired.candidate().or_else(|| desired.live());
    let keep = newest.map_or(2, |(_, release)| release.spec.keep.releases.max(2)) as usize;
    let taken = 1 + usize::from(desired.candidate().is_some());
    warm.sort_unstable();
    let surplus = warm.len().saturating_sub(keep.saturating_sub(taken));
    decision.commits.extend(warm.into_iter().take(surplus).map(|(_, id)| Change::Retire { release: id }));
    forget(desired, observed, decision);
}

/// Forgets the oldest releases beyond [`RELEASES_KEPT`]: nobody can see or go back to them any more.
fn forget(desired: &Desired, observed: &Observed, decision: &mut Decision) {
    let surplus = desired.releases.len().saturating_sub(RELEASES_KEPT);
    let deployment = desired.deployment.as_ref();
    let is_in_use = |id: ReleaseId| {
        desired.live == Some(id)
            || desired.made_for.values().any(|of| *of == id)
            || deployment.is_some_and(|one| one.candidate == id || one.previous == Some(id))
            || observed.replicas().any(|(replica, _)| replica.release == id)
    };
    let is_over = |state| matches!(state, ReleaseState::Retired | ReleaseState::Failed);
    let oldest = desired.releases.iter().filter(|(id, release)| is_over(release.state) && !is_in_use(**id));
    decision.commits.extend(oldest.take(surplus).map(|(id, _)| Change::Forget { release: *id }));
}

/// Records that a first release, which never passed its gate, serves after all.
pub(super) fn prove(desired: &Desired, observed: &Observed, decision: &mut Decision) {
    let Some((id, release)) = desired.live() else { return };
    if release.proven || desired.down || desired.running().is_some_and(|running| running.candidate == id) {
        return;
    }
    let of = |role: Role| {
        let services = release.spec.services.values();
        services.filter(|s| s.role == role && desired.replicas(s) > 0).collect::<Vec<_>>()
    };
    let serves = |service: &&Service| {
        observed.replicas().any(|(replica, state)| {
            replica.release == id && replica.service == service.name && state.serves(service)
        })
    };
    let (apps, workers) = (of(Role::App), of(Role::Worker));
    let asked = if apps.is_empty() { workers } else { apps };
    if !asked.is_empty() && asked.iter().all(serves) {
        decision.commits.push(Change::Proven { release: id });
    }
}

/// Records the end of a job.
pub(super) fn jobs(desired: &Desired, observed: &Observed, decision: &mut Decision) {
    let running = [desired.live, desired.candidate().map(|(id, _)| id)];
    for id in running.into_iter().flatten().collect::<std::collections::BTreeSet<_>>() {
        let Some(release) = desired.releases.get(&id) else { continue };
        for service in release.spec.services.values().filter(|service| service.role == Role::Job) {
            let slot = Slot { release: id, service: service.name.clone(), ordinal: 1 };
            let is_running = observed.in_slot(&slot).next().is_some();
            let Some(history) = observed.slot(&slot).filter(|_| !is_running) else { continue };
            let Some(exit) = history.last_exit.filter(|_| !history.excused) else { continue };
            let tries_again = match service.restart {
                Restart::No => false,
                Restart::OnFailure(max) => max.is_none_or(|max| history.restarts < max),
                Restart::Always => true,
            };
            let success = exit == ExitStatus::Code(0);
            let is_known = desired.jobs.contains_key(&(id, service.name.clone()));
            if !is_known && (success || !tries_again) {
                let service = service.name.clone();
                decision.commits.push(Change::JobDone { release: id, service, success });
            }
        }
    }
}
