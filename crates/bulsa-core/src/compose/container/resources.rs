//! Memory, processors, processes: the short keys, and `deploy.resources`.

use std::collections::BTreeMap;

use super::{
    super::{
        diagnostic::Diagnostics,
        model::Docker,
        read,
        tree::{Entry, Kind, Node},
    },
    devices,
    values::{self, ANY, fields},
};
use crate::spec::container::{BlockIo, Resources, Ulimit};

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
    read::entries(node, path, diags, |entry, path, diags| {
        let node = &entry.value;
        if let Kind::Scalar(_) = node.kind {
            if let Some(both) = values::integer(node, path, (-1, i64::MAX), diags) {
                limits.insert(entry.key.clone(), Ulimit { soft: both, hard: both });
            }
            return;
        }
        let (mut soft, mut hard) = (None, None);
        fields(node, path, diags, |entry, path, diags| {
            let found = values::integer(&entry.value, path, (-1, i64::MAX), diags);
            if entry.key == "soft" { soft = found } else { hard = found }
        });
        if let (Some(soft), Some(hard)) = (soft, hard) {
            limits.insert(entry.key.clone(), Ulimit { soft, hard });
        }
    });
    limits
}

fn block_io(node: &Node, path: &str, diags: &mut Diagnostics) -> BlockIo {
    let mut it = BlockIo::default();
    let weight = |node: &Node, path: &str, diags: &mut Diagnostics| {
        values::integer(node, path, (0, 1000), diags).and_then(|n| u16::try_from(n).ok())
    };
    fields(node, path, diags, |entry, path, diags| {
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
        fields(item, &path, diags, |entry, path, diags| {
            if entry.key == "path" {
                device = values::word(&entry.value, path, diags);
            } else {
                number = read(&entry.value, path, diags);
            }
        });
        all.extend(device.zip(number));
    }
    all
}

/// `deploy.resources`; that the short keys say the same has been checked.
pub(super) fn deploy(docker: &mut Docker, node: &Node, path: &str, diags: &mut Diagnostics) {
    let mut notes = Vec::new();
    let it: &mut Resources = &mut docker.container.resources;
    fields(node, path, diags, |entry, path, diags| {
        let node = &entry.value;
        if entry.key == "limits" {
            fields(node, path, diags, |entry, path, diags| {
                let node = &entry.value;
                match entry.key.as_str() {
                    "cpus" => it.cpus = values::decimal(node, path, diags),
                    "memory" => it.memory = values::bytes(node, path, false, diags),
                    _ => it.pids = values::integer(node, path, (-1, i64::MAX), diags),
                }
            });
            return;
        }
        fields(node, path, diags, |entry, path, diags| {
            let node = &entry.value;
            match entry.key.as_str() {
                "memory" => it.memory_reservation = values::bytes(node, path, false, diags),
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
