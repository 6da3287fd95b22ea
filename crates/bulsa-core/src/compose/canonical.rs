//! From every short form of Compose to the long one, on the untyped tree of one file.
//!
//! Owns: [`canonicalise`]. Each value is checked against the tables of [`super::keys`] and brought into the one form
//! that `docker compose config` prints: lists of pairs become mappings, `8080:80` a mapping with `target` and
//! `published`, `64m` a number of bytes as text. Every node keeps its place; what is made from a short form stands where
//! that stood. A malformed value adds one mistake and becomes nothing, marked with [`MALFORMED`], so that no second
//! mistake follows from it. Doing it twice changes nothing more.
//!
//! Never: fills in what the file leaves out (that is [`super::defaults`], after all files are merged), or decides
//! whether a key works ([`super::support`]).

mod edit;
mod lists;
mod pairs;
mod ports;
mod scalars;
mod short;
#[cfg(test)]
mod tests;
mod volume;

use super::{
    diagnostic::{self, Diagnostic, Diagnostics, Pos},
    keys::{self, Object, Shape},
    read,
    tree::{Entry, Kind, Node, Scalar, Style},
};

pub(super) use edit::{Distinct, child_mut, entries, entries_mut, items, items_mut, remove, set, text_of};
pub(super) use lists::unique;

/// The tag of a value that was malformed: it says nothing any more, and has been complained of.
pub(super) const MALFORMED: &str = "!malformed";

/// The tag of a value that another file or service may complete: what is missing in it is no mistake yet.
pub(super) const OPEN: &str = "!open";

/// Brings the tree of one file, variables filled in, into canonical form.
pub(super) fn canonicalise(root: &mut Node, diags: &mut Diagnostics) {
    value(root, &Shape::Object(&keys::TOP), "", diags);
}

/// Whether a value was malformed.
pub(super) fn is_malformed(node: &Node) -> bool {
    node.tag.as_deref() == Some(MALFORMED)
}

/// Whether another file or service may complete this value.
pub(super) fn is_open(node: &Node) -> bool {
    node.tag.as_deref() == Some(OPEN)
}

/// Whether a key says nothing here, and may get its value elsewhere. Where nothing is a value like others, it is that.
fn waits(node: &Node, shape: &Shape) -> bool {
    let nullable = matches!(shape, Shape::Any | Shape::Variable | Shape::Command | Shape::OrNull(_));
    is_open(node) && is_null(node) && !nullable
}

/// Makes `node` nothing, for good.
pub(super) fn spoil(node: &mut Node) {
    *node = Node { kind: null(), pos: node.pos.clone(), tag: Some(MALFORMED.to_owned()) };
}

/// Nothing, as a node's kind.
pub(super) fn null() -> Kind {
    Kind::Scalar(Scalar { value: String::new(), style: Style::Plain })
}

/// A node that says nothing.
pub(super) fn nothing(pos: &Pos) -> Node {
    Node { kind: null(), pos: pos.clone(), tag: None }
}

/// A text at a place.
pub(super) fn text(value: impl Into<String>, pos: &Pos) -> Node {
    let scalar = Scalar { value: value.into(), style: Style::Quoted };
    Node { kind: Kind::Scalar(scalar), pos: pos.clone(), tag: None }
}

/// A number or truth value at a place.
pub(super) fn plain(value: impl ToString, pos: &Pos) -> Node {
    let scalar = Scalar { value: value.to_string(), style: Style::Plain };
    Node { kind: Kind::Scalar(scalar), pos: pos.clone(), tag: None }
}

/// A mapping at a place.
pub(super) fn mapping(entries: Vec<Entry>, pos: &Pos) -> Node {
    Node { kind: Kind::Mapping(entries), pos: pos.clone(), tag: None }
}

/// An entry whose key stands where its value stands.
pub(super) fn entry(key: impl Into<String>, value: Node) -> Entry {
    Entry { key: key.into(), key_pos: value.pos.clone(), value }
}

/// Whether a node says nothing at all.
pub(super) fn is_null(node: &Node) -> bool {
    node.scalar().is_some_and(|scalar| scalar.resolve() == super::scalar::Value::Null)
}

/// Checks one value and brings it into canonical form; false where it was malformed as a whole, which has been
/// complained of.
fn value(node: &mut Node, shape: &Shape, path: &str, diags: &mut Diagnostics) -> bool {
    match shape {
        _ if waits(node, shape) => true,
        Shape::Any => true,
        Shape::List(inner, identity) => list(node, inner, *identity, path, diags),
        Shape::Object(known) => object(node, known, path, diags),
        Shape::OrNull(_) if is_null(node) => true,
        Shape::OrNull(inner) => value(node, inner, path, diags),
        Shape::Map(inner) => map(node, inner, path, diags),
        Shape::Named(inner) => {
            names(node, path, diags);
            map(node, inner, path, diags)
        }
        Shape::Either(_, long) if matches!(node.kind, Kind::Mapping(_)) => value(node, long, path, diags),
        Shape::Either(short, _) => value(node, short, path, diags),
        Shape::Short(form, long) => {
            short::lengthen(node, *form, path, diags) && value(node, long, path, diags)
        }
        Shape::ExtraHosts => pairs::extra_hosts(node, path, diags),
        Shape::Command | Shape::Test => lists::command(node, shape, path, diags),
        _ => scalars::scalar(node, shape, path, diags),
    }
}

fn list(
    node: &mut Node,
    inner: &Shape,
    identity: keys::Identity,
    path: &str,
    diags: &mut Diagnostics,
) -> bool {
    let Kind::Sequence(items) = &mut node.kind else {
        diags.push(read::wrong(node, path, "a list"));
        return false;
    };
    let mut index = 0;
    items.retain_mut(|item| {
        let good = value(item, inner, &format!("{path}[{index}]"), diags);
        index += 1;
        good
    });
    lists::drop_repeated(items, identity);
    true
}

fn map(node: &mut Node, inner: &Shape, path: &str, diags: &mut Diagnostics) -> bool {
    let Kind::Mapping(entries) = &mut node.kind else {
        diags.push(read::wrong(node, path, "a mapping"));
        return false;
    };
    for entry in entries.iter_mut().filter(|entry| !is_malformed(&entry.value)) {
        let path = format!("{path}.{}", entry.key);
        if let Some(mistake) = not_a_mapping(entry, inner, &path) {
            diags.push(mistake);
            spoil(&mut entry.value);
        } else if !value(&mut entry.value, inner, &path, diags) {
            spoil(&mut entry.value);
        }
    }
    true
}

/// A service that isn't a mapping is best shown at its name.
fn not_a_mapping(entry: &Entry, inner: &Shape, path: &str) -> Option<Diagnostic> {
    let service = matches!(inner, Shape::Object(object) if object.place == keys::SERVICE.place);
    if !service || matches!(entry.value.kind, Kind::Mapping(_)) || waits(&entry.value, inner) {
        return None;
    }
    let mut mistake = read::wrong(&entry.value, path, "a mapping");
    mistake.pos = entry.key_pos.clone();
    Some(mistake.hint("give the service at least a `command`, indented below its name"))
}

/// Complains of keys that can't be names.
fn names(node: &mut Node, path: &str, diags: &mut Diagnostics) {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    for entry in entries_mut(node).iter_mut().filter(|entry| !is_malformed(&entry.value)) {
        // Containers and files are named after a service.
        let start = path != "services" || entry.key.starts_with(|c: char| c.is_ascii_alphanumeric());
        if start && !entry.key.is_empty() && entry.key.chars().all(good) {
            continue;
        }
        let what = if path == "services" { "a service's name" } else { "a name" };
        let mistake = format!("{path}: {:?} can't be {what}", entry.key);
        diags.push(
            Diagnostic::error(&entry.key_pos, mistake)
                .expected("letters, digits, `.`, `_` and `-`, starting with a letter or digit"),
        );
        spoil(&mut entry.value);
    }
}

fn object(node: &mut Node, known: &Object, path: &str, diags: &mut Diagnostics) -> bool {
    let Kind::Mapping(entries) = &mut node.kind else {
        diags.push(read::wrong(node, if path.is_empty() { "the file" } else { path }, "a mapping"));
        return false;
    };
    if known.field("external").is_some() {
        short::old_external(entries, path, diags);
    }
    let mut misspelled = Vec::new();
    for entry in entries.iter_mut().filter(|entry| !is_malformed(&entry.value)) {
        let Some(field) = known.field(&entry.key) else {
            if !(known.extensions && entry.key.starts_with("x-")) {
                misspelled.extend(diagnostic::nearest(&entry.key, known.names()));
                diags.push(unknown(entry, path, known));
                spoil(&mut entry.value);
            }
            continue;
        };
        let path = if path.is_empty() { entry.key.clone() } else { format!("{path}.{}", entry.key) };
        if !value(&mut entry.value, &field.shape, &path, diags) {
            spoil(&mut entry.value);
        }
    }
    let mut complete = true;
    let required = if is_open(node) { &[] } else { known.required };
    for (key, expected) in required {
        if node.get(key).is_none() {
            complete = false;
            // Who misspelled it has been told so.
            if misspelled.contains(key) {
                continue;
            }
            diags.push(Diagnostic::error(&node.pos, format!("{path} has no `{key}`")).expected(*expected));
        }
    }
    complete
}

fn unknown(entry: &Entry, path: &str, known: &Object) -> Diagnostic {
    let place = if path.is_empty() { "the top of the file" } else { path };
    let mistake = Diagnostic::error(&entry.key_pos, format!("{place}: there is no key `{}`", entry.key))
        .nearest(&entry.key, known.names());
    if mistake.suggestion.is_some() || known.fields.len() > MAX_NAMED_KEYS {
        return mistake;
    }
    let names: Vec<String> = known.names().map(|name| format!("`{name}`")).collect();
    mistake.expected(format!("one of {}", names.join(", ")))
}

/// Of a mapping with more keys than these, a message doesn't list them all.
const MAX_NAMED_KEYS: usize = 30;
