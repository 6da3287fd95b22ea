//! Measuring what a deploy's overlap needs: memory that is free, and what the running replicas use.
//!
//! Owns: asking kernel and Engine. Never: judges; that is [`bulsa_core::room`]. What can't be measured is left out: a
//! deploy isn't refused for want of a number.

use std::{collections::BTreeMap, time::Duration};

use bollard::{models::ContainerStatsResponse, query_parameters::StatsOptionsBuilder};
use bulsa_core::{
    decide::ReleaseState,
    room::Room,
    spec::{Role, Spec},
};
use futures_util::StreamExt;
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

    /// One running container of each app and worker of a project: what its services use is measured on them.
    pub(super) fn samples(&self, name: &str) -> BTreeMap<String, String> {
        let Some(project) = self.projects.get(name) else { return BTreeMap::new() };
        let live = project.desired.live;
        project
            .observed
            .replicas()
            .filter(|(id, _)| Some(id.release) == live)
            .filter(|(id, _)| matches!(self.role_of(name, id), Role::App | Role::Worker))
            .filter_map(|(id, _)| Some((id.service.clone(), container_of(project, id)?.to_owned())))
            .collect()
    }
}

/// What is free, and what each sample uses.
pub(super) async fn measure(
    engine: &Docker,
    samples: BTreeMap<String, String>,
    leaving: BTreeMap<String, u32>,
) -> Room {
    let mut room = Room { available: available(), leaving, ..Room::default() };
    for (service, container) in samples {
        let options = StatsOptionsBuilder::new().stream(false).one_shot(true).build();
        let mut stats = std::pin::pin!(engine.client().stats(&container, Some(options)));
        if let Ok(Some(Ok(stats))) = timeout(STATS_WAIT, stats.next()).await
            && let Some(bytes) = used(&stats)
        {
            room.used.insert(service, bytes);
        }
    }
    room
}

/// What a container uses and could not give back: as `docker stats` shows it, without its page cache.
fn used(stats: &ContainerStatsResponse) -> Option<u64> {
    let memory = stats.memory_stats.as_ref()?;
    let details = memory.stats.as_ref();
    let cache = ["inactive_file", "total_inactive_file"].iter().find_map(|key| details?.get(*key).copied());
    Some(memory.usage?.saturating_sub(cache.unwrap_or(0)))
}

/// `MemAvailable` of this host, in bytes.
fn available() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kib << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_host_has_some_memory() {
        assert!(available().unwrap() > 1 << 20);
    }
}
