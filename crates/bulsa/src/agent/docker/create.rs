//! From a service of the Spec to what the Engine is told when a replica's container is made.
//!
//! Owns: the mapping of every field of [`Container`], as pure functions; names, environment and aliases. Never: asks
//! the Engine; ids of other containers are passed in as [`Others`].

pub(super) mod host;
pub mod labels;
pub(super) mod mounts;
mod networks;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use bollard::models::{ContainerCreateBody, EndpointSettings, HealthConfig, NetworkingConfig};
use bulsa_core::{
    ids::ReplicaId,
    spec::{
        Role, Service, Spec,
        container::{Container, Healthcheck, NetworkMode},
    },
};

use super::{EngineInfo, StartProblem};
use crate::agent::watchers::Watchers;

/// A replica that is to be started.
#[derive(Clone, Copy, Debug)]
pub struct StartReplica<'a> {
    /// The project.
    pub project: &'a str,
    /// The replica.
    pub id: &'a ReplicaId,
    /// Its service; one with a [`Container`].
    pub service: &'a Service,
    /// The Spec that it is of, for its networks, volumes and sources.
    pub spec: &'a Spec,
    /// The value of `BULSA_INSTANCE`: the same while the copies of a slot die and come back.
    pub instance: &'a str,
    /// Further variables; they win over the file's.
    pub env: &'a BTreeMap<String, String>,
    /// Whether it carries the service's name on its networks itself, or an anchor does.
    pub names: bool,
    /// Whether it is to take the place of a `shared` service's container, which is kept until it has proven itself.
    pub recreates: bool,
    /// Who puts files into it before it starts.
    pub watchers: Option<&'a Watchers>,
}

/// The ids of other services' containers, by service: what `service:NAME` means.
pub type Others = BTreeMap<String, String>;

/// What is told to the Engine for one replica.
#[derive(Debug)]
pub(super) struct Plan {
    /// The names that it may have, in order of preference.
    pub(super) names: Vec<String>,
    /// What it is made of.
    pub(super) body: ContainerCreateBody,
    /// `os/arch[/variant]`
    pub(super) platform: Option<String>,
    /// Networks that it is connected to afterwards, one by one: for Engines before API 1.44.
    pub(super) later: Vec<(String, EndpointSettings)>,
    /// What this Engine can't keep, and isn't worth refusing for.
    pub(super) notes: Vec<String>,
}

/// The container of a service; every service on this engine has one.
pub(super) fn container_of(service: &Service) -> Result<&Container, StartProblem> {
    service.container.as_deref().ok_or_else(|| {
        StartProblem::permanent(format!("`{}` has no image: it runs on the process engine", service.name))
    })
}

/// Services whose containers must exist before this one can be made.
pub(in crate::agent) fn needed(container: &Container) -> Vec<String> {
    let mut names = Vec::new();
    if let Some(NetworkMode::Service(name)) = &container.network_mode {
        names.push(name.clone());
    }
    let isolation = &container.isolation;
    for mode in [&isolation.pid, &isolation.ipc, &isolation.uts].into_iter().flatten() {
        names.extend(mode.strip_prefix("service:").map(str::to_owned));
    }
    for from in &container.volumes_from {
        if !from.starts_with("container:") {
            names.push(from.split(':').next().unwrap_or_default().to_owned());
        }
    }
    if container.network_mode == Some(NetworkMode::Bridge) {
        names.extend(container.links.iter().map(|(service, _)| service.clone()));
    }
    names.sort();
    names.dedup();
    names
}

/// All that is said for one replica.
pub(super) fn plan(
    start: &StartReplica<'_>,
    engine: &EngineInfo,
    owner: &str,
    others: &Others,
) -> Result<Plan, StartProblem> {
    let container = container_of(start.service)?;
    let mut notes = Vec::new();
    let joined = networks::join(start, container, engine, &mut notes)?;
    let host = host::config(start, container, engine, &joined, others, &mut notes)?;
    let exposed = exposed(container);
    let grace = start.service.stop_grace;
    let body = ContainerCreateBody {
        hostname: container.hostname.clone(),
        domainname: container.domainname.clone(),
        user: start.service.user.clone(),
        tty: Some(container.tty),
        open_stdin: Some(container.stdin_open),
        exposed_ports: (!exposed.is_empty()).then_some(exposed),
        env: Some(environment(start)),
        // An empty entrypoint is sent as one: it removes the image's.
        entrypoint: container.entrypoint.clone(),
        cmd: container.command.clone(),
        healthcheck: container
            .healthcheck
            .as_ref()
            .map(|check| healthcheck(check, engine, &start.service.name, &mut notes)),
        image: Some(container.image_id.clone().unwrap_or_else(|| container.image.clone())),
        working_dir: container.working_dir.clone(),
        labels: Some(labels::of(start, container, owner)),
        stop_signal: container.stop_signal.clone(),
        stop_timeout: i64::try_from(grace.as_secs() + u64::from(grace.subsec_nanos() > 0)).ok(),
        networking_config: (!joined.now.is_empty())
            .then(|| NetworkingConfig { endpoints_config: Some(joined.now.clone().into_iter().collect()) }),
        host_config: Some(host),
        ..ContainerCreateBody::default()
    };
    Ok(Plan {
        names: names(start, container),
        body,
        platform: container.platform.clone(),
        later: joined.later,
        notes,
    })
}

/// The ports that it is said to listen on. In another container's network it has none of its own: the Engine refuses
/// such a request.
fn exposed(container: &Container) -> Vec<String> {
    if container.network_mode.as_ref().is_some_and(is_borrowed) {
        return Vec::new();
    }
    let mut exposed: Vec<String> =
        container.expose.iter().map(|port| format!("{}/{}", port.port, port.protocol)).collect();
    exposed.extend(container.published.iter().map(|port| format!("{}/{}", port.target, port.protocol)));
    exposed.sort();
    exposed.dedup();
    exposed
}

/// Whether it is in another container's network.
const fn is_borrowed(mode: &NetworkMode) -> bool {
    matches!(mode, NetworkMode::Service(_) | NetworkMode::Container(_))
}

/// The names that the container may have. A file's own name is kept where no two copies of the service ever are.
pub(super) fn names(start: &StartReplica<'_>, container: &Container) -> Vec<String> {
    let (project, id) = (start.project, start.id);
    let placed = format!("{project}-{}", id.name());
    let attempt = format!("{project}-{id}");
    match (start.service.role, &container.container_name) {
        (Role::App, _) => vec![placed, attempt],
        (_, Some(name)) => vec![name.clone()],
        (_, None) => vec![format!("{project}-{}-{}", id.service, id.ordinal), placed, attempt],
    }
}

fn environment(start: &StartReplica<'_>) -> Vec<String> {
    let mut all = start.service.env.clone();
    all.extend(start.env.clone());
    let own = [
        ("BULSA_RELEASE", start.id.release.to_string()),
        ("BULSA_SERVICE", start.id.service.clone()),
        ("BULSA_REPLICA", start.id.name()),
        ("BULSA_INSTANCE", start.instance.to_owned()),
    ];
    all.extend(own.map(|(name, value)| (name.to_owned(), value)));
    all.into_iter().map(|(name, value)| format!("{name}={value}")).collect()
}

fn healthcheck(
    check: &Healthcheck,
    engine: &EngineInfo,
    service: &str,
    notes: &mut Vec<String>,
) -> HealthConfig {
    let nanos = |time: Option<std::time::Duration>| {
        time.map(|time| i64::try_from(time.as_nanos()).unwrap_or(i64::MAX))
    };
    if check.start_interval.is_some() && !engine.has(44) {
        notes.push(format!(
            "`{service}`: Docker runs `healthcheck.start_interval` from Engine 25 on; Bulsa's own gate keeps it"
        ));
    }
    HealthConfig {
        test: (!check.test.is_empty()).then(|| check.test.clone()),
        interval: nanos(check.interval),
        timeout: nanos(check.timeout),
        retries: check.retries.map(i64::from),
        start_period: nanos(check.start_period),
        start_interval: nanos(check.start_interval).filter(|_| engine.has(44)),
    }
}
