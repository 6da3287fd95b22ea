//! Networks, volumes, secrets and configs: the implicit network, their names, and those that nobody uses.

use std::collections::BTreeSet;

use super::super::{
    canonical,
    diagnostic::Pos,
    support::{self, Engine},
    tree::{Kind, Node},
};

/// Joins every container that says nothing else to the network `default`, and declares it where it is used.
pub(super) fn networks(root: &mut Node) {
    let mut used: Option<Pos> = None;
    for entry in canonical::child_mut(root, "services").map(canonical::entries_mut).unwrap_or_default() {
        let service = &mut entry.value;
        let joins = support::engine(service) == Engine::Docker
            && service.get("provider").is_none()
            && service.get("network_mode").is_none();
        if !joins || service.get("networks").is_some_and(canonical::is_malformed) {
            continue;
        }
        let none = service.get("networks").map(canonical::entries).is_none_or(<[_]>::is_empty);
        if none {
            let pos = entry.key_pos.clone();
            let default = canonical::entry("default", canonical::nothing(&pos));
            canonical::set(service, "networks", canonical::mapping(vec![default], &pos));
        }
        if service.get("networks").and_then(|networks| networks.get("default")).is_some() {
            used.get_or_insert_with(|| entry.key_pos.clone());
        }
    }
    let Some(pos) = used else { return };
    if root.get("networks").is_none_or(canonical::is_null) {
        canonical::set(root, "networks", canonical::mapping(Vec::new(), &pos));
    }
    if let Some(networks) = canonical::child_mut(root, "networks")
        && networks.get("default").is_none()
    {
        canonical::set(networks, "default", canonical::mapping(Vec::new(), &pos));
    }
}

/// Whoever has no name is named after the project and its key; what is external, after its key.
pub(super) fn names(root: &mut Node, project: &str) {
    for top in ["networks", "volumes", "configs", "secrets"] {
        for entry in canonical::child_mut(root, top).map(canonical::entries_mut).unwrap_or_default() {
            let resource = &mut entry.value;
            if canonical::is_malformed(resource) {
                continue;
            }
            if canonical::is_null(resource) {
                resource.kind = Kind::Mapping(Vec::new());
            }
            if resource.get("name").is_none_or(canonical::is_null) {
                let external = canonical::text_of(resource, "external") == Some("true");
                let name = if external { entry.key.clone() } else { format!("{project}_{}", entry.key) };
                canonical::set(resource, "name", canonical::text(name, &entry.key_pos));
            }
        }
    }
}

/// Leaves out the networks, volumes, secrets and configs that no service uses.
pub(super) fn drop_unused(root: &mut Node) {
    let mut used: BTreeSet<(&str, String)> = BTreeSet::new();
    for entry in root.get("services").map(canonical::entries).unwrap_or_default() {
        let service = &entry.value;
        let joined = service.get("networks").map(canonical::entries).unwrap_or_default();
        used.extend(joined.iter().map(|entry| ("networks", entry.key.clone())));
        for mount in service.get("volumes").map(canonical::items).unwrap_or_default() {
            if canonical::text_of(mount, "type") == Some("volume") {
                used.extend(source(mount).map(|source| ("volumes", source)));
            }
        }
        for key in ["secrets", "configs"] {
            let granted = service.get(key).map(canonical::items).unwrap_or_default();
            used.extend(granted.iter().filter_map(|grant| Some((key, source(grant)?))));
        }
        let of_build = service.get("build").and_then(|build| build.get("secrets"));
        let of_build = of_build.map(canonical::items).unwrap_or_default();
        used.extend(of_build.iter().filter_map(|grant| Some(("secrets", source(grant)?))));
    }
    for top in ["networks", "volumes", "secrets", "configs"] {
        if let Some(node) = canonical::child_mut(root, top)
            && let Kind::Mapping(entries) = &mut node.kind
        {
            entries.retain(|entry| used.contains(&(top, entry.key.clone())));
        }
    }
}

fn source(node: &Node) -> Option<String> {
    canonical::text_of(node, "source").map(str::to_owned)
}
