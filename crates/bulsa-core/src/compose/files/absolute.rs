//! Relative paths become absolute ones: a value may end up in a project of another directory.
//!
//! Owns: which values are paths of this host (in their canonical forms), as in Docker Compose 2.40. Never: asks whether
//! they are there.

use super::{
    super::{
        environment::Environment,
        paths,
        tree::{Entry, Kind, Node, Style},
    },
    Scope,
};

/// Resolves every path of a scope's merged tree.
pub(super) fn resolve(root: &mut Node, scope: &Scope<'_>) {
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
                "env_file" => self.each(node, |base, item| match item.kind {
                    Kind::Mapping(_) => base.under(item, "path"),
                    _ => base.path(item),
                }),
                "label_file" => self.each(node, Self::path),
                "develop" => {
                    if let Some(watch) = get_mut(node, "watch") {
                        self.each(watch, |base, rule| base.under(rule, "path"));
                    }
                }
                "volumes" => self.each(node, |base, mount| {
                    if text(mount, "type") == Some("bind") {
                        base.under(mount, "source");
                    }
                }),
                _ => {}
            }
        }
    }

    fn build(&self, node: &mut Node) {
        if matches!(node.kind, Kind::Scalar(_)) {
            return self.context(node);
        }
        for entry in entries(node) {
            match entry.key.as_str() {
                "context" => self.context(&mut entry.value),
                "additional_contexts" => {
                    entries(&mut entry.value).iter_mut().for_each(|context| self.context(&mut context.value));
                }
                "ssh" => entries(&mut entry.value).iter_mut().for_each(|key| self.path(&mut key.value)),
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
        if let Some(options) = get_mut(volume, "driver_opts")
            && text(options, "o") == Some("bind")
        {
            self.under(options, "device");
        }
    }

    fn each(&self, node: &mut Node, what: impl Fn(&Self, &mut Node)) {
        match &mut node.kind {
            Kind::Sequence(items) => items.iter_mut().for_each(|item| what(self, item)),
            Kind::Scalar(_) => what(self, node),
            Kind::Mapping(_) => {}
        }
    }

    fn under(&self, node: &mut Node, key: &str) {
        if let Some(path) = get_mut(node, key) {
            self.path(path);
        }
    }

    fn path(&self, node: &mut Node) {
        if let Kind::Scalar(scalar) = &mut node.kind
            && !scalar.value.is_empty()
            // Nothing, a number or a truth value is no path: a mistake that is named later.
            && (scalar.style != Style::Plain || matches!(scalar.resolve(), super::super::scalar::Value::Text(_)))
        {
            scalar.value = paths::join(self.directory, &self.environment.at_home(&scalar.value));
        }
    }
}

fn entries(node: &mut Node) -> &mut [Entry] {
    match &mut node.kind {
        Kind::Mapping(entries) => entries,
        _ => &mut [],
    }
}

fn get_mut<'n>(node: &'n mut Node, key: &str) -> Option<&'n mut Node> {
    entries(node).iter_mut().find(|entry| entry.key == key).map(|entry| &mut entry.value)
}

fn text<'n>(node: &'n Node, key: &str) -> Option<&'n str> {
    Some(node.get(key)?.scalar()?.value.as_str())
}
