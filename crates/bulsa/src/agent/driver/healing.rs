//! Healing, as far as this host is needed for it: what is left alone and why is told; what changed for a place that keeps dying is
//! looked for; a release that can't be healed is left for the one before.
//!
//! Owns: the looks at files and at memory, each a task of its own, for a disk may be stuck. Never: decides which replica goes.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use bulsa_core::{
    decide::{Action, Event, Excuse, FallBack, StartCause, Worn},
    ids::{ReleaseId, ReplicaId, Slot},
    spec::{Service, container::MountSource},
    wire::api::{Answer, Request},
};
use tokio::sync::oneshot;

use super::{Driver, Input, persist::human, project::Project};
use crate::agent::{host, process::memory};

/// Where going back to the release before was refused it is asked again after this.
const FALL_BACK_AGAIN: Duration = Duration::from_secs(300);
/// At most so many files are looked at for one place.
const FILES_MAX: usize = 64;

/// What there is at a path: nothing, a file as it was when it was looked at, or something else, which is no reason by itself: a
/// program writes into its directories at each try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::agent) enum Stamp {
    Nothing,
    File(Option<SystemTime>, u64),
    Other,
}

/// The files of a place that keeps dying, as they were after its last try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::agent) struct Stamps {
    /// The number of that try.
    attempt: u32,
    files: BTreeMap<PathBuf, Stamp>,
}

impl Stamps {
    /// The first file that differs from how it was. What happened before another try says nothing: the try may have done it.
    fn changed_since(&self, before: &Self) -> Option<&PathBuf> {
        let differs =
            |(path, stamp): &(&PathBuf, &Stamp)| before.files.get(*path).is_some_and(|old| old != *stamp);
        self.files.iter().find(differs).map(|(path, _)| path).filter(|_| self.attempt == before.attempt)
    }
}

/// What one look at a project's replicas found.
#[derive(Debug, Default)]
pub(in crate::agent) struct Looked {
    stamps: BTreeMap<Slot, Stamps>,
    /// In bytes.
    memory: BTreeMap<ReplicaId, u64>,
    /// The most that each container ever took, in bytes.
    peaks: BTreeMap<ReplicaId, u64>,
}

impl Driver {
    /// Says what fails and is left alone for now.
    pub(super) fn tell_excuses(&mut self) {
        let mut told = Vec::new();
        for (name, project) in &mut self.projects {
            if project.decision.excused == project.excused {
                continue;
            }
            let new = project
                .decision
                .excused
                .iter()
                .filter(|(id, excuse)| project.excused.get(*id) != Some(*excuse));
            told.extend(new.map(|(id, excuse)| (name.clone(), id.clone(), excuse_text(id, excuse))));
            project.excused.clone_from(&project.decision.excused);
        }
        for (name, id, text) in told {
            self.tell(&name, "replica.excused", Some(&id), text);
        }
    }

    /// Whether an action has to wait, because too many replicas that keep dying are started on this host as it is.
    pub(super) fn is_over_budget(&mut self, name: &str, action: &Action) -> bool {
        let Action::Start { id, cause: StartCause::Died | StartCause::Replace } = action else {
            return false;
        };
        let history = self.projects.get(name).and_then(|project| project.observed.slot(&id.slot()));
        if !history.is_some_and(|history| history.score.is_crash_looping()) {
            return false;
        }
        let now = self.clock.now();
        let is_short = host::cpu_stalled().is_ok_and(|stalled| self.pressure.look(now, stalled));
        let Err(at) = self.budget.take(is_short, now) else { return false };
        self.budget_at = Some(self.budget_at.map_or(at, |earlier| earlier.min(at)));
        true
    }

    /// Says why a replica that works is replaced.
    pub(super) fn tell_renewal(&self, name: &str, id: &ReplicaId, cause: StartCause) {
        let why = match cause {
            StartCause::Follow => "what it depends on was started anew".to_owned(),
            StartCause::Recycle(Worn::Age(run)) => format!("it has run for {}", human(run)),
            StartCause::Recycle(Worn::Memory(bytes)) => format!("it takes {} MiB of memory", bytes >> 20),
            StartCause::Recycle(Worn::Requests(count)) => format!("it has had {count} requests"),
            StartCause::New | StartCause::Died | StartCause::Replace | StartCause::Wish => return,
        };
        let text = format!("{} is replaced: {why}", id.name());
        self.tell(name, "replica.renewed", Some(id), text);
    }

    /// Asks for the release before, where the live one can't be healed.
    pub(super) async fn fall_back(&mut self) {
        let now = self.clock.now();
        let wanted: Vec<(String, ReleaseId, FallBack)> = self
            .projects
            .values_mut()
            .filter(|project| project.committing.is_none() && project.fall_back_again <= now)
            .filter_map(|project| {
                let live = project.desired.live?;
                let fall_back = project.decision.fall_back.take()?;
                let is_new = project.fell_back_from.replace(live) != Some(live);
                is_new.then(|| (project.name.clone(), live, fall_back))
            })
            .collect();
        for (project, live, FallBack { to, reason }) in wanted {
            let text =
                format!("{reason}: going back to {to}, which is checked first; {live} stays until then");
            self.tell(&project, "deploy.fall_back", None, text);
            let (answer, answered) = oneshot::channel();
            let request = Request::Rollback { project: project.clone(), release: Some(to.0) };
            self.asked(request, answer).await;
            let inbox = self.inbox.clone();
            self.tasks.spawn(async move {
                let text = match answered.await {
                    Ok(Answer::Accepted { .. } | Answer::AlreadySo { .. }) | Err(_) => return,
                    Ok(Answer::Denied { reason, .. }) => reason,
                    Ok(Answer::Refused { errors } | Answer::Failed { errors, .. }) => errors.join("; "),
                    Ok(_) => "it was answered with something else".to_owned(),
                };
                let text = format!("going back to {to} by itself was not possible: {text}");
                inbox.send(Input::FallBackRefused { project, from: live, text }).await.ok();
            });
        }
    }

    /// What stood in the way may pass: a full disk, an Engine that is away. The next death in a parked place asks again.
    pub(super) fn fall_back_refused(&mut self, name: &str, from: ReleaseId, text: String) {
        let again = self.clock.now() + FALL_BACK_AGAIN;
        if let Some(project) = self.projects.get_mut(name)
            && project.fell_back_from == Some(from)
        {
            (project.fell_back_from, project.fall_back_again) = (None, again);
        }
        self.warn(name, "deploy.fall_back", text);
    }

    /// Looks at the files of places that keep dying, and at the memory of replicas that come to an age by it. One look of a
    /// project at a time: a file system that answers no more holds up one thread.
    pub(super) fn look_after_replicas(&mut self) {
        for project in self.projects.values_mut().filter(|project| !project.looks) {
            let (paths, whose, containers) = (looping_paths(project), measured(project), containers(project));
            if paths.is_empty() && whose.is_empty() && containers.is_empty() {
                continue;
            }
            project.looks = true;
            let (inbox, name) = (self.inbox.clone(), project.name.clone());
            self.tasks.spawn(async move {
                let look = move || Looked {
                    stamps: paths
                        .into_iter()
                        .map(|(slot, (attempt, paths))| (slot, stamps(attempt, paths)))
                        .collect(),
                    memory: whose
                        .into_iter()
                        .filter_map(|(id, whose)| Some((id, memory::of(whose)?)))
                        .collect(),
                    peaks: containers
                        .into_iter()
                        .filter_map(|(id, pid)| Some((id, memory::peak(pid)?)))
                        .collect(),
                };
                // One that failed found nothing; the next one comes.
                let looked = tokio::task::spawn_blocking(look).await.unwrap_or_default();
                inbox.send(Input::Looked { project: name, looked }).await.ok();
            });
        }
    }

    /// A look has ended.
    pub(super) fn looked(&mut self, name: &str, looked: Looked) {
        let now = self.clock.now();
        let Some(project) = self.projects.get_mut(name) else { return };
        project.looks = false;
        for (id, peak) in looked.peaks {
            if let Some(meta) = project.meta.get_mut(&id) {
                meta.memory_peak = meta.memory_peak.max(Some(peak));
            }
        }
        for (id, memory) in looked.memory {
            project.apply(Event::Measured { id, memory }, now);
        }
        let before = std::mem::replace(&mut project.files, looked.stamps);
        let changed = project.files.iter().filter_map(|(slot, stamps)| {
            Some((slot.clone(), stamps.changed_since(before.get(slot)?)?.clone()))
        });
        let changed: Vec<(Slot, PathBuf)> = changed.collect();
        for (slot, _) in &changed {
            project.apply(Event::Changed(slot.clone()), now);
        }
        for (slot, path) in changed {
            let text = format!(
                "{} has changed: `{}` is tried again at once, in place {}",
                path.display(),
                slot.service,
                slot.ordinal
            );
            self.tell(name, "replica.changed", None, text);
        }
    }
}

/// What is found out about a service's health that restarts nothing.
pub(super) fn finding(project: &Project, release: ReleaseId, service: &str) -> Option<String> {
    let is_of = |id: &ReplicaId| id.release == release && id.service == service;
    let mut excused = project.decision.excused.iter().filter(|(id, _)| is_of(id));
    if let Some((_, excuse)) = excused.next() {
        return Some(match excuse {
            Excuse::Dependency(name) => {
                format!(
                    "it fails while `{name}`, which it needs, doesn't serve, and is left alone until that does"
                )
            }
            Excuse::Trial(slot) => {
                format!("all its replicas answer badly: one is replaced first, in place {}", slot.ordinal)
            }
        });
    }
    let blind = project.observed.replicas().find(|(id, replica)| is_of(id) && replica.health.is_blind())?;
    let said = &project.meta.get(blind.0)?.last_probe;
    Some(format!(
        "its check can't be made, so nobody knows how it is, and nothing is restarted for it: {said}"
    ))
}

fn excuse_text(id: &ReplicaId, excuse: &Excuse) -> String {
    match excuse {
        Excuse::Dependency(name) => format!(
            "{} fails, and `{name}`, which it needs, doesn't serve: it is left alone until that does, for two minutes at most",
            id.name()
        ),
        Excuse::Trial(slot) => format!(
            "{} answers badly, and so do all others of `{}`: a new one is tried in place {} first",
            id.name(),
            id.service,
            slot.ordinal
        ),
    }
}

/// The files that may be why the places that keep dying do.
fn looping_paths(project: &Project) -> BTreeMap<Slot, (u32, BTreeSet<PathBuf>)> {
    let Some((live, release)) = project.desired.live() else { return BTreeMap::new() };
    let mut paths = BTreeMap::new();
    for service in release.spec.services.values() {
        for slot in project.desired.slots(live, service) {
            let Some(history) = project.observed.slot(&slot) else { continue };
            if history.score.is_crash_looping() && project.observed.in_slot(&slot).next().is_none() {
                paths.insert(slot, (history.attempt, paths_of(service)));
            }
        }
    }
    paths
}

/// A program and what it is given that may be a file; what is mounted into a container.
fn paths_of(service: &Service) -> BTreeSet<PathBuf> {
    let directory = Path::new(&service.working_dir);
    let mut paths: BTreeSet<PathBuf> = service
        .argv
        .iter()
        .filter(|word| !word.starts_with('-') && !word.is_empty())
        .map(|word| directory.join(word))
        .collect();
    if let Some(container) = &service.container {
        for mount in &container.mounts {
            if let MountSource::Bind { path, .. } = &mount.source {
                paths.insert(PathBuf::from(path));
            }
        }
    }
    paths.into_iter().take(FILES_MAX).collect()
}

fn stamps(attempt: u32, paths: BTreeSet<PathBuf>) -> Stamps {
    let stamp = |path: &Path| match std::fs::metadata(path) {
        Ok(it) if it.is_file() => Stamp::File(it.modified().ok(), it.len()),
        Ok(_) => Stamp::Other,
        Err(_) => Stamp::Nothing,
    };
    let files = paths.into_iter().map(|path| (path.clone(), stamp(&path))).collect();
    Stamps { attempt, files }
}

/// The replicas whose memory counts, and whose it is.
fn measured(project: &Project) -> BTreeMap<ReplicaId, memory::Whose> {
    let replicas = project.observed.replicas().filter(|(id, _)| {
        let service = project.desired.service(id.release, &id.service);
        Some(id.release) == project.desired.live
            && service.is_some_and(|service| service.care.memory.is_some())
    });
    let whose = replicas.filter_map(|(id, _)| {
        let meta = project.meta.get(id)?;
        let pid = meta.pid.filter(|pid| *pid > 0)?;
        let has_own = meta.container.is_some() || !meta.note.cgroups.is_empty();
        let whose = if has_own { memory::Whose::Cgroup(pid) } else { memory::Whose::Session(pid) };
        Some((id.clone(), whose))
    });
    whose.collect()
}

/// The containers that run, by their first process: what their groups counted is gone with them.
fn containers(project: &Project) -> Vec<(ReplicaId, u32)> {
    let running = project.meta.iter().filter(|(_, meta)| meta.container.is_some());
    running.filter_map(|(id, meta)| Some((id.clone(), meta.pid.filter(|pid| *pid > 0)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(attempt: u32, paths: &[&Path]) -> Stamps {
        stamps(attempt, paths.iter().map(|path| path.to_path_buf()).collect())
    }

    #[test]
    fn only_what_somebody_changed_between_two_tries_counts() {
        let dir = tempfile::tempdir().unwrap();
        let (file, missing) = (dir.path().join("app.js"), dir.path().join("config"));
        std::fs::write(&file, "1").unwrap();
        let paths = [dir.path(), file.as_path(), missing.as_path()];
        let before = look(3, &paths);
        assert_eq!(look(3, &paths).changed_since(&before), None);
        std::fs::write(dir.path().join("core"), "what the program left").unwrap();
        assert_eq!(
            look(3, &paths).changed_since(&before),
            None,
            "a directory that it writes into is no news"
        );
        std::fs::write(&file, "22").unwrap();
        assert_eq!(look(3, &paths).changed_since(&before), Some(&file));
        assert_eq!(look(4, &paths).changed_since(&before), None, "the try between may have done it");
        std::fs::create_dir(&missing).unwrap();
        let mended = look(3, &[&missing]);
        assert_eq!(mended.changed_since(&before), Some(&missing), "what was missing is there");
    }
}
