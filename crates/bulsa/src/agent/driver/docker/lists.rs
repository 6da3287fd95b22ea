//! The Engine's lists: which container is which replica, and what is taken over from others.
//!
//! Owns: adopting what runs, after an agent's death or an Engine's return, and what Compose had made. Never: starts or
//! stops anything; an event that a list repeats changes nothing.

use std::collections::{BTreeMap, BTreeSet};

use bulsa_core::{
    decide::{Event, Origin},
    ids::{ReleaseId, ReplicaId},
    spec::{
        Role,
        container::{Container, NetworkMode},
    },
    time::Timestamp,
};
use tokio::task::JoinHandle;

use super::{Driver, Found, State, containers, has_containers};
use crate::agent::{docker::create, driver::project::Project};

/// Whether all the name spaces that it shares are other services'.
fn names_services(container: &Container) -> bool {
    let isolation = &container.isolation;
    let mut modes = [&isolation.pid, &isolation.ipc].into_iter().flatten();
    !matches!(container.network_mode, Some(NetworkMode::Container(_)))
        && !modes.any(|mode| mode.starts_with("container:"))
}

impl Driver {
    /// From now on the lists have what Compose made for the projects with containers too.
    pub(super) fn adopt_projects(&self) {
        let Ok(engine) = self.engine() else { return };
        let names = self.projects.values().filter(|project| has_containers(project));
        let names: BTreeSet<String> = names.map(|project| project.name.clone()).collect();
        engine.adopt(names.into_iter().chain(self.docker.preparing.iter().cloned()).collect());
    }

    /// A release begins: what Compose had made for it is seen before anything is started beside it.
    pub(in crate::agent::driver) fn see_compose_made(&mut self, name: &str) {
        for found in self.docker.compose_made.remove(name).unwrap_or_default() {
            self.see(found);
        }
    }

    /// Everything that the Engine has of ours. What isn't in it is gone.
    pub(super) async fn listed(&mut self, containers: Vec<Found>, as_of: Timestamp) {
        self.adopt_projects();
        self.see_anchors(&containers).await;
        self.learn_made(&containers);
        self.know_proven(&containers);
        let now = self.clock.now();
        let mut alive: BTreeMap<String, BTreeMap<ReplicaId, Timestamp>> = BTreeMap::new();
        let there: BTreeSet<&String> = containers.iter().map(|found| &found.id).collect();
        self.docker.ended.retain(|container| there.contains(container));
        for found in containers.iter().cloned() {
            self.see(found);
        }
        self.end_the_cut_off(&containers);
        // Docker is about to start these again: they don't run, and nothing takes their place.
        let mut restarting: BTreeSet<(String, ReplicaId)> = BTreeSet::new();
        for found in &containers {
            let Some((name, id)) = self.whose(found) else { continue };
            // One that is looked at again isn't gone yet.
            let is_looked_at =
                self.docker.meddling.contains_key(&found.id) || self.docker.ending.contains(&found.id);
            if found.state == State::Restarting {
                restarting.insert((name, id));
            } else if found.is_up() || is_looked_at {
                let at = Timestamp(found.started_at_ms.unwrap_or_default());
                alive.entry(name).or_default().insert(id, at);
            }
        }
        for (name, project) in &mut self.projects {
            // Replicas on the process engine are the keeper's to tell of.
            let listed = alive.remove(name).unwrap_or_default();
            let mut replicas = project.processes();
            replicas.extend(listed);
            let not_up = self.docker.starting.iter().chain(&restarting);
            let of_project = not_up.filter(|(of, _)| of == name);
            let creating = of_project.map(|(_, id)| id.clone()).collect();
            project.apply(Event::Listed { replicas, creating, as_of }, now);
            if std::mem::take(&mut project.dormant) {
                tracing::info!(project = name, "its containers are known again");
            }
        }
    }

    /// Replicas in the name space of another service's container that was replaced: theirs leads nowhere any more, so
    /// they are ended, and started again in the new one's.
    fn end_the_cut_off(&mut self, containers: &[Found]) {
        let there: BTreeSet<&String> = containers.iter().map(|found| &found.id).collect();
        for found in containers.iter().filter(|found| found.ours && found.is_up()) {
            let Some((name, id)) = self.whose(found) else { continue };
            let Some(project) = self.projects.get(&name) else { continue };
            let Some(container) =
                project.desired.service(id.release, &id.service).and_then(|s| s.container.as_ref())
            else {
                continue;
            };
            let hosts = create::needed(container);
            // A name space of somebody else's container is none of our lists' business, and a host that isn't back yet
            // can't take them in.
            let is_back = |host: &String| {
                containers.iter().any(|other| {
                    other.project == name && other.service == *host && other.state == State::Running
                })
            };
            let is_cut_off = found.inside.iter().any(|host| !there.contains(host));
            let only_ours = !found.inside.is_empty() && names_services(container);
            if is_cut_off && only_ours && hosts.iter().all(is_back) && !self.docker.asked.contains(&found.id)
            {
                let text = format!(
                    "{} is in the network or another name space of a container that is gone: it is started again",
                    id.name()
                );
                self.tell(&name, "replica.cut_off", Some(&id), text);
                self.end_container(&name, &found.id);
            }
        }
    }

    /// At the first list: what a switch had proven when the agent before this one died counts as routed.
    fn know_proven(&mut self, containers: &[Found]) {
        let of_dormant = containers.iter().filter(|found| {
            found.is_up() && self.projects.get(&found.project).is_some_and(|project| project.dormant)
        });
        let tasks: Vec<String> = of_dormant
            .filter_map(|found| self.whose(found))
            .map(|(name, id)| format!("{name}/{id}"))
            .collect();
        let proven = self.proven_and_not_routed_yet(tasks.into_iter(), &self.docker.routed_before);
        self.docker.routed_before.extend(proven);
    }

    /// The project and the replica that a container says it is.
    pub(super) fn whose(&self, found: &Found) -> Option<(String, ReplicaId)> {
        if self.docker.ended.contains(&found.id) {
            return None;
        }
        if let Some((name, id)) = self.docker.containers.get(&found.id) {
            return Some((name.clone(), id.clone()));
        }
        if let Some(id) = &found.replica {
            return found.ours.then(|| (found.project.clone(), id.clone()));
        }
        // What Compose made for a backing service is ours to look after, and stays as it is.
        let project = self.projects.get(&found.project)?;
        let service = project.desired.service(ReleaseId(0), &found.service)?;
        let is_shared = service.role == Role::Shared && service.container.is_some() && !found.ours;
        let release = self.release_of_compose_made(&project.desired, found);
        let ordinal = found.number.unwrap_or(1);
        let id = ReplicaId { release, service: service.name.clone(), ordinal, attempt: 1 };
        is_shared.then(|| (found.project.clone(), id))
    }

    /// One container as it is now.
    pub(super) fn see(&mut self, found: Found) {
        let Some((name, id)) = self.whose(&found) else { return };
        let now = self.clock.now();
        if !self.projects.contains_key(&name) {
            // Nothing of a project that the store doesn't know is wanted, so its replicas are stopped.
            let project = Project::new(name.clone(), self.new_observed());
            self.projects.insert(name.clone(), project);
        }
        self.docker.containers.insert(found.id.clone(), (name.clone(), id.clone()));
        match found.state {
            State::Running | State::Paused => self.see_running(&name, &id, &found, now),
            State::Created => self.see_created(&name, &id, &found),
            State::Restarting | State::Removing => {}
            State::Exited | State::Dead => self.see_ended(&name, &id, &found),
        }
    }

    fn see_running(&mut self, name: &str, id: &ReplicaId, found: &Found, now: Timestamp) {
        if self.start_reports(name, id) {
            return;
        }
        let routed = self.was_routed(name, id);
        let Some(project) = self.projects.get_mut(name) else { return };
        let is_known = project.observed.replica(id).is_some();
        let started_ms = found.started_at_ms.unwrap_or_default();
        let restarted = project.meta.get(id).is_some_and(|meta| meta.started_ms != started_ms);
        let meta = project.meta.entry(id.clone()).or_default();
        meta.container = Some(found.id.clone());
        meta.pid = found.pid;
        meta.started_ms = started_ms;
        if !is_known {
            let origin = Origin::Adopted { routed };
            project.apply(Event::Started { id: id.clone(), at: Timestamp(started_ms), origin }, now);
        }
        let is_back = project.observed.replica(id).is_some_and(|replica| replica.ended);
        if is_back && !self.docker.ending.contains(&found.id) {
            project.apply(Event::StartedAgain { id: id.clone(), at: Timestamp(started_ms) }, now);
        }
        if !is_known || restarted {
            let addr = containers::address(project, id, &found.addresses);
            project.apply(Event::Listening { id: id.clone(), addr }, now);
        }
        // The follower of a container that runs ended because the Engine went away, or it was started again.
        if self.docker.followers.get(&found.id).is_some_and(JoinHandle::is_finished) {
            self.docker.followers.remove(&found.id);
        }
        self.follow_output(name, id, &found.id);
        self.keep_recreated(name, id, found);
        let Some(project) = self.projects.get_mut(name) else { return };
        let paused = found.state == State::Paused;
        if project.observed.replica(id).is_some_and(|replica| replica.paused != paused)
            && !self.docker.meddling.contains_key(&found.id)
        {
            project.apply(Event::Paused { id: id.clone(), paused }, now);
        }
    }

    /// Whether an adopted replica serves until a probe says otherwise: see [`Driver::restore`].
    fn was_routed(&self, name: &str, id: &ReplicaId) -> bool {
        self.docker.routed_before.contains(&format!("{name}/{id}"))
    }

    /// Remembers what the agent before this one routed to, and waits for the Engine's first list before anything of a
    /// project with containers is decided: what isn't known to run would be started a second time.
    pub(in crate::agent::driver) fn await_containers(&mut self, routed: BTreeSet<String>) {
        self.docker.routed_before = routed;
        let mut any = false;
        for project in self.projects.values_mut().filter(|project| has_containers(project)) {
            (project.dormant, any) = (true, true);
        }
        if any {
            self.reach_engine();
        }
    }
}
