//! What a container can't be together with its role: UDP behind the proxy, routes by labels.

use crate::spec::{Role, container::NetworkMode, rules};

use super::super::{
    diagnostic::{Diagnostic, Diagnostics, Pos},
    model::{Docker, Project, Service},
    normalise::{self, images},
};

/// Looks at a service that has a container.
pub(super) fn check(service: &Service, docker: &Docker, project: &Project, diags: &mut Diagnostics) {
    let (role, _) = normalise::role(service, project);
    if role == Role::App {
        not_tcp(service, docker, diags);
    }
    if matches!(role, Role::App | Role::Worker) {
        routed_by_labels(service, docker, project, diags);
    }
    if let Some(pos) = service.bulsa.at.get("heartbeat") {
        diags.push(
            Diagnostic::error(
                pos,
                format!("services.{}: `heartbeat` is for programs without a container", service.name),
            )
            .hint("remove it: the socket that it is sent to is in no container; a `healthcheck` can ask the program's own loop"),
        );
    }
    if let Some((_, pos)) = &service.bulsa.app_port {
        diags.push(
            Diagnostic::error(
                pos,
                format!("services.{}: `app_port` is for programs without a container", service.name),
            )
            .hint("remove it: each container has ports of its own"),
        );
    }
}

fn not_tcp(service: &Service, docker: &Docker, diags: &mut Diagnostics) {
    if !rules::own_network(&docker.container) {
        return;
    }
    for port in service.ports.iter().filter(|port| port.protocol != "tcp") {
        diags.push(
            Diagnostic::error(
                &port.pos,
                format!(
                    "services.{}.ports: {} port {} of an app can't be switched from one release to the next: \
                     Bulsa's proxy carries TCP only",
                    service.name,
                    port.protocol.to_uppercase(),
                    port.target
                ),
            )
            .hint(
                "remove the port, or say `x-bulsa: {role: shared}` in the service: then Docker publishes all its ports, \
                 and a deploy leaves it alone",
            )
            .about_this_host(),
        );
    }
}

/// The label by which a proxy would route to the service, where there is one, and its place.
pub(in crate::compose) fn routing_label(docker: &Docker) -> Option<(&str, &Pos)> {
    let labels = &docker.container.labels;
    if labels.get("traefik.enable").is_some_and(|value| value.eq_ignore_ascii_case("false")) {
        return None;
    }
    let routes = |name: &str| {
        let traefik = ["traefik.enable", "traefik.http.", "traefik.tcp.", "traefik.udp."];
        let caddy = name == "caddy" || name.starts_with("caddy.") || name.starts_with("caddy_");
        caddy || traefik.iter().any(|start| name.starts_with(start))
    };
    labels
        .keys()
        .filter(|name| routes(name))
        .filter_map(|name| Some((name.as_str(), docker.at.labels.get(name)?)))
        .min_by(|a, b| a.1.cmp(b.1))
}

/// The service of the file that takes its routes from labels.
pub(in crate::compose) fn label_proxy(project: &Project) -> Option<&Service> {
    project.services.values().find(|service| {
        service.docker.as_ref().is_some_and(|docker| {
            docker.container.build.is_none() && images::routes_by_labels(&docker.container.image)
        })
    })
}

fn routed_by_labels(service: &Service, docker: &Docker, project: &Project, diags: &mut Diagnostics) {
    let Some((label, pos)) = routing_label(docker) else { return };
    let Some(proxy) = label_proxy(project).filter(|proxy| proxy.name != service.name) else { return };
    diags.push(
        Diagnostic::error(
            pos,
            format!(
                "services.{}: the label `{label}` makes `{}` send requests to every replica as soon as it runs, healthy \
                 or not, and to the old release and the new one at once",
                service.name, proxy.name
            ),
        )
        .hint(patch(service, docker, &proxy.name))
        .about_this_host(),
    );
}

/// What to write instead.
fn patch(service: &Service, docker: &Docker, proxy: &str) -> String {
    let labels = &docker.container.labels;
    let port = labels
        .iter()
        .find(|(name, _)| name.ends_with(".loadbalancer.server.port"))
        .and_then(|(_, port)| port.parse::<u16>().ok())
        .or_else(|| docker.container.expose.first().map(|port| port.port))
        .or_else(|| service.ports.first().map(|port| port.target));
    let port = port.map_or("PORT".to_owned(), |port| port.to_string());
    let host = labels.values().find_map(|rule| host_of(rule));
    let route = host.map_or(String::new(), |host| format!(" and `x-bulsa: {{route: {{host: {host}}}}}`"));
    format!(
        "in `{}` remove the labels and say `ports: [\"80:{port}\"]`{route}; then take port 80 from `{proxy}`, or let \
         `{proxy}` reach `http://{}:{port}` by a file of its own",
        service.name, service.name
    )
}

/// ``Host(`shop.example`)`` of a Traefik rule.
fn host_of(rule: &str) -> Option<&str> {
    let rest = rule.split_once("Host(")?.1;
    let quote = rest.chars().next().filter(|c| matches!(c, '`' | '"' | '\''))?;
    rest.get(1..)?.split(quote).next().filter(|host| !host.is_empty())
}

/// Whether ports in the file mean nothing: it has no network of its own.
pub(super) fn ports_mean_nothing(service: &Service) -> bool {
    let mode = service.docker.as_ref().and_then(|docker| docker.container.network_mode.as_ref());
    matches!(
        mode,
        Some(NetworkMode::Host | NetworkMode::None | NetworkMode::Service(_) | NetworkMode::Container(_))
    )
}
