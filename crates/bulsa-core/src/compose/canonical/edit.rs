//! Small steps on mappings of the tree.

use std::collections::HashMap;

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

/// Entries, one for each key, in the order in which their keys came first.
#[derive(Debug, Default)]
pub(in super::super) struct Distinct {
    entries: Vec<Entry>,
    places: HashMap<String, usize>,
}

impl Distinct {
    /// Of two with one key the later one counts.
    pub(in super::super) fn put(&mut self, entry: Entry) {
        match self.places.get(&entry.key).and_then(|place| self.entries.get_mut(*place)) {
            Some(known) => *known = entry,
            None => self.add(entry),
        }
    }

    /// Of two with one key the earlier one counts.
    pub(in super::super) fn put_new(&mut self, entry: Entry) {
        if !self.places.contains_key(&entry.key) {
            self.add(entry);
        }
    }

    fn add(&mut self, entry: Entry) {
        self.places.insert(entry.key.clone(), self.entries.len());
        self.entries.push(entry);
    }

    /// All of them.
    pub(in super::super) fn into_entries(self) -> Vec<Entry> {
        self.entries
    }
}

impl FromIterator<Entry> for Distinct {
    fn from_iter<I: IntoIterator<Item = Entry>>(entries: I) -> Self {
        let mut all = Self::default();
        entries.into_iter().for_each(|entry| all.put(entry));
        all
    }
}
