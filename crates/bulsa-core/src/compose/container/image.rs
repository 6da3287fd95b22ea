//! `image`, `build`, `pull_policy`, `platform`, `container_name`.

use super::{
    super::{
        diagnostic::{Diagnostic, Diagnostics},
        duration,
        model::Docker,
        read,
        service::Context,
        tree::{Entry, Node},
    },
    build, values,
};
use crate::spec::container::PullPolicy;

pub(super) fn key(
    docker: &mut Docker,
    entry: &Entry,
    path: &str,
    context: &mut Context<'_, '_>,
    diags: &mut Diagnostics,
) -> bool {
    let node = &entry.value;
    match entry.key.as_str() {
        "image" => {
            docker.at.image = Some(node.pos.clone());
            docker.container.image = image(node, path, diags).unwrap_or_default();
        }
        "build" => {
            docker.at.image.get_or_insert_with(|| entry.key_pos.clone());
            docker.container.build = build::read(docker, node, path, context, diags);
        }
        "pull_policy" => docker.container.pull_policy = pull_policy(node, path, diags).unwrap_or_default(),
        "pull_refresh_after" => {
            let found = read::duration(node, path, duration::KEEP, diags);
            if let Some(found) = found {
                docker.container.pull_policy = PullPolicy::Older(found.as_secs());
            }
        }
        "platform" => docker.container.platform = values::word(node, path, diags),
        "container_name" => {
            docker.at.container_name = Some(node.pos.clone());
            docker.container.container_name = container_name(node, path, diags);
        }
        _ => return false,
    }
    true
}

fn image(node: &Node, path: &str, diags: &mut Diagnostics) -> Option<String> {
    let text = read::text(node, path, diags)?;
    let good = !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic());
    if !good {
        diags.push(
            Diagnostic::error(&node.pos, format!("{path}: {text:?} is no image"))
                .expected("a name such as redis:7 or registry.example/shop@sha256:…"),
        );
    }
    good.then(|| text.to_owned())
}

/// What Docker accepts: `[a-zA-Z0-9][a-zA-Z0-9_.-]+`.
fn container_name(node: &Node, path: &str, diags: &mut Diagnostics) -> Option<String> {
    let text = read::text(node, path, diags)?;
    let letter = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    let good =
        text.len() > 1 && text.bytes().all(letter) && text.starts_with(|c: char| c.is_ascii_alphanumeric());
    if !good {
        diags.push(
            Diagnostic::error(&node.pos, format!("{path}: {text:?} can't be a container's name"))
                .expected("two or more letters, digits, `_`, `.` and `-`, starting with a letter or digit"),
        );
    }
    good.then(|| text.to_owned())
}

fn pull_policy(node: &Node, path: &str, diags: &mut Diagnostics) -> Option<PullPolicy> {
    const DAY: u64 = 24 * 3600;
    let text = read::text(node, path, diags)?;
    let found = match text {
        "always" => Some(PullPolicy::Always),
        "missing" | "if_not_present" => Some(PullPolicy::Missing),
        "never" => Some(PullPolicy::Never),
        "build" => Some(PullPolicy::Build),
        "daily" => Some(PullPolicy::Older(DAY)),
        "weekly" => Some(PullPolicy::Older(7 * DAY)),
        // With Bulsa what is old is what is older than nothing.
        "refresh" => Some(PullPolicy::Always),
        _ => text
            .strip_prefix("every_")
            .and_then(|every| duration::parse(every).ok())
            .map(|every| PullPolicy::Older(every.as_secs())),
    };
    if found.is_none() {
        let names = ["always", "missing", "if_not_present", "never", "build", "daily", "weekly"];
        diags.push(
            Diagnostic::error(&node.pos, format!("{path}: {text:?} is no pull policy"))
                .expected("`always`, `missing`, `never`, `build`, `daily`, `weekly` or `every_DURATION`")
                .nearest(text, names),
        );
    }
    found
}
