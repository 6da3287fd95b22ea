//! What contradicts itself, or names what isn't there. Compose refuses the same.

use std::collections::BTreeMap;

use super::super::{
    canonical,
    diagnostic::{Diagnostic, Diagnostics, Pos},
    tree::{Entry, Node},
};

/// Looks at the whole tree, names and paths filled in.
pub(super) fn check(root: &Node, diags: &mut Diagnostics) {
    let mut containers: BTreeMap<&str, &str> = BTreeMap::new();
    for entry in root.get("services").map(canonical::entries).unwrap_or_default() {
        references(root, entry, diags);
        exclusive(entry, diags);
        amounts(entry, diags);
        targets(entry, diags);
        container_name(entry, &mut containers, diags);
    }
    for (top, sources) in
        [("secrets", &["file", "environment"][..]), ("configs", &["file", "environment", "content"])]
    {
        for entry in root.get(top).map(canonical::entries).unwrap_or_default() {
            source(top, entry, sources, diags);
        }
    }
    for entry in root.get("volumes").map(canonical::entries).unwrap_or_default() {
        external(entry, diags);
    }
}

/// A service that has an image, but an empty one. It is usually a variable without a value.
pub(super) fn image(service: &mut Node, path: &str, diags: &mut Diagnostics) {
    let built = given(service, "build").is_some() || given(service, "provider").is_some();
    let Some(image) = canonical::child_mut(service, "image").filter(|_| !built) else { return };
    if image.scalar().is_some_and(|scalar| scalar.value.is_empty()) && !canonical::is_null(image) {
        diags.push(
            Diagnostic::error(&image.pos, format!("{path}.image is empty"))
                .expected("an image's name, or no `image` at all for a program on this host")
                .hint("if it is a variable, set it, or give it a default: ${NAME:-image}"),
        );
        canonical::spoil(image);
    }
}

fn given<'n>(node: &'n Node, key: &str) -> Option<&'n Node> {
    node.get(key).filter(|value| !canonical::is_null(value))
}

/// A text that says something.
fn filled<'n>(node: &'n Node, key: &str) -> Option<&'n str> {
    canonical::text_of(node, key).filter(|text| !text.is_empty())
}

fn references(root: &Node, service: &Entry, diags: &mut Diagnostics) {
    let mut refer = |top: &str, what: &str, key: &str, name: &str, pos: &Pos| {
        let known = root.get(top).map(canonical::entries).unwrap_or_default();
        if known.iter().all(|entry| entry.key != name) {
            let mistake = format!("services.{}.{key}: there is no {what} `{name}`", service.key);
            diags.push(
                Diagnostic::error(pos, mistake)
                    .nearest(name, known.iter().map(|entry| entry.key.as_str()))
                    .hint(format!("declare it under `{top}` at the top of the file")),
            );
        }
    };
    let node = &service.value;
    // Who has a mode joins none of them, which is a mistake of its own.
    let joined = node.get("networks").filter(|_| filled(node, "network_mode").is_none());
    for entry in joined.map(canonical::entries).unwrap_or_default() {
        refer("networks", "network", "networks", &entry.key, &entry.key_pos);
    }
    for mount in node.get("volumes").map(canonical::items).unwrap_or_default() {
        if let (Some("volume"), Some(name)) =
            (canonical::text_of(mount, "type"), given(mount, "source").and_then(Node::scalar))
            && !name.value.is_empty()
        {
            refer("volumes", "volume", "volumes", &name.value, &mount.pos);
        }
    }
    let lists = [
        ("secrets", "secret", "secrets", node.get("secrets")),
        ("configs", "config", "configs", node.get("configs")),
        ("secrets", "secret", "build.secrets", node.get("build").and_then(|build| build.get("secrets"))),
    ];
    for (top, what, key, list) in lists {
        for grant in list.map(canonical::items).unwrap_or_default() {
            if let Some(name) = canonical::text_of(grant, "source") {
                refer(top, what, key, name, &grant.pos);
            }
        }
    }
    for entry in node.get("models").map(canonical::entries).unwrap_or_default() {
        refer("models", "model", "models", &entry.key, &entry.key_pos);
    }
}

/// Keys that can't stand beside each other.
fn exclusive(service: &Entry, diags: &mut Diagnostics) {
    let path = format!("services.{}", service.key);
    let node = &service.value;
    if let (Some(_), Some(networks)) = (filled(node, "network_mode"), node.entry("networks"))
        && !canonical::entries(&networks.value).is_empty()
    {
        let mistake = format!("{path}: `network_mode` and `networks` can't be together");
        diags.push(Diagnostic::error(&networks.key_pos, mistake).hint("keep one of the two"));
    }
    if let Some(build) = given(node, "build")
        && let (Some(_), Some(inline)) = (given(build, "dockerfile"), build.entry("dockerfile_inline"))
    {
        let mistake = format!("{path}.build: `dockerfile` and `dockerfile_inline` can't be together");
        diags.push(Diagnostic::error(&inline.key_pos, mistake).hint("keep one of the two"));
    }
    let platforms = given(node, "build").and_then(|build| build.get("platforms")).map(canonical::items);
    if let (Some(platform), Some(platforms)) = (filled(node, "platform"), platforms)
        && !platforms.is_empty()
        && platforms.iter().all(|item| item.scalar().is_none_or(|scalar| scalar.value != platform))
        && let Some(entry) = node.entry("platform")
    {
        let mistake = format!("{path}: `build.platforms` doesn't have the service's `platform` {platform}");
        diags.push(
            Diagnostic::error(&entry.value.pos, mistake).hint("add it there, or remove one of the two"),
        );
    }
    for mount in node.get("volumes").map(canonical::items).unwrap_or_default() {
        if canonical::text_of(mount, "type") == Some("bind") && given(mount, "source").is_none() {
            let mistake = format!("{path}.volumes: a bind has no `source`");
            diags.push(Diagnostic::error(&mount.pos, mistake).expected("source: a path of this host"));
        }
    }
    let reserved = node
        .get("deploy")
        .and_then(|deploy| deploy.get("resources"))
        .and_then(|resources| resources.get("reservations"))
        .and_then(|reservations| reservations.get("devices"));
    let requests = [node.get("gpus"), reserved].into_iter().flatten().flat_map(canonical::items);
    for request in requests {
        if request.get("count").is_some() && request.get("device_ids").is_some() {
            let mistake = format!("{path}: `count` and `device_ids` of one request can't be together");
            diags.push(Diagnostic::error(&request.pos, mistake).hint("keep one of the two"));
        }
    }
}

/// The short keys and those of `deploy.resources` must agree.
fn amounts(service: &Entry, diags: &mut Diagnostics) {
    let node = &service.value;
    let Some(resources) = node.get("deploy").and_then(|deploy| deploy.get("resources")) else { return };
    for (short, group, long) in [
        ("cpus", "limits", "cpus"),
        ("mem_limit", "limits", "memory"),
        ("mem_reservation", "reservations", "memory"),
        ("pids_limit", "limits", "pids"),
    ] {
        let (Some(own), Some(group_node)) = (given(node, short), given(resources, group)) else { continue };
        let own_text = own.scalar().map(|scalar| scalar.value.as_str());
        if own_text != Some("0") && own_text != canonical::text_of(group_node, long) {
            let mistake = format!(
                "services.{}: `{short}` and `deploy.resources.{group}.{long}` say different things",
                service.key
            );
            diags.push(Diagnostic::error(&own.pos, mistake).hint("keep one of the two"));
        }
    }
}

/// Two things can't be mounted at one place.
fn targets(service: &Entry, diags: &mut Diagnostics) {
    let node = &service.value;
    let mut seen: BTreeMap<&str, &Pos> = BTreeMap::new();
    let memory = node.get("tmpfs").map(canonical::items).unwrap_or_default().iter().filter_map(|item| {
        let whole = item.scalar()?.value.as_str();
        Some((whole.split_once(':').map_or(whole, |(path, _)| path), &item.pos))
    });
    let mounts = node.get("volumes").map(canonical::items).unwrap_or_default().iter();
    let mounts = mounts.filter_map(|mount| Some((canonical::text_of(mount, "target")?, &mount.pos)));
    for (target, pos) in memory.chain(mounts) {
        if let Some(first) = seen.insert(target, pos) {
            let mistake = format!("services.{}: two mounts at {target}", service.key);
            diags.push(Diagnostic::error(pos, mistake).hint(format!("the first one is at {first}")));
        }
    }
}

/// One name is one container.
fn container_name<'n>(
    service: &'n Entry,
    containers: &mut BTreeMap<&'n str, &'n str>,
    diags: &mut Diagnostics,
) {
    let node = &service.value;
    let Some(name) = given(node, "container_name") else { return };
    let Some(text) = name.scalar().map(|scalar| scalar.value.as_str()) else { return };
    let replicas = node.get("scale").or_else(|| node.get("deploy").and_then(|deploy| deploy.get("replicas")));
    let replicas = replicas.and_then(Node::scalar).and_then(|scalar| scalar.value.parse::<i64>().ok());
    if replicas.is_some_and(|replicas| replicas > 1) {
        let mistake =
            format!("services.{}.container_name: several replicas can't have one name", service.key);
        diags.push(Diagnostic::error(&name.pos, mistake).hint("remove `container_name`"));
    }
    if let Some(other) = containers.insert(text, &service.key) {
        let mistake = format!("services.{}.container_name: `{other}` has the name {text:?} too", service.key);
        diags.push(Diagnostic::error(&name.pos, mistake).hint("give each its own name, or none"));
    }
}

/// Where a secret's or config's content comes from.
fn source(top: &str, entry: &Entry, sources: &[&str], diags: &mut Diagnostics) {
    let node = &entry.value;
    if canonical::is_malformed(node) {
        return;
    }
    let found: Vec<&str> = sources.iter().copied().filter(|key| given(node, key).is_some()).collect();
    let names: Vec<String> = sources.iter().map(|name| format!("`{name}`")).collect();
    let path = format!("{top}.{}", entry.key);
    if let [_, second, ..] = found.as_slice()
        && let Some(second) = node.entry(second)
    {
        let mistake = format!("{path} has more than one of {}", names.join(", "));
        diags.push(Diagnostic::error(&second.key_pos, mistake).hint("keep one of them"));
    }
    let elsewhere = node.get("driver").is_some() || canonical::text_of(node, "external") == Some("true");
    if found.is_empty() && !elsewhere {
        diags.push(
            Diagnostic::error(&entry.key_pos, format!("{path} says nowhere what is in it"))
                .expected(format!("one of {}, or `external: true`", names.join(", "))),
        );
    }
}

/// A volume that was made elsewhere can't be configured here.
fn external(volume: &Entry, diags: &mut Diagnostics) {
    if canonical::text_of(&volume.value, "external") != Some("true") {
        return;
    }
    for entry in canonical::entries(&volume.value) {
        if !matches!(entry.key.as_str(), "name" | "external") && !entry.key.starts_with("x-") {
            let mistake = format!("volumes.{}: `{}` can't be beside `external`", volume.key, entry.key);
            diags.push(Diagnostic::error(&entry.key_pos, mistake).hint("keep one of the two"));
        }
    }
}
