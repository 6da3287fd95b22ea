//! Relative paths become absolute ones: a value may end up in a project of another directory.
//!
//! Owns: which values are paths of this host (in their canonical forms), as in Docker Compose 2.40: a relative one is
//! cleaned on its way, an absolute one stays as it was written. Never: asks whether they are there.

use super::{
    super::{
        canonical::{self, child_mut, entries_mut as entries, text_of as text},
        environment::Environment,
        scalar::Value,
        tree::{Kind, Node},
    },
    Scope,
};

/// Resolves every path of a scope's merged tree. Who builds and says nothing else builds from the scope's directory.
pub(super) fn resolve(root: &mut Node, scope: &Scope<'_>) {
    for service in canonical::child_mut(root, "services").map(canonical::entries_mut).unwrap_or_default() {
        if let Some(build) = canonical::child_mut(&mut service.value, "build")
            && build.get("context").is_none_or(canonical::is_null)
        {
            let here = canonical::text(".", &build.pos);
            canonical::set(build, "context", here);
        }
    }
    resolve_in(root, &scope.directory, &scope.environment);
}

/// Resolves every path of a tree; `~` is the home directory.
pub(super) fn resolve_in(root: &mut Node, directory: &str, environment: &Environment<'_>) {
    let base = Base { directory, environment };
    for top in entries(root) {
        match top.key.as_str() {
            "services" => {
                entries(&mut top.value).iter_mut().for_each(|service| base.service(&mut service.value));
            }
            "configs" | "secrets" => {
                for resource in entries(&mut top.value) {
                    base.under(&mut resource.value, "file");
                }
            }
            "volumes" => {
                entries(&mut top.value).iter_mut().for_each(|volume| base.driver_options(&mut volume.value));
            }
            _ => {}
        }
    }
}

struct Base<'a> {
    directory: &'a str,
    environment: &'a Environment<'a>,
}

impl Base<'_> {
    fn service(&self, service: &mut Node) {
        for key in entries(service) {
            let node = &mut key.value;
            match key.key.as_str() {
                "build" => self.build(node),
                "env_file" => self.each(node, |base, item| {
                    if let Some(path) = child_mut(item, "path") {
                        base.path(path);
                    }
                }),
                "label_file" => self.each(node, Self::path),
                "develop" => {
                    if let Some(watch) = child_mut(node, "watch") {
                        self.each(watch, |base, rule| {
                            if let Some(path) = child_mut(rule, "path") {
                                base.path(path);
                            }
                        });
                    }
                }
                "volumes" => self.each(node, |base, mount| {
                    if text(mount, "type") == Some("bind") {
                        base.under(mount, "source");
                    }
                }),
                "x-bulsa" => {
                    if let Some(page) = child_mut(node, "hold").and_then(|hold| child_mut(hold, "page")) {
                        self.path(page);
                    }
                }
                _ => {}
            }
        }
    }

    fn build(&self, node: &mut Node) {
        for entry in entries(node) {
            match entry.key.as_str() {
                "context" => self.context(&mut entry.value),
                "additional_contexts" => {
                    entries(&mut entry.value).iter_mut().for_each(|context| self.context(&mut context.value));
                }
                "ssh" => entries(&mut entry.value).iter_mut().for_each(|key| self.host_path(&mut key.value)),
                _ => {}
            }
        }
    }

    /// A place in the network, an image or another service stays as it is.
    fn context(&self, node: &mut Node) {
        let elsewhere = |text: &str| {
            text.contains("://")
                || ["service:", "github.com/", "git@"].iter().any(|prefix| text.starts_with(prefix))
        };
        if node.scalar().is_some_and(|scalar| !elsewhere(&scalar.value)) {
            self.path(node);
        }
    }

    /// A volume of the local driver that is a bind mount in disguise.
    fn driver_options(&self, volume: &mut Node) {
        if text(volume, "driver") != Some("local") {
            return;
        }
        if let Some(options) = child_mut(volume, "driver_opts")
            && text(options, "o") == Some("bind")
        {
            self.under(options, "device");
        }
    }

    fn each(&self, node: &mut Node, what: impl Fn(&Self, &mut Node)) {
        canonical::items_mut(node).iter_mut().for_each(|item| what(self, item));
    }

    fn under(&self, node: &mut Node, key: &str) {
        if let Some(path) = child_mut(node, key) {
            self.host_path(path);
        }
    }

    /// A path of this host; where it is empty it is the directory itself.
    fn host_path(&self, node: &mut Node) {
        if let Kind::Scalar(scalar) = &mut node.kind
            && scalar.resolve() != Value::Null
            && !is_windows(&scalar.value)
        {
            scalar.value = self.environment.absolute(self.directory, &scalar.value);
        }
    }

    /// A path that may be empty, which says nothing.
    fn path(&self, node: &mut Node) {
        if node.scalar().is_some_and(|scalar| !scalar.value.is_empty()) {
            self.host_path(node);
        }
    }
}

/// What only Windows takes for absolute, Compose leaves alone everywhere.
fn is_windows(path: &str) -> bool {
    let mut chars = path.chars();
    let drive = chars.next().is_some_and(|c| c.is_ascii_alphabetic())
        && chars.next() == Some(':')
        && matches!(chars.next(), Some('\\' | '/'));
    drive || path.starts_with("\\\\")
}
