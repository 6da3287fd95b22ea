//! `bulsa config --json`: the resolved file in the shape of `docker compose config --format json`.
//!
//! Owns: printing the canonical tree, with the few places where Compose's output isn't the file's own form. Never:
//! fills in or leaves out a key; that was done before ([`super::defaults`]).

use serde_json::{Map, Value, json};

use super::{
    Loaded, canonical,
    keys::{self, Object, Shape, Show},
    scalar,
    tree::{Kind, Node},
};

/// The resolved file; `null` where it had mistakes.
#[must_use]
pub fn config_json(loaded: &Loaded) -> Value {
    loaded.tree.as_ref().map_or(Value::Null, |tree| escaped(printed(tree, &Shape::Object(&keys::TOP))))
}

/// `$` is printed as `$$`, so that the output is a compose file again.
fn escaped(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(text.replace('$', "$$")),
        Value::Array(items) => Value::Array(items.into_iter().map(escaped).collect()),
        Value::Object(map) => Value::Object(
            map.into_iter().map(|(key, value)| (key.replace('$', "$$"), escaped(value))).collect(),
        ),
        other => other,
    }
}

fn printed(node: &Node, shape: &Shape) -> Value {
    match (shape, &node.kind) {
        (Shape::Object(object), Kind::Mapping(_)) => Value::Object(of_object(node, object)),
        (Shape::List(inner, _), Kind::Sequence(items)) => {
            Value::Array(items.iter().map(|item| printed(item, inner)).collect())
        }
        (Shape::Map(inner) | Shape::Named(inner), Kind::Mapping(entries)) => Value::Object(
            entries.iter().map(|entry| (entry.key.clone(), printed(&entry.value, inner))).collect(),
        ),
        // Compose takes a limit of 0 for one that isn't there.
        (Shape::Either(Shape::Int, _), Kind::Scalar(scalar)) if scalar.resolve() == scalar::Value::Int(0) => {
            json!({})
        }
        (Shape::Short(keys::Short::Ssh, _), Kind::Mapping(entries)) => {
            let key = |entry: &super::tree::Entry| match entry.value.scalar() {
                Some(path) if !path.value.is_empty() => format!("{}={}", entry.key, path.value),
                _ => entry.key.clone(),
            };
            Value::Array(entries.iter().map(|entry| json!(key(entry))).collect())
        }
        (
            Shape::OrNull(inner) | Shape::Either(_, inner) | Shape::Short(_, inner),
            Kind::Mapping(_) | Kind::Sequence(_),
        ) => printed(node, inner),
        _ => verbatim(node),
    }
}

fn of_object(node: &Node, object: &Object) -> Map<String, Value> {
    let device = object.place == keys::BLKIO_RATE.place || object.place == keys::BLKIO_WEIGHT.place;
    let mut out = Map::new();
    for entry in canonical::entries(node) {
        let (key, value) = (&entry.key, &entry.value);
        match object.field(key) {
            Some(field) if field.show == Show::Never => {}
            // Compose has no names of its own for these in JSON.
            Some(field) if device => {
                let first = key.chars().take(1).map(|c| c.to_ascii_uppercase());
                out.insert(first.chain(key.chars().skip(1)).collect(), printed(value, &field.shape));
            }
            Some(field) => {
                out.insert(key.clone(), printed(value, &field.shape));
            }
            // Further down, Compose doesn't print them.
            None if object.place.is_empty() => {
                out.insert(key.clone(), verbatim(value));
            }
            None => {}
        }
    }
    if object.place == keys::ULIMIT.place {
        out.retain(|_, value| *value != json!(0));
    }
    out
}

/// A piece of the tree as JSON, as it is.
pub(super) fn verbatim(node: &Node) -> Value {
    match &node.kind {
        Kind::Scalar(scalar) => match scalar.resolve() {
            scalar::Value::Null => Value::Null,
            scalar::Value::Bool(b) => json!(b),
            scalar::Value::Int(n) => {
                i64::try_from(n).map_or_else(|_| json!(u64::try_from(n).ok()), |n| json!(n))
            }
            scalar::Value::Float(n) => json!(n),
            scalar::Value::Text(text) => json!(text),
        },
        Kind::Sequence(items) => Value::Array(items.iter().map(verbatim).collect()),
        Kind::Mapping(entries) => {
            Value::Object(entries.iter().map(|entry| (entry.key.clone(), verbatim(&entry.value))).collect())
        }
    }
}
