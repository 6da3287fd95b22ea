//! Measuring what a deploy's overlap needs: memory that is free, and what the running replicas use.
//!
//! Owns: asking kernel and Engine. Never: judges; that is [`bulsa_core::room`]. What can't be measured is left out: a
//! deploy isn't refused for want of a number.

use std::{collections::BTreeMap, time::Duration};

use bollard::{models::ContainerStatsResponse, query_parameters::StatsOptionsBuilder};
use bulsa_core::{
    decide::ReleaseState,
    ids::ReplicaId,
    room::{self, Room},
    spec::{Role, Spec},
};
use futures_util::{StreamExt, future::join_all};
use tokio::time::timeout;

use super::{Driver, container_of};
use crate::agent::docker::Docker;

/// How long one container's numbers are waited for.
const STATS_WAIT: Duration = Duration::from_secs(2);

impl Driver {
    /// The replicas of warm releases that a deploy of `spec` ends before it starts its own, by service.
    pub(super) fn making_room(&self, spec: &Spec) -> BTreeMap<String, u32> {
        let mut leaving = BTreeMap::new();
        let Some(project) = self.projects.get(&spec.project) else { return leaving };
        // Beside the live release and the candidate so many may stay, the newest ones.
        let stay = spec.keep.releases.saturating_sub(2) as usize;
        let warm = project
            .desired
            .releases
            .iter()
            .rev()
            .filter(|(_, release)| matches!(release.state, ReleaseState::Warm { .. }));
        for (warm, _) in warm.skip(stay) {
            for (id, _) in project.observed.replicas().filter(|(id, _)| id.release == *warm) {
                *leaving.entry(id.service.clone()).or_default() += 1;
            }
        }
        leaving
    }

    /// One running container of each app and worker of a project: what its services use is measured on them. None where
    /// there is room whatever they use.
    pub(super) fn samples(&self, spec: &Spec) -> BTreeMap<String, String> {
        let Some(project) = self.projects.get(&spec.project) else { return BTreeMap::new() };
        let (live, name) = (project.desired.live, &spec.project);
        let is_measured = |id: &ReplicaId| matches!(self.role_of(name, id), Role::App | Role::Worker);
        let replicas = project.observed.replicas().map(|(id, _)| id);
        let (mut samples, mut running) = (BTreeMap::new(), BTreeMap::new());
        for id in replicas.filter(|id| Some(id.release) == live && is_measured(id)) {
            let Some(container) = container_of(project, id) else { continue };
            samples.insert(id.service.clone(), container.to_owned());
            *running.entry(id.service.clone()).or_insert(0) += 1;
        }
        let is_ample = memory().is_some_and(|memory| {
            let free = (memory.available, memory.total.saturating_sub(memory.available));
            room::is_ample(spec, free, &running, |service| project.desired.copies(service))
        });
        if is_ample { BTreeMap::new() } else { samples }
    }
}

/// What is free, and what each sample uses.
pub(super) async fn measure(
    engine: &Docker,
    samples: BTreeMap<String, String>,
    leaving: BTreeMap<String, u32>,
) -> Room {
    let one = async |(service, container): (String, String)| {
        let options = StatsOptionsBuilder::new().stream(false).one_shot(true).build();
        let mut stats = std::pin::pin!(engine.client().stats(&container, Some(options)));
        match timeout(STATS_WAIT, stats.next()).await {
            Ok(Some(Ok(stats))) => used(&stats).map(|bytes| (service, bytes)),
            _ => None,
        }
    };
    // At once: older Engines answer at their next look at the container, a second later.
    let used = join_all(samples.into_iter().map(one)).await.into_iter().flatten().collect();
    Room { available: memory().map(|memory| memory.available), used, leaving }
}

/// What a container uses and could not give back: as `docker stats` shows it, without its page cache.
fn used(stats: &ContainerStatsResponse) -> Option<u64> {
    let memory = stats.memory_stats.as_ref()?;
    let details = memory.stats.as_ref();
    let cache = ["inactive_file", "total_inactive_file"].iter().find_map(|key| details?.get(*key).copied());
    Some(memory.usage?.saturating_sub(cache.unwrap_or(0)))
}

/// This host's memory, in bytes.
struct Memory {
    total: u64,
    /// What can be had without taking it from anybody.
    available: u64,
}

fn memory() -> Option<Memory> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let bytes = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        let kib: u64 = line.trim_start_matches(':').trim().trim_end_matches("kB").trim().parse().ok()?;
        kib.checked_mul(1 << 10)
    };
    Some(Memory { total: bytes("MemTotal")?, available: bytes("MemAvailable")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_host_has_some_memory() {
        let memory = memory().unwrap();
        assert!(memory.available > 1 << 20 && memory.total > memory.available);
    }
}
