//! From what the file says to the [`Spec`]: every default filled in, every path absolute.
//!
//! Owns: the defaults, the inferred roles, and how a `healthcheck` becomes a probe. Runs only on a project without
//! mistakes.

mod docker;
pub(super) mod images;
mod role;

use std::{collections::BTreeMap, time::Duration};

use crate::spec::{self, Accept, AppPort, Check, Probe, Restart, Role, Spec, container::MountSource};

use super::{
    http_test,
    model::{Healthcheck, Project, Service},
    paths,
};

pub(super) use role::{known, role, waits_for_its_end};

const PROBE_INTERVAL: Duration = Duration::from_secs(2);
const PROBE_START_INTERVAL: Duration = Duration::from_millis(10);
const HTTP_TIMEOUT: Duration = Duration::from_secs(1);
const EXEC_TIMEOUT: Duration = Duration::from_secs(30);
const RISE: u32 = 2;
const FALL: u32 = 3;
const GATE_TIMEOUT: Duration = Duration::from_secs(120);
const STOP_GRACE: Duration = Duration::from_secs(10);
const SIGTERM: i32 = 15;

pub(super) fn spec(project: &Project, project_dir: &str) -> Spec {
    let mut taken = docker::named_ports(project);
    let services: BTreeMap<String, spec::Service> = project
        .services
        .iter()
        .map(|(name, one)| {
            let service = match &one.docker {
                Some(container) => docker::service(one, container, project, &mut taken),
                None => service(one, project, project_dir),
            };
            (name.clone(), service)
        })
        .collect();
    let containers = || services.values().filter_map(|service| service.container.as_ref());
    let networks = containers().flat_map(|container| container.networks.keys().cloned());
    let volumes =
        containers().flat_map(|container| &container.mounts).filter_map(|mount| match &mount.source {
            MountSource::Volume { name, .. } => name.clone(),
            _ => None,
        });
    Spec {
        project: project.name.clone(),
        keep: project.keep,
        limits: project.limits,
        notify: project.notify.clone(),
        trusted_proxies: project.trusted_proxies.clone(),
        networks: docker::used(&project.networks, networks),
        volumes: docker::used(&project.volumes, volumes),
        services,
        ..Spec::default()
    }
}

fn service(service: &Service, project: &Project, project_dir: &str) -> spec::Service {
    let (role, role_reason) = role(service, project);
    let probe = probe(service);
    let interval = service.healthcheck.as_ref().and_then(|check| check.interval);
    let needed = spec::probe::needed(&probe, interval.filter(|_| service.bulsa.probe.is_none()));
    spec::Service {
        name: service.name.clone(),
        role,
        role_reason,
        container: None,
        argv: service.entrypoint.iter().chain(&service.command).flatten().cloned().collect(),
        env: environment(service),
        working_dir: paths::join(project_dir, service.working_dir.as_deref().unwrap_or(".")),
        user: service.user.clone(),
        replicas: service.replicas(),
        ports: ports(service),
        routing: routing(service, !service.ports.is_empty()),
        app_port: service.bulsa.app_port.as_ref().map_or(AppPort::Env, |(port, _)| *port),
        gate_timeout: service.bulsa.gate_timeout.unwrap_or(GATE_TIMEOUT).max(needed),
        probe,
        drain: service.bulsa.drain,
        balance: service.bulsa.balance.clone(),
        times: service.bulsa.times,
        hold: service.bulsa.hold.clone(),
        access_log: service.bulsa.access_log,
        care: service.bulsa.care,
        resources: service.resources,
        drill_block: service.bulsa.drill_block.clone(),
        heartbeat: service.bulsa.heartbeat,
        bake: service.bulsa.bake,
        handover: service.bulsa.handover.unwrap_or(spec::Handover::Overlap),
        restart: match &service.restart {
            Some((_, policy)) => *policy,
            None if role == Role::Job => Restart::No,
            None => Restart::Always,
        },
        stop_signal: service.stop_signal.as_ref().map_or(SIGTERM, |(_, number)| *number),
        stop_grace: service.stop_grace_period.unwrap_or(STOP_GRACE),
        depends_on: depends_on(service, project),
        position: service.pos.to_string(),
    }
}

fn depends_on(service: &Service, project: &Project) -> BTreeMap<String, spec::Dependency> {
    // An optional one whose profile is off isn't there to be waited for.
    let entries = service.depends_on.iter().filter(|(name, _)| project.services.contains_key(*name));
    entries
        .map(|(name, on)| {
            let (condition, required, restart) = (on.condition, on.required, on.restart);
            (name.clone(), spec::Dependency { condition, required, restart })
        })
        .collect()
}

fn environment(service: &Service) -> BTreeMap<String, String> {
    let set = service.environment.iter().filter_map(|(name, value)| Some((name.clone(), value.clone()?)));
    set.collect()
}

fn ports(service: &Service) -> Vec<spec::Port> {
    let port = |port: &super::model::Port| spec::Port {
        host: port.host_ip,
        published: port.published.filter(|published| *published > 0),
        target: port.target,
        protocol: service.bulsa.protocol().unwrap_or_default(),
    };
    service.ports.iter().map(port).collect()
}

/// Which requests on its published ports are its own; where Bulsa publishes none there is nothing to tell apart.
fn routing(service: &Service, is_published: bool) -> spec::Routing {
    let bulsa = &service.bulsa;
    let mut routing = spec::Routing {
        send_proxy: bulsa.send_proxy.as_ref().map(|(version, _)| *version),
        ..spec::Routing::default()
    };
    if is_published {
        routing.proxy_from = bulsa.proxy_from.iter().flat_map(|(peers, _)| peers).cloned().collect();
        if !bulsa.routes.is_empty() {
            routing.routes = bulsa.routes.iter().map(|route| route.route.clone()).collect();
        }
    }
    routing
}

fn probe(service: &Service) -> Probe {
    let written = service.healthcheck.clone().unwrap_or_default();
    let start_period = written.start_period.unwrap_or_default();
    if let Some(probe) = &service.bulsa.probe {
        let path = probe.path.clone().unwrap_or_else(|| "/".to_owned());
        return Probe {
            check: Check::Http {
                port: foreign(probe.port, service),
                path,
                host: None,
                accept: Accept::Success,
            },
            interval: probe.interval.unwrap_or(PROBE_INTERVAL),
            start_interval: given(written.start_interval).unwrap_or(PROBE_START_INTERVAL),
            timeout: probe.timeout.unwrap_or(HTTP_TIMEOUT),
            rise: probe.rise.unwrap_or(RISE),
            fall: probe.fall.unwrap_or(FALL),
            start_period,
            declared: true,
        };
    }
    let (check, own_timeout, declared) = check(&written, service);
    let default_timeout = match check {
        Check::Exec(_) => EXEC_TIMEOUT,
        Check::Http { .. } | Check::Up => HTTP_TIMEOUT,
    };
    let timeout = match (given(written.timeout), own_timeout) {
        (Some(written), Some(own)) => written.min(own),
        (written, own) => written.or(own).unwrap_or(default_timeout),
    };
    let interval = given(written.interval).unwrap_or(PROBE_INTERVAL);
    Probe {
        interval: if let Check::Http { .. } = check { spec::probe::asked_often(interval) } else { interval },
        check,
        start_interval: given(written.start_interval).unwrap_or(PROBE_START_INTERVAL),
        timeout,
        rise: RISE,
        fall: written.retries.filter(|retries| *retries > 0).unwrap_or(FALL),
        start_period,
        declared,
    }
}

/// As in Docker, zero means the default.
fn given(duration: Option<Duration>) -> Option<Duration> {
    duration.filter(|duration| !duration.is_zero())
}

/// The check, the time limit that its program sets itself, and whether the file asked for it.
fn check(healthcheck: &Healthcheck, service: &Service) -> (Check, Option<Duration>, bool) {
    let off = healthcheck.disable == Some(true);
    let test =
        healthcheck.test.as_deref().filter(|test| !off && test.first().is_some_and(|form| form != "NONE"));
    let Some(test) = test else {
        // Who says that no HTTP is spoken can't be asked for an HTTP answer.
        let tcp = service.bulsa.protocol() == Some(spec::Protocol::Tcp);
        let check = if service.ports.is_empty() || tcp {
            Check::Up
        } else {
            Check::Http { port: None, path: "/".to_owned(), host: None, accept: Accept::AnyAnswer }
        };
        return (check, None, false);
    };
    if let Some(http) = http_test::recognise(test) {
        let port = foreign(Some(http.port), service);
        let check = Check::Http { port, path: http.path, host: Some(http.host), accept: http.accept };
        return (check, http.timeout, true);
    }
    let words = test.iter().skip(1).cloned();
    let argv = match test.first().map(String::as_str) {
        Some("CMD-SHELL") => ["/bin/sh", "-c"].map(str::to_owned).into_iter().chain(words).collect(),
        _ => words.collect(),
    };
    (Check::Exec(argv), None, true)
}

/// The port, unless it is the one that the program listens on anyway, which each replica has for itself.
fn foreign(port: Option<u16>, service: &Service) -> Option<u16> {
    let own = match &service.bulsa.app_port {
        Some((AppPort::Fixed(own) | AppPort::Isolated(own), _)) => Some(*own),
        _ => None,
    };
    port.filter(|port| own != Some(*port) && service.ports.iter().all(|published| published.target != *port))
}
