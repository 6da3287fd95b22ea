//! What a replica on the docker engine is made of: the image and everything that the Engine is told beside it.
//!
//! Owns: the resolved form of every compose key that says how a container is built and run. These types are part of
//! the stored form of a release ([`crate::wire::spec`], version 1): a field that is added has a default, and none
//! changes its meaning. Sizes are in bytes, times in nanoseconds where the Engine has them so, else [`Duration`].
//!
//! Never: knows a container's id, an address, or the Engine's API; that is the agent's docker engine.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use serde::{Deserialize, Serialize};

/// How the replicas of a service are made on the docker engine.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Container {
    /// The image as the file names it (`shop:1.4`); `PROJECT-SERVICE` for one that is only built.
    pub image: String,
    /// The image that this release means, by its id (`sha256:…`); `None` until the release is made.
    pub image_id: Option<String>,
    /// How it is built.
    pub build: Option<Build>,
    /// When it is pulled.
    pub pull_policy: PullPolicy,
    /// `os/arch[/variant]`.
    pub platform: Option<String>,
    /// The name that the file gives the container. An `app` service has it as an alias on its networks.
    pub container_name: Option<String>,
    /// Replaces the image's entrypoint; an empty list removes it.
    pub entrypoint: Option<Vec<String>>,
    /// Replaces the image's command.
    pub command: Option<Vec<String>>,
    /// Inside the container; the image's where the file says nothing.
    pub working_dir: Option<String>,
    /// `hostname`
    pub hostname: Option<String>,
    /// `domainname`
    pub domainname: Option<String>,
    /// The file's labels, `label_file` included. Compose's and our own are not in it.
    pub labels: BTreeMap<String, String>,
    /// `annotations`
    pub annotations: BTreeMap<String, String>,
    /// `volumes`: named, anonymous, binds; and `tmpfs` in its long form.
    pub mounts: Vec<Mount>,
    /// The short form of `tmpfs`, by path, with its options (`size=64m`, or empty).
    pub tmpfs: BTreeMap<String, String>,
    /// `volumes_from`: `service[:ro]` or `container:NAME[:ro]`.
    pub volumes_from: Vec<String>,
    /// The networks that it joins, by their key in the file. Empty with [`Container::network_mode`].
    pub networks: BTreeMap<String, Attachment>,
    /// `network_mode`, where it isn't a set of networks.
    pub network_mode: Option<NetworkMode>,
    /// The ports that the file says it listens on: `expose`, and the targets of `ports`. After the release is made,
    /// the image's too.
    pub expose: Vec<PortNumber>,
    /// The ports that Docker publishes: those of a `shared` service. What Bulsa publishes is in
    /// [`super::Service::ports`].
    pub published: Vec<Published>,
    /// The ports at which the service's name is served by Bulsa inside the project's networks, through an anchor.
    /// Empty: the replicas carry the name themselves.
    pub anchor: Vec<u16>,
    /// `extra_hosts`, in the order of the file: name and address, or `host-gateway`.
    pub extra_hosts: Vec<(String, String)>,
    /// `dns`
    pub dns: Vec<String>,
    /// `dns_search`
    pub dns_search: Vec<String>,
    /// `dns_opt`
    pub dns_options: Vec<String>,
    /// `links`: service and the alias that it has here.
    pub links: Vec<(String, String)>,
    /// `external_links`, as written.
    pub external_links: Vec<String>,
    /// `healthcheck`, as Docker itself is to run it; `None` leaves the image's.
    pub healthcheck: Option<Healthcheck>,
    /// Memory, processors and other bounds.
    pub resources: Resources,
    /// Rights and isolation.
    pub isolation: Isolation,
    /// `init`
    pub init: Option<bool>,
    /// `tty`
    pub tty: bool,
    /// `stdin_open`
    pub stdin_open: bool,
    /// `logging`; `None` leaves the Engine's default.
    pub logging: Option<Logging>,
    /// `runtime`
    pub runtime: Option<String>,
    /// `shm_size`, in bytes.
    pub shm_size: Option<i64>,
    /// `storage_opt`
    pub storage_options: BTreeMap<String, String>,
    /// `stop_signal` as written (`SIGQUIT`, `3`); `None` leaves the image's.
    pub stop_signal: Option<String>,
    /// `secrets` and `configs`, with what is in them.
    pub files: Vec<FileGrant>,
    /// `post_start`
    pub post_start: Vec<Hook>,
    /// `pre_stop`
    pub pre_stop: Vec<Hook>,
    /// `restart` in Docker's own words (`no`, `always`, `unless-stopped`, `on-failure:N`), for what Docker restarts:
    /// a `shared` service. `None`: the file says nothing.
    pub docker_restart: Option<String>,
    /// Notes on keys that were understood and can't be kept on this engine, for the plan.
    pub notes: Vec<String>,
}

/// `build`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Build {
    /// The directory, absolute, or a URL.
    pub context: String,
    /// Relative to the context, or absolute.
    pub dockerfile: Option<String>,
    /// The Dockerfile's text, where the file has it.
    pub dockerfile_inline: Option<String>,
    /// `args`; those without a value anywhere are left out.
    pub args: BTreeMap<String, String>,
    /// `target`
    pub target: Option<String>,
    /// `labels`
    pub labels: BTreeMap<String, String>,
    /// `cache_from`
    pub cache_from: Vec<String>,
    /// `cache_to`
    pub cache_to: Vec<String>,
    /// `additional_contexts`
    pub additional_contexts: BTreeMap<String, String>,
    /// `extra_hosts`
    pub extra_hosts: Vec<(String, String)>,
    /// `network`
    pub network: Option<String>,
    /// `no_cache`
    pub no_cache: bool,
    /// `pull`
    pub pull: bool,
    /// `platforms`
    pub platforms: Vec<String>,
    /// `privileged`
    pub privileged: bool,
    /// `shm_size`, in bytes.
    pub shm_size: Option<i64>,
    /// `ssh`, as written.
    pub ssh: Vec<String>,
    /// `secrets`: id and the file that holds it.
    pub secrets: BTreeMap<String, String>,
    /// `tags`
    pub tags: Vec<String>,
    /// `ulimits`
    pub ulimits: BTreeMap<String, Ulimit>,
    /// `isolation`
    pub isolation: Option<String>,
    /// `entitlements`
    pub entitlements: Vec<String>,
    /// `provenance`
    pub provenance: Option<String>,
    /// `sbom`
    pub sbom: Option<String>,
}

/// `pull_policy`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PullPolicy {
    /// The file says nothing: an `app`'s image is pulled at each deploy (a tag may have moved), any other when missing.
    #[default]
    Default,
    /// `always`
    Always,
    /// `missing`, `if_not_present`
    Missing,
    /// `never`
    Never,
    /// `build`
    Build,
    /// `daily`, `weekly`, `every_…`: when the local one is older, in seconds.
    Older(u64),
}

/// One entry of `volumes`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Absolute, in the container.
    pub target: String,
    /// What is there.
    pub source: MountSource,
    /// `read_only`
    #[serde(default)]
    pub read_only: bool,
    /// `consistency`, as written.
    #[serde(default)]
    pub consistency: Option<String>,
}

/// What is mounted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MountSource {
    /// A volume, by its key in the file; `None` is an anonymous one.
    Volume {
        /// The key in [`super::Spec::volumes`].
        name: Option<String>,
        /// `nocopy`
        #[serde(default)]
        no_copy: bool,
        /// `subpath`
        #[serde(default)]
        subpath: Option<String>,
        /// `labels`
        #[serde(default)]
        labels: BTreeMap<String, String>,
    },
    /// A path of this host.
    Bind {
        /// Absolute.
        path: String,
        /// Whether it is made where it is missing.
        #[serde(default)]
        create: bool,
        /// `propagation`
        #[serde(default)]
        propagation: Option<String>,
        /// `selinux`: `z` or `Z`
        #[serde(default)]
        selinux: Option<String>,
        /// `recursive`
        #[serde(default)]
        recursive: Option<String>,
    },
    /// Memory.
    Tmpfs {
        /// Bytes.
        #[serde(default)]
        size: Option<i64>,
        /// Permission bits.
        #[serde(default)]
        mode: Option<u32>,
    },
    /// `npipe`, `cluster` or `image`: the type and the source, as written.
    Other {
        /// The type.
        kind: String,
        /// The source.
        source: String,
        /// `subpath` of an image.
        #[serde(default)]
        subpath: Option<String>,
    },
}

/// How a service joins a network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Attachment {
    /// Further names, besides the service's own.
    pub aliases: Vec<String>,
    /// `ipv4_address`
    pub ipv4: Option<Ipv4Addr>,
    /// `ipv6_address`
    pub ipv6: Option<Ipv6Addr>,
    /// `link_local_ips`
    pub link_local_ips: Vec<String>,
    /// `mac_address`
    pub mac_address: Option<String>,
    /// `driver_opts`
    pub driver_options: BTreeMap<String, String>,
    /// `priority`: higher ones are joined first.
    pub priority: i64,
    /// `gw_priority`
    pub gateway_priority: Option<i64>,
    /// `interface_name`
    pub interface_name: Option<String>,
}

/// `network_mode`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NetworkMode {
    /// `none`
    None,
    /// `host`
    Host,
    /// `bridge`: the Engine's default one.
    Bridge,
    /// `service:NAME`
    Service(String),
    /// `container:NAME`
    Container(String),
    /// A network that was made elsewhere, by name.
    Named(String),
}

/// A port and its protocol (`tcp`, `udp`, `sctp`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PortNumber {
    /// The number.
    pub port: u16,
    /// The protocol.
    pub protocol: String,
}

/// A port that Docker publishes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// The host's address; `None` is every one.
    pub host: Option<IpAddr>,
    /// A port or a range (`8000-8010`); `None` lets the system choose.
    pub published: Option<String>,
    /// The container's port.
    pub target: u16,
    /// `tcp`, `udp`, `sctp`
    pub protocol: String,
}

/// `healthcheck`, for Docker's own runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Healthcheck {
    /// `["NONE"]`, `["CMD", …]` or `["CMD-SHELL", …]`; empty leaves the image's.
    pub test: Vec<String>,
    /// From one run to the next.
    pub interval: Option<Duration>,
    /// A run that takes longer has failed.
    pub timeout: Option<Duration>,
    /// Failures don't count for so long.
    pub start_period: Option<Duration>,
    /// From one run to the next within the start period (Engine 25 and newer).
    pub start_interval: Option<Duration>,
    /// So many failures in a row.
    pub retries: Option<u32>,
}

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

/// Rights and isolation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Isolation {
    /// `cap_add`
    pub cap_add: Vec<String>,
    /// `cap_drop`
    pub cap_drop: Vec<String>,
    /// `privileged`
    pub privileged: bool,
    /// `read_only`
    pub read_only: bool,
    /// `security_opt`, in the Engine's form (`seccomp=` with the file's text, `no-new-privileges`).
    pub security_options: Vec<String>,
    /// `devices`: host path, container path, permissions.
    pub devices: Vec<(String, String, String)>,
    /// `device_cgroup_rules`
    pub device_cgroup_rules: Vec<String>,
    /// `group_add`
    pub group_add: Vec<String>,
    /// `sysctls`
    pub sysctls: BTreeMap<String, String>,
    /// `ipc`
    pub ipc: Option<String>,
    /// `pid`
    pub pid: Option<String>,
    /// `uts`
    pub uts: Option<String>,
    /// `userns_mode`
    pub userns: Option<String>,
    /// `cgroup`: `host` or `private`
    pub cgroup: Option<String>,
    /// `cgroup_parent`
    pub cgroup_parent: Option<String>,
    /// `isolation` (Windows)
    pub technology: Option<String>,
    /// `mac_address` of the service itself
    pub mac_address: Option<String>,
}

/// `logging`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Logging {
    /// `driver`
    pub driver: Option<String>,
    /// `options`
    pub options: BTreeMap<String, String>,
}

/// A secret or a config as it is put into a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FileGrant {
    /// Its key in the file, for messages.
    pub name: String,
    /// Absolute, in the container.
    pub target: String,
    /// What is in it.
    pub content: Vec<u8>,
    /// The owner; the Engine's default where the file says nothing.
    pub uid: Option<String>,
    /// The group.
    pub gid: Option<String>,
    /// Permission bits; 0444 where the file says nothing.
    pub mode: Option<u32>,
}

/// `post_start` or `pre_stop`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Hook {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// `user`
    pub user: Option<String>,
    /// `privileged`
    pub privileged: bool,
    /// `working_dir`
    pub working_dir: Option<String>,
    /// `environment`
    pub environment: BTreeMap<String, String>,
}

/// One entry of the top's `networks`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Network {
    /// The Engine's name of it: `PROJECT_KEY`, or what `name` says.
    pub name: String,
    /// Whether it was made elsewhere and must exist.
    pub external: bool,
    /// `driver`; the Engine's default is `bridge`.
    pub driver: Option<String>,
    /// `driver_opts`
    pub driver_options: BTreeMap<String, String>,
    /// `ipam.driver`
    pub ipam_driver: Option<String>,
    /// `ipam.options`
    pub ipam_options: BTreeMap<String, String>,
    /// `ipam.config`
    pub subnets: Vec<Subnet>,
    /// `internal`
    pub internal: bool,
    /// `attachable`
    pub attachable: bool,
    /// `enable_ipv4`
    pub ipv4: Option<bool>,
    /// `enable_ipv6`
    pub ipv6: Option<bool>,
    /// `labels`
    pub labels: BTreeMap<String, String>,
}

/// One entry of `ipam.config`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Subnet {
    /// `subnet`, in CIDR form.
    pub subnet: Option<String>,
    /// `ip_range`, in CIDR form.
    pub ip_range: Option<String>,
    /// `gateway`
    pub gateway: Option<String>,
    /// `aux_addresses`
    pub aux_addresses: BTreeMap<String, String>,
}

/// One entry of the top's `volumes`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Volume {
    /// The Engine's name of it: `PROJECT_KEY`, or what `name` says.
    pub name: String,
    /// Whether it was made elsewhere and must exist.
    pub external: bool,
    /// `driver`; the Engine's default is `local`.
    pub driver: Option<String>,
    /// `driver_opts`
    pub driver_options: BTreeMap<String, String>,
    /// `labels`
    pub labels: BTreeMap<String, String>,
}

/// What is known of an image once it is on this host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageFacts {
    /// Its id, `sha256:…`.
    pub id: String,
    /// EXPOSE
    pub expose: Vec<PortNumber>,
    /// HEALTHCHECK
    pub healthcheck: Option<Healthcheck>,
    /// VOLUME: paths that get an anonymous volume.
    pub volumes: Vec<String>,
    /// STOPSIGNAL
    pub stop_signal: Option<String>,
}
