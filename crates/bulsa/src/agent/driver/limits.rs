//! What processes may take of the host: their control groups.
//!
//! Owns: when a group is made and removed, and what is said where limits can't be had: a service runs without them then,
//! since one that serves is worth more than one that is held to its share. Never: writes to the kernel; that is
//! [`crate::agent::process::cgroups`].

use std::{io, path::PathBuf, time::Duration};

use bulsa_core::{ids::ReplicaId, spec::Service};

use super::{Driver, Input};
use crate::agent::process::cgroups::{self, Cgroups, Group};

/// Whoever was in a group may take a moment to end, and version 1 tells nobody: after each of these it is tried again.
const REMOVE_AGAIN: [Duration; 4] =
    [Duration::from_millis(50), Duration::from_millis(250), Duration::from_secs(1), Duration::from_secs(4)];

impl Driver {
    /// The group of a replica that is about to start; an empty one where its service has no limits.
    pub(super) fn confine(&mut self, name: &str, id: &ReplicaId, service: &Service) -> Group {
        if service.resources.is_empty() {
            return Group::default();
        }
        let found = self.cgroups.get_or_init(Cgroups::find);
        let (group, missing) = cgroups::make(found, &self.identity.owner, id, &service.resources);
        if !missing.is_empty() {
            let text = format!(
                "`{}` ({}) runs without these of its limits, which the kernel's control groups can't hold it to here: {}",
                service.name,
                service.position,
                missing.join("; ")
            );
            self.warn(name, "limits.none", text);
        }
        group
    }

    /// Removes the group of a replica that is gone.
    pub(super) fn remove_group(&mut self, name: &str, directories: Vec<PathBuf>) {
        if directories.is_empty() {
            return;
        }
        let (inbox, project) = (self.inbox.clone(), name.to_owned());
        self.removals.spawn(async move {
            if let Err(error) = removed(&directories).await {
                let text =
                    format!("a control group could not be removed; the next start tries again: {error}");
                inbox.send(Input::Warning { project, text }).await.ok();
            }
        });
    }

    /// Groups of replicas that are gone, which an earlier agent left.
    pub(super) fn remove_left_groups(&mut self) {
        // Also where nobody has limits any more: a project that had some may have gone down right before an agent died.
        let keep = self
            .projects
            .values()
            .flat_map(|project| project.meta.values().flat_map(|meta| meta.note.cgroups.iter().cloned()))
            .collect();
        let found = self.cgroups.get_or_init(Cgroups::find);
        for directory in cgroups::leftovers(found, &self.identity.owner, &keep) {
            self.remove_group("", vec![directory]);
        }
    }
}

async fn removed(directories: &[PathBuf]) -> io::Result<()> {
    let attempt = || {
        let directories = directories.to_vec();
        async {
            // The kernel waits for its own readers of what is removed.
            let removing = tokio::task::spawn_blocking(move || cgroups::remove(&directories));
            removing.await.unwrap_or_else(|error| Err(io::Error::other(error)))
        }
    };
    for wait in REMOVE_AGAIN {
        if attempt().await.is_ok() {
            return Ok(());
        }
        tokio::time::sleep(wait).await;
    }
    attempt().await
}
