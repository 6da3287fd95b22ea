//! What a container may use: memory, processors, devices.
//!
//! Owns: its resolved form; the rules of [`super`] hold for it. Never: knows the Engine's API.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// `deploy.resources` and the short keys.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Resources {
    /// `cpus`: how many processors' time.
    pub cpus: Option<f64>,
    /// `mem_limit`, bytes.
    pub memory: Option<i64>,
    /// `mem_reservation`, bytes.
    pub memory_reservation: Option<i64>,
    /// `memswap_limit`, bytes; -1 is no limit.
    pub memory_swap: Option<i64>,
    /// `mem_swappiness`, 0 to 100.
    pub memory_swappiness: Option<i64>,
    /// `pids_limit`; -1 is no limit.
    pub pids: Option<i64>,
    /// `cpu_shares`
    pub cpu_shares: Option<i64>,
    /// `cpu_period`, microseconds.
    pub cpu_period: Option<i64>,
    /// `cpu_quota`, microseconds.
    pub cpu_quota: Option<i64>,
    /// `cpu_rt_period`, microseconds.
    pub cpu_realtime_period: Option<i64>,
    /// `cpu_rt_runtime`, microseconds.
    pub cpu_realtime_runtime: Option<i64>,
    /// `cpuset`
    pub cpuset: Option<String>,
    /// `cpu_count` (Windows)
    pub cpu_count: Option<i64>,
    /// `cpu_percent` (Windows)
    pub cpu_percent: Option<i64>,
    /// `oom_kill_disable`
    pub oom_kill_disable: Option<bool>,
    /// `oom_score_adj`
    pub oom_score_adj: Option<i64>,
    /// `ulimits`
    pub ulimits: BTreeMap<String, Ulimit>,
    /// `blkio_config`
    pub block_io: Option<BlockIo>,
    /// `gpus` and `deploy.resources.reservations.devices`
    pub device_requests: Vec<DeviceRequest>,
}

/// One entry of `ulimits`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ulimit {
    /// The soft limit.
    pub soft: i64,
    /// The hard limit.
    pub hard: i64,
}

/// `blkio_config`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BlockIo {
    /// 10 to 1000; 0 is the default.
    pub weight: Option<u16>,
    /// By device.
    pub weight_device: Vec<(String, u16)>,
    /// Bytes a second, by device.
    pub device_read_bps: Vec<(String, i64)>,
    /// Bytes a second, by device.
    pub device_write_bps: Vec<(String, i64)>,
    /// Operations a second, by device.
    pub device_read_iops: Vec<(String, i64)>,
    /// Operations a second, by device.
    pub device_write_iops: Vec<(String, i64)>,
}

/// A request for devices such as GPUs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DeviceRequest {
    /// `driver`
    pub driver: Option<String>,
    /// How many; -1 is all.
    pub count: Option<i64>,
    /// By id instead.
    pub device_ids: Vec<String>,
    /// Any of these sets.
    pub capabilities: Vec<Vec<String>>,
    /// `options`
    pub options: BTreeMap<String, String>,
}
