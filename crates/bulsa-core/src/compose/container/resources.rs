//! Memory, processors, processes: the short keys, and `deploy.resources`.

use std::collections::BTreeMap;

use super::{
    super::{
        diagnostic::{Diagnostic, Diagnostics, Pos},
        model::Docker,
        read,
        tree::{Entry, Kind, Node},
    },
    devices,
    values::{self, ANY, fields},
};
use crate::spec::container::{BlockIo, Resources, Ulimit};

const LIMITS: &[&str] = &["cpus", "memory", "pids"];
const RESERVATIONS: &[&str] = &["cpus", "devices", "generic_resources", "memory"];
const BLOCK_IO: &[&str] = &[
    "device_read_bps",
    "device_read_iops",
    "device_write_bps",
    "device_write_iops",
    "weight",
    "weight_device",
];
/// Compose prints these names in capitals.
const BY_DEVICE: &[&str] = &["path", "rate", "weight", "Path", "Rate", "Weight"];

pub(super) fn key(docker: &mut Docker, entry: &Entry, path: &str, diags: &mut Diagnostics) -> bool {
    let node = &entry.value;
    let it = &mut docker.container.resources;
    match entry.key.as_str() {
        "cpus" => it.cpus = values::decimal(node, path, diags),
        "mem_limit" => it.memory = values::bytes(node, path, false, diags),
        "mem_reservation" => it.memory_reservation = values::bytes(node, path, false, diags),
        "memswap_limit" => it.memory_swap = values::bytes(node, path, true, diags),
        "mem_swappiness" => it.memory_swappiness = values::integer(node, path, (0, 100), diags),
        "pids_limit" => it.pids = values::integer(node, path, (-1, i64::MAX), diags),
        "cpu_shares" => it.cpu_shares = values::integer(node, path, (0, i64::MAX), diags),
        "cpu_period" => it.cpu_period = values::integer(node, path, (0, i64::MAX), diags),
        "cpu_quota" => it.cpu_quota = values::integer(node, path, ANY, diags),
        "cpu_rt_period" => it.cpu_realtime_period = values::integer(node, path, (0, i64::MAX), diags),
        "cpu_rt_runtime" => it.cpu_realtime_runtime = values::integer(node, path, (0, i64::MAX), diags),
        "cpuset" => it.cpuset = values::word(node, path, diags),
        "cpu_count" => it.cpu_count = values::integer(node, path, (0, i64::MAX), diags),
        "cpu_percent" => it.cpu_percent = values::decimal(node, path, diags).map(|n| n as i64),
        "oom_kill_disable" => it.oom_kill_disable = read::boolean(node, path, diags),
        "oom_score_adj" => it.oom_score_adj = values::integer(node, path, (-1000, 1000), diags),
        "ulimits" => it.ulimits = ulimits(node, path, diags),
        "blkio_config" => it.block_io = Some(block_io(node, path, diags)),
        "gpus" => it.device_requests.extend(devices::requests(node, path, true, diags)),
        _ => return false,
    }
    true
}

pub(super) fn ulimits(node: &Node, path: &str, diags: &mut Diagnostics) -> BTreeMap<String, Ulimit> {
    let mut limits = BTreeMap::new();
    for entry in read::mapping(node, path, diags).unwrap_or_default() {
        let path = format!("{path}.{}", entry.key);
        let node = &entry.value;
        if let Kind::Scalar(_) = node.kind {
            if let Some(both) = values::integer(node, &path, (-1, i64::MAX), diags) {
                limits.insert(entry.key.clone(), Ulimit { soft: both, hard: both });
            }
            continue;
        }
        let (mut soft, mut hard) = (None, None);
        fields(node, &path, &["hard", "soft"], diags, |entry, path, diags| {
            let found = values::integer(&entry.value, path, (-1, i64::MAX), diags);
            if entry.key == "soft" { soft = found } else { hard = found }
        });
        match (soft, hard) {
            (Some(soft), Some(hard)) => {
                limits.insert(entry.key.clone(), Ulimit { soft, hard });
            }
            _ => diags.push(
                Diagnostic::error(&node.pos, format!("{path} needs both of its limits"))
                    .expected("a number, or {soft: 1024, hard: 2048}"),
            ),
        }
    }
    limits
}

fn block_io(node: &Node, path: &str, diags: &mut Diagnostics) -> BlockIo {
    let mut it = BlockIo::default();
    let weight = |node: &Node, path: &str, diags: &mut Diagnostics| {
        values::integer(node, path, (0, 1000), diags).and_then(|n| u16::try_from(n).ok())
    };
    fields(node, path, BLOCK_IO, diags, |entry, path, diags| {
        let node = &entry.value;
        match entry.key.as_str() {
            "weight" => it.weight = weight(node, path, diags),
            "weight_device" => it.weight_device = by_device(node, path, diags, &weight),
            "device_read_bps" => it.device_read_bps = by_device(node, path, diags, &rate),
            "device_write_bps" => it.device_write_bps = by_device(node, path, diags, &rate),
            "device_read_iops" => it.device_read_iops = by_device(node, path, diags, &rate),
            _ => it.device_write_iops = by_device(node, path, diags, &rate),
        }
    });
    it
}

fn rate(node: &Node, path: &str, diags: &mut Diagnostics) -> Option<i64> {
    values::bytes(node, path, false, diags)
}

fn by_device<T>(
    node: &Node,
    path: &str,
    diags: &mut Diagnostics,
    read: &dyn Fn(&Node, &str, &mut Diagnostics) -> Option<T>,
) -> Vec<(String, T)> {
    let mut all = Vec::new();
    for (item, path) in values::items(node, path, diags) {
        let (mut device, mut number) = (None, None);
        fields(item, &path, BY_DEVICE, diags, |entry, path, diags| {
            if entry.key.eq_ignore_ascii_case("path") {
                device = values::word(&entry.value, path, diags);
            } else {
                number = read(&entry.value, path, diags);
            }
        });
        all.extend(device.zip(number));
    }
    all
}

/// `deploy.resources`; the same thing said twice must be said alike.
pub(super) fn deploy(docker: &mut Docker, service: &Node, node: &Node, path: &str, diags: &mut Diagnostics) {
    let short =
        |key: &str| service.get(key).filter(|node| !values::is_null(node)).map(|node| node.pos.clone());
    let mut notes = Vec::new();
    let it: &mut Resources = &mut docker.container.resources;
    fields(node, path, &["limits", "reservations"], diags, |entry, path, diags| {
        let node = &entry.value;
        if entry.key == "limits" {
            fields(node, path, LIMITS, diags, |entry, path, diags| {
                let node = &entry.value;
                match entry.key.as_str() {
                    "cpus" => {
                        let found = values::decimal(node, path, diags);
                        same(&mut it.cpus, found, short("cpus"), ("cpus", path), diags);
                    }
                    "memory" => {
                        let found = values::bytes(node, path, false, diags);
                        same(&mut it.memory, found, short("mem_limit"), ("mem_limit", path), diags);
                    }
                    _ => {
                        let found = values::integer(node, path, (-1, i64::MAX), diags);
                        same(&mut it.pids, found, short("pids_limit"), ("pids_limit", path), diags);
                    }
                }
            });
            return;
        }
        fields(node, path, RESERVATIONS, diags, |entry, path, diags| {
            let node = &entry.value;
            match entry.key.as_str() {
                "memory" => {
                    let found = values::bytes(node, path, false, diags);
                    let key = "mem_reservation";
                    same(&mut it.memory_reservation, found, short(key), (key, path), diags);
                }
                "devices" => it.device_requests.extend(devices::requests(node, path, false, diags)),
                "cpus" => {
                    notes.push("`deploy.resources.reservations.cpus` reserves nothing on a single Engine");
                }
                _ => notes.push(
                    "`deploy.resources.reservations.generic_resources` means something in a Swarm only",
                ),
            }
        });
    });
    docker.container.notes.extend(notes.into_iter().map(str::to_owned));
}

fn same<T: PartialEq>(
    field: &mut Option<T>,
    found: Option<T>,
    short: Option<Pos>,
    (key, path): (&str, &str),
    diags: &mut Diagnostics,
) {
    let Some(found) = found else { return };
    if let (Some(other), Some(pos)) = (&*field, short)
        && *other != found
    {
        diags.push(
            Diagnostic::error(&pos, format!("`{key}` says something else than {path}"))
                .hint("keep one of the two"),
        );
    }
    *field = Some(found);
}
