//! What is learnt of a replica: its health, its memory, its requests.

use std::collections::BTreeMap;

use super::{Load, Observed};
use crate::{
    health::ProbeResult,
    ids::{ReplicaId, Slot},
    spec::Probe,
    time::Timestamp,
};

impl Observed {
    /// How many requests a replica has had since this agent counts.
    pub(in crate::decide) fn requests(&self, id: &ReplicaId) -> u64 {
        self.counted.get(id).map_or(0, |load| load.requests)
    }

    /// The load of a replica without what it was when its release began its bake.
    #[must_use]
    pub fn load_since_switch(&self, id: &ReplicaId) -> Load {
        let of = |loads: &BTreeMap<ReplicaId, Load>| loads.get(id).copied().unwrap_or_default();
        let (counted, before) = (of(&self.counted), of(&self.baseline));
        Load {
            requests: counted.requests.saturating_sub(before.requests),
            errors: counted.errors.saturating_sub(before.errors),
            ..self.load(id)
        }
    }

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
