//! Telling what happens: events for everyone and for later, progress for those who wait for a deployment.
//!
//! Owns: the shapes and bounds of what is told. Never: decides anything; waits for a reader.

use std::{collections::BTreeSet, path::PathBuf};

use bulsa_core::{
    decide::{Deployment, Kind},
    ids::{ReleaseId, ReplicaId},
    spec::Service,
    wire::api::{
        DEPLOYMENTS_SHOWN_MAX, DeployKind, DeploymentView, Detail, Event, Finished, Outcome,
        PROGRESS_LINES_MAX, ProgressKind, ProgressV1,
    },
};

use super::{Driver, commits::phase_text};
use crate::agent::{process::logs, store::Record};

/// At most this many warnings are shown; the oldest go first.
const WARNINGS_MAX: usize = 20;
/// So many last lines of output are shown of a replica that failed.
const OUTPUT_LINES: usize = 10;

impl Driver {
    /// Records an event and tells it to everyone who follows.
    pub(super) fn tell(&self, project: &str, kind: &str, replica: Option<&ReplicaId>, text: String) {
        self.tell_with(project, kind, replica, text, None);
    }

    /// The same, with what programs need to know of it.
    pub(super) fn tell_with(
        &self,
        project: &str,
        kind: &str,
        replica: Option<&ReplicaId>,
        text: String,
        detail: Option<Detail>,
    ) {
        let event = Event {
            id: self.store.next_id(),
            at_ms: self.clock.now().0,
            project: project.to_owned(),
            kind: kind.to_owned(),
            service: replica.map(|id| id.service.clone()),
            replica: replica.map(ToString::to_string),
            text,
            detail,
        };
        tracing::info!(project = event.project, kind = event.kind, "{}", event.text);
        self.store.note(Record::Event(event.clone()));
        // Nobody need follow.
        self.events.send(event).ok();
    }

    /// Tells of something that the daemon can't do now.
    pub(super) fn warn(&mut self, project: &str, kind: &str, text: String) {
        if self.warnings.contains(&text) {
            return;
        }
        self.tell(project, kind, None, text.clone());
        self.warnings.push(text);
        if self.warnings.len() > WARNINGS_MAX {
            self.warnings.remove(0);
        }
    }

    /// A deployment begins: those who wait for it find it.
    pub(super) fn add_deployment(&mut self, name: &str, deployment: &Deployment) {
        let Some(project) = self.projects.get_mut(name) else { return };
        project.deployments.push(DeploymentView {
            id: deployment.id,
            kind: if deployment.kind == Kind::Rollback { DeployKind::Rollback } else { DeployKind::Deploy },
            phase: phase_text(&deployment.phase).to_owned(),
            candidate: deployment.candidate.0,
            previous: deployment.previous.map(|id| id.0),
            since_ms: deployment.started.0,
            progress: Vec::new(),
            finished: None,
        });
        let surplus = project.deployments.len().saturating_sub(DEPLOYMENTS_SHOWN_MAX);
        project.deployments.drain(..surplus);
    }

    /// Adds a line to the progress of the deployment that runs, if one does.
    pub(super) fn progress(&mut self, name: &str, kind: ProgressKind, text: String) {
        self.progress_line(name, kind, text, None);
    }

    fn progress_line(&mut self, name: &str, kind: ProgressKind, text: String, end: Option<(Outcome, u8)>) {
        let at_ms = self.clock.now().0;
        let Some(project) = self.projects.get_mut(name) else { return };
        let Some(view) = project.deployments.iter_mut().rev().find(|view| view.finished.is_none()) else {
            return;
        };
        let n = view.progress.last().map_or(1, |last| last.n + 1);
        let (outcome, exit_code) = (end.map(|(outcome, _)| outcome), end.map(|(_, code)| code));
        view.progress.push(ProgressV1 { n, at_ms, kind, text, outcome, exit_code });
        let surplus = view.progress.len().saturating_sub(PROGRESS_LINES_MAX);
        view.progress.drain(..surplus);
    }

    /// A deployment is over.
    pub(super) fn end_deployment(
        &mut self,
        name: &str,
        outcome: Outcome,
        exit_code: u8,
        reason: &str,
        text: String,
    ) {
        self.progress_line(name, ProgressKind::Done, text, Some((outcome, exit_code)));
        let at_ms = self.clock.now().0;
        let Some(project) = self.projects.get_mut(name) else { return };
        if let Some(view) = project.deployments.iter_mut().rev().find(|view| view.finished.is_none()) {
            "done".clone_into(&mut view.phase);
            let reason = (!reason.is_empty()).then(|| reason.to_owned());
            view.finished = Some(Finished { at_ms, outcome, exit_code, reason });
        }
    }

    /// A rollback says what it doesn't bring back.
    pub(super) fn narrate_binds(&mut self, name: &str, deployment: &Deployment) {
        let release = self.projects.get(name).and_then(|p| p.desired.releases.get(&deployment.candidate));
        let Some(spec) = release.map(|release| &release.spec).filter(|_| deployment.kind == Kind::Rollback)
        else {
            return;
        };
        let binds: BTreeSet<String> = spec.services.values().flat_map(Service::binds).collect();
        if !binds.is_empty() {
            let binds = binds.into_iter().collect::<Vec<_>>().join(", ");
            let text = format!(
                "what is mounted from this host is no part of a release and stays as it is now: {binds}"
            );
            self.progress(name, ProgressKind::Line, text);
        }
    }

    /// The last lines that a release's replicas wrote, dead ones included.
    pub(super) fn last_output(&self, name: &str, release: ReleaseId) -> Vec<String> {
        let Some(project) = self.projects.get(name) else { return Vec::new() };
        let Some(spec) = project.desired.releases.get(&release).map(|release| &release.spec) else {
            return Vec::new();
        };
        let mut lines = Vec::new();
        for service in spec.services.keys() {
            if let Some((id, output)) = self.newest_output(name, service, release) {
                lines.push(format!("last lines of {}:", id.name()));
                lines.extend(output.into_iter().map(|line| format!("  {line}")));
            }
        }
        lines
    }

    /// The last lines of the newest replica of a service in a release that wrote any, read from its log file: one that
    /// was started a moment ago tells nothing, while the one before it may have said why it ended.
    fn newest_output(
        &self,
        name: &str,
        service: &str,
        release: ReleaseId,
    ) -> Option<(ReplicaId, Vec<String>)> {
        let logs = self.logs_of(name, service, release);
        logs.into_iter().find_map(|(id, path)| {
            let lines = logs::tail(&path, OUTPUT_LINES).ok()?;
            (!lines.is_empty()).then_some((id, lines))
        })
    }

    /// The log of the newest replica of a service in a release.
    pub(super) fn newest_log(
        &self,
        name: &str,
        service: &str,
        release: ReleaseId,
    ) -> Option<(ReplicaId, PathBuf)> {
        self.logs_of(name, service, release).into_iter().next()
    }

    /// The logs of a service's replicas in a release, newest first.
    fn logs_of(&self, name: &str, service: &str, release: ReleaseId) -> Vec<(ReplicaId, PathBuf)> {
        let directory = self.logs.directory(name, service).and_then(std::fs::read_dir);
        let ids = directory.into_iter().flatten().filter_map(|entry| logs::replica_of(&entry.ok()?.path()));
        let files: BTreeSet<(u32, ReplicaId)> =
            ids.filter(|id| id.release == release).map(|id| (id.attempt, id)).collect();
        let paths = files.into_iter().rev().filter_map(|(_, id)| Some((self.logs.path(name, &id).ok()?, id)));
        paths.map(|(path, id)| (id, path)).collect()
    }
}

/// What is told of a deploy or a rollback that failed before it was begun.
pub(super) const fn not_begun(kind: DeployKind, outcome: Outcome, serving: bool) -> Detail {
    Detail::Deployment { kind, outcome, deployment: None, release: None, serving }
}
