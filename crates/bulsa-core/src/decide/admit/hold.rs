//! Whose requests wait in the proxy because a human wants it.
//!
//! Owns: which services a request to hold is about, and whether it is so already. Never: holds what the proxy doesn't see;
//! refuses to let out what is held, whatever became of the service.

use std::collections::BTreeSet;

use super::{Admission, Denied, existing_wish};
use crate::{
    decide::desired::{Change, Desired},
    time::Timestamp,
};

/// Holds the requests of the services that are `named`, or of all; or lets them out.
pub(super) fn hold(
    desired: &Desired,
    named: BTreeSet<String>,
    on: bool,
    now: Timestamp,
) -> Result<Admission, Denied> {
    let services = if on { to_hold(desired, named)? } else { to_let_out(desired, named)? };
    let differs = |service: &String| desired.wish(service).held.is_some() != on;
    let since = on.then_some(now);
    let changes: Vec<Change> = services
        .iter()
        .filter(|service| differs(service))
        .map(|service| Change::Hold { service: service.clone(), since })
        .collect();
    if changes.is_empty() {
        return Ok(Admission::AlreadySo(so_already(&services, on)));
    }
    Ok(Admission::Accepted { changes, deployment: None })
}

fn to_hold(desired: &Desired, named: BTreeSet<String>) -> Result<BTreeSet<String>, Denied> {
    let (_, live) = desired.live().ok_or(Denied::NoLiveRelease)?;
    let routed = live.spec.services.values().filter(|service| desired.is_routed(service));
    let routed: BTreeSet<String> = routed.map(|service| service.name.clone()).collect();
    for name in &named {
        existing_wish(desired, name)?;
        if !routed.contains(name) {
            return Err(Denied::NotRouted(name.clone()));
        }
    }
    match (named.is_empty(), routed.is_empty()) {
        (false, _) => Ok(named),
        (true, false) => Ok(routed),
        (true, true) => Err(Denied::NothingRouted),
    }
}

/// One that a later release no longer has may be let out too: it may come back.
fn to_let_out(desired: &Desired, named: BTreeSet<String>) -> Result<BTreeSet<String>, Denied> {
    desired.live().ok_or(Denied::NoLiveRelease)?;
    let is_held = |name: &String| desired.wish(name).held.is_some();
    if named.is_empty() {
        return Ok(desired.wishes.keys().filter(|name| is_held(name)).cloned().collect());
    }
    for name in named.iter().filter(|name| !is_held(name)) {
        existing_wish(desired, name)?;
    }
    Ok(named)
}

fn so_already(services: &BTreeSet<String>, on: bool) -> String {
    let names: Vec<String> = services.iter().map(|name| format!("`{name}`")).collect();
    match (on, names.is_empty()) {
        (true, _) => format!("the requests for {} are held already", names.join(", ")),
        (false, false) => format!("the requests for {} aren't held", names.join(", ")),
        (false, true) => "no service's requests are held".to_owned(),
    }
}
