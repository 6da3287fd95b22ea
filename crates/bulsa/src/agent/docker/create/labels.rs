//! The labels of a replica's container.
//!
//! Owns: Compose's labels, so that `docker compose ps`, `logs` and `exec` see it, and our own. Never: claims Compose's
//! configuration hash; ours can't be equal to any, so that Compose knows a container that it did not make.

use std::collections::{BTreeMap, HashMap};

use bulsa_core::spec::{Condition, Role, Service, container::Container, drift};
use sha2::{Digest as _, Sha256};

use super::{super::label, StartReplica};

/// Compose's project.
pub const PROJECT: &str = "com.docker.compose.project";
/// Compose's service.
pub const SERVICE: &str = "com.docker.compose.service";
/// Compose's number of a container among its service's, from 1.
pub const NUMBER: &str = "com.docker.compose.container-number";
/// Compose's `run`: `True`; `False` for what a service is made of.
pub const ONEOFF: &str = "com.docker.compose.oneoff";
/// Compose doesn't see a container without it.
pub const CONFIG_HASH: &str = "com.docker.compose.config-hash";
/// Who made it, in which version.
pub const VERSION: &str = "com.docker.compose.version";

pub(super) fn of(start: &StartReplica<'_>, container: &Container, owner: &str) -> HashMap<String, String> {
    let mut labels: HashMap<String, String> = container.labels.clone().into_iter().collect();
    let sources = &start.spec.sources;
    let mut set = |name: &str, value: String| labels.insert(name.to_owned(), value);
    set(PROJECT, start.project.to_owned());
    set(SERVICE, start.service.name.clone());
    set(NUMBER, start.id.ordinal.to_string());
    set(ONEOFF, "False".to_owned());
    set(CONFIG_HASH, config_hash(start.service));
    set(VERSION, env!("CARGO_PKG_VERSION").to_owned());
    set("com.docker.compose.image", container.image_id.clone().unwrap_or_default());
    set("com.docker.compose.depends_on", depends_on(start.service));
    set("com.docker.compose.project.working_dir", sources.directory.clone());
    set("com.docker.compose.project.config_files", sources.files.join(","));
    if !sources.env_files.is_empty() {
        set("com.docker.compose.project.environment_file", sources.env_files.join(","));
    }
    set(label::OWNER, owner.to_owned());
    set(label::PROJECT, start.project.to_owned());
    set(label::REPLICA, start.id.to_string());
    set(label::RELEASE, start.id.release.to_string());
    set(label::ROLE, role(start.service.role).to_owned());
    if start.service.role == Role::Shared {
        set(label::FORM, drift::form(start.service, start.spec));
    }
    labels
}

fn role(role: Role) -> &'static str {
    match role {
        Role::App => "app",
        Role::Shared => "shared",
        Role::Worker => "worker",
        Role::Job => "job",
    }
}

/// `db:service_healthy:false`: Compose reads it to stop services in order; the last part is its `restart`.
fn depends_on(service: &Service) -> String {
    let condition = |condition| match condition {
        Condition::Started => "service_started",
        Condition::Healthy => "service_healthy",
        Condition::Completed => "service_completed_successfully",
    };
    let all: Vec<String> = service
        .depends_on
        .iter()
        .map(|(name, dependency)| format!("{name}:{}:false", condition(dependency.condition)))
        .collect();
    all.join(",")
}

/// Of everything that the container is made of, files and environment included.
fn config_hash(service: &Service) -> String {
    let own: BTreeMap<&str, serde_json::Value> = BTreeMap::from([
        ("container", serde_json::to_value(&service.container).unwrap_or_default()),
        ("env", serde_json::to_value(&service.env).unwrap_or_default()),
        ("user", service.user.clone().into()),
        ("stop_grace_ms", u64::try_from(service.stop_grace.as_millis()).unwrap_or(u64::MAX).into()),
    ]);
    let text = serde_json::to_vec(&own).unwrap_or_default();
    let hex: String = Sha256::digest(&text).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("bulsa-{}", &hex[..32])
}
