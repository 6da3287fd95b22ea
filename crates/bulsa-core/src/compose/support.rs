//! Refuses, at its line, every key that doesn't work where it stands.
//!
//! Owns: which engine a service runs on (containers if it has `image` or `build`, else the process engine), and the
//! mistakes that follow from the tables of [`super::keys`]. Runs on the canonical tree after all files are merged and
//! before anything is filled in, so that only what somebody wrote is refused; a key that is empty says nothing and is
//! let through. Never: changes the tree.

use super::{
    canonical,
    diagnostic::{Diagnostic, Diagnostics},
    keys::{self, Field, Later, Shape, Support},
    tree::{Entry, Kind, Node},
};

/// What runs a service's replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Engine {
    /// Programs of this host.
    Process,
    /// Containers.
    Docker,
}

/// The engine of one service.
pub(super) fn engine(service: &Node) -> Engine {
    let given =
        |key| service.get(key).is_some_and(|node| !canonical::is_null(node) || canonical::is_malformed(node));
    if given("image") || given("build") || given("provider") { Engine::Docker } else { Engine::Process }
}

/// Complains of every key that doesn't work.
pub(super) fn check(root: &Node, diags: &mut Diagnostics) {
    // What the top declares for containers is no mistake where there are none: no service can name it then.
    below(root, &Shape::Object(&keys::TOP), "", Engine::Docker, diags);
}

fn below(node: &Node, shape: &Shape, path: &str, engine: Engine, diags: &mut Diagnostics) {
    match (shape, &node.kind) {
        (Shape::Object(object), Kind::Mapping(entries)) => {
            let engine = if object.place == keys::SERVICE.place { self::engine(node) } else { engine };
            for entry in entries.iter().filter(|entry| says_something(&entry.value)) {
                let Some(field) = object.field(&entry.key) else { continue };
                let path = if path.is_empty() { entry.key.clone() } else { format!("{path}.{}", entry.key) };
                match refusal(field, engine) {
                    Some(why) => diags.push(refused(entry, &path, why)),
                    None => below(&entry.value, &field.shape, &path, engine, diags),
                }
            }
        }
        (Shape::List(inner, _), Kind::Sequence(items)) => {
            for (i, item) in items.iter().enumerate() {
                below(item, inner, &format!("{path}[{i}]"), engine, diags);
            }
        }
        (Shape::Map(inner) | Shape::Named(inner), Kind::Mapping(entries)) => {
            for entry in entries {
                below(&entry.value, inner, &format!("{path}.{}", entry.key), engine, diags);
            }
        }
        (Shape::OrNull(inner) | Shape::Either(_, inner) | Shape::Short(_, inner), _) => {
            below(node, inner, path, engine, diags);
        }
        _ => {}
    }
}

fn refusal(field: &Field, engine: Engine) -> Option<Later> {
    match field.support {
        Support::Refused(why) => Some(why),
        Support::Docker | Support::Noted if engine == Engine::Process => Some(Later::ProcessEngine),
        Support::Docker | Support::Noted | Support::Needless | Support::Both => None,
    }
}

fn refused(entry: &Entry, path: &str, why: Later) -> Diagnostic {
    Diagnostic::error(&entry.key_pos, format!("{path}: `{}` {}", entry.key, why.reason())).hint(why.hint())
}

fn says_something(node: &Node) -> bool {
    match &node.kind {
        Kind::Scalar(_) => !canonical::is_null(node),
        Kind::Sequence(items) => !items.is_empty(),
        Kind::Mapping(entries) => !entries.is_empty(),
    }
}
