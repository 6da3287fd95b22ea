//! `healthcheck`.

use std::time::Duration;

use super::super::{
    diagnostic::{Diagnostic, Diagnostics},
    duration::{self, Bounds},
    model::Healthcheck,
    read,
    tree::Node,
};

/// More retries than this say that failures don't matter.
const MAX_RETRIES: u32 = 1000;

pub(super) fn read(node: &Node, path: &str, diags: &mut Diagnostics) -> Healthcheck {
    let mut check = Healthcheck::default();
    read::entries(node, path, diags, |entry, path, diags| {
        let node = &entry.value;
        match entry.key.as_str() {
            "test" => {
                check.test = test(node, path, diags);
                check.test_pos = Some(node.pos.clone());
            }
            "interval" => check.interval = time(node, path, duration::PROBE, diags),
            "timeout" => check.timeout = time(node, path, duration::PROBE, diags),
            "start_interval" => check.start_interval = time(node, path, duration::PROBE, diags),
            "start_period" => check.start_period = time(node, path, duration::WAIT, diags),
            "retries" => check.retries = read::number(node, path, 0..=MAX_RETRIES, diags),
            "disable" => check.disable = read::boolean(node, path, diags),
            _ => {}
        }
    });
    check
}

/// Zero is allowed, and means the default as in Docker.
fn time(node: &Node, path: &str, bounds: Bounds, diags: &mut Diagnostics) -> Option<Duration> {
    let with_zero = Bounds { min: Duration::ZERO, ..bounds };
    let found = read::duration(node, path, with_zero, diags)?;
    if !found.is_zero() && found < bounds.min {
        diags.push(
            Diagnostic::error(&node.pos, format!("{path} is {}", duration::format(found)))
                .expected(format!("at least {}", duration::format(bounds.min))),
        );
        return None;
    }
    Some(found)
}

fn test(node: &Node, path: &str, diags: &mut Diagnostics) -> Option<Vec<String>> {
    let words = read::texts(node, path, diags)?;
    let mistake = match words.first().map(String::as_str) {
        Some("NONE") => return Some(words),
        Some("CMD") if words.get(1).is_some_and(|program| !program.is_empty()) => return Some(words),
        Some("CMD-SHELL") if words.len() == 2 => return Some(words),
        Some("CMD-SHELL") if words.len() > 2 => {
            diags.push(
                Diagnostic::warning(
                    &node.pos,
                    format!(
                        "{path}: the shell runs {:?} alone; the words after it are its $0, $1, …",
                        words[1]
                    ),
                )
                .hint("write the whole command as one text"),
            );
            return Some(words);
        }
        Some("CMD") => "names no program after \"CMD\"",
        Some("CMD-SHELL") => "needs a text after \"CMD-SHELL\"",
        _ => "starts with none of the words that say what it is",
    };
    diags.push(Diagnostic::error(&node.pos, format!("{path} {mistake}")).expected(
        "a text for the shell, [\"CMD\", PROGRAM, ARGUMENT, …], [\"CMD-SHELL\", TEXT] or [\"NONE\"]",
    ));
    None
}
