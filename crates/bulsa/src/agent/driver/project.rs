//! One project as its driver holds it.
//!
//! Owns: the project's desired and observed state, the last decision, and what the driver knows of its replicas beyond
//! what the core needs (process, port, log). Never: performs anything.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::PathBuf,
    sync::Arc,
};

use bulsa_core::{
    decide::{self, Decision, Desired, Event, LastCall, Observed, Table},
    ids::{ReleaseId, ReplicaId, Slot},
    notify::memory::Settings,
    spec::Protocol,
    time::Timestamp,
    wire::api::{Answer, DeploymentView, ProbeSeen},
};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::agent::{probe::ExecContext, process::user::Account};

/// A project and everything that its driver knows of it.
pub(super) struct Project {
    /// Its name.
    pub(super) name: String,
    /// What is committed.
    pub(super) desired: Desired,
    /// What is.
    pub(super) observed: Observed,
    /// What should happen next, as of the last look.
    pub(super) decision: Decision,
    /// The routes that were given out last; `None` before this agent gave any.
    pub(super) published: Option<Table>,
    /// What is known of the replicas.
    pub(super) meta: BTreeMap<ReplicaId, Meta>,
    /// The last deployments with their progress, oldest first.
    pub(super) deployments: Vec<DeploymentView>,
    /// When each release was made.
    pub(super) created: BTreeMap<ReleaseId, u64>,
    /// A commit on its way to the disk; decisions that need another one wait for it.
    pub(super) committing: Option<Committing>,
    /// After a commit that failed, the next is tried at this time.
    pub(super) commit_again: Timestamp,
    /// Jobs that ended, by service, whose end isn't on the disk yet.
    pub(super) unacknowledged: Vec<(String, String)>,
    /// The incidents that aren't over.
    pub(super) incidents: super::incidents::Open,
    /// What was found to be spoken on ports of which the file doesn't say it, by service and target: in each release.
    pub(super) spoken: BTreeMap<(String, u16), BTreeMap<ReleaseId, Protocol>>,
    /// The address blocks of its networks.
    pub(super) subnets: BTreeSet<ipnet::IpNet>,
    /// The images of its old releases that were removed, or left to whoever they are.
    pub(super) dealt_with: BTreeSet<String>,
    /// It is down, and what it left at the Engine is being removed.
    pub(super) tearing_down: bool,
    /// That is done.
    pub(super) torn_down: bool,
    /// Its containers aren't known yet: nothing is decided for it, and the routes stay as they are.
    pub(super) dormant: bool,
    /// What the Engine can't keep of a release, as far as it was told.
    pub(super) noted: BTreeSet<(ReleaseId, String)>,
    /// What fails and is left alone, as far as it was told.
    pub(super) excused: BTreeMap<ReplicaId, decide::Excuse>,
    /// The programs that are known to send heartbeats: their releases and services.
    pub(super) senders: BTreeSet<(ReleaseId, String)>,
    /// The release that was last found to be beyond healing.
    pub(super) fell_back_from: Option<ReleaseId>,
    /// Not before this is it asked again where it was refused.
    pub(super) fall_back_again: Timestamp,
    /// Whether its replicas are being looked at.
    pub(super) looks: bool,
    /// The files of places that keep dying, as they were.
    pub(super) files: BTreeMap<Slot, super::healing::Stamps>,
    /// Deaths by service, for people.
    pub(super) restarts: BTreeMap<String, u64>,
    /// A deployment that was undone: how it ended is told once the release before it serves again, or doesn't in time.
    pub(super) ending: Option<Ending>,
    /// Who is told of it.
    pub(super) notify: Settings,
    /// How far the output of its jobs was told, by service.
    pub(super) told: BTreeMap<String, super::jobs::Told>,
}

/// How a deployment ended, while it isn't known yet whether the release before it serves.
#[derive(Clone, Debug)]
pub(super) struct Ending {
    /// How.
    pub(super) outcome: decide::Outcome,
    /// Why.
    pub(super) reason: String,
    /// The release that should serve again.
    pub(super) previous: Option<ReleaseId>,
    /// When that is waited for no longer.
    pub(super) until: Timestamp,
}

/// A commit on its way to the disk.
pub(super) struct Committing {
    /// The changes.
    pub(super) changes: Vec<decide::Change>,
    /// Who is told of the project from then on, where that changes.
    pub(super) notify: Option<Settings>,
    /// Who waits for it, and what they are told once it is done.
    pub(super) answer: Option<(oneshot::Sender<Answer>, Answer)>,
}

/// What is known of a replica beyond the core's picture.
#[derive(Clone, Debug, Default)]
pub(super) struct Meta {
    /// Its process; `None` until the keeper says so.
    pub(super) pid: Option<u32>,
    /// Its container's id, on the docker engine.
    pub(super) container: Option<String>,
    /// When its container was started last, in milliseconds since the Unix epoch.
    pub(super) started_ms: u64,
    /// What the keeper keeps with it.
    pub(super) note: Note,
    /// How a check by exec is run for it.
    pub(super) exec: Option<Arc<ExecContext>>,
    /// Since when this agent knows it, if another one started it.
    pub(super) adopted: Option<Timestamp>,
    /// When its last heartbeat came.
    pub(super) heartbeat: Option<Timestamp>,
    /// The last probe in words.
    pub(super) last_probe: String,
    /// The last probes, oldest first; those in a row that said the same are one.
    pub(super) probes: Vec<ProbeSeen>,
    /// What stands between it and its port, in words.
    pub(super) listening: Option<String>,
    /// The most memory that it was seen with, in bytes, where the kernel counts it.
    pub(super) memory_peak: Option<u64>,
    /// Its container ran out of memory.
    pub(super) out_of_memory: bool,
    /// The request that died with it and another one, if there was one.
    pub(super) suspect: Option<String>,
    /// Where it listens, when that is not where it should.
    pub(super) other_ports: Vec<u16>,
    /// Why it can't ever be reached: it is killed for it, and not started again by itself.
    pub(super) hopeless: Option<String>,
    /// Whether those who wait were told where it listens.
    pub(super) told: bool,
    /// When its listener is looked for next.
    pub(super) look_at: Timestamp,
}

/// What the keeper keeps with a replica, so that a later agent finds it again.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Note {
    /// When it was started, in milliseconds since the Unix epoch.
    pub(super) started_ms: u64,
    /// The port that it was told to listen on.
    #[serde(default)]
    pub(super) port: Option<u16>,
    /// The port that is accepted instead.
    #[serde(default)]
    pub(super) fallback: Option<u16>,
    /// Its own address, where it has a network namespace of its own.
    #[serde(default)]
    pub(super) isolated: Option<IpAddr>,
    /// The name of that namespace.
    #[serde(default)]
    pub(super) namespace: Option<String>,
    /// The directories of its control group, where it has limits.
    #[serde(default)]
    pub(super) cgroups: Vec<PathBuf>,
    /// The file that its output goes to.
    #[serde(default)]
    pub(super) log: Option<PathBuf>,
}

impl Project {
    /// A project of which nothing is known yet.
    pub(super) fn new(name: String, observed: Observed) -> Self {
        Self {
            name,
            desired: Desired::default(),
            observed,
            decision: Decision::default(),
            published: None,
            meta: BTreeMap::new(),
            deployments: Vec::new(),
            created: BTreeMap::new(),
            committing: None,
            commit_again: Timestamp(0),
            unacknowledged: Vec::new(),
            incidents: super::incidents::Open::default(),
            spoken: BTreeMap::new(),
            subnets: BTreeSet::new(),
            dealt_with: BTreeSet::new(),
            tearing_down: false,
            torn_down: false,
            dormant: false,
            noted: BTreeSet::new(),
            excused: BTreeMap::new(),
            senders: BTreeSet::new(),
            fell_back_from: None,
            fall_back_again: Timestamp(0),
            looks: false,
            files: BTreeMap::new(),
            restarts: BTreeMap::new(),
            ending: None,
            notify: Settings::default(),
            told: BTreeMap::new(),
        }
    }

    /// Takes in one event.
    pub(super) fn apply(&mut self, event: Event, now: Timestamp) {
        self.observed.apply(event, now);
    }

    /// Looks again at what should happen. `leaving`: the daemon shuts down, so nothing should run.
    pub(super) fn consider(&mut self, now: Timestamp, leaving: Option<LastCall>) {
        if self.dormant {
            self.decision = Decision::default();
            return;
        }
        self.observed.settle(&self.desired, now);
        self.decision = if leaving.is_some() {
            let down = Desired { down: true, last_call: leaving, ..self.desired.clone() };
            decide::decide(&down, &self.observed, now)
        } else {
            decide::decide(&self.desired, &self.observed, now)
        };
    }

    /// Whether a replica is a container.
    pub(super) fn is_container(&self, id: &ReplicaId) -> bool {
        let service = self.desired.service(id.release, &id.service);
        self.meta.get(id).is_some_and(|meta| meta.container.is_some())
            || service.is_some_and(|service| service.container.is_some())
    }

    /// The replicas that are processes, with the times at which they were started: those that the Engine knows nothing
    /// of.
    pub(super) fn processes(&self) -> BTreeMap<ReplicaId, Timestamp> {
        let replicas = self.observed.replicas().filter(|(id, _)| !self.is_container(id));
        replicas.map(|(id, replica)| (id.clone(), replica.started)).collect()
    }

    /// What is spoken on a port in a release; before a replica of it was asked, what was in the release before.
    pub(super) fn spoken(&self, release: ReleaseId, service: &str, target: u16) -> Option<Protocol> {
        let found = self.spoken.get(&(service.to_owned(), target))?;
        found.range(..=release).next_back().map(|(_, protocol)| *protocol)
    }

    /// The name under which the keeper knows a replica.
    pub(super) fn task(&self, id: &ReplicaId) -> String {
        format!("{}/{id}", self.name)
    }

    /// Whether nothing of it runs any more that ends with the daemon: Docker keeps its backing services.
    pub(super) fn has_ended(&self) -> bool {
        let is_shared = |id: &ReplicaId| id.release.0 == 0 || self.desired.is_shared(id.release, &id.service);
        let is_kept = |id: &ReplicaId| is_shared(id) && self.is_container(id);
        self.observed.replicas().all(|(id, _)| is_kept(id))
    }

    /// Whether nothing of it runs any more.
    pub(super) fn is_empty(&self) -> bool {
        self.observed.replicas().next().is_none()
    }
}

/// The project and the replica that a task's name stands for.
pub(super) fn parse_task(task: &str) -> Option<(&str, ReplicaId)> {
    let (project, id) = task.split_once('/')?;
    Some((project, id.parse().ok()?))
}

/// How a program of a service is run: the account it has, or the agent's own.
pub(super) fn account_of(account: Option<&Account>) -> (Option<u32>, Option<u32>, Vec<u32>) {
    account.map_or((None, None, Vec::new()), |a| (Some(a.uid), Some(a.gid), a.groups.clone()))
}
