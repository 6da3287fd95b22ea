//! Lists: commands, health checks, and which entries are the same.

use std::collections::HashMap;

use super::{
    super::{
        diagnostic::Diagnostics,
        keys::{Identity, Shape, TOP},
        read, service,
        tree::{Kind, Node, Scalar},
    },
    is_null, text,
};

/// `command`, `entrypoint` and `healthcheck.test`: a list of texts, or what a text becomes.
pub(super) fn command(node: &mut Node, shape: &Shape, path: &str, diags: &mut Diagnostics) -> bool {
    if let Kind::Sequence(_) = node.kind {
        return read::texts(node, path, diags).is_some();
    }
    let words = if matches!(shape, Shape::Test) {
        read::text(node, path, diags).map(|line| vec!["CMD-SHELL".to_owned(), line.to_owned()])
    } else if is_null(node) {
        return true;
    } else {
        service::split_command(node, path, diags)
    };
    let Some(words) = words else { return false };
    node.kind = Kind::Sequence(words.into_iter().map(|word| text(word, &node.pos)).collect());
    true
}

/// A later entry takes the place of an earlier one that is the same.
pub(super) fn drop_repeated(items: &mut Vec<Node>, identity: Identity) {
    if identity == Identity::None {
        return;
    }
    let mut places: HashMap<String, usize> = HashMap::new();
    let mut kept: Vec<Node> = Vec::with_capacity(items.len());
    for item in items.drain(..) {
        let known = key(&item, identity);
        match known.as_ref().and_then(|key| places.get(key)) {
            Some(place) => kept[*place] = item,
            None => {
                places.extend(known.map(|key| (key, kept.len())));
                kept.push(item);
            }
        }
    }
    *items = kept;
}

fn key(item: &Node, identity: Identity) -> Option<String> {
    let part = |key: &str| item.get(key).and_then(Node::scalar).map(|scalar| scalar.value.clone());
    match identity {
        Identity::None => None,
        Identity::Name => {
            let whole = &item.scalar()?.value;
            Some(whole.split_once('=').map_or(whole.as_str(), |(name, _)| name).to_owned())
        }
        Identity::Target => part("target"),
        Identity::Path => part("path"),
        Identity::Grant(dir) => part("target").or_else(|| Some(format!("{dir}/{}", part("source")?))),
        Identity::Port => {
            let host = part("host_ip").unwrap_or_else(|| "0.0.0.0".to_owned());
            let published = part("published").unwrap_or_default();
            let protocol = part("protocol").unwrap_or_else(|| "tcp".to_owned());
            Some(format!("{host}:{published}:{}/{protocol}", part("target")?))
        }
    }
}

/// After merging: later entries of a list take the place of earlier ones that are the same, in the whole tree.
pub(in super::super) fn unique(root: &mut Node) {
    below(root, &Shape::Object(&TOP));
}

fn below(node: &mut Node, shape: &Shape) {
    match (shape, &mut node.kind) {
        (Shape::List(inner, identity), Kind::Sequence(items)) => {
            items.iter_mut().for_each(|item| below(item, inner));
            drop_repeated(items, *identity);
        }
        (Shape::Object(object), Kind::Mapping(entries)) => {
            for entry in entries {
                if let Some(field) = object.field(&entry.key) {
                    below(&mut entry.value, &field.shape);
                }
            }
        }
        (Shape::Map(inner) | Shape::Named(inner), Kind::Mapping(entries)) => {
            entries.iter_mut().for_each(|entry| below(&mut entry.value, inner));
        }
        (Shape::OrNull(inner) | Shape::Either(_, inner) | Shape::Short(_, inner), _) => below(node, inner),
        _ => {}
    }
}

/// The text of a scalar that is one.
pub(super) fn scalar_text(node: &Node) -> Option<&str> {
    match node.scalar().map(Scalar::resolve) {
        Some(super::super::scalar::Value::Text(text)) => Some(text),
        _ => None,
    }
}
