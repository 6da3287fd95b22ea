//! What no single service can see: dependencies that lead nowhere or in a circle, ports and addresses that clash.

mod addresses;
mod care;
pub(super) mod docker;
mod traffic;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use crate::spec::{Accept, AppPort, Role};

use super::{
    diagnostic::{Diagnostic, Diagnostics},
    http_test,
    model::{Port, Project, Service},
    normalise,
};

/// Looks at the project as a whole.
pub(super) fn check(project: &mut Project, diags: &mut Diagnostics) {
    undefined(project, diags);
    cycles(project, diags);
    ports(project, diags);
    addresses::check(project, diags);
    for service in project.services.values_mut() {
        care::settle_memory(service, diags);
    }
    for service in project.services.values() {
        care::check(service, project, diags);
        roles(service, project, diags);
        fixed_port(service, diags);
        careless_curl(service, diags);
        traffic::check(service, diags);
        if let Some(container) = &service.docker {
            docker::check(service, container, project, diags);
        }
    }
}

/// The one place where a recognised test is judged more strictly than by its program.
fn careless_curl(service: &Service, diags: &mut Diagnostics) {
    let Some(check) = &service.healthcheck else { return };
    let test = check.test.as_deref().and_then(http_test::recognise);
    if let (Some(test), Some(pos)) = (test, &check.test_pos)
        && test.accept == Accept::AnyAnswer
    {
        let path = format!("services.{}.healthcheck.test", service.name);
        diags.push(
            Diagnostic::warning(pos, format!("{path}: curl without -f passes on every answer, also on 500"))
                .hint("Bulsa counts an answer of 500 or more as a failure; add -f to count 400 to 499 too"),
        );
    }
}

fn undefined(project: &mut Project, diags: &mut Diagnostics) {
    let Project { services, names, .. } = project;
    for service in services.values() {
        for (name, dependency) in &service.depends_on {
            if !names.contains(name) {
                diags.push(
                    Diagnostic::error(
                        &dependency.pos,
                        format!("services.{}.depends_on: there is no service `{name}`", service.name),
                    )
                    .nearest(name, names.iter().map(String::as_str)),
                );
            }
        }
    }
}

/// Depth first; each circle is named once, from its first service in the order of names.
fn cycles(project: &Project, diags: &mut Diagnostics) {
    let mut done: BTreeSet<&str> = BTreeSet::new();
    for start in project.services.keys() {
        // The way down, each with what is still to be followed from there.
        let mut way: Vec<(&str, Vec<&str>)> = vec![(start, targets(project, start))];
        while let Some((name, open)) = way.last_mut() {
            let Some(next) = open.pop() else {
                done.insert(name);
                way.pop();
                continue;
            };
            if let Some(first) = way.iter().position(|(name, _)| *name == next) {
                let circle: Vec<&str> = way[first..].iter().map(|(name, _)| *name).chain([next]).collect();
                let last = way.last().map_or(next, |(name, _)| *name);
                if let Some(dependency) = project.services.get(last).and_then(|s| s.depends_on.get(next)) {
                    diags.push(
                        Diagnostic::error(
                            &dependency.pos,
                            format!("the services wait for each other: {}", circle.join(" → ")),
                        )
                        .hint("remove one of these dependencies"),
                    );
                }
            } else if !done.contains(next) {
                let open = targets(project, next);
                way.push((next, open));
            }
        }
    }
}

fn targets<'p>(project: &'p Project, name: &str) -> Vec<&'p str> {
    project
        .services
        .get(name)
        .map(|s| s.depends_on.keys().map(String::as_str).rev().collect())
        .unwrap_or_default()
}

struct Published<'p> {
    service: &'p Service,
    port: &'p Port,
    /// Docker publishes it, which knows no routes.
    by_docker: bool,
}

fn ports(project: &Project, diags: &mut Diagnostics) {
    let mut by_number: BTreeMap<u16, Vec<Published<'_>>> = BTreeMap::new();
    for service in project.services.values().filter(|service| !docker::ports_mean_nothing(service)) {
        let by_docker = service.docker.is_some() && normalise::role(service, project).0 == Role::Shared;
        // Of a range the first free port is taken.
        for port in service.ports.iter().filter(|port| port.published_to.is_none()) {
            if let Some(number) = port.published.filter(|number| *number > 0) {
                by_number.entry(number).or_default().push(Published { service, port, by_docker });
            }
        }
    }
    for (number, users) in &mut by_number {
        users.sort_by(|a, b| a.port.pos.cmp(&b.port.pos));
        for (i, later) in users.iter().enumerate() {
            if let Some(clash) = users[..i].iter().find_map(|earlier| clash(*number, earlier, later)) {
                diags.push(clash);
            }
        }
    }
}

fn clash(number: u16, earlier: &Published<'_>, later: &Published<'_>) -> Option<Diagnostic> {
    if !overlap(earlier.port.host_ip, later.port.host_ip) || earlier.port.protocol != later.port.protocol {
        return None;
    }
    let (a, b) = (&earlier.service.name, &later.service.name);
    if a == b && is_dual_stack(earlier.port, later.port) {
        return None;
    }
    let first = &earlier.port.pos;
    let who = if a == b {
        format!("services.{b}.ports: port {number} is published twice")
    } else {
        format!("services.{b}.ports: port {number} is published by `{a}` too")
    };
    if unspecified(earlier.port.host_ip) != unspecified(later.port.host_ip) || !same(earlier.port, later.port)
    {
        return Some(
            Diagnostic::error(
                &later.port.pos,
                format!("{who}, on another address that includes this one or is included"),
            )
            .hint(format!("the other one is at {first}; give both the same address")),
        );
    }
    if a != b && !earlier.by_docker && !later.by_docker {
        if let Some(tcp) = [earlier, later].into_iter().find(|one| traffic::is_tcp(one.service)) {
            return Some(Diagnostic::error(&later.port.pos, who).hint(format!(
                "the other one is at {first}; take another port: `{}` is plain TCP, which has no hosts and paths to \
                 tell services apart by",
                tcp.service.name
            )));
        }
        if !traffic::share_a_route(earlier.service, later.service) {
            return None;
        }
    }
    let diagnostic = Diagnostic::error(&later.port.pos, who);
    Some(if a == b {
        diagnostic.hint(format!("the other one is at {first}; remove one of them"))
    } else {
        diagnostic.hint(format!(
            "the other one is at {first}; take another port, or give the services different `x-bulsa.route`s"
        ))
    })
}

/// Whether two ports are one in both families of addresses: `0.0.0.0:80:80` beside `[::]:80:80`.
pub(super) fn is_dual_stack(a: &Port, b: &Port) -> bool {
    let (Some(one), Some(other)) = (a.host_ip, b.host_ip) else { return false };
    one.is_unspecified()
        && other.is_unspecified()
        && one.is_ipv4() != other.is_ipv4()
        && (a.target, &a.protocol, a.published, a.published_to)
            == (b.target, &b.protocol, b.published, b.published_to)
}

fn same(a: &Port, b: &Port) -> bool {
    a.host_ip == b.host_ip || (unspecified(a.host_ip) && unspecified(b.host_ip))
}

fn unspecified(ip: Option<IpAddr>) -> bool {
    ip.is_none_or(|ip| ip.is_unspecified())
}

/// Whether one listener would take the other's connections.
fn overlap(a: Option<IpAddr>, b: Option<IpAddr>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) if a.is_ipv4() == b.is_ipv4() => {
            a == b || a.is_unspecified() || b.is_unspecified()
        }
        // `::` takes IPv4 connections as well.
        (Some(a), Some(b)) => (a.is_ipv6() && a.is_unspecified()) || (b.is_ipv6() && b.is_unspecified()),
        _ => true,
    }
}

fn roles(service: &Service, project: &Project, diags: &mut Diagnostics) {
    let (role, reason) = normalise::role(service, project);
    let pos = service.bulsa.role.as_ref().map_or(&service.pos, |(_, pos)| pos);
    let path = format!("services.{}", service.name);
    if matches!(role, Role::Job | Role::Worker)
        && !docker::ports_mean_nothing(service)
        && let Some(port) = service.ports.first()
    {
        let kind = if role == Role::Job { "job" } else { "worker" };
        diags.push(
            Diagnostic::error(
                &port.pos,
                format!("{path}: a {kind} publishes no port, and this is one: {reason}"),
            )
            .hint("remove `ports`, or change `x-bulsa.role`"),
        );
    }
    let waiting = normalise::waits_for_its_end(service, project);
    if role != Role::Job
        && let Some(waiting) = waiting
    {
        diags.push(
            Diagnostic::error(
                pos,
                format!("{path}: `{}` waits for it to complete, but its role isn't `job`", waiting.name),
            )
            .hint("make it `role: job`, or change the condition"),
        );
    }
}

fn fixed_port(service: &Service, diags: &mut Diagnostics) {
    if service.docker.is_some() {
        return;
    }
    if let Some((AppPort::Fixed(port), pos)) = &service.bulsa.app_port
        && service.replicas() > 1
    {
        let pos = service.replicas_pos.as_ref().unwrap_or(pos);
        diags.push(
            Diagnostic::error(
                pos,
                format!("services.{}: {} replicas can't all listen on port {port}", service.name, service.replicas()),
            )
            .hint(format!(
                "let the program listen on $PORT, or run as root with `app_port: {{port: {port}, isolate: true}}`"
            )),
        );
    }
}
