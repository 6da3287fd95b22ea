//! `x-bulsa.recycle`: when a replica is replaced though nothing is wrong with it.
//!
//! Owns: its keys and their bounds. Never: knows a memory limit; what a share of it is in bytes is said when that is known.

use std::time::Duration;

use super::super::{
    container::values, diagnostic::Diagnostics, duration::Bounds, keys, model::Bulsa, read, tree::Node,
};

/// One that is replaced more often than this hardly serves.
const AGE: Bounds = Bounds { min: Duration::from_secs(60), max: Duration::from_secs(366 * 86_400) };
/// Fewer requests than this are no life.
const REQUESTS: (u32, u32) = (100, u32::MAX);

pub(super) fn read(bulsa: &mut Bulsa, node: &Node, path: &str, diags: &mut Diagnostics) {
    read::keys(node, path, &keys::BULSA_RECYCLE, diags, |entry, path, diags| {
        let node = &entry.value;
        match entry.key.as_str() {
            "age" => bulsa.care.age = read::duration(node, path, AGE, diags),
            "memory" if is_share(node) => {
                bulsa.memory_share = super::percent(node, path, diags).map(|share| (share, node.pos.clone()));
            }
            "memory" => {
                let bytes = values::bytes(node, path, false, diags);
                bulsa.care.memory = bytes.and_then(|bytes| u64::try_from(bytes).ok());
            }
            _ => {
                let number = read::number(node, path, REQUESTS.0..=REQUESTS.1, diags);
                bulsa.care.requests = number.map(u64::from);
            }
        }
    });
}

fn is_share(node: &Node) -> bool {
    let text = node.scalar().and_then(|scalar| scalar.resolve().into_text()).unwrap_or_default();
    text.trim_end().ends_with('%')
}
