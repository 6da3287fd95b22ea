//! What Compose fills in after all files are merged, on the canonical tree.
//!
//! Owns: [`fill`]. After it the tree says what `docker compose config` prints: names with the project's before them, the
//! `default` network, dependencies that follow from links and shared namespaces, `env_file` and `label_file` folded into what they are for, resources that nobody uses left out, and no key that says nothing. What
//! can't be so is a mistake at its place ([`consistency`]). A service without image and build runs on the process
//! engine: it has no networks, where Compose would refuse it.
//!
//! Never: opens a file or reads the environment (the caller passes both in), or knows what Bulsa supports.

mod consistency;
mod environment;
mod prune;
mod resources;
mod services;

use super::{
    canonical,
    diagnostic::Diagnostics,
    environment::Environment,
    keys::{self, Shape},
    service::ReadFile,
    tree::Node,
};

/// What filling in needs beside the tree.
pub(super) struct Context<'a, 'r> {
    /// The project's name.
    pub(super) name: &'a str,
    /// The directory that messages see files from.
    pub(super) here: &'a str,
    /// The variables that `environment` and `args` may take over.
    pub(super) environment: &'a Environment<'a>,
    /// Gives the text of an `env_file` or `label_file`.
    pub(super) read: &'a mut ReadFile<'r>,
}

impl Context<'_, '_> {
    fn variable(&self, name: &str) -> Option<String> {
        self.environment.lookup(self.name, name)
    }
}

/// Fills in the merged tree.
pub(super) fn fill(root: &mut Node, context: &mut Context<'_, '_>, diags: &mut Diagnostics) {
    canonical::unique(root);
    let pos = root.pos.clone();
    canonical::set(root, "name", canonical::text(context.name, &pos));
    if let Some(services) = canonical::child_mut(root, "services") {
        for entry in canonical::entries_mut(services) {
            let path = format!("services.{}", entry.key);
            environment::fold(&mut entry.value, &path, context, diags);
            services::fill(&mut entry.value);
            consistency::image(&mut entry.value, &path, diags);
        }
    }
    resources::networks(root);
    resources::names(root, context.name);
    consistency::check(root, diags);
    resources::drop_unused(root);
    prune::prune(root, &Shape::Object(&keys::TOP));
}
