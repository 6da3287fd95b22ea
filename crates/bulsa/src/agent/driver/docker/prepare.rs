//! What a deploy needs before it can begin: images pulled and pinned, networks and volumes there.
//!
//! Owns: that step, aside from the driver's loop. It changes nothing that users see: what it makes is idle until a
//! release uses it. Never: begins a deployment; the request, with its images pinned, is asked again and takes the same
//! way as one without containers.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use bulsa_core::{
    image::{Reference, is_image_id},
    room::Room,
    spec::{
        Role, Spec,
        container::{Container, ImageFacts, PullPolicy},
        pin::pin,
    },
    wire::{
        api::{Answer, DeployKind, DeployRequest, Event as WireEvent, Outcome, Request},
        spec::SpecV1,
    },
};
use tokio::sync::{mpsc, oneshot};

use super::{
    DockerInput, Driver,
    clashes::{clashes, healers},
    room::measure,
    upkeep::ImagesStay,
};
use crate::agent::driver::{narrate::not_begun, requests::WAITING_MAX, view::is_serving};
use crate::agent::{
    anchor::netns,
    docker::{Docker, Found},
    images::{self, ImageProblem, Progress, Wanted},
};

/// A deploy waits so long for an Engine that went away.
const AWAY_MAX: Duration = Duration::from_secs(20);
/// At most this many lines of progress wait to be told.
const PROGRESS_MAX: usize = 64;

/// A deploy's needs are there, or can't be.
pub(in crate::agent) struct Prepared {
    request: DeployRequest,
    answer: oneshot::Sender<Answer>,
    room: Room,
    /// What the project has at the Engine; `None` where that could not be asked, which is an error in `result`.
    compose_made: Option<Vec<Found>>,
    result: Result<Ready, Vec<String>>,
    made: MadeForIt,
    /// Until its images are known to be needed.
    images_stay: ImagesStay,
}

/// A spec with all its images pinned.
struct Ready {
    spec: Spec,
    /// What whoever asked should know of it: why an image was taken from this host.
    notes: Vec<String>,
}

/// The names of what was made at the Engine for one deploy, which is of no use where that isn't begun.
#[derive(Default)]
struct MadeForIt {
    networks: Vec<String>,
    volumes: Vec<String>,
}

/// Whether a spec has containers whose image isn't pinned yet.
pub(in crate::agent::driver) fn needs_preparation(spec: &Spec) -> bool {
    let containers = spec.services.values().filter_map(|service| service.container.as_ref());
    containers.into_iter().any(|container| container.image_id.is_none())
}

impl Driver {
    /// Gets everything that a deploy needs; the request is asked again then.
    pub(in crate::agent::driver) fn prepare(
        &mut self,
        request: DeployRequest,
        spec: Spec,
        answer: oneshot::Sender<Answer>,
    ) {
        let engine = match self.engine() {
            Ok(engine) => engine,
            // Nobody has asked the Engine yet, or it is being restarted: that is a matter of moments.
            Err(_) if self.may_answer_soon() && self.docker.asking.len() < WAITING_MAX => {
                self.docker.asking.push((request, answer));
                return self.reach_engine();
            }
            Err(error) => {
                self.reach_engine();
                answer.send(Answer::Refused { errors: vec![error] }).ok();
                return;
            }
        };
        let is_busy = !request.plan && !self.docker.preparing.insert(spec.project.clone());
        self.adopt_projects();
        if is_busy {
            let reason = "another deploy gets its images".to_owned();
            answer.send(Answer::Denied { reason, who: None, since_ms: None }).ok();
            return;
        }
        let (out, mut progress) = mpsc::channel::<Progress>(PROGRESS_MAX);
        let (events, project, clock) = (self.events.clone(), spec.project.clone(), self.clock);
        let ids = self.store.clone();
        self.tasks.spawn(async move {
            while let Some(step) = progress.recv().await {
                let event = WireEvent {
                    id: ids.next_id(),
                    at_ms: clock.now().0,
                    project: project.clone(),
                    kind: "image.progress".to_owned(),
                    service: Some(step.service.clone()),
                    replica: None,
                    text: format!("{}: {}", step.service, step.text),
                    detail: None,
                };
                // Nobody need follow.
                events.send(event).ok();
            }
        });
        let (inbox, samples) = (self.inbox.clone(), self.samples(&spec));
        let (leaving, images_stay) = (self.making_room(&spec), self.docker.pruning.hold_off());
        self.tasks.spawn(async move {
            let images_stay = images_stay.await;
            let mut made = MadeForIt::default();
            let preparing = prepare(&engine, &request, spec, &out, &mut made);
            let (room, result) = tokio::join!(measure(&engine, samples, leaving), preparing);
            let (compose_made, result) = match (existing(&engine, &request.project).await, result) {
                (Ok(found), result) => (Some(found), result),
                (Err(error), Ok(_)) => (None, Err(vec![error])),
                (Err(_), Err(errors)) => (None, Err(errors)),
            };
            if result.is_err() {
                std::mem::take(&mut made).unmake(&engine, &request.project).await;
            }
            let prepared =
                Box::new(Prepared { request, answer, room, compose_made, result, made, images_stay });
            inbox.send(DockerInput::Prepared(prepared).into()).await.ok();
        });
    }

    /// Whether the Engine was not asked yet, or went away just now.
    fn may_answer_soon(&self) -> bool {
        let now = self.clock.now();
        let is_fresh = self.docker.lost_at.is_some_and(|at| now.since(at) < AWAY_MAX);
        self.docker.trouble.is_empty() || is_fresh && self.docker.engine.is_some()
    }

    /// Those who wait for an Engine that stays away are told so.
    pub(in crate::agent::driver) async fn give_up_on_engine(&mut self) {
        if !self.docker.asking.is_empty() && !self.docker.connecting && !self.may_answer_soon() {
            self.ask_prepared().await;
        }
    }

    /// The Engine answered, or didn't: those who waited for that are asked again.
    pub(super) async fn ask_prepared(&mut self) {
        for (request, answer) in std::mem::take(&mut self.docker.asking) {
            self.asked(Request::Deploy(Box::new(request)), answer).await;
        }
    }

    pub(super) async fn prepared(&mut self, prepared: Prepared) {
        let Prepared { mut request, answer, room, compose_made, result, made, images_stay } = prepared;
        let name = request.project.clone();
        if let Ok(ready) = &result
            && !request.plan
        {
            self.docker.pruning.pin(&ready.spec);
        }
        drop(images_stay);
        let compose_made = compose_made.map(|found| self.learn_made_of(&request.project, found));
        if let (false, true, Some(compose_made)) = (request.plan, result.is_ok(), compose_made) {
            self.docker.compose_made.insert(request.project.clone(), compose_made);
        }
        self.docker.rooms.insert(request.project.clone(), room);
        if !request.plan {
            self.docker.preparing.remove(&request.project);
        }
        match result {
            Ok(_) if answer.is_closed() => {
                let text = "whoever asked for the deploy is gone: it is not begun".to_owned();
                self.tell(&name, "deploy.abandoned", None, text);
            }
            Ok(Ready { spec, .. }) if request.plan => {
                request.spec = SpecV1::from(&spec);
                match self.read_spec(&request) {
                    Ok((spec, hash)) => self.show_plan(&spec, &hash, &request.services, answer),
                    Err(errors) => drop(answer.send(Answer::Refused { errors })),
                }
            }
            Ok(Ready { spec, notes }) => {
                request.spec = SpecV1::from(&spec);
                let answer = self.noting(notes, answer);
                self.asked(Request::Deploy(Box::new(request)), answer).await;
            }
            Err(errors) => {
                let project = self.projects.get(&request.project);
                let is_live = project.is_some_and(|project| project.desired.live.is_some());
                let serving = project.is_some_and(is_serving);
                let text = format!("the deploy could not begin: {}", errors.join("; "));
                let outcome = if is_live { Outcome::Failed } else { Outcome::Refused };
                // A plan that can't be made is only its reader's affair.
                let detail = (!request.plan).then(|| not_begun(DeployKind::Deploy, outcome, serving));
                self.tell_with(&request.project.clone(), "deploy.failed", None, text, detail);
                let failed = if is_live && !request.plan {
                    Answer::Failed { errors, serving }
                } else {
                    Answer::Refused { errors }
                };
                answer.send(failed).ok();
            }
        }
        // Refused in the end. A project that is there takes it away when it goes down.
        if !self.projects.contains_key(&name)
            && let Ok(engine) = self.engine()
        {
            self.tasks.spawn(async move { made.unmake(&engine, &name).await });
        }
    }

    /// A place for the answer to a request that was prepared; `answer` gets it with these notes.
    fn noting(&mut self, notes: Vec<String>, answer: oneshot::Sender<Answer>) -> oneshot::Sender<Answer> {
        if notes.is_empty() {
            return answer;
        }
        let (plain, answered) = oneshot::channel();
        self.tasks.spawn(async move {
            // An agent that goes down answers nobody; nor need anybody listen any more.
            if let Ok(plain) = answered.await {
                answer.send(with_notes(plain, notes)).ok();
            }
        });
        plain
    }
}

fn with_notes(mut answer: Answer, more: Vec<String>) -> Answer {
    if let Answer::Accepted { notes, .. } | Answer::AlreadySo { notes, .. } = &mut answer {
        notes.extend(more);
    }
    answer
}

async fn prepare(
    engine: &Docker,
    request: &DeployRequest,
    spec: Spec,
    progress: &mpsc::Sender<Progress>,
    made: &mut MadeForIt,
) -> Result<Ready, Vec<String>> {
    // Before a pull, and again after it: it may have taken what was there.
    let full = images::disk_problem(engine.client()).await;
    if let Some(full) = full.as_ref().filter(|_| !request.plan) {
        return Err(vec![full.clone()]);
    }
    let Images { facts, missing, mut notes } = resolve_all(engine, request, &spec, progress).await?;
    let mut spec = pin(spec, &facts);
    if let Err(why) = netns::may_enter().await {
        leave_plain_names(&mut spec, &why);
    }
    let clashes = clashes(engine, &spec).await.map_err(|error| vec![error.to_string()])?;
    let healers = healers(engine).await.map_err(|error| vec![error.to_string()])?;
    if request.plan {
        note_missing(&mut spec, &missing);
        note_once(&mut spec, full);
        healers.into_iter().for_each(|healer| note_once(&mut spec, Some(healer)));
        note_clashes(&mut spec, clashes);
        return Ok(Ready { spec, notes });
    }
    notes.extend(healers);
    let mut errors: Vec<String> = images::disk_problem(engine.client()).await.into_iter().collect();
    errors.extend(clashes.into_iter().map(|(name, text)| {
        let position = spec.services.get(&name).map_or("", |service| service.position.as_str());
        format!("{position}: `{name}`: {text}")
    }));
    if !errors.is_empty() {
        return Err(errors);
    }
    let (networks, no_networks) = engine.make_networks(&spec).await;
    let (volumes, no_volumes) = engine.make_volumes(&spec).await;
    *made = MadeForIt { networks, volumes };
    errors.extend(no_networks.into_iter().chain(no_volumes).map(|error| error.to_string()));
    if errors.is_empty() { Ok(Ready { spec, notes }) } else { Err(errors) }
}

impl MadeForIt {
    /// Removes it again; what somebody uses meanwhile stays.
    async fn unmake(self, engine: &Docker, project: &str) {
        if !self.networks.is_empty() {
            let is_new = |name: &str| self.networks.iter().any(|new| new == name);
            if let Err(error) = engine.remove_networks_if(project, is_new).await {
                tracing::warn!(project, %error, "networks of a deploy that was not begun are left over");
            }
        }
        for volume in self.volumes {
            if let Err(error) = engine.remove_new_volume(project, &volume).await {
                tracing::warn!(project, volume, %error, "a volume of a deploy that was not begun is left over");
            }
        }
    }
}

/// A plan says what would make the deploy be refused.
fn note_clashes(spec: &mut Spec, clashes: Vec<(String, String)>) {
    for (name, text) in clashes {
        let service = spec.services.get_mut(&name);
        if let Some(container) = service.and_then(|service| service.container.as_mut()) {
            container.notes.push(format!("a deploy would be refused: {text}"));
        }
    }
}

/// What a plan says of the whole host stands with its first container.
fn note_once(spec: &mut Spec, text: Option<String>) {
    let first = spec.services.values_mut().find_map(|service| service.container.as_mut());
    if let (Some(container), Some(text)) = (first, text) {
        container.notes.push(text);
    }
}

/// What a project has, what Compose made for it included: its backing services are taken as they are.
async fn existing(engine: &Docker, project: &str) -> Result<Vec<Found>, String> {
    let all = engine.list().await;
    let all = all.map_err(|error| format!("the containers that `{project}` has can't be listed: {error}"))?;
    Ok(all.into_iter().filter(|found| found.project == project).collect())
}

/// Without the right to listen in an anchor, names mean the replicas themselves, as with Compose.
fn leave_plain_names(spec: &mut Spec, why: &str) {
    let containers = spec.services.values_mut().filter_map(|service| service.container.as_mut());
    for container in containers.filter(|container| !container.anchor.is_empty()) {
        container.anchor.clear();
        container.notes.push(format!(
            "inside the project's networks its name means its replicas themselves: this daemon may not enter other \
             processes' network namespaces (that takes root): {why}"
        ));
    }
}

/// A plan says which images it knows nothing of.
fn note_missing(spec: &mut Spec, missing: &BTreeSet<String>) {
    let services = spec.services.values_mut().filter(|service| missing.contains(&service.name));
    for container in services.filter_map(|service| service.container.as_mut()) {
        let how = if container.build.is_some() { "builds" } else { "pulls" };
        let text = format!("its image {} is not on this host; a deploy {how} it first", container.image);
        container.notes.push(text);
    }
}

/// What is known of the images that a deploy needs.
#[derive(Default)]
struct Images {
    /// By service.
    facts: BTreeMap<String, ImageFacts>,
    /// The services whose image a plan doesn't find here.
    missing: BTreeSet<String>,
    /// Why images were taken from this host although they should have been pulled; services may share one.
    notes: Vec<String>,
}

/// The images of all services whose image isn't pinned; every problem at once.
async fn resolve_all(
    engine: &Docker,
    request: &DeployRequest,
    spec: &Spec,
    progress: &mpsc::Sender<Progress>,
) -> Result<Images, Vec<String>> {
    let wanted: Vec<Wanted<'_>> = spec
        .services
        .values()
        .filter_map(|service| {
            let container = service.container.as_deref().filter(|one| one.image_id.is_none())?;
            let registry = Reference::parse(&container.image).ok().map(|reference| reference.registry);
            Some(Wanted {
                service: &service.name,
                container,
                // One that is named is got as any other: its tag may have moved.
                role: if request.services.contains(&service.name) { Role::App } else { service.role },
                no_pull: request.no_pull || request.plan,
                credentials: registry.and_then(|registry| request.credentials.get(&registry).cloned()),
            })
        })
        .collect();
    let (mut found, mut notes, mut errors) = (Images::default(), BTreeSet::new(), Vec::new());
    // A plan pulls and builds nothing; it goes on without what a deploy would get.
    let may_lack = |name: &str| {
        let container = spec.services.get(name).and_then(|service| service.container.as_deref());
        request.plan && !request.no_pull && container.is_some_and(is_to_be_had)
    };
    for (name, resolved) in images::resolve_all(engine.client(), &wanted, progress).await {
        match resolved {
            Ok(resolved) => {
                notes.extend(resolved.note);
                found.facts.insert(name, resolved.facts);
            }
            Err(ImageProblem::Missing { .. }) if may_lack(&name) => drop(found.missing.insert(name)),
            Err(error) => {
                let position = spec.services.get(&name).map_or("", |service| service.position.as_str());
                errors.push(format!("{position}: `{name}`: {error}"));
            }
        }
    }
    found.notes = notes.into_iter().collect();
    if errors.is_empty() { Ok(found) } else { Err(errors) }
}

/// Whether a deploy may build or pull it.
fn is_to_be_had(container: &Container) -> bool {
    container.build.is_some() || container.pull_policy != PullPolicy::Never && !is_image_id(&container.image)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_go_with_what_is_begun_or_so_already() {
        let notes = vec!["the registry is away".to_owned()];
        let so = |notes| Answer::AlreadySo { text: "is so".to_owned(), notes };
        assert_eq!(with_notes(so(Vec::new()), notes.clone()), so(notes.clone()));
        let begun = |notes| Answer::Accepted { deploy: Some(2), text: "begun".to_owned(), notes };
        assert_eq!(with_notes(begun(Vec::new()), notes.clone()), begun(notes.clone()));
        let refused = Answer::Refused { errors: vec!["no".to_owned()] };
        assert_eq!(with_notes(refused.clone(), notes), refused);
    }
}
