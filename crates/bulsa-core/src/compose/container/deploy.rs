//! `deploy`, beyond the number of replicas: made for Swarm, and mapped to what one Engine and Bulsa do.

use super::{
    super::{
        diagnostic::{Diagnostic, Diagnostics},
        duration,
        model::{Docker, Update},
        read,
        tree::{Entry, Kind, Node},
    },
    resources,
    values::{self, fields},
};
use crate::spec::Restart;

/// More replicas than anybody has.
const MAX_PARALLELISM: i64 = 100_000;
/// More than this in a row says always.
const MAX_ATTEMPTS: i64 = 1_000_000;

/// Reads `deploy` of a service that has a container; `replicas` is read elsewhere.
pub(in crate::compose) fn deploy(docker: &mut Docker, service: &Node, path: &str, diags: &mut Diagnostics) {
    let Some(Kind::Mapping(entries)) = service.get("deploy").map(|node| &node.kind) else { return };
    for entry in entries.iter().filter(|entry| !says_nothing(&entry.value)) {
        key(docker, entry, &format!("{path}.deploy.{}", entry.key), diags);
    }
}

/// Compose prints `resources: {}` and `placement: {}` beside whatever else `deploy` says.
fn says_nothing(node: &Node) -> bool {
    values::is_null(node) || matches!(&node.kind, Kind::Mapping(entries) if entries.is_empty())
}

fn key(docker: &mut Docker, entry: &Entry, path: &str, diags: &mut Diagnostics) {
    let node = &entry.value;
    let mut note = |text: &str| docker.container.notes.push(text.to_owned());
    match entry.key.as_str() {
        "resources" => resources::deploy(docker, node, path, diags),
        "restart_policy" => restart_policy(docker, node, path, diags),
        "update_config" => update_config(docker, node, path, diags),
        "mode" => match read::text(node, path, diags) {
            Some("global") => note("`deploy.mode: global` is one set of replicas here: there is one host"),
            Some("replicated") | None => {}
            Some(job @ ("replicated-job" | "global-job")) => diags.push(
                Diagnostic::error(&node.pos, format!("{path}: `{job}` needs Swarm"))
                    .hint("say `x-bulsa: {role: job}`, or let another service wait for `service_completed_successfully`"),
            ),
            Some(other) => diags.push(
                Diagnostic::error(&node.pos, format!("{path}: {other:?} is unknown"))
                    .expected("`replicated` or `global`"),
            ),
        },
        "placement" => note("`deploy.placement` chooses among hosts, and there is one"),
        "endpoint_mode" => note("`deploy.endpoint_mode` means something in a Swarm only"),
        "labels" => note("`deploy.labels` are a Swarm service's; no container gets them"),
        "rollback_config" => {
            note("`deploy.rollback_config` isn't used: a rollback goes as the release that it goes back to was deployed");
        }
        _ => {}
    }
}

/// As Compose maps it for a single Engine; the pauses between are Bulsa's own back-off.
fn restart_policy(docker: &mut Docker, node: &Node, path: &str, diags: &mut Diagnostics) {
    let (mut condition, mut attempts, mut timing) = ("any", None, false);
    fields(node, path, diags, |entry, path, diags| {
        let node = &entry.value;
        match entry.key.as_str() {
            "condition" => {
                let names = [
                    ("none", "none"),
                    ("no", "none"),
                    ("on-failure", "on-failure"),
                    ("any", "any"),
                    ("always", "any"),
                    ("unless-stopped", "unless-stopped"),
                ];
                condition = read::choice(node, path, &names, &[], diags).unwrap_or(condition);
            }
            "max_attempts" => {
                attempts = values::integer(node, path, (0, MAX_ATTEMPTS), diags)
                    .and_then(|n| u32::try_from(n).ok())
                    .filter(|n| *n > 0);
            }
            _ => timing = true,
        }
    });
    docker.restart_policy = Some(match condition {
        "none" => ("no".to_owned(), Restart::No),
        "on-failure" => {
            let words = attempts.map_or("on-failure".to_owned(), |n| format!("on-failure:{n}"));
            (words, Restart::OnFailure(attempts))
        }
        "unless-stopped" => ("unless-stopped".to_owned(), Restart::Always),
        _ => ("always".to_owned(), Restart::Always),
    });
    if timing {
        docker.container.notes.push(
            "`delay` and `window` of `deploy.restart_policy` aren't used: Bulsa waits longer the more often a replica dies"
                .to_owned(),
        );
    }
}

fn update_config(docker: &mut Docker, node: &Node, path: &str, diags: &mut Diagnostics) {
    let (mut unused, mut update): (Vec<String>, Update) = Default::default();
    fields(node, path, diags, |entry, path, diags| {
        let node = &entry.value;
        match entry.key.as_str() {
            "order" => {
                let names = [("stop-first", true), ("start-first", false)];
                update.stop_first = read::choice(node, path, &names, &[], diags);
            }
            "parallelism" => {
                let read = values::integer(node, path, (0, MAX_PARALLELISM), diags);
                update.parallelism = read.and_then(|n| u32::try_from(n).ok());
            }
            "delay" => update.delay = read::duration(node, path, duration::WAIT, diags),
            "failure_action" => match read::text(node, path, diags) {
                Some("rollback") | None => {}
                Some(other) => docker.container.notes.push(format!(
                    "`deploy.update_config.failure_action: {other}` isn't kept: a bad release is always rolled back"
                )),
            },
            key => unused.push(format!("`{key}`")),
        }
    });
    docker.update = Some(update);
    if !unused.is_empty() {
        docker.container.notes.push(format!(
            "{} of `deploy.update_config` aren't used: `x-bulsa.bake` says how a release is watched",
            unused.join(", ")
        ));
    }
}
