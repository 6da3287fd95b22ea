//! The fake world: an engine, a keeper with its proxies, a store, a user, and faults.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use bulsa_core::{
    decide::{Change, Desired, Event, ExitStatus, Load, Origin, Request, StartError, admit},
    health::ProbeResult,
    ids::{Generation, ReleaseId, ReplicaId},
    spec::{
        Accept, AppPort, Bake, Balance, Care, Check, Condition, Dependency, Drain, Handover, Hold, Keep,
        Port, Probe, Protocol, Restart, Role, Rolling, Routing, Service, Spec, Times,
    },
    time::Timestamp,
};

use crate::{
    agent::Agent,
    rng::Rng,
    tally::{Tally, What},
};

/// How long faults and wishes come, and how long the world then has to settle.
const TROUBLE: Duration = Duration::from_secs(90);
const QUIET: Duration = Duration::from_secs(400);

/// What a service's program does. Kept in the environment of the spec, as a real program's behaviour would be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flavour {
    Good,
    Slow,
    Flapping,
    NeverHealthy,
    ThrowsAtStart,
    CrashesAfterTraffic,
    Missing,
}

impl Flavour {
    fn of(service: &Service) -> Self {
        match service.env.get("FLAVOUR").map(String::as_str) {
            Some("slow") => Self::Slow,
            Some("flapping") => Self::Flapping,
            Some("never") => Self::NeverHealthy,
            Some("throws") => Self::ThrowsAtStart,
            Some("crashes") => Self::CrashesAfterTraffic,
            Some("missing") => Self::Missing,
            _ => Self::Good,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Slow => "slow",
            Self::Flapping => "flapping",
            Self::NeverHealthy => "never",
            Self::ThrowsAtStart => "throws",
            Self::CrashesAfterTraffic => "crashes",
            Self::Missing => "missing",
        }
    }

    pub(crate) fn gets_healthy(self) -> bool {
        matches!(self, Self::Good | Self::Slow | Self::Flapping)
    }
}

/// One process.
#[derive(Clone, Debug)]
pub(crate) struct Process {
    pub(crate) started: Timestamp,
    pub(crate) ready_at: Timestamp,
    pub(crate) flavour: Flavour,
    pub(crate) hung: bool,
    pub(crate) term_at: Option<Timestamp>,
    /// Since when a human has it frozen.
    pub(crate) paused: Option<Timestamp>,
    first_routed: Option<Timestamp>,
}

/// One proxy generation.
#[derive(Clone, Debug, Default)]
pub(crate) struct FakeProxy {
    pub(crate) table: u64,
    pub(crate) routed: BTreeSet<ReplicaId>,
    pub(crate) silent: bool,
    /// Work under way: when it ends by itself.
    pub(crate) in_flight: BTreeMap<ReplicaId, Vec<Timestamp>>,
    pub(crate) tunnels: BTreeMap<ReplicaId, Vec<Timestamp>>,
}

/// Something that will happen.
#[derive(Clone, Debug)]
pub(crate) enum Due {
    ToAgent(Box<Event>),
    Table {
        generation: Generation,
        number: u64,
        routed: BTreeSet<ReplicaId>,
        close: BTreeSet<ReplicaId>,
    },
    Exit(ReplicaId, ExitStatus),
    ProbeAll,
    List,
    Traffic,
    Fault,
    User,
    /// A human uses the Engine's own commands.
    Human,
    AgentBack,
    /// A slow commit is on the disk, asked for by the agent of this number.
    Committed(u64, Vec<Change>),
    Wake,
}

pub(crate) struct World {
    pub(crate) rng: Rng,
    pub(crate) now: Timestamp,
    pub(crate) store: Desired,
    pub(crate) processes: BTreeMap<ReplicaId, Process>,
    pub(crate) exits: BTreeMap<ReplicaId, ExitStatus>,
    /// Whether its replicas are containers.
    docker: bool,
    /// Containers that a human stopped and that could be started again.
    pub(crate) taken: BTreeMap<ReplicaId, Process>,
    pub(crate) proxies: BTreeMap<Generation, FakeProxy>,
    pub(crate) table: (u64, BTreeSet<ReplicaId>),
    pub(crate) table_at: Timestamp,
    pub(crate) agent: Option<Agent>,
    pub(crate) attempts: u32,
    pub(crate) sabotage: bool,
    pub(crate) verbose: bool,
    pub(crate) log: Vec<String>,
    pub(crate) tally: Tally,
    pub(crate) jobs_done: BTreeSet<(ReleaseId, String)>,
    queue: BTreeMap<(Timestamp, u64), Due>,
    counter: u64,
    generations: u64,
    agents: u64,
    begun: u32,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let mut world = Self {
            rng: Rng::new(seed),
            now: Timestamp(1_000_000),
            store: Desired::default(),
            processes: BTreeMap::new(),
            exits: BTreeMap::new(),
            // Half of the seeds of every part.
            docker: seed / crate::PARTS % 2 == 1,
            taken: BTreeMap::new(),
            proxies: BTreeMap::new(),
            table: (0, BTreeSet::new()),
            table_at: Timestamp(0),
            agent: None,
            attempts: 0,
            sabotage: false,
            verbose: false,
            log: Vec::new(),
            tally: Tally::default(),
            jobs_done: BTreeSet::new(),
            queue: BTreeMap::new(),
            counter: 0,
            generations: 0,
            agents: 0,
            begun: 0,
        };
        world.proxy_up();
        for (due, after) in [
            (Due::AgentBack, 0),
            (Due::User, 10),
            (Due::ProbeAll, 50),
            (Due::Traffic, 20),
            (Due::List, 3000),
            (Due::Fault, 2000),
            (Due::Human, 4000),
        ] {
            world.after(after, due);
        }
        world
    }

    /// Runs the trouble, then the quiet, and checks that the end is as it should be.
    pub(crate) fn run(&mut self) -> Vec<String> {
        let end = self.now + TROUBLE + QUIET;
        while let Some((&(at, _), _)) = self.queue.iter().next() {
            if at > end {
                break;
            }
            let Some((_, due)) = self.queue.pop_first() else { break };
            self.now = at;
            self.happen(due);
            self.check_step();
        }
        self.check_end();
        std::mem::take(&mut self.log)
    }

    pub(crate) fn is_quiet(&self) -> bool {
        self.now.since(Timestamp(1_000_000)) >= TROUBLE
    }

    pub(crate) fn after(&mut self, ms: u64, due: Due) {
        self.counter += 1;
        self.queue.insert((Timestamp(self.now.0 + ms), self.counter), due);
    }

    pub(crate) fn note(&mut self, text: impl FnOnce() -> String) {
        let line = format!("{} {}", self.now.0 - 1_000_000, text());
        if self.verbose {
            println!("{line}");
        }
        self.log.push(line);
    }

    /// An event on its way to the agent: late, sometimes twice, sometimes lost where events can be lost.
    pub(crate) fn tell(&mut self, event: Event, may_be_lost: bool) {
        let quiet = self.is_quiet();
        if may_be_lost && !quiet && self.rng.chance(10) {
            return;
        }
        let delay = if !quiet && self.rng.chance(10) { self.rng.between(5, 400) } else { 1 };
        if !quiet && self.rng.chance(5) {
            let again = self.rng.between(1, 500);
            self.after(delay + again, Due::ToAgent(Box::new(event.clone())));
        }
        self.after(delay, Due::ToAgent(Box::new(event)));
    }

    fn happen(&mut self, due: Due) {
        match due {
            Due::ToAgent(event) => {
                self.with_agent(|agent, world| agent.take_in(*event, world));
            }
            Due::Table { generation, number, routed, close } => {
                self.table_arrives(generation, number, routed, &close);
            }
            Due::Exit(id, status) => self.process_ends(&id, status),
            Due::ProbeAll => self.probe_all(),
            Due::List => self.list(),
            Due::Traffic => self.traffic(),
            Due::Fault => self.fault(),
            Due::User => self.user(),
            Due::Human => self.human(),
            Due::AgentBack => self.agent_starts(),
            Due::Committed(agent, changes) => self.committed(agent, &changes),
            Due::Wake => self.with_agent(Agent::step),
        }
    }

    /// Runs `f` with the agent taken out of the world; it isn't put back when it was killed meanwhile.
    fn with_agent(&mut self, f: impl FnOnce(&mut Agent, &mut Self)) {
        let Some(mut agent) = self.agent.take() else { return };
        f(&mut agent, self);
        if agent.killed {
            self.note(|| "the agent is dead".to_owned());
            self.tally.count(What::AgentDeath);
            let down = self.rng.between(5, 3000);
            self.after(down, Due::AgentBack);
        } else {
            self.agent = Some(agent);
        }
    }

    /// An agent's changes are on their way to a slow disk.
    pub(crate) fn commits_to_disk(&mut self, changes: Vec<Change>) {
        let after = self.rng.between(1, 1500);
        self.after(after, Due::Committed(self.agents, changes));
    }

    /// They are there. The agent that asked may be dead: then they were written, or they weren't.
    fn committed(&mut self, agent: u64, changes: &[Change]) {
        if agent == self.agents && self.agent.is_some() {
            return self.with_agent(|agent, world| {
                agent.committing = false;
                agent.commit(changes, world);
                agent.step(world);
            });
        }
        self.note(|| "a commit of a dead agent is lost".to_owned());
    }

    fn agent_starts(&mut self) {
        self.agents += 1;
        self.note(|| "the agent starts".to_owned());
        let mut agent = Agent::new(self);
        agent.step(self);
        self.agent = Some(agent);
    }

    // --- the engine ---

    pub(crate) fn start(&mut self, id: &ReplicaId) {
        if self.processes.contains_key(id) || self.exits.contains_key(id) {
            return; // asked twice
        }
        let Some(service) = self.store.service(id.release, &id.service).cloned() else { return };
        self.attempts = self.attempts.max(id.attempt);
        let flavour = Flavour::of(&service);
        self.note(|| format!("start {id} ({flavour:?})"));
        let broken_by_chance = !self.is_quiet() && self.rng.chance(3);
        if flavour == Flavour::Missing || broken_by_chance {
            let error = StartError { message: "no such program".to_owned(), permanent: !broken_by_chance };
            return self.tell(Event::StartFailed { id: id.clone(), error }, false);
        }
        let ready = match flavour {
            Flavour::Slow => self.rng.between(2000, 8000),
            _ => self.rng.between(50, 800),
        };
        let process = Process {
            started: self.now,
            ready_at: Timestamp(self.now.0 + ready),
            flavour,
            hung: false,
            term_at: None,
            paused: None,
            first_routed: None,
        };
        // The container that a human stopped there makes room.
        self.taken.retain(|other, _| other.slot() != id.slot());
        self.processes.insert(id.clone(), process);
        self.tell(Event::Started { id: id.clone(), at: self.now, origin: Origin::Ours }, true);
        if flavour == Flavour::ThrowsAtStart {
            self.after(30, Due::Exit(id.clone(), ExitStatus::Code(1)));
        }
        if service.role == Role::Job {
            let code = i32::from(self.rng.chance(10) && !self.is_quiet());
            let after = self.rng.between(10, 500);
            self.after(after, Due::Exit(id.clone(), ExitStatus::Code(code)));
        }
    }

    pub(crate) fn terminate(&mut self, id: &ReplicaId) {
        let Some(process) = self.processes.get_mut(id) else { return };
        process.term_at = Some(self.now);
        let ignores = process.hung || process.paused.is_some() || self.rng.chance(10);
        if !ignores {
            let takes = self.rng.between(1, 400);
            self.after(takes, Due::Exit(id.clone(), ExitStatus::Code(0)));
        }
    }

    pub(crate) fn kill(&mut self, id: &ReplicaId) {
        self.after(2, Due::Exit(id.clone(), ExitStatus::Signal(9)));
    }

    fn process_ends(&mut self, id: &ReplicaId, status: ExitStatus) {
        if self.processes.remove(id).is_none() {
            return;
        }
        if id.service == "migrate" && status == ExitStatus::Code(0) {
            self.jobs_done.insert((id.release, id.service.clone()));
        }
        self.note(|| format!("{id} ended: {status:?}"));
        for proxy in self.proxies.values_mut() {
            proxy.in_flight.remove(id);
            proxy.tunnels.remove(id);
        }
        self.exits.insert(id.clone(), status);
        self.tell(Event::Exited { id: id.clone(), status }, true);
    }

    /// How the end of a replica is told.
    pub(crate) fn end_of(&self, id: &ReplicaId, status: ExitStatus) -> Event {
        if self.taken.contains_key(id) {
            Event::TakenAway { id: id.clone(), status }
        } else {
            Event::Exited { id: id.clone(), status }
        }
    }

    /// It is gone, with the work that it had.
    pub(crate) fn vanishes(&mut self, id: &ReplicaId) -> Option<Process> {
        for proxy in self.proxies.values_mut() {
            proxy.in_flight.remove(id);
            proxy.tunnels.remove(id);
        }
        self.processes.remove(id)
    }

    pub(crate) const fn is_docker(&self) -> bool {
        self.docker
    }

    pub(crate) fn is_kept_by_docker(&self, id: &ReplicaId) -> bool {
        self.docker && id.release.0 == 0
    }

    pub(crate) fn is_healthy(&self, process: &Process) -> bool {
        process.flavour.gets_healthy()
            && !process.hung
            && process.paused.is_none()
            && process.term_at.is_none()
            && process.ready_at <= self.now
            || process.flavour == Flavour::CrashesAfterTraffic
                && process.ready_at <= self.now
                && process.paused.is_none()
                && !process.hung
    }

    fn probe_all(&mut self) {
        let gap = if self.is_quiet() { 1000 } else { 250 };
        self.after(gap, Due::ProbeAll);
        let plan = self.agent.as_ref().map(|agent| agent.probes.clone()).unwrap_or_default();
        for id in plan.into_keys() {
            let Some(process) = self.processes.get(&id).cloned() else { continue };
            let Some(service) = self.store.service(id.release, &id.service) else { continue };
            let probe = service.probe.clone();
            let flaps = process.flavour == Flavour::Flapping && self.rng.chance(25) && !self.is_quiet();
            let result = if !self.is_quiet() && self.rng.chance(3) {
                ProbeResult::CouldNotRun
            } else if process.hung || process.paused.is_some() {
                ProbeResult::NoAnswer
            } else if self.is_healthy(&process) && !flaps {
                ProbeResult::Pass
            } else {
                ProbeResult::BadAnswer
            };
            if result == ProbeResult::Pass {
                let addr = Some(([127, 0, 0, 1], 20_000 + (id.attempt % 10_000) as u16).into());
                self.tell(Event::Listening { id: id.clone(), addr }, false);
            }
            self.tell(Event::Probed { id, result, probe }, true);
        }
    }

    fn list(&mut self) {
        self.after(4000, Due::List);
        let replicas = self.processes.iter().map(|(id, process)| (id.clone(), process.started)).collect();
        let event = Event::Listed { replicas, creating: BTreeSet::new(), as_of: self.now };
        self.tell(event, true);
        // The keeper repeats what was not acknowledged.
        for (id, status) in self.exits.clone() {
            self.tell(self.end_of(&id, status), true);
        }
    }

    // --- the keeper and its proxies ---

    fn proxy_up(&mut self) {
        self.generations += 1;
        let generation = Generation(self.generations);
        let (table, routed) = self.table.clone();
        self.proxies.insert(generation, FakeProxy { table, routed, ..FakeProxy::default() });
        // On the keeper's socket, in order with what it says of tables.
        self.after(1, Due::ToAgent(Box::new(Event::ProxyUp(generation))));
        self.report(generation);
    }

    pub(crate) fn proxy_dies(&mut self, generation: Generation) {
        if self.proxies.remove(&generation).is_some() {
            self.note(|| format!("proxy {generation} is dead"));
            self.after(1, Due::ToAgent(Box::new(Event::ProxyDown(generation))));
            if self.proxies.is_empty() {
                self.proxy_up();
            }
        }
    }

    fn table_arrives(
        &mut self,
        generation: Generation,
        number: u64,
        routed: BTreeSet<ReplicaId>,
        close: &BTreeSet<ReplicaId>,
    ) {
        let Some(proxy) = self.proxies.get_mut(&generation) else { return };
        if proxy.silent || number <= proxy.table {
            return;
        }
        (proxy.table, proxy.routed) = (number, routed);
        proxy.tunnels.retain(|id, _| !close.contains(id));
        self.report(generation);
    }

    fn report(&mut self, generation: Generation) {
        let Some(proxy) = self.proxies.get(&generation).filter(|proxy| !proxy.silent) else { return };
        let ids: BTreeSet<&ReplicaId> = proxy.in_flight.keys().chain(proxy.tunnels.keys()).collect();
        let count =
            |of: &BTreeMap<ReplicaId, Vec<Timestamp>>, id| of.get(id).map_or(0, |work| work.len() as u64);
        let load = ids
            .into_iter()
            .map(|id| {
                let (in_flight, tunnels) = (count(&proxy.in_flight, id), count(&proxy.tunnels, id));
                (id.clone(), Load { in_flight, tunnels, ..Load::default() })
            })
            .collect();
        let event = Event::ProxyReport { generation, table: proxy.table, load };
        // In order, never lost: it is a socket.
        self.after(1, Due::ToAgent(Box::new(event)));
    }

    fn traffic(&mut self) {
        self.after(if self.is_quiet() { 1500 } else { 200 }, Due::Traffic);
        let now = self.now;
        let mut crashing = Vec::new();
        for generation in self.proxies.keys().copied().collect::<Vec<_>>() {
            let Some(proxy) = self.proxies.get_mut(&generation) else { continue };
            for work in proxy.in_flight.values_mut().chain(proxy.tunnels.values_mut()) {
                work.retain(|end| now < *end);
            }
            proxy.in_flight.retain(|_, work| !work.is_empty());
            proxy.tunnels.retain(|_, work| !work.is_empty());
            let routed: Vec<ReplicaId> = proxy.routed.iter().cloned().collect();
            for id in routed {
                let Some(process) = self.processes.get_mut(&id) else { continue };
                if process.first_routed.is_none() {
                    process.first_routed = Some(now);
                    crashing.extend((process.flavour == Flavour::CrashesAfterTraffic).then(|| id.clone()));
                }
                if self.rng.chance(30) {
                    let end = Timestamp(now.0 + self.rng.between(10, 4000));
                    proxy.in_flight.entry(id.clone()).or_default().push(end);
                }
                if self.rng.chance(2) && proxy.tunnels.get(&id).is_none_or(|tunnels| tunnels.len() < 5) {
                    let end = Timestamp(now.0 + self.rng.between(1000, 200_000));
                    proxy.tunnels.entry(id).or_default().push(end);
                }
            }
            self.report(generation);
        }
        for id in crashing {
            let after = self.rng.between(100, 3000);
            self.after(after, Due::Exit(id, ExitStatus::Code(3)));
        }
    }

    // --- faults and the user ---

    fn fault(&mut self) {
        if self.is_quiet() {
            for proxy in self.proxies.values_mut() {
                proxy.silent = proxy.silent && proxy.table < self.table.0;
            }
            return self.humans_go_home();
        }
        let next = self.rng.between(500, 6000);
        self.after(next, Due::Fault);
        let ids: Vec<ReplicaId> = self.processes.keys().cloned().collect();
        let generations: Vec<Generation> = self.proxies.keys().copied().collect();
        match self.rng.between(0, 8) {
            0 | 1 if !ids.is_empty() => {
                let id = ids[self.rng.between(0, ids.len() as u64) as usize].clone();
                self.note(|| format!("someone kills {id}"));
                if self.is_kept_by_docker(&id) {
                    self.docker_restarts(&id);
                } else {
                    self.kill(&id);
                }
            }
            // More than their share, for what waits for a dependency isn't killed.
            2 | 7 if !ids.is_empty() => {
                let id = ids[self.rng.between(0, ids.len() as u64) as usize].clone();
                self.note(|| format!("{id} hangs"));
                if let Some(process) = self.processes.get_mut(&id) {
                    process.hung = true;
                }
            }
            3 => {
                let generation = self.rng.pick(&generations);
                self.proxy_dies(generation);
            }
            4 => {
                let generation = self.rng.pick(&generations);
                self.note(|| format!("proxy {generation} falls silent"));
                if let Some(proxy) = self.proxies.get_mut(&generation) {
                    proxy.silent = true;
                }
            }
            _ => {
                if let Some(agent) = self.agent.as_mut() {
                    agent.steps_to_live = Some(self.rng.between(0, 12));
                }
            }
        }
    }

    fn user(&mut self) {
        if self.is_quiet() {
            return;
        }
        let next = self.rng.between(1500, 15_000);
        self.after(next, Due::User);
        let request = self.any_request();
        let Some(agent) = self.agent.as_mut().filter(|agent| !agent.committing) else { return };
        let before = agent.desired.clone();
        match admit::admit(&before, request.clone(), self.now) {
            Ok(admit::Admission::Accepted { changes, .. }) => {
                self.note(|| format!("accepted: {}", describe(&request)));
                self.with_agent(|agent, world| {
                    agent.commit(&changes, world);
                    agent.step(world);
                });
            }
            Ok(admit::Admission::AlreadySo(_)) | Err(_) => {}
        }
    }

    fn any_request(&mut self) -> Request {
        if self.store.live.is_none() {
            return self.deploy();
        }
        match self.rng.between(0, 12) {
            11 => Request::Rollback { to: None },
            10 => Request::Hold { services: BTreeSet::new(), on: self.store.wish("web").held.is_none() },
            0 => Request::Rollback { to: None },
            1 => Request::Restart { service: "web".to_owned() },
            2 => Request::Scale { service: "web".to_owned(), replicas: self.rng.between(1, 4) as u32 },
            3 if self.store.wish("web").stopped || self.store.withheld_of("web").next().is_some() => {
                Request::Start { service: "web".to_owned() }
            }
            3 => Request::Stop { service: "web".to_owned() },
            _ => self.deploy(),
        }
    }

    fn deploy(&mut self) -> Request {
        self.begun += 1;
        let flavour = if self.begun == 1 {
            Flavour::Good
        } else {
            self.rng.pick(&[
                Flavour::Good,
                Flavour::Good,
                Flavour::Good,
                Flavour::Slow,
                Flavour::Flapping,
                Flavour::NeverHealthy,
                Flavour::ThrowsAtStart,
                Flavour::CrashesAfterTraffic,
                Flavour::Missing,
            ])
        };
        let handover = match self.rng.between(0, 100) {
            0..25 => Handover::StopFirst,
            25..50 => Handover::Rolling(Rolling {
                parallelism: self.rng.between(1, 3) as u32,
                stop_first: self.rng.chance(50),
                delay: Duration::from_millis(self.rng.pick(&[0, 0, 1500])),
            }),
            _ => Handover::Overlap,
        };
        let replicas = if handover == Handover::StopFirst { 1 } else { self.rng.between(1, 4) as u32 };
        let with_job = self.rng.chance(30);
        let mut spec = spec(flavour, handover, replicas, with_job, self.begun);
        if self.docker {
            spec.services.values_mut().for_each(|service| service.container = Some(Box::default()));
            if self.rng.chance(20) {
                spec.services.remove("cache");
                for service in spec.services.values_mut() {
                    service.depends_on.remove("cache");
                }
            }
        }
        Request::Deploy {
            spec: Arc::new(spec),
            hash: format!("hash-{}", self.begun),
            recreate: BTreeSet::new(),
        }
    }
}

fn describe(request: &Request) -> String {
    match request {
        Request::Deploy { spec, .. } => {
            let web = &spec.services["web"];
            let others = spec.services.len() - 1;
            format!("deploy {:?} {:?} ×{} and {others} more", Flavour::of(web), web.handover, web.replicas)
        }
        other => format!("{other:?}"),
    }
}

/// A project: `web` of the given kind, `queue` (a worker that waits for it), `cache` (shared), perhaps a job.
fn spec(flavour: Flavour, handover: Handover, replicas: u32, with_job: bool, version: u32) -> Spec {
    let mut web = service("web", Role::App, flavour, replicas);
    web.handover = handover;
    web.env.insert("VERSION".to_owned(), version.to_string());
    let healthy = Dependency { condition: Condition::Healthy, required: true, restart: false };
    web.depends_on.insert("cache".to_owned(), healthy);
    let mut queue = service("queue", Role::Worker, Flavour::Good, 1);
    queue.depends_on.insert("web".to_owned(), Dependency { restart: version.is_multiple_of(3), ..healthy });
    if handover == Handover::Overlap {
        web.care = Care { spare: u32::from(version % 4 == 1), ..Care::default() };
    }
    let mut services = vec![queue, service("cache", Role::Shared, Flavour::Good, 1)];
    if with_job {
        let completed = Dependency { condition: Condition::Completed, required: true, restart: false };
        web.depends_on.insert("migrate".to_owned(), completed);
        let mut job = service("migrate", Role::Job, Flavour::Good, 1);
        job.restart = Restart::No;
        services.push(job);
    }
    services.push(web);
    Spec {
        project: "sim".to_owned(),
        services: services.into_iter().map(|service| (service.name.clone(), service)).collect(),
        keep: Keep { releases: 2, warm: Duration::from_secs(40) },
        trusted_proxies: Vec::new(),
        ..Spec::default()
    }
}

fn service(name: &str, role: Role, flavour: Flavour, replicas: u32) -> Service {
    let port = Port { host: None, published: Some(8080), target: 3000, protocol: Protocol::Detect };
    let http = Check::Http { port: None, path: "/".to_owned(), host: None, accept: Accept::Success };
    Service {
        name: name.to_owned(),
        role,
        role_reason: String::new(),
        container: None,
        argv: vec![name.to_owned()],
        env: BTreeMap::from([("FLAVOUR".to_owned(), flavour.name().to_owned())]),
        working_dir: "/".to_owned(),
        user: None,
        replicas,
        ports: if role == Role::App { vec![port] } else { Vec::new() },
        app_port: AppPort::Env,
        probe: Probe {
            check: if role == Role::Worker { Check::Up } else { http },
            interval: Duration::from_secs(2),
            start_interval: Duration::from_millis(10),
            timeout: Duration::from_secs(1),
            rise: 2,
            fall: 3,
            start_period: Duration::ZERO,
            declared: true,
        },
        gate_timeout: Duration::from_secs(15),
        drain: Drain {
            requests: Duration::from_secs(3),
            websockets: Duration::from_secs(120),
            stagger: Duration::from_secs(2),
        },
        routing: Routing::default(),
        balance: Balance::default(),
        times: Times::default(),
        hold: Hold::default(),
        access_log: false,
        care: Care::default(),
        resources: bulsa_core::spec::ResourceLimits::default(),
        drill_block: None,
        heartbeat: None,
        bake: Bake { time: Duration::from_secs(6), errors: 0.05 },
        handover: Handover::Overlap,
        restart: Restart::Always,
        stop_signal: 15,
        stop_grace: Duration::from_secs(2),
        depends_on: BTreeMap::new(),
        position: String::new(),
    }
}

impl World {
    /// The release that users should reach, and its `web`.
    pub(crate) fn live_web(&self) -> Option<(ReleaseId, &Service)> {
        let (id, release) = self.store.live()?;
        Some((id, release.spec.services.get("web")?))
    }

    pub(crate) fn live_flavour(&self) -> Option<Flavour> {
        Some(Flavour::of(self.live_web()?.1))
    }
}
