//! What a service says without writing it.

use super::super::{
    canonical,
    diagnostic::Pos,
    paths,
    tree::{Kind, Node},
};

/// Fills in one service.
pub(super) fn fill(service: &mut Node) {
    if !matches!(service.kind, Kind::Mapping(_)) {
        return;
    }
    build(service);
    mounts(service);
    if let Some(Kind::Sequence(servers)) = canonical::child_mut(service, "dns").map(|dns| &mut dns.kind) {
        // A variable that is empty names no server.
        servers.retain(|server| server.scalar().is_none_or(|scalar| !scalar.value.is_empty()));
    }
    for secret in list(service, "secrets") {
        if secret.get("target").is_none()
            && let Some(source) = canonical::text_of(secret, "source")
        {
            let target = canonical::text(format!("/run/secrets/{source}"), &secret.pos);
            canonical::set(secret, "target", target);
        }
    }
    list(service, "gpus").iter_mut().for_each(all_devices);
    let reservations = canonical::child_mut(service, "deploy")
        .and_then(|deploy| canonical::child_mut(deploy, "resources"))
        .and_then(|resources| canonical::child_mut(resources, "reservations"));
    if let Some(reservations) = reservations {
        list(reservations, "devices").iter_mut().for_each(all_devices);
    }
    if canonical::text_of(service, "pull_policy") == Some("if_not_present") {
        let pos = service.pos.clone();
        canonical::set(service, "pull_policy", canonical::text("missing", &pos));
    }
    replicas(service);
    depend(service);
}

fn list<'n>(node: &'n mut Node, key: &str) -> &'n mut [Node] {
    canonical::child_mut(node, key).map(canonical::items_mut).unwrap_or_default()
}

fn build(service: &mut Node) {
    let Some(build) = canonical::child_mut(service, "build") else { return };
    let pos = build.pos.clone();
    let missing = |build: &Node, key: &str| build.get(key).is_none_or(canonical::is_null);
    if missing(build, "dockerfile") && missing(build, "dockerfile_inline") {
        canonical::set(build, "dockerfile", canonical::text("Dockerfile", &pos));
    }
}

fn mounts(service: &mut Node) {
    for mount in list(service, "volumes") {
        if let Some(target) = canonical::child_mut(mount, "target")
            && let Some(clean) = target.scalar().map(|scalar| paths::clean(&scalar.value))
        {
            *target = canonical::text(clean, &target.pos);
        }
    }
}

/// A request that names neither a number nor devices means all of them.
fn all_devices(request: &mut Node) {
    if request.get("count").is_none() && request.get("device_ids").is_none() {
        let all = canonical::plain(-1, &request.pos);
        canonical::set(request, "count", all);
    }
}

/// `deploy` repeats `scale`, where there is both.
fn replicas(service: &mut Node) {
    let Some(scale) = service.get("scale").filter(|scale| !canonical::is_null(scale)).cloned() else {
        return;
    };
    if let Some(deploy) = canonical::child_mut(service, "deploy")
        && deploy.get("replicas").is_none()
    {
        canonical::set(deploy, "replicas", scale);
    }
}

/// Links, shared namespaces and shared volumes need the other service first.
fn depend(service: &mut Node) {
    let mut needed: Vec<(String, Pos, bool)> = Vec::new();
    let texts = |key: &str| {
        let items = service.get(key).map(canonical::items).unwrap_or_default();
        items.iter().filter_map(|item| Some((item.scalar()?.value.as_str(), &item.pos)))
    };
    for (link, pos) in texts("links") {
        let parts: Vec<&str> = link.split(':').collect();
        let name = if let [service, _] = parts.as_slice() { *service } else { link };
        needed.push((name.to_owned(), pos.clone(), true));
    }
    for key in ["network_mode", "ipc", "pid", "uts", "cgroup"] {
        if let Some(node) = service.get(key)
            && let Some(name) = node.scalar().and_then(|scalar| scalar.value.strip_prefix("service:"))
        {
            needed.push((name.to_owned(), node.pos.clone(), true));
        }
    }
    for (from, pos) in texts("volumes_from") {
        if !from.starts_with("container:") {
            let name = from.split_once(':').map_or(from, |(name, _)| name);
            needed.push((name.to_owned(), pos.clone(), false));
        }
    }
    let Some((_, first, _)) = needed.first() else { return };
    if service.get("depends_on").is_none() {
        let none = canonical::mapping(Vec::new(), first);
        canonical::set(service, "depends_on", none);
    }
    let Some(depends_on) = canonical::child_mut(service, "depends_on") else { return };
    for (name, pos, restart) in needed {
        if depends_on.get(&name).is_none() {
            let entries = vec![
                canonical::entry("condition", canonical::text("service_started", &pos)),
                canonical::entry("restart", canonical::plain(restart, &pos)),
                canonical::entry("required", canonical::plain(true, &pos)),
            ];
            canonical::set(depends_on, &name, canonical::mapping(entries, &pos));
        }
    }
}
