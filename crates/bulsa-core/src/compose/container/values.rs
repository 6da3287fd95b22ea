//! Values that many keys of a container share: texts, pairs, whole numbers, sizes.
//!
//! Owns: reading them from the canonical tree, where a size is a number or the text of one, and a list of pairs may
//! stand as a mapping or as `NAME=value`. A number or truth value where text is wanted is taken as its text, as
//! Compose does.

use std::collections::BTreeMap;

use super::super::{
    diagnostic::Diagnostics,
    read,
    scalar::Value,
    tree::{Entry, Kind, Node, Scalar},
};

/// Calls `each` with every entry of a mapping that says something; what no table knows has been named already.
pub(super) fn fields(
    node: &Node,
    path: &str,
    diags: &mut Diagnostics,
    mut each: impl FnMut(&Entry, &str, &mut Diagnostics),
) {
    read::entries(node, path, diags, |entry, path, diags| {
        if !is_null(&entry.value) && !entry.key.starts_with("x-") {
            each(entry, path, diags);
        }
    });
}

/// Whether there is nothing: `key:`, `null`.
pub(in crate::compose) fn is_null(node: &Node) -> bool {
    node.scalar().map(Scalar::resolve) == Some(Value::Null)
}

/// Text, or what Compose makes of a number or truth value.
pub(super) fn word(node: &Node, path: &str, diags: &mut Diagnostics) -> Option<String> {
    match node.scalar().map(Scalar::resolve) {
        Some(Value::Text(_)) => read::text(node, path, diags).map(str::to_owned),
        Some(value) if value != Value::Null => value.into_text(),
        _ => {
            diags.push(read::wrong(node, path, "text"));
            None
        }
    }
}

/// A list of texts, or one of them alone.
pub(super) fn words(node: &Node, path: &str, diags: &mut Diagnostics) -> Vec<String> {
    match &node.kind {
        Kind::Sequence(items) => {
            let read = items.iter().enumerate().map(|(i, item)| word(item, &format!("{path}[{i}]"), diags));
            read.collect::<Vec<_>>().into_iter().flatten().collect()
        }
        Kind::Scalar(_) if is_null(node) => Vec::new(),
        Kind::Scalar(_) => word(node, path, diags).into_iter().collect(),
        Kind::Mapping(_) => {
            diags.push(read::wrong(node, path, "a list of texts"));
            Vec::new()
        }
    }
}

/// Names and values; `None` is a name without a value.
pub(super) fn optional_pairs(
    node: &Node,
    path: &str,
    diags: &mut Diagnostics,
) -> Vec<(String, Option<String>)> {
    match &node.kind {
        Kind::Mapping(entries) => entries
            .iter()
            .filter_map(|entry| {
                let value = if is_null(&entry.value) {
                    None
                } else {
                    Some(word(&entry.value, &format!("{path}.{}", entry.key), diags)?)
                };
                Some((entry.key.clone(), value))
            })
            .collect(),
        Kind::Scalar(_) if is_null(node) => Vec::new(),
        Kind::Sequence(_) => words(node, path, diags)
            .into_iter()
            .map(|text| match text.split_once('=') {
                Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                None => (text, None),
            })
            .collect(),
        Kind::Scalar(_) => {
            diags.push(read::wrong(node, path, "a mapping, or a list of NAME=value"));
            Vec::new()
        }
    }
}

/// Names and values; a name without a value has an empty one.
pub(super) fn pairs(node: &Node, path: &str, diags: &mut Diagnostics) -> BTreeMap<String, String> {
    optional_pairs(node, path, diags)
        .into_iter()
        .map(|(name, value)| (name, value.unwrap_or_default()))
        .collect()
}

/// A whole number, or the text of one.
pub(in crate::compose) fn integer(
    node: &Node,
    path: &str,
    (min, max): (i64, i64),
    diags: &mut Diagnostics,
) -> Option<i64> {
    let found = match node.scalar().map(Scalar::resolve) {
        Some(Value::Int(n)) => i64::try_from(n).ok(),
        Some(Value::Text(text)) => text.trim().parse().ok(),
        _ => None,
    };
    let found = found.filter(|n| (min..=max).contains(n));
    if found.is_none() {
        diags.push(read::wrong(node, path, &format!("a whole number from {min} to {max}")));
    }
    found
}

/// Any whole number.
pub(super) const ANY: (i64, i64) = (i64::MIN, i64::MAX);

/// A number that isn't negative, or the text of one.
pub(in crate::compose) fn decimal(node: &Node, path: &str, diags: &mut Diagnostics) -> Option<f64> {
    let text = node.scalar().and_then(|scalar| scalar.resolve().into_text());
    let found = text.and_then(|text| text.trim().parse::<f64>().ok()).filter(|n| n.is_finite() && *n >= 0.0);
    if found.is_none() {
        diags.push(read::wrong(node, path, "a number such as 0.5"));
    }
    found
}

/// Bytes: a number, or a text such as `512m`, `1.5gb`; -1 where `minus_one` is.
pub(in crate::compose) fn bytes(
    node: &Node,
    path: &str,
    minus_one: bool,
    diags: &mut Diagnostics,
) -> Option<i64> {
    let text = node.scalar().and_then(|scalar| scalar.resolve().into_text()).unwrap_or_default();
    if minus_one && text.trim() == "-1" {
        return Some(-1);
    }
    let found = size(&text);
    if found.is_none() {
        diags.push(read::wrong(node, path, "a number of bytes, such as 1048576, 512m or 1g"));
    }
    found
}

/// As Docker reads it: powers of 1024, whatever the letters after the unit.
fn size(text: &str) -> Option<i64> {
    let text = text.trim().to_ascii_lowercase();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let scale = match text[digits..].trim() {
        "" | "b" => 1_i64,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        "t" | "tb" | "tib" => 1 << 40,
        "p" | "pb" | "pib" => 1 << 50,
        _ => return None,
    };
    let number = &text[..digits];
    if let Ok(whole) = number.parse::<i64>() {
        return whole.checked_mul(scale);
    }
    /// Beyond this a fraction of a unit is no exact number of bytes any more.
    const EXACT: f64 = 9.0e15;
    let found = number.parse::<f64>().ok()? * scale as f64;
    (found.is_finite() && found <= EXACT).then_some(found as i64)
}

/// Permission bits: `0440` as text is octal, a number is what YAML made of it.
pub(super) fn mode(node: &Node, path: &str, diags: &mut Diagnostics) -> Option<u32> {
    const ALL_BITS: u32 = 0o7777;
    let found = match node.scalar().map(Scalar::resolve) {
        Some(Value::Int(n)) => u32::try_from(n).ok(),
        Some(Value::Text(text)) => u32::from_str_radix(text.trim_start_matches("0o"), 8).ok(),
        _ => None,
    };
    let found = found.filter(|bits| *bits <= ALL_BITS);
    if found.is_none() {
        diags.push(read::wrong(node, path, "permission bits such as 0440"));
    }
    found
}

/// Each item of a list, with its path; anything else is a mistake.
pub(super) fn items<'n>(node: &'n Node, path: &str, diags: &mut Diagnostics) -> Vec<(&'n Node, String)> {
    match &node.kind {
        Kind::Sequence(items) => {
            items.iter().enumerate().map(|(i, item)| (item, format!("{path}[{i}]"))).collect()
        }
        _ if is_null(node) => Vec::new(),
        _ => {
            diags.push(read::wrong(node, path, "a list"));
            Vec::new()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_docker_reads_them() {
        for (text, expected) in [
            ("0", Some(0)),
            ("536870912", Some(536_870_912)),
            ("512m", Some(536_870_912)),
            ("512MB", Some(536_870_912)),
            ("1.5g", Some(1_610_612_736)),
            ("10 k", Some(10_240)),
            ("64kib", Some(65_536)),
            ("", None),
            ("m", None),
            ("-1", None),
            ("5x", None),
            ("9999999999999p", None),
        ] {
            assert_eq!(size(text), expected, "{text}");
        }
    }
}
