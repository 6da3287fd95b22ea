//! `bulsa config`: the resolved file, with `--json` in the shape of `docker compose config --format json`.
//!
//! Owns: printing it, also where only Bulsa couldn't run the project: it says what Compose understands, and remarks
//! what a deploy would refuse. Never: starts anything.

use bulsa_core::compose::config_json;
use clap::Args;
use serde_json::Value;

use super::{args::FileArgs, context::Context, project};
use crate::report::{CommandError, ExitCode};

/// Print the resolved compose file
#[derive(Debug, Args)]
pub(super) struct ConfigArgs {
    #[command(flatten)]
    files: FileArgs,
    /// Print the services' names only
    #[arg(long)]
    services: bool,
}

pub(super) fn run(args: ConfigArgs, context: &mut Context<'_>) -> Result<ExitCode, CommandError> {
    let files = args.files.over(&context.files);
    let resolved = config_json(&project::resolve(&files, context)?);
    if args.services {
        let services = resolved.get("services").and_then(Value::as_object);
        let names: Vec<&String> = services.into_iter().flat_map(|services| services.keys()).collect();
        context.printer.data(&names, |_| names.iter().map(|name| format!("{name}\n")).collect())?;
        return Ok(ExitCode::Done);
    }
    context.printer.data(&resolved, |_| {
        let mut text = String::new();
        yaml(&resolved, 0, &mut text);
        text
    })?;
    Ok(ExitCode::Done)
}

/// Writes `value` as block YAML. Strings are quoted as in JSON, which YAML reads alike; only plain words go bare.
fn yaml(value: &Value, depth: usize, out: &mut String) {
    let indent = "  ".repeat(depth);
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (key, value) in fields {
                *out += &format!("{indent}{}:", scalar(&Value::String(key.clone())));
                below(value, depth, out);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for item in items {
                *out += &format!("{indent}-");
                below(item, depth, out);
            }
        }
        other => *out += &format!("{indent}{}\n", scalar(other)),
    }
}

/// What stands behind a key or a dash: a scalar on the same line, the rest below it.
fn below(value: &Value, depth: usize, out: &mut String) {
    let nested = match value {
        Value::Object(fields) => !fields.is_empty(),
        Value::Array(items) => !items.is_empty(),
        _ => false,
    };
    if nested {
        out.push('\n');
        yaml(value, depth + 1, out);
    } else {
        *out += &format!(" {}\n", scalar(value));
    }
}

fn scalar(value: &Value) -> String {
    match value {
        Value::String(text) if is_plain(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Whether no YAML reader takes it for anything but this text.
fn is_plain(text: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '/' | '.');
    let special = ["true", "false", "yes", "no", "on", "off", "null", "y", "n"];
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/' || c == '_')
        && text.chars().all(word)
        && !special.contains(&text.to_ascii_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_resolved_file_is_yaml_that_reads_back_the_same() {
        let value = serde_json::json!({
            "name": "shop",
            "services": {"web": {
                "command": ["node", "server.js", "--port=1"],
                "environment": {"A": "true", "B": "1", "C": "two words", "D": null, "E": "a: b # c"},
                "ports": [{"target": 3000, "published": "8080"}],
                "depends_on": {},
            }},
        });
        let mut text = String::new();
        yaml(&value, 0, &mut text);
        insta::assert_snapshot!(text, @r#"
        name: shop
        services:
          web:
            command:
              - node
              - server.js
              - "--port=1"
            depends_on: {}
            environment:
              A: "true"
              B: "1"
              C: "two words"
              D: null
              E: "a: b # c"
            ports:
              -
                published: "8080"
                target: 3000
        "#);
    }
}
