//! From nodes to values: the checks that every key needs.
//!
//! Owns: one function per kind of value. Each takes the node, the path for messages (`services.web.user`) and the
//! list of mistakes, and gives `None` after adding a mistake to it.

use std::{ops::RangeInclusive, time::Duration};

use super::{
    canonical,
    diagnostic::{Diagnostic, Diagnostics},
    duration::{self, Bounds},
    keys::Keys,
    scalar::Value,
    tree::{Entry, Kind, Node},
};

/// What a node is, for messages.
pub(super) fn describe(node: &Node) -> String {
    match &node.kind {
        Kind::Scalar(scalar) => scalar.resolve().describe(),
        Kind::Sequence(_) => "a list".to_owned(),
        Kind::Mapping(_) => "a mapping".to_owned(),
    }
}

/// The mistake that a node is of the wrong kind.
pub(super) fn wrong(node: &Node, path: &str, expected: &str) -> Diagnostic {
    Diagnostic::error(&node.pos, format!("{path} is {}", describe(node))).expected(expected)
}

pub(super) fn mapping<'n>(node: &'n Node, path: &str, diags: &mut Diagnostics) -> Option<&'n [Entry]> {
    match &node.kind {
        Kind::Mapping(entries) => Some(entries),
        _ => {
            diags.push(wrong(node, path, "a mapping"));
            None
        }
    }
}

/// Calls `each` with every entry of a mapping in canonical form; what was malformed is left out.
pub(super) fn entries(
    node: &Node,
    path: &str,
    diags: &mut Diagnostics,
    mut each: impl FnMut(&Entry, &str, &mut Diagnostics),
) {
    let Kind::Mapping(entries) = &node.kind else { return };
    for entry in entries.iter().filter(|entry| !canonical::is_malformed(&entry.value)) {
        let key = &entry.key;
        let full = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        each(entry, &full, diags);
    }
}

/// Calls `each` with every entry of a mapping of `x-bulsa` that works today; the others are mistakes.
pub(super) fn keys(
    node: &Node,
    path: &str,
    keys: &Keys,
    diags: &mut Diagnostics,
    mut each: impl FnMut(&Entry, &str, &mut Diagnostics),
) {
    for entry in mapping(node, path, diags).unwrap_or_default() {
        let key = entry.key.as_str();
        let full = if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
        if keys.known.contains(&key) {
            each(entry, &full, diags);
        } else if let Some(later) = keys.later(key) {
            let message = format!("{full}: `{key}` {}", later.reason());
            diags.push(Diagnostic::error(&entry.key_pos, message).hint(later.hint()));
        } else if !(keys.extensions && key.starts_with("x-")) {
            diags.push(unknown(entry, path, keys));
        }
    }
}

fn unknown(entry: &Entry, path: &str, keys: &Keys) -> Diagnostic {
    let place = if path.is_empty() { "the top of the file" } else { path };
    let mistake = Diagnostic::error(&entry.key_pos, format!("{place}: there is no key `{}`", entry.key))
        .nearest(&entry.key, keys.names());
    if mistake.suggestion.is_some() {
        return mistake;
    }
    let known = keys.known.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    mistake.expected(format!("one of {known}"))
}

pub(super) fn text<'n>(node: &'n Node, path: &str, diags: &mut Diagnostics) -> Option<&'n str> {
    if let Some(scalar) = node.scalar() {
        match scalar.resolve() {
            Value::Text(text) if text.contains('\0') => {
                diags.push(Diagnostic::error(&node.pos, format!("{path} contains a NUL character")));
                return None;
            }
            Value::Text(text) => return Some(text),
            Value::Null => {}
            _ => {
                diags.push(wrong(node, path, "text").hint(format!("put it in quotes: \"{}\"", scalar.value)));
                return None;
            }
        }
    }
    diags.push(wrong(node, path, "text"));
    None
}

/// A list of texts.
pub(super) fn texts(node: &Node, path: &str, diags: &mut Diagnostics) -> Option<Vec<String>> {
    let Kind::Sequence(items) = &node.kind else {
        diags.push(wrong(node, path, "a list of texts"));
        return None;
    };
    let read = items.iter().enumerate().map(|(i, item)| text(item, &format!("{path}[{i}]"), diags));
    // All of them are looked at before the first mistake counts.
    let read: Vec<_> = read.map(|text| text.map(str::to_owned)).collect();
    read.into_iter().collect()
}

pub(super) fn number(
    node: &Node,
    path: &str,
    range: RangeInclusive<u32>,
    diags: &mut Diagnostics,
) -> Option<u32> {
    let whole = node.scalar().and_then(|scalar| match scalar.resolve() {
        Value::Int(n) => Some(n),
        Value::Float(n) if n.fract() == 0.0 && n.abs() <= f64::from(u32::MAX) => {
            format!("{n:.0}").parse().ok()
        }
        Value::Text(text) => text.parse::<i128>().ok(),
        _ => None,
    });
    let number = whole.and_then(|n| u32::try_from(n).ok()).filter(|n| range.contains(n));
    if number.is_none() {
        let expected = format!("a whole number from {} to {}", range.start(), range.end());
        diags.push(wrong(node, path, &expected));
    }
    number
}

pub(super) fn boolean(node: &Node, path: &str, diags: &mut Diagnostics) -> Option<bool> {
    match node.scalar().map(super::tree::Scalar::resolve) {
        Some(Value::Bool(b)) => return Some(b),
        Some(Value::Text("true")) => return Some(true),
        Some(Value::Text("false")) => return Some(false),
        _ => diags.push(wrong(node, path, "true or false")),
    }
    None
}

/// A duration in whole milliseconds: nothing here is timed more finely, and the wire form counts in them.
pub(super) fn duration(node: &Node, path: &str, bounds: Bounds, diags: &mut Diagnostics) -> Option<Duration> {
    const NANOS_PER_MS: u32 = 1_000_000;
    let found = any_duration(node, path, bounds, diags)?;
    if found.subsec_nanos() % NANOS_PER_MS != 0 {
        diags.push(wrong(node, path, "whole milliseconds"));
        return None;
    }
    Some(found)
}

/// A duration as fine as it was written.
pub(super) fn any_duration(
    node: &Node,
    path: &str,
    bounds: Bounds,
    diags: &mut Diagnostics,
) -> Option<Duration> {
    const EXAMPLE: &str = "a duration such as 1m30s or 500ms";
    let mistake = match node.scalar().map(super::tree::Scalar::resolve) {
        Some(Value::Int(0)) => return Some(Duration::ZERO),
        Some(Value::Int(n)) => {
            wrong(node, path, EXAMPLE).hint(format!("add the unit: {n}s for seconds, {n}ms for milliseconds"))
        }
        Some(Value::Text(text)) => match duration::parse(text) {
            Ok(found) if found >= bounds.min && found <= bounds.max => return Some(found),
            Ok(_) => wrong(
                node,
                path,
                &format!("{} to {}", duration::format(bounds.min), duration::format(bounds.max)),
            ),
            Err(error) => {
                Diagnostic::error(&node.pos, format!("{path} is {text:?}: {error}")).expected(EXAMPLE)
            }
        },
        _ => wrong(node, path, EXAMPLE),
    };
    diags.push(mistake);
    None
}

/// One of a few names; `later` are valid ones that don't work yet.
pub(super) fn choice<T: Copy>(
    node: &Node,
    path: &str,
    names: &[(&str, T)],
    later: &[&str],
    diags: &mut Diagnostics,
) -> Option<T> {
    let found = text(node, path, diags)?;
    if let Some((_, value)) = names.iter().find(|(name, _)| *name == found) {
        return Some(*value);
    }
    let list = names.iter().map(|(name, _)| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    let mistake = if later.contains(&found) {
        Diagnostic::error(&node.pos, format!("{path}: `{found}` comes in a later version"))
    } else {
        Diagnostic::error(&node.pos, format!("{path}: {found:?} is unknown"))
            .nearest(found, names.iter().map(|(name, _)| *name))
    };
    let expected = if names.len() == 1 { list } else { format!("one of {list}") };
    diags.push(mistake.expected(expected));
    None
}
