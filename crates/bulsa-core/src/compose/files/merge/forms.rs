//! The one form into which a key's spellings are brought before they merge. Usually they have it already; here is what
//! makes merging independent of that. What can't be brought into it comes back as it was.

use super::super::super::{
    diagnostic::Pos,
    tree::{Entry, Kind, Node, Scalar, Style},
};

/// The text of a scalar, however it was written.
pub(super) fn text(node: &Node) -> Option<String> {
    node.scalar().map(|scalar| scalar.value.clone())
}

/// The entries of a mapping; of anything else none.
pub(super) fn entries(node: Node) -> Vec<Entry> {
    match node.kind {
        Kind::Mapping(entries) => entries,
        _ => Vec::new(),
    }
}

/// `NAME=value` items as a mapping.
pub(super) fn named(node: Node) -> Result<Node, Node> {
    mapped(node, |text, pos| match text.split_once('=') {
        Some((name, value)) => entry(name, quoted(value, pos), pos),
        None => entry(text, null(pos), pos),
    })
}

/// A list of services as a mapping with conditions.
pub(super) fn dependencies(node: Node) -> Result<Node, Node> {
    mapped(node, |text, pos| {
        let required = Scalar { value: "true".to_owned(), style: Style::Plain };
        let fields = vec![
            entry("condition", quoted("service_started", pos), pos),
            entry("required", Node { kind: Kind::Scalar(required), pos: pos.clone(), tag: None }, pos),
        ];
        entry(text, Node { kind: Kind::Mapping(fields), pos: pos.clone(), tag: None }, pos)
    })
}

/// A list of names as a mapping without options.
pub(super) fn names(node: Node) -> Result<Node, Node> {
    mapped(node, |text, pos| entry(text, null(pos), pos))
}

/// One text as a list of one.
pub(super) fn listed(node: Node) -> Result<Node, Node> {
    match node.kind {
        Kind::Sequence(_) => Ok(node),
        Kind::Scalar(_) => {
            let pos = node.pos.clone();
            Ok(Node { kind: Kind::Sequence(vec![node]), pos, tag: None })
        }
        Kind::Mapping(_) => Err(node),
    }
}

/// A context alone as a mapping.
pub(super) fn build(node: Node) -> Result<Node, Node> {
    match node.kind {
        Kind::Mapping(_) => Ok(node),
        Kind::Scalar(_) => {
            let pos = node.pos.clone();
            Ok(Node { kind: Kind::Mapping(vec![entry("context", node, &pos)]), pos, tag: None })
        }
        Kind::Sequence(_) => Err(node),
    }
}

/// A mapping of hosts as a list of `host=address`.
pub(super) fn hosts(node: Node) -> Result<Node, Node> {
    let items = match &node.kind {
        Kind::Sequence(_) => return Ok(node),
        Kind::Scalar(_) => return Err(node),
        Kind::Mapping(entries) => {
            let mut items = Vec::new();
            for entry in entries {
                let item = |value: &Node| {
                    value
                        .scalar()
                        .map(|scalar| quoted(&format!("{}={}", entry.key, scalar.value), &entry.key_pos))
                };
                match &entry.value.kind {
                    Kind::Sequence(values) => items.extend(values.iter().map(item)),
                    _ => items.push(item(&entry.value)),
                }
            }
            items.into_iter().collect::<Option<Vec<_>>>()
        }
    };
    match items {
        Some(items) => Ok(Node { kind: Kind::Sequence(items), ..node }),
        None => Err(node),
    }
}

/// A list of texts as a mapping; the later of two items with one name wins.
fn mapped(node: Node, each: impl Fn(&str, &Pos) -> Entry) -> Result<Node, Node> {
    let items = match &node.kind {
        Kind::Mapping(_) => return Ok(node),
        Kind::Scalar(_) => return Err(node),
        Kind::Sequence(items) => items,
    };
    let entries = items.iter().map(|item| item.scalar().map(|scalar| each(&scalar.value, &item.pos)));
    let Some(entries) = entries.collect::<Option<Vec<_>>>() else { return Err(node) };
    let mut places = std::collections::HashMap::new();
    let mut kept: Vec<Entry> = Vec::with_capacity(entries.len());
    for entry in entries {
        let place = *places.entry(entry.key.clone()).or_insert(kept.len());
        match kept.get_mut(place) {
            Some(earlier) => *earlier = entry,
            None => kept.push(entry),
        }
    }
    Ok(Node { kind: Kind::Mapping(kept), ..node })
}

fn entry(key: &str, value: Node, pos: &Pos) -> Entry {
    Entry { key: key.to_owned(), key_pos: pos.clone(), value }
}

fn quoted(value: &str, pos: &Pos) -> Node {
    let scalar = Scalar { value: value.to_owned(), style: Style::Quoted };
    Node { kind: Kind::Scalar(scalar), pos: pos.clone(), tag: None }
}

fn null(pos: &Pos) -> Node {
    let scalar = Scalar { value: String::new(), style: Style::Plain };
    Node { kind: Kind::Scalar(scalar), pos: pos.clone(), tag: None }
}
