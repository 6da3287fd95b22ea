//! The driver: the agent's event loop, and the only one who changes a project's state.
//!
//! Owns: every project, the link to the keeper, the links to the proxies, the route table's publication, and the
//! published snapshot. Never: decides what should happen; that is [`bulsa_core::decide`], which it asks after every
//! event.
//!
//! ```text
//!  keeper ─┐                       ┌─▶ commits  (store; applied when they are on the disk)
//!  proxies ┤                       ├─▶ table    (keeper first, then every proxy)
//!  probes ─┼─▶ Input ─▶ observed ─▶ decide ─▶ actions (keeper)
//!  people ─┤                       ├─▶ probes
//!  timers ─┘                       └─▶ when to look again
//! ```
//!
//! Whatever may take long (a commit, a network namespace, a slow proxy) is a task of its own that reports back as an
//! [`Input`]; nothing that a replica waits for waits for a disk.

mod access_log;
mod acks;
mod clock;
mod commits;
mod docker;
mod drill;
mod engine;
mod healing;
mod heartbeats;
mod held;
mod incidents;
mod inputs;
mod jobs;
mod limits;
mod narrate;
mod notify;
mod persist;
mod probes;
mod project;
mod publish;
mod requests;
mod restore;
mod routes;
mod served;
mod shutdown;
mod view;

use std::{
    cell::OnceCell,
    collections::{BTreeMap, VecDeque},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use bulsa_core::{
    budget::RestartBudget,
    host::{CpuPressure, MemoryKills},
    ids::{ReleaseId, ReplicaId},
    time::Timestamp,
    wire::api::{Event, Snapshot},
};
use bulsa_proxy::Report as ProxyReport;
use sha2::{Digest, Sha256};
use tokio::{
    sync::{broadcast, mpsc, watch},
    task::JoinSet,
    time::{Instant, MissedTickBehavior},
};

pub(super) use self::clock::Clock;
pub(super) use self::notify::{AllSettings, AllViews, Told};
use self::{
    docker::{DockerInput, DockerSide},
    project::Project,
    routes::Routes,
    shutdown::Shutdown,
};
use super::{
    api::{Asked, DriverHandle},
    keeper_client::{KeeperClient, KeeperEvent, Welcome},
    notify::Tester,
    probe::{self, Prober, RealRunner},
    process::{cgroups::Cgroups, heartbeat::Heartbeats, logs::Logs, netns::Namespace, ports::PortAllocator},
    proxy_link::ProxyEvent,
    store::{Store, Stored},
};

/// At most this many inputs wait for the driver.
const INBOX_MAX: usize = 1024;
/// At most this many inputs are taken in before the driver decides.
const INPUTS_AT_ONCE: usize = 256;
/// At most this many requests wait for the driver.
const REQUESTS_MAX: usize = 64;
/// At most this many events wait for a slow reader; it then misses some and is told so.
const EVENTS_MAX: usize = 1024;
/// More decisions in a row than this without waiting are a bug; the driver then waits for the next event.
const ROUNDS_MAX: u32 = 50;
/// How often logs are bounded and other slow duties are done.
const HOUSEKEEPING: Duration = Duration::from_secs(5);

/// Who this daemon is, the same over all its agents' lives.
#[derive(Clone, Debug)]
pub(super) struct Identity {
    /// A random name, made at the first start and stored.
    pub(super) owner: String,
}

impl Identity {
    /// `BULSA_INSTANCE`: a UUID (version 8) for a service of one release, which outlives the deaths of its workers.
    pub(super) fn instance(&self, project: &str, id: &ReplicaId) -> String {
        let mut hash = Sha256::new();
        for part in [self.owner.as_str(), project, &id.release.to_string(), &id.service] {
            hash.update(part.as_bytes());
            hash.update([0]);
        }
        let digest = hash.finalize();
        let mut bytes = [0_u8; 16];
        bytes.copy_from_slice(&digest[..16]);
        uuid::Builder::from_custom_bytes(bytes).into_uuid().to_string()
    }
}

/// Something that the driver takes in.
pub(super) enum Input {
    /// From the keeper; `Err` when the link is gone.
    Keeper(Result<KeeperEvent, String>),
    /// From a proxy generation; `Err` when the link is gone.
    Proxy(u64, Result<ProxyEvent, String>),
    /// A proxy generation answers no more.
    ProxySilent(u64),
    /// A commit came to its end.
    Committed {
        /// Whose.
        project: String,
        /// How.
        result: Result<(), String>,
    },
    /// A network namespace is made, or can't be.
    Namespace {
        /// Whose project.
        project: String,
        /// Whose.
        id: ReplicaId,
        /// What came of it.
        made: Result<Namespace, String>,
    },
    /// From the docker engine.
    Docker(Box<DockerInput>),
    /// Going back from a release that can't be healed was refused.
    FallBackRefused {
        /// The project.
        project: String,
        /// From which release.
        from: ReleaseId,
        /// What is said of it.
        text: String,
    },
    /// A task of the driver's could not do something.
    Warning {
        /// Whose.
        project: String,
        /// What.
        text: String,
    },
    /// These ends are in the ledger: the keeper may forget them.
    Recorded(Vec<String>),
    /// A drill's work goes on.
    Drill(drill::DrillInput),
    /// A message about a project was given up.
    GivenUp {
        /// Whose.
        project: String,
        /// What, and why.
        text: String,
    },
    /// The access log's file was looked after; another one, if there is one.
    AccessLog(Result<Option<std::fs::File>, String>),
    /// A look at a project's replicas has ended.
    Looked {
        /// Whose.
        project: String,
        /// What was found.
        looked: healing::Looked,
    },
    /// The daemon was told to stop by a signal.
    Stop,
}

/// One living proxy generation.
pub(super) struct ProxyHandle {
    pid: i32,
    report: Option<ProxyReport>,
    tables: watch::Sender<publish::Sealed>,
    log: watch::Sender<access_log::LogFile>,
    tasks: JoinSet<()>,
}

/// The agent's event loop. See the module's documentation.
pub(super) struct Driver {
    clock: Clock,
    started_at_ms: u64,
    keeper_pid: u32,
    identity: Identity,
    keeper: Arc<KeeperClient>,
    keeper_lost: bool,
    store: Store,
    projects: BTreeMap<String, Project>,
    routes: Routes,
    kept: u64,
    sealed: publish::Sealed,
    /// Whether the kernel killed for want of memory a moment ago.
    memory_kills: MemoryKills,
    /// Whether probes may have been late for want of CPU.
    pressure: CpuPressure,
    /// What keeps dying is started within it.
    budget: RestartBudget,
    /// When a start that it put off is asked for again.
    budget_at: Option<Timestamp>,
    /// The table is to be given out again though no project wants it changed.
    republish: bool,
    attempt_floor: u32,
    proxies: BTreeMap<u64, ProxyHandle>,
    prober: Prober<RealRunner>,
    ports: PortAllocator,
    /// Where replicas send their heartbeats; `None` where that can't be had, which was told.
    heartbeats: Option<Arc<Heartbeats>>,
    /// Where control groups can be made; looked for when a service first has limits.
    cgroups: OnceCell<Cgroups>,
    docker: DockerSide,
    drills: drill::Drills,
    logs: Logs,
    access_log: access_log::AccessLog,
    snapshot: watch::Sender<Arc<Snapshot>>,
    snapshot_number: u64,
    events: broadcast::Sender<Event>,
    notify: notify::Told,
    served: served::Served,
    warnings: Vec<String>,
    bad_gateways_of_gone: u64,
    /// Ends of replicas that the keeper may forget.
    acks: acks::Acks,
    waiting: VecDeque<Asked>,
    inbox: mpsc::Sender<Input>,
    tasks: JoinSet<()>,
    /// What is being removed after replicas that are gone; a shutdown waits for it.
    removals: JoinSet<()>,
    shutdown: Option<Shutdown>,
    /// Another keeper's agent takes over: this one ends and leaves everything as it is.
    handed_over: bool,
}

/// The ends at which the driver listens.
pub(super) struct Ears {
    inbox: mpsc::Receiver<Input>,
    requests: mpsc::Receiver<Asked>,
    reports: mpsc::Receiver<probe::Report>,
}

/// What a driver is made of.
pub(super) struct Parts {
    /// The link to the keeper.
    pub(super) keeper: KeeperClient,
    /// The keeper's process.
    pub(super) keeper_pid: u32,
    /// The open store.
    pub(super) store: Store,
    /// The daemon's identity.
    pub(super) identity: Identity,
    /// Where everything is kept.
    pub(super) state_dir: PathBuf,
    /// The ports for replicas.
    pub(super) ports: PortAllocator,
    /// How the notifier learns who is told.
    pub(super) notify: Told,
    /// How the API tries that.
    pub(super) tester: Tester,
    /// Where replicas send their heartbeats.
    pub(super) heartbeats: Option<Heartbeats>,
}

impl Driver {
    /// A driver that knows nothing yet, what it listens to, and the handle by which the API reaches it.
    pub(super) fn new(parts: Parts) -> (Self, Ears, DriverHandle) {
        let clock = Clock::start();
        let now = clock.now().0;
        let (inbox, inputs) = mpsc::channel(INBOX_MAX);
        let (asks, requests) = mpsc::channel(REQUESTS_MAX);
        let (events, _) = broadcast::channel(EVENTS_MAX);
        let (prober, reports) = Prober::new(RealRunner);
        let (snapshot, published) = watch::channel(Arc::new(Snapshot::default()));
        let docker = DockerSide::default();
        let handle = DriverHandle {
            requests: asks,
            snapshot: published,
            events: events.clone(),
            store: parts.store.clone(),
            tester: parts.tester,
            watchers: docker.watchers.clone(),
            clock,
        };
        let per_address = std::thread::available_parallelism().map_or(1, usize::from);
        let driver = Self {
            clock,
            started_at_ms: now,
            keeper_pid: parts.keeper_pid,
            identity: parts.identity,
            keeper: Arc::new(parts.keeper),
            keeper_lost: false,
            store: parts.store,
            projects: BTreeMap::new(),
            routes: Routes {
                number: 0,
                sockets: BTreeMap::new(),
                per_address,
                former: bulsa_proxy::Table::empty(0),
            },
            kept: 0,
            sealed: None,
            // An agent that was killed may have dropped a project and not its routes.
            memory_kills: MemoryKills::default(),
            pressure: CpuPressure::default(),
            budget: RestartBudget::default(),
            budget_at: None,
            cgroups: OnceCell::new(),
            republish: true,
            attempt_floor: 0,
            proxies: BTreeMap::new(),
            prober,
            ports: parts.ports,
            heartbeats: parts.heartbeats.map(Arc::new),
            docker,
            drills: drill::Drills::default(),
            access_log: access_log::AccessLog::new(&parts.state_dir.join("logs")),
            logs: Logs::new(parts.state_dir.join("logs")),
            snapshot,
            // Higher than any number of an earlier agent, which published at most one in a millisecond.
            snapshot_number: now,
            events,
            notify: parts.notify,
            served: served::Served::default(),
            warnings: Vec::new(),
            bad_gateways_of_gone: 0,
            acks: acks::Acks::default(),
            waiting: VecDeque::new(),
            inbox,
            tasks: JoinSet::new(),
            removals: JoinSet::new(),
            shutdown: None,
            handed_over: false,
        };
        (driver, Ears { inbox: inputs, requests, reports }, handle)
    }

    /// The driver's clock.
    pub(super) const fn clock(&self) -> Clock {
        self.clock
    }

    /// How the driver is told to stop.
    pub(super) fn inbox(&self) -> mpsc::Sender<Input> {
        self.inbox.clone()
    }

    /// Runs until the daemon is told to stop and everything has.
    pub(super) async fn run(mut self, mut ears: Ears, stored: &Stored, welcome: Welcome) {
        self.listen_to_keeper();
        self.restore(stored, welcome).await;
        let heartbeats = self.heartbeats.clone();
        let mut housekeeping = tokio::time::interval(HOUSEKEEPING);
        housekeeping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let wake = self.settle().await;
            self.record_served();
            self.send_acks();
            self.publish_snapshot();
            if self.is_over().await {
                return;
            }
            tokio::select! {
                Some(input) = ears.inbox.recv() => self.take_in(input).await,
                Some(report) = ears.reports.recv() => self.probed(report),
                Some((request, answer)) = ears.requests.recv() => self.asked(request, answer).await,
                () = sleep_until(wake.map(|at| self.clock.instant(at))) => {}
                // They are taken in where they are judged.
                () = heard(heartbeats.as_deref()) => {}
                _ = housekeeping.tick() => self.keep_house().await,
            }
            for _ in 0..INPUTS_AT_ONCE {
                if let Ok(input) = ears.inbox.try_recv() {
                    self.take_in(input).await;
                } else if let Ok(report) = ears.reports.try_recv() {
                    self.probed(report);
                } else {
                    break;
                }
            }
            while self.tasks.try_join_next().is_some() || self.removals.try_join_next().is_some() {}
            if !self.waiting.is_empty() {
                // What was just learnt goes to the disk before it is asked about.
                self.settle().await;
                self.ask_again().await;
            }
        }
    }

    /// Decides and acts until there is nothing left to do now. Returns when to look again.
    async fn settle(&mut self) -> Option<Timestamp> {
        let mut look = None;
        for _ in 0..ROUNDS_MAX {
            let now = self.clock.now();
            look = self.look_for_listeners();
            self.judge_listeners().await;
            look = [look, self.judge_heartbeats()].into_iter().flatten().min();
            self.keep_anchors().await;
            let leaving = self.last_call();
            for project in self.projects.values_mut() {
                project.consider(now, leaving);
            }
            let committed = self.start_commits(now);
            let published = self.publish_if_changed().await;
            let acted = self.act_all().await;
            self.drop_finished_projects();
            if !committed && !published && !acted {
                break;
            }
        }
        self.watch_drill().await;
        self.set_probes();
        self.tell_excuses();
        self.fall_back().await;
        self.end_incidents();
        self.end_deployments();
        let retry = self.projects.values().filter(|p| p.committing.is_none()).map(|p| p.commit_again);
        let now = self.clock.now();
        let retry = retry.filter(|at| *at > now).min();
        let wakes = self.projects.values().filter_map(|project| project.decision.wake_at);
        let ends = self.projects.values().filter_map(|project| Some(project.ending.as_ref()?.until));
        let wakes = wakes.chain(look).chain(retry).chain(ends).chain(self.budget_at);
        wakes.chain(self.shutdown_deadline()).chain(self.drill_wake()).min()
    }

    /// Starts the commits that decide asks for. A decision's further changes wait until these are applied.
    fn start_commits(&mut self, now: Timestamp) -> bool {
        let due: Vec<(String, Vec<bulsa_core::decide::Change>)> = self
            .projects
            .values_mut()
            .filter(|p| p.committing.is_none() && now >= p.commit_again && self.shutdown.is_none())
            .filter(|p| !p.decision.commits.is_empty())
            .map(|p| (p.name.clone(), std::mem::take(&mut p.decision.commits)))
            .collect();
        let any = !due.is_empty();
        for (name, changes) in due {
            self.commit(&name, changes, persist::About::default(), None);
        }
        any
    }

    async fn act_all(&mut self) -> bool {
        if self.keeper_lost {
            return false;
        }
        let mut due = Vec::new();
        for project in self.projects.values_mut() {
            let actions = std::mem::take(&mut project.decision.actions);
            due.extend(actions.into_iter().map(|action| (project.name.clone(), action)));
        }
        self.budget_at = None;
        due.retain(|(name, action)| !self.is_over_budget(name, action));
        let any = !due.is_empty();
        for (name, action) in due {
            self.act(&name, action).await;
        }
        any
    }
}

/// Waits for a heartbeat.
async fn heard(heartbeats: Option<&Heartbeats>) {
    match heartbeats {
        Some(heartbeats) => heartbeats.readable().await,
        None => std::future::pending().await,
    }
}

/// Sleeps until `at`; for ever if there is none.
async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
