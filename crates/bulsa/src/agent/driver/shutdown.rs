//! Ending well: everything is un-routed, drained and stopped, then the keeper is told.
//!
//! Owns: the daemon's last minute, and the slow duties of its life. Never: forgets what is wanted: the store keeps it
//! for the next start.

use std::time::Duration;

use bulsa_core::{
    decide::{ExitStatus, LastCall},
    ids::ReplicaId,
    time::Timestamp,
};

use super::{Driver, docker::has_containers};
use crate::agent::process::logs;

/// The longest that a shutdown waits for drains and graces when nobody says.
pub(super) const SHUTDOWN_MAX: Duration = Duration::from_secs(90);

/// The longest that it then waits for what its replicas leave to be removed.
const REMOVALS_MAX: Duration = Duration::from_secs(5);

/// A shutdown under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shutdown {
    deadline: Timestamp,
    last_call: LastCall,
}

impl Driver {
    /// From now on nothing is wanted, and after `limit` nothing is waited for.
    pub(super) fn begin_shutdown(&mut self, limit: Duration) {
        if self.shutdown.is_none() {
            self.watch_ends();
            let (now, limit) = (self.clock.now(), limit.min(SHUTDOWN_MAX));
            self.shutdown = Some(Shutdown { deadline: now + limit, last_call: LastCall::new(now, limit) });
            self.tell(
                "",
                "daemon.stopping",
                None,
                "the daemon stops: draining and stopping everything".to_owned(),
            );
        }
    }

    pub(super) fn last_call(&self) -> Option<LastCall> {
        self.shutdown.map(|shutdown| shutdown.last_call)
    }

    pub(super) fn shutdown_deadline(&self) -> Option<Timestamp> {
        self.shutdown.map(|shutdown| shutdown.deadline)
    }

    /// Whether the daemon is to end now; if so, the keeper has been told.
    pub(super) async fn is_over(&mut self) -> bool {
        if self.handed_over {
            self.watch_ends();
            if let Err(error) = self.store.close().await {
                tracing::error!(%error, "the store could not be closed cleanly");
            }
            return true;
        }
        let Some(shutdown) = self.shutdown else { return false };
        let all_gone = self.projects.values().all(super::project::Project::has_ended);
        if !all_gone && self.clock.now() < shutdown.deadline {
            return false;
        }
        let removed = async { while self.removals.join_next().await.is_some() {} };
        if tokio::time::timeout(REMOVALS_MAX, removed).await.is_err() {
            tracing::warn!("network namespaces are left over; the next start removes them");
        }
        if let Err(error) = self.store.close().await {
            tracing::error!(%error, "the store could not be closed cleanly");
        }
        if let Err(error) = self.keeper.shutdown(true).await {
            self.lose_keeper(&error);
        }
        true
    }

    /// Projects that were taken down and have nothing left are forgotten.
    pub(super) fn drop_finished_projects(&mut self) {
        let done: Vec<String> = self
            .projects
            .values()
            .filter(|p| p.is_empty() && p.committing.is_none() && !p.dormant)
            .filter(|p| p.desired.down || p.desired.releases.is_empty() && p.published.is_some())
            .map(|p| p.name.clone())
            .collect();
        for name in done {
            if let Some(project) = self.projects.get_mut(&name).filter(|project| has_containers(project))
                && !project.torn_down
            {
                if !std::mem::replace(&mut project.tearing_down, true) {
                    self.tear_down(&name);
                }
                continue;
            }
            self.give_up_incidents(&name);
            self.projects.remove(&name);
            self.publish_settings();
            self.republish = true;
            let (store, inbox, project) = (self.store.clone(), self.inbox.clone(), name.clone());
            self.tasks.spawn(async move {
                let change = crate::agent::store::Change::DeleteProject { project: project.clone() };
                if let Err(error) = store.commit(change).await {
                    let text = format!("`{project}` is down, but the store can't forget it: {error}");
                    inbox.send(super::Input::Warning { project, text }).await.ok();
                }
            });
            self.tell(&name, "project.gone", None, format!("`{name}` is down"));
        }
    }

    /// Requests that waited for a commit are looked at again.
    pub(super) async fn ask_again(&mut self) {
        for _ in 0..self.waiting.len() {
            let Some((request, answer)) = self.waiting.pop_front() else { return };
            self.asked(request, answer).await;
        }
    }

    /// Slow duties: logs are bounded, sockets that were taken are tried again, and without a keeper the replicas'
    /// processes are looked at, since nobody tells of their end.
    pub(super) async fn keep_house(&mut self) {
        self.republish |= self.lacks_sockets();
        self.bound_logs();
        self.complete_evidence();
        self.look_at_host();
        self.look_after_replicas();
        self.tend_access_log();
        self.tell_of_lost_lines();
        self.tell_jobs_output();
        self.prune_images();
        self.tear_down_again();
        self.give_up_on_engine().await;
        if self.keeper_lost {
            self.look_for_dead();
        }
    }

    fn bound_logs(&mut self) {
        let mut problems = Vec::new();
        for project in self.projects.values() {
            for path in project.meta.values().filter_map(|meta| meta.note.log.as_ref()) {
                let bounded =
                    std::fs::OpenOptions::new().append(true).open(path).and_then(|file| logs::bound(&file));
                if let Err(error) = bounded {
                    problems.push((
                        project.name.clone(),
                        format!("{} can't be bounded: {error}", path.display()),
                    ));
                }
            }
            let services: std::collections::BTreeSet<&String> =
                project.desired.releases.values().flat_map(|release| release.spec.services.keys()).collect();
            let living = project.meta.keys().cloned().collect();
            for service in services {
                if let Err(error) = self.logs.prune(&project.name, service, &living) {
                    problems.push((project.name.clone(), format!("old logs can't be removed: {error}")));
                }
            }
        }
        for (project, text) in problems {
            self.warn(&project, "logs", text);
        }
    }

    fn look_for_dead(&mut self) {
        let gone: Vec<(String, ReplicaId)> = self
            .projects
            .values()
            .flat_map(|project| {
                project.meta.iter().map(move |(id, meta)| (project.name.clone(), id.clone(), meta.pid))
            })
            .filter(|(_, _, pid)| {
                pid.is_some_and(|pid| !std::path::Path::new(&format!("/proc/{pid}")).exists())
            })
            .map(|(name, id, _)| (name, id))
            .collect();
        for (name, id) in gone {
            self.replica_gone(&name, &id, ExitStatus::Unknown);
        }
    }
}
