//! When a slot that should be filled is filled.
//!
//! Owns: what stands against a start: a rival, a predecessor, the file's `restart`, the back-off, dependencies. Never: says
//! which slots need one (that is `slots`).

use std::{collections::BTreeMap, time::Duration};

use super::{
    Action, Decision, ExitStatus, StartCause,
    desired::Desired,
    excuse::{BLAME_WITHIN, EXCUSE_MAX, dependency_proven_at, down_since, is_over},
    humans::is_all_away,
    observed::{Observed, Replica, ReplicaPhase, SlotHistory},
    slots::Verdicts,
    wanted::{WaitsFor, Want},
};
use crate::{
    ids::{ReleaseId, ReplicaId, Slot},
    spec::{Condition, Restart, Role},
    time::Timestamp,
};

/// At most this many replicas fill, or leave, one slot at a time.
const SLOT_REPLICAS_MAX: usize = 2;

/// One that died after it had served waits at most so long for its dependencies to serve (again).
const DEPENDENCY_WAIT: Duration = Duration::from_secs(10);

/// Starts what is missing, where nothing stands against it.
pub(super) fn start(
    desired: &Desired,
    wanted: &BTreeMap<Slot, Want<'_>>,
    observed: &Observed,
    verdicts: &Verdicts,
    now: Timestamp,
    decision: &mut Decision,
) {
    for (slot, cause) in &verdicts.needs {
        let Some(want) = wanted.get(slot) else { continue };
        if want.exclusive && has_rival(slot, observed) || has_predecessor(slot, want.waits_for, observed) {
            continue; // the engine's word that it is gone wakes us
        }
        if observed.in_slot(slot).count() >= SLOT_REPLICAS_MAX {
            continue; // one that was killed isn't gone yet
        }
        let history = observed.slot(slot);
        let is_renewal = matches!(cause, StartCause::Wish | StartCause::Follow | StartCause::Recycle(_));
        if !is_renewal && history.is_some_and(|h| is_given_up(want, h, *cause)) {
            continue;
        }
        if let Some(at) =
            history.and_then(|h| put_off(desired, slot, want, observed, h)).filter(|at| now < *at)
        {
            decision.wake(at);
            continue;
        }
        if waits(desired, slot, want, observed, now, decision) {
            continue;
        }
        let id = ReplicaId {
            release: slot.release,
            service: slot.service.clone(),
            ordinal: slot.ordinal,
            attempt: observed.next_attempt(slot),
        };
        decision.actions.push(Action::Start { id, cause: *cause });
    }
}

/// Until when the failures of a slot put its next start off; `None` where something has changed since the last one for
/// which it is tried at once.
fn put_off(
    desired: &Desired,
    slot: &Slot,
    want: &Want<'_>,
    observed: &Observed,
    history: &SlotHistory,
) -> Option<Timestamp> {
    let proven = dependency_proven_at(desired, observed, slot.release, want.service);
    let has_news = history.changed || proven.is_some_and(|at| history.died_at() < at);
    (!has_news).then(|| history.next_start(slot))
}

/// Whether a start waits for what the service depends on. One that was never started does. One that died may do without, so
/// it waits for a moment only, and longer when that turned out not to be so.
fn waits(
    desired: &Desired,
    slot: &Slot,
    want: &Want<'_>,
    observed: &Observed,
    now: Timestamp,
    decision: &mut Decision,
) -> bool {
    let mut missing = missing(desired, slot, want, observed).peekable();
    let Some(history) = observed.slot(slot).filter(|history| history.last_exit.is_some()) else {
        return missing.peek().is_some();
    };
    let died_at = history.died_at();
    // One that went on serving without a dependency doesn't need it.
    let is_needed = |name: &str| {
        let of = desired.service(slot.release, name);
        if of.is_some_and(|of| is_over(desired, observed, slot.release, of)) {
            return false;
        }
        let since = of.and_then(|of| down_since(desired, observed, slot.release, of));
        !(history.served() && since.is_some_and(|since| since + BLAME_WITHIN < died_at))
    };
    if !missing.any(is_needed) {
        return false;
    }
    let until = died_at + if history.early_deaths == 0 { DEPENDENCY_WAIT } else { EXCUSE_MAX };
    if now < until {
        decision.wake(until);
    }
    now < until
}

/// Whether another replica of the service runs that must be gone before this slot may be filled: in another release,
/// or in the same slot.
fn has_rival(slot: &Slot, observed: &Observed) -> bool {
    observed.replicas().any(|(id, _)| {
        id.service == slot.service && (id.release != slot.release || id.ordinal == slot.ordinal)
    })
}

/// Whether another release still has a replica that this slot waits for.
fn has_predecessor(slot: &Slot, waits_for: WaitsFor, observed: &Observed) -> bool {
    let is_waited_for = |id: &ReplicaId| match waits_for {
        WaitsFor::None => false,
        WaitsFor::SameNumber => id.ordinal == slot.ordinal,
        WaitsFor::All => true,
    };
    let mut others =
        observed.replicas().filter(|(id, _)| id.service == slot.service && id.release != slot.release);
    others.any(|(id, _)| is_waited_for(id))
}

/// Whether the file's `restart` (or a job's end) says that a slot stays as it is.
fn is_given_up(want: &Want<'_>, history: &SlotHistory, cause: StartCause) -> bool {
    let exit = history.last_exit.filter(|_| !history.excused);
    let succeeded = exit == Some(ExitStatus::Code(0));
    match want.service.restart {
        _ if want.service.role == Role::Job && succeeded => true,
        Restart::Always => false,
        Restart::No => cause != StartCause::New,
        Restart::OnFailure(max) => {
            succeeded || exit.is_some() && max.is_some_and(|max| history.restarts >= max)
        }
    }
}

/// What the service waits for and doesn't hold.
fn missing<'a>(
    desired: &'a Desired,
    slot: &'a Slot,
    want: &Want<'a>,
    observed: &'a Observed,
) -> impl Iterator<Item = &'a str> {
    let entries = want.service.depends_on.iter().filter(|(name, dependency)| {
        !holds(desired, slot, name, dependency.condition, observed)
            && (dependency.required || !has_failed(desired, slot, name, observed))
    });
    entries.map(|(name, _)| name.as_str())
}

/// Whether it is no use to wait for a dependency that isn't required: it isn't there, or has died already.
fn has_failed(desired: &Desired, slot: &Slot, name: &str, observed: &Observed) -> bool {
    let is_absent = desired.service(slot.release, name).is_none_or(|service| {
        desired.replicas(service) == 0 || is_all_away(desired, observed, slot.release, service)
    });
    let job_failed = desired.jobs.get(&(slot.release, name.to_owned())) == Some(&false);
    let has_died = [slot.release, desired.shared_release(name)].into_iter().any(|release| {
        observed
            .histories(release, name)
            .any(|(_, history)| history.start_error.is_some() || history.deaths > 0)
    });
    is_absent || job_failed || has_died
}

fn holds(desired: &Desired, slot: &Slot, name: &str, condition: Condition, observed: &Observed) -> bool {
    let is_shared = desired.is_shared(slot.release, &slot.service);
    // A candidate that recreates a `shared` service waits for the new one.
    let of = desired.service(slot.release, name);
    let release = of.map_or(slot.release, |service| desired.slot_release(slot.release, service));
    let is_dependency = |id: &ReplicaId| id.service == name && (id.release == release || is_shared);
    let mut replicas = observed.replicas().filter(|(id, _)| is_dependency(id));
    match condition {
        Condition::Started => replicas.any(|(_, r)| r.phase == ReplicaPhase::Running),
        Condition::Healthy => {
            let lives = |r: &Replica| r.phase == ReplicaPhase::Running && !r.paused && !r.ended;
            replicas.any(|(_, r)| r.health.is_ready() && lives(r))
        }
        Condition::Completed => {
            let is_ours = |of: ReleaseId| of == slot.release || is_shared;
            desired.jobs.iter().any(|((of, job), success)| job == name && is_ours(*of) && *success)
        }
    }
}
