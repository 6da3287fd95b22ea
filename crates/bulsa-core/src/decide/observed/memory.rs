//! What is remembered, forgiven and forgotten of the past.
//!
//! Owns: what a commit means for the picture, deaths of an earlier agent's time, and when a slot's history goes. Never:
//! takes in an event.

use std::time::Duration;

use super::{ExitStatus, Observed, ReplicaPhase};
use crate::{
    decide::desired::{Change, Desired, ReleaseState},
    health::Verdict,
    ids::{ReleaseId, ReplicaId, Slot},
    spec::{Check, MIN_UP, Role},
    time::Timestamp,
};

/// The history of a slot whose release runs no more is kept for so long after its last death: news may be late.
pub const FORGET_AFTER: Duration = Duration::from_secs(300);

/// One whose check can't be run, of a release that passed it once, is taken for ready when it has been up for so long.
pub const BLIND_MIN_UP: Duration = Duration::from_secs(10);

impl Observed {
    /// Takes in that `change` was committed; `desired` has it already. The shell calls it for every change.
    pub fn committed(&mut self, desired: &Desired, change: &Change) {
        match change {
            Change::Begin { deployment, .. } => self.begin_gate(desired, deployment.candidate),
            Change::Switch { .. } => {
                if let Some(live) = desired.live {
                    self.begin_bake(live);
                }
            }
            Change::Move { service, replicas } => {
                let candidate = desired.candidate().map(|(id, _)| id);
                // Users meet these now: what they went through until they were ready doesn't count.
                let moved = self.slots.iter_mut().filter(|(slot, _)| {
                    Some(slot.release) == candidate && slot.service == *service && slot.ordinal <= *replicas
                });
                moved.for_each(|(_, history)| (history.own_deaths, history.deaths) = (0, 0));
            }
            Change::Revert { .. } => {
                // What comes back was stopped for the candidate, whoever a later agent took for the one who did it.
                for service in desired.running().into_iter().flat_map(|running| &running.recreates) {
                    self.forgive(service);
                }
            }
            Change::Wish { service, .. } => self.forgive(service),
            Change::Reinstate { slot } => {
                if let Some(history) = self.slots.get_mut(slot) {
                    history.give_another_chance();
                }
            }
            _ => {}
        }
    }

    /// Remembers a death that an earlier agent recorded, so that a crash of the agent forgives nothing: neither a
    /// crash loop, nor that a service which may not restart has ended. What a human or a deployment has forgiven since
    /// stays forgiven.
    pub fn recall_death(
        &mut self,
        desired: &Desired,
        id: &ReplicaId,
        status: ExitStatus,
        ready_for: Option<Duration>,
        at: Timestamp,
    ) {
        let deployment = desired.deployment.as_ref().filter(|deployment| deployment.candidate == id.release);
        let gate = deployment.map(|deployment| deployment.started);
        let forgiven = [gate, desired.wish(&id.service).restart].into_iter().flatten().max();
        let history = self.slots.entry(id.slot()).or_default();
        history.bury(id.attempt, at);
        history.last_exit = Some(status);
        history.served_until = ready_for.map(|_| at).or(history.served_until);
        history.excused = forgiven.is_some_and(|since| at < since);
        if !history.excused {
            history.score.add_death(ready_for, at);
        }
    }

    /// Forgets the score of a service's slots: a human, or a new release, gives it another chance.
    pub fn forgive(&mut self, service: &str) {
        for (_, history) in self.slots.iter_mut().filter(|(slot, _)| slot.service == service) {
            history.give_another_chance();
        }
    }

    /// A release begins its gate: what its slots went through before doesn't count, and the shared ones are wanted.
    pub fn begin_gate(&mut self, desired: &Desired, release: ReleaseId) {
        for (slot, history) in &mut self.slots {
            if slot.release == release {
                history.give_another_chance();
                history.last_exit = None;
            } else if slot.release == desired.shared_release(&slot.service) {
                history.taken_away = false;
            }
        }
    }

    /// A release begins its bake: only what happens from now on counts.
    pub fn begin_bake(&mut self, release: ReleaseId) {
        for (_, history) in self.slots.iter_mut().filter(|(slot, _)| slot.release == release) {
            (history.own_deaths, history.deaths) = (0, 0);
        }
        let ids: Vec<ReplicaId> = self.replicas.keys().filter(|id| id.release == release).cloned().collect();
        let counted = |id| self.counted.get(&id).map(|load| (id, *load));
        self.baseline = ids.into_iter().filter_map(counted).collect();
    }

    /// Brings the picture in line with what should be: replicas that have nothing to probe and have been up for
    /// [`MIN_UP`] are ready, and slots that can't be filled again soon are forgotten. The shell calls it before every
    /// decision.
    pub fn settle(&mut self, desired: &Desired, now: Timestamp) {
        for counts in [&mut self.counted, &mut self.baseline] {
            counts.retain(|id, _| self.replicas.contains_key(id));
        }
        for (id, replica) in &mut self.replicas {
            let Some(service) = desired.service(id.release, &id.service) else { continue };
            replica.is_container = service.is_container();
            let is_up = replica.phase == ReplicaPhase::Running
                && !replica.paused
                && !replica.ended
                && now.since(replica.started) >= MIN_UP;
            let unproven = replica.health.verdict() == Verdict::Unknown;
            // Where the check can't be run, a release that passed it once is taken at its word: its service may be fine.
            let is_proven = desired.releases.get(&id.release).is_some_and(|release| release.proven);
            let is_blind = replica.health.is_blind()
                && (is_proven || service.role == Role::Shared)
                && now.since(replica.started) >= BLIND_MIN_UP;
            let needs_no_proof = service.probe.check == Check::Up || is_blind;
            if is_up && unproven && needs_no_proof && service.role != Role::Job {
                replica.health.declare_ready(now);
                if let Some(history) = self.slots.get_mut(&id.slot()) {
                    (history.early_deaths, history.start_error) = (0, None);
                }
            }
        }
        self.forget(desired, now);
    }

    /// Forgets slots of releases that run no more. Their names stay used: the highest attempt is kept by release.
    fn forget(&mut self, desired: &Desired, now: Timestamp) {
        let is_over = |slot: &Slot| {
            let state = desired.releases.get(&slot.release).map(|release| release.state);
            slot.release != desired.shared_release(&slot.service)
                && slot.release.0 != 0
                && matches!(state, None | Some(ReleaseState::Retired | ReleaseState::Failed))
        };
        let old: Vec<Slot> = self
            .slots
            .iter()
            .filter(|(slot, history)| {
                is_over(slot)
                    && now.since(history.died_at) >= FORGET_AFTER
                    && self.in_slot(slot).next().is_none()
            })
            .map(|(slot, _)| slot.clone())
            .collect();
        for slot in old {
            let Some(history) = self.slots.remove(&slot) else { continue };
            let highest = self.forgotten.entry(slot.release).or_default();
            *highest = (*highest).max(history.attempt);
        }
        if self.forgotten.len() > desired.releases.len() {
            self.forgotten.retain(|release, _| desired.releases.contains_key(release));
        }
    }
}
