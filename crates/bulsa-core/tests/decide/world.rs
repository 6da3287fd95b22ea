//! A world without chance: an engine, proxies and a keeper that do at once what they are asked, unless a test says
//! that they don't.

mod loads;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use bulsa_core::{
    decide::{
        Action, Change, Desired, Eagerness, Event, Excuse, ExitStatus, FallBack, Load, Observed, Origin,
        Outcome, Phase, ReleaseState, Request, StartError, Table,
        admit::{Admission, Denied, admit},
        decide,
    },
    health::{ProbeResult, Verdict},
    ids::{Generation, ReleaseId, ReplicaId},
    spec::{Check, Probe, Role, Spec},
    time::Timestamp,
};

use crate::build::secs;

pub(crate) const BEGINNING: Timestamp = Timestamp(1_000_000);
pub(crate) const EXIT_0: ExitStatus = ExitStatus::Code(0);
pub(crate) const EXIT_1: ExitStatus = ExitStatus::Code(1);
pub(crate) const KILLED: ExitStatus = ExitStatus::Signal(9);

pub(crate) struct World {
    pub(crate) desired: Desired,
    pub(crate) observed: Observed,
    pub(crate) now: Timestamp,
    /// The last table given out.
    pub(crate) table: Option<Table>,
    pub(crate) probes: BTreeMap<ReplicaId, Eagerness>,
    /// The release that the last decision would go back to.
    pub(crate) fall_back: Option<FallBack>,
    /// Those that fail and are left alone.
    pub(crate) excused: BTreeMap<ReplicaId, Excuse>,
    /// Replicas whose name begins so don't start, get ready, or (jobs) end by themselves.
    pub(crate) slow: Vec<&'static str>,
    /// Replicas whose name begins so ignore being asked to stop.
    pub(crate) stubborn: Vec<&'static str>,
    /// Proxies that don't acknowledge.
    pub(crate) deaf: BTreeSet<Generation>,
    /// Whether the keeper's word that it has a table is late.
    pub(crate) keeper_lags: bool,
    number: u64,
    running: BTreeMap<ReplicaId, Timestamp>,
    highest_attempt: u32,
    proxies: BTreeMap<Generation, BTreeMap<ReplicaId, Load>>,
    wake: Option<Timestamp>,
    log: Vec<String>,
}

pub(crate) fn id(name: &str) -> ReplicaId {
    name.parse().expect("a replica's name")
}

impl World {
    /// A project of which nothing runs, and one proxy.
    pub(crate) fn empty() -> Self {
        let mut world = Self {
            desired: Desired::default(),
            observed: Observed::new(0, 0),
            now: BEGINNING,
            table: None,
            probes: BTreeMap::new(),
            excused: BTreeMap::new(),
            fall_back: None,
            slow: Vec::new(),
            stubborn: Vec::new(),
            deaf: BTreeSet::new(),
            keeper_lags: false,
            number: 0,
            running: BTreeMap::new(),
            highest_attempt: 0,
            proxies: BTreeMap::new(),
            wake: None,
            log: Vec::new(),
        };
        world.proxy_up(1);
        world
    }

    /// A project whose first release is live and healthy; the log is empty.
    pub(crate) fn up(spec: &Arc<Spec>) -> Self {
        let mut world = Self::empty();
        world.deploy(spec);
        world.pass(secs(2));
        assert_eq!(world.outcome(), Some(Outcome::Deployed), "{:#?}", world.log);
        world.log.clear();
        world
    }

    /// The same, with further releases deployed on it, each in its bake and the last still in it.
    pub(crate) fn baking(releases: &[Arc<Spec>]) -> Self {
        let mut world = Self::up(&releases[0]);
        for release in &releases[1..] {
            world.deploy(release);
            world.pass(secs(2));
            assert!(world.is_baking(), "{:#?}", world.log);
        }
        world.log.clear();
        world
    }

    // --- what people ask ---

    pub(crate) fn ask(&mut self, request: Request) -> Result<Admission, Denied> {
        let admission = admit(&self.desired, request, self.now)?;
        if let Admission::Accepted { changes, .. } = &admission {
            self.commit(changes);
            self.step();
        }
        Ok(admission)
    }

    pub(crate) fn try_deploy(&mut self, spec: &Arc<Spec>) -> Result<Admission, Denied> {
        self.ask(Request::Deploy {
            spec: Arc::clone(spec),
            hash: format!("{spec:?}"),
            recreate: BTreeSet::new(),
        })
    }

    /// A deploy that names this `shared` service, which differs.
    pub(crate) fn recreate(&mut self, service: &str, spec: &Arc<Spec>) -> Admission {
        let (spec, hash) = (Arc::clone(spec), "the same".to_owned());
        self.ask(Request::Deploy { spec, hash, recreate: [service.to_owned()].into() }).expect("admitted")
    }

    pub(crate) fn deploy(&mut self, spec: &Arc<Spec>) {
        let admission = self.try_deploy(spec).expect("admitted");
        assert!(matches!(admission, Admission::Accepted { .. }), "{admission:?}");
    }

    pub(crate) fn rollback(&mut self, to: Option<u32>) {
        self.ask(Request::Rollback { to: to.map(ReleaseId) }).expect("admitted");
    }

    pub(crate) fn scale(&mut self, service: &str, replicas: u32) {
        self.ask(Request::Scale { service: service.to_owned(), replicas }).expect("admitted");
    }

    // --- what happens ---

    pub(crate) fn event(&mut self, event: Event) {
        self.observed.apply(event, self.now);
        self.step();
    }

    /// Lets time pass, and asks again whenever the last decision wanted to be asked.
    pub(crate) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(at) = self.wake.filter(|at| *at <= end) {
            self.now = at;
            self.step();
        }
        self.now = end;
        self.step();
    }

    pub(crate) fn starts(&mut self, name: &str) {
        self.now_started(&id(name));
        self.step();
    }

    fn now_started(&mut self, id: &ReplicaId) {
        let event = Event::Started { id: id.clone(), at: self.now, origin: Origin::Ours };
        self.observed.apply(event, self.now);
    }

    /// It listens.
    pub(crate) fn listens(&mut self, name: &str) {
        self.event(Event::Listening { id: id(name), addr: Some(([127, 0, 0, 1], 20_000).into()) });
    }

    /// It listens, and its probe passes as often as it must.
    pub(crate) fn gets_ready(&mut self, name: &str) {
        self.now_ready(&id(name));
        self.step();
    }

    fn now_ready(&mut self, id: &ReplicaId) {
        if self.observed.replica(id).is_some_and(|r| r.health.verdict() == Verdict::Unknown) {
            let addr = Some(([127, 0, 0, 1], 20_000).into());
            self.observed.apply(Event::Listening { id: id.clone(), addr }, self.now);
        }
        let probe = self.probe(id);
        for _ in 0..probe.rise {
            let event = Event::Probed { id: id.clone(), result: ProbeResult::Pass, probe: probe.clone() };
            self.observed.apply(event, self.now);
        }
    }

    pub(crate) fn probe(&self, id: &ReplicaId) -> Probe {
        self.desired.service(id.release, &id.service).expect("a service").probe.clone()
    }

    /// Its probe finds this, so often.
    pub(crate) fn probed(&mut self, name: &str, result: ProbeResult, times: u32) {
        let id = id(name);
        for _ in 0..times {
            self.event(Event::Probed { id: id.clone(), result, probe: self.probe(&id) });
        }
    }

    pub(crate) fn hangs(&mut self, name: &str) {
        self.probed(name, ProbeResult::NoAnswer, 3);
    }

    pub(crate) fn sickens(&mut self, name: &str) {
        self.probed(name, ProbeResult::BadAnswer, 3);
    }

    pub(crate) fn dies(&mut self, name: &str, status: ExitStatus) {
        assert!(self.running.remove(&id(name)).is_some(), "{name} doesn't run: {:?}", self.running);
        self.event(Event::Exited { id: id(name), status });
    }

    /// A human stops it through the Engine.
    pub(crate) fn taken_away(&mut self, name: &str) {
        assert!(self.running.remove(&id(name)).is_some(), "{name} doesn't run: {:?}", self.running);
        self.event(Event::TakenAway { id: id(name), status: EXIT_0 });
    }

    /// A human starts its container again.
    pub(crate) fn docker_start(&mut self, name: &str) {
        self.running.insert(id(name), self.now);
        let origin = Origin::Adopted { routed: false };
        self.event(Event::Started { id: id(name), at: self.now, origin });
    }

    pub(crate) fn paused(&mut self, name: &str, paused: bool) {
        self.event(Event::Paused { id: id(name), paused });
    }

    /// It ends and nobody hears of it.
    pub(crate) fn dies_unheard(&mut self, name: &str) {
        assert!(self.running.remove(&id(name)).is_some(), "{name} doesn't run");
    }

    pub(crate) fn start_fails(&mut self, name: &str, permanent: bool) {
        self.running.remove(&id(name));
        let error = StartError { message: "no such program".to_owned(), permanent };
        self.event(Event::StartFailed { id: id(name), error });
    }

    /// The engine says what it has.
    pub(crate) fn lists(&mut self) {
        self.event(Event::Listed {
            replicas: self.running.clone(),
            creating: BTreeSet::new(),
            as_of: self.now,
        });
    }

    pub(crate) fn first_proxy(&self) -> Generation {
        *self.proxies.keys().next().expect("a proxy runs")
    }

    pub(crate) fn proxy_up(&mut self, generation: u64) {
        let generation = Generation(generation);
        self.proxies.insert(generation, BTreeMap::new());
        self.observed.apply(Event::ProxyUp(generation), self.now);
        self.report(generation);
    }

    /// It acknowledges the last table, unless it is deaf.
    pub(crate) fn report(&mut self, generation: Generation) {
        if self.deaf.contains(&generation) {
            return;
        }
        let load = self.proxies.get(&generation).cloned().unwrap_or_default();
        let event = Event::ProxyReport { generation, table: self.number, load };
        self.observed.apply(event, self.now);
    }

    pub(crate) fn acknowledges(&mut self, generation: u64) {
        self.deaf.remove(&Generation(generation));
        self.report(Generation(generation));
        self.step();
    }

    pub(crate) fn keeper_has_it(&mut self) {
        self.keeper_lags = false;
        self.event(Event::Kept { number: self.number });
    }

    /// The agent dies and another one takes over: it knows the store, and what it can observe.
    pub(crate) fn another_agent(&mut self) {
        self.observed = Observed::new(self.number, self.highest_attempt);
        for generation in self.proxies.keys().copied().collect::<Vec<_>>() {
            self.observed.apply(Event::ProxyUp(generation), self.now);
            self.report(generation);
        }
        let routed: BTreeSet<ReplicaId> = self.routed_ids();
        for (id, at) in self.running.clone() {
            let origin = Origin::Adopted { routed: routed.contains(&id) };
            self.observed.apply(Event::Started { id: id.clone(), at, origin }, self.now);
            let addr = Some(([127, 0, 0, 1], 20_000).into());
            self.observed.apply(Event::Listening { id, addr }, self.now);
        }
        self.table = None;
        self.step();
    }

    // --- the shell ---

    pub(crate) fn step(&mut self) {
        for _ in 0..100 {
            self.observed.settle(&self.desired, self.now);
            let decision = decide(&self.desired, &self.observed, self.now);
            if !decision.commits.is_empty() {
                self.commit(&decision.commits);
            } else if self.table.as_ref() != Some(&decision.table) {
                self.publish(decision.table);
            } else if decision.actions.is_empty() {
                assert!(decision.wake_at.is_none_or(|at| at > self.now), "woken in the past");
                (self.wake, self.probes) = (decision.wake_at, decision.probes);
                (self.excused, self.fall_back) = (decision.excused, decision.fall_back);
                return;
            } else {
                decision.actions.iter().for_each(|action| self.act(action));
            }
        }
        panic!("it runs in a circle: {:#?}", self.log);
    }

    fn commit(&mut self, changes: &[Change]) {
        for change in changes {
            self.log.push(describe(change));
            self.desired.apply(change);
            self.observed.committed(&self.desired, change);
        }
    }

    fn publish(&mut self, table: Table) {
        self.number += 1;
        let routed: BTreeSet<ReplicaId> = table.targets().cloned().collect();
        let closing: BTreeSet<ReplicaId> = table.close_tunnels.iter().map(|c| c.replica.clone()).collect();
        let mut text = format!("table:{}", names(&routed));
        if !closing.is_empty() {
            text.push_str(&format!(" closing{}", names(&closing)));
        }
        self.log.push(text);
        self.observed.apply(Event::Published { number: self.number, routed, closing }, self.now);
        if !self.keeper_lags {
            self.observed.apply(Event::Kept { number: self.number }, self.now);
        }
        for generation in self.proxies.keys().copied().collect::<Vec<_>>() {
            self.report(generation);
        }
        self.table = Some(table);
    }

    fn act(&mut self, action: &Action) {
        match action {
            Action::Start { id, cause } => {
                self.log.push(format!("start {id} ({cause:?})"));
                self.observed.apply(Event::StartSent(id.clone()), self.now);
                self.highest_attempt = self.highest_attempt.max(id.attempt);
                assert!(self.running.insert(id.clone(), self.now).is_none(), "{id} is started twice");
                if !is_one_of(&self.slow, id) {
                    self.come_up(id);
                }
            }
            Action::Stop { id } => {
                self.log.push(format!("stop {id}"));
                self.observed.apply(Event::StopSent { id: id.clone(), kill: false }, self.now);
                if !is_one_of(&self.stubborn, id) {
                    self.end(id, EXIT_0);
                }
            }
            Action::Kill { id, cause } => {
                self.log.push(format!("kill {id} ({cause:?})"));
                self.observed.apply(Event::StopSent { id: id.clone(), kill: true }, self.now);
                if !is_one_of(&self.stubborn, id) || *cause == bulsa_core::decide::KillCause::Grace {
                    self.end(id, KILLED);
                }
            }
            Action::KillProxy { generation } => {
                self.log.push(format!("kill {generation}"));
                self.proxies.remove(generation);
                self.deaf.remove(generation);
                self.observed.apply(Event::ProxyDown(*generation), self.now);
                self.proxy_up(generation.0 + 1);
            }
        }
    }

    fn come_up(&mut self, id: &ReplicaId) {
        self.now_started(id);
        let service = self.desired.service(id.release, &id.service).expect("a service");
        if service.role == Role::Job {
            self.end(id, EXIT_0);
        } else if service.probe.check != Check::Up {
            self.now_ready(id);
        }
    }

    fn end(&mut self, id: &ReplicaId, status: ExitStatus) {
        if self.running.remove(id).is_some() {
            self.observed.apply(Event::Exited { id: id.clone(), status }, self.now);
        }
    }

    // --- what is to be seen ---

    /// What was done since this was last asked.
    pub(crate) fn log(&mut self) -> Vec<String> {
        std::mem::take(&mut self.log)
    }

    /// The same, only the lines that begin so.
    pub(crate) fn log_of(&mut self, beginnings: &[&str]) -> Vec<String> {
        let of = |line: &String| beginnings.iter().any(|beginning| line.starts_with(beginning));
        self.log().into_iter().filter(of).collect()
    }

    /// The replicas that run, in words.
    pub(crate) fn running(&self) -> String {
        names(&self.running.keys().cloned().collect()).trim_start().to_owned()
    }

    pub(crate) fn runs(&self, name: &str) -> bool {
        self.running.contains_key(&id(name))
    }

    fn routed_ids(&self) -> BTreeSet<ReplicaId> {
        self.table.iter().flat_map(|table| table.targets().cloned()).collect()
    }

    /// The replicas that the last table routes to, in words.
    pub(crate) fn routed(&self) -> String {
        names(&self.routed_ids()).trim_start().to_owned()
    }

    pub(crate) fn state(&self, release: u32) -> ReleaseState {
        self.desired.releases[&ReleaseId(release)].state
    }

    pub(crate) fn is_baking(&self) -> bool {
        self.desired.running().is_some_and(|d| matches!(d.phase, Phase::Bake { .. }))
    }

    /// How the last deployment ended, if it has.
    pub(crate) fn outcome(&self) -> Option<Outcome> {
        match &self.desired.deployment.as_ref()?.phase {
            Phase::Done { outcome, .. } => Some(*outcome),
            _ => None,
        }
    }

    /// Why it ended so.
    pub(crate) fn reason(&self) -> &str {
        match self.desired.deployment.as_ref().map(|deployment| &deployment.phase) {
            Some(Phase::Done { reason, .. }) => reason,
            _ => "",
        }
    }
}

fn is_one_of(beginnings: &[&str], id: &ReplicaId) -> bool {
    beginnings.iter().any(|beginning| id.to_string().starts_with(beginning))
}

fn names(ids: &BTreeSet<ReplicaId>) -> String {
    ids.iter().map(|id| format!(" {id}")).collect()
}

fn describe(change: &Change) -> String {
    match change {
        Change::Begin { deployment: d, .. } => format!("begin {} {:?} {}", d.id, d.kind, d.candidate),
        Change::Exchange { .. } => "exchange".to_owned(),
        Change::Move { service, replicas } => format!("move {service} {replicas}"),
        Change::Switch { .. } => "switch".to_owned(),
        Change::Finish { outcome, .. } => format!("finish {outcome:?}"),
        Change::Revert { reason, .. } => format!("revert: {reason}"),
        Change::Undo { reason, .. } => format!("undo: {reason}"),
        Change::Retire { release } => format!("retire {release}"),
        Change::Forget { release } => format!("forget {release}"),
        Change::JobDone { service, success, .. } => format!("job {service} {success}"),
        Change::Wish { service, .. } => format!("wish {service}"),
        Change::Hold { service, since } => {
            format!("{} {service}", if since.is_some() { "hold" } else { "let out" })
        }
        Change::Proven { release } => format!("proven {release}"),
        Change::Withhold { slot: s } => format!("withhold {}-{}-{}", s.service, s.release, s.ordinal),
        Change::Reinstate { slot: s } => format!("reinstate {}-{}-{}", s.service, s.release, s.ordinal),
        Change::Down => "down".to_owned(),
    }
}
