//! What humans do to replicas through the Engine: `docker stop`, `kill`, `pause`, `unpause`.
//!
//! Owns: how that enters the picture. Never: takes it for a failure; decides what follows (that is `decide/humans.rs`).

use super::{ExitStatus, Observed};
use crate::{ids::ReplicaId, time::Timestamp};

impl Observed {
    /// Its slot is taken away with it, unless another replica fills it or we had asked it to stop anyway.
    pub(super) fn taken_away(&mut self, id: &ReplicaId, status: ExitStatus, now: Timestamp) {
        let slot = id.slot();
        match self.replicas.get(id) {
            Some(replica) if replica.is_stopping() => return self.exited(id, status, now),
            Some(_) => {}
            // Told late, twice, or by an agent that found its container: a newer one has been started since.
            None if self.slots.get(&slot).is_some_and(|history| history.attempt > id.attempt) => {
                return;
            }
            None => {}
        }
        self.replicas.remove(id);
        self.routed.remove(id);
        let is_filled = self.in_slot(&slot).any(|(_, replica)| !replica.is_stopping());
        let history = self.slots.entry(slot).or_default();
        history.bury(id.attempt, now);
        history.last_exit = Some(status);
        (history.excused, history.taken_away) = (true, !is_filled);
    }

    /// One that goes on is proven anew before it is routed, and its gate begins again.
    pub(super) fn set_paused(&mut self, id: &ReplicaId, paused: bool, now: Timestamp) {
        let Some(replica) = self.replicas.get_mut(id).filter(|replica| replica.paused != paused) else {
            return;
        };
        replica.paused = paused;
        if !paused {
            replica.health = replica.health.unproven();
            replica.watched_since = now;
        }
    }
}
