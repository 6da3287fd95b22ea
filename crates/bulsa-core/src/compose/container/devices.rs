//! Requests for devices such as GPUs: `gpus`, and `deploy.resources.reservations.devices`.

use super::{
    super::{
        diagnostic::Diagnostics,
        read,
        scalar::Value,
        tree::{Kind, Node, Scalar},
    },
    values::{self, fields},
};
use crate::spec::container::DeviceRequest;

/// How the Engine says "all of them".
const ALL: i64 = -1;

/// A list of requests, or `all`; `gpu` is what is asked for where nothing is said under `gpus`.
pub(super) fn requests(node: &Node, path: &str, gpus: bool, diags: &mut Diagnostics) -> Vec<DeviceRequest> {
    let gpu = || vec![vec!["gpu".to_owned()]];
    if let Kind::Scalar(scalar) = &node.kind {
        if gpus && scalar.resolve() == Value::Text("all") {
            return vec![DeviceRequest { count: Some(ALL), capabilities: gpu(), ..DeviceRequest::default() }];
        }
        diags.push(read::wrong(node, path, if gpus { "`all`, or a list" } else { "a list" }));
        return Vec::new();
    }
    let mut all = Vec::new();
    for (item, path) in values::items(node, path, diags) {
        let mut it = DeviceRequest::default();
        fields(item, &path, diags, |entry, path, diags| {
            let node = &entry.value;
            match entry.key.as_str() {
                "driver" => it.driver = values::word(node, path, diags),
                "count" => it.count = count(node, path, diags),
                "device_ids" => it.device_ids = values::words(node, path, diags),
                "options" => it.options = values::pairs(node, path, diags),
                // One set, all of which a device must have.
                _ => it.capabilities = vec![values::words(node, path, diags)],
            }
        });
        if gpus && !it.capabilities.iter().flatten().any(|name| name == "gpu") {
            match it.capabilities.first_mut() {
                Some(set) => set.push("gpu".to_owned()),
                None => it.capabilities = gpu(),
            }
        }
        // As Compose has it: neither a number nor ids asks for all.
        if it.count.is_none() && it.device_ids.is_empty() {
            it.count = Some(ALL);
        }
        all.push(it);
    }
    all
}

fn count(node: &Node, path: &str, diags: &mut Diagnostics) -> Option<i64> {
    if node.scalar().map(Scalar::resolve) == Some(Value::Text("all")) {
        return Some(ALL);
    }
    values::integer(node, path, (ALL, i64::MAX), diags)
}
