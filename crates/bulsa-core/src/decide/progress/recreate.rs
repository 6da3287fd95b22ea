//! `shared` services that a deploy recreates, when it is given up.
//!
//! Owns: how long what ran before has to come back. Never: starts it; a candidate that is given up wants nothing any more.

use std::time::Duration;

use super::{
    super::{Decision, observed::Observed},
    Change, Deployment, Desired, Phase,
};
use crate::{ids::Slot, spec::Service, time::Timestamp};

/// How much longer than its gate and the stop of the new one the old one may take.
const COME_BACK_MARGIN: Duration = Duration::from_secs(30);

/// Whether what ran may have been stopped for a new one.
pub(super) fn has_begun(deployment: &Deployment) -> bool {
    matches!(deployment.phase, Phase::Exchange { .. }) && !deployment.recreates.is_empty()
}

/// The end of a deploy that is given up, once what it had recreated serves as before, or can't.
pub(super) fn come_back(
    desired: &Desired,
    observed: &Observed,
    deployment: &Deployment,
    (since, reason): (Timestamp, &str),
    now: Timestamp,
    decision: &mut Decision,
) -> Option<Change> {
    let undo = |reason: String| Some(Change::Undo { reason, at: now });
    let (_, live) = desired.live()?;
    let services = deployment.recreates.iter().filter_map(|name| live.spec.services.get(name));
    for service in services.filter(|service| desired.replicas(service) > 0) {
        let Some(slot) = desired.slots(deployment.candidate, service).next() else { continue };
        // In Revert the candidate still counts as the one that recreates it.
        let slot = Slot { release: desired.shared_release(&service.name), ..slot };
        if observed.in_slot(&slot).any(|(_, replica)| replica.serves(service)) {
            continue;
        }
        let failure = observed.slot(&slot).and_then(|history| history.start_error.as_ref());
        if let Some(error) = failure.filter(|error| error.permanent) {
            return undo(format!("{reason}; `{}` did not come back: {}", service.name, error.message));
        }
        let deadline = since + longest(desired, deployment, service);
        if deadline <= now {
            let why = failure.map(|error| format!(": {}", error.message)).unwrap_or_default();
            return undo(format!("{reason}; `{}` did not come back{why}", service.name));
        }
        decision.wake(deadline);
        return None;
    }
    undo(reason.to_owned())
}

fn longest(desired: &Desired, deployment: &Deployment, service: &Service) -> Duration {
    let new = desired.service(deployment.candidate, &service.name);
    service.gate_timeout + new.map_or(Duration::ZERO, |new| new.stop_grace) + COME_BACK_MARGIN
}
