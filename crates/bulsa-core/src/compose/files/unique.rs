//! Lists in which an item may come only once: a port, a mount, a name.
//!
//! Owns: taking out what a later item says again; the later one stands in the earlier one's place, as in Compose.
//! Never: decides which lists those are (that is [`super::rules`]) or whether an item is any good.

use std::collections::HashMap;

use super::{
    super::{
        scalar::Value,
        tree::{Kind, Node},
    },
    rules::{self, Same},
};

/// Takes repeated items out of a file's tree.
pub(super) fn enforce(root: &mut Node) {
    let Kind::Mapping(entries) = &mut root.kind else { return };
    for entry in entries.iter_mut().filter(|entry| matches!(entry.key.as_str(), "networks" | "services")) {
        let key = entry.key.clone();
        below(&mut entry.value, &[&key]);
    }
}

fn below(node: &mut Node, path: &[&str]) {
    match &mut node.kind {
        Kind::Mapping(entries) if path.len() < rules::DEEPEST => {
            for entry in entries {
                let mut path = path.to_vec();
                path.push(&entry.key);
                below(&mut entry.value, &path);
            }
        }
        Kind::Sequence(items) => {
            if let Some(same) = rules::same(path) {
                let all = std::mem::take(items);
                *items = without_repeats(all, same);
            }
        }
        _ => {}
    }
}

fn without_repeats(all: Vec<Node>, same: Same) -> Vec<Node> {
    let mut kept: Vec<Node> = Vec::with_capacity(all.len());
    let mut places: HashMap<String, usize> = HashMap::new();
    for item in all {
        // What has no key is a mistake that is named when the list is read.
        let key = key(&item, same);
        match key.as_ref().and_then(|key| places.get(key)).and_then(|place| kept.get_mut(*place)) {
            Some(earlier) => *earlier = item,
            None => {
                if let Some(key) = key {
                    places.insert(key, kept.len());
                }
                kept.push(item);
            }
        }
    }
    kept
}

fn key(item: &Node, same: Same) -> Option<String> {
    let text = |name: &str| field(item, name);
    let short = item.scalar().map(|scalar| scalar.value.as_str());
    Some(match (same, short) {
        (Same::Name, Some(short)) => short.split_once('=').map_or(short, |(name, _)| name).to_owned(),
        (Same::Name, None) => return None,
        (Same::Text | Same::Path | Same::Port, Some(short)) => short.to_owned(),
        (Same::Text, None) => return None,
        (Same::Path, None) => text("path")?,
        (Same::Port, None) => format!(
            "{}:{}:{}/{}",
            text("host_ip").unwrap_or_else(|| "0.0.0.0".to_owned()),
            text("published").unwrap_or_default(),
            text("target")?,
            text("protocol").unwrap_or_else(|| "tcp".to_owned()),
        ),
        // `source:target:options`, or a target alone.
        (Same::Target, Some(short)) => {
            let mut parts = short.split(':');
            let first = parts.next().unwrap_or_default();
            parts.next().unwrap_or(first).to_owned()
        }
        (Same::Target, None) => text("target")?,
        (Same::Mount(directory), Some(short)) => format!("{directory}/{short}"),
        (Same::Mount(directory), None) => match text("target") {
            Some(target) => target,
            None => format!("{directory}/{}", text("source")?),
        },
    })
}

/// The text of a mapping's value; what is nothing counts as left out.
fn field(node: &Node, name: &str) -> Option<String> {
    let scalar = node.get(name)?.scalar()?;
    (scalar.resolve() != Value::Null).then(|| scalar.value.clone())
}
