//! `shared` services that differ from their file, and what becomes of the containers of those that are recreated.
//!
//! Owns: what was seen of their containers, and the file that was deployed last. Never: compares (that is
//! [`bulsa_core::spec::drift`]), or touches one that nobody named.

use std::collections::{BTreeMap, BTreeSet};

use bulsa_core::{
    decide::{Desired, ReplicaPhase, admit::recreated},
    ids::{ReleaseId, ReplicaId, Slot},
    plan::Drift,
    spec::{
        Role, Service, Spec,
        drift::{Made, differences},
    },
};

use super::{Driver, Found};
use crate::agent::{docker::label, driver::project::Project};

/// What is known of the containers of `shared` services.
#[derive(Default)]
pub(super) struct MadeFrom {
    /// By project and service: what the container is made from that is in use.
    current: BTreeMap<(String, String), Made>,
    /// Those of which a container of ours exists that a deploy by name made.
    recreated: BTreeSet<(String, String)>,
    /// The services of the file that was deployed last, be it without effect, by project.
    files: BTreeMap<String, Spec>,
}

impl MadeFrom {
    /// A project is down.
    pub(super) fn forget(&mut self, project: &str) {
        self.current.retain(|(of, _), _| of != project);
        self.recreated.retain(|(of, _)| of != project);
        self.files.remove(project);
    }
}

fn is_shared(found: &Found) -> bool {
    found.labels.get(label::ROLE).is_none_or(|role| role == "shared")
}

impl Driver {
    /// Everything that the Engine has was seen.
    pub(super) fn learn_made(&mut self, containers: &[Found]) {
        self.docker.made.current.clear();
        self.docker.made.recreated.clear();
        self.learn(containers);
    }

    /// Everything that it has of one project was seen; gives what Compose made of it.
    pub(super) fn learn_made_of(&mut self, project: &str, containers: Vec<Found>) -> Vec<Found> {
        self.docker.made.current.retain(|(of, _), _| of != project);
        self.docker.made.recreated.retain(|(of, _)| of != project);
        self.learn(&containers);
        containers.into_iter().filter(|found| !found.ours).collect()
    }

    fn learn(&mut self, containers: &[Found]) {
        let key = |found: &Found| (found.project.clone(), found.service.clone());
        let later = containers.iter().filter(|found| found.ours && found.release.is_some_and(|of| of.0 != 0));
        self.docker.made.recreated.extend(later.filter(|found| is_shared(found)).map(key));
        for found in containers.iter().filter(|found| is_shared(found) && !found.service.is_empty()) {
            let desired = self.projects.get(&found.project).map(|project| &project.desired);
            let release = match (desired, found.release) {
                (_, Some(release)) if found.ours => release,
                (Some(desired), _) => self.release_of_compose_made(desired, found),
                (None, _) => ReleaseId(0),
            };
            if desired.is_none_or(|desired| desired.shared_release(&found.service) == release) {
                self.docker.made.current.insert(key(found), found.made.clone());
            }
        }
    }

    /// The release in whose slot a container is that Compose made: its labels don't say. One that is down beside one of
    /// ours is what that took the place of.
    pub(super) fn release_of_compose_made(&self, desired: &Desired, found: &Found) -> ReleaseId {
        let key = (found.project.clone(), found.service.clone());
        if !found.is_up() && self.docker.made.recreated.contains(&key) {
            return ReleaseId(0);
        }
        desired.shared_release(&found.service)
    }

    /// How the `shared` services that exist differ from `spec`, and which of these a deploy that names them recreates.
    pub(in crate::agent::driver) fn drift(&self, spec: &Spec, named: &[String]) -> Drift {
        let services = spec.services.values().filter(|service| service.is_kept_by_docker());
        let differs: BTreeMap<_, _> = services
            .filter_map(|service| Some((service.name.clone(), self.differences(spec, service)?)))
            .collect();
        let named: BTreeSet<String> =
            named.iter().filter(|name| differs.contains_key(*name)).cloned().collect();
        let desired = self.projects.get(&spec.project).map(|project| &project.desired);
        let recreate = desired.map(|desired| recreated(desired, spec, &named)).unwrap_or_default();
        Drift { differs, recreate }
    }

    fn differences(&self, spec: &Spec, service: &Service) -> Option<Vec<&'static str>> {
        let made = self.docker.made.current.get(&(spec.project.clone(), service.name.clone()))?;
        let parts = differences(service, spec, made);
        (!parts.is_empty()).then_some(parts)
    }

    /// A file is deployed, or nothing but `shared` services differs in it: `status` compares with it from here on.
    pub(in crate::agent::driver) fn remember_file(&mut self, spec: &Spec, named: &[String]) {
        let files = &mut self.docker.made.files;
        match files.get_mut(&spec.project) {
            Some(file) if !named.is_empty() => {
                let services = named.iter().filter_map(|name| spec.services.get(name));
                file.services.extend(services.map(|service| (service.name.clone(), service.clone())));
            }
            _ => drop(files.insert(spec.project.clone(), spec.clone())),
        }
    }

    /// That a service differs from its file, for people.
    pub(in crate::agent::driver) fn drift_text(&self, project: &Project, service: &str) -> Option<String> {
        let live = || project.desired.live().map(|(_, live)| live.spec.as_ref());
        let spec = self.docker.made.files.get(&project.name).or_else(live)?;
        let service = spec.services.get(service).filter(|service| service.is_kept_by_docker())?;
        let parts = self.differences(spec, service)?.join(", ");
        let name = &service.name;
        Some(format!(
            "what runs differs from the file ({parts}); `bulsa deploy {name}` recreates it, with its volumes"
        ))
    }

    /// Whether a container that is down is of no more use: another one took its place for good, and runs; or it was to
    /// take that one's place, and could not.
    pub(super) fn is_superseded(&self, name: &str, id: &ReplicaId) -> bool {
        let Some(project) = self.projects.get(name) else { return false };
        let desired = &project.desired;
        let release = desired.shared_release(&id.service);
        if id.release == release || desired.recreates(id.release, &id.service) {
            return false;
        }
        let is_settled = desired.running().is_none_or(|running| !running.recreates.contains(&id.service));
        let current = Slot { release, service: id.service.clone(), ordinal: id.ordinal };
        let mut running = project.observed.in_slot(&current);
        (is_settled || id.release < release)
            && running.any(|(_, replica)| replica.phase == ReplicaPhase::Running)
    }

    /// One that was recreated, and has taken the place for good, is Docker's to start again from here on.
    pub(super) fn keep_recreated(&mut self, name: &str, id: &ReplicaId, found: &Found) {
        let Some(project) = self.projects.get(name) else { return };
        let is_current = id.release.0 != 0 && id.release == project.desired.shared_release(&id.service);
        if !is_current || !found.ours || found.restarts || project.desired.is_recreated(&id.service) {
            return;
        }
        let service = project.desired.service(id.release, &id.service);
        let container = service.filter(|s| s.role == Role::Shared).and_then(|s| s.container.clone());
        let Some(container) = container.filter(|one| one.docker_restart.as_deref() != Some("no")) else {
            return;
        };
        let Ok(engine) = self.engine() else { return };
        let id = found.id.clone();
        self.tasks.spawn(async move {
            if let Err(error) = engine.set_restart(&id, Some(&container)).await {
                tracing::warn!(container = id, %error, "its restart policy can't be set; it is tried again");
            }
        });
    }
}
