//! Leaving nothing behind: images of releases that nobody goes back to, and what a project that is down leaves.
//!
//! Owns: what is kept and what goes. Kept are the images of every release that runs or may be gone back to, every
//! volume, and everything that isn't ours. Never: forces the Engine; what is in use stays.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use bulsa_core::{
    decide::{Desired, ReleaseState},
    ids::ReleaseId,
};

use super::{DockerInput, Driver, Input};
use crate::agent::{
    anchor,
    docker::{Docker, Found, label},
    images,
};

/// An image that was still in use is tried again after this long.
const PRUNE_AGAIN: Duration = Duration::from_secs(60);

/// What a project leaves is removed at most so often: removals that are under way already take a moment.
const REMOVALS_TRIED: u32 = 100;
/// How long from one of these to the next.
const REMOVAL_EVERY: Duration = Duration::from_millis(50);

/// The images of some releases: their ids, and the names under which they were used.
fn images_of(
    desired: &Desired,
    releases: impl Iterator<Item = ReleaseId>,
) -> impl Iterator<Item = (String, String)> {
    let specs = releases.filter_map(|id| desired.releases.get(&id)).map(|release| release.spec.as_ref());
    let containers = specs.flat_map(|spec| spec.services.values()).filter_map(|s| s.container.as_ref());
    containers.filter_map(|container| Some((container.image_id.clone()?, container.image.clone())))
}

/// The releases whose images stay: those that run, and the one that a rollback goes to.
fn kept(desired: &Desired) -> BTreeSet<ReleaseId> {
    let is_running =
        |state| matches!(state, ReleaseState::Live | ReleaseState::Candidate | ReleaseState::Warm { .. });
    let mut kept: BTreeSet<ReleaseId> =
        desired.releases.iter().filter(|(_, release)| is_running(release.state)).map(|(id, _)| *id).collect();
    kept.extend(desired.running().iter().flat_map(|d| [Some(d.candidate), d.previous]).flatten());
    let live = desired.live;
    let was_live = |state| matches!(state, ReleaseState::Warm { .. } | ReleaseState::Retired);
    let before = desired.releases.iter().rev().find(|(id, r)| Some(**id) != live && was_live(r.state));
    kept.extend(before.map(|(id, _)| *id));
    kept
}

impl Driver {
    /// Removes the images of releases that are gone for good.
    pub(in crate::agent::driver) fn prune_images(&mut self) {
        let (mut keep, mut used) = (BTreeSet::new(), BTreeMap::<String, BTreeSet<String>>::new());
        for project in self.projects.values() {
            let desired = &project.desired;
            keep.extend(images_of(desired, kept(desired).into_iter()).map(|(id, _)| id));
            for (id, name) in images_of(desired, desired.releases.keys().copied()) {
                used.entry(id).or_default().insert(name);
            }
        }
        let surplus: BTreeSet<String> = used.keys().filter(|id| !keep.contains(*id)).cloned().collect();
        let Ok(engine) = self.engine() else { return };
        // What a deploy has just pulled isn't in any release yet.
        if surplus.is_empty() || !self.docker.preparing.is_empty() {
            return;
        }
        let now = self.clock.now();
        let is_done = |(of, at): &(BTreeSet<String>, _)| *of == surplus && now.since(*at) < PRUNE_AGAIN;
        if self.docker.pruned.as_ref().is_some_and(is_done) {
            return;
        }
        self.docker.pruned = Some((surplus, now));
        self.tasks.spawn(async move {
            let removed = images::prune(engine.client(), &keep, &used).await;
            for image in removed {
                tracing::info!(image, "removed the image of a release that is gone");
            }
        });
    }

    /// Removes what a project that is down leaves at the Engine: containers, anchors, networks. Told when that is done.
    /// Volumes stay: they are the users' data.
    pub(in crate::agent::driver) fn tear_down(&mut self, name: &str) {
        let engine = self.engine();
        let (inbox, owner, project) = (self.inbox.clone(), self.identity.owner.clone(), name.to_owned());
        self.removals.spawn(async move {
            let problems = match engine {
                Ok(engine) => remove_all(&engine, &owner, &project).await,
                Err(error) => vec![error],
            };
            for problem in problems {
                let text = format!("`{project}` is down, and left something behind: {problem}");
                inbox.send(Input::Warning { project: project.clone(), text }).await.ok();
            }
            inbox.send(DockerInput::TornDown(project).into()).await.ok();
        });
    }

    /// Nothing of a project is left at the Engine.
    pub(super) fn torn_down(&mut self, name: &str) {
        self.docker.containers.retain(|_, (project, _)| project != name);
        self.docker.rooms.remove(name);
        self.docker.compose_made.remove(name);
        if let Some(project) = self.projects.get_mut(name) {
            project.torn_down = true;
        }
    }
}

/// Removes everything of ours that a project has; what could not be removed is told.
async fn remove_all(engine: &Docker, owner: &str, project: &str) -> Vec<String> {
    let mut problems = Vec::new();
    // A container whose removal is under way still holds its networks.
    for _ in 0..REMOVALS_TRIED {
        let left = match engine.list().await {
            Ok(found) => found.into_iter().filter(|found| found.ours && found.project == project),
            Err(error) => {
                problems.push(error.to_string());
                break;
            }
        };
        let is_shared = |found: &Found| found.labels.get(label::ROLE).is_some_and(|role| role == "shared");
        let left: Vec<(String, bool)> = left.map(|found| (found.id.clone(), !is_shared(&found))).collect();
        if left.is_empty() {
            break;
        }
        for (container, volumes) in left {
            problems.extend(engine.remove(&container, volumes).await.err().map(|error| error.to_string()));
        }
        if !problems.is_empty() {
            break;
        }
        tokio::time::sleep(REMOVAL_EVERY).await;
    }
    if let Err(error) = anchor::remove(engine.client(), owner, project, &BTreeSet::new()).await {
        problems.push(error.to_string());
    }
    if let Err(error) = engine.remove_networks(project).await {
        problems.push(error.to_string());
    }
    problems
}
