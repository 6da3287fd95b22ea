//! Which slots should be filled.
//!
//! Owns: the answer for every release that runs or should run. Never: looks at single replicas' health beyond what a
//! dependency asks for.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    desired::{Desired, Phase, ReleaseState},
    humans::is_away,
    observed::Observed,
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
    /// Two replicas of this service must never run side by side, be it in one slot or in two releases.
    pub(super) exclusive: bool,
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
                want(desired, *id, service, &mut wanted);
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
    let is_exclusive = service.handover == Handover::StopFirst;
    match state {
        ReleaseState::Live => match service.role {
            Role::Job => !desired.jobs.contains_key(&(id, service.name.clone())),
            Role::Shared => true,
            Role::App | Role::Worker => !desired.is_taken_over(&service.name),
        },
        ReleaseState::Candidate => {
            let taking_over = desired.is_taken_over(&service.name);
            has_room(desired, observed, id)
                && match service.role {
                    Role::Job => !desired.jobs.contains_key(&(id, service.name.clone())),
                    // A `shared` service that the live release doesn't have yet.
                    Role::Shared => true,
                    Role::App | Role::Worker => {
                        !is_exclusive || taking_over || is_new(desired, &service.name)
                    }
                }
        }
        // A worker of a release that isn't live must not go on taking work, and what is `stop_first` can't run twice.
        // A `shared` service that the live release doesn't have any more is still needed.
        ReleaseState::Warm { .. } => {
            service.role == Role::Shared || service.role == Role::App && !is_exclusive
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
        .map(|(id, _)| id.release)
        .filter(|release| *release != candidate && release.0 != 0)
        .collect();
    let keep = desired.releases.get(&candidate).map_or(2, |release| release.spec.keep.releases.max(2));
    others.len() < keep as usize
}

fn want<'a>(desired: &Desired, id: ReleaseId, service: &'a Service, wanted: &mut BTreeMap<Slot, Want<'a>>) {
    let is_warm = matches!(desired.releases.get(&id).map(|r| r.state), Some(ReleaseState::Warm { .. }));
    let exclusive =
        service.handover == Handover::StopFirst || matches!(service.role, Role::Shared | Role::Job);
    let restart = desired.wish(&service.name).restart.filter(|_| !is_warm && service.role != Role::Job);
    for slot in desired.slots(id, service) {
        // The live release's word on a `shared` service goes before the candidate's: a deploy never touches it.
        let is_live = desired.live == Some(id);
        if is_live || !wanted.contains_key(&slot) {
            wanted.insert(slot, Want { service, restart, exclusive });
        }
    }
}

/// The candidate's services that can't pass their gate before the exchange of what is `stop_first`: those that are to
/// be exchanged, and those that wait for them. None once the exchange has begun.
pub(super) fn awaiting_takeover(desired: &Desired) -> BTreeSet<&str> {
    let mut awaiting = BTreeSet::new();
    let Some(deployment) = desired.running().filter(|d| d.phase == Phase::Gate) else { return awaiting };
    let Some(candidate) = desired.releases.get(&deployment.candidate) else { return awaiting };
    let services = &candidate.spec.services;
    let is_exchanged = |service: &&Service| {
        service.handover == Handover::StopFirst
            && matches!(service.role, Role::App | Role::Worker)
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
