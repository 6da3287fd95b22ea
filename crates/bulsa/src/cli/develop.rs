//! `bulsa up --watch`: what the file's `develop.watch` says, done when files change.
//!
//! Owns: which service a change is about, and how each action is done. Never: has a pipeline of its own: a restart is a
//! human's wish, a rebuild is `bulsa deploy SERVICE`.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use bulsa_core::{
    compose::develop::{WatchAction, WatchRule},
    wire::api::{Request, ServiceState},
};
use ignore::gitignore::{Gitignore, GitignoreBuilder};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, BufReader},
    process::Command,
    sync::mpsc,
    time::Instant,
};

use super::{args::FileArgs, attend::Said, context::accepted, follow, reload::tell};
use crate::{client::Client, report::CommandError};

/// How long new replicas are waited for before that is said. The daemon goes on by itself.
const RESTART_MAX: Duration = Duration::from_secs(300);

/// The rules of a project.
pub(super) struct Develop {
    rules: Vec<Rule>,
    files: FileArgs,
}

struct Rule {
    rule: WatchRule,
    /// What doesn't count.
    but: Gitignore,
    /// What counts alone.
    only: Option<Gitignore>,
}

impl Develop {
    /// The rules of files that were read with these flags.
    pub(super) fn new(rules: Vec<WatchRule>, files: FileArgs) -> Result<Self, CommandError> {
        let rules: Result<_, ignore::Error> = rules.into_iter().map(Rule::new).collect();
        let rules: Vec<Rule> = rules.map_err(|error| {
            CommandError::user("a pattern in `develop.watch` can't be understood").cause(error)
        })?;
        if rules.is_empty() {
            return Err(CommandError::user("no service has a `develop.watch`")
                .hint("`develop: {watch: [{action: restart, path: ./src}]}` in a service says what follows a change"));
        }
        Ok(Self { rules, files })
    }

    /// What is to be watched.
    pub(super) fn roots(&self) -> Vec<PathBuf> {
        self.rules.iter().map(|rule| PathBuf::from(&rule.rule.path)).collect()
    }

    /// What follows: of several actions for one service the larger one, which does the others' work.
    fn due(&self, changed: &[PathBuf]) -> BTreeMap<&str, WatchAction> {
        let mut due = BTreeMap::new();
        for rule in self.rules.iter().filter(|rule| changed.iter().any(|path| rule.counts(path))) {
            let action = due.entry(rule.rule.service.as_str()).or_insert(rule.rule.action);
            *action = rule.rule.action.max(*action);
        }
        due
    }

    /// Does it, one service after another. `words` name what changed.
    pub(super) async fn act(
        &self,
        changed: &[PathBuf],
        words: &str,
        (client, project): (&Client, &str),
        say: &mpsc::Sender<Said>,
    ) {
        for (service, action) in self.due(changed) {
            let begun = Instant::now();
            let (doing, done) = match action {
                WatchAction::Restart => ("replacing", "replaced"),
                WatchAction::Rebuild => ("building", "built and deployed"),
            };
            tell(say, format!("{words} changed: {doing} `{service}`")).await;
            let result = match action {
                WatchAction::Restart => restart(client, project, service).await,
                WatchAction::Rebuild => self.rebuild(client, project, service, say).await,
            };
            let line = match result {
                Ok(()) => format!(
                    "{done} `{service}` after {words} changed, in {:.1} s",
                    begun.elapsed().as_secs_f64()
                ),
                Err(error) => format!("`{service}` stays as it was after {words} changed: {}", error.message),
            };
            tell(say, line).await;
        }
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

impl Rule {
    fn new(rule: WatchRule) -> Result<Self, ignore::Error> {
        let patterns = |patterns: &[String]| {
            let mut builder = GitignoreBuilder::new(&rule.path);
            for pattern in patterns {
                builder.add_line(None, pattern)?;
            }
            builder.build()
        };
        let but = patterns(&rule.ignore)?;
        let only = if rule.include.is_empty() { None } else { Some(patterns(&rule.include)?) };
        Ok(Self { but, only, rule })
    }

    /// Whether a change of this file is the rule's affair.
    fn counts(&self, path: &Path) -> bool {
        let is_in = |patterns: &Gitignore| patterns.matched_path_or_any_parents(path, false).is_ignore();
        path.starts_with(&self.rule.path) && !is_in(&self.but) && self.only.as_ref().is_none_or(is_in)
    }
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
mod tests {
    use super::*;

    fn rule(service: &str, action: WatchAction, path: &str, ignore: &[&str], include: &[&str]) -> WatchRule {
        let all = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        WatchRule {
            service: service.to_owned(),
            action,
            path: path.to_owned(),
            ignore: all(ignore),
            include: all(include),
        }
    }

    #[test]
    fn a_change_is_the_affair_of_the_rules_that_it_is_in_and_the_larger_action_wins() {
        let rules = vec![
            rule("web", WatchAction::Restart, "/app/src", &["*.test.js", "gen/"], &[]),
            rule("web", WatchAction::Rebuild, "/app/src/package.json", &[], &[]),
            rule("api", WatchAction::Restart, "/app", &[], &["*.py"]),
        ];
        let develop = Develop::new(rules, FileArgs::default()).unwrap();
        let due = |paths: &[&str]| {
            let changed: Vec<PathBuf> = paths.iter().map(PathBuf::from).collect();
            develop
                .due(&changed)
                .into_iter()
                .map(|(name, action)| format!("{name} {action:?}"))
                .collect::<Vec<_>>()
        };
        assert_eq!(due(&["/app/src/a.js"]), ["web Restart"]);
        assert_eq!(due(&["/app/src/a.js", "/app/src/package.json"]), ["web Rebuild"]);
        assert_eq!(due(&["/app/src/a.test.js", "/app/src/gen/x.js", "/other/a.js"]), [""; 0]);
        assert_eq!(due(&["/app/src/a.py"]), ["api Restart", "web Restart"]);
    }

    #[test]
    fn a_file_without_rules_has_nothing_to_watch_for() {
        let error = Develop::new(Vec::new(), FileArgs::default()).err().unwrap();
        assert!(error.message.contains("develop.watch"), "{error:?}");
    }

    #[test]
    fn a_rebuild_is_a_deploy_of_the_same_files() {
        let files = FileArgs {
            files: vec!["a.yaml".into()],
            profiles: vec!["dev".to_owned()],
            ..FileArgs::default()
        };
        let rules = vec![rule("web", WatchAction::Rebuild, "/app", &[], &[])];
        let words = Develop::new(rules, files).unwrap().deploy_words(Path::new("/s"), "shop", "web");
        let expected =
            ["--socket", "/s", "-p", "shop", "deploy", "--file", "a.yaml", "--profile", "dev", "web"];
        assert_eq!(words, expected.map(OsString::from));
    }
}
