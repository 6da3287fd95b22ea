//! The keys of a service that has a container: from the canonical tree to [`Docker`].
//!
//! Owns: what each of them may be on a single Docker Engine. The long form is read; what a short form means is an
//! earlier step's. A key that is understood and can't be kept here is a note, which the plan shows; one that would
//! break what the file promises is a mistake that says why.
//!
//! Never: looks at another service, fills in a default, or knows what a deploy does.

mod build;
mod deploy;
mod devices;
mod files;
mod image;
mod isolation;
mod mounts;
mod network;
mod resources;
mod run;
#[cfg(test)]
mod tests;
pub(super) mod top;
pub(super) mod values;

use super::{
    diagnostic::{Diagnostics, Pos},
    keys,
    model::{Dependency, Docker, Service},
    service::Context,
    tree::{Entry, Kind, Node},
};
use crate::spec::{Condition, container::NetworkMode};

pub(super) use deploy::deploy;
pub(super) use run::hook;

/// Whether a service runs in a container: it names an image or how to build one.
pub(super) fn is_docker(service: &Node) -> bool {
    ["image", "build"].iter().any(|key| service.get(key).is_some_and(|node| !values::is_null(node)))
}

/// Whether only a container can have this key.
fn is_containers(key: &str) -> bool {
    keys::SERVICE
        .field(key)
        .is_some_and(|field| matches!(field.support, keys::Support::Docker | keys::Support::Noted))
}

/// Adds what other keys imply, as Compose does: who uses a service's name, network or volumes starts after it.
pub(super) fn implied(service: &mut Service, docker: &Docker) {
    let container = &docker.container;
    let mut add = |name: &str, pos: Option<&Pos>| {
        let dependency = Dependency {
            pos: pos.unwrap_or(&service.pos).clone(),
            condition: Condition::Started,
            required: true,
            restart: false,
        };
        if name != service.name {
            service.depends_on.entry(name.to_owned()).or_insert(dependency);
        }
    };
    for (name, _) in &container.links {
        add(name, docker.at.links.as_ref());
    }
    for from in container.volumes_from.iter().filter(|from| !from.starts_with("container:")) {
        add(from.split(':').next().unwrap_or(from), docker.at.volumes_from.as_ref());
    }
    if let Some(NetworkMode::Service(name)) = &container.network_mode {
        add(name, docker.at.network_mode.as_ref());
    }
    for shared in [&container.isolation.ipc, &container.isolation.pid].into_iter().flatten() {
        if let Some(name) = shared.strip_prefix("service:") {
            add(name, None);
        }
    }
}

/// Reads what a service says of its container; mistakes go to `diags` and leave their key out.
pub(super) fn read(
    service: &Node,
    path: &str,
    context: &mut Context<'_, '_>,
    diags: &mut Diagnostics,
) -> Docker {
    let mut docker = Docker::default();
    let Kind::Mapping(entries) = &service.kind else { return docker };
    for entry in entries.iter().filter(|entry| !values::is_null(&entry.value)) {
        let path = format!("{path}.{}", entry.key);
        key(&mut docker, entry, &path, context, diags);
    }
    run::labels(&mut docker, service, path, diags);
    docker
}

fn key(
    docker: &mut Docker,
    entry: &Entry,
    path: &str,
    context: &mut Context<'_, '_>,
    diags: &mut Diagnostics,
) {
    let name = entry.key.as_str();
    // Each room takes the keys that it knows.
    let taken = image::key(docker, entry, path, context, diags)
        || mounts::key(docker, entry, path, context, diags)
        || network::key(docker, entry, path, diags)
        || resources::key(docker, entry, path, diags)
        || isolation::key(docker, entry, path, context, diags)
        || files::key(docker, entry, path, diags)
        || run::key(docker, entry, path, diags);
    // The rest is read where both engines are, or refused by the table of keys.
    debug_assert!(
        taken || !is_containers(name) || matches!(name, "labels" | "label_file"),
        "no room reads `{name}`"
    );
}
