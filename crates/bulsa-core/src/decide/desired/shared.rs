//! `shared` services: where their slots are, and how one is recreated.
//!
//! Owns: the release in a `shared` slot. It is 0 until a deploy that names the service recreates it; from that deploy's
//! switch on it is the release that did. So the old container and the new one are replicas in two releases, of which
//! [`super::super::slots`] never has both run, and giving the candidate up brings the old one back. Never: says that one
//! differs from its file; that is seen at the Engine ([`crate::spec::drift`]).

use std::sync::Arc;

use super::{Desired, Phase, ReleaseState};
use crate::{
    ids::ReleaseId,
    spec::{Role, Service, Spec},
    time::Timestamp,
};

impl Desired {
    /// The release in the slots of a `shared` service.
    #[must_use]
    pub fn shared_release(&self, service: &str) -> ReleaseId {
        self.made_for.get(service).copied().unwrap_or_default()
    }

    /// The release in the slots that `service` has in `release`: of a `shared` one the same in all, but for the
    /// candidate that recreates it.
    #[must_use]
    pub fn slot_release(&self, release: ReleaseId, service: &Service) -> ReleaseId {
        if service.role == Role::Shared && !self.recreates(release, &service.name) {
            return self.shared_release(&service.name);
        }
        release
    }

    /// Whether `release` is the candidate that recreates `service`, and not live yet.
    #[must_use]
    pub fn recreates(&self, release: ReleaseId, service: &str) -> bool {
        self.running().is_some_and(|running| {
            running.candidate == release && running.is_before_switch() && running.recreates.contains(service)
        })
    }

    /// Whether a `shared` service is being taken over by the candidate that recreates it: what ran makes room.
    #[must_use]
    pub fn is_recreated(&self, service: &str) -> bool {
        self.running().is_some_and(|running| {
            matches!(running.phase, Phase::Exchange { .. }) && running.recreates.contains(service)
        })
    }

    /// Whether a replica of this release runs a `shared` service.
    #[must_use]
    pub fn is_shared(&self, release: ReleaseId, service: &str) -> bool {
        self.service(release, service).is_some_and(|service| service.role == Role::Shared)
    }

    /// Whether a release will not become live: it failed, or is about to.
    pub(in crate::decide) fn is_given_up(&self, release: ReleaseId) -> bool {
        let is_reverted = self.running().is_some_and(|running| {
            running.candidate == release && matches!(running.phase, Phase::Revert { .. })
        });
        is_reverted || self.releases.get(&release).is_some_and(|of| of.state == ReleaseState::Failed)
    }

    /// The Spec that a replica of `release` is made from: its release's. For a `shared` one that of a later live release,
    /// or else that of the candidate that brings it, or of the newest that had it.
    #[must_use]
    pub fn spec_of(&self, release: ReleaseId, service: &str) -> Option<&Arc<Spec>> {
        let find = |id: ReleaseId| {
            self.releases.get(&id).map(|of| &of.spec).filter(|spec| spec.services.contains_key(service))
        };
        let is_shared_slot = release == self.shared_release(service);
        if release.0 != 0 && !is_shared_slot {
            return find(release);
        }
        let later = self.live.filter(|live| *live > release).and_then(find);
        later
            .or_else(|| find(release))
            .or_else(|| self.candidate().and_then(|(id, _)| find(id)))
            .or_else(|| self.releases.keys().rev().find_map(|id| find(*id)))
    }

    pub(super) fn revert(&mut self, reason: &str, at: Timestamp) {
        let Some(running) = self.running().filter(|running| running.is_before_switch()) else { return };
        if matches!(running.phase, Phase::Revert { .. }) {
            return;
        }
        let seen = running.was_seen();
        self.set_phase(Phase::Revert { since: at, reason: reason.to_owned(), seen });
    }

    /// Forgets what humans took away of a release that runs no more; what is `shared` outlives it.
    pub(super) fn empty_of(&mut self, release: ReleaseId) {
        let made_for = &self.made_for;
        self.withheld.retain(|slot| slot.release != release || made_for.get(&slot.service) == Some(&release));
    }
}
