//! Start, replace, stop: the replicas of every slot.
//!
//! Owns: which replica of a slot stays and which leaves, when a start is due, and the order un-route, drain, stop.
//! Never: looks at a deployment's progress.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{
    Action, Decision, Eagerness, ExitStatus, KillCause, RESEND, StartCause,
    desired::{Desired, Release},
    humans::is_all_away,
    observed::{Observed, Replica, ReplicaPhase, SlotHistory},
    table::TUNNEL_CLOSE_MARGIN,
    wanted::{WaitsFor, Want},
};
use crate::{
    health::Verdict,
    ids::{ReleaseId, ReplicaId, Slot},
    spec::{Check, Condition, MIN_UP, Restart, Role, Service},
    time::Timestamp,
};

/// At most this many replicas fill, or leave, one slot at a time.
const SLOT_REPLICAS_MAX: usize = 2;

/// How much longer than its gate a replica may take before it is killed for not being ready.
const NOT_READY_MARGIN: Duration = Duration::from_secs(1);

/// Why a replica should go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leaving {
    /// Gracefully: nobody wants it, or another has taken its place.
    Gracefully,
    /// At once.
    Killed(KillCause),
}

/// What is to become of the replicas.
#[derive(Clone, Debug, Default)]
pub(super) struct Verdicts {
    /// These go.
    pub(super) leaving: BTreeMap<ReplicaId, Leaving>,
    /// These slots need one more replica, and why.
    pub(super) needs: BTreeMap<Slot, StartCause>,
}

/// Says for every replica whether it leaves, and for every wanted slot whether it needs a start.
pub(super) fn classify(
    desired: &Desired,
    wanted: &BTreeMap<Slot, Want<'_>>,
    observed: &Observed,
    now: Timestamp,
    decision: &mut Decision,
) -> Verdicts {
    let mut verdicts = Verdicts::default();
    let mut slots: BTreeMap<Slot, Vec<(&ReplicaId, &Replica)>> = BTreeMap::new();
    for (id, replica) in observed.replicas() {
        slots.entry(id.slot()).or_default().push((id, replica));
    }
    for (slot, replicas) in &slots {
        let Some(want) = wanted.get(slot) else {
            if is_left_alone(desired, slot) {
                continue;
            }
            verdicts.leaving.extend(replicas.iter().map(|(id, _)| ((*id).clone(), Leaving::Gracefully)));
            continue;
        };
        classify_slot(want, replicas, now, &mut verdicts, decision);
    }
    for slot in wanted.keys().filter(|slot| !slots.contains_key(slot)) {
        let cause = if observed.slot(slot).is_some_and(|h| h.last_exit.is_some() && !h.excused) {
            StartCause::Died
        } else {
            StartCause::New
        };
        verdicts.needs.insert(slot.clone(), cause);
    }
    keep_the_last(wanted, &slots, &mut verdicts);
    keep_the_last_in_a_roll(desired, observed, &mut verdicts);
    restart_in_turn(wanted, &slots, &mut verdicts);
    verdicts
}

/// Whether a container that nobody wants any more runs on all the same: a `shared` one, until the project goes down. A
/// deploy never stops it, also when the new file doesn't have it; only what a failed deploy brought is taken back.
fn is_left_alone(desired: &Desired, slot: &Slot) -> bool {
    let is_current = slot.release == desired.shared_release(&slot.service);
    if !is_current
        || desired.is_recreated(&slot.service)
        || desired.down
        || desired.wish(&slot.service).stopped
    {
        return false;
    }
    // One that is so old that no release tells of it any more is Docker's too: the others have long been stopped.
    let Some(service) = desired.service(slot.release, &slot.service) else { return true };
    let has_it = |release: &Release| {
        release.proven && release.spec.services.get(&slot.service).is_some_and(Service::is_kept_by_docker)
    };
    service.is_kept_by_docker()
        && slot.ordinal <= desired.replicas(service)
        && desired.releases.values().any(has_it)
}

/// Of the replicas that a scale-down makes superfluous one stays while none of those that should stay serves.
fn keep_the_last(
    wanted: &BTreeMap<Slot, Want<'_>>,
    slots: &BTreeMap<Slot, Vec<(&ReplicaId, &Replica)>>,
    verdicts: &mut Verdicts,
) {
    let of = |slot: &Slot| (slot.release, slot.service.clone());
    let mut unserved: BTreeMap<_, &Want<'_>> = wanted.iter().map(|(slot, want)| (of(slot), want)).collect();
    for (slot, want) in wanted {
        let mut replicas = slots.get(slot).into_iter().flatten();
        if replicas.any(|(id, r)| r.serves(want.service) && !verdicts.leaving.contains_key(id)) {
            unserved.remove(&of(slot));
        }
    }
    for (slot, replicas) in slots.iter().filter(|(slot, _)| !wanted.contains_key(slot)) {
        let Some(want) = unserved.get(&of(slot)) else { continue };
        if let Some((id, _)) = replicas.iter().rev().find(|(_, r)| r.serves(want.service)) {
            verdicts.leaving.remove(*id);
            unserved.remove(&of(slot));
        }
    }
}

/// Of the live release's replicas that a rolling service has no more use for, one stays while none of those that are to
/// stay serves: the new ones may have died since their step was done. Before that the file's `stop-first` counts.
fn keep_the_last_in_a_roll(desired: &Desired, observed: &Observed, verdicts: &mut Verdicts) {
    let (Some((live, release)), Some((candidate, _))) = (desired.live(), desired.candidate()) else { return };
    for (name, service) in &release.spec.services {
        if desired.roll_step(name).is_none_or(|step| step.done == 0) || desired.wish(name).stopped {
            continue;
        }
        let of_both = |id: &ReplicaId| id.service == *name && [live, candidate].contains(&id.release);
        let serving = || observed.replicas().filter(|(id, r)| of_both(id) && r.serves(service));
        if serving().any(|(id, _)| !verdicts.leaving.contains_key(id)) {
            continue;
        }
        let last = serving().filter(|(id, _)| id.release == live).map(|(id, _)| id).max();
        if let Some(last) = last.filter(|id| verdicts.leaving.get(id) == Some(&Leaving::Gracefully)) {
            verdicts.leaving.remove(last);
        }
    }
}

fn classify_slot(
    want: &Want<'_>,
    replicas: &[(&ReplicaId, &Replica)],
    now: Timestamp,
    verdicts: &mut Verdicts,
    decision: &mut Decision,
) {
    let mut leave = |id: &ReplicaId, how| {
        verdicts.leaving.insert(id.clone(), how);
    };
    let mut staying: Vec<(&ReplicaId, &Replica)> = Vec::new();
    for (id, replica) in replicas {
        match sickness(want, replica, now, decision) {
            Some(cause) => leave(id, Leaving::Killed(cause)),
            None => staying.push((id, replica)),
        }
    }
    // One that is being stopped is on its way out, whatever it once was wanted for.
    staying.retain(|(_, replica)| !replica.is_stopping());
    // What Docker restarts by itself is never replaced.
    let is_sick = |replica: &Replica| replica.is_sick() && !want.service.is_kept_by_docker();
    // The newest that serves makes the older ones superfluous, and any sick one.
    if let Some(best) = staying.iter().rposition(|(_, r)| r.serves(want.service)) {
        let newer = staying.split_off(best);
        let (sick, kept): (Vec<_>, Vec<_>) = newer.into_iter().partition(|(_, r)| is_sick(r));
        for (id, _) in staying.into_iter().chain(sick) {
            leave(id, Leaving::Gracefully);
        }
        staying = kept;
    }
    // Of several sick ones the newest is enough to wait with; the others leave room for a replacement.
    if let Some(newest) = staying.iter().rposition(|(_, r)| is_sick(r)) {
        let older: Vec<_> = staying.iter().take(newest).filter(|(_, r)| is_sick(r)).copied().collect();
        for (id, _) in &older {
            leave(id, Leaving::Gracefully);
        }
        staying.retain(|(id, _)| older.iter().all(|(old, _)| old != id));
    }
    if want.exclusive {
        // There is no room beside it: the sick one goes first.
        for (id, _) in staying.iter().filter(|(_, r)| is_sick(r)) {
            leave(id, Leaving::Gracefully);
        }
        staying.retain(|(_, r)| !is_sick(r));
    }
    let Some((id, _)) = replicas.last() else { return };
    if staying.iter().all(|(_, replica)| is_sick(replica)) {
        let is_gone = staying.is_empty();
        verdicts.needs.insert(id.slot(), if is_gone { StartCause::Died } else { StartCause::Replace });
    }
}

/// Why a replica is killed at once, if it is.
fn sickness(
    want: &Want<'_>,
    replica: &Replica,
    now: Timestamp,
    decision: &mut Decision,
) -> Option<KillCause> {
    if replica.is_stopping() || replica.paused || replica.ended {
        return None;
    }
    if want.service.is_kept_by_docker() {
        wake_when_up(want, replica, now, decision);
        return None;
    }
    match replica.health.verdict() {
        Verdict::Failed { hung: true } => Some(KillCause::Hung),
        Verdict::Unknown if want.service.role != Role::Job => {
            // A deployment gives up at the gate's end and shows what was seen until then; only after that it is killed.
            let deadline = replica.watched_since + want.service.gate_timeout + NOT_READY_MARGIN;
            wake_when_up(want, replica, now, decision);
            if now < deadline {
                decision.wake(deadline);
                return None;
            }
            Some(KillCause::NotReady)
        }
        _ => None,
    }
}

/// A replica that has nothing to probe is looked at again when it has been up for long enough.
fn wake_when_up(want: &Want<'_>, replica: &Replica, now: Timestamp, decision: &mut Decision) {
    let proven_at = replica.started + MIN_UP;
    if want.service.probe.check == Check::Up && now < proven_at {
        decision.wake(proven_at);
    }
}

/// A restart that a human asked for goes through a service slot by slot: the next one when all others serve.
fn restart_in_turn(
    wanted: &BTreeMap<Slot, Want<'_>>,
    slots: &BTreeMap<Slot, Vec<(&ReplicaId, &Replica)>>,
    verdicts: &mut Verdicts,
) {
    let mut busy: BTreeSet<(&str, u32)> = BTreeSet::new();
    let serving = |slot: &Slot| {
        let replicas = slots.get(slot).map(Vec::as_slice).unwrap_or_default();
        replicas.iter().filter(|(id, _)| !verdicts.leaving.contains_key(id)).collect::<Vec<_>>()
    };
    for (slot, want) in wanted.iter().filter(|(_, want)| want.restart.is_some()) {
        let stay = serving(slot);
        // One that a human froze won't serve before that human lets it: nothing waits for it.
        let settled =
            matches!(stay.as_slice(), [(_, replica)] if replica.paused || replica.serves(want.service));
        if !settled {
            busy.insert((&slot.service, slot.release.0));
        }
    }
    let mut due: Vec<(Slot, bool)> = Vec::new();
    for (slot, want) in wanted {
        let Some(restart) = want.restart else { continue };
        let outdated = |r: &Replica| r.started < restart;
        if let [(_, replica)] = serving(slot).as_slice()
            && outdated(replica)
            && busy.insert((&slot.service, slot.release.0))
        {
            due.push((slot.clone(), want.exclusive));
        }
    }
    for (slot, exclusive) in due {
        if exclusive {
            let ids: Vec<ReplicaId> =
                slots.get(&slot).into_iter().flatten().map(|(id, _)| (*id).clone()).collect();
            verdicts.leaving.extend(ids.into_iter().map(|id| (id, Leaving::Gracefully)));
        }
        verdicts.needs.insert(slot, StartCause::Wish);
    }
}

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
        if *cause != StartCause::Wish && history.is_some_and(|h| is_given_up(want, h, *cause)) {
            continue;
        }
        if let Some(at) = history.map(|h| h.score.next_start(slot, h.attempt)).filter(|at| now < *at) {
            decision.wake(at);
            continue;
        }
        if history.is_none_or(|h| h.last_exit.is_none()) && !may_start(desired, slot, want, observed) {
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

/// Whether everything that the service waits for holds.
pub(super) fn may_start(desired: &Desired, slot: &Slot, want: &Want<'_>, observed: &Observed) -> bool {
    want.service.depends_on.iter().all(|(name, dependency)| {
        holds(desired, slot, name, dependency.condition, observed)
            || (!dependency.required && has_failed(desired, slot, name, observed))
    })
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

/// Moves every leaving replica one step on: un-routed, drained, stopped, killed.
pub(super) fn stop(
    desired: &Desired,
    observed: &Observed,
    verdicts: &Verdicts,
    now: Timestamp,
    decision: &mut Decision,
) {
    for (id, replica) in observed.replicas() {
        if let ReplicaPhase::Stopping { since, sent, killed } = replica.phase {
            let end = since + grace(desired, id);
            let end = desired.last_call.map_or(end, |last| end.min(last.kill_at()));
            stop_further(id, (end, sent, killed), now, decision);
            continue;
        }
        match verdicts.leaving.get(id) {
            Some(Leaving::Killed(cause)) => {
                decision.actions.push(Action::Kill { id: id.clone(), cause: *cause });
            }
            Some(Leaving::Gracefully) if is_drained(desired, observed, id, replica, now, decision) => {
                decision.actions.push(Action::Stop { id: id.clone() });
            }
            Some(Leaving::Gracefully) | None => {}
        }
    }
}

/// How long a replica may take to stop. One whose service is forgotten gets Compose's default of 10 s.
fn grace(desired: &Desired, id: &ReplicaId) -> Duration {
    desired.service(id.release, &id.service).map_or(Duration::from_secs(10), |service| service.stop_grace)
}

fn stop_further(
    id: &ReplicaId,
    (end, sent, killed): (Timestamp, Timestamp, bool),
    now: Timestamp,
    decision: &mut Decision,
) {
    let due = if killed { sent + RESEND } else { end };
    if now < due {
        decision.wake(due);
    } else {
        decision.actions.push(Action::Kill { id: id.clone(), cause: KillCause::Grace });
    }
}

/// Whether a leaving replica may be stopped: no proxy can choose it, and what it had under way is done or overdue.
fn is_drained(
    desired: &Desired,
    observed: &Observed,
    id: &ReplicaId,
    replica: &Replica,
    now: Timestamp,
    decision: &mut Decision,
) -> bool {
    if !observed.was_ever_routed(id) {
        return true;
    }
    let Some(unrouted) = replica.unrouted_since.filter(|_| observed.is_unrouted(id)) else { return false };
    let load = observed.load(id);
    let drain = desired.service(id.release, &id.service).map(|service| service.drain).unwrap_or_default();
    let requests_end = unrouted + drain.requests;
    // Counted from when they were asked to close, which may be long after it was un-routed: a warm release.
    let tunnels_end = replica.closing_since.map(|since| since + drain.stagger + TUNNEL_CLOSE_MARGIN);
    let last_call = desired.last_call.map(|last| last.stop_at(grace(desired, id)));
    let is_waiting = |count: u64, end: Option<Timestamp>, decision: &mut Decision| {
        let end = [end, last_call].into_iter().flatten().min();
        let waits = count > 0 && end.is_none_or(|end| now < end);
        if let Some(end) = end.filter(|_| waits) {
            decision.wake(end);
        }
        waits
    };
    let waits_for_requests = is_waiting(load.in_flight, Some(requests_end), decision);
    let waits_for_tunnels = is_waiting(load.tunnels, tunnels_end, decision);
    !waits_for_requests && !waits_for_tunnels
}

/// Which replicas to probe.
pub(super) fn probes(desired: &Desired, observed: &Observed, decision: &mut Decision) {
    for (id, replica) in observed.replicas() {
        let Some(service) = desired.service(id.release, &id.service) else { continue };
        let is_given_up = replica.is_sick() && !service.is_kept_by_docker();
        if replica.phase != ReplicaPhase::Running
            || replica.paused
            || replica.ended
            || service.role == Role::Job
            || service.probe.check == Check::Up
            || is_given_up
        {
            continue;
        }
        let eagerness =
            if replica.health.verdict() == Verdict::Unknown { Eagerness::Gate } else { Eagerness::Watch };
        decision.probes.insert(id.clone(), eagerness);
    }
}
