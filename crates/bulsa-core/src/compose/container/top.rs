//! The top's `networks`, `volumes`, `secrets` and `configs`, and what services name of them.
//!
//! Owns: their readers, and the lookup; that what a service names is there, and says once what is in it, has been
//! checked ([`super::super::defaults`]). Contents of secrets and configs are read only where a service has them.

use std::collections::BTreeMap;

use super::{
    super::{
        diagnostic::{Diagnostic, Diagnostics, Pos},
        model::{Docker, Grant, GrantKind, Project},
        paths, read,
        service::{Context, ReadError},
        tree::{Entry, Node},
    },
    values::{self, fields},
};
use crate::spec::container::{Attachment, BuildSecret, FileGrant, Network, Subnet, Volume};

/// The network of services that name none.
const DEFAULT: &str = "default";

/// Reads them, and gives the services what they name.
pub(in crate::compose) fn resolve(
    root: &Node,
    project: &mut Project,
    context: &mut Context<'_, '_>,
    diags: &mut Diagnostics,
) {
    let prefix = project.name.clone();
    project.networks =
        each(root, "networks", diags, |entry, path, diags| network(entry, path, &prefix, diags));
    project.volumes = each(root, "volumes", diags, |entry, path, diags| volume(entry, path, &prefix, diags));
    let secrets = each(root, "secrets", diags, |entry, path, diags| Some(source(entry, path, diags)));
    let configs = each(root, "configs", diags, |entry, path, diags| Some(source(entry, path, diags)));
    let Project { services, networks, .. } = project;
    for service in services.values_mut() {
        let path = format!("services.{}", service.name);
        let Some(docker) = &mut service.docker else { continue };
        join_networks(docker, networks, &prefix);
        for grant in std::mem::take(&mut docker.grants) {
            let all = if grant.kind == GrantKind::Secret { &secrets } else { &configs };
            let file = file(&grant, all, context, diags);
            docker.container.files.extend(file);
        }
        build_secrets(docker, &secrets, &path, context, diags);
    }
}

fn each<T>(
    root: &Node,
    key: &str,
    diags: &mut Diagnostics,
    mut read: impl FnMut(&Entry, &str, &mut Diagnostics) -> Option<T>,
) -> BTreeMap<String, T> {
    let Some(node) = root.get(key).filter(|node| !values::is_null(node)) else { return BTreeMap::new() };
    let entries = read::mapping(node, key, diags).unwrap_or_default();
    // Below these keys everything is a name, `x-…` too.
    entries
        .iter()
        .filter_map(|entry| Some((entry.key.clone(), read(entry, &format!("{key}.{}", entry.key), diags)?)))
        .collect()
}

/// What its full name is: as written, its key where it was made elsewhere, `PROJECT_KEY` otherwise.
fn full_name(name: Option<String>, external: bool, key: &str, prefix: &str) -> String {
    let key = key.to_owned();
    name.unwrap_or_else(|| if external { key } else { format!("{prefix}_{key}") })
}

fn network(entry: &Entry, path: &str, prefix: &str, diags: &mut Diagnostics) -> Option<Network> {
    let mut it = Network::default();
    let mut name = None;
    fields(&entry.value, path, diags, |entry, path, diags| {
        let node = &entry.value;
        match entry.key.as_str() {
            "name" => name = values::word(node, path, diags),
            "external" => it.external = read::boolean(node, path, diags).unwrap_or(false),
            "driver" => it.driver = values::word(node, path, diags),
            "driver_opts" => it.driver_options = values::pairs(node, path, diags),
            "internal" => it.internal = read::boolean(node, path, diags).unwrap_or(false),
            "attachable" => it.attachable = read::boolean(node, path, diags).unwrap_or(false),
            "enable_ipv4" => it.ipv4 = read::boolean(node, path, diags),
            "enable_ipv6" => it.ipv6 = read::boolean(node, path, diags),
            "labels" => it.labels = values::pairs(node, path, diags),
            _ => ipam(&mut it, node, path, diags),
        }
    });
    if it.driver.as_deref() == Some("overlay") {
        let pos = entry.value.get("driver").map_or(&entry.key_pos, |node| &node.pos);
        diags.push(
            Diagnostic::error(pos, format!("{path}: an overlay network needs Swarm"))
                .hint("remove `driver`: a bridge network reaches everything on this host"),
        );
    }
    it.name = full_name(name, it.external, &entry.key, prefix);
    Some(it)
}

fn ipam(network: &mut Network, node: &Node, path: &str, diags: &mut Diagnostics) {
    fields(node, path, diags, |entry, path, diags| {
        let node = &entry.value;
        match entry.key.as_str() {
            "driver" => network.ipam_driver = values::word(node, path, diags),
            "options" => network.ipam_options = values::pairs(node, path, diags),
            _ => {
                for (item, path) in values::items(node, path, diags) {
                    let mut subnet = Subnet::default();
                    fields(item, &path, diags, |entry, path, diags| {
                        let node = &entry.value;
                        match entry.key.as_str() {
                            "subnet" => subnet.subnet = values::word(node, path, diags),
                            "ip_range" => subnet.ip_range = values::word(node, path, diags),
                            "gateway" => subnet.gateway = values::word(node, path, diags),
                            _ => subnet.aux_addresses = values::pairs(node, path, diags),
                        }
                    });
                    network.subnets.push(subnet);
                }
            }
        }
    });
}

fn volume(entry: &Entry, path: &str, prefix: &str, diags: &mut Diagnostics) -> Option<Volume> {
    let mut it = Volume::default();
    let mut name = None;
    fields(&entry.value, path, diags, |entry, path, diags| {
        let node = &entry.value;
        match entry.key.as_str() {
            "name" => name = values::word(node, path, diags),
            "external" => it.external = read::boolean(node, path, diags).unwrap_or(false),
            "driver" => it.driver = values::word(node, path, diags),
            "driver_opts" => it.driver_options = values::pairs(node, path, diags),
            _ => it.labels = values::pairs(node, path, diags),
        }
    });
    it.name = full_name(name, it.external, &entry.key, prefix);
    Some(it)
}

/// Where a secret's or config's content comes from.
#[derive(Default)]
struct Source {
    file: Option<(String, Pos)>,
    environment: Option<(String, Pos)>,
    content: Option<String>,
    external: Option<Pos>,
}

fn source(entry: &Entry, path: &str, diags: &mut Diagnostics) -> Source {
    let mut it = Source::default();
    fields(&entry.value, path, diags, |entry, path, diags| {
        let node = &entry.value;
        let placed = |text: Option<String>| text.map(|text| (text, node.pos.clone()));
        match entry.key.as_str() {
            "file" => it.file = placed(values::word(node, path, diags)),
            "environment" => it.environment = placed(values::word(node, path, diags)),
            "content" => it.content = values::word(node, path, diags),
            "external" if read::boolean(node, path, diags) == Some(true) => {
                it.external = Some(node.pos.clone());
            }
            // A name and labels are for Swarm's own list of them; its other keys have been refused.
            _ => {}
        }
    });
    it
}

fn join_networks(docker: &mut Docker, networks: &mut BTreeMap<String, Network>, prefix: &str) {
    let container = &mut docker.container;
    if container.network_mode.is_some() {
        return;
    }
    if container.networks.is_empty() {
        container.networks.insert(DEFAULT.to_owned(), Attachment::default());
    }
    if container.networks.contains_key(DEFAULT) && !networks.contains_key(DEFAULT) {
        let name = full_name(None, false, DEFAULT, prefix);
        networks.insert(DEFAULT.to_owned(), Network { name, ..Network::default() });
    }
}

fn file(
    grant: &Grant,
    all: &BTreeMap<String, Source>,
    context: &mut Context<'_, '_>,
    diags: &mut Diagnostics,
) -> Option<FileGrant> {
    let source = all.get(&grant.source)?;
    let content = content(source, grant, context, diags)?;
    let directory = if grant.kind == GrantKind::Secret { "/run/secrets" } else { "/" };
    let target = grant.target.as_deref().unwrap_or(&grant.source);
    Some(FileGrant {
        name: grant.source.clone(),
        target: paths::join(directory, target),
        content,
        uid: grant.uid.clone(),
        gid: grant.gid.clone(),
        mode: grant.mode.or_else(|| mode(source, context)),
    })
}

/// A file that may be run stays so; Compose mounts the file itself. What else there is has the Engine's default.
fn mode(source: &Source, context: &Context<'_, '_>) -> Option<u32> {
    const TO_RUN: u32 = 0o555;
    let (file, _) = source.file.as_ref()?;
    (context.is_executable)(&paths::join(context.project_dir, file)).then_some(TO_RUN)
}

fn content(
    source: &Source,
    grant: &Grant,
    context: &mut Context<'_, '_>,
    diags: &mut Diagnostics,
) -> Option<Vec<u8>> {
    let (what, key) = match grant.kind {
        GrantKind::Secret => ("secrets", &grant.source),
        GrantKind::Config => ("configs", &grant.source),
    };
    if let Some(pos) = &source.external {
        diags.push(
            Diagnostic::error(pos, format!("{what}.{key}: `external` {what} are kept by Swarm, and there is none"))
                .hint("put the content into a file and say `file: PATH`, or name a variable with `environment: NAME`")
                .about_this_host(),
        );
        return None;
    }
    if let Some((file, pos)) = &source.file {
        let full = paths::join(context.project_dir, file);
        return match (context.read)(&full) {
            Ok(text) => Some(text.into_bytes()),
            Err(ReadError::NotText(bytes)) => Some(bytes),
            Err(error) => {
                diags.push(
                    Diagnostic::error(pos, format!("{what}.{key}: can't read {full}: {error}"))
                        .hint("the file must be there when the project is read")
                        .about_this_host(),
                );
                None
            }
        };
    }
    if let Some((name, pos)) = &source.environment {
        return variable(name, pos, &format!("{what}.{key}"), context, diags).map(String::into_bytes);
    }
    source.content.clone().map(String::into_bytes)
}

fn variable(
    name: &str,
    pos: &Pos,
    what: &str,
    context: &Context<'_, '_>,
    diags: &mut Diagnostics,
) -> Option<String> {
    let value = context.environment.get(name).map(str::to_owned);
    if value.is_none() {
        diags.push(
            Diagnostic::error(pos, format!("{what}: the variable `{name}` is not set"))
                .hint(format!("set it in the shell or in .env: {name}=…"))
                .about_this_host(),
        );
    }
    value
}

/// A builder reads the file itself, and is told the value of a variable.
fn build_secrets(
    docker: &mut Docker,
    secrets: &BTreeMap<String, Source>,
    path: &str,
    context: &Context<'_, '_>,
    diags: &mut Diagnostics,
) {
    let path = format!("{path}.build");
    for (id, key, pos) in &docker.build_secrets {
        let Some(source) = secrets.get(key) else { continue };
        let Some(build) = &mut docker.container.build else { continue };
        let secret = match (&source.file, &source.environment) {
            (Some((file, _)), _) => BuildSecret::File(paths::join(context.project_dir, file)),
            (None, Some((name, pos))) => {
                let Some(value) = variable(name, pos, &format!("secrets.{key}"), context, diags) else {
                    continue;
                };
                build.variables.insert(name.clone(), value);
                BuildSecret::Variable(name.clone())
            }
            (None, None) => {
                diags.push(
                    Diagnostic::error(
                        pos,
                        format!("{path}: the secret `{key}` is neither in a file nor in a variable, and a build reads no others"),
                    )
                    .hint("say `file: PATH` or `environment: NAME` in the secret"),
                );
                continue;
            }
        };
        build.secrets.insert(id.clone(), secret);
    }
}
