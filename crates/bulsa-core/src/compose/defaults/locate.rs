//! Relative paths become absolute, seen from the project's directory; `~` is the user's home.

use super::{
    super::{canonical, paths, tree::Node},
    Context,
};

/// Absolute, as Compose makes a path of the host: an absolute one stays as it was written, nothing stays nothing.
pub(super) fn absolute(path: &str, context: &Context<'_, '_>) -> String {
    if path.is_empty() { String::new() } else { on_host(path, context) }
}

fn on_host(path: &str, context: &Context<'_, '_>) -> String {
    let path = match (path.strip_prefix('~'), context.environment.get("HOME")) {
        (Some(rest), Some(home)) => paths::clean(&format!("{home}/{rest}")),
        _ => path.to_owned(),
    };
    if path.starts_with('/') || is_windows(&path) { path } else { paths::join(context.project_dir, &path) }
}

fn is_windows(path: &str) -> bool {
    let mut chars = path.chars();
    let drive = chars.next().is_some_and(|c| c.is_ascii_alphabetic())
        && chars.next() == Some(':')
        && matches!(chars.next(), Some('\\' | '/'));
    drive || path.starts_with("\\\\")
}

/// A build context may also be a URL, an image or another service.
fn build_context(path: &str, context: &Context<'_, '_>) -> String {
    const REMOTE: [&str; 7] = ["https://", "http://", "git://", "ssh://", "github.com/", "git@", "service:"];
    if path.contains("://") || REMOTE.iter().any(|prefix| path.starts_with(prefix)) {
        return path.to_owned();
    }
    absolute(path, context)
}

type Make = fn(&str, &Context<'_, '_>) -> String;

fn relocate(node: Option<&mut Node>, make: Make, context: &Context<'_, '_>) {
    let Some(node) = node else { return };
    if canonical::is_null(node) {
        return;
    }
    if let Some(made) = node.scalar().map(|scalar| make(&scalar.value, context)) {
        *node = canonical::text(made, &node.pos);
    }
}

/// Makes every path of the tree absolute.
pub(super) fn paths(root: &mut Node, context: &Context<'_, '_>) {
    for top in ["configs", "secrets"] {
        for entry in canonical::child_mut(root, top).map(canonical::entries_mut).unwrap_or_default() {
            relocate(canonical::child_mut(&mut entry.value, "file"), on_host, context);
        }
    }
    for entry in canonical::child_mut(root, "volumes").map(canonical::entries_mut).unwrap_or_default() {
        local_bind(&mut entry.value, context);
    }
    for entry in canonical::child_mut(root, "services").map(canonical::entries_mut).unwrap_or_default() {
        service(&mut entry.value, context);
    }
}

fn service(service: &mut Node, context: &Context<'_, '_>) {
    if let Some(build) = canonical::child_mut(service, "build") {
        relocate(canonical::child_mut(build, "context"), build_context, context);
        for (key, make) in [("additional_contexts", build_context as Make), ("ssh", on_host)] {
            for entry in canonical::child_mut(build, key).map(canonical::entries_mut).unwrap_or_default() {
                relocate(Some(&mut entry.value), make, context);
            }
        }
    }
    let watched =
        canonical::child_mut(service, "develop").and_then(|node| canonical::child_mut(node, "watch"));
    for trigger in watched.map(canonical::items_mut).unwrap_or_default() {
        relocate(canonical::child_mut(trigger, "path"), absolute, context);
    }
    for mount in canonical::child_mut(service, "volumes").map(canonical::items_mut).unwrap_or_default() {
        if canonical::text_of(mount, "type") == Some("bind") {
            relocate(canonical::child_mut(mount, "source"), on_host, context);
        }
    }
}

/// A volume of the local driver can be a bind mount in disguise.
fn local_bind(volume: &mut Node, context: &Context<'_, '_>) {
    if canonical::text_of(volume, "driver") != Some("local") {
        return;
    }
    let Some(options) = canonical::child_mut(volume, "driver_opts") else { return };
    if canonical::text_of(options, "o") == Some("bind") {
        relocate(canonical::child_mut(options, "device"), on_host, context);
    }
}
