//! Files into containers, as they are now.
//!
//! Owns: what changed since the watch began, which containers have it, and getting it there. A container that is made in
//! another's place gets all of it. Never: keeps what is in a file; each copy is of what the file is then.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
};

use bulsa_core::{
    compose::develop::Copied,
    spec::container::Hook,
    sync::{self, Orders, Seen},
    wire::api::{ServiceView, SyncOwner, SyncRun},
};
use http::StatusCode;
use tokio::sync::{Mutex, mpsc};

use super::{
    Develop,
    send::{failure, put, remove},
};
use crate::{
    cli::{
        attend::Said,
        follow,
        watch::{self, Changed},
    },
    client::{Client, ClientError, Place},
    report::CommandError,
};

/// At most so many changed paths of a rule are remembered for containers to come.
const REMEMBERED_MAX: usize = 100_000;

/// Whom it is about, and who is told.
pub(in crate::cli) struct On<'a> {
    pub(in crate::cli) client: &'a Client,
    pub(in crate::cli) project: &'a str,
    pub(in crate::cli) say: &'a mpsc::Sender<Said>,
}

/// What has been copied, and where.
#[derive(Default)]
pub(super) struct Copies(pub(super) Mutex<State>);

#[derive(Default)]
pub(super) struct State {
    /// What changed since the watch began, by the rule's number; whether it is or was a directory.
    changed: BTreeMap<usize, BTreeMap<PathBuf, bool>>,
    /// Containers that have all of it.
    pub(super) known: BTreeSet<String>,
    /// Containers that have it and aren't in any snapshot yet.
    pub(super) fresh: BTreeMap<String, Fresh>,
    /// Whose a target is, by container.
    owners: BTreeMap<(String, String), SyncOwner>,
}

/// A container that was told of before it started.
pub(super) struct Fresh {
    pub(super) service: String,
    /// Whether it has started since.
    pub(super) runs: bool,
}

/// Which part of what is due.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// What can be done in a container that doesn't run.
    Put,
    /// What only a program in it can do.
    Remove,
    All,
}

/// What came of a copy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Done {
    pub(super) put: usize,
    pub(super) removed: usize,
    pub(super) containers: usize,
}

impl State {
    /// Remembers changes for containers to come; whether there was room for them.
    fn note(&mut self, rule: usize, changed: &Changed) -> bool {
        let remembered = self.changed.entry(rule).or_default();
        let files = changed.files.iter().map(|path| (path, false));
        for (path, is_directory) in files.chain(changed.directories.iter().map(|path| (path, true))) {
            if remembered.len() >= REMEMBERED_MAX && !remembered.contains_key(path) {
                return false;
            }
            remembered.insert(path.clone(), is_directory);
        }
        true
    }

    /// The containers of a service that get what changes now.
    async fn targets(&mut self, service: &str, on: &On<'_>) -> Result<BTreeSet<String>, CommandError> {
        let snapshot = match on.client.snapshot().await {
            Err(error) if error.may_pass() => follow::back(on.client).await?,
            other => other?,
        };
        let services = snapshot.project(on.project).map(|project| project.services.as_slice());
        let mut seen = BTreeMap::new();
        for view in services.unwrap_or_default() {
            seen.extend(containers_of(view).into_iter().map(|container| (container, view.name.as_str())));
        }
        self.fresh.retain(|container, _| !seen.contains_key(container));
        let fresh = self.fresh.iter().map(|(container, fresh)| (container.clone(), fresh.service.as_str()));
        let all: BTreeMap<String, &str> = seen.into_iter().chain(fresh).collect();
        self.known.retain(|container| all.contains_key(container));
        self.owners.retain(|(container, _), _| all.contains_key(container));
        Ok(all.into_iter().filter(|(_, of)| *of == service).map(|(container, _)| container).collect())
    }

    /// Whether a container has been made and not started.
    fn is_to_start(&self, container: &str) -> bool {
        self.fresh.get(container).is_some_and(|fresh| !fresh.runs)
    }

    fn forget(&mut self, container: &str) {
        self.known.remove(container);
        self.fresh.remove(container);
    }
}

impl Develop {
    /// The numbers of a service's rules that copy.
    fn copying(&self, service: &str) -> Vec<(usize, &Copied)> {
        let rules = self.rules.iter().enumerate();
        let rules = rules.filter(|(_, rule)| rule.rule.service == service);
        rules.filter_map(|(number, rule)| Some((number, rule.rule.copied.as_ref()?))).collect()
    }

    /// Remembers changes for containers to come.
    pub(super) async fn remember(&self, changes: &[(usize, Changed)]) {
        let mut state = self.copies.0.lock().await;
        for (rule, changed) in changes {
            state.note(*rule, changed);
        }
    }

    /// Copies changes into every running replica of a service.
    pub(super) async fn copy(
        &self,
        service: &str,
        changes: &[(usize, Changed)],
        on: &On<'_>,
    ) -> Result<Done, CommandError> {
        let mut state = self.copies.0.lock().await;
        let mut work = Vec::new();
        for (number, changed) in changes {
            let has_room = state.note(*number, changed);
            work.push((*number, self.orders(*number, paths_of(changed)).await?));
            if !has_room {
                let text = format!(
                    "more than {REMEMBERED_MAX} files of `{service}` changed: new replicas won't have all; build it anew"
                );
                super::tell(on.say, text).await;
            }
        }
        let containers = state.targets(service, on).await?;
        let mut done = Done::default();
        let mut trouble = None;
        for container in containers {
            // What is deleted is so once it runs.
            let part = if state.is_to_start(&container) { Part::Put } else { Part::All };
            match self.apply(&mut state, (service, &container), &work, part, on).await {
                Ok(true) => done.containers += 1,
                Ok(false) => state.forget(&container),
                Err(error) => trouble = Some(error),
            }
        }
        done.put = work.iter().map(|(_, orders)| orders.put.len()).sum();
        done.removed = work.iter().map(|(_, orders)| orders.remove.len()).sum();
        trouble.map_or(Ok(done), Err)
    }

    /// Brings a container up to what changed since the watch began, and to all that is copied at the start; how many
    /// files were put, `None` for a container that is gone.
    pub(super) async fn fill(
        &self,
        state: &mut State,
        (service, container): (&str, &str),
        part: Part,
        on: &On<'_>,
    ) -> Result<Option<usize>, CommandError> {
        let mut work = Vec::new();
        for (number, copied) in self.copying(service) {
            let mut paths = state.changed.get(&number).cloned().unwrap_or_default();
            if copied.initial
                && part != Part::Remove
                && let Some(rule) = self.rules.get(number)
            {
                let all = watch::all(vec![PathBuf::from(&rule.rule.path)], self.except.clone()).await?;
                // Directories that are there keep whose they are: a program may write into some of them.
                paths.extend(paths_of(&Changed { directories: Vec::new(), ..rule.of(&all) }));
            }
            work.push((number, self.orders(number, paths).await?));
        }
        let is_there = self.apply(state, (service, container), &work, part, on).await?;
        Ok(is_there.then(|| work.iter().map(|(_, orders)| orders.put.len()).sum()))
    }

    /// Containers of a service that have come without being told: at the start all, later those that came while the
    /// agent was replaced.
    pub(super) async fn catch_up(&self, service: &str, on: &On<'_>) -> Result<Done, CommandError> {
        let mut state = self.copies.0.lock().await;
        let (mut done, mut trouble) = (Done::default(), None);
        for container in state.targets(service, on).await? {
            if state.known.contains(&container) {
                continue;
            }
            let filled = self.fill(&mut state, (service, &container), Part::All, on).await;
            // One that is gone, or not to be reached now, is looked for again; what can't be done is told once.
            if !matches!(filled, Ok(None)) {
                state.known.insert(container);
            }
            match filled {
                Ok(Some(put)) => done = Done { put, containers: done.containers + 1, ..done },
                Ok(None) => {}
                Err(error) => trouble = Some(error),
            }
        }
        trouble.map_or(Ok(done), Err)
    }

    /// What the paths are now, and what that means in a container.
    async fn orders(&self, rule: usize, paths: BTreeMap<PathBuf, bool>) -> Result<Orders, CommandError> {
        let Some((copied, root)) =
            self.rules.get(rule).and_then(|rule| Some((rule.rule.copied.clone()?, rule.rule.path.clone())))
        else {
            return Ok(Orders::default());
        };
        let look = tokio::task::spawn_blocking(move || sync::orders(&copied, &root, &seen(paths)));
        look.await.map_err(|error| CommandError::bug(error.to_string()))
    }

    /// Does it in one container; `false` where that is gone, or the daemon.
    async fn apply(
        &self,
        state: &mut State,
        (service, container): (&str, &str),
        work: &[(usize, Orders)],
        part: Part,
        on: &On<'_>,
    ) -> Result<bool, CommandError> {
        let mut trouble = None;
        for (number, orders) in work {
            let Some(copied) = self.rules.get(*number).and_then(|rule| rule.rule.copied.as_ref()) else {
                continue;
            };
            if part != Part::Put {
                for piece in sync::pieces(&orders.remove) {
                    // What can't be deleted is told, and keeps nothing else from being copied.
                    match remove(service, container, piece, on).await {
                        Ok(None) => {}
                        Ok(Some(left)) => trouble = Some(left),
                        Err(error) => return gone(error),
                    }
                }
            }
            if part != Part::Remove && !orders.put.is_empty() {
                let owner = owner(state, container, copied, on).await;
                let put = match owner {
                    Ok(owner) => put(service, container, copied, (&orders.put, owner), on).await,
                    Err(error) => Err(error),
                };
                match put {
                    Ok(()) => {}
                    Err(error) if is_gone(&error) => return Ok(false),
                    Err(error) => {
                        let text = format!("nothing can be copied to {} in it: {error}", copied.target);
                        trouble = Some(CommandError::user(text));
                    }
                }
            }
        }
        trouble.map_or(Ok(true), Err)
    }

    /// Runs a command in every running replica, one after another.
    pub(super) async fn run(&self, service: &str, hook: &Hook, on: &On<'_>) -> Result<usize, CommandError> {
        let mut state = self.copies.0.lock().await;
        let mut containers = state.targets(service, on).await?;
        // What is only about to run begins with the files anyway.
        containers.retain(|container| !state.is_to_start(container));
        drop(state);
        let (mut ran, mut trouble) = (0, None);
        for container in &containers {
            let run = SyncRun {
                project: on.project.to_owned(),
                container: container.clone(),
                command: hook.command.clone(),
                user: hook.user.clone(),
                privileged: hook.privileged,
                working_dir: hook.working_dir.clone(),
                environment: hook.environment.clone(),
            };
            match on.client.sync_run(&run).await.map(failure) {
                Ok(None) => ran += 1,
                Ok(Some(why)) => trouble = Some(CommandError::user(why)),
                Err(ClientError::Api { status: StatusCode::NOT_FOUND, .. }) => {}
                Err(error) => trouble = Some(error.into()),
            }
        }
        trouble.map_or(Ok(ran), Err)
    }
}

/// Whether a container is gone, or the daemon for a while: what is there then is brought up to everything.
fn is_gone(error: &ClientError) -> bool {
    error.may_pass() || matches!(error, ClientError::Api { status: StatusCode::NOT_FOUND, .. })
}

fn gone(error: ClientError) -> Result<bool, CommandError> {
    if is_gone(&error) { Ok(false) } else { Err(error.into()) }
}

/// The containers of a service that aren't about to go.
pub(super) fn containers_of(service: &ServiceView) -> Vec<String> {
    let stay = service.replicas.iter().filter(|replica| replica.state != "stopping");
    stay.filter_map(|replica| replica.container.clone()).collect()
}

fn paths_of(changed: &Changed) -> BTreeMap<PathBuf, bool> {
    let files = changed.files.iter().map(|path| (path.clone(), false));
    files.chain(changed.directories.iter().map(|path| (path.clone(), true))).collect()
}

/// Each path as it is now, whatever it was when it was seen to change.
fn seen(paths: BTreeMap<PathBuf, bool>) -> BTreeMap<String, Seen> {
    let look = |(path, was_directory): (PathBuf, bool)| {
        let seen = match fs::symlink_metadata(&path) {
            Ok(about) if about.is_dir() => Seen::Directory,
            Ok(_) => Seen::File,
            Err(_) if was_directory => Seen::GoneDirectory,
            Err(_) => Seen::Gone,
        };
        // The Engine and its containers know paths as text; what isn't UTF-8 can't be told.
        Some((path.to_str()?.to_owned(), seen))
    };
    paths.into_iter().filter_map(look).collect()
}

async fn owner(
    state: &mut State,
    container: &str,
    copied: &Copied,
    on: &On<'_>,
) -> Result<SyncOwner, ClientError> {
    let key = (container.to_owned(), copied.target.clone());
    if let Some(owner) = state.owners.get(&key) {
        return Ok(*owner);
    }
    let place = Place { project: on.project, container, path: &copied.target };
    let owner = on.client.sync_owner(place).await?;
    state.owners.insert(key, owner);
    Ok(owner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changed_is_remembered_once_and_within_a_limit() {
        let mut state = State::default();
        let files = |from: usize| (from..from + REMEMBERED_MAX).map(|at| PathBuf::from(format!("/{at}")));
        let some = Changed { files: files(0).collect(), directories: Vec::new() };
        assert!(state.note(1, &some) && state.note(1, &some));
        let one = Changed { files: Vec::new(), directories: vec!["/src".into()] };
        assert!(!state.note(1, &one));
        assert!(state.note(2, &one));
        assert_eq!(state.changed[&1].len(), REMEMBERED_MAX);
    }

    #[test]
    fn a_path_is_what_it_is_now() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::write(path("file"), "1").unwrap();
        std::os::unix::fs::symlink("nowhere", path("link")).unwrap();
        fs::create_dir(path("was-file")).unwrap();
        let names =
            [("file", true), ("link", false), ("was-file", false), ("gone", false), ("gone-dir", true)];
        let seen = seen(names.map(|(name, is_directory)| (path(name), is_directory)).into());
        let of = |name: &str| seen[path(name).to_str().unwrap()];
        assert_eq!((of("file"), of("link"), of("was-file")), (Seen::File, Seen::File, Seen::Directory));
        assert_eq!((of("gone"), of("gone-dir")), (Seen::Gone, Seen::GoneDirectory));
    }
}
