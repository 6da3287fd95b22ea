//! What is known of a replica that may be hurt.
//!
//! Owns: which replicas are meant, and the facts that the core plans from. Never: hurts anything.

use std::net::SocketAddr;

use bulsa_core::{
    drill::{self, Facts},
    ids::{ReplicaId, Slot},
    spec::{Check, Protocol, Role, Service},
    wire::api::{DrillKind, DrillStep, DrillUrl, ServiceState},
};

use super::Driver;
use crate::agent::{
    driver::{docker::known, project::Project},
    injure::memory::MemoryGroup,
    process::listener,
};

impl Driver {
    /// The replicas that are meant: `web` is its first one, `web.2` the second; without a name the first of each service
    /// that Bulsa restarts.
    pub(super) fn drill_targets(
        &self,
        name: &str,
        services: &[String],
    ) -> Result<Vec<(String, u32)>, Vec<String>> {
        let Some(project) = self.projects.get(name) else {
            return Err(vec![format!("there is no project `{name}`")]);
        };
        let Some((_, live)) = project.desired.live() else {
            return Err(vec![format!("`{name}` has no release that is live yet")]);
        };
        if services.is_empty() {
            let is_ours = |service: &&Service| {
                matches!(service.role, Role::App | Role::Worker) && project.desired.replicas(service) > 0
            };
            let all = live.spec.services.values().filter(is_ours);
            return Ok(all.map(|service| (service.name.clone(), 1)).collect());
        }
        let find = |text: &String| {
            let (service, ordinal) = match live.spec.services.get(text) {
                Some(service) => (service, 1),
                None => split(text)
                    .and_then(|(name, ordinal)| Some((live.spec.services.get(name)?, ordinal)))
                    .ok_or_else(|| format!("`{name}` has no service `{text}`; `bulsa ps` lists them"))?,
            };
            let most = project.desired.replicas(service);
            if ordinal == 0 || most < ordinal {
                return Err(format!("`{}` has {most} replicas, and no number {ordinal}", service.name));
            }
            Ok((service.name.clone(), ordinal))
        };
        let (found, errors): (Vec<_>, Vec<_>) = services.iter().map(find).partition(Result::is_ok);
        let errors: Vec<String> = errors.into_iter().filter_map(Result::err).collect();
        if errors.is_empty() { Ok(found.into_iter().flatten().collect()) } else { Err(errors) }
    }

    /// What one injury would do to a replica, and why it would be refused.
    pub(super) fn drill_step(
        &self,
        name: &str,
        service: &str,
        ordinal: u32,
        kind: DrillKind,
        last: bool,
    ) -> (DrillStep, Option<String>) {
        let mut step = DrillStep {
            kind,
            service: service.to_owned(),
            ordinal,
            replica: format!("{service}.{ordinal}"),
            not: None,
            injury: String::new(),
            expected: String::new(),
            limit_ms: 0,
            url: None,
        };
        let Some((victim, of)) = self.drill_victim(name, service, ordinal) else {
            step.not = Some("it isn't healthy".to_owned());
            return (step, None);
        };
        step.replica = victim.name();
        let Some(project) = self.projects.get(name) else { return (step, None) };
        let memory = no_memory_limit(project, &victim);
        let facts = Facts {
            service: of,
            ready: self.service_view(project, of).ready,
            serving_children: serving_children(project, &victim),
            is_isolated: project.meta.get(&victim).is_some_and(|meta| meta.note.namespace.is_some()),
            no_memory_limit: memory.as_deref(),
        };
        match drill::plan(kind, &facts) {
            Ok(plan) => {
                step.limit_ms = u64::try_from(plan.limit.as_millis()).unwrap_or(u64::MAX);
                (step.injury, step.expected) = (plan.injury, plan.expected);
                step.url = self.drill_url(project, of);
                let refusal = drill::refusal(kind, &facts, &step.replica, last);
                (step, refusal)
            }
            Err(why) => {
                step.not = Some(why);
                (step, None)
            }
        }
    }

    /// The healthy replica with this number in the live release, and its service.
    pub(super) fn drill_victim(
        &self,
        name: &str,
        service: &str,
        ordinal: u32,
    ) -> Option<(ReplicaId, &Service)> {
        let project = self.projects.get(name)?;
        let (live, release) = project.desired.live()?;
        let service = release.spec.services.get(service)?;
        let release = project.desired.slot_release(live, service);
        let slot = Slot { release, service: service.name.clone(), ordinal };
        let mut replicas = project.observed.in_slot(&slot);
        replicas.find(|(_, replica)| replica.serves(service)).map(|(id, _)| (id.clone(), service))
    }

    /// What is wrong with a project; `None` where nothing is.
    pub(super) fn not_well(&self, project: &Project) -> Option<String> {
        let services = self.project_view(project).services;
        let bad = services.iter().find(|service| {
            service.state.is_bad() || service.state == ServiceState::Starting && service.role != "job"
        });
        bad.map(|service| format!("`{}` is {}", service.name, service.state))
    }

    /// Where a service is reached over HTTP, at a path that its probe says is answered well.
    fn drill_url(&self, project: &Project, service: &Service) -> Option<DrillUrl> {
        let port = service.ports.first().filter(|_| service.is_routed())?;
        let release = project.desired.live?;
        let spoken =
            known(service, port.target).or_else(|| project.spoken(release, &service.name, port.target));
        if spoken == Some(Protocol::Tcp) {
            return None;
        }
        let spec = &project.desired.live()?.1.spec;
        let address: SocketAddr = *self.routes.addresses(spec).get(&service.name)?;
        let routes = &service.routing.routes;
        let route = routes.iter().find(|route| route.rules.redirect.is_none())?;
        let path = match &service.probe.check {
            Check::Http { port: None, path, .. } if path.starts_with(&route.path) => path.clone(),
            _ => route.path.clone(),
        };
        let host = route.host.as_ref().map(|host| format!("{host}:{}", address.port()));
        let host = host.unwrap_or_else(|| address.to_string());
        Some(DrillUrl { address: address.to_string(), host, path })
    }
}

/// `web.2`; a service's name may have dots of its own.
fn split(text: &str) -> Option<(&str, u32)> {
    let (name, number) = text.rsplit_once('.')?;
    Some((name, number.parse().ok()?))
}

/// How many programs serve below its main process; 0 where that one serves itself. `None` where it can't be seen.
fn serving_children(project: &Project, id: &ReplicaId) -> Option<usize> {
    let (pid, port) = (project.meta.get(id)?.pid?, project.observed.replica(id)?.addr?.port());
    let task = project.task(id);
    let serving = listener::serving(pid, Some(&task), port).ok()?;
    match serving.len() {
        0 => None,
        _ if serving.contains(&pid) => Some(0),
        count => Some(count),
    }
}

/// Why memory can't be made scarce for a replica alone.
fn no_memory_limit(project: &Project, id: &ReplicaId) -> Option<String> {
    let meta = project.meta.get(id);
    let Some(container) = meta.and_then(|meta| meta.container.as_deref()) else {
        return MemoryGroup::among(meta.map_or(&[], |meta| &meta.note.cgroups)).err();
    };
    let Some(pid) = meta.and_then(|meta| meta.pid) else {
        return Some("its process can't be seen from here".to_owned());
    };
    MemoryGroup::of(pid, container).err()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_number_is_what_stands_behind_the_last_dot() {
        assert_eq!(super::split("web.2"), Some(("web", 2)));
        assert_eq!(super::split("a.b.3"), Some(("a.b", 3)));
        for not in ["web", "web.", "web.x", "web.-1"] {
            assert_eq!(super::split(not), None, "{not}");
        }
    }
}
