//! What should be: releases, the deployment in progress, human wishes.
//!
//! Owns: the committed state of one project and the only way to change it, [`Desired::apply`]. Never: holds anything
//! that can be observed again.

mod deployment;
mod shared;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

pub(super) use self::deployment::RollStep;
pub use self::deployment::{Deployment, Kind, Outcome, Phase};
use super::last_call::LastCall;
use crate::{
    ids::{ReleaseId, Slot},
    spec::{Handover, Role, Service, Spec},
    time::Timestamp,
};

/// The committed state of one project.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Desired {
    /// Every release that isn't pruned.
    pub releases: BTreeMap<ReleaseId, Release>,
    /// The release that users reach.
    pub live: Option<ReleaseId>,
    /// The last deployment, finished or not.
    pub deployment: Option<Deployment>,
    /// What humans asked for, by service.
    pub wishes: BTreeMap<String, Wish>,
    /// Slots whose replica a human took away through the Engine: they stay empty until a human wants them filled.
    pub withheld: BTreeSet<Slot>,
    /// Of each `shared` service that was recreated by name, the release that did it: its slots are in that one, and in
    /// release 0 before.
    pub made_for: BTreeMap<String, ReleaseId>,
    /// Finished jobs and whether they succeeded.
    pub jobs: BTreeMap<(ReleaseId, String), bool>,
    /// Whether a human took the project down.
    pub down: bool,
    /// By when all of it must be gone. It is the daemon's own end that is near, so no disk knows of it.
    pub last_call: Option<LastCall>,
}

/// One release.
#[derive(Clone, Debug, PartialEq)]
pub struct Release {
    /// What it is. Immutable.
    pub spec: Arc<Spec>,
    /// The content hash of `spec`.
    pub hash: String,
    /// Where it is in its life.
    pub state: ReleaseState,
    /// Whether it ever passed a gate, or served: only then it is worth keeping warm and going back to.
    pub proven: bool,
}

/// Where a release is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReleaseState {
    /// Being started beside the live one.
    Candidate,
    /// Users reach it.
    Live,
    /// Was live; runs on, un-routed, for an instant rollback.
    Warm {
        /// When it was replaced.
        since: Timestamp,
        /// Until when it is kept.
        until: Timestamp,
    },
    /// Was live; runs no more. A rollback may start it again.
    Retired,
    /// Never passed its gate, or was rolled back.
    Failed,
}

/// What a human asked of a service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// Stopped until `start`.
    pub stopped: bool,
    /// So many replicas instead of what the file says.
    pub replicas: Option<u32>,
    /// Replicas started before this are to be replaced.
    pub restart: Option<Timestamp>,
    /// Its new requests wait in the proxy since then, until somebody lets them out.
    pub held: Option<Timestamp>,
}

/// A change to [`Desired`]. Committed to the disk before it is applied.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// A deployment begins; with the release it makes, if that is new.
    Begin {
        /// The deployment, in its first phase.
        deployment: Deployment,
        /// The new release's spec and hash; `None` for a release that is known.
        release: Option<(Arc<Spec>, String)>,
    },
    /// The exchange of the services that can't overlap begins.
    Exchange {
        /// When.
        at: Timestamp,
    },
    /// A step of a rolling service is done.
    Move {
        /// Which service.
        service: String,
        /// So many of its replicas are the candidate's now.
        replicas: u32,
    },
    /// Users are switched to the candidate.
    Switch {
        /// When.
        at: Timestamp,
    },
    /// The deployment is over and the candidate stays as it is.
    Finish {
        /// How it ended: [`Outcome::Deployed`], or [`Outcome::Failed`] for a first release.
        outcome: Outcome,
        /// Why.
        reason: String,
        /// When.
        at: Timestamp,
    },
    /// The candidate is given up before the switch; the `shared` services that it recreated come back first.
    Revert {
        /// Why.
        reason: String,
        /// When.
        at: Timestamp,
    },
    /// The deployment is over and the candidate is given up; the previous release is live (again).
    Undo {
        /// Why.
        reason: String,
        /// When.
        at: Timestamp,
    },
    /// A warm release is kept no longer.
    Retire {
        /// Which.
        release: ReleaseId,
    },
    /// A release that nobody goes back to any more is forgotten.
    Forget {
        /// Which.
        release: ReleaseId,
    },
    /// A job of a release has ended.
    JobDone {
        /// Whose.
        release: ReleaseId,
        /// Which.
        service: String,
        /// Whether it exited with 0.
        success: bool,
    },
    /// The live release serves, though it never passed its gate.
    Proven {
        /// Which.
        release: ReleaseId,
    },
    /// A human took away the replica in this slot: it stays empty.
    Withhold {
        /// Which.
        slot: Slot,
    },
    /// A human wants this slot filled again, or has filled it.
    Reinstate {
        /// Which.
        slot: Slot,
    },
    /// A human's wish for a service.
    Wish {
        /// Which service.
        service: String,
        /// The whole wish, in place of any earlier one.
        wish: Wish,
    },
    /// A human wants a service's requests to wait, or to wait no longer. Apart from [`Change::Wish`]: it is no new chance
    /// for what dies.
    Hold {
        /// Which service.
        service: String,
        /// Since when; `None` lets them out.
        since: Option<Timestamp>,
    },
    /// The project goes down.
    Down,
}

impl Desired {
    /// The live release.
    #[must_use]
    pub fn live(&self) -> Option<(ReleaseId, &Release)> {
        let id = self.live?;
        Some((id, self.releases.get(&id)?))
    }

    /// The deployment, if one runs.
    #[must_use]
    pub fn running(&self) -> Option<&Deployment> {
        self.deployment.as_ref().filter(|d| d.is_running())
    }

    /// The candidate that isn't live yet.
    #[must_use]
    pub fn candidate(&self) -> Option<(ReleaseId, &Release)> {
        let id = self.running().filter(|d| d.is_before_switch())?.candidate;
        Some((id, self.releases.get(&id)?))
    }

    /// The release that a rollback without a number goes back to: the newest that was live before the live one, or else
    /// the newest other one that was.
    #[must_use]
    pub fn rollback_target(&self) -> Option<ReleaseId> {
        let live = self.live?;
        let can_serve = |release: &Release| {
            release.proven && matches!(release.state, ReleaseState::Warm { .. } | ReleaseState::Retired)
        };
        let mut known =
            self.releases.iter().rev().filter(|(_, release)| can_serve(release)).map(|(id, _)| *id);
        let newest = known.clone().next();
        known.find(|id| *id < live).or(newest)
    }

    /// What a human asked of `service`.
    #[must_use]
    pub fn wish(&self, service: &str) -> Wish {
        self.wishes.get(service).copied().unwrap_or_default()
    }

    /// Whether the proxy serves `service` of the live release: at published ports, or under its name inside the
    /// project's networks, which may be another release's doing.
    #[must_use]
    pub fn is_routed(&self, service: &Service) -> bool {
        service.is_routed() || !self.anchor_ports(&service.name).is_empty()
    }

    /// How many replicas of `service` should run, the human's wish included.
    #[must_use]
    pub fn replicas(&self, service: &Service) -> u32 {
        let wish = self.wish(&service.name);
        if wish.stopped { 0 } else { wish.replicas.unwrap_or(service.replicas) }
    }

    /// The service that a replica of `release` (0: a `shared` one) runs.
    #[must_use]
    pub fn service(&self, release: ReleaseId, service: &str) -> Option<&Service> {
        self.spec_of(release, service)?.services.get(service)
    }

    /// How many replicas of `service` there are in all, those included that are kept ready.
    #[must_use]
    pub fn copies(&self, service: &Service) -> u32 {
        let replicas = self.replicas(service);
        if replicas == 0 { 0 } else { replicas.saturating_add(service.care.spare) }
    }

    /// The slots that `service` has in `release` (a `shared` one: [`Desired::slot_release`]), by the file and human
    /// wishes. Those beyond [`Desired::replicas`] are spare.
    pub fn slots<'a>(
        &self,
        release: ReleaseId,
        service: &'a Service,
    ) -> impl Iterator<Item = Slot> + use<'a> {
        let release = self.slot_release(release, service);
        (1..=self.copies(service)).map(move |ordinal| Slot {
            release,
            service: service.name.clone(),
            ordinal,
        })
    }

    /// Those slots of `service` in the live release that a human emptied.
    pub fn withheld_of<'a>(&'a self, service: &'a str) -> impl Iterator<Item = &'a Slot> {
        self.withheld.iter().filter(move |slot| {
            slot.service == service
                && (slot.release == self.shared_release(service) || Some(slot.release) == self.live)
        })
    }

    /// Whether `service` is taken from the live release by the running deployment's `stop_first`.
    #[must_use]
    pub fn is_taken_over(&self, service: &str) -> bool {
        let Some(deployment) = self.running() else { return false };
        matches!(deployment.phase, Phase::Exchange { .. })
            && self
                .service(deployment.candidate, service)
                .is_some_and(|candidate| candidate.handover == Handover::StopFirst)
    }

    /// The candidate whose replicas answer for `service` beside the live release's: while that is rolling.
    #[must_use]
    pub fn beside(&self, service: &str) -> Option<ReleaseId> {
        self.roll_step(service)?;
        self.candidate().map(|(id, _)| id)
    }

    /// The step that the running deployment makes of `service`, if that is rolling and the exchange has begun. A service
    /// that the live release doesn't have isn't replaced.
    pub(super) fn roll_step(&self, service: &str) -> Option<RollStep> {
        let deployment = self.running()?;
        let Phase::Exchange { moved, .. } = &deployment.phase else { return None };
        let candidate = self.service(deployment.candidate, service)?;
        let Handover::Rolling(rolling) = candidate.handover else { return None };
        self.live()?.1.spec.services.get(service)?;
        let done = moved.get(service).copied().unwrap_or(0);
        Some(RollStep { done, until: done.saturating_add(rolling.parallelism), rolling })
    }

    /// Applies a committed change. Applying one twice does no more than applying it once.
    pub fn apply(&mut self, change: &Change) {
        match change {
            Change::Begin { deployment, release } => self.begin(deployment, release.as_ref()),
            Change::Exchange { at } => self.set_phase(Phase::Exchange { since: *at, moved: BTreeMap::new() }),
            Change::Move { service, replicas } => self.move_on(service, *replicas),
            Change::Switch { at } => self.switch(*at),
            Change::Finish { outcome, reason, at } => {
                let passed = self.running().filter(|_| *outcome == Outcome::Deployed).map(|d| d.candidate);
                if let Some(candidate) = passed {
                    self.prove(candidate);
                }
                self.set_phase(Phase::Done { outcome: *outcome, reason: reason.clone(), at: *at });
            }
            Change::Revert { reason, at } => self.revert(reason, *at),
            Change::Undo { reason, at } => self.undo(reason, *at),
            Change::Retire { release } => self.set_state(*release, ReleaseState::Retired),
            Change::Forget { release } => {
                self.releases.remove(release);
                self.jobs.retain(|(of, _), _| of != release);
                self.empty_of(*release);
            }
            Change::Proven { release } => self.prove(*release),
            Change::Withhold { slot } => {
                self.withheld.insert(slot.clone());
            }
            Change::Reinstate { slot } => {
                self.withheld.remove(slot);
            }
            Change::JobDone { release, service, success } => {
                self.jobs.insert((*release, service.clone()), *success);
            }
            Change::Wish { service, wish } => {
                self.wishes.insert(service.clone(), *wish);
            }
            Change::Hold { service, since } => {
                self.wishes.entry(service.clone()).or_default().held = *since;
            }
            Change::Down => {
                self.down = true;
                self.withheld.clear();
            }
        }
    }

    fn begin(&mut self, deployment: &Deployment, release: Option<&(Arc<Spec>, String)>) {
        let id = deployment.candidate;
        let state = if deployment.kind == Kind::First { ReleaseState::Live } else { ReleaseState::Candidate };
        if let Some((spec, hash)) = release {
            let (spec, hash) = (Arc::clone(spec), hash.clone());
            self.releases.insert(id, Release { spec, hash, state, proven: false });
        }
        // It needs all of its own, and the shared ones: whoever deploys wants what was taken away to be there again.
        let made_for = &self.made_for;
        let is_shared =
            |slot: &Slot| slot.release == made_for.get(&slot.service).copied().unwrap_or_default();
        self.withheld.retain(|slot| slot.release != id && !is_shared(slot));
        self.set_state(id, state);
        if deployment.kind == Kind::First {
            self.live = Some(id);
        }
        // A job that failed in an earlier try of this release is given another chance.
        self.jobs.retain(|(of, _), success| *of != id || *success);
        self.down = false;
        self.deployment = Some(deployment.clone());
    }

    fn switch(&mut self, at: Timestamp) {
        let Some(deployment) = self.deployment.clone().filter(Deployment::is_before_switch) else { return };
        if let Some(previous) = deployment.previous {
            let until = at
                + self
                    .releases
                    .get(&deployment.candidate)
                    .map_or(Duration::ZERO, |new| new.spec.keep.warm.max(bake_time(&new.spec)));
            let is_proven = self.releases.get(&previous).is_some_and(|release| release.proven);
            // One that never worked is nothing to go back to.
            self.set_state(
                previous,
                if is_proven { ReleaseState::Warm { since: at, until } } else { ReleaseState::Failed },
            );
        }
        self.prove(deployment.candidate);
        self.set_state(deployment.candidate, ReleaseState::Live);
        self.live = Some(deployment.candidate);
        self.made_for.extend(deployment.recreates.into_iter().map(|service| (service, deployment.candidate)));
        self.set_phase(Phase::Bake { switched: at });
    }

    fn undo(&mut self, reason: &str, at: Timestamp) {
        let Some(deployment) = self.running().cloned() else { return };
        let outcome = if deployment.was_seen() { Outcome::RolledBack } else { Outcome::Failed };
        self.set_state(deployment.candidate, ReleaseState::Failed);
        if let Some(previous) = deployment.previous {
            self.set_state(previous, ReleaseState::Live);
        }
        self.live = deployment.previous;
        self.set_phase(Phase::Done { outcome, reason: reason.to_owned(), at });
    }

    fn move_on(&mut self, service: &str, replicas: u32) {
        if let Some(Phase::Exchange { moved, .. }) =
            self.deployment.as_mut().map(|deployment| &mut deployment.phase)
        {
            moved.insert(service.to_owned(), replicas);
        }
    }

    fn set_phase(&mut self, phase: Phase) {
        if let Some(deployment) = self.deployment.as_mut().filter(|d| d.is_running()) {
            deployment.phase = phase;
        }
    }

    fn set_state(&mut self, id: ReleaseId, state: ReleaseState) {
        if let Some(release) = self.releases.get_mut(&id) {
            release.state = state;
        }
        if matches!(state, ReleaseState::Retired | ReleaseState::Failed) {
            self.empty_of(id);
        }
    }

    fn prove(&mut self, id: ReleaseId) {
        if let Some(release) = self.releases.get_mut(&id) {
            release.proven = true;
        }
    }
}

/// How long a release is watched: the longest bake of the services that are watched in it.
#[must_use]
pub fn bake_time(spec: &Spec) -> Duration {
    let watched = spec.services.values().filter(|service| matches!(service.role, Role::App | Role::Worker));
    watched.map(|service| service.bake.time).max().unwrap_or_default()
}
