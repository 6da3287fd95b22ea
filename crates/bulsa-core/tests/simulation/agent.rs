//! The agent's shell, as dumb as the real one: it takes events in, asks `decide`, commits, publishes, acts.

use std::collections::{BTreeMap, BTreeSet};

use bulsa_core::{
    decide::{Action, Change, Desired, Eagerness, Event, KillCause, Observed, Origin, Table, decide},
    health::Verdict,
    ids::{Generation, ReleaseId, ReplicaId},
};

use crate::{
    tally::What,
    world::{Due, World},
};

/// How many of the commits take a while.
const SLOW_DISK_PERCENT: u64 = 40;
/// More decisions in a row without waiting mean that it runs in a circle.
const ROUNDS_MAX: u32 = 30;

pub(crate) struct Agent {
    pub(crate) desired: Desired,
    pub(crate) observed: Observed,
    pub(crate) probes: BTreeMap<ReplicaId, Eagerness>,
    pub(crate) published: Table,
    pub(crate) killed: bool,
    /// A commit is on its way to a slow disk.
    pub(crate) committing: bool,
    /// It is killed after so many more steps.
    pub(crate) steps_to_live: Option<u64>,
}

impl Agent {
    /// What a new agent can know: the store, the keeper's last table, and what it observes.
    pub(crate) fn new(world: &mut World) -> Self {
        let mut observed = Observed::new(world.table.0, world.attempts);
        for (generation, proxy) in &world.proxies {
            observed.apply(Event::ProxyUp(*generation), world.now);
            let report = Event::ProxyReport {
                generation: *generation,
                table: if proxy.silent { 0 } else { proxy.table },
                load: BTreeMap::new(),
            };
            observed.apply(report, world.now);
        }
        for (id, process) in &world.processes {
            let routed_before = world.table.1.contains(id);
            let origin = Origin::Adopted { routed: routed_before };
            let started = Event::Started { id: id.clone(), at: process.started, origin };
            observed.apply(started, world.now);
            let paused = process.paused.is_some();
            observed.apply(Event::Paused { id: id.clone(), paused }, world.now);
            if routed_before {
                let addr = Some(([127, 0, 0, 1], 20_000 + (id.attempt % 10_000) as u16).into());
                observed.apply(Event::Listening { id: id.clone(), addr }, world.now);
            }
        }
        // What the keeper has of those that ended while no agent lived, before anything is decided.
        for (id, status) in &world.exits {
            observed.apply(world.end_of(id, *status), world.now);
        }
        Self {
            desired: world.store.clone(),
            observed,
            probes: BTreeMap::new(),
            published: Table { release: Some(ReleaseId(u32::MAX)), ..Table::default() },
            killed: false,
            committing: false,
            steps_to_live: None,
        }
    }

    pub(crate) fn take_in(&mut self, event: Event, world: &mut World) {
        let ended = match &event {
            Event::Exited { id, .. } | Event::TakenAway { id, .. } => Some(id.clone()),
            _ => None,
        };
        if let Event::ProxyUp(generation) = &event {
            // It may have started with an older table than the last.
            let (number, routed) = (self.observed.published(), self.observed.routed().clone());
            let due = Due::Table { generation: *generation, number, routed, close: BTreeSet::new() };
            world.after(1, due);
        }
        self.observed.apply(event, world.now);
        self.step(world);
        // Acknowledged only when what follows from it is committed: a job that is done must not run again.
        if let Some(id) = ended.filter(|_| !self.killed && !self.committing) {
            world.exits.remove(&id);
        }
    }

    /// Whether it is killed before its next step.
    fn dies(&mut self) -> bool {
        match self.steps_to_live.as_mut() {
            Some(0) => self.killed = true,
            Some(left) => *left -= 1,
            None => {}
        }
        self.killed
    }

    pub(crate) fn commit(&mut self, changes: &[Change], world: &mut World) {
        // The store writes all of them, or none.
        for change in changes {
            world.check_commit(change);
            world.tally.commit(change, &world.store);
            world.note(|| format!("commit {}", short(change)));
            world.store.apply(change);
        }
        if self.dies() {
            return;
        }
        for change in changes {
            self.desired.apply(change);
            self.observed.committed(&self.desired, change);
        }
    }

    pub(crate) fn step(&mut self, world: &mut World) {
        for round in 0.. {
            assert!(round < ROUNDS_MAX, "the agent runs in a circle");
            if self.dies() {
                return;
            }
            self.observed.settle(&self.desired, world.now);
            let decision = decide(&self.desired, &self.observed, world.now);
            let again = decide(&self.desired, &self.observed, world.now);
            assert_eq!(decision, again, "decide is not pure");
            if !decision.commits.is_empty() && !self.committing {
                if !world.rng.chance(SLOW_DISK_PERCENT) {
                    self.commit(&decision.commits, world);
                    continue;
                }
                // A slow disk: it goes on with what is committed, and acts on the change once it is told of it.
                self.committing = true;
                world.commits_to_disk(decision.commits.clone());
            }
            self.probes = decision.probes;
            if decision.table != self.published && self.publish(decision.table, world) {
                continue;
            }
            if self.killed {
                return;
            }
            for action in &decision.actions {
                self.act(action, world);
                if self.dies() {
                    return;
                }
            }
            if decision.actions.is_empty() {
                if let Some(at) = decision.wake_at {
                    assert!(at > world.now, "woken in the past: {at} at {}", world.now);
                    world.after(at.0 - world.now.0, Due::Wake);
                }
                return;
            }
        }
    }

    /// Gives the table to the keeper, then to every proxy. Returns whether to decide again.
    fn publish(&mut self, table: Table, world: &mut World) -> bool {
        let number = self.observed.published() + 1;
        let routed: BTreeSet<ReplicaId> = table.targets().cloned().collect();
        let closing: BTreeSet<ReplicaId> =
            table.close_tunnels.iter().map(|close| close.replica.clone()).collect();
        world.check_publish(self, &routed);
        world.note(|| format!("table {number}: {}", list(&routed)));
        (world.table, world.table_at) = ((number, routed.clone()), world.now);
        world.after(1, Due::ToAgent(Box::new(Event::Kept { number })));
        if self.dies() {
            return false;
        }
        let known: Vec<Generation> = self.observed.proxies().map(|(generation, _)| generation).collect();
        for generation in known {
            let delay = world.rng.between(1, 40);
            let (routed, close) = (routed.clone(), closing.clone());
            world.after(delay, Due::Table { generation, number, routed, close });
            if self.dies() {
                return false;
            }
        }
        self.observed.apply(Event::Published { number, routed, closing }, world.now);
        if world.sabotage {
            // It takes every table for acknowledged at once.
            let known: Vec<Generation> = self.observed.proxies().map(|(generation, _)| generation).collect();
            for generation in known {
                let report = Event::ProxyReport { generation, table: number, load: BTreeMap::new() };
                self.observed.apply(report, world.now);
            }
            self.observed.apply(Event::Kept { number }, world.now);
        }
        self.published = table;
        true
    }

    fn act(&mut self, action: &Action, world: &mut World) {
        match action {
            Action::Start { id, .. } => {
                world.check_start(id);
                world.start(id);
                self.observed.apply(Event::StartSent(id.clone()), world.now);
            }
            Action::Stop { id } => {
                world.note(|| format!("stop {id}"));
                world.check_stop(self, id);
                world.terminate(id);
                self.observed.apply(Event::StopSent { id: id.clone(), kill: false }, world.now);
            }
            Action::Kill { id, cause } => {
                world.note(|| format!("kill {id}: {cause:?}"));
                world.check_kill(id, *cause);
                let verdict = self.observed.replica(id).map(|replica| replica.health.verdict());
                if *cause == KillCause::Hung {
                    assert_eq!(verdict, Some(Verdict::Failed { hung: true }), "{id} isn't proven hung");
                }
                world.kill(id);
                self.observed.apply(Event::StopSent { id: id.clone(), kill: true }, world.now);
            }
            Action::KillProxy { generation } => {
                world.tally.count(What::ProxyKill);
                world.note(|| format!("kill proxy {generation}"));
                world.check_kill_proxy(*generation);
                world.proxy_dies(*generation);
                self.observed.apply(Event::ProxyDown(*generation), world.now);
            }
        }
    }
}

fn short(change: &Change) -> String {
    match change {
        Change::Begin { deployment, .. } => {
            format!("begin {:?} of {}", deployment.kind, deployment.candidate)
        }
        other => format!("{other:?}"),
    }
}

fn list(ids: &BTreeSet<ReplicaId>) -> String {
    ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}
