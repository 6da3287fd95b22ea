//! Leaving nothing behind: images of releases that nobody goes back to, and what a project that is down leaves.
//!
//! Owns: when images are removed, and that a removal and a deploy's preparation don't meet; which ones go is
//! [`bulsa_core::image::inventory`]'s to say. Never: forces the Engine; what is in use stays, every volume, and
//! everything that isn't ours.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    sync::Arc,
    time::Duration,
};

use bulsa_core::{
    image::{self, Inventory},
    spec::Spec,
    time::Timestamp,
};
use tokio::sync::{OwnedRwLockReadGuard, RwLock};

use super::{DockerInput, Driver};
use crate::agent::{
    anchor,
    docker::{Docker, DockerError, Found, label},
    images::{self, Candidate, Fate},
    store::Change,
};

/// An image that was still in use is tried again after this long.
const PRUNE_AGAIN: Duration = Duration::from_secs(60);

/// What a project leaves is removed at most so often: removals that are under way already take a moment.
const REMOVALS_TRIED: u32 = 100;
/// How long from one of these to the next.
const REMOVAL_EVERY: Duration = Duration::from_millis(50);

/// So long, with [`REMOVAL_EVERY`] in between, the Engine may say that a network is in use.
const NETWORKS_TRIED: u32 = 40;
/// What the Engine refuses to remove is tried so often, at each housekeeping.
const TEAR_DOWN_TRIES: u32 = 3;

/// The key under which a project's images are kept that were dealt with.
const DEALT_WITH: &str = "images.dealt_with";

/// What is known of the images of old releases.
#[derive(Default)]
pub(super) struct Pruning {
    /// Those that nobody needs any more, and that weren't dealt with yet. They stay in it when their release is
    /// forgotten.
    waiting: BTreeMap<String, Candidate>,
    /// When which were tried last.
    tried: Option<(BTreeSet<String>, Timestamp)>,
    /// The images that each project's last preparation pinned, and those of rollbacks since: no release that keeps them
    /// may be there yet.
    pinned: BTreeMap<String, BTreeSet<String>>,
    /// Held for reading by a preparation, for writing while images are removed.
    lock: Arc<RwLock<()>>,
}

/// Images aren't removed while somebody has it.
pub(super) type ImagesStay = OwnedRwLockReadGuard<()>;

/// Which images of a project's old releases were dealt with, by its stored values.
pub(in crate::agent::driver) fn dealt_with(values: &[(String, String)]) -> BTreeSet<String> {
    let images = values.iter().filter(|(key, _)| key == DEALT_WITH).flat_map(|(_, value)| value.split(' '));
    images.map(str::to_owned).collect()
}

impl Pruning {
    /// Waits until no image is being removed.
    pub(super) fn hold_off(&self) -> impl Future<Output = ImagesStay> + use<> {
        Arc::clone(&self.lock).read_owned()
    }

    /// A preparation found these images: they stay.
    pub(super) fn pin(&mut self, spec: &Spec) {
        self.pinned.remove(&spec.project);
        self.pin_too(spec);
    }

    /// A release is to be gone back to: its images stay, too, until the project's next preparation.
    pub(super) fn pin_too(&mut self, spec: &Spec) {
        let containers = spec.services.values().filter_map(|service| service.container.as_ref());
        let images = containers.filter_map(|container| container.image_id.clone());
        self.pinned.entry(spec.project.clone()).or_default().extend(images);
    }

    fn forget(&mut self, project: &str) {
        self.pinned.remove(project);
        self.waiting.retain(|_, candidate| !candidate.image.projects.contains(project));
    }
}

impl Driver {
    /// Removes the images of releases that are gone for good, each once: what is there again later is somebody's wish.
    pub(in crate::agent::driver) fn prune_images(&mut self) {
        let projects = self.projects.values().map(|project| (project.name.as_str(), &project.desired));
        let mut inventory = image::inventory(projects);
        inventory.keep.extend(self.docker.pruning.pinned.values().flatten().cloned());
        self.forget_dealt_with(&inventory);
        let is_down = |name: &String| self.projects.get(name).is_none_or(|project| project.desired.down);
        let now = self.clock.now();
        let dealt_with =
            |image: &String| self.projects.values().any(|project| project.dealt_with.contains(image));
        let waiting = &mut self.docker.pruning.waiting;
        for (id, image) in inventory.surplus {
            if !dealt_with(&id) {
                waiting.entry(id).or_insert(Candidate { image, since_ms: now.0 });
            }
        }
        waiting.retain(|id, candidate| {
            !inventory.keep.contains(id) && !candidate.image.projects.iter().any(is_down)
        });
        let ids: BTreeSet<String> = waiting.keys().cloned().collect();
        let Ok(engine) = self.engine() else { return };
        let pruning = &mut self.docker.pruning;
        let is_done = |(of, at): &(BTreeSet<String>, _)| *of == ids && now.since(*at) < PRUNE_AGAIN;
        if ids.is_empty() || pruning.tried.as_ref().is_some_and(is_done) {
            return;
        }
        // A deploy that gets its images may want one of them. It waits for this, or this is done later.
        let Ok(alone) = Arc::clone(&pruning.lock).try_write_owned() else { return };
        pruning.tried = Some((ids, now));
        let (inbox, waiting) = (self.inbox.clone(), pruning.waiting.clone());
        self.tasks.spawn(async move {
            let fates = images::prune(engine.client(), &inventory.keep, &waiting).await;
            drop(alone);
            inbox.send(DockerInput::Pruned(fates).into()).await.ok();
        });
    }

    /// What became of the images that were to go.
    pub(super) fn pruned(&mut self, fates: BTreeMap<String, Fate>) {
        let mut changed = BTreeSet::new();
        for (id, fate) in fates {
            if fate == Fate::Later {
                continue;
            }
            if fate == Fate::Gone {
                tracing::info!(image = id, "removed the image of a release that is gone");
            }
            let Some(candidate) = self.docker.pruning.waiting.remove(&id) else { continue };
            for name in candidate.image.projects {
                if let Some(project) = self.projects.get_mut(&name) {
                    project.dealt_with.insert(id.clone());
                    changed.insert(name);
                }
            }
        }
        self.keep_dealt_with(changed);
    }

    /// An image that is needed again, or of which no release tells any more, is dealt with anew.
    fn forget_dealt_with(&mut self, inventory: &Inventory) {
        let mut changed = BTreeSet::new();
        for project in self.projects.values_mut() {
            let before = project.dealt_with.len();
            project.dealt_with.retain(|image| inventory.surplus.contains_key(image));
            if project.dealt_with.len() != before {
                changed.insert(project.name.clone());
            }
        }
        self.keep_dealt_with(changed);
    }

    fn keep_dealt_with(&mut self, names: BTreeSet<String>) {
        let values = names.into_iter().filter_map(|name| {
            let images: Vec<&str> = self.projects.get(&name)?.dealt_with.iter().map(String::as_str).collect();
            let value = (!images.is_empty()).then(|| images.join(" "));
            Some(Change::SetValue { project: name, key: DEALT_WITH.to_owned(), value })
        });
        let (changes, store) = (values.collect::<Vec<_>>(), self.store.clone());
        if changes.is_empty() {
            return;
        }
        self.tasks.spawn(async move {
            if let Err(error) = store.commit_all(changes).await {
                let text = "images of old releases may be removed a second time after a restart";
                tracing::warn!(%error, "{text}: which ones were removed can't be stored");
            }
        });
    }

    /// Removes what a project that is down leaves at the Engine: containers, anchors, networks. Told when that is done,
    /// or can't be done now. Volumes stay: they are the users' data.
    pub(in crate::agent::driver) fn tear_down(&mut self, name: &str) {
        let engine = self.engine();
        let (inbox, owner, project) = (self.inbox.clone(), self.identity.owner.clone(), name.to_owned());
        self.removals.spawn(async move {
            let left = match engine {
                Ok(engine) => remove_all(&engine, &owner, &project).await,
                Err(error) => Left { problems: vec![error], again: Again::OnceItAnswers },
            };
            inbox.send(DockerInput::TornDown(project, left).into()).await.ok();
        });
    }

    /// What could not be removed is tried again.
    pub(in crate::agent::driver) fn tear_down_again(&mut self) {
        let waiting = self.docker.left_behind.iter_mut().filter(|(_, tries)| tries.waits);
        let names: Vec<String> = waiting
            .map(|(name, tries)| {
                tries.waits = false;
                name.clone()
            })
            .collect();
        for name in names {
            self.tear_down(&name);
        }
    }

    /// Nothing of a project is left at the Engine, or nothing that another try could remove.
    pub(super) fn torn_down(&mut self, name: &str, left: Left) {
        let tries = self.docker.left_behind.remove(name).unwrap_or_default();
        let count = tries.count + u32::from(left.again == Again::Soon);
        if left.again == Again::OnceItAnswers || left.again == Again::Soon && count < TEAR_DOWN_TRIES {
            self.docker.left_behind.insert(name.to_owned(), Tries { count, waits: true, told: true });
            if !tries.told {
                let text = format!(
                    "`{name}` has stopped, and not all that it had is removed yet, which is tried again: {}",
                    left.problems.join("; ")
                );
                self.warn(name, "warning", text);
            }
            return;
        }
        for problem in left.problems {
            let text = format!("`{name}` is down, and left something behind: {problem}");
            self.warn(name, "warning", text);
        }
        self.docker.containers.retain(|_, (project, _)| project != name);
        self.docker.rooms.remove(name);
        self.docker.compose_made.remove(name);
        self.docker.made.forget(name);
        self.docker.pruning.forget(name);
        if let Some(project) = self.projects.get_mut(name) {
            project.torn_down = true;
        }
    }
}

/// What could not be removed of a project that is down.
pub(in crate::agent) struct Left {
    problems: Vec<String>,
    again: Again,
}

/// Whether another try makes sense.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Again {
    /// Everything is gone, or in somebody else's use.
    No,
    /// So often, as [`TEAR_DOWN_TRIES`] says.
    Soon,
    /// The Engine is away: until it is back.
    OnceItAnswers,
}

/// How often a removal was tried.
#[derive(Clone, Copy, Default)]
pub(super) struct Tries {
    /// While the Engine answered.
    count: u32,
    /// Whether the next one is to be begun.
    waits: bool,
    /// Whether people know.
    told: bool,
}

impl Left {
    fn add(&mut self, error: &DockerError) {
        let again = if error.is_engine_gone() { Again::OnceItAnswers } else { Again::Soon };
        self.problems.push(error.to_string());
        self.again = self.again.max(again);
    }
}

/// Removes everything of ours that a project has; what could not be removed is told.
async fn remove_all(engine: &Docker, owner: &str, project: &str) -> Left {
    let mut problems = Left { problems: Vec::new(), again: Again::No };
    // A container whose removal is under way still holds its networks.
    for _ in 0..REMOVALS_TRIED {
        let left = match engine.list().await {
            Ok(found) => found.into_iter().filter(|found| found.ours && found.project == project),
            Err(error) => {
                problems.add(&error);
                return problems;
            }
        };
        let is_shared = |found: &Found| found.labels.get(label::ROLE).is_some_and(|role| role == "shared");
        let left: Vec<(String, bool)> = left.map(|found| (found.id.clone(), !is_shared(&found))).collect();
        if left.is_empty() {
            break;
        }
        for (container, volumes) in left {
            if let Err(error) = engine.remove(&container, volumes).await {
                problems.add(&error);
            }
        }
        if !problems.problems.is_empty() {
            break;
        }
        tokio::time::sleep(REMOVAL_EVERY).await;
    }
    if let Err(error) = anchor::remove(engine.client(), owner, project, &BTreeSet::new()).await {
        problems.problems.push(error.to_string());
        problems.again = problems.again.max(Again::Soon);
    }
    if let Err(error) = remove_networks(engine, project, &mut problems).await {
        problems.add(&error);
    }
    problems
}

/// Removes its networks. The Engine may have one in use for a moment after its last container has gone.
async fn remove_networks(engine: &Docker, project: &str, problems: &mut Left) -> Result<(), DockerError> {
    let mut left = Vec::new();
    for _ in 0..NETWORKS_TRIED {
        engine.remove_networks(project).await?;
        left = engine.networks_left(project).await?;
        if left.is_empty() {
            return Ok(());
        }
        tokio::time::sleep(REMOVAL_EVERY).await;
    }
    for (network, users) in left {
        if users.is_empty() {
            problems.problems.push(format!("the Engine does not remove network {network}"));
            problems.again = problems.again.max(Again::Soon);
        } else {
            problems.problems.push(format!(
                "network {network} is used by {}: remove that first, then the network with `docker network rm \
                 {network}`",
                users.join(", ")
            ));
        }
    }
    Ok(())
}
