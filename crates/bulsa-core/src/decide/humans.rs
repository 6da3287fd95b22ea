//! What humans did through the Engine: a replica taken away stays away, one started again is taken on again.
//!
//! Owns: the difference between what was seen of that and what is committed of it. Never: takes a human's doing for a
//! failure, or fills a slot that one emptied (ARCHITECTURE.md, invariant 8).

use super::{
    Decision,
    desired::{Change, Desired},
    observed::Observed,
    wanted::by_release,
};
use crate::{
    ids::{ReleaseId, Slot},
    spec::Service,
};

/// Whether a human emptied this slot and nothing fills it. True from the moment that it is seen: while that is on its
/// way to the disk nothing is started in it.
pub(super) fn is_away(desired: &Desired, observed: &Observed, slot: &Slot) -> bool {
    let is_emptied =
        desired.withheld.contains(slot) || observed.slot(slot).is_some_and(|history| history.taken_away);
    is_emptied && !is_filled(observed, slot)
}

/// Whether humans emptied every slot of `service`: its requests are answered at once, as when it is stopped.
pub(super) fn is_all_away(
    desired: &Desired,
    observed: &Observed,
    release: ReleaseId,
    service: &Service,
) -> bool {
    let mut slots = desired.slots(release, service).peekable();
    slots.peek().is_some() && slots.all(|slot| is_away(desired, observed, &slot))
}

fn is_filled(observed: &Observed, slot: &Slot) -> bool {
    observed.in_slot(slot).any(|(_, replica)| !replica.is_stopping())
}

/// Proposes to commit what was seen.
pub(super) fn record(desired: &Desired, observed: &Observed, decision: &mut Decision) {
    if desired.down {
        return;
    }
    let emptied = by_release(desired, observed).into_keys().filter(|slot| {
        !desired.withheld.contains(slot)
            && observed.slot(slot).is_some_and(|history| history.taken_away)
            && !is_filled(observed, slot)
    });
    decision.commits.extend(emptied.map(|slot| Change::Withhold { slot }));
    let filled = desired.withheld.iter().filter(|slot| is_filled(observed, slot));
    decision.commits.extend(filled.map(|slot| Change::Reinstate { slot: slot.clone() }));
}
