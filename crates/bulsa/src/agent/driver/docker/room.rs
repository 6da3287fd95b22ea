//! Measuring what a deploy's overlap needs: memory that is free, and what the running replicas use.
//!
//! Owns: asking kernel and Engine. Never: judges; that is [`bulsa_core::room`]. What can't be measured is left out: a
//! deploy isn't refused for want of a number.

use std::{collections::BTreeMap, time::Duration};

use bollard::{models::ContainerStatsResponse, query_parameters::StatsOptionsBuilder};
use bulsa_core::{room::Room, spec::Role};
use futures_util::StreamExt;
use tokio::time::timeout;

use super::{Driver, container_of};
use crate::agent::docker::Docker;

/// How long one container's numbers are waited for.
const STATS_WAIT: Duration = Duration::from_secs(2);

impl Driver {
    /// One running container of each app of a project: what its services use is measured on them.
    pub(super) fn samples(&self, name: &str) -> BTreeMap<String, String> {
        let Some(project) = self.projects.get(name) else { return BTreeMap::new() };
        let live = project.desired.live;
        project
            .observed
            .replicas()
            .filter(|(id, _)| Some(id.release) == live && self.role_of(name, id) == Role::App)
            .filter_map(|(id, _)| Some((id.service.clone(), container_of(project, id)?.to_owned())))
            .collect()
    }
}

/// What is free, and what each sample uses.
pub(super) async fn measure(engine: &Docker, samples: BTreeMap<String, String>) -> Room {
    let mut room = Room { available: available(), ..Room::default() };
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
