//! A service that has a container: what the Engine publishes, what Bulsa publishes, how it is probed and replaced.

use std::collections::{BTreeMap, BTreeSet};

use crate::spec::{
    self, Accept, AppPort, Handover, Probe, Protocol, Restart, Role, Rolling,
    container::{Container, Healthcheck, PortNumber, Published},
    pin, probe, rules,
};

use super::{
    super::{
        check,
        model::{self, Docker, Project, Service, Update},
    },
    GATE_TIMEOUT, SIGTERM, STOP_GRACE, environment, role,
};

const TCP: &str = "tcp";

pub(super) fn service(
    service: &Service,
    docker: &Docker,
    project: &Project,
    taken: &mut BTreeSet<u16>,
) -> spec::Service {
    let (role, role_reason) = role::role(service, project);
    let mut container = container(service, docker, project);
    let mut ports = Vec::new();
    if role == Role::Shared {
        container.published = service.ports.iter().map(published).collect();
    } else if rules::own_network(&container) {
        ports = balanced(service, &mut container, taken);
    } else if !service.ports.is_empty() {
        container
            .notes
            .push("`ports` mean nothing with this `network_mode`: nothing is published".to_owned());
    }
    // Where both are there, `deploy`'s counts, as in Compose.
    let restart = docker.restart_policy.as_ref().or(service.restart.as_ref());
    container.docker_restart = restart.map(|(words, _)| words.clone());
    let mut it = spec::Service {
        name: service.name.clone(),
        role,
        role_reason,
        container: Some(Box::new(container)),
        argv: Vec::new(),
        env: environment(service),
        working_dir: String::new(),
        user: service.user.clone(),
        replicas: service.replicas(),
        routing: super::routing(service, !ports.is_empty()),
        ports,
        app_port: AppPort::Env,
        probe: probe::up(),
        gate_timeout: GATE_TIMEOUT,
        drain: service.bulsa.drain,
        balance: service.bulsa.balance.clone(),
        times: service.bulsa.times,
        hold: service.bulsa.hold.clone(),
        access_log: service.bulsa.access_log,
        care: service.bulsa.care,
        resources: spec::ResourceLimits::default(),
        drill_block: service.bulsa.drill_block.clone(),
        heartbeat: None,
        bake: service.bulsa.bake,
        handover: Handover::Overlap,
        restart: match restart {
            Some((_, policy)) => *policy,
            None if role == Role::Job => Restart::No,
            None => Restart::Always,
        },
        stop_signal: service.stop_signal.as_ref().map_or(SIGTERM, |(_, number)| *number),
        stop_grace: service.stop_grace_period.unwrap_or(STOP_GRACE),
        depends_on: super::depends_on(service, project),
        position: service.pos.to_string(),
    };
    it.probe = probe_of(service, &it);
    let interval = service.healthcheck.as_ref().and_then(|check| check.interval);
    let interval = interval.filter(|_| service.bulsa.probe.is_none());
    it.gate_timeout =
        service.bulsa.gate_timeout.unwrap_or(GATE_TIMEOUT).max(probe::needed(&it.probe, interval));
    rules::settle_container_name(&mut it);
    rules::note_binds(&mut it);
    match service.bulsa.handover {
        Some(handover) => it.handover = handover,
        None => settle_handover(&mut it, docker.update),
    }
    it
}

/// What `deploy.update_config` says, unless something makes it impossible that two releases run at once. Without an
/// `order` the new replicas start first: Compose's default would leave fewer of them than the file asks for.
fn settle_handover(it: &mut spec::Service, update: Option<Update>) {
    let update = update.filter(|_| matches!(it.role, Role::App | Role::Worker));
    let stop_first = update.and_then(|update| update.stop_first);
    if stop_first == Some(false) {
        rules::settle_start_first(it);
    } else {
        rules::settle_handover(it);
    }
    let Some(update) = update.filter(|_| it.handover == Handover::Overlap) else { return };
    let parallelism = update.parallelism.unwrap_or(1);
    let at_once = parallelism == 0 || parallelism >= it.replicas;
    let stop_first = stop_first.unwrap_or(false);
    let delay = update.delay.unwrap_or_default();
    it.handover = match (at_once, stop_first) {
        (true, false) => Handover::Overlap,
        (true, true) => Handover::StopFirst,
        (false, _) => Handover::Rolling(Rolling { parallelism, stop_first, delay }),
    };
    if let (Handover::StopFirst, Some(container)) = (it.handover, it.container.as_mut()) {
        let text = "`deploy.update_config.order: stop-first`: the old replicas are stopped before the new ones start, \
                    and requests are held meanwhile";
        rules::note(container, text.to_owned());
    }
}

/// The container, with what other keys of the service say of it.
fn container(service: &Service, docker: &Docker, project: &Project) -> Container {
    let mut it = docker.container.clone();
    if it.image.is_empty() {
        it.image = format!("{}-{}", project.name, service.name);
    }
    it.entrypoint.clone_from(&service.entrypoint);
    it.command.clone_from(&service.command);
    it.working_dir.clone_from(&service.working_dir);
    it.stop_signal = service.stop_signal.as_ref().map(|(name, _)| name.clone());
    it.healthcheck = service.healthcheck.as_ref().map(healthcheck);
    for port in &service.ports {
        let port = PortNumber { port: port.target, protocol: port.protocol.clone() };
        if !it.expose.contains(&port) {
            it.expose.push(port);
        }
    }
    it
}

fn healthcheck(written: &model::Healthcheck) -> Healthcheck {
    let off = written.disable == Some(true);
    Healthcheck {
        test: if off { vec!["NONE".to_owned()] } else { written.test.clone().unwrap_or_default() },
        interval: written.interval,
        timeout: written.timeout,
        start_period: written.start_period,
        start_interval: written.start_interval,
        retries: written.retries,
    }
}

fn published(port: &model::Port) -> Published {
    let first = port.published.filter(|first| *first > 0);
    Published {
        host: port.host_ip,
        published: first.map(|first| match port.published_to {
            Some(last) if last != first => format!("{first}-{last}"),
            _ => first.to_string(),
        }),
        target: port.target,
        protocol: port.protocol.clone(),
    }
}

/// The ports on which Bulsa listens. Of several published ports for one target the first is taken that no other
/// service of the project has: one listener stands for all replicas.
fn balanced(service: &Service, container: &mut Container, taken: &mut BTreeSet<u16>) -> Vec<spec::Port> {
    let mut ports = Vec::new();
    for (at, port) in service.ports.iter().enumerate().filter(|(_, port)| port.protocol == TCP) {
        let twin = |other: &model::Port| check::is_dual_stack(other, port);
        if service.ports[..at].iter().any(twin) {
            continue;
        }
        // One listener that says no address takes both families.
        let host = port.host_ip.filter(|_| !service.ports[at..].iter().any(twin));
        let mut chosen = port.published.filter(|published| *published > 0);
        if let (Some(first), Some(last)) = (chosen, port.published_to) {
            let free = (first..=last).find(|number| !taken.contains(number)).unwrap_or(first);
            taken.insert(free);
            chosen = Some(free);
            container.notes.push(format!(
                "of the published ports {first}-{last} only {free} is used: one listener stands for all replicas"
            ));
        }
        ports.push(spec::Port {
            host,
            published: chosen,
            target: port.target,
            protocol: service.bulsa.protocol().unwrap_or(match port.app_protocol.as_deref() {
                Some("http") => Protocol::Http,
                Some("tcp") => Protocol::Tcp,
                _ => Protocol::Detect,
            }),
        });
    }
    ports
}

/// The TCP ports of the host that are named one by one, and so can't be chosen from a range.
pub(super) fn named_ports(project: &Project) -> BTreeSet<u16> {
    let ports = project.services.values().flat_map(|service| &service.ports);
    ports
        .filter(|port| port.protocol == TCP && port.published_to.is_none())
        .filter_map(|port| port.published)
        .collect()
}

fn probe_of(service: &Service, it: &spec::Service) -> Probe {
    let written =
        it.container.as_ref().and_then(|container| container.healthcheck.clone()).unwrap_or_default();
    let exposed = it.container.iter().flat_map(|container| &container.expose);
    let first = it
        .ports
        .first()
        .map(|port| port.target)
        .or_else(|| exposed.filter(|port| port.protocol == TCP).map(|port| port.port).next());
    if let Some(own) = &service.bulsa.probe {
        let path = own.path.as_deref().unwrap_or("/");
        let mut probe = probe::http(own.port.or(first), path, Accept::Success, &written);
        probe.interval = own.interval.unwrap_or(probe.interval);
        probe.timeout = own.timeout.unwrap_or(probe.timeout);
        probe.rise = own.rise.unwrap_or(probe.rise);
        probe.fall = own.fall.unwrap_or(probe.fall);
        probe.declared = true;
        return probe;
    }
    if probe::asks(&written.test) {
        return probe::declared(&written);
    }
    match first {
        Some(port) if it.role == Role::App && !pin::only_tcp(it) && !said_tcp(service) => {
            probe::http(Some(port), "/", Accept::AnyAnswer, &written)
        }
        _ => probe::up(),
    }
}

/// `x-bulsa.route.protocol: tcp` speaks for ports that are only exposed as well.
fn said_tcp(service: &Service) -> bool {
    service.bulsa.protocol() == Some(Protocol::Tcp)
}

/// Networks and volumes that some container uses, by key.
pub(super) fn used<T: Clone>(
    all: &BTreeMap<String, T>,
    names: impl Iterator<Item = String>,
) -> BTreeMap<String, T> {
    let names: BTreeSet<String> = names.collect();
    all.iter()
        .filter(|(key, _)| names.contains(*key))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}
