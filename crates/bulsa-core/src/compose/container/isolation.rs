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
use crate::spec::container::DeviceRequest;

/// What a device may be used for where nothing is said.
const PERMISSIONS: &str = "rwm";

/// What a client makes of it, the Engine doesn't know: nothing of `/proc` and `/sys` is hidden or read-only.
const SYSTEM_PATHS: &str = "systempaths=unconfined";

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
        "security_opt" => {
            let options = security_options(node, path, context, diags);
            let (paths, options) = options.into_iter().partition(|option| option == SYSTEM_PATHS);
            let paths: Vec<String> = paths;
            (it.unconfined_paths, it.security_options) = (!paths.is_empty(), options);
        }
        "devices" => {
            let (named, mapped) =
                devices(node, path, diags).into_iter().partition(|(source, ..)| is_cdi(source));
            it.devices = mapped;
            docker.container.resources.device_requests.extend(cdi(named));
        }
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

/// Whether it is a device's name by the Container Device Interface, `vendor.com/class=name`, and no path.
fn is_cdi(source: &str) -> bool {
    !source.starts_with('/') && source.split_once('/').is_some_and(|(_, rest)| rest.contains('='))
}

/// The Engine is asked for named devices in one request, as Compose does.
fn cdi(named: Vec<(String, String, String)>) -> Option<DeviceRequest> {
    let device_ids: Vec<String> = named.into_iter().map(|(source, ..)| source).collect();
    let driver = Some("cdi".to_owned());
    (!device_ids.is_empty()).then(|| DeviceRequest { driver, device_ids, ..DeviceRequest::default() })
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
