//! `volumes`, `tmpfs`, `volumes_from`.

use super::{
    super::{
        canonical,
        diagnostic::{Diagnostic, Diagnostics},
        model::Docker,
        paths, read,
        service::Context,
        tree::{Entry, Node},
    },
    values::{self, fields},
};
use crate::spec::container::{Mount, MountSource};

const TYPES: &[&str] = &["volume", "bind", "tmpfs", "image", "npipe", "cluster"];

pub(super) fn key(
    docker: &mut Docker,
    entry: &Entry,
    path: &str,
    context: &Context<'_, '_>,
    diags: &mut Diagnostics,
) -> bool {
    let node = &entry.value;
    match entry.key.as_str() {
        "volumes" => {
            for (item, path) in values::items(node, path, diags) {
                if let Some(mount) = mount(item, &path, context, diags) {
                    docker.container.mounts.push(mount);
                    docker.at.mounts.push(item.pos.clone());
                }
            }
        }
        "tmpfs" => {
            for text in values::words(node, path, diags) {
                let (path, options) = text.split_once(':').unwrap_or((&text, ""));
                docker.container.tmpfs.insert(path.to_owned(), options.to_owned());
            }
        }
        "volumes_from" => {
            docker.at.volumes_from = Some(node.pos.clone());
            docker.container.volumes_from = values::words(node, path, diags);
        }
        _ => return false,
    }
    true
}

/// What all types of a mount have, before it is known which one it is.
#[derive(Default)]
struct Written {
    kind: String,
    source: Option<String>,
    target: String,
    read_only: bool,
    consistency: Option<String>,
    create: Option<bool>,
    propagation: Option<String>,
    recursive: Option<String>,
    selinux: Option<String>,
    no_copy: bool,
    subpath: Option<String>,
    labels: std::collections::BTreeMap<String, String>,
    size: Option<i64>,
    mode: Option<u32>,
}

fn mount(node: &Node, path: &str, context: &Context<'_, '_>, diags: &mut Diagnostics) -> Option<Mount> {
    let malformed = |key| node.get(key).is_some_and(canonical::is_malformed);
    if malformed("type") || malformed("target") {
        return None;
    }
    let mut written = Written::default();
    fields(node, path, diags, |entry, path, diags| {
        let node = &entry.value;
        if values::is_null(node) {
            return;
        }
        match entry.key.as_str() {
            "type" => written.kind = values::word(node, path, diags).unwrap_or_default(),
            "source" => written.source = values::word(node, path, diags),
            "target" => written.target = values::word(node, path, diags).unwrap_or_default(),
            "read_only" => written.read_only = read::boolean(node, path, diags).unwrap_or(false),
            "consistency" => written.consistency = values::word(node, path, diags),
            "bind" => {
                fields(node, path, diags, |entry, path, diags| bind(&mut written, entry, path, diags));
            }
            "volume" => {
                fields(node, path, diags, |entry, path, diags| {
                    volume(&mut written, entry, path, diags);
                });
            }
            "tmpfs" => fields(node, path, diags, |entry, path, diags| match entry.key.as_str() {
                "size" => written.size = values::bytes(&entry.value, path, false, diags),
                _ => written.mode = values::mode(&entry.value, path, diags),
            }),
            _ => fields(node, path, diags, |entry, path, diags| {
                written.subpath = values::word(&entry.value, path, diags);
            }),
        }
    });
    finish(written, node, path, context, diags)
}

fn bind(written: &mut Written, entry: &Entry, path: &str, diags: &mut Diagnostics) {
    let node = &entry.value;
    match entry.key.as_str() {
        "create_host_path" => written.create = read::boolean(node, path, diags),
        "propagation" => written.propagation = values::word(node, path, diags),
        "recursive" => written.recursive = values::word(node, path, diags),
        _ => written.selinux = values::word(node, path, diags),
    }
}

fn volume(written: &mut Written, entry: &Entry, path: &str, diags: &mut Diagnostics) {
    let node = &entry.value;
    match entry.key.as_str() {
        "nocopy" => written.no_copy = read::boolean(node, path, diags).unwrap_or(false),
        "subpath" => written.subpath = values::word(node, path, diags),
        _ => written.labels = values::pairs(node, path, diags),
    }
}

fn finish(
    written: Written,
    node: &Node,
    path: &str,
    context: &Context<'_, '_>,
    diags: &mut Diagnostics,
) -> Option<Mount> {
    let target = node.get("target").map_or(&node.pos, |node| &node.pos);
    if !written.target.starts_with('/') {
        diags.push(
            Diagnostic::error(target, format!("{path}: {:?} is no place in a container", written.target))
                .expected("target: an absolute path"),
        );
        return None;
    }
    if written.kind == "volume" && written.selinux.is_some() {
        diags.push(
            Diagnostic::warning(
                &node.pos,
                format!("{path}: `z` and `Z` are for directories of the host, and do nothing here"),
            )
            .hint("take it out; volumes have their label from Docker"),
        );
    }
    let needed = || Diagnostic::error(&node.pos, format!("{path}: a mount of this type needs a `source`"));
    let source = match written.kind.as_str() {
        "volume" => MountSource::Volume {
            name: written.source.filter(|name| !name.is_empty()),
            no_copy: written.no_copy,
            subpath: written.subpath,
            labels: written.labels,
        },
        "bind" => {
            // Without one it has been named already.
            let source = written.source?;
            // As in Compose: a `bind` that doesn't say so makes no directory, and no `bind` at all makes one.
            let has_options = node.get("bind").is_some_and(|options| !values::is_null(options));
            MountSource::Bind {
                path: paths::join(context.project_dir, &source),
                create: written.create.unwrap_or(!has_options),
                propagation: written.propagation,
                selinux: written.selinux,
                recursive: written.recursive,
            }
        }
        "tmpfs" => MountSource::Tmpfs { size: written.size, mode: written.mode },
        "image" => {
            let Some(source) = written.source else {
                diags.push(needed().expected("source: an image"));
                return None;
            };
            MountSource::Other { kind: written.kind, source, subpath: written.subpath }
        }
        other => {
            diags.push(no_such_type(node, path, other));
            return None;
        }
    };
    Some(Mount {
        target: written.target,
        source,
        read_only: written.read_only,
        consistency: written.consistency.filter(|text| !text.is_empty()),
    })
}

fn no_such_type(node: &Node, path: &str, kind: &str) -> Diagnostic {
    let pos = node.get("type").map_or(&node.pos, |node| &node.pos);
    match kind {
        "npipe" => Diagnostic::error(pos, format!("{path}: `npipe` is for Windows containers")),
        "cluster" => Diagnostic::error(pos, format!("{path}: `cluster` volumes need Swarm"))
            .hint("use `type: volume` with a driver that reaches the storage"),
        _ => Diagnostic::error(pos, format!("{path}: there is no type {kind:?}"))
            .expected("type: volume, bind, tmpfs or image")
            .nearest(kind, TYPES.iter().copied()),
    }
}
