//! Going back to the release before, when the live one can't be healed.
//!
//! Owns: when that is worth trying. Never: does it; it is asked for as a person would ask, and goes through a rollback's gate, so
//! what is no better changes nothing.

use std::time::Duration;

use super::super::{
    Decision, Outcome,
    desired::{Desired, Kind, Phase},
    excuse,
    observed::Observed,
};
use crate::{
    ids::ReleaseId,
    spec::{Role, Service},
    time::Timestamp,
};

/// So long after its switch a release is what has changed last, and may be the cause.
pub const FALL_BACK_WITHIN: Duration = Duration::from_secs(86_400);
/// So often in a row each of a service's places has to have died before it was ready.
pub const FALL_BACK_DEATHS: u32 = 5;

/// Where to go back to, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FallBack {
    /// The release.
    pub to: ReleaseId,
    /// What can't be healed.
    pub reason: String,
}

/// Asks for the release before, when a service of the live one serves nobody and dies again and again before it is ready.
pub(in crate::decide) fn fall_back(
    desired: &Desired,
    observed: &Observed,
    now: Timestamp,
    decision: &mut Decision,
) {
    let Some((live, release)) = desired.live().filter(|_| !desired.down) else { return };
    let Some(last) = &desired.deployment else { return };
    // One that was gone back to, or from which going back has failed, is healed as it is.
    let Phase::Done { outcome: Outcome::Deployed, at, .. } = &last.phase else { return };
    if last.kind != Kind::Deploy || last.candidate != live || FALL_BACK_WITHIN <= now.since(*at) {
        return;
    }
    let Some(to) = last.previous.filter(|to| desired.rollback_target() == Some(*to)) else { return };
    let Some(before) = desired.releases.get(&to) else { return };
    let is_changed = |service: &&Service| {
        let old = before.spec.services.get(&service.name);
        old.is_some_and(|old| {
            old.container != service.container || old.argv != service.argv || old.env != service.env
        })
    };
    let services = release.spec.services.values();
    let beyond = services
        .filter(|service| matches!(service.role, Role::App | Role::Worker))
        .filter(is_changed)
        .find_map(|service| Some((service, hopeless(desired, observed, (live, service), now)?)));
    if let Some((service, deaths)) = beyond {
        let name = &service.name;
        let reason = format!(
            "`{name}` of {live} died {deaths} times in a row before it was ready, and nothing of it serves"
        );
        decision.fall_back = Some(FallBack { to, reason });
    }
}

/// How often in a row its places have died, if none serves and all have died often.
fn hopeless(
    desired: &Desired,
    observed: &Observed,
    (live, service): (ReleaseId, &Service),
    now: Timestamp,
) -> Option<u32> {
    let mut least = None;
    for slot in desired.slots(live, service) {
        if observed.in_slot(&slot).any(|(_, replica)| replica.serves(service))
            || desired.withheld.contains(&slot)
        {
            return None;
        }
        let deaths = observed.slot(&slot).map_or(0, |history| history.early_deaths);
        least = Some(least.map_or(deaths, |least: u32| least.min(deaths)));
    }
    let is_to_blame = || excuse::is_short_of_something(desired, observed, live, service, now);
    least.filter(|deaths| FALL_BACK_DEATHS <= *deaths && !is_to_blame())
}
