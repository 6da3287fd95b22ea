//! The docker engine's side of the driver: what the Engine tells, and what is made of it.
//!
//! Owns: the connection to the Engine, which container is which replica, and the way from the Engine's news to the
//! core's events. Never: decides which replica is started or stopped, or blocks on the Engine: every call to it is a
//! task that reports back as an [`Input`].
//!
//! Events may be lost (the Engine keeps 256, and none over a restart), so nothing is believed from events alone: a full
//! list comes after every connect and every few seconds, and what it says counts.

mod anchors;
mod clashes;
mod containers;
mod drift;
mod ends;
mod lists;
mod logs;
mod prepare;
mod rollback;
mod room;
mod speech;
mod subnets;
mod upkeep;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use bulsa_core::{
    decide::{Event, ExitStatus, ReplicaPhase},
    ids::{ReleaseId, ReplicaId},
    room::Room,
    spec::{Role, Service},
    time::Timestamp,
    wire::api::{Answer, DeployRequest},
};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
};

pub(super) use self::{
    anchors::Anchors,
    anchors::{Anchored, SOCKET_PREFIX},
    ends::Judged,
    prepare::{Prepared, needs_preparation},
    speech::{Spoken, known},
    upkeep::{Left, dealt_with},
};
use super::{
    Driver, Input,
    project::{Meta, Project},
};
use crate::agent::{
    anchor::Anchor,
    docker::{Docker, Found, Happened, News, Running, StartProblem, State},
    images::Fate,
    watchers::Watchers,
};

/// How long after a failed attempt the Engine is tried again.
const CONNECT_AGAIN: Duration = Duration::from_secs(1);
/// At most this many of the Engine's news wait for the driver.
const NEWS_MAX: usize = 256;

/// What the driver knows of the Engine.
#[derive(Default)]
pub(super) struct DockerSide {
    /// The Engine, once it answered for the first time.
    engine: Option<Docker>,
    /// Who puts files into its containers before they start.
    pub(super) watchers: Watchers,
    /// Whether somebody tries to reach it.
    connecting: bool,
    /// Whether it answered when it was asked last.
    reachable: bool,
    /// Why it didn't.
    trouble: String,
    /// When it went away.
    lost_at: Option<Timestamp>,
    /// The replicas of our containers, by container id. Those that a human stopped stay in it.
    containers: BTreeMap<String, (String, ReplicaId)>,
    /// Containers that ended and are being removed: a list that was asked for before may still have them running.
    ended: BTreeSet<String>,
    /// Containers that we asked to stop: what then happens to them is our doing.
    asked: BTreeSet<String>,
    /// Containers that ended while their start was under way.
    died_early: BTreeMap<String, ExitStatus>,
    /// Containers that ended, and whose last output is being copied.
    ending: BTreeSet<String>,
    /// What others did to our containers.
    meddling: BTreeMap<String, ends::Meddling>,
    /// Starts under way.
    starting: BTreeSet<(String, ReplicaId)>,
    /// Who copies a container's output to its log.
    followers: BTreeMap<String, JoinHandle<()>>,
    /// The names inside the projects' networks.
    pub(super) anchors: Anchors,
    /// Ports of services that are being asked what they speak, by project and release.
    asking_what_is_spoken: BTreeSet<(String, String, u16, ReleaseId)>,
    /// Deploys that wait for the Engine's first answer.
    asking: Vec<(DeployRequest, oneshot::Sender<Answer>)>,
    /// Projects whose deploy is being prepared.
    preparing: BTreeSet<String>,
    /// What Compose had made for a project when its deploy was prepared.
    pub(super) compose_made: BTreeMap<String, Vec<Found>>,
    /// What the containers of `shared` services were made from.
    made: drift::MadeFrom,
    /// What was measured for the last deploy of each project.
    pub(super) rooms: BTreeMap<String, Room>,
    /// The images of old releases.
    pruning: upkeep::Pruning,
    /// Projects that are down, and of which not everything could be removed yet.
    left_behind: BTreeMap<String, upkeep::Tries>,
    /// The tasks that the last table of the agent before this one routes to.
    routed_before: BTreeSet<String>,
}

/// What the docker engine tells the driver.
pub(in crate::agent) enum DockerInput {
    /// The Engine answered for the first time, or couldn't be reached.
    Reached(Result<Docker, String>),
    /// It has news.
    News(News),
    /// A container was started, or couldn't be.
    Started {
        /// Whose project.
        project: String,
        /// Whose.
        id: ReplicaId,
        /// What came of it.
        result: Result<Running, StartProblem>,
    },
    /// What became of a container that ended in a way that needs a second look.
    Judged(Judged),
    /// A deploy's images, networks and volumes are there, or can't be.
    Prepared(Box<Prepared>),
    /// A release that is to be gone back to was looked at.
    RollbackChecked(rollback::Checked),
    /// What is spoken on a port.
    Spoken(Spoken),
    /// The address blocks of networks, by name.
    Subnets(BTreeMap<String, BTreeSet<ipnet::IpNet>>),
    /// What became of images of old releases.
    Pruned(BTreeMap<String, Fate>),
    /// What a project that is down had is removed, but for this.
    TornDown(String, Left),
    /// What came of an anchor.
    Anchored(Anchored),
    /// Somebody started an anchor.
    AnchorUp(Anchor),
    /// A container could not be stopped.
    NotStopped {
        /// Whose project.
        project: String,
        /// Which.
        container: String,
        /// Why not.
        text: String,
    },
    /// A container ended, and its last output is copied.
    Ended {
        /// Which.
        container: String,
        /// How.
        status: ExitStatus,
    },
    /// A container may be removed.
    Leftover(String),
}

impl From<DockerInput> for Input {
    fn from(input: DockerInput) -> Self {
        Self::Docker(Box::new(input))
    }
}

/// Whether replicas of this service are containers.
pub(super) const fn is_container(service: &Service) -> bool {
    service.container.is_some()
}

/// Whether any release of a project has containers.
pub(super) fn has_containers(project: &Project) -> bool {
    let specs = project.desired.releases.values().map(|release| release.spec.as_ref());
    specs.flat_map(|spec| spec.services.values()).any(is_container)
}

impl Driver {
    /// The Engine, if it answers; else why not, as a sentence.
    pub(super) fn engine(&self) -> Result<Docker, String> {
        match &self.docker.engine {
            Some(engine) if self.docker.reachable => Ok(engine.clone()),
            _ if self.docker.trouble.is_empty() => {
                Err("the Docker Engine was not asked yet; try again in a second".to_owned())
            }
            _ => Err(self.docker.trouble.clone()),
        }
    }

    /// Whether a deploy of a project is being prepared.
    pub(super) fn is_preparing(&self, project: &str) -> bool {
        self.docker.preparing.contains(project)
    }

    /// Tries to reach the Engine until it answers. Does nothing where that is under way or done.
    pub(super) fn reach_engine(&mut self) {
        if self.docker.connecting || self.docker.engine.is_some() {
            return;
        }
        self.docker.connecting = true;
        let (inbox, owner) = (self.inbox.clone(), self.identity.owner.clone());
        self.tasks.spawn(async move {
            loop {
                let reached = Docker::connect(&owner).await.map_err(|error| error.to_string());
                let is_done = reached.is_ok();
                let told = inbox.send(DockerInput::Reached(reached).into()).await;
                if is_done || told.is_err() {
                    return;
                }
                tokio::time::sleep(CONNECT_AGAIN).await;
            }
        });
    }

    pub(super) async fn docker_says(&mut self, input: DockerInput) {
        match input {
            DockerInput::Reached(Ok(engine)) => self.reached(engine),
            DockerInput::Reached(Err(error)) => {
                self.unreached(error);
                self.ask_prepared().await;
            }
            DockerInput::News(news) => self.news(news).await,
            DockerInput::Started { project, id, result } => self.container_started(&project, &id, result),
            DockerInput::Judged(judged) => self.judged(judged),
            DockerInput::RollbackChecked(checked) => self.rollback_checked(checked).await,
            DockerInput::Prepared(prepared) => self.prepared(*prepared).await,
            DockerInput::Spoken(spoken) => self.spoken(&spoken),
            DockerInput::Anchored(anchored) => self.anchored(anchored).await,
            DockerInput::AnchorUp(anchor) => self.anchor_up(anchor).await,
            DockerInput::NotStopped { project, container, text } => {
                // What happens to it now need not be our doing.
                self.docker.asked.remove(&container);
                self.warn(&project, "warning", text);
            }
            DockerInput::Subnets(subnets) => self.subnets(&subnets),
            DockerInput::Pruned(fates) => self.pruned(fates),
            DockerInput::TornDown(project, left) => self.torn_down(&project, left),
            DockerInput::Ended { container, status } => self.output_copied(&container, status),
            DockerInput::Leftover(container) => self.remove_container(&container),
        }
    }

    fn reached(&mut self, engine: Docker) {
        self.docker.connecting = false;
        let (out, mut news) = mpsc::channel(NEWS_MAX);
        drop(engine.watch(out));
        let inbox = self.inbox.clone();
        self.tasks.spawn(async move {
            while let Some(news) = news.recv().await {
                if inbox.send(DockerInput::News(news).into()).await.is_err() {
                    return;
                }
            }
        });
        self.docker.watchers.reached(engine.clone());
        self.docker.engine = Some(engine);
    }

    fn unreached(&mut self, error: String) {
        self.docker.reachable = false;
        self.docker.trouble.clone_from(&error);
        if self.projects.values().any(has_containers) {
            self.warn("", "docker.unreachable", error);
        }
    }

    async fn news(&mut self, news: News) {
        match news {
            News::Connected(info) => {
                self.docker.reachable = true;
                self.docker.trouble.clear();
                self.docker.lost_at = None;
                self.ask_for_subnets();
                self.ask_prepared().await;
                let text = format!(
                    "Docker Engine {} answers (API {}.{}, {})",
                    info.version, info.api.0, info.api.1, info.operating_system
                );
                self.tell("", "docker.connected", None, text);
            }
            News::Lost { error } => {
                let text = format!(
                    "the Docker Engine is gone: {error}; what runs goes on, nothing is started until it is back"
                );
                self.docker.lost_at = Some(self.clock.now());
                self.unreached(text);
            }
            News::Listed { containers, asked_at } => {
                let as_of = self.clock.at(asked_at.into());
                self.listed(containers, as_of).await;
            }
            News::Happened { container, anchor: Some(service), project, what, .. } => {
                self.anchor_happened(&project, &service, &container, &what);
            }
            News::Happened { container, replica, project, what, .. } => {
                self.know(&container, &project, replica.as_deref());
                self.happened(&container, &what);
            }
        }
    }

    /// A container may end before the driver hears that it was started: its label says whose it is.
    fn know(&mut self, container: &str, project: &str, replica: Option<&str>) {
        let id = replica.and_then(|id| id.parse::<ReplicaId>().ok());
        let starting = id.map(|id| (project.to_owned(), id));
        if let Some(starting) = starting.filter(|starting| self.docker.starting.contains(starting)) {
            self.docker.containers.insert(container.to_owned(), starting);
        }
    }

    fn happened(&mut self, container: &str, what: &Happened) {
        let Some((name, id)) = self.docker.containers.get(container).cloned() else { return };
        let now = self.clock.now();
        match what {
            Happened::Started => self.container_up(container),
            Happened::Died { exit_code, oom } => self.container_died(container, *exit_code, *oom),
            Happened::Signalled { signal } => self.meddled(container, Some(*signal)),
            Happened::StopAsked => self.meddled(container, None),
            Happened::Paused | Happened::Unpaused => {
                let paused = *what == Happened::Paused;
                let Some(project) = self.projects.get_mut(&name) else { return };
                project.apply(Event::Paused { id: id.clone(), paused }, now);
                let what = if paused { "was paused" } else { "was unpaused" };
                self.tell(&name, "replica.paused", Some(&id), format!("{} {what} by a person", id.name()));
            }
            Happened::Removed => self.container_removed(container),
            Happened::Health(_) | Happened::Renamed => {}
        }
    }

    /// The role of a replica's service. Of one that is forgotten its release tells: 0 is a backing service's.
    fn role_of(&self, name: &str, id: &ReplicaId) -> Role {
        let service = self.projects.get(name).and_then(|p| p.desired.service(id.release, &id.service));
        let forgotten = if id.release.0 == 0 { Role::Shared } else { Role::App };
        service.map_or(forgotten, |service| service.role)
    }

    /// Whether a replica is one that was asked to stop.
    fn is_stopping(&self, name: &str, id: &ReplicaId) -> bool {
        let replica = self.projects.get(name).and_then(|project| project.observed.replica(id));
        replica.is_some_and(|replica| matches!(replica.phase, ReplicaPhase::Stopping { .. }))
    }

    /// Forgets a container that is gone.
    fn container_removed(&mut self, container: &str) {
        if self.docker.meddling.contains_key(container) {
            return; // the second look says what it was
        }
        if let Some((name, id)) = self.docker.containers.remove(container) {
            self.docker.asked.remove(container);
            // What a failed start made goes before that is told, or somebody was faster: the start itself reports.
            let is_starting = self.docker.starting.contains(&(name.clone(), id.clone()));
            let is_there =
                !is_starting && self.projects.get(&name).is_some_and(|p| p.observed.replica(&id).is_some());
            if is_there {
                self.replica_gone(&name, &id, ExitStatus::Unknown);
            }
        }
        self.docker.followers.remove(container);
    }
}

/// What is known of a container beside the core's picture.
pub(super) fn container_of<'a>(project: &'a Project, id: &ReplicaId) -> Option<&'a str> {
    project.meta.get(id).and_then(|meta: &Meta| meta.container.as_deref())
}
