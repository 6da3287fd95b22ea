//! `develop.watch`: what is done to a service while somebody writes it, when files change.
//!
//! Owns: the rules as the file says them, and what of them can't be. Never: part of the Spec; a release is the same
//! whoever watches.

use super::{
    canonical::entries,
    diagnostic::{Diagnostic, Diagnostics},
    scalar::Value,
    tree::{Kind, Node, Scalar},
};
use crate::spec::Spec;

/// What follows a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum WatchAction {
    /// Its replicas are replaced one after another.
    Restart,
    /// Its image is built, and deployed.
    Rebuild,
}

/// One rule of one service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchRule {
    /// Whose.
    pub service: String,
    /// What follows.
    pub action: WatchAction,
    /// The file or directory; absolute.
    pub path: String,
    /// What of it doesn't count, in the form of a `.dockerignore`, seen from `path`.
    pub ignore: Vec<String>,
    /// What of it counts alone, if anything is said.
    pub include: Vec<String>,
}

/// The rules of the services of `spec`, in the order of the file. Its mistakes have been looked for; what is found here is
/// what only matters to whoever watches.
///
/// # Errors
/// Every rule that can't be followed, at its line.
pub fn watch_rules(tree: &Node, spec: &Spec) -> Result<Vec<WatchRule>, Diagnostics> {
    let (mut rules, mut diags) = (Vec::new(), Diagnostics::default());
    for service in tree.get("services").map(entries).unwrap_or_default() {
        let Some(wanted) = spec.services.get(&service.key) else { continue };
        let watch = service.value.get("develop").and_then(|develop| develop.get("watch"));
        let Some(Kind::Sequence(items)) = watch.map(|watch| &watch.kind) else { continue };
        for (number, item) in items.iter().enumerate() {
            let place = format!("services.{}.develop.watch[{number}]", service.key);
            let can_build = service.value.get("build").is_some();
            match rule(item, &service.key, wanted.container.is_some(), can_build) {
                Ok(found) => rules.push(found),
                Err((text, hint)) => {
                    let at = item.get("action").unwrap_or(item);
                    diags.push(Diagnostic::error(&at.pos, format!("{place}: {text}")).hint(hint));
                }
            }
        }
    }
    if diags.has_errors() { Err(diags) } else { Ok(rules) }
}

fn rule(
    item: &Node,
    service: &str,
    has_container: bool,
    can_build: bool,
) -> Result<WatchRule, (String, &'static str)> {
    let action = match item.get("action").and_then(text).unwrap_or_default().as_str() {
        "restart" => WatchAction::Restart,
        "rebuild" if can_build => WatchAction::Rebuild,
        "rebuild" if has_container => {
            return Err(("`rebuild` needs a `build`, and the service has none".to_owned(), "use `restart`"));
        }
        other if !has_container => {
            let text = format!("`{other}` is for services with a container");
            return Err((text, "use `restart`: the program reads its files anew"));
        }
        other => {
            let text = format!("`{other}` comes in a later version of Bulsa");
            return Err((text, "use `rebuild`, or mount the directory and use `restart`"));
        }
    };
    Ok(WatchRule {
        service: service.to_owned(),
        action,
        path: item.get("path").and_then(text).unwrap_or_default(),
        ignore: texts(item.get("ignore")),
        include: texts(item.get("include")),
    })
}

fn text(node: &Node) -> Option<String> {
    node.scalar().map(Scalar::resolve).and_then(Value::into_text)
}

/// One text, or several.
fn texts(node: Option<&Node>) -> Vec<String> {
    match node.map(|node| &node.kind) {
        Some(Kind::Sequence(items)) => items.iter().filter_map(text).collect(),
        _ => node.and_then(text).into_iter().collect(),
    }
}
