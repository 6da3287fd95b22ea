//! Replace, stop: the replicas of every slot.
//!
//! Owns: which replica of a slot stays and which leaves, and the order un-route, drain, stop. Never: looks at a deployment's
//! progress; says when a start is due (that is `starts`).

use std::{collections::BTreeMap, time::Duration};

use super::{
    Action, Decision, Eagerness, KillCause, RESEND, StartCause,
    desired::{Desired, Release},
    excuse::excuses,
    observed::{BLIND_MIN_UP, Observed, Replica, ReplicaPhase},
    renew::renew,
    table::TUNNEL_CLOSE_MARGIN,
    wanted::Want,
};
use crate::{
    health::Verdict,
    ids::{ReplicaId, Slot},
    spec::{Check, MIN_UP, Role, Service},
    time::Timestamp,
};

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
    decision.excused = excuses(desired, wanted, observed, now, decision);
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
    renew((desired, observed), wanted, &slots, &mut verdicts, now, decision);
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
        match sickness(want, id, replica, now, decision) {
            Some(cause) => leave(id, Leaving::Killed(cause)),
            None => staying.push((id, replica)),
        }
    }
    // One that is being stopped is on its way out, whatever it once was wanted for.
    staying.retain(|(_, replica)| !replica.is_stopping());
    // What Docker restarts by itself is never replaced; what fails for somebody else, not yet.
    let is_sick = |id: &ReplicaId, replica: &Replica| {
        replica.is_sick() && !want.service.is_kept_by_docker() && !decision.excused.contains_key(id)
    };
    // The newest that serves makes the older ones superfluous, and any sick one.
    if let Some(best) = staying.iter().rposition(|(_, r)| r.serves(want.service)) {
        let newer = staying.split_off(best);
        let (sick, kept): (Vec<_>, Vec<_>) = newer.into_iter().partition(|(id, r)| is_sick(id, r));
        for (id, _) in staying.into_iter().chain(sick) {
            leave(id, Leaving::Gracefully);
        }
        staying = kept;
    }
    // Of several sick ones the newest is enough to wait with; the others leave room for a replacement.
    if let Some(newest) = staying.iter().rposition(|(id, r)| is_sick(id, r)) {
        let older: Vec<_> = staying.iter().take(newest).filter(|(id, r)| is_sick(id, r)).copied().collect();
        for (id, _) in &older {
            leave(id, Leaving::Gracefully);
        }
        staying.retain(|(id, _)| older.iter().all(|(old, _)| old != id));
    }
    if want.exclusive {
        // There is no room beside it: the sick one goes first.
        for (id, _) in staying.iter().filter(|(id, r)| is_sick(id, r)) {
            leave(id, Leaving::Gracefully);
        }
        staying.retain(|(id, r)| !is_sick(id, r));
    }
    let Some((id, _)) = replicas.last() else { return };
    if staying.iter().all(|(id, replica)| is_sick(id, replica)) {
        let is_gone = staying.is_empty();
        verdicts.needs.insert(id.slot(), if is_gone { StartCause::Died } else { StartCause::Replace });
    }
}

/// Why a replica is killed at once, if it is.
fn sickness(
    want: &Want<'_>,
    id: &ReplicaId,
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
        _ if decision.excused.contains_key(id) => None,
        // Nobody can say how it is, and a restart would tell no more.
        Verdict::Unknown if replica.health.is_blind() => {
            let taken_for_ready = replica.started + BLIND_MIN_UP;
            if now < taken_for_ready {
                decision.wake(taken_for_ready);
            }
            None
        }
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
        if replica.phase != ReplicaPhase::Running
            || replica.paused
            || replica.ended
            || service.role == Role::Job
            || service.probe.check == Check::Up
        {
            continue;
        }
        let eagerness =
            if replica.health.verdict() == Verdict::Unknown { Eagerness::Gate } else { Eagerness::Watch };
        decision.probes.insert(id.clone(), eagerness);
    }
}
