//! What a file may leave open, because another file or service says it.
//!
//! Owns: which places those are. Compose checks a later file only once it is merged, and a service that extends another
//! one with what it takes over: a key without a value (`environment:` above lines that are commented out), or a mapping
//! without a key that must be there, is no mistake where the other side has it. What is still missing when everything
//! is merged is checked as anywhere else. Items of lists stand for themselves: nothing is open in them.
//!
//! Never: merges.

use super::super::{
    canonical::{self, OPEN},
    diagnostic::Diagnostics,
    tree::{Kind, Node},
};

/// Everything in this file.
pub(super) fn everything(root: &mut Node) {
    let null = canonical::is_null(root);
    match &mut root.kind {
        // Nothing can be merged into what says where a service comes from.
        Kind::Mapping(entries) => {
            for entry in entries.iter_mut().filter(|entry| entry.key != "extends") {
                everything(&mut entry.value);
            }
        }
        Kind::Scalar(_) if null => {}
        Kind::Scalar(_) | Kind::Sequence(_) => return,
    }
    root.tag = Some(OPEN.to_owned());
}

/// What is in the services that extend another one.
pub(super) fn extending(root: &mut Node) {
    let Some(services) = canonical::child_mut(root, "services") else { return };
    for entry in canonical::entries_mut(services) {
        if entry.value.get("extends").is_some() {
            everything(&mut entry.value);
        }
    }
}

/// Looks at what was left open, now that everything is merged.
pub(super) fn close(root: &mut Node, diags: &mut Diagnostics) {
    if closed(root) {
        canonical::canonicalise(root, diags);
    }
}

/// Whether anything was open.
fn closed(node: &mut Node) -> bool {
    let own = canonical::is_open(node);
    if own {
        node.tag = None;
    }
    let below = match &mut node.kind {
        Kind::Scalar(_) => false,
        Kind::Sequence(items) => items.iter_mut().map(closed).fold(false, std::ops::BitOr::bitor),
        Kind::Mapping(entries) => {
            entries.iter_mut().map(|entry| closed(&mut entry.value)).fold(false, std::ops::BitOr::bitor)
        }
    };
    own || below
}
