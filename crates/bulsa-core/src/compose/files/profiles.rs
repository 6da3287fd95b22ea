//! `profiles`: services that are only there when asked for.
//!
//! Owns: which services are on (those without profiles, those with an active one, and those named on the command line
//! with everything of their profiles), and that none that is on needs one that is off.

use std::collections::BTreeSet;

use super::super::{
    diagnostic::{Diagnostic, Diagnostics, Pos},
    read,
    scalar::Value,
    tree::{Entry, Kind, Node},
};

/// Every profile at once.
const ALL: &str = "*";

/// Leaves out the services that are off; gives their names.
pub(in super::super) fn switch(
    root: &mut Node,
    active: &[String],
    named: &[String],
    diags: &mut Diagnostics,
) -> BTreeSet<String> {
    let mut off = BTreeSet::new();
    let Kind::Mapping(top) = &mut root.kind else { return off };
    let Some(services) = top.iter_mut().find(|entry| entry.key == "services") else { return off };
    let Kind::Mapping(services) = &mut services.value.kind else { return off };
    let of = |service: &Entry, diags: &mut Diagnostics| -> Vec<String> {
        let path = format!("services.{}.profiles", service.key);
        let profiles = service.value.get("profiles");
        let profiles = profiles.filter(|node| node.scalar().map(|s| s.resolve()) != Some(Value::Null));
        profiles.and_then(|node| read::texts(node, &path, diags)).unwrap_or_default()
    };
    let mut active: BTreeSet<String> = active.iter().cloned().collect();
    for service in services.iter().filter(|service| named.contains(&service.key)) {
        let own = of(service, diags);
        if !own.is_empty() && !own.iter().any(|profile| active.contains(profile)) {
            active.extend(own);
        }
    }
    services.retain(|service| {
        let profiles = of(service, diags);
        let on = profiles.is_empty() || active.contains(ALL) || profiles.iter().any(|p| active.contains(p));
        if !on {
            off.insert(service.key.clone());
        }
        on
    });
    for service in services.iter() {
        needs(service, &off, diags);
    }
    off
}

/// A service that is on can't do without one that is off.
fn needs(service: &Entry, off: &BTreeSet<String>, diags: &mut Diagnostics) {
    let mut complain = |key: &str, name: &str, pos: &Pos| {
        if off.contains(name) {
            let path = format!("services.{}.{key}", service.key);
            let mistake =
                format!("{path}: the service `{name}` is off, because none of its profiles is active");
            diags.push(Diagnostic::error(pos, mistake).hint(match key {
                "depends_on" => "activate one with `--profile`, or say `required: false` here",
                _ => "activate one with `--profile`",
            }));
        }
    };
    let Kind::Mapping(keys) = &service.value.kind else { return };
    for Entry { key, value, .. } in keys {
        match (key.as_str(), &value.kind) {
            ("depends_on", Kind::Mapping(dependencies)) => {
                for dependency in dependencies.iter().filter(|entry| required(&entry.value)) {
                    complain("depends_on", &dependency.key, &dependency.key_pos);
                }
            }
            ("depends_on" | "links" | "volumes_from", Kind::Sequence(items)) => {
                for item in items {
                    let text = item.scalar().map_or("", |scalar| scalar.value.as_str());
                    complain(key, text.split(':').next().unwrap_or_default(), &item.pos);
                }
            }
            ("network_mode" | "ipc" | "pid" | "uts" | "cgroup", Kind::Scalar(scalar)) => {
                if let Some(name) = scalar.value.strip_prefix("service:") {
                    complain(key, name, &value.pos);
                }
            }
            _ => {}
        }
    }
}

fn required(dependency: &Node) -> bool {
    let required = dependency.get("required").and_then(Node::scalar);
    !required.is_some_and(|scalar| matches!(scalar.resolve(), Value::Bool(false) | Value::Text("false")))
}
