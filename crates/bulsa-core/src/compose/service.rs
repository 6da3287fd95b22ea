//! `services.*`: from the tree to the typed [`Service`].
//!
//! Owns: what each key of a service may be. Never: looks at another service (that is [`super::check`]) or fills in a
//! default (that is [`super::normalise`]).

mod healthcheck;
mod limits;
mod ports;
mod signals;

use std::collections::BTreeMap;

use super::{
    bulsa, canonical, container,
    diagnostic::{Diagnostic, Diagnostics, nearest},
    duration,
    environment::Environment,
    keys, read,
    tree::{Entry, Kind, Node},
    words,
};
use crate::spec;

pub(super) use super::model::{Dependency, Deploy, Service};
pub(crate) use signals::number as signal_number;

/// At most this many replicas of one service.
pub const MAX_REPLICAS: u32 = 256;

/// Why a file that a service names can't be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// There is none; fine for an `env_file` that isn't required.
    #[error("there is no such file")]
    NotFound,
    /// It is there and holds no text: fine for a secret or a config, and this is what is in it.
    #[error("it doesn't hold text (UTF-8)")]
    NotText(Vec<u8>),
    /// Anything else, as a sentence.
    #[error("{0}")]
    Other(String),
}

/// Gives the text of a file by its path; the core itself opens none.
pub type ReadFile<'a> = dyn FnMut(&str) -> Result<String, ReadError> + 'a;

/// What a service is read with.
pub(super) struct Context<'a, 'r> {
    pub(super) environment: &'a Environment<'a>,
    pub(super) project_dir: &'a str,
    pub(super) read: &'a mut ReadFile<'r>,
    pub(super) is_executable: fn(&str) -> bool,
}

/// Reads one service; mistakes go to `diags` and leave their key out.
pub(super) fn service(entry: &Entry, context: &mut Context<'_, '_>, diags: &mut Diagnostics) -> Service {
    let path = format!("services.{}", entry.key);
    let mut service = Service::new(&entry.key, &entry.key_pos);
    let node = &entry.value;
    let docker = container::is_docker(node);
    read::entries(node, &path, diags, |entry, path, diags| key(&mut service, entry, path, docker, diags));
    bulsa::page(&mut service, context, diags);
    if docker {
        let mut found = container::read(node, &path, context, diags);
        container::deploy(&mut found, node, &path, diags);
        container::implied(&mut service, &found);
        service.docker = Some(Box::new(found));
    } else {
        service.resources = limits::read(node, &path, diags);
    }
    if let (Some(scale), Some(replicas)) =
        (service.scale, service.deploy.as_ref().and_then(|deploy| deploy.replicas))
        && scale != replicas
        && let Some(entry) = node.entry("scale")
    {
        diags.push(
            Diagnostic::error(
                &entry.value.pos,
                format!("{path}: `scale` is {scale} but `deploy.replicas` is {replicas}"),
            )
            .hint("keep one of the two"),
        );
    }
    command_given(&service, node, &path, diags);
    service
}

fn key(service: &mut Service, entry: &Entry, path: &str, docker: bool, diags: &mut Diagnostics) {
    let node = &entry.value;
    match entry.key.as_str() {
        "command" => service.command = words_of(node, path, diags),
        "entrypoint" => service.entrypoint = words_of(node, path, diags),
        "environment" => service.environment = environment(node),
        "working_dir" => service.working_dir = nonempty(node, path, diags),
        "user" => service.user = user(node, path, docker, diags),
        "ports" => service.ports = ports::read(node, path, docker, diags),
        "healthcheck" => service.healthcheck = Some(healthcheck::read(node, path, diags)),
        "deploy" => service.deploy = Some(deploy(service, node, path, diags)),
        "scale" => {
            service.scale = read::number(node, path, 0..=MAX_REPLICAS, diags);
            service.replicas_pos = Some(node.pos.clone());
        }
        "depends_on" => depends_on(service, node, path, diags),
        "stop_signal" => {
            service.stop_signal = read::text(node, path, diags).and_then(|name| {
                let number = signals::number(name);
                if number.is_none() {
                    diags.push(signals::unknown(node, path, name));
                }
                number.map(|number| (name.to_owned(), number))
            });
        }
        "stop_grace_period" => service.stop_grace_period = read::duration(node, path, duration::WAIT, diags),
        "restart" => service.restart = restart(node, path, diags),
        "x-bulsa" => service.bulsa = bulsa::service(node, path, diags),
        // Containers only.
        _ => {}
    }
}

/// Nothing, or a list.
pub(super) fn words_of(node: &Node, path: &str, diags: &mut Diagnostics) -> Option<Vec<String>> {
    if canonical::is_null(node) { None } else { read::texts(node, path, diags) }
}

/// Every value is a text, or nothing where the variable has none anywhere.
fn environment(node: &Node) -> BTreeMap<String, Option<String>> {
    let value = |node: &Node| node.scalar().and_then(|scalar| scalar.resolve().into_text());
    canonical::entries(node).iter().map(|entry| (entry.key.clone(), value(&entry.value))).collect()
}

/// Splits a command that is written as one text.
pub(super) fn split_command(node: &Node, path: &str, diags: &mut Diagnostics) -> Option<Vec<String>> {
    let text = read::text(node, path, diags)?;
    words::split(text)
        .map_err(|error| {
            let mistake = Diagnostic::error(&node.pos, format!("{path} can't be split into words: {error}"));
            diags.push(match error {
                words::WordsError::ShellOperator(_) => mistake.hint(format!(
                    "start a shell: {}: [\"/bin/sh\", \"-c\", \"…\"]",
                    path.rsplit('.').next().unwrap_or(path)
                )),
                _ => mistake,
            });
        })
        .ok()
}

/// The process engine can't ask an image what to run.
fn command_given(service: &Service, node: &Node, path: &str, diags: &mut Diagnostics) {
    let Kind::Mapping(entries) = &node.kind else { return };
    let misspelled = |entry: &Entry| {
        let key = entry.key.as_str();
        let known = keys::SERVICE.names().any(|name| name == key) || key.starts_with("x-");
        !known && matches!(nearest(key, keys::SERVICE.names()), Some("command" | "entrypoint"))
    };
    let docker = |entry: &Entry| matches!(entry.key.as_str(), "image" | "build" | "extends");
    let broken = |key: &str| node.get(key).is_some_and(canonical::is_malformed);
    // What is missing then has been named already.
    if entries.iter().any(|entry| docker(entry) || misspelled(entry))
        || broken("command")
        || broken("entrypoint")
    {
        return;
    }
    let mut words = service.entrypoint.iter().chain(&service.command).flatten();
    let mistake = match words.next().map(String::as_str) {
        Some("") => "the program's name is empty",
        Some(_) => return,
        None => "there is no command to run",
    };
    diags.push(
        Diagnostic::error(&service.pos, format!("{path}: {mistake}"))
            .expected("`command`, `entrypoint` or both")
            .hint("for example: command: [\"node\", \"server.js\"]"),
    );
}

fn nonempty(node: &Node, path: &str, diags: &mut Diagnostics) -> Option<String> {
    let text = read::text(node, path, diags)?;
    if text.is_empty() {
        diags.push(Diagnostic::error(&node.pos, format!("{path} is empty")));
        return None;
    }
    Some(text.to_owned())
}

fn user(node: &Node, path: &str, docker: bool, diags: &mut Diagnostics) -> Option<String> {
    let text = nonempty(node, path, diags)?;
    if docker && text == ":" {
        // `${UID}:${GID}`, which a shell knows and doesn't export.
        diags.push(
            Diagnostic::warning(&node.pos, format!("{path} is \":\", which is root to the Engine"))
                .hint("set both variables in `.env`, or write the numbers"),
        );
        return Some(text);
    }
    let (user, group) =
        text.split_once(':').map_or((text.as_str(), None), |(user, group)| (user, Some(group)));
    if user.is_empty() || group.is_some_and(|group| group.is_empty() || group.contains(':')) {
        diags.push(
            Diagnostic::error(&node.pos, format!("{path}: {text:?} is no user"))
                .expected("USER or USER:GROUP"),
        );
        return None;
    }
    Some(text)
}

fn deploy(service: &mut Service, node: &Node, path: &str, diags: &mut Diagnostics) -> Deploy {
    let mut deploy = Deploy::default();
    read::entries(node, path, diags, |entry, path, diags| {
        if entry.key == "replicas" {
            deploy.replicas = read::number(&entry.value, path, 0..=MAX_REPLICAS, diags);
            service.replicas_pos = Some(entry.value.pos.clone());
        }
    });
    deploy
}

const CONDITIONS: &[(&str, spec::Condition)] = &[
    ("service_started", spec::Condition::Started),
    ("service_healthy", spec::Condition::Healthy),
    ("service_completed_successfully", spec::Condition::Completed),
];

fn depends_on(service: &mut Service, node: &Node, path: &str, diags: &mut Diagnostics) {
    read::entries(node, path, diags, |entry, path, diags| {
        let mut dependency = Dependency {
            pos: entry.key_pos.clone(),
            condition: spec::Condition::Started,
            required: true,
            restart: false,
        };
        read::entries(&entry.value, path, diags, |entry, path, diags| match entry.key.as_str() {
            "condition" => {
                if let Some(condition) = read::choice(&entry.value, path, CONDITIONS, &[], diags) {
                    dependency.condition = condition;
                }
            }
            "required" => dependency.required = read::boolean(&entry.value, path, diags).unwrap_or(true),
            "restart" => dependency.restart = read::boolean(&entry.value, path, diags).unwrap_or(false),
            _ => {}
        });
        service.depends_on.insert(entry.key.clone(), dependency);
    });
}

fn restart(node: &Node, path: &str, diags: &mut Diagnostics) -> Option<(String, spec::Restart)> {
    let text = read::text(node, path, diags)?;
    let policy = match text {
        "no" => Some(spec::Restart::No),
        "always" | "unless-stopped" => Some(spec::Restart::Always),
        "on-failure" | "on-failure:0" => Some(spec::Restart::OnFailure(None)),
        _ => text
            .strip_prefix("on-failure:")
            .and_then(|count| count.parse().ok())
            .map(|count| spec::Restart::OnFailure(Some(count))),
    };
    if policy.is_none() {
        diags.push(
            Diagnostic::error(&node.pos, format!("{path}: {text:?} is no restart policy"))
                .expected("`no`, `always`, `unless-stopped`, `on-failure` or `on-failure:N`")
                .nearest(text, ["always", "unless-stopped", "on-failure"]),
        );
    }
    policy.map(|policy| (text.to_owned(), policy))
}
