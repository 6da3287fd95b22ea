//! `bulsa up --watch`: what the file's `develop.watch` says, done when files change.
//!
//! Owns: which service a change is about, and how each action is done; `copy` has the way of files into containers, and
//! `session` those that start meanwhile. Never: has a pipeline of its own: a restart is a human's wish, a rebuild is
//! `bulsa deploy SERVICE`.

mod copy;
mod rule;
mod send;
mod session;

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use bulsa_core::{
    compose::develop::{WatchAction, Watched},
    image::Ignore,
    spec::{Spec, container::Hook},
    wire::api::{Request, ServiceState},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, BufReader},
    process::Command,
    sync::mpsc,
    time::Instant,
};

pub(super) use self::copy::On;
use self::{copy::Copies, rule::Rule};
use super::{
    args::FileArgs, attend::Said, build::left_out, context::accepted, follow, reload::tell, watch::Changed,
};
use crate::{client::Client, report::CommandError};

/// How long new replicas are waited for before that is said. The daemon goes on by itself.
const RESTART_MAX: Duration = Duration::from_secs(300);

/// The rules of a project.
pub(super) struct Develop {
    rules: Vec<Rule>,
    files: FileArgs,
    /// What is never looked at: where the daemon writes.
    except: PathBuf,
    copies: Copies,
}

/// What follows for one service.
#[derive(Debug)]
struct Due<'a> {
    action: WatchAction,
    /// What is copied, by the rule's number.
    copies: Vec<(usize, Changed)>,
    execs: Vec<&'a Hook>,
}

impl Develop {
    /// The rules of files that were read with these flags, as `spec`.
    pub(super) fn new(
        watched: Watched,
        spec: &Spec,
        files: FileArgs,
        except: PathBuf,
    ) -> Result<Self, CommandError> {
        if watched.rules.is_empty() && watched.notes.is_empty() {
            return Err(CommandError::user("no service has a `develop.watch`")
                .hint("`develop: {watch: [{action: restart, path: ./src}]}` in a service says what follows a change"));
        }
        let mut rules = Vec::new();
        for rule in watched.rules {
            let ignore = if rule.copied.is_some() { ignored(spec, &rule.service)? } else { None };
            rules.push(Rule::new(rule, ignore).map_err(|error| {
                CommandError::user("a pattern in `develop.watch` can't be understood").cause(error)
            })?);
        }
        Ok(Self { rules, files, except, copies: Copies::default() })
    }

    /// What is to be watched.
    pub(super) fn roots(&self) -> Vec<PathBuf> {
        self.rules.iter().map(|rule| PathBuf::from(&rule.rule.path)).collect()
    }

    /// What follows: of several actions for one service the larger one, which does the others' work.
    fn due(&self, changed: &Changed) -> BTreeMap<&str, Due<'_>> {
        let mut due = BTreeMap::new();
        for (number, rule) in self.rules.iter().enumerate() {
            let changed = rule.of(changed);
            if changed == Changed::default() {
                continue;
            }
            let nothing = Due { action: WatchAction::Sync, copies: Vec::new(), execs: Vec::new() };
            let due: &mut Due<'_> = due.entry(rule.rule.service.as_str()).or_insert(nothing);
            // A directory is made or deleted, and that is all: a program isn't made of empty ones.
            if !changed.files.is_empty() {
                due.action = rule.rule.action.max(due.action);
                due.execs.extend(&rule.rule.exec);
            }
            if rule.rule.copied.is_some() {
                due.copies.push((number, changed));
            }
        }
        due
    }

    /// Does it, one service after another. `words` name what changed.
    pub(super) async fn act(&self, changed: &Changed, words: &str, on: &On<'_>) {
        for (service, due) in self.due(changed) {
            if due.action == WatchAction::Rebuild {
                // What a build makes has it, and a replica that starts before that is done gets it.
                self.remember(&due.copies).await;
            } else if !due.copies.is_empty() {
                self.bring(service, &due, words, on).await;
            }
            let is_done = match due.action {
                WatchAction::Restart | WatchAction::Rebuild => {
                    self.replace(service, due.action, words, on).await
                }
                WatchAction::Sync | WatchAction::Exec => true,
            };
            match due.action {
                // Those that run go on, with what changed.
                WatchAction::Rebuild if !is_done && !due.copies.is_empty() => {
                    self.bring(service, &due, words, on).await;
                }
                WatchAction::Rebuild | WatchAction::Sync => {}
                WatchAction::Exec | WatchAction::Restart => {
                    for hook in &due.execs {
                        self.execute(service, hook, words, on).await;
                    }
                }
            }
        }
    }

    /// Copies what is due.
    async fn bring(&self, service: &str, due: &Due<'_>, words: &str, on: &On<'_>) {
        let begun = Instant::now();
        let line = match self.copy(service, &due.copies, on).await {
            Ok(done) if done.containers == 0 => {
                format!("no replica of `{service}` is there; one that comes gets {words}")
            }
            Ok(done) => format!(
                "{} {} of `{service}` after {words} changed, in {:.1} s",
                match (done.put, done.removed) {
                    (put, 0) => format!("copied {} into", count(put, "file")),
                    (0, removed) => format!("deleted {} in", count(removed, "file")),
                    (put, removed) => format!("copied {} into and deleted {removed} in", count(put, "file")),
                },
                count(done.containers, "replica"),
                begun.elapsed().as_secs_f64()
            ),
            Err(error) => {
                format!("not everything was copied into `{service}` after {words} changed: {}", error.message)
            }
        };
        tell(on.say, line).await;
    }

    /// Restarts or rebuilds; whether that went well.
    async fn replace(&self, service: &str, action: WatchAction, words: &str, on: &On<'_>) -> bool {
        let begun = Instant::now();
        let is_restart = action == WatchAction::Restart;
        let (doing, done) =
            if is_restart { ("replacing", "replaced") } else { ("building", "built and deployed") };
        tell(on.say, format!("{words} changed: {doing} `{service}`")).await;
        let result = if is_restart {
            restart(on.client, on.project, service).await
        } else {
            self.rebuild(on.client, on.project, service, on.say).await
        };
        let is_done = result.is_ok();
        let line = match result {
            Ok(()) => {
                format!("{done} `{service}` after {words} changed, in {:.1} s", begun.elapsed().as_secs_f64())
            }
            Err(error) => format!("`{service}` stays as it was after {words} changed: {}", error.message),
        };
        tell(on.say, line).await;
        is_done
    }

    /// Runs a command in every replica.
    async fn execute(&self, service: &str, hook: &Hook, words: &str, on: &On<'_>) {
        let told = hook.command.join(" ");
        let line = match self.run(service, hook, on).await {
            Ok(replicas) => {
                format!("ran `{told}` in {} of `{service}` after {words} changed", count(replicas, "replica"))
            }
            Err(error) => format!("`{told}` failed in `{service}` after {words} changed: {}", error.message),
        };
        tell(on.say, line).await;
    }

    /// In a process of its own: what it prints is told line by line.
    async fn rebuild(
        &self,
        client: &Client,
        project: &str,
        service: &str,
        say: &mpsc::Sender<Said>,
    ) -> Result<(), CommandError> {
        let failed = |error| CommandError::user("`bulsa deploy` can't be run").cause(error);
        let mut child = Command::new("/proc/self/exe")
            .args(self.deploy_words(client.socket(), project, service))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        tokio::join!(pass_on(child.stdout.take(), say), pass_on(child.stderr.take(), say));
        let status = child.wait().await.map_err(failed)?;
        if status.success() {
            return Ok(());
        }
        Err(CommandError::user(format!("its deploy failed ({status})")))
    }

    fn deploy_words(&self, socket: &Path, project: &str, service: &str) -> Vec<OsString> {
        let mut words: Vec<OsString> =
            vec!["--socket".into(), socket.into(), "-p".into(), project.into(), "deploy".into()];
        let FileArgs { files, env_files, profiles, project_directory } = &self.files;
        let mut flag = |flag: &str, value: OsString| words.extend([OsString::from(flag), value]);
        files.iter().for_each(|file| flag("--file", file.into()));
        env_files.iter().for_each(|file| flag("--env-file", file.into()));
        profiles.iter().for_each(|profile| flag("--profile", profile.into()));
        project_directory.iter().for_each(|directory| flag("--project-directory", directory.into()));
        words.push(service.into());
        words
    }
}

/// What the build of a service leaves out, seen from its context.
fn ignored(spec: &Spec, service: &str) -> Result<Option<(PathBuf, Ignore)>, CommandError> {
    let container = spec.services.get(service).and_then(|service| service.container.as_ref());
    let Some(build) = container.and_then(|container| container.build.as_ref()) else { return Ok(None) };
    left_out(service, build).map_err(|error| {
        CommandError::user(format!("what the build of `{service}` leaves out can't be read")).cause(error)
    })
}

/// `1 file`, `2 files`
fn count(number: usize, word: &str) -> String {
    if number == 1 { format!("1 {word}") } else { format!("{number} {word}s") }
}

/// Replaces a service's replicas one after another, and waits until that is done.
async fn restart(client: &Client, project: &str, service: &str) -> Result<(), CommandError> {
    let before = client.snapshot().await?;
    let view = before.project(project).and_then(|project| project.service(service));
    let replicas = view.map(|view| view.replicas.clone()).unwrap_or_default();
    // Those of a warm release stay.
    let live = replicas.first().map(|replica| replica.release);
    let old: BTreeSet<String> = replicas
        .into_iter()
        .filter(|replica| Some(replica.release) == live)
        .map(|replica| replica.id)
        .collect();
    let request = Request::Restart { project: project.to_owned(), service: service.to_owned() };
    accepted(client.request(&request).await?)?;
    let replaced = follow::until(client, RESTART_MAX, |snapshot| {
        let view = snapshot.project(project)?.service(service)?;
        let is_over =
            view.state == ServiceState::Healthy && view.replicas.iter().all(|one| !old.contains(&one.id));
        is_over.then_some(())
    });
    replaced.await?.ok_or_else(|| {
        CommandError::user(format!(
            "its new replicas are not ready after {} s; they are tried again",
            RESTART_MAX.as_secs()
        ))
    })
}

/// Tells each line of a stream.
async fn pass_on(stream: Option<impl AsyncRead + Unpin>, say: &mpsc::Sender<Said>) {
    let Some(stream) = stream else { return };
    let mut lines = BufReader::new(stream).lines();
    // A stream that breaks has nothing more to tell; how the command ended is told anyway.
    while let Ok(Some(line)) = lines.next_line().await {
        tell(say, line).await;
    }
}

#[cfg(test)]
mod tests;
