//! Replacing what isn't sick: by a human's wish, because what a replica depends on was started anew, or for its age.
//!
//! Owns: which replicas are outdated, and in which order they go: slot by slot, the next one when all others serve. Never:
//! takes more than one at a time from a service whose replicas serve.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{
    Decision, StartCause, Worn,
    desired::Desired,
    observed::{Observed, Replica, ReplicaPhase},
    slots::{Leaving, Verdicts},
    wanted::Want,
};
use crate::{
    backoff::jitter,
    ids::{ReleaseId, ReplicaId, Slot},
    spec::{Dependency, Service, container::NetworkMode},
    time::Timestamp,
};

/// No replica is replaced for its memory or its requests before it has run for so long.
pub const RECYCLE_AFTER: Duration = Duration::from_secs(300);
/// A replica comes to its age up to this share earlier than the file says.
const RECYCLE_SPREAD: f64 = 0.1;

/// Since when a service has what it depends on: its replicas that were started before that depend on something which is
/// gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Ties {
    /// What `depends_on.*.restart` says.
    pub(super) asked: Option<Timestamp>,
    /// Where it lives in another container's namespace: without that it reaches nobody, and nobody reaches it.
    pub(super) joined: Option<Timestamp>,
}

/// What `service` is tied to in `release`, by the replicas that run there. While something of it doesn't run there is
/// nothing to follow: what is started then waits for it.
pub(super) fn ties(desired: &Desired, observed: &Observed, release: ReleaseId, service: &Service) -> Ties {
    let since = |name: &str| {
        let of = desired.service(release, name)?;
        let release = desired.slot_release(release, of);
        let lives = |r: &Replica| r.phase == ReplicaPhase::Running && !r.ended;
        let alive =
            observed.replicas().filter(|(id, r)| id.release == release && id.service == name && lives(r));
        alive.map(|(_, replica)| replica.started).min()
    };
    let follows = |(_, dependency): &(&String, &Dependency)| dependency.restart;
    Ties {
        asked: service.depends_on.iter().filter(follows).filter_map(|(name, _)| since(name)).max(),
        joined: joined(service).filter_map(since).max(),
    }
}

/// The services whose namespaces `service` lives in.
fn joined(service: &Service) -> impl Iterator<Item = &str> {
    let container = service.container.as_deref();
    let network = container.and_then(|container| match &container.network_mode {
        Some(NetworkMode::Service(name)) => Some(name.as_str()),
        _ => None,
    });
    let isolation = container.into_iter().flat_map(|it| [&it.isolation.ipc, &it.isolation.pid]);
    let others = isolation.flatten().filter_map(|mode| mode.strip_prefix("service:"));
    network.into_iter().chain(others)
}

/// What is needed to say whether a replica is outdated.
struct Look<'a> {
    observed: &'a Observed,
    /// A deployment replaces all of them anyway, and is judged by what dies.
    deploys: bool,
    now: Timestamp,
}

impl Look<'_> {
    /// Why a replica is outdated, if it is.
    fn outdated(
        &self,
        want: &Want<'_>,
        id: &ReplicaId,
        replica: &Replica,
        decision: &mut Decision,
    ) -> Option<StartCause> {
        let before = |at: Option<Timestamp>| at.is_some_and(|at| replica.started < at);
        if before(want.restart) {
            return Some(StartCause::Wish);
        }
        if before(want.ties.asked) {
            return Some(StartCause::Follow);
        }
        if !want.recycles || self.deploys || replica.paused {
            return None;
        }
        self.worn(want, id, replica, decision).map(StartCause::Recycle)
    }

    /// By what it has come to its age, if it has. Replicas that were started together don't get there together.
    fn worn(
        &self,
        want: &Want<'_>,
        id: &ReplicaId,
        replica: &Replica,
        decision: &mut Decision,
    ) -> Option<Worn> {
        let care = &want.service.care;
        let run = self.now.since(replica.started);
        let share = 1.0 - RECYCLE_SPREAD * jitter(&id.slot(), id.attempt);
        if let Some(age) = care.age.map(|age| age.mul_f64(share)) {
            if age <= run {
                return Some(Worn::Age(run));
            }
            decision.wake((replica.started + age).max(self.now + Duration::from_millis(1)));
        }
        // One that is worn as soon as it runs would be replaced for ever.
        let may = RECYCLE_AFTER <= run;
        let requests = self.observed.requests(id);
        if care.requests.is_some_and(|most| may && most as f64 * share <= requests as f64) {
            return Some(Worn::Requests(requests));
        }
        let memory = replica.memory?;
        care.memory.is_some_and(|most| may && most <= memory).then_some(Worn::Memory(memory))
    }
}

/// Adds what is outdated to the verdicts.
pub(super) fn renew(
    (desired, observed): (&Desired, &Observed),
    wanted: &BTreeMap<Slot, Want<'_>>,
    slots: &BTreeMap<Slot, Vec<(&ReplicaId, &Replica)>>,
    verdicts: &mut Verdicts,
    now: Timestamp,
    decision: &mut Decision,
) {
    leave_with_their_namespace(wanted, slots, verdicts);
    let look = Look { observed, deploys: desired.running().is_some(), now };
    in_turn(&look, wanted, slots, verdicts, decision);
}

/// Whoever lives in a namespace that is gone is of no use to anybody: they go at once, all of them.
fn leave_with_their_namespace(
    wanted: &BTreeMap<Slot, Want<'_>>,
    slots: &BTreeMap<Slot, Vec<(&ReplicaId, &Replica)>>,
    verdicts: &mut Verdicts,
) {
    for (slot, want) in wanted {
        let Some(joined) = want.ties.joined else { continue };
        let lost = slots.get(slot).into_iter().flatten().filter(|(_, replica)| {
            replica.started < joined && replica.phase == ReplicaPhase::Running && !replica.ended
        });
        for (id, _) in lost {
            verdicts.leaving.entry((*id).clone()).or_insert(Leaving::Gracefully);
        }
        let mut replicas = slots.get(slot).into_iter().flatten().peekable();
        if replicas.peek().is_some() && replicas.all(|(id, _)| verdicts.leaving.contains_key(id)) {
            verdicts.needs.entry(slot.clone()).or_insert(StartCause::Follow);
        }
    }
}

/// What is outdated and works goes slot by slot, when all others of its service serve.
fn in_turn(
    look: &Look<'_>,
    wanted: &BTreeMap<Slot, Want<'_>>,
    slots: &BTreeMap<Slot, Vec<(&ReplicaId, &Replica)>>,
    verdicts: &mut Verdicts,
    decision: &mut Decision,
) {
    let mut busy: BTreeSet<(&str, u32)> = BTreeSet::new();
    let staying = |slot: &Slot| {
        let replicas = slots.get(slot).map(Vec::as_slice).unwrap_or_default();
        replicas.iter().filter(|(id, _)| !verdicts.leaving.contains_key(id)).collect::<Vec<_>>()
    };
    let may_be_outdated =
        |want: &Want<'_>| want.restart.is_some() || want.ties.asked.is_some() || want.recycles;
    for (slot, want) in wanted.iter().filter(|(_, want)| may_be_outdated(want)) {
        let stay = staying(slot);
        // One that a human froze won't serve before that human lets it: nothing waits for it.
        let settled =
            matches!(stay.as_slice(), [(_, replica)] if replica.paused || replica.serves(want.service));
        if !settled {
            busy.insert((&slot.service, slot.release.0));
        }
    }
    let mut due: Vec<(Slot, bool, StartCause)> = Vec::new();
    for (slot, want) in wanted {
        if let [(id, replica)] = staying(slot).as_slice()
            && let Some(cause) = look.outdated(want, id, replica, decision)
            && busy.insert((&slot.service, slot.release.0))
        {
            due.push((slot.clone(), want.exclusive, cause));
        }
    }
    for (slot, exclusive, cause) in due {
        if exclusive {
            let ids: Vec<ReplicaId> =
                slots.get(&slot).into_iter().flatten().map(|(id, _)| (*id).clone()).collect();
            verdicts.leaving.extend(ids.into_iter().map(|id| (id, Leaving::Gracefully)));
        }
        verdicts.needs.insert(slot, cause);
    }
}
