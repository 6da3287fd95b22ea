//! `secrets` and `configs` of a service. What is in them is looked up when the top of the file is known.

use super::{
    super::{
        diagnostic::{Diagnostic, Diagnostics},
        model::{Docker, Grant, GrantKind},
        tree::{Entry, Node},
    },
    values::{self, fields},
};

pub(super) fn key(docker: &mut Docker, entry: &Entry, path: &str, diags: &mut Diagnostics) -> bool {
    let kind = match entry.key.as_str() {
        "secrets" => GrantKind::Secret,
        "configs" => GrantKind::Config,
        _ => return false,
    };
    for (item, path) in values::items(&entry.value, path, diags) {
        docker.grants.extend(grant(kind, item, &path, diags));
    }
    true
}

fn grant(kind: GrantKind, node: &Node, path: &str, diags: &mut Diagnostics) -> Option<Grant> {
    let pos = node.pos.clone();
    let mut it = Grant { kind, pos, source: String::new(), target: None, uid: None, gid: None, mode: None };
    fields(node, path, diags, |entry, path, diags| {
        let node = &entry.value;
        match entry.key.as_str() {
            "source" => it.source = values::word(node, path, diags).unwrap_or_default(),
            "target" => it.target = values::word(node, path, diags),
            "uid" => it.uid = values::word(node, path, diags),
            "gid" => it.gid = values::word(node, path, diags),
            _ => it.mode = values::mode(node, path, diags),
        }
    });
    if it.source.is_empty() {
        diags.push(
            Diagnostic::error(&node.pos, format!("{path} has no `source`"))
                .expected("source: its key at the top of the file"),
        );
        return None;
    }
    Some(it)
}
