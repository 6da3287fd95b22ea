//! Leaves out what says nothing, as Compose does when it prints.

use super::super::{
    canonical,
    keys::{Field, Shape, Show},
    scalar::Value,
    tree::{Entry, Kind, Node, Scalar},
};

/// Leaves out, and adds the few keys that are always there. What was malformed stays, for those who ask.
pub(super) fn prune(node: &mut Node, shape: &Shape) {
    let pos = node.pos.clone();
    match (shape, &mut node.kind) {
        (Shape::Object(object), Kind::Mapping(entries)) => {
            for field in object.fields {
                let missing =
                    entries.iter().all(|entry| entry.key != field.key || says_nothing(entry, field));
                if missing && matches!(field.show, Show::OrNull | Show::OrEmpty) {
                    let value = match field.show {
                        Show::OrNull => canonical::nothing(&pos),
                        _ => canonical::mapping(Vec::new(), &pos),
                    };
                    entries.retain(|entry| entry.key != field.key);
                    entries.push(canonical::entry(field.key, value));
                }
            }
            entries.retain_mut(|entry| {
                let Some(field) = object.field(&entry.key) else { return true };
                prune(&mut entry.value, &field.shape);
                canonical::is_malformed(&entry.value) || is_shown(entry, field)
            });
        }
        (Shape::List(inner, _), Kind::Sequence(items)) => {
            items.iter_mut().for_each(|item| prune(item, inner));
        }
        (Shape::Map(inner) | Shape::Named(inner), Kind::Mapping(entries)) => {
            entries.iter_mut().for_each(|entry| prune(&mut entry.value, inner));
        }
        (Shape::OrNull(inner) | Shape::Either(_, inner) | Shape::Short(_, inner), _) => prune(node, inner),
        _ => {}
    }
}

fn says_nothing(entry: &Entry, field: &Field) -> bool {
    let null = canonical::is_null(&entry.value) && !canonical::is_malformed(&entry.value);
    null && field.show != Show::OrNull
}

fn is_shown(entry: &Entry, field: &Field) -> bool {
    match field.show {
        Show::Filled => !is_empty(&entry.value, &field.shape),
        Show::Given => !canonical::is_null(&entry.value),
        Show::OrNull | Show::OrEmpty | Show::Never => true,
    }
}

fn is_empty(node: &Node, shape: &Shape) -> bool {
    match &node.kind {
        Kind::Sequence(items) => items.is_empty(),
        Kind::Mapping(entries) => entries.is_empty(),
        Kind::Scalar(scalar) => is_zero(scalar, shape),
    }
}

fn is_zero(scalar: &Scalar, shape: &Shape) -> bool {
    match (scalar.resolve(), shape) {
        (Value::Null | Value::Bool(false) | Value::Int(0) | Value::Text(""), _) => true,
        (Value::Text("0"), Shape::Bytes) | (Value::Text("0s"), Shape::Duration) => true,
        (Value::Float(n), _) => n == 0.0,
        _ => false,
    }
}
