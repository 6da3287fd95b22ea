//! How the container runs beside its program: labels, logging, terminal, hooks.

use super::{
    super::{
        diagnostic::{Diagnostic, Diagnostics},
        dotenv,
        model::Docker,
        paths, read,
        service::Context,
        tree::{Entry, Kind, Node},
    },
    values::{self, fields},
};
use crate::spec::container::{Hook, Logging};

const LOGGING: &[&str] = &["driver", "options"];
const HOOK: &[&str] = &["command", "environment", "privileged", "user", "working_dir"];

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
        "develop" => note(docker, "`develop` is for `docker compose watch`, and changes nothing here"),
        "labels" | "label_file" => {}
        _ => return false,
    }
    true
}

fn note(docker: &mut Docker, text: &str) {
    docker.container.notes.push(text.to_owned());
}

/// `labels` over `label_file`, as in Compose.
pub(super) fn labels(
    docker: &mut Docker,
    service: &Node,
    path: &str,
    context: &mut Context<'_, '_>,
    diags: &mut Diagnostics,
) {
    if let Some(node) = service.get("label_file").filter(|node| !values::is_null(node)) {
        for file in values::words(node, &format!("{path}.label_file"), diags) {
            let full = paths::join(context.project_dir, &file);
            match (context.read)(&full) {
                Ok(text) => {
                    let environment = context.environment;
                    let lookup = |name: &str| environment.get(name).map(str::to_owned);
                    let found = dotenv::parse(&file, &text, dotenv::Format::Compose, &lookup, diags);
                    for name in found.keys() {
                        docker.at.labels.insert(name.clone(), node.pos.clone());
                    }
                    docker.container.labels.extend(found);
                }
                Err(error) => diags.push(
                    Diagnostic::error(&node.pos, format!("{path}.label_file: can't read {full}: {error}"))
                        .hint("create the file, or remove the key"),
                ),
            }
        }
    }
    let Some(entry) = service.entry("labels") else { return };
    for (name, value) in values::pairs(&entry.value, &format!("{path}.labels"), diags) {
        docker.at.labels.insert(name.clone(), entry.key_pos.clone());
        docker.container.labels.insert(name, value);
    }
    match &entry.value.kind {
        Kind::Mapping(entries) => {
            for entry in entries {
                docker.at.labels.insert(entry.key.clone(), entry.key_pos.clone());
            }
        }
        Kind::Sequence(items) => {
            for item in items {
                if let Some(text) = item.scalar() {
                    let name = text.value.split('=').next().unwrap_or_default();
                    docker.at.labels.insert(name.to_owned(), item.pos.clone());
                }
            }
        }
        Kind::Scalar(_) => {}
    }
}

fn logging(node: &Node, path: &str, diags: &mut Diagnostics) -> Logging {
    let mut it = Logging::default();
    fields(node, path, LOGGING, diags, |entry, path, diags| match entry.key.as_str() {
        "driver" => it.driver = values::word(&entry.value, path, diags),
        _ => it.options = values::pairs(&entry.value, path, diags),
    });
    it
}

fn hooks(node: &Node, path: &str, diags: &mut Diagnostics) -> Vec<Hook> {
    let mut hooks = Vec::new();
    for (item, path) in values::items(node, path, diags) {
        let mut it = Hook::default();
        fields(item, &path, HOOK, diags, |entry, path, diags| {
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
        if it.command.is_empty() {
            diags.push(
                Diagnostic::error(&item.pos, format!("{path} has no `command`"))
                    .expected("command: [PROGRAM, …]"),
            );
            continue;
        }
        hooks.push(it);
    }
    hooks
}
