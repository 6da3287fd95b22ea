//! `develop.watch`: what is done to a service while somebody writes it, when files change.
//!
//! Owns: the rules as the file says them, what of them can't be, and what of them has no use. Never: part of the Spec; a
//! release is the same whoever watches.

use super::{
    canonical::{entries, is_null},
    container::hook,
    diagnostic::{Diagnostic, Diagnostics, Pos},
    paths,
    scalar::Value,
    tree::{Kind, Node, Scalar},
};
use crate::{
    spec::{
        Service, Spec,
        container::{Container, Hook, MountSource},
    },
    sync,
};

/// What follows a change, the larger later: it does the work of those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum WatchAction {
    /// What changed is copied, and that is all.
    Sync,
    /// A command runs in its replicas, after the copy.
    Exec,
    /// Its replicas are replaced one after another, after the copy, if there is one.
    Restart,
    /// Its image is built, and deployed.
    Rebuild,
}

/// Where changed files go in a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copied {
    /// The place of `path` in it; absolute.
    pub target: String,
    /// The root, or the volume that `target` is in: the Engine looks for it at the directory that it is told.
    pub base: String,
    /// Whether everything under `path` is copied at the start.
    pub initial: bool,
}

/// One rule of one service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchRule {
    /// Whose.
    pub service: String,
    /// What follows.
    pub action: WatchAction,
    /// The file or directory; absolute.
    pub path: String,
    /// What of it doesn't count, in the form of a `.dockerignore`, seen from `path`.
    pub ignore: Vec<String>,
    /// What of it counts alone, if anything is said.
    pub include: Vec<String>,
    /// What is copied before.
    pub copied: Option<Copied>,
    /// With [`WatchAction::Exec`]: what runs.
    pub exec: Option<Hook>,
}

/// What is watched for.
#[derive(Debug, Default)]
pub struct Watched {
    /// In the order of the file.
    pub rules: Vec<WatchRule>,
    /// What of the rules has no use, at its place, with the service.
    pub notes: Vec<(String, Diagnostic)>,
    /// What can't be followed, likewise.
    pub mistakes: Vec<(String, Diagnostic)>,
}

/// The rules of the services of `spec`. Their mistakes have been looked for; what is found here is what only matters to
/// whoever watches.
#[must_use]
pub fn watched(tree: &Node, spec: &Spec) -> Watched {
    let mut watched = Watched::default();
    for service in tree.get("services").map(entries).unwrap_or_default() {
        let Some(wanted) = spec.services.get(&service.key) else { continue };
        let watch = service.value.get("develop").and_then(|develop| develop.get("watch"));
        let Some(Kind::Sequence(items)) = watch.map(|watch| &watch.kind) else { continue };
        for (number, item) in items.iter().enumerate() {
            let place = format!("services.{}.develop.watch[{number}]", service.key);
            let can_build = service.value.get("build").is_some();
            let mut reader = Reader { item, place, service: wanted, can_build, notes: Vec::new() };
            let mut diags = Diagnostics::default();
            match reader.rule(&mut diags) {
                Ok(found) => watched.rules.extend(found),
                Err(mistake) => diags.push(*mistake),
            }
            let of_service = |diagnostic: Diagnostic| (service.key.clone(), diagnostic);
            watched.mistakes.extend(diags.list().iter().cloned().map(of_service));
            watched.notes.extend(reader.notes.into_iter().map(of_service));
        }
    }
    watched
}

/// The same for whoever follows them.
///
/// # Errors
/// Every rule that can't be followed, at its line.
pub fn watch_rules(tree: &Node, spec: &Spec) -> Result<Watched, Diagnostics> {
    let watched = watched(tree, spec);
    let mut diags = Diagnostics::default();
    watched.mistakes.iter().for_each(|(_, mistake)| diags.push(mistake.clone()));
    if diags.has_errors() { Err(diags) } else { Ok(watched) }
}

/// Reads one rule.
struct Reader<'a> {
    item: &'a Node,
    place: String,
    service: &'a Service,
    can_build: bool,
    notes: Vec<Diagnostic>,
}

impl Reader<'_> {
    /// `None` where nothing is to be done.
    fn rule(&mut self, diags: &mut Diagnostics) -> Result<Option<WatchRule>, Box<Diagnostic>> {
        let word = self.get("action").unwrap_or_default();
        let syncs = word.starts_with("sync");
        let mut rule = WatchRule {
            service: self.service.name.clone(),
            action: self.action(&word)?,
            path: self.get("path").unwrap_or_default(),
            ignore: texts(self.item.get("ignore")),
            include: texts(self.item.get("include")),
            copied: None,
            exec: None,
        };
        if !syncs {
            for key in ["target", "exec", "initial_sync"] {
                self.pointless(key, "only the forms of `sync` go by it");
            }
            return Ok(Some(rule));
        }
        let Some(container) = &self.service.container else { return Ok(self.on_this_host(rule, &word)) };
        rule.copied = self.copied(container, &rule, &word)?;
        if rule.action == WatchAction::Exec {
            rule.exec = Some(self.exec(diags)?);
        } else {
            self.pointless("exec", "only `sync+exec` runs a command");
        }
        let has_use = rule.copied.is_some() || rule.action != WatchAction::Sync;
        Ok(has_use.then_some(rule))
    }

    fn action(&self, word: &str) -> Result<WatchAction, Box<Diagnostic>> {
        Ok(match word {
            "restart" | "sync+restart" => WatchAction::Restart,
            "sync+exec" => WatchAction::Exec,
            "sync" => WatchAction::Sync,
            _ if self.can_build => WatchAction::Rebuild,
            other if self.service.container.is_some() => {
                let text = format!("`{other}` needs a `build`, and the service has none");
                return Err(self.mistake("action", &text, "use `restart`"));
            }
            other => {
                let text = format!("`{other}` is for services with a container");
                return Err(self.mistake("action", &text, "use `restart`: the program reads its files anew"));
            }
        })
    }

    /// A program of this host sees the files themselves.
    fn on_this_host(&mut self, rule: WatchRule, word: &str) -> Option<WatchRule> {
        let text = match rule.action {
            WatchAction::Restart => format!("`{word}` copies nothing, and is `restart`"),
            WatchAction::Exec => {
                format!("`{word}` copies nothing and runs nothing; `restart` starts it anew")
            }
            WatchAction::Sync | WatchAction::Rebuild => format!("`{word}` has nothing to copy"),
        };
        let text = format!("{text}: a program of this host sees the files themselves");
        self.note("action", &text);
        (rule.action == WatchAction::Restart).then_some(rule)
    }

    /// `None` where the file is there by a mount.
    fn copied(
        &mut self,
        container: &Container,
        rule: &WatchRule,
        word: &str,
    ) -> Result<Option<Copied>, Box<Diagnostic>> {
        let Some(target) = self.get("target").filter(|target| !target.is_empty()) else {
            let text = format!("`{word}` needs a `target`: where in the container the files go");
            return Err(self.mistake("action", &text, "target: /app/src"));
        };
        if !target.starts_with('/') {
            let text = format!("`target: {target}` is not an absolute path");
            return Err(self.mistake("target", &text, "begin it with a slash"));
        }
        if in_memory(container, &target) {
            let text = format!("`target: {target}` is in a `tmpfs`, where the Engine can't put files");
            return Err(self.mistake("target", &text, "use another directory, or no `tmpfs` there"));
        }
        for (source, place) in of_this_host(container, &target) {
            if place == rule.path {
                let text =
                    format!("the bind mount of {source} has these files in the container: nothing is copied");
                self.note("path", &text);
                return Ok(None);
            }
            if sync::below(&rule.path, &place).is_some() {
                let text = format!(
                    "`target: {target}` is {place} by a bind mount: each copy would be a change that is copied"
                );
                return Err(self.mistake(
                    "target",
                    &text,
                    "use a directory that isn't mounted from this host",
                ));
            }
        }
        let initial = self.get("initial_sync").is_some_and(|text| text == "true");
        Ok(Some(Copied { base: base(container, &target), target, initial }))
    }

    fn exec(&self, diags: &mut Diagnostics) -> Result<Hook, Box<Diagnostic>> {
        let node = self.item.get("exec");
        let hook = node.and_then(|node| hook(node, &format!("{}.exec", self.place), diags));
        hook.filter(|hook| !hook.command.is_empty()).ok_or_else(|| {
            let text = "`sync+exec` needs a command to run";
            self.mistake("action", text, "exec: {command: [PROGRAM, …]}")
        })
    }

    fn get(&self, key: &str) -> Option<String> {
        self.item.get(key).and_then(text)
    }

    fn at(&self, key: &str) -> &Pos {
        &self.item.get(key).unwrap_or(self.item).pos
    }

    fn mistake(&self, key: &str, text: &str, hint: &str) -> Box<Diagnostic> {
        Box::new(Diagnostic::error(self.at(key), format!("{}: {text}", self.place)).hint(hint))
    }

    fn note(&mut self, key: &str, text: &str) {
        let note = Diagnostic::warning(self.at(key), format!("{}: {text}", self.place));
        self.notes.push(note);
    }

    /// Notes a key that says something and does nothing.
    fn pointless(&mut self, key: &str, why: &str) {
        let says = |node: &Node| match &node.kind {
            // The canonical form has the mapping also where nobody wrote it.
            Kind::Mapping(entries) => entries.iter().any(|entry| !is_null(&entry.value)),
            _ => text(node).is_some_and(|text| !text.is_empty() && text != "false"),
        };
        if self.item.get(key).is_some_and(says) {
            self.note(key, &format!("`{key}` has no effect here: {why}"));
        }
    }
}

fn in_memory(container: &Container, target: &str) -> bool {
    let long = container.mounts.iter().filter(|mount| matches!(mount.source, MountSource::Tmpfs { .. }));
    let mut all = long.map(|mount| &mount.target).chain(container.tmpfs.keys());
    all.any(|place| sync::below(place, target).is_some())
}

/// What `target` is on this host by bind mounts, each with the mount's source. A copy would go there.
fn of_this_host<'c>(container: &'c Container, target: &'c str) -> impl Iterator<Item = (&'c str, String)> {
    container.mounts.iter().filter_map(|mount| {
        let MountSource::Bind { path: source, .. } = &mount.source else { return None };
        let rest = sync::below(&mount.target, target.trim_end_matches('/'))?;
        Some((source.as_str(), paths::join(source, rest)))
    })
}

fn base(container: &Container, target: &str) -> String {
    let mounts = container.mounts.iter().map(|mount| mount.target.as_str());
    // A mount that is the target itself may be one of a file.
    let around = mounts.filter(|place| sync::below(place, target).is_some_and(|rest| !rest.is_empty()));
    around.max_by_key(|place| place.len()).unwrap_or("/").to_owned()
}

fn text(node: &Node) -> Option<String> {
    node.scalar().map(Scalar::resolve).and_then(Value::into_text)
}

/// One text, or several.
fn texts(node: Option<&Node>) -> Vec<String> {
    match node.map(|node| &node.kind) {
        Some(Kind::Sequence(items)) => items.iter().filter_map(text).collect(),
        _ => node.and_then(text).into_iter().collect(),
    }
}
