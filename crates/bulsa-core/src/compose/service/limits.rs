//! What a process may take of the host: `deploy.resources.limits`, and `cpus`, `mem_limit`, `pids_limit`.
//!
//! Owns: their values on the process engine. A container's go to the Engine as they are.

use super::super::{
    container::values,
    diagnostic::{Diagnostic, Diagnostics},
    tree::Node,
};
use crate::spec::ResourceLimits;

/// The Engine takes no lower limit for a container: a program in less is killed before it begins.
const MEMORY_MIN: u64 = 6 << 20;
/// The kernel counts a share of a processor no finer, in thousandths.
const MILLICPUS_MIN: u64 = 10;

/// That the long keys and the short ones say the same has been checked.
pub(super) fn read(node: &Node, path: &str, diags: &mut Diagnostics) -> ResourceLimits {
    let mut found = ResourceLimits::default();
    let long = node.get("deploy").and_then(|it| it.get("resources")).and_then(|it| it.get("limits"));
    let long_path = format!("{path}.deploy.resources.limits");
    let places = [(Some(node), path, SHORT), (long, long_path.as_str(), LONG)];
    for (node, path, [cpus, memory, pids]) in places {
        let at = |key: &str| Some((node?.get(key)?, format!("{path}.{key}")));
        if let Some((node, path)) = at(cpus) {
            found.millicpus = cpus_of(node, &path, diags).or(found.millicpus);
        }
        if let Some((node, path)) = at(memory) {
            found.memory = memory_of(node, &path, diags).or(found.memory);
        }
        if let Some((node, path)) = at(pids) {
            // -1 and 0 are no limit.
            let pids = values::integer(node, &path, (-1, i64::MAX), diags);
            found.pids =
                pids.and_then(|pids| u64::try_from(pids).ok()).filter(|pids| 0 < *pids).or(found.pids);
        }
    }
    found
}

const SHORT: [&str; 3] = ["cpus", "mem_limit", "pids_limit"];
const LONG: [&str; 3] = ["cpus", "memory", "pids"];

/// 0 is no limit.
fn cpus_of(node: &Node, path: &str, diags: &mut Diagnostics) -> Option<u64> {
    let millicpus = (values::decimal(node, path, diags)? * 1000.0).round() as u64;
    if 0 < millicpus && millicpus < MILLICPUS_MIN {
        diags.push(
            Diagnostic::error(&node.pos, format!("{path}: less than 0.01 of a processor can't be had"))
                .expected("0.01 or more"),
        );
        return None;
    }
    Some(millicpus).filter(|millicpus| 0 < *millicpus)
}

/// 0 is no limit.
fn memory_of(node: &Node, path: &str, diags: &mut Diagnostics) -> Option<u64> {
    let bytes = u64::try_from(values::bytes(node, path, false, diags)?).ok()?;
    if 0 < bytes && bytes < MEMORY_MIN {
        diags.push(
            Diagnostic::error(&node.pos, format!("{path}: {bytes} bytes are too little for any program"))
                .expected("6m or more, such as 256m"),
        );
        return None;
    }
    Some(bytes).filter(|bytes| 0 < *bytes)
}
