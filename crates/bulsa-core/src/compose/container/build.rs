//! `build`: a directory, or a mapping.

use std::collections::BTreeMap;

use super::{
    super::{
        diagnostic::{Diagnostic, Diagnostics},
        model::Docker,
        paths, read,
        service::Context,
        tree::{Entry, Kind, Node},
    },
    network, resources,
    values::{self, fields},
};
use crate::spec::container::Build;

pub(super) fn read(
    docker: &mut Docker,
    node: &Node,
    path: &str,
    context: &mut Context<'_, '_>,
    diags: &mut Diagnostics,
) -> Option<Build> {
    let mut build = Build { context: ".".to_owned(), ..Build::default() };
    if let Kind::Scalar(_) = node.kind {
        build.context = values::word(node, path, diags)?;
    } else {
        fields(node, path, diags, |entry, path, diags| {
            if !values::is_null(&entry.value) {
                key(&mut build, docker, entry, path, context, diags);
            }
        });
    }
    if !is_remote(&build.context) {
        build.context = paths::join(context.project_dir, &build.context);
    }
    Some(build)
}

fn key(
    build: &mut Build,
    docker: &mut Docker,
    entry: &Entry,
    path: &str,
    context: &Context<'_, '_>,
    diags: &mut Diagnostics,
) {
    let node = &entry.value;
    match entry.key.as_str() {
        "context" => build.context = values::word(node, path, diags).unwrap_or_default(),
        "dockerfile" => build.dockerfile = values::word(node, path, diags),
        "dockerfile_inline" => build.dockerfile_inline = values::word(node, path, diags),
        "args" => build.args = args(node, path, context, diags),
        "target" => build.target = values::word(node, path, diags),
        "labels" => build.labels = values::pairs(node, path, diags),
        "cache_from" => build.cache_from = values::words(node, path, diags),
        "cache_to" => build.cache_to = values::words(node, path, diags),
        "additional_contexts" => {
            let mut contexts = values::pairs(node, path, diags);
            for (name, place) in &mut contexts {
                if let Some(service) = place.strip_prefix("service:") {
                    diags.push(image_of_service(node, path, name, service));
                }
                if !is_remote(place) && !place.contains(':') {
                    *place = paths::join(context.project_dir, place);
                }
            }
            build.additional_contexts = contexts;
        }
        "extra_hosts" => build.extra_hosts = network::hosts(node, path, diags),
        "network" => build.network = values::word(node, path, diags),
        "no_cache" => build.no_cache = read::boolean(node, path, diags).unwrap_or(false),
        "pull" => build.pull = read::boolean(node, path, diags).unwrap_or(false),
        "privileged" => build.privileged = read::boolean(node, path, diags).unwrap_or(false),
        "platforms" => build.platforms = values::words(node, path, diags),
        "shm_size" => build.shm_size = values::bytes(node, path, false, diags),
        "ssh" => build.ssh = ssh(node, path, diags),
        "secrets" => secrets(docker, node, path, diags),
        "tags" => build.tags = values::words(node, path, diags),
        "ulimits" => build.ulimits = resources::ulimits(node, path, diags),
        "isolation" => build.isolation = values::word(node, path, diags),
        "entitlements" => build.entitlements = values::words(node, path, diags),
        "provenance" => build.provenance = values::word(node, path, diags),
        "sbom" => build.sbom = values::word(node, path, diags),
        // Refused by the table of keys.
        _ => {}
    }
}

fn image_of_service(node: &Node, path: &str, name: &str, service: &str) -> Diagnostic {
    let text = format!("{path}.{name}: the image of another service as a context comes in a later version");
    let hint = format!(
        "make one Dockerfile with a stage for each, or build `{service}` first and say `docker-image://IMAGE`"
    );
    Diagnostic::error(node.get(name).map_or(&node.pos, |node| &node.pos), text).hint(hint).about_this_host()
}

/// A URL or a Git address, which is not seen from the project's directory.
fn is_remote(context: &str) -> bool {
    context.contains("://") || context.starts_with("git@") || context.starts_with("github.com/")
}

/// An argument without a value takes it from the shell or `.env`, or is left out.
fn args(
    node: &Node,
    path: &str,
    context: &Context<'_, '_>,
    diags: &mut Diagnostics,
) -> BTreeMap<String, String> {
    let written = values::optional_pairs(node, path, diags).into_iter();
    written
        .filter_map(|(name, value)| {
            let value = value.or_else(|| context.environment.get(&name).map(str::to_owned))?;
            Some((name, value))
        })
        .collect()
}

/// `default`, or an id and its key file or socket.
fn ssh(node: &Node, path: &str, diags: &mut Diagnostics) -> Vec<String> {
    if let Kind::Mapping(_) = node.kind {
        let pairs = values::optional_pairs(node, path, diags).into_iter();
        return pairs
            .map(|(id, key)| match key.filter(|key| !key.is_empty()) {
                Some(key) => format!("{id}={key}"),
                None => id,
            })
            .collect();
    }
    values::words(node, path, diags)
}

fn secrets(docker: &mut Docker, node: &Node, path: &str, diags: &mut Diagnostics) {
    for (item, path) in values::items(node, path, diags) {
        if let Kind::Scalar(_) = item.kind {
            if let Some(source) = values::word(item, &path, diags) {
                docker.build_secrets.push((source.clone(), source, item.pos.clone()));
            }
            continue;
        }
        let (mut source, mut target) = (None, None);
        fields(item, &path, diags, |entry, path, diags| match entry.key.as_str() {
            "source" => source = values::word(&entry.value, path, diags),
            "target" => target = values::word(&entry.value, path, diags),
            // The builder has no use for an owner.
            _ => {}
        });
        match source {
            Some(source) => {
                docker.build_secrets.push((
                    target.unwrap_or_else(|| source.clone()),
                    source,
                    item.pos.clone(),
                ));
            }
            None => diags.push(
                Diagnostic::error(&item.pos, format!("{path} has no `source`"))
                    .expected("source: a secret's key"),
            ),
        }
    }
}
