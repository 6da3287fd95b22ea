//! What people ask: from a request of the API to changes, and the answer.
//!
//! Owns: the checks that need this machine (ports, programs), and the words of the answers. Never: lets a request in
//! that the core denies.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{SocketAddr, TcpListener},
    sync::Arc,
};

use bulsa_core::{
    decide::{Admission, Change, Denied, Request as CoreRequest, Wish, admit::admit},
    ids::{ReleaseId, ReplicaId},
    notify::memory::Settings,
    plan::{self, Drift, Plan},
    spec::Spec,
    wire::{
        api::{Answer, DeployRequest, Plan as PlanView, PlanStep, Request},
        spec::content_hash,
    },
};
use tokio::sync::oneshot;

use crate::agent::store::Change as StoreChange;

use super::{
    Driver, engine::preflight, held, persist::About, project::Project, routes::needed, shutdown::SHUTDOWN_MAX,
};

/// At most this many requests wait for a commit of their project.
pub(super) const WAITING_MAX: usize = 64;
/// At most this many projects.
const PROJECTS_MAX: usize = 256;

/// The name of a published port's sockets, where they listen, and they.
type Opened = (String, SocketAddr, Vec<TcpListener>);

impl Driver {
    /// Answers a request, or keeps it until the project's commit under way is done, or until it is clear what a person
    /// did to a container that is to be started again.
    pub(super) async fn asked(&mut self, request: Request, answer: oneshot::Sender<Answer>) {
        if self.keeper_lost && !matches!(&request, Request::Deploy(deploy) if deploy.plan) {
            let text = "the keeper is gone: nothing can be started or stopped until `bulsa serve` runs again";
            answer.send(Answer::Refused { errors: vec![text.to_owned()] }).ok();
            return;
        }
        let busy = request
            .project()
            .and_then(|name| self.projects.get(name))
            .is_some_and(|project| project.committing.is_some());
        let busy = busy || self.is_unclear(&request);
        if busy {
            return self.wait_or_deny(request, answer);
        }
        match request {
            Request::Deploy(deploy) => self.deploy(*deploy, answer).await,
            Request::Shutdown => {
                self.begin_shutdown(SHUTDOWN_MAX);
                answer
                    .send(Answer::Accepted {
                        deploy: None,
                        text: "stopping everything".to_owned(),
                        notes: Vec::new(),
                    })
                    .ok();
            }
            request @ Request::DrillPlan { .. } => self.plan_drills(request, answer),
            request @ Request::Drill { .. } => self.begin_drill(request, answer),
            Request::Rollback { project, release } => {
                if let Some(answer) = self.check_rollback(&project, release, answer) {
                    self.change(Request::Rollback { project, release }, answer);
                }
            }
            other => self.change(other, answer),
        }
    }

    /// A rollback whose release can be started.
    pub(super) fn roll_back(&mut self, project: String, release: ReleaseId, answer: oneshot::Sender<Answer>) {
        let is_busy = self.projects.get(&project).is_some_and(|project| project.committing.is_some());
        let request = Request::Rollback { project, release: Some(release.0) };
        if is_busy { self.wait_or_deny(request, answer) } else { self.change(request, answer) }
    }

    fn wait_or_deny(&mut self, request: Request, answer: oneshot::Sender<Answer>) {
        if self.waiting.len() < WAITING_MAX {
            self.waiting.push_back((request, answer));
            return;
        }
        let reason = "too many requests wait for this project".to_owned();
        answer.send(Answer::Denied { reason, who: None, since_ms: None }).ok();
    }

    /// Whether a request wants what somebody is just taking away: a moment later it is known for a person's wish, and
    /// then that it is to end.
    fn is_unclear(&self, request: &Request) -> bool {
        match request {
            Request::Start { project, service } | Request::Restart { project, service } => {
                self.is_meddled(project, Some(service))
            }
            Request::Deploy(deploy) => !deploy.plan && self.is_meddled(&deploy.project, None),
            _ => false,
        }
    }

    fn change(&mut self, request: Request, answer: oneshot::Sender<Answer>) {
        let Some((name, request)) = core_request(request) else { return };
        let Some(project) = self.projects.get(&name) else {
            let known: Vec<&str> = self.projects.keys().map(String::as_str).collect();
            let text = if known.is_empty() {
                format!("there is no project `{name}`: nothing runs; `bulsa up` starts one")
            } else {
                format!("there is no project `{name}`; known are {}", known.join(", "))
            };
            answer.send(Answer::Refused { errors: vec![text] }).ok();
            return;
        };
        let text = describe(&request);
        match admit(&project.desired, request, self.clock.now()) {
            Ok(Admission::Accepted { changes, deployment }) => {
                let notes = held::notes(&project.desired, &changes);
                let accepted = Answer::Accepted { deploy: deployment, text, notes };
                self.commit(&name, changes, About::default(), Some((answer, accepted)));
            }
            Ok(Admission::AlreadySo(text)) => {
                answer.send(Answer::AlreadySo { text, notes: Vec::new() }).ok();
            }
            Err(denied) => {
                answer.send(denial(&denied)).ok();
            }
        }
    }

    async fn deploy(&mut self, request: DeployRequest, answer: oneshot::Sender<Answer>) {
        let (spec, hash) = match self.read_spec(&request) {
            Ok(spec) => spec,
            Err(errors) => {
                answer.send(Answer::Refused { errors }).ok();
                return;
            }
        };
        if super::docker::needs_preparation(&spec) {
            // Nothing is pulled or made for a deploy that this host can't take; asked again, it is checked again.
            if let (false, Err(errors)) = (request.plan, self.check_host(&spec)) {
                answer.send(Answer::Refused { errors }).ok();
                return;
            }
            return self.prepare(request, Arc::unwrap_or_clone(spec), answer);
        }
        let name = request.project.clone();
        if request.plan {
            return self.show_plan(&spec, &hash, &request.services, answer);
        }
        if self.shutdown.is_some()
            || self.projects.len() >= PROJECTS_MAX && !self.projects.contains_key(&name)
        {
            let reason = "the daemon is stopping, or has too many projects".to_owned();
            answer.send(Answer::Denied { reason, who: None, since_ms: None }).ok();
            return;
        }
        let notify = self.told_anew(&spec, &request);
        let observed = self.new_observed();
        let project =
            self.projects.entry(name.clone()).or_insert_with(|| Project::new(name.clone(), observed));
        let restart = if request.up { unstop(project) } else { Vec::new() };
        let drift = self.drift(&spec, &request.services);
        self.remember_file(&spec, &request.services);
        let Some(project) = self.projects.get(&name) else { return };
        let core = CoreRequest::Deploy { spec: Arc::clone(&spec), hash, recreate: drift.recreate.clone() };
        let admission = admit(&project.desired, core, self.clock.now());
        match admission {
            Ok(Admission::Accepted { mut changes, deployment }) => {
                if let Err(errors) = self.preflight(&spec).await {
                    self.drop_if_new(&name);
                    answer.send(Answer::Refused { errors }).ok();
                    return;
                }
                changes.extend(restart);
                let release = deploy_release(&changes).unwrap_or_default();
                let sources = serde_json::to_string(&request.sources).unwrap_or_default();
                let about = About { sources, created_at_ms: self.clock.now().0, notify };
                let text = with_drift(format!("release {release} is on its way"), &drift);
                let accepted = Answer::Accepted { deploy: deployment, text, notes: Vec::new() };
                self.commit(&name, changes, about, Some((answer, accepted)));
            }
            Ok(Admission::AlreadySo(_)) if !restart.is_empty() => {
                let text = "nothing has changed; the stopped services start again".to_owned();
                let text = with_drift(text, &drift);
                let accepted = Answer::Accepted { deploy: None, text, notes: Vec::new() };
                let about = About { notify, ..About::default() };
                self.commit(&name, restart, about, Some((answer, accepted)));
            }
            Ok(Admission::AlreadySo(text)) => {
                self.forgive_sick(&name);
                self.already_so(&request, with_drift(text, &drift), (&drift, notify), answer);
            }
            Err(denied) => {
                answer.send(denial(&denied)).ok();
            }
        }
    }

    /// Says what deploying this would do. An image that isn't pinned isn't here.
    pub(super) fn show_plan(
        &self,
        spec: &Spec,
        hash: &str,
        named: &[String],
        answer: oneshot::Sender<Answer>,
    ) {
        let empty = bulsa_core::decide::Desired::default();
        let desired = self.projects.get(&spec.project).map_or(&empty, |project| &project.desired);
        let plan = plan::plan(desired, spec, hash, &self.drift(spec, named));
        answer.send(Answer::Plan(plan_view(&spec.project, &plan))).ok();
    }

    /// Nothing has to be done. Files that were touched and mean the same are no drift from here on.
    fn already_so(
        &mut self,
        request: &DeployRequest,
        text: String,
        (drift, notify): (&Drift, Option<Settings>),
        answer: oneshot::Sender<Answer>,
    ) {
        let desired = self.projects.get(&request.project).map(|project| &project.desired);
        let live = desired.and_then(|desired| desired.live);
        let mut notes: Vec<String> =
            desired.zip(live).and_then(|(desired, live)| held::still(desired, live)).into_iter().collect();
        let name = &request.project;
        let kept = notify.as_ref().and_then(|settings| super::persist::notify_change(name, settings).ok());
        if let Some(notify) = notify {
            notes.push("who is told of incidents and deploys is as the file says now".to_owned());
            self.tell_others(name, notify);
        }
        let sources = serde_json::to_string(&request.sources);
        // With names, the rest of the files may well mean something else; and what differs goes on to do so.
        let is_all = request.services.is_empty() && drift.differs.is_empty();
        let project = request.project.clone();
        let sources = match (live, sources, is_all) {
            (Some(live), Ok(sources), true) => {
                Some(StoreChange::SetSources { project, release: live.0, sources })
            }
            _ => None,
        };
        let changes: Vec<StoreChange> = sources.into_iter().chain(kept).collect();
        if changes.is_empty() {
            answer.send(Answer::AlreadySo { text, notes }).ok();
            return;
        }
        let store = self.store.clone();
        self.tasks.spawn(async move {
            if let Err(error) = store.commit_all(changes).await {
                tracing::warn!(%error, "what the files of a release say now can't be stored: they will show as changed");
            }
            answer.send(Answer::AlreadySo { text, notes }).ok();
        });
    }

    pub(super) fn read_spec(&self, request: &DeployRequest) -> Result<(Arc<Spec>, String), Vec<String>> {
        let spec = Spec::try_from(request.spec.clone()).map_err(|error| vec![error.to_string()])?;
        if spec.project != request.project {
            return Err(vec![format!("the spec is of `{}`, not of `{}`", spec.project, request.project)]);
        }
        let live = self.projects.get(&spec.project).and_then(|project| project.desired.live());
        let live = live.map(|(_, release)| release.spec.as_ref());
        let file: BTreeSet<String> = spec.services.keys().cloned().collect();
        let spec = plan::restrict(spec, &request.services, live).map_err(|unknown| {
            let told = |name: &String| {
                if file.contains(name) {
                    format!("`{name}` is needed by what is to be deployed, and doesn't run yet: name it, too")
                } else {
                    format!("there is no service `{name}` in the file")
                }
            };
            unknown.iter().map(told).collect::<Vec<_>>()
        })?;
        let hash = content_hash(&spec);
        let spec = plan::without_port_clashes(spec, &self.on_fixed_ports(&request.project));
        // Before it is prepared, what is known of the room is of an earlier deploy; and what is prepared is asked again.
        let room =
            self.docker.rooms.get(&request.project).filter(|_| !super::docker::needs_preparation(&spec));
        let spec = match room {
            Some(room) => {
                let desired = self.projects.get(&request.project).map(|project| &project.desired);
                bulsa_core::room::fit(spec, room, |service| {
                    desired.map_or(service.replicas, |desired| desired.replicas(service))
                })
            }
            None => spec,
        };
        Ok((Arc::new(spec), hash))
    }

    /// The services of a project whose running replicas ignore `PORT` and listen on the target half of `ports`.
    fn on_fixed_ports(&self, name: &str) -> BTreeSet<String> {
        let Some(project) = self.projects.get(name) else { return BTreeSet::new() };
        let ignores = |id: &ReplicaId| {
            let listens =
                project.observed.replica(id).and_then(|replica| replica.addr).map(|addr| addr.port());
            let note = project.meta.get(id).map(|meta| &meta.note);
            listens.is_some() && note.is_some_and(|note| note.port != listens && note.fallback == listens)
        };
        let replicas = project.observed.replicas().map(|(id, _)| id);
        replicas.filter(|id| ignores(id)).map(|id| id.service.clone()).collect()
    }

    /// Everything that can be found out before anything is started: programs, users, ports. What is wrong is told all
    /// at once, and nothing was done. Ports that are free are open from here on.
    pub(super) async fn preflight(&mut self, spec: &Spec) -> Result<(), Vec<String>> {
        for (name, addr, sockets) in self.check_host(spec)? {
            self.keep_sockets(name, addr, &sockets).await;
        }
        Ok(())
    }

    /// The same, without keeping anything: the sockets that aren't open yet are given.
    fn check_host(&self, spec: &Spec) -> Result<Vec<Opened>, Vec<String>> {
        let mut errors: Vec<String> = spec
            .services
            .values()
            .filter(|service| service.container.is_none())
            .filter_map(|service| preflight(service).err())
            .map(|e| e.to_string())
            .collect();
        errors.extend(self.route_clashes(spec));
        let missing: Vec<_> =
            needed(spec).into_iter().filter(|need| !self.routes.sockets.contains_key(&need.name)).collect();
        let mut opened: Vec<Opened> = Vec::new();
        for need in missing {
            match self.routes.open(&need) {
                Ok((addr, sockets)) => opened.push((need.name, addr, sockets)),
                Err(error) => errors.push(error),
            }
        }
        if errors.is_empty() { Ok(opened) } else { Err(errors) }
    }

    /// Routes that another project has already: two services may share a port when their routes differ.
    fn route_clashes(&self, spec: &Spec) -> Vec<String> {
        let mut taken: BTreeMap<super::routes::RouteKey, String> = BTreeMap::new();
        let others = self.projects.values().filter(|project| project.name != spec.project);
        for (_, release) in others.filter_map(|project| project.desired.live()) {
            for (key, service) in super::routes::keys(&release.spec) {
                taken.insert(key, format!("{}/{service}", release.spec.project));
            }
        }
        super::routes::keys(spec)
            .into_iter()
            .filter_map(|(key, service)| {
                let owner = taken.get(&key)?;
                let position = &spec.services.get(&service)?.position;
                Some(format!(
                    "{position}: `{service}` publishes {} with the same route as {owner}; use another port, or a \
                     `route` with another host or path",
                    key.0
                ))
            })
            .collect()
    }

    fn drop_if_new(&mut self, name: &str) {
        if self.projects.get(name).is_some_and(|project| project.desired.releases.is_empty()) {
            self.projects.remove(name);
        }
    }

    /// Whoever says `up` again wants what is down to be tried again now.
    fn forgive_sick(&mut self, name: &str) {
        let Some(project) = self.projects.get_mut(name) else { return };
        let Some((_, live)) = project.desired.live() else { return };
        let names: Vec<String> = live.spec.services.keys().cloned().collect();
        for service in names {
            project.observed.forgive(&service);
        }
    }
}

/// Takes back what humans stopped, and took away through the Engine.
fn unstop(project: &Project) -> Vec<Change> {
    let stopped = project.desired.wishes.iter().filter(|(_, wish)| wish.stopped);
    let withheld = project.desired.withheld.iter();
    withheld
        .map(|slot| Change::Reinstate { slot: slot.clone() })
        .chain(stopped.map(|(service, wish)| Change::Wish {
            service: service.clone(),
            wish: Wish { stopped: false, ..*wish },
        }))
        .collect()
}

/// An answer, and what differs and stays as it is.
fn with_drift(text: String, drift: &Drift) -> String {
    drift.left_alone().fold(text, |text, more| format!("{text}; {more}"))
}

fn deploy_release(changes: &[Change]) -> Option<ReleaseId> {
    changes.iter().find_map(|change| match change {
        Change::Begin { deployment, .. } => Some(deployment.candidate),
        _ => None,
    })
}

fn core_request(request: Request) -> Option<(String, CoreRequest)> {
    Some(match request {
        Request::Rollback { project, release } => {
            (project, CoreRequest::Rollback { to: release.map(ReleaseId) })
        }
        Request::Stop { project, service } => (project, CoreRequest::Stop { service }),
        Request::Start { project, service } => (project, CoreRequest::Start { service }),
        Request::Restart { project, service } => (project, CoreRequest::Restart { service }),
        Request::Scale { project, service, replicas: 0 } => (project, CoreRequest::Stop { service }),
        Request::Scale { project, service, replicas } => (project, CoreRequest::Scale { service, replicas }),
        Request::Hold { project, services, on } => {
            (project, CoreRequest::Hold { services: services.into_iter().collect(), on })
        }
        Request::Down { project } => (project, CoreRequest::Down),
        Request::Deploy(_) | Request::DrillPlan { .. } | Request::Drill { .. } | Request::Shutdown => {
            return None;
        }
    })
}

fn describe(request: &CoreRequest) -> String {
    match request {
        CoreRequest::Deploy { .. } => "deploying".to_owned(),
        CoreRequest::Rollback { to: Some(id) } => format!("the rollback to {id} is on its way"),
        CoreRequest::Rollback { to: None } => "the rollback is on its way".to_owned(),
        CoreRequest::Stop { service } => format!("stopping `{service}`"),
        CoreRequest::Start { service } => format!("starting `{service}`"),
        CoreRequest::Restart { service } => format!("restarting `{service}`, one replica after another"),
        CoreRequest::Scale { service, replicas } => format!("scaling `{service}` to {replicas}"),
        CoreRequest::Hold { services, on } => held::doing(services, *on),
        CoreRequest::Down => "stopping everything of the project".to_owned(),
    }
}

fn denial(denied: &Denied) -> Answer {
    match denied {
        Denied::DeploymentRuns { id, kind, since } => Answer::Denied {
            reason: denied.to_string(),
            who: Some(format!("{kind} {id}")),
            since_ms: Some(since.0),
        },
        Denied::GoingDown => Answer::Denied { reason: denied.to_string(), who: None, since_ms: None },
        Denied::NoService { .. }
        | Denied::NotRouted(_)
        | Denied::NothingRouted
        | Denied::NoLiveRelease
        | Denied::NoRollbackTarget(_)
        | Denied::Replicas { .. } => Answer::Refused { errors: vec![denied.to_string()] },
    }
}

fn plan_view(project: &str, plan: &Plan) -> PlanView {
    let step = |step: &plan::Step| PlanStep {
        action: step.action.to_owned(),
        service: step.service.clone(),
        text: step.text.clone(),
    };
    PlanView {
        project: project.to_owned(),
        release: plan.release.0,
        live: plan.live.map(|id| id.0),
        steps: plan.steps.iter().map(step).collect(),
        notes: plan.notes.clone(),
    }
}
