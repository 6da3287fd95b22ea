//! Before a rollback is begun: whether the release can still be started.
//!
//! Owns: looking for its images, and making its networks and volumes again, while the live release serves untouched. Never:
//! pulls anything: what a tag names today is another release.

use std::sync::Arc;

use bulsa_core::{
    ids::ReleaseId,
    spec::{Spec, container::Container},
    wire::api::{Answer, DeployKind, Outcome},
};
use tokio::sync::oneshot;

use super::{DockerInput, Driver, upkeep::ImagesStay};
use crate::agent::{
    docker::Docker,
    driver::{narrate::not_begun, view::is_serving},
};

/// A rollback whose release was looked at.
pub(in crate::agent) struct Checked {
    /// The project.
    project: String,
    /// The release.
    release: ReleaseId,
    answer: oneshot::Sender<Answer>,
    /// What it lacks.
    errors: Vec<String>,
    /// Until its images are known to be needed.
    images_stay: ImagesStay,
}

impl Driver {
    /// Looks whether a release can be started again, and then asks for the rollback. Gives back the answer's sender where
    /// there is nothing to look at.
    pub(in crate::agent::driver) fn check_rollback(
        &mut self,
        name: &str,
        release: Option<u32>,
        answer: oneshot::Sender<Answer>,
    ) -> Option<oneshot::Sender<Answer>> {
        let desired = self.projects.get(name).map(|project| &project.desired);
        let target = desired.and_then(|desired| {
            let id = release.map(ReleaseId).or_else(|| desired.rollback_target())?;
            Some((id, desired.releases.get(&id)?)).filter(|(id, _)| desired.live != Some(*id))
        });
        let with_containers =
            target.filter(|(_, release)| release.spec.services.values().any(super::is_container));
        let (Some((release, spec)), Ok(engine)) =
            (with_containers.map(|(id, release)| (id, Arc::clone(&release.spec))), self.engine())
        else {
            return Some(answer);
        };
        let (inbox, project) = (self.inbox.clone(), name.to_owned());
        let images_stay = self.docker.pruning.hold_off();
        self.tasks.spawn(async move {
            let images_stay = images_stay.await;
            let errors = what_it_lacks(&engine, release, &spec).await;
            let checked = Checked { project, release, answer, errors, images_stay };
            inbox.send(DockerInput::RollbackChecked(checked).into()).await.ok();
        });
        None
    }

    /// The release was looked at: it can be started, or nothing is begun.
    pub(super) async fn rollback_checked(&mut self, checked: Checked) {
        let Checked { project, release, answer, mut errors, images_stay } = checked;
        let spec = self.projects.get(&project).and_then(|of| of.desired.releases.get(&release));
        let spec = spec.map(|release| Arc::clone(&release.spec));
        if let Some(spec) = spec.as_ref().filter(|_| errors.is_empty()) {
            errors = self.preflight(spec).await.err().unwrap_or_default();
        }
        if let (Some(spec), true) = (&spec, errors.is_empty()) {
            self.docker.pruning.pin_too(spec);
        }
        drop(images_stay);
        if errors.is_empty() {
            return self.roll_back(project, release, answer);
        }
        let serving = self.projects.get(&project).is_some_and(is_serving);
        let text = format!("the rollback to {release} could not begin: {}", errors.join("; "));
        let detail = not_begun(DeployKind::Rollback, Outcome::Failed, serving);
        self.tell_with(&project, "deploy.failed", None, text, Some(detail));
        answer.send(Answer::Failed { errors, serving }).ok();
    }
}

async fn what_it_lacks(engine: &Docker, release: ReleaseId, spec: &Spec) -> Vec<String> {
    let mut errors = Vec::new();
    for service in spec.services.values() {
        let Some(container) = service.container.as_deref().filter(|_| !service.is_kept_by_docker()) else {
            continue;
        };
        if let Some(error) = image_problem(engine, container).await {
            errors.push(format!("{release} can't be started again: `{}`: {error}", service.name));
        }
    }
    for made in [engine.ensure_networks(spec).await, engine.ensure_volumes(spec).await] {
        errors.extend(made.err().into_iter().flatten().map(|error| error.to_string()));
    }
    errors
}

async fn image_problem(engine: &Docker, container: &Container) -> Option<String> {
    let id = container.image_id.as_deref()?;
    match engine.client().inspect_image(id).await {
        Ok(_) => None,
        Err(bollard::errors::Error::DockerResponseServerError { status_code: 404, .. }) => Some(format!(
            "the image that it ran ({}, {id}) is not on this host any more; get it back by that id or digest, or deploy \
             that version anew",
            container.image
        )),
        Err(error) => {
            Some(format!("the Engine can't say whether its image {} is there: {error}", container.image))
        }
    }
}
