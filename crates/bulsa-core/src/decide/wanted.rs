//! Which slots should be filled.
//!
//! Owns: the answer for every release that runs or should run. Never: looks at single replicas' health beyond what a
//! dependency asks for.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    desired::{Deployment, Desired, Kind, Phase, ReleaseState},
    humans::is_away,
    observed::Observed,
    renew::{Ties, ties},
};
use crate::{
    ids::{ReleaseId, Slot},
    spec::{Handover, Role, Service},
    time::Timestamp,
};

/// A slot that should be filled, and how.
#[derive(Clone, Copy, Debug)]
pub(super) struct Want<'a> {
    /// The service to run.
    pub(super) service: &'a Service,
    /// Replicas started before this are outdated.
    pub(super) restart: Option<Timestamp>,
    /// So are those that were started before what they are tied to.
    pub(super) ties: Ties,
    /// Whether they come to an age, of themselves.
    pub(super) recycles: bool,
    /// Two replicas of this service must never run side by side, be it in one slot or in two releases.
    pub(super) exclusive: bool,
    /// Which replicas of other releases must be gone first.
    pub(super) waits_for: WaitsFor,
}

/// Which replicas of a service's other releases a slot waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum WaitsFor {
    /// None.
    None,
    /// That of the same number, which this one replaces.
    SameNumber,
    /// All.
    All,
}

/// The slots that should be filled, with what. Those that a human emptied are not among them.
pub(super) fn wanted<'a>(desired: &'a Desired, observed: &Observed) -> BTreeMap<Slot, Want<'a>> {
    let mut wanted = by_release(desired, observed);
    wanted.retain(|slot, _| !is_away(desired, observed, slot));
    wanted
}

/// The slots that should be filled as far as releases and wishes say.
pub(super) fn by_release<'a>(desired: &'a Desired, observed: &Observed) -> BTreeMap<Slot, Want<'a>> {
    let mut wanted = BTreeMap::new();
    if desired.down {
        return wanted;
    }
    for (id, release) in &desired.releases {
        for service in release.spec.services.values() {
            if runs(desired, observed, *id, release.state, service) {
                want(desired, observed, *id, service, &mut wanted);
            }
        }
    }
    wanted
}

/// Whether `service` of release `id` should run now.
fn runs(
    desired: &Desired,
    observed: &Observed,
    id: ReleaseId,
    state: ReleaseState,
    service: &Service,
) -> bool {
    let (name, overlaps) = (&service.name, service.handover == Handover::Overlap);
    match state {
        ReleaseState::Live => match service.role {
            Role::Job => !desired.jobs.contains_key(&(id, service.name.clone())),
            Role::Shared => !desired.is_recreated(name),
            Role::App | Role::Worker => !desired.is_taken_over(&service.name),
        },
        ReleaseState::Candidate if desired.is_given_up(id) => false,
        ReleaseState::Candidate => {
            let taking_over = desired.is_taken_over(&service.name);
            has_room(desired, observed, id)
                && match service.role {
                    Role::Job => !desired.jobs.contains_key(&(id, service.name.clone())),
                    // One that the live release doesn't have yet, or that is recreated once all else has passed.
                    Role::Shared => !desired.recreates(id, name) || desired.is_recreated(name),
                    Role::App | Role::Worker => {
                        let is_rolled = || desired.roll_step(name).is_some();
                        overlaps || taking_over || is_new(desired, name) || is_rolled()
                    }
                }
        }
        // A worker of a release that isn't live must not go on taking work, and what is `stop_first` can't run twice.
        // A `shared` service that the live release doesn't have any more is still needed.
        ReleaseState::Warm { .. } => {
            // Nor is there room for it where its successor had none beside it.
            let successor = desired.live().and_then(|(_, live)| live.spec.services.get(name));
            let is_beside = successor.is_none_or(|successor| successor.handover == Handover::Overlap);
            match service.role {
                Role::Shared => !desired.is_recreated(name),
                Role::App => overlaps && is_beside,
                Role::Worker | Role::Job => false,
            }
        }
        ReleaseState::Retired | ReleaseState::Failed => false,
    }
}

/// Whether the live release has no such service: there is nothing to take over.
fn is_new(desired: &Desired, service: &str) -> bool {
    desired.live().is_none_or(|(_, live)| !live.spec.services.contains_key(service))
}

/// Whether so few other releases have replicas that the candidate may start its own, or it has some already.
fn has_room(desired: &Desired, observed: &Observed, candidate: ReleaseId) -> bool {
    if observed.replicas().any(|(id, _)| id.release == candidate) {
        return true;
    }
    let others: BTreeSet<ReleaseId> = observed
        .replicas()
        .filter(|(id, _)| id.release != candidate && !desired.is_shared(id.release, &id.service))
        .map(|(id, _)| id.release)
        .collect();
    let keep = desired.releases.get(&candidate).map_or(2, |release| release.spec.keep.releases.max(2));
    others.len() < keep as usize
}

fn want<'a>(
    desired: &Desired,
    observed: &Observed,
    id: ReleaseId,
    service: &'a Service,
    wanted: &mut BTreeMap<Slot, Want<'a>>,
) {
    let is_warm = matches!(desired.releases.get(&id).map(|r| r.state), Some(ReleaseState::Warm { .. }));
    let exclusive =
        service.handover == Handover::StopFirst || matches!(service.role, Role::Shared | Role::Job);
    let waits_for = waits_for(desired, observed, service);
    let restart = desired.wish(&service.name).restart.filter(|_| !is_warm && service.role != Role::Job);
    let ties = if is_warm || service.role == Role::Job {
        Ties::default()
    } else {
        ties(desired, observed, id, service)
    };
    let recycles = desired.live == Some(id) && service.care.recycles();
    let step = desired.roll_step(&service.name).filter(|_| service.role != Role::Shared);
    let is_candidate = desired.candidate().is_some_and(|(candidate, _)| candidate == id);
    let has_turn = |slot: &Slot| {
        step.is_none_or(|step| {
            if is_candidate { slot.ordinal <= step.until } else { is_warm || step.keeps_old(slot.ordinal) }
        })
    };
    for slot in desired.slots(id, service).filter(has_turn) {
        // The live release's word on a `shared` service goes before the candidate's: a deploy never touches it.
        let is_live = desired.live == Some(id);
        if is_live || !wanted.contains_key(&slot) {
            wanted.insert(slot, Want { service, restart, ties, recycles, exclusive, waits_for });
        }
    }
}

/// What the service says itself, and what that of a release says which was given up: the one before it comes back as it
/// went.
fn waits_for(desired: &Desired, observed: &Observed, service: &Service) -> WaitsFor {
    let says = |service: &Service| match service.handover {
        Handover::StopFirst => WaitsFor::All,
        Handover::Rolling(how) if how.stop_first => WaitsFor::SameNumber,
        Handover::Rolling(_) | Handover::Overlap => WaitsFor::None,
    };
    let is_given_up = |id: &ReleaseId| desired.is_given_up(*id);
    let running = observed.replicas().filter(|(id, _)| id.service == service.name).map(|(id, _)| id.release);
    let given_up = running.filter(is_given_up).filter_map(|id| desired.service(id, &service.name));
    given_up.map(says).fold(says(service), WaitsFor::max)
}

/// The candidate's services that can't pass their gate before the exchange of what is `stop_first` or rolling: those
/// that are to be exchanged, and those that wait for them. None once the exchange has begun.
pub(super) fn awaiting_takeover(desired: &Desired) -> BTreeSet<&str> {
    let mut awaiting = BTreeSet::new();
    // A first release has nothing to exchange: it is live from its start.
    let is_gate =
        |deployment: &&Deployment| deployment.phase == Phase::Gate && deployment.kind != Kind::First;
    let Some(deployment) = desired.running().filter(is_gate) else { return awaiting };
    let Some(candidate) = desired.releases.get(&deployment.candidate) else { return awaiting };
    let services = &candidate.spec.services;
    let is_exchanged = |service: &&Service| {
        let is_replaced =
            service.handover != Handover::Overlap && matches!(service.role, Role::App | Role::Worker);
        (is_replaced || deployment.recreates.contains(&service.name))
            && !is_new(desired, &service.name)
            && desired.replicas(service) > 0
    };
    awaiting.extend(services.values().filter(is_exchanged).map(|service| service.name.as_str()));
    // Each round adds those one link further away, so there are no more rounds than services.
    for _ in 0..services.len() {
        let waits =
            |service: &&Service| service.depends_on.keys().any(|name| awaiting.contains(name.as_str()));
        let more: Vec<&str> = services.values().filter(waits).map(|service| service.name.as_str()).collect();
        awaiting.extend(more);
    }
    awaiting
}
