//! Picking up where an earlier agent left: the store, the keeper's word, and the kernel's.
//!
//! Owns: the first picture of the world. Never: trusts an address or a state that can be observed again.

use std::{collections::BTreeSet, time::Duration};

use bulsa_core::{
    decide::{self, Event, Kind, Observed, Origin, Phase},
    ids::ReplicaId,
    time::Timestamp,
    wire::api::{DeployKind, DeploymentRow, DeploymentView, Finished, Outcome},
};
use bulsa_proxy::Table;

use super::{
    Driver,
    engine::look,
    persist,
    project::{Meta, Note, Project, parse_task},
    routes::secret,
};
use crate::{
    agent::{
        keeper_client::Welcome,
        process::netns,
        store::{Change, Stored},
    },
    link::{memfd, messages::ReplicaInfo},
};

/// A route table is at most this long, in bytes.
pub(super) const TABLE_BYTES_MAX: u64 = 64 << 20;
/// Attempts that an agent may have made after its last line in the ledger came to the disk.
const ATTEMPTS_UNSEEN: u32 = 1000;
/// Deaths older than this weigh nothing.
const DEATHS_WORTH: Duration = Duration::from_secs(3600);

impl Driver {
    /// A picture of the world that knows the proxies and the last table, and no replica.
    pub(super) fn new_observed(&self) -> Observed {
        let now = self.clock.now();
        let mut observed = Observed::new(self.routes.number, self.attempt_floor);
        observed.apply(Event::Kept { number: self.kept }, now);
        for (generation, proxy) in &self.proxies {
            let generation = bulsa_core::ids::Generation(*generation);
            observed.apply(Event::ProxyUp(generation), now);
            if let Some(report) = &proxy.report {
                let load = std::collections::BTreeMap::new();
                observed.apply(Event::ProxyReport { generation, table: report.table, load }, now);
            }
        }
        observed
    }

    /// Takes over everything that an earlier agent left.
    pub(super) async fn restore(&mut self, stored: &Stored, welcome: Welcome) {
        let attempts = stored.ledger.iter().map(|line| line.attempt);
        let running = welcome.replicas.iter().filter_map(|info| Some(parse_task(&info.id)?.1.attempt));
        let highest = attempts.chain(running).max();
        self.attempt_floor = highest.map_or(0, |highest| highest + ATTEMPTS_UNSEEN);
        let routed = welcome.table.as_ref().map(|(number, fd)| {
            self.routes.number = *number;
            self.kept = *number;
            self.routes.former = last_table(fd);
            last_routed(&self.routes.former)
        });
        self.recall_secret(&stored.values);
        for (name, sockets) in &welcome.sockets {
            if let Some(Ok(addr)) = sockets.first().map(std::net::TcpListener::local_addr) {
                self.routes.sockets.insert(name.clone(), addr);
            }
        }
        for proxy in welcome.proxies {
            self.proxy_up(proxy);
        }
        let mut problems = Vec::new();
        for row in &stored.projects {
            let mut project = Project::new(row.name.clone(), self.new_observed());
            project.desired = persist::restore(row, &mut problems);
            project.dealt_with = super::docker::dealt_with(&row.values);
            project.senders = super::heartbeats::senders(&row.values);
            self.recall_drill(row);
            match persist::notify_from(&row.values) {
                Some(Ok(settings)) => project.notify = settings,
                Some(Err(error)) => {
                    problems.push(format!("who is told of `{}` can't be read: {error}", row.name));
                }
                None => {}
            }
            project.created = row
                .releases
                .iter()
                .map(|release| (bulsa_core::ids::ReleaseId(release.id), release.created_at_ms))
                .collect();
            let rows = row.deployments.iter().rev().take(4).rev();
            project.deployments = rows.filter_map(deployment_view).collect();
            self.projects.insert(row.name.clone(), project);
        }
        self.publish_settings();
        self.begin_telling();
        self.recall(stored);
        self.recall_incidents(&stored.open_incidents);
        let routed = routed.unwrap_or_default();
        self.adopt(welcome.replicas, &routed);
        self.await_containers(routed);
        for record in welcome.exits {
            self.exited(record);
        }
        for problem in problems {
            self.warn("", "store.unreadable", problem);
        }
        self.remove_leftovers();
        self.remove_left_groups();
    }

    /// What sticky cookies are signed with. Nobody waits until it is on the disk: an agent that finds it nowhere there has
    /// it from the last table.
    fn recall_secret(&mut self, values: &[(String, String)]) {
        let found = match secret::find(values, self.routes.former.secret.take()) {
            Ok(found) => found,
            Err(error) => {
                let text = format!("no secret for cookies can be made: {error}; nobody is sticky");
                self.warn("", "sticky.secret", text);
                return;
            }
        };
        self.routes.former.secret = Some(found.secret);
        let Some(value) = found.unsaved.map(Some) else { return };
        let change = Change::SetValue { project: String::new(), key: secret::KEY.to_owned(), value };
        let (store, inbox) = (self.store.clone(), self.inbox.clone());
        self.tasks.spawn(async move {
            if let Err(error) = store.commit(change).await {
                let text = format!("the secret for sticky cookies can't be kept: {error}");
                inbox.send(super::Input::Warning { project: String::new(), text }).await.ok();
            }
        });
    }

    fn recall(&mut self, stored: &Stored) {
        let now = self.clock.now();
        for line in &stored.ledger {
            let Some(project) = self.projects.get_mut(&line.project) else { continue };
            *project.restarts.entry(line.service.clone()).or_default() += 1;
            let at = Timestamp(line.at_ms);
            if now.since(at) < DEATHS_WORTH {
                let id = ReplicaId {
                    release: bulsa_core::ids::ReleaseId(line.release),
                    service: line.service.clone(),
                    ordinal: line.ordinal,
                    attempt: line.attempt,
                };
                let status = persist::status_from(line.status.as_deref());
                let ready_for = line.ready_for_ms.map(Duration::from_millis);
                project.observed.recall_death(&project.desired, &id, status, ready_for, at);
            }
        }
    }

    fn adopt(&mut self, replicas: Vec<ReplicaInfo>, routed: &BTreeSet<String>) {
        let now = self.clock.now();
        let proven = self.proven_and_not_routed_yet(replicas.iter().map(|info| info.id.clone()), routed);
        for info in replicas {
            let Some((name, id)) = parse_task(&info.id) else {
                self.warn(
                    "",
                    "replica.unknown",
                    format!("the keeper has a replica `{}` that isn't ours", info.id),
                );
                continue;
            };
            let name = name.to_owned();
            let observed = self.new_observed();
            // A project that the store doesn't know: nothing of it is wanted, so its replicas are stopped.
            let project = self.projects.entry(name.clone()).or_insert_with(|| Project::new(name, observed));
            let note: Note = serde_json::from_str(&info.note).unwrap_or_default();
            let at = Timestamp(note.started_ms);
            let exec = None;
            let pid = u32::try_from(info.pid).ok();
            project.meta.insert(id.clone(), Meta { pid, note, exec, adopted: Some(now), ..Meta::default() });
            let routed = routed.contains(&info.id) || proven.contains(&info.id);
            let origin = Origin::Adopted { routed };
            project.apply(Event::Started { id: id.clone(), at, origin }, now);
            look(project, &id, now);
        }
    }

    /// An agent that was killed between committing a switch and giving out its table leaves a live release that was
    /// proven healthy right before, and to which nothing is routed: it is assumed healthy until its probes say otherwise,
    /// or there would be a moment without any route.
    pub(super) fn proven_and_not_routed_yet(
        &self,
        running: impl Iterator<Item = String>,
        routed: &BTreeSet<String>,
    ) -> BTreeSet<String> {
        let running: Vec<String> = running.collect();
        let tasks = || running.iter().filter_map(|task| Some((parse_task(task)?, task)));
        let of_live = |name: &str, id: &ReplicaId| {
            let desired = &self.projects.get(name)?.desired;
            let deployment =
                desired.deployment.as_ref().filter(|deployment| deployment.kind != Kind::First)?;
            let is_switched = match deployment.phase {
                Phase::Bake { .. } => true,
                Phase::Done { outcome, .. } => outcome == decide::Outcome::RolledBack,
                Phase::Gate | Phase::Exchange { .. } | Phase::Revert { .. } => false,
            };
            (is_switched && desired.live == Some(id.release)).then(|| (name.to_owned(), id.service.clone()))
        };
        let has_route: BTreeSet<(String, String)> = tasks()
            .filter(|(_, task)| routed.contains(*task))
            .filter_map(|((name, id), _)| of_live(name, &id))
            .collect();
        tasks()
            .filter(|((name, id), _)| of_live(name, id).is_some_and(|service| !has_route.contains(&service)))
            .map(|(_, task)| task.clone())
            .collect()
    }

    /// Network namespaces of replicas that are gone.
    fn remove_leftovers(&mut self) {
        let keep = self
            .projects
            .values()
            .flat_map(|project| project.meta.values().filter_map(|meta| meta.note.namespace.clone()))
            .collect();
        match netns::leftovers(&self.identity.owner, &keep) {
            Ok(names) => {
                for name in names {
                    let inbox = self.inbox.clone();
                    self.tasks.spawn(async move {
                        if let Err(error) = netns::remove(&name).await {
                            let text = format!("a left-over network namespace could not be removed: {error}");
                            inbox.send(super::Input::Warning { project: String::new(), text }).await.ok();
                        }
                    });
                }
            }
            Err(error) => self.warn("", "netns", format!("network namespaces can't be listed: {error}")),
        }
    }
}

/// The last table. One that can't be read routes to nobody: the replicas are probed anew.
fn last_table(fd: &std::os::fd::OwnedFd) -> Table {
    let bytes = memfd::read(fd, TABLE_BYTES_MAX).unwrap_or_default();
    serde_json::from_slice(&bytes).unwrap_or_else(|_| Table::empty(0))
}

/// The tasks that a table routes to.
fn last_routed(table: &Table) -> BTreeSet<String> {
    table.services.iter().flat_map(|service| &service.targets).map(|target| target.id.clone()).collect()
}

fn deployment_view(row: &DeploymentRow) -> Option<DeploymentView> {
    let finished = match (row.finished_at_ms, row.outcome.as_deref().and_then(Outcome::from_text)) {
        (Some(at_ms), Some(outcome)) => Some(Finished {
            at_ms,
            outcome,
            exit_code: row.exit_code.unwrap_or_else(|| outcome.exit_code(true)),
            reason: row.reason.clone(),
        }),
        (None, _) => None,
        (Some(_), None) => return None,
    };
    Some(DeploymentView {
        id: row.id,
        kind: if row.kind == "rollback" { DeployKind::Rollback } else { DeployKind::Deploy },
        phase: row.phase.clone(),
        candidate: row.candidate,
        previous: row.previous,
        since_ms: row.started_at_ms,
        progress: Vec::new(),
        finished,
    })
}
