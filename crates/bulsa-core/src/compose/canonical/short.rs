//! The short forms that have a room of their own nowhere else.

use super::{
    super::{
        diagnostic::{Diagnostic, Diagnostics},
        keys::Short,
        read,
        tree::{Entry, Kind, Node},
    },
    Distinct, entry, is_null, is_open, lists, mapping, nothing, pairs, plain, ports, text, volume,
};

/// Makes the long form of a short one; a long form stays as it is. False after a mistake.
pub(super) fn lengthen(node: &mut Node, form: Short, path: &str, diags: &mut Diagnostics) -> bool {
    match form {
        Short::Environment | Short::Pairs | Short::FullPairs => pairs::pairs(node, form, path, diags),
        Short::Ssh => ssh(node, path, diags),
        Short::Ports => ports::expand(node, path, diags),
        Short::DependsOn => depends_on(node, path, diags),
        Short::EnvFiles => env_files(node, path, diags),
        Short::Names => names(node, path, diags),
        Short::One | Short::Options => {
            if let Kind::Scalar(_) = node.kind
                && (form == Short::Options || read::text(node, path, diags).is_some())
            {
                let one = std::mem::replace(node, nothing(&node.pos));
                node.kind = Kind::Sequence(vec![one]);
                return true;
            }
            matches!(node.kind, Kind::Sequence(_)) || complain(node, path, "text, or a list of texts", diags)
        }
        Short::Gpus => match lists::scalar_text(node) {
            Some("all") => {
                let count = mapping(vec![entry("count", plain(-1, &node.pos))], &node.pos);
                node.kind = Kind::Sequence(vec![count]);
                true
            }
            _ => matches!(node.kind, Kind::Sequence(_)) || complain(node, path, "`all`, or a list", diags),
        },
        Short::Build => wrapped(node, "context", "a directory, or a mapping", path, diags),
        Short::Grant => wrapped(node, "source", "a name, or a mapping", path, diags),
        Short::Extends => wrapped(node, "service", "a service, or a mapping", path, diags),
        Short::Include => wrapped(node, "path", "a path, or a mapping", path, diags),
        Short::Volume => volume_or_device(node, path, "SOURCE:TARGET, or a mapping", volume::lengthen, diags),
        Short::Device => volume_or_device(node, path, "SOURCE:TARGET, or a mapping", device, diags),
    }
}

fn complain(node: &Node, path: &str, expected: &str, diags: &mut Diagnostics) -> bool {
    diags.push(read::wrong(node, path, expected));
    false
}

/// A text becomes a mapping with this one key.
fn wrapped(node: &mut Node, key: &str, expected: &str, path: &str, diags: &mut Diagnostics) -> bool {
    match (&node.kind, lists::scalar_text(node)) {
        (Kind::Mapping(_), _) => true,
        (_, Some(_)) => {
            let value = std::mem::replace(node, nothing(&node.pos));
            node.kind = Kind::Mapping(vec![entry(key, value)]);
            true
        }
        _ => complain(node, path, expected, diags),
    }
}

type Lengthen = fn(&str, &Node, &str, &mut Diagnostics) -> Option<Node>;

fn volume_or_device(
    node: &mut Node,
    path: &str,
    expected: &str,
    lengthen: Lengthen,
    diags: &mut Diagnostics,
) -> bool {
    let long = match (&node.kind, lists::scalar_text(node)) {
        (Kind::Mapping(_), _) => return true,
        (_, Some(whole)) => lengthen(whole, node, path, diags),
        _ => return complain(node, path, expected, diags),
    };
    long.map(|long| *node = long).is_some()
}

fn device(whole: &str, node: &Node, path: &str, diags: &mut Diagnostics) -> Option<Node> {
    let parts: Vec<&str> = whole.split(':').collect();
    let (source, target, permissions) = match parts.as_slice() {
        [source] => (*source, *source, "rwm"),
        [source, ""] => (*source, *source, "rwm"),
        [source, target] => (*source, *target, "rwm"),
        [source, target, permissions] => (*source, *target, *permissions),
        _ => {
            diags.push(
                Diagnostic::error(&node.pos, format!("{path}: {whole:?} has too many colons"))
                    .expected("SOURCE, SOURCE:TARGET or SOURCE:TARGET:PERMISSIONS"),
            );
            return None;
        }
    };
    let pos = &node.pos;
    let entries = vec![
        entry("source", text(source, pos)),
        entry("target", text(target, pos)),
        entry("permissions", text(permissions, pos)),
    ];
    Some(mapping(entries, pos))
}

/// A list of names becomes a mapping of the names to nothing.
fn names(node: &mut Node, path: &str, diags: &mut Diagnostics) -> bool {
    match &node.kind {
        Kind::Mapping(_) => true,
        Kind::Scalar(_) => complain(node, path, "a list of names, or a mapping", diags),
        Kind::Sequence(items) => {
            let mut entries = Distinct::default();
            for (i, item) in items.iter().enumerate() {
                let Some(name) = read::text(item, &format!("{path}[{i}]"), diags) else { return false };
                entries.put_new(entry(name, nothing(&item.pos)));
            }
            *node = mapping(entries.into_entries(), &node.pos);
            true
        }
    }
}

fn depends_on(node: &mut Node, path: &str, diags: &mut Diagnostics) -> bool {
    match &mut node.kind {
        Kind::Scalar(_) => complain(node, path, "a list of services, or a mapping with conditions", diags),
        Kind::Sequence(items) => {
            let mut entries = Distinct::default();
            let mut good = true;
            for (i, item) in items.iter().enumerate() {
                let Some(name) = read::text(item, &format!("{path}[{i}]"), diags) else {
                    good = false;
                    continue;
                };
                let pos = &item.pos;
                let long = vec![
                    entry("condition", text("service_started", pos)),
                    entry("required", plain(true, pos)),
                ];
                entries.put_new(entry(name, mapping(long, pos)));
            }
            *node = mapping(entries.into_entries(), &node.pos);
            good
        }
        Kind::Mapping(entries) => {
            for one in entries {
                let pos = one.key_pos.clone();
                // The condition, and whether it is required, may stand elsewhere.
                if is_open(&one.value) {
                    continue;
                }
                let Kind::Mapping(long) = &mut one.value.kind else { continue };
                if long.iter().all(|field| field.key != "condition") {
                    diags.push(
                        Diagnostic::error(&pos, format!("{path}.{} has no `condition`", one.key)).expected(
                            "condition: service_started, service_healthy or service_completed_successfully",
                        ),
                    );
                }
                if long.iter().all(|field| field.key != "required") {
                    long.push(entry("required", plain(true, &pos)));
                }
            }
            true
        }
    }
}

fn env_files(node: &mut Node, path: &str, diags: &mut Diagnostics) -> bool {
    match &mut node.kind {
        Kind::Mapping(_) => {
            diags.push(read::wrong(node, path, "a path, or a list").hint("put a `-` before `path`"));
            false
        }
        Kind::Scalar(_) => {
            if !env_file(node, path, diags) {
                return false;
            }
            let one = std::mem::replace(node, nothing(&node.pos));
            node.kind = Kind::Sequence(vec![one]);
            true
        }
        Kind::Sequence(items) => {
            let mut index = 0;
            items.retain_mut(|item| {
                let good = env_file(item, &format!("{path}[{index}]"), diags);
                index += 1;
                good
            });
            true
        }
    }
}

fn env_file(node: &mut Node, path: &str, diags: &mut Diagnostics) -> bool {
    if !matches!(node.kind, Kind::Mapping(_)) && read::text(node, path, diags).is_none() {
        return false;
    }
    if let Kind::Scalar(_) = node.kind {
        let value = std::mem::replace(node, nothing(&node.pos));
        node.kind = Kind::Mapping(vec![entry("path", value)]);
    }
    let pos = node.pos.clone();
    if let Kind::Mapping(entries) = &mut node.kind
        && entries.iter().all(|field| field.key != "required")
    {
        entries.push(entry("required", plain(true, &pos)));
    }
    let empty = node.get("path").and_then(lists::scalar_text) == Some("");
    if empty {
        diags.push(Diagnostic::error(&node.pos, format!("{path} is empty")).expected("a path"));
    }
    !empty
}

fn ssh(node: &mut Node, path: &str, diags: &mut Diagnostics) -> bool {
    if let Kind::Mapping(_) = node.kind {
        return true;
    }
    pairs::pairs(node, Short::Ssh, path, diags)
}

/// `external: {name: …}` of old files is `name` and `external: true`.
pub(super) fn old_external(entries: &mut Vec<Entry>, path: &str, diags: &mut Diagnostics) {
    let Some(external) = entries.iter_mut().find(|entry| entry.key == "external") else { return };
    let Kind::Mapping(inner) = &external.value.kind else { return };
    let name = inner.iter().find(|entry| entry.key == "name" && !is_null(&entry.value)).cloned();
    external.value = plain(true, &external.value.pos);
    let Some(name) = name else { return };
    let own = entries.iter().find(|entry| entry.key == "name").map(|entry| &entry.value);
    match own {
        Some(own) if own.scalar().map(|s| &s.value) != name.value.scalar().map(|s| &s.value) => diags.push(
            Diagnostic::error(&name.key_pos, format!("{path}: `name` and `external.name` differ"))
                .hint("keep `name`, and write `external: true`"),
        ),
        Some(_) => {}
        None => {
            diags.push(
                Diagnostic::warning(&name.key_pos, format!("{path}.external.name is the old way"))
                    .hint("write `external: true` and `name` beside it"),
            );
            entries.push(name);
        }
    }
}
