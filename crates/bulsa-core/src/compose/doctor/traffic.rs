//! What is asked of the proxy in vain: nothing breaks, and nothing of it happens.

use crate::spec::{self, Policy};

use super::{Level, services::Notes};

pub(super) fn look(notes: &mut Notes<'_>, resolved: &spec::Service) {
    one_replica(notes, resolved);
    surplus_weights(notes, resolved);
    no_port(notes, resolved);
}

/// Where there is one replica there is nothing to choose.
fn one_replica(notes: &mut Notes<'_>, resolved: &spec::Service) {
    if resolved.replicas != 1 {
        return;
    }
    let balance = &resolved.balance;
    for (key, is_asked, what) in [
        ("balance.policy", balance.policy == Policy::Sticky, "`policy: sticky`"),
        ("balance.weight", !balance.weights.is_empty(), "`weight`"),
    ] {
        let pos = notes.service.bulsa.at.get(key).filter(|_| is_asked).cloned();
        if let Some(pos) = pos {
            let what = format!("{what} of `{}` has no effect: it has one replica", resolved.name);
            let patch = Some("deploy: {replicas: 2}, or remove the key".to_owned());
            notes.add(Level::Warning, &pos, what, "all its requests go there anyway", patch);
        }
    }
}

fn surplus_weights(notes: &mut Notes<'_>, resolved: &spec::Service) {
    let (weights, replicas) = (resolved.balance.weights.len(), resolved.replicas);
    if replicas <= 1 || u32::try_from(weights).is_ok_and(|weights| weights <= replicas) {
        return;
    }
    let Some(pos) = notes.service.bulsa.at.get("balance.weight").cloned() else { return };
    let what = format!("`{}` has {weights} weights and {replicas} replicas", resolved.name);
    let evidence = "the first weight is the first replica's; the last ones are nobody's";
    let patch = Some(format!("deploy: {{replicas: {weights}}}, or fewer weights"));
    notes.add(Level::Warning, &pos, what, evidence, patch);
}

/// Hosts, paths and rules are those of published ports.
fn no_port(notes: &mut Notes<'_>, resolved: &spec::Service) {
    if !resolved.ports.is_empty() {
        return;
    }
    let of_ports = |key: &str| !matches!(key, "protocol" | "send_proxy");
    let routes = &notes.service.bulsa.routes;
    let asked = routes.iter().flat_map(|route| &route.at).find(|(key, _)| of_ports(key));
    let Some((key, pos)) = asked.map(|(key, pos)| (key.clone(), pos.clone())) else { return };
    let what = format!("`route.{key}` of `{}` has no effect: Bulsa publishes no port of it", resolved.name);
    let evidence = "routes are for published ports; its name inside the project's networks leads to it whole";
    let patch = Some("ports: [\"80:3000\"], or remove the key".to_owned());
    notes.add(Level::Warning, &pos, what, evidence, patch);
}
