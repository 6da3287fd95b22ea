//! What is: replicas, their health, the proxies and what they run on.
//!
//! Owns: the picture of the world that events paint, [`Observed::apply`]. Never: decides; holds anything that an
//! agent couldn't learn again after a crash, except what only makes it more careful.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::Duration,
};

mod event;
mod health;
mod history;
mod human;
mod memory;
mod proxies;

pub use self::{
    event::{Event, Origin},
    history::{ExitStatus, STEADY, SlotHistory, StartError},
    memory::{BLIND_MIN_UP, FORGET_AFTER},
    proxies::{Load, Proxy},
};
use crate::{
    health::{Health, Verdict},
    ids::{Generation, ReleaseId, ReplicaId, Slot},
    spec::Service,
    time::Timestamp,
};

/// The picture of the world.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observed {
    replicas: BTreeMap<ReplicaId, Replica>,
    slots: BTreeMap<Slot, SlotHistory>,
    proxies: BTreeMap<Generation, Proxy>,
    published: u64,
    /// The number of the last table of any agent before this one.
    inherited: u64,
    kept: u64,
    routed: BTreeSet<ReplicaId>,
    last_routed: BTreeMap<ReplicaId, u64>,
    attempt_floor: u32,
    /// The highest attempt in any of a release's slots that were forgotten: no replica's name is used twice.
    forgotten: BTreeMap<ReleaseId, u32>,
    /// What all proxy generations, also those that are gone, have ever counted of the replicas that are not gone.
    counted: BTreeMap<ReplicaId, Load>,
    /// The same when their release began its bake.
    baseline: BTreeMap<ReplicaId, Load>,
    unserved: BTreeMap<String, Option<String>>,
}

/// One replica that isn't gone.
#[derive(Clone, Debug, PartialEq)]
pub struct Replica {
    /// What its process does.
    pub phase: ReplicaPhase,
    /// When its process was started.
    pub started: Timestamp,
    /// Since when this agent watches it: since its start, or since it was adopted. Its gate counts from here.
    pub watched_since: Timestamp,
    /// Where it listens, once that is known.
    pub addr: Option<SocketAddr>,
    /// What its probes say.
    pub health: Health,
    /// Since when no proxy can choose it any more; `None` while one can, or if none ever could.
    pub unrouted_since: Option<Timestamp>,
    /// Since when the proxies are asked to close its tunnels; `None` while they aren't.
    pub closing_since: Option<Timestamp>,
    /// Whether a human froze it: it is left alone, and gets no request and no probe.
    pub paused: bool,
    /// Whether it doesn't run: its end was seen and isn't told yet, or its engine is about to start it again.
    pub ended: bool,
    /// How much memory it takes, in bytes, as far as that is looked at.
    pub memory: Option<u64>,
    /// Whether it is a container, which may take long to be made; by the last [`Observed::settle`].
    is_container: bool,
}

impl Replica {
    fn new(phase: ReplicaPhase, started: Timestamp, now: Timestamp) -> Self {
        Self {
            phase,
            started,
            watched_since: now,
            addr: None,
            health: Health::default(),
            unrouted_since: None,
            closing_since: None,
            paused: false,
            ended: false,
            memory: None,
            is_container: false,
        }
    }

    /// Whether it does what `service` is there for: it runs, is proven healthy, and can be reached if it has to be.
    #[must_use]
    pub fn serves(&self, service: &Service) -> bool {
        self.phase == ReplicaPhase::Running
            && !self.paused
            && !self.ended
            && self.health.is_ready()
            && (self.addr.is_some() || !service.needs_address())
    }

    /// Whether its probes say that it has to be replaced. One that a human froze can't answer, and isn't sick.
    #[must_use]
    pub fn is_sick(&self) -> bool {
        !self.paused && matches!(self.health.verdict(), Verdict::Failed { .. })
    }

    /// Whether it was asked to stop, or killed.
    #[must_use]
    pub const fn is_stopping(&self) -> bool {
        matches!(self.phase, ReplicaPhase::Stopping { .. })
    }

    fn confirm_within(&self) -> Duration {
        if self.is_container { super::CONTAINER_CONFIRM_MAX } else { super::START_CONFIRM_MAX }
    }
}

/// What a replica's process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplicaPhase {
    /// The engine was asked to start it.
    Starting,
    /// It runs.
    Running,
    /// It was asked to stop, or killed.
    Stopping {
        /// When it was asked first.
        since: Timestamp,
        /// When it was asked or killed last.
        sent: Timestamp,
        /// Whether it was killed.
        killed: bool,
    },
}

impl Observed {
    /// The picture that an agent begins with. `last_table` is the number of the last table of any agent before it,
    /// and `attempt_floor` is not below any attempt ever made.
    #[must_use]
    pub fn new(last_table: u64, attempt_floor: u32) -> Self {
        Self {
            published: last_table,
            inherited: last_table,
            kept: last_table,
            attempt_floor,
            ..Self::default()
        }
    }

    /// The replicas that aren't gone.
    pub fn replicas(&self) -> impl Iterator<Item = (&ReplicaId, &Replica)> {
        self.replicas.iter()
    }

    /// One replica, unless it is gone.
    #[must_use]
    pub fn replica(&self, id: &ReplicaId) -> Option<&Replica> {
        self.replicas.get(id)
    }

    /// The replicas in a slot, oldest first.
    pub fn in_slot<'a>(&'a self, slot: &'a Slot) -> impl Iterator<Item = (&'a ReplicaId, &'a Replica)> {
        self.replicas.iter().filter(move |(id, _)| {
            id.release == slot.release && id.ordinal == slot.ordinal && id.service == slot.service
        })
    }

    /// What is remembered of a slot.
    #[must_use]
    pub fn slot(&self, slot: &Slot) -> Option<&SlotHistory> {
        self.slots.get(slot)
    }

    /// The histories of a service's slots in one release.
    pub fn histories<'a>(
        &'a self,
        release: ReleaseId,
        service: &'a str,
    ) -> impl Iterator<Item = (&'a Slot, &'a SlotHistory)> {
        self.slots.iter().filter(move |(slot, _)| slot.release == release && slot.service == service)
    }

    /// The attempt number that the next start in `slot` gets.
    #[must_use]
    pub fn next_attempt(&self, slot: &Slot) -> u32 {
        let forgotten = self.forgotten.get(&slot.release).copied().unwrap_or(0);
        let seen = self.slots.get(slot).map_or(0, |history| history.attempt);
        seen.max(forgotten).max(self.attempt_floor) + 1
    }

    /// The proxy generations that run.
    pub fn proxies(&self) -> impl Iterator<Item = (Generation, &Proxy)> {
        self.proxies.iter().map(|(generation, proxy)| (*generation, proxy))
    }

    /// The number of the last table given out.
    #[must_use]
    pub const fn published(&self) -> u64 {
        self.published
    }

    /// The replicas that the last table given out routes to.
    #[must_use]
    pub const fn routed(&self) -> &BTreeSet<ReplicaId> {
        &self.routed
    }

    /// What all proxy generations together have to do with a replica.
    #[must_use]
    pub fn load(&self, id: &ReplicaId) -> Load {
        self.proxies.values().filter_map(|proxy| proxy.load.get(id)).fold(Load::default(), Load::plus)
    }

    /// Whether no proxy, known or not, can choose this replica any more.
    #[must_use]
    pub fn is_unrouted(&self, id: &ReplicaId) -> bool {
        let Some(last) = self.last_routed.get(id) else { return !self.routed.contains(id) };
        !self.routed.contains(id)
            && self.kept > *last
            && self.proxies.values().all(|proxy| proxy.table > *last)
    }

    /// Whether a table that was given out ever routed to it.
    #[must_use]
    pub fn was_ever_routed(&self, id: &ReplicaId) -> bool {
        self.last_routed.contains_key(id)
    }

    /// Whether a service's name isn't served inside the project's networks yet, and the reason where that was tried in
    /// vain.
    #[must_use]
    pub fn unserved(&self, service: &str) -> Option<Option<&str>> {
        self.unserved.get(service).map(Option::as_deref)
    }

    /// Takes in one event.
    pub fn apply(&mut self, event: Event, now: Timestamp) {
        match event {
            Event::StartSent(id) => self.start_sent(id, now),
            Event::StopSent { id, kill } => self.stop_sent(&id, kill, now),
            Event::Started { id, at, origin } => self.started(id, at, origin, now),
            Event::StartFailed { id, error } => self.start_failed(&id, error, now),
            Event::Changed(slot) => self.changed(&slot),
            Event::Exited { id, status } => self.exited(&id, status, now),
            Event::TakenAway { id, status } => self.taken_away(&id, status, now),
            Event::EndSeen(id) => {
                if let Some(replica) = self.replicas.get_mut(&id) {
                    replica.ended = true;
                }
            }
            Event::StartedAgain { id, at } => {
                if let Some(replica) = self.replicas.get_mut(&id).filter(|replica| replica.ended) {
                    (replica.ended, replica.started, replica.watched_since) = (false, at, now);
                    replica.health = Health::default();
                }
            }
            Event::Paused { id, paused } => self.set_paused(&id, paused, now),
            Event::Measured { id, memory } => self.measured(&id, memory),
            Event::Listening { id, addr } => {
                if let Some(replica) = self.replicas.get_mut(&id) {
                    replica.addr = addr;
                }
            }
            Event::Names { unserved } => self.unserved = unserved,
            Event::Probed { id, result, probe } => self.probed(&id, result, &probe, now),
            Event::HeartbeatMissed { id } => self.heartbeat_missed(&id, now),
            Event::Listed { replicas, creating, as_of } => self.listed(&replicas, &creating, as_of, now),
            Event::Published { number, routed, closing } => self.publish(number, routed, &closing, now),
            Event::Kept { number } => self.kept = self.kept.max(number),
            Event::ProxyUp(generation) => {
                self.proxies.entry(generation).or_insert_with(|| Proxy { up_since: now, ..Proxy::default() });
            }
            Event::ProxyDown(generation) => {
                self.proxies.remove(&generation);
            }
            Event::ProxyReport { generation, table, load } => self.report(generation, table, load, now),
        }
        self.mark_unrouted(now);
    }

    fn start_sent(&mut self, id: ReplicaId, now: Timestamp) {
        let history = self.slots.entry(id.slot()).or_default();
        if history.highest_dead > 0 && !history.excused {
            history.restarts += 1;
        }
        history.attempt = history.attempt.max(id.attempt);
        (history.taken_away, history.changed) = (false, false);
        self.replicas.entry(id).or_insert_with(|| Replica::new(ReplicaPhase::Starting, now, now));
    }

    fn stop_sent(&mut self, id: &ReplicaId, kill: bool, now: Timestamp) {
        let Some(replica) = self.replicas.get_mut(id) else { return };
        let (since, was_killed) = match replica.phase {
            ReplicaPhase::Stopping { since, killed, .. } => (since, killed),
            ReplicaPhase::Starting | ReplicaPhase::Running => (now, false),
        };
        replica.phase = ReplicaPhase::Stopping { since, sent: now, killed: kill || was_killed };
    }

    fn started(&mut self, id: ReplicaId, at: Timestamp, origin: Origin, now: Timestamp) {
        let history = self.slots.entry(id.slot()).or_default();
        if origin == Origin::Ours && history.highest_dead >= id.attempt {
            return; // late news of one that is known to be dead
        }
        history.attempt = history.attempt.max(id.attempt);
        history.taken_away = false;
        let was_routed = origin == Origin::Adopted { routed: true };
        if origin != Origin::Ours {
            // No table of this agent had it, but one of an earlier agent may have.
            self.last_routed.entry(id.clone()).or_insert(self.inherited);
        }
        if was_routed {
            self.routed.insert(id.clone());
        }
        let health = if was_routed { Health::assumed(now) } else { Health::default() };
        let adopted = || Replica { health, ..Replica::new(ReplicaPhase::Running, at, now) };
        let replica = self.replicas.entry(id).or_insert_with(adopted);
        if replica.phase == ReplicaPhase::Starting {
            (replica.phase, replica.started) = (ReplicaPhase::Running, at);
            replica.watched_since = now;
        }
    }

    fn start_failed(&mut self, id: &ReplicaId, error: StartError, now: Timestamp) {
        if self.replicas.remove(id).is_none() {
            return;
        }
        let history = self.slots.entry(id.slot()).or_default();
        history.bury(id.attempt, now);
        history.start_error = Some(error);
        history.early_deaths += 1;
        history.deaths += 1;
        history.score.add_death(None, now);
    }

    fn exited(&mut self, id: &ReplicaId, status: ExitStatus, now: Timestamp) {
        let Some(replica) = self.replicas.remove(id) else { return self.ended_unwatched(id, status, now) };
        self.routed.remove(id);
        let history = self.slots.entry(id.slot()).or_default();
        history.bury(id.attempt, now);
        history.last_exit = Some(status);
        history.served_until = Some(now).filter(|_| replica.health.is_ready()).or(history.served_until);
        history.lived = match replica.health.ready_since() {
            None if replica.phase != ReplicaPhase::Starting => now.since(replica.started),
            _ => Duration::ZERO,
        };
        let ready_for = replica.health.ready_since().map(|since| now.since(since));
        let is_sick = matches!(replica.health.verdict(), Verdict::Failed { .. });
        let is_stopping = matches!(replica.phase, ReplicaPhase::Stopping { .. });
        history.excused = match replica.phase {
            // A stop that we asked for is no failure, and a replica taken away for being sick is one.
            ReplicaPhase::Stopping { killed, .. } => {
                !is_sick && !(killed && (ready_for.is_none() || !replica.health.is_ready()))
            }
            ReplicaPhase::Starting | ReplicaPhase::Running => false,
        };
        if history.excused {
            return;
        }
        if ready_for.is_some_and(|served| served >= STEADY) {
            history.restarts = 0;
        }
        history.score.add_death(ready_for, now);
        history.deaths += 1;
        history.own_deaths += u32::from(is_stopping || status.is_own_doing());
        history.early_deaths = if ready_for.is_none() { history.early_deaths + 1 } else { 0 };
    }

    /// One that this agent never saw running has ended: while no agent lived. What it was is unknown, how it ended
    /// isn't: a job that is done must not run again.
    fn ended_unwatched(&mut self, id: &ReplicaId, status: ExitStatus, now: Timestamp) {
        let history = self.slots.entry(id.slot()).or_default();
        if history.highest_dead >= id.attempt {
            return; // told twice
        }
        history.bury(id.attempt, now);
        history.last_exit = Some(status);
        history.score.add_death(Some(Duration::ZERO), now);
        history.deaths += 1;
        history.own_deaths += u32::from(status.is_own_doing());
    }

    fn listed(
        &mut self,
        listed: &BTreeMap<ReplicaId, Timestamp>,
        creating: &BTreeSet<ReplicaId>,
        as_of: Timestamp,
        now: Timestamp,
    ) {
        let is_lost = |id: &ReplicaId, replica: &Replica| match replica.phase {
            _ if listed.contains_key(id) || creating.contains(id) => false,
            ReplicaPhase::Starting => as_of.since(replica.started) >= replica.confirm_within(),
            ReplicaPhase::Running | ReplicaPhase::Stopping { .. } => replica.started < as_of,
        };
        let lost: Vec<ReplicaId> =
            self.replicas.iter().filter(|(id, r)| is_lost(id, r)).map(|(id, _)| id.clone()).collect();
        for id in lost {
            self.exited(&id, ExitStatus::Unknown, now);
        }
        for (id, at) in listed {
            let died_at =
                self.slots.get(&id.slot()).filter(|h| h.highest_dead >= id.attempt).map(|h| h.died_at);
            // One that was taken for lost and lives is taken in again, unless the list is older than its death.
            let origin = match died_at {
                _ if self.replicas.contains_key(id) => Origin::Ours,
                Some(died_at) if as_of <= died_at => continue,
                _ => Origin::Adopted { routed: false },
            };
            self.started(id.clone(), *at, origin, now);
        }
    }

    fn publish(
        &mut self,
        number: u64,
        routed: BTreeSet<ReplicaId>,
        closing: &BTreeSet<ReplicaId>,
        now: Timestamp,
    ) {
        for (id, replica) in &mut self.replicas {
            replica.closing_since = replica.closing_since.or(Some(now)).filter(|_| closing.contains(id));
        }
        for id in &routed {
            self.last_routed.insert(id.clone(), number);
            if let Some(replica) = self.replicas.get_mut(id) {
                replica.unrouted_since = None;
            }
        }
        for proxy in self.proxies.values_mut() {
            // One that owed an older table goes on owing from then on.
            let was_behind = proxy.table < self.published;
            proxy.asked_since = proxy.asked_since.filter(|_| was_behind).or(Some(now));
        }
        (self.published, self.routed) = (number, routed);
    }

    fn report(
        &mut self,
        generation: Generation,
        table: u64,
        load: BTreeMap<ReplicaId, Load>,
        now: Timestamp,
    ) {
        let Some(proxy) = self.proxies.get_mut(&generation) else { return };
        if table < proxy.table {
            return; // an older report that was overtaken
        }
        if table > proxy.table {
            // It moves: what it still owes, it owes from now on.
            proxy.asked_since = (table < self.published).then_some(now);
        }
        for (id, load) in load.iter().filter(|(id, _)| self.replicas.contains_key(id)) {
            let known = self.counted.entry(id.clone()).or_default();
            *known = known.plus(&load.since(proxy.load.get(id)));
        }
        (proxy.table, proxy.load) = (table, load);
    }

    fn mark_unrouted(&mut self, now: Timestamp) {
        // What is gone is remembered until no proxy can choose it: it may only have been taken for lost.
        let done: Vec<ReplicaId> = self
            .last_routed
            .keys()
            .filter(|id| !self.replicas.contains_key(id) && self.is_unrouted(id))
            .cloned()
            .collect();
        for id in done {
            self.last_routed.remove(&id);
        }
        let unrouted: Vec<ReplicaId> = self
            .replicas
            .iter()
            .filter(|(id, r)| r.unrouted_since.is_none() && self.was_ever_routed(id) && self.is_unrouted(id))
            .map(|(id, _)| id.clone())
            .collect();
        for id in unrouted {
            if let Some(replica) = self.replicas.get_mut(&id) {
                replica.unrouted_since = Some(now);
            }
        }
    }
}
