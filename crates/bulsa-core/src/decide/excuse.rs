//! Replicas whose failing may be somebody else's fault: they are un-routed as any other, and not replaced for a while.
//!
//! Owns: the search for a dependency that doesn't serve, and the rule that of a service whose replicas all answer badly one is
//! replaced first. Never: excuses a death, a candidate, or anything for longer than [`EXCUSE_MAX`].
//!
//! A shared dependency that fails takes all that need it down with it, and restarting those heals nobody: it costs the
//! connections they still have, and the host a start of everything at once (kubernetes#66230 is about that).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{
    Decision, ExitStatus,
    desired::Desired,
    observed::{Observed, Replica, ReplicaPhase},
    wanted::Want,
};
use crate::{
    health::Verdict,
    ids::{ReleaseId, ReplicaId, Slot},
    spec::{Restart, Role, Service},
    time::Timestamp,
};

/// No excuse holds for longer: what a dependency's own check says may be wrong, too, and it may be needed for nothing.
pub const EXCUSE_MAX: Duration = Duration::from_secs(120);

/// One that goes on serving for longer without a dependency doesn't fail for want of it.
pub(super) const BLAME_WITHIN: Duration = Duration::from_secs(60);

/// When a dependency serves again, those that failed for want of it have so long to find it.
const RECOVERY: Duration = Duration::from_secs(15);

/// Why a replica that fails isn't replaced yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Excuse {
    /// This service, which its own needs, doesn't serve.
    Dependency(String),
    /// All replicas of its service answer badly: it is seen first whether a new one in this slot does better.
    Trial(Slot),
}

/// The replicas that fail and are left alone.
pub(super) fn excuses(
    desired: &Desired,
    wanted: &BTreeMap<Slot, Want<'_>>,
    observed: &Observed,
    now: Timestamp,
    decision: &mut Decision,
) -> BTreeMap<ReplicaId, Excuse> {
    let mut excuses = BTreeMap::new();
    let mut culprits: BTreeMap<&str, Vec<Culprit>> = BTreeMap::new();
    let mut failing: BTreeMap<(ReleaseId, &str), Vec<(&ReplicaId, Timestamp)>> = BTreeMap::new();
    for (id, replica) in observed.replicas() {
        let Some(want) = wanted.get(&id.slot()) else { continue };
        let Some(since) = fails_since(desired, want, id, replica, now) else { continue };
        let (service, until) = (want.service, since + EXCUSE_MAX);
        if until <= now {
            continue;
        }
        let of_service = culprits
            .entry(&service.name)
            .or_insert_with(|| culprits_of((desired, observed, now), id.release, service));
        if let Some(culprit) = of_service.iter().rfind(|culprit| culprit.may_be_of(replica)) {
            decision.wake(culprit.until.map_or(until, |end| end.min(until)));
            excuses.insert(id.clone(), Excuse::Dependency(culprit.service.clone()));
        } else if matches!(replica.health.verdict(), Verdict::Failed { hung: false }) {
            failing.entry((id.release, &service.name)).or_default().push((id, until));
        }
    }
    for ((release, name), sick) in failing {
        let serves = |(id, replica): (&ReplicaId, &Replica)| {
            let want = wanted.get(&id.slot());
            id.release == release
                && id.service == name
                && want.is_some_and(|want| replica.serves(want.service))
        };
        if observed.replicas().any(serves) {
            continue;
        }
        let slots: BTreeSet<Slot> = sick.iter().map(|(id, _)| id.slot()).collect();
        let Some(trial) = trial(&slots, observed) else { continue };
        for (id, until) in sick.into_iter().filter(|(id, _)| id.slot() != trial) {
            decision.wake(until);
            excuses.insert(id.clone(), Excuse::Trial(trial.clone()));
        }
    }
    excuses
}

/// Since when a replica of the live release, or a `shared` one, should have been replaced; `None` if it needn't.
fn fails_since(
    desired: &Desired,
    want: &Want<'_>,
    id: &ReplicaId,
    replica: &Replica,
    now: Timestamp,
) -> Option<Timestamp> {
    let is_live = desired.live == Some(id.release) || want.service.role == Role::Shared;
    let is_left_alone = replica.paused || replica.ended || want.service.is_kept_by_docker();
    if !is_live || is_left_alone || want.service.role == Role::Job || replica.phase != ReplicaPhase::Running {
        return None;
    }
    match replica.health.verdict() {
        Verdict::Failed { .. } => Some(replica.health.failed_at().unwrap_or(now)),
        Verdict::Unknown => {
            Some(replica.watched_since + want.service.gate_timeout).filter(|since| *since <= now)
        }
        Verdict::Assumed | Verdict::Ready | Verdict::Suspect => None,
    }
}

/// In which slot a replacement is tried: where one is under way, or else the first. None where there is one slot only.
fn trial(slots: &BTreeSet<Slot>, observed: &Observed) -> Option<Slot> {
    if slots.len() < 2 {
        return None;
    }
    let is_tried = |slot: &&Slot| {
        observed.in_slot(slot).any(|(_, replica)| !replica.is_sick() && !replica.is_stopping())
    };
    slots.iter().find(is_tried).or_else(|| slots.first()).cloned()
}

/// A service that another one needs, and that should serve and doesn't.
struct Culprit {
    service: String,
    /// Since when, as far as that is known.
    since: Option<Timestamp>,
    /// It serves again, and until then it is forgiven those that don't yet.
    until: Option<Timestamp>,
}

impl Culprit {
    /// Whether it may be the cause that this replica fails. One that became ready without it, or stayed so for long, does
    /// without it.
    fn may_be_of(&self, replica: &Replica) -> bool {
        let Some(since) = self.since else { return true };
        let became_ready = replica.health.ready_since().is_some_and(|ready| since < ready);
        let stayed_so = replica.health.failed_at().is_some_and(|failed| since + BLAME_WITHIN < failed);
        !became_ready && !stayed_so
    }
}

/// What this service needs, at whatever distance, and doesn't serve. The farthest come last: they are the likeliest to be
/// the cause of the others.
fn culprits_of(
    (desired, observed, now): (&Desired, &Observed, Timestamp),
    release: ReleaseId,
    service: &Service,
) -> Vec<Culprit> {
    let mut seen = BTreeSet::from([service.name.clone()]);
    let mut near: Vec<&Service> = vec![service];
    let mut found = Vec::new();
    // Each round goes one link further; every service is looked at once.
    while !near.is_empty() {
        let needed = near.iter().flat_map(|service| &service.depends_on);
        let names: Vec<&String> =
            needed.filter(|(_, dependency)| dependency.required).map(|(name, _)| name).collect();
        near = names
            .into_iter()
            .filter(|name| seen.insert((*name).clone()))
            .filter_map(|name| desired.service(release, name))
            .filter(|service| service.role != Role::Job)
            .collect();
        let should = |service: &Service| {
            desired.replicas(service) > 0 || desired.wish(&service.name).stopped && service.replicas > 0
        };
        let due = |one: &&&Service| should(one) && !is_over(desired, observed, release, one);
        for one in near.iter().filter(due) {
            let until = serves_since(desired, observed, release, one).map(|since| since + RECOVERY);
            if until.is_none_or(|until| now < until) {
                let since = down_since(desired, observed, release, one);
                found.push(Culprit { service: one.name.clone(), since, until });
            }
        }
    }
    found
}

/// Whether something that `service` needs doesn't serve.
pub(super) fn is_short_of_something(
    desired: &Desired,
    observed: &Observed,
    release: ReleaseId,
    service: &Service,
    now: Timestamp,
) -> bool {
    !culprits_of((desired, observed, now), release, service).is_empty()
}

/// Whether `service` has run and isn't started again, by what its file says of that: nobody waits for it.
pub(super) fn is_over(desired: &Desired, observed: &Observed, release: ReleaseId, service: &Service) -> bool {
    let release = desired.slot_release(release, service);
    let has_ended = |slot: &Slot| {
        let exit = observed.slot(slot).and_then(|history| history.last_exit);
        let stays_so = match service.restart {
            Restart::Always => false,
            Restart::No => exit.is_some(),
            Restart::OnFailure(_) => exit == Some(ExitStatus::Code(0)),
        };
        stays_so && observed.in_slot(slot).next().is_none()
    };
    let mut slots = desired.slots(release, service).peekable();
    slots.peek().is_some() && slots.all(|slot| has_ended(&slot))
}

/// When the last replica of `service` that served ended or failed, as far as that is known.
pub(super) fn down_since(
    desired: &Desired,
    observed: &Observed,
    release: ReleaseId,
    service: &Service,
) -> Option<Timestamp> {
    let of = desired.slot_release(release, service);
    let ended = observed.histories(of, &service.name).filter_map(|(_, history)| history.served_until);
    let failed = replicas_of(desired, observed, release, service).filter_map(|r| r.health.failed_at());
    ended.chain(failed).max()
}

/// Since when a replica of `service` serves in `release`; since ever, where this agent found it serving.
fn serves_since(
    desired: &Desired,
    observed: &Observed,
    release: ReleaseId,
    service: &Service,
) -> Option<Timestamp> {
    let serving = replicas_of(desired, observed, release, service).filter(|r| r.serves(service));
    serving.map(|replica| replica.health.proven_at().unwrap_or_default()).min()
}

/// The replicas that `service` has for `release`: of a `shared` one those of whatever release made them.
fn replicas_of<'a>(
    desired: &Desired,
    observed: &'a Observed,
    release: ReleaseId,
    service: &'a Service,
) -> impl Iterator<Item = &'a Replica> {
    let release = desired.slot_release(release, service);
    let is_of = move |id: &ReplicaId| id.release == release && id.service == service.name;
    observed.replicas().filter(move |(id, _)| is_of(id)).map(|(_, replica)| replica)
}

/// When a dependency of `service` last turned ready; `None` if none did before this agent's eyes.
pub(super) fn dependency_proven_at(
    desired: &Desired,
    observed: &Observed,
    release: ReleaseId,
    service: &Service,
) -> Option<Timestamp> {
    let dependencies = service.depends_on.keys().filter_map(|name| desired.service(release, name));
    let replicas = dependencies.flat_map(|of| replicas_of(desired, observed, release, of));
    replicas.filter_map(|replica| replica.health.proven_at()).max()
}
