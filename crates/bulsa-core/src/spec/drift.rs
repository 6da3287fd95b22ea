//! What a container that runs was made from, against what its file says now.
//!
//! Owns: the fingerprint that a container carries of each part of its form, and the comparison with one that Compose made
//! and that carries none: of it only what the Engine shows can be compared. Never: asks the Engine; what is seen there
//! comes from outside.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{
    Service, Spec,
    container::{Container, MountSource},
};

/// The digits of a part's fingerprint: enough to tell two forms of one service apart.
const DIGITS: usize = 16;

/// What is left of a form once its named parts are taken out of it.
const REST: &str = "other settings";

/// A container that exists, as far as it can be compared with a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Made {
    /// [`form`] of what it was made from; `None` for one that we did not make.
    pub form: Option<String>,
    /// The image's name that it was made with.
    pub image: String,
    /// The image's id.
    pub image_id: String,
    /// Its entrypoint, the image's included.
    pub entrypoint: Vec<String>,
    /// Its command, the image's included.
    pub command: Vec<String>,
    /// Its environment, the image's included: `NAME=value`.
    pub env: BTreeSet<String>,
    /// What is mounted into it.
    pub mounts: Vec<MadeMount>,
    /// What Docker publishes: its port and protocol (`80/tcp`), the host's address and port as they were asked for.
    pub published: BTreeSet<(String, Option<IpAddr>, String)>,
}

/// A mount of a container that exists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MadeMount {
    /// `volume`, `bind`, `tmpfs`.
    pub kind: String,
    /// The volume's name, or the host's path.
    pub source: String,
    /// Absolute, in the container.
    pub target: String,
    /// Whether it may be written.
    pub writable: bool,
}

impl MadeMount {
    /// Whether it is a volume that nobody named: the Engine gave it 64 digits.
    #[must_use]
    pub fn is_anonymous(&self) -> bool {
        const ENGINE_DIGITS: usize = 64;
        self.kind == "volume"
            && self.source.len() == ENGINE_DIGITS
            && self.source.bytes().all(|byte| byte.is_ascii_hexdigit())
    }
}

/// Fingerprints of the parts of a service's form: `command=…,environment=…`. Notes, positions and how its image is got
/// are in none; the image is compared by its id.
#[must_use]
pub fn form(service: &Service, spec: &Spec) -> String {
    let parts = parts(service, spec);
    parts.iter().map(|(name, digits)| format!("{name}={digits}")).collect::<Vec<_>>().join(",")
}

/// The parts in which a service differs from the container that it has, in words. Of one that isn't ours only what can
/// be seen is compared.
#[must_use]
pub fn differences(service: &Service, spec: &Spec, made: &Made) -> Vec<&'static str> {
    let Some(container) = &service.container else { return Vec::new() };
    let mut all = Vec::new();
    let is_other_image = match &container.image_id {
        Some(id) => *id != made.image_id,
        // Nobody looked yet which one the name means.
        None => container.image != made.image && container.image != made.image_id && made.form.is_none(),
    };
    if is_other_image {
        all.push("image");
    }
    match &made.form {
        Some(form) => {
            let old: BTreeMap<&str, &str> = form.split(',').filter_map(|part| part.split_once('=')).collect();
            let now = parts(service, spec);
            let differing = now.iter().filter(|(name, digits)| old.get(*name) != Some(&digits.as_str()));
            all.extend(differing.map(|(name, _)| *name));
        }
        None => all.extend(visible(service, container, spec, made)),
    }
    all
}

fn parts(service: &Service, spec: &Spec) -> BTreeMap<&'static str, String> {
    let mut it = service.container.as_deref().cloned().unwrap_or_default();
    let mut parts = BTreeMap::new();
    let mut add = |name: &'static str, text: String| parts.insert(name, text);
    let names: BTreeMap<&String, &String> = it
        .mounts
        .iter()
        .filter_map(|mount| match &mount.source {
            MountSource::Volume { name: Some(key), .. } => Some((key, &spec.volumes.get(key)?.name)),
            _ => None,
        })
        .collect();
    add("volumes", digest(&(&it.mounts, &it.tmpfs, &it.volumes_from, names)));
    let names: BTreeMap<&String, &String> =
        it.networks.keys().filter_map(|key| Some((key, &spec.networks.get(key)?.name))).collect();
    add("networks", digest(&(&it.networks, &it.network_mode, &it.links, &it.external_links, names)));
    add("command", digest(&it.command));
    add("entrypoint", digest(&it.entrypoint));
    add("environment", digest(&service.env));
    add("user", digest(&service.user));
    add("ports", digest(&it.published));
    add("healthcheck", digest(&it.healthcheck));
    add("restart", digest(&it.docker_restart));
    add("stop signal or grace", digest(&(&it.stop_signal, service.stop_grace.as_millis(), &it.pre_stop)));
    add("resources", digest(&(&it.resources, &it.shm_size, &it.storage_options)));
    add("rights", digest(&it.isolation));
    add("labels", digest(&(&it.labels, &it.annotations)));
    add("secrets and configs", digest(&it.files));
    add("logging", digest(&it.logging));
    clear(&mut it);
    add(REST, digest(&it));
    parts
}

/// Takes out what has a name of its own, and what makes no other container.
fn clear(it: &mut Container) {
    let kept = std::mem::take(it);
    *it = Container {
        platform: kept.platform,
        container_name: kept.container_name,
        working_dir: kept.working_dir,
        hostname: kept.hostname,
        domainname: kept.domainname,
        extra_hosts: kept.extra_hosts,
        dns: kept.dns,
        dns_search: kept.dns_search,
        dns_options: kept.dns_options,
        init: kept.init,
        tty: kept.tty,
        stdin_open: kept.stdin_open,
        runtime: kept.runtime,
        post_start: kept.post_start,
        ..Container::default()
    };
}

#[expect(
    clippy::expect_used,
    reason = "types made of text, numbers, lists and maps with text keys always serialise"
)]
fn digest<T: Serialize>(part: &T) -> String {
    let mut value = serde_json::to_value(part).expect("a part of a form serialises");
    leave_out_absent(&mut value);
    let hex: String = Sha256::digest(value.to_string()).iter().map(|byte| format!("{byte:02x}")).collect();
    hex.chars().take(DIGITS).collect()
}

/// Fields that say nothing are in no fingerprint: one that a later version of Bulsa adds makes no difference to the
/// containers that are there.
fn leave_out_absent(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.values_mut().for_each(leave_out_absent);
            fields.retain(|_, field| !is_absent(field));
        }
        Value::Array(items) => items.iter_mut().for_each(leave_out_absent),
        _ => {}
    }
}

fn is_absent(field: &Value) -> bool {
    match field {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    }
}

/// What can be seen of a container that Compose made. What the file leaves to the image is not compared, and a variable
/// that the file no longer has may be the image's.
fn visible(service: &Service, container: &Container, spec: &Spec, made: &Made) -> Vec<&'static str> {
    let mut all = Vec::new();
    if container.command.as_ref().is_some_and(|command| *command != made.command) {
        all.push("command");
    }
    if container.entrypoint.as_ref().is_some_and(|entrypoint| *entrypoint != made.entrypoint) {
        all.push("entrypoint");
    }
    if service.env.iter().any(|(name, value)| !made.env.contains(&format!("{name}={value}"))) {
        all.push("environment");
    }
    let is_there = |target: &str, source: &MountSource| {
        made.mounts.iter().any(|mount| {
            mount.target == target
                && match source {
                    MountSource::Volume { name: Some(key), .. } => {
                        let name = spec.volumes.get(key).map_or(key, |volume| &volume.name);
                        mount.kind == "volume" && mount.source == *name
                    }
                    MountSource::Volume { name: None, .. } => mount.kind == "volume",
                    MountSource::Bind { path, .. } => mount.kind == "bind" && mount.source == *path,
                    MountSource::Tmpfs { .. } | MountSource::Other { .. } => true,
                }
        })
    };
    // The Engine doesn't list every tmpfs.
    let is_listed =
        |source: &MountSource| matches!(source, MountSource::Volume { .. } | MountSource::Bind { .. });
    let listed = container.mounts.iter().filter(|mount| is_listed(&mount.source));
    let mut has_other = listed.clone().any(|mount| !is_there(&mount.target, &mount.source));
    // A named volume or a path that the file no longer has.
    has_other |= made.mounts.iter().any(|mount| {
        let is_of_file = container.mounts.iter().any(|wanted| wanted.target == mount.target);
        let is_named = mount.kind == "bind" || mount.kind == "volume" && !mount.is_anonymous();
        is_named && !is_of_file && container.files.is_empty() && container.volumes_from.is_empty()
    });
    if has_other {
        all.push("volumes");
    }
    if published(container) != made.published {
        all.push("ports");
    }
    all
}

fn published(container: &Container) -> BTreeSet<(String, Option<IpAddr>, String)> {
    let ports = container.published.iter().map(|port| {
        let asked = port.published.clone().unwrap_or_default();
        (format!("{}/{}", port.target, port.protocol), port.host.filter(|ip| !ip.is_unspecified()), asked)
    });
    ports.collect()
}
