//! Which role a service has, and why.

use crate::spec::{Condition, Role, container::NetworkMode, rules::ROLE_SAID};

use super::{
    super::model::{Docker, Project, Service},
    images::{self, Known},
};

/// The role and, in a few words, why. With a container it is a first answer: an image that exposes a port makes an
/// app of a worker ([`crate::spec::pin`]).
pub(in crate::compose) fn role(service: &Service, project: &Project) -> (Role, String) {
    if let Some((role, _)) = &service.bulsa.role {
        return (*role, ROLE_SAID.to_owned());
    }
    if let Some(waiting) = waits_for_its_end(service, project) {
        return (Role::Job, format!("`{}` waits for it to complete", waiting.name));
    }
    if let Some(docker) = &service.docker {
        return with_container(service, docker, project);
    }
    if service.ports.is_empty() {
        (Role::Worker, "it publishes no port".to_owned())
    } else {
        (Role::App, "it publishes a port".to_owned())
    }
}

/// A service that goes on only when this one has done its work.
pub(in crate::compose) fn waits_for_its_end<'p>(
    service: &Service,
    project: &'p Project,
) -> Option<&'p Service> {
    project.services.values().find(|other| {
        other
            .depends_on
            .get(&service.name)
            .is_some_and(|dependency| dependency.condition == Condition::Completed)
    })
}

fn with_container(service: &Service, docker: &Docker, project: &Project) -> (Role, String) {
    let container = &docker.container;
    match known(docker) {
        Some(Known::Backing(what)) => {
            return (
                Role::Shared,
                format!("its image `{}` is {what}; a deploy leaves it alone", container.image),
            );
        }
        Some(Known::Proxy) => return (Role::Shared, proxy_reason(&container.image)),
        Some(Known::WebServer) if has_apps(service, project) => {
            return (Role::Shared, proxy_reason(&container.image));
        }
        Some(Known::WebServer) | None => {}
    }
    let shared_network = match &container.network_mode {
        Some(NetworkMode::Host) => Some("it uses the host's network"),
        Some(NetworkMode::Service(_) | NetworkMode::Container(_)) => {
            Some("it uses another container's network")
        }
        Some(NetworkMode::None) => Some("it has no network"),
        _ => None,
    };
    if let Some(why) = shared_network {
        return (Role::Worker, format!("{why}, so nothing can be put in front of it"));
    }
    if !service.ports.is_empty() {
        (Role::App, "it publishes a port".to_owned())
    } else if container.expose.is_empty() {
        (Role::Worker, "it names no port".to_owned())
    } else {
        (Role::App, "it exposes a port".to_owned())
    }
}

fn proxy_reason(image: &str) -> String {
    format!("its image `{image}` is a reverse proxy; it keeps its ports and reaches the apps by name")
}

/// What is built here is the project's own, whatever its image is called.
pub(in crate::compose) fn known(docker: &Docker) -> Option<Known> {
    if docker.container.build.is_some() {
        return None;
    }
    images::known(&docker.container.image)
}

/// Whether another service may be an app, so that there is something to stand in front of.
fn has_apps(service: &Service, project: &Project) -> bool {
    project.services.values().any(|other| {
        other.name != service.name
            && other.docker.as_ref().is_none_or(|docker| known(docker).is_none())
            && waits_for_its_end(other, project).is_none()
    })
}
