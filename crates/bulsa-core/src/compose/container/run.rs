//! How the container runs beside its program: labels, logging, terminal, hooks.

use super::{
    super::{
        canonical,
        diagnostic::{Diagnostic, Diagnostics},
        model::Docker,
        read,
        tree::{Entry, Node},
    },
    values::{self, fields},
};
use crate::spec::container::{Hook, Logging};

pub(super) fn key(docker: &mut Docker, entry: &Entry, path: &str, diags: &mut Diagnostics) -> bool {
    let node = &entry.value;
    let container = &mut docker.container;
    match entry.key.as_str() {
        "annotations" => container.annotations = values::pairs(node, path, diags),
        "init" => container.init = read::boolean(node, path, diags),
        "tty" => container.tty = read::boolean(node, path, diags).unwrap_or(false),
        "stdin_open" => container.stdin_open = read::boolean(node, path, diags).unwrap_or(false),
        "logging" => container.logging = Some(logging(node, path, diags)),
        "runtime" => container.runtime = values::word(node, path, diags),
        "shm_size" => container.shm_size = values::bytes(node, path, false, diags),
        "storage_opt" => container.storage_options = values::pairs(node, path, diags),
        "post_start" => container.post_start = hooks(node, path, diags),
        "pre_stop" => container.pre_stop = hooks(node, path, diags),
        "attach" => note(docker, "`attach` is about what `docker compose up` shows; use `bulsa logs`"),
        "develop" => note(docker, "`develop` is what `bulsa up --watch` goes by, and changes nothing else"),
        "labels" | "label_file" => {}
        _ => return false,
    }
    true
}

fn note(docker: &mut Docker, text: &str) {
    docker.container.notes.push(text.to_owned());
}

/// What the labels begin with that Bulsa gives.
const OWN_LABELS: &str = "bulsa.";

/// The labels, each with its place: the file that it comes from, or the line.
pub(super) fn labels(docker: &mut Docker, service: &Node, path: &str, diags: &mut Diagnostics) {
    let Some(entry) = service.entry("labels") else { return };
    docker.container.labels = values::pairs(&entry.value, &format!("{path}.labels"), diags);
    for entry in canonical::entries(&entry.value) {
        if entry.key.starts_with(OWN_LABELS) {
            diags.push(
                Diagnostic::error(
                    &entry.key_pos,
                    format!(
                        "{path}.labels has `{}`: Bulsa knows its own containers by such labels",
                        entry.key
                    ),
                )
                .expected("a label that doesn't begin with `bulsa.`"),
            );
        }
        docker.at.labels.insert(entry.key.clone(), entry.key_pos.clone());
    }
}

fn logging(node: &Node, path: &str, diags: &mut Diagnostics) -> Logging {
    let mut it = Logging::default();
    fields(node, path, diags, |entry, path, diags| match entry.key.as_str() {
        "driver" => it.driver = values::word(&entry.value, path, diags),
        _ => it.options = values::pairs(&entry.value, path, diags),
    });
    it
}

fn hooks(node: &Node, path: &str, diags: &mut Diagnostics) -> Vec<Hook> {
    let mut hooks = Vec::new();
    for (item, path) in values::items(node, path, diags) {
        match hook(item, &path, diags) {
            Some(it) => hooks.push(it),
            None => diags.push(
                Diagnostic::error(&item.pos, format!("{path} has no `command`"))
                    .expected("command: [PROGRAM, …]"),
            ),
        }
    }
    hooks
}

/// A command that runs in a container; `None` where there is none.
pub(in crate::compose) fn hook(item: &Node, path: &str, diags: &mut Diagnostics) -> Option<Hook> {
    let mut it = Hook::default();
    fields(item, path, diags, |entry, path, diags| {
        let node = &entry.value;
        match entry.key.as_str() {
            "command" => {
                it.command = super::super::service::words_of(node, path, diags).unwrap_or_default();
            }
            "user" => it.user = values::word(node, path, diags),
            "privileged" => it.privileged = read::boolean(node, path, diags).unwrap_or(false),
            "working_dir" => it.working_dir = values::word(node, path, diags),
            _ => it.environment = values::pairs(node, path, diags),
        }
    });
    (!it.command.is_empty()).then_some(it)
}
