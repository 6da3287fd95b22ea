//! Rights and isolation: capabilities, devices, security options, name spaces.

use super::{
    super::{
        diagnostic::{Diagnostic, Diagnostics},
        model::Docker,
        paths, read,
        service::Context,
        tree::{Entry, Node},
    },
    values::{self, fields},
};

/// What a device may be used for where nothing is said.
const PERMISSIONS: &str = "rwm";

pub(super) fn key(
    docker: &mut Docker,
    entry: &Entry,
    path: &str,
    context: &mut Context<'_, '_>,
    diags: &mut Diagnostics,
) -> bool {
    let node = &entry.value;
    let it = &mut docker.container.isolation;
    match entry.key.as_str() {
        "cap_add" => it.cap_add = values::words(node, path, diags),
        "cap_drop" => it.cap_drop = values::words(node, path, diags),
        "privileged" => it.privileged = read::boolean(node, path, diags).unwrap_or(false),
        "read_only" => it.read_only = read::boolean(node, path, diags).unwrap_or(false),
        "security_opt" => it.security_options = security_options(node, path, context, diags),
        "devices" => it.devices = devices(node, path, diags),
        "device_cgroup_rules" => it.device_cgroup_rules = values::words(node, path, diags),
        "group_add" => it.group_add = values::words(node, path, diags),
        "sysctls" => it.sysctls = values::pairs(node, path, diags),
        "ipc" => it.ipc = values::word(node, path, diags),
        "pid" => it.pid = values::word(node, path, diags),
        "uts" => it.uts = values::word(node, path, diags),
        "userns_mode" => it.userns = values::word(node, path, diags),
        "cgroup" => {
            it.cgroup = read::choice(node, path, &[("host", "host"), ("private", "private")], &[], diags)
                .map(str::to_owned);
        }
        "cgroup_parent" => it.cgroup_parent = values::word(node, path, diags),
        "isolation" => it.technology = values::word(node, path, diags),
        _ => return false,
    }
    true
}

/// In the Engine's form `NAME=VALUE`; a seccomp profile is the file's text, since the Engine reads no file.
fn security_options(
    node: &Node,
    path: &str,
    context: &mut Context<'_, '_>,
    diags: &mut Diagnostics,
) -> Vec<String> {
    let mut options = Vec::new();
    for (item, path) in values::items(node, path, diags) {
        let Some(text) = values::word(item, &path, diags) else { continue };
        let Some((name, value)) = text.split_once('=').or_else(|| text.split_once(':')) else {
            if text == "no-new-privileges" {
                options.push(text);
            } else {
                diags.push(
                    Diagnostic::error(&item.pos, format!("{path}: {text:?} is no security option"))
                        .expected("no-new-privileges, or NAME:VALUE such as seccomp:unconfined"),
                );
            }
            continue;
        };
        if name != "seccomp" || matches!(value, "unconfined" | "builtin") {
            options.push(format!("{name}={value}"));
            continue;
        }
        let file = paths::join(context.project_dir, value);
        match (context.read)(&file) {
            Ok(profile) => match serde_json::from_str::<serde_json::Value>(&profile) {
                Ok(profile) => options.push(format!("seccomp={profile}")),
                Err(error) => diags.push(Diagnostic::error(
                    &item.pos,
                    format!("{path}: the seccomp profile {file} isn't JSON: {error}"),
                )),
            },
            Err(error) => diags.push(
                Diagnostic::error(
                    &item.pos,
                    format!("{path}: can't read the seccomp profile {file}: {error}"),
                )
                .hint("give the path of a profile, or `seccomp:unconfined`"),
            ),
        }
    }
    options
}

/// Source, target and permissions of each.
fn devices(node: &Node, path: &str, diags: &mut Diagnostics) -> Vec<(String, String, String)> {
    let mut devices = Vec::new();
    for (item, path) in values::items(node, path, diags) {
        let (mut source, mut target, mut permissions) = (None, None, None);
        fields(item, &path, diags, |entry, path, diags| {
            let found = values::word(&entry.value, path, diags);
            match entry.key.as_str() {
                "source" => source = found,
                "target" => target = found,
                _ => permissions = found,
            }
        });
        let Some(source) = source.filter(|source| !source.is_empty()) else {
            diags.push(
                Diagnostic::error(&item.pos, format!("{path} has no `source`")).expected("source: /dev/…"),
            );
            continue;
        };
        let target = target.unwrap_or_else(|| source.clone());
        devices.push((source, target, permissions.unwrap_or_else(|| PERMISSIONS.to_owned())));
    }
    devices
}
