//! The process engine's hands: starts, signals and looks after the replicas that decide asked for.
//!
//! Owns: the way from an action to the keeper, and finding out where a replica listens. Never: decides which replica
//! is started or stopped.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::fd::AsFd,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bulsa_core::{
    decide::{Action, Event, KillCause, ReplicaPhase, StartError},
    ids::ReplicaId,
    spec::{AppPort, Role, Service},
    time::Timestamp,
    wire::api::ProgressKind,
};
use rustix::process::Signal;

use super::{
    Driver, Input,
    project::{Meta, Note, Project, account_of},
};
use crate::{
    agent::{
        probe::ExecContext,
        process::{
            StartProblem, Subject,
            environment::{self, Surroundings},
            listener::{self, Expected, Listening},
            netns::{self, Namespace},
            resolve::{self, Wanted},
            user::{self, Account},
        },
    },
    link::messages::SpawnSpec,
};

/// While a gate is young its listener is looked for this often; then less and less.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// The longest from one look for a listener to the next.
const LOOK_EVERY_MAX: Duration = Duration::from_millis(250);
/// A replica that listens elsewhere may still come to its own port; after this long those who wait are told.
const OTHER_PORT_TOLD: Duration = Duration::from_secs(2);

/// Checks that a service could be started here: its user, directory and program.
pub(super) fn preflight(service: &Service) -> Result<(Option<Account>, PathBuf), StartProblem> {
    let subject = Subject { service: &service.name, position: &service.position };
    let account = user::resolve(subject, service.user.as_deref())?;
    let base = environment::base(std::env::vars_os(), account.as_ref());
    let path = service.env.get("PATH").or_else(|| base.get("PATH")).map_or("", String::as_str);
    let wanted = Wanted {
        program: service.argv.first().map_or("", String::as_str),
        working_dir: Path::new(&service.working_dir),
        path,
        account: account.as_ref(),
    };
    let program = resolve::resolve(subject, &wanted)?;
    Ok((account, program))
}

impl Driver {
    /// Performs one action of one project.
    pub(super) async fn act(&mut self, name: &str, action: Action) {
        match action {
            Action::Start { id, cause } => {
                self.tell_renewal(name, &id, cause);
                self.start(name, id).await;
            }
            Action::Stop { id } => self.stop(name, &id).await,
            Action::Kill { id, cause } => self.kill(name, &id, cause).await,
            Action::KillProxy { generation } => self.kill_silent_proxy(name, generation.0).await,
        }
    }

    /// A proxy generation that answers no more is killed, and its successor serves on the same sockets.
    pub(super) async fn kill_silent_proxy(&mut self, name: &str, generation: u64) {
        self.warn(name, "proxy.silent", format!("proxy g{generation} fell silent and is replaced"));
        if let Err(error) = self.keeper.kill_proxy(generation).await {
            self.lose_keeper(&error);
        }
        self.proxy_down(generation);
    }

    async fn start(&mut self, name: &str, id: ReplicaId) {
        let now = self.clock.now();
        let Some(project) = self.projects.get_mut(name) else { return };
        let Some(service) = project.desired.service(id.release, &id.service).cloned() else { return };
        project.apply(Event::StartSent(id.clone()), now);
        let is_container = service.container.is_some();
        // A job that is tried again: its earlier ends need no more be told to a successor.
        self.acknowledge_job(name, &id.service);
        if is_container {
            return self.start_container(name, id);
        }
        let Some(project) = self.projects.get_mut(name) else { return };
        project.meta.insert(id.clone(), Meta::default());
        if let AppPort::Isolated(_) = service.app_port {
            return self.start_namespace(name, id);
        }
        if let Err(error) = self.spawn(name, &id, &service, None).await {
            self.start_failed(name, &id, error);
        }
    }

    /// Making a network namespace takes a while: it is done aside, and the start goes on in [`Driver::namespace_made`].
    fn start_namespace(&mut self, name: &str, id: ReplicaId) {
        let (inbox, name) = (self.inbox.clone(), name.to_owned());
        let owner = self.identity.owner.clone();
        self.tasks.spawn(async move {
            let made = netns::create(&owner, &id).await.map_err(|error| error.to_string());
            // A driver that is gone has no use for it; its successor removes leftovers.
            inbox.send(Input::Namespace { project: name, id, made }).await.ok();
        });
    }

    /// The network namespace of a replica is there, or can't be made.
    pub(super) async fn namespace_made(
        &mut self,
        name: &str,
        id: &ReplicaId,
        made: Result<Namespace, String>,
    ) {
        let service =
            self.projects.get(name).and_then(|p| p.desired.service(id.release, &id.service)).cloned();
        let Some(service) = service else { return };
        let outcome = match made {
            Ok(namespace) => self.spawn(name, id, &service, Some(namespace)).await,
            Err(message) => Err(StartError { message, permanent: true }),
        };
        if let Err(error) = outcome {
            self.start_failed(name, id, error);
        }
    }

    async fn spawn(
        &mut self,
        name: &str,
        id: &ReplicaId,
        service: &Service,
        namespace: Option<Namespace>,
    ) -> Result<(), StartError> {
        let permanent = |problem: StartProblem| StartError { message: problem.to_string(), permanent: true };
        let passing = |message: String| StartError { message, permanent: false };
        let (account, program) = preflight(service).map_err(permanent)?;
        let now = self.clock.now();
        let heartbeat = service.heartbeat.and_then(|period| self.heartbeat_of(period));
        let mut note = self.ports_of(service, namespace.as_ref()).map_err(passing)?;
        let copies = self.projects.get(name).map_or(1, |project| project.desired.replicas(service));
        // Two programs that ignore PORT can't share one: then each has to read it.
        note.fallback = note.fallback.filter(|_| copies == 1);
        let (log_path, log) = self.logs.open(name, id).map_err(|error| passing(error.to_string()))?;
        (note.started_ms, note.log) = (now.0, Some(log_path));
        let group = self.confine(name, id, service);
        note.cgroups = group.directories().map(Path::to_owned).collect();
        let Some(project) = self.projects.get_mut(name) else { return Ok(()) };
        let task = project.task(id);
        let spec = project.desired.releases.get(&id.release).or_else(|| Some(project.desired.live()?.1));
        let routes = spec.map(|release| self.routes.addresses(&release.spec)).unwrap_or_default();
        let host = namespace.as_ref().map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |ns| IpAddr::V4(ns.host));
        let around = Surroundings {
            replica: id,
            task: &task,
            instance: &self.identity.instance(name, id),
            port: note.port,
            routes: &routes,
            host,
            heartbeat,
        };
        let base = environment::base(std::env::vars_os(), account.as_ref());
        let env = environment::build(base, &service.env, &around);
        let (uid, gid, groups) = account_of(account.as_ref());
        let mut argv = service.argv.clone();
        if let Some(first) = argv.first_mut() {
            *first = program.to_string_lossy().into_owned();
        }
        let spawn = SpawnSpec {
            argv,
            env: env.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
            cwd: Some(service.working_dir.clone()),
            uid,
            gid,
            groups,
            cgroups: group.entrances().map(|path| path.to_string_lossy().into_owned()).collect(),
            note: serde_json::to_string(&note).map_err(|error| passing(error.to_string()))?,
        };
        let exec = exec_context(service, account, env, namespace.as_ref());
        project.meta.insert(id.clone(), Meta { note, exec: Some(Arc::new(exec)), ..Meta::default() });
        let netns = namespace.map(|ns| ns.open()).transpose().map_err(|error| passing(error.to_string()))?;
        let sent = self.keeper.spawn(&task, &spawn, log.as_fd(), netns.as_ref().map(AsFd::as_fd)).await;
        if let Err(error) = sent {
            self.lose_keeper(&error);
            return Err(passing(format!("the keeper is gone: {error}")));
        }
        Ok(())
    }

    /// Which port a new replica is told, and which one is accepted instead.
    fn ports_of(&mut self, service: &Service, namespace: Option<&Namespace>) -> Result<Note, String> {
        let target = service.ports.first().map(|port| port.target);
        let mut note = Note::default();
        match (service.app_port, namespace) {
            (AppPort::Isolated(port), Some(namespace)) => {
                note.port = Some(port);
                note.isolated = Some(IpAddr::V4(namespace.address));
                note.namespace = Some(namespace.name.clone());
            }
            (AppPort::Fixed(port) | AppPort::Isolated(port), _) => note.port = Some(port),
            // A shared service has no listener of ours before it: it listens where the file says.
            (AppPort::Env, _) if service.role == Role::Shared => note.port = target,
            (AppPort::Env, _) if service.ports.is_empty() => {}
            (AppPort::Env, _) => {
                let in_use = self
                    .projects
                    .values()
                    .flat_map(|project| project.meta.values().filter_map(|meta| meta.note.port))
                    .collect();
                note.port = Some(self.ports.allocate(&in_use).map_err(|error| error.to_string())?);
                note.fallback = target;
            }
        }
        Ok(note)
    }

    pub(super) fn start_failed(&mut self, name: &str, id: &ReplicaId, error: StartError) {
        let now = self.clock.now();
        let text = format!("{} could not be started: {}", id.name(), error.message);
        self.tell(name, "replica.start_failed", Some(id), text);
        let Some(project) = self.projects.get_mut(name) else { return };
        project.apply(Event::StartFailed { id: id.clone(), error }, now);
        self.forget(name, id);
    }

    /// The keeper could not start it.
    pub(super) fn spawn_failed(&mut self, name: &str, id: &ReplicaId, message: String) {
        self.start_failed(name, id, StartError { message, permanent: true });
    }

    /// A replica runs.
    pub(super) fn spawned(&mut self, name: &str, id: &ReplicaId, pid: i32) {
        let now = self.clock.now();
        let Some(project) = self.projects.get_mut(name) else { return };
        let meta = project.meta.entry(id.clone()).or_default();
        (meta.pid, meta.look_at) = (u32::try_from(pid).ok(), now);
        let origin = bulsa_core::decide::Origin::Ours;
        project.apply(Event::Started { id: id.clone(), at: now, origin }, now);
        self.tell(name, "replica.started", Some(id), format!("{} started (pid {pid})", id.name()));
    }

    async fn stop(&mut self, name: &str, id: &ReplicaId) {
        let service =
            self.projects.get(name).and_then(|project| project.desired.service(id.release, &id.service));
        // Docker keeps its backing services over our own end.
        if self.shutdown.is_some() && service.is_some_and(|s| s.role == Role::Shared && s.container.is_some())
        {
            return;
        }
        let signal =
            service.and_then(|service| Signal::from_named_raw(service.stop_signal)).unwrap_or(Signal::TERM);
        self.signal(name, id, signal).await;
        self.tell(name, "replica.stopping", Some(id), format!("{} is asked to stop", id.name()));
    }

    async fn kill(&mut self, name: &str, id: &ReplicaId, cause: KillCause) {
        self.signal(name, id, Signal::KILL).await;
        let probe = self
            .projects
            .get(name)
            .and_then(|project| project.meta.get(id))
            .map(|meta| meta.listening.clone().unwrap_or_else(|| meta.last_probe.clone()))
            .filter(|text| !text.is_empty())
            .map(|text| format!("; {text}"))
            .unwrap_or_default();
        let text = match cause {
            KillCause::Hung => format!("{} hangs and is killed{probe}", id.name()),
            KillCause::NotReady => format!("{} did not become ready in time and is killed{probe}", id.name()),
            KillCause::Grace => format!("{} did not stop within its grace and is killed", id.name()),
        };
        self.tell(name, "replica.killed", Some(id), text);
    }

    async fn signal(&mut self, name: &str, id: &ReplicaId, signal: Signal) {
        let now = self.clock.now();
        let Some(project) = self.projects.get_mut(name) else { return };
        let (task, kill) = (project.task(id), signal == Signal::KILL);
        if project.is_container(id) {
            return self.stop_container(name, id, kill);
        }
        project.apply(Event::StopSent { id: id.clone(), kill }, now);
        // The whole group: a shell in front of the program would not pass it on.
        if let Err(error) = self.keeper.signal(&task, signal, true).await {
            self.lose_keeper(&error);
        }
    }

    /// Looks where the replicas listen of which that isn't known. Returns when to look next.
    pub(super) fn look_for_listeners(&mut self) -> Option<Timestamp> {
        let now = self.clock.now();
        let mut next: Option<Timestamp> = None;
        for project in self.projects.values_mut() {
            let waiting: Vec<ReplicaId> = project
                .observed
                .replicas()
                .filter(|(_, r)| r.addr.is_none() && r.phase == ReplicaPhase::Running)
                .map(|(id, _)| id.clone())
                .collect();
            for id in waiting {
                let due = look(project, &id, now);
                next = [next, due].into_iter().flatten().min();
            }
        }
        next
    }

    /// Kills replicas that can't come to their own port, and tells of those that seem not to.
    pub(super) async fn judge_listeners(&mut self) {
        let now = self.clock.now();
        let (mut hopeless, mut late) = (Vec::new(), Vec::new());
        for project in self.projects.values_mut() {
            for (id, meta) in &mut project.meta {
                let Some(replica) = project.observed.replica(id) else { continue };
                let is_new = replica.phase == ReplicaPhase::Running && replica.addr.is_none();
                if !is_new || meta.other_ports.is_empty() {
                    continue;
                }
                if let Some(message) = meta.hopeless.take() {
                    hopeless.push((project.name.clone(), id.clone(), message));
                } else if !meta.told && now.since(replica.started) >= OTHER_PORT_TOLD {
                    meta.told = true;
                    let text = meta.listening.clone().unwrap_or_default();
                    late.push((project.name.clone(), format!("{}: {text}", id.name())));
                }
            }
        }
        for (name, id, message) in hopeless {
            self.signal(&name, &id, Signal::KILL).await;
            // Its slot isn't filled again while it dies.
            self.start_failed(&name, &id, StartError { message, permanent: true });
        }
        for (name, text) in late {
            self.progress(&name, ProgressKind::Line, text);
        }
    }

    /// Drops what is known of a replica that is gone, its control group and its namespace.
    pub(super) fn forget(&mut self, name: &str, id: &ReplicaId) {
        let Some(meta) = self.projects.get_mut(name).and_then(|project| project.meta.remove(id)) else {
            return;
        };
        self.remove_group(name, meta.note.cgroups);
        let Some(namespace) = meta.note.namespace else { return };
        let (inbox, project) = (self.inbox.clone(), name.to_owned());
        self.removals.spawn(async move {
            if let Err(error) = netns::remove(&namespace).await {
                let text = format!("a network namespace could not be removed: {error}");
                inbox.send(Input::Warning { project, text }).await.ok();
            }
        });
    }
}

/// Looks once where a replica listens; when to look again, if it isn't known yet.
pub(super) fn look(project: &mut Project, id: &ReplicaId, now: Timestamp) -> Option<Timestamp> {
    let task = project.task(id);
    let started = project.observed.replica(id)?.started;
    let shared = shared_target(project, id);
    let meta = project.meta.get_mut(id)?;
    let (pid, port) = (meta.pid?, meta.note.port?);
    if now < meta.look_at {
        return Some(meta.look_at);
    }
    // The first seconds count most; a program that takes a minute to listen is looked at less often.
    let age = now.since(started);
    meta.look_at = now + LOOK_EVERY.max(age / 50).min(LOOK_EVERY_MAX);
    let expected =
        Expected { pid, task: Some(&task), port, fallback: meta.note.fallback, isolated: meta.note.isolated };
    let again = Some(meta.look_at);
    meta.other_ports.clear();
    let (found, problem) = match listener::check(&expected) {
        Ok(Listening::At(addr)) => (Some(addr), None),
        Ok(Listening::NotYet) => (None, Some(format!("nothing listens on its port {port} yet"))),
        Ok(Listening::Stranger { pid, name, .. }) => (None, Some(stranger(port, pid, name.as_deref()))),
        Ok(Listening::OtherPort { ports }) => {
            let problem = other_port(port, &ports);
            if shared.is_some_and(|shared| ports.contains(&shared)) {
                meta.hopeless = Some(problem.clone());
            }
            meta.other_ports = ports;
            (None, Some(problem))
        }
        Ok(Listening::Unreachable(addr)) => (None, Some(unreachable(addr))),
        Err(error) => (None, Some(format!("the kernel's socket tables can't be read: {error}"))),
    };
    meta.listening = problem;
    if let Some(addr) = found {
        project.apply(Event::Listening { id: id.clone(), addr: Some(addr) }, now);
        return None;
    }
    again
}

/// The target half of `ports` if several replicas would have to share it: one that listens there ignores PORT for
/// good, and the others can't listen at all.
fn shared_target(project: &Project, id: &ReplicaId) -> Option<u16> {
    let service = project.desired.service(id.release, &id.service)?;
    let alone = service.role != Role::App || project.desired.replicas(service) <= 1;
    let target = service.ports.first()?.target;
    (service.app_port == AppPort::Env && !alone).then_some(target)
}

fn stranger(port: u16, pid: Option<u32>, name: Option<&str>) -> String {
    let who = match (name, pid) {
        (Some(name), Some(pid)) => format!("`{name}` (pid {pid})"),
        _ => "another program".to_owned(),
    };
    format!("its port {port} is taken by {who}; stop that program, or let the replica be started again")
}

fn other_port(port: u16, ports: &[u16]) -> String {
    let ports: Vec<String> = ports.iter().map(ToString::to_string).collect();
    let own = ports.first().map_or("N", String::as_str);
    format!(
        "it listens on {} and not on its PORT {port}: let the program listen on $PORT; or run one replica of it, with \
         `--app-port {own}`; or several as root with `--app-port {own}`, each in a network namespace of its own (in a \
         file: `x-bulsa: {{app_port: {{port: {own}, isolate: true}}}}`)",
        ports.join(", "),
    )
}

fn unreachable(addr: SocketAddr) -> String {
    format!(
        "it listens on {addr} inside its own network namespace, where nobody can reach it; let it listen on 0.0.0.0"
    )
}

fn exec_context(
    service: &Service,
    account: Option<Account>,
    environment: BTreeMap<String, String>,
    namespace: Option<&Namespace>,
) -> ExecContext {
    ExecContext {
        environment,
        working_dir: PathBuf::from(&service.working_dir),
        account,
        namespace: namespace.map(Namespace::path),
    }
}
