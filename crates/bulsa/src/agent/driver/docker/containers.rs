//! Starting and stopping containers, as decide asks.
//!
//! Owns: the way from an action to the Engine and back. Every call is a task: the Engine may take seconds, and the
//! driver has other replicas to look after. Never: decides; retries what failed (the next decision does).

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use bulsa_core::{
    decide::{Event, Origin, ReplicaPhase, StartError},
    ids::ReplicaId,
    spec::{Role, Service, Spec, container::NetworkMode},
    wire::api::ProgressKind,
};

use super::{DockerInput, Driver, Input, container_of};
use crate::agent::{
    docker::{Docker, Running, StartProblem, StartReplica, State},
    driver::project::{Meta, Project},
    watchers::Watchers,
};

/// How long a start waits for an Engine that is away (it restarts, or is upgraded) before it has failed.
const ENGINE_WAIT: Duration = Duration::from_secs(30);
/// At most so many notes of a project's releases are told: an Engine may say more than anybody reads.
const NOTES_MAX: usize = 64;
/// How often an Engine that is away is tried meanwhile.
const ENGINE_EVERY: Duration = Duration::from_millis(250);

/// A start as a task of its own has it.
struct Start {
    engine: Docker,
    project: String,
    id: ReplicaId,
    spec: Arc<Spec>,
    instance: String,
    recreates: bool,
    watchers: Watchers,
}

impl Driver {
    /// Starts a replica's container.
    pub(in crate::agent::driver) fn start_container(&mut self, name: &str, id: ReplicaId) {
        let Some(project) = self.projects.get_mut(name) else { return };
        let Some(spec) = project.desired.spec_of(id.release, &id.service).map(Arc::clone) else { return };
        project.meta.insert(id.clone(), Meta::default());
        let Some(engine) = self.docker.engine.clone() else {
            let message = self.docker.trouble.clone();
            return self.start_failed(name, &id, StartError { message, permanent: false });
        };
        self.docker.starting.insert((name.to_owned(), id.clone()));
        let instance = self.identity.instance(name, &id);
        let recreates = self.projects.get(name).is_some_and(|p| p.desired.recreates(id.release, &id.service));
        let watchers = self.docker.watchers.clone();
        let start =
            Start { engine, project: name.to_owned(), id: id.clone(), spec, instance, recreates, watchers };
        let (inbox, project) = (self.inbox.clone(), name.to_owned());
        self.tasks.spawn(async move {
            let result = start.run().await;
            inbox.send(DockerInput::Started { project, id, result }.into()).await.ok();
        });
    }

    /// The Engine has started a container, or couldn't.
    pub(super) fn container_started(
        &mut self,
        name: &str,
        id: &ReplicaId,
        result: Result<Running, StartProblem>,
    ) {
        let whose = (name.to_owned(), id.clone());
        self.docker.starting.remove(&whose);
        let (found, notes) = match result {
            Ok(running) => (running.found, running.notes),
            Err(problem) => {
                let mut died_early = std::mem::take(&mut self.docker.died_early);
                died_early.retain(|container, _| {
                    let of = self.docker.containers.get(container);
                    of.is_none_or(|(name, id)| !self.is_of_start(&whose, name, id))
                });
                self.docker.died_early = died_early;
                let error = StartError { message: problem.message, permanent: problem.permanent };
                return self.start_failed(name, id, error);
            }
        };
        let now = self.clock.now();
        self.docker.containers.insert(found.id.clone(), whose);
        let died_early = self.docker.died_early.remove(&found.id);
        let Some(project) = self.projects.get_mut(name) else {
            return self.remove_container(&found.id);
        };
        let is_wanted = project.observed.replica(id).map(|replica| replica.phase);
        if is_wanted.is_none() {
            // It ended, or was given up, before its start was told.
            return self.stop_container_now(&found.id);
        }
        let meta = project.meta.entry(id.clone()).or_default();
        meta.container = Some(found.id.clone());
        meta.pid = found.pid;
        meta.started_ms = found.started_at_ms.unwrap_or_default();
        project.apply(Event::Started { id: id.clone(), at: now, origin: Origin::Ours }, now);
        let addr = address(project, id, &found.addresses);
        project.apply(Event::Listening { id: id.clone(), addr }, now);
        self.follow_output(name, id, &found.id);
        self.tell_notes(name, id, notes);
        let short: String = found.id.chars().take(12).collect();
        self.tell(name, "replica.started", Some(id), format!("{} started (container {short})", id.name()));
        if matches!(is_wanted, Some(ReplicaPhase::Stopping { .. })) {
            self.stop_container_now(&found.id);
        } else if matches!(found.state, State::Exited | State::Dead) {
            self.container_died(&found.id, found.exit_code, found.oom_killed);
        } else if let Some(status) = died_early {
            self.ended(&found.id, name, id, status);
        } else if found.state == State::Restarting {
            // Docker waits before it starts it again. That it was seen to run is told when it does.
            if let Some(project) = self.projects.get_mut(name) {
                project.apply(Event::EndSeen(id.clone()), now);
            }
            self.look_later(&found.id);
        }
    }

    /// What the Engine can't keep of the file, or warns of: told once for each release.
    fn tell_notes(&mut self, name: &str, id: &ReplicaId, notes: Vec<String>) {
        for note in notes {
            let of_service = format!("`{}`", id.service);
            let text = if note.contains(&of_service) { note } else { format!("{of_service}: {note}") };
            let Some(project) = self.projects.get_mut(name) else { return };
            let releases = &project.desired.releases;
            project.noted.retain(|(release, _)| release.0 == 0 || releases.contains_key(release));
            if project.noted.len() < NOTES_MAX && project.noted.insert((id.release, text.clone())) {
                self.tell(name, "replica.note", Some(id), text.clone());
                self.progress(name, ProgressKind::Line, text);
            }
        }
    }

    /// Asks a replica's container to stop: its own stop signal, then, after its grace, SIGKILL.
    pub(in crate::agent::driver) fn stop_container(&mut self, name: &str, id: &ReplicaId, kill: bool) {
        let now = self.clock.now();
        let Some(project) = self.projects.get_mut(name) else { return };
        let service = project.desired.service(id.release, &id.service);
        let grace = service.map_or(Duration::from_secs(10), |service| service.stop_grace);
        let is_set_aside = project.desired.is_recreated(&id.service);
        let hooks = service.and_then(|s| s.container.as_ref()).map(|one| one.pre_stop.clone());
        let container = container_of(project, id).map(str::to_owned);
        project.apply(Event::StopSent { id: id.clone(), kill }, now);
        let (Some(container), Some(engine)) = (container, self.docker.engine.clone()) else {
            return; // it isn't there yet: its start finds that it is to stop
        };
        self.docker.asked.insert(container.clone());
        let (inbox, project) = (self.inbox.clone(), name.to_owned());
        self.tasks.spawn(async move {
            // An Engine that restarts would start it again beside the one that takes its place.
            if is_set_aside && let Err(error) = engine.set_restart(&container, None).await {
                tracing::warn!(container, %error, "Docker may start a container again that is set aside");
            }
            let done = if kill {
                engine.kill(&container).await
            } else {
                engine.stop(&container, grace, &hooks.unwrap_or_default()).await
            };
            if let Err(error) = done {
                let text = format!("a container can't be stopped: {error}; it is tried again");
                inbox.send(DockerInput::NotStopped { project, container, text }.into()).await.ok();
            }
        });
    }

    /// Ends a replica's container without any grace; it is a death, and its place is filled again.
    pub(super) fn end_container(&mut self, name: &str, container: &str) {
        let Some(engine) = self.docker.engine.clone() else { return };
        self.docker.asked.insert(container.to_owned());
        let (inbox, project, container) = (self.inbox.clone(), name.to_owned(), container.to_owned());
        self.tasks.spawn(async move {
            if let Err(error) = engine.kill(&container).await {
                let text = format!("a container can't be stopped: {error}; it is tried again");
                inbox.send(DockerInput::NotStopped { project, container, text }.into()).await.ok();
            }
        });
    }

    /// Ends a container that is no replica's any more.
    fn stop_container_now(&mut self, container: &str) {
        let Some(engine) = self.docker.engine.clone() else { return };
        self.docker.asked.insert(container.to_owned());
        let (inbox, container) = (self.inbox.clone(), container.to_owned());
        self.tasks.spawn(async move {
            if let Err(error) = engine.kill(&container).await {
                let text = format!("a container that isn't wanted can't be stopped: {error}");
                inbox.send(Input::Warning { project: String::new(), text }).await.ok();
            }
            inbox.send(DockerInput::Leftover(container).into()).await.ok();
        });
    }
}

impl Start {
    /// Starts the container; waits for an Engine that is away.
    async fn run(self) -> Result<Running, StartProblem> {
        let service = self
            .spec
            .services
            .get(&self.id.service)
            .ok_or_else(|| StartProblem::permanent("its service is not in the release"))?;
        let names = service.container.as_ref().is_none_or(|container| container.anchor.is_empty());
        let start = StartReplica {
            project: &self.project,
            id: &self.id,
            service,
            spec: &self.spec,
            instance: &self.instance,
            env: &BTreeMap::new(),
            names,
            recreates: self.recreates,
            watchers: Some(&self.watchers),
        };
        let deadline = tokio::time::Instant::now() + ENGINE_WAIT;
        loop {
            let problem = match self.engine.start(&start).await {
                Ok(running) => {
                    let running = self.started(running, service).await?;
                    self.watchers.started(&self.project, &self.id.service, &running.found.id);
                    return Ok(running);
                }
                Err(problem) => problem,
            };
            if problem.network_missing {
                // Somebody removed it since the deploy: it is made again as it was.
                if let Err(errors) = self.engine.ensure_networks(&self.spec).await {
                    let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
                    return Err(StartProblem::passing(errors.join("; ")));
                }
                let running = self.engine.start(&start).await?;
                self.watchers.started(&self.project, &self.id.service, &running.found.id);
                return Ok(running);
            }
            if !problem.engine_gone || tokio::time::Instant::now() >= deadline {
                return Err(problem);
            }
            tokio::time::sleep(ENGINE_EVERY).await;
        }
    }

    /// A backing service that was there and didn't run is started as it is, with its data.
    async fn started(&self, running: Running, service: &Service) -> Result<Running, StartProblem> {
        if running.made || running.found.is_up() || service.role != Role::Shared {
            return Ok(running);
        }
        // What changed while it was down isn't in it.
        let late = self.watchers.before_start(&self.project, &self.id.service, &running.found.id).await;
        self.engine.start_existing(&running.found.id).await?;
        let found = self.engine.inspect(&running.found.id).await?;
        let notes = running.notes.into_iter().chain(late).collect();
        Ok(Running { found: found.unwrap_or(running.found), made: running.made, notes })
    }
}

/// Where a replica is reached from this host: its address in one of its networks, and its first port.
pub(super) fn address(
    project: &Project,
    id: &ReplicaId,
    addresses: &BTreeMap<String, IpAddr>,
) -> Option<SocketAddr> {
    let service = project.desired.service(id.release, &id.service)?;
    let container = service.container.as_ref()?;
    let ip = match &container.network_mode {
        Some(NetworkMode::Host) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        Some(NetworkMode::Service(other)) => {
            let host = |other: &ReplicaId| {
                other.release == id.release || project.desired.is_shared(other.release, &other.service)
            };
            let mut replicas = project.observed.replicas().filter(|(id, _)| id.service == *other && host(id));
            replicas.find_map(|(_, replica)| replica.addr)?.ip()
        }
        _ => *addresses.iter().min_by_key(|(network, _)| !is_bridge(project, id, network))?.1,
    };
    Some(SocketAddr::new(ip, first_port(service)))
}

/// Whether this host reaches a network's containers: those of macvlan, ipvlan and overlay networks it may not.
fn is_bridge(project: &Project, id: &ReplicaId, network: &str) -> bool {
    let spec = project.desired.spec_of(id.release, &id.service);
    let known = spec.and_then(|spec| spec.networks.values().find(|known| known.name == network));
    // Of an external one the file says nothing; it comes after those that are known.
    known.is_none_or(|known| {
        !known.external
            && known.driver.as_deref().is_none_or(|driver| driver.is_empty() || driver == "bridge")
    })
}

/// The port that checks without one of their own, and routes, mean; 0 where no port is known.
fn first_port(service: &Service) -> u16 {
    let container = service.container.as_ref();
    let published = service.ports.first().map(|port| port.target);
    let anchored = container.and_then(|container| container.anchor.first().copied());
    let mut exposed = container.into_iter().flat_map(|container| &container.expose);
    let exposed = exposed.find(|port| port.protocol == "tcp").map(|port| port.port);
    published.or(anchored).or(exposed).unwrap_or(0)
}
