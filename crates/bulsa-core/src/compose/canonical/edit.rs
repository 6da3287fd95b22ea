//! Small steps on mappings of the tree.

use super::super::tree::{Entry, Kind, Node};

/// The entries of a mapping; of anything else none.
pub(in super::super) fn entries(node: &Node) -> &[Entry] {
    match &node.kind {
        Kind::Mapping(entries) => entries,
        _ => &[],
    }
}

/// The entries of a mapping, to change; of anything else none.
pub(in super::super) fn entries_mut(node: &mut Node) -> &mut [Entry] {
    match &mut node.kind {
        Kind::Mapping(entries) => entries,
        _ => &mut [],
    }
}

/// The items of a list; of anything else none.
pub(in super::super) fn items(node: &Node) -> &[Node] {
    match &node.kind {
        Kind::Sequence(items) => items,
        _ => &[],
    }
}

/// The items of a list, to change; of anything else none.
pub(in super::super) fn items_mut(node: &mut Node) -> &mut [Node] {
    match &mut node.kind {
        Kind::Sequence(items) => items,
        _ => &mut [],
    }
}

/// The value under a key, to change.
pub(in super::super) fn child_mut<'n>(node: &'n mut Node, key: &str) -> Option<&'n mut Node> {
    entries_mut(node).iter_mut().find(|entry| entry.key == key).map(|entry| &mut entry.value)
}

/// The text under a key.
pub(in super::super) fn text_of<'n>(node: &'n Node, key: &str) -> Option<&'n str> {
    node.get(key).and_then(Node::scalar).map(|scalar| scalar.value.as_str())
}

/// Puts a value under a key, in place of the one that is there.
pub(in super::super) fn set(node: &mut Node, key: &str, value: Node) {
    if let Some(known) = child_mut(node, key) {
        *known = value;
    } else if let Kind::Mapping(entries) = &mut node.kind {
        entries.push(Entry { key: key.to_owned(), key_pos: value.pos.clone(), value });
    }
}

/// Takes a key away.
pub(in super::super) fn remove(node: &mut Node, key: &str) {
    if let Kind::Mapping(entries) = &mut node.kind {
        entries.retain(|entry| entry.key != key);
    }
}
