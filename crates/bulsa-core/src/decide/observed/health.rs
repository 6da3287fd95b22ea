//! What is learnt of a replica's health.

use super::Observed;
use crate::{
    health::ProbeResult,
    ids::{ReplicaId, Slot},
    spec::Probe,
    time::Timestamp,
};

impl Observed {
    /// One run of its probe ended.
    pub(super) fn probed(&mut self, id: &ReplicaId, result: ProbeResult, probe: &Probe, now: Timestamp) {
        // A probe that was under way says how it was.
        let Some(replica) = self.replicas.get_mut(id).filter(|replica| !replica.ended) else { return };
        replica.health.on_probe(result, probe, replica.started, now);
        if replica.health.is_ready()
            && let Some(history) = self.slots.get_mut(&id.slot())
        {
            (history.early_deaths, history.start_error) = (0, None);
        }
    }

    /// Its heartbeat is overdue.
    pub(super) fn heartbeat_missed(&mut self, id: &ReplicaId, now: Timestamp) {
        if let Some(replica) = self.replicas.get_mut(id).filter(|replica| !replica.ended) {
            replica.health.on_missed_heartbeat(now);
        }
    }

    /// It takes so much memory.
    pub(super) fn measured(&mut self, id: &ReplicaId, memory: u64) {
        if let Some(replica) = self.replicas.get_mut(id) {
            replica.memory = Some(memory);
        }
    }

    /// Something that may be why the last one in a slot failed has changed.
    pub(super) fn changed(&mut self, slot: &Slot) {
        if let Some(history) = self.slots.get_mut(slot) {
            history.changed = true;
        }
    }
}
