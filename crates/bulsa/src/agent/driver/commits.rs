//! Changes on their way to the disk.
//!
//! Owns: the order commit, then apply: nothing that can't be observed again is acted on before it is synced. Never:
//! makes a replica wait: while a commit is under way the driver goes on deciding with what is committed.

use std::time::Duration;

use bulsa_core::{
    decide::{self, Change, Deployment, Desired, Kind, Phase},
    ids::ReleaseId,
    spec::{Handover, Role},
    wire::api::{Answer, DeployKind, Detail, ProgressKind},
};
use tokio::sync::oneshot;

use super::{
    Driver, Input,
    persist::{self, About},
    project::{Committing, Ending, Project},
};

/// After a commit that failed, the next one is tried this much later.
pub(super) const COMMIT_RETRY: Duration = Duration::from_secs(1);

impl Driver {
    /// Sends changes to the store; what follows from them comes with [`Driver::committed`].
    pub(super) fn commit(
        &mut self,
        name: &str,
        changes: Vec<Change>,
        about: About,
        answer: Option<(oneshot::Sender<Answer>, Answer)>,
    ) {
        let Some(project) = self.projects.get_mut(name) else { return };
        let mut after = project.desired.clone();
        for change in &changes {
            after.apply(change);
        }
        let rows = persist::difference(name, &project.desired, &after, &about);
        for change in &changes {
            if let Change::Begin { deployment, release: Some(_) } = change {
                project.created.insert(deployment.candidate, about.created_at_ms);
            }
        }
        project.committing = Some(Committing { changes, notify: about.notify, answer });
        let (store, inbox, project) = (self.store.clone(), self.inbox.clone(), name.to_owned());
        self.tasks.spawn(async move {
            let result = match rows {
                Ok(rows) => store.commit_all(rows).await.map_err(|error| error.to_string()),
                Err(error) => Err(error.to_string()),
            };
            // Only a driver that is gone doesn't want to know, and its successor reads the store.
            inbox.send(Input::Committed { project, result }).await.ok();
        });
    }

    /// A commit is on the disk, or failed.
    pub(super) fn committed(&mut self, name: &str, result: Result<(), String>) {
        let now = self.clock.now();
        let Some(project) = self.projects.get_mut(name) else { return };
        let Some(Committing { changes, notify, answer }) = project.committing.take() else { return };
        if let Err(error) = result {
            project.commit_again = now + COMMIT_RETRY;
            let text = format!("the store can't be written: {error}; healing goes on, deploys are refused");
            if let Some((sender, _)) = answer {
                sender.send(Answer::Refused { errors: vec![text.clone()] }).ok();
            }
            return self.warn(name, "store.failed", text);
        }
        if let Some(notify) = notify {
            self.tell_others(name, notify);
        }
        for change in &changes {
            self.apply_committed(name, change);
        }
        // The deployment is in the snapshot before whoever asked for it hears of it.
        self.publish_snapshot();
        if let Some((sender, answer)) = answer {
            sender.send(answer).ok();
        }
    }

    fn apply_committed(&mut self, name: &str, change: &Change) {
        let now = self.clock.now();
        let Some(project) = self.projects.get_mut(name) else { return };
        let before = project.desired.clone();
        project.desired.apply(change);
        if matches!(change, Change::Begin { .. }) {
            self.see_compose_made(name);
        }
        let Some(project) = self.projects.get_mut(name) else { return };
        project.observed.committed(&project.desired, change);
        if let Change::JobDone { service, .. } = change {
            self.acknowledge_job(name, service);
        }
        if let Some(project) = self.projects.get_mut(name) {
            project.consider(now, None);
        }
        self.narrate(name, &before, change);
    }

    /// Says what a change means, to those who watch and for later.
    fn narrate(&mut self, name: &str, before: &Desired, change: &Change) {
        match change {
            Change::Begin { deployment, .. } => self.narrate_begin(name, deployment),
            Change::Exchange { .. } => {
                self.narrate_exchange(name);
            }
            Change::Move { service, replicas } => {
                let live = before.running().map(|running| running.candidate);
                let all = live.and_then(|id| Some(before.replicas(before.service(id, service)?)));
                let text =
                    format!("`{service}`: {replicas} of {} are {}", all.unwrap_or_default(), label(live));
                self.progress(name, ProgressKind::Line, text);
            }
            Change::Switch { .. } => self.narrate_switch(name, before),
            Change::Finish { outcome: decide::Outcome::Deployed, reason, .. } => {
                self.finished(name, decide::Outcome::Deployed, reason);
            }
            Change::Finish { outcome, reason, .. } => {
                self.explain(name, before);
                let text = "it stays, and starting it goes on; mend the file or the program, then `bulsa deploy`, \
                            or give it up with `bulsa down`";
                self.progress(name, ProgressKind::Line, text.to_owned());
                self.finished(name, *outcome, reason);
            }
            Change::Revert { reason, .. } => self.narrate_revert(name, before, reason),
            Change::Undo { reason, .. } => self.narrate_undo(name, before, reason),
            Change::Retire { release } => {
                self.tell(name, "release.retired", None, format!("release {release} is retired"));
            }
            Change::Forget { release } => {
                if let Some(project) = self.projects.get_mut(name) {
                    project.created.remove(release);
                }
            }
            Change::JobDone { service, success, release } => {
                self.narrate_job(name, service, *release, *success);
            }
            Change::Proven { release } => {
                let text = format!("release {release} serves, though it never passed its gate");
                self.tell(name, "release.proven", None, text);
            }
            Change::Withhold { slot } => {
                let text = format!(
                    "`{0}` replica {1} was stopped by a person; it stays so until `docker start` or `bulsa start {0}`",
                    slot.service, slot.ordinal
                );
                self.tell(name, "replica.withheld", None, text.clone());
                self.progress(name, ProgressKind::Line, text);
            }
            Change::Reinstate { slot } => {
                let text = format!("`{}` replica {} may run again", slot.service, slot.ordinal);
                self.tell(name, "replica.reinstated", None, text);
            }
            Change::Wish { service, wish } => {
                let what = match (wish.stopped, wish.replicas, wish.restart) {
                    (true, ..) => "to be stopped".to_owned(),
                    (false, Some(n), _) => format!("to have {n} replicas"),
                    (false, None, Some(_)) => "to be restarted".to_owned(),
                    (false, None, None) => "to run as the file says".to_owned(),
                };
                self.tell(name, "wish", None, format!("a human wants `{service}` {what}"));
            }
            Change::Hold { service, since } => self.narrate_hold(name, service, since.is_some()),
            Change::Down => {
                self.tell(name, "project.down", None, "a human takes the project down".to_owned());
            }
        }
    }

    fn narrate_switch(&mut self, name: &str, before: &Desired) {
        let (old, new) = (before.live, before.running().map(|d| d.candidate));
        let text = format!("switched: all traffic moved from {} to {}", label(old), label(new));
        self.tell(name, "deploy.switched", None, text.clone());
        self.progress(name, ProgressKind::Step, text);
        let bake = before.candidate().map(|(_, new)| decide::desired::bake_time(&new.spec));
        let text = format!("baking for {}", persist::human(bake.unwrap_or_default()));
        self.progress(name, ProgressKind::Step, text);
    }

    fn narrate_exchange(&mut self, name: &str) {
        let candidate = self.projects.get(name).and_then(|project| project.desired.candidate());
        let services = candidate.into_iter().flat_map(|(_, candidate)| candidate.spec.services.values());
        let (mut held, mut rolling) = (Vec::new(), Vec::new());
        for service in services.filter(|service| matches!(service.role, Role::App | Role::Worker)) {
            match service.handover {
                Handover::StopFirst => held.push(format!("`{}`", service.name)),
                Handover::Rolling(_) => rolling.push(format!("`{}`", service.name)),
                Handover::Overlap => {}
            }
        }
        let mut texts = Vec::new();
        let running = self.projects.get(name).and_then(|project| project.desired.running());
        for service in running.into_iter().flat_map(|running| &running.recreates) {
            texts.push(format!("recreating `{service}`: it is away for its stop and start"));
        }
        if !rolling.is_empty() {
            texts.push(format!("replacing {} step by step; both releases answer", rolling.join(", ")));
        }
        if !held.is_empty() {
            texts.push(format!("exchanging {}; requests are held", held.join(", ")));
        }
        for text in texts {
            self.progress(name, ProgressKind::Step, text);
        }
    }

    fn narrate_undo(&mut self, name: &str, before: &Desired, reason: &str) {
        let was_seen = before.running().is_some_and(Deployment::was_seen);
        let outcome = if was_seen { decide::Outcome::RolledBack } else { decide::Outcome::Failed };
        // What was to be said of one that went back first was said then.
        if !before.running().is_some_and(|running| matches!(running.phase, Phase::Revert { .. })) {
            self.explain(name, before);
        }
        self.finish_when_served(name, before, outcome, reason);
    }

    fn narrate_revert(&mut self, name: &str, before: &Desired, reason: &str) {
        self.explain(name, before);
        let recreated = before.running().into_iter().flat_map(|running| &running.recreates);
        let names = recreated.map(|service| format!("`{service}`")).collect::<Vec<_>>().join(", ");
        let text = format!("given up: {reason}; what {names} was before comes back");
        self.tell(name, "deploy.reverting", None, text.clone());
        self.progress(name, ProgressKind::Step, text);
    }

    fn narrate_job(&mut self, name: &str, service: &str, release: ReleaseId, success: bool) {
        let how = if success { "is done" } else { "failed" };
        let text = format!("the job `{service}` {how}");
        if success {
            self.tell_output(name, service, release, true);
        }
        self.tell(name, "job.done", None, text.clone());
        self.progress(name, ProgressKind::Line, text);
    }

    fn narrate_begin(&mut self, name: &str, deployment: &Deployment) {
        self.end_now(name);
        self.add_deployment(name, deployment);
        let what = match deployment.kind {
            Kind::First => format!("starting {}, the first release", deployment.candidate),
            Kind::Deploy => {
                format!("starting {} beside {}", deployment.candidate, label(deployment.previous))
            }
            Kind::Rollback => format!("going back to {}", deployment.candidate),
        };
        self.tell(name, "deploy.started", None, format!("deployment {}: {what}", deployment.id));
        self.progress(name, ProgressKind::Step, what);
        self.narrate_binds(name, deployment);
        self.narrate_held(name, deployment.candidate);
    }

    /// Why a release was given up: what its replicas' probes and logs said last, and what still serves.
    fn explain(&mut self, name: &str, before: &Desired) {
        let Some(project) = self.projects.get(name) else { return };
        let Some(deployment) = before.running() else { return };
        let mut lines = Vec::new();
        for (id, meta) in project.meta.iter().filter(|(id, _)| id.release == deployment.candidate).take(4) {
            if let Some(problem) = &meta.listening {
                lines.push(format!("{}: {problem}", id.name()));
            }
            if !meta.last_probe.is_empty() {
                lines.push(format!("{}: the last probe: {}", id.name(), meta.last_probe));
            }
        }
        lines.extend(self.last_output(name, deployment.candidate));
        for line in lines {
            self.progress(name, ProgressKind::Line, line);
        }
    }

    /// A release was given up. Whether users are served then is known at once where the one before it never stopped; what
    /// was exchanged has to come back first.
    fn finish_when_served(&mut self, name: &str, before: &Desired, outcome: decide::Outcome, reason: &str) {
        let now = self.clock.now();
        let Some(project) = self.projects.get_mut(name) else { return };
        let previous = before.running().and_then(|deployment| deployment.previous);
        let services = previous.and_then(|id| before.releases.get(&id)).map(|release| &release.spec.services);
        let gates = services.into_iter().flat_map(|services| services.values());
        let gate = gates.map(|service| service.gate_timeout).max().unwrap_or_default();
        project.ending = Some(Ending { outcome, reason: reason.to_owned(), previous, until: now + gate });
        self.end_deployments();
    }

    /// Tells how undone deployments ended, as soon as it is known who serves.
    pub(super) fn end_deployments(&mut self) {
        let now = self.clock.now();
        let is_known = |project: &Project| {
            let ending = project.ending.as_ref();
            ending.is_some_and(|ending| now >= ending.until || super::view::is_back(project))
        };
        let known = self.projects.values().filter(|project| is_known(project));
        let names: Vec<String> = known.map(|project| project.name.clone()).collect();
        names.iter().for_each(|name| self.end_now(name));
    }

    fn end_now(&mut self, name: &str) {
        let Some(project) = self.projects.get_mut(name) else { return };
        let Some(Ending { outcome, reason, previous, .. }) = project.ending.take() else { return };
        let serves = super::view::is_back(project);
        if let Some(previous) = previous {
            let text = if serves {
                format!("release {previous} serves all traffic")
            } else {
                format!("release {previous} does not serve yet; it is being started again")
            };
            self.progress(name, ProgressKind::Line, text);
        }
        self.finished(name, outcome, &reason);
    }

    fn finished(&mut self, name: &str, outcome: decide::Outcome, reason: &str) {
        let outcome = persist::wire_outcome(outcome);
        let serving = self.projects.get(name).is_some_and(super::view::is_back);
        let exit_code = outcome.exit_code(serving);
        let text = if reason.is_empty() { outcome.to_string() } else { format!("{outcome}: {reason}") };
        let view = self.projects.get(name).and_then(|project| project.deployments.last());
        let told = match view {
            Some(view) => format!("{} {} of r{}: {text}", view.kind, view.id, view.candidate),
            None => text.clone(),
        };
        let detail = Detail::Deployment {
            kind: view.map_or(DeployKind::Deploy, |view| view.kind),
            outcome,
            deployment: view.map(|view| view.id),
            release: view.map(|view| view.candidate),
            serving,
        };
        self.tell_with(name, "deploy.finished", None, told, Some(detail));
        self.end_deployment(name, outcome, exit_code, reason, text);
    }
}

fn label(release: Option<ReleaseId>) -> String {
    release.map_or_else(|| "nothing".to_owned(), |id| id.to_string())
}

/// Where a deployment is, in one word or two.
pub(super) const fn phase_text(phase: &Phase) -> &'static str {
    match phase {
        Phase::Gate => "gate",
        Phase::Exchange { .. } => "exchange",
        Phase::Revert { .. } => "going back",
        Phase::Bake { .. } => "bake",
        Phase::Done { .. } => "done",
    }
}
