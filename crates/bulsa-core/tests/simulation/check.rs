//! The invariants of the design, checked against the world and not against what the agent believes.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use bulsa_core::{
    decide::{Change, KillCause, Outcome, Phase, ReleaseState, ReplicaPhase},
    ids::{Generation, ReleaseId, ReplicaId},
    spec::{Handover, Role, Service},
};

use crate::{agent::Agent, world::World};

/// So late may the news of a human's doing be.
const NEWS_MAX: Duration = Duration::from_secs(1);
/// Probes that are lost or late delay a verdict, but not for so long.
const LONG_HEALTHY: Duration = Duration::from_secs(10);

impl World {
    /// Invariant 1: no table of ours takes the last ready replica of a live service away.
    pub(crate) fn check_publish(&self, agent: &Agent, routed: &BTreeSet<ReplicaId>) {
        let Some((live, release)) = agent.desired.live() else { return };
        if agent.desired.down {
            return;
        }
        for service in release.spec.services.values().filter(|service| service.role == Role::App) {
            let name = &service.name;
            let wish = agent.desired.wish(name);
            // A human's wish, or a stated `stop_first`, may take it away.
            // Both releases answer for a rolling service.
            let beside = agent.desired.candidate().filter(|(_, new)| {
                let rolls = new.spec.services.get(name).map(|new| new.handover);
                self.is_exchanging() && matches!(rolls, Some(Handover::Rolling(_)))
            });
            // The first step that stops old ones takes what there is, as the file says.
            let new = beside.and_then(|(_, new)| new.spec.services.get(name));
            let at_once = new.is_some_and(|new| self.is_first_stop(new));
            let stop_first = service.handover == Handover::StopFirst && wish.restart.is_some();
            if wish.stopped || agent.desired.is_taken_over(name) || stop_first || at_once {
                continue;
            }
            // So may humans who stopped, through the Engine, every replica that should be there.
            let is_away = |slot| {
                let taken = agent.observed.slot(&slot).is_some_and(|history| history.taken_away);
                agent.desired.withheld.contains(&slot) || taken
            };
            if agent.desired.slots(live, service).all(is_away) {
                continue;
            }
            let serves = agent.observed.replicas().find(|(id, replica)| {
                id.release == live
                    && id.service == *name
                    && replica.phase == ReplicaPhase::Running
                    && !replica.paused
                    && replica.health.is_ready()
                    && replica.addr.is_some()
            });
            let beside = beside.map(|(id, _)| id);
            let answers = |id: &ReplicaId| id.release == live || Some(id.release) == beside;
            let has_route = routed.iter().any(|id| answers(id) && id.service == *name);
            if let Some((id, _)) = serves {
                assert!(has_route, "invariant 1: {id} is ready and the new table has no route to `{name}`");
            }
        }
    }

    /// Invariants 2 and 3: nothing is stopped while a proxy can still choose it, or while it has work to finish.
    pub(crate) fn check_stop(&self, agent: &Agent, id: &ReplicaId) {
        let Some(process) = self.processes.get(id) else { return };
        for (generation, proxy) in &self.proxies {
            assert!(
                !proxy.routed.contains(id),
                "invariant 3: {id} is stopped, {generation} still routes to it"
            );
            let ends = proxy.in_flight.get(id).into_iter().flatten();
            let unfinished = ends.filter(|end| self.now < **end).count();
            let since = agent.observed.replica(id).and_then(|replica| replica.unrouted_since);
            let waited = since.map(|since| self.now.since(since));
            let drain = self.store.service(id.release, &id.service).map(|s| s.drain.requests);
            assert!(
                unfinished == 0 || waited >= drain,
                "invariant 2: {id} is stopped after {waited:?} with {unfinished} requests in flight on {generation}"
            );
            let tunnels = proxy.tunnels.get(id).into_iter().flatten().filter(|end| self.now < **end).count();
            let asked = agent.observed.replica(id).and_then(|replica| replica.closing_since);
            let waited = asked.map(|since| self.now.since(since));
            let stagger = self.store.service(id.release, &id.service).map(|s| s.drain.stagger);
            assert!(
                tunnels == 0 || waited >= stagger,
                "invariant 2: {id} is stopped with {tunnels} tunnels on {generation}, asked to close for {waited:?}"
            );
        }
        // Invariant 4: before the switch nothing that users see changes.
        if let Some(deployment) = self.store.running()
            && deployment.phase == Phase::Gate
            && deployment.previous == Some(id.release)
            && id.service == "web"
            && self.is_healthy(process)
        {
            let wish = self.store.wish("web");
            let replaced = self.processes.keys().any(|other| other.slot() == id.slot() && other != id);
            let wished = wish.stopped || wish.replicas.is_some() || wish.restart.is_some();
            let suspected = agent.observed.replica(id).is_none_or(|replica| !replica.health.is_ready());
            assert!(
                wished || replaced || suspected || self.is_surplus(id),
                "invariant 4: {id} of the live release is stopped during a gate"
            );
        }
    }

    fn is_first_stop(&self, service: &Service) -> bool {
        let is_stop_first = matches!(service.handover, Handover::Rolling(how) if how.stop_first);
        let phase = self.store.running().map(|running| &running.phase);
        is_stop_first
            && matches!(phase, Some(Phase::Exchange { moved, .. }) if !moved.contains_key(&service.name))
    }

    fn is_exchanging(&self) -> bool {
        self.store.running().is_some_and(|running| matches!(running.phase, Phase::Exchange { .. }))
    }

    fn is_surplus(&self, id: &ReplicaId) -> bool {
        self.store.service(id.release, &id.service).is_none_or(|s| id.ordinal > self.store.copies(s))
    }

    /// Invariant 5: never twice the replicas in a slot beyond the one that replaces.
    pub(crate) fn check_start(&self, id: &ReplicaId) {
        let others: Vec<&ReplicaId> =
            self.processes.keys().filter(|other| other.slot() == id.slot()).collect();
        assert!(others.len() < 2, "invariant 5: {id} is started beside {others:?}");
        assert!(id.attempt > 0 && !self.processes.contains_key(id), "{id} is started twice");
        assert!(
            !self.store.withheld.contains(&id.slot()) || !others.is_empty(),
            "invariant 8: {id} is started where a human emptied the slot"
        );
        let job = (id.release, id.service.clone());
        assert!(!self.jobs_done.contains(&job), "{id} is started and its job is done");
    }

    /// Nothing that has long been healthy is killed for not having become ready: a new agent looks first.
    pub(crate) fn check_kill(&mut self, id: &ReplicaId, cause: KillCause) {
        self.tally.kill(cause);
        let Some(process) = self.processes.get(id) else { return };
        let is_frozen = process.paused.is_some_and(|since| self.now.since(since) > NEWS_MAX);
        let is_left_alone = is_frozen || self.is_kept_by_docker(id);
        assert!(cause == KillCause::Grace || !is_left_alone, "invariant 8: {id} is killed: {cause:?}");
        let is_long_healthy = self.is_healthy(process) && self.now.since(process.ready_at) > LONG_HEALTHY;
        assert!(cause != KillCause::NotReady || !is_long_healthy, "{id} is healthy and killed as not ready");
    }

    /// A proxy generation is killed for its silence only.
    pub(crate) fn check_kill_proxy(&self, generation: Generation) {
        if let Some(proxy) = self.proxies.get(&generation) {
            assert!(
                proxy.silent,
                "{generation} is killed and had acknowledged {} of {}",
                proxy.table, self.table.0
            );
        }
    }

    /// Invariant 4: what a deployment says of itself is true.
    pub(crate) fn check_commit(&mut self, change: &Change) {
        let running = self.store.running();
        match change {
            Change::Switch { .. } => {
                let deployment = running.expect("a switch without a deployment");
                assert!(deployment.is_before_switch(), "switched twice");
            }
            Change::Undo { reason, .. } => {
                assert!(!reason.is_empty(), "undone without a reason");
                assert!(running.is_some(), "undone and nothing runs");
            }
            Change::Begin { deployment, .. } => {
                assert!(running.is_none(), "invariant 6: {} begins while another runs", deployment.id);
            }
            Change::JobDone { release, service, success: false } => {
                // Its exit was lost and it is taken for failed: a later try of the release may run it again.
                self.jobs_done.remove(&(*release, service.clone()));
            }
            Change::Retire { release } => {
                assert_ne!(self.store.live, Some(*release), "the live release is retired");
            }
            _ => {}
        }
    }

    /// What holds at any time.
    pub(crate) fn check_step(&self) {
        let live: Vec<ReleaseId> = self
            .store
            .releases
            .iter()
            .filter(|(_, release)| release.state == ReleaseState::Live)
            .map(|(id, _)| *id)
            .collect();
        assert_eq!(
            live,
            self.store.live.into_iter().collect::<Vec<_>>(),
            "exactly the live release is `Live`"
        );
        if let Some(deployment) = &self.store.deployment
            && let Phase::Done { outcome, .. } = &deployment.phase
            && self.store.running().is_none()
        {
            let candidate = &self.store.releases[&deployment.candidate];
            match outcome {
                Outcome::Deployed => assert_eq!(self.store.live, Some(deployment.candidate)),
                Outcome::RolledBack => assert_ne!(self.store.live, Some(deployment.candidate)),
                // With nothing proven to go back to, it stays.
                Outcome::Failed
                    if deployment.previous.is_some_and(|old| self.store.releases[&old].proven) =>
                {
                    assert_eq!(candidate.state, ReleaseState::Failed);
                }
                Outcome::Failed => {}
            }
        }
        // Invariant 5, over all: each slot of at most two living releases, and the one that takes over.
        let mut by_slot: BTreeMap<_, u32> = BTreeMap::new();
        for id in self.processes.keys() {
            *by_slot.entry(id.slot()).or_default() += 1;
        }
        for (slot, count) in by_slot {
            assert!(count <= 2, "invariant 5: {count} replicas in {slot:?}");
        }
    }

    /// What must be so once the world has been quiet for long.
    pub(crate) fn check_end(&self) {
        let agent = self.agent.as_ref().expect("the agent lives");
        assert_eq!(agent.desired, self.store, "the agent knows what is committed");
        if let Some(running) = self.store.running() {
            panic!("deployment {} never ended: {:?}", running.id, running.phase);
        }
        let is_settled = self.now.since(self.table_at) > Duration::from_secs(1);
        for (generation, proxy) in self.proxies.iter().filter(|_| is_settled) {
            assert_eq!(proxy.table, self.table.0, "{generation} runs on the last table");
        }
        for (name, route) in &agent.published.routes {
            assert_eq!(
                route.held,
                self.store.wish(name).held.is_some(),
                "`{name}` is held as a human wants it"
            );
        }
        let Some((live, web)) = self.live_web() else { return };
        for id in self.processes.keys() {
            assert!(id.release == live || id.release.0 == 0, "{id} is left over; the live release is {live}");
        }
        // What humans took away stays away.
        let away = self.store.slots(live, web).filter(|slot| self.store.withheld.contains(slot)).count();
        let wanted = self.store.copies(web) as usize - away;
        let routed = wanted.min(self.store.replicas(web) as usize);
        let running: Vec<&ReplicaId> = self.processes.keys().filter(|id| id.service == "web").collect();
        assert!(running.len() <= wanted, "{running:?} run, {wanted} are wanted");
        // `web` waits for what a human took away from below it.
        let waits = self.store.withheld.iter().any(|slot| web.depends_on.contains_key(&slot.service));
        let is_good = self.live_flavour().is_some_and(|flavour| flavour.gets_healthy());
        if is_good && self.jobs_done(live) && !waits {
            assert_eq!(running.len(), wanted, "{running:?} run, {wanted} are wanted");
            assert_eq!(self.table.1.len(), routed, "all but the spare ones are routed");
        }
    }

    fn jobs_done(&self, live: ReleaseId) -> bool {
        self.store.jobs.iter().all(|((release, _), success)| *release != live || *success)
    }
}
