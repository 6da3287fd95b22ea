//! Compose files: from text to a [`Spec`], with every mistake named at its place.
//!
//! ```text
//! texts ─ trees ─ variables, canonical forms, include, extends, merge, profiles ─ service, bulsa ─ check ─ normalise ─▶ Spec
//!         └─────────────── untyped nodes that know their place ───────────────┘  └── typed ──┘
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
mod canonical;
mod check;
mod config;
mod container;
mod defaults;
pub mod develop;
pub mod diagnostic;
pub mod doctor;
pub mod dotenv;
pub mod duration;
mod environment;
pub mod files;
pub(crate) mod http_test;
pub mod interpolate;
pub mod keys;
mod model;
mod name;
mod normalise;
pub mod paths;
mod read;
pub mod scalar;
mod service;
mod support;
#[cfg(test)]
pub(crate) mod tests;
pub mod tree;
pub mod words;

use std::collections::{BTreeMap, BTreeSet};

use crate::notify::Notify;
use crate::spec::{Keep, Limits, Sources, Spec, TrustedProxy};

use self::{
    diagnostic::{Diagnostic, Diagnostics, Pos},
    environment::Environment,
    tree::{Entry, Kind, Node},
};

pub use config::config_json;
pub use model::Project;
pub use name::MAX_NAME_BYTES;
pub(crate) use service::signal_number;
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

impl SourceFile {
    /// Its path, absolute; standard input stays `-`.
    fn absolute(&self, here: &str) -> String {
        if self.path == "-" { self.path.clone() } else { paths::join(here, &self.path) }
    }
}

/// Everything that a project is read from.
pub struct LoadInput<'a> {
    /// The compose files, in the order of `-f`: a later one is merged over the earlier ones.
    pub files: Vec<SourceFile>,
    /// The working directory, absolute: the paths of `files` and `dotenvs` are seen from it.
    pub here: String,
    /// The directory that relative paths in the files are seen from, absolute.
    pub project_dir: String,
    /// The name given by `-p`.
    pub project_name: Option<String>,
    /// The environment of the caller.
    pub env: BTreeMap<String, String>,
    /// `.env`, or the files of `--env-file`; a later one wins over an earlier one.
    pub dotenvs: Vec<SourceFile>,
    /// The profiles of `--profile`; with none, COMPOSE_PROFILES says which are active.
    pub profiles: Vec<String>,
    /// The services that the command line names; they are on whatever their profiles are.
    pub services: Vec<String>,
    /// Gives the text of a file by its absolute path: one of `env_file`, `extends`, `include`, …
    pub read: &'a mut ReadFile<'a>,
    /// Whether its owner may run a file, by its absolute path: a config that is a script stays one.
    pub is_executable: fn(&str) -> bool,
}

impl<'a> LoadInput<'a> {
    /// These files in the project's directory `project_dir`, with an empty environment and nothing else.
    pub fn new(files: Vec<SourceFile>, project_dir: &str, read: &'a mut ReadFile<'a>) -> Self {
        Self {
            files,
            here: project_dir.to_owned(),
            project_dir: project_dir.to_owned(),
            project_name: None,
            env: BTreeMap::new(),
            dotenvs: Vec::new(),
            profiles: Vec::new(),
            services: Vec::new(),
            read,
            is_executable: |_| false,
        }
    }
}

/// What came out.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded {
    /// The desired state; `None` where there was an error.
    pub spec: Option<Spec>,
    /// Errors and warnings, in the order of the file.
    pub diagnostics: Diagnostics,
    /// The services as they were understood; `None` where there was an error.
    pub project: Option<Project>,
    /// The whole project in the form that Compose prints, for [`config_json`]; `None` where Compose's own rules are
    /// broken. What only Bulsa can't do doesn't matter here.
    pub tree: Option<Node>,
}

/// Reads a project. Errors are in [`Loaded::diagnostics`]; there is then neither a Spec nor a project.
#[must_use]
pub fn load(mut input: LoadInput<'_>) -> Loaded {
    let mut diags = Diagnostics::default();
    let mut tree = None;
    let project = project(&mut input, &mut tree, &mut diags).filter(|_| !diags.has_errors());
    diags.sort();
    let mut spec = project.as_ref().map(|project| normalise::spec(project, &input.project_dir));
    if let Some(spec) = &mut spec {
        let absolute = |files: &[SourceFile]| files.iter().map(|file| file.absolute(&input.here)).collect();
        spec.sources = Sources {
            directory: input.project_dir.clone(),
            files: absolute(&input.files),
            env_files: absolute(&input.dotenvs),
        };
    }
    Loaded { spec, diagnostics: diags, project, tree }
}

/// From the files to the typed project.
fn project(input: &mut LoadInput<'_>, tree: &mut Option<Node>, diags: &mut Diagnostics) -> Option<Project> {
    let environment = Environment::new(&input.env, variables(&input.dotenvs, &input.env, diags));
    if input.files.is_empty() {
        diags.push(
            Diagnostic::error(&Pos::whole(""), "there is no compose file").hint("name one with `-f FILE`"),
        );
        return None;
    }
    if input.files.len() > files::MAX_FILES {
        diags.push(
            Diagnostic::error(&Pos::whole(""), format!("there are {} compose files", input.files.len()))
                .expected(format!("at most {}", files::MAX_FILES)),
        );
        return None;
    }
    let roots: Vec<Node> =
        input.files.iter().filter_map(|file| tree::parse(&file.path, &file.text, diags)).collect();
    if roots.is_empty() {
        return None;
    }
    let name = name::find(input.project_name.as_deref(), &roots, &input.project_dir, &environment, diags);
    // With a mistake in the name the rest is read all the same.
    let name = name.unwrap_or_default();
    let scope = files::Scope {
        environment,
        directory: input.project_dir.clone(),
        way: input.files.iter().map(|file| file.absolute(&input.here)).collect(),
    };
    let mut root = files::Files::new(&input.here, &name, input.read, diags).assemble(&scope, roots)?;
    let active =
        if input.profiles.is_empty() { scope.environment.profiles() } else { input.profiles.clone() };
    let off = files::switch_profiles(&mut root, &active, &input.services, diags);
    let mut read_project = ReadProject {
        environment: &scope.environment,
        here: &input.here,
        project_dir: &input.project_dir,
        read: input.read,
        is_executable: input.is_executable,
        diags,
    };
    Some(read_project.read(root, &name, off, tree))
}

/// What the `.env` files say; a later one wins.
fn variables(
    dotenvs: &[SourceFile],
    env: &BTreeMap<String, String>,
    diags: &mut Diagnostics,
) -> BTreeMap<String, String> {
    let mut values: BTreeMap<String, String> = BTreeMap::new();
    for file in dotenvs {
        let lookup = |name: &str| env.get(name).cloned();
        dotenv::extend(&mut values, (&file.path, &file.text), dotenv::Format::Compose, &lookup, diags);
    }
    values
}

struct ReadProject<'a, 'r> {
    environment: &'a Environment<'a>,
    here: &'a str,
    project_dir: &'a str,
    read: &'a mut ReadFile<'r>,
    is_executable: fn(&str) -> bool,
    diags: &'a mut Diagnostics,
}

impl ReadProject<'_, '_> {
    /// `off` are the services that the files name but whose profiles aren't active.
    fn read(
        &mut self,
        mut root: Node,
        name: &str,
        off: BTreeSet<String>,
        tree: &mut Option<Node>,
    ) -> Project {
        let mut refusals = Diagnostics::default();
        support::check(&root, &mut refusals);
        let mut context =
            defaults::Context { name, here: self.here, environment: self.environment, read: &mut *self.read };
        defaults::fill(&mut root, &mut context, self.diags);
        *tree = (!self.diags.has_errors() && has_services(&root)).then(|| root.clone());
        for refusal in refusals.list() {
            self.diags.push(refusal.clone());
        }
        let mut project = Project {
            name: name.to_owned(),
            services: BTreeMap::new(),
            names: Vec::new(),
            keep: Keep::default(),
            limits: Limits::default(),
            notify: Notify::default(),
            trusted_proxies: vec![TrustedProxy::Loopback, TrustedProxy::Project],
            networks: BTreeMap::new(),
            volumes: BTreeMap::new(),
        };
        self.top(&root, &off, &mut project);
        // What needs one of them has been named already.
        project.names.extend(off);
        check::check(&mut project, self.diags);
        project
    }

    fn top(&mut self, root: &Node, off: &BTreeSet<String>, project: &mut Project) {
        read::entries(root, "", self.diags, |entry, _, diags| match entry.key.as_str() {
            "version" => diags.push(
                Diagnostic::warning(&entry.key_pos, "`version` says nothing any more and is ignored")
                    .hint("remove the line"),
            ),
            "x-bulsa" => {
                let top = bulsa::top(&entry.value, diags);
                project.keep = top.keep;
                project.limits = top.limits;
                project.notify = top.notify;
                if let Some(trusted) = top.trusted {
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
        if canonical::is_malformed(&entry.value) {
            return;
        }
        let services = read::mapping(&entry.value, "services", self.diags).unwrap_or_default();
        if services.is_empty() && !off.is_empty() {
            self.diags.push(
                Diagnostic::error(&entry.value.pos, "every service is off, because no profile is active")
                    .hint("activate one with `--profile` or COMPOSE_PROFILES, or name a service"),
            );
        } else if services.is_empty() && matches!(entry.value.kind, Kind::Mapping(_)) {
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
        let mut context = service::Context {
            environment: self.environment,
            project_dir: self.project_dir,
            read: &mut *self.read,
            is_executable: self.is_executable,
        };
        container::top::resolve(root, project, &mut context, self.diags);
    }

    fn service(&mut self, entry: &Entry, project: &mut Project) {
        if canonical::is_malformed(&entry.value) {
            return;
        }
        let mut context = service::Context {
            environment: self.environment,
            project_dir: self.project_dir,
            read: &mut *self.read,
            is_executable: self.is_executable,
        };
        let service = service::service(entry, &mut context, self.diags);
        project.services.insert(entry.key.clone(), service);
    }
}

fn has_services(root: &Node) -> bool {
    root.get("services").is_some_and(|services| !canonical::entries(services).is_empty())
}
