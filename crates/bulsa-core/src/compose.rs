//! Compose files: from text to a [`Spec`], with every mistake named at its place.
//!
//! ```text
//! text ─ tree ─ interpolate ─ (extends, merge, include: later) ─ service, bulsa ─ check ─ normalise ─▶ Spec
//!        └──────── untyped nodes that know their place ───────┘  └── typed ──┘
//! ```
//!
//! Owns: that way, from [`load`] to [`Loaded`]. As in Compose, everything that moves values around happens on an
//! untyped tree ([`tree`]) that knows file, line and column of every node; types come last. Every step adds its
//! mistakes to one [`Diagnostics`] and goes on with what is left, so that one run names them all; a Spec comes out
//! only when there was none. What a key may be stands in [`keys`], one table per level: a key of Compose that doesn't
//! work yet is an error that names it, never ignored.
//!
//! Never: opens a file or reads the environment. The caller passes the texts and the variables in, and a function
//! that gives the text of an `env_file`.

mod bulsa;
mod check;
mod config;
pub mod diagnostic;
pub mod dotenv;
pub mod duration;
mod environment;
mod http_test;
pub mod interpolate;
pub mod keys;
mod model;
mod name;
mod normalise;
pub mod paths;
mod read;
pub mod scalar;
mod service;
#[cfg(test)]
mod tests;
pub mod tree;
pub mod words;

use std::collections::BTreeMap;

use crate::spec::{Keep, Spec, TrustedProxy};

use self::{
    diagnostic::{Diagnostic, Diagnostics, Pos},
    environment::Environment,
    tree::{Entry, Kind, Node},
};

pub use config::config_json;
pub use model::Project;
pub use name::MAX_NAME_BYTES;
pub use service::{MAX_REPLICAS, ReadError, ReadFile};

/// At most this many services of one project.
pub const MAX_SERVICES: usize = 500;

/// A file's text and the path that messages show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceFile {
    /// As the user gave it: `compose.yaml`.
    pub path: String,
    /// Its whole text.
    pub text: String,
}

/// Everything that a project is read from.
pub struct LoadInput<'a> {
    /// The compose files, in the order of `-f`; more than one is a mistake today.
    pub files: Vec<SourceFile>,
    /// The directory that relative paths are seen from, absolute.
    pub project_dir: String,
    /// The name given by `-p`.
    pub project_name: Option<String>,
    /// The environment of the caller.
    pub env: BTreeMap<String, String>,
    /// The `.env` file, or the one of `--env-file`.
    pub dotenv: Option<SourceFile>,
    /// Gives the text of an `env_file` by its absolute path.
    pub read: &'a mut ReadFile<'a>,
}

/// What came out.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded {
    /// The desired state; `None` where there was an error.
    pub spec: Option<Spec>,
    /// Errors and warnings, in the order of the file.
    pub diagnostics: Diagnostics,
    /// The file as it was understood, for [`config_json`]; `None` where there was an error.
    pub project: Option<Project>,
}

/// Reads a project. Errors are in [`Loaded::diagnostics`]; there is then neither a Spec nor a project.
#[must_use]
pub fn load(input: LoadInput<'_>) -> Loaded {
    let mut diags = Diagnostics::default();
    let project =
        project(&input.files, &input.dotenv, &input.env, &mut diags).and_then(|(root, environment)| {
            let mut read_project = ReadProject {
                environment: &environment,
                project_dir: &input.project_dir,
                read: input.read,
                diags: &mut diags,
            };
            read_project.read(root, input.project_name.as_deref())
        });
    let project = project.filter(|_| !diags.has_errors());
    diags.sort();
    let spec = project.as_ref().map(|project| normalise::spec(project, &input.project_dir));
    Loaded { spec, diagnostics: diags, project }
}

/// The tree of the file and the variables that it may use.
fn project<'a>(
    files: &[SourceFile],
    dotenv: &Option<SourceFile>,
    env: &'a BTreeMap<String, String>,
    diags: &mut Diagnostics,
) -> Option<(Node, Environment<'a>)> {
    let variables = dotenv.as_ref().map(|file| {
        let lookup = |name: &str| env.get(name).cloned();
        dotenv::parse(&file.path, &file.text, dotenv::Format::Compose, &lookup, diags)
    });
    let environment = Environment::new(env, variables.unwrap_or_default());
    let Some(file) = files.first() else {
        diags.push(
            Diagnostic::error(&Pos::whole(""), "there is no compose file").hint("name one with `-f FILE`"),
        );
        return None;
    };
    if let Some(second) = files.get(1) {
        diags.push(
            Diagnostic::error(&Pos::whole(&second.path), "merging several -f files comes in a later version")
                .expected("one compose file")
                .hint("put everything into one file"),
        );
    }
    tree::parse(&file.path, &file.text, diags).map(|root| (root, environment))
}

struct ReadProject<'a, 'r> {
    environment: &'a Environment<'a>,
    project_dir: &'a str,
    read: &'a mut ReadFile<'r>,
    diags: &'a mut Diagnostics,
}

impl ReadProject<'_, '_> {
    fn read(&mut self, mut root: Node, given_name: Option<&str>) -> Option<Project> {
        tags(&root, self.diags);
        if !matches!(root.kind, Kind::Mapping(_)) {
            self.diags.push(read::wrong(&root, "the file", "a mapping with `services:`"));
            return None;
        }
        let name = name::find(given_name, &root, self.project_dir, self.environment, self.diags);
        // With a mistake in the name the rest is read all the same.
        let name = name.unwrap_or_default();
        let environment = self.environment;
        let lookup = |variable: &str| environment.lookup(&name, variable);
        interpolate::interpolate(&mut root, &lookup, self.diags);

        let mut project = Project {
            name,
            services: BTreeMap::new(),
            names: Vec::new(),
            keep: Keep::default(),
            trusted_proxies: vec![TrustedProxy::Loopback, TrustedProxy::Project],
            extensions: extensions(&root),
        };
        self.top(&root, &mut project);
        check::check(&mut project, self.diags);
        Some(project)
    }

    fn top(&mut self, root: &Node, project: &mut Project) {
        read::keys(root, "", &keys::TOP, self.diags, |entry, path, diags| match entry.key.as_str() {
            "version" => diags.push(
                Diagnostic::warning(&entry.key_pos, "`version` says nothing any more and is ignored")
                    .hint("remove the line"),
            ),
            "name" => {
                read::text(&entry.value, path, diags);
            }
            "x-bulsa" => {
                let (keep, trusted) = bulsa::top(&entry.value, diags);
                project.keep = keep;
                if let Some(trusted) = trusted {
                    project.trusted_proxies = trusted;
                }
            }
            // The services come next.
            _ => {}
        });
        let Some(entry) = root.entry("services") else {
            self.diags.push(
                Diagnostic::error(&root.pos, "the file has no `services`")
                    .expected("services: with at least one service"),
            );
            return;
        };
        let services = read::mapping(&entry.value, "services", self.diags).unwrap_or_default();
        if services.is_empty() && matches!(entry.value.kind, Kind::Mapping(_)) {
            self.diags.push(
                Diagnostic::error(&entry.value.pos, "`services` is empty").expected("at least one service"),
            );
        }
        if services.len() > MAX_SERVICES {
            self.diags.push(
                Diagnostic::error(&entry.value.pos, format!("there are {} services", services.len()))
                    .expected(format!("at most {MAX_SERVICES}")),
            );
            return;
        }
        project.names = services.iter().map(|entry| entry.key.clone()).collect();
        for entry in services {
            self.service(entry, project);
        }
    }

    fn service(&mut self, entry: &Entry, project: &mut Project) {
        let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if !entry.key.chars().all(good) || !entry.key.starts_with(|c: char| c.is_ascii_alphanumeric()) {
            self.diags.push(
                Diagnostic::error(
                    &entry.key_pos,
                    format!("services: {:?} can't be a service's name", entry.key),
                )
                .expected("letters, digits, `.`, `_` and `-`, starting with a letter or digit"),
            );
            return;
        }
        if !matches!(entry.value.kind, Kind::Mapping(_)) {
            let path = format!("services.{}", entry.key);
            let mut mistake = read::wrong(&entry.value, &path, "a mapping");
            mistake.pos = entry.key_pos.clone();
            self.diags.push(mistake.hint("give the service at least a `command`, indented below its name"));
            return;
        }
        let mut context = service::Context {
            environment: self.environment,
            project_dir: self.project_dir,
            read: &mut *self.read,
        };
        let service = service::service(entry, &mut context, self.diags);
        project.services.insert(entry.key.clone(), service);
    }
}

/// The top's `x-…` keys, which are printed as they are.
fn extensions(root: &Node) -> BTreeMap<String, serde_json::Value> {
    let Kind::Mapping(entries) = &root.kind else {
        return BTreeMap::new();
    };
    let own = entries.iter().filter(|entry| entry.key.starts_with("x-"));
    own.map(|entry| (entry.key.clone(), config::verbatim(&entry.value))).collect()
}

/// `!reset` and `!override` only mean something for several files; no other tag means anything.
fn tags(node: &Node, diags: &mut Diagnostics) {
    if let Some(tag) = &node.tag {
        let mistake = match tag.as_str() {
            "!reset" | "!override" => {
                format!("`{tag}` changes what another file says; merging files comes in a later version")
            }
            _ => format!("the tag `{tag}` means nothing in a compose file"),
        };
        diags.push(Diagnostic::error(&node.pos, mistake).hint("remove the tag"));
    }
    match &node.kind {
        Kind::Scalar(_) => {}
        Kind::Sequence(items) => items.iter().for_each(|item| tags(item, diags)),
        Kind::Mapping(entries) => entries.iter().for_each(|entry| tags(&entry.value, diags)),
    }
}
