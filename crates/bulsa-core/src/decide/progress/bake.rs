//! How a release is watched that users meet: in its bake, and while it is rolled out.
//!
//! Owns: when it is bad. Never: says what follows from that.

use super::{
    super::{
        Decision, Load,
        observed::{Observed, Replica},
    },
    Change, Deployment, Desired, Outcome, bake_time,
};
use crate::{
    ids::{ReleaseId, ReplicaId},
    spec::{Role, Service},
    time::Timestamp,
};

/// A release in its bake is bad when this many replicas of one service ended by their own doing. One is enough, as with
/// Swarm's `max_failure_ratio` of 0: the release before is warm and proven, and every further crash costs requests.
const BAKE_OWN_DEATHS_MAX: u32 = 1;
/// A release in its bake is bad when this many replicas of one service died, for whatever reason.
const BAKE_DEATHS_MAX: u32 = 4;
/// The error share of a bake counts from this many requests on.
const BAKE_REQUESTS_MIN: u64 = 20;

pub(super) fn bake(
    desired: &Desired,
    observed: &Observed,
    deployment: &Deployment,
    switched: Timestamp,
    now: Timestamp,
    decision: &mut Decision,
) -> Option<Change> {
    let candidate = desired.releases.get(&deployment.candidate)?;
    let previous = deployment.previous?;
    let reason = candidate.spec.services.values().find_map(|service| {
        let old = desired.service(previous, &service.name);
        let previous = old.map(|_| previous);
        badness(desired, observed, (deployment.candidate, previous), service, "after the switch")
    });
    if let Some(reason) = reason {
        if desired.releases.get(&previous).is_some_and(|previous| previous.proven) {
            return Some(Change::Undo { reason, at: now });
        }
        let reason = format!("{reason}; {previous} never was healthy, so there is nothing to go back to");
        return Some(Change::Finish { outcome: Outcome::Failed, reason, at: now });
    }
    let end = switched + bake_time(&candidate.spec);
    if now < end {
        decision.wake(end);
        return None;
    }
    Some(Change::Finish { outcome: Outcome::Deployed, reason: String::new(), at: now })
}

/// Why a service of a release that users meet is bad, if it is. `when` they met it is said with it.
pub(super) fn badness(
    desired: &Desired,
    observed: &Observed,
    (release, previous): (ReleaseId, Option<ReleaseId>),
    service: &Service,
    when: &str,
) -> Option<String> {
    if !matches!(service.role, Role::App | Role::Worker) || desired.replicas(service) == 0 {
        return None;
    }
    let name = &service.name;
    let (mut own, mut all) = (0, 0);
    for (_, history) in observed.histories(release, name) {
        own += history.own_deaths;
        all += history.deaths;
    }
    if own >= BAKE_OWN_DEATHS_MAX || all >= BAKE_DEATHS_MAX {
        let noun = if all == 1 { "replica" } else { "replicas" };
        return Some(format!("{all} {noun} of `{name}` died {when}"));
    }
    let of = |(id, _): &(&ReplicaId, &Replica)| id.release == release && id.service == *name;
    let serves = observed.replicas().filter(of).any(|(_, replica)| replica.serves(service));
    // A kill from outside says nothing about the release: requests are held until the next replica is ready.
    let by_itself = own > 0 || observed.replicas().filter(of).any(|(_, replica)| replica.is_sick());
    if !serves && service.role == Role::App && by_itself {
        return Some(format!("no replica of `{name}` was healthy any more {when}"));
    }
    let new = total(observed, release, name);
    let share = share(new);
    let old_share = previous.map_or(0.0, |old| self::share(total(observed, old, name)));
    (new.requests >= BAKE_REQUESTS_MIN && share > service.bake.errors && share > old_share).then(|| {
        format!(
            "{} of {} requests to `{name}` failed {when} ({:.0} %, allowed are {:.0} %)",
            new.errors,
            new.requests,
            share * 100.0,
            service.bake.errors * 100.0
        )
    })
}

fn total(observed: &Observed, release: ReleaseId, service: &str) -> Load {
    observed
        .replicas()
        .filter(|(id, _)| id.release == release && id.service == service)
        .map(|(id, _)| observed.load_since_switch(id))
        .fold(Load::default(), |sum, load| Load {
            requests: sum.requests + load.requests,
            errors: sum.errors + load.errors,
            ..sum
        })
}

#[expect(clippy::cast_precision_loss, reason = "a share of requests needs no more than 52 bits")]
fn share(load: Load) -> f64 {
    if load.requests == 0 { 0.0 } else { load.errors as f64 / load.requests as f64 }
}
