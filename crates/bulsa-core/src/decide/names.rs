//! Names inside the project's networks: whether one means an anchor or the replicas themselves, and where an anchor
//! leads.
//!
//! Two releases may differ in that: a service gets its first known port, or one that an anchor can't carry. Its replicas
//! of the release without an anchor carry the name from their start to their end, and nobody can take it from them.
//!
//! Owns: by which release a service's name goes at any moment of a deploy, so that an anchor never has a name that leads
//! to nobody. Never: makes an anchor, or a container that carries a name itself; that is the shell's.

use std::collections::BTreeSet;

use super::desired::{Desired, Phase, Release, ReleaseState};
use crate::{
    ids::ReleaseId,
    spec::{Handover, Role, Service},
};

impl Desired {
    /// The releases between which users may be led: the live one, and those of the deployment that runs. Until that is
    /// settled an anchor is what both of them want.
    #[must_use]
    pub fn led_to(&self) -> BTreeSet<ReleaseId> {
        let before = self.running().and_then(|deployment| deployment.previous);
        [self.candidate().map(|(id, _)| id), self.live, before].into_iter().flatten().collect()
    }

    /// The releases for which `service` has an anchor. Where the live one's replicas carry the name themselves, that of a
    /// warm release is kept for those who remember its address: Docker's DNS lets them for 600 s.
    #[must_use]
    pub fn anchored_by(&self, service: &str) -> BTreeSet<ReleaseId> {
        let mut ids = self.led_to();
        let live = self.live.and_then(|live| self.container_of(live, service));
        if live.is_some_and(|live| anchor(live).is_empty()) {
            let is_warm = |release: &Release| matches!(release.state, ReleaseState::Warm { .. });
            ids.extend(self.releases.iter().filter(|(_, release)| is_warm(release)).map(|(id, _)| *id));
        }
        ids.retain(|id| self.container_of(*id, service).is_some_and(|one| !anchor(one).is_empty()));
        ids
    }

    /// The release by which the name of `service` goes: the live one. The candidate from the exchange on where its anchor
    /// takes the name over from replicas that make room for their successors: somebody has to have it meanwhile.
    #[must_use]
    pub fn named_by(&self, service: &str) -> Option<ReleaseId> {
        let live = self.live?;
        let takes_over = |candidate: &ReleaseId| {
            let before = self.container_of(live, service);
            let next = self.container_of(*candidate, service);
            before.is_some_and(|before| anchor(before).is_empty())
                && next.is_some_and(|next| !anchor(next).is_empty() && next.handover != Handover::Overlap)
        };
        let exchanged = self.running().filter(|running| matches!(running.phase, Phase::Exchange { .. }));
        exchanged.map(|running| running.candidate).filter(takes_over).or(Some(live))
    }

    /// The ports at which the anchor of `service` leads to replicas: those of the release by which its name goes. One that
    /// has lost its name since the switch leads to the live release's, at the ports that it has.
    #[must_use]
    pub fn anchor_ports(&self, service: &str) -> BTreeSet<u16> {
        let ports = |release| self.container_of(release, service).map(anchor).unwrap_or_default();
        let named = self.named_by(service).map(ports).unwrap_or_default();
        let live = self.live.and_then(|live| self.container_of(live, service));
        if !named.is_empty() || live.is_none_or(|live| live.role != Role::App) {
            return named.iter().copied().collect();
        }
        let candidate = self.candidate().map(|(id, _)| id);
        let former = self.anchored_by(service).into_iter().filter(|id| Some(*id) != candidate);
        former.flat_map(ports).copied().collect()
    }

    /// A service as a release has it, where that is on the docker engine.
    fn container_of(&self, release: ReleaseId, service: &str) -> Option<&Service> {
        self.releases.get(&release)?.spec.services.get(service).filter(|service| service.is_container())
    }
}

/// The ports of a service's anchor; without any its replicas carry the name themselves.
fn anchor(service: &Service) -> &[u16] {
    let container = service.container.as_deref().filter(|_| service.role == Role::App);
    container.map(|container| container.anchor.as_slice()).unwrap_or_default()
}
